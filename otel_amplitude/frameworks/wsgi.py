"""Gives each request of a WSGI application its scope, from the first line of the application to the last byte of the body: one line.

    app = AmplitudeMiddleware(app)   # Falcon, Bottle, Pyramid, …: the outermost, around OpenTelemetry's middleware too

Flask and Django do not need it: both know their current request. `set_user` sets the acting user, anywhere in the request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from otel_amplitude.frameworks._request import scope_for
from otel_amplitude.identity._bodies import Body, Within
from otel_amplitude.identity._frameworks import request_base
from otel_amplitude.identity._scope import RequestScope, entered

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[Any]]


class AmplitudeMiddleware:
    """WSGI middleware that runs the application, each step of its body, and `close()`, in the scope of the request.

    Between two steps the server's thread has no scope, so a user that one request sets is not seen by the next.
    """

    def __init__(self, app: App) -> None:
        """Wrap `app`."""
        self.app = app

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[Any]:
        """Answer one request."""
        base, scope = request_base(), scope_for(environ)
        within = Within(scope, base)
        scope.entered = True
        try:
            body = within.run(self._answer, scope, environ, start_response)
        except BaseException:
            _end(scope)
            raise
        # Servers look at the length of lists and at the class of files. Neither runs code of the application.
        if isinstance(body, (list, tuple)) or _is_file(environ, body):
            _end(scope)
            return body
        return _Body(scope, within, body)

    def _answer(self, scope: RequestScope, environ: Environ, start_response: StartResponse) -> Iterable[Any]:
        token = entered.set(scope)
        try:
            return self.app(environ, start_response)
        finally:
            entered.reset(token)


class _Body(Body):
    """The body of a response, which ends the request when the server closes it."""

    def __init__(self, scope: RequestScope, within: Within, body: Iterable[Any]) -> None:
        super().__init__(within, body)
        self._scope = scope

    def close(self) -> None:
        """Close the body; the request is over."""
        try:
            super().close()
        finally:
            _end(self._scope)


def _end(scope: RequestScope) -> None:
    scope.entered, scope.over = False, True


def _is_file(environ: Environ, body: object) -> bool:
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)
