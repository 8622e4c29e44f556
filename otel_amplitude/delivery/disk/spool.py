"""The directory of a spool: the files of this process, what others left there, and how much room there is.

`new_file` and `measure` are called under the append lock; everything else by the disk thread.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from array import array
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from otel_amplitude.clock import wall as machine_wall
from otel_amplitude.delivery.disk import directory as disk
from otel_amplitude.delivery.disk import format as layout
from otel_amplitude.delivery.disk.segment_file import SegmentFile, read_at
from otel_amplitude.errors import SpoolError

# What another key or a newer version left is not judged by our own max_age, but by the longest one that is allowed anywhere.
FOREIGN_AGE: Final = 6.5 * 24 * 3600
# An event that was in flight alone when so many processes ended, one after the other, is set aside.
MOST_ENDS: Final = 3
# From the second end on, what was in flight is sent in small groups.
_ENDS_WITHOUT_GROUPS: Final = 2
_TRIES: Final = 3
# What opening says of a link, a pipe, or a file of another user.
_NOT_A_FILE_OF_OURS: Final = frozenset({errno.ELOOP, errno.ENXIO, errno.EPERM, errno.EACCES, errno.EISDIR})


def fingerprint(endpoint: str, key: str) -> str:
    """Give the name under which events for this endpoint and key lie: they are never sent anywhere else.

    >>> fingerprint("https://example.org", "0123")
    '27f416aa'
    """
    return hashlib.sha256((endpoint + key).encode()).hexdigest()[:8]


class Found(NamedTuple):
    """One segment of a process that ended.

    Attributes:
        file: its unresolved records.
        bodies: their bytes.
        accepted_ms: when each was accepted.
        damaged: about how many records are lost to damage.
        quarantined: how many were set aside, since the process ended while they were sent alone; they are not among the others.
        suspects: positions of what was in flight when several owners ended, one after the other: they are sent in small groups.
    """

    file: SegmentFile
    bodies: list[bytes]
    accepted_ms: list[int]
    damaged: int
    quarantined: int
    suspects: range


class Holding:
    """The directory of a process that ended, owned by this one now.

    Attributes:
        directory: its place.
        names: its segments that this version may read, oldest first.
        files: those of them that are not removed yet.
        events: how many events were found in it.
        created_ms: when the first of these segments was made: what an earlier process left is sent before what a later one did.
    """

    def __init__(self, directory: disk.ProcessDirectory, names: list[str], created_ms: int) -> None:
        self.directory = directory
        self.names = names
        self.files: list[SegmentFile] = []
        self.events = 0
        self.created_ms = created_ms


class Spool:
    """What one process does in one spool directory. Makes nothing before the first append; nothing of it survives a fork."""

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

        Raises:
            SpoolError: the directory is a link, belongs to someone else, can be written by others, or can not be made.
        """
        if not disk.FINGERPRINT.fullmatch(fingerprint):
            raise SpoolError(f"a spool fingerprint must be 8 hexadecimal digits, not {fingerprint!r}: use fingerprint(endpoint, key)")
        self.path = Path(directory).absolute()
        disk.check_root(self.path)
        self.max_bytes = max_bytes
        self.max_age = max_age
        self.sync_interval = sync_interval
        self._fingerprint = fingerprint
        self._min_free = min_free
        self._wall = wall
        self._reset()

    def _reset(self) -> None:
        self._roots: tuple[int, ...] = ()
        self._own: disk.ProcessDirectory | None = None
        self._removed: list[disk.ProcessDirectory] = []
        self._holdings: list[Holding] = []
        self._foreign: dict[str, int] = {}
        self.used = 0
        self.discarded = 0

    # Under the append lock.

    @property
    def process(self) -> str:
        """The name of this process's directory; empty before the first file."""
        return "" if self._own is None else self._own.name

    @property
    def is_tight(self) -> bool:
        """Whether more than half of what all processes may use was in use at the last look."""
        return self.used * 2 > self.max_bytes

    def new_file(self, name: str) -> SegmentFile:
        """Make an empty file, and before it what is missing of the directories. Raises OSError and SpoolError."""
        if self._own is None:
            self._close_roots()
            root = disk.open_root(self.path, make=True)
            self._roots = (root,)
            self._roots = (root, disk.open_inner(self._fingerprint, root, make=True))
            self._own = disk.ProcessDirectory.make(self._roots[1])
        return SegmentFile.make(self._own, name, max(int(self._wall() * 1000), 0))

    def measure(self) -> int:
        """Give how many bytes may be written before the next look: at most one segment, so that no process exceeds the cap by more.

        Raises OSError.
        """
        return min(layout.SEGMENT_BYTES, self.room())

    def room(self) -> int:
        """Give how many bytes the cap and the file system allow at this moment; negative when they are exceeded. Raises OSError."""
        if not self._roots:
            return self.max_bytes
        file_system = os.fstatvfs(self._roots[0])
        free = file_system.f_bavail * file_system.f_frsize - self._min_free
        self.used = disk.used_bytes(self._roots[0])
        return min(free, self.max_bytes - self.used)

    def was_removed(self, tail: SegmentFile | None) -> OSError | None:
        """Give an error if the directory, or the file that is written to, lost its name; what is open can still be read."""
        own = self._own
        if own is not None and not own.in_place:
            self._removed.append(own)
            self._own = None
            self._close_roots()
            return FileNotFoundError(errno.ENOENT, "the spool directory was removed")
        if tail is not None and not tail.linked:
            return FileNotFoundError(errno.ENOENT, "the segment was removed")
        return None

    # The disk thread.

    def look(self) -> tuple[list[Holding], bool]:
        """Take over the directories of processes that ended; what another version wrote is counted and left alone.

        Returns:
            What was taken over now, and whether all of it could be.
        """
        taken: list[Holding] = []
        complete = [True]
        held = {holding.directory.name for holding in self._holdings} | {self.process}
        self._foreign = {name: number for name, number in self._foreign.items() if name in held}
        with _noting(complete), disk.opened(disk.open_root(self.path)) as root:  # anew each time: it may be another one by now
            with _noting(complete), disk.opened(disk.open_inner(self._fingerprint, root)) as parent:
                for name in disk.process_names(parent):
                    if name not in held:
                        with _noting(complete):
                            holding = self._claim(name, parent)
                            if holding is not None:
                                taken.append(holding)
            self._discard(root, held | {holding.directory.name for holding in taken})
        taken.sort(key=lambda holding: holding.created_ms)
        self._holdings += taken
        return taken, complete[0]

    def _claim(self, name: str, parent: int) -> Holding | None:
        directory = disk.ProcessDirectory.claim(name, parent)
        if directory is None:
            return None
        try:
            names = directory.segments()
            headers = {segment: header for segment in names if (header := _header_of_ours(directory, segment)) is not None}
        except OSError:
            directory.close()
            raise
        if len(headers) < len(names):
            self._foreign[name] = len(names) - len(headers)
        if headers:
            return Holding(directory, list(headers), min(header.created_ms for header in headers.values()))
        directory.remove()
        return None

    def open(self, holding: Holding, name: str) -> Found | None:
        """Read one segment of a holding; None when another version wrote it. Raises OSError."""
        directory = holding.directory
        with disk.opened(disk.open_segment(name, directory.fd)) as fd:
            data = read_at(fd, 0, layout.MAX_FILE_BYTES + 1)
        content = layout.read_segment(data)
        if content is None:
            self._foreign[directory.name] = self._foreign.get(directory.name, 0) + 1
            return None
        header, records = content.header, content.records
        first, last, ends = header.suspects
        suspects = [at for at, record in enumerate(records) if first <= record.start <= last] if first else []
        starts, quarantined = header.starts + 1, 0
        file = SegmentFile.adopted(directory, name, len(data), content)
        file.set_starts(starts)
        ends = ends + 1 if suspects and records[suspects[0]].start == first else 1
        if suspects and records[suspects[0]].start == first:
            file.count_end(first, ends)
            if first == last and ends >= MOST_ENDS and self._quarantine(records[suspects[0]], header):
                del records[suspects[0]]
                suspects, quarantined = [], 1
                self._rewrite(file, records, header, starts)
        if first != last and ends < _ENDS_WITHOUT_GROUPS:
            suspects = []  # processes are killed for many reasons: one end alone does not make anything slower
        holding.files.append(file)
        holding.events += len(records) + quarantined
        return Found(
            file, [record.body for record in records], [record.accepted_ms for record in records],
            content.damaged, quarantined, range(suspects[0], suspects[-1] + 1) if suspects else range(0),
        )  # fmt: skip

    def _quarantine(self, record: layout.Found, header: layout.Header) -> bool:
        """Copy a record to a segment of its own that nothing sends; False when that was not possible."""
        try:
            with (
                disk.opened(disk.open_root(self.path)) as root,
                disk.opened(disk.open_inner(self._fingerprint, root)) as parent,
                disk.opened(disk.open_inner(disk.QUARANTINE, parent, make=True)) as directory,
            ):
                for _ in range(_TRIES):
                    with suppress(FileExistsError):
                        name = f"{secrets.randbelow(10**8):08d}.seg"
                        with disk.opened(disk.make_file(name, directory)) as fd:
                            text = layout.write_record(record.body, record.accepted_ms)
                            os.pwrite(fd, layout.write_header(header.created_ms, header.starts) + text, 0)
                            return True
        except (OSError, SpoolError):
            pass
        return False

    def _rewrite(self, file: SegmentFile, records: list[layout.Found], header: layout.Header, starts: int) -> None:
        """Put a segment without the quarantined record in the place of the old one, so that no later process meets it again."""
        new: SegmentFile | None = None
        try:
            new = SegmentFile.make(file.directory, secrets.token_hex(4) + disk.PART, header.created_ms)
            new.set_starts(starts)
            new.write_all([layout.write_record(record.body, record.accepted_ms) for record in records])
            new.rename(file.name)
        except OSError:  # the record stays in the old one, and is quarantined again by the next owner
            if new is not None:
                new.remove()
            file.starts = array("I", [record.start for record in records])
            return
        file.replace_by(new)
        new.close()

    def _discard(self, root: int, held: set[str]) -> None:
        """Remove what other keys and versions left, and what was quarantined, long after it may be sent."""
        limit = self._wall() - max(self.max_age, FOREIGN_AGE)
        for other in disk.list_directories(root, disk.FINGERPRINT):
            with suppress(OSError, SpoolError), disk.opened(disk.open_inner(other, root)) as parent:
                for name in [*disk.process_names(parent), disk.QUARANTINE]:
                    if name not in held:
                        with suppress(OSError, SpoolError):
                            self.discarded += disk.remove_older(name, parent, limit)

    @property
    def foreign(self) -> int:
        """Segments that were left alone at the last look, because another version wrote them."""
        return sum(tuple(self._foreign.values()))

    def remove(self, file: SegmentFile) -> tuple[bool, Holding | None]:
        """Remove a file of which everything is resolved; give whether that was possible, and the holding that ended with it, if one did."""
        if not file.remove():
            return False, None
        for holding in self._holdings:
            if file in holding.files:
                holding.files.remove(file)
                holding.names.remove(file.name)
                if not holding.names:
                    self._holdings.remove(holding)
                    holding.directory.remove()
                    return True, holding
        return True, None

    def give_up(self, holding: Holding, name: str) -> None:
        """Leave a segment that can not be read to a later look."""
        holding.names.remove(name)
        if not holding.names:
            self._holdings.remove(holding)
            holding.directory.remove()

    def sync_roots(self) -> None:
        """Make the directories above safe from a power cut; raises OSError."""
        for fd in self._roots:
            os.fsync(fd)

    def close(self) -> None:
        """End ownership: the rest is left to a sibling."""
        for holding in self._holdings:
            for file in holding.files:
                file.set_starts(0)
                file.suspect(None)
            holding.directory.close()
        for directory in self._removed:
            directory.close()
        if self._own is not None:
            self._own.remove()
        self._close_roots()
        self._reset()

    def abandon_after_fork(self, files: Iterable[SegmentFile] = ()) -> None:
        """Forget everything of the parent, in the child: descriptors are closed and never unlocked."""
        for file in files:
            file.close()
        for directory in [*self._removed, *(holding.directory for holding in self._holdings), *([self._own] if self._own else [])]:
            directory.close()
        self._close_roots()
        self._reset()

    def _close_roots(self) -> None:
        roots, self._roots = self._roots, ()
        for fd in roots:
            disk.close_quietly(fd)


@contextmanager
def _noting(complete: list[bool]) -> Iterator[None]:
    """Pass over a directory that can not be taken; one that vanished, or is not trusted, leaves nothing behind."""
    try:
        yield
    except (FileNotFoundError, SpoolError):
        pass
    except OSError:
        complete[0] = False


def _header_of_ours(directory: disk.ProcessDirectory, name: str) -> layout.Header | None:
    """Give the header of a segment; None: this version may not read it, as far as its first bytes tell. Raises OSError as well."""
    try:
        with disk.opened(disk.open_segment(name, directory.fd, os.O_RDONLY)) as fd:
            data = read_at(fd, 0, layout.HEADER_BYTES)
    except OSError as error:
        if error.errno in _NOT_A_FILE_OF_OURS:
            return None
        raise
    if len(data) < layout.HEADER_BYTES or not data.strip(b"\0"):
        return layout.Header(0, 0, layout.HEADER_BYTES, 0)
    return layout.read_header(data)
