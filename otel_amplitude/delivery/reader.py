"""The queue as the worker reads it: what comes next, what is in memory, what is resolved. Owned by the worker; waits for nothing.

While segments of the first look for ended processes are unread there are two cursors: events of ids that have no event there may pass,
and share the requests. What can not pass is skipped, and read in its order when the old segments are read to their end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.queue import FIRST_OWN, FLYING, POSITION_BITS, POSITIONS, READ, RESOLVED, UNREAD, Queue, Segment

_MASK: Final = POSITIONS - 1
# One load asks for at most so many events, and for a quarter of what memory may hold; the next one when half of them are left.
_MOST_LOADED: Final = 2_000
_LOAD_SHARE: Final = 4
# So many events are looked at for one load; none but the first where more than the inverse of this share of the memory is in use.
_MOST_LOOKED_AT: Final = 20_000
_TIGHT: Final = 4 / 3
# Into how many groups events are divided that were in flight when processes ended.
_GROUPS: Final = 8
# Bounds of what is known of unread segments: ids there, and events that were skipped because of them. Above, nothing passes.
MOST_HASHES: Final = 200_000
MOST_SKIPPED: Final = 20_000


class Counts(NamedTuple):
    """How many events there are.

    Attributes:
        in_memory: those that this process appended to memory, until now.
        on_disk: those that it appended to files.
        adopted: those in segments that were adopted.
        queued: pending ones that are in neither line nor request, without a file.
        spooled: likewise with a file.
        lined: those in line.
    """

    in_memory: int
    on_disk: int
    adopted: int
    queued: int
    spooled: int
    lined: int


class Reader:
    """Reads the segments in order, by number."""

    def __init__(self, queue: Queue, max_events: int, max_bytes: int, *, load: Callable[[Segment, list[int]], object], looks: bool) -> None:
        self._queue = queue
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._load = load
        self._load_events = max(2, min(_MOST_LOADED, max_events // _LOAD_SHARE))
        # Until ended processes were looked for, nothing of our own is read: what they left precedes it.
        self.has_looked = not looks
        # Whether a flush has waited for what was found then.
        self.has_flushed = False
        self.segments: tuple[Segment, ...] = ()
        self._by_seq: dict[int, Segment] = {}
        self._old: Segment | None = None
        self._own: Segment | None = None
        self._hashes: dict[int, frozenset[int]] = {}
        self._skipped: deque[int] = deque()
        self._skipped_ids: set[str] = set()
        self._beside = False
        self._retired = [0, 0, 0]
        self._touched: dict[int, Segment] = {}

    # What comes next.

    def refresh(self) -> None:
        """See which segments there are, at the beginning of a turn."""
        is_new = self._queue.segments is not self.segments
        if is_new:
            self.segments = self._queue.segments
            self._by_seq = {segment.seq: segment for segment in self.segments}
        for segment in self.segments:
            if len(segment.states) < segment.count:
                segment.states.extend(bytes(segment.count - len(segment.states)))
        if is_new and self._old is None:
            self._old = self._next(None, old=True)

    def _next(self, after: Segment | None, *, old: bool) -> Segment | None:
        """Give the next segment that has something unread: of the first look, or of those that followed."""
        for segment in self.segments:
            is_behind = after is None or segment.seq > after.seq
            if is_behind and (segment.seq < FIRST_OWN) is old and segment.read < len(segment.states):
                return segment
        return None

    def knows_ids(self, segment: Segment, hashes: frozenset[int]) -> None:
        """These are the hashes of the ids of an unread segment of the first look."""
        self._hashes[segment.seq] = hashes

    def read(self) -> tuple[int, Parcel] | None:
        """Give the next event that was not read; None: there is none, or it is being loaded."""
        if self._old is not None:
            self._beside = not self._beside
            if self._beside and (found := self._read_beside()):
                return found
            if found := self._read_old():
                return found
            if self._old is not None:
                return self._read_beside()
        if not self.has_looked:
            return None
        while self._skipped:
            number = self._skipped[0]
            if self._state(number) == RESOLVED:
                self._skipped.popleft()
                continue
            parcel = self.parcel(number, lambda _: True)
            if parcel is not None:
                self._skipped.popleft()
            return None if parcel is None else (number, parcel)
        self._skipped_ids.clear()
        return self._read_own()

    def _read_old(self) -> tuple[int, Parcel] | None:
        while self._old is not None:
            segment = self._old
            if found := self._read_segment(segment):
                return found
            if segment.read < len(segment.states):
                return None  # it is being loaded
            self._hashes.pop(segment.seq, None)
            self._old = self._next(segment, old=True)
        return None

    def _read_own(self) -> tuple[int, Parcel] | None:
        while True:
            segment = self._own
            if segment is not None:
                if found := self._read_segment(segment):
                    return found
                if segment.read < len(segment.states):
                    return None
            following = self._next(segment, old=False)
            if following is None:
                return None
            self._own = following

    def _read_beside(self) -> tuple[int, Parcel] | None:
        """Give the next new event of which no id has an event in the unread segments of the first look."""
        if not self.has_looked or sum(map(len, self._hashes.values())) > MOST_HASHES:
            return None
        while len(self._skipped) < MOST_SKIPPED:
            found = self._read_own()
            if found is None:
                return None
            number, parcel = found
            if self._skipped_ids.isdisjoint(parcel.ids) and not any(
                hash(name) in hashes for hashes in self._hashes.values() for name in parcel.ids
            ):
                return found
            self._skipped.append(number)
            self._skipped_ids.update(parcel.ids)
            self.evict(number)
        return None

    def _read_segment(self, segment: Segment) -> tuple[int, Parcel] | None:
        states = segment.states
        while segment.read < len(states):
            position = segment.read
            if states[position] == RESOLVED:
                segment.read += 1
                continue
            parcel = segment.parcels.get(position)
            if not segment.was_cached and (parcel is None or position % (self._load_events // 2) == 0):
                self._load_ahead(segment, position)
            if parcel is None:
                return None
            segment.read += 1
            states[position] = READ
            return segment.seq << POSITION_BITS | position, parcel
        return None

    def _load_ahead(self, segment: Segment, position: int) -> None:
        """Ask for the next events that are not in memory, if fewer than half of what one load gives are left before them."""
        first = position
        while first in segment.parcels and first < position + self._load_events // 2:
            first += 1
        if first < min(position + self._load_events // 2, len(segment.states)):
            self._ask(segment, range(first, min(first + self._load_events, len(segment.states))))

    def _ask(self, segment: Segment, positions: Iterable[int]) -> None:
        if segment.is_loading:
            return
        wanted = [position for position in positions if segment.states[position] != RESOLVED and position not in segment.parcels]
        if wanted:
            segment.is_loading = True
            self._load(segment, wanted)

    def loaded(self, segment: Segment, parcels: Mapping[int, Parcel]) -> None:
        """Put parcels that were read back into memory."""
        segment.is_loading = False
        for position, parcel in parcels.items():
            if segment.states[position] != RESOLVED and position not in segment.parcels:
                segment.parcels[position] = parcel
                self._queue.freed_events -= 1
                self._queue.freed_bytes -= len(parcel.body)

    # What is known of one event.

    def _find(self, number: int) -> tuple[Segment, int]:
        return self._by_seq[number >> POSITION_BITS], number & _MASK

    def _state(self, number: int) -> int:
        segment = self._by_seq.get(number >> POSITION_BITS)
        return RESOLVED if segment is None else segment.states[number & _MASK]

    def parcel(self, number: int, is_wanted: Callable[[int], bool]) -> Parcel | None:
        """Give a parcel that was read before; None: it is being loaded, and with it those behind it in its segment that are wanted."""
        segment, position = self._find(number)
        parcel = segment.parcels.get(position)
        if parcel is None and not segment.is_loading:
            self._ask(segment, self._wanted_from(segment, position, is_wanted))
        return parcel

    def _wanted_from(self, segment: Segment, position: int, is_wanted: Callable[[int], bool]) -> list[int]:
        """Give a position, and those behind it that were read, are not in memory, and are wanted: as many as one load gives.

        Where little of the memory is free, only the one: what is loaded now may have to wait for its turn.
        """
        queue, found, at = self._queue, [position], position
        is_tight = queue.used_events * _TIGHT >= self._max_events or queue.used_bytes * _TIGHT >= self._max_bytes
        for _ in range(0 if is_tight else _MOST_LOOKED_AT):
            at = segment.states.find(READ, at + 1)
            if at < 0 or len(found) >= self._load_events:
                break
            if at not in segment.parcels and is_wanted(segment.seq << POSITION_BITS | at):
                found.append(at)
        return found

    def evict(self, number: int) -> None:
        """Let a parcel leave the memory if it lies on disk, and half of the memory is in use."""
        segment, position = self._find(number)
        queue = self._queue
        if segment.file is not None and (queue.used_events * 2 >= self._max_events or queue.used_bytes * 2 >= self._max_bytes):
            self._free(segment, position)
            segment.was_cached = False

    def _free(self, segment: Segment, position: int) -> None:
        parcel = segment.parcels.pop(position, None)
        if parcel is not None:
            self._queue.freed_events += 1
            self._queue.freed_bytes += len(parcel.body)

    def accepted_at(self, number: int) -> float:
        """Give when it was accepted, on the exporter's clock."""
        segment, position = self._find(number)
        return segment.times[position]

    def group(self, number: int) -> int:
        """Give which of the events that were in flight when processes ended may be in one request with this one; 0: it is none of them.

        The first of them goes by itself, since it was the first each time; those behind it in about `_GROUPS` groups: a process that ends
        with one of these in flight leaves fewer of them to the next one.
        """
        segment, position = self._find(number)
        if position not in segment.suspects:
            return 0
        size = max(1, len(segment.suspects) // _GROUPS)
        return segment.seq << POSITION_BITS | (position - segment.suspects.start + size - 1) // size + 1

    def resolve(self, number: int) -> None:
        """Forget an event that came to its end."""
        segment, position = self._find(number)
        if segment.states[position] != RESOLVED:
            segment.states[position] = RESOLVED
            segment.resolved += 1
            self._free(segment, position)
            self._touched[segment.seq] = segment

    def moved(self, numbers: Iterable[int], *, lined: int = 0, flying: int = 0) -> None:
        """Count events that enter (1) or leave (-1) a line or a request."""
        for number in numbers:
            segment, position = self._find(number)
            segment.lined += lined
            if flying:
                segment.flying += flying
                segment.states[position] = FLYING if flying > 0 else READ

    def adopted_parts(self, numbers: Iterable[int]) -> list[tuple[Segment, int, int]]:
        """Give the adopted segments that these events lie in, each with the positions of the first and the last of them."""
        parts: dict[int, tuple[Segment, int, int]] = {}
        for number in numbers:
            segment, position = self._find(number)
            if segment.is_adopted:
                _, first, last = parts.get(segment.seq, (segment, position, position))
                parts[segment.seq] = (segment, min(first, position), max(last, position))
        return list(parts.values())

    # All of them.

    @property
    def oldest_at(self) -> float | None:
        """When the oldest event that is in memory only, and in no request, was accepted; what lies in files expires at its turn."""
        for segment in self.segments:
            if segment.file is None and segment.resolved + segment.flying < len(segment.states):
                return min(segment.times[position] for position in self._waiting(segment))
        return None

    def _waiting(self, segment: Segment) -> Iterator[int]:
        """Give the positions of the first unread and of the first read event that are in no request: one of them is the oldest."""
        for state in (UNREAD, READ):
            position = segment.states.find(state, segment.head)
            if position >= 0:
                yield position

    def expired(self, before: float) -> list[tuple[int, Parcel]]:
        """Give the events that are in memory only, in no request, and were accepted before a moment."""
        found: list[tuple[int, Parcel]] = []
        for segment in self.segments:
            if segment.file is None:
                for position in range(segment.head, len(segment.states)):
                    if segment.times[position] >= before:
                        return found
                    if segment.states[position] in (UNREAD, READ):
                        found.append((segment.seq << POSITION_BITS | position, segment.parcels[position]))
        return found

    def waiting(self, *, in_memory_only: bool) -> list[tuple[int, Parcel]]:
        """Give all events in memory that are in no request."""
        return [
            (segment.seq << POSITION_BITS | position, segment.parcels[position])
            for segment in self.segments
            if not (in_memory_only and segment.file is not None)
            for position, state in enumerate(segment.states)
            if state in (UNREAD, READ) and position in segment.parcels
        ]

    @property
    def in_memory(self) -> list[Segment]:
        """Segments without a file that are sealed and have something left, oldest first."""
        return [segment for segment in self.segments if segment.file is None and segment.sealed and segment.resolved < segment.count]

    def unresolved(self, segment: Segment) -> list[int]:
        """Give the positions of a segment that have not come to their end."""
        return [position for position, state in enumerate(segment.states) if state != RESOLVED]

    @property
    def unread(self) -> int:
        """How many events were not read, those behind a load included."""
        return sum(len(segment.states) - segment.read for segment in self.segments) + len(self._skipped)

    @property
    def end(self) -> int:
        """The number that follows all that was accepted until the last `refresh`."""
        if not self.segments:
            return 0
        last = self.segments[-1]
        return last.seq << POSITION_BITS | len(last.states)

    def is_settled(self, mark: int) -> bool:
        """Whether everything before number `mark` came to its end."""
        for segment in self.segments:
            first = segment.seq << POSITION_BITS
            if first >= mark:
                return True
            if segment.resolved < len(segment.states) and first + self._head(segment) < mark:
                return False
        return True

    def _head(self, segment: Segment) -> int:
        states, head = segment.states, segment.head
        while head < len(states) and states[head] == RESOLVED:
            head += 1
        segment.head = head
        return head

    def touch(self, segment: Segment) -> None:
        """Let `touched` give a segment once more."""
        self._touched[segment.seq] = segment

    def touched(self) -> list[Segment]:
        """Give the segments of which events were resolved since the last call, with their `head` up to date."""
        touched, self._touched = list(self._touched.values()), {}
        for segment in touched:
            self._head(segment)
        return touched

    def retire(self, segments: Iterable[Segment]) -> None:
        """Segments of which nothing is left are not in the list any more."""
        for segment in segments:
            self._retired[2 if segment.is_adopted else segment.began_on_disk] += segment.count

    @property
    def lined_on_disk(self) -> int:
        """How many events in line lie in files."""
        return sum(segment.lined for segment in self.segments if segment.file is not None)

    def counts(self) -> Counts:
        """Count the events, from the segments themselves."""
        covered, waiting, lined = list(self._retired), [0, 0], 0
        for segment in self.segments:
            count = len(segment.states)
            covered[2 if segment.is_adopted else segment.began_on_disk] += count
            waiting[segment.file is not None] += count - segment.resolved - segment.flying - segment.lined
            lined += segment.lined
        return Counts(covered[0], covered[1], covered[2], waiting[0], waiting[1], lined)
