"""Tells who is logged in to a Starlette or FastAPI application: one line.

    app.add_middleware(AmplitudeMiddleware)                                                   # the user of AuthenticationMiddleware
    app.add_middleware(AmplitudeMiddleware, user=lambda scope: scope["state"].get("user_id")) # or any callable

A dependency or handler may as well call `set_user` itself; then nothing of this is needed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from opentelemetry.propagators.textmap import Getter

from otel_amplitude.frameworks._request import enter, leave, tell

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_UNKNOWN: Final = object()
# The server span ends with the last piece of the body, so the user must be told when the answer begins.
_ANSWERS: Final = frozenset({"http.response.start", "websocket.accept", "websocket.close"})


class HeaderGetter(Getter[Any]):
    """Reads request headers out of an ASGI scope."""

    def get(self, carrier: Any, key: str) -> list[str] | None:
        """Give the header's values, or None."""
        name = key.encode("latin-1")
        return [value.decode("latin-1") for found, value in carrier["headers"] if found.lower() == name] or None

    def keys(self, carrier: Any) -> list[str]:
        """Give the names of the headers."""
        return [name.decode("latin-1") for name, _ in carrier["headers"]]


_GETTER: Final = HeaderGetter()


def authenticated_user(scope: Scope) -> object:
    """Give the identity of the user that Starlette's AuthenticationMiddleware found, or None when nobody is logged in."""
    user = scope.get("user")
    if user is None:
        return _UNKNOWN
    return user.identity if user.is_authenticated else None


class AmplitudeMiddleware:
    """ASGI middleware that calls `set_user` when the answer to a request, or the acceptance of a WebSocket, begins."""

    def __init__(self, app: App, user: Callable[[Scope], object] = authenticated_user) -> None:
        """Wrap `app`.

        Args:
            app: the ASGI application.
            user: gives the user's id from the ASGI scope, or None when nobody is logged in. An exception of it is no answer.
        """
        self.app = app
        self._user = user

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return

        async def learn_and_send(message: Message) -> None:
            if message["type"] in _ANSWERS:
                self._learn(scope)
            await send(message)

        token = enter(scope, _GETTER)
        try:
            await self.app(scope, receive, learn_and_send)
        finally:
            leave(token)

    def _learn(self, scope: Scope) -> None:
        try:
            found = self._user(scope)
        except Exception:  # who it was is not worth a failed response
            return
        if found is not _UNKNOWN:
            tell(found)
