"""Which ids have events on disk that were read and left there: one id that rests must not fill the memory with whoever waits for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from otel_amplitude.delivery.parcel import Parcel

# Whoever can make ids must not fill our memory with them: above this many everyone waits until the next sweep.
MOST_SHELVED_IDS: Final = 10_000
# Reading one event again takes about a tenth of this: so sweeps take at most about a tenth of a processor.
_SWEEP_SECONDS_EACH: Final = 100e-6
_NONE: Final = float("inf")


class Shelf:
    """Says who has to wait for an event that was left on disk. Guarded by the dispatcher's lock, but for `knows` and `is_full`.

    What lies on the shelf is read again in *sweeps*, each from the oldest to the newest. A sweep finds out anew what can not come
    into memory yet; until its end, what is newly accepted heeds the one before as well.

    Attributes:
        first: no event on the shelf has a lower number in the order of acceptance than this.
        is_stale: somebody who may be waited for is free: the next sweep can bring something.
        not_before: when that may begin, at the earliest.
    """

    def __init__(self, most_ids: int = MOST_SHELVED_IDS) -> None:
        self._most_ids = most_ids
        self.first = self._swept_first = _NONE
        self.is_stale = False
        self.not_before = -_NONE
        # The lowest number on the shelf by id: of the last sweep that ended, and of the one under way; otherwise the same.
        self._ids: dict[str, int] = {}
        self._swept_ids = self._ids
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._ids)

    @property
    def sweeps(self) -> bool:
        """Whether a sweep is under way."""
        return self._swept_ids is not self._ids

    @property
    def is_full(self) -> bool:
        """Whether any new event has to wait, since not all ids are known. May be asked without the lock."""
        return len(self._ids) > self._most_ids

    def knows(self, ids: Iterable[str]) -> bool:
        """Whether a new event with these ids has to wait because of them. May be asked without the lock."""
        known = self._ids
        return bool(known) and any(name in known for name in ids)

    def precedes(self, parcel: Parcel) -> bool:
        """Whether anything on the shelf has to leave before `parcel`, which was accepted."""
        return self._precede(self._ids, self.first, parcel)

    def precedes_on_disk(self, parcel: Parcel) -> bool:
        """Likewise for one that was read from the disk just now: only what this sweep left there counts."""
        return self._precede(self._swept_ids, self._swept_first, parcel)

    def put(self, parcel: Parcel) -> None:
        """Note that `parcel` is left on disk."""
        self.first = min(self.first, parcel.order)
        self._swept_first = min(self._swept_first, parcel.order)
        self._count += 1
        for ids in (self._ids, self._swept_ids):
            if len(ids) <= self._most_ids:
                ids.update([(name, min(parcel.order, ids.get(name, parcel.order))) for name in parcel.ids])

    def begin_sweep(self, now: float) -> None:
        """Everything on the shelf is about to be read again, first things first."""
        self.not_before = now + self._count * _SWEEP_SECONDS_EACH
        self.is_stale = False
        self._swept_ids = {}
        self._swept_first = _NONE
        self._count = 0

    def end_sweep(self) -> None:
        """Everything was read, and what has to wait still was put here again."""
        self._ids = self._swept_ids
        self.first = self._swept_first

    def _precede(self, ids: dict[str, int], first: float, parcel: Parcel) -> bool:
        if len(ids) > self._most_ids:  # not all of them are known
            return first < parcel.order
        return any(ids.get(name, parcel.order) < parcel.order for name in parcel.ids)
