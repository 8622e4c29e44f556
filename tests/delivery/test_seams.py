"""What other sources and destinations rely on: reserved room, withdrawn events, the rest at the end, and the parcel that comes back."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from parcels import Memory, acknowledged, fault, names, parcel, throttled
from spool_tools import FINGERPRINT, Faults

from otel_amplitude import Amplitude, Config
from otel_amplitude.delivery import worker as _worker
from otel_amplitude.delivery.batch_exporter import BatchExporter
from otel_amplitude.delivery.disk.segment_file import SegmentFile
from otel_amplitude.delivery.disk.spool import Spool
from otel_amplitude.delivery.dispatcher import Batch, DeliveryOptions
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.receipt import Receipt

KEY = "0123456789abcdef0123456789abcdef"
PATIENCE = 30.0
Answer = Callable[[Batch], Receipt]


class Post(BatchExporter):
    """Answers as the test says; remembers what it sent."""

    def __init__(self, answer: Answer = acknowledged, *, spool: Path | None = None, interval: float = 0.001, **options: Any) -> None:
        self.answer = answer
        self.memory = Memory()
        self.sent: list[str] = []
        super().__init__(
            DeliveryOptions(upload_interval=interval, **options),
            observers=(self.memory,),
            spool=None if spool is None else Spool(spool, FINGERPRINT, min_free=0, wall=lambda: 0.0),
            read_ids=lambda body: (body.split()[0].decode().partition("|")[2] or "somebody",),
            wall=lambda: 0.0,
        )

    def send_batch(self, batch: Batch, deadline: float) -> Receipt:
        receipt = self.answer(batch)
        if receipt.reason == "acknowledged":
            self.sent += names(batch)
        return receipt


class Gate:
    """An answer that waits until the test opens it."""

    def __init__(self, answer: Answer = acknowledged) -> None:
        self.answer = answer
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self, batch: Batch) -> Receipt:
        self.reached.set()
        self.opened.wait(PATIENCE)
        return self.answer(batch)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(_worker, "GRACE_SECONDS", PATIENCE)  # the end may take what the machine takes
    monkeypatch.setattr(_worker, "SEAL_SECONDS", PATIENCE)
    return tmp_path / "spool"


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.001)


def texts_on_disk(spool: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(spool.glob("*/*/*.seg")))


# A client over any exporter.


def test_a_client_over_an_exporter_of_ones_own() -> None:
    """Events go through the client's middleware and checks to it; results, counters, flush and shutdown are the exporter's."""
    post = Post(interval=3600.0)
    results: list[tuple[str, str]] = []

    def rename(payload: Any, following: Any) -> Any:
        payload.event["event_type"] = "Renamed"
        return following(payload)

    config = Config(KEY, middleware=[rename], on_result=lambda result: results.append((result.insert_id, result.outcome)), log_level="NONE")
    client = Amplitude(config, exporter=post)
    assert client.log_event({"event_type": "Order Paid", "user_id": "u-12345", "insert_id": "i1"}).accepted
    assert client.log_event({"event_type": "Order Paid"}).reason == "no_identity"
    assert client.flush(PATIENCE)
    assert [b'"Renamed"' in each.body for each in post.memory.parcels] == [True]
    assert post.memory.parcels[0].ids == ("u-12345",)
    assert results == [("i1", "acknowledged")]
    assert client.stats() == post.stats()
    assert client.stats().refused == {"no_identity": 1}
    assert client.shutdown(PATIENCE)
    assert post.closed
    assert client.log_event({"event_type": "Order Paid", "user_id": "u-12345"}).reason == "closed"


# Reserved room.


def test_room_is_counted_in_bytes_too(gate: Gate) -> None:
    """What is kept for one caller is not there for another, until it is given back."""
    post = Post(gate, max_cached_bytes=1_000)
    first = post.reserve(2, 700)
    assert first is not None
    assert post.reserve(1, 400) is None
    assert post.take(parcel("large", size=400)) == "queue_full"
    with first:
        assert first.take(parcel("a", size=300)) is None
        assert post.reserve(1, 400) is None
    assert post.reserve(1, 700) is not None
    gate.opened.set()
    post.shutdown(PATIENCE)


def test_room_is_given_back_whatever_the_caller_raises(gate: Gate) -> None:
    """A request that fails while its events are made keeps nothing."""
    post = Post(gate, max_cached_events=5)
    for _ in range(10):
        ticket = post.reserve(5, 100)
        assert ticket is not None
        with pytest.raises(KeyError), ticket:
            raise KeyError("the caller")
    assert post._worker().queue.reserved_events == post._worker().queue.reserved_bytes == 0
    post.shutdown(0.0)


def test_more_than_was_reserved_is_taken_like_anything_else(gate: Gate) -> None:
    """A ticket for one event is no ticket for two, nor for a larger one."""
    post = Post(gate, max_cached_events=2)
    ticket = post.reserve(1, 20)
    assert ticket is not None
    with ticket:
        assert ticket.take(parcel("large", size=30)) is None
        assert ticket.take(parcel("a", size=20)) is None
        assert ticket.take(parcel("b", size=20)) == "queue_full"
    gate.opened.set()
    assert post.shutdown(PATIENCE)


def test_tickets_of_many_threads_never_exceed_the_memory(gate: Gate) -> None:
    """With a ticket no event is refused, and what memory holds stays within its bound."""
    post = Post(gate, max_cached_events=100)
    refused: list[str] = []
    most: list[int] = []
    stop = threading.Event()

    def intake(thread: int) -> None:
        for number in range(40):
            while (ticket := post.reserve(5, 200)) is None:
                time.sleep(0.001)
            with ticket:
                taken = [ticket.take(parcel(f"{thread}-{number}-{each}", f"user-{thread}")) for each in range(4)]
            refused.extend(each for each in taken if each is not None)

    def look() -> None:
        while not stop.is_set():
            most.append(post._worker().queue.used_events)

    threads = [threading.Thread(target=intake, args=(number,)) for number in range(6)]
    watch = threading.Thread(target=look)
    watch.start()
    for each in threads:
        each.start()
    gate.opened.set()
    for each in threads:
        each.join()
    stop.set()
    watch.join()
    assert post.flush(PATIENCE)
    assert refused == []
    assert max(most) <= 100
    assert post.stats().acknowledged == post.stats().accepted == 6 * 40 * 4
    assert post._worker().queue.reserved_events == 0
    assert post.shutdown(PATIENCE)


def test_a_ticket_of_a_closed_exporter_refuses(gate: Gate) -> None:
    """It is the only reason for which a reserved event is refused; no ticket is given any more."""
    post = Post(gate)
    ticket = post.reserve(2, 100)
    assert ticket is not None
    with ticket:
        assert ticket.take(parcel("a")) is None
        post.shutdown(0.0)
        assert ticket.take(parcel("b")) == "closed"
    assert post.reserve(1, 10) is None


def take_durable(post: Post) -> tuple[list[str], list[str]]:
    """Take twenty events under durable tickets of five; give what was accepted, and why others were refused."""
    accepted, reasons = [], []
    for first in range(0, 20, 5):
        ticket = post.reserve(5, 200, durable=True)
        if ticket is None:
            continue
        with ticket:
            for number in range(first, first + 5):
                reason = ticket.take(parcel(f"{number}"))
                (accepted if reason is None else reasons).append(f"{number}" if reason is None else reason)
    return accepted, reasons


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_durable_event_is_on_disk_or_refused_whatever_fails(spool: Path, error: int) -> None:
    """The n-th call of the system fails, for each n: what was accepted is on disk at once, the rest `spool_io`, and none in memory alone."""
    happened: set[str] = set()
    for number in range(1, 40):
        directory = spool.parent / f"{number}"
        post = Post(fault, spool=directory)
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, number, error)
            accepted, reasons = take_durable(post)
        data = texts_on_disk(directory)
        assert [b"%-10b" % name.encode() in data for name in accepted] == [True] * len(accepted)
        assert set(reasons) <= {"spool_io"}
        assert all(segment.began_on_disk for segment in post._worker().queue.segments)
        stats = post.stats()
        assert (stats.accepted, sum(stats.refused.values()), stats.balanced) == (len(accepted), len(reasons), True)
        post.shutdown(0.0)
        happened.add(faults.happened)
    assert happened >= {"mkdir", "open", "pwrite", "fchmod"}


def test_durable_tickets_are_given_again_when_the_disk_works(spool: Path, monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    """Until then there is none, so that a source can answer that it has no room; ordinary events go to memory meanwhile."""
    monkeypatch.setattr("otel_amplitude.delivery.disk_thread.FIRST_RETRY_SECONDS", 0.01)
    real, broken = SegmentFile.append, threading.Event()

    def append(self: SegmentFile, record: bytes, position: int) -> None:
        if broken.is_set():
            raise OSError(errno.ENOSPC, "full")
        real(self, record, position)

    monkeypatch.setattr(SegmentFile, "append", append)
    post = Post(gate, spool=spool)
    ticket = post.reserve(3, 100, durable=True)
    assert ticket is not None
    with ticket:
        assert ticket.take(parcel("a")) is None
        broken.set()
        assert ticket.take(parcel("b")) == "spool_io"
        assert ticket.take(parcel("c")) == "spool_io"
    broken.clear()
    wait_until(lambda: post.reserve(1, 10, durable=True) is not None)
    assert post._worker().queue.used_events <= 1
    gate.opened.set()
    assert post.flush(PATIENCE)
    assert post.sent == ["a"]
    assert post.shutdown(PATIENCE)


def test_no_durable_ticket_for_more_than_the_disk_has_room_for(spool: Path, gate: Gate) -> None:
    """So a source is refused as a whole before its first event, not in the middle."""
    post = Post(gate, spool=spool)
    first = post.reserve(10, 40 * 1024**2, durable=True)  # of 64 MiB
    assert first is not None
    with first:
        assert post.reserve(10, 25 * 1024**2, durable=True) is None
        second = post.reserve(10, 20 * 1024**2, durable=True)
        assert second is not None
        with second:
            assert post.reserve(1, 5 * 1024**2, durable=True) is None
        assert first.take(parcel("a")) is None
    assert post.reserve(10, 60 * 1024**2, durable=True) is not None
    gate.opened.set()
    assert post.shutdown(PATIENCE)


# Withdrawn events.


def mine(one: Parcel) -> bool:
    return "mine" in one.ids


def test_withdrawing_reaches_events_wherever_they_wait(gate: Gate) -> None:
    """Put together for the next request, in line behind their id, held, or not read yet: all are returned, others are sent."""
    gate.answer = lambda batch: (
        throttled(batch, "held", seconds=300.0) if any("held" in each.ids for each in batch) else acknowledged(batch)
    )
    post = Post(gate, max_batch_events=2, max_in_flight=1)
    for name, *ids in (
        ("f1", "other"),
        ("f2", "other"),
        ("h1", "held"),
        ("o1", "other"),
        ("m1", "mine"),
        ("m2", "mine", "other"),
        ("m3", "mine", "held"),
        ("o2", "other"),
    ):
        assert post.submit(parcel(name, *ids))
    assert gate.reached.wait(PATIENCE)
    gate.opened.set()
    wait_until(lambda: post.stats().pending.held > 0)
    assert post.withdraw(lambda one: mine(one) or "held" in one.ids, PATIENCE)
    assert post.flush(PATIENCE)
    stats = post.stats()
    assert (stats.returned + stats.acknowledged, stats.pending.total, stats.balanced) == (8, 0, True)
    returned = {name for name, outcome, _ in post.memory.ends if outcome == "returned"}
    assert returned >= {"h1", "m3"}
    assert post.sent == [name for name in ("f1", "f2", "o1", "m1", "m2", "o2") if name not in returned]
    assert post.submit(parcel("again", "mine"))
    assert post.flush(PATIENCE)
    assert post.sent[-1] == "again"
    assert post.shutdown(PATIENCE)


def test_a_withdrawal_that_takes_too_long_is_forgotten(gate: Gate) -> None:
    """It says False; an event that comes back later is sent again, not returned."""
    answers = iter([fault])
    gate.answer = lambda batch: next(answers, acknowledged)(batch)  # noqa: PLW0108 -- another one each time
    post = Post(gate)
    post._random = lambda: 0.01
    post.submit(parcel("a", "mine"))
    assert gate.reached.wait(PATIENCE)
    assert not post.withdraw(mine, 0.01)
    gate.opened.set()
    assert post.flush(PATIENCE)
    assert (post.stats().returned, post.stats().acknowledged) == (0, 1)
    assert post.shutdown(PATIENCE)


def test_what_lies_in_a_spool_is_not_returned(spool: Path, gate: Gate) -> None:
    """The spool keeps it: a source that got it back as well would send it twice."""
    post = Post(gate, spool=spool)
    for name in ("a", "b"):
        post.submit(parcel(name, "mine"))
    assert gate.reached.wait(PATIENCE)
    assert not post.withdraw(mine, 0.05)
    gate.opened.set()
    assert post.flush(PATIENCE)
    assert (post.stats().returned, post.sent) == (0, ["a", "b"])
    assert post.shutdown(PATIENCE)


def test_withdrawing_from_an_exporter_that_never_began_or_has_ended() -> None:
    """There is nothing: at once, and True."""
    post = Post()
    assert post.withdraw(mine, PATIENCE)
    post.submit(parcel("a", "mine"))
    assert post.shutdown(PATIENCE)
    began = time.monotonic()
    assert post.withdraw(mine, PATIENCE)
    assert time.monotonic() - began < PATIENCE / 2


# The rest at the end.


@pytest.mark.parametrize(("at_end", "outcome"), [("drop", "dropped"), ("spool", "dropped"), ("return", "returned")])
def test_the_rest_without_a_spool(gate: Gate, at_end: str, outcome: str) -> None:
    """What could not be settled is dropped and counted, or returned to its source; in flight, held and waiting alike."""
    post = Post(gate, at_end=at_end, max_batch_events=1, max_in_flight=1)
    for name in ("a", "b", "c"):
        post.submit(parcel(name, name))
    assert gate.reached.wait(PATIENCE)
    assert not post.shutdown(0.05)
    stats = post.stats()
    assert (stats.returned, dict(stats.dropped)) == ((3, {}) if outcome == "returned" else (0, {"shutdown": 3}))
    assert (stats.pending.total, stats.balanced) == (0, True)
    assert sorted(post.memory.ends) == [(name, outcome, "shutdown") for name in ("a", "b", "c")]


@pytest.mark.parametrize("at_end", ["drop", "spool", "return"])
def test_the_rest_in_a_spool(spool: Path, gate: Gate, at_end: str) -> None:
    """What lies in files stays there, pending for this process and found by the next one, whatever happens to the rest."""
    post = Post(gate, spool=spool, at_end=at_end)
    for name in ("a", "b", "c"):
        post.submit(parcel(name))
    assert gate.reached.wait(PATIENCE)
    assert not post.shutdown(0.05)
    stats = post.stats()
    assert (stats.pending.spooled, stats.pending.total, stats.returned, stats.dropped, stats.balanced) == (3, 3, 0, {}, True)
    assert post.memory.ends == []
    later = Post(spool=spool)
    assert later.flush(PATIENCE)
    assert later.sent == ["a", "b", "c"]
    assert later.shutdown(PATIENCE)


@pytest.mark.parametrize(("at_end", "expected"), [("spool", {"spool_io": 2}), ("return", {})])
def test_the_rest_in_memory_while_the_disk_fails(
    spool: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch, at_end: str, expected: dict[str, int]
) -> None:
    """What no file holds is dropped as `spool_io`, or returned; what a file holds stays there."""
    post = Post(gate, spool=spool, at_end=at_end)
    post.submit(parcel("a"))
    assert gate.reached.wait(PATIENCE)

    def no_file(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(SegmentFile, "append", no_file)
    monkeypatch.setattr(SegmentFile, "write_all", no_file)
    for name in ("b", "c"):
        assert post.submit(parcel(name))
    assert not post.shutdown(0.05)
    stats = post.stats()
    assert (stats.pending.spooled, stats.dropped, stats.returned, stats.balanced) == (1, expected, 0 if expected else 2, True)
    assert {name for name, _, _ in post.memory.ends} == {"b", "c"}


# The parcel that comes back.


class Positioned(Parcel):
    """A parcel that knows where its source has it."""

    __slots__ = ("position",)

    def __init__(self, number: int) -> None:
        super().__init__(b"%d|u" % number, ("u",), number)
        self.position = number


def test_with_a_spool_the_parcel_or_an_equal_one_comes_back(spool: Path, gate: Gate) -> None:
    """What memory had no room for is read from its file: the same bytes, ids and time, of the base class; the others are the very objects."""
    post = Post(gate, spool=spool, max_cached_events=20, max_batch_events=5, max_in_flight=1)
    sent = [Positioned(number) for number in range(60)]
    for one in sent:
        assert post.submit(one)
    gate.opened.set()
    assert post.flush(PATIENCE)
    back = post.memory.parcels
    assert [(one.body, one.ids, one.accepted_ms) for one in back] == [(one.body, one.ids, one.accepted_ms) for one in sent]
    very = [one is other for one, other in zip(sent, back, strict=True)]
    assert very[0]
    assert not all(very)
    assert {type(one) for one, is_very in zip(back, very, strict=True) if not is_very} == {Parcel}
    assert post.shutdown(PATIENCE)


def test_without_a_spool_the_very_parcel_comes_back_from_every_end(gate: Gate) -> None:
    """Acknowledged, rejected, expired, given up, returned: its source finds its position on it."""
    from parcels import rejected

    answers = iter([lambda batch: rejected(batch, "1|u"), acknowledged])
    gate.answer = lambda batch: next(answers, fault)(batch)  # noqa: PLW0108 -- another one each time
    post = Post(gate, at_end="return", max_batch_events=3)
    sent = [Positioned(number) for number in range(6)]
    for one in sent[:3]:
        post.submit(one)
    gate.opened.set()
    wait_until(lambda: len(post.memory.ends) == 3)
    for one in sent[3:]:
        post.submit(one)
    wait_until(lambda: ("retried", "server_error", 1, False) in post.memory.told)
    post.shutdown(0.05)
    assert sorted(id(one) for one in post.memory.parcels) == sorted(map(id, sent))
    assert {outcome for _, outcome, _ in post.memory.ends} == {"acknowledged", "rejected", "returned"}


def test_pids_do_not_matter_for_a_ticket_of_a_parent(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child that inherits a ticket gives nothing back to its own queue, which never kept anything for it."""
    post = Post(gate)
    ticket = post.reserve(3, 100)
    assert ticket is not None
    ticket._pid = os.getpid() + 1  # as a child with another number finds it
    with ticket:
        pass
    queue = post._worker().queue
    assert (queue.reserved_events, queue.reserved_bytes) == (3, 100)
    post.shutdown(0.0)
