"""The books: what was accepted and how it ended; where the rest is, the structures themselves tell."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from otel_amplitude.delivery.books import REFUSED_REASONS, Pending, Stats

_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})


class Ledger:
    """Counts every arrow of an event's life once; guarded by the dispatcher's lock, except for `refuse`."""

    __slots__ = ("_refused", "accepted", "acknowledged", "dropped", "rejected")

    def __init__(self) -> None:
        self.accepted = 0
        self.acknowledged = 0
        self.rejected: dict[str, int] = {}
        self.dropped: dict[str, int] = {}
        self._refused = dict.fromkeys(REFUSED_REASONS, 0)

    def reject(self, reason: str, count: int) -> None:
        """Book parcels that the server will never take."""
        self.rejected[reason] = self.rejected.get(reason, 0) + count

    def drop(self, reason: str, count: int) -> None:
        """Book parcels that were given up here."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count

    def refuse(self, reason: str, count: int = 1) -> None:
        """Book what was never accepted. Any thread, without a lock: no bytecode between reading and writing lets another thread in."""
        self._refused[reason] += count

    def refused(self, reason: str) -> int:
        """Give how many were refused for `reason`."""
        return self._refused[reason]

    def snapshot(self, pending: Pending, *, accepted: int = 0, adopted: int = 0, dropped: Mapping[str, int] = _NOTHING) -> Stats:
        """Give the books as a value.

        Args:
            pending: what the structures hold.
            accepted: parcels accepted elsewhere, to be added.
            adopted: parcels adopted elsewhere, to be added.
            dropped: parcels dropped elsewhere by reason, to be added.
        """
        gone = self.dropped.copy()
        for reason, count in dropped.items():
            if count:
                gone[reason] = gone.get(reason, 0) + count
        return Stats(
            accepted=self.accepted + accepted,
            adopted=adopted,
            acknowledged=self.acknowledged,
            rejected=MappingProxyType(self.rejected.copy()),
            dropped=MappingProxyType({reason: count for reason, count in gone.items() if count}),
            refused=MappingProxyType({reason: count for reason, count in self._refused.items() if count}),
            pending=pending,
        )
