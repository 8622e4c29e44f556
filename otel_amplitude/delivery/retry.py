"""How long to wait before sending again: a value, not a loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

# 2 ** 64 half seconds are enough for any bound, and a float can still hold them.
_MOST_DOUBLINGS = 64


class RetryPolicy(Protocol):
    """Says how long to wait after a failed attempt. Called by sender threads, one at a time, once for each attempt number of a request."""

    def wait(self, attempt: int, random: Callable[[], float], /) -> float | None:
        """Give the seconds between attempt `attempt` (the first is 1) and the next one, or None to give up.

        Args:
            attempt: how many requests with this event have failed so far.
            random: gives a number from 0 to 1, for jitter.
        """


@dataclass(frozen=True, slots=True)
class ExponentialBackoff:
    """Waits a random time up to a bound that doubles with each attempt (full jitter), and never gives up.

    Attributes:
        first: the bound after the first attempt, in seconds.
        most: the largest bound, in seconds.

    >>> ExponentialBackoff(first=0.5, most=60.0).wait(3, lambda: 1.0)
    2.0
    """

    first: float = 0.5
    most: float = 60.0

    def wait(self, attempt: int, random: Callable[[], float], /) -> float | None:
        """Give a random part of `first` · 2 ^ (attempt - 1), at most of `most`."""
        return random() * min(self.most, self.first * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS))


@dataclass(frozen=True, slots=True)
class FixedWaits:
    """Waits exactly these times, then gives up; no waits means no second attempt.

    >>> FixedWaits((0.1, 0.2)).wait(3, lambda: 1.0) is None
    True
    """

    waits: Sequence[float] = ()

    def wait(self, attempt: int, _random: Callable[[], float], /) -> float | None:
        """Give the wait after attempt number `attempt`, or None after the last."""
        return self.waits[attempt - 1] if 0 < attempt <= len(self.waits) else None
