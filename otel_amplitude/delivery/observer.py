"""The interface by which delivery reports what happens, and how delivery is guarded from what it calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from otel_amplitude.delivery.books import Stats
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.receipt import Receipt


class Observer:
    """Receives what happens to parcels; subclass it and override what interests you.

    Every method runs on the callbacks thread, in the order in which things happened, and holds up nothing but later callbacks. An
    observer with `on_worker` runs on the worker instead, so it must not block. What a method raises is swallowed.
    """

    on_worker = False

    @property
    def wants_results(self) -> bool:
        """Whether `finished` shall be called, once for each parcel. Asked on the worker, so it must only look."""
        return False

    @property
    def wants_retries(self) -> bool:
        """Whether `retried` shall be called; then the retry policy is asked for the next attempt as well, to know which one is the last."""
        return False

    def started(self) -> None:
        """Delivery works in this process from now on: the first parcel was accepted."""

    def settled(self, batch: Sequence[Parcel], receipt: Receipt, seconds: float) -> None:
        """One request was answered, or failed, after `seconds`; `receipt` has one outcome for each parcel."""

    def retried(self, receipt: Receipt, attempt: int, *, last: bool) -> None:
        """Parcels of a request will be sent again after `attempt` attempts, from 1; `last`: for the last time their policy allows."""

    def finished(self, parcel: Parcel, outcome: str, reason: str, status: int | None, attempts: int) -> None:
        """One parcel reached its end: `acknowledged`, `rejected`, `dropped` or `returned`, for `reason`, after the answer `status`.

        Without a spool `parcel` is the object that was submitted; with one, that object or an equal one of the base class.
        `attempts` are the requests that contained it and were charged to it.
        """

    def dropped(self, reason: str, count: int) -> None:
        """Parcels were given up, or (`queue_full`, `id_backlog`) never taken."""

    def held(self, count: int, seconds: float, batch: int) -> None:
        """Of a request of `batch` parcels `count` wait with their ids for `seconds`."""

    def paused(self, seconds: float, reason: str) -> None:
        """Nothing is sent for `seconds`."""

    def resumed(self) -> None:
        """The server answers again after a pause."""

    def noticed(self, event: str, facts: Mapping[str, object]) -> None:
        """The spool has something to log: a name of the vocabulary, such as `spool.full`, and its facts."""

    def raised(self, part: str, error: Exception) -> None:
        """The worker (`worker`) or the disk thread (`disk`) met an exception that is a fault of ours, or of a clock; it goes on."""

    def stopping(self) -> None:
        """Half of the time for shutdown is over and not everything is settled: prepare now what a bad end will need."""

    def stopped(self, stats: Stats) -> None:
        """Delivery was shut down with these counters."""


# One thing to report. The worker collects them, and hands them over at the end of its turn.
Note = Callable[[Observer], object]


def tell(observers: Iterable[Observer], notes: Iterable[Note]) -> None:
    """Report every note to every observer, in order."""
    for note in notes:
        for observer in observers:
            # They run users' callbacks: not even SystemExit may end the thread that calls them.
            with suppress(BaseException):
                note(observer)
