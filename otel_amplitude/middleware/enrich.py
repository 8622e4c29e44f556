"""Adds constants to every event."""

from __future__ import annotations

from typing import Any

from otel_amplitude.middleware._chain import Next, Payload
from otel_amplitude.values import clean_properties


class Enrich:
    """Add event properties to every event; a property the event has already stays.

    Args:
        constants: names and values, cleaned once (`values.clean_properties`).

    >>> team = Enrich(team="checkout", **{"release.channel": "beta"})
    """

    def __init__(self, **constants: Any) -> None:
        self._constants = clean_properties(constants)

    def __call__(self, payload: Payload, next: Next) -> None:
        """Add the constants, pass the event on."""
        event = payload.event
        event["event_properties"] = {**self._constants, **(event.get("event_properties") or {})}
        next(payload)
