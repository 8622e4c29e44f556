"""Plugins of amplitude-analytics as middleware."""

import sys
from typing import Any

import amplitude as sdk
import pytest
from amplitude.event import EVENT_KEY_MAPPING

from otel_amplitude.errors import ConfigurationError, MiddlewareError
from otel_amplitude.events import KEYS, Identify, Revenue
from otel_amplitude.middleware import Plugin

FULL = {
    "event_type": "Order Paid",
    "user_id": "u-12345",
    "time": 1_795_305_661_234,
    "price": 12,
    "productId": "p",
    "event_properties": {"lists": [[1]], "a": None},
    "plan": {"version": "1", "versionId": "2"},
    "ingestion_metadata": {"source_name": "shop"},
    "library": "otel-amplitude/1",
    "$skip_user_properties_sync": True,
    "android_app_set_id": "x",
}


class Keep(sdk.EventPlugin):
    """Gives back what it gets, and remembers it."""

    def __init__(self, kind: Any = sdk.PluginType.ENRICHMENT) -> None:
        super().__init__(kind)
        self.seen: list[Any] = []

    def execute(self, event: Any) -> Any:
        self.seen.append(event)
        return super().execute(event)


class Change(Keep):
    """Works as the plugin page of Amplitude shows it."""

    def execute(self, event: Any) -> Any:
        event["device_id"] = "device-1"
        event["user_id"] = None
        event.product_id = "q"
        event.event_properties["added"] = 1
        event.plan.version = "3"
        return event


class Drop(Keep):
    def track(self, event: Any) -> None:
        del event


class Destination(sdk.DestinationPlugin):
    def execute(self, event: Any) -> None:
        event.event_type = "Changed"
        event.event_properties["changed"] = True


class Wrong(Keep):
    def execute(self, event: Any) -> Any:
        return {"event_type": event.event_type}


def test_an_event_comes_back_as_it_was(through) -> None:
    """Also with keys and values that the other SDK does not know or like."""
    assert through(Plugin(Keep()), FULL) == FULL


def test_what_a_plugin_changes_is_taken_over(through) -> None:
    """By attribute, by key, and inside its objects; what it sets to None is taken out."""
    event = through(Plugin(Change()), FULL)
    changed = {"device_id": "device-1", "productId": "q", "event_properties": {"lists": [[1]], "a": None, "added": 1}}
    assert event == {key: value for key, value in FULL.items() if key != "user_id"} | changed | {"plan": {"version": "3", "versionId": "2"}}
    assert FULL["event_properties"] == {"lists": [[1]], "a": None}


def test_none_drops_the_event(through) -> None:
    """As in the other SDK, where a plugin may do so for one kind of event only."""
    assert through(Plugin(Drop()), FULL) is None
    identify = {"event_type": "$identify", "user_id": "u-12345", "user_properties": Identify().set("a", 1).to_dict()}
    assert through(Plugin(Drop()), identify) == identify


def test_each_kind_of_event_gets_its_class(through) -> None:
    """So that `identify`, `group_identify` and `revenue` of a plugin are called."""
    keep = Keep()
    for event in (
        {"event_type": "A"},
        {"event_type": "$identify"},
        {"event_type": "$groupidentify"},
        Revenue(price=1).to_event("u-12345"),
    ):
        assert through(Plugin(keep), event) == event
    assert [type(event).__name__ for event in keep.seen] == ["BaseEvent", "IdentifyEvent", "GroupIdentifyEvent", "RevenueEvent"]


def test_a_destination_gets_a_copy_and_the_event_goes_on(through) -> None:
    """It always gives None, and may do to its copy what it likes."""
    assert through(Plugin(Destination()), FULL) == FULL


def test_anything_but_an_event_is_an_error(through) -> None:
    """An event taken from a dict would lose every key."""
    with pytest.raises(MiddlewareError, match="not dict"):
        through(Plugin(Wrong()), FULL)


def test_its_keys_are_all_known_to_us() -> None:
    """The other SDK names no key that ours would remove."""
    assert {row[0] for row in EVENT_KEY_MAPPING.values()} <= KEYS


def test_a_plugin_goes_by_its_class() -> None:
    """In the counts of events that middleware dropped."""
    assert Plugin(Drop()).__name__ == "Drop"


def test_what_is_no_plugin_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """At start-up, with the cure."""
    with pytest.raises(ConfigurationError, match="must have execute"):
        Plugin(object())
    monkeypatch.setitem(sys.modules, "amplitude.event", None)
    with pytest.raises(ConfigurationError, match="pip install amplitude-analytics"):
        Plugin(Keep())
