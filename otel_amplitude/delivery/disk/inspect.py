"""Looking at a spool from outside: what lies there, whose it is, and taking some of it away; for a command line."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from otel_amplitude.delivery.disk import directory as disk
from otel_amplitude.delivery.disk import format as layout
from otel_amplitude.delivery.disk.segment_file import read_at, write_at
from otel_amplitude.errors import SpoolError


@dataclass(frozen=True, slots=True)
class SegmentReport:
    """What one segment holds.

    Attributes:
        fingerprint: the name of endpoint and key.
        process: the process directory: host, pid, random; `quarantine`: events during whose sending the process ended three times.
        segment: the file name.
        records: events that are not resolved.
        bytes: the size of the file.
        oldest_ms: when the first of them was accepted, in milliseconds since the epoch, or None without any.
        newest_ms: when the last of them was accepted.
        alive: a living process owns the directory.
        damaged: about how many events are lost to damage.
        starts: process starts that tried to send it.
        foreign: it is not a segment that this version may read; nothing else is known of it.
    """

    fingerprint: str
    process: str
    segment: str
    records: int = 0
    bytes: int = 0
    oldest_ms: int | None = None
    newest_ms: int | None = None
    alive: bool = False
    damaged: int = 0
    starts: int = 0
    foreign: bool = False


class StoredRecord(NamedTuple):
    """One unresolved event and where it lies."""

    fingerprint: str
    process: str
    segment: str
    body: bytes
    accepted_ms: int


@dataclass(frozen=True, slots=True)
class PurgeReport:
    """What a purge did.

    Attributes:
        removed: events that are gone; a removed segment of another version counts one.
        kept: events that stayed, in directories that could be taken.
        busy: process directories that were passed over, because a living process owns them.
    """

    removed: int
    kept: int
    busy: int


def inspect(directory: str | Path) -> list[SegmentReport]:
    """Describe every segment under a spool directory, without taking ownership; a missing directory has none.

    Raises:
        SpoolError: the directory can not be trusted.
        OSError: it can not be read.
    """
    return [
        _describe(data, SegmentReport(fingerprint, process, name, bytes=len(data), alive=disk.is_owned(fd)))
        for fingerprint, process, _parent, fd in _directories(directory)
        for name, data in _segments(fd)
    ]


def iter_records(directory: str | Path) -> Iterator[StoredRecord]:
    """Give every unresolved event under a spool directory, oldest first in each process, without taking ownership.

    Raises:
        SpoolError: the directory can not be trusted.
        OSError: it can not be read.
    """
    for fingerprint, process, _parent, fd in _directories(directory):
        for name, data in _segments(fd):
            content = layout.read_segment(data)
            for record in content.records if content else ():
                yield StoredRecord(fingerprint, process, name, record.body, record.accepted_ms)


def purge(directory: str | Path, matches: Callable[[bytes], bool] | None = None, *, fingerprint: str | None = None) -> PurgeReport:
    """Remove events that lie in directories of ended processes; what a living process owns is passed over.

    Args:
        directory: the spool directory.
        matches: whether the event with these bytes goes; None: all go, also segments of other versions.
        fingerprint: only under this one; None: under all.

    Raises:
        SpoolError: the directory can not be trusted.
        OSError: it can not be read or written.
    """
    removed = kept = busy = 0
    for found, process, parent, _fd in _directories(directory):
        if fingerprint not in {None, found}:
            continue
        taken = disk.ProcessDirectory.claim(process, parent)
        if taken is None:
            busy += 1
            continue
        try:
            for name, data in _segments(taken.fd):
                gone, stayed = _purge_segment(taken.fd, name, layout.read_segment(data), matches)
                removed, kept = removed + gone, kept + stayed
        finally:
            taken.remove()
    return PurgeReport(removed, kept, busy)


def _purge_segment(fd: int, name: str, content: layout.Content | None, matches: Callable[[bytes], bool] | None) -> tuple[int, int]:
    if content is None and matches is not None:
        return 0, 0
    records = content.records if content else []
    staying = [record for record in records if matches is not None and not matches(record.body)]
    if staying and len(staying) == len(records):
        return 0, len(staying)
    if content is not None and staying:
        _rewrite(fd, name, content.header, staying)
    else:
        os.unlink(name, dir_fd=fd)
    return len(records) - len(staying) if content else 1, len(staying)


def _rewrite(fd: int, name: str, header: layout.Header, records: list[layout.Found]) -> None:
    """Put a new file in the place of the old one in one step; a crash before it leaves the old one as it was."""
    part = secrets.token_hex(4) + disk.PART
    data = layout.write_header(header.created_ms, header.starts) + b"".join(
        layout.write_record(record.body, record.accepted_ms) for record in records
    )
    with disk.opened(disk.make_file(part, fd)) as new:
        try:
            write_at(new, data, 0)
            os.fsync(new)
            os.rename(part, name, src_dir_fd=fd, dst_dir_fd=fd)
        except OSError:
            os.unlink(part, dir_fd=fd)
            raise


def _directories(directory: str | Path) -> Iterator[tuple[str, str, int, int]]:
    """Give fingerprint, process, and the descriptors of fingerprint and process directory; what vanishes or can not be trusted is passed over."""
    try:
        root = disk.open_root(Path(directory).absolute())
    except FileNotFoundError:
        return
    with disk.opened(root):
        for fingerprint in disk.list_directories(root, disk.FINGERPRINT):
            with suppress(OSError, SpoolError), disk.opened(disk.open_inner(fingerprint, root)) as parent:
                for process in [*disk.process_names(parent), disk.QUARANTINE]:
                    with suppress(FileNotFoundError, SpoolError), disk.opened(disk.open_inner(process, parent)) as fd:
                        yield fingerprint, process, parent, fd


def _segments(fd: int) -> Iterator[tuple[str, bytes]]:
    for name in disk.list_directories(fd, disk.SEGMENT):
        data = b""
        try:
            with disk.opened(disk.open_segment(name, fd, os.O_RDONLY)) as file:
                data = read_at(file, 0, layout.MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            continue
        except OSError:
            data = b"?" * layout.HEADER_BYTES  # a link, a pipe or another user's: foreign
        yield name, data


def _describe(data: bytes, report: SegmentReport) -> SegmentReport:
    content = layout.read_segment(data)
    if content is None:
        return replace(report, foreign=True)
    times = [record.accepted_ms for record in content.records]
    return replace(
        report,
        records=len(times),
        oldest_ms=min(times, default=None),
        newest_ms=max(times, default=None),
        damaged=content.damaged,
        starts=content.header.starts,
    )
