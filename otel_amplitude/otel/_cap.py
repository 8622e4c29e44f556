"""A cap on automatic events of one id in one minute, so that a polling page does not become a million events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from otel_amplitude.clock import monotonic

_MAX_IDS: Final = 50_000


class Cap:
    """Counts automatic events for each id in the current minute of the clock; memory is bounded.

    Any thread may ask; a race may let a few more through, which a cap can bear.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = monotonic) -> None:
        """Allow `per_minute` for each id; 0 means no cap."""
        self._most = per_minute
        self._clock = clock
        self._minute = -1
        self._counts: dict[str, int] = {}

    def allows(self, identity: str) -> bool:
        """Count one event of this id, and tell whether it is within the cap."""
        if not self._most:
            return True
        minute = int(self._clock() // 60)
        if minute != self._minute or len(self._counts) >= _MAX_IDS:
            self._minute, self._counts = minute, {}
        count = self._counts.get(identity, 0) + 1
        self._counts[identity] = count
        return count <= self._most
