"""What Flask and Django tell about the request in which code runs. Nothing here imports a framework: it looks at what is loaded."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar, Token
from typing import Any, Final

from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.trace import get_current_span

from otel_amplitude.identity._anchor import WSGI, anchored
from otel_amplitude.identity._bodies import Body, Within
from otel_amplitude.identity._scope import RequestScope, entered, held_by, with_scope

_UID: Final = "otel_amplitude"
_TEARDOWN: Final = "_otel_amplitude_request"


# Flask


def flask_environ() -> Any:
    """Give the environ of Flask's current request, or None."""
    flask: Any = sys.modules.get("flask")
    if flask is None:
        return None
    try:
        return flask.request.environ if flask.has_request_context() else None
    except AttributeError:  # it is being imported by another thread
        return None


def flask_teardown_scope() -> RequestScope | None:
    """Give the scope of the request whose application context Flask is taking down, in `teardown_appcontext`; None elsewhere."""
    flask: Any = sys.modules.get("flask")
    if flask is None:
        return None
    try:
        found = flask.g.get(_TEARDOWN) if flask.has_app_context() else None
    except AttributeError:  # it is being imported by another thread
        return None
    return found if isinstance(found, RequestScope) else None


def carry_into_flask_body(environ: Any, scope: RequestScope) -> None:
    """Let the body of the response to Flask's current request run in the scope of the request, if `environ` is that request's."""
    if not scope.is_wrapped and flask_environ() is environ:
        scope.is_wrapped = True
        sys.modules["flask"].after_this_request(lambda response: wrap_flask_response(scope, response))


def wrap_flask_response(scope: RequestScope, response: Any) -> Any:
    """Let the body of `response`, and its `call_on_close` functions, run in a scope, once; give the response."""
    if not (response.is_sequence or response.direct_passthrough or isinstance(response.response, Body)):
        response.response = Body(Within(scope), response.response)
    close = response.close
    if not isinstance(close, _Close):
        response.close = _Close(scope, close)
    elif close.scope is not scope:  # one response object that several requests share
        close.scope = None
    return response


class _Close:
    """The `close` of a response, in the scope of its request; without one where several requests share the response."""

    def __init__(self, scope: RequestScope, close: Callable[[], None]) -> None:
        self.scope: RequestScope | None = scope
        self._close = close

    def __call__(self) -> None:
        if self.scope is None:
            self._close()
        else:
            Within(self.scope).run(self._close)


_ATTACHED: Final = "otel_amplitude.attached"


class FlaskSignals:
    """Lets each request of Flask have its scope before its first hook, so that its body has it although nothing asks for it before.

    A request that is served in-process inside another one of the same kind (a test client in a view) is not part of it: there the scope is
    attached from Flask's `request_started`, before all hooks, to `request_tearing_down`, after all teardown functions.
    """

    def __init__(self) -> None:
        """Connect nothing yet."""
        self._begin: Callable[[Any], RequestScope] | None = None

    def connect(self, begin: Callable[[Any], RequestScope]) -> None:
        """Connect, if Flask is loaded; `begin` gives the scope of an environ. Costs a look-up when there is nothing to do."""
        flask: Any = sys.modules.get("flask")
        if self._begin is None and hasattr(flask, "request_started"):
            self._begin = begin
            with suppress(RuntimeError):  # an old Flask without blinker has no signals
                flask.request_started.connect(self._started, weak=False)
                flask.request_tearing_down.connect(self._tearing_down, weak=False)

    def _started(self, _app: object, **_: object) -> None:
        environ = flask_environ()
        if environ is None or self._begin is None:
            return
        current = get_current()
        here, scope = held_by(current), self._begin(environ)
        if isinstance(here, RequestScope) and here.kind == scope.kind and here is not scope.root():
            environ[_ATTACHED] = attach(with_scope(scope, current))

    def _tearing_down(self, _app: object, **_: object) -> None:
        environ = flask_environ()
        if environ is None:
            return
        token = environ.pop(_ATTACHED, None)
        if token is not None:
            detach(token)
        scope = anchored(environ, WSGI)
        if scope is not None and _ends_application_context():
            # There is no current request in `teardown_appcontext`; what lies in `g` ends with the application context.
            setattr(sys.modules["flask"].g, _TEARDOWN, scope)


def _ends_application_context() -> bool:
    """Whether Flask takes down the application context with the current request, since it was made for it."""
    globals_: Any = sys.modules.get("flask.globals")
    try:
        return globals_.request_ctx._cv_tokens[-1][1] is not None  # noqa: SLF001 -- Flask has it nowhere else
    except (AttributeError, IndexError, TypeError):  # another version: nothing is known
        return False


flask_signals: Final = FlaskSignals()


# Django


def request_base() -> Context:
    """Give the context over which a request begins on a server's thread.

    The current one only if a span of this process is current in it: otherwise it may be what the request before left behind.
    """
    current = get_current()
    span = get_current_span(current)
    found = span.get_span_context()
    is_open = span.is_recording() or (found.is_valid and not found.is_remote and getattr(span, "end_time", None) is None)
    return current if is_open else Context()


_Begun = tuple[RequestScope, "Token[RequestScope | None]", "Token[Context]"]


class DjangoSignals:
    """Attaches the scope of a request from Django's `request_started` to its `request_finished`, which surround its WSGI requests.

    They run on the thread that also iterates over the body, traced or not, before and after all middleware. Under ASGI Django runs
    receivers in tasks of their own, so there they do nothing.
    """

    def __init__(self) -> None:
        """Connect nothing yet."""
        self._begin: Callable[[Any], RequestScope] | None = None
        self._is_last = False
        self._begun: ContextVar[_Begun | None] = ContextVar("otel_amplitude.django", default=None)

    def connect(self, begin: Callable[[Any], RequestScope]) -> None:
        """Connect, if Django is loaded; `begin` gives the scope of an environ. Costs a look-up when there is nothing to do."""
        signals: Any = sys.modules.get("django.core.signals")
        if self._begin is not None or not hasattr(signals, "request_finished"):
            return
        self._begin = begin
        signals.request_started.connect(self._started, weak=False, dispatch_uid=_UID)
        signals.request_finished.connect(self._finished, weak=False, dispatch_uid=_UID)

    def _started(self, environ: Any = None, **_: object) -> None:
        self._leave()  # a server that never called close()
        if self._begin is None or not isinstance(environ, dict):
            return
        if not self._is_last:  # receivers that were connected meanwhile must find the request as well
            self._is_last = True
            signals: Any = sys.modules["django.core.signals"]
            signals.request_finished.disconnect(dispatch_uid=_UID)
            signals.request_finished.connect(self._finished, weak=False, dispatch_uid=_UID)
        base = request_base()
        scope = self._begin(environ)
        scope.entered = True
        self._begun.set((scope, entered.set(scope), attach(with_scope(scope, base))))

    def _finished(self, **_: object) -> None:
        self._leave()

    def _leave(self) -> None:
        begun = self._begun.get()
        if begun is not None:
            self._begun.set(None)
            scope, noted, attached = begun
            scope.entered, scope.over = False, True
            entered.reset(noted)
            detach(attached)


django_signals: Final = DjangoSignals()
