"""One open segment file: written at its end, read back, settled through its low-water mark, removed when all is resolved."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Final

from otel_amplitude.delivery.disk import directory as disk
from otel_amplitude.delivery.disk import format as layout
from otel_amplitude.delivery.disk.segment_index import SegmentIndex, Shelved

_PIECE_BYTES: Final = 2**20
_READ_TRIES: Final = 3


class SegmentFile:
    """An open segment file: written at its end by one thread at a time, read and settled by the sender threads."""

    __slots__ = (
        "_adopted_at",
        "_directory",
        "_failures",
        "_found",
        "_generation",
        "_index",
        "_loaded",
        "_low_water",
        "_mark",
        "_name",
        "_revisited",
        "_seen",
        "fd",
        "opened_at",
        "sealed",
        "synced",
    )

    def __init__(self, directory: disk.ProcessDirectory, name: str, fd: int, opened_at: float | None) -> None:
        self._directory = directory
        self._name = name
        self.fd = fd
        self.opened_at = opened_at
        self._adopted_at: tuple[float, float] | None = None
        # size and number of records, replaced together: readers need no lock
        self._mark = (layout.HEADER_BYTES, 0)
        self._low_water = layout.HEADER_BYTES
        self._generation = 0
        self._loaded = layout.HEADER_BYTES
        self._seen = 0
        self._failures = 0
        self._found: list[layout.Found] = []
        self._index = SegmentIndex()
        # How far the shelved records were read again; None: this is not under way.
        self._revisited: int | None = None
        self.sealed = False
        self.synced: float = 0

    @classmethod
    def make(cls, directory: disk.ProcessDirectory, name: str, created_ms: int, opened_at: float) -> SegmentFile:
        """Make an empty one; raises OSError."""
        fd = disk.make_file(name, directory.fd)
        segment = cls(directory, name, fd, opened_at)
        try:
            write_at(fd, layout.write_header(created_ms), 0)
        except OSError:
            segment.remove()
            segment.close()
            raise
        return segment

    @classmethod
    def adopt(cls, directory: disk.ProcessDirectory, name: str, at: tuple[float, float], *, last: bool) -> tuple[SegmentFile, int] | None:
        """Open one of a process that ended, and count what is damaged; None when another version wrote it. Raises OSError.

        `at` is the time of day and the time on the clock.
        """
        fd = disk.open_segment(name, directory.fd)
        segment = cls(directory, name, fd, None)
        segment._adopted_at = at
        segment.sealed = True
        try:
            data = read_at(fd, 0, layout.MAX_FILE_BYTES + 1)
        except OSError:
            segment.close()
            raise
        content = layout.read_segment(data, last=last)
        if content is None:
            segment.close()
            return None
        with suppress(OSError):
            write_at(fd, layout.write_starts(content.header.starts + 1), layout.STARTS_AT)
        segment._low_water, segment._generation = content.header.low_water, content.header.generation
        segment._mark = (len(data), len(content.records))
        segment._found = content.records
        return segment, content.damaged

    @property
    def size(self) -> int:
        """Bytes of the file that hold whole records, header included."""
        return self._mark[0]

    @property
    def count(self) -> int:
        """How many records were written or found."""
        return self._mark[1]

    @property
    def unsynced(self) -> bool:
        """Whether anything was written since the last `fsync`."""
        return self.synced < self.size

    @property
    def linked(self) -> bool:
        """Whether the file still has a name."""
        try:
            return os.fstat(self.fd).st_nlink > 0
        except OSError:
            return False

    @property
    def finished(self) -> bool:
        """Whether all of its records were read and resolved, and none will follow."""
        return self.sealed and self._loaded >= self.size and self._index.first_unresolved() is None

    def age(self, accepted_ms: int, wall: float, now: float) -> float:
        """Give how many seconds ago a record was accepted: a clock that was set meanwhile must neither expire it nor keep it."""
        if self._adopted_at is not None:
            adopted_wall, adopted_at = self._adopted_at
            return max(0.0, adopted_wall - accepted_ms / 1000) + now - adopted_at
        age = max(0.0, wall - accepted_ms / 1000)
        return age if self.opened_at is None else min(age, now - self.opened_at)

    def append(self, record: bytes) -> None:
        """Write one record in one call; raises OSError. What a failed call left is overwritten or trimmed."""
        size, count = self._mark
        if os.pwrite(self.fd, record, size) != len(record):
            raise OSError(errno.ENOSPC, "short write")
        self._mark = (size + len(record), count + 1)

    def trim(self) -> None:
        """Cut what a failed write left, so that it is not taken for damage later."""
        with suppress(OSError):
            os.ftruncate(self.fd, self.size)

    def load(self) -> tuple[list[layout.Found], int]:
        """Give the next records, at most 1 MiB of those we wrote, and how many are found to be missing.

        Raises OSError when the file can not be read. After three such tries in a row it is given up, so that it holds up nothing behind it.
        """
        if self.opened_at is None:
            records, self._found = self._found, []
            missing, self._loaded = 0, self.size
        else:
            try:
                records, missing = self._load_piece()
                self._failures = 0
            except OSError:
                if self._may_try_again():
                    raise
                size, count = self._mark
                records, missing, self._loaded = [], count - self._seen, size
        self._seen += len(records) + missing
        self._index.add(found.start for found in records)
        return records, missing

    def _may_try_again(self) -> bool:
        self._failures += 1
        return self._failures < _READ_TRIES

    def _load_piece(self) -> tuple[list[layout.Found], int]:
        size, count = self._mark
        base = self._loaded
        data = read_at(self.fd, base, min(_PIECE_BYTES, size - base))
        found = layout.scan(data, base=base)
        if not found.records:  # damage may hide what follows
            data = read_at(self.fd, base, size - base)
            found = layout.scan(data, base=base)
        if found.records and base + len(data) < size:
            self._loaded = found.end
            return found.records, 0
        self._loaded = size
        return found.records, count - self._seen - len(found.records)

    def resolve(self, start: int) -> None:
        """Note that the record that starts there met its end."""
        self._index.resolve(start)

    def shelve(self, record: Shelved) -> None:
        """Leave a record that was read where it is, until it is read again by `load_shelved`."""
        self._index.shelve(record)

    def revisit(self) -> None:
        """Begin to read the shelved records again."""
        self._revisited = layout.HEADER_BYTES

    @property
    def revisits(self) -> bool:
        """Whether there may be shelved records that were not read again since `revisit`."""
        return self._revisited is not None

    def load_shelved(self) -> tuple[list[tuple[layout.Found, Shelved]], int]:
        """Give the next shelved records, about 1 MiB of them, and how many are found to be damaged since; raises OSError as `load` does."""
        records: list[tuple[layout.Found, Shelved]] = []
        damaged = 0
        shelved = self._next_shelved()
        if shelved is None:
            return records, damaged
        base, data = shelved.start, None
        try:
            data = read_at(self.fd, base, _PIECE_BYTES + layout.RECORD_BYTES)
            self._failures = 0
        except OSError:
            if self._may_try_again():
                raise
        while shelved is not None:
            found = layout.record_at(data, shelved.start - base, base) if data is not None else None
            if found is not None:
                self._index.take(shelved.start)
                records.append((found, shelved))
            elif data is not None and shelved.start > base:
                break  # it may go on behind this piece
            else:
                self._index.resolve(shelved.start)
                damaged += 1
            shelved = self._next_shelved()
        return records, damaged

    def _next_shelved(self) -> Shelved | None:
        shelved = self._index.first_shelved(self._revisited) if self._revisited is not None else None
        self._revisited = shelved.start if shelved is not None else None
        return shelved

    def acknowledge(self) -> None:
        """Move the low-water mark to the first record that is not resolved."""
        first = self._index.first_unresolved()
        low_water = self._loaded if first is None else first
        if low_water > self._low_water:
            self._low_water, self._generation = low_water, self._generation + 1
            at, slot = layout.write_slot(low_water, self._generation)
            with suppress(OSError):  # without it, events are sent again with the same insert_id
                write_at(self.fd, slot, at)

    def remove(self) -> bool:
        """Unlink and close it; False when the system says no."""
        try:
            os.unlink(self._name, dir_fd=self._directory.fd)
        except FileNotFoundError:
            pass
        except OSError:
            return False
        self.close()
        return True

    def close(self) -> None:
        """Close the descriptor; may be called again."""
        fd, self.fd = self.fd, -1
        disk.close_quietly(fd)


def is_ours(directory: disk.ProcessDirectory, name: str) -> bool:
    """Whether this version may read a segment, as far as its first bytes tell."""
    try:
        with disk.opened(disk.open_segment(name, directory.fd)) as fd:
            data = read_at(fd, 0, layout.HEADER_BYTES)
    except OSError:
        return False
    return len(data) < layout.HEADER_BYTES or not data.strip(b"\0") or layout.read_header(data) is not None


def read_at(fd: int, offset: int, size: int) -> bytes:
    """Give up to `size` bytes; fewer only at the end of the file. Raises OSError."""
    pieces: list[bytes] = []
    while size > 0 and (piece := os.pread(fd, size, offset)):
        pieces.append(piece)
        offset += len(piece)
        size -= len(piece)
    return b"".join(pieces)


def write_at(fd: int, data: bytes, offset: int) -> None:
    """Write all of `data`; raises OSError, also for a short write."""
    if os.pwrite(fd, data, offset) != len(data):
        raise OSError(errno.ENOSPC, "short write")
