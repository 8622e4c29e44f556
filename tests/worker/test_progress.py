"""Which offsets may be committed: decided without Kafka."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from otel_amplitude.worker.progress import SHARE, Assignment, Commit, Progress

TOPIC = "t"


def test_nothing_is_committed_before_a_record_was_taken() -> None:
    """An assignment alone says nothing."""
    progress = Progress(10, 1_000)
    progress.assign(TOPIC, 0, None)
    progress.assign(TOPIC, 1, 7)
    assert progress.commits() == []


def test_the_first_unsettled_record_holds_the_commit() -> None:
    """However many behind it are settled."""
    progress = Progress(10, 1_000)
    one = progress.assign(TOPIC, 0, None)
    for offset in (5, 6, 7):
        progress.take(one, offset, 1)
    for offset in (5, 7):
        progress.settle(one, offset)
    assert progress.commits() == [Commit(TOPIC, 0, 6)]
    progress.settle(one, 6)
    assert progress.commits() == [Commit(TOPIC, 0, 8)]


def test_what_is_committed_is_not_committed_again() -> None:
    """Until there is something new."""
    progress = Progress(10, 1_000)
    one = progress.assign(TOPIC, 0, 3)
    progress.take(one, 3, 1)
    assert progress.commits() == []
    progress.settle(one, 3)
    (commit,) = progress.commits()
    progress.committed(commit)
    assert progress.commits() == []


def test_a_record_of_several_parts_is_settled_with_the_last_one() -> None:
    """Whichever that is."""
    progress = Progress(10, 1_000)
    one = progress.assign(TOPIC, 0, None)
    progress.take(one, 0, 9)
    one.add_part(0)
    one.add_part(0)
    assert [progress.settle(one, 0) for _ in range(4)] == [False, False, True, False]
    assert (progress.events, progress.size) == (0, 0)


def test_what_is_settled_after_a_release_changes_nothing() -> None:
    """The next owner has it."""
    progress = Progress(10, 1_000)
    old = progress.assign(TOPIC, 0, None)
    progress.take(old, 4, 1)
    progress.release(TOPIC, 0)
    new = progress.assign(TOPIC, 0, 4)
    progress.take(new, 4, 1)
    assert not progress.settle(old, 4)
    assert progress.commits() == []
    assert progress.events == 1


def test_a_partition_with_its_share_rests_alone() -> None:
    """The others are read on; it goes on below half of that."""
    progress = Progress(100, 10_000)
    held, other = progress.assign(TOPIC, 0, None), progress.assign(TOPIC, 1, None)
    for offset in range(100 // SHARE + 1):
        progress.take(held, offset, 1)
    progress.take(other, 0, 1)
    assert progress.rests() == ([held], [])
    for offset in range(13):
        progress.settle(held, offset)
    assert progress.rests() == ([], [])
    progress.settle(held, 13)
    assert progress.rests() == ([], [held])


def test_above_the_bound_every_partition_rests() -> None:
    """Also one that was assigned meanwhile; all go on below half of the bound."""
    progress = Progress(8, 10_000)
    parts = [progress.assign(TOPIC, number, None) for number in range(5)]
    for part in parts[:4]:
        progress.take(part, 0, 1)
        progress.take(part, 1, 1)
    assert progress.rests() == ([], [])
    progress.take(parts[4], 0, 1)
    assert progress.rests() == (parts, [])
    late = progress.assign(TOPIC, 5, None)
    assert progress.rests() == ([late], [])
    for part in parts[:4]:
        progress.settle(part, 0)
        progress.settle(part, 1)
    pause, resume = progress.rests()
    assert (pause, set(resume)) == ([], {*parts, late})


@pytest.mark.parametrize("size", [1_000, 251])
def test_bytes_count_as_records_do(size: int) -> None:
    """A few large records fill a partition as well."""
    progress = Progress(1_000, 1_000)
    one = progress.assign(TOPIC, 0, None)
    progress.take(one, 0, size)
    assert progress.rests() == ([one], [])


class Histories(RuleBasedStateMachine):
    """Assign, take, settle, commit, crash and release in any order: what is committed lies behind nothing that is unsettled."""

    @initialize(max_events=st.integers(2, 40))
    def begin(self, max_events: int) -> None:
        self.max_events = max_events
        self.progress = Progress(max_events, 10**9)
        self.next: dict[int, int] = {}  # what the broker gives next
        self.known: dict[int, int] = {}  # what the group has committed
        self.settled: set[tuple[int, int]] = set()  # at the destination, for ever
        self.owned: dict[int, Assignment] = {}
        self.parts: dict[tuple[Assignment, int], int] = {}
        self.ghosts: list[tuple[Assignment, int]] = []

    @rule(partition=st.integers(0, 2))
    def assign(self, partition: int) -> None:
        if partition not in self.owned:
            self.owned[partition] = self.progress.assign(TOPIC, partition, self.known.get(partition))
            self.next[partition] = self.known.get(partition, 100 if partition == 1 else 0)

    @precondition(lambda self: self.owned)
    @rule(data=st.data(), gap=st.integers(0, 2), parts=st.integers(1, 3))
    def take(self, data: st.DataObject, gap: int, parts: int) -> None:
        partition = data.draw(st.sampled_from(sorted(self.owned)))
        one, offset = self.owned[partition], self.next[partition]
        if one.is_paused:
            return
        # An offset that does not exist is skipped: nothing is to be settled for it.
        self.settled |= {(partition, missing) for missing in range(offset, offset + gap)}
        self.progress.take(one, offset + gap, 1)
        for _ in range(parts - 1):
            one.add_part(offset + gap)
        self.parts[one, offset + gap] = parts
        self.next[partition] = offset + gap + 1

    @precondition(lambda self: self.parts)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        one, offset = data.draw(st.sampled_from(sorted(self.parts, key=lambda key: (key[0].partition, key[1]))))
        left = self.parts[one, offset] = self.parts[one, offset] - 1
        done = self.progress.settle(one, offset)
        assert done == (left == 0)
        if not left:
            del self.parts[one, offset]
            self.settled.add((one.partition, offset))

    @precondition(lambda self: self.ghosts)
    @rule(data=st.data())
    def settle_what_was_released(self, data: st.DataObject) -> None:
        one, offset = data.draw(st.sampled_from(self.ghosts))
        assert not self.progress.settle(one, offset)

    @rule()
    def commit(self) -> None:
        for commit in self.progress.commits():
            self.known[commit.partition] = commit.offset
            self.progress.committed(commit)
        assert self.progress.commits() == []

    @precondition(lambda self: self.owned)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        partition = data.draw(st.sampled_from(sorted(self.owned)))
        one = self.owned.pop(partition)
        assert self.progress.release(TOPIC, partition) is one
        gone = [key for key in self.parts if key[0] is one]
        self.ghosts += gone
        for key in gone:
            del self.parts[key]

    @rule()
    def rest(self) -> None:
        pause, resume = self.progress.rests()
        assert not set(pause) & set(resume)
        assert self.progress.rests() == ([], [])
        if self.progress.events > self.max_events:
            assert all(one.is_paused for one in self.owned.values())
        if not self.progress.events:
            assert not any(one.is_paused for one in self.owned.values())

    @invariant()
    def what_is_committed_is_settled(self) -> None:
        for partition, offset in getattr(self, "known", {}).items():
            first = 100 if partition == 1 else 0
            assert all((partition, other) in self.settled for other in range(first, offset))

    @invariant()
    def what_is_pending_is_counted(self) -> None:
        if hasattr(self, "progress"):
            assert self.progress.events == self.progress.size == sum(len(one.open) for one in self.owned.values())
            assert self.progress.events == len(self.parts)


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=30)
