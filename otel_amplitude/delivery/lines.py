"""Which event may be sent next: the one rule for order. Pure: no clock, no thread, no bytes.

An event may enter a request when none of its ids is held and every earlier unsettled event of each of its ids is in the same
request, before it. So no id is ever in two requests at once.

Only events that were *passed over* are known here: read, but not sendable. Each stands in the line of each of its ids. A line
is in the order of acceptance, so an event is next when it is first in all of its lines, and none of its ids is held or in flight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush

# One event in line: its number, its ids, its size in bytes.
Entry = tuple[int, tuple[str, ...], int]


class _Line:
    """The events that wait for one id, by number, and their bytes."""

    __slots__ = ("numbers", "size")

    def __init__(self) -> None:
        self.numbers: deque[int] = deque()
        self.size = 0


class Lines:
    """The events that were passed over, and the ids that they wait for.

    Attributes:
        holds: the ids that rest, each with the moment at which its hold ends.
        crowded: the ids whose lines take more than `share_events` events or `share_bytes` bytes.
    """

    def __init__(self, share_events: int, share_bytes: int) -> None:
        self.holds: dict[str, float] = {}
        self.crowded: set[str] = set()
        self._share_events = share_events
        self._share_bytes = share_bytes
        self._lines: dict[str, _Line] = {}
        self._entries: dict[int, tuple[tuple[str, ...], int]] = {}
        self._busy: set[str] = set()
        self._ends: list[tuple[float, str]] = []
        self._ready: list[int] = []
        self._held: set[int] = set()

    @property
    def held(self) -> int:
        """How many events have an id that is held."""
        return len(self._held)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, number: object) -> bool:
        return number in self._entries

    def blocks(self, ids: Iterable[str]) -> bool:
        """Whether an event that was just read has to wait: one of its ids is held, in flight, or has a line."""
        return any(name in self._busy or name in self._lines or name in self.holds for name in ids)

    def pass_over(self, number: int, ids: tuple[str, ...], size: int) -> None:
        """Put an event last in the lines of its ids."""
        self._entries[number] = (ids, size)
        for name in set(ids):
            line = self._lines.get(name) or self._new_line(name)
            line.numbers.append(number)
            self._grew(name, line, size)
        self._note_hold(number, ids)

    def _new_line(self, name: str) -> _Line:
        line = self._lines[name] = _Line()
        return line

    def _note_hold(self, number: int, ids: tuple[str, ...]) -> None:
        if self.holds and any(name in self.holds for name in ids):
            self._held.add(number)
        else:
            self._held.discard(number)

    def _grew(self, name: str, line: _Line, size: int) -> None:
        line.size += size
        if len(line.numbers) >= self._share_events or line.size >= self._share_bytes:
            self.crowded.add(name)

    def _shrank(self, name: str, line: _Line, size: int) -> None:
        line.size -= size
        if len(line.numbers) < self._share_events and line.size < self._share_bytes:
            self.crowded.discard(name)

    def peek(self) -> int | None:
        """Give the lowest number that may be sent now, or None."""
        while self._ready:
            if self._may_go(self._ready[0]):
                return self._ready[0]
            heappop(self._ready)
        return None

    def take(self, number: int) -> None:
        """Take the event that `peek` gave out of its lines: it goes into the request that is being put together."""
        heappop(self._ready)
        self.drop(number)

    def drop(self, number: int) -> None:
        """Forget an event, wherever it stands: it is taken, or came to its end."""
        entry = self._entries.pop(number, None)
        if entry is not None:
            ids, size = entry
            self._held.discard(number)
            for name in set(ids):
                line = self._lines[name]
                if line.numbers[0] == number:
                    line.numbers.popleft()
                else:
                    line.numbers.remove(number)
                self._shrank(name, line, size)
                self._look(name)

    def is_waiting(self, number: int) -> bool:
        """Whether an event is in line and no id of it is held: it will be wanted soon."""
        return number in self._entries and number not in self._held

    def again(self, number: int) -> None:
        """Look at an event once more that was not taken although it was next, since its bytes were not in memory."""
        if self._may_go(number):
            heappush(self._ready, number)

    def postpone(self) -> None:
        """Pass over the event that `peek` gave, until `again`."""
        number = heappop(self._ready)
        while self._ready and self._ready[0] == number:  # several changes have made it the next one
            heappop(self._ready)

    def depart(self, ids: Iterable[str]) -> None:
        """A request with these ids is in flight from now on."""
        self._busy.update(ids)

    def back(self, ids: Iterable[str], again: Sequence[Entry]) -> None:
        """A request is back; `again`, in order, are those of its events that are to be sent once more: they stand first."""
        for number, names, size in reversed(again):
            self._entries[number] = (names, size)
            for name in set(names):
                line = self._lines.get(name) or self._new_line(name)
                line.numbers.appendleft(number)
                self._grew(name, line, size)
            self._note_hold(number, names)
        ids = list(ids)
        self._busy.difference_update(ids)
        for name in ids:
            self._look(name)

    def hold(self, name: str, until: float) -> None:
        """Let an id rest until a moment."""
        if until > self.holds.get(name, float("-inf")):
            self.holds[name] = until
            heappush(self._ends, (until, name))
            if name in self._lines:
                self._held.update(number for number in self._lines[name].numbers)

    def release(self, now: float) -> None:
        """End the holds whose time is over."""
        while self._ends and self._ends[0][0] <= now:
            until, name = heappop(self._ends)
            if self.holds.get(name) == until:
                del self.holds[name]
                for number in self._lines[name].numbers if name in self._lines else ():
                    self._note_hold(number, self._entries[number][0])
                self._look(name)

    @property
    def next_release(self) -> float | None:
        """When the first hold ends, or None."""
        return self._ends[0][0] if self._ends else None

    def numbers(self) -> list[int]:
        """Give the numbers of all events in line, in order."""
        return sorted(self._entries)

    def _look(self, name: str) -> None:
        """See whether the first event in the line of `name` may go now."""
        line = self._lines.get(name)
        if line is None:
            return
        if not line.numbers:
            del self._lines[name]
            self.crowded.discard(name)
        elif self._may_go(line.numbers[0]):
            heappush(self._ready, line.numbers[0])

    def _may_go(self, number: int) -> bool:
        entry = self._entries.get(number)
        if entry is None:
            return False
        return all(name not in self._busy and name not in self.holds and self._lines[name].numbers[0] == number for name in entry[0])
