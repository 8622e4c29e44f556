"""One span, or one event on a span, as one event."""

from __future__ import annotations

import json
from typing import Any

import pytest
import strategies
from convert.recorded import (
    ALICE,
    ANNOTATED,
    PAGE,
    SHOP,
    SPAN_ID,
    START,
    TRACE_ID,
    Heard,
    choose,
    convert,
    convert_with,
    recorded_span,
    span,
)
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import SpanKind

from otel_amplitude.convert import Choice, Converter, Selector
from otel_amplitude.convert._rules import parse_rules
from otel_amplitude.errors import InvalidEventError
from otel_amplitude.events import check_event, encode_event
from otel_amplitude.identity import Identity

KEY = f"{TRACE_ID:032x}{SPAN_ID:016x}{START:016x}"


def test_a_span_the_sdk_made_converts_as_one_made_by_hand() -> None:
    """The real thing: ids, times, resource and attributes as the SDK keeps them."""
    item = recorded_span({**PAGE, "cart.total": 3})
    event = convert(item)
    assert event["insert_id"] == f"{item.context.trace_id:032x}{item.context.span_id:016x}{item.start_time:016x}"
    assert event["time"] == item.start_time // 1_000_000
    assert event["event_properties"].keys() == {"service", "duration_ms", "trace_id", "route", "method", "status_code"}
    assert event["event_properties"]["duration_ms"] == pytest.approx((item.end_time - item.start_time) / 1e6, abs=0.001)


def test_the_same_span_gives_the_same_event() -> None:
    """A second exporter doubles nothing; the insert_id is trace id, span id and start time."""
    item = span({**PAGE, **ANNOTATED})
    assert convert(item) == convert(item)
    assert convert(item)["insert_id"] == KEY


def test_the_span_is_left_as_it_was() -> None:
    """Nested maps of the application are copied, never changed."""
    cart = {"items": [1], "email": "a@example.com"}
    attributes = {**ANNOTATED, "cart": cart}
    made = Converter().span(span(), attributes, Choice("annotated", "X"), ALICE)
    made[0]["event_properties"]["cart"]["items"].append(2)  # type: ignore[index]
    assert attributes == {**ANNOTATED, "cart": {"items": [1], "email": "a@example.com"}}
    assert cart == {"items": [1], "email": "a@example.com"}


@pytest.mark.parametrize(
    ("start", "end", "time_ms", "duration"),
    [
        (START, START + 1_500_000, START // 1_000_000, 1.5),
        (START, START, START // 1_000_000, 0.0),
        (START, START - 5, START // 1_000_000, None),
        (None, START, START // 1_000_000, None),
        (START, None, START // 1_000_000, None),
    ],
)
def test_times_may_be_odd(start: int | None, end: int | None, time_ms: int, duration: float | None) -> None:
    """The time is the start; a span that ends before it starts has no duration."""
    event = convert(span(PAGE, start=start, end=end))
    assert (event["time"], event["event_properties"].get("duration_ms")) == (time_ms, duration)


def test_a_span_without_times_or_ids_still_is_an_event() -> None:
    """Made by hand: it happened now, and has no insert_id that another one might have as well."""
    event = convert(span(PAGE, start=None, end=None, trace_id=0, span_id=0))
    assert event["time"] > START // 1_000_000
    assert "insert_id" not in event
    assert "trace_id" not in event["event_properties"]


def test_identity_is_written_as_given() -> None:
    """Every part of it that is known."""
    event = convert(span(PAGE), Identity("u-1", "d-1", 1_700_000_000_000, {"org": ["a", 1]}))
    assert [event[key] for key in ("user_id", "device_id", "session_id", "groups")] == [
        "u-1",
        "d-1",
        1_700_000_000_000,
        {"org": ["a", "1"]},
    ]
    assert {"device_id", "session_id", "groups"}.isdisjoint(convert(span(PAGE), Identity("u-1")))


def test_groups_of_the_annotation_stand_beside_those_of_the_user() -> None:
    """And win where both name one."""
    event = convert(span({**ANNOTATED, "amplitude.groups.org": "b"}), Identity("u-1", None, None, {"org": "a", "team": "t"}))
    assert event["groups"] == {"org": "b", "team": "t"}


def test_an_own_attribute_stands_above_the_table() -> None:
    """An application that calls something `method` means it; what it says explicitly stands above both."""
    event = convert(span({**PAGE, **ANNOTATED, "method": "card", "route": "r", "amplitude.event_properties.route": "explicit"}))
    assert (event["event_properties"]["method"], event["event_properties"]["route"]) == ("card", "explicit")


def test_automatic_events_carry_the_table_only() -> None:
    """Own attributes need an annotation, a rule or the option."""
    assert "cart" not in convert(span({**PAGE, "cart": 1}))["event_properties"]
    assert convert(span({**PAGE, "cart": 1, "cart.email": "x"}), properties=["cart*"])["event_properties"]["cart"] == 1


def test_a_full_name_asks_for_what_a_wildcard_may_not() -> None:
    """Sensitive attributes come when they are named, and no wildcard reaches our own or Amplitude's names."""
    attributes = {**PAGE, "user.email": "a@example.com", "user.plan": "pro", "amplitude.user_id": "u-1", "$set": 1}
    assert "user.email" not in convert(span(attributes), properties=["*"])["event_properties"]
    assert convert(span(attributes), properties=["user.email"])["event_properties"]["user.email"] == "a@example.com"
    assert {"amplitude.user_id", "$set"}.isdisjoint(convert(span(attributes), properties=["*"])["event_properties"])


@pytest.mark.parametrize(
    ("name", "value", "key", "written"),
    [
        ("insert_id", "own-1", "insert_id", "own-1"),
        ("time", "1690000000000", "time", 1_690_000_000_000),
        ("price", "1.5", "price", 1.5),
        ("quantity", 2.0, "quantity", 2),
        ("location_lat", 59.9, "location_lat", 59.9),
        ("skip_user_properties_sync", True, "$skip_user_properties_sync", True),
        ("plan", {"branch": "main"}, "plan", {"branch": "main"}),
        ("ip", "8.8.8.8", "ip", "8.8.8.8"),
        ("os_version", 17, "os_version", "17"),
    ],
)
def test_any_key_of_the_event_can_be_annotated(name: str, value: Any, key: str, written: Any) -> None:
    """In the type that Amplitude asks for; also on automatic events."""
    assert convert(span({**PAGE, f"amplitude.{name}": value}))[key] == written


def test_what_has_the_wrong_type_is_left_out_counted_and_told() -> None:
    """The event survives."""
    heard = Heard()
    converter = Converter(log=heard)  # type: ignore[arg-type]
    item = span({**ANNOTATED, "amplitude.time": "yesterday", "amplitude.groups": "acme", "amplitude.price": None})
    event, _ = convert_with(converter, item)
    assert event["time"] == START // 1_000_000
    assert {"groups", "price"}.isdisjoint(event)
    assert converter.left_out == {"field": 3}
    assert heard.lines == [("event.fixed", {"reason": "field"})] * 3  # the real log says it once a minute


def test_names_that_are_nobodys_are_ignored() -> None:
    """Amplitude's other SDKs use the prefix too, and no attribute reaches a key that is not for it."""
    names = [
        "amplitude.span.kind",
        "amplitude.api_key",
        "amplitude.event_properties",
        "amplitude.event_properties.",
        "amplitude.groups.",
        "amplitude.",
    ]
    event = convert(span({**ANNOTATED, **dict.fromkeys(names, "x")}))
    assert event["event_properties"].keys() == {"service", "duration_ms", "trace_id"}
    assert event.keys() == {"event_type", "time", "insert_id", "user_id", "device_id", "event_properties"}


def test_extra_is_for_the_middleware() -> None:
    """As names and as a map; none of it is in the event."""
    item = span({**ANNOTATED, "amplitude.extra.a": 1, "amplitude.extra": {"b": 2}})
    event, extra = convert_with(Converter(), item)
    assert extra == {"a": 1, "b": 2}
    assert "extra" not in event
    assert convert_with(Converter(), span(PAGE))[1] == {}


class Clock:
    """Seconds by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_user_properties_are_sent_when_they_changed() -> None:
    """For each user; again after ten minutes, in case they were lost; never with automatic events unless annotated."""
    clock = Clock()
    converter = Converter(clock=clock)

    def sent(plan: str, identity: Identity = ALICE) -> object:
        return convert_with(converter, span({**ANNOTATED, "amplitude.user_properties.plan": plan}), identity)[0].get("user_properties")

    assert [sent("free"), sent("free"), sent("pro"), sent("pro")] == [{"plan": "free"}, None, {"plan": "pro"}, None]
    assert sent("pro", Identity(device_id="device-2")) == {"plan": "pro"}
    clock.now = 600.0
    assert sent("pro") == {"plan": "pro"}


def test_operations_need_an_identify() -> None:
    """On other events only `$set` has a meaning; the rest is left out and counted. What is no map is no operation."""
    names = {"amplitude.user_properties.$set.plan": "pro", "amplitude.user_properties.$add.n": 1, "amplitude.user_properties.$append": 3}
    converter = Converter()
    assert convert_with(converter, span({**ANNOTATED, **names}))[0]["user_properties"] == {"plan": "pro"}
    assert converter.left_out == {"user_property": 2}
    identify = span({**names, "amplitude.event_type": "$identify"})
    for _ in range(2):
        assert convert_with(converter, identify)[0]["user_properties"] == {"$set": {"plan": "pro"}, "$add": {"n": 1}}
    only_add = span({"amplitude.event_type": "$identify", "amplitude.user_properties.$add.n": 1})
    assert convert(only_add)["user_properties"] == {"$add": {"n": 1}}


def test_operations_alone_set_nothing_elsewhere() -> None:
    """No empty map is sent."""
    assert "user_properties" not in convert(span({**ANNOTATED, "amplitude.user_properties.$add.n": 1}))


def test_the_resource_is_converted_once() -> None:
    """By identity; many resources do not pile up."""
    converter = Converter(resource_properties=["cloud.*", "host.name"])
    for number in range(1_100):
        item = span(PAGE, resource=Resource({"service.name": f"s{number}", "cloud.region": "eu", "host.name": "h", "cloud.token": "x"}))
        properties = convert_with(converter, item)[0]["event_properties"]
        assert (properties["service"], properties["cloud.region"], properties["host.name"]) == (f"s{number}", "eu", "h")
        assert "cloud.token" not in properties
    assert len(converter._assembly.resources._facts) <= 1_024


def test_a_map_on_a_resource_keeps_nothing_sensitive() -> None:
    """As one on a span."""

    class Since145(Resource):  # an older SDK drops maps
        attributes = {"service.name": "shop", "team": {"name": "web", "password": "x"}, "rows": [[{"token": "x", "n": 1}]]}  # type: ignore[assignment] # noqa: RUF012

    event = convert(span(ANNOTATED, resource=Since145({})), resource_properties=["*"])
    assert event["event_properties"]["team"] == {"name": "web"}
    assert event["event_properties"]["rows"] == ['[{"n":1}]']


def test_a_resource_may_say_nothing() -> None:
    """A span made by hand, and a service nobody named."""
    assert "service" not in convert(span(PAGE, resource=Resource({})))["event_properties"]
    assert "service" not in convert(span(PAGE, resource=Resource({"service.name": "unknown_service:python"})))["event_properties"]


def test_plans_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that makes attribute names up costs time, not memory."""
    monkeypatch.setattr("otel_amplitude.convert._plan._MAX_PLANS", 3)
    converter = Converter()
    for number in range(9):
        event, _ = convert_with(converter, span({**ANNOTATED, f"name{number}": number}))
        assert event["event_properties"][f"name{number}"] == number
    assert len(converter._annotated._plans) <= 3
    convert_with(converter, span({**ANNOTATED, "x" * 9_000: 1}))
    assert not any("x" * 9_000 in names for names in converter._annotated._plans)


def test_the_memory_of_user_properties_is_bounded() -> None:
    """The user not seen for longest is forgotten."""
    converter = Converter()
    converter._assembly._changes._sent._most = 2
    item = span({**ANNOTATED, "amplitude.user_properties.plan": "pro"})
    sent = ["user_properties" in convert_with(converter, item, Identity(user))[0] for user in ("u-1", "u-2", "u-3", "u-1", "u-1")]
    assert sent == [True, True, True, True, False]


def test_the_address_of_the_client_is_of_servers_only() -> None:
    """A client span's peer is somebody else's machine; an annotated address wins."""
    peer = {"client.address": "8.8.8.8", **ANNOTATED}
    assert convert(span({**PAGE, **peer}), client_ip=0)["ip"] == "8.8.8.8"
    assert convert(span({**PAGE, **peer, "amplitude.ip": "8.8.4.4"}), client_ip=0)["ip"] == "8.8.4.4"
    assert "ip" not in convert(span(peer, kind="CLIENT"), client_ip=0)
    assert "ip" not in convert(span({**PAGE, **peer}))


EVENT_ON_SPAN = {"amplitude.event_type": "Order Paid", "order.total": 5, "order.email": "a@example.com", "amplitude.groups.org": "acme"}


def test_annotated_events_on_a_span() -> None:
    """Each by its place on the span, with its own time and attributes, and nothing of the span's."""
    item = span(
        {**PAGE, "cart": 1}, events=({"name": "a", "attributes": EVENT_ON_SPAN}, {"name": "b"}, {"name": "c", "attributes": EVENT_ON_SPAN})
    )
    made = Converter().span_events(item, item.events, dict(item.attributes or {}), ALICE)
    assert [event["insert_id"] for event, _, _ in made] == [f"{KEY}-0", f"{KEY}-2"]
    event, extra, _ = made[0]
    assert event["event_properties"] == {"service": "shop", "trace_id": f"{TRACE_ID:032x}", "order.total": 5}
    assert (event["groups"], event["time"], extra) == ({"org": "acme"}, START // 1_000_000, {})


def test_events_on_a_span_bring_their_own_ids() -> None:
    """No resolver reads them, so the converter does."""
    own = {**ANNOTATED, "amplitude.user_id": "u-bob", "amplitude.session_id": "1700000000000"}
    item = span(events=({"name": "a", "attributes": own},))
    ((event, _, _),) = Converter().span_events(item, item.events, {}, ALICE)
    assert (event["user_id"], event["device_id"], event["session_id"]) == ("u-bob", "device-1", 1_700_000_000_000)


def test_events_on_a_span_that_is_to_be_skipped_are_none() -> None:
    """Nor have those of a span without ids an insert_id."""
    item = span(events=({"name": "a", "attributes": ANNOTATED},), trace_id=0, span_id=0)
    assert Converter().span_events(item, item.events, {"amplitude.skip": True}, ALICE) == []
    ((event, _, _),) = Converter().span_events(item, item.events, {}, ALICE)
    assert "insert_id" not in event


def test_callers_are_told_where_to_look_for_events_on_spans() -> None:
    """Reading them costs a microsecond, so only when the option says so."""
    assert not Converter().reads_every_span
    assert Converter(span_events=True).reads_every_span


def test_a_sample_leaves_users_out() -> None:
    """The reason word is counted."""
    rules = parse_rules('[[event]]\nname = "Cart"\nmatch = {route = "/cart"}\nsample = 0')
    choice = choose(span(PAGE), rules=rules)
    assert isinstance(choice, Choice)
    assert Converter().span(span(PAGE), PAGE, choice, ALICE) == "sampled"


@given(
    st.dictionaries(
        strategies.texts
        | st.sampled_from(
            ["amplitude.user_properties", "amplitude.groups.org", "amplitude.event_properties", "amplitude.time", "amplitude.extra"]
        )
        | st.sampled_from(
            ["amplitude.price", "amplitude.user_properties.$add.n", "amplitude.plan", "http.route", "http.method", "http.status_code"]
        ),
        strategies.values,
        max_size=8,
    ),
    st.sampled_from(["Order Paid", "$identify", "$groupidentify"]),
)
def test_any_attributes_give_strict_json(attributes: dict[str, Any], event_type: str) -> None:
    """Whatever the values are: an event within Amplitude's limits, or one that is refused by name; nothing is raised."""
    converter = Converter(client_ip=0, properties=["*"])
    for kind in ("annotated", "automatic"):
        made = converter.span(span(), attributes, Choice(kind, event_type), ALICE)  # type: ignore[arg-type]
        assert_strict(made)


@given(strategies.maps)
def test_any_attributes_the_sdk_takes_give_strict_json(attributes: dict[Any, Any]) -> None:
    """The same through the real SDK, which converts, warns and drops on its own."""
    named = {key: value for key, value in attributes.items() if isinstance(key, str)}
    item = span({**ANNOTATED}, events=({"name": "a", "attributes": {**named, **ANNOTATED}},))
    (made,) = Converter().span_events(item, item.events, {}, ALICE)
    assert_strict(made)


def assert_strict(made: Any) -> None:
    """What was made can be checked and encoded, and the bytes are JSON without NaN and lone surrogates."""
    assert not isinstance(made, str)
    event, extra, _ = made
    assert isinstance(extra, dict)
    try:
        check_event(event)
        body = encode_event(event)
    except InvalidEventError:
        return
    read = json.loads(body.decode("utf-8"), parse_constant=pytest.fail)
    for value in read["event_properties"].values():
        assert not isinstance(value, str) or len(value) <= 1_024
    assert len(body) <= 65_536


def test_every_kind_of_span_the_sdk_knows_has_a_word() -> None:
    """So that a new one fails here, not in production."""
    for kind in SpanKind:
        item = recorded_span(ANNOTATED, kind)
        rules = parse_rules(f'[[event]]\nname = "K"\nmatch = {{kind = "{kind.name.lower()}"}}')
        assert isinstance(Selector(rules=rules).span(item, {}), Choice)


def test_the_shop_is_named() -> None:
    """The table of the resource is on every event."""
    assert convert(span(PAGE, resource=SHOP))["event_properties"]["service"] == "shop"
