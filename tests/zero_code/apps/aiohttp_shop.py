"""A shop on aiohttp; of Amplitude it knows `set_user` and one annotation."""

from __future__ import annotations

import sys

from aiohttp import web
from opentelemetry import trace

from otel_amplitude import set_user

tracer = trace.get_tracer("shop")


async def plain(request: web.Request) -> web.Response:
    return web.Response(text="ok")


async def login(request: web.Request) -> web.Response:
    set_user(request.headers["X-Customer"])
    return web.Response(text="welcome")


async def order(request: web.Request) -> web.Response:
    set_user(request.headers["X-Customer"])
    with tracer.start_as_current_span("pay") as span:
        span.set_attribute("amplitude.event_type", "Order Paid")
    return web.Response(text="paid")


async def stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for number in range(3):
        await response.write(f"piece {number}\n".encode())
    return response


async def boom(request: web.Request) -> web.Response:
    raise ValueError("boom")


def main() -> None:
    app = web.Application()
    app.add_routes(
        [
            web.get(r"/products/{pid:\d+}", plain),
            web.post("/login", login),
            web.post("/orders", order),
            web.get("/stream", stream),
            web.get("/healthz", plain),
            web.get("/boom", boom),
        ]
    )
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]))


if __name__ == "__main__":
    main()
