"""Observers are told everything in order, and none can disturb another."""

from __future__ import annotations

from parcels import Memory, acknowledged, parcel

from otel_amplitude.delivery.books import Stats
from otel_amplitude.delivery.observer import Observer, tell


def test_one_that_raises_disturbs_nobody() -> None:
    """A fault in one observer is swallowed; the next one and the next note are told."""

    class Broken(Observer):
        def resumed(self) -> None:
            raise RuntimeError("bug")

    memory = Memory()
    tell([Broken(), memory], [lambda observer: observer.resumed(), lambda observer: observer.paused(1.0, "why")])
    assert memory.told == [("resumed",), ("paused", 1.0, "why")]


def test_an_observer_needs_to_override_nothing() -> None:
    """The base class does nothing, for every note there is."""
    observer = Observer()
    receipt = acknowledged([parcel()])
    for answer in (
        observer.started(),
        observer.settled([parcel()], receipt, 0.1),
        observer.retried(receipt, 1, last=False),
        observer.finished(parcel(), "acknowledged", "", 200, 1),
        observer.dropped("expired", 1),
        observer.held(1, 30.0, 2),
        observer.paused(1.0, "why"),
        observer.resumed(),
        observer.noticed("spool.full", {}),
        observer.stopping(),
        observer.stopped(Stats()),
    ):
        assert answer is None
    assert not observer.wants_results
    assert not observer.wants_retries
