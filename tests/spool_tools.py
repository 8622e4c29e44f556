"""What the tests of the spool share: a clock one can set, short ways to fill and drain, faults by count."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from otel_amplitude.delivery.disk import format as layout
from otel_amplitude.delivery.disk import spool as _spool
from otel_amplitude.delivery.disk.spool import Record, Spool

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


def make(directory: Path, clock: Clock | None = None, **options: Any) -> Spool:
    """Make a spool with a clock that stands still and no wish for free space."""
    clock = clock or Clock()
    options = {"min_free": 0, "wall": clock.wall, "clock": clock.monotonic, **options}
    return Spool(directory, FINGERPRINT, **options)


def body(number: int) -> bytes:
    """Give the bytes of one small event."""
    return b'{"insert_id":"%d"}' % number


def fill(spool: Spool, numbers: range | list[int]) -> None:
    """Append events, all of which must be taken."""
    for number in numbers:
        assert spool.append(body(number), NOW_MS) is None


def read_all(spool: Spool) -> list[Record]:
    """Hand out everything."""
    records: list[Record] = []
    while found := spool.read(100, 100_000):
        records += found
    return records


def bodies(records: list[Record]) -> list[bytes]:
    """Give the bytes of each record."""
    return [record.body for record in records]


def drain(spool: Spool) -> list[bytes]:
    """Read and resolve everything."""
    records = read_all(spool)
    spool.resolve([record.place for record in records])
    return bodies(records)


def abandon(spool: Spool) -> None:
    """Leave a spool as a kill does: nothing tidied, the lock released by the kernel."""
    spool.abandon_after_fork()


def balanced(spool: Spool) -> bool:
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
    patch.setattr(_spool, "_EARLY_BYTES", 2**16 * 3 // 4)


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
