"""The spool: gives back what it took, keeps its caps, degrades and recovers."""

from __future__ import annotations

import errno
import os
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import spool_tools as tools
from delivery.descriptors import descriptors_below
from spool_tools import NOW_MS, Clock, Counts, bodies, body, drain, fill, make, read_all

from otel_amplitude.delivery.disk import format as layout
from otel_amplitude.delivery.disk.spool import fingerprint
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
    assert spool.counts() == Counts(50, 0, 50, 0, 0, 0, 0, 0, 0)


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
    assert second.counts() == Counts(1, 6, 7, 0, 0, 0, 0, 0, 0)
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
    other = make(tmp_path, clock, fingerprint=fingerprint("https://other", "key"))
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
    other = make(tmp_path, clock, fingerprint=fingerprint("https://other", "key"))
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
    assert second.counts() == Counts(0, 10, 9, 0, 1, 0, 0, 0, 0)
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
    assert spool.counts() == Counts(10, 0, 8, 0, 2, 0, 0, 0, 0)
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
    assert second.counts() == Counts(0, 3, 0, 3, 0, 0, 0, 0, 0)
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
    assert ("spool.full", {"reason": "cap", "retry_seconds": 1.0}) in spool.maintain()
    assert len(drain(spool)) == taken
    clock.now += 1.0
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
    assert spool.maintain()[-1][0] == "spool.full"
    clock.now += 1.0
    spool.maintain()
    assert spool.append(body(1), NOW_MS) == "spool_full"


def test_a_record_that_could_not_be_read_back_is_not_written(tmp_path: Path, clock: Clock) -> None:
    """Over a mebibyte it would be called damage later."""
    assert make(tmp_path, clock).append(b"x" * (2**20 + 1), NOW_MS) == "too_large"


@pytest.mark.parametrize(
    ("number", "refusal"), [(errno.ENOSPC, "spool_full"), (errno.EDQUOT, "spool_full"), (errno.EIO, "spool_io"), (errno.EROFS, "spool_io")]
)
def test_a_failing_disk_degrades_and_is_tried_again(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, number: int, refusal: str
) -> None:
    """One failure seals the segment, and files are left alone for a second; what was written before is kept; then it works again."""
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
    assert ("spool.full", {"reason": errno.errorcode[number], "retry_seconds": 1.0}) in notices
    monkeypatch.undo()
    clock.now += 0.9
    spool.maintain()
    assert spool.append(body(3), NOW_MS) == refusal
    clock.now += 0.1
    spool.maintain()
    fill(spool, [4])
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


def test_a_disk_that_stays_broken_is_tried_less_and_less_often(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 1, 2, 4 … 30 seconds; trying again raises nothing, and is reported once."""
    spool = make(tmp_path, clock)
    spool.maintain()
    tries: list[float] = []

    def fail(*_args: Any, **_kwargs: Any) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        patch.setattr(os, "mkdir", lambda *_args, **_kwargs: tries.append(clock.now) or fail())
        assert spool.append(body(1), NOW_MS) == "spool_io"
        notices = spool.maintain()
        began = clock.now
        for _ in range(130):
            clock.now += 1.0
            notices += spool.maintain()
    assert [at - began for at in tries[1:]] == [1.0, 3.0, 7.0, 15.0, 31.0, 61.0, 91.0, 121.0]
    assert [event for event, _ in notices] == ["spool.full"]
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
    fail_reads(monkeypatch, 2)  # the first read looks at the header, the second one takes the segment over
    second.maintain()
    assert not second.complete
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
    clock.now += 0.5
    second.maintain()
    assert not list(tmp_path.glob("*/*"))


def test_after_close_nothing_is_taken_and_nothing_raised(tmp_path: Path, clock: Clock) -> None:
    """Late threads meet a closed spool; what is left belongs to a sibling."""
    spool = make(tmp_path, clock)
    fill(spool, range(4))
    (record, *_rest) = spool.read(2, 10**6)
    spool.close()
    spool.close()
    assert spool.append(body(9), NOW_MS) == "closed"
    assert spool.maintain() == []
    spool.reader.resolve(record.place)
    second = make(tmp_path, clock)
    second.maintain()
    assert len(drain(second)) == 4


def test_many_dead_directories_are_adopted_at_once(tmp_path: Path, clock: Clock) -> None:
    """A crash loop leaves hundreds: all of them are taken over at the first look, and their segments need no descriptors."""
    for number in range(40):
        spool = make(tmp_path, clock)
        fill(spool, [number])
        tools.abandon(spool)
    survivor = make(tmp_path, clock)
    survivor.maintain()
    assert len(descriptors_below(tmp_path)) <= 3 * 40
    assert sorted(drain(survivor)) == sorted(body(number) for number in range(40))
    assert not list(tmp_path.glob("*/*"))
    assert len(descriptors_below(tmp_path)) <= 4


def test_a_child_forgets_the_parent(tmp_path: Path, clock: Clock) -> None:
    """After the fork hook the books are empty, no descriptor is left, and the first append makes another directory."""
    spool = make(tmp_path, clock)
    fill(spool, range(3))
    read_all(spool)
    assert descriptors_below(tmp_path)
    spool.abandon_after_fork()
    assert descriptors_below(tmp_path) == []
    assert spool.counts() == Counts(0, 0, 0, 0, 0, 0, 0, 0, 0)
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
    spool = make(tmp_path, clock, fingerprint=fingerprint(endpoint, key))
    fill(spool, [1])
    everything = "".join(map(str, tmp_path.rglob("*"))).encode() + b"".join(path.read_bytes() for path in tools.segments(tmp_path))
    assert key.encode() not in everything
    assert b"example" not in everything
    assert key not in repr(spool.spool)


def test_a_fingerprint_is_eight_digits(tmp_path: Path) -> None:
    """Nothing else may become part of a path."""
    with pytest.raises(SpoolError, match="8 hexadecimal digits"):
        make(tmp_path, fingerprint="../../etc")


def fail_reads(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Let the next so many reads of a file fail, and none after these."""
    real, left = os.pread, iter(range(times))

    def pread(fd: int, size: int, offset: int) -> bytes:
        if next(left, None) is not None:
            raise OSError(errno.EIO, "broken")
        return real(fd, size, offset)

    monkeypatch.setattr(os, "pread", pread)


def test_what_can_not_be_read_now_is_not_overtaken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events in later segments wait until the one before them can be read, or is given up."""
    tools.small_segments(monkeypatch)
    spool = make(tmp_path, max_bytes=2**30)
    fill(spool, range(5000))
    assert len(tools.segments(tmp_path)) > 2
    fail_reads(monkeypatch, 2)
    assert spool.read(10, 10**6) == []
    assert spool.read(10, 10**6) == []
    assert spool.behind
    assert bodies(read_all(spool)) == [body(number) for number in range(5000)]
