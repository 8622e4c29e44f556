"""FlushOnShutdown: the client is shut down once, after the application, whatever the application knows of lifespans."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from fastapi import FastAPI
from frameworks.asgi_client import call, get
from starlette.applications import Starlette

from otel_amplitude.frameworks.asgi import FlushOnShutdown, close

LIFESPAN = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]


class Client:
    """Writes down its shutdowns and the thread they ran on."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def shutdown(self) -> None:
        self.threads.append(threading.current_thread())


@pytest.mark.parametrize("kind", [FastAPI, Starlette])
@pytest.mark.parametrize("wrapped", [True, False])
def test_after_the_applications_own_shutdown(kind: Any, wrapped: bool) -> None:
    """As middleware of the framework or around it, the client stops last and off the event loop."""
    client, order = Client(), []
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def lifespan(_: Any) -> Any:
        yield
        order.append(len(client.threads))

    app: Any = kind(lifespan=lifespan)
    if wrapped:
        app = FlushOnShutdown(app, client)
    else:
        app.add_middleware(FlushOnShutdown, client=lambda: client)
    sent = asyncio.run(call(app, "lifespan", "/", {}, list(LIFESPAN)))
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert order == [0]
    [thread] = client.threads
    assert thread is not threading.main_thread()


@pytest.mark.parametrize("kind", ["raises", "returns", "reads"])
def test_an_application_without_lifespan(kind: str) -> None:
    """Django's raises at once, others return or read one message: the server gets its answers and the client its end."""
    client = Client()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if kind == "reads":
            await receive()
        if kind != "returns":
            raise ValueError

    sent = asyncio.run(call(FlushOnShutdown(app, client), "lifespan", "/", {}, list(LIFESPAN)))
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert len(client.threads) == 1


def test_a_failed_start_is_the_applications() -> None:
    """An application that could not start says so, and the client, which may not even exist, is left alone."""
    client = Client()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed"})
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        asyncio.run(call(FlushOnShutdown(app, client), "lifespan", "/", {}, list(LIFESPAN)))
    assert client.threads == []


def test_a_failed_shutdown_still_delivers() -> None:
    """What is pending goes out whatever the application's shutdown met."""
    client = Client()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for answer in ("startup.complete", "shutdown.failed"):
            await receive()
            await send({"type": f"lifespan.{answer}"})

    asyncio.run(call(FlushOnShutdown(app, client), "lifespan", "/", {}, list(LIFESPAN)))
    assert len(client.threads) == 1


def test_requests_pass() -> None:
    """Nothing is added to a request."""
    client = Client()
    assert asyncio.run(get(FlushOnShutdown(Starlette(), client), "/nothing")) == 404
    assert client.threads == []


def test_a_client_that_fails_stops_no_server() -> None:
    """Neither a shutdown nor a callable that raises is heard of."""

    class Broken:
        def shutdown(self) -> None:
            raise RuntimeError

    def none() -> Any:
        raise RuntimeError

    close(Broken())
    close(none)
