"""The real threads, around a sender that does what the test says."""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.util import _finalizer_registry
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pytest
from parcels import Memory, acknowledged, divided, fault, names, parcel, throttled
from punctual import Stopwatch

from otel_amplitude import pipeline
from otel_amplitude.delivery import batch_exporter as _batch_exporter
from otel_amplitude.delivery.batch_exporter import BatchExporter
from otel_amplitude.delivery.books import Stats
from otel_amplitude.delivery.disk import spool as _spool
from otel_amplitude.delivery.disk.spool import Spool
from otel_amplitude.delivery.dispatcher import Batch, DeliveryOptions
from otel_amplitude.delivery.lock import acquired
from otel_amplitude.delivery.observer import Observer
from otel_amplitude.delivery.receipt import RESEND, Outcome, Receipt, Split, Verdict
from otel_amplitude.delivery.retry import FixedWaits
from otel_amplitude.delivery.shelf import Shelf
from otel_amplitude.suppression import is_suppressed

Answer = Callable[[Batch], Receipt]
# What a loaded machine may take for what an idle one does at once.
PATIENCE = 30.0


def long_ago() -> float:
    """The time at which the parcels of these tests are accepted."""
    return 0.0


class Post(BatchExporter):
    """Sends nothing anywhere: an answer is what the test says; remembers what it was given."""

    def __init__(self, answer: Answer = acknowledged, *, interval: float = 3600.0, **rest: Any) -> None:
        self.memory = Memory()
        self.answer = answer
        self.sent: list[list[str]] = []
        self.deadlines: list[float] = []
        arguments = {name: rest.pop(name) for name in ("spool", "read_ids", "clock", "retry") if name in rest}
        observers = (*rest.pop("observers", ()), self.memory)
        super().__init__(DeliveryOptions(upload_interval=interval, **rest), observers=observers, wall=long_ago, **arguments)

    def send_batch(self, batch: Batch, deadline: float) -> Receipt:
        self.sent.append(names(batch))
        self.deadlines.append(deadline)
        return self.answer(batch)


class Gate:
    """An answer that waits until the test opens it; `reached` counts requests that wait."""

    def __init__(self, answer: Answer = acknowledged) -> None:
        self.answer = answer
        self.opened = threading.Event()
        self.reached = threading.Semaphore(0)

    def __call__(self, batch: Batch) -> Receipt:
        self.reached.release()
        self.opened.wait(PATIENCE)
        return self.answer(batch)

    def wait(self, times: int = 1) -> None:
        for _ in range(times):
            assert self.reached.acquire(timeout=PATIENCE)


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the end, and the disk, have all the time that the machine takes: for tests of what happens, not of how soon.

    Without it whoever leaves at once has a tenth of a second in which its leftovers reach the disk.
    """
    monkeypatch.setattr(_batch_exporter, "_GRACE_SECONDS", PATIENCE)
    monkeypatch.setattr(_batch_exporter, "_LOCK_SECONDS", PATIENCE)
    monkeypatch.setattr(_spool, "_OPEN_WAIT", PATIENCE)
    monkeypatch.setattr(_spool, "_CLOSE_WAIT", PATIENCE)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


def test_what_was_submitted_arrives_and_flush_says_so() -> None:
    """A flush sends without waiting for company and is True when all has come to its end."""
    post = Post()
    assert post.submit(parcel("a"))
    assert post.submit(parcel("b"))
    assert post.flush(PATIENCE)
    assert post.sent == [["a", "b"]]
    stats = post.stats()
    assert (stats.accepted, stats.acknowledged, stats.balanced) == (2, 2, True)
    assert post.memory.ends == [("a", "acknowledged", ""), ("b", "acknowledged", "")]
    assert post.shutdown(PATIENCE)
    assert post.memory.stats == post.stats()
    assert post.memory.told == [("started",)]


def test_an_event_leaves_after_the_upload_interval(gate: Gate) -> None:
    """Nobody has to flush."""
    post = Post(gate, interval=0.01)
    post.submit(parcel("a"))
    gate.wait()
    gate.opened.set()
    assert post.shutdown(PATIENCE)


def test_a_full_batch_leaves_at_once(gate: Gate) -> None:
    """By count or by bytes, a full batch wakes the worker."""
    for options in ({"max_batch_events": 3}, {"max_batch_bytes": 60}):
        gate.opened.clear()
        post = Post(gate, **options)
        for i in range(3):
            post.submit(parcel(f"{i}", size=20))
        gate.wait()
        gate.opened.set()
        assert post.shutdown(PATIENCE)


def test_hurry_does_not_wait(gate: Gate) -> None:
    """A caller can have what it handed over sent soon, and go on."""
    post = Post(gate)
    post.submit(parcel("a"))
    post.hurry()
    gate.wait()
    gate.opened.set()
    assert post.shutdown(PATIENCE)


class Preparing(Observer):
    """Remembers whether it was told to make ready for bad news, and what there was before."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def stopping(self) -> None:
        self.told.append("stopping")

    def dropped(self, reason: str, count: int) -> None:
        self.told.append(reason)


def test_who_has_bad_news_to_tell_can_make_ready_while_there_is_time(gate: Gate) -> None:
    """A server that never answers: observers hear of it before the time is over, and of what was dropped afterwards."""
    preparing = Preparing()
    post = Post(gate, observers=[preparing])
    post.submit(parcel("a"))
    assert not post.shutdown(0.1)
    assert preparing.told == ["stopping", "shutdown"]


def test_nothing_is_made_ready_where_all_is_well() -> None:
    """Everything is acknowledged: nobody is told."""
    preparing = Preparing()
    post = Post(observers=[preparing])
    post.submit(parcel("a"))
    assert post.shutdown(float("inf"))
    assert preparing.told == []


def test_nothing_exists_before_the_first_parcel(started_here: list[threading.Thread]) -> None:
    """An exporter that is made, flushed and asked for its books has no thread."""
    post = Post()
    assert post.flush(1.0)
    assert not post.stats().accepted
    assert post.shutdown(1.0)
    assert not started_here


@pytest.mark.parametrize("end", ["flush", "shutdown"])
def test_deadlines_hold_while_a_send_hangs(gate: Gate, end: str) -> None:
    """`flush(t)` and `shutdown(t)` return within t + 0.25 s though the server never answers."""
    post = Post(gate)
    post.submit(parcel("a"))
    post.hurry()
    gate.wait()
    watch = Stopwatch()
    assert not getattr(post, end)(0.2)
    assert watch.seconds() < 0.45
    assert post.stats().balanced
    assert post.stats().pending.in_flight == (1 if end == "flush" else 0)


@pytest.mark.usefixtures("unhurried")
def test_a_late_answer_does_not_count_twice(gate: Gate) -> None:
    """What was given up at shutdown stays given up, once, when its answer arrives at last."""
    before = threading.enumerate()
    post = Post(gate)
    post.submit(parcel("a"))
    post.hurry()
    gate.wait()
    assert not post.shutdown(0.0)
    threads = [thread for thread in threading.enumerate() if thread not in before]
    gate.opened.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert post.memory.ends == [("a", "dropped", "shutdown")]
    assert post.stats().dropped == {"shutdown": 1}
    assert post.stats().balanced


def test_sends_know_when_everything_must_end() -> None:
    """An attempt has `request_timeout`, and during shutdown not more than what is left."""
    post = Post(request_timeout=10.0, clock=lambda: 1000.0)
    post.submit(parcel("a"))
    assert post.flush(PATIENCE)
    post.submit(parcel("b"))
    assert post.shutdown(5.0)
    assert post.deadlines == [1010.0, 1005.0]


def test_a_closed_exporter_refuses() -> None:
    """After shutdown nothing is accepted; a second shutdown gives the first one's answer."""
    post = Post()
    post.submit(parcel("a"))
    assert post.shutdown(PATIENCE)
    assert post.closed
    assert not post.submit(parcel("b"))
    assert post.shutdown(0.0)
    assert post.stats().refused == {"closed": 1}


def test_a_flush_does_not_wait_for_observers_that_are_told_of_later_parcels() -> None:
    """Under a steady load somebody is always being told of something."""
    told = {name: threading.Event() for name in ("a", "b")}
    done = {name: threading.Event() for name in ("a", "b")}

    class Slow(Observer):
        wants_results = True

        def finished(self, parcel: Any, outcome: str, reason: str, status: int | None) -> None:
            (name,) = names([parcel])
            told[name].set()
            done[name].wait(2 * PATIENCE)

    post = Post(observers=(Slow(),))
    post.submit(parcel("a", "one"))
    answers: list[bool] = []
    flush = threading.Thread(target=lambda: answers.append(post.flush(PATIENCE)))
    flush.start()
    assert told["a"].wait(PATIENCE)
    post.submit(parcel("b", "two"))
    post.hurry()
    assert told["b"].wait(PATIENCE)
    done["a"].set()
    flush.join(PATIENCE)
    assert answers == [True]
    done["b"].set()
    assert post.shutdown(PATIENCE)


def test_whoever_has_all_the_time_in_the_world_may_say_so() -> None:
    """Infinity is a time."""
    post = Post()
    post.submit(parcel("a"))
    assert post.flush(float("inf"))
    assert post.shutdown(float("inf"))


def test_shutdown_from_two_threads_is_one(gate: Gate) -> None:
    """A second caller waits for the first one, within its own time."""
    post = Post(gate)
    post.submit(parcel("a"))
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(post.shutdown(PATIENCE)))
    thread.start()
    gate.wait()
    watch = Stopwatch()
    post.shutdown(0.1)
    assert watch.seconds() < 0.35
    gate.opened.set()
    thread.join(PATIENCE)
    assert answers == [True]
    assert post.shutdown(PATIENCE)


def test_the_newest_is_refused_when_memory_is_full(gate: Gate) -> None:
    """By count and by bytes, in flight included, memory is bounded."""
    for options in ({"max_cached_events": 2}, {"max_cached_bytes": 25}):
        gate.opened.clear()
        post = Post(gate, **options)
        post.submit(parcel("a", size=10))
        post.hurry()
        gate.wait()
        assert post.submit(parcel("b", size=10))
        assert not post.submit(parcel("c", size=10))
        assert post.stats().refused == {"queue_full": 1}
        assert post.stats().balanced
        gate.opened.set()
        assert post.flush(PATIENCE)
        assert post.submit(parcel("d", size=10))
        assert post.shutdown(PATIENCE)
        assert ("dropped", "queue_full", 1) in post.memory.told


def test_a_hot_held_id_is_refused_beyond_its_share() -> None:
    """Followers of a held id may take a tenth of the memory; others are accepted."""
    post = Post(lambda batch: throttled(batch, "hot"), max_cached_events=20)
    post.submit(parcel("a", "hot"))
    post.submit(parcel("b", "hot"))
    assert not post.flush(0.05)
    while post.stats().pending.held < 2:
        time.sleep(0.001)
    assert not post.submit(parcel("c", "hot"))
    assert post.submit(parcel("d", "cold"))
    assert post.stats().refused == {"id_backlog": 1}
    assert not post.shutdown(0.0)


def test_several_senders_under_a_backlog(gate: Gate) -> None:
    """While a backlog exists `max_in_flight` requests fly, never two with one id, and the order of each id holds."""
    post = Post(gate, max_batch_events=2, max_in_flight=3)
    for i in range(12):
        post.submit(parcel(f"{i}", f"u{i % 6}"))
    gate.wait(3)
    flying = [set(batch) for batch in post.sent]
    assert len(flying) == 3
    assert not set.intersection(*flying)
    gate.opened.set()
    assert post.shutdown(PATIENCE)
    order = [int(name) for batch in post.sent for name in batch]
    assert sorted(order) == list(range(12))
    for user in range(6):
        assert order.index(user) < order.index(user + 6)


def test_what_a_sender_raises_is_survived() -> None:
    """Neither an exception, nor SystemExit, nor a wrong number of outcomes loses an event or ends delivery."""
    faults: list[Any] = [RuntimeError("bug"), SystemExit(1), Receipt([], "short")]

    def answer(batch: Batch) -> Receipt:
        if not faults:
            return acknowledged(batch)
        given = faults.pop()
        if isinstance(given, BaseException):
            raise given
        return given

    post = Post(answer, retry=Soon())
    post.submit(parcel("a"))
    assert post.flush(PATIENCE)
    assert post.stats().acknowledged == 1
    assert post.sent == [["a"]] * 4
    assert post.shutdown(PATIENCE)


class Soon:
    def wait(self, _attempt: int, _random: Callable[[], float], /) -> float | None:
        return 0.001


def test_outages_end() -> None:
    """A server at fault for a while gets everything in the end, the same bytes each time."""
    answers = iter([fault] * 5)

    def answer(batch: Batch) -> Receipt:
        return next(answers, acknowledged)(batch)

    post = Post(answer, retry=Soon())
    for i in range(3):
        post.submit(parcel(f"{i}"))
    assert post.shutdown(PATIENCE)
    assert post.sent == [["0", "1", "2"]] * 6
    assert ("resumed",) in post.memory.told


def test_observers_may_use_the_exporter() -> None:
    """They run outside locks: asking for the books or submitting from a callback is no deadlock; and they are inside the pipeline."""
    seen: list[Any] = []

    class Curious(Observer):
        def settled(self, batch: object, receipt: object, seconds: float) -> None:
            seen.append((post.stats().acknowledged, pipeline.inside(), is_suppressed()))
            if len(seen) == 1:
                post.submit(parcel("b"))

    post = Post(observers=[Curious()])
    post.submit(parcel("a"))
    assert post.flush(PATIENCE)
    assert post.shutdown(PATIENCE)
    assert seen == [(1, True, True), (2, True, True)]


def test_senders_are_inside_the_pipeline() -> None:
    """What a sender logs or traces is never exported."""
    seen: list[bool] = []

    def answer(batch: Batch) -> Receipt:
        seen.extend([pipeline.inside(), is_suppressed()])
        return acknowledged(batch)

    post = Post(answer)
    post.submit(parcel("a"))
    assert post.shutdown(PATIENCE)
    assert seen == [True, True]


def test_without_threads_the_caller_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started (at the end of Python 3.12, or at a limit), flush and shutdown send by themselves."""

    def refuse(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    post = Post()
    assert post.submit(parcel("a"))
    assert post.submit(parcel("b"))
    assert post.stats().pending.queued == 2
    assert post.flush(PATIENCE)
    post.submit(parcel("c"))
    assert post.shutdown(PATIENCE)
    assert post.sent == [["a", "b"], ["c"]]


def test_a_worker_without_senders_sends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the worker lives and no further thread can be had, events still arrive."""
    start, starts = threading.Thread.start, iter([True])

    def once(self: threading.Thread) -> None:
        if not next(starts, False):
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", once)
    post = Post()
    post.submit(parcel("a"))
    assert post.flush(PATIENCE)
    assert post.shutdown(PATIENCE)


def test_submit_waits_for_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finalizer or signal handler on a thread that holds our lock can submit, ask for the books, flush and shut down."""
    monkeypatch.setattr(_batch_exporter, "_LOCK_SECONDS", 0.01)
    post = Post()
    post.submit(parcel("a"))
    with post._lock:
        post.hurry()
        assert post.submit(parcel("b"))
        assert post.stats().accepted == 0
        assert not post.flush(0.0)
        assert not post.shutdown(0.0)
    assert post.shutdown(PATIENCE)
    assert post.stats().acknowledged == 2


def test_parked_senders_are_used_again_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sender serves batch after batch; when nothing comes for a while it ends and leaves one thread."""
    monkeypatch.setattr(_batch_exporter, "_PARKED_SECONDS", 0.05)
    senders: set[int] = set()

    def answer(batch: Batch) -> Receipt:
        senders.add(threading.get_ident())
        return acknowledged(batch)

    post = Post(answer)
    for i in range(20):
        post.submit(parcel(f"{i}"))
        assert post.flush(PATIENCE)
    assert len(senders) < 20
    for thread in threading.enumerate():
        if thread.ident in senders and thread is not threading.current_thread():
            thread.join(PATIENCE)
    assert len([thread for thread in threading.enumerate() if getattr(getattr(thread, "_target", None), "__self__", None) is post]) == 1
    post.submit(parcel("again"))
    assert post.shutdown(PATIENCE)


def test_the_worker_survives_a_broken_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault inside the worker costs a pause, not the delivery."""
    monkeypatch.setattr(_batch_exporter, "_START_AGAIN_SECONDS", 0.001)
    broken = iter([True])

    def clock() -> float:
        if threading.current_thread().name == "otel-amplitude" and next(broken, False):
            raise RuntimeError("bug")
        return time.monotonic()

    post = Post(clock=clock)
    post.submit(parcel("a"))
    assert post.flush(PATIENCE)
    assert post.stats().acknowledged == 1
    assert post.shutdown(PATIENCE)


def test_an_idle_worker_sleeps() -> None:
    """When nothing waits, nothing wakes: there is no moment at which the worker looks again."""
    post = Post()
    post.submit(parcel("a"))
    assert post.flush(PATIENCE)
    assert post._dispatcher.wake_at(time.monotonic(), int(time.time() * 1000)) is None
    assert post.shutdown(PATIENCE)


def test_the_books_balance_in_every_snapshot() -> None:
    """Snapshots taken while several threads submit and several senders answer always balance."""
    post = Post(max_batch_events=10, interval=0.001, max_cached_events=500)
    stop = threading.Event()

    def submit(thread: int) -> None:
        for i in range(2000):
            post.submit(parcel(f"{thread}-{i}", f"u{i % 50}"))
        stop.set()

    threads = [threading.Thread(target=submit, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    last = 0
    while not stop.is_set():
        stats = post.stats()
        assert stats.balanced, stats
        assert stats.accepted >= last
        assert stats.pending.total <= 500 + 3 + 256
        last = stats.accepted
    for thread in threads:
        thread.join()
    assert post.shutdown(PATIENCE)
    stats = post.stats()
    assert stats.acknowledged == stats.accepted == 6000 - stats.refused.get("queue_full", 0)
    assert len(post.memory.ends) == stats.accepted


# Forks and ends, as far as one process can show them.


def refuse_threads(_self: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("call", ["submit", "flush", "shutdown", "stats"])
def test_another_process_id_means_another_process(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Whatever is called first after a fork in C starts with empty books."""
    post = Post()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse_threads)  # in a real child no thread of the parent's lives on
        post.submit(parcel("parents"))
    assert post.stats().accepted == 1
    monkeypatch.setattr(_batch_exporter, "getpid", lambda: -1)
    {"submit": lambda: post.submit(parcel("childs")), "stats": post.stats}.get(call, lambda: getattr(post, call)(PATIENCE))()
    assert post.stats().accepted == (1 if call == "submit" else 0)
    post.flush(PATIENCE)
    assert post.sent == ([["childs"]] if call == "submit" else [])
    assert post.shutdown(PATIENCE)


def test_a_fork_starts_every_exporter_anew(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hook that runs in a child empties all exporters, and gives up their spools' files."""
    monkeypatch.setattr(threading.Thread, "start", refuse_threads)  # this is no child: a worker would live on
    monkeypatch.setattr(_batch_exporter, "_exporters", weakref.WeakSet())  # those of other tests may have workers
    post, closed = spooled(directory, spool_always=True), Post()
    post.submit(parcel("parents"))
    assert closed.shutdown(PATIENCE)
    _batch_exporter._renew_after_fork()
    assert post.stats() == Stats()
    assert not closed.submit(parcel("never"))
    assert closed.shutdown(0.0)
    # Whether it adopts what the "parent" wrote is chance: a real parent would still hold the lock of its directory.
    post.shutdown(PATIENCE)


def test_multiprocessing_is_asked_to_end_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a child of `multiprocessing` a finalizer shuts the exporter down; it keeps no exporter alive."""
    monkeypatch.setattr(multiprocessing.process, "parent_process", object)
    post = Post(shutdown_timeout=PATIENCE)
    post.submit(parcel("a"))
    (finalizer,) = [each for each in list(_finalizer_registry.values()) if each._callback is _batch_exporter._finish]
    finalizer()
    assert post.stats().acknowledged == 1
    assert post.closed
    _batch_exporter._finish(lambda: None, 1.0)  # type: ignore[arg-type]


def test_a_worker_that_could_not_start_starts_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failure the start is tried again, but not for every event."""
    start, tries = threading.Thread.start, [0]

    def refuse_once(self: threading.Thread) -> None:
        tries[0] += 1
        if tries[0] == 1:
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", refuse_once)
    now = [0.0]
    post = Post(clock=lambda: now[0])
    for i in range(10):
        assert post.submit(parcel(f"{i}"))
    assert tries == [1]
    now[0] = 1.0
    post.submit(parcel("later"))
    assert post.flush(PATIENCE)
    assert post.stats().acknowledged == 11
    assert post.shutdown(PATIENCE)


def test_a_flush_beside_a_start_sees_what_that_one_started(gate: Gate) -> None:
    """Who flushes while another thread starts the worker sends by itself, and soon sees that it need not."""
    post = Post(gate)
    flushed: list[float] = []

    def flush() -> None:
        stopwatch = Stopwatch()
        assert post.flush(PATIENCE)
        flushed.append(stopwatch.seconds())

    with post._starting:
        post.submit(parcel("a"))
        flushing = threading.Thread(target=flush)
        flushing.start()
        gate.wait()
        post._wake = SimpleQueue()  # as a start does
        gate.opened.set()
    flushing.join(PATIENCE)
    assert flushed[0] < PATIENCE / 2
    assert post.shutdown(PATIENCE)


def test_two_starts_at_once_make_one_worker() -> None:
    """Who finds a worker after all does not start another."""
    post = Post(clock=lambda: time.monotonic() if not hasattr(post, "_has_worker") else post.__dict__.update(_has_worker=True) or 0.0)
    assert post._start_worker()
    assert post._start_not_before == float("-inf")


def test_a_sender_somebody_counts_on_does_not_end() -> None:
    """A sender whose time ran out just as it was given a batch takes it."""

    class Late:
        def __init__(self, batch: object) -> None:
            self.batch = batch

        def get(self, timeout: float | None = None) -> object:
            if timeout is None:
                return self.batch
            post._parked -= 1
            raise Empty

    post = Post()
    batch = Batch([parcel("a")], 0.0)
    post._jobs = Late(batch)  # type: ignore[assignment]
    assert post._park() is batch


def assert_each_once_and_in_order(accepted: list[tuple[str, tuple[str, ...]]], arrived: list[str]) -> None:
    """All that was accepted arrived, each id's events in the order in which they were accepted."""
    assert sorted(arrived) == sorted(name for name, _ in accepted)
    position = {name: i for i, name in enumerate(arrived)}
    last: dict[str, int] = {}
    for name, ids in accepted:
        for each in ids:
            assert last.get(each, -1) < position[name], (name, each)
            last[each] = position[name]


def test_chaos_keeps_order_and_loses_nothing(directory: Path) -> None:
    """Under faults, holds, divisions and raises, each event arrives once, in the order of its ids, through memory and disk."""
    dice = random.Random(0)
    arrived: list[str] = []
    flying: set[str] = set()
    lock = threading.Lock()

    def answer(batch: Batch) -> Receipt:
        ids = {name for each in batch for name in each.ids}
        with lock:
            assert not ids & flying
            flying.update(ids)
            lot = dice.random()
        time.sleep(0.0005)
        with lock:
            flying.difference_update(ids)
            if lot > 0.4:
                arrived.extend(names(batch))
                return acknowledged(batch)
        if lot < 0.1:
            raise RuntimeError("bug")
        if lot < 0.2:
            return fault(batch)
        if lot < 0.3 and len(batch) > 1:
            return divided(batch, Split.SMALLER)
        short = Outcome(Verdict.RETRY, "throttled", hold=0.01)
        return Receipt([short if batch[0].ids[0] in each.ids else RESEND for each in batch], "throttled")

    spool = Spool(directory, "0123abcd", min_free=0, wall=long_ago)
    post = Post(
        answer, spool=spool, read_ids=lambda body: tuple(body.decode().split("|")[1].split()), retry=Soon(),
        interval=0.002, max_batch_events=20, max_cached_events=300,
    )  # fmt: skip
    accepted: list[tuple[str, tuple[str, ...]]] = []
    for i in range(1500):
        ids = (f"u{i % 70}", f"d{i % 110}")
        name = f"{i}|{' '.join(ids)}"
        if post.submit(parcel(name, *ids)):
            accepted.append((name, ids))
        if i % 10 == 0:
            assert post.stats().balanced
    assert post.flush(PATIENCE)
    assert post.shutdown(PATIENCE)
    assert len(accepted) > 1000
    assert_each_once_and_in_order(accepted, arrived)


# With a real spool behind it.


@pytest.fixture
def directory(tmp_path: Path, unhurried: None) -> Path:
    return tmp_path / "spool"


def spooled(directory: Path, answer: Answer = acknowledged, **options: Any) -> Post:
    return Post(
        answer, spool=Spool(directory, "0123abcd", min_free=0, wall=long_ago), read_ids=lambda body: (body[:1].decode(),), **options
    )


def test_always_goes_through_the_disk(directory: Path, gate: Gate) -> None:
    """With `always` a parcel is on disk when submit returns, is read back, sent as the same bytes, and leaves the disk."""
    post = spooled(directory, gate, spool_always=True)
    post.submit(parcel("a"))
    assert list(directory.rglob("*.seg"))
    post.hurry()
    gate.wait()
    assert post.stats().pending.in_flight == 1
    gate.opened.set()
    assert post.flush(PATIENCE)
    assert post.sent == [["a"]]
    assert post.stats().balanced
    assert post.shutdown(PATIENCE)
    assert not list(directory.rglob("*.seg"))


def test_overflow_starts_at_three_quarters(directory: Path, gate: Gate) -> None:
    """Above the watermark parcels go to disk, and come back behind those in memory, in order."""
    post = spooled(directory, gate, max_cached_events=8, max_batch_events=4, max_in_flight=1)
    for i in range(20):
        assert post.submit(parcel(f"{i:02}", "one"))
    gate.wait()
    stats = post.stats()
    assert stats.pending.spooled > 0
    assert stats.balanced
    assert not post.flush(0.0)
    gate.opened.set()
    assert post.flush(PATIENCE)
    assert [name for batch in post.sent for name in batch] == [f"{i:02}" for i in range(20)]
    assert post.stats().acknowledged == 20
    assert post.shutdown(PATIENCE)


def test_leftovers_go_to_the_disk_and_a_sibling_adopts_them(directory: Path, gate: Gate) -> None:
    """What is left at shutdown, in flight included, is on disk afterwards; the next process adopts and delivers it."""
    post = spooled(directory, gate)
    post.submit(parcel("a"))
    post.hurry()
    gate.wait()
    post.submit(parcel("b", "u2"))
    assert not post.shutdown(0.0)
    stats = post.stats()
    assert (stats.accepted, stats.pending.spooled, stats.balanced) == (2, 2, True)
    assert not stats.dropped
    other = spooled(directory)
    assert other.flush(PATIENCE)
    other.submit(parcel("c", "u3"))
    assert other.flush(PATIENCE)
    assert other.shutdown(PATIENCE)
    stats = other.stats()
    assert (stats.adopted, stats.accepted, stats.acknowledged, stats.balanced) == (2, 1, 3, True)


def test_what_was_read_but_not_settled_stays_on_disk(directory: Path, gate: Gate) -> None:
    """A parcel from the disk that is in flight at shutdown is still on disk."""
    post = spooled(directory, gate, spool_always=True)
    post.submit(parcel("a"))
    post.hurry()
    gate.wait()
    assert not post.shutdown(0.0)
    assert post.stats().pending.spooled == 1
    assert post.stats().balanced


def test_a_failing_disk_degrades_to_memory(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk takes nothing, events travel through memory, even with `always`."""
    post = spooled(directory, spool_always=True)
    monkeypatch.setattr(post._spool, "append", lambda *_: "spool_io")
    for i in range(5):
        assert post.submit(parcel(f"{i}"))
    assert post.flush(PATIENCE)
    assert post.stats().acknowledged == 5
    assert post.shutdown(PATIENCE)


def test_memory_waits_for_what_lies_on_a_full_disk(directory: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parcels that the disk refused do not overtake those before them on it."""
    post = spooled(directory, gate, spool_always=True, max_batch_events=2, max_in_flight=1)
    for i in range(12):
        post.submit(parcel(f"{i:02}", "0"))
    monkeypatch.setattr(post._spool, "append", lambda *_: "spool_full")
    for i in range(12, 15):
        assert post.submit(parcel(f"{i:02}", "0"))
    assert post.stats().balanced
    gate.opened.set()
    assert post.flush(PATIENCE)
    assert [name for batch in post.sent for name in batch] == [f"{i:02}" for i in range(15)]
    assert post.shutdown(PATIENCE)


def test_what_a_full_disk_does_not_take_at_the_end_is_dropped_by_name(directory: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leftovers that do not fit are counted as `spool_full`."""
    post = spooled(directory, gate)
    post.submit(parcel("a"))
    monkeypatch.setattr(post._spool, "append", lambda *_: "spool_full")
    assert not post.shutdown(0.0)
    assert post.stats().dropped == {"spool_full": 1}
    assert post.stats().balanced
    assert post.memory.ends == [("a", "dropped", "spool_full")]


def test_what_waits_for_the_disk_is_part_of_the_end(directory: Path, gate: Gate) -> None:
    """Parcels that wait in memory for those on disk are given up with the others."""
    post = spooled(directory, gate, spool_always=True)
    post.submit(parcel("a"))
    post.hurry()
    gate.wait()
    post.submit(parcel("b"))
    assert post._spool is not None
    post._spool._retry_at, post._spool._refusal = float("inf"), "spool_io"
    post.submit(parcel("c"))
    assert not post.shutdown(0.0)
    stats = post.stats()
    assert stats.balanced
    assert (stats.accepted, stats.pending.spooled, stats.pending.total) == (3, 2, 2)
    assert stats.dropped == {"spool_io": 1}


def test_leftovers_wait_for_whoever_is_opening_a_segment(directory: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the disk could not be asked at once is no reason to drop what can be written a moment later."""
    post = spooled(directory, gate)
    spool = post._spool
    assert spool is not None
    post.submit(parcel("a"))
    post.hurry()
    gate.wait()
    append, turned_away = spool.append, threading.Event()

    def refuse_once(body: bytes, accepted_ms: int) -> str | None:
        if not turned_away.is_set():
            turned_away.set()
            return "spool_io"
        return append(body, accepted_ms)

    monkeypatch.setattr(spool, "append", refuse_once)
    assert not post.shutdown(0.0)
    assert turned_away.is_set()
    assert (post.stats().pending.spooled, post.stats().dropped) == (1, {})


def test_a_flush_while_the_worker_starts_elsewhere_waits_for_it(gate: Gate) -> None:
    """Two threads that start delivery at the same time start one worker, and both see the end."""
    post = Post(gate)
    with post._starting:
        post.submit(parcel("a"))
        flushing = threading.Thread(target=lambda: seen.append(post.flush(PATIENCE)))
        seen: list[bool] = []
        flushing.start()
        gate.wait()
    gate.opened.set()
    flushing.join(PATIENCE)
    assert seen == [True]
    assert post.shutdown(PATIENCE)


def test_a_disk_that_gives_nothing_is_asked_again(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the spool has something and can not read it now, it is read later."""
    post = spooled(directory, spool_always=True)
    assert post._spool is not None
    read, failures = post._spool.read, iter([True, True])

    def fail_twice(*bounds: Any, **more: Any) -> Any:
        return [] if next(failures, False) else read(*bounds, **more)

    monkeypatch.setattr(post._spool, "read", fail_twice)
    post.submit(parcel("a"))
    assert post.flush(PATIENCE)
    assert post.stats().acknowledged == 1
    assert post.shutdown(PATIENCE)


def test_a_flush_waits_for_its_own_behind_what_was_adopted(directory: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events of a dead process that are sent first do not make a flush believe that its own have been."""
    before = spooled(directory, gate)
    for name in ("a", "b", "c"):
        before.submit(parcel(name, name))
    assert not before.shutdown(0.0)
    assert (before.stats().pending.spooled, before.stats().dropped) == (3, {})

    def refuse(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    post = spooled(directory, spool_always=True, max_batch_events=3, max_in_flight=1)
    post.submit(parcel("d"))
    assert post.flush(PATIENCE)
    assert post.sent == [["a", "b", "c"], ["d"]]
    assert post.shutdown(PATIENCE)


# An id that rests, with more on disk than memory may hold.


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.001)


class Throttling:
    """A server that lets ids rest for as long as the test says, or for a moment."""

    def __init__(self, *ids: str, seconds: float = 300.0) -> None:
        self.resting = set(ids)
        self.seconds = seconds
        self.arrived: list[str] = []

    def __call__(self, batch: Batch) -> Receipt:
        if self.resting.isdisjoint(name for each in batch for name in each.ids):
            self.arrived += names(batch)
            return acknowledged(batch)
        return throttled(batch, *self.resting, seconds=self.seconds)


def ids_in(body: bytes) -> tuple[str, ...]:
    return tuple(body.decode().split("|")[1].split())


def test_an_id_that_rests_holds_up_nobody_behind_it_on_disk(directory: Path, gate: Gate) -> None:
    """However much of it lies there: it stays there, and goes in its order once it may."""
    server = Throttling("hot", seconds=0.3)
    gate.answer = server
    spool = Spool(directory, "0123abcd", min_free=0, wall=long_ago)
    post = Post(gate, spool=spool, read_ids=ids_in, spool_always=True, max_cached_events=100, max_batch_events=20, interval=0.001)
    hot, shared, cold = [], [], []
    for number in range(1000):
        hot.append(f"{number}|hot d{number % 3}")
        assert post.submit(parcel(hot[-1], "hot", f"d{number % 3}"))
    for number in range(50):
        shared.append(f"{number}|d1 other")  # waits as well, since it shares a device
        cold.append(f"{number}|cold")
        assert post.submit(parcel(shared[-1], "d1", "other"))
        assert post.submit(parcel(cold[-1], "cold"))
    gate.opened.set()
    wait_until(lambda: post.stats().acknowledged == 50)
    assert server.arrived == cold
    stats = post.stats()
    assert (stats.acknowledged, stats.pending.total, stats.balanced) == (50, 1050, True)
    assert stats.pending.spooled > 950
    assert not post.flush(0.0)
    assert post.submit(parcel("last|other", "other"))
    server.resting.clear()
    assert post.flush(PATIENCE)
    assert [name for name in server.arrived if "hot" in name] == hot
    assert [name for name in server.arrived if "other" in name] == [*shared, "last|other"]
    assert post.stats().acknowledged == 1101
    assert post.shutdown(PATIENCE)
    assert not list(directory.rglob("*.seg"))


def test_what_stays_on_disk_is_for_the_next_process(directory: Path) -> None:
    """Also when this one ends while the id rests; the books say so."""
    server = Throttling("hot")
    spool = Spool(directory, "0123abcd", min_free=0, wall=long_ago)
    post = Post(server, spool=spool, read_ids=ids_in, spool_always=True, max_cached_events=100, max_batch_events=20, interval=0.001)
    expected = [f"{number}|hot" for number in range(200)]
    for name in expected:
        assert post.submit(parcel(name, "hot"))
    wait_until(lambda: post._dispatcher.backlog.shelf.first < float("inf"))
    assert not post.shutdown(0.1)
    assert (post.stats().pending.spooled, post.stats().balanced) == (200, True)
    heir = Post(server, spool=Spool(directory, "0123abcd", min_free=0, wall=long_ago), read_ids=ids_in, interval=0.001)
    server.resting.clear()
    assert heir.flush(PATIENCE)
    assert server.arrived == expected
    assert heir.shutdown(PATIENCE)


def test_attempts_are_not_forgotten_on_disk(directory: Path) -> None:
    """A policy that gives up does so after as many attempts as it says."""
    server = Throttling("hot", seconds=0.01)
    post = Post(
        server, spool=Spool(directory, "0123abcd", min_free=0, wall=long_ago), read_ids=ids_in, retry=FixedWaits((0.01, 0.01)),
        spool_always=True, max_cached_events=40, max_batch_events=30, interval=0.001,
    )  # fmt: skip
    for number in range(30):
        assert post.submit(parcel(f"{number}|hot", "hot"))
    assert post.flush(PATIENCE)
    assert post.stats().dropped == {"attempts": 30}
    assert {one.attempts for one in post.memory.parcels} == {3}
    assert post.shutdown(PATIENCE)


def test_an_id_that_rests_may_fill_half_of_the_disk(directory: Path) -> None:
    """Beyond that, or where the disk takes nothing, its events are refused; those of others are not."""
    server = Throttling("hot")
    spool = Spool(directory, "0123abcd", min_free=0, wall=long_ago)
    post = Post(server, spool=spool, read_ids=ids_in, max_cached_events=20, interval=0.001)
    for number in range(2):
        assert post.submit(parcel(f"{number}|hot", "hot"))
    wait_until(lambda: post.stats().pending.held == 2)
    assert post.take(parcel("a|hot", "hot")) is None
    assert spool.counts().appended == 1
    spool._used = spool._max_bytes // 2 + 1
    assert post.take(parcel("b|hot", "hot")) == "id_backlog"
    assert post.take(parcel("c|cold", "cold")) is None
    spool._used, spool._retry_at, spool._refusal = 0, float("inf"), "spool_io"  # the refusal last: the worker ends one whose time is over
    assert post.take(parcel("d|hot", "hot")) == "id_backlog"
    assert post.take(parcel("e|cold", "cold")) is None
    assert post.stats().refused == {"id_backlog": 2}
    wait_until(lambda: post.stats().acknowledged == 2)
    post.shutdown(0.0)
    assert post.stats().balanced


def test_ids_that_rest_in_memory_hold_up_nobody_on_disk(directory: Path) -> None:
    """Their events may take three quarters of the memory; for who lies on disk behind them there is half of the last one."""
    hot = [f"hot-{number}" for number in range(9)]
    server = Throttling(*hot)
    post = Post(
        server, spool=Spool(directory, "0123abcd", min_free=0, wall=long_ago), read_ids=ids_in,
        max_cached_events=100, max_batch_events=20, interval=0.001,
    )  # fmt: skip
    for turn in range(9):
        for name in hot:
            post.submit(parcel(f"{turn}|{name}", name))
        wait_until(lambda: post.stats().pending.queued + post.stats().pending.in_flight == 0)
    assert post.stats().pending.held >= 70
    for number in range(200):
        assert post.submit(parcel(f"{number}|cold-{number}", f"cold-{number}"))
    wait_until(lambda: post.stats().acknowledged == 200)
    assert not post.shutdown(0.0)


def test_who_is_late_holds_up_nobody(directory: Path, gate: Gate) -> None:
    """Neither when the disk refuses so many of one id that they fill the memory, all behind what lies on disk of the same id."""
    server = Throttling("hot", seconds=0.3)
    gate.answer = server
    spool = Spool(directory, "0123abcd", min_free=0, wall=long_ago)
    post = Post(gate, spool=spool, read_ids=ids_in, spool_always=True, max_cached_events=100, max_batch_events=3, interval=0.001)
    number = 0
    for number in range(150):
        assert post.submit(parcel(f"{number}|hot", "hot"))
    gate.wait()
    spool._refusal, spool._retry_at = "spool_full", float("inf")
    while post.submit(parcel(f"{number + 1}|hot", "hot")):
        number += 1
    assert number > 200
    gate.opened.set()
    wait_until(lambda: len(post._dispatcher.backlog.late) > 0)
    server.resting.clear()
    assert post.flush(PATIENCE)
    assert server.arrived == [f"{each}|hot" for each in range(number + 1)]
    assert post.shutdown(PATIENCE)


def test_a_released_id_does_not_wait_until_the_disk_is_read_to_its_end(directory: Path, gate: Gate) -> None:
    """What was left there is read again before what came later, however much that is."""
    server = Throttling("hot", seconds=0.2)
    spool = Spool(directory, "0123abcd", min_free=0, wall=long_ago)
    post = Post(server, spool=spool, read_ids=ids_in, spool_always=True, max_cached_events=100, max_batch_events=10, interval=0.001)
    for number in range(100):
        assert post.submit(parcel(f"{number}|hot", "hot"))
    wait_until(lambda: spool.counts().shelved > 50)
    gate.answer, post.answer = server, gate
    server.resting.clear()
    for number in range(2000):
        assert post.submit(parcel(f"{number}|cold", "cold"))
    gate.wait()
    wait_until(lambda: post._clock() > (post._dispatcher.backlog.next_release or 0))
    gate.opened.set()
    assert post.flush(PATIENCE)
    last = max(position for position, name in enumerate(server.arrived) if "hot" in name)
    assert len(server.arrived) == 2100
    assert last < 1000, "they waited for the others"
    assert post.shutdown(PATIENCE)


def test_nobody_waits_for_the_disk_under_the_lock(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that hangs must not hold up whoever asks for the books: the lock is free during every call that may wait for it."""
    server = Throttling("hot", seconds=0.05)
    spool = Spool(directory, "0123abcd", min_free=0, wall=long_ago)
    post = Post(server, spool=spool, read_ids=ids_in, spool_always=True, max_cached_events=50, max_batch_events=10, interval=0.001)
    locked: dict[str, set[bool]] = {name: set() for name in ("maintain", "read", "resolve", "revisit", "shelve")}

    def watched(name: str) -> Callable[..., Any]:
        real = getattr(spool, name)

        def call(*arguments: Any, **more: Any) -> Any:
            locked[name].add(post._lock._is_owned())  # type: ignore[attr-defined]
            return real(*arguments, **more)

        return call

    for name in locked:
        monkeypatch.setattr(spool, name, watched(name))
    for number in range(100):
        assert post.submit(parcel(f"{number}|hot", "hot"))
    wait_until(lambda: bool(locked["revisit"]))
    server.resting.clear()
    assert post.flush(PATIENCE)
    assert locked == {name: {False} for name in locked}
    assert post.shutdown(PATIENCE)


def test_a_flush_counts_nothing_twice(directory: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is just being read again is waited for once: nobody waits for an event that is accepted later."""
    server = Throttling("hot", seconds=0.05)
    spool = Spool(directory, "0123abcd", min_free=0, wall=long_ago)
    post = Post(server, spool=spool, read_ids=ids_in, spool_always=True, max_cached_events=50, max_batch_events=10, interval=0.001)
    for number in range(100):
        assert post.submit(parcel(f"{number}|hot", "hot"))
    wait_until(lambda: spool.counts().shelved > 50)
    marks: list[int] = []
    real = spool.read

    def read(*bounds: Any, **more: Any) -> Any:
        records = real(*bounds, **more)
        marks.append(post._dispatcher.last_number(spool.counts()))
        return records

    monkeypatch.setattr(spool, "read", read)
    wait_until(lambda: len(marks) > 20)
    server.resting.clear()
    assert post.flush(PATIENCE)
    assert set(marks) == {100}
    assert post.shutdown(PATIENCE)


def test_more_ids_on_disk_than_may_be_known_let_others_wait_and_not_be_refused(directory: Path) -> None:
    """Who is not known to wait may have to, but takes the memory that there is."""
    server = Throttling("hot")
    spool = Spool(directory, "0123abcd", min_free=0, wall=long_ago)
    post = Post(server, spool=spool, read_ids=ids_in, spool_always=True, max_cached_events=50, max_batch_events=10, interval=0.001)
    post._dispatcher.backlog.shelf = Shelf(3)
    for number in range(60):
        assert post.submit(parcel(f"{number}|hot d{number}", "hot", f"d{number}"))
    wait_until(lambda: post._dispatcher.backlog.shelf.is_full)
    spool._refusal, spool._retry_at = "spool_full", float("inf")
    assert post.take(parcel("a|hot", "hot")) == "id_backlog"
    assert post.take(parcel("b|cold", "cold")) is None
    wait_until(lambda: len(post._dispatcher.backlog.late) == 1)
    post.shutdown(0.0)
    assert post.stats().balanced


def test_refused_events_wake_nobody(directory: Path) -> None:
    """What is refused since its id rests and the disk takes nothing does not let the next event wake the worker."""
    spool = Spool(directory, "0123abcd", min_free=0, wall=long_ago)
    post = Post(Throttling("hot"), spool=spool, read_ids=ids_in, max_cached_events=20)
    for number in range(3):
        assert post.submit(parcel(f"{number}|hot", "hot"))
    assert not post.flush(0.0)
    wait_until(lambda: post.stats().pending.held >= 2)
    spool._refusal, spool._retry_at = "spool_io", float("inf")
    post._wake_events = 1_000
    assert post.take(parcel("a|hot", "hot")) == "id_backlog"
    assert post._wake_events > 0
    assert not post.shutdown(0.0)


def test_one_thread_at_a_time_looks_after_the_disk(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started everybody who flushes has to; whoever comes second leaves it alone, and looks again soon."""
    post = spooled(directory, spool_always=True)
    monkeypatch.setattr(post, "_start_thread", lambda *_: False)
    assert post.submit(parcel("a"))
    looked: list[float | None] = []
    with acquired(post._looking):
        second = threading.Thread(target=lambda: looked.append(post._look_after_spool()))
        second.start()
        second.join(PATIENCE)
        assert post.stats().pending.spooled == 1
    assert looked[0] is not None
    assert post.flush(PATIENCE)
    assert post.shutdown(PATIENCE)


def test_chaos_with_little_memory_keeps_order_and_loses_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While ids rest at random, most events have to stay on disk for a while; each arrives once, in the order of its ids."""
    dice = random.Random(1)
    arrived: list[str] = []
    lock = threading.Lock()
    behind = threading.Event()

    def answer(batch: Batch) -> Receipt:
        behind.wait(PATIENCE)
        with lock:
            resting = {f"u{i}" for i in range(8) if dice.random() < 0.1}
            if resting.isdisjoint(name for each in batch for name in each.ids):
                arrived.extend(names(batch))
                return acknowledged(batch)
            return throttled(batch, *resting, seconds=dice.choice([0.001, 0.02]))

    spool = Spool(directory, "0123abcd", min_free=0, wall=long_ago)
    post = Post(answer, spool=spool, read_ids=ids_in, retry=Soon(), interval=0.001, max_batch_events=20, max_cached_events=60)
    accepted: list[tuple[str, tuple[str, ...]]] = []
    shelved: list[object] = []
    real = spool.shelve

    def shelve(records: Iterable[tuple[object, int, int]]) -> None:
        records = list(records)
        shelved.extend(records)
        real(records)

    monkeypatch.setattr(spool, "shelve", shelve)
    for i in range(3000):
        if i == 1000:  # by now most of them lie on disk, whoever of the threads is the faster one
            behind.set()
        ids = dice.choice([(f"u{i % 8}", f"d{i % 8}"), (f"u{i % 8}", f"d{i % 24}"), (f"d{i % 24}",), (f"u{i}",)])
        name = f"{i}|{' '.join(ids)}"
        if post.submit(parcel(name, *ids)):
            accepted.append((name, ids))
        if i % 10 == 0:
            assert post.stats().balanced
    assert post.flush(PATIENCE)
    assert post.shutdown(PATIENCE)
    assert shelved, "nothing had to stay on disk"
    assert len(accepted) > 2500
    assert_each_once_and_in_order(accepted, arrived)
