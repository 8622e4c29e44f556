"""The route of a request on real frameworks: home pages, blueprints, mounts, and what becomes of a request without one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import falcon
import falcon.testing
import flask
import pytest
import tornado.httpserver
import tornado.netutil
import tornado.web
from aiohttp import ClientSession, web
from opentelemetry.instrumentation.aiohttp_server import AioHttpServerInstrumentor
from opentelemetry.instrumentation.falcon import FalconInstrumentor
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.tornado import TornadoInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client
from world import fresh
from world.traced import Traced, visitor

from otel_amplitude.otel._exporters import AmplitudeSpanExporter

DJANGO = """
from django.conf import settings

settings.configure(SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, MIDDLEWARE=[])
import django

django.setup()
from django.http import HttpResponse
from django.test import AsyncClient, Client
from django.urls import include, path, re_path
from opentelemetry.instrumentation.django import DjangoInstrumentor

import otel_amplitude
from otel_amplitude.identity import make_cookie
from otel_amplitude.testing import FakeTransport

KEY = "0123456789abcdef0123456789abcdef"


def page(request, **_):
    return HttpResponse("ok")


urlpatterns = [
    path("", page),
    path("news/", page),
    path("people/<int:person>/", include([path("", page), path("orders/<order>", page)])),
    path("old/", include([re_path(r"^$", page), re_path(r"^(?P<year>[0-9]{4})/$", page)])),
    path("deep/", include([path("", include([path("", page)]))])),
]
sent = FakeTransport()
client = otel_amplitude.configure(KEY, transport=sent, upload_interval=0)
DjangoInstrumentor().instrument()
headers = {"cookie": make_cookie(KEY, "device-1234", "user-1234")}
URLS
client.flush(10)
print([event["event_properties"]["route"] for event in sent.events], dict(client.stats().refused))
"""
PAGES = ["/", "/news/", "/people/7/", "/people/7/orders/tea", "/old/", "/old/1984/", "/deep/"]
ROUTES = ["/", "/news", "/people/{person}", "/people/{person}/orders/{order}", "/old", "/old/{year}", "/deep"]


def test_django_over_wsgi() -> None:
    """open-telemetry/opentelemetry-python-contrib#1098: the empty route of a home page is no attribute at all."""
    urls = f"for url in {PAGES}:\n    assert Client(headers=headers).get(url).status_code == 200"
    assert fresh.run(DJANGO.replace("URLS", urls)).strip() == f"{ROUTES} {{}}"


def test_django_over_asgi() -> None:
    """The same over the other door."""
    urls = f"import asyncio\n\nfor url in {PAGES}:\n    assert asyncio.run(AsyncClient().get(url, headers=headers)).status_code == 200"
    assert fresh.run(DJANGO.replace("URLS", urls)).strip() == f"{ROUTES} {{}}"


def test_django_under_a_prefix() -> None:
    """A server or a dispatcher names the prefix (`SCRIPT_NAME`), which may hold anything, so the routes begin below it: also that of the home page."""
    urls = "for url in ('/', '/people/7/'):\n    assert Client(headers=headers).get(url, SCRIPT_NAME='/acme').status_code == 200"
    assert fresh.run(DJANGO.replace("URLS", urls)).strip() == "['/', '/people/{person}'] {}"


def test_a_prefetch_of_django() -> None:
    """refugies-info/karfur#2603: `Purpose: prefetch`, as Next.js and Chrome send it."""
    urls = "for purpose in ({}, {'Sec-Purpose': 'prefetch;prerender'}, {'Purpose': 'prefetch'}):\n    Client(headers={**headers, **purpose}).get('/news/')"
    assert fresh.run(DJANGO.replace("URLS", urls)).strip() == "['/news'] {'prefetch': 2}"


def test_flask_with_blueprints_and_under_a_dispatcher(traced: Traced) -> None:
    """pallets/werkzeug's DispatcherMiddleware: the prefix is in no template, so the route is the inner one, and never the path."""
    main, admin = flask.Flask("main"), flask.Flask("admin")
    people = flask.Blueprint("people", "people", url_prefix="/people/<int:person>")
    people.add_url_rule("/", "home", lambda person: "ok")
    people.add_url_rule("/orders/<order>", "order", lambda person, order: "ok")
    main.register_blueprint(people)
    main.register_blueprint(people, name="again", url_prefix="/v2/people/<int:person>")
    for app in (main, admin):
        app.add_url_rule("/", "home", lambda: "ok")
        app.add_url_rule("/users/<uid>", "user", lambda uid: "ok")
        FlaskInstrumentor().instrument_app(app, tracer_provider=traced.provider)
    browser = Client(DispatcherMiddleware(main, {"/admin": admin}), use_cookies=False)
    for url in ("/", "/people/7/", "/people/7/orders/tea", "/v2/people/7/", "/admin/", "/admin/users/7"):
        assert browser.get(url, headers=visitor()).status_code == 200
    routes = ["/", "/people/{person}", "/people/{person}/orders/{order}", "/v2/people/{person}", "/", "/users/{uid}"]
    assert (traced.routes(), traced.refused()) == (routes, {})


def test_falcon(traced: Traced) -> None:
    """Routes with converters, and the home page. Of sinks contrib records the status 404, so they are no requests to us."""

    class Page:
        def on_get(self, request: Any, response: Any, **_: Any) -> None:
            response.text = "ok"

    FalconInstrumentor().instrument(tracer_provider=traced.provider)
    try:
        app = falcon.App()
        app.add_route("/", Page())
        app.add_route("/orders/{order:int}", Page())
        app.add_sink(lambda request, response, **_: None, "/people")
        for url in ("/", "/orders/7", "/people/ann"):
            assert falcon.testing.TestClient(app).simulate_get(url, headers=visitor()).status_code == 200
    finally:
        FalconInstrumentor().uninstrument()
    assert (traced.routes(), traced.refused()) == (["/", "/orders/{order}"], {})


def test_tornado(traced: Traced) -> None:
    """Its route stands in the name of the span."""

    class Page(tornado.web.RequestHandler):
        def get(self, order: str = "") -> None:
            self.write(order or "ok")

    async def main() -> None:
        server = tornado.httpserver.HTTPServer(tornado.web.Application([(r"/", Page), (r"/orders/(\d+)", Page)]))
        [socket] = tornado.netutil.bind_sockets(0, "127.0.0.1")
        server.add_sockets([socket])
        async with ClientSession(headers=visitor()) as session:
            for url in ("/", "/orders/7"):
                async with session.get(f"http://127.0.0.1:{socket.getsockname()[1]}{url}") as response:
                    assert response.status == 200
        server.stop()
        await server.close_all_connections()

    TornadoInstrumentor().instrument(tracer_provider=traced.provider)
    try:
        asyncio.run(main())
    finally:
        TornadoInstrumentor().uninstrument()
    assert traced.routes() == ["/", "/orders/{order}"]


@pytest.fixture
def aiohttp(traced: Traced) -> Iterator[None]:
    """aiohttp, instrumented."""
    with pytest.warns(DeprecationWarning, match="web.Application is discouraged"):
        AioHttpServerInstrumentor().instrument(tracer_provider=traced.provider)
    yield
    AioHttpServerInstrumentor().uninstrument()


@pytest.mark.usefixtures("aiohttp")
def test_aiohttp(traced: Traced) -> None:
    """Resources with a pattern, and the home page."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/", page)
        app.router.add_get(r"/orders/{order:\d+}", page)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with ClientSession(headers=visitor()) as session:
            for url in ("/", "/orders/7"):
                async with session.get(f"http://127.0.0.1:{runner.addresses[0][1]}{url}") as response:
                    assert response.status == 200
        await runner.cleanup()

    asyncio.run(main())
    assert traced.routes() == ["/", "/orders/{order}"]


# --- without a route ---------------------------------------------------------------------------------------------------------


def request(service: Traced, path: str = "/people/ann@example.org", status: int = 200, **more: Any) -> None:
    attributes = {"http.request.method": "GET", "url.path": path, "http.response.status_code": status, **more}
    service.tracer.start_span(f"GET {path}", kind=SpanKind.SERVER, attributes=attributes).end()


def test_a_request_of_a_known_visitor_without_a_route_is_counted_and_named_once(traced: Traced, caplog: pytest.LogCaptureFixture) -> None:
    """open-telemetry/opentelemetry-python-contrib#1914 (Pyramid's traversal), #2155: a path may hold a name, so it is in no event and no log."""
    with caplog.at_level(logging.WARNING, logger="otel_amplitude"):
        request(traced, status=302, **{"user.id": "user-1234"})
        assert "route.missing" not in caplog.text
        for _ in range(3):
            request(traced, **{"user.id": "user-1234"})
        request(traced)
    assert (traced.events(), traced.refused()) == ([], {"no_route": 4, "no_identity": 1})
    said = [line for line in caplog.messages if "route.missing" in line]
    assert len(said) == 1
    assert "instrumentation=shop" in said[0]
    assert "http.route" in said[0]
    assert "ann" not in caplog.text


def test_what_is_no_page_keeps_its_own_word(traced: Traced) -> None:
    """Probes and files are excluded by their path, errors are no events, and other kinds of server have no routes."""
    known = {"user.id": "user-1234"}
    request(traced, "/healthz", **known)
    request(traced, "/static/app.js", **known)
    request(traced, status=404, **known)
    traced.tracer.start_span("Shop/Pay", kind=SpanKind.SERVER, attributes={"rpc.system": "grpc", **known}).end()
    assert (traced.events(), traced.refused()) == ([], {"excluded": 2})


def test_stock_processors_join_mounts_too() -> None:
    """DataDog/dd-trace-py#3061: two spans of which each has a half; an exporter finds both in one batch."""
    service = Traced()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(AmplitudeSpanExporter(service.client)))
    inner = {"http.method": "GET", "http.route": "/hello/{name}"}
    outer = {**inner, "http.route": "/sub-app", "http.target": "/sub-app/hello/ann", "http.status_code": 200, "user.id": "user-1234"}
    tracer = provider.get_tracer("shop")
    with tracer.start_as_current_span("GET /sub-app", kind=SpanKind.SERVER, attributes=outer):
        tracer.start_span("GET /hello/{name}", attributes=inner).end()
    assert provider.force_flush()
    provider.shutdown()
    assert service.routes() == ["/sub-app/hello/{name}"]
