"""Carries the acting user from the sender of a Celery task to the task, and delivers pending events when a worker process stops: one call.

    from otel_amplitude.frameworks.celery import instrument

    instrument(client=otel_amplitude.get_instance)   # in the application that sends and in the worker

The user travels in a private header of the task, not in baggage, because baggage goes out with every outgoing request.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import get_current_span

from otel_amplitude.frameworks.asgi import Client, close
from otel_amplitude.identity._anchor import CELERY
from otel_amplitude.identity._current import scope_of
from otel_amplitude.identity._luggage import HEADER, pack, unpack
from otel_amplitude.identity._propagator import installed
from otel_amplitude.identity._scope import bind, entered

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_UID: Final = "otel_amplitude"
_BEFORE: Final = "otel_amplitude_before"


class _TaskGetter(Getter[Any]):
    """Reads the headers of a task, which Celery makes attributes of its request."""

    def get(self, carrier: Any, key: str) -> list[str] | None:
        """Give the header's value in a list, or None."""
        value = getattr(carrier, key, None)
        return [value] if isinstance(value, str) else None

    def keys(self, _carrier: Any) -> list[str]:
        """Give no names: nothing asks for them."""
        return []


_GETTER: Final = _TaskGetter()


def instrument(client: Client | None = None) -> None:
    """Connect to Celery's signals; calling it again changes nothing but the client.

    Works with and without OpenTelemetry's Celery instrumentation, before or after it.

    Args:
        client: shut down when a worker process ends (prefork children skip `atexit`): a client or a callable that gives it.
            None: the application shuts it down.
    """
    from celery import signals  # noqa: PLC0415 -- only applications that use Celery have it

    signals.before_task_publish.connect(_publish, weak=False, dispatch_uid=_UID)
    signals.task_prerun.connect(_start, weak=False, dispatch_uid=_UID)
    signals.task_postrun.connect(_finish, weak=False, dispatch_uid=_UID)
    for stopped in (signals.worker_process_shutdown, signals.worker_shutdown):
        stopped.disconnect(dispatch_uid=_UID)
        if client is not None:
            stopped.connect(partial(_stop, client), weak=False, dispatch_uid=_UID)


def _stop(client: Client, **_: object) -> None:
    close(client)


def _publish(headers: MutableMapping[str, Any] | None = None, **_: object) -> None:
    scope = scope_of()
    if headers is None or scope is None:
        return
    text = pack(scope)
    if text is not None:
        headers[HEADER] = text


def _start(task: Any = None, **_: object) -> None:
    request = task.request
    around = entered.get()
    scope = installed.get().scope_for(request, _GETTER, Context())
    if request.is_eager and around is not None and scope.kind == CELERY:  # called by a task without OpenTelemetry's instrumentation
        scope = around
    text = getattr(request, HEADER, None)
    if text is not None and not request.is_eager:
        scope.take(unpack(text))
    setattr(request, _BEFORE, entered.set(scope))
    # OpenTelemetry's span started before, and the propagator is not ours: only the span is current.
    span = get_current_span()
    if span.is_recording() and scope_of() is not scope.root():
        bind(span, scope)


def _finish(task: Any = None, **_: object) -> None:
    token = getattr(getattr(task, "request", None), _BEFORE, None)
    if token is not None:
        setattr(task.request, _BEFORE, None)
        entered.reset(token)
