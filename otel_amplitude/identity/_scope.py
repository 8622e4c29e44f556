"""Who acts: the scope of a request, what is said outside of requests, and how code finds the one that holds for it.

Theory of operation
===================

**The problem.** Code that runs for a visitor must find that visitor, on every server, from the first hook to the last byte of the body,
and must never find another one. Threads, greenlets, event loops and connections serve one visitor after the other, and OpenTelemetry's
instrumentations attach and detach contexts at different moments, some of them never. So nothing here relies on a context that "must have
been" detached: a scope belongs to one request because it lies in the object that the server made for this request.

**The scope of a request** (`RequestScope`) is one mutable object for each request. Its *anchor* is the request's own object: the WSGI
environ, the ASGI scope, aiohttp's request, Celery's `task.request` (`_anchor.py` lists them). All layers of a server see the same anchor,
so all of them find the same scope, in whatever order they were set up.

====================== =============================================================================================================
Who makes it           The first that meets the request: the propagator (`AmplitudePropagator.extract`, called by an instrumentation),
                       the glue of a framework, a hook in which `set_user` is called (Flask), Django's signal `request_started`. A
                       request span that starts without any of them gets an empty scope, bound to the span.
Who may fill it        `set_user`, from each thread and task that finds it. Headers are read once, where it is made.
When it ends           With the request's object. A scope of which the request span has ended is not taken for another request, even
                       if a server reuses the object. The bodies of responses still find it.
====================== =============================================================================================================

**How code finds it**, in this order (`_current.py`); each way is certain, none guesses:

1. The current span, then the OpenTelemetry context. A span has a *binding* only if the context does not lead to the scope by itself:
   aiohttp's and Starlette's own instrumentations make their span current, but never the context that they extracted.
2. The glue of a framework, which keeps what it holds open in a context variable of ours, and Flask, which knows its current request.
   Asked only if way 1 finds nothing.
3. A body or a callback that we wrapped (`_bodies.py`): it attaches the scope for one step, and detaches it after the step.

========================= ===========================================================================================================
Pool threads              With a copied context (`asyncio.to_thread`, FastAPI's dependencies, Flask's `copy_current_request_context`)
                          they find the scope. Without one (`ThreadPoolExecutor.submit(f)`) they find nothing.
Tasks                     A task has a copy of the context in which it was created, so it finds the scope.
Generators, callbacks     They run in the context of their caller. Flask's and Django's bodies and `call_on_close` are wrapped.
Greenlets                 Like threads: each has a context of its own, which is empty unless it was copied.
========================= ===========================================================================================================

**A request inside a request** (a sub-application, a mounted application, an application called in-process) is part of it. If the inner
extraction has the same anchor, it finds the same scope. If it has none, and the outer request is open, the inner scope is *joined* to the
outer one, and each reader follows `joined`. It must be noted at the extraction: later the inner instrumentation has replaced the context.

**Outside of requests** `set_user` makes a `LocalScope`, a copy of what held before with the change in it. Inside a recording span it is
bound to the span, for its children and for those who see the span but not the context, and it is left in the context, so that
neighbouring tasks under one span stay apart. When two of them name different people, the span itself and those that said nothing have no
user: the span has no user. `under` is the id of the span that was current when a scope was made. If it is the current
span, the context's scope is nearer than the span's binding; otherwise the binding is nearer. Without a span it is left in the context only
if that context ends: in a process that serves no requests, or in a task. A thread of a server is used for the next visitor, so there
`set_user` is refused, as in the tasks of a server. `acting` works everywhere, because it ends by itself.

**Connections that are kept.** uvicorn may start the next request of a connection in a copy of the context of the one before. So outside of
a request `set_user` is refused in tasks of servers, the scope of a request remembers its task, and once the request is over it does not hold
in another task of a server. A span that an instrumentation starts in a request whose own span has ended is that of the next request, and
gets an empty scope.

**What is said too early is over.** If a request begins in a context that holds a `LocalScope`, that scope is over in each copy of the
context, for good. In the first request of a process, all words of bare threads are over.

**What cannot be known**, so that the event is refused with a reason: bodies of aiohttp and (without our WSGI middleware) Falcon, code after
Tornado's `self.finish()`, threads and greenlets without a context, ASGI middleware outside the instrumentation without our middleware.
What nothing shows, so that an event may belong to the wrong request: a server that is started in-process inside an open request, if its
requests have no anchor; what is logged between two requests after OpenTelemetry's WSGI middleware did not detach (a body that the server
closed before its first step), without our middleware; and, without glue, a synchronous view on an excluded URL which uvicorn started in
the context of the request before while that one still runs background tasks.

**Rules that must never be broken.** No scope is written to a carrier that is not a request. A scope is never handed from one anchor to
another one of the same kind. Nothing is read from a thread in a process that serves. Only single assignments are made to a scope, so that
each thread may fill it and no lock is held.
"""

from __future__ import annotations

import sys
import threading
from asyncio import current_task
from collections.abc import Mapping
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar, Final
from weakref import WeakSet, ref

from opentelemetry.context import Context, create_key, set_value
from opentelemetry.trace import Span

from otel_amplitude.sdk_access import IS_REMOTE, SPAN_ID, span_context_in
from otel_amplitude.values import id_text

if TYPE_CHECKING:
    from asyncio import Task

    from otel_amplitude.identity._cookie import BrowserCookie
    from otel_amplitude.identity._headers import HeaderId
    from otel_amplitude.log import Log

_KEY: Final = create_key("otel_amplitude.request")
MAX_INNER_SPANS: Final = 16
# Packages whose tasks serve requests, by the coroutine of the task. The task of a connection of aiohttp or Tornado serves all of its
# requests; uvicorn creates the task of the next request inside of the one before when a client is quick.
_SERVERS: Final = frozenset({"daphne", "django", "granian", "hypercorn", "uvicorn"})
_SERVE: Final = _SERVERS | {"aiohttp", "starlette", "tornado"}
_OUTSIDE: Final = (
    "call set_user inside the request (a hook, the view, its body), put the glue of the framework outermost, "
    "or say it for a block: with otel_amplitude.acting(user_id)"
)
_FACTS: Final = (
    "anonymous",
    "baggage",
    "cookie",
    "cookies",
    "device_id",
    "gpc",
    "groups",
    "header_ids",
    "headers",
    "not_automatic",
    "opted_out",
    "session_id",
    "user_agent",
    "user_id",
)


class Scope:
    """What is known about who acts. Mutable; only single assignments, so any thread may fill it.

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
        cookies: the resolvers' memory of the parsed cookie, by API key.
        decided: what a resolver made of this scope alone, for which version, and the limit in time of that.
        version: counts the changes, so that what was decided before one is not believed after it.
        under: the id of the span that was current when the scope was made, 0 without one.
        shared: whether `set_user` fills it in place, for all who find it.
        of_request: whether it is that of a request, task or message.
        over: it holds for nothing any more.
    """

    __slots__ = (*_FACTS, "decided", "over", "under", "version")
    shared: ClassVar[bool]
    of_request: ClassVar[bool]

    def __init__(self) -> None:
        """Make one that knows nothing."""
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
        self.cookies: dict[str, BrowserCookie | None] | None = None
        self.decided: tuple[object, int, float | None, Any] | None = None
        self.version = 0
        self.under = 0
        self.over = False

    def take(self, other: Scope) -> None:
        """Know what `other` knows, in place, so that everything that shares this scope knows it."""
        for name in _FACTS:
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
            with suppress(Exception):  # a mapping class of the application may raise
                self.groups = {**(self.groups or {}), **groups}
        if opt_out is not None:
            self.opted_out = _is_true(opt_out, otherwise=True)  # an answer that can not be read is no consent
        self.version += 1


class RequestScope(Scope):
    """The scope of one request, task or message.

    Attributes:
        kind: the kind of its anchor (`wsgi`, `asgi`, `aiohttp`, `celery`); empty without one.
        is_read: the headers of the request have been read.
        asgi: the ASGI scope, which has the route that the framework found; None where there is none, and after the request span.
        app: the outermost application that an ASGI framework named in its scope, which mounted ones replace later; None as for `asgi`.
        at_root: the path is `/`, below the prefix that the server or a dispatcher names (`SCRIPT_NAME`, `root_path`).
        joined: the scope of the request that this one is part of.
        outer: what held where this one was made; read and emptied when the request span starts.
        task: the asyncio task in which this one was made, or None.
        inner_spans: spans of applications inside the request, in the order of their starts: root spans that are no requests of their
            own, and INTERNAL ones with a method. At most 16.
        mounted_at: the template of the place where the glue's application is mounted; empty when it was not told.
        is_wrapped: Flask was asked to let the body of the response run in this scope.
        entered: glue holds the request open, from before the application until after it.
    """

    __slots__ = (
        "__weakref__",
        "_readers",
        "_span",
        "app",
        "asgi",
        "at_root",
        "entered",
        "inner_spans",
        "is_read",
        "is_wrapped",
        "joined",
        "kind",
        "mounted_at",
        "outer",
        "task",
    )
    shared = True
    of_request = True

    def __init__(self) -> None:
        """Make an empty one."""
        super().__init__()
        self.kind = ""
        self.is_read = False
        self.asgi: Mapping[str, Any] | None = None
        self.app: object = None
        self.at_root = False
        self.joined: RequestScope | None = None
        self.outer: Scope | None = None
        self.task: ref[Task[Any]] | None = None
        self.inner_spans: list[Any] = []
        self.mounted_at = ""
        self.is_wrapped = False
        self.entered = False
        self._span: ref[Any] | None = None
        self._readers = 0

    # It lies in the environ, which middleware may copy deeply or send elsewhere.

    def __copy__(self) -> RequestScope:
        return self

    def __deepcopy__(self, _memo: object) -> RequestScope:
        return self

    def __reduce__(self) -> tuple[type[RequestScope], tuple[()]]:
        return RequestScope, ()

    @property
    def request_span(self) -> Any:
        """The span of the request as long as it lives; None before and after."""
        return None if self._span is None else self._span()

    def started(self, span: Span) -> None:
        """Remember the span of the request, for each client that reads it."""
        if self.request_span is not span:
            self._span, self._readers = ref(span), 0
        self._readers += 1

    def ended(self, context: object) -> None:
        """Let go of the ASGI scope, which leads back to here, when the last client has read the span of the request."""
        if self.asgi is not None and (span := self.request_span) is not None and span.context is context:
            self._readers -= 1
            if self._readers <= 0:
                self.asgi = self.app = None

    @property
    def is_begun(self) -> bool:
        """Whether the request has had its span."""
        return self._span is not None

    @property
    def has_open_span(self) -> bool:
        """Whether the span of the request records."""
        span = self.request_span
        return span is not None and span.is_recording()

    @property
    def is_past(self) -> bool:
        """Whether the request has had its span, and that has ended."""
        return self._span is not None and not self.has_open_span

    @property
    def is_open(self) -> bool:
        """Whether the request goes on, as far as its span or the glue shows."""
        return self.entered or self.has_open_span

    @property
    def is_done(self) -> bool:
        """Whether the request was open and is no more, so that its object may be another request's by now."""
        return (self.over or self._span is not None) and not self.is_open

    def root(self) -> RequestScope:
        """Give the scope of the request that this one is part of, or itself."""
        scope = self
        while scope.joined is not None:
            scope = scope.joined
        return scope

    def join(self, outer: RequestScope) -> None:
        """Be part of `outer` from now on; what `set_user` said in here is said there."""
        told = {name: getattr(self, name) for name in ("user_id", "device_id", "session_id", "groups")}
        outer.learn(**told, opt_out=self.opted_out or None, anonymous=self.anonymous)
        self.joined = outer

    def note_inner(self, span: object) -> None:
        """Remember a span of an application inside the request."""
        if len(self.inner_spans) < MAX_INNER_SPANS and not any(found is span for found in self.inner_spans):
            self.inner_spans.append(span)

    def is_inner(self, context: object) -> bool:
        """Whether the span of this context belongs to an application inside the request. An ended span is a copy, with the same context."""
        return bool(self.inner_spans) and any(found.context is context for found in self.inner_spans)


class ActingScope(Scope):
    """What is said in one `acting` block."""

    __slots__ = ()
    shared = True
    of_request = False


class LocalScope(Scope):
    """What `set_user` said outside of requests; never changed, but copied.

    Attributes:
        task: the asyncio task in which it was said, whose context ends with it; None on a bare thread.
        caller: file and line of the code that called `set_user`.
        in_span: it was said inside a recording span.
        is_disputed: neighbouring tasks or threads under one span named different people, so those that named none have no user.
    """

    __slots__ = ("caller", "in_span", "is_disputed", "task")
    shared = False
    of_request = False

    def __init__(self, task: ref[Task[Any]] | None, caller: str, *, in_span: bool) -> None:
        """Make an empty one."""
        super().__init__()
        self.task = task
        self.caller = caller
        self.in_span = in_span
        self.is_disputed = False


def _as_text(value: object) -> object:
    """Give the keys that databases use as text; what is none stays, for the resolver to refuse."""
    if type(value) is str:
        return value
    try:
        text = id_text(value)
    except Exception:  # a hostile value
        return value
    return value if text is None else text


def _is_true(value: object, *, otherwise: bool) -> bool:
    try:
        return bool(value)
    except Exception:  # arrays and expressions of databases refuse to be asked
        return otherwise


class _Process:
    """What is known about the process as a whole.

    Attributes:
        serving: a request has begun in this process.
        set_user_outside: how often `set_user` was refused, or overtaken by a request; the same number in all clients' stats.
        connection_tasks: tasks that turned out to serve requests, one after the other.
        log: where lines about the process go.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.log: Log | None = None
        self.forget()

    def forget(self) -> None:
        """Be as at the start of the process; for tests."""
        self.serving = False
        self.set_user_outside = 0
        self.connection_tasks: WeakSet[Task[Any]] = WeakSet()
        self._told: set[str] = set()

    def refuse(self, caller: str) -> None:
        """Count a call of `set_user` that belongs to no request, and name the first one in the log."""
        with self._lock:
            self.set_user_outside += 1
        self.hint_once("identity.outside", caller=caller, cure=_OUTSIDE)

    def overtake(self, word: LocalScope) -> None:
        """End what was said before a request began in the same context: it is not known for whom it was said."""
        if word.over or word.in_span:
            return
        word.over = True
        task = None if word.task is None else word.task()
        if task is not None:
            with self._lock:
                self.connection_tasks.add(task)
        self.refuse(word.caller)

    def hint_once(self, event: str, **facts: object) -> None:
        """Write a line that is about the process, once, to the log of the client that was made last."""
        if self.log is not None and event not in self._told:
            self._told.add(event)
            self.log.warning(event, **facts)


process: Final = _Process()

# The scope of the request or task that the glue of a framework holds open around the application; the glue resets it.
entered: Final[ContextVar[RequestScope | None]] = ContextVar("otel_amplitude.entered", default=None)

# By span id: the scope, and the span, whose end of life removes the entry.
_bound: dict[int, tuple[Scope, ref[Any]]] = {}


def bind(span: Span, scope: Scope) -> bool:
    """Let `scope` hold for `span` and its children as long as the span lives; False when it can not be weakly held."""
    span_id = span.get_span_context().span_id
    try:
        _bound[span_id] = (scope, ref(span, lambda _: _bound.pop(span_id, None)))
    except TypeError:  # a foreign span class without weak references
        return False
    return True


def bound_to(span_id: int) -> Scope | None:
    """Give the scope that is bound to a span."""
    entry = _bound.get(span_id)
    return None if entry is None else alive(entry[0])


def in_context(context: Context) -> Scope | None:
    """Give the scope that `context` has, whatever its span is bound to."""
    scope: Any = context.get(_KEY)
    return None if scope is None else alive(scope)


def alive(scope: Scope) -> Scope | None:
    """Give the scope that holds where `scope` was found: the request that it is part of; None when it is over."""
    if isinstance(scope, RequestScope):
        if scope.joined is not None:
            scope = scope.root()
        return None if scope.task is not None and scope.is_done and _is_elsewhere(scope.task) else scope
    if scope.over or not isinstance(scope, LocalScope):
        return None if scope.over else scope
    if scope.task is not None:
        return None if _is_elsewhere(scope.task) else scope
    return None if process.serving and not scope.in_span else scope


def _is_elsewhere(made_in: ref[Task[Any]]) -> bool:
    """Whether a server has started the next request of a connection in a copy of the context in which something was said before.

    uvicorn does so when the next request has arrived before the response is complete (its option `reset_contextvars` is off by default).
    """
    task, current = made_in(), running_task()
    if current is None:  # a thread that a task waits for, such as that of a synchronous view
        return task is None or task.done()
    return current is not task and is_of(current, _SERVERS)


def held_by(context: Context) -> Scope | None:
    """Give what holds in `context`, its current span first: way 1 of this room."""
    found: Any = context.get(_KEY)
    if found is not None:
        found = alive(found)
    if _bound:
        current = span_context_in(context)
        # A remote parent may be a span of this very process that called itself: still another request.
        if (found is None or found.under != current[SPAN_ID]) and not current[IS_REMOTE]:
            return bound_to(current[SPAN_ID]) or found
    return found  # type: ignore[no-any-return]


def with_scope(scope: Scope, context: Context) -> Context:
    """Give `context` with `scope` in it."""
    return set_value(_KEY, scope, context)


def own_task() -> tuple[Task[Any] | None, bool]:
    """Give the running asyncio task, if its context ends with the work that it does, and whether the task is one of a server.

    What is said there without a request may be found by the next request of the connection, so it is no better than a server's thread.
    """
    task = running_task()
    if task is None:
        return None, False
    is_server = task in process.connection_tasks or is_of(task, _SERVE)
    return (None, True) if is_server else (task, False)


def running_task() -> Task[Any] | None:
    """Give the asyncio task that runs on this thread, or None."""
    try:
        return current_task()
    except RuntimeError:
        return None


def is_of(task: Task[Any], packages: frozenset[str]) -> bool:
    """Whether the coroutine of a task is one of these packages, not of the application."""
    frame = getattr(task.get_coro(), "cr_frame", None)
    return frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] in packages


def caller() -> str:
    """Give file and line of the code that called into this package."""
    frame = sys._getframe(1)  # noqa: SLF001 -- the one way to name the line that is to be changed
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("otel_amplitude."):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def span_id_in(context: Context) -> int:
    """Give the id of the current span of `context`, 0 without one."""
    span_id: int = span_context_in(context)[SPAN_ID]
    return span_id
