"""How many records may be read now, so that a worker stays under a limit. Pure: the caller brings the time."""

from __future__ import annotations

from typing import Final

MOST_AT_ONCE: Final = 1_000
# What may be read at once is what this time brings.
_BURST_SECONDS: Final = 0.1


class Rate:
    """A token bucket that begins empty.

    >>> rate = Rate(100.0, now=0.0)
    >>> rate.allowed(0.05), rate.allowed(60.0)
    (5, 10)
    """

    def __init__(self, per_second: float | None, now: float) -> None:
        """Allow so many records a second; None: as many as one call takes."""
        self._per_second = per_second
        self._tokens = 0.0
        self._at = now

    def allowed(self, now: float) -> int:
        """Give how many records may be read now."""
        if self._per_second is None:
            return MOST_AT_ONCE
        burst = max(1.0, self._per_second * _BURST_SECONDS)
        self._tokens = min(burst, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        return min(MOST_AT_ONCE, int(self._tokens))

    def spend(self, records: int) -> None:
        """So many were read."""
        self._tokens -= records

    def wait(self, most: float) -> float:
        """Give the seconds until the next record may be read, at most `most`."""
        if self._per_second is None or self._tokens >= 1:
            return 0.0
        return min(most, (1 - self._tokens) / self._per_second)
