"""Parcels in the order accepted, of which some wait because one of their ids is held."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain, islice
from operator import attrgetter

from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.receipt import Split
from otel_amplitude.delivery.shelf import Shelf

in_order = attrgetter("order")
# A second sender looks at this many batches of the line for ids that are not in flight, and goes if half a batch was found.
_LOOK_AHEAD = 4


def bytes_of(parcels: Iterable[Parcel]) -> int:
    """Give how many bytes of memory the bodies of `parcels` hold."""
    return sum([len(parcel.body) for parcel in parcels])


class Hold:
    """One id that rests: until a moment the server named, or for as long as an event of it waits for another id.

    Attributes:
        until: when the server's pause ends; minus infinity when only the order demands the wait.
        events: how many parcels wait behind it.
        bytes: how much memory they take.
    """

    __slots__ = ("bytes", "events", "until")

    def __init__(self, until: float = float("-inf")) -> None:
        self.until = until
        self.events = 0
        self.bytes = 0


class Backlog:
    """Keeps the order of each id; knows nothing of servers, threads or disks. Guarded by the dispatcher's lock.

    Between calls no parcel in `ready` shares an id with an earlier one in `aside`, nor has an id that the server wants to rest:
    whatever is taken from the front of `ready` may be sent.

    Attributes:
        ready: what may be sent, first things first.
        aside: what waits for an id, first things first.
        late: what waits for events that were left on disk, first things first.
        shelf: what is known of those.
        holds: the ids that rest.
        cuts: after which parcels (by order) a batch must end, since a request is being divided to find the culprit.
        size: bytes in `ready`.
        next_release: when the first of the server's pauses ends, or None.
    """

    def __init__(self) -> None:
        self.ready: deque[Parcel] = deque()
        self.aside: list[Parcel] = []
        self.late: list[Parcel] = []
        self.shelf = Shelf()
        self.holds: dict[str, Hold] = {}
        self.cuts: dict[int, Split] = {}
        self.size = 0
        self.next_release: float | None = None
        # The lowest number of those that are late, by id.
        self._late_ids: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.ready) + len(self.aside) + len(self.late)

    def __iter__(self) -> Iterator[Parcel]:
        """All parcels, in no order."""
        return chain(self.ready, self.aside, self.late)

    def append(self, parcels: Sequence[Parcel], size: int) -> None:
        """Put newly accepted parcels last; `size` is that of their bodies."""
        if self.shelf:
            parcels = self._without_late(parcels)
            size = bytes_of(parcels)
        self._put_last(parcels, size)

    def _put_last(self, parcels: Sequence[Parcel], size: int) -> None:
        if self.holds:
            self._sort_out(parcels)
            return
        self.ready.extend(parcels)
        self.size += size

    def read_back(self, parcels: Sequence[Parcel], now: float) -> list[Parcel]:
        """Put parcels that were read from the disk in their place; give those that have to stay there."""
        came: list[Parcel] = []
        stay: list[Parcel] = []
        anything_waits = bool(self.shelf)
        for parcel in parcels:
            if anything_waits and (self.shelf.precedes_on_disk(parcel) or self._late_precede(parcel)):
                self.shelf.put(parcel)
                stay.append(parcel)
            else:
                came.append(parcel)
        came.sort(key=in_order)
        last = max([line[-1].order for line in (self.ready, self.aside) if line], default=0)
        if came and came[0].order > last:
            self._put_last(came, bytes_of(came))
        elif came:
            self._line_up([*self.aside, *self.ready, *came], now)
        return stay

    def shelve_excess(self, most_events: int, most_bytes: int) -> list[Parcel]:
        """Take out what is too much to wait aside, last things first; give what lies on disk, and may stay there for now.

        Whatever nobody has on disk is kept, and so is whatever has to leave before that.
        """
        events, size = len(self.aside), bytes_of(self.aside)
        if events <= most_events and size <= most_bytes:
            return []
        kept: list[Parcel] = []
        kept_ids: set[str] = set()
        left: list[Parcel] = []
        for parcel in reversed(self.aside):
            if (events > most_events or size > most_bytes) and parcel.place is not None and kept_ids.isdisjoint(parcel.ids):
                self.shelf.put(parcel)
                self._stop_waiting(parcel)
                self.cuts.pop(parcel.order, None)
                events -= 1
                size -= len(parcel.body)
                left.append(parcel)
            else:
                kept_ids.update(parcel.ids)
                kept.append(parcel)
        self.aside = kept[::-1]
        return left

    def end_sweep(self, now: float) -> None:
        """All that lies on disk was read, or stays there for now: let in whoever waits for nothing of that."""
        self.shelf.end_sweep()
        late, self.late, self._late_ids = self.late, [], {}
        if came := self._without_late(late):
            self.shelf.is_stale = True  # some may have stayed on disk because of these
            self._line_up([*self.aside, *self.ready, *came], now)

    def sweep_at(self) -> float | None:
        """Give the moment from which it is worth while to read again what was left on disk, or None."""
        if not self.shelf or self.shelf.sweeps:
            return None
        return self.shelf.not_before if self.shelf.is_stale or self.next_release is None else self.next_release

    def _without_late(self, parcels: Iterable[Parcel]) -> list[Parcel]:
        """Give those that need not wait for anything on the shelf; the others are late."""
        came: list[Parcel] = []
        for parcel in parcels:
            if self.shelf.precedes(parcel) or any(name in self._late_ids for name in parcel.ids):
                self.late.append(parcel)
                for name in parcel.ids:
                    self._late_ids.setdefault(name, parcel.order)
            else:
                came.append(parcel)
        return came

    def _late_precede(self, parcel: Parcel) -> bool:
        return any(self._late_ids.get(name, parcel.order) < parcel.order for name in parcel.ids)

    def take(self, most: int, most_bytes: int) -> list[Parcel]:
        """Take the first parcels: at most `most` and, unless the first one alone is larger, `most_bytes` with a comma each."""
        if len(self.ready) <= most and self.size + len(self.ready) <= most_bytes and not self.cuts:
            everything = list(self.ready)
            self.ready.clear()
            self.size = 0
            return everything
        taken: list[Parcel] = []
        total = 0
        for parcel in islice(self.ready, most):
            size = len(parcel.body) + 1
            if total + size > most_bytes and taken:
                break
            total += size
            taken.append(parcel)
            if self.cuts and parcel.order in self.cuts:
                break
        for _ in taken:
            self.ready.popleft()
        self.size -= total - len(taken)
        return taken

    def take_beside(self, flying: AbstractSet[str], most: int, most_bytes: int, *, partly: bool) -> list[Parcel]:
        """Take the first parcels whose ids are not in flight, nor behind one that is; nothing if less than half a batch was found.

        Args:
            flying: ids of which no parcel may be taken.
            most: how many at most.
            most_bytes: how many bytes at most.
            partly: take even a small batch.
        """
        taken: list[Parcel] = []
        passed: list[Parcel] = []
        busy = set(flying)
        total = 0
        for parcel in islice(self.ready, most * _LOOK_AHEAD):
            if not busy.isdisjoint(parcel.ids):
                busy.update(parcel.ids)
                passed.append(parcel)
                continue
            if taken and (len(taken) == most or total + len(parcel.body) + 1 > most_bytes):
                break
            total += len(parcel.body) + 1
            taken.append(parcel)
            if parcel.order in self.cuts:
                break
        if not partly and len(taken) * 2 < most and total * 2 < most_bytes:
            return []
        for _ in range(len(taken) + len(passed)):
            self.ready.popleft()
        self.ready.extendleft(reversed(passed))
        self.size -= total - len(taken)
        return taken

    def give_back(self, parcels: Sequence[Parcel], pauses: Mapping[str, float], now: float) -> None:
        """Put parcels that were taken back in their place, and hold the ids in `pauses` until the moments given there."""
        if not pauses and not self.holds:
            self.ready.extendleft(reversed(parcels))
            self.size += bytes_of(parcels)
            return
        for name, until in pauses.items():
            hold = self.holds.setdefault(name, Hold())
            hold.until = max(hold.until, until)
        self._line_up([*self.aside, *parcels, *self.ready], now)

    def release(self, now: float) -> None:
        """Let go of what waits for no id any longer."""
        if self.next_release is not None and self.next_release <= now:
            self._line_up([*self.aside, *self.ready], now)

    def expired(self, before_ms: int, now: float) -> list[Parcel]:
        """Take out whatever was accepted before `before_ms`, wherever it waits."""
        gone = [parcel for parcel in self if parcel.accepted_ms < before_ms]
        if gone:
            self.late = [parcel for parcel in self.late if parcel.accepted_ms >= before_ms]
            self._line_up([parcel for parcel in (*self.aside, *self.ready) if parcel.accepted_ms >= before_ms], now)
        return gone

    def clear(self) -> list[Parcel]:
        """Take everything, in order."""
        line = sorted(self, key=in_order)
        self.ready.clear()
        self.aside.clear()
        self.late.clear()
        self._late_ids.clear()
        self.holds.clear()
        self.cuts.clear()
        self.size = 0
        self.next_release = None
        return line

    def _line_up(self, parcels: list[Parcel], now: float) -> None:
        """Forget the holds that only the order demanded and the pauses that are over, then sort everything out anew."""
        if self.next_release is not None and self.next_release <= now:
            self.shelf.is_stale = True
        self.holds = {name: Hold(hold.until) for name, hold in self.holds.items() if hold.until > now}
        self.next_release = min((hold.until for hold in self.holds.values()), default=None)
        self.ready.clear()
        self.aside = []
        self.size = 0
        self._sort_out(sorted(parcels, key=in_order))

    def _sort_out(self, parcels: Iterable[Parcel]) -> None:
        holds = self.holds
        for parcel in parcels:
            for name in parcel.ids:
                if name in holds:
                    self._set_aside(parcel)
                    break
            else:
                self.ready.append(parcel)
                self.size += len(parcel.body)

    def _set_aside(self, parcel: Parcel) -> None:
        """Let `parcel` wait, and with it whoever shares one of its ids: a later event of the same device must not overtake it."""
        self.aside.append(parcel)
        for name in parcel.ids:
            hold = self.holds.get(name)
            if hold is None:
                hold = self.holds[name] = Hold()
            hold.events += 1
            hold.bytes += len(parcel.body)

    def _stop_waiting(self, parcel: Parcel) -> None:
        for name in parcel.ids:
            hold = self.holds.get(name)
            if hold is not None:
                hold.events -= 1
                hold.bytes -= len(parcel.body)
