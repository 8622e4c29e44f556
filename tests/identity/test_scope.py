"""The request scope: shared inside one request, never seen by the next, bound to a span where there is no request."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import uuid
import weakref
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags

from otel_amplitude.identity import AmplitudePropagator, OpenSpans, scope_of, set_user
from otel_amplitude.identity import _open_spans as module
from otel_amplitude.identity import _scope as scopes


def noted(opened: OpenSpans, span: ReadableSpan) -> Any:
    """Forget a span that ends, as the reader does; give what was noted when it started."""
    return opened.forget(span.context.span_id, None) if span.context is not None else None


class Users(SpanProcessor):
    """Writes down which user each ended span has, as the real processor will ask."""

    def __init__(self) -> None:
        self.open = OpenSpans()
        self.users: dict[str, object] = {}
        self.parents: dict[str, list[str]] = {}

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self.open.started(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        scope = self.open.scope(span, noted(self.open, span))
        self.users[span.name] = scope.user_id if scope is not None else None
        self.parents[span.name] = [parent.name for parent in self.open.parents(span)]


@pytest.fixture
def users() -> Users:
    """The processor of this test's provider."""
    return Users()


@pytest.fixture
def tracer(users: Users) -> trace.Tracer:
    """A tracer whose spans `users` sees."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(users)
    return provider.get_tracer("test")


@pytest.fixture(autouse=True)
def context() -> Iterator[None]:
    """Each test has the context to itself and leaves nothing bound."""
    before = set(scopes._bound)  # spans that other tests keep
    token = attach(Context())
    yield
    detach(token)
    gc.collect()
    assert scopes._bound.keys() <= before


def request() -> Context:
    """The current context as the propagator leaves it for a new request."""
    return AmplitudePropagator({}).extract({}, get_current())


def test_what_is_learned_late_reaches_the_spans_that_end_later(tracer: trace.Tracer, users: Users) -> None:
    """The server span started before anyone knew the user; a child that ended before that knows nobody."""
    token = attach(request())
    with tracer.start_as_current_span("request"):
        with tracer.start_as_current_span("before"):
            pass
        with tracer.start_as_current_span("login"):
            set_user("u-12345")
        with tracer.start_as_current_span("after"):
            pass
    detach(token)
    assert users.users == {"before": None, "login": "u-12345", "after": "u-12345", "request": "u-12345"}


def test_a_copied_context_still_shares_the_scope(tracer: trace.Tracer, users: Users) -> None:
    """A dependency in a thread pool works on copies of the context variables, and is heard all the same."""
    token = attach(request())
    with tracer.start_as_current_span("request"), ThreadPoolExecutor(1) as pool:
        pool.submit(contextvars.copy_context().run, set_user, "u-12345").result()
    detach(token)
    assert users.users == {"request": "u-12345"}


def test_the_next_request_on_the_thread_knows_nothing(tracer: trace.Tracer, users: Users) -> None:
    """Each extraction makes an empty scope, also when the last request's context was left attached."""
    for name, user in (("one", "u-12345"), ("two", None)):
        attach(request())  # never detached
        with tracer.start_as_current_span(name):
            if user:
                set_user(user)
    assert users.users == {"one": "u-12345", "two": None}


def test_tasks_of_two_requests_stay_apart(tracer: trace.Tracer, users: Users) -> None:
    """Requests that interleave on one event loop each have their own user."""

    async def serve(user: str) -> None:
        attach(request())
        with tracer.start_as_current_span(user):
            await asyncio.sleep(0)
            await asyncio.create_task(learn(user))
            await asyncio.sleep(0)

    async def learn(user: str) -> None:
        await asyncio.sleep(0)
        set_user(user)

    async def main() -> None:
        await asyncio.gather(*(serve(f"u-{number}") for number in range(5)))

    asyncio.run(main())
    assert users.users == {f"u-{number}": f"u-{number}" for number in range(5)}


def test_without_a_request_the_current_span_carries_it(tracer: trace.Tracer, users: Users) -> None:
    """The span, the children that were open, later ones and those that outlive it know the user; nothing else does."""
    with tracer.start_as_current_span("before"):
        pass
    with tracer.start_as_current_span("job") as job:
        early = tracer.start_span("early")
        set_user("u-12345")
        early.end()
        with tracer.start_as_current_span("child"):
            grandchild = tracer.start_span("grandchild")
        straggler = tracer.start_span("straggler")
    assert scope_of() is None
    grandchild.end()
    straggler.end()
    with tracer.start_as_current_span("next"):
        pass
    assert users.users == {
        "before": None,
        "early": "u-12345",
        "child": "u-12345",
        "job": "u-12345",
        "grandchild": "u-12345",
        "straggler": "u-12345",
        "next": None,
    }
    del job


def test_a_child_adds_to_what_its_parent_knows_for_itself_alone(tracer: trace.Tracer, users: Users) -> None:
    """A loop that handles one message per child span does not mix their users."""
    with tracer.start_as_current_span("loop"):
        set_user("u-service", groups={"org": "acme"})
        for name in ("one", "two"):
            with tracer.start_as_current_span(name):
                set_user(f"u-{name}")
                scope = scope_of()
                assert scope is not None
                assert scope.groups == {"org": "acme"}
    assert users.users == {"one": "u-one", "two": "u-two", "loop": "u-service"}


def test_without_any_span_the_context_carries_it(tracer: trace.Tracer, users: Users) -> None:
    """A script says who acts and then works; tasks that say something else do not disturb each other."""
    set_user("u-script", device_id="device-1")

    async def work(user: str) -> None:
        set_user(user)
        await asyncio.sleep(0)
        with tracer.start_as_current_span(user):
            pass

    async def main() -> None:
        await asyncio.gather(work("u-one"), work("u-two"))

    asyncio.run(main())
    with tracer.start_as_current_span("script"):
        with tracer.start_as_current_span("inner"):
            set_user("u-inner")
        scope = scope_of()
        assert scope is not None
        assert scope.device_id == "device-1"
    assert users.users == {"u-one": "u-one", "u-two": "u-two", "inner": "u-inner", "script": "u-script"}


def test_set_user_keeps_what_is_not_given() -> None:
    """Each call adds; logging out forgets the user alone, logging in ends that."""
    set_user("u-12345", "device-1", 1_795_305_600_000, {"org": "acme"})
    set_user(groups={"team": ["a", "b"]})
    set_user(opt_out=True)
    scope = scope_of()
    assert scope is not None
    assert (scope.user_id, scope.device_id, scope.session_id) == ("u-12345", "device-1", 1_795_305_600_000)
    assert scope.groups == {"org": "acme", "team": ["a", "b"]}
    assert scope.opted_out
    set_user(anonymous=True, opt_out=False)
    scope = scope_of()
    assert scope is not None
    assert (scope.user_id, scope.device_id, scope.anonymous, scope.opted_out) == (None, "device-1", True, False)
    set_user("u-67890", groups="not a mapping")  # type: ignore[arg-type]
    scope = scope_of()
    assert scope is not None
    assert (scope.user_id, scope.anonymous) == ("u-67890", False)


@pytest.mark.parametrize(
    ("given", "kept"), [(42, "42"), (uuid.UUID(int=7), str(uuid.UUID(int=7))), ("u-12345", "u-12345"), (True, True), (1.5, 1.5)]
)
def test_keys_of_databases_become_text(given: object, kept: object) -> None:
    """Amplitude's ids are text; what can not sensibly be one is left for the resolver to refuse."""
    set_user(given, given)
    scope = scope_of()
    assert scope is not None
    assert (scope.user_id, scope.device_id) == (kept, kept)


def test_nothing_is_written_on_the_span(tracer: trace.Tracer) -> None:
    """Other exporters see nothing of ours."""
    with tracer.start_as_current_span("plain") as span:
        set_user("u-12345", "device-1", groups={"org": "acme"})
    assert isinstance(span, ReadableSpan)
    assert not span.attributes


def test_parents_are_the_open_local_ones(tracer: trace.Tracer, users: Users) -> None:
    """The nearest comes first; ended, forgotten and remote ones are not given."""
    with tracer.start_as_current_span("a"), tracer.start_as_current_span("b"), tracer.start_as_current_span("c"):
        here = trace.get_current_span().get_span_context()
        # this process calls itself: the same span, but over the wire
        remote = NonRecordingSpan(SpanContext(here.trace_id, here.span_id, is_remote=True, trace_flags=TraceFlags(1)))
        tracer.start_span("called", context=trace.set_span_in_context(remote, Context())).end()
        orphan = tracer.start_span("orphan")
    orphan.end()
    assert users.parents == {"called": [], "c": ["b", "a"], "b": ["a"], "a": [], "orphan": []}


def test_parents_are_bounded(tracer: trace.Tracer, users: Users) -> None:
    """A runaway recursion does not make each of its spans walk all the way up."""
    with contextlib.ExitStack() as stack:
        for depth in range(module._MAX_PARENTS + 3):
            stack.enter_context(tracer.start_as_current_span(str(depth)))
    assert len(users.parents[str(module._MAX_PARENTS + 2)]) == module._MAX_PARENTS


def test_a_call_to_oneself_does_not_inherit(tracer: trace.Tracer, users: Users) -> None:
    """A user bound to the calling span is not the called request's."""
    with tracer.start_as_current_span("caller") as caller:
        set_user("u-12345")
        here = caller.get_span_context()
        remote = NonRecordingSpan(SpanContext(here.trace_id, here.span_id, is_remote=True, trace_flags=TraceFlags(1)))
        tracer.start_span("called", context=trace.set_span_in_context(remote, Context())).end()
    assert users.users == {"called": None, "caller": "u-12345"}


def test_around_a_log_record(tracer: trace.Tracer, users: Users) -> None:
    """What happens inside spans has their scope, and the spans themselves as parents."""
    with tracer.start_as_current_span("outer"):
        with tracer.start_as_current_span("inner"):
            inner = get_current()
            scope, parents = users.open.around(inner)
            assert (scope, [span.name for span in parents]) == (None, ["inner", "outer"])
            assert users.open.around(None)[0] is None
        set_user("u-12345")
        with tracer.start_as_current_span("later"):
            scope, _ = users.open.around(get_current())
    assert scope is not None
    assert scope.user_id == "u-12345"


def test_around_finds_what_an_open_parent_learned(tracer: trace.Tracer, users: Users) -> None:
    """A log inside a child that was open before its parent's user was known gets that user."""
    with tracer.start_as_current_span("job"):
        child = tracer.start_span("child")
        set_user("u-12345")
        scope, _ = users.open.around(trace.set_span_in_context(child))
        child.end()
    assert scope is not None
    assert scope.user_id == "u-12345"


def test_open_spans_are_bounded(tracer: trace.Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans that never end push out the oldest, and ending a forgotten one is no error."""
    monkeypatch.setattr(module, "MAX_OPEN_SPANS", 3)
    spans, opened = [tracer.start_span(str(number)) for number in range(5)], OpenSpans()
    attach(request())
    for span in spans:
        opened.started(span)
    scopes = [opened.scope(span, noted(opened, span)) for span in spans]  # type: ignore[arg-type]
    assert [scope is not None for scope in scopes] == [False, False, True, True, True]


def test_making_room_while_another_thread_changes_the_table(tracer: trace.Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that lost the race leaves the room-making to the other."""

    class Changing(dict[int, Any]):
        def __iter__(self) -> Iterator[int]:
            raise RuntimeError

    monkeypatch.setattr(module, "MAX_OPEN_SPANS", 0)
    opened, span = OpenSpans(), tracer.start_span("any")
    opened._open = Changing()
    opened.started(span)
    assert len(opened._open) == 1


def test_a_span_with_a_context_that_nobody_attached(tracer: trace.Tracer, users: Users) -> None:
    """Aiohttp's instrumentation makes the span current but not the extracted context; user and children find the request all the same."""
    span = tracer.start_span("server", context=request())
    with trace.use_span(span):
        with tracer.start_as_current_span("child"):
            set_user("u-12345")
        scope = scope_of()
        assert scope is not None
        assert scope.shared
        with tracer.start_as_current_span("later"):
            pass
    span.end()
    assert users.users == {"child": "u-12345", "later": "u-12345", "server": "u-12345"}


def test_open_spans_do_not_keep_spans_alive(tracer: trace.Tracer, users: Users) -> None:
    """A span that is dropped without an end is gone, and is nobody's parent."""
    parent = tracer.start_span("parent")
    child = tracer.start_span("child", context=trace.set_span_in_context(parent))
    held = weakref.ref(parent)
    del parent
    gc.collect()
    assert held() is None
    child.end()
    assert users.parents == {"child": []}


def test_the_fast_way_to_the_span_id_is_the_span_id(tracer: trace.Tracer) -> None:
    """A SpanContext is a tuple with the span id in second place."""
    context = tracer.start_span("any").get_span_context()
    assert context[module.SPAN_ID] == context.span_id


def test_a_span_class_without_weak_references(tracer: trace.Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the span can not be bound, the context carries the user."""

    def refuse(*_: object) -> None:
        raise TypeError

    with tracer.start_as_current_span("foreign"):
        monkeypatch.setattr(scopes, "ref", refuse)
        set_user("u-12345")
        monkeypatch.undo()
    # the span's end restored the context it found
    assert scope_of() is None


def test_a_span_made_by_hand() -> None:
    """A span without a context has no scope and no parents."""
    opened, span = OpenSpans(), ReadableSpan("by hand")
    assert (opened.scope(span, noted(opened, span)), list(opened.parents(span))) == (None, [])


def known() -> tuple[object, object, object]:
    """User, device and groups, here and now."""
    scope = scope_of()
    return (None, None, None) if scope is None else (scope.user_id, scope.device_id, scope.groups)


def test_neighbouring_tasks_under_one_span_stay_apart(tracer: trace.Tracer, users: Users) -> None:
    """getsentry/sentry-python#120: each keeps its own person, device and groups, in spans, in log records and in what it says later; both know what was said before."""
    found: dict[str, Any] = {}

    async def alice(spoken: asyncio.Event, answered: asyncio.Event) -> None:
        set_user("alice", device_id="d-alice", session_id=1)
        spoken.set()
        await answered.wait()  # bob has spoken since
        with tracer.start_as_current_span("of alice"):
            found["alice"] = known()
            scope, _ = users.open.around(None)
            assert scope is not None
            found["record"] = scope.user_id
        set_user(groups={"team": "a"})
        found["alice, later"] = known()
        scope, _ = users.open.around(None)
        assert scope is scope_of()

    async def bob(spoken: asyncio.Event, answered: asyncio.Event) -> None:
        await spoken.wait()
        set_user("bob")
        found["bob"] = known()
        answered.set()
        with tracer.start_as_current_span("of bob"), ThreadPoolExecutor(1) as pool:
            found["bob's pool"] = pool.submit(contextvars.copy_context().run, known).result()

    async def main() -> None:
        with tracer.start_as_current_span("batch"):
            set_user(groups={"org": "acme"})
            spoken, answered = asyncio.Event(), asyncio.Event()
            await asyncio.gather(alice(spoken, answered), bob(spoken, answered))

    asyncio.run(main())
    org = {"org": "acme"}
    assert found == {
        "alice": ("alice", "d-alice", org),
        "record": "alice",
        "alice, later": ("alice", "d-alice", {**org, "team": "a"}),
        "bob": ("bob", None, org),
        "bob's pool": ("bob", None, org),
    }
    assert users.users == {"of alice": "alice", "of bob": "bob", "batch": None}  # of two people, so nobody's
    assert scope_of() is None


def test_a_neighbour_does_not_change_spans_that_are_never_current(tracer: trace.Tracer, users: Users) -> None:
    """They may start before or after a neighbour spoke; they end in the task of whoever they are about."""

    async def handle(user: str, spoken: asyncio.Event, awaited: asyncio.Event) -> None:
        span = tracer.start_span(user)
        set_user(user)
        spoken.set()
        await awaited.wait()
        span.end()

    async def main() -> None:
        first, second = asyncio.Event(), asyncio.Event()
        with tracer.start_as_current_span("batch"):
            await asyncio.gather(handle("alice", first, second), handle("bob", second, first))

    asyncio.run(main())
    assert users.users == {"alice": "alice", "bob": "bob", "batch": None}


def test_a_task_that_says_nothing_hears_what_its_span_knows(tracer: trace.Tracer, users: Users) -> None:
    """A span may have its user from a thread that looked it up; what the task says itself starts anew, for it may be of somebody else."""

    async def main() -> None:
        with tracer.start_as_current_span("job"):
            await asyncio.to_thread(set_user, "u-12345", "d-1")
            with tracer.start_as_current_span("work"):
                assert known() == ("u-12345", "d-1", None)
            with tracer.start_as_current_span("other"):
                set_user("u-67890")
                assert known() == ("u-67890", None, None)

    asyncio.run(main())
    assert users.users == {"job": "u-12345", "work": "u-12345", "other": "u-67890"}


def test_work_that_continues_inside_a_request_is_not_the_requests(tracer: trace.Tracer, users: Users) -> None:
    """A child of a job that starts while somebody's request is current hears the job, and copies nothing of the request."""
    with tracer.start_as_current_span("job") as job:
        set_user("u-job")
    token = attach(request())
    set_user("alice", "d-alice")
    with tracer.start_as_current_span("child", context=trace.set_span_in_context(job, Context())):
        assert known()[0] == "u-job"
        set_user("u-other")
        assert known() == ("u-other", None, None)
    assert known() == ("alice", "d-alice", None)
    detach(token)
    assert users.users == {"job": "u-job", "child": "u-other"}


def test_threads_of_one_server_span_add_up(tracer: trace.Tracer, users: Users) -> None:
    """Also without the propagator a request is one person's: a dependency in a pool names the device, the handler the user."""
    with tracer.start_as_current_span("request", kind=SpanKind.SERVER), ThreadPoolExecutor(1) as pool:
        pool.submit(contextvars.copy_context().run, set_user, None, "d-1").result()
        set_user("u-12345")
        with tracer.start_as_current_span("child"):
            set_user(groups={"org": "acme"})
            assert known() == ("u-12345", "d-1", {"org": "acme"})
    assert users.users == {"request": "u-12345", "child": "u-12345"}


def test_a_message_inside_a_request_is_its_own_persons(tracer: trace.Tracer, users: Users) -> None:
    """A span that starts in an extracted context which nobody attaches: user, children and log records are the message's, not the request's."""
    token = attach(request())
    with tracer.start_as_current_span("request"):
        set_user("alice")
        with tracer.start_as_current_span("message", context=AmplitudePropagator({}).extract({}), kind=SpanKind.CONSUMER):
            assert known()[0] is None
            with tracer.start_as_current_span("child"):
                set_user("bob")
                scope, _ = users.open.around(None)
                assert scope is scope_of()
            with tracer.start_as_current_span("later"):
                assert known()[0] == "bob"
        assert known()[0] == "alice"
    detach(token)
    assert users.users == {"child": "bob", "later": "bob", "message": "bob", "request": "alice"}


def test_a_context_that_was_attached_inside_a_span_comes_before_what_the_span_is_bound_to(tracer: trace.Tracer, users: Users) -> None:
    """In a handler of aiohttp a message without a parent is extracted and attached: it is not the request."""
    span = tracer.start_span("server", context=request())
    with trace.use_span(span):
        token = attach(request())
        set_user("bob")
        with tracer.start_as_current_span("message"):
            pass
        detach(token)
        set_user("alice")
    span.end()
    assert users.users == {"message": "bob", "server": "alice"}


@pytest.mark.parametrize("remote", [False, True], ids=["root", "called"])
def test_a_server_span_does_not_take_what_was_left_on_its_thread(tracer: trace.Tracer, users: Users, remote: bool) -> None:
    """Somebody's request that nothing traced left its user; the next, traced but not extracted by us, starts with nobody, in every client."""
    second = OpenSpans()
    set_user("alice")
    caller = NonRecordingSpan(SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1)))
    parent = trace.set_span_in_context(caller) if remote else None
    with tracer.start_as_current_span("request", context=parent, kind=SpanKind.SERVER) as span:
        assert isinstance(span, Span)
        second.started(span, parent)
        assert known()[0] is None
        with tracer.start_as_current_span("login"):
            set_user("bob")
        assert known()[0] == "bob"
    assert users.users == {"login": "bob", "request": "bob"}
    scope = second.scope(span, noted(second, span))
    assert scope is not None
    assert scope.user_id == "bob"
    assert known()[0] is None  # said before the first request of the process: it is not known for whom


def test_a_local_server_span_belongs_to_the_work_around_it(tracer: trace.Tracer, users: Users) -> None:
    """A script that serves itself is one person's."""
    set_user("u-script")
    with tracer.start_as_current_span("script"), tracer.start_as_current_span("served", kind=SpanKind.SERVER):
        pass
    assert users.users == {"served": "u-script", "script": "u-script"}


class Unreadable(Mapping[str, object]):
    """A value, or a mapping, that refuses every question."""

    def __eq__(self, _other: object) -> bool:
        raise TypeError

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        raise TypeError

    def __getitem__(self, key: str) -> object:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        raise TypeError

    def __len__(self) -> int:
        raise TypeError


def test_set_user_takes_anything() -> None:
    """Nothing raises; what can not be read is left out, but an opt-out that can not be read counts."""
    odd: Any = Unreadable()
    set_user(10**5_000, 10**5_000, odd, odd, anonymous=odd)
    set_user(odd, odd, opt_out=odd)
    scope = scope_of()
    assert scope is not None
    assert (scope.anonymous, scope.groups, scope.opted_out) == (False, None, True)
