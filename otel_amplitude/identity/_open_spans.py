"""The spans that are open, each with the scope that it started in; and what a request span means for the scope of its request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final
from weakref import ref

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext, SpanKind

from otel_amplitude.identity._current import frameworks_scope, scope_of
from otel_amplitude.identity._propagator import installed
from otel_amplitude.identity._scope import (
    _KEY,
    ActingScope,
    LocalScope,
    RequestScope,
    Scope,
    _bound,
    alive,
    bind,
    bound_to,
    held_by,
    process,
)
from otel_amplitude.sdk_access import (
    IS_REMOTE,
    SPAN_ID,
    attributes_copied,
    current_context,
    parent_of,
    span_context_in,
    started,
)

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

MAX_OPEN_SPANS: Final = 10_000
_MAX_PARENTS: Final = 64
_SERVER: Final = SpanKind.SERVER
_INTERNAL: Final = SpanKind.INTERNAL
_METHODS: Final = ("http.request.method", "http.method")

Noted = tuple["ref[Any]", "Scope | None"]
"""An open span, and the scope that it started in."""


class OpenSpans:
    """The spans of this process that have started and not ended, so that a child finds what its local parents know.

    `started` and `forget` run for every span and only note and forget. At most 10,000 are remembered, the oldest
    are forgotten first; spans are held weakly. Any thread; never raises.

    Attributes:
        forget: takes the id of a span that has ended, and a default; gives what was noted, for `scope`.
        beside: ids of open INTERNAL spans that are requests, see `_beside`.
    """

    def __init__(self) -> None:
        """Start with none."""
        self._open: dict[int, Noted] = {}
        self.forget: Callable[[int, None], Noted | None] = self._open.pop
        self.beside: set[int] = set()

    def started(self, span: Span, parent_context: Context | None = None) -> None:
        """Note a span in `on_start`; `parent_context` None means the current context, as for OpenTelemetry."""
        scope: Any
        context, kind, parent = started(span)
        current = current_context()
        if parent_context is None:
            scope = current.get(_KEY)
            if scope is None or not scope.of_request or _bound:
                scope = _found(span, current, current, scope, kind, parent)
        else:
            scope = parent_context.get(_KEY)
            # What an instrumentation makes of a request has an explicit context; most spans have none.
            if kind is _SERVER or kind is _INTERNAL:
                scope = _served(span, parent_context, current, scope, kind, parent)
                if kind is _INTERNAL and type(scope) is RequestScope and scope.request_span is span:
                    self._note_beside(context[SPAN_ID])
            elif scope is None or not scope.of_request or _bound:
                scope = _found(span, parent_context, current, scope, kind, parent)
            elif current is not parent_context and current.get(_KEY) is not scope:
                bind(span, scope)  # it will be current in a context that does not lead to the scope
        spans = self._open
        spans[context[SPAN_ID]] = (ref(span), scope)
        if len(spans) > MAX_OPEN_SPANS:
            self._forget_oldest()

    def scope(self, span: ReadableSpan, noted: Noted | None) -> Scope | None:
        """Give the scope of a span that has just ended, by what was noted when it started. Most spans become no event and are never asked."""
        started_in = None if noted is None else noted[1]
        if isinstance(started_in, RequestScope):
            return started_in.root()
        if isinstance(started_in, ActingScope):  # said for the span, although the block may have ended
            return started_in
        context: Any = span.context
        if not _bound or context is None:
            return started_in and alive(started_in)
        bound = bound_to(context[SPAN_ID])
        if bound is not None and (bound.shared or bound.under == context[SPAN_ID]):
            return bound
        here, parent = current_context(), parent_of(span)
        # Ended where its parent is current, it belongs to the task that works here, not to a neighbouring one under the same parent.
        if parent is not None and not parent.is_remote and span_context_in(here) == parent:
            bound = held_by(here) or bound
        return bound or self._bound_above(parent, None) or (started_in and alive(started_in))

    def parents(self, span: ReadableSpan) -> Iterable[ReadableSpan]:
        """Give the open local parents of a span, from the nearest on, one by one; at most 64."""
        context = parent_of(span)
        return () if context is None or context[IS_REMOTE] else self._parents(context)

    def around(self, context: Context | None) -> tuple[Scope | None, Iterator[ReadableSpan]]:
        """Give the scope of something that happens inside `context`, such as a log record, and the open spans around it."""
        current = span_context_in(current_context() if context is None else context)
        scope = scope_of(context)
        if _bound and (scope is None or not scope.shared):
            scope = self._bound_above(current, scope) or scope
        return scope, self._parents(current)

    def _parents(self, context: SpanContext | None) -> Iterator[ReadableSpan]:
        for _ in range(_MAX_PARENTS):
            # A remote parent may be a span of this very process that called itself: still another request.
            if context is None or context[IS_REMOTE]:
                return
            entry = self._open.get(context[SPAN_ID])
            span = entry[0]() if entry is not None else None
            if span is None:
                return
            yield span
            context = parent_of(span)

    def _bound_above(self, context: SpanContext | None, own: Scope | None) -> Scope | None:
        """Give what the nearest of the open spans is bound to, unless `own` was said under a nearer one."""
        for span in self._parents(context):
            span_id = span.context[SPAN_ID]
            if own is not None and own.under == span_id:
                return own
            if (bound := bound_to(span_id)) is not None:
                return bound
        return None

    def _note_beside(self, span_id: int) -> None:
        if len(self.beside) >= MAX_OPEN_SPANS:  # of spans that never ended
            self.beside.clear()
        self.beside.add(span_id)

    def _forget_oldest(self) -> None:
        try:
            self._open.pop(next(iter(self._open)), None)
        except (RuntimeError, StopIteration):  # another thread changed it meanwhile, so it makes room itself
            return


def _served(span: Any, context: Context, current: Context, own: Any, kind: SpanKind, parent: Any) -> Scope | None:
    """Give the scope of a span that may be that of a request, and starts in a context with the scope `own`."""
    if parent is None or parent[IS_REMOTE]:
        if kind is _SERVER:
            return _request_started(span, own)
        if parent is not None and _is_left_behind(span, own):
            return _beside(span)
    if kind is _INTERNAL and own is not None and own.of_request and own.root().is_past and _is_request(span):
        around = None if parent is None else bound_to(parent[SPAN_ID])
        if not isinstance(around, RequestScope) or around.root().is_past:
            return _beside(span)
        around.root().note_inner(span)  # of an application inside such a request
        bind(span, around)
        return around
    if own is None or not own.of_request or _bound:
        own = _found(span, context, current, own, kind, parent)
    elif current is not context and current.get(_KEY) is not own:
        bind(span, own)
    if kind is _INTERNAL and own is not None and own.of_request and _is_request(span):
        own.root().note_inner(span)  # of an application inside a request
    return own  # type: ignore[no-any-return]


def _found(span: Any, context: Context, current: Context, own: Scope | None, kind: SpanKind, parent: Any) -> Scope | None:
    """Give the scope of a span that starts in a context which has no request's, or while some spans are bound."""
    found = None if own is None and not _bound else held_by(context)
    if (found is None or not found.of_request) and kind is _SERVER and (parent is None or parent[IS_REMOTE]):
        return _request_started(span, own)
    if found is None and context is current:
        found = frameworks_scope()
    if found is not None and current.get(_KEY) is not found:
        bind(span, found)
    return found


def _request_started(span: Any, own: Scope | None) -> RequestScope:
    """Give the scope of a request whose span starts in a context with the scope `own`."""
    process.serving = True
    if isinstance(own, RequestScope):
        scope = own
        if current_context().get(_KEY) is not scope:  # aiohttp's and Starlette's instrumentations attach the span alone
            bind(span, scope)
    else:
        bound = bound_to(span.context[SPAN_ID])
        if isinstance(bound, RequestScope):  # the processor of another client made it
            return bound
        if isinstance(own, LocalScope):
            process.overtake(own)
        installed.put_back()
        waiting = frameworks_scope()
        scope = RequestScope() if waiting is None or waiting.is_begun else waiting
        bind(span, scope)
    outer, scope.outer = scope.outer, None
    if isinstance(outer, LocalScope):
        process.overtake(outer)
    elif isinstance(outer, RequestScope) and scope.joined is None and outer.root() is not scope and outer.root().is_open:
        scope.join(outer.root())
    request = scope.root()
    if request.has_open_span and request.request_span is not span:
        request.note_inner(span)
    else:
        request.started(span)
    return scope


def _is_left_behind(span: Any, scope: Scope | None) -> bool:
    """Whether a request starts in the context of the request before.

    OpenTelemetry's WSGI middleware leaves its context on the thread if the server closes a body before its first step. The next request
    on the thread then has an INTERNAL span with a remote parent: beside the span of the request before, not below it.
    """
    return isinstance(scope, RequestScope) and scope.is_begun and scope.request_span is not span and _is_request(span)


def _beside(span: Any) -> RequestScope:
    """Give the scope of a request that starts in the context of the request before.

    OpenTelemetry did not read the headers of this request, since it took it for a part of the one before. So the scope begins empty: what
    `set_user` says in the request is all that is known, and without it the request is refused and counted (`no_identity`).
    """
    scope = bound_to(span.context[SPAN_ID])
    if not isinstance(scope, RequestScope):  # else the processor of another client made it
        scope = RequestScope()
        bind(span, scope)
    scope.started(span)
    return scope


def _is_request(span: Any) -> bool:
    attributes = attributes_copied(span)
    return any(name in attributes for name in _METHODS)
