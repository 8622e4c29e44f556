"""How many events one device or user sent lately, and whether that is too many. No clock: every call brings the time."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otel_amplitude.sandbox._contract import BATCH, Endpoint, Event, Json, throttled

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_IDS = 20_000


@dataclass(frozen=True, slots=True)
class EpsLimits:
    """Events per second for one device and for one user, as a mean over `window` seconds.

    Amplitude documents 30 on httpapi "over a recent window" and 1,000 over 30 s on batch; 30 s is taken for both.
    """

    httpapi: float = 30.0
    batch: float = 1_000.0
    window: float = 30.0

    def of(self, endpoint: Endpoint) -> float:
        """Give the limit of an endpoint."""
        return self.batch if endpoint is BATCH else self.httpapi


Key = tuple[str, str, str]
"""(path, "device_id" or "user_id", the id)."""


def _keys(endpoint: Endpoint, events: Iterable[Event]) -> Counter[Key]:
    return Counter(
        (endpoint.path, name, event[name]) for event in events for name in ("device_id", "user_id") if isinstance(event.get(name), str)
    )


class Limits:
    """Counts stored events per id. Refused requests do not count, so waiting always helps."""

    def __init__(self, eps: EpsLimits | None) -> None:
        self.eps = eps
        self._stored: dict[Key, deque[tuple[float, int]]] = {}

    def check(self, endpoint: Endpoint, events: list[Event], now: float) -> Json | None:
        """Give the body of the 429 these events deserve, or None."""
        if self.eps is None:
            return None
        limit = self.eps.of(endpoint)
        over: dict[str, dict[str, int]] = {"device_id": {}, "user_id": {}}
        for key, count in _keys(endpoint, events).items():
            rate = (self._recent(key, now) + count) / self.eps.window
            if rate > limit:
                over[key[1]][key[2]] = int(rate) + 1
        if not any(over.values()):
            return None
        return throttled(events, limit, devices=over["device_id"], users=over["user_id"])

    def count(self, endpoint: Endpoint, events: list[Event], now: float) -> None:
        """Remember events that were stored."""
        if self.eps is None:
            return
        for key, count in _keys(endpoint, events).items():
            self._stored.setdefault(key, deque()).append((now, count))
        while len(self._stored) > MAX_IDS:
            del self._stored[next(iter(self._stored))]

    def reset(self) -> None:
        """Forget everything."""
        self._stored.clear()

    def _recent(self, key: Key, now: float) -> int:
        entries = self._stored.get(key)
        if not entries or self.eps is None:
            return 0
        while entries and entries[0][0] <= now - self.eps.window:
            entries.popleft()
        return sum(count for _, count in entries)
