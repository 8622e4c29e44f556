"""Bad input gets an error that names field and rule, logged and counted; the application never sees an exception."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Any, Final

import pytest
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_amplitude import Amplitude, Config, Identify, InvalidEventError, Revenue
from otel_amplitude.sandbox import Sandbox
from otel_amplitude.testing import FakeTransport

KEY: Final = "0123456789abcdef0123456789abcdef"
USER: Final = "u-12345"
CHANGE: Final = Identify().set("plan", "pro")


def client(**options: Any) -> Amplitude:
    return Amplitude(Config(KEY, **{"transport": FakeTransport(), "upload_interval": 0, **options}))


def event(**fields: Any) -> Callable[[Amplitude], Any]:
    return lambda amplitude: amplitude.log_event({"event_type": "X", "user_id": USER, **fields})


# A call, the reason in the books, and what the error must say: the field and the rule.
BAD: Final[dict[str, tuple[Callable[[Amplitude], Any], str, str]]] = {
    "no type": (event(event_type=None), "invalid", "event_type is missing: every event needs one"),
    "a type that is no text": (event(event_type=5.5), "invalid", "event_type must be text, not float"),
    "a reserved type": (event(event_type="[Amplitude] Revenue"), "invalid", "event_type '[Amplitude] Revenue' is reserved"),
    "no ids": (event(user_id=None), "no_identity", "user_id and device_id are missing: an event needs one of them"),
    "a short id": (event(user_id="u"), "invalid", "user_id has 1 characters, but must have 5 to 1,024"),
    "a short device": (event(device_id="d"), "invalid", "device_id has 1 characters"),
    "an id on the list": (event(user_id="Anonymous"), "invalid", "user_id 'Anonymous' is refused by Amplitude as an id"),
    "zeros": (event(device_id="00000000-0000-0000-0000-000000000000"), "invalid", "device_id '00000000-"),
    "an id of the wrong type": (event(user_id=["u-12345"]), "invalid", "user_id must be text, not list"),
    "a time in words": (
        event(time="tomorrow"),
        "invalid_time",
        "time must be milliseconds since 1970, a datetime or a text in ISO 8601, not str",
    ),
    "a negative time": (event(time=-1), "invalid_time", "time is -1,000 ms after 1970, but must be from ten years ago to a day ahead"),
    "a price in text": (event(price="12.50 EUR"), "invalid", "price must be a finite number, not str"),
    "a price that is none": (event(price=float("nan")), "invalid", "price must be a finite number"),
    "half a thing": (event(quantity=1.5), "invalid", "quantity must be a whole number"),
    "a sum of text": (
        event(event_type="$identify", user_properties={"$add": {"orders": "two"}}),
        "invalid",
        "user_properties.$add.orders must be a finite number",
    ),
    "an operation without names": (
        event(event_type="$identify", user_properties={"$set": "pro"}),
        "invalid",
        "user_properties.$set must be a map of property names to values, not str",
    ),
    "a group without a name": (event(event_type="$groupidentify"), "invalid", "groups is missing: $groupidentify changes the properties"),
    "too large": (
        event(event_properties={f"text{number}": "x" * 1000 for number in range(80)}),
        "too_large",
        "event has",
    ),
    "no event": (lambda amplitude: amplitude.log_event(None), "invalid", "an event must be an Event or a mapping"),
    "no extra": (
        lambda amplitude: amplitude.log_event({"event_type": "X", "user_id": USER}, 5),
        "invalid",
        "extra another, not dict and int",
    ),
    "no identify": (
        lambda amplitude: amplitude.identify(USER, None, {"$set": 1}),
        "invalid",
        "user_properties must be given as Identify, not dict",
    ),
    "an identify of nothing usable": (
        lambda amplitude: amplitude.identify(USER, None, Identify().add("orders", "two")),
        "invalid",
        "user_properties: $add.orders must be a finite number, not str",
    ),
    "more keys that are none": (
        lambda amplitude: amplitude.identify(USER, None, CHANGE, event=["a"]),
        "invalid",
        "event must be given as Mapping, not list",
    ),
    "a group that is no text": (
        lambda amplitude: amplitude.group_identify("org", None, CHANGE, user_id=USER),
        "invalid",
        "groups is missing",
    ),
    "a membership without a type": (
        lambda amplitude: amplitude.set_group(USER, None, None, "acme"),
        "invalid",
        "user_properties: $set: a property's name must be a text that is not empty",
    ),
    "a group that can be no key": (
        lambda amplitude: amplitude.set_group(USER, None, ["org"], "acme"),
        "invalid",
        "user_properties: $set: a property's name must be a text",
    ),
    "a map that can not be read": (
        lambda amplitude: amplitude.revenue(USER, None, Revenue(price=1, properties=strategies.HostileMap(a=1))),
        "invalid",
        "event can not be made of what was given: RuntimeError",
    ),
    "no revenue": (lambda amplitude: amplitude.revenue(USER, None, 12.5), "invalid", "revenue must be given as Revenue, not float"),
    "a revenue in text": (
        lambda amplitude: amplitude.revenue(USER, None, Revenue(price="free")),
        "invalid",
        "event_properties.$price must be a finite number, not str",
    ),
    "a revenue of nothing": (
        lambda amplitude: amplitude.revenue(USER, None, Revenue(quantity=2)),
        "invalid",
        "event_properties.$price is missing: a revenue needs price or revenue",
    ),
}


@pytest.mark.parametrize(("call", "reason", "message"), BAD.values(), ids=BAD)
def test_it_is_told_logged_and_counted(
    call: Callable[[Amplitude], Any], reason: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """In the result, in one line of the log and in the books; nothing is sent."""
    caplog.set_level(logging.WARNING, "otel_amplitude")
    amplitude = client()
    result = call(amplitude)
    assert (result.outcome, result.reason) == ("refused", reason)
    assert message in result.message
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("event.invalid")
    assert message[:30] in line.replace('\\"', '"')
    assert amplitude.stats().refused == {reason: 1}
    assert amplitude.shutdown(5)


@pytest.mark.parametrize(("call", "reason", "message"), BAD.values(), ids=BAD)
def test_strict_raises_it(call: Callable[[Amplitude], Any], reason: str, message: str) -> None:
    """With the same words, counted all the same."""
    amplitude = client(strict=True)
    with pytest.raises(InvalidEventError) as raised:
        call(amplitude)
    assert message in str(raised.value)
    assert amplitude.stats().refused == {reason: 1}
    assert amplitude.shutdown(5)


def test_what_can_be_mended_is_sent_and_told(caplog: pytest.LogCaptureFixture) -> None:
    """As the SDKs do: the first operation on a property counts, an odd key goes; here it is in the log."""
    with Sandbox() as sandbox:
        amplitude = client(server_url=f"{sandbox.url}/2/httpapi", transport=None)
        twice = Identify().set("plan", "pro").set("plan", "free").add("orders", "two")
        assert amplitude.identify(USER, None, twice, timeout=10).outcome == "acknowledged"
        assert amplitude.group_identify("org", "acme", Identify().set("seats", 5).remove("tags", "a"), timeout=10).outcome == "acknowledged"
        assert sandbox.user_properties(USER) == {"plan": "pro"}
        assert sandbox.group_properties("org", "acme") == {"seats": 5}
        amplitude.shutdown(5)
    assert "event.fixed" in caplog.text
    assert "'plan' already has an operation" in caplog.text


@pytest.mark.parametrize("instead", [None, "text", 5, ["event_type"]])
def test_a_middleware_that_replaces_the_event_by_none_loses_it(instead: Any) -> None:
    """Counted like any other event that is none; the application goes on."""

    def replace(payload: Any, next: Any) -> None:
        payload.event = instead
        next(payload)

    amplitude = client(middleware=[replace])
    result = amplitude.log_event({"event_type": "X", "user_id": USER})
    assert (result.outcome, result.reason) == ("refused", "unserializable")
    assert type(instead).__name__ in result.message
    assert amplitude.stats().refused == {"unserializable": 1}
    assert amplitude.shutdown(5)


@pytest.mark.parametrize("own", [5, "main", None, [], {"branch": "trial"}])
def test_an_odd_plan_of_an_event_costs_the_plan(own: Any) -> None:
    """The client's stands in."""
    amplitude = client(plan={"branch": "main", "source": "web"})
    result = amplitude.log_event({"event_type": "X", "user_id": USER, "plan": own}, timeout=10)
    assert result.event["plan"] == {"branch": "trial" if own == {"branch": "trial"} else "main", "source": "web"}
    assert amplitude.shutdown(5)


@pytest.mark.parametrize(
    ("key", "kept"),
    [
        (42, "42"),
        ("order-1", "order-1"),
        (strategies.ShoutingText("order-2"), "order-2"),
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        *((odd, None) for odd in ("", strategies.ShoutingText(""), None, 1.5, True, 1 << 200, ["order-1"])),
    ],
)
def test_any_insert_id_becomes_text(key: Any, kept: str | None) -> None:
    """A key of a database is kept; what is none is replaced; waiting for the result works with any."""
    amplitude = client()
    result = amplitude.log_event({"event_type": "X", "user_id": USER, "insert_id": key}, timeout=10)
    assert result.outcome == "acknowledged"
    assert result.insert_id == result.event["insert_id"]
    assert result.insert_id == kept if kept else len(result.insert_id) == 32
    assert amplitude.shutdown(5)


def test_properties_shared_by_many_events_are_left_alone() -> None:
    """A middleware that adds the name of one person must not put it on the next one's event."""

    def add(payload: Any, next: Any) -> None:
        payload.event.event_properties["seen"] = payload.event.user_id
        payload.event.groups["org"] = "acme"
        next(payload)

    shared: dict[str, Any] = {"event_properties": {"page": "/"}, "groups": {}}
    amplitude = client(middleware=[add])
    amplitude.log_event({"event_type": "X", "user_id": USER, **shared})
    assert shared == {"event_properties": {"page": "/"}, "groups": {}}
    assert amplitude.shutdown(5)


anything: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.binary(max_size=4),
    st.lists(st.text(max_size=3), max_size=3),
)
operations: Final = st.lists(
    st.tuples(
        st.sampled_from(["set", "set_once", "add", "append", "prepend", "pre_insert", "post_insert", "remove", "unset", "clear_all"]),
        anything,
        anything,
    ),
    max_size=4,
)


def build(steps: list[tuple[str, Any, Any]]) -> Identify:
    made = Identify()
    for name, key, value in steps:
        getattr(made, name)(*{"clear_all": (), "unset": (key,)}.get(name, (key, value)))
    return made


@settings(max_examples=40)  # each is a client with its thread
@given(strategies.odd_events, anything, anything, anything, operations)
def test_no_call_raises_whatever_it_is_given(
    odd: dict[Any, Any], one: Any, two: Any, three: Any, steps: list[tuple[str, Any, Any]]
) -> None:
    """Each ends in a result, and the books have it."""
    amplitude = client()
    calls = [
        lambda: amplitude.log_event(odd, one),
        lambda: amplitude.log_event(one, odd),
        lambda: amplitude.identify(one, two, build(steps), event=three),
        lambda: amplitude.group_identify(one, two, build(steps), user_id=three),
        lambda: amplitude.set_group(USER, one, two, three),
        lambda: amplitude.revenue(USER, None, Revenue(price=one, quantity=two, currency=three, properties=odd)),
        lambda: amplitude.log_event(Revenue(price=one, quantity=two).to_event(USER, three)),
    ]
    outcomes = [call().outcome for call in calls]
    assert set(outcomes) <= {"pending", "refused"}
    books = amplitude.stats()
    assert (books.accepted, sum(books.refused.values())) == (outcomes.count("pending"), outcomes.count("refused"))
    amplitude.shutdown(5)
