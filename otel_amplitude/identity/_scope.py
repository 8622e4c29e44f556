"""Holds what is known about who acts: one mutable scope per request, found through the OTel context, and the spans that are open.

A scope is shared on purpose: what `set_user` learns late in a request is seen by every span of it that ends afterwards,
also when a thread pool gave the code a copy of the context variables. Shared scopes are made for requests and tasks alone, and
always a new one, so nothing outlives its request. Everywhere else `set_user` copies before it changes, and leaves the copy in two
places: bound to the current span, for its children and for those who see the span but not our context, and in the context, which
comes first: so neighbouring tasks under one span stay apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID
from weakref import ref

from opentelemetry.context import Context, attach, create_key, get_current, set_value
from opentelemetry.trace import Span, SpanContext, SpanKind, get_current_span

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_amplitude.identity._cookie import BrowserCookie
    from otel_amplitude.identity._headers import HeaderId

_KEY: Final = create_key("otel_amplitude.request")
MAX_OPEN_SPANS: Final = 10_000
_MAX_PARENTS: Final = 64
# Where a SpanContext, which is a tuple, has these. Its properties cost three times as much, and this runs twice a span.
SPAN_ID: Final = 1
_IS_REMOTE: Final = 2
# Where a binding has these, and what the second is: whose word it was.
_OUTER: Final = 2
_WORD: Final = 3
_SHARED: Final = 0  # of the one person of a request, or of the context that the span started in
_SAID: Final = 1  # set_user, while the span was current in some context
_HEARD: Final = 2  # set_user in a context that is not the one the span started in, of a span above


class RequestScope:
    """What one request, task or stretch of code knows about who acts. Mutable; single assignments only, so any thread may fill it.

    Attributes:
        user_id, device_id, session_id: as given to `set_user`, unchecked; the resolver checks them.
        groups: group type to name or names, as given to `set_user`.
        opted_out: `set_user(opt_out=True)` was called.
        anonymous: known to be logged out: users named by the client (cookie, header, baggage) do not count.
        cookie: the raw `Cookie` header, kept only when it has a cookie of Amplitude's; None otherwise.
        headers: the incoming identity headers by lower-case name.
        gpc: the request said `Sec-GPC: 1`.
        baggage: the allow-listed baggage entries by name.
        user_agent: the header `User-Agent`, for spans that carry none.
        not_automatic: why the request itself must be no automatic event, by its headers: `prefetch`, `websocket`, or None.
        header_ids: the ids that functions of `identity_headers` make of headers, by lower-case name of the header.
        remote: made for an incoming request or task, hence shared and filled in place by `set_user`.
        cookies: the resolvers' memory of the parsed cookie, by API key.
        decided: what a resolver made of this scope alone, for which version, and the limit in time of that.
        version: counts the changes, so that what was decided before one is not believed after it.
    """

    __slots__ = (
        "anonymous",
        "baggage",
        "cookie",
        "cookies",
        "decided",
        "device_id",
        "gpc",
        "groups",
        "header_ids",
        "headers",
        "not_automatic",
        "opted_out",
        "remote",
        "session_id",
        "user_agent",
        "user_id",
        "version",
    )

    def __init__(self, *, remote: bool = False) -> None:
        """Make an empty scope; `remote` marks one that belongs to an incoming request or task."""
        self.user_id: object = None
        self.device_id: object = None
        self.session_id: object = None
        self.groups: dict[str, Any] | None = None
        self.opted_out = False
        self.anonymous = False
        self.cookie: str | None = None
        self.headers: dict[str, str] | None = None
        self.gpc = False
        self.baggage: dict[str, str] | None = None
        self.user_agent: str | None = None
        self.not_automatic: str | None = None
        self.header_ids: dict[str, HeaderId] | None = None
        self.remote = remote
        self.cookies: dict[str, BrowserCookie | None] | None = None
        self.decided: tuple[object, int, float | None, Any] | None = None
        self.version = 0

    def copy(self) -> RequestScope:
        """Give a scope with the same content that `set_user` may change without anyone noticing."""
        twin = RequestScope()
        twin.take(self)
        return twin

    def take(self, other: RequestScope) -> None:
        """Become what `other` is, in place, so that everything that shares this scope knows it."""
        for name in self.__slots__:
            if name not in {"remote", "decided", "version"}:
                setattr(self, name, getattr(other, name))
        self.version += 1

    def learn(
        self,
        *,
        user_id: object = None,
        device_id: object = None,
        session_id: object = None,
        groups: Mapping[str, object] | None = None,
        opt_out: bool | None = None,
        anonymous: bool = False,
    ) -> None:
        """Take what is given and keep the rest; see `set_user`. Never raises."""
        if _is_true(anonymous, otherwise=False):
            self.anonymous, self.user_id = True, None
        if user_id is not None:
            self.anonymous, self.user_id = False, _as_text(user_id)
        if device_id is not None:
            self.device_id = _as_text(device_id)
        if session_id is not None:
            self.session_id = session_id
        if isinstance(groups, Mapping):
            with suppress(Exception):  # a mapping of somebody's own
                self.groups = {**(self.groups or {}), **groups}
        if opt_out is not None:
            self.opted_out = _is_true(opt_out, otherwise=True)  # an answer that can not be read is no consent
        self.version += 1


def _as_text(value: object) -> object:
    """Give the keys that databases use as text; what else is no text stays, for the resolver to refuse."""
    if not isinstance(value, (int, UUID)) or isinstance(value, bool):
        return value
    try:
        return str(value)
    except Exception:  # Python writes no integers of thousands of digits
        return value


def _is_true(value: object, *, otherwise: bool) -> bool:
    try:
        return bool(value)
    except Exception:  # arrays and expressions of databases refuse to be asked
        return otherwise


_Outer = tuple["RequestScope | None", "RequestScope | None"]
_Binding = tuple[RequestScope, ref[Any], _Outer, int]
"""The scope of a span; the span; the scopes of the contexts that it started in; whose word it is."""

# By span id; the weak reference removes the entry together with the span.
_bound: dict[int, _Binding] = {}
# What a Celery task brought along, with the carrier that the task's own extraction will read: that one takes it instead of an empty scope.
carried: ContextVar[tuple[object, RequestScope] | None] = ContextVar("otel_amplitude.carried", default=None)


def bind(span: Span, scope: RequestScope, outer: _Outer | None = None, word: int = _SHARED) -> bool:
    """Let `scope` hold for `span` and its children as long as the span lives; False when it can not be weakly held.

    It holds in contexts that have no scope, or one of `outer` (None: that of the current context): any other came later, inside the
    span, and is the context's own.
    """
    span_id = span.get_span_context().span_id
    if outer is None:
        own: Any = get_current().get(_KEY)
        outer = (own, own)
    try:
        _bound[span_id] = (scope, ref(span, lambda _: _bound.pop(span_id, None)), outer, word)  # type: ignore[func-returns-value,unused-ignore]
    except TypeError:  # a span class of somebody else's that takes no weak references
        return False
    return True


def _prevailing(binding: _Binding | None, own: RequestScope | None) -> RequestScope | None:
    """Give what holds in a context with the scope `own` and a span with `binding`."""
    if binding is None or (own is not None and own not in binding[_OUTER]):
        return own
    return binding[0]


def with_scope(scope: RequestScope, context: Context) -> Context:
    """Give `context` with `scope` in it."""
    return set_value(_KEY, scope, context)


def scope_of(context: Context | None = None) -> RequestScope | None:
    """Give the scope that holds in `context` (None: the current one), or None.

    That is what the context learned inside the current span, else what is bound to the span, else what the context has from before.
    Costs less than a microsecond; any thread.
    """
    if context is None:
        context = get_current()
    own: Any = context.get(_KEY)
    if _bound:
        return _prevailing(_bound.get(get_current_span(context).get_span_context().span_id), own)
    return own  # type: ignore[no-any-return]


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

    Inside a request (with our propagator, or the glue for its framework) it fills the request's scope, from any thread or task of it.
    Elsewhere it holds for the current recording span and its children; of several tasks or threads under one span each keeps what it
    said itself, and the span what was said last. Without a span it holds for the current context: a script, or a task of asyncio; on
    a server's thread also for the next request, where neither OpenTelemetry's instrumentation nor our glue sees that one begin (an
    excluded URL). Nothing is written on spans or baggage. What is None stays as it was. Never raises; ids are checked when an event
    is made. Any thread.

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
    own: Any = context.get(_KEY)
    span = get_current_span(context)
    binding = _bound.get(span.get_span_context().span_id)
    scope = _prevailing(binding, own)
    if scope is not None and scope.remote:
        scope.learn(**facts)
        return
    if binding is not None and binding[_WORD] != _SHARED and scope is not own:
        scope = None if own is None or own.remote else own  # what a neighbour said may be of somebody else, so it is not copied
    scope = RequestScope() if scope is None else scope.copy()
    scope.learn(**facts)
    is_request = getattr(span, "kind", None) is SpanKind.SERVER
    outer = None if binding is None else binding[_OUTER]
    is_bound = span.is_recording() and bind(span, scope, outer, _SHARED if is_request else _SAID)
    # A server span is one person's, so that is all. Under any other there may be many tasks, each with a context.
    if not (is_bound and is_request):
        attach(with_scope(scope, context))


Noted = tuple[ref[Any], "RequestScope | None"]
"""An open span, and the scope that it started in."""


class OpenSpans:
    """The spans of this process that have started and not ended, so that a child finds what its local parents know.

    `started` and `forget` run for every span and only note and forget. At most 10,000 are remembered, the oldest
    are forgotten first; spans are held weakly. Any thread; never raises.

    Attributes:
        forget: takes the id of a span that has ended, and a default; gives what was noted, for `scope`.
    """

    def __init__(self) -> None:
        """Start with none."""
        self._open: dict[int, Noted] = {}
        self.forget: Callable[[int, None], Noted | None] = self._open.pop

    def started(self, span: Span, parent_context: Context | None = None) -> None:
        """Note a span in `on_start`; `parent_context` None means the current context, as for OpenTelemetry."""
        scope: Any
        if parent_context is None:
            scope = get_current().get(_KEY)
        else:
            scope = parent_context.get(_KEY)
            # aiohttp's instrumentation makes its span current but never the context it extracted: there the span leads to the scope
            if scope is not None and (current := get_current()) is not parent_context and current.get(_KEY) is not scope:
                bind(span, scope)
        if _bound or (scope is not None and not scope.remote):
            scope = self._inherit(span, parent_context, scope)
        spans = self._open
        spans[span.context[SPAN_ID]] = (ref(span), scope)  # type: ignore[attr-defined]
        if len(spans) > MAX_OPEN_SPANS:
            self._forget_oldest()

    def scope(self, span: ReadableSpan, noted: Noted | None) -> RequestScope | None:
        """Give the scope of a span that has just ended, by what was noted when it started. Most spans become no event and are never asked."""
        started_in = None if noted is None else noted[1]
        if _bound and (started_in is None or not started_in.remote):
            context: Any = span.context
            binding = None if context is None else _bound.get(context[SPAN_ID])
            if binding is not None and binding[_WORD] != _HEARD:
                return binding[0]
            here, parent, own = get_current(), span.parent, started_in
            # Ended where its parent is current, it belongs to who acts here, and not to a neighbour who spoke under the same parent.
            if parent is not None and not parent.is_remote and get_current_span(here).get_span_context() == parent:
                own = here.get(_KEY) or started_in  # type: ignore[assignment]
            return _prevailing(binding or self._binding_above(parent), own)
        return started_in

    def parents(self, span: ReadableSpan) -> Iterable[ReadableSpan]:
        """Give the open local parents of a span, from the nearest on, one by one; at most 64."""
        context: Any = span.parent
        return () if context is None or context[_IS_REMOTE] else self._parents(context)

    def around(self, context: Context | None) -> tuple[RequestScope | None, Iterator[ReadableSpan]]:
        """Give the scope of something that happens inside `context`, such as a log record, and the open spans around it."""
        current = get_current_span(context).get_span_context()
        scope = scope_of(context)
        if _bound and (scope is None or not scope.remote):
            scope = _prevailing(self._binding_above(current), scope)
        return scope, self._parents(current)

    def _parents(self, context: SpanContext | None) -> Iterator[ReadableSpan]:
        for _ in range(_MAX_PARENTS):
            # A remote parent may be a span of this very process that called itself: still another request.
            if context is None or context.is_remote:
                return
            entry = self._open.get(context.span_id)
            span = entry[0]() if entry is not None else None
            if span is None:
                return
            yield span
            context = span.parent

    def _inherit(self, span: Any, parent_context: Context | None, own: RequestScope | None) -> RequestScope | None:
        """Give the scope of a span that starts in a context with the scope `own`."""
        parent = get_current_span(parent_context).get_span_context()
        binding = None if parent.is_remote else _bound.get(parent.span_id)
        word = _SHARED
        if binding is not None:
            scope = _prevailing(binding, own)
            word = _HEARD if binding[_WORD] != _SHARED and scope is not own else _SHARED
        elif own is not None and not own.remote and span.kind is SpanKind.SERVER and (parent.is_remote or not parent.is_valid):
            # A request that no propagator made a scope for begins with an empty one: what is in the context was said before it,
            # on this thread, maybe for somebody whose request nothing traced. Of several clients the first makes it.
            made = _bound.get(span.context[SPAN_ID])
            scope = RequestScope(remote=True) if made is None else made[0]
        else:
            return own
        # A child that outlives the span its scope was bound to keeps it, hence the second binding, which costs only such trees.
        # It is going to be current in the context that it started in, or in the one that is current now.
        bind(span, scope, (own, get_current().get(_KEY)), word)  # type: ignore[arg-type]
        return scope

    def _binding_above(self, context: SpanContext | None) -> _Binding | None:
        return next((binding for span in self._parents(context) if (binding := _bound.get(span.context[SPAN_ID]))), None)

    def _forget_oldest(self) -> None:
        try:
            self._open.pop(next(iter(self._open)), None)
        except (RuntimeError, StopIteration):  # another thread changed it meanwhile, so it makes room itself
            return
