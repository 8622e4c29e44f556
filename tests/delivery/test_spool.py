"""The spool: gives back what it took, keeps its caps, degrades and recovers."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import spool_tools as tools
from delivery.descriptors import descriptors_below
from punctual import Stopwatch
from spool_tools import NOW_MS, Clock, balanced, bodies, body, drain, fill, make, read_all

from otel_amplitude.delivery.disk import format as layout
from otel_amplitude.delivery.disk import spool as _spool
from otel_amplitude.delivery.disk.spool import Record, Spool, SpoolCounts, fingerprint
from otel_amplitude.delivery.lock import acquired
from otel_amplitude.errors import SpoolError


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_gives_back_what_it_took_in_order(tmp_path: Path, clock: Clock) -> None:
    """Events are read once, in the order of their acceptance, with the time of their acceptance."""
    spool = make(tmp_path, clock)
    fill(spool, range(50))
    records = spool.read(20, 10**6) + read_all(spool)
    assert tools.bodies(records) == [body(number) for number in range(50)]
    assert {record.accepted_ms for record in records} == {NOW_MS}
    assert spool.counts() == SpoolCounts(50, 0, 50, 0, 0, 0, 0, 0, 0, 0, 0)
    assert not spool.behind


def test_reads_within_its_limits(tmp_path: Path, clock: Clock) -> None:
    """At most so many events and bytes, but at least one event."""
    spool = make(tmp_path, clock)
    fill(spool, range(10))
    assert len(spool.read(3, 10**6)) == 3
    assert len(spool.read(10, 2 * len(body(0)))) == 2
    assert len(spool.read(10, 1)) == 1
    assert spool.behind


def test_makes_nothing_before_the_first_append(tmp_path: Path, clock: Clock) -> None:
    """A process that never spools leaves no trace, not even by looking for the dead."""
    spool = make(tmp_path / "a" / "b", clock)
    assert spool.next_maintenance() is None
    spool.maintain()
    spool.close()
    assert list(tmp_path.iterdir()) == []


def test_removes_what_is_resolved(tmp_path: Path, clock: Clock) -> None:
    """An orderly end without leftovers leaves an empty directory."""
    spool = make(tmp_path, clock)
    fill(spool, range(10))
    drain(spool)
    spool.close()
    assert not list(tmp_path.glob("*/*"))


def test_full_segments_go_when_all_in_them_is_resolved(tmp_path: Path, clock: Clock) -> None:
    """A segment holds 4 MiB at most; it is removed by the last resolution in it."""
    spool = make(tmp_path, clock, max_bytes=10**9)
    large = b'"' + b"x" * 500_000 + b'"'
    for _ in range(30):
        assert spool.append(large, NOW_MS) is None
    assert len(tools.segments(tmp_path)) == 4
    assert max(path.stat().st_size for path in tools.segments(tmp_path)) <= layout.SEGMENT_BYTES
    records = read_all(spool)
    assert len(records) == 30
    spool.resolve([record.place for record in reversed(records[1:])])
    assert len(tools.segments(tmp_path)) == 2
    spool.resolve([records[0].place])
    assert len(tools.segments(tmp_path)) == 1


def test_the_worker_opens_the_next_segment_early(tmp_path: Path, clock: Clock) -> None:
    """At three quarters maintenance rotates, so that accepting threads seldom have to."""
    spool = make(tmp_path, clock)
    spool.maintain()
    for _ in range(4):
        spool.append(b"x" * 900_000, NOW_MS)
    spool.maintain()
    assert len(tools.segments(tmp_path)) == 2
    assert len(drain(spool)) == 4
    spool.maintain()
    assert len(tools.segments(tmp_path)) == 1


def test_a_sibling_adopts_what_a_dead_process_left(tmp_path: Path, clock: Clock) -> None:
    """Unresolved events come back in order, resolved ones do not, the directory is removed in the end."""
    first = make(tmp_path, clock)
    fill(first, range(10))
    first.resolve([record.place for record in first.read(4, 10**6)])
    tools.abandon(first)
    second = make(tmp_path, clock)
    fill(second, [77])
    second.maintain()
    assert second.behind
    assert drain(second) == [body(number) for number in [*range(4, 10), 77]]
    assert second.counts() == SpoolCounts(1, 6, 7, 0, 0, 0, 0, 0, 0, 0, 0)
    assert len(list(tmp_path.glob("*/*"))) == 1


def test_adoption_is_told(tmp_path: Path, clock: Clock) -> None:
    """The worker is given log events with facts, to write outside locks."""
    first = make(tmp_path, clock)
    fill(first, range(3))
    tools.abandon(first)
    second = make(tmp_path, clock)
    second.maintain()
    drain(second)
    ((event, facts),) = second.maintain()
    assert (event, facts["events"]) == ("spool.replayed", 3)


def test_a_living_owner_keeps_its_directory(tmp_path: Path, clock: Clock) -> None:
    """Two exporters in one process have two directories, and neither takes the other's."""
    first, second = make(tmp_path, clock), make(tmp_path, clock)
    fill(first, range(5))
    fill(second, range(5, 8))
    second.maintain()
    first.maintain()
    assert drain(first) == [body(number) for number in range(5)]
    assert drain(second) == [body(number) for number in range(5, 8)]
    assert len(list(tmp_path.glob("*/*"))) == 2


def test_adoption_is_tried_every_half_minute(tmp_path: Path, clock: Clock) -> None:
    """A process that dies later is found at the next look."""
    survivor, other = make(tmp_path, clock), make(tmp_path, clock)
    fill(other, range(3))
    survivor.maintain()
    tools.abandon(other)
    clock.now += 29
    survivor.maintain()
    assert not survivor.behind
    assert survivor.next_maintenance() == clock.now + 1
    clock.now += 1
    survivor.maintain()
    assert len(drain(survivor)) == 3


def test_another_key_is_never_read(tmp_path: Path, clock: Clock) -> None:
    """Events are only ever given to the key and endpoint they were accepted for."""
    first = make(tmp_path, clock)
    fill(first, range(3))
    tools.abandon(first)
    other = Spool(tmp_path, fingerprint("https://other", "key"), min_free=0, wall=clock.wall, clock=clock.monotonic)
    other.maintain()
    assert not other.behind
    assert len(tools.segments(tmp_path)) == 1


@pytest.mark.parametrize("late", [0, 6.4 * 86_400])
def test_a_newer_version_is_left_untouched_and_counted(tmp_path: Path, clock: Clock, late: float) -> None:
    """What this version can not read keeps its bytes for a sibling that can."""
    first = make(tmp_path, clock)
    fill(first, range(3))
    tools.abandon(first)
    (path,) = tools.segments(tmp_path)
    newer = path.read_bytes()[:8] + struct.pack("<H", 2) + path.read_bytes()[10:]
    path.write_bytes(newer)
    os.utime(path, (clock.wall(), clock.wall()))
    clock.now += late
    second = make(tmp_path, clock)
    for _ in range(2):
        second.maintain()
        assert drain(second) == []
        assert second.counts().foreign == 1
        clock.now += 30
    assert path.read_bytes() == newer


def test_a_foreign_segment_is_discarded_when_nobody_may_send_it(tmp_path: Path, clock: Clock) -> None:
    """After six and a half days it is removed and counted, whosever key it was."""
    first = make(tmp_path, clock)
    fill(first, range(3))
    tools.abandon(first)
    (path,) = tools.segments(tmp_path)
    os.utime(path, (clock.wall(), clock.wall()))
    clock.now += 6.6 * 86_400
    other = Spool(tmp_path, fingerprint("https://other", "key"), min_free=0, wall=clock.wall, clock=clock.monotonic)
    other.maintain()
    assert other.counts().discarded == 1
    assert not list(tmp_path.glob("*/*"))


def test_a_foreign_record_type_leaves_the_whole_segment(tmp_path: Path, clock: Clock) -> None:
    """A record of a type that is not known here makes the segment somebody else's."""
    first = make(tmp_path, clock)
    fill(first, range(3))
    tools.abandon(first)
    (path,) = tools.segments(tmp_path)
    rest = struct.pack("<B3xQ", 9, NOW_MS) + b"?"
    path.write_bytes(path.read_bytes() + struct.pack("<II", 1, layout.crc32(rest)) + rest)
    second = make(tmp_path, clock)
    second.maintain()
    assert drain(second) == []
    assert second.counts().foreign == 1
    assert not second.behind
    assert path.exists()


def test_damage_is_counted_and_costs_its_record(tmp_path: Path, clock: Clock) -> None:
    """One flipped byte is one event of `spool_corrupt`, and the books still balance."""
    first = make(tmp_path, clock)
    fill(first, range(10))
    tools.abandon(first)
    (path,) = tools.segments(tmp_path)
    data = bytearray(path.read_bytes())
    data[data.index(body(4)) + 3] ^= 0xFF
    path.write_bytes(data)
    second = make(tmp_path, clock)
    second.maintain()
    assert drain(second) == [body(number) for number in range(10) if number != 4]
    assert second.counts() == SpoolCounts(0, 10, 9, 0, 1, 0, 0, 1, 0, 0, 0)
    assert not list(tmp_path.glob("*/*"))


def test_damage_to_what_this_process_wrote_is_counted(tmp_path: Path, clock: Clock) -> None:
    """The file is not believed only because it is ours."""
    spool = make(tmp_path, clock)
    fill(spool, range(10))
    (path,) = tools.segments(tmp_path)
    with path.open("r+b") as file:
        file.seek(64 + 3)
        file.write(b"\xff" * 40)
    assert len(drain(spool)) == 8
    assert spool.counts() == SpoolCounts(10, 0, 8, 0, 2, 0, 0, 2, 0, 0, 0)
    spool.close()
    assert not list(tmp_path.glob("*/*"))


def test_a_truncated_file_of_this_process_is_counted(tmp_path: Path, clock: Clock) -> None:
    """What someone cut off is missing in the books, and later events are still found."""
    spool = make(tmp_path, clock)
    fill(spool, range(10))
    (path,) = tools.segments(tmp_path)
    os.truncate(path, 64)
    assert drain(spool) == []
    assert spool.counts().corrupt == 10
    fill(spool, [1])
    assert drain(spool) == [body(1)]
    assert tools.balanced(spool)


def test_large_damage_hides_nothing_behind_it(tmp_path: Path, clock: Clock) -> None:
    """More than one piece of reading may be damaged."""
    spool = make(tmp_path, clock)
    for number in range(8):
        assert spool.append(b"%d" % number * 400_000, NOW_MS) is None
    (path,) = tools.segments(tmp_path)
    with path.open("r+b") as file:
        file.seek(64 + 3)
        file.write(b"\xff" * 1_500_000)
    assert [text[:1] for text in drain(spool)] == [b"4", b"5", b"6", b"7"]
    assert spool.counts().corrupt == 4


def test_a_torn_end_is_silent(tmp_path: Path, clock: Clock) -> None:
    """Half a record is what a kill leaves, and was never promised."""
    first = make(tmp_path, clock)
    fill(first, range(3))
    tools.abandon(first)
    (path,) = tools.segments(tmp_path)
    path.write_bytes(path.read_bytes() + layout.write_record(body(3), NOW_MS)[:-1])
    second = make(tmp_path, clock)
    second.maintain()
    assert drain(second) == [body(number) for number in range(3)]
    assert second.counts().corrupt == 0
    assert not list(tmp_path.glob("*/*"))


def test_expired_events_are_counted_not_given(tmp_path: Path, clock: Clock) -> None:
    """What became too old while its process was dead is passed over."""
    first = make(tmp_path, clock)
    fill(first, range(3))
    tools.abandon(first)
    clock.now += 3_601
    second = make(tmp_path, clock, max_age=3_600)
    second.maintain()
    assert drain(second) == []
    assert second.counts() == SpoolCounts(0, 3, 0, 3, 0, 0, 0, 3, 0, 0, 0)
    assert not list(tmp_path.glob("*/*"))


def test_events_of_this_process_expire_too(tmp_path: Path, clock: Clock) -> None:
    """An outage longer than `max_age` is counted as such."""
    spool = make(tmp_path, clock, max_age=3_600)
    fill(spool, range(3))
    clock.now += 3_601
    fill(spool, [])
    assert spool.append(body(9), int(clock.wall() * 1000)) is None
    assert drain(spool) == [body(9)]
    assert spool.counts().expired == 3


@pytest.mark.parametrize("jump", [400 * 86_400, -400 * 86_400, -90 * 365 * 86_400])
def test_a_clock_that_jumps_loses_nothing(tmp_path: Path, clock: Clock, jump: float) -> None:
    """Events written a moment ago are not expired by a clock that was set; only what was stamped long ago is, by a later process."""
    spool = make(tmp_path, clock)
    fill(spool, range(3))
    clock.wall_offset += jump
    assert spool.append(body(3), int(clock.wall() * 1000)) is None
    spool.maintain()
    assert len(read_all(spool)) == 4
    tools.abandon(spool)
    clock.wall_offset -= jump
    second = make(tmp_path, clock)
    second.maintain()
    assert len(drain(second)) + second.counts().expired == 4
    assert second.counts().expired == (jump < 0)


def test_the_cap_refuses_and_recovers(tmp_path: Path, clock: Clock) -> None:
    """Full is said at once and cheaply, never exceeded by a segment, and over when events were resolved."""
    spool = make(tmp_path, clock, max_bytes=6 * 2**20)
    spool.maintain()
    large = b"x" * 100_000
    taken = 0
    while spool.append(large, NOW_MS) is None:
        taken += 1
    assert spool.append(large, NOW_MS) == "spool_full"
    assert sum(path.stat().st_size for path in tools.segments(tmp_path)) <= 6 * 2**20
    assert taken >= 55
    assert ("spool.full", {"reason": "cap", "retry_seconds": 0.5}) in spool.maintain()
    assert len(drain(spool)) == taken
    clock.now += 0.5
    spool.maintain()
    assert spool.append(large, NOW_MS) is None
    assert tools.balanced(spool)


def test_the_cap_is_shared_by_processes(tmp_path: Path, clock: Clock) -> None:
    """Several processes exceed it by at most one segment each."""
    spools = [make(tmp_path, clock, max_bytes=8 * 2**20) for _ in range(4)]
    large = b"x" * 100_000
    for _ in range(300):
        for spool in spools:
            spool.append(large, NOW_MS)
    used = sum(path.stat().st_size for path in tools.segments(tmp_path))
    assert 8 * 2**20 - 200_000 <= used <= (8 + 4 * 4) * 2**20
    assert {spool.append(large, NOW_MS) for spool in spools} == {"spool_full"}


def test_stops_when_the_file_system_is_nearly_full(tmp_path: Path, clock: Clock) -> None:
    """The last free bytes belong to others."""
    spool = make(tmp_path, clock, min_free=2**60)
    assert spool.append(body(1), NOW_MS) == "spool_full"
    clock.now += 0.5
    assert spool.maintain()[-1][0] == "spool.full"
    assert spool.append(body(1), NOW_MS) == "spool_full"


def test_a_record_that_could_not_be_read_back_is_not_written(tmp_path: Path, clock: Clock) -> None:
    """Over a mebibyte it would be called damage later."""
    assert make(tmp_path, clock).append(b"x" * 2**20, NOW_MS) == "spool_full"


@pytest.mark.parametrize(
    ("number", "refusal"), [(errno.ENOSPC, "spool_full"), (errno.EDQUOT, "spool_full"), (errno.EIO, "spool_io"), (errno.EROFS, "spool_io")]
)
def test_a_failing_disk_degrades_and_is_tried_again(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, number: int, refusal: str
) -> None:
    """One failure seals the segment and refuses for half a minute; what was written before is kept; then it works again."""
    spool = make(tmp_path, clock)
    spool.maintain()
    fill(spool, range(3))
    calls = []
    real = os.pwrite

    def fail(fd: int, data: bytes, offset: int) -> int:
        calls.append(offset)
        real(fd, data[:7], offset)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pwrite", fail)
    assert [spool.append(body(3), NOW_MS) for _ in range(5)] == [refusal] * 5
    assert len(calls) == 1
    notices = spool.maintain()
    assert ("spool.full", {"reason": errno.errorcode[number], "retry_seconds": 30.0}) in notices
    monkeypatch.undo()
    clock.now += 29
    spool.maintain()
    assert spool.append(body(3), NOW_MS) == refusal
    clock.now += 1
    spool.maintain()
    fill(spool, [4])
    assert spool.counts().failures == 1
    tools.abandon(spool)
    second = make(tmp_path, clock)
    second.maintain()
    assert drain(second) == [body(number) for number in (0, 1, 2, 4)]
    assert second.counts().corrupt == 0


def test_a_short_write_is_a_full_disk(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a record is not accepted, and not left behind."""
    spool = make(tmp_path, clock)
    fill(spool, range(3))
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:9], offset))
    assert spool.append(body(3), NOW_MS) == "spool_full"
    monkeypatch.undo()
    (path,) = tools.segments(tmp_path)
    assert path.read_bytes().endswith(body(2))
    assert drain(spool) == [body(number) for number in range(3)]


def test_a_disk_that_stays_broken_is_tried_every_half_minute(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trying again costs one attempt, and nothing is raised."""
    spool = make(tmp_path, clock)
    spool.maintain()

    def fail(*_args: Any, **_kwargs: Any) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "open", fail)
    assert spool.append(body(1), NOW_MS) == "spool_io"
    for expected in (2, 3):
        clock.now += 30
        spool.maintain()
        assert spool.counts().failures == expected
    monkeypatch.undo()
    clock.now += 30
    spool.maintain()
    fill(spool, [1])


def test_a_failed_sync_is_never_repeated_on_the_same_file(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may call lost pages clean: later events go to another file."""
    spool = make(tmp_path, clock)
    fill(spool, range(3))
    synced = []

    def fsync(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        if len(synced) == 1:
            raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "fsync", fsync)
    clock.now += 0.5
    spool.maintain()
    assert spool.append(body(3), NOW_MS) == "spool_io"
    for _ in range(4):
        clock.now += 30
        spool.maintain()
        spool.append(body(4), NOW_MS)
    assert len(synced) > 4
    assert synced[0] not in synced[1:]
    assert len(drain(spool)) == 7


def test_syncs_what_was_written_and_no_more(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every half second while something is new, off the accepting threads; a new file together with its directories."""
    spool = make(tmp_path, clock)
    spool.maintain()
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(str(Path(f"/proc/self/fd/{fd}").readlink())))
    fill(spool, [1])
    assert spool.next_maintenance() == clock.now + 0.5
    spool.maintain()
    assert synced == []
    clock.now += 0.5
    spool.maintain()
    (path,) = tools.segments(tmp_path)
    assert synced == [str(path), str(path.parent), str(tmp_path), str(path.parent.parent)]
    clock.now += 0.5
    spool.maintain()
    assert len(synced) == 4
    assert spool.next_maintenance() == 1_030.0
    fill(spool, [2])
    clock.now += 0.5
    spool.maintain()
    assert synced[4:] == [str(path)]


def test_a_removed_directory_is_noticed(tmp_path: Path, clock: Clock) -> None:
    """What it held is still delivered by this process, new events wait for the retry, then go to a new directory."""
    spool = make(tmp_path / "spool", clock)
    spool.maintain()
    fill(spool, range(3))
    shutil.rmtree(tmp_path / "spool")
    fill(spool, [3])
    spool.maintain()
    assert spool.append(body(4), NOW_MS) == "spool_io"
    clock.now += 30
    spool.maintain()
    fill(spool, [5])
    assert drain(spool) == [body(number) for number in (0, 1, 2, 3, 5)]
    assert spool.counts().failures == 1
    spool.close()
    assert not list((tmp_path / "spool").glob("*/*"))


def test_a_removed_segment_is_noticed(tmp_path: Path, clock: Clock) -> None:
    """One file that vanishes is a failed disk, and the directory is kept."""
    spool = make(tmp_path, clock)
    spool.maintain()
    fill(spool, range(3))
    tools.segments(tmp_path)[0].unlink()
    spool.maintain()
    assert spool.append(body(4), NOW_MS) == "spool_io"
    clock.now += 30
    spool.maintain()
    fill(spool, [5])
    assert drain(spool) == [body(number) for number in (0, 1, 2, 5)]
    assert len(list(tmp_path.glob("*/*"))) == 1


def test_lost_permission_degrades(tmp_path: Path, clock: Clock) -> None:
    """A directory that others may write to since the start is not used, and nothing is raised."""
    root = tmp_path / "spool"
    spool = make(root, clock)
    root.mkdir()
    root.chmod(0o777)
    assert spool.append(body(1), NOW_MS) == "spool_io"
    spool.maintain()
    assert list(root.iterdir()) == []
    root.chmod(0o700)
    clock.now += 30
    spool.maintain()
    fill(spool, [1])


def test_a_file_that_can_not_be_read_is_given_up(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """After three tries its events are counted as lost, so that nothing behind them waits for ever."""
    spool = make(tmp_path, clock)
    fill(spool, range(3))

    def fail(*_args: Any) -> bytes:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "pread", fail)
    assert [spool.read(10, 10**6) for _ in range(3)] == [[], [], []]
    monkeypatch.undo()
    assert spool.counts().corrupt == 3
    fill(spool, [3])
    assert drain(spool) == [body(3)]


def test_an_adopted_file_that_can_not_be_read_is_tried_at_the_next_look(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it was taken over, so nothing of it is lost."""
    first = make(tmp_path, clock)
    fill(first, range(3))
    tools.abandon(first)
    second = make(tmp_path, clock)
    second.maintain()

    def fail(*_args: Any) -> bytes:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "pread", fail)
    assert second.read(10, 10**6) == []
    assert not second.behind
    monkeypatch.undo()
    clock.now += 30
    second.maintain()
    assert len(drain(second)) == 3


def test_a_segment_that_can_not_be_removed_is_tried_again(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that can not even delete costs space, not events."""
    first = make(tmp_path, clock)
    fill(first, range(3))
    tools.abandon(first)
    second = make(tmp_path, clock)
    second.maintain()

    def fail(*_args: Any, **_kwargs: Any) -> None:
        raise OSError(errno.EROFS, "read-only")

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", fail)
        assert len(drain(second)) == 3
        assert len(tools.segments(tmp_path)) == 1
    second.maintain()
    assert not list(tmp_path.glob("*/*"))


def test_resolving_strangers_changes_nothing(tmp_path: Path, clock: Clock) -> None:
    """Places of nobody, of a closed spool, or given twice, are passed over."""
    spool = make(tmp_path, clock)
    fill(spool, range(4))
    records = read_all(spool)
    spool.resolve([None, "place", 7, records[1].place, records[1].place])
    spool.resolve([records[0].place])
    spool.resolve([records[0].place, records[1].place])
    tools.abandon(spool)
    spool.resolve([records[2].place])
    second = make(tmp_path, clock)
    second.maintain()
    assert drain(second) == [body(2), body(3)]


def test_after_close_nothing_is_taken_and_nothing_raised(tmp_path: Path, clock: Clock) -> None:
    """Late threads meet a closed spool; what is left belongs to a sibling."""
    spool = make(tmp_path, clock)
    fill(spool, range(4))
    (record, *_rest) = spool.read(2, 10**6)
    spool.close()
    spool.close()
    assert spool.append(body(9), NOW_MS) == "spool_io"
    assert spool.read(1, 1) == []
    assert spool.maintain() == []
    spool.resolve([record.place])
    second = make(tmp_path, clock)
    second.maintain()
    assert len(drain(second)) == 4


def test_many_dead_directories_are_adopted_in_turns(tmp_path: Path, clock: Clock) -> None:
    """A crash loop leaves hundreds; descriptors stay bounded."""
    for number in range(40):
        spool = make(tmp_path, clock)
        fill(spool, [number])
        tools.abandon(spool)
    survivor = make(tmp_path, clock)
    found: list[bytes] = []
    for _ in range(3):
        survivor.maintain()
        assert len(descriptors_below(tmp_path)) <= 3 * 16
        found += drain(survivor)
        clock.now += 30
    assert sorted(found) == sorted(body(number) for number in range(40))
    assert not list(tmp_path.glob("*/*"))
    assert len(descriptors_below(tmp_path)) <= 4


def test_re_entry_on_the_same_thread_is_refused(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler or finalizer inside an append keeps its event in memory instead of waiting for itself."""
    spool = make(tmp_path, clock)
    fill(spool, [0])
    inner: list[str | None] = []
    real = os.pwrite

    def interrupted(fd: int, data: bytes, offset: int) -> int:
        if not inner:
            inner.append(None)
            inner[0] = spool.append(body(1), NOW_MS)
            spool.counts()
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", interrupted)
    fill(spool, [2])
    assert inner == ["spool_io"]
    assert drain(spool) == [body(0), body(2)]


def test_re_entry_while_a_segment_is_opened_is_refused(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same holds while the first directory is made, and while records are read."""
    spool = make(tmp_path, clock)
    inner: list[object] = []
    real_mkdir, real_pread = os.mkdir, os.pread

    def mkdir(*args: Any, **kwargs: Any) -> None:
        inner.append(spool.append(body(1), NOW_MS))
        real_mkdir(*args, **kwargs)

    def pread(fd: int, size: int, offset: int) -> bytes:
        inner.append(spool.read(1, 1))
        return real_pread(fd, size, offset)

    monkeypatch.setattr(os, "mkdir", mkdir)
    monkeypatch.setattr(os, "pread", pread)
    fill(spool, [2])
    assert set(inner) == {"spool_io"}
    inner.clear()
    assert drain(spool) == [body(2)]
    assert inner == [[]]


def test_an_exception_from_a_signal_handler_leaves_the_spool_whole(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reaches the application, whose it is; the next append takes the place of the unfinished one."""
    spool = make(tmp_path, clock)
    fill(spool, [0])
    real = os.pwrite

    def interrupted(fd: int, data: bytes, offset: int) -> int:
        real(fd, data, offset)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "pwrite", interrupted)
    with pytest.raises(KeyboardInterrupt):
        spool.append(body(1), NOW_MS)
    monkeypatch.undo()
    fill(spool, [2])
    assert drain(spool) == [body(0), body(2)]
    assert tools.balanced(spool)


@pytest.fixture
def gate_held_elsewhere() -> Iterator[Callable[[Any], None]]:
    """Let another thread hold one of the gates until the test ends, as one does that waits for a disk."""
    done = threading.Event()
    threads: list[threading.Thread] = []

    def hold(gate: Any) -> None:
        inside = threading.Event()

        def wait() -> None:
            with acquired(gate):
                inside.set()
                done.wait(30)

        threads.append(threading.Thread(target=wait))
        threads[-1].start()
        assert inside.wait(30)

    yield hold
    done.set()
    for thread in threads:
        thread.join()


def test_an_open_that_hangs_holds_up_nobody(tmp_path: Path, clock: Clock, gate_held_elsewhere: Callable[[Any], None]) -> None:
    """While one thread waits for the disk to open a segment, appends are refused, maintenance goes on, and closing is quick."""
    spool = make(tmp_path, clock)
    gate_held_elsewhere(spool._open_gate)
    watch = Stopwatch()
    assert spool.append(body(1), NOW_MS) == "spool_io"
    spool.maintain()
    spool.close()
    assert watch.seconds() < 0.25
    assert spool.append(body(1), NOW_MS) == "spool_io"


def test_whoever_closes_does_not_wait_for_one_that_waits_for_him(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the worker works and is about to open a segment, closing lets it go on, waits for it, and gives up what is owned."""
    monkeypatch.setattr(_spool, "_OPEN_WAIT", 30.0)
    monkeypatch.setattr(_spool, "_CLOSE_WAIT", 30.0)
    spool = make(tmp_path, clock)
    fill(spool, [1])
    working, waiting = threading.Event(), threading.Event()

    def wait_for_work(gate: Any, timeout: float = threading.TIMEOUT_MAX) -> AbstractContextManager[bool]:
        if gate is spool._work_gate and threading.current_thread() is closing:
            waiting.set()  # and nothing may be held that the worker needs
        return acquired(gate, timeout)

    def adopt() -> None:
        working.set()
        assert waiting.wait(30)

    closing = threading.Thread(target=spool.close)
    maintaining = threading.Thread(target=spool.maintain)
    monkeypatch.setattr(spool, "_adopt", adopt)
    monkeypatch.setattr(_spool, "acquired", wait_for_work)
    maintaining.start()
    assert working.wait(30)
    closing.start()
    for thread in (closing, maintaining):
        thread.join(20)
    assert not closing.is_alive()
    assert descriptors_below(tmp_path) == []


@pytest.mark.parametrize("due", ["retry", "removed", "early"])
def test_maintenance_does_later_what_it_can_not_do_now(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, due: str, gate_held_elsewhere: Callable[[Any], None]
) -> None:
    """The open gate is not waited for, whatever is due."""
    spool = make(tmp_path, clock)
    spool.maintain()
    for _ in range(4):
        assert spool.append(b"x" * 900_000, NOW_MS) is None
    if due == "removed":
        shutil.rmtree(tmp_path)
    if due == "retry":
        monkeypatch.setattr(os, "pwrite", lambda *_args: 0)
        assert spool.append(body(1), NOW_MS) == "spool_full"
        monkeypatch.undo()
        assert spool.next_maintenance() == clock.now + 0.5
        clock.now += 30
    gate_held_elsewhere(spool._open_gate)
    spool.maintain()
    assert len(drain(spool)) == 4
    assert tools.balanced(spool)


def test_a_read_that_hangs_does_not_hold_up_appends_and_closing(
    tmp_path: Path, clock: Clock, gate_held_elsewhere: Callable[[Any], None]
) -> None:
    """Closing then leaves the descriptors to the end of the process; accepting threads notice nothing."""
    spool = make(tmp_path, clock)
    gate_held_elsewhere(spool._work_gate)
    fill(spool, range(3))
    watch = Stopwatch()
    spool.close()
    assert watch.seconds() < 0.25
    assert spool.counts().unread == 3


def test_a_write_that_hangs_does_not_hold_up_closing(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that waits for the disk keeps its lock and its descriptor; nobody else waits for it at the end."""
    spool = make(tmp_path, clock)
    fill(spool, [1])
    inside, done = threading.Event(), threading.Event()
    real = os.pwrite

    def hang(fd: int, data: bytes, offset: int) -> int:
        inside.set()
        done.wait(30)
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", hang)
    thread = threading.Thread(target=spool.append, args=(body(2), NOW_MS))
    thread.start()
    assert inside.wait(30)
    watch = Stopwatch()
    spool.close()
    assert watch.seconds() < 0.25
    done.set()
    thread.join()
    assert spool.counts().unread == 2
    tools.abandon(spool)
    second = make(tmp_path, clock)
    second.maintain()
    assert drain(second) == [body(1), body(2)]


def test_an_append_that_meets_another_failure_is_refused(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk may fail in another thread between two steps of this one."""
    spool = make(tmp_path, clock)
    real = spool._write

    def write(record: bytes) -> str | None:
        refusal = real(record)
        spool._fail(OSError(errno.EIO, "elsewhere"))
        return refusal

    monkeypatch.setattr(spool, "_write", write)
    assert spool.append(body(1), NOW_MS) == "spool_io"


def test_an_append_that_finds_no_room_twice_is_refused(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may take what was granted; one thread does not try for ever."""
    spool = make(tmp_path, clock)
    monkeypatch.setattr(spool, "_make_room", lambda _size: None)
    assert spool.append(body(1), NOW_MS) == "spool_full"


def test_resolving_inside_a_read_is_passed_over(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a finalizer on the reading thread resolves is sent again after a restart, which is harmless; waiting would not be."""
    spool = make(tmp_path, clock)
    fill(spool, range(2))
    (record,) = spool.read(1, 10**6)
    real = os.pread
    fill(spool, [2])

    def pread(fd: int, size: int, offset: int) -> bytes:
        spool.resolve([record.place])
        return real(fd, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    assert tools.bodies(read_all(spool)) == [body(1), body(2)]


def test_threads_append_while_others_read_and_resolve(tmp_path: Path, clock: Clock) -> None:
    """Nothing is lost or doubled, each thread's order is kept, and the books balance in every snapshot."""
    spool = make(tmp_path, clock, max_bytes=10**9)
    filler = b"x" * 4_000
    writers, each = 4, 1_500
    unbalanced = []

    def write(writer: int) -> None:
        for number in range(each):
            # On a starved machine the thread that opens the next segment may take longer than others wait for it: they ask again.
            while spool.append(b"%d %d %s" % (writer, number, filler), NOW_MS) is not None:
                pass

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(writers)]
    for thread in threads:
        thread.start()
    found: list[bytes] = []
    while len(found) < writers * each and (any(thread.is_alive() for thread in threads) or spool.behind):
        spool.maintain()
        records = spool.read(100, 10**6)
        found += tools.bodies(records)
        spool.resolve([record.place for record in records])
        if not tools.balanced(spool):
            unbalanced.append("books")
    for thread in threads:
        thread.join()
    assert unbalanced == []
    heads = [tuple(map(int, text.split()[:2])) for text in found]
    assert len(set(heads)) == writers * each == len(heads)
    assert all([number for other, number in heads if other == writer] == list(range(each)) for writer in range(writers))


def test_a_child_forgets_the_parent(tmp_path: Path, clock: Clock) -> None:
    """After the fork hook the books are empty, no descriptor is left, and the first append makes another directory."""
    spool = make(tmp_path, clock)
    fill(spool, range(3))
    read_all(spool)
    assert descriptors_below(tmp_path)
    spool.abandon_after_fork()
    assert descriptors_below(tmp_path) == []
    assert spool.counts() == SpoolCounts(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert not spool.behind
    fill(spool, [9])
    assert drain(spool) == [body(9)]
    assert len(list(tmp_path.glob("*/*"))) == 2


def test_starts_counts_the_processes_that_tried(tmp_path: Path, clock: Clock) -> None:
    """A segment that kills every process that sends it can be told from others."""
    for expected in (1, 2, 3):
        spool = make(tmp_path, clock)
        if expected == 1:
            fill(spool, [1])
        spool.maintain()
        assert len(read_all(spool)) == 1
        tools.abandon(spool)
        (path,) = tools.segments(tmp_path)
        assert struct.unpack_from("<H", path.read_bytes(), 20) == (expected,)


def test_no_secret_and_no_address_is_on_disk(tmp_path: Path, clock: Clock) -> None:
    """The name of the directory is a digest; the bytes are those of the event."""
    endpoint, key = "https://example.org/2/httpapi", "0123456789abcdef0123456789abcdef"
    spool = Spool(tmp_path, fingerprint(endpoint, key), min_free=0, wall=clock.wall, clock=clock.monotonic)
    fill(spool, [1])
    everything = "".join(map(str, tmp_path.rglob("*"))).encode() + b"".join(path.read_bytes() for path in tools.segments(tmp_path))
    assert key.encode() not in everything
    assert b"example" not in everything
    assert key not in repr(spool)


def test_a_fingerprint_is_eight_digits(tmp_path: Path) -> None:
    """Nothing else may become part of a path."""
    with pytest.raises(SpoolError, match="8 hexadecimal digits"):
        Spool(tmp_path, "../../etc")


# What stays on disk for now.


def shelve(spool: Spool, records: list[Record], first_order: int = 1) -> None:
    spool.shelve([(record.place, order, 0) for order, record in enumerate(records, first_order)])


def test_what_is_shelved_is_given_again_after_a_revisit(tmp_path: Path) -> None:
    """It is in the books as unread, holds up nothing, and comes back in its order with what was noted of it."""
    spool = make(tmp_path)
    fill(spool, range(6))
    records = spool.read(4, 10**6)
    spool.shelve([(records[1].place, 12, 3), (records[3].place, 14, 70_000)])
    assert (spool.counts().unread, spool.counts().shelved) == (4, 2)
    assert bodies(read_all(spool)) == [body(4), body(5)]
    assert not spool.behind
    assert balanced(spool)
    spool.revisit()
    assert spool.behind
    again = read_all(spool)
    assert [(record.body, record.order, record.attempts) for record in again] == [(body(1), 12, 3), (body(3), 14, 65_535)]
    assert not spool.behind
    assert (spool.counts().unread, spool.counts().shelved) == (0, 0)
    assert balanced(spool)


def test_a_revisit_of_nothing_is_soon_over(tmp_path: Path) -> None:
    """With nothing shelved there is nothing to give."""
    spool = make(tmp_path)
    fill(spool, range(3))
    read_all(spool)
    spool.revisit()
    assert spool.read(10, 10**6) == []
    assert not spool.behind


def test_a_segment_stays_while_one_of_its_events_is_shelved(tmp_path: Path) -> None:
    """Resolved neighbours do not take it along; once it is resolved itself, the file goes."""
    spool = make(tmp_path)
    fill(spool, range(3))
    records = read_all(spool)
    shelve(spool, records[:1])
    spool.resolve([record.place for record in records[1:]])
    spool.close()
    heir = make(tmp_path)
    heir.maintain()
    assert bodies(read_all(heir)) == [body(0), body(1), body(2)]  # those behind it come again: the same insert_id


def test_what_is_shelved_expires_when_it_is_read_again(tmp_path: Path) -> None:
    """Its age is looked at each time."""
    clock = Clock()
    spool = make(tmp_path, clock, max_age=100.0)
    fill(spool, range(2))
    shelve(spool, read_all(spool))
    clock.now += 101.0
    spool.revisit()
    expired: list[Record] = []
    assert spool.read(10, 10**6, expired) == []
    assert [(record.body, record.order) for record in expired] == [(body(0), 1), (body(1), 2)]
    counts = spool.counts()
    assert (counts.expired, counts.shelved, counts.unread) == (2, 0, 0)
    assert not spool.behind


def test_what_was_damaged_on_the_shelf_is_counted(tmp_path: Path) -> None:
    """One damaged record costs itself."""
    spool = make(tmp_path)
    fill(spool, range(4))
    shelve(spool, read_all(spool))
    (file,) = tmp_path.rglob("*.seg")
    data = bytearray(file.read_bytes())
    at = data.index(body(1))
    data[at] ^= 0xFF
    file.write_bytes(data)
    spool.revisit()
    assert bodies(read_all(spool)) == [body(0), body(2), body(3)]
    counts = spool.counts()
    assert (counts.corrupt, counts.shelved, counts.unread) == (1, 0, 0)
    assert not spool.behind
    assert balanced(spool)


def test_a_shelf_that_can_not_be_read_is_given_up_after_three_tries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then it is tried again at each look; what can not be read is counted as damaged."""
    spool = make(tmp_path)
    fill(spool, range(4))
    shelve(spool, read_all(spool))
    spool.revisit()

    def fail(*_args: object) -> bytes:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "pread", fail)
    for _ in range(2):
        assert spool.read(10, 10**6) == []
        assert spool.behind
        assert spool.counts().corrupt == 0
    assert spool.read(10, 10**6) == []
    assert not spool.behind
    assert (spool.counts().corrupt, spool.counts().shelved) == (4, 0)
    assert balanced(spool)


def test_shelved_events_of_any_size_come_back(tmp_path: Path) -> None:
    """Those that do not fit into one piece of a file are read with the next one."""
    spool = make(tmp_path)
    texts = [bytes([65 + number]) * size for number, size in enumerate([10, 600_000, 2**20 - 9, 700_000, 5, 2**20 - 9, 20])]
    for text in texts:
        assert spool.append(text, NOW_MS) is None
    shelve(spool, read_all(spool))
    spool.revisit()
    assert bodies(read_all(spool)) == texts
    assert balanced(spool)


def test_a_tight_disk_is_known_at_the_next_look(tmp_path: Path) -> None:
    """It is looked at when a segment is opened, and every 30 seconds."""
    clock = Clock()
    spool = make(tmp_path, clock, max_bytes=20_000)
    fill(spool, range(1))
    assert not spool.is_tight
    fill(spool, range(400))
    clock.now += 31.0
    spool.maintain()
    assert spool.is_tight
    spool._seal_tail()
    drain(spool)
    assert not list(tmp_path.rglob("*.seg"))
    clock.now += 31.0
    spool.maintain()
    assert not spool.is_tight


def fail_reads(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Let the next so many reads of a file fail, and none after these."""
    real, left = os.pread, iter(range(times))

    def pread(fd: int, size: int, offset: int) -> bytes:
        if next(left, None) is not None:
            raise OSError(errno.EIO, "broken")
        return real(fd, size, offset)

    monkeypatch.setattr(os, "pread", pread)


@pytest.mark.parametrize("shelved", [False, True])
def test_what_can_not_be_read_now_is_not_overtaken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shelved: bool) -> None:
    """Events in later segments wait until the one before them can be read, or is given up."""
    tools.small_segments(monkeypatch)
    spool = make(tmp_path, max_bytes=2**30)
    fill(spool, range(5000))
    assert len(tools.segments(tmp_path)) > 2
    if shelved:
        shelve(spool, read_all(spool))
        spool.revisit()
    fail_reads(monkeypatch, 2)
    assert spool.read(10, 10**6) == []
    assert spool.read(10, 10**6) == []
    assert spool.behind
    assert bodies(read_all(spool)) == [body(number) for number in range(5000)]
    assert not spool.behind


def test_failed_reads_are_forgotten_after_a_good_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only three in a row give a segment up."""
    spool = make(tmp_path)
    fill(spool, range(4))
    shelve(spool, read_all(spool))
    for _ in range(5):
        spool.revisit()
        fail_reads(monkeypatch, 2)
        assert spool.read(10, 10**6) == []
        assert spool.read(10, 10**6) == []
        shelve(spool, read_all(spool))
    assert (spool.counts().corrupt, spool.counts().shelved) == (0, 4)


def test_what_is_shelved_is_read_again_before_anything_new(tmp_path: Path) -> None:
    """Also before what is in memory already, so that a revisit may begin at any time."""
    spool = make(tmp_path)
    fill(spool, range(6))
    shelve(spool, spool.read(2, 10**6))
    assert spool.behind
    spool.revisit()
    assert spool.revisits
    assert bodies(spool.read(1, 10**6)) == [body(0)]
    assert spool.revisits
    assert bodies(spool.read(1, 10**6)) == [body(1)]
    assert not spool.revisits
    spool.revisit()
    assert bodies(read_all(spool)) == [body(number) for number in range(2, 6)]


def test_what_was_adopted_ages_by_the_clock_that_nobody_sets(tmp_path: Path) -> None:
    """A clock that is set between two looks expires nothing, and keeps nothing for longer."""
    dead = make(tmp_path, Clock())
    fill(dead, range(4))
    tools.abandon(dead)
    clock = Clock()
    spool = make(tmp_path, clock, max_age=1000.0)
    spool.maintain()
    shelve(spool, spool.read(2, 10**6))
    clock.wall_offset += 3 * 86_400
    spool.revisit()
    assert bodies(spool.read(4, 10**6)) == [body(number) for number in range(4)]
    assert spool.counts().expired == 0
