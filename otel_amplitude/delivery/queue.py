"""Accepted parcels in order: a list of segments, each in memory or in a file. List order is event order.

What any thread does under the append lock stands here, and the worker's side in `reader`. The number of an event is the number of
its segment and its position in it; it is given by the append, so numbers are in the order of acceptance.
"""

from __future__ import annotations

import errno
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from otel_amplitude.delivery.books import REFUSED_REASONS, SPOOL_FULL, SPOOL_IO
from otel_amplitude.delivery.disk import format as layout
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.errors import SpoolError

if TYPE_CHECKING:
    from otel_amplitude.delivery.disk.segment_file import SegmentFile
    from otel_amplitude.delivery.disk.spool import Spool

# A number is `segment << POSITION_BITS | position`.
POSITION_BITS: Final = 24
POSITIONS: Final = 1 << POSITION_BITS
# Segments of this process count from here; those that are found at the first look lie below.
FIRST_OWN: Final = 2**31
UNREAD: Final = 0
READ: Final = 1
FLYING: Final = 2
RESOLVED: Final = 3
# Parcels that lie in files as well may take this part of the memory: the rest is for the time when the disk fails.
_CACHE_SHARE: Final = 2
_FULL_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_NEVER: Final = 2**62


class Segment:
    """A stretch of the queue. The first group is written under the append lock, the second by the worker alone.

    Attributes:
        seq: its number.
        file: where its events lie on disk, or None. Of a segment that began in memory, the worker sets it when the file is written.
        parcels: position → parcel, of what is in memory. Filled by appends and loads, emptied by the worker; never iterated.
        times: when each event was accepted, on the exporter's clock.
        count: how many events it has: the store that commits an append.
        size: bytes of their bodies.
        sealed: nothing is appended any more.
        is_adopted: a process that ended wrote it.
        suspects: positions of events that are sent in small groups, since several processes ended while they were in flight.
        began_on_disk: it had a file from the beginning.
        was_cached: whether every event was put into `parcels` when it was appended.

        states: one byte for each event: `UNREAD`, `READ`, `FLYING` or `RESOLVED`.
        read: what lies before this position was read.
        head: what lies before this position is resolved.
        resolved, lined, flying: how many events are resolved, in line, in a request.
        is_loading: a load was asked for and not answered yet.
        acknowledged: up to which position the file knows that events are resolved.
        is_writing: the disk thread is writing it to a file.
        is_leaving: nothing of it is left; it is being removed.
    """

    __slots__ = (
        "acknowledged", "began_on_disk", "count", "file", "flying", "head", "is_adopted", "is_leaving", "is_loading", "is_writing", "lined", "parcels",
        "read", "resolved", "sealed", "seq", "size", "states", "suspects", "times", "was_cached",
    )  # fmt: skip

    def __init__(self, seq: int, file: SegmentFile | None = None) -> None:
        self.seq = seq
        self.file = file
        self.began_on_disk = file is not None
        self.parcels: dict[int, Parcel] = {}
        self.times: list[float] = []
        self.count = 0
        self.size = 0
        self.sealed = False
        self.is_adopted = False
        self.suspects = range(0)
        self.was_cached = True
        self.states = bytearray()
        self.read = self.head = self.resolved = self.lined = self.flying = self.acknowledged = 0
        self.is_loading = False
        self.is_writing = False
        self.is_leaving = False


class Queue:
    """The segments, and the one lock around every append.

    Written under the append lock: `segments`, `totals`, `refused`, the wake thresholds, and what memory is in use. Written by the worker
    alone: `freed_events`, `freed_bytes`, `crowded`. Used memory is the difference, so it is never counted too low.

    Attributes:
        segments: all of them, oldest first; replaced as a whole.
        totals: events appended to sealed segments in memory, the same on disk, and the segment that is written to; replaced as a whole.
        closed: nothing is accepted any more.
        refused: how many events were never accepted, by reason.
        crowded: ids whose followers use up their share; published by the worker.
        disk_refusal: why nothing is appended to files for now, or None.
    """

    def __init__(
        self,
        max_events: int,
        max_bytes: int,
        clock: Callable[[], float],
        spool: Spool | None,
        wake: Callable[[], bool],
        failed: Callable[[str], object],
    ) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._clock = clock
        self._spool = spool
        self._wake = wake
        self._failed = failed
        self._lock = threading.RLock()
        self._appending = False
        self._aside: deque[Parcel] = deque()
        self._next_seq = FIRST_OWN
        self._tail: Segment | None = None
        self._grant = 0
        self._caches = True
        self.cached_events = self.cached_bytes = 0
        self.reserved_events = self.reserved_bytes = 0
        self.freed_events = self.freed_bytes = 0
        self.segments: tuple[Segment, ...] = ()
        self.totals: tuple[int, int, Segment | None] = (0, 0, None)
        self.closed = False
        self.refused = dict.fromkeys(REFUSED_REASONS, 0)
        self.crowded: frozenset[str] = frozenset()
        self.disk_refusal: str | None = None
        self._wake_at = 0
        self._wake_at_bytes = 0
        self._arrived_bytes = 0

    # Any thread.

    def accept(self, parcel: Parcel, *, durable: bool = False, reserved: bool = False) -> str | None:
        """Append one parcel; None, or the reason for which it was refused and counted.

        Waits for the append of another thread. A call that interrupts an append on its own thread (a signal handler, a finalizer, a log
        handler) can not wait: it leaves the parcel aside, and the interrupted append puts it into the queue.
        """
        with self._lock:
            if self._appending:
                if self.closed:
                    return self.refuse("closed")
                self._aside.append(parcel)
                return None
            self._appending = True
            try:
                refusal = self._accept(parcel, durable=durable, reserved=reserved)
            finally:
                self._appending = False
                if self._aside:
                    self._move_aside()
        return refusal

    def refuse(self, reason: str, count: int = 1) -> str:
        """Count events that are not accepted."""
        with self._lock:
            self.refused[reason] = self.refused.get(reason, 0) + count
        return reason

    def reserve(self, events: int, bytes: int, *, durable: bool) -> bool:
        """Keep room for events to come; False when there is not enough, or when durable events would not reach the disk."""
        with self._lock:
            if self.closed:
                return False
            goes_to_disk = self._spool is not None and self.disk_refusal is None
            if not (self._has_room_on_disk(events, bytes) if durable else goes_to_disk or self._has_room(events, bytes)):
                return False
            self.reserved_events += events
            self.reserved_bytes += bytes
            return True

    def release(self, events: int, bytes: int) -> None:
        """Give back memory that was kept."""
        with self._lock:
            self.reserved_events -= events
            self.reserved_bytes -= bytes

    def appended(self) -> tuple[int, int]:
        """Give how many events were appended to memory and to files. Without a lock: one read of one tuple, then of one number."""
        in_memory, on_disk, tail = self.totals
        if tail is None:
            return in_memory, on_disk
        return (in_memory, on_disk + tail.count) if tail.began_on_disk else (in_memory + tail.count, on_disk)

    def close(self) -> None:
        """Accept nothing from now on; what is being appended at this moment is still accepted."""
        self.closed = True

    def _move_aside(self) -> None:
        self._appending = True
        try:
            while self._aside:
                parcel = self._aside[0]
                if not self._append_to_file(parcel):
                    self._append_to_memory(parcel)
                self._aside.popleft()
        finally:
            self._appending = False

    def _accept(self, parcel: Parcel, *, durable: bool, reserved: bool) -> str | None:
        is_hot = bool(self.crowded) and not self.crowded.isdisjoint(parcel.ids)
        spool, refusal = self._spool, None
        if self.closed:
            refusal = "closed"
        elif spool is not None and len(parcel.body) > layout.MAX_RECORD_BYTES:
            refusal = "too_large"
        elif spool is not None and not (is_hot and spool.is_tight) and self._append_to_file(parcel):
            return None
        elif durable:
            refusal = SPOOL_IO
        elif is_hot and not reserved:
            refusal = "id_backlog"
        elif not reserved and not self._has_room(1, len(parcel.body)):
            refusal = "queue_full"
        if refusal is not None:
            return self.refuse(refusal)
        self._append_to_memory(parcel)
        return None

    def _has_room(self, events: int, bytes: int) -> bool:
        return (
            self.used_events + self.reserved_events + events <= self._max_events
            and self.used_bytes + self.reserved_bytes + bytes <= self._max_bytes
        )

    def _has_room_on_disk(self, events: int, bytes: int) -> bool:
        if self._spool is None or self.disk_refusal is not None:
            return False
        needed = self.reserved_bytes + bytes + (self.reserved_events + events) * layout.RECORD_BYTES
        if needed <= self._grant:  # the usual case costs no look at the directory
            return True
        try:
            return needed <= self._spool.room()
        except OSError:  # the next append finds out why
            return False

    @property
    def used_events(self) -> int:
        """How many parcels are in memory."""
        return self.cached_events - self.freed_events

    @property
    def used_bytes(self) -> int:
        """How many bytes their bodies take."""
        return self.cached_bytes - self.freed_bytes

    def _append_to_memory(self, parcel: Parcel) -> None:
        tail = self._tail
        if tail is None or tail.file is not None or tail.size >= layout.SEGMENT_BYTES or tail.count == POSITIONS:
            tail = self._new_tail(None)
        tail.parcels[tail.count] = parcel
        self.cached_events += 1
        self.cached_bytes += len(parcel.body)
        self._commit(tail, parcel)

    def _append_to_file(self, parcel: Parcel) -> bool:
        """Append to the file at the end; False where there is no spool, or the disk takes nothing for now."""
        spool = self._spool
        if spool is None or self.disk_refusal is not None:
            return False
        record = layout.write_record(parcel.body, max(parcel.accepted_ms, 0))
        try:
            tail = self._tail
            if tail is None or tail.file is None or tail.file.size + len(record) > layout.SEGMENT_BYTES:
                tail = self._new_tail(spool.new_file(self._next_name()))
            if self._grant < len(record):
                self._grant = spool.measure()
                if self._grant < len(record):
                    self._disk_failed(SPOOL_FULL, "cap")
                    return False
            if tail.file is not None:
                tail.file.append(record, tail.count)
        except (OSError, SpoolError) as error:
            self.disk_failed(error)
            return False
        self._grant -= len(record)
        if self._caches and self.used_events * _CACHE_SHARE < self._max_events and self.used_bytes * _CACHE_SHARE < self._max_bytes:
            tail.parcels[tail.count] = parcel
            self.cached_events += 1
            self.cached_bytes += len(parcel.body)
        else:
            # What follows is not kept either, until the worker has read all before it: else it could fill the memory with the last ones.
            self._caches = tail.was_cached = False
        self._commit(tail, parcel)
        return True

    def _commit(self, tail: Segment, parcel: Parcel) -> None:
        size = len(parcel.body)
        if len(tail.times) != tail.count:  # an interrupted append
            del tail.times[tail.count :]
        tail.times.append(self._clock())
        tail.size += size
        self._arrived_bytes += size
        # Before the commit: an interrupt between the two costs a turn of the worker, which looks again since the lock is taken. The other
        # way round it would cost the wake, and the event would wait for the next one.
        if (self._arrived_bytes >= self._wake_at_bytes or self.arrived + 1 >= self._wake_at) and self._wake():
            self._wake_at = self._wake_at_bytes = _NEVER
        tail.count += 1

    def _next_name(self) -> str:
        return f"{self._next_seq - FIRST_OWN + 1:08d}.seg"

    def _new_tail(self, file: SegmentFile | None) -> Segment:
        self._seal()
        tail = Segment(self._next_seq, file)
        self._next_seq += 1
        self.totals = (*self.totals[:2], tail)
        self.segments = (*self.segments, tail)
        self._tail = tail
        return tail

    def _seal(self) -> None:
        tail, self._tail = self._tail, None
        if tail is not None:
            in_memory, on_disk = self.appended()
            self.totals = (in_memory, on_disk, None)
            tail.sealed = True

    def disk_failed(self, error: OSError | SpoolError) -> None:
        """Seal the file that was written to and append to memory from now on, until `reopen`. Under the append lock, or takes it."""
        number = error.errno if isinstance(error, OSError) else None
        refusal = SPOOL_FULL if number in _FULL_ERRORS else SPOOL_IO
        with self._lock:
            if self._tail is not None and self._tail.file is not None:
                self._tail.file.trim()
            self._disk_failed(refusal, errno.errorcode.get(number or 0, type(error).__name__))

    def _disk_failed(self, refusal: str, reason: str) -> None:
        if self._tail is not None and self._tail.file is not None:
            self._seal()
        self.disk_refusal = refusal
        self._failed(reason)

    # The disk thread: may wait for the lock.

    def reopen(self) -> bool:
        """Append to a new file again, if the disk takes it and there is room. Raises OSError and SpoolError."""
        spool = self._spool
        with self._lock:
            if self.closed or spool is None:
                return False
            self._grant = spool.measure()
            if self._grant <= 0:
                return False
            self._new_tail(spool.new_file(self._next_name()))
            self.disk_refusal = None
            return True

    def check_place(self) -> bool:
        """See whether the directory, or the file that is written to, was removed; then appends go to memory until `reopen`."""
        with self._lock:
            tail = self._tail.file if self._tail is not None else None
            error = None if self._spool is None else self._spool.was_removed(tail)
            if error is not None:
                self.disk_failed(error)
            return error is None

    def renew_grant(self) -> None:
        """Look at the caps again before an append has to."""
        if self._grant < layout.SEGMENT_BYTES // 2 and self._spool is not None and self.disk_refusal is None:
            grant = self._spool.measure()
            with self._lock:
                self._grant = max(grant, 0)

    def insert(self, segments: Sequence[Segment]) -> None:
        """Put adopted segments into the list: by their numbers those of the first look, later ones at the end, under new numbers."""
        with self._lock:
            if any(segment.seq >= FIRST_OWN for segment in segments):
                self._seal()
                for segment in segments:
                    segment.seq = self._next_seq
                    self._next_seq += 1
            self.segments = tuple(sorted((*self.segments, *segments), key=lambda segment: segment.seq))

    def make_file(self, spool: Spool, name: str) -> SegmentFile:
        """Make a file beside the one that is written to. Raises OSError and SpoolError."""
        with self._lock:
            return spool.new_file(name)

    def seal(self, timeout: float) -> bool:
        """Seal the end for good; False when an append does not return in time."""
        if not self._lock.acquire(timeout=timeout):
            return False
        try:
            if self._appending:
                return False
            self._seal()
            return True
        finally:
            self._lock.release()

    # The worker: never waits for the lock.

    def try_want(self, events: int, size: int, *, caches: bool, done: Sequence[Segment]) -> bool | None:
        """Ask for a wake when so many events, or bytes of them, were appended; forget segments that are done.

        Args:
            events: how many in all, those that arrived already included, change what the worker does.
            size: likewise in bytes.
            caches: everything that was appended was read, so that appends to files keep their parcels in memory again.
            done: segments of which nothing is left.

        Returns:
            Whether the worker may sleep; False: so many have arrived already. None: an append is under way, nothing was done.
        """
        if not self._lock.acquire(blocking=False):
            return None
        try:
            if self._appending:  # this thread interrupted itself: there is no worker, and the caller does its turns
                return None
            if done:
                self.segments = tuple(segment for segment in self.segments if segment not in done)
            self._caches = self._caches or caches
            self._wake_at, self._wake_at_bytes = events, size
            return self.arrived < events and self._arrived_bytes < size
        finally:
            self._lock.release()

    @property
    def arrived(self) -> int:
        """How many events were ever appended."""
        return sum(self.appended())

    @property
    def arrived_bytes(self) -> int:
        """Bytes of everything that was ever appended."""
        return self._arrived_bytes
