"""Drops events that a predicate does not accept."""

from __future__ import annotations

from collections.abc import Callable

from otel_amplitude.events import Event
from otel_amplitude.middleware._chain import Next, Payload


class Filter:
    """Drop every event for which `predicate` gives nothing true; a predicate that raises drops it too.

    Args:
        predicate: gets the event; runs on the thread that made the event.

    >>> keep_paying = Filter(lambda event: event.event_properties.get("plan") != "free")
    """

    def __init__(self, predicate: Callable[[Event], object]) -> None:
        self._predicate = predicate

    def __call__(self, payload: Payload, next: Next) -> None:
        """Pass the event on if the predicate accepts it."""
        if self._predicate(payload.event):
            next(payload)
