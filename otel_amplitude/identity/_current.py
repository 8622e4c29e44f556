"""The scope that holds for the code that asks, and what it may say: `set_user`, `acting`. See the theory of operation in `_scope.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from weakref import ref

from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.trace import SpanKind, get_current_span

from otel_amplitude.identity._anchor import EnvironGetter
from otel_amplitude.identity._frameworks import flask_environ, flask_teardown_scope
from otel_amplitude.identity._propagator import installed
from otel_amplitude.identity._scope import (
    ActingScope,
    LocalScope,
    RequestScope,
    Scope,
    bind,
    bound_to,
    caller,
    entered,
    held_by,
    in_context,
    own_task,
    process,
    span_id_in,
    with_scope,
)
from otel_amplitude.sdk_access import current_context

_ENVIRON: Final = EnvironGetter()


def scope_of(context: Context | None = None) -> Scope | None:
    """Give the scope that holds in `context` (None: the current one), or None. Any thread; costs less than a microsecond in a request."""
    current = current_context()
    found = held_by(current if context is None else context)
    if (found is None or not found.shared) and (context is None or context is current):
        return frameworks_scope() or found
    return found


def frameworks_scope() -> RequestScope | None:
    """Ask the glue and Flask whose request it is: way 2."""
    scope = entered.get()
    if scope is None:
        environ = flask_environ()
        if environ is None:
            return flask_teardown_scope()
        scope = installed.get().scope_for(environ, _ENVIRON, Context(), always=True)
    return scope.root()


def set_user(
    user_id: object = None,
    device_id: object = None,
    session_id: int | None = None,
    groups: Mapping[str, object] | None = None,
    *,
    opt_out: bool | None = None,
    anonymous: bool = False,
) -> None:
    """Say who acts now; every span of this request that ends later, and every log record of it, belongs to them.

    Inside a request (from its first hook to the last byte of its body) it fills the request's scope, from any thread or task that finds
    the request. Elsewhere it holds for the current recording span and its children; of several tasks or threads under one span each keeps
    what it said itself; where they name different people, the span, and those of them that said nothing, have no user. Without a span it holds for the current context, in a script or in a task of
    asyncio. In a process that serves requests a thread without request and span refuses it: it is counted as `Stats.set_user_outside`, and
    the log names the line; write `with acting(user_id):` there. Nothing is written on spans or baggage. What is None stays as it was.
    Never raises; ids are checked when an event is made. Any thread.

    Args:
        user_id: the id the browser SDK uses too; integers and UUIDs become text.
        device_id: overrides the browser's.
        session_id: start of the session in milliseconds since 1970.
        groups: group type to name or list of names; added to those already known.
        opt_out: True: nothing of this request is sent (reason `opted_out`). False takes back an earlier True, not the browser's opt-out.
        anonymous: True: known to be logged out, so the user in the browser's cookie is not the one who acts.
    """
    facts: dict[str, Any] = {
        "user_id": user_id,
        "device_id": device_id,
        "session_id": session_id,
        "groups": groups,
        "opt_out": opt_out,
        "anonymous": anonymous,
    }
    context = get_current()
    scope = scope_of()
    if scope is not None and scope.shared:
        scope.learn(**facts)
        return
    span = get_current_span(context)
    is_recording = span.is_recording()
    task, is_connection = own_task()
    if not is_recording and (is_connection or (process.serving and task is None)):
        process.refuse(caller())
        return
    made: Scope
    if is_recording and getattr(span, "kind", None) is SpanKind.SERVER:  # one person's, although no processor of ours saw it start
        made = RequestScope()
    else:
        made = LocalScope(None if task is None else ref(task), caller(), in_span=is_recording)
        # What is bound to the span may have been said by a neighbouring task, for somebody else.
        scope = scope if scope is in_context(context) else in_context(context)
    if scope is not None and not (made.shared is False and scope.shared):
        made.take(scope)
    made.under = span_id_in(context)
    made.learn(**facts)
    if not (is_recording and bind(span, _for_span(made, scope)) and made.shared):
        attach(with_scope(made, context))


def _for_span(made: Scope, base: Scope | None) -> Scope:
    """Give what a span is bound to when `made`, a copy of `base`, is said under it: a disputed scope if a neighbour named another person."""
    said = bound_to(made.under)
    if not (isinstance(made, LocalScope) and isinstance(said, LocalScope)) or said is base or said.under != made.under:
        return made
    both = ((said.user_id, made.user_id), (said.device_id, made.device_id))
    if not said.is_disputed and not any(one is not None and other is not None and one != other for one, other in both):
        return made
    disputed = LocalScope(None, made.caller, in_span=True)
    disputed.under, disputed.is_disputed, disputed.opted_out = made.under, True, made.opted_out or said.opted_out
    return disputed


@contextmanager
def acting(
    user_id: object = None,
    device_id: object = None,
    session_id: int | None = None,
    groups: Mapping[str, object] | None = None,
    *,
    opt_out: bool | None = None,
    anonymous: bool = False,
) -> Iterator[None]:
    """Say who acts in one block of code, for schedulers, consumers, notebooks and tests. Any thread or task.

    Write `with acting("u-12345"): …`. It ends with the block, so it is allowed everywhere, also in a process that serves requests, and it wins over the request inside one.
    Blocks nest: an inner one knows what the outer one said. Of a request around it, it knows only an opt-out, since device and session are
    those of the visitor. `set_user` inside the block adds to it. Threads with a copy of the context and tasks that are created in the block
    know it, until it ends. Do not decorate a coroutine function with it: the block would end before the coroutine runs.

    Args:
        user_id: as for `set_user`, as are all others.
        device_id: the device.
        session_id: start of the session in milliseconds since 1970.
        groups: group type to name or list of names.
        opt_out: True: nothing of this block is sent.
        anonymous: True: known to be logged out.
    """
    context, around = get_current(), scope_of()
    scope = ActingScope()
    if isinstance(around, ActingScope):
        scope.take(around)
    elif isinstance(around, RequestScope):
        scope.opted_out, scope.gpc = around.opted_out, around.gpc
    scope.under = span_id_in(context)
    scope.learn(user_id=user_id, device_id=device_id, session_id=session_id, groups=groups, opt_out=opt_out or None, anonymous=anonymous)
    token = attach(with_scope(scope, context))
    try:
        yield
    finally:
        scope.over = True
        detach(token)
