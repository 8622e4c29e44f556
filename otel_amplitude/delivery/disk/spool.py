"""The spool: what was appended before a kill is read back after it; append-only segments, one owner for each directory.

Three gates keep the threads apart. *append* is held around one `pwrite` and nothing else. *open* is held while the next
segment is made. *work* is held by the sender threads for reading, settling and adoption, and may see a slow disk. Whoever
needs two of them enters *work* before *open* before *append*.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from otel_amplitude.clock import monotonic
from otel_amplitude.clock import wall as machine_wall
from otel_amplitude.delivery.books import SPOOL_FULL, SPOOL_IO
from otel_amplitude.delivery.disk import directory as disk
from otel_amplitude.delivery.disk import format as layout
from otel_amplitude.delivery.disk.segment_file import SegmentFile, is_ours
from otel_amplitude.delivery.disk.segment_index import Shelved
from otel_amplitude.delivery.lock import acquired
from otel_amplitude.errors import SpoolError

# How long after a failure the disk is tried again, and between looks for the directories of the dead.
RETRY_SECONDS: Final = 30.0
ADOPT_SECONDS: Final = 30.0
# What another key or a newer version left is not ours to judge by our own max_age: the longest one allowed anywhere.
FOREIGN_AGE: Final = 6.5 * 24 * 3600
_FULL_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_OPEN_WAIT: Final = 0.05
_CLOSE_WAIT: Final = 0.06
_EARLY_BYTES: Final = layout.SEGMENT_BYTES * 3 // 4
_ADOPT_AT_ONCE: Final = 16

_NEVER: Final = float("inf")
_NO_ROOM: Final = "no room"

Notice = tuple[str, dict[str, object]]


def fingerprint(endpoint: str, key: str) -> str:
    """Give the name under which events for this endpoint and key lie: they are never sent anywhere else.

    >>> fingerprint("https://example.org", "0123")
    '27f416aa'
    """
    return hashlib.sha256((endpoint + key).encode()).hexdigest()[:8]


class Record(NamedTuple):
    """One event read back.

    Attributes:
        body: its frozen bytes.
        accepted_ms: when it was accepted, in milliseconds since the epoch.
        place: where it lies, for `Spool.resolve` and `Spool.shelve`.
        age: in seconds; known better than the moment, where somebody set the clock.
        order: as given to `Spool.shelve` when it was read before, else 0.
        attempts: likewise.
    """

    body: bytes
    accepted_ms: int
    place: object
    age: float
    order: int = 0
    attempts: int = 0


class SpoolCounts(NamedTuple):
    """The spool's books: `appended + adopted == read + expired + corrupt + unread`, always.

    Attributes:
        appended: events this process wrote.
        adopted: events found in directories of processes that ended.
        read: events handed out by `read`.
        expired: events older than `max_age` when their turn came.
        corrupt: events whose bytes were damaged; an estimate where lengths were.
        unread: events on disk that were not handed out, or were shelved.
        shelved: those of them that were handed out once and are left on disk for now.
        gone: those of `expired` and `corrupt` that were never handed out.
        foreign: segments left alone at the last look, because another version wrote them.
        discarded: segments of other versions and keys that were removed, long after nobody might send them.
        failures: how many times the disk failed.
    """

    appended: int
    adopted: int
    read: int
    expired: int
    corrupt: int
    unread: int
    shelved: int
    gone: int
    foreign: int
    discarded: int
    failures: int


class Spool:
    """Events on disk, owned by this process until they are resolved.

    Any thread may `append`; sender threads `read` and `resolve`; one worker calls `maintain`. Nothing raises after the
    constructor. It knows nothing of what the bytes mean, keeps no thread, and makes nothing before the first append.
    """

    def __init__(
        self,
        directory: str | Path,
        fingerprint: str,
        *,
        max_bytes: int = 64 * 2**20,
        max_age: float = 48 * 3600.0,
        sync_interval: float = 0.5,
        min_free: int = 64 * 2**20,
        wall: Callable[[], float] = machine_wall,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Check the directory; write nothing.

        Args:
            directory: where spools lie; may be shared by processes and versions. Made with mode 0700 at the first append.
            fingerprint: eight hexadecimal digits from `fingerprint()`.
            max_bytes: cap for all processes together; each may exceed it by at most one segment of 4 MiB.
            max_age: seconds after which an event is not worth sending.
            sync_interval: seconds between calls of `fsync`: what a power cut may cost.
            min_free: bytes of the file system that must stay free.
            wall: seconds since the epoch.
            clock: seconds that never go back.

        Raises:
            SpoolError: the directory is a link, belongs to someone else, can be written by others, or can not be made.
        """
        if not disk.FINGERPRINT.fullmatch(fingerprint):
            raise SpoolError(f"a spool fingerprint must be 8 hexadecimal digits, not {fingerprint!r}: use fingerprint(endpoint, key)")
        self._path = Path(directory).absolute()
        disk.check_root(self._path)
        self._fingerprint = fingerprint
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._sync_interval = sync_interval
        self._min_free = min_free
        self._wall = wall
        self._clock = clock
        self._reset()

    def _reset(self) -> None:
        self._append_lock = threading.RLock()
        self._appending = False
        self._open_gate = threading.RLock()
        self._work_gate = threading.RLock()
        self._closed = False
        # written under the append lock
        self._tail: SegmentFile | None = None
        self._grant = 0
        self._used = 0
        self._appended = 0
        # why appends are refused for now, and when that is looked at again
        self._refusal: str | None = None
        self._retry_at = 0.0
        # written under the open gate
        self._roots: tuple[int, ...] = ()
        self._own: _Holding | None = None
        # written under the work gate
        self._others: list[_Holding] = []
        self._ready: deque[_Loaded] = deque()
        # What was ready when a revisit began: it comes behind what is shelved.
        self._later: deque[_Loaded] = deque()
        self._adopted = self._read = self._expired = self._corrupt = self._failures = self._discarded = self._shelved = self._gone = 0
        self._revisits = False
        self._foreign: dict[str, int] = {}
        self._adopt_at: float | None = None
        self._synced_at = self._clock()
        self._notices: deque[Notice] = deque(maxlen=100)

    # accepting threads

    def append(self, body: bytes, accepted_ms: int) -> str | None:
        """Write one event; None when the kernel has it, so that no kill can lose it.

        Any thread. Never raises, syncs, unlinks or reads; waits for the single write of another thread, and at most 50 ms
        while a segment is being opened.

        Returns:
            None, or why not: `spool_full` (cap, or too little free space) or `spool_io` (the disk failed, the spool is
            closed, or this thread is inside an append already, as a signal handler can be).
        """
        if self._refusal is not None:
            return self._refusal
        record = layout.write_record(body, max(accepted_ms, 0))
        for _ in range(2):
            refusal = self._write(record)
            if refusal is not _NO_ROOM:
                return refusal
            if refusal := self._make_room(len(record)):
                return refusal
        return SPOOL_FULL

    def _write(self, record: bytes) -> str | None:
        size = len(record)
        # an RLock and a flag: a signal handler or finalizer on the same thread must neither wait for itself nor write into a write
        with self._append_lock:
            if self._appending:
                return SPOOL_IO
            try:
                self._appending = True
                tail = self._tail
                if tail is None or size > self._grant or tail.size + size > layout.SEGMENT_BYTES:
                    return _NO_ROOM
                tail.append(record)
                self._grant -= size
                self._appended += 1
                return None
            except OSError as error:
                failure = error
            finally:
                self._appending = False
        return self._fail(failure)

    def _make_room(self, size: int) -> str | None:
        """Open the next segment or look at the caps again, off the append lock; None when an append may be tried again."""
        if size > layout.MAX_RECORD_BYTES:
            return SPOOL_FULL
        with acquired(self._open_gate, _OPEN_WAIT) as entered:
            if not entered or self._closed:
                return SPOOL_IO
            if self._refusal is not None:
                return self._refusal
            try:
                if self._tail is None or self._tail.size + size > layout.SEGMENT_BYTES:
                    self._open_tail()
                if self._grant < size:
                    self._measure()
            except (OSError, SpoolError) as error:
                return self._fail(error)
            if self._grant < size:
                self._refuse(SPOOL_FULL, "cap", self._sync_interval)
            return self._refusal

    def _open_tail(self) -> None:
        """Make the next segment, and before it what is missing of the directories; under the open gate. Raises OSError and SpoolError."""
        if self._own is None:
            self._close_roots()
            self._roots = self._open_roots(make=True)
            self._own = _Holding(disk.ProcessDirectory.make(self._roots[1]))
            self._notices.append(("spool.opened", {"directory": str(self._path), "process": self._own.directory.name}))
        segment = SegmentFile.make(self._own.directory, self._own.next_name(), max(int(self._wall() * 1000), 0), self._clock())
        with self._append_lock:
            self._seal_tail()
            self._own.segments.append(segment)
            self._tail = segment

    def _seal_tail(self) -> None:
        """End writing to the tail. Under the append lock, so that no write is under way."""
        tail, self._tail = self._tail, None
        if tail is not None:
            tail.sealed = True

    def _open_roots(self, *, make: bool) -> tuple[int, int]:
        root = disk.open_root(self._path, make=make)
        try:
            return root, disk.open_inner(self._fingerprint, root, make=make)
        except BaseException:
            os.close(root)
            raise

    def _measure(self) -> None:
        """Grant what may be written before the next look: at most one segment, so that nobody exceeds the cap by more."""
        file_system = os.fstatvfs(self._roots[0])
        free = file_system.f_bavail * file_system.f_frsize - self._min_free
        self._used = disk.used_bytes(self._roots[0])
        with self._append_lock:
            self._grant = min(layout.SEGMENT_BYTES, free, self._max_bytes - self._used)

    def _refuse(self, refusal: str, reason: str, seconds: float) -> None:
        self._refusal, self._retry_at = refusal, self._clock() + seconds
        self._notices.append(("spool.full", {"reason": reason, "retry_seconds": seconds}))

    def _fail(self, error: OSError | SpoolError) -> str:
        """Seal what was being written and refuse for a while: the disk, or the way to it, failed."""
        with self._append_lock:
            if self._tail is not None:
                self._tail.trim()  # before it is sealed: afterwards its descriptor may be closed, and given to another file
            self._seal_tail()
        number = error.errno if isinstance(error, OSError) else None
        refusal = SPOOL_FULL if number in _FULL_ERRORS else SPOOL_IO
        self._failures += 1
        self._refuse(refusal, errno.errorcode.get(number or 0, type(error).__name__), RETRY_SECONDS)
        return refusal

    # books

    @property
    def behind(self) -> bool:
        """Whether something lies on disk that `read` would hand out. Any thread, without a lock."""
        unread = self._appended + self._adopted != self._read + self._expired + self._corrupt + self._shelved
        return unread or self._revisits or (bool(self._others) and any(holding.waiting for holding in tuple(self._others)))

    @property
    def revisits(self) -> bool:
        """Whether anything is to be handed out once more since `revisit`. Any thread, without a lock."""
        return self._revisits

    @property
    def refuses(self) -> bool:
        """Whether nothing is taken for a while, or any longer. Any thread, without a lock."""
        return self._refusal is not None

    @property
    def is_tight(self) -> bool:
        """Whether the disk takes nothing, or more than half of what all processes may use was in use at the last look, at most 30 s ago.

        Any thread, without a lock.
        """
        return self.refuses or self._used * 2 > self._max_bytes

    @property
    def adopts(self) -> bool:
        """Whether there is anything of ended processes that `read` has not handed out; asked before anything of our own was read."""
        return bool(self._ready) or any(holding.waiting for holding in self._others)

    def counts(self) -> SpoolCounts:
        """Give the books. Any thread, without a lock, at the price of a few attribute reads."""
        # what leaves is read before what enters: so `unread` is never below zero
        gone, read, expired, corrupt = self._gone, self._read, self._expired, self._corrupt
        adopted, appended = self._adopted, self._appended
        unread = appended + adopted - read - expired - corrupt
        foreign = sum(tuple(self._foreign.values()))
        return SpoolCounts(appended, adopted, read, expired, corrupt, unread, self._shelved, gone, foreign, self._discarded, self._failures)

    # sender threads

    def read(self, max_events: int, max_bytes: int, expired: list[Record] | None = None, *, own: bool = True) -> list[Record]:
        """Hand out the next events, oldest first: what is to be read again since `revisit`, then what ended processes left, then our own.

        A sender thread. What is too old or damaged is passed over and counted. At least one event is given, however
        large, while there is one; none when all was handed out, or another thread is at it.

        Args:
            max_events: how many at most.
            max_bytes: how many bytes at most.
            expired: gets what was too old, for who wants to tell.
            own: also what this process wrote; else only what ended processes left.
        """
        taken: list[Record] = []
        stale: list[object] = []
        wall, now = self._wall(), self._clock()
        with acquired(self._work_gate) as entered:
            while entered and len(taken) < max_events and (self._ready or self._load(own=own)):
                body, accepted_ms, place, order, attempts = self._ready[0]
                if taken and len(body) > max_bytes:
                    break
                self._ready.popleft()
                self._shelved -= order > 0
                age = place.segment.age(accepted_ms, wall, now)
                if age > self._max_age:
                    self._gone += not order
                    self._expired += 1
                    stale.append(place)
                    if expired is not None:
                        expired.append(Record(body, accepted_ms, place, age, order, attempts))
                else:
                    self._read += 1
                    max_bytes -= len(body)
                    taken.append(Record(body, accepted_ms, place, age, order, attempts))
            self._revisits = self._revisits and (any(one.order for one in self._ready) or self._has_to_revisit())
            self._settle(stale)
        return taken

    def shelve(self, records: Iterable[tuple[object, int, int]]) -> None:
        """Leave events that were handed out on disk; `read` gives them again after the next `revisit`.

        The thread that reads.

        Args:
            records: the place of each, and the order (above 0) and attempts that the `Record` is to have when it is read again.
        """
        with acquired(self._work_gate):
            for place, order, attempts in records:
                if isinstance(place, _Place):
                    place.segment.shelve(Shelved(place.start, order, attempts))
                    self._shelved += 1
                    self._read -= 1

    def revisit(self) -> None:
        """Let `read` hand out all that is shelved once more, oldest first, before anything else. The thread that reads, once nothing `revisits`."""
        with acquired(self._work_gate):
            for segment in self._segments():
                segment.revisit()
            self._later.extendleft(reversed(self._ready))
            self._ready.clear()
            self._revisits = True

    def _segments(self) -> list[SegmentFile]:
        return [segment for holding in self._holdings() for segment in holding.segments]

    def _has_to_revisit(self) -> bool:
        return any(segment.revisits for segment in self._segments())

    def resolve(self, places: Iterable[object]) -> None:
        """Forget events that met their end: acknowledged, rejected or dropped.

        A sender thread. Anything that is not a place of this spool is passed over. Segments without unresolved events
        are removed.
        """
        with acquired(self._work_gate) as entered:
            if entered:
                self._settle(places)

    def _settle(self, places: Iterable[object]) -> None:
        touched: dict[SegmentFile, _Holding] = {}
        for place in places:
            if isinstance(place, _Place):
                place.segment.resolve(place.start)
                touched[place.segment] = place.holding
        for segment, holding in touched.items():
            segment.acknowledge()
            self._tidy(holding)

    def _tidy(self, holding: _Holding) -> None:
        """Remove finished segments, and the directory of a dead process with its last one."""
        for segment in [segment for segment in holding.segments if segment.finished and segment.remove()]:
            holding.segments.remove(segment)
        if holding is not self._own and holding in self._others and not holding.segments and not holding.waiting:
            self._others.remove(holding)
            holding.directory.remove()
            if holding.events:
                self._notices.append(("spool.replayed", {"events": holding.events, "process": holding.directory.name}))

    def _load(self, *, own: bool) -> bool:
        """Bring the next records into memory, at most a segment of them; False when nothing is left for now."""
        try:
            return self._load_shelved() or self._load_fresh(own=own)
        except OSError:  # what lies behind it must not overtake it: the next look may have more luck
            return False

    def _load_shelved(self) -> bool:
        for holding in self._holdings() if self._revisits else ():
            for segment in tuple(holding.segments):
                while segment.revisits:
                    found, damaged = segment.load_shelved()
                    self._shelved -= damaged
                    self._corrupt += damaged
                    for (start, _end, _kind, ms, body), shelved in found:
                        self._ready.append(_Loaded(body, ms, _Place(holding, segment, start), shelved.order, shelved.attempts))
                    if found:
                        return True
        self._ready, self._later = self._later, self._ready
        return bool(self._ready)

    def _load_fresh(self, *, own: bool) -> bool:
        for holding in self._holdings() if own else list(self._others):
            if any(self._load_segment(holding, segment) for segment in tuple(holding.segments)):
                return True
            while holding.waiting:
                if self._open_next(holding):
                    return True
            self._tidy(holding)
        return False

    def _load_segment(self, holding: _Holding, segment: SegmentFile) -> bool:
        found, missing = segment.load()
        self._gone += missing
        self._corrupt += missing
        self._ready.extend([_Loaded(body, ms, _Place(holding, segment, start)) for start, _end, _kind, ms, body in found])
        return bool(found)

    def _open_next(self, holding: _Holding) -> bool:
        """Open the next segment of a dead process; a torn end is normal in its last one only."""
        name = holding.waiting[0]
        try:
            opened = SegmentFile.adopt(holding.directory, name, (self._wall(), self._clock()), last=len(holding.waiting) == 1)
        except OSError:
            holding.waiting.popleft()  # it stays where it is: the next look may have more luck
            return False
        if opened is None:
            self._foreign[holding.directory.name] = self._foreign.get(holding.directory.name, 0) + 1
            holding.waiting.popleft()
            return False
        segment, damaged = opened
        self._adopted += segment.count + damaged
        self._gone += damaged
        self._corrupt += damaged
        holding.events += segment.count
        holding.segments.append(segment)
        holding.waiting.popleft()
        return self._load_segment(holding, segment)

    # the worker

    def maintain(self) -> list[Notice]:
        """Do what is due: sync, open the next segment early, adopt the dead, try a failed disk again.

        One thread at a time, which may have to wait for the disk; nobody waits for it while it syncs.

        Returns:
            What to log, outside locks: names of events with their facts.
        """
        with acquired(self._work_gate) as entered:
            if not entered or self._closed:
                return []
            now = self._clock()
            self._mend(now)
            self._prepare()
            if self._adopt_at is None or now >= self._adopt_at:
                self._adopt_at = now + ADOPT_SECONDS
                self._adopt()
                self._look_for_room()
            for holding in self._holdings():
                self._tidy(holding)
            copies = self._copies(now)
        for copy in copies:
            self._sync(*copy)
        return [self._notices.popleft() for _ in range(len(self._notices))]

    def next_maintenance(self) -> float | None:
        """Give when `maintain` is wanted next, by `clock`; None before its first call."""
        if self._adopt_at is None:
            return None
        due = [self._adopt_at]
        if self._refusal is not None:
            due.append(self._retry_at)
        if self._own is not None and any(segment.unsynced for segment in tuple(self._own.segments)):
            due.append(self._synced_at + self._sync_interval)
        return min(due)

    def _mend(self, now: float) -> None:
        """Notice what was removed under us; try again what failed, when its time has come."""
        own, tail = self._own, self._tail
        if own is not None and not own.directory.in_place:
            self._fail(FileNotFoundError(errno.ENOENT, "the spool directory was removed"))
            self._disown()
        elif tail is not None and not tail.linked:
            self._fail(FileNotFoundError(errno.ENOENT, "the segment was removed"))
        if self._refusal is not None and now >= self._retry_at:
            with self._opening() as entered:
                if entered:
                    self._refusal = None
                    if self._tail is None:
                        self._open_tail()
                    self._measure()
                    if self._grant <= 0:
                        self._refuse(SPOOL_FULL, "cap", self._sync_interval)

    def _disown(self) -> None:
        """Keep a removed directory for reading only, through the descriptors we still hold."""
        with self._opening() as entered:
            if entered and self._own is not None:
                self._others.append(self._own)
                self._own = None
                self._close_roots()

    def _prepare(self) -> None:
        """Open the next segment and renew the grant before an accepting thread has to."""
        tail = self._tail
        if tail is None or (tail.size < _EARLY_BYTES and self._grant > layout.SEGMENT_BYTES // 2):
            return
        with self._opening() as entered:
            if entered:
                if tail.size >= _EARLY_BYTES and tail is self._tail:
                    self._open_tail()
                self._measure()

    def _look_for_room(self) -> None:
        with self._opening() as entered:
            if entered and self._roots:
                self._measure()

    def _adopt(self) -> None:
        """Take over the directories of processes that ended; count and leave alone what another version wrote."""
        held = {holding.directory.name for holding in self._holdings()}
        self._foreign = {name: number for name, number in self._foreign.items() if name in held}
        # opened anew each time: the directory may be another one by now
        with suppress(OSError, SpoolError), disk.opened(disk.open_root(self._path)) as root:
            with suppress(OSError, SpoolError), disk.opened(disk.open_inner(self._fingerprint, root)) as parent:
                for name in disk.process_names(parent):
                    if name not in held and len(self._others) < _ADOPT_AT_ONCE:
                        with suppress(OSError, SpoolError):
                            self._adopt_one(name, parent)
            self._discard_strangers(root)

    def _adopt_one(self, name: str, parent: int) -> None:
        directory = disk.ProcessDirectory.claim(name, parent)
        if directory is None:
            return
        try:
            names = directory.segments()
        except OSError:
            directory.close()
            raise
        ours = deque(segment for segment in names if is_ours(directory, segment))
        if len(ours) < len(names):
            self._foreign[name] = len(names) - len(ours)
        if ours:
            self._others.append(_Holding(directory, ours))
        else:
            directory.remove()

    def _discard_strangers(self, root: int) -> None:
        """Remove what other keys and versions left, once nobody may send it any more."""
        held = {holding.directory.name for holding in self._holdings()}
        limit = self._wall() - max(self._max_age, FOREIGN_AGE)
        for other in disk.list_directories(root, disk.FINGERPRINT):
            with suppress(OSError, SpoolError), disk.opened(disk.open_inner(other, root)) as parent:
                for name in disk.process_names(parent):
                    if name not in held:
                        with suppress(OSError, SpoolError):
                            self._discarded += disk.remove_older(name, parent, limit)

    def _copies(self, now: float) -> list[tuple[SegmentFile, int, list[int]]]:
        """Copy the descriptors of what must be synced, so that nobody waits for the disk meanwhile."""
        if self._own is None or now < self._synced_at + self._sync_interval:
            return []
        self._synced_at = now
        copies = []
        for segment in self._own.segments:
            if segment.unsynced:
                # a new file is safe only when the directories that name it are
                above = () if segment.synced else (self._own.directory.fd, *self._roots)
                if fds := disk.duplicates((segment.fd, *above)):
                    copies.append((segment, segment.size, fds))
        return copies

    def _sync(self, segment: SegmentFile, size: int, fds: list[int]) -> None:
        # after a failure the kernel may call the lost pages clean: this file is never synced again
        segment.synced = _NEVER
        try:
            for fd in fds:
                os.fsync(fd)
            segment.synced = size
        except OSError as error:
            self._fail(error)
        finally:
            for fd in fds:
                disk.close_quietly(fd)

    # the ends

    def close(self) -> None:
        """End ownership: what is resolved is removed, the rest is left to a sibling. Any thread; waits at most 0.2 s for other threads."""
        self._closed = True
        self._refusal = SPOOL_IO
        # whoever holds a lock or gate now waits for a disk: then the end of the process closes what is open
        if not self._append_lock.acquire(timeout=_CLOSE_WAIT):
            return
        self._seal_tail()
        self._append_lock.release()
        with acquired(self._work_gate, _CLOSE_WAIT) as working, acquired(self._open_gate, _CLOSE_WAIT) as opening:
            if working and opening:
                for holding in self._holdings():
                    self._tidy(holding)
                    holding.close()
                self._close_roots()
                self._own, self._others = None, []
                self._ready.clear()
                self._later.clear()

    def abandon_after_fork(self) -> None:
        """Forget everything of the parent, in the child: its descriptors are closed and never unlocked.

        Afterwards the spool is as new, with empty books; the first append makes a directory for this process.
        """
        for holding in self._holdings():
            holding.abandon()
        self._close_roots()
        self._reset()

    def _holdings(self) -> list[_Holding]:
        return [*self._others, *([self._own] if self._own is not None else [])]

    def _close_roots(self) -> None:
        roots, self._roots = self._roots, ()
        for fd in roots:
            disk.close_quietly(fd)

    @contextmanager
    def _opening(self) -> Iterator[bool]:
        """Hold the open gate for the worker; a failing disk is noted, not raised."""
        with acquired(self._open_gate, _OPEN_WAIT) as entered:
            try:
                yield entered and not self._closed
            except (OSError, SpoolError) as error:
                self._fail(error)


class _Holding:
    """A process directory we own, with its open segments and the names of those not opened yet."""

    __slots__ = ("directory", "events", "number", "segments", "waiting")

    def __init__(self, directory: disk.ProcessDirectory, waiting: deque[str] | None = None) -> None:
        self.directory = directory
        self.waiting = waiting or deque()
        self.segments: list[SegmentFile] = []
        self.events = 0
        self.number = 0

    def next_name(self) -> str:
        self.number += 1
        return f"{self.number:08d}.seg"

    def close(self) -> None:
        left = bool(self.segments or self.waiting)
        for segment in self.segments:
            segment.close()
        if left:
            self.directory.close()
        else:
            self.directory.remove()

    def abandon(self) -> None:
        for segment in self.segments:
            segment.close()
        self.directory.close()


class _Place(NamedTuple):
    """Where a record lies."""

    holding: _Holding
    segment: SegmentFile
    start: int


class _Loaded(NamedTuple):
    """A record in memory that was not handed out yet; `order` and `attempts` as in `Record`."""

    body: bytes
    accepted_ms: int
    place: _Place
    order: int = 0
    attempts: int = 0
