"""Drives an ASGI application without a server: one request, one WebSocket, one lifespan."""

from __future__ import annotations

from typing import Any

Message = dict[str, Any]


async def call(app: Any, kind: str, path: str, headers: dict[str, str], incoming: list[Message]) -> list[Message]:
    """Serve one connection and give what the application sent."""
    sent: list[Message] = []
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    target, _, query = path.partition("?")
    scope = {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http" if kind == "http" else "ws",
        "path": target,
        "raw_path": target.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(b"host", b"shop"), *raw],
        "client": ("127.0.0.1", 1),
        "server": ("shop", 80),
        "subprotocols": [],
        "state": {},
    }

    async def receive() -> Message:
        return incoming.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def get(app: Any, path: str, headers: dict[str, str] | None = None) -> int:
    """Make one GET request and give the status."""
    sent = await call(
        app, "http", path, headers or {}, [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]
    )
    return int(sent[0]["status"])
