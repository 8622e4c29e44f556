"""The calls that all three clients make, as data: plain JSON, so that a Node program can read it too.

Every call has a user of its own, `case-<name>`, by which what arrived is found again.
"""

from __future__ import annotations

from typing import Any

TIME = 1_795_305_661_234

# Every key of an event that `@amplitude/node` declares (types, baseEvent.d.ts), with a value of its type.
EVERY_KEY = {
    "device_id": "device-12345",
    "time": TIME,
    "event_id": 7,
    "session_id": 1_795_305_600_000,
    "insert_id": "given-by-the-caller",
    "app_version": "1.2.3",
    "version_name": "spring",
    "platform": "Web",
    "os_name": "Linux",
    "os_version": "6.1",
    "device_brand": "Acme",
    "device_manufacturer": "Acme Inc.",
    "device_model": "One",
    "carrier": "None Such",
    "country": "Iceland",
    "region": "South",
    "city": "Vík",
    "dma": "Reykjavík",
    "location_lat": 63.4,
    "location_lng": -19.0,
    "language": "Icelandic",
    "ip": "8.8.8.8",
    "idfa": "idfa-1",
    "idfv": "idfv-1",
    "adid": "adid-1",
    "android_id": "android-1",
    "price": 12.5,
    "quantity": 2,
    "revenue": 25.0,
    "productId": "tea",
    "revenueType": "purchase",
    "event_properties": {"text": "Ærøskøbing 🫖", "number": 1.5, "flag": True, "list": ["a", 2], "map": {"inner": {"deep": 1}}},
    "user_properties": {"plan": "pro"},
    "groups": {"org": "acme", "team": ["a", "b"]},
    "plan": {"branch": "main", "source": "web", "version": "3", "versionId": "v-3"},
    "ingestion_metadata": {"source_name": "shop", "source_version": "2"},
}
OPERATIONS = [
    ["set", "plan", "pro"],
    ["setOnce", "first_seen", "2026-11-22"],
    ["add", "orders", 2],
    ["append", "tags", "tea"],
    ["prepend", "visits", ["a", "b"]],
    ["preInsert", "stops", "x"],
    ["postInsert", "ends", "y"],
    ["remove", "flags", "old"],
    ["unset", "trial"],
    ["set", "address", {"city": "Vík"}],
    ["set", "plan", "free"],  # a second operation on a property: the first one counts
]

# name, call, its arguments by name. `event` is sent by log_event; `operations` are carried out on an Identify, one after the other.
CALLS: list[dict[str, Any]] = [
    {"name": "smallest", "call": "log_event", "event": {"event_type": "Smallest"}},
    {"name": "every-key", "call": "log_event", "event": {"event_type": "Every Key", **EVERY_KEY}},
    {"name": "groups", "call": "log_event", "event": {"event_type": "In Groups", "groups": {"org": "acme"}}},
    {"name": "float-amount", "call": "log_event", "event": {"event_type": "Paid", "price": 9.99, "quantity": 1}},
    {"name": "extra", "call": "log_event", "event": {"event_type": "With Extra"}, "extra": {"trusted": True}},
    {"name": "identify", "call": "identify", "operations": OPERATIONS},
    {"name": "clear-all", "call": "identify", "operations": [["set", "plan", "pro"], ["clearAll"], ["set", "b", 1]]},
    {"name": "not-a-number", "call": "identify", "operations": [["add", "orders", "many"], ["set", "plan", "pro"]]},
    {"name": "set-group", "call": "set_group", "group": ["org", "acme"]},
    {"name": "group-identify", "call": "group_identify", "group": ["org", "acme"], "operations": [["set", "seats", 5], ["add", "n", 1]]},
    {
        "name": "revenue",
        "call": "revenue",
        "revenue": {"price": 2.5, "quantity": 2, "productId": "tea", "revenueType": "purchase", "receipt": "r", "receiptSig": "s"},
    },
    {"name": "null", "call": "log_event", "event": {"event_type": "Nulls", "event_properties": {"a": None, "b": 1}}},
    {"name": "nested-lists", "call": "log_event", "event": {"event_type": "Nested", "event_properties": {"a": [[1, 2], [3]], "b": 1}}},
    {"name": "long-text", "call": "log_event", "event": {"event_type": "Long", "event_properties": {"a": "x" * 1_100}}},
    {"name": "many-groups", "call": "log_event", "event": {"event_type": "Many", "groups": {f"type{number}": "a" for number in range(7)}}},
    {"name": "unknown-key", "call": "log_event", "event": {"event_type": "Unknown", "colour": "red"}},
]

# What Amplitude would refuse. `user_id` replaces the case's own where given.
BAD_CALLS: list[dict[str, Any]] = [
    {"name": "no-type", "call": "log_event", "event": {}},
    {"name": "no-id", "call": "log_event", "event": {"event_type": "X"}, "user_id": None},
    {"name": "short-id", "call": "log_event", "event": {"event_type": "X"}, "user_id": "u"},
    {"name": "invalid-id", "call": "log_event", "event": {"event_type": "X"}, "user_id": "anonymous"},
    {"name": "text-time", "call": "log_event", "event": {"event_type": "X", "time": "tomorrow"}},
    {"name": "text-price", "call": "log_event", "event": {"event_type": "X", "price": "free"}},
    {"name": "empty-revenue", "call": "revenue", "revenue": {"quantity": 2}},
]


def user_of(call: dict[str, Any]) -> str | None:
    """The user by which a call's event is found again."""
    user: str | None = call.get("user_id", f"case-{call['name']}")
    return user
