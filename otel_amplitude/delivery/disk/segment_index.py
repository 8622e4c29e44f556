"""What became of each record of one segment, in a few bytes each: a backlog of many thousands may lie behind one that waits."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from typing import Final, NamedTuple

_READ: Final = 0
_RESOLVED: Final = 1
_SHELVED: Final = 2
_MOST_ATTEMPTS: Final = 0xFFFF


class Shelved(NamedTuple):
    """A record that was read once and left on disk: where it starts, its number in the order of acceptance, and the attempts charged to it."""

    start: int
    order: int
    attempts: int


class SegmentIndex:
    """The records of a segment that were read, by where they start."""

    __slots__ = ("_attempts", "_head", "_orders", "_starts", "_states")

    def __init__(self) -> None:
        self._starts = array("I")
        self._orders = array("Q")
        self._attempts = array("H")
        self._states = bytearray()
        self._head = 0

    def add(self, starts: Iterable[int]) -> None:
        """Note records that were read, in the order in which they lie."""
        before = len(self._starts)
        self._starts.extend(starts)
        added = len(self._starts) - before
        self._states.extend(bytes(added))
        self._orders.frombytes(bytes(added * self._orders.itemsize))
        self._attempts.frombytes(bytes(added * self._attempts.itemsize))

    def resolve(self, start: int) -> None:
        """Note that a record met its end; one that was never read is passed over."""
        at = self._at(start)
        if at is not None:
            self._states[at] = _RESOLVED

    def shelve(self, record: Shelved) -> None:
        """Note that a record that was read stays on disk, and is to be read again."""
        at = self._at(record.start)
        if at is not None:
            self._orders[at] = record.order
            self._attempts[at] = min(record.attempts, _MOST_ATTEMPTS)
            self._states[at] = _SHELVED

    def take(self, start: int) -> None:
        """Note that a shelved record was read again."""
        at = self._at(start)
        if at is not None:
            self._states[at] = _READ

    def first_shelved(self, start: int) -> Shelved | None:
        """Give the first shelved record at or behind `start`."""
        at = self._states.find(_SHELVED, bisect_left(self._starts, start))
        return None if at < 0 else Shelved(self._starts[at], self._orders[at], self._attempts[at])

    def first_unresolved(self) -> int | None:
        """Give where the first record starts that has not met its end; None: all that were read have."""
        states = self._states
        while self._head < len(states) and states[self._head] == _RESOLVED:
            self._head += 1
        return self._starts[self._head] if self._head < len(states) else None

    def _at(self, start: int) -> int | None:
        at = bisect_left(self._starts, start)
        return at if at < len(self._starts) and self._starts[at] == start else None
