"""What 413 means for one event alone: that the event is too large, or that the server answers 413 now and then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from otel_amplitude.clock import monotonic
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.limits import MAX_EVENT_BYTES

# An event may be rejected by mistake with at most this probability.
_MISTAKE: Final = 1e-5
_LEAST_REFUSALS: Final = 3
# Nothing is acknowledged between two refusals where every waiting event belongs to the same user: then the time decides.
_MOST_SECONDS: Final = 600.0
_FIRST_WAIT: Final = 0.05
_MOST_WAIT: Final = 30.0
# So many single events refused in a row, and nothing acknowledged: the server refuses everything.
_ALL_REFUSED: Final = 5
# Events that are remembered; the oldest is forgotten, and starts again at its next refusal.
_MOST_TRACKED: Final = 1_000


class _Refused:
    """One event that was refused alone, and what was answered to other requests since."""

    __slots__ = ("accepted", "count", "others", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.count = 0
        self.accepted = 0
        self.others = 0


class TooLarge:
    """Remembers the 413 answers to single events of one exporter.

    An event above 64 KB is rejected at once. A smaller one is sent again, each time after a longer wait, until chance is no
    explanation: with the share of single events that the server refuses meanwhile, so many refusals in a row of this one would be less
    likely than 1 in 100,000. It is not rejected while nothing at all is acknowledged, unless that lasts ten minutes.

    Called by the threads that send. An event is in one request at a time, so no two threads count for the same event; a count of other
    requests that is lost between two threads does no harm, so there is no lock.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._refused: dict[int, _Refused] = {}
        self._in_a_row = 0

    def acknowledged(self, parcels: Sequence[Parcel]) -> None:
        """Note that the server took a request."""
        self._in_a_row = 0
        if self._refused:
            for parcel in parcels:
                self._refused.pop(hash(parcel.body), None)
            for known in list(self._refused.values()):
                known.accepted += 1

    def refused(self, parcel: Parcel) -> float | None:
        """Note that the server refused one event alone; give the seconds that its ids must wait, or None: it is too large."""
        key = hash(parcel.body)
        for other, known in list(self._refused.items()):
            known.others += other != key
        self._in_a_row += 1
        known = self._refused.setdefault(key, _Refused(self._clock()))
        known.count += 1
        if len(parcel.body) > MAX_EVENT_BYTES or self._is_certain(known):
            self._refused.pop(key, None)
            return None
        for oldest in list(self._refused)[:-_MOST_TRACKED]:
            self._refused.pop(oldest, None)
        return min(_FIRST_WAIT * 2.0 ** min(known.count - 1, 20), _MOST_WAIT)

    @property
    def refuses_all(self) -> bool:
        """Whether the server takes nothing at all at present."""
        return self._in_a_row >= _ALL_REFUSED

    def _is_certain(self, known: _Refused) -> bool:
        if known.count < _LEAST_REFUSALS:
            return False
        if not known.accepted:
            return self._clock() - known.since >= _MOST_SECONDS
        share = (known.others + 1) / (known.others + known.accepted + 2)
        return bool(share**known.count < _MISTAKE)
