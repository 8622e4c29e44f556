"""What identify operations do, as a table."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_amplitude.sandbox import _properties
from otel_amplitude.sandbox._contract import GROUP_OPERATIONS, USER_OPERATIONS
from otel_amplitude.sandbox._properties import OPERATIONS, People, apply

CASES = [
    ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
    ({"a": 1}, {"$set": {"a": 2}}, {"a": 2}),
    ({"a": 1}, {"$setOnce": {"a": 2, "b": 3}}, {"a": 1, "b": 3}),
    ({"a": 1}, {"$add": {"a": 2, "b": 3}}, {"a": 3, "b": 3}),
    ({"a": "text"}, {"$add": {"a": 2}}, {"a": "text"}),
    ({"a": [1]}, {"$append": {"a": [1, 2], "b": 3}}, {"a": [1, 1, 2], "b": [3]}),
    ({"a": 1}, {"$append": {"a": 2}}, {"a": [1, 2]}),
    ({"a": [1]}, {"$prepend": {"a": [2, 3]}}, {"a": [2, 3, 1]}),
    ({"a": [1, 2]}, {"$postInsert": {"a": [3, 1, 3]}}, {"a": [1, 2, 3]}),
    ({"a": [1, 2]}, {"$preInsert": {"a": [3, 4, 1]}}, {"a": [3, 4, 1, 2]}),
    ({"a": [1, 2, 1]}, {"$remove": {"a": 1, "b": 1}}, {"a": [2]}),
    ({"a": 1, "b": 2}, {"$unset": {"a": "-"}}, {"b": 2}),
    ({"a": 1}, {"$clearAll": "-"}, {}),
    ({"a": 1}, {"$set": {"b": 2}, "c": 3}, {"a": 1, "b": 2}),
    ({"a": 1}, {"$set": "nonsense", "$fly": {"a": 2}}, {"a": 1}),
]


@pytest.mark.parametrize(("old", "change", "new"), CASES, ids=lambda value: str(value)[:40])
def test_operations(old: dict[str, Any], change: dict[str, Any], new: dict[str, Any]) -> None:
    """Each operation has its documented effect and leaves the properties it was given alone."""
    before = dict(old)
    assert apply(old, change, USER_OPERATIONS) == new
    assert old == before


def test_groups_know_fewer_operations() -> None:
    """$remove is no operation of groups."""
    assert apply({"a": [1]}, {"$remove": {"a": 1}}, GROUP_OPERATIONS) == {"a": [1]}


values = st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=3) | st.none()


@given(
    old=st.dictionaries(st.sampled_from("abc"), values, max_size=3),
    change=st.dictionaries(
        st.sampled_from(sorted(OPERATIONS)), st.dictionaries(st.sampled_from("abc"), values, max_size=3) | values, max_size=3
    ),
)
def test_any_change_gives_properties(old: dict[str, Any], change: dict[str, Any]) -> None:
    """Whatever the values, something comes out, and inserting twice is inserting once."""
    once = apply(old, change, USER_OPERATIONS)
    inserting = {name: value for name, value in change.items() if name in ("$set", "$setOnce", "$unset", "$preInsert", "$postInsert")}
    if once and inserting == change and len(change) == 1:
        assert apply(once, change, USER_OPERATIONS) == once


def test_who_learns_what(monkeypatch: pytest.MonkeyPatch) -> None:
    """Identify and plain properties reach the user, else the device; operations elsewhere and skipped syncs reach nobody."""
    people = People()
    people.learn({"event_type": "$identify", "user_id": "ada", "user_properties": {"$set": {"plan": "pro"}}})
    people.learn(
        {"event_type": "Clicked", "user_id": "ada", "device_id": "phone", "user_properties": {"lang": "en", "$set": {"plan": "free"}}}
    )
    people.learn({"event_type": "Clicked", "device_id": "phone", "user_properties": {"seen": 1}})
    people.learn({"event_type": "Clicked", "user_id": "ada", "user_properties": {"plan": "free"}, "$skip_user_properties_sync": True})
    people.learn({"event_type": "Clicked", "user_id": "ada"})
    assert people.of_user("ada") == {"plan": "pro", "lang": "en"}
    assert people.of_user("phone") == {"seen": 1}
    people.learn({"event_type": "$groupidentify", "groups": {"org": ["acme", "b"]}, "group_properties": {"$set": {"size": 5}}})
    people.learn({"event_type": "$groupidentify", "groups": None, "group_properties": {"$set": {"size": 7}}})
    assert people.of_group("org", "acme") == people.of_group("org", "b") == {"size": 5}
    monkeypatch.setattr(_properties, "MAX_HOLDERS", 2)
    people.learn({"event_type": "Clicked", "user_id": "bob", "user_properties": {"x": 1}})
    assert people.of_user("ada") == {}
    people.forget()
    assert people.of_user("bob") == {}
