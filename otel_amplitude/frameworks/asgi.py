"""Delivers what is pending when an ASGI server stops, which is where uvicorn and its gunicorn worker skip `atexit`.

app = FlushOnShutdown(app, amplitude)                                  # any ASGI application
app.add_middleware(FlushOnShutdown, client=otel_amplitude.get_instance)  # Starlette, FastAPI
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from otel_amplitude.frameworks.starlette import App, Message, Receive, Scope, Send


class Closeable(Protocol):
    """What can be shut down: a client of ours, a tracer provider."""

    def shutdown(self) -> object:
        """Deliver what is pending within a bound, then stop."""


Client = Closeable | Callable[[], Closeable]
"""A client, or a callable that gives it when it is needed."""


def close(client: Client) -> None:
    """Shut `client` down; waits as long as its `shutdown_timeout` and never raises."""
    try:
        closeable: Any = client if hasattr(client, "shutdown") else client()
        closeable.shutdown()
    except Exception:  # a process that stops has no use for it
        return


class FlushOnShutdown:
    """ASGI middleware that shuts the client down when the application has finished its own shutdown, before the server exits.

    For applications that know no lifespan (Django's) it answers the server's lifespan messages itself.
    """

    def __init__(self, app: App, client: Client) -> None:
        """Wrap `app`; `client` is shut down once, in a thread, so that the event loop goes on."""
        self.app = app
        self._client = client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        answered = received = False

        async def note_received() -> Message:
            nonlocal received
            received = True
            return await receive()

        async def close_and_send(message: Message) -> None:
            nonlocal answered
            answered = True
            if message["type"].startswith("lifespan.shutdown."):
                await asyncio.to_thread(close, self._client)
            await send(message)

        try:
            await self.app(scope, note_received, close_and_send)
        except Exception:
            if answered:
                raise
        if not answered:
            await self._answer(receive, close_and_send, started=received)

    async def _answer(self, receive: Receive, send: Send, *, started: bool) -> None:
        """Hold the conversation that an application without lifespan left to the server."""
        if not started:
            await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
