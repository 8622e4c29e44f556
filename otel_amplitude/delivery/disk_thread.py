"""The thread that does all file work but the append: it loads, removes, syncs, adopts, and writes what memory holds for a failed disk.

It changes no state of delivery: it gets jobs from the worker and answers by messages to it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from otel_amplitude.delivery.books import SPOOL_FULL, SPOOL_IO
from otel_amplitude.delivery.disk import directory
from otel_amplitude.delivery.disk import format as layout
from otel_amplitude.delivery.disk.segment_file import Loaded
from otel_amplitude.delivery.dispatcher import Batch
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.queue import FIRST_OWN, Queue, Segment
from otel_amplitude.delivery.threads import Mailbox
from otel_amplitude.errors import SpoolError

if TYPE_CHECKING:
    from otel_amplitude.delivery.disk.segment_file import SegmentFile
    from otel_amplitude.delivery.disk.spool import Found, Holding, Spool

LOOK_SECONDS: Final = 30.0
# After a failure the disk is tried again after 1, 2, 4 … 30 s.
FIRST_RETRY_SECONDS: Final = 1.0
MOST_RETRY_SECONDS: Final = 30.0
# Parcels of adopted segments are kept at once as long as this part of the memory is free.
_KEPT_SHARE: Final = 4
# An event whose sending ends the process does so at once. After this time in flight its mark is taken back, so that a process that is
# killed while a server does not answer blames no event.
_MARK_SECONDS: Final = 1.0

ReadIds = Callable[[bytes], tuple[str, ...]]


class Reports(Protocol):
    """What the disk thread posts; each becomes a message to the worker."""

    def adopted(self, segment: Segment, parcels: dict[int, Parcel], damaged: list[int], hashes: frozenset[int]) -> None:
        """A segment is in the queue; some of its parcels, positions of what is no event, and hashes of the ids in it."""

    def found_damaged(self, damaged: int, quarantined: int) -> None:
        """So many events were met that have no number: damaged, or set aside."""

    def looked(self, complete: bool) -> None:
        """Ended processes were looked for; whether all that they left could be taken over."""

    def loaded(self, segment: Segment, parcels: dict[int, Parcel], damaged: list[int]) -> None:
        """Records were read back."""

    def not_loaded(self, segment: Segment, positions: list[int]) -> None:
        """The disk failed while they were read."""

    def written(self, segment: Segment, file: SegmentFile) -> None:
        """A segment that was in memory only has a file from now on."""

    def not_written(self, segment: Segment, reason: str) -> None:
        """It has not: `spool_io` or `spool_full`."""

    def removed(self, segment: Segment) -> None:
        """The file of a segment of which nothing is left is gone."""

    def reopened(self) -> None:
        """The disk takes events again."""

    def marked(self, batch: Batch) -> None:
        """What a request contains of adopted segments is noted there: it may be sent."""

    def noticed(self, event: str, facts: dict[str, object]) -> None:
        """There is something to log."""

    def raised(self, part: str, error: Exception) -> None:
        """A job raised what it must not."""

    def closed(self) -> None:
        """Everything that can be on disk is there, and the directory is left to a sibling."""


class _Adopted(NamedTuple):
    """A segment of an ended process: some of its parcels, the positions of what is no event, and the hashes of its ids."""

    segment: Segment
    parcels: dict[int, Parcel]
    damaged: list[int]
    hashes: frozenset[int]


class DiskThread:
    """Jobs in order, and between them what is due by the clock. Everything but `put` runs on the thread itself."""

    def __init__(
        self,
        spool: Spool,
        queue: Queue,
        reports: Reports,
        read_ids: ReadIds,
        clock: Callable[[], float],
        wall: Callable[[], float],
        max_bytes: int,
    ) -> None:
        self._spool = spool
        self._queue = queue
        self._reports = reports
        self._read_ids = read_ids
        self._clock = clock
        self._wall = wall
        self._kept_bytes = max_bytes // _KEPT_SHARE
        self._jobs = Mailbox()
        self.put = self._jobs.post
        self._unremoved: list[SegmentFile] = []
        self._marked: dict[SegmentFile, float] = {}
        self._look_at = float("-inf")
        self._has_looked = False
        self._sync_at = float("-inf")
        self._retry_at = float("inf")
        self._retry_seconds = FIRST_RETRY_SECONDS
        self._closed = False
        self._process = ""

    def run(self) -> None:
        """Work until `close` was done."""
        while not self._closed:
            try:
                self.turn(wait=True)
            except Exception as error:  # such as a user's clock: without this thread nothing would leave the disk
                self._reports.raised("disk", error)
                time.sleep(FIRST_RETRY_SECONDS)

    def turn(self, *, wait: bool) -> None:
        """Do one job, and what is due; without `wait` all jobs that there are."""
        if wait:
            self._jobs.apply(max(0.0, self.due() - self._clock()))
        else:
            while not self._closed and self._jobs.apply():
                pass
        if not self._closed:
            self._tick()

    def due(self) -> float:
        """When there is something to do without a job."""
        moments = [self._look_at, self._retry_at, *(at + _MARK_SECONDS for at in self._marked.values())]
        if self._unremoved or any(self._is_unsynced(segment) for segment in self._queue.segments):
            moments.append(self._sync_at)
        return min(moments)

    @staticmethod
    def _is_unsynced(segment: Segment) -> bool:
        return segment.file is not None and not segment.is_adopted and segment.file.synced < segment.file.size

    def _tick(self) -> None:
        now = self._clock()
        self._note_opened()
        self._queue.check_place()
        try:
            self._queue.renew_grant()
        except OSError as error:
            self._queue.disk_failed(error)
        for file in [file for file, at in self._marked.items() if now >= at + _MARK_SECONDS]:
            self._mark(file, None, None)
        if now >= self._sync_at:
            self._sync(now)
        if now >= self._look_at:
            self.look()
        if now >= self._retry_at:
            self._retry(now)

    def _note_opened(self) -> None:
        if self._spool.process != self._process:
            self._process = self._spool.process
            if self._process:
                self._reports.noticed("spool.opened", {"directory": str(self._spool.path), "process": self._process})

    # Sync, and a disk that fails.

    def failed(self, reason: str) -> None:
        """An append failed: try the disk again later."""
        if self._retry_at == float("inf"):
            self._retry_at = self._clock() + self._retry_seconds
            self._note_opened()
            self._reports.noticed("spool.full", {"reason": reason, "retry_seconds": self._retry_seconds})

    def _retry(self, now: float) -> None:
        self._retry_at = float("inf")
        if self._queue.disk_refusal is None or self._queue.closed:
            return
        try:
            reopened = self._queue.reopen()
        except (OSError, SpoolError):
            reopened = False
        if reopened:
            self._retry_seconds = FIRST_RETRY_SECONDS
            self._reports.reopened()
        else:
            self._retry_seconds = min(MOST_RETRY_SECONDS, self._retry_seconds * 2)
            self._retry_at = now + self._retry_seconds

    def _sync(self, now: float) -> None:
        self._sync_at = now + self._spool.sync_interval
        self._remove_again()
        for segment in self._queue.segments:
            file = segment.file
            if file is not None and self._is_unsynced(segment):
                try:
                    is_new = not file.synced
                    file.sync()
                    if is_new:
                        self._spool.sync_roots()
                except OSError as error:
                    self._queue.disk_failed(error)

    # Ended processes.

    def look(self) -> None:
        """Take over what ended processes left.

        Nothing of it is sent before all was read: until then no new event may be sent, and sending would take the time of this thread.
        """
        self._look_at = self._clock() + LOOK_SECONDS
        taken, complete = self._spool.look()
        names = [(holding, name) for holding in taken for name in list(holding.names)]
        adopted: list[_Adopted] = []
        for number, (holding, name) in enumerate(names):
            try:
                found = self._spool.open(holding, name)
            except OSError:
                complete, found = False, None
            if found is None:
                self._spool.give_up(holding, name)
                continue
            if found.damaged or found.quarantined:
                self._reports.found_damaged(found.damaged, found.quarantined)
            if not found.bodies:
                self._remove_file(found.file)
                continue
            seq = FIRST_OWN if self._has_looked else FIRST_OWN - len(names) + number
            kept = sum(len(parcel.body) for each in adopted for parcel in each.parcels.values())
            adopted.append(self._adopt(found, seq, kept))
        if adopted:
            self._queue.insert([each.segment for each in adopted])
        for each in adopted:
            self._reports.adopted(*each)
        if self._queue.disk_refusal is None:
            with suppress(OSError):
                self._queue.renew_grant()
        self._has_looked = True
        self._reports.looked(complete)

    def _adopt(self, found: Found, seq: int, kept: int) -> _Adopted:
        """Make a segment of what was found; its parcels stay in memory while there is room beside `kept` bytes of others."""
        wall, now = self._wall(), self._clock()
        segment = Segment(seq, found.file)
        segment.is_adopted = segment.sealed = True
        segment.was_cached = False
        segment.suspects = found.suspects
        segment.times = [now - max(0.0, wall - accepted_ms / 1000) for accepted_ms in found.accepted_ms]
        segment.count = len(segment.times)
        segment.size = sum(map(len, found.bodies))
        is_kept = self._queue.used_bytes + kept + segment.size < self._kept_bytes
        parcels: dict[int, Parcel] = {}
        damaged: list[int] = []
        hashes: set[int] = set()
        for position, (body, accepted_ms) in enumerate(zip(found.bodies, found.accepted_ms, strict=True)):
            parcel = self._parcel(body, accepted_ms)
            if parcel is None:
                damaged.append(position)
                continue
            hashes.update(map(hash, parcel.ids))
            if is_kept:
                parcels[position] = parcel
        return _Adopted(segment, parcels, damaged, frozenset(hashes))

    def _parcel(self, body: bytes, accepted_ms: int) -> Parcel | None:
        """Give a parcel of what was read from a file; None: it is not one event, whatever its checksum says."""
        try:
            return Parcel(body, self._read_ids(body), accepted_ms)
        except Exception:
            return None

    # Jobs.

    def load(self, segment: Segment, positions: list[int]) -> None:
        """Read records back."""
        parcels: dict[int, Parcel] = {}
        damaged: list[int] = []
        try:
            records = segment.file.load(positions, self._kept_bytes) if segment.file is not None else Loaded({}, positions)
        except OSError:
            self._reports.not_loaded(segment, positions)
            return
        damaged += records.damaged
        for position, (body, accepted_ms) in records.records.items():
            parcel = self._parcel(body, accepted_ms)
            if parcel is None:
                damaged.append(position)
            else:
                parcels[position] = parcel
        self._reports.loaded(segment, parcels, damaged)

    def acknowledge(self, segment: Segment, head: int) -> None:
        """Let the file know that all before `head` are resolved."""
        if segment.file is not None:
            segment.file.acknowledge(head)

    def remove(self, segment: Segment) -> None:
        """Remove a file of which nothing is left."""
        if segment.file is not None:
            self._remove_file(segment.file)
        self._reports.removed(segment)
        if self._queue.disk_refusal == SPOOL_FULL:
            self._retry_at = self._clock()  # there is room again

    def _remove_file(self, file: SegmentFile) -> None:
        removed, holding = self._spool.remove(file)
        if not removed:
            self._unremoved.append(file)  # a file system that can not even delete: tried again with the next sync
        if holding is not None:
            self._replayed(holding)

    def _remove_again(self) -> None:
        unremoved, self._unremoved = self._unremoved, []
        for file in unremoved:
            self._remove_file(file)

    def _replayed(self, holding: Holding) -> None:
        if holding.events:
            self._reports.noticed("spool.replayed", {"events": holding.events, "process": holding.directory.name})

    def mark(self, parts: Sequence[tuple[Segment, int | None, int | None]], batch: Batch | None) -> None:
        """Note what is in flight of adopted segments, before `batch` is sent or after it was answered (None)."""
        for segment, first, last in parts:
            if segment.file is not None:
                self._mark(segment.file, first, last, is_group=first in segment.suspects)
        if batch is not None:
            self._reports.marked(batch)

    def _mark(self, file: SegmentFile, first: int | None, last: int | None, *, is_group: bool = False) -> None:
        file.suspect(first, last, is_group=is_group)
        if first is None:
            self._marked.pop(file, None)
        else:
            self._marked[file] = self._clock()

    def write(self, segment: Segment, items: Sequence[tuple[int, bytes, int]]) -> None:
        """Write what is left of a segment in memory to a file of its own, in one step for every reader of the directory.

        Args:
            segment: a sealed one.
            items: position, body and time of acceptance of each event that is left, in order.
        """
        records = [layout.write_record(body, max(accepted_ms, 0)) for _, body, accepted_ms in items]
        file: SegmentFile | None = None
        try:
            if self._spool.measure() < min(sum(map(len, records)), layout.SEGMENT_BYTES):
                self._reports.not_written(segment, SPOOL_FULL)
                return
            file = self._queue.make_file(self._spool, secrets.token_hex(4) + directory.PART)
            file.write_all(records)
            file.rename(f"{segment.seq - FIRST_OWN + 1:08d}.seg")
        except (OSError, SpoolError):
            if file is not None:
                file.remove()
            self._reports.not_written(segment, SPOOL_IO)
            return
        _spread(file, [position for position, _, _ in items], segment.count)
        self._reports.written(segment, file)

    def end(self, files: Sequence[SegmentFile], keeps_lock: bool) -> None:
        """Leave everything to a sibling; `keeps_lock`: an append hangs, so the directory stays ours until the process ends."""
        for file in files:
            if not keeps_lock:
                file.set_starts(0)
                file.suspect(None)
                with suppress(OSError):
                    file.sync()
                file.close()
        if not keeps_lock:
            self._remove_again()
            for file in self._unremoved:
                file.close()
            self._spool.close()
        self._closed = True
        self._reports.closed()


def _spread(file: SegmentFile, positions: Sequence[int], count: int) -> None:
    """Let the starts of a file be known by the positions of its segment; one that is resolved starts where the next one does."""
    starts, at = [file.size] * count, len(positions) - 1
    following = file.size
    for position in reversed(range(count)):
        if at >= 0 and positions[at] == position:
            following, at = file.starts[at], at - 1
        starts[position] = following
    file.starts = starts
