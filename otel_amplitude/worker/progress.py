"""Which offsets may be committed, and which partitions rest. Pure: no Kafka, no clock, no thread; the loop brings what happened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

# One partition may hold this part of what may be pending.
SHARE: Final = 4


class Commit(NamedTuple):
    """An offset that may be committed: everything before it is settled."""

    topic: str
    partition: int
    offset: int


class Assignment:
    """One assignment of one partition to this worker, from `assign` to `release`.

    Attributes:
        topic, partition: which.
        position: the offset behind the last record taken; before the first one, what the group had committed; None: not known.
        open: offset → bytes of the record, of what was taken and is not settled; in order.
        size: the sum of these bytes.
        committed: the offset that the group has; without one, that of the first record, since nothing before it is of this assignment.
        is_paused: whether it rests.
        is_released: it was revoked or lost.
    """

    __slots__ = ("_more", "committed", "is_paused", "is_released", "open", "partition", "position", "size", "topic")

    def __init__(self, topic: str, partition: int, committed: int | None) -> None:
        self.topic = topic
        self.partition = partition
        self.position = committed
        self.committed = committed
        self.open: dict[int, int] = {}
        self.size = 0
        self.is_paused = False
        self.is_released = False
        self._more: dict[int, int] = {}

    @property
    def to_commit(self) -> int | None:
        """The offset that may be committed; None: nothing is known yet."""
        return next(iter(self.open), self.position)

    def add_part(self, offset: int) -> None:
        """One more part of a record that was taken must be settled."""
        self._more[offset] = self._more.get(offset, 0) + 1

    def settle_part(self, offset: int) -> bool:
        """One part of a record is settled; whether all of the record is."""
        more = self._more.get(offset, 0) if self._more else 0
        if more:
            if more == 1:
                del self._more[offset]
            else:
                self._more[offset] = more - 1
            return False
        return offset in self.open


class Progress:
    """All assignments of one worker, and the bounds of what may be pending.

    Attributes:
        assignments: those that are assigned now.
        events: how many records are taken and not settled.
        size: bytes of their values.
    """

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._is_full = False
        self.assignments: dict[tuple[str, int], Assignment] = {}
        self.events = 0
        self.size = 0

    # Assignments

    def assign(self, topic: str, partition: int, committed: int | None) -> Assignment:
        """A partition was assigned; `committed` is the group's offset, or None. One that was assigned already begins anew."""
        self.release(topic, partition)
        assignment = self.assignments[topic, partition] = Assignment(topic, partition, committed)
        return assignment

    def release(self, topic: str, partition: int) -> Assignment | None:
        """A partition was revoked or lost: what it still has is pending here no longer."""
        assignment = self.assignments.pop((topic, partition), None)
        if assignment is not None:
            assignment.is_released = True
            self.events -= len(assignment.open)
            self.size -= assignment.size
        return assignment

    # Records

    def take(self, assignment: Assignment, offset: int, size: int) -> None:
        """A record was read: it is pending until it is settled. Offsets of one assignment only grow."""
        assignment.open[offset] = size
        assignment.position = offset + 1
        if assignment.committed is None:
            assignment.committed = offset
        assignment.size += size
        self.events += 1
        self.size += size

    def settle(self, assignment: Assignment, offset: int) -> bool:
        """A record, or one part of it, is settled; whether all of it is now, and the partition is still assigned."""
        if assignment.is_released or not assignment.settle_part(offset):
            return False
        size = assignment.open.pop(offset)
        assignment.size -= size
        self.events -= 1
        self.size -= size
        return True

    # Decisions

    def commits(self, among: Iterable[Assignment] | None = None) -> list[Commit]:
        """Give what may be committed and was not committed yet."""
        chosen = self.assignments.values() if among is None else among
        return [
            Commit(one.topic, one.partition, one.to_commit)
            for one in chosen
            if one.to_commit is not None and one.to_commit != one.committed
        ]

    def committed(self, commit: Commit) -> None:
        """The brokers have an offset."""
        assignment = self.assignments.get((commit.topic, commit.partition))
        if assignment is not None:
            assignment.committed = commit.offset

    def rests(self) -> tuple[list[Assignment], list[Assignment]]:
        """Give which partitions are to be paused now, and which to be resumed; they are noted as such."""
        limit = 0.5 if self._is_full else 1.0
        self._is_full = self.events > self._max_events * limit or self.size > self._max_bytes * limit
        changed = [one for one in self.assignments.values() if one.is_paused != (self._is_full or self._is_full_alone(one))]
        for one in changed:
            one.is_paused = not one.is_paused
        return [one for one in changed if one.is_paused], [one for one in changed if not one.is_paused]

    def _is_full_alone(self, assignment: Assignment) -> bool:
        limit = 0.5 / SHARE if assignment.is_paused else 1 / SHARE
        return len(assignment.open) > self._max_events * limit or assignment.size > self._max_bytes * limit

    @property
    def paused(self) -> int:
        """How many partitions rest."""
        return sum(one.is_paused for one in self.assignments.values())

    def __iter__(self) -> Iterator[Assignment]:
        return iter(list(self.assignments.values()))
