"""aiohttp, Tornado and Falcon need no glue: the propagator finds the browser, set_user finds the request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import falcon
import falcon.testing
import pytest
import tornado.httpclient
import tornado.httpserver
import tornado.netutil
import tornado.web
from aiohttp import ClientSession, web
from frameworks.seen import SESSION, Seen
from opentelemetry import trace
from opentelemetry.instrumentation.aiohttp_server import AioHttpServerInstrumentor
from opentelemetry.instrumentation.falcon import FalconInstrumentor
from opentelemetry.instrumentation.tornado import TornadoInstrumentor

from otel_amplitude.identity import Identity, scope_of, set_user

NAMED = ("u-12345", "d-browser", SESSION)
UNNAMED = (None, "d-browser", SESSION)


def expect(identities: list[Identity]) -> None:
    """A request with a user, one without: the browser in both, the user in the first."""
    assert [identity[:3] for identity in identities] == [NAMED, UNNAMED]
    assert scope_of() is None


@pytest.fixture
def aiohttp_app(seen: Seen) -> Iterator[web.Application]:
    """An instrumented application of aiohttp."""
    with pytest.warns(DeprecationWarning, match="web.Application is discouraged"):  # the instrumentation makes a subclass
        AioHttpServerInstrumentor().instrument(tracer_provider=seen.provider)

    async def handler(request: web.Request) -> web.Response:
        await asyncio.sleep(0)
        if user := request.query.get("user"):
            await asyncio.create_task(learn(user))
        return web.Response(text="ok")

    async def learn(user: str) -> None:
        set_user(user)

    app = web.Application()
    app.router.add_get("/orders/{order}", handler)
    yield app
    AioHttpServerInstrumentor().uninstrument()


def test_aiohttp(aiohttp_app: web.Application, seen: Seen, cookie: str) -> None:
    """What a task of the handler says reaches the server span, on one kept-alive connection."""

    async def main() -> None:
        runner = web.AppRunner(aiohttp_app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        async with ClientSession() as session:
            for query in ("?user=u-12345", ""):
                async with session.get(f"http://{host}:{port}/orders/7{query}", headers={"Cookie": cookie}) as response:
                    assert response.status == 200
        await runner.cleanup()

    asyncio.run(main())
    expect(seen.servers())


def test_tornado(seen: Seen, cookie: str) -> None:
    """A handler's set_user reaches the server span, on one event loop."""

    class Orders(tornado.web.RequestHandler):
        async def get(self, order: str) -> None:
            await asyncio.sleep(0)
            if user := self.get_argument("user", None):
                set_user(user)
            self.write(order)

    async def main() -> None:
        TornadoInstrumentor().instrument(tracer_provider=seen.provider)
        server = tornado.httpserver.HTTPServer(tornado.web.Application([(r"/orders/(\d+)", Orders)]))
        [socket] = tornado.netutil.bind_sockets(0, "127.0.0.1")
        server.add_sockets([socket])
        port = socket.getsockname()[1]
        client = tornado.httpclient.AsyncHTTPClient(force_instance=True)
        for query in ("?user=u-12345", ""):
            # the client is instrumented too and would make the server's span a child of this process
            response = await client.fetch(f"http://127.0.0.1:{port}/orders/7{query}", headers={"Cookie": cookie})
            assert response.code == 200
        client.close()
        server.stop()
        await server.close_all_connections()

    try:
        asyncio.run(main())
    finally:
        TornadoInstrumentor().uninstrument()
    expect(seen.servers())


def test_falcon(seen: Seen, cookie: str) -> None:
    """A responder's set_user reaches the server span, on one thread."""

    class Orders:
        def on_get(self, request: Any, response: Any, order: str) -> None:
            assert trace.get_current_span().is_recording()
            if user := request.get_param("user"):
                set_user(user)
            response.text = order

    FalconInstrumentor().instrument(tracer_provider=seen.provider)
    try:
        app = falcon.App()
        app.add_route("/orders/{order}", Orders())
        client = falcon.testing.TestClient(app)
        for query in ("user=u-12345", ""):
            assert client.simulate_get("/orders/7", query_string=query, headers={"Cookie": cookie}).status_code == 200
    finally:
        FalconInstrumentor().uninstrument()
    expect(seen.servers())
