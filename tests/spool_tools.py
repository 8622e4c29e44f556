"""What the tests of the spool share: a clock one can set, short ways to fill and drain, faults by count."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from otel_amplitude.delivery.books import SPOOL_IO
from otel_amplitude.delivery.disk import format as layout
from otel_amplitude.delivery.disk.segment_file import SegmentFile
from otel_amplitude.delivery.disk.spool import Spool
from otel_amplitude.delivery.disk_thread import DiskThread
from otel_amplitude.delivery.dispatcher import Batch
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.queue import FIRST_OWN, POSITION_BITS, RESOLVED, Queue, Segment
from otel_amplitude.delivery.reader import Reader

FINGERPRINT = "0123abcd"
NOW_MS = 1_790_000_000_000


class Clock:
    """Wall clock and monotonic clock, in seconds, that move only when told."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.wall_offset = NOW_MS / 1000 - 1_000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + self.wall_offset


class Record(NamedTuple):
    """One event read back: its bytes, when it was accepted, its number, and its age in seconds."""

    body: bytes
    accepted_ms: int
    place: int
    age: float


class Counts(NamedTuple):
    """The counters of a store: `appended + adopted == read + expired + corrupt + unread`, always."""

    appended: int
    adopted: int
    read: int
    expired: int
    corrupt: int
    unread: int
    foreign: int
    discarded: int
    quarantined: int


class Store:
    """A queue with a spool, without threads: what the worker and the disk thread would do is done when a test says so.

    An event is appended as a durable one: it is on disk, or it is refused.
    """

    def __init__(self, directory: Path, clock: Clock, **options: Any) -> None:
        options = {"fingerprint": FINGERPRINT, "min_free": 0, "wall": clock.wall, **options}
        self.clock = clock
        self.spool = Spool(directory, **options)
        self._restart()

    def _restart(self) -> None:
        self.queue = Queue(0, 10**9, self.clock.monotonic, self.spool, lambda: None, self._failed)
        self.disk = DiskThread(self.spool, self.queue, self, lambda _: ("",), self.clock.monotonic, self.clock.wall, 10**9)
        self.reader = Reader(self.queue, 10**6, 10**9, load=self.disk.load, looks=True)
        self.complete = True
        self.handed = 0
        self._extra = self._corrupt = self._expired = self._quarantined = 0
        self._done: list[Segment] = []
        self._notices: list[tuple[str, dict[str, object]]] = []
        self._failures: Counter[int] = Counter()

    # What a process does.

    def append(self, text: bytes, accepted_ms: int) -> str | None:
        refusal = self.queue.accept(Parcel(text, ("",), accepted_ms), durable=True)
        return self.queue.disk_refusal if refusal == SPOOL_IO and self.queue.disk_refusal else refusal

    @property
    def behind(self) -> bool:
        self.reader.refresh()
        return self.counts().unread > 0

    def next_maintenance(self) -> float:
        return self.disk.due()

    def read(self, most: int, most_bytes: int) -> list[Record]:
        self.reader.refresh()
        self.reader.has_looked = True
        found: list[Record] = []
        failures = sum(self._failures.values())
        while len(found) < most and most_bytes > 0:
            one = self.reader.read()
            for _ in range(10):  # it is loaded now, or found damaged
                if one is None and failures == sum(self._failures.values()):
                    one = self.reader.read()
            if one is None:
                break
            number, parcel = one
            age = self.clock.now - self.reader.accepted_at(number)
            if age > self.spool.max_age:
                self._expired += 1
                self.reader.resolve(number)
                continue
            most_bytes -= len(parcel.body)
            found.append(Record(parcel.body, parcel.accepted_ms, number, age))
        self.handed += len(found)
        self._tidy()
        return found

    def resolve(self, places: Iterable[int]) -> None:
        for place in places:
            self.reader.resolve(place)
        self._tidy()

    def _tidy(self) -> None:
        for segment in self.reader.touched():
            if segment.sealed and segment.resolved == segment.count:
                if not segment.is_leaving:
                    segment.is_leaving = True
                    self.disk.remove(segment)
            else:
                self.disk.acknowledge(segment, segment.head)
        done, self._done = self._done, []
        assert self.queue.try_want(2**62, 2**62, caches=False, done=done) is not None
        self.reader.retire(done)
        self.reader.refresh()

    def maintain(self) -> list[tuple[str, dict[str, object]]]:
        self.disk.turn(wait=False)
        self.reader.refresh()
        self._tidy()
        notices, self._notices = self._notices, []
        return notices

    def close(self) -> None:
        if self.queue.closed:
            return
        self.queue.close()
        self.queue.seal(0.06)
        self.reader.refresh()
        for segment in self.reader.segments:
            self.reader.touch(segment)
        self._tidy()
        files = [segment.file for segment in self.reader.segments if segment.file is not None and not segment.is_adopted]
        self.disk.end(files, keeps_lock=False)

    def abandon_after_fork(self) -> None:
        self.spool.abandon_after_fork([segment.file for segment in self.queue.segments if segment.file is not None])
        self._restart()

    def counts(self) -> Counts:
        counts = self.reader.counts()
        resolved_unread = sum(state == RESOLVED for segment in self.reader.segments for state in segment.states[segment.read :])
        return Counts(
            self.queue.appended()[1], counts.adopted + self._extra, self.handed, self._expired, self._corrupt,
            self.reader.unread - resolved_unread + sum(self.queue.appended()) - counts.on_disk - counts.in_memory,
            self.spool.foreign, self.spool.discarded, self._quarantined,
        )  # fmt: skip

    @property
    def tail(self) -> SegmentFile | None:
        return self.queue.segments[-1].file if self.queue.segments and not self.queue.segments[-1].sealed else None

    # What the disk thread reports.

    def _failed(self, reason: str) -> None:
        self.disk.failed(reason)

    def adopted(self, segment: Segment, parcels: dict[int, Parcel], damaged: list[int], hashes: frozenset[int]) -> None:
        self.reader.refresh()
        if segment.seq < FIRST_OWN:
            self.reader.knows_ids(segment, hashes)
        self.reader.loaded(segment, parcels)
        assert not damaged
        assert len(hashes) == 1

    def found_damaged(self, damaged: int, quarantined: int) -> None:
        self._extra += damaged + quarantined
        self._corrupt += damaged
        self._quarantined += quarantined

    def looked(self, complete: bool) -> None:
        self.complete = complete

    def loaded(self, segment: Segment, parcels: dict[int, Parcel], damaged: list[int]) -> None:
        self.reader.loaded(segment, parcels)
        self._corrupt += len(damaged)
        for position in damaged:
            self.reader.resolve(segment.seq << POSITION_BITS | position)

    def not_loaded(self, segment: Segment, positions: list[int]) -> None:
        segment.is_loading = False
        self._failures[segment.seq] += 1
        if self._failures[segment.seq] == 3:
            self.loaded(segment, {}, positions)

    def written(self, segment: Segment, file: SegmentFile) -> None:
        raise AssertionError("nothing is in memory")

    def not_written(self, segment: Segment, reason: str) -> None:
        raise AssertionError("nothing is in memory")

    def removed(self, segment: Segment) -> None:
        self._done.append(segment)

    def reopened(self) -> None:
        pass

    def marked(self, batch: Batch) -> None:
        pass

    def noticed(self, event: str, facts: dict[str, object]) -> None:
        self._notices.append((event, facts))

    def closed(self) -> None:
        pass


def make(directory: Path, clock: Clock | None = None, **options: Any) -> Store:
    """Make a spool with a clock that stands still and no wish for free space."""
    return Store(directory, clock or Clock(), **options)


def body(number: int) -> bytes:
    """Give the bytes of one small event."""
    return b'{"insert_id":"%d"}' % number


def fill(spool: Store, numbers: range | list[int]) -> None:
    """Append events, all of which must be taken."""
    for number in numbers:
        assert spool.append(body(number), NOW_MS) is None


def read_all(spool: Store) -> list[Record]:
    """Hand out everything."""
    records: list[Record] = []
    while found := spool.read(100, 100_000):
        records += found
    return records


def bodies(records: list[Record]) -> list[bytes]:
    """Give the bytes of each record."""
    return [record.body for record in records]


def drain(spool: Store) -> list[bytes]:
    """Read and resolve everything."""
    records = read_all(spool)
    spool.resolve([record.place for record in records])
    return bodies(records)


def abandon(spool: Store) -> None:
    """Leave a spool as a kill does: nothing tidied, the lock released by the kernel."""
    spool.abandon_after_fork()


def balanced(spool: Store) -> bool:
    """Say whether the law of the spool's books holds."""
    counts = spool.counts()
    return counts.unread >= 0 and counts.appended + counts.adopted == counts.read + counts.expired + counts.corrupt + counts.unread


def segments(directory: Path) -> list[Path]:
    """Give the segment files under a spool directory."""
    return sorted(directory.glob("*/*/*.seg"))


def open_descriptors() -> int:
    """Count the open descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def small_segments(patch: Any) -> None:
    """Let segments be 64 KiB, so that a test meets many of them."""
    patch.setattr(layout, "SEGMENT_BYTES", 2**16)


class Faults:
    """Fails the n-th of the named calls of `os` and `fcntl.flock`, counted together; knows whether it did."""

    NAMES = (
        "write",
        "pwrite",
        "pread",
        "open",
        "unlink",
        "fsync",
        "mkdir",
        "listdir",
        "fstat",
        "stat",
        "ftruncate",
        "rmdir",
        "dup",
        "fstatvfs",
        "fchmod",
    )

    def __init__(self, monkeypatch: Any, fail_at: int, number: int) -> None:
        import fcntl

        self.calls = 0
        self.fail_at = fail_at
        self.number = number
        self.happened = ""
        for name in self.NAMES:
            monkeypatch.setattr(os, name, self._wrap(name, getattr(os, name)))
        monkeypatch.setattr(fcntl, "flock", self._wrap("flock", fcntl.flock))

    def _wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            if self.calls == self.fail_at:
                self.happened = name
                raise OSError(self.number, os.strerror(self.number))
            return real(*args, **kwargs)

        return call
