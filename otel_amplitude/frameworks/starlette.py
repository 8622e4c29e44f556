"""Sets the logged-in user of a Starlette or FastAPI application as the acting user: one line.

    app.add_middleware(AmplitudeMiddleware)                                                   # the user of AuthenticationMiddleware
    app.add_middleware(AmplitudeMiddleware, user=lambda scope: scope["state"].get("user_id")) # or any callable

A dependency or handler that calls `set_user` itself does not need it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from otel_amplitude.frameworks._request import checked_mount, enter, leave, scope_for, set_request_user

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_UNKNOWN: Final = object()
# The server span ends with the last piece of the body, so the user must be set when the answer begins.
_ANSWERS: Final = frozenset({"http.response.start", "websocket.accept", "websocket.close"})


def authenticated_user(scope: Scope) -> object:
    """Give the identity of the user that Starlette's AuthenticationMiddleware found, or None when no user is logged in."""
    user = scope.get("user")
    if user is None:
        return _UNKNOWN
    return user.identity if user.is_authenticated else None


class AmplitudeMiddleware:
    """ASGI middleware that calls `set_user` when the answer to a request, or the acceptance of a WebSocket, begins."""

    def __init__(self, app: App, user: Callable[[Scope], object] = authenticated_user, *, mounted_at: str = "") -> None:
        """Wrap `app`.

        Args:
            app: the ASGI application.
            user: gives the user's id from the ASGI scope, or None when no user is logged in. After an exception the user is unknown.
            mounted_at: where the application is mounted in another one, as a template (`/t/{tenant}`); only where nothing else knows it.

        Raises:
            ConfigurationError: `mounted_at` is no template that begins with a slash.
        """
        self.app = app
        self._user = user
        self._mounted_at = checked_mount(mounted_at)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return

        async def learn_and_send(message: Message) -> None:
            if message["type"] in _ANSWERS:
                self._learn(scope)
            await send(message)

        request = scope_for(scope)
        if self._mounted_at:
            request.root().mounted_at = self._mounted_at
        done = enter(request)
        try:
            await self.app(scope, receive, learn_and_send)
        finally:
            leave(done)

    def _learn(self, scope: Scope) -> None:
        try:
            found = self._user(scope)
        except Exception:  # an unknown user must not fail the response
            return
        if found is not _UNKNOWN:
            set_request_user(found)
