"""The table of Amplitude's answers, row by row, and that nothing a server says can break it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.receipt import RESEND, Receipt, Split, Verdict
from otel_amplitude.errors import TransportError
from otel_amplitude.transport import Response
from otel_amplitude.wire._answers import read_receipt

NOW = 1_795_305_661.0
KEY = "0123456789abcdef0123456789abcdef"
# Six events: two of user A on phone, one of A on laptop, two of B, one of a device without user.
IDS = [("user-a", "phone"), ("user-b", "tablet"), ("user-a", "laptop"), ("user-b", "tablet"), ("user-a", "phone"), ("kiosk",)]
PARCELS = [Parcel(b"{}", ids, 0) for ids in IDS]


def receipt(
    status: int, body: object = None, *, parcels: list[Parcel] = PARCELS, retry_after: str | None = None, **options: Any
) -> Receipt:
    """What one answer means; the body is bytes, or JSON."""
    content = body if isinstance(body, bytes) else json.dumps({"code": status} if body is None else body).encode()
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return read_receipt(Response(status, headers, content), parcels, now=NOW, **options)


def short(found: Receipt) -> str:
    """One letter for each parcel: A acknowledged, H held, n neighbour, R retry and charged, r retry, else the reason it was rejected for."""
    letters = []
    for outcome in found.outcomes:
        if outcome.verdict is Verdict.ACKNOWLEDGED:
            letters.append("A")
        elif outcome.verdict is Verdict.REJECTED:
            letters.append(outcome.reason)
        elif outcome.hold:
            letters.append("H")
        elif outcome == RESEND:
            letters.append("n")
        else:
            letters.append("R" if outcome.charged else "r")
    return " ".join(letters)


def advice(found: Receipt) -> tuple[object, ...]:
    """What is said about the next request."""
    return (found.reason, found.split, found.server_fault, found.probing, found.pause)


ALL_AGAIN = "R R R R R R"
UNTOUCHED = "n n n n n n"
PROBE = "r r r r r r"

# From AI 6: status, body, one word for each parcel, then reason, split, server_fault, probing, pause.
TABLE = {
    "200": (200, {"code": 200, "events_ingested": 6}, "A A A A A A", ("acknowledged", Split.NO, False, False, None)),
    "202 with Amplitude's word": (202, {"code": 200}, "A A A A A A", ("acknowledged", Split.NO, False, False, None)),
    "200 with HTML": (200, b"<html>Sign in</html>", ALL_AGAIN, ("unknown", Split.NO, True, False, None)),
    "200 without body": (200, b"", ALL_AGAIN, ("unknown", Split.NO, True, False, None)),
    "200 cut off": (200, b'{"code":200', ALL_AGAIN, ("unknown", Split.NO, True, False, None)),
    "200 with a list": (200, [200], ALL_AGAIN, ("unknown", Split.NO, True, False, None)),
    "200 without code": (200, {"ok": True}, ALL_AGAIN, ("unknown", Split.NO, True, False, None)),
    "200 with code 400": (
        200,
        {"code": 400, "events_with_invalid_fields": {"time": [0]}},
        ALL_AGAIN,
        ("unknown", Split.NO, True, False, None),
    ),
    "200 with code as text": (200, {"code": "200"}, ALL_AGAIN, ("unknown", Split.NO, True, False, None)),
    "200 with code true": (200, {"code": True}, ALL_AGAIN, ("unknown", Split.NO, True, False, None)),
    "204": (204, b"", ALL_AGAIN, ("unknown", Split.NO, True, False, None)),
    "301": (301, None, ALL_AGAIN, ("redirect", Split.NO, True, False, None)),
    "302": (302, {"code": 200}, ALL_AGAIN, ("redirect", Split.NO, True, False, None)),
    "304": (304, b"", ALL_AGAIN, ("redirect", Split.NO, True, False, None)),
    "101": (101, b"", ALL_AGAIN, ("server_error", Split.NO, True, False, None)),
    "999": (999, None, ALL_AGAIN, ("server_error", Split.NO, True, False, None)),
    "500": (500, None, ALL_AGAIN, ("server_error", Split.NO, True, False, None)),
    "501": (501, None, ALL_AGAIN, ("server_error", Split.NO, True, False, None)),
    "502 with HTML": (502, b"<html>", ALL_AGAIN, ("server_error", Split.NO, True, False, None)),
    "503 saying 200": (503, {"code": 200}, ALL_AGAIN, ("server_error", Split.NO, True, False, None)),
    "504": (504, None, ALL_AGAIN, ("server_error", Split.NO, True, False, None)),
    **{str(status): (status, None, ALL_AGAIN, ("server_error", Split.NO, True, False, None)) for status in (408, 421, 423, 425, 449)},
    "bad key": (400, {"code": 400, "error": "Invalid API key"}, PROBE, ("invalid_api_key", Split.NO, True, True, 60.0)),
    "bad key, echoed": (400, {"code": 400, "error": f"Invalid API key: {KEY}"}, PROBE, ("invalid_api_key", Split.NO, True, True, 60.0)),
    "401": (401, None, PROBE, ("wrong_endpoint", Split.NO, True, True, 60.0)),
    "404": (404, b"<html>", PROBE, ("wrong_endpoint", Split.NO, True, True, 60.0)),
    "405": (405, None, PROBE, ("wrong_endpoint", Split.NO, True, True, 60.0)),
    "407": (407, None, PROBE, ("wrong_endpoint", Split.NO, True, True, 60.0)),
    "missing field": (
        400,
        {"code": 400, "error": "Request missing required field", "missing_field": "events"},
        "invalid invalid invalid invalid invalid invalid",
        ("invalid", Split.NO, False, False, None),
    ),
    "missing field of the wrong type": (400, {"missing_field": ["events"]}, UNTOUCHED, ("invalid", Split.BISECT, False, False, None)),
    "one invalid field": (
        400,
        {"code": 400, "error": "Invalid field values on some events", "missing_field": None, "events_with_invalid_fields": {"time": [3]}},
        "n n n invalid n n",
        ("invalid", Split.NO, False, False, None),
    ),
    "the documented 400": (
        400,
        {
            "code": 400,
            "error": "Invalid field values on some events",
            "missing_field": None,
            "events_with_invalid_fields": {"time": [3]},
            "events_with_missing_fields": {"event_type": [5]},
            "events_with_invalid_id_lengths": {"user_id": [0], "device_id": [1, 0]},
        },
        "invalid invalid n invalid n invalid",
        ("invalid", Split.NO, False, False, None),
    ),
    "nobody named": (400, {"code": 400, "error": "Invalid JSON request body"}, UNTOUCHED, ("invalid", Split.BISECT, False, False, None)),
    "empty lists": (400, {"code": 400, "events_with_invalid_fields": {}}, UNTOUCHED, ("invalid", Split.BISECT, False, False, None)),
    "400 with HTML": (400, b"<html>", UNTOUCHED, ("invalid", Split.BISECT, False, False, None)),
    "position out of range": (400, {"events_with_invalid_fields": {"time": [6]}}, UNTOUCHED, ("invalid", Split.BISECT, False, False, None)),
    "negative position": (400, {"events_with_invalid_fields": {"time": [-1]}}, UNTOUCHED, ("invalid", Split.BISECT, False, False, None)),
    "one position makes sense, one does not": (
        400,
        {"events_with_invalid_fields": {"time": [0]}, "events_with_missing_fields": {"event_type": [77]}},
        UNTOUCHED,
        ("invalid", Split.BISECT, False, False, None),
    ),
    "position as text": (400, {"events_with_invalid_fields": {"time": ["0"]}}, UNTOUCHED, ("invalid", Split.BISECT, False, False, None)),
    "position as a boolean": (
        400,
        {"events_with_invalid_fields": {"time": [True]}},
        UNTOUCHED,
        ("invalid", Split.BISECT, False, False, None),
    ),
    "position as a float": (400, {"events_with_invalid_fields": {"time": [1.0]}}, UNTOUCHED, ("invalid", Split.BISECT, False, False, None)),
    "a list instead of fields": (400, {"events_with_invalid_fields": [0]}, UNTOUCHED, ("invalid", Split.BISECT, False, False, None)),
    "a number instead of positions": (
        400,
        {"events_with_invalid_fields": {"time": 0}},
        UNTOUCHED,
        ("invalid", Split.BISECT, False, False, None),
    ),
    "silenced": (
        400,
        {"code": 400, "error": "Events silenced for device_id", "silenced_devices": ["tablet"], "silenced_events": [1]},
        "n silenced n silenced n n",
        ("silenced", Split.NO, False, False, None),
    ),
    "silenced by position only": (400, {"silenced_events": [5]}, "n n n n n silenced", ("silenced", Split.NO, False, False, None)),
    "silenced and throttled": (
        400,
        {
            "silenced_events": [1],
            "throttled_events": [0, 4],
            "throttled_devices": {"phone": 44},
            "exceeded_daily_quota_devices": {"kiosk": 9},
        },
        "H silenced n n H quota",
        ("silenced", Split.NO, False, False, None),
    ),
    "silenced devices in no way we know": (400, {"silenced_devices": {"a": 1}}, UNTOUCHED, ("invalid", Split.BISECT, False, False, None)),
    "throttled by position": (429, {"throttled_events": [1, 3]}, "n H n H n n", ("throttled", Split.NO, False, False, None)),
    "throttled by device": (429, {"throttled_devices": {"phone": 41}}, "H n n n H n", ("throttled", Split.NO, False, False, None)),
    "throttled by user": (
        429,
        {"throttled_users": {"user-a": 41}, "throttled_events": [0]},
        "H n H n H n",
        ("throttled", Split.NO, False, False, None),
    ),
    "daily quota": (
        429,
        {"exceeded_daily_quota_users": {"user-b": 500_200}},
        "n quota n quota n n",
        ("quota", Split.NO, False, False, None),
    ),
    "quota of a device": (429, {"exceeded_daily_quota_devices": {"kiosk": 1}}, "n n n n n quota", ("quota", Split.NO, False, False, None)),
    "the documented 429": (
        429,
        {
            "code": 429,
            "error": "Too many requests for some devices and users",
            "eps_threshold": 30,
            "throttled_devices": {"phone": 41},
            "throttled_users": {"user-a": 41},
            "throttled_events": [0, 2],
            "exceeded_daily_quota_devices": {},
            "exceeded_daily_quota_users": {"user-b": 500_200},
        },
        "H quota H quota H n",
        ("quota", Split.NO, False, False, None),
    ),
    "throttled all": (429, {"throttled_events": [0, 1, 2, 3, 4, 5]}, "H H H H H H", ("throttled", Split.NO, False, False, None)),
    "throttled project": (429, {"code": 429, "throttled_events": []}, ALL_AGAIN, ("throttled", Split.NO, True, False, 60.0)),
    "throttled strangers": (429, {"throttled_devices": {"unheard-of": 99}}, ALL_AGAIN, ("throttled", Split.NO, True, False, 60.0)),
    "throttled out of range": (429, {"throttled_events": [6]}, ALL_AGAIN, ("throttled", Split.NO, True, False, 60.0)),
    "throttled, senseless positions beside a device": (
        429,
        {"throttled_events": "all", "throttled_devices": {"kiosk": 31}},
        "n n n n n H",
        ("throttled", Split.NO, False, False, None),
    ),
    "throttled, lists of the wrong type": (
        429,
        {"throttled_devices": ["phone"], "throttled_users": "user-a", "exceeded_daily_quota_users": 7},
        ALL_AGAIN,
        ("throttled", Split.NO, True, False, 60.0),
    ),
    "throttled with HTML": (429, b"<html>", ALL_AGAIN, ("throttled", Split.NO, True, False, 60.0)),
    "413": (413, {"code": 413, "error": "Payload too large"}, UNTOUCHED, ("too_large", Split.SMALLER, False, False, None)),
    "413 with HTML": (413, b"<html>", UNTOUCHED, ("too_large", Split.SMALLER, False, False, None)),
    "403": (403, {"code": 403, "error": "Forbidden"}, UNTOUCHED, ("forbidden", Split.ONCE, False, False, None)),
    "402": (402, None, UNTOUCHED, ("forbidden", Split.ONCE, False, False, None)),
    "415": (415, None, UNTOUCHED, ("forbidden", Split.ONCE, False, False, None)),
    "451": (451, None, UNTOUCHED, ("forbidden", Split.ONCE, False, False, None)),
}


@pytest.mark.parametrize(("status", "body", "outcomes", "next_request"), TABLE.values(), ids=TABLE)
def test_each_answer(status: int, body: object, outcomes: str, next_request: tuple[object, ...]) -> None:
    """Status and body decide what becomes of each of six events, and of the next request."""
    found = receipt(status, body)
    assert short(found) == outcomes
    assert advice(found) == next_request
    assert found.status == status


@pytest.mark.parametrize(("status", "reason"), [(400, "invalid"), (403, "forbidden"), (418, "forbidden")])
def test_one_event_alone_is_the_culprit(status: int, reason: str) -> None:
    """What can not be divided is rejected, with the word for the books."""
    found = receipt(status, parcels=PARCELS[:1])
    assert (short(found), found.split) == (reason, Split.NO)


@pytest.mark.parametrize(
    ("field", "outcomes"),
    [
        ("throttled_users", "H n H n"),
        ("throttled_devices", "n H n H"),
        ("exceeded_daily_quota_users", "quota n quota n"),
        ("exceeded_daily_quota_devices", "n quota n quota"),
    ],
)
def test_a_user_is_not_a_device_of_the_same_name(field: str, outcomes: str) -> None:
    """Whether an id stands alone or beside another."""
    parcels = [
        Parcel(b'{"user_id":"4711-abc"}', ("4711-abc",), 0),
        Parcel(b'{"device_id":"4711-abc"}', ("4711-abc",), 0),
        Parcel(b"{}", ("4711-abc", "phone"), 0),
        Parcel(b"{}", ("user-a", "4711-abc"), 0),
    ]
    assert short(receipt(429, {field: {"4711-abc": 500_200}}, parcels=parcels)) == outcomes


def test_a_silenced_device_silences_no_user_of_its_name() -> None:
    """Devices alone are named in a 400."""
    parcels = [Parcel(b'{"user_id":"4711-abc"}', ("4711-abc",), 0), Parcel(b'{"device_id":"4711-abc"}', ("4711-abc",), 0)]
    assert short(receipt(400, {"silenced_devices": ["4711-abc"]}, parcels=parcels)) == "n silenced"


def test_no_answer_is_a_fault_of_the_way() -> None:
    """Everyone waits; the error is kept for `on_retry`."""
    error = TransportError("127.0.0.1:1: connection refused")
    found = read_receipt(error, PARCELS)
    assert (short(found), advice(found)) == (ALL_AGAIN, ("unreachable", Split.NO, True, False, None))
    assert (found.status, found.response) == (None, error)


def test_the_answer_is_kept_and_the_echoed_key_is_not_shown() -> None:
    """`on_retry` may read the response; its repr is safe to log."""
    found = receipt(400, {"error": f"Invalid API key: {KEY}"})
    assert KEY.encode() in found.response.body
    assert KEY not in repr(found)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7.0),
        (" 0 ", 0.0),
        ("300", 300.0),
        ("86400", 300.0),
        ("9" * 64, 300.0),
        ("Sun, 22 Nov 2026 00:01:31 GMT", 30.0),
        ("Sun, 22 Nov 2026 00:01:31 -0000", 30.0),
        ("Sunday, 22-Nov-26 00:01:31 GMT", 30.0),
        ("Sun, 22 Nov 2026 00:00:00 GMT", 0.0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 300.0),
        ("-1", None),
        ("1.5", None),
        ("1e3", None),
        ("٣", None),
        ("²", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        ("Sun, 99 Nov 2026 00:01:31 GMT", None),
        ("Fri, 31 Dec 99999999999999999999 00:00:00 GMT", None),
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    """Seconds or a date, never more than five minutes, and nonsense is as if it were not there."""
    now = 1_795_305_661.0  # Sun, 22 Nov 2026 00:01:01 GMT
    assert receipt(503, retry_after=text).pause == seconds, now


@pytest.mark.parametrize("status", [200, 302, 408, 429, 500, 503])
def test_faults_of_the_server_obey_retry_after(status: int) -> None:
    """A server's delay is a minimum for everyone; for a throttled project it replaces the minute."""
    assert receipt(status, b"", retry_after="5").pause == 5.0


@pytest.mark.parametrize(
    ("batch_endpoint", "retry_after", "hold"),
    [(False, None, 30.0), (True, None, 15.0), (False, "10", 30.0), (False, "90", 90.0), (True, "20", 20.0), (True, "9999", 300.0)],
)
def test_how_long_a_throttled_id_rests(batch_endpoint: bool, retry_after: str | None, hold: float) -> None:
    """30 seconds, 15 on batch, longer when the server asks for it."""
    found = receipt(429, {"throttled_events": [0]}, batch_endpoint=batch_endpoint, retry_after=retry_after)
    assert [outcome.hold for outcome in found.outcomes] == [hold, None, None, None, None, None]
    assert found.outcomes[0].charged
    assert not found.outcomes[1].charged


# Whatever a server says

_KEYS = st.sampled_from(
    [
        "code",
        "error",
        "missing_field",
        "events_with_invalid_fields",
        "events_with_missing_fields",
        "events_with_invalid_id_lengths",
        "silenced_events",
        "silenced_devices",
        "throttled_events",
        "throttled_devices",
        "throttled_users",
        "exceeded_daily_quota_devices",
        "exceeded_daily_quota_users",
    ]
)
_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 8)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(["user-a", "phone", "kiosk", "Invalid API key"])
)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.sampled_from(["phone", "user-b", "time"]), inner, max_size=4)
    ),
    max_leaves=8,
)
answers = st.builds(
    Response,
    st.integers(-5, 1000) | st.sampled_from([200, 400, 403, 413, 429, 500]),
    st.dictionaries(st.just("retry-after"), st.text(max_size=40) | st.integers(-9, 10**9).map(str)),
    st.binary(max_size=200) | st.dictionaries(_KEYS, _JSON, max_size=6).map(lambda body: json.dumps(body).encode("utf-8", "surrogatepass")),
)


@given(answers, st.lists(st.sampled_from(IDS), min_size=1, max_size=6), st.booleans())
def test_every_answer_gives_one_outcome_for_each_parcel(answer: Response, ids: list[tuple[str, ...]], batch_endpoint: bool) -> None:
    """Never raises, never forgets a parcel, and only Amplitude's own word acknowledges."""
    parcels = [Parcel(b"{}", each, 0) for each in ids]
    found = read_receipt(answer, parcels, batch_endpoint=batch_endpoint, now=NOW)
    assert len(found.outcomes) == len(parcels)
    acknowledged = [outcome.verdict is Verdict.ACKNOWLEDGED for outcome in found.outcomes]
    assert all(acknowledged) or not any(acknowledged)
    if any(acknowledged):
        assert 200 <= answer.status < 300
        assert json.loads(answer.body)["code"] == 200
    assert found.pause is None or 0 <= found.pause <= 300
    assert all(outcome.hold is None or 0 < outcome.hold <= 300 for outcome in found.outcomes)
    assert all(
        outcome.reason in {"invalid", "silenced", "quota", "too_large", "forbidden"}
        for outcome in found.outcomes
        if outcome.verdict is Verdict.REJECTED
    )


@given(answers, st.lists(st.sampled_from(IDS), min_size=1, max_size=6))
def test_every_answer_leads_somewhere(answer: Response, ids: list[tuple[str, ...]]) -> None:
    """Whoever is sent again at once is so because somebody was settled or held, or because the batch is divided."""
    parcels = [Parcel(b"{}", each, 0) for each in ids]
    found = read_receipt(answer, parcels, now=NOW)
    moved = any(outcome.verdict is not Verdict.RETRY or outcome.hold for outcome in found.outcomes)
    divided = found.split is not Split.NO and len(parcels) > 1
    assert moved or divided or found.server_fault


@given(st.text(max_size=80))
def test_no_retry_after_can_break_it(text: str) -> None:
    """A header is a text that anybody may have written."""
    pause = receipt(503, retry_after=text).pause
    assert pause is None or 0 <= pause <= 300
