"""set_user outside of requests, and `acting`: what is said ends with the code that it was said for."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import logging
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind

import otel_amplitude
from otel_amplitude import Amplitude, Config, acting, set_user
from otel_amplitude.identity import AmplitudePropagator, OpenSpans, RequestScope, scope_of
from otel_amplitude.identity._scope import process
from otel_amplitude.testing import FakeTransport

ENVIRON = {"wsgi.version": (1, 0), "PATH_INFO": "/"}


@pytest.fixture(autouse=True)
def context() -> Iterator[None]:
    """Each test has the context to itself."""
    token = attach(Context())
    yield
    detach(token)


@pytest.fixture
def client() -> Iterator[Amplitude]:
    """A client whose log and counters are looked at."""
    made = Amplitude(Config("0" * 32, transport=FakeTransport()))
    yield made
    made.shutdown(1)


def known() -> tuple[object, object]:
    """User and device, here and now."""
    scope = scope_of()
    return (None, None) if scope is None else (scope.user_id, scope.device_id)


def request(environ: dict[str, Any] | None = None) -> Context:
    """The context of a request that has begun."""
    return AmplitudePropagator({}).extract(dict(ENVIRON) if environ is None else environ)


def in_thread(work: Any) -> Any:
    """Do work on a new thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def test_a_script_is_heard() -> None:
    """In a process that serves nothing, threads of a script included."""
    set_user("user-1234")
    assert known() == ("user-1234", None)
    assert in_thread(lambda: (set_user("job-1234"), known())[1]) == ("job-1234", None)


def test_the_first_request_ends_what_a_script_said(client: Amplitude) -> None:
    """It is not known for whom it was said; so it is with what a thread says afterwards, which the next visitor might find."""
    set_user("user-1234")
    request()
    assert known() == (None, None)
    set_user("user-5678")
    in_thread(lambda: set_user("user-9012"))
    assert known() == (None, None)
    assert client.stats().set_user_outside == 3
    assert client.stats().balanced


def test_the_line_names_the_caller_once(client: Amplitude, caplog: pytest.LogCaptureFixture) -> None:
    """File and line of the application, and the cure; later ones are only counted."""
    request()
    with caplog.at_level(logging.WARNING, "otel_amplitude"):
        for _ in range(3):
            set_user("user-1234")
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"identity.outside caller={__file__}:")
    assert "acting" in line
    assert client.stats().set_user_outside == 3


def test_all_clients_have_the_same_number() -> None:
    """It is about the process."""
    clients = [Amplitude(Config("0" * 32, transport=FakeTransport(), name=name)) for name in ("a", "b")]
    request()
    set_user("user-1234")
    assert [client.stats().set_user_outside for client in clients] == [1, 1]
    for client in clients:
        client.shutdown(1)


def test_tasks_in_a_process_that_serves_are_heard() -> None:
    """The context of a task ends with it; its child tasks inherit, its neighbours do not."""
    request()

    async def child() -> Any:
        return known()

    async def job(user: str) -> Any:
        set_user(user)
        await asyncio.sleep(0)
        return known(), await asyncio.create_task(child()), await asyncio.to_thread(known)

    async def main() -> Any:
        return await asyncio.gather(job("alice-1"), job("bob-1234"))

    assert asyncio.run(main()) == [((user, None),) * 3 for user in ("alice-1", "bob-1234")]
    assert known() == (None, None)


def test_a_task_that_serves_requests_is_like_a_thread() -> None:
    """Tornado's connections serve one visitor after the other in one task: after the first request nothing is left in it any more."""

    async def connection() -> Any:
        seen = []
        for user in ("alice-1", "bob-1234"):
            set_user(user)
            token = attach(request())
            seen.append(known())
            detach(token)
            seen.append(known())
        return seen

    assert asyncio.run(connection()) == [(None, None)] * 4
    assert process.set_user_outside == 2


def test_a_span_outside_of_requests_is_heard_in_a_process_that_serves() -> None:
    """A job with a span of its own: the span and its children know the user, the thread does not keep it."""
    opened, tracer = OpenSpans(), TracerProvider(shutdown_on_exit=False).get_tracer("test")
    request()
    with tracer.start_as_current_span("job") as span:
        opened.started(span)
        set_user("user-1234")
        assert known() == ("user-1234", None)
        assert in_thread(lambda: contextvars.copy_context().run(known)) == (None, None)
    scope = opened.scope(span, opened.forget(span.get_span_context().span_id, None))  # type: ignore[arg-type]
    assert scope is not None
    assert scope.user_id == "user-1234"
    assert known() == (None, None)
    assert process.set_user_outside == 0


def test_acting_ends_with_its_block() -> None:
    """Everywhere, also where set_user is refused."""
    request()
    with acting("user-1234", "device-1"):
        assert known() == ("user-1234", "device-1")
        set_user(device_id="device-2")
        assert known() == ("user-1234", "device-2")
    assert known() == (None, None)
    assert process.set_user_outside == 0


def test_acting_nests() -> None:
    """An inner block adds to the outer one, for itself."""
    with acting("user-1234", "device-1"):
        with acting("user-5678"):
            assert known() == ("user-5678", "device-1")
        assert known() == ("user-1234", "device-1")


def test_acting_wins_inside_a_request() -> None:
    """Device and session of the visitor are not those of the other person; afterwards the request is as it was."""
    token = attach(request())
    set_user("alice-1", "device-a")
    with acting("bob-1234"):
        assert known() == ("bob-1234", None)
        with trace.get_tracer("test").start_as_current_span("inside"):
            set_user(device_id="device-b")
        assert known() == ("bob-1234", "device-b")
    assert known() == ("alice-1", "device-a")
    detach(token)


def test_acting_keeps_an_opt_out_of_the_request() -> None:
    """Nothing is sent of a visitor who asked for that, also when it is said of somebody else."""
    token = attach(request())
    set_user("alice-1", opt_out=True)
    with acting("bob-1234"):
        scope = scope_of()
        assert scope is not None
        assert scope.opted_out
    detach(token)


def test_acting_in_a_span_that_is_bound() -> None:
    """The span of a job, or of a request of aiohttp, has a scope of its own: the block is nearer."""
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("job"):
        set_user("user-1234")
        with acting("user-5678"):
            assert known() == ("user-5678", None)
        assert known() == ("user-1234", None)


def test_acting_in_tasks() -> None:
    """Tasks that interleave each have their own, tasks that are created in the block know it until it ends."""

    async def job(user: str) -> Any:
        with acting(user):
            await asyncio.sleep(0)
            child = asyncio.create_task(later())
            return known(), await asyncio.to_thread(known), child

    async def later() -> Any:
        await asyncio.sleep(0.01)
        return known()

    async def main() -> Any:
        results = await asyncio.gather(job("alice-1"), job("bob-1234"))
        return [(*seen, await child) for *seen, child in results]

    assert asyncio.run(main()) == [((user, None), (user, None), (None, None)) for user in ("alice-1", "bob-1234")]


def test_a_span_of_a_block_that_ends_later_is_still_the_blocks() -> None:
    """It was started for that person."""
    opened, tracer = OpenSpans(), TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with acting("user-1234"):
        span = tracer.start_span("work")
        opened.started(span)
    scope = opened.scope(span, opened.forget(span.get_span_context().span_id, None))  # type: ignore[arg-type]
    assert scope is not None
    assert scope.user_id == "user-1234"


def test_a_request_that_begins_in_a_block_is_its_own() -> None:
    """A test that calls an application in-process says nothing about its visitors."""
    with acting("user-1234"):
        token = attach(request())
        assert known() == (None, None)
        detach(token)
        with TracerProvider(shutdown_on_exit=False).get_tracer("test").start_as_current_span("GET", kind=SpanKind.SERVER) as span:
            OpenSpans().started(span)
            assert known() == (None, None)
        assert known() == ("user-1234", None)


def test_acting_ends_after_an_error() -> None:
    """As any block."""
    with pytest.raises(ValueError, match=r"^$"), acting("user-1234"):
        raise ValueError
    assert known() == (None, None)


def test_the_scope_in_an_environ_can_be_copied_and_says_nothing() -> None:
    """Middleware copies environs deeply, debug pages print them, and some are sent to other processes."""
    environ: dict[str, Any] = dict(ENVIRON)
    token = attach(request(environ))
    set_user("user-1234", "device-1")
    detach(token)
    [scope] = [value for value in environ.values() if isinstance(value, RequestScope)]
    assert copy.copy(scope) is copy.deepcopy(environ)["otel_amplitude.request"] is scope
    assert "user-1234" not in repr(environ)
    assert pickle.loads(pickle.dumps(scope)).user_id is None


def test_headers_of_a_message_are_not_written_to() -> None:
    """Also if a sender calls them as a request's own object does."""
    for carrier in ({"type": "http", "headers": "x"}, {"wsgi.version": "1"}, {"otel_amplitude.request": "x"}, {}):
        before = dict(carrier)
        AmplitudePropagator({}).extract(carrier)
        assert carrier == before
        assert not process.serving


def test_many_threads_count_exactly() -> None:
    """The number does not rest on a lock of the interpreter."""
    request()
    threads = [threading.Thread(target=lambda: [set_user("user-1234") for _ in range(200)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert process.set_user_outside == 1_600


def test_the_context_after_a_block_is_the_one_before() -> None:
    """Nothing is left behind."""
    before = get_current()
    with otel_amplitude.acting("user-1234"):
        assert get_current() is not before
    assert get_current() is before


def of_a_server(work: Any) -> Any:
    """A coroutine function as a server's: the module of its code says so."""
    namespace = {"__name__": "uvicorn.protocols.http.h11_impl"}
    exec("async def run(work, *args):\n    return await work(*args)", namespace)
    return namespace["run"](work)


@pytest.mark.parametrize("traced", [False, True], ids=["excluded", "traced"])
def test_the_next_request_in_the_context_of_the_one_before(traced: bool) -> None:
    """Kludex/uvicorn#2167, langflow#14769: a quick client's next request starts inside of the task of the last one; children of that task are its own."""
    tracer, before = TracerProvider(shutdown_on_exit=False).get_tracer("test"), asyncio.Event()
    seen: list[Any] = []

    async def child() -> Any:
        return known()

    async def following() -> Any:
        here = known()
        await before.wait()
        seen.append((here, await asyncio.to_thread(known)))

    async def serve() -> Any:
        if traced:
            token = attach(request({"type": "http", "headers": []}))
            span = tracer.start_span("GET", context=get_current(), kind=SpanKind.SERVER)
            OpenSpans().started(span, get_current())
            set_user("alice-1")
            span.end()
        else:
            set_user("alice-1")
        inner, after = asyncio.create_task(child()), asyncio.create_task(of_a_server(following))
        expected = ("alice-1", None) if traced else (None, None)  # without a request to say it of, it is refused
        assert await inner == known() == expected
        if traced:
            detach(token)
        return after

    async def main() -> None:
        after = await asyncio.create_task(of_a_server(serve))
        before.set()
        await after

    process.serving = True
    asyncio.run(main())
    [(in_task, in_thread_of_task)] = seen
    assert in_task == (None, None)
    assert in_thread_of_task == (None, None)


def test_a_span_of_an_instrumentation_in_a_request_that_has_ended() -> None:
    """It is the next request of the connection, as its INTERNAL kind and its method show; its events are refused."""
    tracer, opened = TracerProvider(shutdown_on_exit=False).get_tracer("test"), OpenSpans()
    token = attach(request({"type": "http", "headers": []}))
    first = tracer.start_span("GET", context=get_current(), kind=SpanKind.SERVER)
    opened.started(first, get_current())
    set_user("alice-1")
    first.end()
    left = trace.set_span_in_context(first)
    later = attach(left)
    second = tracer.start_span("GET", context=get_current(), attributes={"http.method": "GET"})
    opened.started(second, get_current())
    with trace.use_span(second):
        assert known() == (None, None)
        set_user("bob-1234")
    detach(later)
    assert known() == ("alice-1", None)
    detach(token)
