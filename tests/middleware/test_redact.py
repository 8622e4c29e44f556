"""Hiding personal data."""

import hashlib
import hmac
import json
import re
from pathlib import PurePosixPath

import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from otel_amplitude.errors import ConfigurationError
from otel_amplitude.events import Event
from otel_amplitude.middleware import Payload, Redact

EMAIL = r"[^@\s]+@[^@\s]+"


def digest(text: str) -> str:
    """The keyed hash, written another way."""
    return hmac.new(b"salt", text.encode(), hashlib.sha256).hexdigest()


def test_values_under_a_key_are_removed_wherever_they_stand(through) -> None:
    """At the top, in properties, in operations, in lists of lists; whatever the case."""
    event = through(
        Redact(keys=["Email", "ip"]),
        {
            "event_type": "A",
            "ip": "127.0.0.1",
            "event_properties": {"email": "a@b", "n": [[{"EMAIL": "a@b", "ok": 1}]], "user.email": "kept"},
            "user_properties": {"$set": {"email": "a@b", "plan": "pro"}},
            "groups": {"email": "a@b"},
        },
    )
    assert event == {
        "event_type": "A",
        "event_properties": {"n": [[{"ok": 1}]], "user.email": "kept"},
        "user_properties": {"$set": {"plan": "pro"}},
        "groups": {},
    }


def test_with_a_secret_values_become_keyed_hashes(through) -> None:
    """Equal values stay equal, and a bare hash does not find them."""
    hide = Redact(keys=["user_id", "email", "card"], hash_with="salt")
    event = through(hide, {"user_id": "a@b", "device_id": None, "event_properties": {"email": "a@b", "card": [1, 2]}})
    assert event == {"user_id": digest("a@b"), "device_id": None, "event_properties": {"email": digest("a@b"), "card": digest("[1,2]")}}
    assert digest("a@b") != hashlib.sha256(b"a@b").hexdigest()
    assert through(Redact(keys=["email"], hash_with=b"salt"), {"event_properties": {"email": "a@b"}}) == {
        "event_properties": {"email": digest("a@b")}
    }


def test_nothing_is_made_of_nothing(through) -> None:
    """The hash of an absent id would be an id."""
    assert through(Redact(keys=["user_id"], hash_with="salt"), {"user_id": None, "device_id": "d-12345"}) == {"device_id": "d-12345"}


def test_patterns_are_replaced_inside_names(through) -> None:
    """A map by person has the address of each as a name."""
    event = {"event_properties": {"orders": {"ann@example.org": 2, "total": 3}}}
    assert through(Redact(patterns=[EMAIL]), event) == {"event_properties": {"orders": {"total": 3, "[redacted]": 2}}}


def test_a_name_of_bytes_is_seen(through) -> None:
    """redis-py gives names as bytes, unless it is asked for text."""
    event = {"event_properties": {"customer": {b"email": "ann@example.org", b"plan": "pro"}}}
    assert through(Redact(keys=["email"]), event) == {"event_properties": {"customer": {"plan": "pro"}}}


def test_patterns_are_replaced_inside_texts(through) -> None:
    """In lists and in what only becomes text when it is sent."""
    event = {"event_properties": {"note": "write to a@b.", "list": ["a@b", 1], "path": PurePosixPath("a@b")}, "user_agent": "a@b"}
    assert through(Redact(patterns=[EMAIL]), event) == {
        "event_properties": {"note": "write to [redacted]", "list": ["[redacted]", 1], "path": "[redacted]"},
        "user_agent": "a@b",
    }
    hashed = through(Redact(patterns=[re.compile(EMAIL)], hash_with="salt"), {"event_properties": {"note": "to a@b"}})
    assert hashed == {"event_properties": {"note": f"to {digest('a@b')}"}}


def test_a_match_over_the_cut_is_still_hidden(through) -> None:
    """The text is searched before it is cut to 1,024 characters."""
    text = "x" * 1_018 + " 4111111111111111"
    assert through(Redact(patterns=[r"\d{16}"]), {"event_properties": {"t": text}}) == {
        "event_properties": {"t": "x" * 1_018 + " [redacted]"}
    }


def test_an_object_that_is_text_is_searched_whole(through) -> None:
    """What only becomes text when it is sent is cut no sooner than a text."""
    path = PurePosixPath("x" * 1_018 + " 4111111111111111")
    assert through(Redact(patterns=[r"\d{16}"]), {"event_properties": {"e": path}}) == {
        "event_properties": {"e": "x" * 1_018 + " [redacted]"}
    }


@given(
    st.lists(
        st.integers(1, 200).map(lambda size: "a" * size + " ") | st.integers(1, 1_022).map(lambda size: f"<{'s' * size}>"), min_size=1
    ),
    st.integers(0, 2_100),
    st.none() | st.just("salt"),
)
def test_no_half_of_a_match_passes(parts: list[str], before: int, secret: str | None) -> None:
    """However long the text is, and however much shorter it became."""
    text = "a" * before + "".join(parts) * 9
    passed: list[Payload] = []
    Redact(patterns=["<s+>", "a+ "], hash_with=secret)(Payload(Event(event_properties={"t": text, "e": ValueError(text)})), passed.append)
    for sent in passed[0].event.event_properties.values():
        assert "s" not in sent


def test_the_rest_of_a_long_text_is_sent_up_to_a_match_at_its_end(through) -> None:
    """A match that lies across the end is hidden whole."""
    hide = Redact(patterns=[r"\d{16}"])
    assert through(hide, {"event_properties": {"t": "x" * 1_020 + "4" * 16 + "y" * 3_000}}) == {
        "event_properties": {"t": "x" * 1_020 + "[redacted]"}
    }


def test_the_map_it_was_made_of_is_not_touched(through) -> None:
    """A span keeps its attributes."""
    own = {"email": "a@b", "deep": {"email": "a@b"}}
    through(Redact(keys=["email"]), {"event_properties": own})
    assert own == {"email": "a@b", "deep": {"email": "a@b"}}


@given(strategies.maps, st.text(min_size=1, max_size=5))
def test_what_stands_under_a_key_never_passes(properties: dict, key: str) -> None:
    """Whatever else an event holds."""
    secret = "a-secret-that-nothing-else-holds"
    payload = Payload(Event(event_properties={"around": [{"x": properties, key: secret}], key: {"in": secret}}))
    passed: list[Payload] = []
    Redact(keys=[key])(payload, passed.append)
    assert passed
    assert secret not in json.dumps(passed[0].event)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "needs keys or patterns"),
        ({"keys": "email"}, "keys must be a list, not one text"),
        ({"patterns": r"\d"}, "patterns must be a list, not one text"),
        ({"keys": [3]}, "keys can not be used"),
        ({"keys": 3}, "keys can not be used"),
        ({"patterns": ["("]}, "patterns can not be used"),
        ({"keys": ["a"], "hash_with": ""}, "hash_with must not be empty"),
    ],
)
def test_options_that_would_hide_nothing_are_refused(options: dict, words: str) -> None:
    """At start-up, by name."""
    with pytest.raises(ConfigurationError, match=words):
        Redact(**options)


def test_the_secret_does_not_show() -> None:
    """Not in the repr."""
    assert "salt-123" not in repr(Redact(keys=["a"], hash_with="salt-123"))
