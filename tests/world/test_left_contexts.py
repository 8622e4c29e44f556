"""A request that starts in the context of the request before: OpenTelemetry makes an INTERNAL span of it, and it is a request nevertheless."""

from __future__ import annotations

import asyncio
import contextvars
from typing import Any

import pytest
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from world.traced import KEY, Traced

import otel_amplitude
from otel_amplitude.identity import make_cookie

AUTOMATIC = "HTTP Request"


async def shop(scope: Any, _receive: Any, send: Any) -> None:
    """Set the user that the query names, and keep the context, as uvicorn's next task does."""
    user = scope["query_string"].decode()
    if user:
        otel_amplitude.set_user(user)
    scope["state"]["left"] = contextvars.copy_context()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x"})


async def one(app: Any, path: str, user: str) -> contextvars.Context:
    """Visit a page; give the context that its handler ran in."""
    headers = [(b"cookie", make_cookie(KEY, "device-1234").encode())]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": user.encode(), "headers": headers, "state": {}, "http_version": "1.1", "scheme": "http", "server": ("shop.example", 80)}  # fmt: skip

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_message: Any) -> None:
        return

    await app(scope, receive, send)
    left: contextvars.Context = scope["state"]["left"]
    return left


def visits(traced: Traced, *users: str) -> None:
    """Visit a page with each user, each in the context that the one before left."""
    app = OpenTelemetryMiddleware(
        shop, tracer_provider=traced.provider, default_span_details=lambda _scope: ("GET /page", {"http.route": "/page"})
    )

    async def run() -> None:
        context = contextvars.copy_context()
        for user in users:
            context = await context.run(asyncio.ensure_future, one(app, "/page", user))

    asyncio.run(run())


def test_it_is_an_event_of_the_user_that_it_sets(traced: Traced) -> None:
    """Kludex/uvicorn#2167: a quick client's next request is no part of the last one, and has the user that its own code sets."""
    visits(traced, "alice-1", "bob-1234", "carol-12")
    assert [event.get("user_id") for event in traced.events() if event["event_type"] == AUTOMATIC] == ["alice-1", "bob-1234", "carol-12"]
    assert [event.get("device_id") for event in traced.events()] == ["device-1234", None, None]
    assert traced.routes() == ["/page"] * 3


def test_it_is_counted_where_its_user_is_not_known(traced: Traced) -> None:
    """Its headers were not read, and the cookie of the request before is not its own: refused, never guessed."""
    visits(traced, "alice-1", "", "bob-1234", "")
    assert [event.get("user_id") for event in traced.events()] == ["alice-1", "bob-1234"]
    assert traced.refused() == {"no_identity": 2}


@pytest.mark.parametrize("user", ["", "bob-1234"])
def test_an_application_inside_of_it_is_no_second_request(traced: Traced, user: str) -> None:
    """The one event is that of the request."""
    inner = OpenTelemetryMiddleware(shop, tracer_provider=traced.provider)
    outer = OpenTelemetryMiddleware(
        inner, tracer_provider=traced.provider, default_span_details=lambda _scope: ("GET /page", {"http.route": "/page"})
    )

    async def run() -> None:
        left = await one(outer, "/page", "alice-1")
        await left.run(asyncio.ensure_future, one(outer, "/page", user))

    asyncio.run(run())
    assert [event.get("user_id") for event in traced.events()] == ["alice-1", *filter(None, [user])]
    assert traced.refused() == ({} if user else {"no_identity": 1})
