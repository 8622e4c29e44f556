"""A shop in Starlette; of Amplitude it knows `set_user` and one annotation."""

from __future__ import annotations

from opentelemetry import trace
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from otel_amplitude import set_user

tracer = trace.get_tracer("shop")


async def plain(request: Request) -> Response:
    return PlainTextResponse("ok")


async def login(request: Request) -> Response:
    set_user(request.headers["X-Customer"])
    return PlainTextResponse("welcome")


def order(request: Request) -> Response:  # on a thread of the pool
    set_user(request.headers["X-Customer"])
    with tracer.start_as_current_span("pay") as span:
        span.set_attribute("amplitude.event_type", "Order Paid")
    return PlainTextResponse("paid")


async def stream(request: Request) -> Response:
    return StreamingResponse(f"piece {number}\n" for number in range(3))


async def boom(request: Request) -> Response:
    raise ValueError("boom")


app = Starlette(
    routes=[
        Route("/products/{pid:int}", plain),
        Route("/login", login, methods=["POST"]),
        Route("/orders", order, methods=["POST"]),
        Route("/stream", stream),
        Route("/healthz", plain),
        Route("/boom", boom),
    ]
)
