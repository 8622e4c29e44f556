"""Whom the delivery tells what happened, and how it is guarded from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from threading import current_thread, main_thread

from otel_amplitude.delivery.books import Stats
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.receipt import Receipt


class Observer:
    """Is told what happens to parcels; subclass it and override what interests you.

    Called on the worker, a sender, or the thread that calls `flush` or `shutdown`, never under a lock; what it raises is swallowed.
    Who wants results runs users' code: of the end it hears on the worker, or on another thread if the disk keeps that one, and one that
    blocks is not waited for; in the thread that calls `shutdown` only where there is no other.
    """

    @property
    def wants_results(self) -> bool:
        """Whether `finished` shall be called, once for each parcel; asked under the lock, so it only looks."""
        return False

    def started(self) -> None:
        """Delivery works in this process from now on: the first parcel was accepted."""

    def settled(self, batch: Sequence[Parcel], receipt: Receipt, seconds: float) -> None:
        """One request was answered, or failed, after `seconds`; `receipt` has one outcome for each parcel."""

    def retried(self, receipt: Receipt, attempt: int, *, last: bool) -> None:
        """Parcels of a request will be sent again after `attempt` attempts, from 1; `last`: for the last time their policy allows."""

    def finished(self, parcel: Parcel, outcome: str, reason: str, status: int | None) -> None:
        """One parcel reached its end: `acknowledged`, `rejected` or `dropped`, for `reason`, after the answer `status`."""

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

    def stopping(self) -> None:
        """Half of the time for the end is over, and not all came to its end: what has to be made ready for bad news is best done now."""

    def stopped(self, stats: Stats) -> None:
        """Delivery was shut down with these books."""


# One thing to tell: collected under the lock, told outside it.
Note = Callable[[Observer], object]


def tell(observers: Iterable[Observer], notes: Iterable[Note]) -> None:
    """Tell every observer every note, in order; hold no lock while calling this."""
    for note in notes:
        for observer in observers:
            try:
                note(observer)
            # They run users' callbacks: not even SystemExit may take a sender with a batch in its hands. Ctrl-C is the main thread's.
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt) and current_thread() is main_thread():
                    raise
