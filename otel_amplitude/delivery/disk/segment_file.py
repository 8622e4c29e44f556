"""One segment file: appended to under the append lock, everything else by the disk thread."""

from __future__ import annotations

import errno
import os
from array import array
from collections.abc import Iterator, MutableSequence, Sequence
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from otel_amplitude.delivery.disk import directory as disk
from otel_amplitude.delivery.disk import format as layout

_PIECE_BYTES: Final = 2**20
_NEVER: Final = float("inf")


class Loaded(NamedTuple):
    """What was read back of some records, by position; a position in neither was not looked at.

    Attributes:
        records: body and time of acceptance in milliseconds.
        damaged: positions of which no whole record was found.
    """

    records: dict[int, tuple[bytes, int]]
    damaged: list[int]


class SegmentFile:
    """A file of records that are known by position: 0 is the first one.

    A file of this process keeps its descriptor, so that it can be read even when its name was removed; one that was adopted is
    opened for each use, since there may be more of those than descriptors.

    Attributes:
        size: bytes of header and whole records. Written under the append lock.
        starts: where each record begins. Written under the append lock, or before another thread knows the file.
        suspected: where the event begins that was first in flight when the owner before this one ended, or 0.
        ends: how many owners ended so, one after the other.
        synced: how many bytes are known to be safe from a power cut; infinity after a failed `fsync`, which is never tried again.
    """

    __slots__ = ("_fd", "_generation", "_low_water", "_name", "_suspects", "directory", "ends", "size", "starts", "suspected", "synced")

    def __init__(self, directory: disk.ProcessDirectory, name: str, fd: int, size: int, starts: MutableSequence[int]) -> None:
        self.directory = directory
        self._name = name
        self._fd = fd
        self.size = size
        self.starts = starts
        self.synced: float = 0
        self._low_water = layout.HEADER_BYTES
        self._generation = 0
        self._suspects = layout.Suspects()
        self.suspected = self.ends = 0

    @classmethod
    def make(cls, directory: disk.ProcessDirectory, name: str, created_ms: int) -> SegmentFile:
        """Make an empty one; raises OSError."""
        fd = disk.make_file(name, directory.fd)
        segment = cls(directory, name, fd, layout.HEADER_BYTES, [])
        try:
            write_at(fd, layout.write_header(created_ms), 0)
        except OSError:
            segment.remove()
            raise
        return segment

    @classmethod
    def adopted(cls, directory: disk.ProcessDirectory, name: str, size: int, content: layout.Content) -> SegmentFile:
        """Give one of a process that ended, as it was read."""
        segment = cls(directory, name, -1, size, array("I", [record.start for record in content.records]))
        segment._low_water, segment._generation = content.header.low_water, content.header.generation
        segment._suspects = content.header.suspects
        return segment

    @property
    def name(self) -> str:
        """The name in its directory."""
        return self._name

    @property
    def linked(self) -> bool:
        """Whether the file still has a name."""
        try:
            return self._fd < 0 or os.fstat(self._fd).st_nlink > 0
        except OSError:
            return False

    def append(self, record: bytes, position: int) -> None:
        """Write one record in one call; raises OSError. What a failed or interrupted call left is overwritten or trimmed."""
        del self.starts[position:]
        if os.pwrite(self._fd, record, self.size) != len(record):
            raise OSError(errno.ENOSPC, "short write")
        self.starts.append(self.size)
        self.size += len(record)

    def write_all(self, records: Sequence[bytes]) -> None:
        """Write all records of a new file in one call; raises OSError."""
        write_at(self._fd, b"".join(records), self.size)
        for record in records:
            self.starts.append(self.size)
            self.size += len(record)

    def trim(self) -> None:
        """Cut what a failed write left, so that it is not taken for damage later."""
        with suppress(OSError):
            os.ftruncate(self._fd, self.size)

    def rename(self, name: str) -> None:
        """Take another name in the same directory; raises OSError."""
        os.rename(self._name, name, src_dir_fd=self.directory.fd, dst_dir_fd=self.directory.fd)
        self._name = name

    def load(self, positions: Sequence[int], most_bytes: int = _PIECE_BYTES) -> Loaded:
        """Read the records at `positions`, in order, at most about `most_bytes` of them, and at least one; raises OSError."""
        loaded = Loaded({}, [])
        base, data = 0, b""
        with self._opened() as fd:
            for position in positions:
                start = self.starts[position]
                end = self.starts[position + 1] if position + 1 < len(self.starts) else self.size
                if start < base or end > base + len(data):
                    if data:
                        break  # one piece is enough for one call
                    base, data = start, read_at(fd, start, max(end - start, min(most_bytes, _PIECE_BYTES)))
                found = layout.record_at(data, start - base, base)
                if found is None:
                    loaded.damaged.append(position)
                else:
                    loaded.records[position] = (found.body, found.accepted_ms)
        return loaded

    def acknowledge(self, position: int) -> None:
        """Move the low-water mark to the record at `position`: all before it are resolved."""
        low_water = self.starts[position] if position < len(self.starts) else self.size
        if low_water > self._low_water:
            self._low_water, self._generation = low_water, self._generation + 1
            at, slot = layout.write_slot(low_water, self._generation)
            self._write_header(slot, at)

    def replace_by(self, new: SegmentFile) -> None:
        """Another file has taken this one's name."""
        self.starts, self.size = array("I", new.starts), new.size
        self._low_water, self._generation, self._suspects = layout.HEADER_BYTES, 0, layout.Suspects()

    def count_end(self, first: int, ends: int) -> None:
        """An owner ended with the event at offset `first` in flight, for the `ends`-th time."""
        self.suspected, self.ends = first, ends
        self._suspects = self._suspects._replace(ends=ends)
        self._write_header(layout.write_suspects(self._suspects), layout.SUSPECTS_AT)

    def suspect(self, first: int | None, last: int | None = None, *, is_group: bool = False) -> None:
        """Note the positions of the first and last event that are about to be sent; None: they were answered.

        `is_group`: a process ended with them in flight, which counts as one end of the first of them.
        """
        before, self._suspects = self._suspects, layout.Suspects()
        if first is not None and last is not None:
            start = self.starts[first]
            self._suspects = layout.Suspects(start, self.starts[last], self.ends if start == self.suspected else int(is_group))
        if self._suspects != before:
            self._write_header(layout.write_suspects(self._suspects), layout.SUSPECTS_AT)

    def set_starts(self, starts: int) -> None:
        """Note how many processes may have ended because of an event in here."""
        self._write_header(layout.write_starts(starts), layout.STARTS_AT)

    def _write_header(self, data: bytes, at: int) -> None:
        with suppress(OSError), self._opened() as fd:  # at worst, events are sent again with the same insert_id
            write_at(fd, data, at)

    @contextmanager
    def _opened(self) -> Iterator[int]:
        if self._fd >= 0:
            yield self._fd
        else:
            with disk.opened(disk.open_segment(self._name, self.directory.fd)) as fd:
                yield fd

    def sync(self) -> None:
        """Ask the system to write everything to the device; raises OSError. Never tried again after a failure."""
        size, is_new = self.size, not self.synced
        # After a failure the kernel may call the lost pages clean.
        self.synced = _NEVER
        os.fsync(self._fd)
        if is_new:  # a new file is safe only when the directory that names it is
            os.fsync(self.directory.fd)
        self.synced = size

    def remove(self) -> bool:
        """Unlink and close it; False when the system says no."""
        try:
            os.unlink(self._name, dir_fd=self.directory.fd)
        except FileNotFoundError:
            pass
        except OSError:
            return False
        self.close()
        return True

    def close(self) -> None:
        """Close the descriptor; may be called again."""
        fd, self._fd = self._fd, -1
        disk.close_quietly(fd)


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
