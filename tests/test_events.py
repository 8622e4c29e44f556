"""Events: what the check mends, what it refuses, and the bytes that travel."""

import copy
import datetime as dt
import decimal
import enum
import json
import math
import pickle
import re
import time
import uuid
from typing import Any, Final

import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from otel_amplitude.errors import InvalidEventError
from otel_amplitude.events import KEYS, OPERATIONS, RESERVED_TYPES, Event, Identify, Revenue, check_event, encode_event
from otel_amplitude.identity._resolver import clean_id
from otel_amplitude.limits import INVALID_IDS, MAX_DEPTH, MAX_EVENT_BYTES, MAX_STRING


def event(**keys: Any) -> Event:
    """A good event, with these keys."""
    return Event({"event_type": "Order Paid", "user_id": "u-12345", **keys})


def checked(**keys: Any) -> tuple[Event, list[str]]:
    """The event after the check, and what it removed."""
    given_event = event(**keys)
    return given_event, check_event(given_event)


def refusal(**keys: Any) -> InvalidEventError:
    """The error that the check raises."""
    with pytest.raises(InvalidEventError) as caught:
        checked(**keys)
    return caught.value


def strict(body: bytes) -> Any:
    """Parse JSON that knows no NaN."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    return json.loads(body, parse_constant=refuse)


# ------------------------------------------------------------------------------------------------------------------ Event


def test_keys_are_attributes() -> None:
    """A key can be read, written and taken out either way."""
    paid = Event(event_type="Order Paid", user_id="u-12345")
    assert (paid.event_type, paid["user_id"], paid.device_id) == ("Order Paid", "u-12345", None)
    paid.skip_user_properties_sync = True
    paid.productId = "p-1"
    assert paid == {"event_type": "Order Paid", "user_id": "u-12345", "$skip_user_properties_sync": True, "productId": "p-1"}
    paid.productId = None
    del paid.skip_user_properties_sync
    del paid.device_id
    assert paid == {"event_type": "Order Paid", "user_id": "u-12345"}


def test_property_maps_are_made_when_first_read() -> None:
    """Writing through a property map needs no preparation."""
    paid = Event(event_type="Order Paid")
    paid.event_properties["total"] = 12.5
    paid.groups = {"org": "acme"}
    assert paid == {"event_type": "Order Paid", "event_properties": {"total": 12.5}, "groups": {"org": "acme"}}
    del paid.groups
    assert "groups" not in paid


def test_a_misspelt_attribute_is_an_error() -> None:
    """Nothing is kept beside the event."""
    with pytest.raises(AttributeError):
        Event().user_ID = "u-12345"  # type: ignore[attr-defined]


def test_every_attribute_is_a_known_key() -> None:
    """The class and the table of the check agree."""
    from otel_amplitude.events import Field, Properties

    held = {value.key for value in vars(Event).values() if isinstance(value, (Field, Properties))}
    assert held == set(KEYS)
    assert isinstance(Event.user_id, Field)
    assert isinstance(Event.groups, Properties)


def test_an_event_can_be_copied_and_pickled() -> None:
    """Applications keep events in queues of their own."""
    paid = event(event_properties={"a": 1})
    assert type(copy.deepcopy(paid)) is Event
    assert pickle.loads(pickle.dumps(paid)) == paid


# -------------------------------------------------------------------------------------------------------------- the check


def test_a_good_event_passes_untouched() -> None:
    """Nothing is removed, added or changed."""
    good = {
        "device_id": "b7f0c1de-4a52",
        "time": 1_795_305_661_234,
        "session_id": -1,
        "insert_id": "i-1",
        "event_properties": {"a": 1, "b": "x"},
        "user_properties": {"plan": "pro"},
        "groups": {"org": "acme", "team": ["a", "b"]},
        "price": 12.5,
        "quantity": 2,
        "currency": "EUR",
        "$skip_user_properties_sync": False,
        "plan": {"version": "1"},
    }
    after, removed = checked(**good)
    assert removed == []
    assert after == event(**good)


class Plan(str, enum.Enum):
    PRO = "pro"


@pytest.mark.parametrize(
    ("key", "given_value", "expected"),
    [
        ("user_id", "  u-12345 ", "u-12345"),
        ("user_id", 123_456, "123456"),
        ("user_id", uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        ("user_id", strategies.ShoutingText("quiet"), "quiet"),
        ("app_version", Plan.PRO, "pro"),
        ("time", 1_795_305_661_234.9, 1_795_305_661_234),
        ("session_id", 1_795_305_661_234.0, 1_795_305_661_234),
        ("quantity", decimal.Decimal(3), 3),
        ("price", 12, 12),
        ("price", decimal.Decimal("12.50"), 12.5),
        ("price", 2**60, float(2**60)),
        ("currency", "eur", "EUR"),
        ("groups", {"org": 7, "team": ("a", 8)}, {"org": "7", "team": ["a", "8"]}),
        ("user_properties", {"$set": {"plan": "pro"}}, {"plan": "pro"}),
    ],
)
def test_near_values_are_mended(key: str, given_value: object, expected: object) -> None:
    """What can only mean one thing is written the way Amplitude reads it, and nothing is reported."""
    after, removed = checked(**{key: given_value})
    assert (after[key], removed) == (expected, [])


def test_python_sdk_spellings_are_understood() -> None:
    """The names of amplitude-analytics become Amplitude's; a key that is there already stays."""
    after, removed = checked(product_id="p", revenue_type="refund", skip_user_properties_sync=True, productId="q")
    assert (after["productId"], after["revenueType"], after["$skip_user_properties_sync"], removed) == ("q", "refund", True, [])
    assert "product_id" not in after


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ({"api_key": "secret", "foo": 1}, ["api_key", "foo"]),
        ({"session_id": "today"}, ["session_id"]),
        ({"session_id": -2}, ["session_id"]),
        ({"session_id": 2**70}, ["session_id"]),
        ({"platform": 1.5}, ["platform"]),
        ({"ip": ["127.0.0.1"]}, ["ip"]),
        ({"location_lat": math.nan}, ["location_lat"]),
        ({"currency": "Euro"}, ["currency"]),
        ({"currency": 978}, ["currency"]),
        ({"$skip_user_properties_sync": "yes"}, ["$skip_user_properties_sync"]),
        ({"event_properties": "a=1"}, ["event_properties"]),
        ({"groups": "acme"}, ["groups"]),
        ({"groups": {"org": True}}, ["groups.org"]),
        ({"group_properties": {"$set": {"a": 1}}}, ["group_properties"]),
        ({"user_properties": {"$add": {"n": 1}}}, ["user_properties.$add"]),
        ({"user_properties": {"$set": 1}}, ["user_properties.$set"]),
        ({"x" * 200: 1}, ["x" * 100]),
    ],
)
def test_unusable_optional_keys_are_removed_and_named(keys: dict[str, Any], names: list[str]) -> None:
    """The event survives without them."""
    after, removed = checked(**keys)
    assert removed == names
    assert after == event()


def test_keys_that_are_no_text_are_removed() -> None:
    """Their type is told."""
    odd = event()
    odd[3] = 1  # type: ignore[index]
    assert check_event(odd) == ["<int>"]
    assert odd == event()


def test_none_is_absence() -> None:
    """Nothing is reported for a key that was never meant."""
    after, removed = checked(device_id=None, price=None, event_properties=None, foo=None)
    assert (after, removed) == (event(), [])


def test_groups_are_cut_to_five_types_and_ten_names() -> None:
    """Amplitude tracks no more; what is cut is named."""
    after, removed = checked(groups={str(n): "x" for n in range(7)})
    assert (list(after.groups), removed) == (["0", "1", "2", "3", "4"], ["groups.5", "groups.6"])
    after, removed = checked(groups={"a": [str(n) for n in range(8)], "b": ["1", "2", "3"], "c": "x"})
    assert after.groups == {"a": [str(n) for n in range(8)], "b": ["1", "2"]}
    assert removed == ["groups.b", "groups.c"]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"event_type": None}, "event_type is missing"),
        ({"event_type": "  "}, "event_type is missing"),
        ({"event_type": 1.5}, "event_type must be text"),
        *(({"event_type": name}, "is reserved by Amplitude") for name in sorted(RESERVED_TYPES)),
        ({"user_id": "abcd"}, "user_id has 4 characters, but must have 5 to 1,024"),
        ({"user_id": "x" * 1_025}, "user_id has 1025 characters"),
        ({"user_id": True}, "user_id must be text, not bool"),
        ({"user_id": 12345.0}, "user_id must be text, not float"),
        ({"user_id": 1 << 200}, "user_id must be text, not int"),
        *(({"device_id": name.upper()}, "device_id .* is refused by Amplitude") for name in sorted(INVALID_IDS - {""})),
        ({"device_id": "0000000"}, "device_id .* is refused by Amplitude"),
        ({"device_id": "[REDACTED]"}, "device_id .* is refused by Amplitude"),
        *(({"user_id": f"u-1{odd}2345"}, "user_id holds control characters") for odd in "\0\r\n\t\x1b\x7f\x9b\u2028\ud800"),
        ({"price": "12.50"}, "price must be a finite number, not str"),
        ({"price": math.nan}, "price must be a finite number"),
        ({"price": decimal.Decimal("sNaN")}, "price must be a finite number"),
        ({"price": 10**400}, "price must be a finite number"),
        ({"revenue": "much"}, "revenue must be a finite number"),
        ({"quantity": 1.5}, "quantity must be a whole number"),
        ({"event_type": "$identify", "user_properties": {"$set": 1}}, r"user_properties\.\$set must be a map"),
        ({"event_type": "$identify", "user_properties": {"$add": {"n": "1"}}}, r"user_properties\.\$add\.n must be a finite number"),
        ({"event_type": "$identify", "user_properties": {"$add": {"n": math.nan}}}, r"user_properties\.\$add\.n must be"),
        ({"event_type": "$groupidentify", "group_properties": {"$set": {"a": 1}}}, "groups is missing"),
    ],
)
def test_what_amplitude_would_refuse_is_refused(keys: dict[str, Any], words: str) -> None:
    """The message names field and rule."""
    error = refusal(**keys)
    assert error.reason == "invalid"
    with pytest.raises(InvalidEventError, match=words):
        raise error


def test_an_id_does_not_show_in_its_error() -> None:
    """Messages are logged, and ids are not."""
    assert "abcd" not in str(refusal(user_id="abcd"))
    assert "alice" not in str(refusal(user_id="alice\x1b[31m"))


@given(
    st.text(st.characters(), min_size=1, max_size=40) | strategies.ids.filter(lambda value: type(value) is str and len(value) <= MAX_STRING)
)
def test_an_id_is_one_wherever_it_comes_from(text: str) -> None:
    """What the resolver takes from a header or a span is what an event may hold, and as it is."""
    found = clean_id(text)
    held = event(user_id=text, device_id="device-1")
    if found is None and text.strip():
        with pytest.raises(InvalidEventError, match="user_id"):
            check_event(held, 1)
    else:
        check_event(held, 1)
        assert held.get("user_id") == found


@pytest.mark.parametrize("nobody", [{}, {"user_id": None}, {"user_id": "", "device_id": "   "}])
def test_an_event_of_nobody_is_told_apart(nobody: dict[str, Any]) -> None:
    """Absent and empty ids count as `no_identity`."""
    with pytest.raises(InvalidEventError, match="user_id and device_id are missing") as caught:
        check_event({"event_type": "Order Paid", **nobody})
    assert caught.value.reason == "no_identity"


def test_the_least_length_of_ids_is_an_option() -> None:
    """It is what the server is told in `options.min_id_length`."""
    assert check_event(event(user_id="ab"), 2) == []
    with pytest.raises(InvalidEventError, match="must have 7 to 1,024: set min_id_length"):
        check_event(event(user_id="abcdef"), 7)


def test_identify_operations_are_kept_and_unknown_ones_removed() -> None:
    """$unset and $clearAll get the value that Amplitude's SDKs send."""
    after, removed = checked(
        event_type="$identify",
        user_properties={
            "$set": {"plan": "pro"},
            "$add": {"n": decimal.Decimal(1)},
            "$unset": {"old": None, "older": 1},
            "$push": {"x": 1},
        },
    )
    assert after.user_properties == {"$set": {"plan": "pro"}, "$add": {"n": 1.0}, "$unset": {"old": "-", "older": "-"}}
    assert removed == ["user_properties.$push"]
    after, removed = checked(event_type="$identify", user_properties={"$clearAll": True})
    assert (after.user_properties, removed) == ({"$clearAll": "-"}, [])
    after, removed = checked(event_type="$identify", user_properties={"plan": "pro"})
    assert (after.user_properties, removed) == ({"plan": "pro"}, [])


@pytest.mark.parametrize("operation", sorted(OPERATIONS - {"$set", "$clearAll"}))
def test_groups_know_every_operation(operation: str) -> None:
    """As Amplitude's SDKs send them; all but $unset keep their values."""
    held = {"$set": {"plan": "pro"}, operation: {"x": 1}}
    after, removed = checked(event_type="$groupidentify", groups={"org": "acme"}, group_properties=held)
    assert (after.group_properties, removed) == ({**held, operation: {"x": "-" if operation == "$unset" else 1}}, [])


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"$append": {"a": 1}, "b": 2}, {"$append": {"a": 1}, "$set": {"b": 2}}),
        ({"$set": {"a": 1}, "a": 2, "b": 2}, {"$set": {"b": 2, "a": 1}}),
        ({"$add": {"a": 1}, "a": 2}, {"$add": {"a": 1}}),
        ({"b": 2}, {"b": 2}),
    ],
)
@pytest.mark.parametrize("kind", ["$identify", "$groupidentify"])
def test_plain_properties_beside_operations_are_set(given: dict[str, Any], sent: dict[str, Any], kind: str) -> None:
    """A property has one operation for each event: what has one already stands."""
    field = "user_properties" if kind == "$identify" else "group_properties"
    noted: list[tuple[str, str]] = []
    held = event(event_type=kind, groups={"org": "acme"}, **{field: copy.deepcopy(given)})
    assert check_event(held, note=lambda *note: noted.append(note)) == []
    assert held[field] == sent
    assert noted == ([("operations", field)] if sent != given or len(given) > 1 else [])


def test_plain_properties_beside_operations_of_other_events_stay_plain() -> None:
    """Only $identify carries operations out; elsewhere $set is what a plain property does."""
    after, removed = checked(user_properties={"$set": {"a": 1}, "$add": {"n": 1}, "b": 2})
    assert (after.user_properties, removed) == ({"a": 1, "b": 2}, ["user_properties.$add"])


def test_clear_all_takes_the_place_of_all_others() -> None:
    """As in Amplitude's SDKs."""
    after, removed = checked(event_type="$identify", user_properties={"$set": {"a": 1}, "$clearAll": True, "b": 2})
    assert (after.user_properties, removed) == ({"$clearAll": "-"}, ["user_properties.$set"])


NOW_MS: Final = 1_795_305_661_234


@pytest.mark.parametrize(
    ("given", "ms", "noted"),
    [
        (NOW_MS, NOW_MS, None),
        (float(NOW_MS) + 0.5, NOW_MS, None),
        (NOW_MS // 1000, NOW_MS // 1000 * 1000, "seconds"),
        (NOW_MS / 1000, NOW_MS, "seconds"),
        (NOW_MS * 1000 + 7, NOW_MS, "microseconds"),
        (NOW_MS * 1_000_000 + 7, NOW_MS, "nanoseconds"),
        (str(NOW_MS), NOW_MS, None),
        ("1795305661.234", NOW_MS, "seconds"),
        ("2026-11-22T00:01:01.234Z", NOW_MS, None),
        ("2026-11-22T02:01:01.234999+02:00", NOW_MS, None),
        ("2026-11-22 00:01:01", NOW_MS - 234, "naive"),
        (dt.datetime(2026, 11, 22, 0, 1, 1, 234_000, tzinfo=dt.timezone.utc), NOW_MS, None),
        (dt.datetime(2026, 11, 22, 0, 1, 1, 234_000), NOW_MS, "naive"),
        (decimal.Decimal("1795305661.234"), NOW_MS, "seconds"),
    ],
    ids=str,
)
def test_a_time_in_any_unit_is_the_moment_it_means(given: object, ms: int, noted: str | None) -> None:
    """What was not milliseconds, or had no zone, is noted."""
    notes: list[tuple[str, str]] = []
    held = event(time=given, session_id=given)
    assert check_event(held, now_ms=NOW_MS, note=lambda *note: notes.append(note)) == []
    assert (held.time, held.session_id) == (ms, ms)
    assert notes == ([(noted, "time"), (noted, "session_id")] if noted else [])


@pytest.mark.parametrize(
    "given", [0, 1, -1, 2**70, 10**400, True, "yesterday", "", dt.datetime(1990, 1, 1), math.nan, dt.date.max, [NOW_MS]], ids=repr
)
def test_a_time_that_can_not_be_is_refused(given: object) -> None:
    """More than ten years ago, more than a day ahead, or no moment at all."""
    assert refusal(time=given).reason == "invalid_time"


@pytest.mark.parametrize(("days", "is_taken"), [(-3_650, True), (-3_660, False), (0.9, True), (1.1, False)])
def test_the_bounds_of_a_time(days: float, is_taken: bool) -> None:
    """Ten years back, one day ahead, by the clock of the application."""
    moment = time.time() * 1000 + days * 86_400_000
    if is_taken:
        assert check_event(event(time=int(moment))) == []
    else:
        assert refusal(time=int(moment)).reason == "invalid_time"


@pytest.mark.parametrize("given", [-1, "-1", -1.0])
def test_no_session_stays(given: object) -> None:
    """-1 is Amplitude's word for it."""
    assert checked(session_id=given)[0].session_id == -1


class Unreadable:
    """A key that forgets its hash."""

    asked = 0

    def __hash__(self) -> int:
        self.asked += 1
        if self.asked > 1:
            raise RuntimeError("no hash")
        return 1


def test_an_unreadable_event_is_unserializable() -> None:
    """Whatever a key or value does, only InvalidEventError comes out."""
    odd = event()
    odd[Unreadable()] = 1  # type: ignore[index]
    with pytest.raises(InvalidEventError, match="RuntimeError") as caught:
        check_event(odd)
    assert caught.value.reason == "unserializable"


# --------------------------------------------------------------------------------------------------------------- encoding


def test_bytes_are_the_event() -> None:
    """A good event is written as it is, without white space around it."""
    paid = event(time=1, event_properties={"näme": "wert", "n": 1.5, "ok": True, "list": ["a"]})
    body = encode_event(paid)
    assert (
        body
        == '{"event_type":"Order Paid","user_id":"u-12345","time":1,"event_properties":{"näme":"wert","n":1.5,"ok":true,"list":["a"]}}'.encode()
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, "NaN"),
        (2**53, 2**53),
        (2**53 + 1, str(2**53 + 1)),
        (-(2**53), -(2**53)),
        (2**70, str(2**70)),
        ("lone \udfff", "lone \ufffd"),
        ("x" * 1_025, "x" * 1_024),
        ("é" * 1_024, "é" * 1_024),
        ('"' * 600 + "b" * 600, '"' * 600 + "b" * 424),
        ("a null value", "a null value"),
        (b"x", "eA=="),
        (dt.datetime(2026, 1, 2), "2026-01-02T00:00:00"),
        (decimal.Decimal("1.5"), 1.5),
    ],
)
def test_what_the_encoder_lets_pass_or_refuses_is_cleaned(value: object, expected: object) -> None:
    """Even without the check before it."""
    body = encode_event(event(event_properties={"before": "ok", "value": value}))
    assert strict(body)["event_properties"] == {"before": "ok", "value": expected}


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"a": b"x", "b": None, "c": [1]}, {"a": "eA==", "c": [1]}),
        ({str(n): n for n in range(1_030)}, {str(n): n for n in range(1_024)}),
        ({"texts": ("a", "b"), "deep": [1, [2]]}, {"texts": ["a", "b"], "deep": [1, "[2]"]}),
        ({"texts": ["a"], "many": list(range(1_030))}, {"texts": ["a"], "many": list(range(1_000))}),
        ({"list": [float("nan"), 1]}, {"list": ["NaN", 1]}),
        ({"map": {"a": None, "b": [None, 1]}}, {"map": {"b": [1]}}),
    ],
)
def test_properties_are_cleaned_as_a_whole(properties: dict[str, Any], expected: dict[str, Any]) -> None:
    """None is left out, lists are cut and stay one deep, a property too many goes; a list of plain values is written as it is."""
    assert strict(encode_event(event(event_properties=properties)))["event_properties"] == expected


def test_long_texts_are_found_wherever_they_stand() -> None:
    """At the top, as a key, at the end, and of exactly one character too many."""
    for size in (MAX_STRING, MAX_STRING + 1, 3 * MAX_STRING):
        for filler in (0, 1, 500, 1_000, 1_025):
            given_event = event(event_properties={"f": "f" * filler, "x": "x" * size}, language="l" * size)
            written = strict(encode_event(given_event))
            assert len(written["language"]) == MAX_STRING
            assert len(written["event_properties"]["x"]) == MAX_STRING
    assert list(strict(encode_event(event(event_properties={"k" * 2_000: 1})))["event_properties"]) == ["k" * MAX_STRING]


def test_an_event_too_large_is_refused() -> None:
    """More than 64 KB is no event; the message tells both numbers."""
    with pytest.raises(InvalidEventError, match="must have at most 65,536") as caught:
        encode_event(event(event_properties={str(n): "x" * 1_000 for n in range(80)}))
    assert caught.value.reason == "too_large"


def test_what_can_not_be_written_is_unserializable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last resort still is an InvalidEventError."""
    monkeypatch.setattr("otel_amplitude.events.clean_properties", lambda *_, **__: {"still": b"bytes"})
    with pytest.raises(InvalidEventError, match="can not be written") as caught:
        encode_event(event(event_properties={"b": b"x"}))
    assert caught.value.reason == "unserializable"


def _assert_within(value: Any, depth: int, *, in_list: bool = False) -> None:
    assert value is not None
    if isinstance(value, str):
        assert len(value) <= MAX_STRING
    elif isinstance(value, list):
        assert not in_list
    if isinstance(value, (list, dict)):
        assert depth <= MAX_DEPTH
        for inner in value.values() if isinstance(value, dict) else value:
            _assert_within(inner, depth + 1, in_list=isinstance(value, list))


FIELDS = (*KEYS, "event can not be", "event has")


@given(strategies.odd_events)
def test_any_event_ends_in_json_or_in_a_reason(odd: dict[Any, Any]) -> None:
    """Bytes that parse strictly and keep the limits, or an error that names the field and why; never anything else."""
    refused = None
    try:
        removed = check_event(odd)
        body = encode_event(odd)
    except InvalidEventError as error:
        refused = error
    if refused is not None:
        assert str(refused).startswith(FIELDS)
        assert refused.reason in {"invalid", "invalid_time", "no_identity", "too_large", "unserializable"}
        return
    assert all(isinstance(name, str) for name in removed)
    assert len(body) <= MAX_EVENT_BYTES
    written = strict(body)
    assert set(written) <= set(KEYS)
    for value in written.values():
        _assert_within(value, 1)


@given(strategies.odd_events)
def test_a_checked_event_passes_again(odd: dict[Any, Any]) -> None:
    """The check leaves nothing to mend or to remove."""
    try:
        check_event(odd)
    except InvalidEventError:
        return
    written = strict(encode_event(odd))
    assert check_event(odd) == []
    assert strict(encode_event(odd)) == written


# ---------------------------------------------------------------------------------------------------------------- helpers


def test_identify_builds_every_operation() -> None:
    """Names and values are Amplitude's, and the check agrees with them."""
    changes = (
        Identify()
        .set("a", 1)
        .set_once("b", "x")
        .add("c", -1.5)
        .append("d", [1])
        .prepend("e", 1)
        .pre_insert("f", 1)
        .post_insert("g", 1)
        .remove("h", 1)
        .unset("i")
        .set("j", 2)
        .to_dict()
    )
    assert changes == {
        "$set": {"a": 1, "j": 2},
        "$setOnce": {"b": "x"},
        "$add": {"c": -1.5},
        "$append": {"d": [1]},
        "$prepend": {"e": 1},
        "$preInsert": {"f": 1},
        "$postInsert": {"g": 1},
        "$remove": {"h": 1},
        "$unset": {"i": "-"},
    }
    after, removed = checked(event_type="$identify", user_properties=copy.deepcopy(changes))
    assert (after.user_properties, removed) == (changes, [])
    assert Identify().clear_all().to_dict() == {"$clearAll": "-"}


@pytest.mark.parametrize(
    ("build", "changes", "words"),
    [
        (lambda: Identify().set("a", 1).add("a", 1), {"$set": {"a": 1}}, "'a' already has an operation"),
        (lambda: Identify().add("a", "1"), {}, "$add.a must be a finite number, not str"),
        (lambda: Identify().add("a", math.inf), {}, "must be a finite number"),
        (lambda: Identify().set("", 1), {}, "a text that is not empty"),
        (lambda: Identify().set(3, 1), {}, "a text that is not empty"),
        (lambda: Identify().set("a", 1).clear_all(), {"$clearAll": "-"}, "$clearAll must be the only operation"),
        (lambda: Identify().clear_all().unset("a"), {"$clearAll": "-"}, "$unset of 'a' can not follow"),
    ],
)
def test_identify_leaves_out_what_amplitude_ignores(build: Any, changes: dict[str, Any], words: str) -> None:
    """Like the SDKs, but it tells, naming the property; the application never sees an exception."""
    identify = build()
    assert identify.to_dict() == changes
    (problem,) = identify.problems
    assert words in problem


def test_revenue_is_the_event_of_the_sdks() -> None:
    """Type `revenue_amount`, dollar names, only what was given."""
    sale = Revenue(
        price=12.5, quantity=2, product_id="p", revenue_type="purchase", currency="EUR", receipt="r", receipt_sig="s", properties={"a": 1}
    )
    assert sale.to_event("u-12345", time=5) == {
        "event_type": "revenue_amount",
        "user_id": "u-12345",
        "time": 5,
        "event_properties": {
            "a": 1,
            "$productId": "p",
            "$quantity": 2,
            "$price": 12.5,
            "$revenueType": "purchase",
            "$receipt": "r",
            "$receiptSig": "s",
            "$currency": "EUR",
        },
    }
    assert Revenue(revenue=-3).to_event(device_id="d-12345").event_properties == {"$quantity": 1, "$revenue": -3}


@pytest.mark.parametrize(
    ("given_values", "words"),
    [
        ({}, "$price is missing"),
        ({"price": "1"}, "$price must be a finite number, not str"),
        ({"revenue": math.nan}, "$revenue must be a finite number"),
        ({"price": 1, "quantity": 1.5}, "$quantity must be a whole number"),
    ],
)
def test_a_revenue_that_is_no_amount_is_refused(given_values: dict[str, Any], words: str) -> None:
    """By the check, never by the builder; the message names the field."""
    with pytest.raises(InvalidEventError, match=re.escape(f"event_properties.{words}")):
        check_event(Revenue(**given_values).to_event("u-12345"))


def test_a_revenue_is_mended_where_that_is_honest() -> None:
    """Decimals become numbers, a currency capitals; one that is none is left out, and told."""
    sale = Revenue(price=decimal.Decimal("2.5"), quantity=decimal.Decimal(2), currency="eur").to_event("u-12345")
    assert check_event(sale) == []
    assert sale.event_properties == {"$price": 2.5, "$quantity": 2, "$currency": "EUR"}
    sale = Revenue(revenue=1, currency="euro").to_event("u-12345")
    assert check_event(sale) == ["event_properties.$currency"]
    assert check_event(Event(event_type="revenue_amount", user_id="u-12345", price=3)) == []
