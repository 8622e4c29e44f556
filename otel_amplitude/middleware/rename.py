"""Gives event types and event properties other names."""

from __future__ import annotations

from collections.abc import Mapping

from otel_amplitude.middleware._chain import Next, Payload


class Rename:
    """Rename event types and event properties by table; a renamed property replaces one that has the new name already.

    Args:
        events: old event type to new.
        properties: old property name to new, in `event_properties`.

    >>> tidy = Rename(events={"POST /orders": "Order Placed"}, properties={"http.route": "route"})
    """

    def __init__(self, *, events: Mapping[str, str] | None = None, properties: Mapping[str, str] | None = None) -> None:
        self._events = dict(events or {})
        self._properties = dict(properties or {})

    def __call__(self, payload: Payload, next: Next) -> None:
        """Rename, pass the event on."""
        event = payload.event
        kind = event.get("event_type")
        if kind in self._events:
            event["event_type"] = self._events[kind]
        held = event.get("event_properties")
        if held and not self._properties.keys().isdisjoint(held):
            kept = {name: value for name, value in held.items() if name not in self._properties}
            event["event_properties"] = kept | {self._properties[name]: held[name] for name in held if name in self._properties}
        next(payload)
