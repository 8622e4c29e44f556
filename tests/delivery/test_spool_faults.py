"""Every system call of the spool fails once: nothing raised, nothing accepted lost, nothing leaked."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import spool_tools as tools
from delivery.descriptors import descriptors_below
from spool_tools import NOW_MS, Clock, Faults, Store, body, make

from otel_amplitude.errors import SpoolError

NUMBERS = (errno.EIO, errno.ENOSPC, errno.EROFS, errno.EMFILE, errno.EACCES)
LARGE = b'"' + b"x" * 14_000 + b'"'


def _life(dead: Store, spool: Store, clock: Clock) -> tuple[set[bytes], set[bytes]]:
    """A dead process's spool and ours: append, rotate, sync, adopt, read, resolve, retry; what was accepted, and what came back."""
    accepted: set[bytes] = set()
    settled: set[bytes] = set()

    def append(number: int, filler: bytes = b"") -> None:
        for one in (dead, spool):
            text = body(number + 1_000 * (one is dead)) + (filler if one is spool else b"")
            if one.append(text, NOW_MS) is None:
                accepted.add(text)

    for number in range(3):
        append(number)
    clock.now += 0.5
    for one in (dead, spool):
        one.maintain()
    for number in range(3, 8):
        append(number, LARGE)
    tools.abandon(dead)
    for number in range(8, 10):
        for _ in range(2):
            clock.now += 30
            spool.maintain()
            records = spool.read(4, 10**7)
            settled.update(record.body for record in records)
            spool.resolve([record.place for record in records])
            assert tools.balanced(spool)
        text = body(number)
        if spool.append(text, NOW_MS) is None:
            accepted.add(text)
    assert spool.counts().corrupt == 0
    spool.close()
    return accepted, settled


@pytest.mark.timeout(240)  # hundreds of lives
@pytest.mark.parametrize("number", NUMBERS, ids=errno.errorcode.get)
def test_every_system_call_may_fail_once(tmp_path: Path, number: int) -> None:
    """What was accepted is delivered by this process or the next one, whichever call failed."""
    seen = set()
    for fail_at in range(1, 10_000):
        root = tmp_path / str(fail_at)
        clock = Clock()
        dead, spool = make(root, clock), make(root, clock)
        with pytest.MonkeyPatch.context() as patch:
            tools.small_segments(patch)
            faults = Faults(patch, fail_at, number)
            accepted, settled = _life(dead, spool, clock)
        assert descriptors_below(root) == [], faults.happened
        heir = make(root, clock)
        for _ in range(2):
            heir.maintain()
            settled.update(tools.drain(heir))
            clock.now += 30
        assert accepted <= settled, (fail_at, faults.happened)
        assert all(text.startswith(b'{"insert_id":') for text in settled)
        assert heir.counts().corrupt == 0, (fail_at, faults.happened)
        heir.close()
        if not faults.happened:
            break
        seen.add(faults.happened)
    assert seen >= {"pwrite", "pread", "open", "unlink", "fsync", "flock", "mkdir"}


def test_a_failure_at_the_start_is_said_in_our_words(tmp_path: Path) -> None:
    """The constructor raises a SpoolError and nothing else, whichever call fails."""
    (tmp_path / "there").mkdir(0o700)
    for name in ("there", "missing"):
        raised = 0
        for fail_at in range(1, 20):
            with pytest.MonkeyPatch.context() as patch:
                faults = Faults(patch, fail_at, errno.EIO)
                try:
                    make(tmp_path / name)
                except SpoolError as error:
                    raised += 1
                    assert "spool_dir" in str(error)
            if not faults.happened:
                break
        assert raised >= 1
