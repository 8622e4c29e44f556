"""What counts as a person's request: not a page that a browser only prefetched, not the handshake of a WebSocket, not a bot's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import falcon
import falcon.testing
import fastapi
import flask
import pytest
import starlette.applications
import starlette.routing
import tornado.httpserver
import tornado.netutil
import tornado.web
import tornado.websocket
from aiohttp import ClientSession, web
from opentelemetry.instrumentation.aiohttp_server import AioHttpServerInstrumentor
from opentelemetry.instrumentation.falcon import FalconInstrumentor
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.starlette import StarletteInstrumentor
from opentelemetry.instrumentation.tornado import TornadoInstrumentor
from opentelemetry.trace import SpanKind
from starlette.middleware import Middleware
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.websockets import WebSocket
from world.traced import Traced, visitor

Get = Callable[[dict[str, str]], object]
PAGE = {"http.request.method": "GET", "http.route": "/products/{name}", "http.response.status_code": 200, "user.id": "user-1234"}
GOOGLEBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"

# As browsers and libraries send them: Chrome and Firefox (Fetch standard), Chrome's prerendering and its private proxy, Chrome and Safari
# of before, Firefox before 115, Safari's Top Sites, Turbo, Next.js.
PREFETCHES = [
    {"Sec-Purpose": "prefetch"},
    {"Sec-Purpose": "prefetch;prerender"},
    {"Sec-Purpose": "prefetch;anonymous-client-ip"},
    {"Purpose": "prefetch"},
    {"X-Moz": "prefetch"},
    {"X-Purpose": "preview"},
    {"X-Sec-Purpose": "prefetch"},
    {"Next-Router-Prefetch": "1"},
]


def flask_app(service: Traced) -> Iterator[Get]:
    app = flask.Flask("shop")
    FlaskInstrumentor().instrument_app(app, tracer_provider=service.provider)
    app.add_url_rule("/products/<name>", view_func=lambda name: name)
    browser = app.test_client(use_cookies=False)
    yield lambda headers: browser.get("/products/tea", headers=headers)


def falcon_app(service: Traced) -> Iterator[Get]:
    class Products:
        def on_get(self, request: Any, response: Any, name: str) -> None:
            response.text = name

    FalconInstrumentor().instrument(tracer_provider=service.provider)
    app = falcon.App()
    app.add_route("/products/{name}", Products())
    yield lambda headers: falcon.testing.TestClient(app).simulate_get("/products/tea", headers=headers)
    FalconInstrumentor().uninstrument()


def fastapi_by_contrib(service: Traced) -> Iterator[Get]:
    app = fastapi.FastAPI()
    app.get("/products/{name}")(lambda name: name)
    FastAPIInstrumentor().instrument_app(app, tracer_provider=service.provider)
    yield lambda headers: TestClient(app).get("/products/tea", headers=headers)


def fastapi_native(service: Traced) -> Iterator[Get]:
    app = fastapi.FastAPI(telemetry={"tracer_provider": service.provider})
    app.get("/products/{name}")(lambda name: name)
    yield lambda headers: TestClient(app).get("/products/tea", headers=headers)


def starlette_routes() -> list[starlette.routing.BaseRoute]:
    return [starlette.routing.Route("/products/{name}", lambda _: PlainTextResponse("ok"))]


def starlette_by_contrib(service: Traced) -> Iterator[Get]:
    app = starlette.applications.Starlette(routes=starlette_routes())
    StarletteInstrumentor.instrument_app(app, tracer_provider=service.provider)
    yield lambda headers: TestClient(app).get("/products/tea", headers=headers)


def starlette_native(service: Traced) -> Iterator[Get]:
    middleware = [Middleware(OpenTelemetryMiddleware, tracer_provider=service.provider)]
    app = starlette.applications.Starlette(routes=starlette_routes(), middleware=middleware)
    yield lambda headers: TestClient(app).get("/products/tea", headers=headers)


@pytest.fixture(params=[flask_app, falcon_app, fastapi_by_contrib, fastapi_native, starlette_by_contrib, starlette_native])
def get(request: pytest.FixtureRequest, traced: Traced) -> Iterator[Get]:
    """A function that asks an application of each framework for a page."""
    yield from request.param(traced)


def test_a_page_that_is_only_prefetched_is_no_event(get: Get, traced: Traced) -> None:
    """WICG/nav-speculation#100, matomo-org/matomo#22627, usefathom/fathom#13, refugies-info/karfur#2603: they were counted as visits."""
    for purpose in [*PREFETCHES, {}, {"Sec-Purpose": "navigate"}]:
        get({**visitor(), **purpose})
    assert (traced.routes(), traced.refused()) == (["/products/{name}"] * 2, {"prefetch": len(PREFETCHES)})


def test_a_bot_is_known_also_where_its_span_has_no_user_agent(get: Get, traced: Traced) -> None:
    """FastAPI's own telemetry records no user agent, contrib's the older name of the attribute."""
    for agent in (GOOGLEBOT, "kube-probe/1.29", BROWSER):
        get(visitor(User_Agent=agent))
    assert (len(traced.events()), traced.refused()) == (1, {"bot": 1, "excluded": 1})


@pytest.mark.parametrize(
    "attributes",
    [
        {"http.request.header.sec-purpose": ("prefetch;prerender",)},
        {"http.request.header.sec_purpose": ["prefetch"]},
        {"http.request.header.purpose": "prefetch"},
        {"http.request.header.x-moz": '["prefetch"]'},
    ],
    ids=str,
)
@pytest.mark.parametrize("event_type", [{}, {"amplitude.event_type": "Product Viewed"}])
def test_a_prefetch_is_known_by_captured_headers(attributes: dict[str, Any], event_type: dict[str, str], traced: Traced) -> None:
    """Spans of services in other languages; a page that nobody has seen was not viewed, also where its span is annotated."""
    with traced.tracer.start_as_current_span("GET", kind=SpanKind.SERVER, attributes={**PAGE, **event_type, **attributes}):
        pass
    assert (traced.events(), traced.refused()) == ([], {"prefetch": 1})


def test_what_a_prefetched_view_annotates_inside_is_an_event(get: Get, traced: Traced) -> None:
    """Only the page is not counted; what code of the service did, it did."""
    get(visitor(Purpose="prefetch"))
    with traced.tracer.start_as_current_span(
        "work", attributes={"amplitude.event_type": "Stock Checked", "amplitude.user_id": "user-1234"}
    ):
        pass
    assert [event["event_type"] for event in traced.events()] == ["Stock Checked"]


@pytest.mark.parametrize(
    "name", ["user_agent.original", "http.user_agent", "http.request.header.user-agent", "http.request.header.user_agent"]
)
def test_a_bot_is_known_by_each_name_of_the_attribute(name: str, traced: Traced) -> None:
    """Spans of services in other languages, which may have captured the header alone."""
    for agent in (GOOGLEBOT, BROWSER):
        traced.tracer.start_span("GET", kind=SpanKind.SERVER, attributes={**PAGE, name: agent}).end()
    assert (len(traced.events()), traced.refused()) == (1, {"bot": 1})


@pytest.mark.parametrize("name", ["http.response.status_code", "http.status_code"])
@pytest.mark.parametrize("status", ["200", 200.0, HTTPStatus.OK], ids=repr)
def test_a_status_in_any_form_is_one(name: str, status: Any, traced: Traced) -> None:
    """envoyproxy/envoy#38410, census-instrumentation/opencensus-python#1163: such a request was no event, and in no count."""
    page = {key: value for key, value in PAGE.items() if key != "http.response.status_code"}
    traced.tracer.start_span("GET", kind=SpanKind.SERVER, attributes={**page, name: status}).end()
    traced.tracer.start_span("GET", kind=SpanKind.SERVER, attributes={**page, name: "404" if status == "200" else 404.0}).end()
    assert (len(traced.events()), traced.refused()) == (1, {})


def test_a_method_in_lower_case_is_one(traced: Traced) -> None:
    """HEAD and OPTIONS are no views of a page, in whatever letters a service of another language writes them."""
    for method in ("head", "options", "get"):
        traced.tracer.start_span(method, kind=SpanKind.SERVER, attributes={**PAGE, "http.request.method": method}).end()
    assert (len(traced.events()), traced.refused()) == (1, {})


# --- WebSockets --------------------------------------------------------------------------------------------------------------


async def chat(socket: WebSocket) -> None:
    """A handler that answers once."""
    await socket.accept()
    await socket.send_text("hello")
    await socket.close()


def talk(app: Any) -> None:
    with TestClient(app, headers=visitor()).websocket_connect("/ws/blue") as socket:
        assert socket.receive_text() == "hello"


def fastapi_chat(**options: Any) -> fastapi.FastAPI:
    app = fastapi.FastAPI(**options)

    @app.websocket("/ws/{room}")
    async def room(socket: fastapi.WebSocket, room: str) -> None:
        await chat(socket)

    return app


def test_a_websocket_of_fastapi_by_contrib(traced: Traced) -> None:
    """open-telemetry/opentelemetry-python-contrib#505, #2627: a span without a method, which became an event type for each route."""
    app = fastapi_chat()
    FastAPIInstrumentor().instrument_app(app, tracer_provider=traced.provider)
    talk(app)
    assert (traced.events(), traced.refused()) == ([], {"websocket": 1})


def test_a_websocket_of_fastapis_own_telemetry(traced: Traced) -> None:
    """Its span has neither a method nor a status."""
    talk(fastapi_chat(telemetry={"tracer_provider": traced.provider}))
    assert (traced.events(), traced.refused()) == ([], {"websocket": 1})


def test_a_websocket_of_starlette(traced: Traced) -> None:
    """With contrib; Starlette's own middleware makes no span for it."""
    app = starlette.applications.Starlette(routes=[starlette.routing.WebSocketRoute("/ws/{room}", chat)])
    StarletteInstrumentor.instrument_app(app, tracer_provider=traced.provider)
    talk(app)
    assert (traced.events(), traced.refused()) == ([], {"websocket": 1})


async def connect(port: int) -> None:
    """Ask for a page, prefetch it, ask for it as a bot, and open a WebSocket."""
    page = f"http://127.0.0.1:{port}/products/tea"
    async with ClientSession(headers=visitor()) as session:
        for headers in ({"User-Agent": BROWSER}, {"Sec-Purpose": "prefetch;prerender"}, {"User-Agent": GOOGLEBOT}):
            async with session.get(page, headers=headers) as response:
                assert response.status == 200
        async with session.ws_connect(f"http://127.0.0.1:{port}/ws/blue") as socket:
            await socket.receive()


def test_a_websocket_of_aiohttp(traced: Traced) -> None:
    """There it is a GET with the status 101."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def handler(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close()
        return socket

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/ws/{room}", handler)
        app.router.add_get("/products/{name}", page)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        await connect(runner.addresses[0][1])
        await runner.cleanup()

    with pytest.warns(DeprecationWarning, match="web.Application is discouraged"):
        AioHttpServerInstrumentor().instrument(tracer_provider=traced.provider)
    try:
        asyncio.run(main())
    finally:
        AioHttpServerInstrumentor().uninstrument()
    assert (traced.routes(), traced.refused()) == (["/products/{name}"], {"prefetch": 1, "bot": 1, "websocket": 1})


def test_a_websocket_of_tornado(traced: Traced) -> None:
    """There it is a GET with the status 101, and no route but in the span's name."""

    class Product(tornado.web.RequestHandler):
        def get(self, name: str) -> None:
            self.write(name)

    class Room(tornado.websocket.WebSocketHandler):
        def open(self, *_: str, **__: str) -> None:
            self.close()

    async def main() -> None:
        server = tornado.httpserver.HTTPServer(tornado.web.Application([(r"/ws/(\w+)", Room), (r"/products/(\w+)", Product)]))
        [socket] = tornado.netutil.bind_sockets(0, "127.0.0.1")
        server.add_sockets([socket])
        await connect(socket.getsockname()[1])
        server.stop()
        await server.close_all_connections()

    TornadoInstrumentor().instrument(tracer_provider=traced.provider)
    try:
        asyncio.run(main())
    finally:
        TornadoInstrumentor().uninstrument()
    assert (traced.routes(), traced.refused()) == (["/products/{name}"], {"prefetch": 1, "bot": 1, "websocket": 1})


def test_a_websocket_over_wsgi(traced: Traced) -> None:
    """Flask-Sock and its kind: the server takes the socket over, and the view returns like any other, with the status 200."""
    app = flask.Flask("chat")
    FlaskInstrumentor().instrument_app(app, tracer_provider=traced.provider)
    app.add_url_rule("/ws/<room>", view_func=lambda room: room, websocket=True)
    app.test_client(use_cookies=False).get("/ws/blue", headers=visitor(Connection="Upgrade", Upgrade="websocket"))
    assert (traced.events(), traced.refused()) == ([], {"websocket": 1})


@pytest.mark.parametrize(
    "change",
    [
        {"http.response.status_code": 101},
        {"url.scheme": "wss"},
        {"http.scheme": "ws", "http.request.method": None},
        {"http.url": "ws://shop.example/ws/blue"},
        {"network.protocol.name": "websocket"},
        {"http.request.header.upgrade": ("websocket",)},
    ],
    ids=str,
)
def test_a_websocket_is_known_in_the_words_of_other_instrumentations(change: dict[str, Any], traced: Traced) -> None:
    """Spans of services in other languages; an annotated one is what its service says."""
    attributes = {name: value for name, value in {**PAGE, **change}.items() if value is not None}
    for event_type in ({}, {"amplitude.event_type": "Chat Opened"}):
        traced.tracer.start_span("GET", kind=SpanKind.SERVER, attributes={**attributes, **event_type}).end()
    assert [event["event_type"] for event in traced.events()] == ["Chat Opened"]
    assert traced.refused() == {"websocket": 1}


def test_annotated_spans_inside_a_websocket_keep_its_user(traced: Traced) -> None:
    """The handshake is no event; what is said over the socket may be one."""
    app = fastapi.FastAPI(telemetry={"tracer_provider": traced.provider})

    @app.websocket("/ws/{room}")
    async def room(socket: fastapi.WebSocket, room: str) -> None:
        await socket.accept()
        with traced.tracer.start_as_current_span("said", attributes={"amplitude.event_type": "Message Sent"}):
            await socket.send_text("hello")
        await socket.close()

    talk(app)
    assert [(event["event_type"], event["user_id"]) for event in traced.events()] == [("Message Sent", "user-1234")]
