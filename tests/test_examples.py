"""Every example is run as its docstring says, against the sandbox, and what arrived is checked."""

from __future__ import annotations

import ast
import contextlib
import http.client
import os
import re
import socket
import sys
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from zero_code.running import KEY, UWSGI, Program, free_port, tool

from otel_amplitude.identity import make_cookie
from otel_amplitude.sandbox import Sandbox

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(120)]

EXAMPLES = Path(__file__).parents[1] / "examples"
PROGRAMS = sorted(path for path in EXAMPLES.rglob("*.py") if path.parent.name != "screenshots" and "node_modules" not in path.parts)
PYTHON = sys.executable


def environment(url: str, **more: str) -> dict[str, str]:
    """What a user of the example has set."""
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": os.environ.get("HOME", "/"),
        "PYTHONUNBUFFERED": "1",
        "OTEL_EXPORTER_AMPLITUDE_API_KEY": KEY,
        "OTEL_EXPORTER_AMPLITUDE_SERVER_URL": f"{url}/2/httpapi",
        **more,
    }


def facts(event: dict[str, Any]) -> tuple[str, str | None]:
    return event["event_type"], event.get("user_id") or event.get("device_id")


# --- programs that end by themselves ---------------------------------------------------------------------------------------------

SCRIPTS: dict[str, list[tuple[str, str]]] = {
    "plain_script.py": [
        ("File Imported", "u-12345"),
        ("File Imported", "u-12345"),
        ("Import Finished", "u-12345"),
        ("$identify", "u-12345"),
    ],
    "celery_tasks.py": [("Receipt Sent", "alice-1"), ("Receipt Sent", "bob-22")],
    "structlog_events.py": [("Order Paid", "u-12345"), ("Coupon Used", "u-12345")],
    "middleware_catalogue.py": [("Order Paid", "u-12345"), ("Page Seen", "u-12345")],
    "own_transports.py": [("Order Paid", "u-12345")],
    "file_exporter.py": [],  # its events go to a file: tests/delivery/test_file_exporter.py
    "lambda_handler.py": [("Order Paid", "u-12345"), ("Order Paid", "u-12345")],
}


def run(command: list[str], env: dict[str, str]) -> str:
    """Run a program to its good end; give what it said."""
    with Program(command, env) as program:
        assert program.wait() == 0, program.output
        return program.output


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_gives_its_events(name: str) -> None:
    """For each user in the order made, each once, and none more."""
    with Sandbox(api_keys=[KEY]) as sandbox:
        said = run([PYTHON, str(EXAMPLES / name)], environment(sandbox.url, PYTHONWARNINGS="error"))
        events = sandbox.events()
        assert sandbox.duplicates == 0
    # Only of one user is the order promised: those of others may travel beside.
    assert sorted(map(facts, events), key=itemgetter(1)) == sorted(SCRIPTS[name], key=itemgetter(1)), said
    assert "hunter2" not in str(events)
    assert "Traceback" not in said


def test_the_declarative_file_says_everything() -> None:
    """The program knows nothing of Amplitude, and its span arrives."""
    folder = EXAMPLES / "declarative"
    with Sandbox(api_keys=[KEY]) as sandbox:
        env = environment(sandbox.url, OTEL_CONFIG_FILE=str(folder / "otel.yaml"), AMPLITUDE_API_KEY=KEY)
        env["AMPLITUDE_URL"] = env.pop("OTEL_EXPORTER_AMPLITUDE_SERVER_URL")
        del env["OTEL_EXPORTER_AMPLITUDE_API_KEY"]
        said = run([tool("opentelemetry-instrument"), PYTHON, str(folder / "app.py")], env)
        (event,) = sandbox.events()
    assert facts(event) == ("Order Paid", "u-12345")
    assert event["event_properties"]["service"] == "shop"
    assert "exporter.started" in said


def test_ones_own_tests_find_the_events() -> None:
    """With our pytest plugin and no server at all."""
    said = run([PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLES / "testing")], environment("http://127.0.0.1:9"))
    assert "3 passed" in said


# --- servers ----------------------------------------------------------------------------------------------------------------------

Ask = Callable[..., int]
COOKIE = {"Cookie": make_cookie(KEY, "browser-1-device")}
CUSTOMER = {"X-Customer": "u-12345"}


@contextlib.contextmanager
def serving(command: list[str], env: dict[str, str]) -> Iterator[tuple[Program, Ask]]:
    """Start a server; `{port}` in its command becomes a free port. Gives it, and what asks it something, keeping its cookies."""
    jar: dict[str, str] = {}

    def ask(method: str, path: str, form: dict[str, str] | None = None, **headers: str) -> int:
        own = [f"{name}={value}" for name, value in jar.items()]
        cookies = "; ".join([*own, *([headers.pop("Cookie")] if "Cookie" in headers else [])])
        body = urllib.parse.urlencode(form) if form else None
        kind = {"Content-Type": "application/x-www-form-urlencoded"} if form else {}
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=40)
        connection.request(method, path, body, {**kind, **headers, **({"Cookie": cookies} if cookies else {})})
        answer = connection.getresponse()
        answer.read()
        for cookie in answer.headers.get_all("Set-Cookie") or []:
            name, _, value = cookie.partition(";")[0].partition("=")
            jar[name] = value
        connection.close()
        return answer.status

    with Program(command, env) as server:
        end = time.monotonic() + 40
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), 1):
                break
            assert server.process.poll() is None, server.output
            assert time.monotonic() < end, server.output
            time.sleep(0.05)  # another process starts: there is nothing to wait on but its port
        yield server, ask


def use_flask(ask: Ask) -> list[tuple[str, str]]:
    assert ask("GET", "/products/tea", **COOKIE) == 200
    assert ask("POST", "/login", {"customer": "alice-1"}) == 200
    assert ask("POST", "/orders") == 200
    assert ask("GET", "/healthz") == 200
    return [("HTTP Request", "browser-1-device"), *[("HTTP Request", "alice-1")] * 2, ("Order Paid", "alice-1")]


def use_fastapi(ask: Ask) -> list[tuple[str, str]]:
    assert ask("GET", "/products/tea", **CUSTOMER) == 200
    assert ask("POST", "/orders", **CUSTOMER) == 200
    return [(name, "u-12345") for name in ("GET /products/{name}", "POST /orders", "Order Paid")]


def use_django(ask: Ask) -> list[tuple[str, str]]:
    assert ask("POST", "/login", {"name": "alice", "password": "wonderland"}) == 200
    assert ask("GET", "/orders/7") == 200
    return [("HTTP Request", "user-1"), ("HTTP Request", "user-1"), ("Order Paid", "user-1")]


SERVERS: dict[str, tuple[list[str], Callable[[Ask], list[tuple[str, str]]]]] = {
    "flask_app.py": ([tool("flask"), "--app", str(EXAMPLES / "flask_app"), "run", "--port", "{port}"], use_flask),
    "fastapi_app.py": ([tool("uvicorn"), "--app-dir", str(EXAMPLES), "--port", "{port}", "fastapi_app:app"], use_fastapi),
    "django_app.py": ([PYTHON, str(EXAMPLES / "django_app.py"), "127.0.0.1:{port}"], use_django),
}


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_gives_its_events_until_it_is_stopped(name: str) -> None:
    """Each request and each annotated span once, of the right user, SIGTERM right behind the last request."""
    command, use = SERVERS[name]
    with Sandbox(api_keys=[KEY]) as sandbox, serving(command, environment(sandbox.url)) as (server, ask):
        expected = use(ask)
        server.stop()
        assert Counter(facts(event) for event in sandbox.events()) == Counter(expected), server.output
        assert sandbox.duplicates == 0
        assert "wonderland" not in str(sandbox.events())


def test_the_spool_keeps_what_a_kill_would_have_lost(tmp_path: Path) -> None:
    """Amplitude is down and every process is killed; the next start delivers each order once."""
    folder = EXAMPLES / "gunicorn_spool"
    command = [
        tool("gunicorn"),
        "--config",
        str(folder / "gunicorn.conf.py"),
        "--graceful-timeout",  # a worker that is told to end while it boots does not hear it: gunicorn kills it in the end
        "10",
        "--bind",
        "127.0.0.1:{port}",
        "--chdir",
        str(folder),
        "shop:app",
    ]
    place = free_port()  # of Amplitude: what lies in a spool is for the endpoint it was accepted for, and no other
    env = environment(f"http://127.0.0.1:{place}", SPOOL_DIR=str(tmp_path / "spool"))
    with serving(command, env) as (server, ask):
        for number in range(20):
            assert ask("POST", "/orders", **{"X-Customer": f"customer-{number}"}) == 200
        server.kill()
    with Sandbox(place, api_keys=[KEY]) as sandbox:
        with serving(command, env) as (server, ask):
            assert ask("POST", "/orders", **{"X-Customer": "customer-20"}) == 200
            server.stop()
        assert {event["user_id"] for event in sandbox.events()} == {f"customer-{number}" for number in range(21)}
        assert sandbox.accepted == 21


# --- how a process ends (docs/operate/process-end.md), where `configure()` is all there is ---

BARE = """
import otel_amplitude
from flask import Flask
from opentelemetry.instrumentation.flask import FlaskInstrumentor
otel_amplitude.configure(upload_interval=30)
app = Flask(__name__)
FlaskInstrumentor().instrument_app(app)
@app.get("/")
def home():
    otel_amplitude.set_user("u-12345")
    return "home"
"""
_GUNICORN = [
    tool("gunicorn"),
    "--no-control-socket",
    "--graceful-timeout",
    "10",
    "--workers",
    "2",
    "--bind",
    "127.0.0.1:{port}",
    "bare:app",
]
ENDS = {
    "gunicorn sync, preloaded": [*_GUNICORN, "--preload"],
    "gunicorn gthread": [*_GUNICORN, "--worker-class", "gthread"],
    "gunicorn gevent": [*_GUNICORN, "--worker-class", "gevent"],
    "uWSGI": [*UWSGI, "bare:app"],
}


@pytest.mark.parametrize("name", ENDS)
def test_a_worker_delivers_at_its_end(name: str, tmp_path: Path) -> None:
    """Twenty requests and SIGTERM, long before the upload interval is over: twenty events."""
    (tmp_path / "bare.py").write_text(BARE, encoding="utf-8")
    with Sandbox(api_keys=[KEY]) as sandbox, serving(ENDS[name], environment(sandbox.url, PYTHONPATH=str(tmp_path))) as (server, ask):
        for _ in range(20):
            assert ask("GET", "/") == 200
        if name == "uWSGI":
            server.until_idle()  # a worker that is told to end inside a request skips every exit hook, as docs/operate/process-end.md says
        server.stop()
        assert (len(sandbox.events()), sandbox.duplicates) == (20, 0), server.output


# --- all of them ------------------------------------------------------------------------------------------------------------------


def test_every_example_is_run_here() -> None:
    """A new one needs a test."""
    others = {"shop.py", "gunicorn.conf.py", "test_my_app.py", "app.py", "demo.py"}  # demo.py: tests/gateway/test_senders.py
    assert {path.name for path in PROGRAMS} == {*SCRIPTS, *SERVERS, *others}


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_an_example_uses_public_names_only(path: Path) -> None:
    """Which users may copy."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    imported = [f"{node.module}.{alias.name}" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
    imported += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert [name for name in imported if name.startswith("otel_amplitude") and "._" in name] == []
    private = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and re.match("_[a-z]", node.attr)]
    assert [ast.unparse(node) for node in private if ast.unparse(node.value) != "self"] == []
