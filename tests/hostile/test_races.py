"""What threads, callbacks, policies and clocks of others can do to delivery inside one process."""

from __future__ import annotations

import asyncio
import io
import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from parcels import Memory, acknowledged, fault, names, parcel, throttled
from punctual import Stopwatch
from refused_threads import Threads

from otel_amplitude import Amplitude, Config, pipeline
from otel_amplitude.delivery import worker as _worker
from otel_amplitude.delivery.batch_exporter import BatchExporter
from otel_amplitude.delivery.disk.spool import Spool
from otel_amplitude.delivery.dispatcher import Batch, DeliveryOptions
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.receipt import Receipt
from otel_amplitude.errors import TransportError
from otel_amplitude.suppression import is_suppressed
from otel_amplitude.testing import FakeTransport, answer
from otel_amplitude.transport import Request, Response

KEY = "0123456789abcdef0123456789abcdef"
EVENT = {"event_type": "Order Paid", "user_id": "user-12345"}
PATIENCE = 30.0


class Post(BatchExporter):
    """Sends nothing anywhere; answers as the test says."""

    def __init__(self, answer: Callable[[Batch], Receipt] = acknowledged, *, interval: float = 0.001, **rest: Any) -> None:
        self.answer = answer
        self.memory = Memory()
        kept = {name: rest.pop(name) for name in ("spool", "retry", "clock", "wall", "read_ids") if name in rest}
        observers = (*rest.pop("observers", ()), self.memory)
        kept.setdefault("wall", lambda: 0.0)  # parcels of these tests are accepted then
        super().__init__(DeliveryOptions(upload_interval=interval, **rest), observers=observers, **kept)

    def send_batch(self, batch: Batch, deadline: float) -> Receipt:
        return self.answer(batch)


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.001)


@pytest.fixture
def client() -> Iterator[Callable[..., Amplitude]]:
    """Makes clients, which are shut down in the end with balanced books."""
    made: list[Amplitude] = []

    def make(**options: Any) -> Amplitude:
        made.append(Amplitude(Config(KEY, **{"transport": FakeTransport(), "upload_interval": 0, **options})))
        return made[-1]

    yield make
    for each in made:
        each.shutdown(1)
        assert each.stats().balanced
        assert each.stats().pending.total == 0


@pytest.mark.usefixtures("eager_switching")
def test_the_byte_count_of_arrivals_does_not_drift() -> None:
    """However threads take turns, an empty queue weighs nothing: else the bound in bytes would move with every race."""
    post = Post(max_cached_events=5000, max_batch_events=10)

    def submit(thread: int) -> None:
        for number in range(4000):
            post.submit(parcel(f"{thread}-{number}", f"user-{number % 50}", size=100))
            if number % 20 == 0:
                time.sleep(0)

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert post.flush(PATIENCE)
    queue = post._worker().queue
    assert (queue.used_events, queue.used_bytes) == (0, 0)
    assert post.stats().accepted > 1000
    assert post.shutdown(PATIENCE)


def test_a_flush_returns_when_everybody_was_told(client: Any) -> None:
    """`flush` is True after `on_result` returned for each event, whichever sender tells it; a slow callback is waited for."""
    told: list[str] = []

    def on_result(result: Any) -> None:
        time.sleep(0.002)
        told.append(result.insert_id)

    amplitude = client(on_result=on_result, max_batch_events=5, max_in_flight=4)
    for _ in range(5):
        for number in range(40):
            amplitude.log_event({**EVENT, "user_id": f"user-{number % 16}"})
        assert amplitude.flush(PATIENCE)
        count = len(told)
        assert count == amplitude.stats().acknowledged
    assert len(set(told)) == len(told) == 200


def test_a_flush_inside_a_callback_does_not_wait_for_itself(client: Any) -> None:
    """A callback may flush; it is one of those that would have to be waited for."""
    answers: list[bool] = []
    amplitude = client(on_result=lambda _: answers.append(amplitude.flush(PATIENCE)))
    amplitude.log_event(EVENT)
    begun = time.monotonic()
    assert amplitude.flush(PATIENCE)
    assert answers == [True]
    assert time.monotonic() - begun < PATIENCE / 2


@pytest.mark.parametrize(
    "raised", [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit(), MemoryError(), ZeroDivisionError()], ids=repr
)
def test_no_callback_takes_a_sender_with_it(client: Any, raised: BaseException) -> None:
    """Whatever a callback raises, the batch that this sender would send next arrives."""
    calls = itertools.count()

    def on_result(_result: Any) -> None:
        next(calls)
        raise raised

    amplitude = client(on_result=on_result, max_batch_events=3, max_in_flight=1)
    for number in range(30):
        amplitude.log_event({**EVENT, "user_id": f"user-{number}"})
    assert amplitude.flush(PATIENCE)
    assert amplitude.stats().acknowledged == 30
    assert next(calls) == 30


class Policy:
    def __init__(self, given: Any) -> None:
        self.given = given
        self.asked = 0

    def wait(self, _attempt: int, _random: Any) -> Any:
        self.asked += 1
        if isinstance(self.given, BaseException):
            raise self.given
        return self.given


@pytest.mark.parametrize("given", ["soon", float("nan"), -1.0, b"", [], SystemExit(2), KeyError("x")], ids=repr)
def test_a_policy_that_answers_nonsense_costs_no_event(monkeypatch: pytest.MonkeyPatch, given: Any) -> None:
    """The usual backoff is used instead."""
    failures = iter([fault, fault])
    policy = Policy(given)
    post = Post(lambda batch: (next(failures, acknowledged))(batch), retry=policy)  # noqa: PLW0108 -- another one each time
    monkeypatch.setattr(post._worker()._senders, "_random", lambda: 0.001)
    for number in range(5):
        post.submit(parcel(f"{number}"))
    assert post.flush(PATIENCE)
    assert policy.asked > 0
    assert (post.stats().acknowledged, post.stats().balanced) == (5, True)
    assert post.shutdown(PATIENCE)


def test_a_policy_that_says_for_ever_means_a_day() -> None:
    """A wait without end is no wait that a clock can measure."""
    post = Post(fault, retry=Policy(float("inf")))
    post.submit(parcel("a"))
    assert not post.flush(0.1)
    assert post._worker().dispatcher._resume_at < time.monotonic() + 86_400.0
    assert not post.shutdown(0.0)
    assert post.stats().dropped == {"shutdown": 1}


class Odd(FakeTransport):
    """A transport of the user's that does everything but what it promised."""

    def __init__(self, given: Any) -> None:
        super().__init__()
        self.given = given
        self.closed = 0

    def send(self, request: Request) -> Response:
        super().send(request)
        if isinstance(self.given, BaseException):
            raise self.given
        return self.given  # type: ignore[no-any-return]

    def close(self) -> None:
        self.closed += 1
        raise RuntimeError(KEY)


@pytest.mark.parametrize(
    "given", [None, "ok", SimpleNamespace(status=200), RuntimeError("bug"), SystemExit(3), TransportError("no")], ids=repr
)
def test_a_transport_of_the_users_may_do_what_it_likes(client: Any, given: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing it gives or raises reaches the application; what it did not deliver is counted, and its key is not logged."""
    caplog.set_level(logging.DEBUG)
    transport = Odd(given)
    amplitude = client(transport=transport, retry_timeouts=[0])
    amplitude.log_event(EVENT)
    assert amplitude.flush(PATIENCE)
    assert not transport.closed
    assert amplitude.shutdown(1)
    assert transport.closed == 1
    books = amplitude.stats()
    assert books.acknowledged == 0
    assert sum(books.dropped.values()) == 1
    assert KEY not in caplog.text


def test_a_refusal_says_its_own_reason(client: Any) -> None:
    """`queue_full`, `id_backlog` and `closed` are told apart by the result, as they are by the books."""
    silence = threading.Event()

    def wait(_request: Request) -> Response:
        silence.wait(PATIENCE)
        return answer(200)

    full = client(transport=FakeTransport(wait), max_cached_events=2)
    reasons = {full.log_event(EVENT).reason for _ in range(10)}
    assert reasons == {"", "queue_full"}
    silence.set()

    hot = client(transport=FakeTransport(lambda _: answer(429, throttled_users={"user-12345": 99})), max_cached_events=10)
    hot.log_event(EVENT)
    assert not hot.flush(0.1)
    while hot.stats().pending.held < 1:
        time.sleep(0.001)
    assert hot.log_event(EVENT).reason == "id_backlog"
    assert hot.stats().refused == {"id_backlog": 1}
    hot.shutdown(0)
    assert hot.log_event(EVENT).reason == "closed"


@pytest.mark.parametrize("stderr", [None, "closed"])
def test_a_process_without_stderr_can_start_and_end(client: Any, monkeypatch: pytest.MonkeyPatch, stderr: str | None) -> None:
    """Daemons close it; the line for newcomers is not worth an exception at exit."""
    gone = io.StringIO()
    gone.close()
    monkeypatch.setattr(sys, "stderr", gone if stderr else None)
    monkeypatch.setattr(logging.getLogger("otel_amplitude"), "propagate", False)
    amplitude = client(log_level="ERROR")
    amplitude.zero_code = True
    amplitude.log_event(EVENT)
    assert amplitude.flush(PATIENCE)
    assert amplitude.shutdown()


def test_a_machine_that_has_just_booted_has_time_to_leave(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The monotonic clock may begin near zero: that is no deadline that has passed."""
    amplitude = client(shutdown_timeout=5.0)
    monkeypatch.setattr("otel_amplitude._exit.monotonic", lambda: 2.0)
    assert amplitude.leaving.remaining() == 5.0


def test_a_caller_that_has_to_send_by_itself_is_inside_the_pipeline(threads: Threads) -> None:
    """Where no thread can be started, `flush` sends on its caller's thread: that makes no spans and no events either."""
    threads.refuse()
    seen: list[tuple[bool, bool]] = []

    def look(batch: Batch) -> Receipt:
        seen.append((pipeline.inside(), is_suppressed()))
        return acknowledged(batch)

    post = Post(look)
    post.submit(parcel("a"))
    assert post.flush(PATIENCE)
    assert seen == [(True, True)]
    assert not pipeline.inside()
    assert post.shutdown(PATIENCE)


class Clocks:
    """A time of day that can be set, and a monotonic clock that can not."""

    def __init__(self) -> None:
        self.set_by = 0.0

    def wall(self) -> float:
        return time.time() + self.set_by


@pytest.mark.parametrize("by", [10 * 86_400.0, -10 * 86_400.0, 3 * 86_400.0 - 1])
@pytest.mark.parametrize("place", ["memory", "disk"])
def test_a_clock_that_is_set_loses_nothing(tmp_path: Path, place: str, by: float) -> None:
    """During an outage somebody sets the clock, then back: what was accepted a moment ago is not old, nor too young ever to be."""
    clocks, down = Clocks(), threading.Event()
    down.set()
    spool = Spool(tmp_path / "spool", "0123abcd", min_free=0, wall=clocks.wall) if place == "disk" else None
    post = Post(
        lambda batch: fault(batch) if down.is_set() else acknowledged(batch),
        wall=clocks.wall, spool=spool, retry=Policy(0.01), read_ids=lambda body: (body.decode().strip(),),
    )  # fmt: skip

    def submit(*numbers: int) -> None:
        for number in numbers:
            assert post.submit(parcel(f"{number}", f"{number}", accepted_ms=int(clocks.wall() * 1000)))

    submit(1, 2)
    for change in (by, -2 * by):
        assert not post.flush(0.05)
        clocks.set_by += change
        assert not post.flush(0.05)
        submit(int(3 + abs(clocks.set_by)), int(4 + abs(clocks.set_by)))
    assert post.stats().dropped == {}
    down.clear()
    assert post.flush(PATIENCE)
    assert (post.stats().acknowledged, post.stats().dropped) == (6, {})
    assert post.shutdown(PATIENCE)


def test_what_is_old_expires_although_the_clock_was_set() -> None:
    """The age that counts is the time that passed."""
    now, wall = [1000.0], [5e8]
    post = Post(fault, clock=lambda: now[0], wall=lambda: wall[0], retry=Policy(0.0), max_event_age=100.0)
    post.submit(parcel("a", accepted_ms=int(wall[0] * 1000)))
    assert not post.flush(0.0)
    wall[0] += 1e9
    now[0] += 1.0
    post.hurry()
    assert post.stats().pending.total == 1
    wall[0] += 100.0
    now[0] += 100.0
    post.hurry()
    wait_for(lambda: post.stats().dropped == {"expired": 1})
    assert post.shutdown(0.0)


@pytest.mark.parametrize("call", ["pwrite", "open", "fsync", "unlink", "pread"])
def test_a_disk_that_hangs_does_not_hold_up_who_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """`shutdown(t)` returns within t and a quarter second though the disk answers nothing any more; what it did not take is counted."""
    stuck, let_go = threading.Event(), threading.Event()
    real = getattr(os, call)

    def hang(*arguments: Any, **more: Any) -> Any:
        if stuck.is_set() and threading.current_thread() is not threading.main_thread():
            let_go.wait(PATIENCE)
        return real(*arguments, **more)

    spool = Spool(tmp_path / "spool", "0123abcd", min_free=0, wall=lambda: 0.0)
    post = Post(fault, retry=Policy(0.01), spool=spool, read_ids=lambda _: ("u",), max_cached_events=400)
    for number in range(350):
        assert post.submit(parcel(f"{number}", "u"))
    assert not post.flush(0.1)
    monkeypatch.setattr(os, call, hang)
    stuck.set()
    watch = Stopwatch()
    assert not post.shutdown(0.6)
    took = watch.seconds()
    let_go.set()
    assert took < 0.6 + 0.25
    books = post.stats()
    assert books.balanced
    assert (books.accepted, books.pending.spooled, books.dropped) == (350, 350, {})


def test_an_append_that_hangs_does_not_hold_up_who_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk keeps an accepting thread inside its write: the end comes in time, and the counters balance before and after."""
    hung, let_go = threading.Event(), threading.Event()
    real = os.pwrite

    def hang(*arguments: Any) -> int:
        if threading.current_thread().name == "accepting":
            hung.set()
            let_go.wait(PATIENCE)
        return real(*arguments)

    post = Post(fault, retry=Policy(0.01), spool=Spool(tmp_path / "spool", "0123abcd", min_free=0, wall=lambda: 0.0))
    assert post.submit(parcel("a"))
    monkeypatch.setattr(os, "pwrite", hang)
    accepting = threading.Thread(target=post.submit, args=(parcel("b"),), name="accepting")
    accepting.start()
    assert hung.wait(PATIENCE)
    watch = Stopwatch()
    assert not post.shutdown(0.2)
    assert watch.seconds() < 0.45
    assert (post.stats().pending.spooled, post.stats().balanced) == (1, True)
    let_go.set()
    accepting.join(PATIENCE)
    assert post.stats().balanced


def test_a_callback_that_blocks_holds_up_nobody_but_itself(client: Any) -> None:
    """Another event of another user is sent meanwhile; `flush` keeps its time, and is not True before the callback is over."""
    release, blocked = threading.Event(), threading.Event()

    def on_result(_result: Any) -> None:
        blocked.set()
        release.wait(PATIENCE)

    amplitude = client(on_result=on_result)
    amplitude.log_event(EVENT)
    assert blocked.wait(PATIENCE)
    amplitude.log_event({**EVENT, "user_id": "user-67890"})
    wait_for(lambda: amplitude.stats().acknowledged == 2)
    watch = Stopwatch()
    assert not amplitude.flush(0.3)
    assert watch.seconds() < 0.55
    release.set()
    assert amplitude.flush(PATIENCE)


def test_a_callback_that_blocks_does_not_hold_up_the_end(client: Any) -> None:
    """`shutdown` bears with it for one second more, and the books are closed; the callback hears of each event once, whenever it goes on."""
    release = threading.Event()
    told: list[str] = []

    def on_result(result: Any) -> None:
        told.append(result.outcome)
        release.wait(PATIENCE)

    amplitude = client(transport=FakeTransport(lambda _: answer(503)), on_result=on_result)
    for number in range(3):
        amplitude.log_event({**EVENT, "user_id": f"user-{number}"})
    watch = Stopwatch()
    assert not amplitude.shutdown(0.3)
    assert watch.seconds() < 0.3 + 0.25 + 1.0
    assert amplitude.stats().dropped == {"shutdown": 3}
    assert len(told) < 3
    release.set()
    wait_for(lambda: told == ["dropped"] * 3)


def test_who_shuts_down_as_well_returns_when_callbacks_heard_of_the_end(client: Any) -> None:
    """Two threads end a client; neither returns before `on_result` was called, so that the process may end."""
    told: list[str] = []
    slow = threading.Event()

    def on_result(result: Any) -> None:
        slow.set()
        time.sleep(0.005)  # a callback that takes its time
        told.append(result.outcome)

    stuck, let_go = threading.Event(), threading.Event()

    def never(_request: Request) -> Response:
        stuck.set()
        let_go.wait(PATIENCE)
        return answer(503)

    amplitude = client(transport=FakeTransport(never), on_result=on_result)
    for number in range(10):
        amplitude.log_event({**EVENT, "user_id": f"user-{number}"})
    assert stuck.wait(PATIENCE)
    heard: list[int] = []

    def leave() -> None:
        amplitude.shutdown(PATIENCE if slow.is_set() else 0.0)
        heard.append(len(told))

    first = threading.Thread(target=leave)
    first.start()
    assert slow.wait(PATIENCE)
    leave()
    first.join()
    let_go.set()
    assert heard == [10, 10]


def test_a_shutdown_that_interrupts_a_shutdown_waits_for_the_same_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler may shut down while the same thread does so: the worker ends both."""
    post = Post()
    assert post.submit(parcel("a"))
    worker = post._worker()
    wait, answers = worker._wait, []

    def interrupted(*arguments: Any, **more: Any) -> None:
        if not answers:
            answers.append(False)
            answers[0] = post.shutdown(PATIENCE)
        wait(*arguments, **more)

    monkeypatch.setattr(worker, "_wait", interrupted)
    assert post.shutdown(PATIENCE)
    assert answers == [True]
    assert post.stats().acknowledged == 1


def test_a_shutdown_that_interrupts_turns_on_the_same_thread_returns(threads: Threads) -> None:
    """Where no thread can be had a caller does the turns; a signal handler that interrupts it can not wait for it."""
    threads.refuse()
    answers: list[bool] = []

    def interrupted(batch: Batch) -> Receipt:
        watch = Stopwatch()
        answers.append(post.flush(PATIENCE))
        assert watch.seconds() < PATIENCE / 2
        return acknowledged(batch)

    post = Post(interrupted)
    assert post.submit(parcel("a"))
    assert post.flush(PATIENCE)
    assert answers == [False]
    assert post.shutdown(PATIENCE)


def test_a_shutdown_inside_a_callback_does_not_wait_for_the_one_that_waits_for_it() -> None:
    """A callback shuts down while another thread does: each would wait for the other."""
    called, waited = threading.Event(), threading.Event()

    class Closing(Memory):
        def finished(self, parcel: Parcel, outcome: str, reason: str, status: int | None, attempts: int) -> None:
            called.set()
            assert waited.wait(PATIENCE)
            post.shutdown(PATIENCE)
            super().finished(parcel, outcome, reason, status, attempts)

    closing = Closing()
    post = Post(observers=[closing])
    assert post.submit(parcel("a"))
    assert called.wait(PATIENCE)
    watch = Stopwatch()
    ending: list[bool] = []
    thread = threading.Thread(target=lambda: ending.append(post.shutdown(PATIENCE)))
    thread.start()
    wait_for(lambda: post.closed)  # it is under way
    waited.set()
    thread.join(PATIENCE)
    assert ending == [True]
    assert watch.seconds() < PATIENCE / 2
    assert closing.outcomes == {"acknowledged": 1}


def test_a_flush_after_the_end_waits_without_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: Threads) -> None:
    """What lies on disk does not come to its end any more: the flush says so at once, also where no thread can be started."""
    threads.refuse()
    monkeypatch.setattr(_worker, "GRACE_SECONDS", PATIENCE)
    post = Post(fault, retry=Policy(60.0), spool=Spool(tmp_path / "spool", "0123abcd", min_free=0, wall=lambda: 0.0))
    assert post.submit(parcel("a"))
    assert not post.shutdown(0.0)
    assert post.stats().pending.spooled == 1
    watch = Stopwatch()
    assert not post.flush(PATIENCE)
    assert watch.seconds() < PATIENCE / 2


def test_a_shutdown_that_is_interrupted_is_ended_by_the_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the end is waited for: it comes all the same, another `shutdown` waits for it, and the counters balance."""
    post = Post(fault, retry=Policy(60.0), spool=Spool(tmp_path / "spool", "0123abcd", min_free=0, wall=lambda: 0.0))
    for number in range(600):
        assert post.submit(parcel(f"{number}"))
    worker = post._worker()

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(worker, "_wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            post.shutdown(0.0)
    assert not post.shutdown(PATIENCE)
    books = post.stats()
    assert (books.accepted, books.pending.spooled, books.dropped) == (600, 600, {})
    assert books.balanced


def test_two_callers_may_wait_for_one_insert_id(client: Any) -> None:
    """A double click with the order's number as key: both are answered when theirs is settled."""
    gate = threading.Event()

    def wait(_request: Request) -> Response:
        gate.wait(PATIENCE)
        return answer(200)

    amplitude = client(transport=FakeTransport(wait))
    outcomes: list[str] = []

    def click() -> None:
        outcomes.append(amplitude.log_event({**EVENT, "insert_id": "order-1"}, timeout=PATIENCE).outcome)

    clicks = [threading.Thread(target=click) for _ in range(2)]
    for each in clicks:
        each.start()
    while amplitude.stats().accepted < 2:
        time.sleep(0.001)
    begun = time.monotonic()
    gate.set()
    for each in clicks:
        each.join()
    assert outcomes == ["acknowledged", "acknowledged"]
    assert time.monotonic() - begun < PATIENCE / 2


def test_a_held_id_starves_nobody() -> None:
    """While one id rests and its followers wait, every other id goes on, in order."""
    arrived: list[int] = []  # as the server saw them: observers may be told of two requests in any order

    def judge(batch: Batch) -> Receipt:
        if any("hot" in each.ids for each in batch):
            return throttled(batch, "hot")
        arrived.extend(int(name) for name in names(batch))
        return acknowledged(batch)

    post = Post(judge, max_batch_events=10)
    post.submit(parcel("h0", "hot", "d0"))
    assert not post.flush(0.05)
    wait_for(lambda: post.stats().pending.held == 1)  # from now on its followers wait from the moment they are booked
    for number in range(200):
        post.submit(parcel(f"{number}", f"cold-{number % 7}"))
        if number % 50 == 0:
            post.submit(parcel(f"h{number}", "hot", f"d{number}"))
    wait_for(lambda: post.stats().acknowledged == 200)
    assert post.stats().pending.held == 5
    assert not post.shutdown(0.0)
    for user in range(7):
        mine = [number for number in arrived if number % 7 == user]
        assert mine == sorted(mine)
