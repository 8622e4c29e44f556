"""Renaming by table."""

from otel_amplitude.middleware import Rename

TIDY = Rename(events={"POST /orders": "Order Placed"}, properties={"http.route": "route", "a": "b", "b": "a"})


def test_event_types_and_properties_get_their_new_names(through) -> None:
    """What is in no table stays."""
    event = through(TIDY, {"event_type": "POST /orders", "event_properties": {"http.route": "/orders", "n": 1}})
    assert event == {"event_type": "Order Placed", "event_properties": {"n": 1, "route": "/orders"}}
    assert through(TIDY, {"event_type": "B"}) == {"event_type": "B"}


def test_names_can_be_swapped_and_the_renamed_one_wins(through) -> None:
    """All names change at once."""
    assert through(TIDY, {"event_properties": {"a": 1, "b": 2}})["event_properties"] == {"a": 2, "b": 1}
    assert through(TIDY, {"event_properties": {"http.route": 1, "route": 2}})["event_properties"] == {"route": 1}


def test_tables_are_optional(through) -> None:
    """Either alone is enough."""
    assert through(Rename(events={"A": "B"}), {"event_type": "A", "event_properties": {"a": 1}})["event_type"] == "B"
    assert through(Rename(properties={"a": "b"}), {"event_type": "A", "event_properties": {"a": 1}})["event_properties"] == {"b": 1}
