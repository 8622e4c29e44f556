"""Sets the logged-in user of a Django site as the acting user: one line, anywhere in `MIDDLEWARE`, best the first.

MIDDLEWARE = ["otel_amplitude.frameworks.django.AmplitudeMiddleware", ...]
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from otel_amplitude.frameworks._request import enter, leave, scope_for, set_request_user
from otel_amplitude.identity._anchor import ASGI
from otel_amplitude.identity._bodies import AsyncBody, Body, Within
from otel_amplitude.identity._propagator import connect_frameworks
from otel_amplitude.identity._scope import RequestScope


class ScopeMiddleware:
    """Gives each request its scope, which also holds for a body that streams after the view. Sets no user.

    Under WSGI, Django's signals `request_started` and `request_finished` do so for what is outside of all middleware too. Under ASGI
    nothing but a middleware can: `opentelemetry-instrument` puts this one into the site's `MIDDLEWARE`.
    """

    sync_capable: ClassVar = True
    async_capable: ClassVar = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        """Wrap `get_response`, as Django does."""
        from asgiref.sync import iscoroutinefunction, markcoroutinefunction  # noqa: PLC0415 -- only Django sites have it

        connect_frameworks()
        self.get_response = get_response
        self._asynchronous = iscoroutinefunction(get_response)
        if self._asynchronous:
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        """Answer `request`; an awaitable in an asynchronous stack."""
        if self._asynchronous:
            return self._answer(request)
        scope = _scope_for(request)
        done = enter(scope)
        try:
            response = self.get_response(request)
            self._learn(request)
        finally:
            leave(done)
        # Without a change to undo, the signals surround the body; but there are none under ASGI, which a synchronous stack may serve too.
        return _carried(scope, response) if done is not None or scope.kind == ASGI else response

    async def _answer(self, request: Any) -> Any:
        scope = _scope_for(request)
        done = enter(scope)
        try:
            answer: Awaitable[Any] = self.get_response(request)
            response = await answer
            self._learn(request)
        finally:
            leave(done)
        return _carried(scope, response)

    def _learn(self, request: Any) -> None:
        """Set the logged-in user in the scope."""


class AmplitudeMiddleware(ScopeMiddleware):
    """Calls `set_user` with the user's primary key after the view, when the view looked at the user or the session anyway.

    Adds no query and no `Vary: Cookie`: a view that touched neither sets no user. Works in synchronous and asynchronous stacks.
    It also gives the request its scope; under ASGI, what calls `set_user` before the view must stand behind it.
    Override `user_id` for another id than the primary key.
    """

    def user_id(self, user: Any) -> object:
        """Give the id of a logged-in `user`."""
        return user.pk

    def _learn(self, request: Any) -> None:
        try:
            user = _loaded_user(request)
            if user is not None:
                set_request_user(self.user_id(user) if user.is_authenticated else None)
            elif type(self).user_id is AmplitudeMiddleware.user_id and request.session.accessed:
                from django.contrib.auth import SESSION_KEY  # noqa: PLC0415 -- only Django sites have it

                set_request_user(request.session.get(SESSION_KEY))
        except Exception:  # a site without sessions or with a user model of its own: nothing is known
            return


def _scope_for(request: Any) -> RequestScope:
    return scope_for(getattr(request, "scope", request.META))


def _carried(scope: RequestScope, response: Any) -> Any:
    """Let a body that streams run in the scope; give the response."""
    if getattr(response, "streaming", False):
        body = response.streaming_content
        if not isinstance(body, (Body, AsyncBody)):
            response.streaming_content = AsyncBody(Within(scope), body) if response.is_async else Body(Within(scope), body)
    return response


def _loaded_user(request: Any) -> Any:
    """Give the user that something has set or loaded already, or None."""
    from django.utils.functional import SimpleLazyObject  # noqa: PLC0415 -- only Django sites have it

    # Not isinstance: that would make the lazy object load the user.
    user = request.__dict__.get("user")
    if type(user) is not SimpleLazyObject:
        return user
    # Where Django's AuthenticationMiddleware keeps what it loaded, for `request.user` and for `await request.auser()`.
    return request.__dict__.get("_cached_user", request.__dict__.get("_acached_user"))
