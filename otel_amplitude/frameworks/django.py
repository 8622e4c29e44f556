"""Tells who is logged in to a Django site: one line, anywhere in `MIDDLEWARE`.

MIDDLEWARE = [..., "otel_amplitude.frameworks.django.AmplitudeMiddleware"]
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final

from otel_amplitude.frameworks._request import EnvironGetter, enter, leave, tell

_GETTER: Final = EnvironGetter()


class AmplitudeMiddleware:
    """Calls `set_user` with the user's primary key after the view, when the view looked at the user or the session anyway.

    Adds no query and no `Vary: Cookie`: a view that touched neither tells nothing. Works in synchronous and asynchronous stacks.
    Where URLs are excluded from tracing, it stands before what calls `set_user`: there it is this that tells one request from the next.
    Override `user_id` for another id than the primary key.
    """

    sync_capable: ClassVar = True
    async_capable: ClassVar = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        """Wrap `get_response`, as Django does."""
        from asgiref.sync import iscoroutinefunction, markcoroutinefunction  # noqa: PLC0415 -- only Django sites have it

        self.get_response = get_response
        self._asynchronous = iscoroutinefunction(get_response)
        if self._asynchronous:
            markcoroutinefunction(self)

    def user_id(self, user: Any) -> object:
        """Give the id of a logged-in `user`."""
        return user.pk

    def __call__(self, request: Any) -> Any:
        """Answer `request`; an awaitable in an asynchronous stack."""
        if self._asynchronous:
            return self._answer(request)
        token = enter(request.META, _GETTER)
        try:
            response = self.get_response(request)
            self._learn(request)
        finally:
            leave(token)
        return response

    async def _answer(self, request: Any) -> Any:
        token = enter(request.META, _GETTER)
        try:
            answer: Awaitable[Any] = self.get_response(request)
            response = await answer
            self._learn(request)
        finally:
            leave(token)
        return response

    def _learn(self, request: Any) -> None:
        try:
            user = _loaded_user(request)
            if user is not None:
                tell(self.user_id(user) if user.is_authenticated else None)
            elif type(self).user_id is AmplitudeMiddleware.user_id and request.session.accessed:
                from django.contrib.auth import SESSION_KEY  # noqa: PLC0415 -- only Django sites have it

                tell(request.session.get(SESSION_KEY))
        except Exception:  # a site without sessions or with a user model of its own: nothing is known
            return


def _loaded_user(request: Any) -> Any:
    """Give the user that something has set or loaded already, or None."""
    from django.utils.functional import SimpleLazyObject  # noqa: PLC0415 -- only Django sites have it

    # Not isinstance: that would make the lazy object load the user.
    user = request.__dict__.get("user")
    if type(user) is not SimpleLazyObject:
        return user
    # Where Django's AuthenticationMiddleware keeps what it loaded, for `request.user` and for `await request.auser()`.
    return request.__dict__.get("_cached_user", request.__dict__.get("_acached_user"))
