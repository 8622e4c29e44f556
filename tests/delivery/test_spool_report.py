"""A spool seen from outside: nothing is taken from a living process, nothing foreign is destroyed unasked."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import spool_tools as tools
from spool_tools import FINGERPRINT, NOW_MS, Clock, body, drain, fill, make

from otel_amplitude.delivery.disk.inspect import PurgeReport, inspect, iter_records, purge
from otel_amplitude.errors import SpoolError


def dead(root: Path, *numbers: int) -> None:
    spool = make(root)
    fill(spool, list(numbers))
    tools.abandon(spool)


def test_a_missing_directory_is_empty(tmp_path: Path) -> None:
    """Looking makes nothing."""
    missing = tmp_path / "missing"
    assert inspect(missing) == []
    assert list(iter_records(missing)) == []
    assert purge(missing) == PurgeReport(0, 0, 0)
    assert not missing.exists()


def test_an_untrusted_directory_is_refused(tmp_path: Path) -> None:
    """The same rules as for a spool."""
    tmp_path.chmod(0o777)
    for look in (inspect, purge, lambda path: list(iter_records(path))):
        with pytest.raises(SpoolError, match="chmod 0700"):
            look(tmp_path)


def test_tells_what_lies_there(tmp_path: Path) -> None:
    """Records not resolved, their ages, starts, and whether the owner lives."""
    spool = make(tmp_path)
    for number in range(5):
        assert spool.append(body(number), NOW_MS + number) is None
    spool.resolve([record.place for record in spool.read(2, 10**6)])
    (report,) = inspect(tmp_path)
    assert (report.fingerprint, report.segment, report.records, report.damaged, report.starts) == (FINGERPRINT, "00000001.seg", 3, 0, 1)
    assert (report.oldest_ms, report.newest_ms) == (NOW_MS + 2, NOW_MS + 4)
    assert report.bytes == tools.segments(tmp_path)[0].stat().st_size
    assert report.process == tools.segments(tmp_path)[0].parent.name
    assert report.alive
    assert not report.foreign
    assert [(record.body, record.accepted_ms) for record in iter_records(tmp_path)] == [(body(n), NOW_MS + n) for n in (2, 3, 4)]
    assert len(drain(spool)) == 3
    tools.abandon(spool)
    (report,) = inspect(tmp_path)
    assert (report.alive, report.records, report.oldest_ms, report.newest_ms) == (False, 0, None, None)


def test_looking_takes_no_ownership(tmp_path: Path) -> None:
    """While someone looks, a spool can still adopt."""
    dead(tmp_path, 1)
    records = iter_records(tmp_path)
    assert next(records).body == body(1)
    spool = make(tmp_path)
    spool.maintain()
    assert drain(spool) == [body(1)]
    assert list(records) == []


def test_damage_and_strangers_are_shown(tmp_path: Path) -> None:
    """A flipped byte is one damaged record; another version, a link and a pipe are foreign; a fresh file is empty."""
    dead(tmp_path, *range(4))
    (path,) = tools.segments(tmp_path)
    data = bytearray(path.read_bytes())
    data[data.index(body(1)) + 1] ^= 1
    path.write_bytes(data)
    (path.parent / "00000002.seg").write_bytes(bytes(data[:8]) + struct.pack("<H", 2) + bytes(data[10:]))
    (path.parent / "00000003.seg").symlink_to(path)
    os.mkfifo(path.parent / "00000004.seg", 0o600)
    (path.parent / "00000005.seg").touch(0o600)
    reports = inspect(tmp_path)
    assert [(report.records, report.damaged, report.foreign) for report in reports] == [
        (3, 1, False),
        (0, 0, True),
        (0, 0, True),
        (0, 0, True),
        (0, 0, False),
    ]
    assert tools.bodies(list(iter_records(tmp_path))) == [body(0), body(2), body(3)]  # type: ignore[arg-type]


def test_what_vanishes_meanwhile_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner may remove a segment, or its directory, between two looks."""
    dead(tmp_path, 1)
    dead(tmp_path, 2)
    first, second = tools.segments(tmp_path)
    real = os.open

    def opened(path: Any, flags: int, *args: Any, **options: Any) -> int:
        if path == first.name and first.exists():
            first.unlink()
        if path == second.parent.name and second.exists():
            second.unlink()
            (second.parent / "lock").unlink()
            second.parent.rmdir()
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", opened)
    assert list(iter_records(tmp_path)) == []


def test_purges_what_matches(tmp_path: Path) -> None:
    """One person's events go, the others stay, in order, and are still delivered."""
    dead(tmp_path, *range(6))
    assert purge(tmp_path, lambda text: text in {body(1), body(4)}) == PurgeReport(2, 4, 0)
    assert purge(tmp_path, lambda text: text == body(1)) == PurgeReport(0, 4, 0)
    (path,) = tools.segments(tmp_path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert b'"1"' not in path.read_bytes()
    spool = make(tmp_path)
    spool.maintain()
    assert drain(spool) == [body(number) for number in (0, 2, 3, 5)]


def test_purges_everything(tmp_path: Path) -> None:
    """Without a condition all goes, also what another version wrote, and the directories with it."""
    dead(tmp_path, 1, 2)
    dead(tmp_path, 3, 4)
    tools.segments(tmp_path)[1].write_bytes(b"another version " * 10)
    assert purge(tmp_path, lambda _text: True) == PurgeReport(2, 0, 0)
    assert len(tools.segments(tmp_path)) == 1
    assert purge(tmp_path) == PurgeReport(1, 0, 0)
    assert not list(tmp_path.glob("*/*"))


def test_purges_one_fingerprint(tmp_path: Path) -> None:
    """Another key's events stay."""
    dead(tmp_path, 1)
    clock = Clock()
    other = make(tmp_path, clock, fingerprint="ffffffff")
    fill(other, [2])
    tools.abandon(other)
    assert purge(tmp_path, fingerprint=FINGERPRINT) == PurgeReport(1, 0, 0)
    assert [record.body for record in iter_records(tmp_path)] == [body(2)]


def test_a_living_owner_is_passed_over(tmp_path: Path) -> None:
    """Nothing is taken from under a process, and the number of those is told."""
    spool = make(tmp_path)
    fill(spool, [1])
    assert purge(tmp_path) == PurgeReport(0, 0, 1)
    assert drain(spool) == [body(1)]


def test_a_purge_that_fails_leaves_the_old_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new file takes the place of the old one in one step, or not at all; the lock is released."""
    dead(tmp_path, 1, 2)

    def fail(_fd: int) -> None:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="broken"):
            purge(tmp_path, lambda text: text == body(1))
    (path,) = tools.segments(tmp_path)
    assert {entry.name for entry in path.parent.iterdir()} == {"lock", path.name}
    spool = make(tmp_path)
    spool.maintain()
    assert drain(spool) == [body(1), body(2)]


def test_what_a_killed_purge_left_is_cleared_away(tmp_path: Path) -> None:
    """An unfinished file does not keep a directory for ever."""
    dead(tmp_path, 1)
    (tools.segments(tmp_path)[0].parent / "0123abcd.part").write_text("half")
    spool = make(tmp_path)
    spool.maintain()
    assert drain(spool) == [body(1)]
    assert not list(tmp_path.glob("*/*"))


def test_a_directory_without_a_lock_has_no_owner(tmp_path: Path) -> None:
    """Someone removed the file: what lies there can be taken over."""
    dead(tmp_path, 1)
    (tools.segments(tmp_path)[0].parent / "lock").unlink()
    assert [report.alive for report in inspect(tmp_path)] == [False]
    spool = make(tmp_path)
    spool.maintain()
    assert drain(spool) == [body(1)]
