"""Applications inside applications: one event with the whole route, and never a real value in it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import fastapi
import flask
import pytest
from aiohttp import ClientSession, web
from asgiref.wsgi import WsgiToAsgi
from opentelemetry.instrumentation.aiohttp_server import AioHttpServerInstrumentor
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.starlette import StarletteInstrumentor
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router
from starlette.testclient import TestClient
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client
from world.traced import Traced, visitor

from otel_amplitude.errors import ConfigurationError
from otel_amplitude.frameworks.flask import instrument
from otel_amplitude.frameworks.starlette import AmplitudeMiddleware


def shop(**options: Any) -> fastapi.FastAPI:
    """An application with a home page, templates and a router of its own."""
    app, router = fastapi.FastAPI(**options), fastapi.APIRouter(prefix="/stock")
    app.get("/")(lambda: "ok")
    app.get("/users/{uid}")(lambda uid: uid)
    app.get("/orders")(lambda: "ok")
    router.get("/{item:path}")(lambda item: item)
    app.include_router(router, prefix="/v1")
    return app


# The path of a mount, a URL below it, and the whole route.
MOUNTS = [
    ("/v2", "/v2/users/7", "/v2/users/{uid}"),
    ("/v2", "/v2/orders", "/v2/orders"),
    ("/v2", "/v2/", "/v2"),
    ("/v2", "/v2/v1/stock/tea/green", "/v2/v1/stock/{item}"),
    ("/", "/users/7", "/users/{uid}"),
    ("/", "/", "/"),
    ("/t/{tenant}", "/t/acme/users/7", "/t/{tenant}/users/{uid}"),
    ("/t/{tenant}", "/t/acme/", "/t/{tenant}"),
]


def ask(app: Any, url: str, host: str = "testserver") -> None:
    with TestClient(app, base_url=f"http://{host}", headers=visitor()) as browser:
        assert browser.get(url).status_code == 200


@pytest.mark.parametrize(("mount", "url", "route"), MOUNTS)
@pytest.mark.parametrize("both", [False, True], ids=["outer instrumented", "both instrumented"])
def test_fastapi_in_fastapi_by_contrib(traced: Traced, mount: str, url: str, route: str, both: bool) -> None:
    """open-telemetry/opentelemetry-python-contrib#2891, DataDog/dd-trace-py#3061, trallnag/prometheus-fastapi-instrumentator#208."""
    outer, inner = fastapi.FastAPI(), shop()
    outer.mount(mount, inner)
    for app in (outer, inner) if both else (outer,):
        FastAPIInstrumentor().instrument_app(app, tracer_provider=traced.provider)
    ask(outer, url)
    assert (traced.routes(), traced.refused()) == ([route], {})


@pytest.mark.parametrize(("mount", "url", "route"), MOUNTS)
def test_fastapi_in_fastapi_with_its_own_telemetry(traced: Traced, mount: str, url: str, route: str) -> None:
    """There the outer application knows the whole route."""
    telemetry = {"tracer_provider": traced.provider}
    outer = fastapi.FastAPI(telemetry=telemetry)
    outer.mount(mount, shop(telemetry=telemetry))
    ask(outer, url)
    assert (traced.routes(), traced.refused()) == ([route], {})


def test_three_applications_in_each_other(traced: Traced) -> None:
    """Each knows one third."""
    outer, middle, inner = fastapi.FastAPI(), fastapi.FastAPI(), shop()
    middle.mount("/b/{branch}", inner)
    outer.mount("/a", middle)
    for app in (outer, middle, inner):
        FastAPIInstrumentor().instrument_app(app, tracer_provider=traced.provider)
    ask(outer, "/a/b/north/users/7")
    assert traced.routes() == ["/a/b/{branch}/users/{uid}"]


@pytest.mark.parametrize("both", [False, True], ids=["outer instrumented", "both instrumented"])
def test_an_application_in_a_mount_in_a_mount(traced: Traced, both: bool) -> None:
    """The middle mount has no span, but lies in the outer application's routers."""
    inner = shop()
    outer = Starlette(routes=[Mount("/v1", routes=[Mount("/sub/{tenant}", app=inner)])])
    StarletteInstrumentor.instrument_app(outer, tracer_provider=traced.provider)
    if both:
        FastAPIInstrumentor().instrument_app(inner, tracer_provider=traced.provider)
    ask(outer, "/v1/sub/acme/users/7")
    assert (traced.routes(), traced.refused()) == (["/v1/sub/{tenant}/users/{uid}"], {})


def test_an_application_behind_a_proxy_with_a_prefix(traced: Traced) -> None:
    """open-telemetry/opentelemetry-python-contrib#2476: `root_path` is what a proxy was told, and may be the name of a customer."""
    outer = fastapi.FastAPI()
    outer.mount("/v2", shop())
    FastAPIInstrumentor().instrument_app(outer, tracer_provider=traced.provider)
    with TestClient(outer, root_path="/acme", headers=visitor()) as browser:
        assert browser.get("/acme/v2/users/7").status_code == 200
    assert traced.routes() == ["/v2/users/{uid}"]


def site(**options: Any) -> Starlette:
    """Mounts, mounts in mounts, and hosts."""

    def page(_: Any) -> PlainTextResponse:
        return PlainTextResponse("ok")

    pages = [Route("/users/{uid:int}", page), Route("/", page)]
    deep = Mount("/a", routes=[Mount("/b/{branch}", routes=pages)])
    people = Host("people.example", Router([Route("/{mail}", page), Route("/of/{mail}/orders", page)]))
    return Starlette(routes=[people, Mount("/v2", routes=pages), deep, Mount("", routes=pages)], **options)


SITE = [
    ("/v2/users/7", "testserver", "/v2/users/{uid}"),
    ("/v2/", "testserver", "/v2"),
    ("/a/b/north/users/7", "testserver", "/a/b/{branch}/users/{uid}"),
    ("/users/7", "testserver", "/users/{uid}"),
    ("/", "testserver", "/"),
    ("/ann@example.org", "people.example", "/{mail}"),
    ("/of/ann@example.org/orders", "people.example", "/of/{mail}/orders"),
]


@pytest.mark.parametrize(("url", "host", "route"), SITE)
def test_starlette_by_contrib(traced: Traced, url: str, host: str, route: str) -> None:
    """apitally/apitally-py#79: mounts give their prefix alone, and hosts the raw path, with a person's address in it."""
    app = site()
    StarletteInstrumentor.instrument_app(app, tracer_provider=traced.provider)
    ask(app, url, host)
    assert (traced.routes(), traced.refused()) == ([route], {})


@pytest.mark.parametrize(("url", "host", "route"), SITE)
def test_starlettes_own_middleware_inside_our_glue(traced: Traced, url: str, host: str, route: str) -> None:
    """It writes what mounts matched, real values included; with the glue around it the parameters are known, and leave the route."""
    native = Middleware(OpenTelemetryMiddleware, tracer_provider=traced.provider)
    app = site(middleware=[Middleware(AmplitudeMiddleware), native])
    ask(app, url, host)
    assert (traced.routes(), traced.refused()) == ([route], {})


def test_a_flask_application_in_a_starlette_one(traced: Traced) -> None:
    """Two kinds of framework in one request: the halves are joined all the same."""
    legacy = flask.Flask("legacy")
    legacy.add_url_rule("/users/<uid>", view_func=lambda uid: uid)
    app = Starlette(routes=[Mount("/legacy", app=WsgiToAsgi(legacy))])
    FlaskInstrumentor().instrument_app(legacy, tracer_provider=traced.provider)
    StarletteInstrumentor.instrument_app(app, tracer_provider=traced.provider)
    ask(app, "/legacy/users/7")
    assert traced.routes() == ["/legacy/users/{uid}"]


@pytest.fixture
def aiohttp(traced: Traced) -> Iterator[None]:
    """aiohttp, instrumented."""
    with pytest.warns(DeprecationWarning, match="web.Application is discouraged"):
        AioHttpServerInstrumentor().instrument(tracer_provider=traced.provider)
    yield
    AioHttpServerInstrumentor().uninstrument()


@pytest.mark.usefixtures("aiohttp")
def test_sub_applications_of_aiohttp(traced: Traced) -> None:
    """aio-libs/aiohttp#2454: each application makes a span, and knows the whole route."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def main() -> None:
        inner, outer = web.Application(), web.Application()
        inner.router.add_get("/items/{item}", page)
        inner.router.add_get("/", page)
        outer.add_subapp("/shop", inner)
        runner = web.AppRunner(outer)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with ClientSession(headers=visitor()) as session:
            for url in ("/shop/items/7", "/shop/"):
                async with session.get(f"http://127.0.0.1:{runner.addresses[0][1]}{url}") as response:
                    assert response.status == 200
        await runner.cleanup()

    asyncio.run(main())
    assert (traced.routes(), traced.refused()) == (["/shop/items/{item}", "/shop"], {})


# --- what only the application knows -----------------------------------------------------------------------------------------


def test_the_glue_of_flask_tells_where_it_is_mounted(traced: Traced) -> None:
    """A dispatcher of Werkzeug's tells the application a prefix of the path, and no template."""
    main, admin = flask.Flask("main"), flask.Flask("admin")
    instrument(admin, mounted_at="/t/{tenant}/admin")
    for app in (main, admin):
        app.add_url_rule("/", view_func=lambda: "ok", endpoint="home")
        app.add_url_rule("/users/<uid>", view_func=lambda uid: uid, endpoint="user")
        FlaskInstrumentor().instrument_app(app, tracer_provider=traced.provider)
    browser = Client(DispatcherMiddleware(main, {"/t/acme/admin": admin}), use_cookies=False)
    for url in ("/users/7", "/t/acme/admin/users/7", "/t/acme/admin/"):
        assert browser.get(url, headers=visitor()).status_code == 200
    assert traced.routes() == ["/users/{uid}", "/t/{tenant}/admin/users/{uid}", "/t/{tenant}/admin"]


def test_the_glue_of_starlette_tells_where_it_is_mounted(traced: Traced) -> None:
    """An application that a gateway serves under a path which it cuts off."""
    app = fastapi.FastAPI(telemetry={"tracer_provider": traced.provider})
    app.get("/users/{uid}")(lambda uid: uid)
    app.add_middleware(AmplitudeMiddleware, mounted_at="/t/{tenant}")
    ask(app, "/users/7")
    assert traced.routes() == ["/t/{tenant}/users/{uid}"]


@pytest.mark.parametrize("value", ["admin", 7, None])
def test_where_it_is_mounted_must_be_a_template(value: Any) -> None:
    """The error names option, value, rule and cure."""
    with pytest.raises(
        ConfigurationError, match="mounted_at must be a template that begins with a slash, not .*: write mounted_at='/admin'"
    ):
        instrument(flask.Flask("x"), mounted_at=value)


def test_an_application_called_inside_a_request_changes_no_route(traced: Traced) -> None:
    """Its path is another one."""
    inner = shop()
    FastAPIInstrumentor().instrument_app(inner, tracer_provider=traced.provider)
    page = {"http.method": "GET", "http.route": "/pay/{order}", "http.target": "/pay/7", "http.status_code": 200, "user.id": "user-1234"}
    with traced.tracer.start_as_current_span("GET", kind=SpanKind.SERVER, attributes=page):
        assert TestClient(inner).get("/users/7").status_code == 200
    assert traced.routes() == ["/pay/{order}"]
