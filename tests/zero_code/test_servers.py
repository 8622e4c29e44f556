"""Real applications under real servers, with no code or one line of it: what reaches the sandbox."""

from __future__ import annotations

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from zero_code.running import KEY, UWSGI, App, Trade, check, environment, sandboxed, tool

from otel_amplitude.identity import make_cookie

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(150)]

# A worker that is told to end while it boots does not hear it: gunicorn kills it in the end, and it has served nobody.
_GUNICORN = (tool("gunicorn"), "--no-control-socket", "--graceful-timeout", "10", "--bind", "127.0.0.1:{port}")
_UVICORN = (tool("uvicorn"), "--port", "{port}")
_ALL = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": ""}
_DJANGO = {"DJANGO_SETTINGS_MODULE": "django_settings", **_ALL}
_GEVENT = {"OTEL_PYTHON_AUTO_INSTRUMENTATION_EXPERIMENTAL_GEVENT_PATCH": "patch_all"}
_STABLE, _BOTH = ({"OTEL_SEMCONV_STABILITY_OPT_IN": names} for names in ("http", "http/dup"))

SERVERS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "Flask, gunicorn sync": ((*_GUNICORN, "--workers", "2", "flask_shop:app"), {}),
    "Flask, gunicorn gthread, preloaded": ((*_GUNICORN, "-k", "gthread", "--threads", "4", "--preload", "flask_shop:app"), _STABLE),
    "Flask, gunicorn with a new worker each 12 requests": ((*_GUNICORN, "--max-requests", "12", "flask_shop:app"), {}),
    "Flask, gunicorn gevent": ((*_GUNICORN, "-k", "gevent", "flask_shop:app"), _GEVENT),
    "Flask, uWSGI": ((*UWSGI, "flask_shop:app"), {}),
    "Flask, its development server": ((tool("flask"), "--app", "flask_shop", "run", "--port", "{port}"), _BOTH),
    "FastAPI, uvicorn": ((*_UVICORN, "fastapi_shop:app"), {}),
    "FastAPI, uvicorn with two workers": ((*_UVICORN, "--workers", "2", "--timeout-worker-healthcheck", "60", "fastapi_shop:app"), _BOTH),
    "FastAPI, gunicorn with uvicorn workers": (
        (*_GUNICORN, "-k", "uvicorn_worker.UvicornWorker", "--workers", "2", "fastapi_shop:app"),
        _STABLE,
    ),
    "Django, runserver": ((tool("python"), "-m", "django", "runserver", "--noreload", "--skip-checks", "127.0.0.1:{port}"), _DJANGO),
    "Django, gunicorn": ((*_GUNICORN, "django_shop:application"), _DJANGO | _STABLE),
    "Django, uvicorn": ((*_UVICORN, "django_shop:asgi"), _DJANGO | _BOTH),
    "Starlette, uvicorn": ((*_UVICORN, "starlette_shop:app"), {}),
    "aiohttp": ((tool("python"), "aiohttp_shop.py", "{port}"), _ALL),
    "Falcon, gunicorn": ((*_GUNICORN, "falcon_shop:app"), _ALL),
    "Tornado": ((tool("python"), "tornado_shop.py", "{port}"), _ALL),
}


@pytest.mark.parametrize("server", SERVERS)
def test_each_event_arrives_once_with_user_device_and_session(server: str) -> None:
    """Visitors in, SIGTERM: each request of a known user is one event, on one spelling of its route; the rest is counted."""
    command, variables = SERVERS[server]
    trade = Trade()
    with sandboxed() as sandbox, App(command, environment(sandbox.url, **variables)) as app:
        trade.visit(app)
        if "uWSGI" in server:
            app.until_idle()
        app.stop()
        events = check(sandbox, app, trade)
        assert "exporter.started" in app.output
    automatic = [event for event in events if event["event_type"] == "HTTP Request"]
    assert len(automatic) == 43
    assert {tuple(sorted(event["event_properties"])) for event in automatic} == {
        ("duration_ms", "method", "route", "service", "status_code", "trace_id")
    }


@pytest.mark.parametrize("server", ["FastAPI, uvicorn", "FastAPI, gunicorn with uvicorn workers"])
def test_a_request_that_ends_after_sigterm_counts(server: str, tmp_path: Path) -> None:
    """A server that lets its last request finish, and then ends by the signal itself, still delivers that request's event."""
    with sandboxed() as sandbox, App(SERVERS[server][0], environment(sandbox.url)) as app, ThreadPoolExecutor() as pool:
        cookie = make_cookie(KEY, "browser-1-device")
        assert app.request("GET", "/products/1", Cookie=cookie)[0] == 200
        last = pool.submit(app.request, "GET", f"/slow?until={tmp_path / 'file'}", Cookie=cookie)
        app.until("slow began")
        app.process.send_signal(signal.SIGTERM)
        app.until("hutting down")
        (tmp_path / "file").touch()
        assert last.result(20)[0] == 200
        app.wait()
        assert sorted(event["event_properties"]["route"] for event in sandbox.events()) == ["/products/{pid}", "/slow"], app.output
        assert app.books["accepted"] == app.books["acknowledged"] == 2, app.output


def test_old_and_stable_names_give_the_same_event() -> None:
    """Whatever names the instrumentation uses for HTTP, the event is the same but for ids and times."""
    found: list[Any] = []
    for names in ({}, _STABLE, _BOTH):
        trade = Trade()
        with sandboxed() as sandbox, App(SERVERS["FastAPI, uvicorn"][0], environment(sandbox.url, **names)) as app:
            trade.visit(app, products=1)
            app.stop()
            found.append(sorted(_timeless(event) for event in check(sandbox, app, trade)))  # different users' may travel side by side
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 5


def _timeless(event: dict[str, Any]) -> str:
    properties = {name: value for name, value in event["event_properties"].items() if name not in ("duration_ms", "trace_id")}
    return json.dumps({**event, "event_properties": properties, "time": 0, "insert_id": "", "session_id": 0}, sort_keys=True)
