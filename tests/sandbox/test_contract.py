"""The contract, as tables from the ingestion reference."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_amplitude.sandbox import _contract as contract
from otel_amplitude.sandbox._contract import BATCH, GROUPIDENTIFY, HTTPAPI, IDENTIFY, Reading

NOW = 1_795_305_700_000
GOOD = {
    "event_type": "Order Placed",
    "user_id": "customer-42",
    "device_id": "device-0001",
    "time": NOW - 1_000,
    "insert_id": "one",
}


def everyone(_key: str) -> bool:
    """Every key is known."""
    return True


def read(*events: Any, endpoint: contract.Endpoint = HTTPAPI, **more: Any) -> Reading:
    """Read an upload of these events."""
    body = json.dumps({"api_key": "some-key", "events": list(events), **more}).encode()
    return contract.read_upload(endpoint, body, NOW, everyone)


def good(**fields: Any) -> dict[str, Any]:
    """The good event, with other fields."""
    return {**GOOD, **fields}


def without(*names: str, **fields: Any) -> dict[str, Any]:
    """The good event, without some fields."""
    return {name: value for name, value in good(**fields).items() if name not in names}


def nested(depth: int) -> dict[str, Any]:
    """An object of this depth."""
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"in": value}
    return value


def test_a_good_event_is_accepted_without_a_remark() -> None:
    """A complete event gets the documented body of a 200 and no findings."""
    reading = read(GOOD)
    assert (reading.status, reading.body["code"], reading.body["events_ingested"], reading.findings) == (200, 200, 1, [[]])
    assert reading.body["payload_size_bytes"] == len(json.dumps({"api_key": "some-key", "events": [GOOD]}))
    assert all(type(value) is int for value in reading.body.values())


ENVELOPES = {
    b"": ("Missing request body", None),
    b"   ": ("Missing request body", None),
    b"{": ("Invalid JSON request body", None),
    b"[]": ("Invalid JSON request body", None),
    b'{"api_key": "k", "events": [{"price": NaN}]}': ("Invalid JSON request body", None),
    b'{"api_key": "k", "events": [{"price": -Infinity}]}': ("Invalid JSON request body", None),
    b'{"api_key": "k", "events": [{"a": "\\ud800"}]}': ("Invalid JSON request body", None),
    b'{"api_key": "k", "events": [{"a": "\xff"}]}': ("Invalid JSON request body", None),
    b"[" * 100_000: ("Invalid JSON request body", None),
    b"9" * 10_000: ("Invalid JSON request body", None),
    b'{"events": [{}]}': ("Request missing required field", "api_key"),
    b'{"api_key": "", "events": [{}]}': ("Request missing required field", "api_key"),
    b'{"api_key": 7, "events": [{}]}': ("Request missing required field", "api_key"),
    b'{"api_key": "k"}': ("Request missing required field", "events"),
    b'{"api_key": "k", "events": []}': ("Request missing required field", "events"),
    b'{"api_key": "k", "events": {}}': ("Invalid event JSON", None),
    b'{"api_key": "k", "events": [1]}': ("Invalid event JSON", None),
}


@pytest.mark.parametrize(
    ("body", "error", "missing"), [(body, *answer) for body, answer in ENVELOPES.items()], ids=lambda value: str(value)[:40]
)
def test_broken_envelopes(body: bytes, error: str, missing: str | None) -> None:
    """Each way to break the envelope has its documented error, and missing_field only where one is missing."""
    reading = contract.read_upload(HTTPAPI, body, NOW, everyone)
    assert (reading.status, reading.body["code"], reading.body["error"], reading.body["missing_field"]) == (400, 400, error, missing)
    assert reading.reason


def test_an_unknown_key_is_echoed() -> None:
    """Amplitude repeats the key in its answer, which is why clients must redact it."""
    reading = contract.read_upload(HTTPAPI, b'{"api_key": "secret-key", "events": [{}]}', NOW, lambda key: key == "other")
    assert (reading.status, reading.body["error"]) == (400, "Invalid API key: secret-key")
    assert "secret-key" not in reading.reason


REFUSED = [
    (without("event_type"), contract.MISSING, "event_type"),
    (good(event_type=""), contract.MISSING, "event_type"),
    (good(event_type="  "), contract.INVALID, "event_type"),
    (good(event_type=7), contract.INVALID, "event_type"),
    (good(event_type="[Amplitude] Revenue"), contract.INVALID, "event_type"),
    (without("user_id", "device_id"), contract.MISSING, "device_id"),
    (good(user_id=12345), contract.INVALID, "user_id"),
    (good(user_id="abcd"), contract.LENGTH, "user_id"),
    (good(device_id="abcd"), contract.LENGTH, "device_id"),
    (good(user_id=""), contract.INVALID, "user_id"),
    (good(device_id="0000-0000-0000"), contract.INVALID, "device_id"),
    (good(time="2026-11-22T10:00:00Z"), contract.INVALID, "time"),
    (good(time=1.5), contract.INVALID, "time"),
    (good(time=True), contract.INVALID, "time"),
    (good(time=-1), contract.INVALID, "time"),
    (good(time=2**63), contract.INVALID, "time"),
    (good(session_id="1795305600000"), contract.INVALID, "session_id"),
    (good(event_properties=[1]), contract.INVALID, "event_properties"),
    (good(event_properties=nested(41)), contract.INVALID, "event_properties"),
    (good(groups="acme"), contract.INVALID, "groups"),
    (good(price="7"), contract.INVALID, "price"),
    (good(quantity=1.5), contract.INVALID, "quantity"),
    (good(**{"$skip_user_properties_sync": "yes"}), contract.INVALID, "$skip_user_properties_sync"),
    *((good(user_id=value), contract.INVALID, "user_id") for value in contract.INVALID_IDS),
    *((good(device_id=f" {value.upper()} "), contract.INVALID, "device_id") for value in ("none", "unknown", "n/a")),
]


@pytest.mark.parametrize(("event", "kind", "field"), REFUSED, ids=lambda value: str(value)[:50])
def test_refused_events(event: dict[str, Any], kind: str, field: str) -> None:
    """A bad event refuses the whole request, its good neighbour too, and is named by position and field, with a reason in words."""
    reading = read(GOOD, event)
    assert (reading.status, reading.body["error"]) == (400, "Invalid field values on some events")
    assert reading.body[kind][field] == [1]
    assert reading.findings[0] == []
    assert all(finding.words.endswith(".") for finding in reading.findings[1])


CHANGED = [
    (without("time"), "time", "moment of the upload"),
    (good(app_version=None), "app_version", "null"),
    (good(colour="red"), "colour", "event_properties"),
    (good(platform="Web"), "platform", "os_name"),
    (good(country="DE"), "country", "region, city, dma"),
    (good(ip="$remote"), "ip", "address of the sender"),
    (good(price=1, quantity=2, revenue=3.0), "revenue", "price times quantity"),
    (good(productId="book"), "productId", "need a revenue"),
    (good(groups={str(number): "x" for number in range(6)}), "groups", "only 5"),
    (good(groups={"org": [str(number) for number in range(11)]}), "groups", "only 10"),
    (good(group_properties={"a": 1}), "group_properties", "$groupidentify"),
    (good(user_properties={"$set": {"a": 1}}), "user_properties", "$identify"),
    (good(event_type="$identify", user_properties={"$set": {}, "plan": 1}), "user_properties", "mixed"),
    (good(event_type="$identify", user_properties={"$clearAll": "-", "$set": {}}), "user_properties", "alone"),
    (good(event_type="$identify", user_properties={"$fly": {}}), "user_properties", "no operation"),
    (good(event_type="$groupidentify", group_properties={"$remove": {}}), "group_properties", "no operation"),
    (good(event_properties={"long": "x" * 1_025}), "event_properties", "cut to 1,024"),
    (good(event_properties={"many": ["x" * 1_025]}), "event_properties", "cut to 1,024"),
    (good(event_properties={"big": 2**53 + 1}), "event_properties", "2^53"),
]
NOTED = [
    (without("device_id"), "device_id", "hash of the user_id"),
    (without("insert_id"), "insert_id", "counted twice"),
    (good(time=NOW // 1_000), "time", "seconds"),
    (good(time=NOW + 2 * contract.DAY_MS), "time", "future"),
    (good(time=NOW - 31 * contract.DAY_MS), "time", "48 hours"),
    (good(session_id=-1), "session_id", "no session"),
    (good(revenue=1, currency="euro"), "currency", "ISO 4217"),
    (good(event_properties={"gone": None}), "event_properties", "null"),
    (good(event_properties={"rows": [[1]]}), "event_properties", "list inside a list"),
]


@pytest.mark.parametrize(
    ("event", "kind", "field", "words"),
    [*((event, contract.CHANGE, *rest) for event, *rest in CHANGED), *((event, contract.NOTE, *rest) for event, *rest in NOTED)],
    ids=lambda value: str(value)[:50],
)
def test_changed_events(event: dict[str, Any], kind: str, field: str, words: str) -> None:
    """What Amplitude changes, or is good to know, is told in words and refuses nothing."""
    reading = read(event)
    assert reading.status == 200
    assert [(finding.kind, finding.field) for finding in reading.findings[0]] == [(kind, field)]
    assert words in reading.findings[0][0].words


UNREMARKABLE = [
    good(event_properties=nested(40)),
    good(event_properties={"$llm_message": {"text": "x" * 5_000}, "[Agent] Tool Input": "x" * 5_000}),
    good(event_properties={"list": [1, "a", {"b": True}]}),
    good(event_properties={f"p{number}": 1 for number in range(1_100)}),
    good(user_properties={"plan": "pro"}),
    good(event_type="$identify", user_properties={"$set": {"plan": "pro"}, "$add": {"n": 1}}),
    good(event_type="[Amplitude] Page Viewed", library="amplitude-ts/2.48.1", plan={"branch": "main"}),
    good(receipt={"any": "thing"}, delay=None),
    good(price=-1.5, quantity=1, productId="book", currency="EUR"),
    without("user_id"),
]


@pytest.mark.parametrize("event", UNREMARKABLE, ids=lambda value: str(value)[-60:])
def test_unremarkable_events(event: dict[str, Any]) -> None:
    """What the documentation allows is accepted as sent."""
    assert read(event).findings == [[]]


def test_remarks_are_bounded() -> None:
    """However much there is to remark, fifty remarks are made, and what refuses the event is never left out."""
    reading = read(good(event_properties=dict.fromkeys(map(str, range(900))), time="now", **dict.fromkeys(map(str, range(900)))))
    assert (reading.status, len(reading.findings[0]), reading.findings[0][0].field) == (400, 51, "time")


@pytest.mark.parametrize(("endpoint", "times", "types"), [(HTTPAPI, [1], [2]), (BATCH, [1, 3], [2, 4])], ids=["httpapi", "batch"])
def test_how_many_offenders_are_named(endpoint: contract.Endpoint, times: list[int], types: list[int]) -> None:
    """On httpapi the first offender of each field is named, on batch all are."""
    bad_time, bad_type = good(time="now"), good(event_type="")
    reading = read(GOOD, bad_time, bad_type, bad_time, bad_type, endpoint=endpoint)
    assert reading.body[contract.INVALID] == {"time": times}
    assert reading.body[contract.MISSING] == {"event_type": types}


def test_batch_takes_a_short_id_off() -> None:
    """On batch a too short id is taken off while the other id is good; on httpapi it refuses the request; alone it refuses both."""
    short = good(user_id="42")
    assert read(short).status == 400
    taken_off = read(short, endpoint=BATCH)
    assert (taken_off.status, taken_off.findings[0][0].kind) == (200, contract.CHANGE)
    assert read(without("device_id", user_id="42"), endpoint=BATCH).status == 400
    assert read(good(user_id="42", device_id="7"), endpoint=BATCH).status == 400
    assert read(good(user_id="42", device_id="none"), endpoint=BATCH).status == 400


@pytest.mark.parametrize(("length", "status"), [(2, 200), (0, 200), (3, 400), (None, 400), ("2", 400), (True, 400)])
def test_min_id_length(length: Any, status: int) -> None:
    """options.min_id_length replaces the five characters; anything but a whole number is as if left out."""
    assert read(good(user_id="42"), options={"min_id_length": length}).status == status
    assert read(good(), options=[length]).status == 200


def test_too_many_events() -> None:
    """2,000 events are taken, 2,001 are too large, on both endpoints."""
    for endpoint in (HTTPAPI, BATCH):
        assert read(*[GOOD] * 2_000, endpoint=endpoint).status == 200
        assert read(*[GOOD] * 2_001, endpoint=endpoint).body == {"code": 413, "error": "Payload too large"}


def test_too_many_bytes() -> None:
    """A megabyte is the limit on httpapi and twenty on batch, before anything is parsed."""
    for endpoint in (HTTPAPI, BATCH):
        assert contract.read_upload(endpoint, b"x" * endpoint.max_bytes, NOW, everyone).status == 400
        assert contract.read_upload(endpoint, b"x" * (endpoint.max_bytes + 1), NOW, everyone).status == 413


def test_gzip() -> None:
    """A gzip body is unpacked, in several members too; broken, cut, unknown and exploding bodies are refused with their status."""
    assert contract.unpack(b"plain", "") == contract.unpack(b"plain", "identity") == b"plain"
    packed = gzip.compress(b"first ") + gzip.compress(b"second")
    assert contract.unpack(packed, "gzip") == b"first second"
    bomb = gzip.compress(bytes(contract.MAX_DECODED + 1))
    for raw, encoding, status in ((b"x", "br", 415), (b"no gzip", "gzip", 400), (packed[:-9], "gzip", 400), (bomb, "gzip", 413)):
        with pytest.raises(contract.UndecodableError) as refused:
            contract.unpack(raw, encoding)
        assert refused.value.status == status


MULTIPART = (
    b'--line\r\nContent-Disposition: form-data; name="api_key"\r\n\r\nsome-key\r\n'
    b'--line\r\nContent-Disposition: form-data; name="identification"\r\nContent-Type: application/json\r\n\r\n'
    b'[{"user_id": "customer-42", "user_properties": {"plan": "pro"}}]\r\n--line--\r\n'
)
URLENCODED = (
    b"api_key=some-key&identification=%7B%22user_id%22%3A%22customer-42%22%2C%22user_properties%22%3A%7B%22plan%22%3A%22pro%22%7D%7D"
)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(URLENCODED, "application/x-www-form-urlencoded"), (MULTIPART, "multipart/form-data; boundary=line")],
    ids=["urlencoded", "multipart"],
)
def test_identify_forms(body: bytes, content_type: str) -> None:
    """Both kinds of form become the $identify event of the same effect; one object is as good as a list."""
    reading = contract.read_identify(IDENTIFY, body, content_type, NOW, everyone)
    assert (reading.status, reading.api_key) == (200, "some-key")
    assert reading.events == [{"event_type": "$identify", "user_id": "customer-42", "user_properties": {"plan": "pro"}}]


def test_odd_forms() -> None:
    """Parts without a name or a body are passed over, and of equal names the first one counts, in both kinds of form."""
    nameless = b"--line\r\nX: y\r\n\r\nvalue\r\n"
    bodiless = b'--line\r\nContent-Disposition: form-data; name="api_key"\r\n'
    assert contract.read_form(nameless + bodiless + MULTIPART + MULTIPART, "multipart/form-data; boundary=line")["api_key"] == "some-key"
    assert contract.read_form(b"a=first&a=second&b=", "application/x-www-form-urlencoded") == {"a": "first", "b": ""}


IDENTIFY_REFUSED = [
    (b"api_key=some-key", "missing_event"),
    (b"api_key=some-key&identification=%7B", "missing_event"),
    (b"api_key=some-key&identification=%5B%5D", "missing_event"),
    (b"api_key=\xff", "missing_event"),
    (b"identification=%5B%7B%7D%5D", "Request missing required field"),
    (b"api_key=some-key&identification=%5B1%5D", "Invalid event JSON"),
    (b"api_key=some-key&identification=%7B%7D", "Invalid field values on some events"),
]


@pytest.mark.parametrize(("body", "error"), IDENTIFY_REFUSED)
def test_identify_refused(body: bytes, error: str) -> None:
    """Forms without what is needed are refused, with missing_event when the identification is not there or not readable."""
    reading = contract.read_identify(IDENTIFY, body, "application/x-www-form-urlencoded", NOW, everyone)
    assert (reading.status, reading.body["error"]) == (400, error)
    assert contract.read_identify(IDENTIFY, body, "multipart/form-data", NOW, everyone).body["error"] == "missing_event"


def test_group_identify() -> None:
    """A group identification needs no person; more than 1,024 or a megabyte are too large."""
    item = {"group_type": "org", "group_value": "acme", "group_properties": {"$set": {"plan": "pro"}}}

    def form(items: Any) -> bytes:
        return b"api_key=some-key&identification=" + json.dumps(items).encode()

    kind = "application/x-www-form-urlencoded"
    reading = contract.read_identify(GROUPIDENTIFY, form([item]), kind, NOW, everyone)
    assert (reading.status, reading.events[0]["event_type"], reading.events[0]["groups"]) == (200, "$groupidentify", {"org": "acme"})
    assert contract.read_identify(GROUPIDENTIFY, form([{}] * 1_025), kind, NOW, everyone).status == 413
    assert contract.read_identify(GROUPIDENTIFY, b"x" * 1_000_001, kind, NOW, everyone).status == 413
    assert contract.read_identify(GROUPIDENTIFY, form([1]), kind, NOW, everyone).body["error"] == "Invalid event JSON"


def test_a_429_names_the_events_of_its_ids() -> None:
    """throttled_events are the positions of every named id, by rate or by quota."""
    events = [good(device_id="quiet"), good(device_id="noisy"), good(device_id="quiet", user_id="spent")]
    body = contract.throttled(events, 30.0, devices={"noisy": 41}, quota_users={"spent": 500_200})
    assert (body["throttled_events"], body["eps_threshold"]) == ([1, 2], 30)
    assert (body["throttled_devices"], body["exceeded_daily_quota_users"]) == ({"noisy": 41}, {"spent": 500_200})
    assert contract.silenced(events, 30.0, ["quiet"])["silenced_events"] == [0, 2]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.sampled_from(sorted(contract.FIELDS)), inner, max_size=5)
    ),
    max_leaves=12,
)
events = st.dictionaries(st.sampled_from(sorted(contract.FIELDS)) | st.text(max_size=6), json_values, max_size=6)
uploads = st.fixed_dictionaries(
    {}, optional={"api_key": json_values, "events": st.lists(events, max_size=4) | json_values, "options": json_values}
)


@given(body=uploads | json_values, endpoint=st.sampled_from([HTTPAPI, BATCH]))
def test_any_json_gets_an_answer(body: Any, endpoint: contract.Endpoint) -> None:
    """Whatever JSON arrives: an answer that is JSON, 200, 400 or 413, with positions that exist and as many findings as events."""
    reading = contract.read_upload(endpoint, json.dumps(body).encode(), NOW, everyone)
    assert reading.status in (200, 400, 413)
    assert reading.body["code"] == reading.status
    assert json.loads(json.dumps(reading.body)) == reading.body
    assert len(reading.findings) == len(reading.events)
    for kind in contract.REFUSING:
        for positions in reading.body.get(kind, {}).values():
            assert set(positions) <= set(range(len(reading.events)))
    named = {position for kind in contract.REFUSING for positions in reading.body.get(kind, {}).values() for position in positions}
    assert (reading.status == 200) == (not named and not reading.reason)


@given(body=st.binary(max_size=200), content_type=st.sampled_from(["multipart/form-data; boundary=a", "application/x-www-form-urlencoded"]))
def test_any_form_gets_an_answer(body: bytes, content_type: str) -> None:
    """Whatever bytes arrive as a form: an answer."""
    assert contract.read_identify(IDENTIFY, body, content_type, NOW, everyone).status in (200, 400)


@given(
    events=st.lists(
        st.sampled_from([GOOD, good(time="now"), good(event_type=""), good(user_id="42"), good(device_id="none")]), min_size=1, max_size=8
    )
)
def test_removing_what_is_named_ends_in_acceptance(events: list[dict[str, Any]]) -> None:
    """A client that takes out what each 400 names gets its good events accepted, in at most as many rounds as events."""
    left = list(events)
    for _ in range(len(events) + 1):
        if not left:
            break
        reading = read(*left)
        if reading.status == 200:
            break
        named = {position for kind in contract.REFUSING for positions in reading.body[kind].values() for position in positions}
        assert named
        left = [event for position, event in enumerate(left) if position not in named]
    assert left == [event for event in events if event is GOOD or event == GOOD]
