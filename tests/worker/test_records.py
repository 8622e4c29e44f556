"""What a record must hold to be an event, and what a dead letter carries."""

from __future__ import annotations

import json
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from otel_amplitude.worker.progress import Assignment
from otel_amplitude.worker.records import MAX_RECORD_BYTES, DeadLetter, NotAnEventError, read_event

GOOD = {"event_type": "Order", "user_id": "u-1", "device_id": "d-1", "insert_id": "i-1"}


def body(**more: Any) -> bytes:
    return json.dumps({name: value for name, value in {**GOOD, **more}.items() if value is not None}).encode()


def test_the_user_decides_the_order_then_the_device() -> None:
    """As for every event."""
    assert read_event(body()) == ("u-1", "d-1")
    assert read_event(body(user_id=None)) == ("d-1",)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b" " * (MAX_RECORD_BYTES + 1), "too_large"),
        (b"poison", "not_json"),
        (b"\xff\xfe", "not_json"),
        (body() + b"]", "not_json"),
        (body() + b',{"event_type":"Other"}', "not_json"),
        (b"[" * 100_000, "not_json"),
        (b"[]", "not_an_event"),
        (b"{}", "not_an_event"),
        (body(event_type=7), "not_an_event"),
        (body(insert_id=None), "no_insert_id"),
        (body(insert_id=""), "no_insert_id"),
        (body(insert_id=3), "no_insert_id"),
        (body(user_id=None, device_id=None), "no_id"),
        (body(user_id=17), "no_id"),
        (body(user_id={"a": 1}), "no_id"),
    ],
)
def test_what_is_no_event_has_a_reason(value: bytes | None, reason: str) -> None:
    """One word, under which it is counted."""
    with pytest.raises(NotAnEventError, match=f"^{reason}$"):
        read_event(value)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*GOOD, "x"]) | st.text(max_size=3), inner, max_size=5),
    max_leaves=8,
)


@given(st.binary(max_size=40) | _json.map(lambda value: json.dumps(value).encode()))
@example(body())
def test_whatever_it_holds_it_is_an_event_or_has_a_reason(value: bytes) -> None:
    """And an event is exactly one JSON object, whose ids are texts."""
    try:
        ids = read_event(value)
    except NotAnEventError:
        return
    event = json.loads(value)
    assert isinstance(event, dict)
    assert ids
    assert all(isinstance(name, str) and name for name in ids)


def test_a_letter_keeps_the_record_and_says_why_it_is_there() -> None:
    """The latest reason counts; headers of others stay."""
    letter = DeadLetter(
        Assignment("amplitude_events", 3, None),
        17,
        0,
        key=b"k",
        value=None,
        headers=[("traceparent", b"00-1"), ("reason", b"older"), ("status", b"400")],
        outcome="rejected",
        reason="invalid",
    )
    assert (letter.key, letter.value, letter.body) == (b"k", None, b"")
    assert dict(letter.headers) == {
        "traceparent": b"00-1",
        "outcome": b"rejected",
        "reason": b"invalid",
        "topic": b"amplitude_events",
        "partition": b"3",
        "offset": b"17",
    }
