"""Filtering by predicate."""

import pytest

from otel_amplitude.middleware import Filter


def test_only_what_the_predicate_wants_passes(through) -> None:
    """It gets the event."""
    keep = Filter(lambda event: event.event_properties.get("route") != "/healthz")
    assert through(keep, {"event_type": "A", "event_properties": {"route": "/healthz"}}) is None
    assert through(keep, {"event_type": "A"}) is not None


def test_a_predicate_that_raises_drops_the_event(through) -> None:
    """Its error is the middleware's."""
    with pytest.raises(KeyError):
        through(Filter(lambda event: event["plan"]), {"event_type": "A"})
