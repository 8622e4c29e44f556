"""Any history of appends, resolutions, rotations, crashes, adoptions and full disks, against a small model."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import spool_tools as tools
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spool_tools import NOW_MS, Clock, Record, Store, body, make

from otel_amplitude.delivery.disk import format as layout

FILLERS = (0, 0, 100, 9_000, 30_000)
STEPS = (
    *("append",) * 6, *("read",) * 3, *("resolve",) * 3, *("maintain",) * 2,
    "crash", "close", "fill_disk", "free_disk", "sibling",
)  # fmt: skip
HISTORIES = 10_000

real_pwrite = os.pwrite


class World:
    """One spool directory, the process that uses it now, and what must be true of it."""

    def __init__(self, root: Path, chance: random.Random) -> None:
        self.root = root
        self.chance = chance
        self.clock = Clock()
        self.number = 0
        self.alive: set[bytes] = set()  # accepted, not resolved: must be handed out, now or after a crash
        self.possible: set[bytes] = set()  # resolved or never accepted: may still come back after a crash
        self.handed: set[bytes] = set()  # by this process: never twice
        self.unresolved: list[Record] = []
        self.disk_full = False
        self.trouble = False  # the disk was full since the last successful retry
        self.spool: Store = make(root, self.clock)

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        if not self.disk_full:
            return real_pwrite(fd, data, offset)
        self.trouble = True
        if self.chance.random() < 0.5:
            raise OSError(errno.ENOSPC, "full")
        return real_pwrite(fd, data[: self.chance.randrange(len(data))], offset)

    def text(self) -> bytes:
        self.number += 1
        return body(self.number) + b"x" * self.chance.choice(FILLERS)

    def step(self, name: str) -> None:
        getattr(self, name)()
        counts = self.spool.counts()
        assert tools.balanced(self.spool)
        assert counts.corrupt == counts.expired == counts.foreign == counts.quarantined == 0
        assert counts.read == len(self.handed)

    def append(self) -> None:
        text = self.text()
        refusal = self.spool.append(text, NOW_MS)
        assert refusal is None or (refusal == "spool_full" and self.trouble)
        (self.possible if refusal else self.alive).add(text)

    def read(self) -> None:
        for record in self.spool.read(self.chance.randint(1, 8), 10**6):
            assert record.body not in self.handed
            assert record.body in self.alive or record.body in self.possible
            self.handed.add(record.body)
            self.unresolved.append(record)

    def resolve(self) -> None:
        self.chance.shuffle(self.unresolved)
        count = self.chance.randint(0, len(self.unresolved))
        done, self.unresolved = self.unresolved[:count], self.unresolved[count:]
        self.spool.resolve([record.place for record in done])
        bodies = set(tools.bodies(done))
        self.alive -= bodies
        self.possible |= bodies

    def maintain(self) -> None:
        waited = self.chance.choice((0.1, 0.5, 30.0))
        self.clock.now += waited
        self.spool.maintain()
        self.trouble = self.trouble and (self.disk_full or waited < 30)

    def fill_disk(self) -> None:
        self.disk_full = True

    def free_disk(self) -> None:
        self.disk_full = False

    def crash(self) -> None:
        """SIGKILL inside a write: the file ends at any byte behind the last write that returned."""
        text = self.text()
        tail = self.spool.tail
        if tail is not None:
            record = layout.write_record(text, NOW_MS)
            real_pwrite(tail._fd, record[: self.chance.randint(0, len(record))], tail.size)
            self.possible.add(text)
        tools.abandon(self.spool)
        self.restart()

    def close(self) -> None:
        self.spool.close()
        self.restart()

    def restart(self) -> None:
        self.handed.clear()
        self.unresolved.clear()
        self.trouble = False
        self.spool = make(self.root, self.clock)

    def sibling(self) -> None:
        """Another process of the same service comes and goes."""
        other = make(self.root, self.clock)
        for _ in range(self.chance.randint(0, 3)):
            text = self.text()
            (self.possible if other.append(text, NOW_MS) else self.alive).add(text)
        (other.close if self.chance.random() < 0.5 else lambda: tools.abandon(other))()

    def end(self) -> None:
        """The next process finds everything that was accepted and not resolved, nothing else, and leaves nothing behind."""
        self.free_disk()
        self.crash()
        found: set[bytes] = set()
        for _ in range(4):
            self.spool.maintain()
            found.update(tools.drain(self.spool))
            self.clock.now += 30
        assert found >= self.alive
        assert found <= self.alive | self.possible
        self.spool.close()
        assert not list(self.root.glob("*/*"))


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as context:
        tools.small_segments(context)
        yield context


def play(root: Path, patch: pytest.MonkeyPatch, steps: Sequence[str], seed: int) -> None:
    shutil.rmtree(root, ignore_errors=True)
    world = World(root, random.Random(seed))
    patch.setattr(os, "pwrite", world.pwrite)
    patch.setattr(os, "fsync", lambda _: None)  # no history has a power cut, and a busy disk takes most of the time for it
    for name in steps:
        world.step(name)
    world.end()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(steps=st.lists(st.sampled_from(STEPS), max_size=60), seed=st.integers(0, 2**16))
def test_any_history_gives_back_what_was_accepted(tmp_path: Path, patch: pytest.MonkeyPatch, steps: list[str], seed: int) -> None:
    """Nothing accepted is lost, nothing is handed out twice by one process, nothing is found that was not written."""
    play(tmp_path / "spool", patch, steps, seed)


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_ten_thousand_histories(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    """The same for many more histories, each known by its number."""
    for seed in range(HISTORIES):
        steps = random.Random(seed).choices(STEPS, k=20)
        try:
            play(tmp_path / "spool", patch, steps, seed)
        except AssertionError as error:
            raise AssertionError(f"history {seed}: {steps}") from error
