"""Lets Celery tasks know who caused them, and delivers what is pending when a worker process stops: one call.

    from otel_amplitude.frameworks.celery import instrument

    instrument(client=otel_amplitude.get_instance)   # in the application that sends and in the worker

Who acts travels in a private header of the task, not in baggage, which would leave the house with every outgoing request.
"""

from __future__ import annotations

import sys
from contextvars import ContextVar, Token
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.trace import get_current_span

from otel_amplitude.frameworks.asgi import Client, close
from otel_amplitude.identity import scope_of
from otel_amplitude.identity._luggage import HEADER, pack, unpack
from otel_amplitude.identity._scope import RequestScope, bind, carried, with_scope

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_UID: Final = "otel_amplitude"
# Per task in progress, innermost last: how to undo what its start did. Eager tasks nest.
_running: ContextVar[tuple[tuple[Token[tuple[object, RequestScope] | None], Token[Context] | None], ...]] = ContextVar(
    "otel_amplitude.running", default=()
)


def instrument(client: Client | None = None) -> None:
    """Connect to Celery's signals; calling it again changes nothing but the client.

    Works with and without OpenTelemetry's Celery instrumentation, before or after it.

    Args:
        client: shut down when a worker process ends (prefork children skip `atexit`): a client or a callable that gives it.
            None leaves that to somebody else.
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
    found = scope_of()
    scope = found if found is not None and found.remote else RequestScope(remote=True)
    text = getattr(task.request, HEADER, None)
    if text is not None:
        scope.take(unpack(text))
    # OpenTelemetry's receiver may run after this one: its extraction, which reads the task's request, then finds this scope. Any other
    # extraction inside the task is somebody else's message.
    token, attached = carried.set((task.request, scope)), None
    if scope is not found:
        span = get_current_span()
        if span.is_recording():
            bind(span, scope)
        elif not _traced():
            attached = attach(with_scope(scope, get_current()))
    _running.set((*_running.get(), (token, attached)))


def _finish(**_: object) -> None:
    running = _running.get()
    if not running:
        return
    token, attached = running[-1]
    _running.set(running[:-1])
    carried.reset(token)
    if attached is not None:
        detach(attached)


def _traced() -> bool:
    # With its receiver also attaching and detaching, ours would be undone out of order and left behind in the worker.
    module: Any = sys.modules.get("opentelemetry.instrumentation.celery")
    return module is not None and module.CeleryInstrumentor().is_instrumented_by_opentelemetry
