"""The real threads, around a sender that does what the test says."""

from __future__ import annotations

import errno
import multiprocessing
import random
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from multiprocessing.util import _finalizer_registry
from pathlib import Path
from typing import Any

import pytest
from parcels import Memory, acknowledged, divided, fault, names, parcel, throttled
from punctual import Stopwatch
from refused_threads import Threads

from otel_amplitude import pipeline
from otel_amplitude.delivery import batch_exporter as _batch_exporter
from otel_amplitude.delivery import disk_thread
from otel_amplitude.delivery import senders as _senders
from otel_amplitude.delivery import worker as _worker
from otel_amplitude.delivery.batch_exporter import BatchExporter
from otel_amplitude.delivery.books import Stats
from otel_amplitude.delivery.disk.directory import ProcessDirectory
from otel_amplitude.delivery.disk.segment_file import SegmentFile
from otel_amplitude.delivery.disk.spool import Spool
from otel_amplitude.delivery.dispatcher import Batch, DeliveryOptions
from otel_amplitude.delivery.observer import Observer
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.receipt import RESEND, Outcome, Receipt, Split, Verdict
from otel_amplitude.delivery.retry import FixedWaits
from otel_amplitude.suppression import is_suppressed

Answer = Callable[[Batch], Receipt]
# What a loaded machine may take for what an idle one does at once.
PATIENCE = 30.0


def long_ago() -> float:
    """The time at which the parcels of these tests are accepted."""
    return 0.0


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.001)


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
    monkeypatch.setattr(_worker, "GRACE_SECONDS", PATIENCE)
    monkeypatch.setattr(_worker, "SEAL_SECONDS", PATIENCE)


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


def test_nothing_exists_before_the_first_parcel(started_here: list[object]) -> None:
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
    before = set(sys._current_frames())
    post = Post(gate)
    post.submit(parcel("a"))
    post.hurry()
    gate.wait()
    assert not post.shutdown(0.0)
    threads = set(sys._current_frames()) - before
    gate.opened.set()
    wait_until(lambda: threads.isdisjoint(sys._current_frames()))
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


def test_a_flush_does_not_wait_for_callbacks_about_later_parcels() -> None:
    """Under a steady load something is always being reported; what was accepted after the call is not waited for."""
    told = {name: threading.Event() for name in ("a", "b")}
    done = {name: threading.Event() for name in ("a", "b")}

    class Slow(Observer):
        wants_results = True

        def finished(self, parcel: Any, outcome: str, reason: str, status: int | None, attempts: int) -> None:
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
    wait_until(lambda: post.stats().acknowledged == 2)
    done["a"].set()
    flush.join(PATIENCE)
    assert answers == [True]
    done["b"].set()
    assert post.shutdown(PATIENCE)


def test_a_callback_that_blocks_holds_up_no_sending() -> None:
    """Callbacks run on a thread of their own: requests go on, the counters too, and only later callbacks wait."""
    entered, leave = threading.Event(), threading.Event()

    class Blocking(Observer):
        def settled(self, batch: object, receipt: object, seconds: float) -> None:
            entered.set()
            leave.wait(PATIENCE)

    post = Post(observers=(Blocking(),), interval=0.001)
    post.submit(parcel("a"))
    assert entered.wait(PATIENCE)
    for number in range(5):
        post.submit(parcel(f"{number}"))
    wait_until(lambda: post.stats().acknowledged == 6)
    leave.set()
    assert post.shutdown(PATIENCE)


def test_results_that_were_not_reported_count_as_memory() -> None:
    """A callback that is too slow stops the sending when a quarter of the memory waits for it, and nothing is lost."""
    leave = threading.Event()

    class Blocking(Memory):
        def finished(self, parcel: Any, outcome: str, reason: str, status: int | None, attempts: int) -> None:
            leave.wait(PATIENCE)
            super().finished(parcel, outcome, reason, status, attempts)

    slow = Blocking()
    post = Post(observers=(slow,), interval=0.001, max_cached_events=40, max_batch_events=1)
    for number in range(30):
        assert post.submit(parcel(f"{number}", f"u{number}"))
    wait_until(lambda: post.stats().acknowledged > 10)
    time.sleep(0.05)  # nothing else may happen now
    assert post.stats().acknowledged < 20
    leave.set()
    assert post.flush(PATIENCE)
    assert len(slow.ends) == 30
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


def test_without_threads_the_caller_sends(threads: Threads) -> None:
    """Where no thread can be started (at the end of Python 3.12, or at a limit), flush and shutdown send by themselves."""
    threads.refuse()
    post = Post()
    assert post.submit(parcel("a"))
    assert post.submit(parcel("b"))
    assert post.stats().pending.queued == 2
    assert post.flush(PATIENCE)
    post.submit(parcel("c"))
    assert post.shutdown(PATIENCE)
    assert post.sent == [["a", "b"], ["c"]]


def test_a_worker_without_senders_sends_by_itself(threads: Threads) -> None:
    """When the worker lives and no further thread can be had, events still arrive."""
    threads.refuse(after=1)
    post = Post()
    post.submit(parcel("a"))
    assert post.flush(PATIENCE)
    assert post.shutdown(PATIENCE)


def test_a_call_that_interrupts_an_append_neither_waits_nor_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finalizer or signal handler inside an append can submit, refuse, ask for the counters, hurry and flush."""
    post = Post()
    post.submit(parcel("a"))
    queue = post._worker().queue
    commit, inside = queue._commit, []

    def interrupted(*arguments: Any) -> None:
        if not inside:
            inside.append(True)
            assert post.submit(parcel("c"))
            post.refuse("invalid")
            assert post.stats().balanced
            post.hurry()
            post.flush(0.0)
        commit(*arguments)

    monkeypatch.setattr(queue, "_commit", interrupted)
    assert post.submit(parcel("b"))
    assert inside
    assert post.shutdown(PATIENCE)
    assert [name for batch in post.sent for name in batch] == ["a", "b", "c"]
    assert post.stats().refused == {"invalid": 1}


def test_an_interrupted_append_leaves_nothing_half_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C may come between any two steps: the event was accepted or it was not, and the next one is."""
    post = Post()
    queue = post._worker().queue
    clock = queue._clock

    def interrupt() -> float:
        monkeypatch.setattr(queue, "_clock", clock)
        raise KeyboardInterrupt

    assert post.submit(parcel("a"))
    monkeypatch.setattr(queue, "_clock", interrupt)
    with pytest.raises(KeyboardInterrupt):
        post.submit(parcel("b"))
    assert post.submit(parcel("c"))
    assert post.shutdown(PATIENCE)
    assert (post.stats().accepted, post.stats().balanced) == (2, True)
    assert [name for batch in post.sent for name in batch] == ["a", "c"]


def test_senders_are_used_again_and_end_but_for_one(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    """One sender serves batch after batch; of several, all but one end when nothing comes for a while."""
    monkeypatch.setattr(_senders, "_IDLE_SECONDS", 0.05)
    senders: set[int] = set()

    def answer(batch: Batch) -> Receipt:
        senders.add(threading.get_ident())
        return gate(batch) if batch[0].body.startswith(b"wait") else acknowledged(batch)

    post = Post(answer, max_batch_events=1)
    for i in range(20):
        post.submit(parcel(f"{i}"))
        assert post.flush(PATIENCE)
    assert len(senders) == 1
    for i in range(3):
        post.submit(parcel(f"wait-{i}", f"u{i}"))
    gate.wait(3)
    gate.opened.set()
    assert post.flush(PATIENCE)
    assert len(senders) == 3
    wait_until(lambda: len(senders.intersection(sys._current_frames())) == 1)
    post.submit(parcel("again"))
    assert post.shutdown(PATIENCE)
    wait_until(lambda: senders.isdisjoint(sys._current_frames()))


def test_the_worker_survives_a_broken_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault inside the worker costs a pause, not the delivery, and is reported."""
    monkeypatch.setattr(_worker, "START_AGAIN_SECONDS", 0.001)
    broken, here = iter([True]), threading.get_ident()

    def clock() -> float:
        if threading.get_ident() != here and next(broken, False):
            raise RuntimeError("bug")
        return time.monotonic()

    post = Post(clock=clock)
    post.submit(parcel("a"))
    assert post.flush(PATIENCE)
    assert post.stats().acknowledged == 1
    assert post.shutdown(PATIENCE)
    assert post.memory.told.count(("raised", "worker", "bug")) == 1


def test_an_idle_worker_sleeps() -> None:
    """When nothing waits, nothing wakes: there is no moment at which the worker looks again."""
    post = Post()
    post.submit(parcel("a"))
    assert post.flush(PATIENCE)
    worker = post._worker()
    wait_until(lambda: worker._senders._busy == 0)
    assert worker.dispatcher.wake_at() is None
    assert worker._senders.release_idle(time.monotonic()) is None
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
        assert stats.pending.total <= 500 + 3
        last = stats.accepted
    for thread in threads:
        thread.join()
    assert post.shutdown(PATIENCE)
    stats = post.stats()
    assert stats.acknowledged == stats.accepted == 6000 - stats.refused.get("queue_full", 0)
    assert len(post.memory.ends) == stats.accepted


# Forks and ends, as far as one process can show them.


@pytest.mark.parametrize("call", ["submit", "flush", "shutdown", "stats"])
def test_another_process_id_means_another_process(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Whatever is called first after a fork in C starts with empty books."""
    post = Post()
    with monkeypatch.context() as patch:
        Threads(patch).refuse()  # in a real child no thread of the parent's lives on
        post.submit(parcel("parents"))
    assert post.stats().accepted == 1
    monkeypatch.setattr(_batch_exporter, "getpid", lambda: -1)
    {"submit": lambda: post.submit(parcel("childs")), "stats": post.stats}.get(call, lambda: getattr(post, call)(PATIENCE))()
    assert post.stats().accepted == (1 if call == "submit" else 0)
    post.flush(PATIENCE)
    assert post.sent == ([["childs"]] if call == "submit" else [])
    assert post.shutdown(PATIENCE)


def test_a_fork_starts_every_exporter_anew(directory: Path, monkeypatch: pytest.MonkeyPatch, threads: Threads) -> None:
    """The hook that runs in a child empties all exporters, and gives up their spools' files."""
    threads.refuse()  # this is no child: a worker would live on
    monkeypatch.setattr(_batch_exporter, "_exporters", weakref.WeakSet())  # those of other tests may have workers
    post, closed = spooled(directory), Post()
    post.submit(parcel("parents"))
    assert closed.shutdown(PATIENCE)
    monkeypatch.setattr(_batch_exporter, "getpid", lambda: -1)
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


def test_a_worker_that_could_not_start_starts_later(threads: Threads) -> None:
    """After a failure the start is tried again, but not for every event."""
    tries = threads.refuse(most=1)
    now = [0.0]
    post = Post(clock=lambda: now[0])
    for i in range(10):
        assert post.submit(parcel(f"{i}"))
    assert tries == [False]
    now[0] = 1.0
    post.submit(parcel("later"))
    assert post.flush(PATIENCE)
    assert post.stats().acknowledged == 11
    assert post.shutdown(PATIENCE)


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

    post = Post(
        answer, spool=Spool(directory, "0123abcd", min_free=0, wall=long_ago), read_ids=lambda body: tuple(body.decode().split("|")[1].split()), retry=Soon(),
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


def ids_in(body: bytes) -> tuple[str, ...]:
    return tuple(body.decode().split("|")[1].split()) if b"|" in body else (body[:1].decode(),)


def spooled(directory: Path, answer: Answer = acknowledged, **options: Any) -> Post:
    return Post(answer, spool=Spool(directory, "0123abcd", min_free=0, wall=long_ago), read_ids=ids_in, **options)


def fail_appends(monkeypatch: pytest.MonkeyPatch, times: int | None = None) -> Callable[[], None]:
    """Let the next appends to files fail, all of them until the function that is given back is called; or so many."""
    real, left = SegmentFile.append, [times]

    def append(self: SegmentFile, record: bytes, position: int) -> None:
        if left[0] is None or left[0] > 0:
            left[0] = None if left[0] is None else left[0] - 1
            raise OSError(errno.EIO, "broken")
        real(self, record, position)

    monkeypatch.setattr(SegmentFile, "append", append)
    return lambda: left.__setitem__(0, 0)


def flat(post: Post) -> list[str]:
    return [name for batch in post.sent for name in batch]


def test_every_event_is_on_disk_before_it_counts_as_accepted(directory: Path, gate: Gate) -> None:
    """It is there when submit returns, is sent as the same bytes, and leaves the disk when it is settled."""
    post = spooled(directory, gate)
    post.submit(parcel("a"))
    assert any(b"a         " in path.read_bytes() for path in directory.rglob("*.seg"))
    post.hurry()
    gate.wait()
    assert post.stats().pending.in_flight == 1
    gate.opened.set()
    assert post.flush(PATIENCE)
    assert post.sent == [["a"]]
    assert post.stats().balanced
    assert post.shutdown(PATIENCE)
    assert not list(directory.rglob("*.seg"))


def test_what_was_just_written_is_not_read_back(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While memory has room the parcel itself is sent; above that the disk alone keeps it, and order holds."""
    loads: list[int] = []
    real = SegmentFile.load

    def load(self: SegmentFile, positions: Any, most_bytes: int) -> Any:
        loads.append(len(positions))
        return real(self, positions, most_bytes)

    monkeypatch.setattr(SegmentFile, "load", load)
    post = spooled(directory, max_batch_events=4, max_in_flight=1)
    for number in range(20):
        assert post.submit(parcel(f"{number:02}", "one"))
    assert post.flush(PATIENCE)
    assert loads == []
    assert post.shutdown(PATIENCE)


def test_more_than_memory_holds_is_read_back_in_order(directory: Path, gate: Gate) -> None:
    """An outage of any length: what memory has no room for waits on disk alone."""
    post = spooled(directory, gate, max_cached_events=8, max_batch_events=4, max_in_flight=1)
    for number in range(200):
        assert post.submit(parcel(f"{number:03}|one", "one"))
    gate.wait()
    assert post._worker().queue.used_events <= 8
    assert (post.stats().pending.spooled, post.stats().balanced) == (196, True)
    gate.opened.set()
    assert post.flush(PATIENCE)
    assert flat(post) == [f"{number:03}|one" for number in range(200)]
    assert post.shutdown(PATIENCE)


def test_what_is_left_stays_on_disk_and_a_sibling_adopts_it(directory: Path, gate: Gate) -> None:
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
    assert not list(directory.glob("*/*"))


def test_one_failed_append_costs_only_its_own_durability(directory: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault row 56c: the next events go to the disk again as soon as it works, what memory held is written as well, and order holds."""
    monkeypatch.setattr(disk_thread, "FIRST_RETRY_SECONDS", 0.01)
    post = spooled(directory, gate)
    for number in range(3):
        post.submit(parcel(f"{number}|u", "u"))
    fail_appends(monkeypatch, 1)
    post.submit(parcel("3|u", "u"))
    assert post.stats().pending.queued == 1
    wait_until(lambda: post._worker().queue.disk_refusal is None)
    for number in range(4, 200):
        post.submit(parcel(f"{number}|u", "u"))
    wait_until(lambda: post.stats().pending.queued == 0)
    assert (post.stats().accepted, post.stats().balanced) == (200, True)
    written = b"".join(path.read_bytes() for path in sorted(directory.rglob("*.seg")))
    assert [written.find(b"%d|u" % number) >= 0 for number in range(200)] == [True] * 200
    gate.opened.set()
    assert post.flush(PATIENCE)
    assert flat(post) == [f"{number}|u" for number in range(200)]
    assert post.shutdown(PATIENCE)


def test_a_failing_disk_degrades_to_memory(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk takes nothing, events travel through memory, within its bound."""
    fail_appends(monkeypatch)
    post = spooled(directory, max_cached_events=5)
    for number in range(5):
        assert post.submit(parcel(f"{number}"))
    assert post.flush(PATIENCE)
    assert post.stats().acknowledged == 5
    assert post.shutdown(PATIENCE)


def test_memory_does_not_overtake_what_lies_on_a_failed_disk(directory: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parcels that the disk refused are sent behind those before them on it."""
    post = spooled(directory, gate, max_batch_events=2, max_in_flight=1)
    for number in range(12):
        post.submit(parcel(f"{number:02}", "0"))
    fail_appends(monkeypatch)
    for number in range(12, 15):
        assert post.submit(parcel(f"{number:02}", "0"))
    assert post.stats().balanced
    gate.opened.set()
    assert post.flush(PATIENCE)
    assert flat(post) == [f"{number:02}" for number in range(15)]
    assert post.shutdown(PATIENCE)


def test_what_the_disk_does_not_take_at_the_end_is_dropped_by_name(directory: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on disk stays there; what memory holds since the disk failed, and still fails, is counted as `spool_io`."""
    post = spooled(directory, gate)
    post.submit(parcel("a"))
    post.hurry()
    gate.wait()
    post.submit(parcel("b"))
    fail_appends(monkeypatch)
    monkeypatch.setattr(SegmentFile, "write_all", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "broken")))
    post.submit(parcel("c"))
    assert not post.shutdown(0.0)
    stats = post.stats()
    assert (stats.accepted, stats.pending.spooled, stats.pending.total, stats.balanced) == (3, 2, 2, True)
    assert stats.dropped == {"spool_io": 1}
    assert post.memory.ends == [("c", "dropped", "spool_io")]


def test_what_memory_holds_for_a_failed_disk_is_written_at_the_end(directory: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end does not wait for the next look at the disk."""
    post = spooled(directory, gate)
    mend = fail_appends(monkeypatch)
    post.submit(parcel("a"))
    mend()
    assert not post.shutdown(0.0)
    assert (post.stats().pending.spooled, post.stats().dropped, post.stats().balanced) == (1, {}, True)
    other = spooled(directory)
    assert other.flush(PATIENCE)
    assert other.sent == [["a"]]
    assert other.shutdown(PATIENCE)


def test_a_disk_that_can_not_be_read_is_asked_again(directory: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies there and can not be read now is read later."""
    monkeypatch.setattr(_worker, "_LOAD_AGAIN_SECONDS", 0.01)
    real, failures = SegmentFile.load, iter([True, True])

    def load(self: SegmentFile, positions: Any, most_bytes: int) -> Any:
        if next(failures, False):
            raise OSError(errno.EIO, "broken")
        return real(self, positions, most_bytes)

    monkeypatch.setattr(SegmentFile, "load", load)
    post = spooled(directory, gate, max_cached_events=2, max_batch_events=1)
    for number in range(5):
        post.submit(parcel(f"{number}|u", "u"))
    gate.opened.set()
    assert post.flush(PATIENCE)
    assert post.stats().acknowledged == 5
    assert next(failures, None) is None
    assert post.shutdown(PATIENCE)


def test_a_flush_waits_for_its_own_behind_what_was_adopted(directory: Path, gate: Gate, threads: Threads) -> None:
    """What an ended process left is sent first, also where the caller has to do all the work, and does not stand for one's own events."""
    before = spooled(directory, gate)
    for name in ("a", "b", "c"):
        before.submit(parcel(name, name))
    assert not before.shutdown(0.0)
    assert (before.stats().pending.spooled, before.stats().dropped) == (3, {})
    threads.refuse()
    post = spooled(directory, max_batch_events=3, max_in_flight=1)
    post.submit(parcel("d", "a"))
    assert post.flush(PATIENCE)
    assert flat(post) == ["a", "b", "c", "d"]
    assert post.shutdown(PATIENCE)


def test_new_events_share_the_requests_with_a_backlog(directory: Path, gate: Gate) -> None:
    """Fault row 82: an event of an id without backlog does not wait until all that an ended process left is sent; others keep their order."""
    before = spooled(directory, gate)
    for number in range(300):
        assert before.submit(parcel(f"{number}|old", "old"))
    assert not before.shutdown(0.0)
    post = spooled(directory, max_batch_events=10, max_in_flight=1, interval=0.001)
    assert post.submit(parcel("n1|old", "old"))
    assert post.submit(parcel("n2|new", "new"))
    assert post.submit(parcel("n3|new old", "new", "old"))
    assert post.flush(PATIENCE)
    sent = flat(post)
    assert sent.index("n2|new") < 50
    assert [name for name in sent if "old" in name] == [*[f"{number}|old" for number in range(300)], "n1|old", "n3|new old"]
    assert post.shutdown(PATIENCE)


def test_a_flush_says_no_when_a_directory_could_not_be_taken_over(directory: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault row X9: as many directories as there are, or the flush is False."""
    for number in range(20):
        before = spooled(directory, gate)
        before._spool.look = lambda: ([], True)  # type: ignore[union-attr, method-assign]
        before.submit(parcel(f"{number}", f"{number}"))
        assert not before.shutdown(0.0)
    real, refused = ProcessDirectory.claim, iter([True])

    def claim(name: str, parent: int) -> Any:
        if next(refused, False):
            raise OSError(errno.EMFILE, "too many open files")
        return real(name, parent)

    monkeypatch.setattr(ProcessDirectory, "claim", claim)
    post = spooled(directory)
    assert not post.flush(PATIENCE)
    assert post.stats().acknowledged == 19
    assert post.shutdown(PATIENCE)
    last = spooled(directory)
    assert last.flush(PATIENCE)
    assert last.stats().acknowledged == 1
    assert last.shutdown(PATIENCE)


def test_what_is_no_event_never_leaves_the_disk(directory: Path, gate: Gate) -> None:
    """Security row S10: what the reader of ids refuses is dropped as `spool_corrupt`, and its neighbours are sent."""

    def read_ids(body: bytes) -> tuple[str, ...]:
        if body.startswith(b"bad"):
            raise ValueError("not an event")
        return ("u",)

    before = spooled(directory, gate)
    for name in ("a", "bad", "b"):
        before.submit(parcel(name, "u"))
    assert not before.shutdown(0.0)
    post = Post(spool=Spool(directory, "0123abcd", min_free=0, wall=long_ago), read_ids=read_ids)
    assert post.flush(PATIENCE)
    assert flat(post) == ["a", "b"]
    assert (post.stats().adopted, post.stats().dropped, post.stats().balanced) == (3, {"spool_corrupt": 1}, True)
    assert post.shutdown(PATIENCE)


# An id that is held, with more on disk than memory may hold.


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


def test_an_id_that_is_held_holds_up_nothing_behind_it_on_disk(directory: Path, gate: Gate) -> None:
    """However much of it lies there: it stays there, and goes in its order once it may."""
    server = Throttling("hot", seconds=0.3)
    gate.answer = server
    post = spooled(directory, gate, max_cached_events=100, max_batch_events=20, interval=0.001)
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
    assert post._worker().queue.used_events <= 200
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
    """Also when this one ends while the id rests; the counters say so."""
    server = Throttling("hot")
    post = spooled(directory, server, max_cached_events=100, max_batch_events=20, interval=0.001)
    expected = [f"{number}|hot" for number in range(200)]
    for name in expected:
        assert post.submit(parcel(name, "hot"))
    wait_until(lambda: post.stats().pending.held > 100)
    assert not post.shutdown(0.1)
    assert (post.stats().pending.spooled, post.stats().balanced) == (200, True)
    heir = spooled(directory, server, interval=0.001)
    server.resting.clear()
    assert heir.flush(PATIENCE)
    assert server.arrived == expected
    assert heir.shutdown(PATIENCE)


def test_attempts_are_not_forgotten_on_disk(directory: Path) -> None:
    """A policy that gives up does so after as many attempts as it says."""
    server = Throttling("hot", seconds=0.01)
    post = spooled(directory, server, retry=FixedWaits((0.01, 0.01)), max_cached_events=40, max_batch_events=30, interval=0.001)
    for number in range(30):
        assert post.submit(parcel(f"{number}|hot", "hot"))
    assert post.flush(PATIENCE)
    assert post.stats().dropped == {"attempts": 30}
    assert set(post.memory.attempts) == {3}
    assert post.shutdown(PATIENCE)


def test_an_id_that_is_held_may_fill_half_of_the_disk(directory: Path) -> None:
    """Beyond that its events are refused; those of others are not."""
    server = Throttling("hot")
    post = spooled(directory, server, max_cached_events=20, interval=0.001)
    for number in range(2):
        assert post.submit(parcel(f"{number}|hot", "hot"))
    wait_until(lambda: bool(post._worker().queue.crowded))
    assert post.take(parcel("a|hot", "hot")) is None
    assert post._spool is not None
    post._spool.used = post._spool.max_bytes // 2 + 1
    assert post.take(parcel("b|hot", "hot")) == "id_backlog"
    assert post.take(parcel("c|cold", "cold")) is None
    assert post.stats().refused == {"id_backlog": 1}
    wait_until(lambda: post.stats().acknowledged == 1)
    post.shutdown(0.0)
    assert post.stats().balanced


def test_a_released_id_does_not_wait_until_the_disk_is_read_to_its_end(directory: Path, gate: Gate) -> None:
    """What was left there is read again before what came later, however much that is."""
    server = Throttling("hot", seconds=0.2)
    post = spooled(directory, server, max_cached_events=100, max_batch_events=10, interval=0.001)
    for number in range(100):
        assert post.submit(parcel(f"{number}|hot", "hot"))
    wait_until(lambda: post.stats().pending.held > 50)
    gate.answer, post.answer = server, gate
    server.resting.clear()
    for number in range(2000):
        assert post.submit(parcel(f"{number}|cold", "cold"))
    gate.wait()
    wait_until(lambda: post._clock() > (post._worker().dispatcher.lines.next_release or 0.0))
    gate.opened.set()
    assert post.flush(PATIENCE)
    last = max(position for position, name in enumerate(server.arrived) if "hot" in name)
    assert len(server.arrived) == 2100
    assert last < 1000, "they waited for the others"
    assert post.shutdown(PATIENCE)


def test_chaos_with_little_memory_keeps_order_and_loses_nothing(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While ids rest at random, most events have to stay on disk for a while; each arrives once, in the order of its ids."""
    dice = random.Random(1)
    arrived: list[str] = []
    lock = threading.Lock()
    behind = threading.Event()
    loads: list[int] = []
    real = SegmentFile.load

    def load(self: SegmentFile, positions: Any, most_bytes: int) -> Any:
        loads.append(len(positions))
        return real(self, positions, most_bytes)

    def answer(batch: Batch) -> Receipt:
        behind.wait(PATIENCE)
        with lock:
            resting = {f"u{i}" for i in range(8) if dice.random() < 0.1}
            if resting.isdisjoint(name for each in batch for name in each.ids):
                arrived.extend(names(batch))
                return acknowledged(batch)
            return throttled(batch, *resting, seconds=dice.choice([0.001, 0.02]))

    monkeypatch.setattr(SegmentFile, "load", load)
    post = spooled(directory, answer, retry=Soon(), interval=0.001, max_batch_events=20, max_cached_events=60)
    accepted: list[tuple[str, tuple[str, ...]]] = []
    for i in range(3000):
        if i == 1000:  # by now most of them lie on disk, whichever of the threads is the faster one
            behind.set()
        ids = dice.choice([(f"u{i % 8}", f"d{i % 8}"), (f"u{i % 8}", f"d{i % 24}"), (f"d{i % 24}",), (f"u{i}",)])
        name = f"{i}|{' '.join(ids)}"
        if post.submit(parcel(name, *ids)):
            accepted.append((name, ids))
        if i % 10 == 0:
            assert post.stats().balanced
    assert post.flush(PATIENCE)
    assert post.shutdown(PATIENCE)
    assert sum(loads) > 100, "nothing had to be read back"
    assert len(accepted) > 2500
    assert_each_once_and_in_order(accepted, arrived)


# For other sources and destinations.


def test_reserved_room_is_kept_and_given_back(gate: Gate) -> None:
    """With a ticket only a closed exporter refuses; without one the kept room counts as used."""
    post = Post(gate, max_cached_events=4)
    assert post.reserve(5, 10) is None
    ticket = post.reserve(3, 100)
    assert ticket is not None
    with ticket:
        assert post.submit(parcel("a"))
        assert post.take(parcel("b")) == "queue_full"
        assert ticket.take(parcel("c")) is None
        assert ticket.take(parcel("d")) is None
    assert post.submit(parcel("e"))
    gate.opened.set()
    assert post.shutdown(PATIENCE)
    assert ticket.take(parcel("f")) == "closed"
    assert (post.stats().accepted, post.stats().refused) == (4, {"queue_full": 1, "closed": 1})


def test_durable_room_is_refused_where_the_disk_fails(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A durable event is on disk or it is refused; it never goes to memory instead."""
    assert Post().reserve(1, 10, durable=True) is None
    post = spooled(directory)
    ticket = post.reserve(3, 100, durable=True)
    assert ticket is not None
    with ticket:
        assert ticket.take(parcel("a")) is None
        fail_appends(monkeypatch)
        assert ticket.take(parcel("b")) == "spool_io"
    assert post.reserve(1, 10, durable=True) is None
    assert post.shutdown(PATIENCE)
    assert (post.stats().accepted, post.stats().refused) == (1, {"spool_io": 1})


def test_withdrawn_events_are_returned_to_their_source(gate: Gate) -> None:
    """At once what is not in flight; what is, when its answer says *again*; what is acknowledged is not returned."""
    gate.answer = Throttling("mine")
    post = Post(gate, max_batch_events=2, max_in_flight=1)
    for name, who in (("a", "mine"), ("b", "other"), ("c", "mine"), ("d", "other")):
        post.submit(parcel(name, who))
    gate.wait()
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(post.withdraw(lambda one: "mine" in one.ids, PATIENCE)))
    thread.start()
    wait_until(lambda: post.stats().returned == 1)
    gate.opened.set()
    thread.join(PATIENCE)
    assert answers == [True]
    assert post.flush(PATIENCE)
    stats = post.stats()
    assert (stats.accepted, stats.returned, stats.acknowledged, stats.balanced) == (4, 2, 2, True)
    assert [end for end in post.memory.ends if end[1] == "returned"] == [("c", "returned", ""), ("a", "returned", "")]
    assert post.withdraw(lambda one: 1 / 0 > 0, PATIENCE)
    assert post.shutdown(PATIENCE)


def test_what_is_left_can_be_returned_instead_of_dropped(gate: Gate) -> None:
    """A source that keeps its events has lost nothing."""
    post = Post(gate, at_end="return")
    post.submit(parcel("a"))
    assert not post.shutdown(0.05)
    assert (post.stats().returned, post.stats().dropped, post.stats().balanced) == (1, {}, True)
    assert post.memory.ends == [("a", "returned", "shutdown")]


class Positioned(Parcel):
    """A parcel that knows where its source has it."""

    __slots__ = ("position",)

    def __init__(self, name: str, position: int) -> None:
        super().__init__(name.encode(), ("u",), 0)
        self.position = position


def test_observers_get_the_very_parcel_that_was_submitted() -> None:
    """A source's position rides on a subclass; without a spool the object itself comes back, also after retries."""
    answers = iter([fault, fault])
    post = Post(lambda batch: next(answers, acknowledged)(batch), retry=Soon())  # noqa: PLW0108 -- another one each time
    sent = [Positioned(f"{number}", number) for number in range(5)]
    for one in sent:
        post.submit(one)
    assert post.flush(PATIENCE)
    assert all(one is other for one, other in zip(sent, post.memory.parcels, strict=True))
    assert post.shutdown(PATIENCE)


def test_the_policy_is_asked_once_for_each_attempt_number() -> None:
    """Not once for each event, nor under a lock of delivery: it may ask for the counters."""
    asked: list[int] = []
    answers = iter([fault, fault])

    class Counting:
        def wait(self, attempt: int, _random: Callable[[], float], /) -> float | None:
            asked.append(attempt)
            assert post.stats().balanced
            return 0.001

    post = Post(lambda batch: next(answers, acknowledged)(batch), retry=Counting())  # noqa: PLW0108 -- another one each time
    for number in range(5):
        post.submit(parcel(f"{number}"))
    assert post.flush(PATIENCE)
    assert asked == [1, 2]
    assert post.shutdown(PATIENCE)
