"""One log record as one event."""

from __future__ import annotations

from typing import Any

import pytest
import strategies
from convert.recorded import ALICE, ANNOTATED, SHOP, START, TRACE_ID, convert_log, log
from convert.test_spans import assert_strict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_amplitude.convert import Choice, Converter, Selector
from otel_amplitude.convert._rules import parse_rules
from otel_amplitude.events import encode_event

ORDER = Choice("annotated", "Order Paid")


class Memory(LogRecordProcessor):
    """Keeps what the SDK hands to processors."""

    def __init__(self) -> None:
        self.records: list[ReadWriteLogRecord] = []

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        self.records.append(log_record)

    def shutdown(self) -> None:
        """Nothing to close."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


def test_a_record_the_sdk_made() -> None:
    """Event name, attributes, time and resource as the SDK keeps them."""
    memory = Memory()
    provider = LoggerProvider(shutdown_on_exit=False, resource=SHOP)
    provider.add_log_record_processor(memory)
    provider.get_logger("shop").emit(log("Signed Up", {"plan": "pro"}))
    (made,) = memory.records
    choice = Selector().log(made.log_record, "shop", made.resource)
    assert choice == Choice("annotated", "Signed Up")
    converted = Converter().log(made.log_record, made.resource, made.instrumentation_scope, choice, ALICE)
    assert not isinstance(converted, str)
    assert converted[0]["event_properties"] == {"service": "shop", "plan": "pro"}
    assert converted[0]["time"] == START // 1_000_000


def test_the_time_is_the_records_else_when_it_was_observed() -> None:
    """In milliseconds."""
    assert convert_log(log(timestamp=None, observed_timestamp=START + 5_000_000))["time"] == START // 1_000_000 + 5
    assert convert_log(log())["time"] == START // 1_000_000


def test_a_record_within_a_trace_names_it() -> None:
    """One outside does not."""
    assert convert_log(log(trace_id=TRACE_ID))["event_properties"]["trace_id"] == f"{TRACE_ID:032x}"
    assert "trace_id" not in convert_log(log())["event_properties"]


def test_the_insert_id_is_a_hash_of_what_was_recorded() -> None:
    """The same record gives the same id, in whichever order its attributes came; any difference gives another one, but when it was observed."""

    def insert_id(*, resource: Resource = SHOP, scope: Any = None, **facts: Any) -> str:
        made = Converter().log(log(**{"attributes": {"a": 1, "b": 2}, **facts}), resource, scope, ORDER, ALICE)
        assert not isinstance(made, str)
        return made[0]["insert_id"]

    same = insert_id()
    assert same == insert_id(attributes={"b": 2, "a": 1})
    assert len(same) == 32
    others = [
        insert_id(trace_id=1),
        insert_id(span_id=1),
        insert_id(timestamp=START + 1),
        insert_id(event_name="Other"),
        insert_id(body="text"),
        insert_id(attributes={"a": 1}),
        insert_id(scope=InstrumentationScope("other")),
        insert_id(resource=Resource({"service.instance.id": "two"})),
    ]
    assert len({same, *others}) == len(others) + 1
    assert same == insert_id(observed_timestamp=7)
    assert insert_id(timestamp=0, observed_timestamp=7) != insert_id(timestamp=0, observed_timestamp=8)
    assert insert_id(scope="other") == insert_id(scope=InstrumentationScope("other"))


def test_a_body_that_is_a_map_counts_as_attributes() -> None:
    """Also with what Amplitude's names say; attributes win; sensitive names are left out at any depth."""
    body = {"plan": "free", "email": "a@example.com", "card": {"n": 1}, "list": [{"password": "x", "n": 1}], "amplitude.groups.org": "acme"}
    event = convert_log(log(attributes={"plan": "pro"}, body=body))
    assert event["event_properties"] == {"service": "shop", "plan": "pro", "list": [{"n": 1}]}
    assert event["groups"] == {"org": "acme"}


@pytest.mark.parametrize(("body", "written"), [("text", "text"), (7, 7), (["a", None], ["a"]), (b"ab", "YWI="), (True, True)])
def test_any_other_body_is_a_property_when_named(body: object, written: object) -> None:
    """The text of a log line may hold anything about anyone."""
    assert "body" not in convert_log(log(body=body))["event_properties"]
    assert convert_log(log(body=body), properties=["body"])["event_properties"]["body"] == written


@given(
    st.recursive(
        st.just({"Password": "hunter2", "ok": 1}),
        lambda inner: (
            st.lists(inner, min_size=1, max_size=2)
            | st.tuples(st.just(0), inner)
            | st.dictionaries(st.sampled_from(["rows", "one"]), inner, min_size=1, max_size=2)
        ),
        max_leaves=4,
    )
)
def test_what_is_sensitive_passes_at_no_depth(nested: Any) -> None:
    """Not in a body, an attribute or a body that is no map, and not in lists of lists, which become text."""
    record = log(body={"rows": nested}, attributes={"cart": nested})
    for event in (convert_log(record), convert_log(log(body=[nested]), properties=("body",))):
        assert "hunter2" not in encode_event(event).decode()


def test_a_rule_names_a_record_and_reads_its_body() -> None:
    """By field, or as a whole; a sample leaves users out."""
    rules = parse_rules(
        '[[event]]\nname = "Login {body.way}"\nmatch = {event_name = "auth.*"}\nproperties = {way = "body.way", all = "body", missing = "body.none"}\n'
        '[[event]]\nname = "X"\nmatch = {event_name = "x"}\nsample = 0.0'
    )
    event = convert_log(log("auth.login", {"secret": 1}, body={"way": "sso"}), selector=Selector(rules=rules))
    assert event["event_type"] == "Login sso"
    assert event["event_properties"] == {"service": "shop", "way": "sso", "all": {"way": "sso"}}
    choice = Selector(rules=rules).log(log("x"), "shop")
    assert isinstance(choice, Choice)
    assert Converter().log(log("x"), SHOP, None, choice, ALICE) == "sampled"
    text = convert_log(log("auth.login", body="plain"), selector=Selector(rules=rules))
    assert text["event_properties"] == {"service": "shop", "all": "plain"}


def test_a_record_may_lack_everything() -> None:
    """No attributes, no resource, no scope, no time."""
    record = log(None, None, timestamp=None, observed_timestamp=None)
    record.attributes = None
    made = Converter().log(record, None, None, ORDER, ALICE)
    assert not isinstance(made, str)
    assert made[0]["event_properties"] == {}
    assert made[0]["time"] > 0


@given(strategies.values, strategies.maps)
def test_any_body_and_attributes_give_strict_json(body: object, attributes: dict[Any, Any]) -> None:
    """A body is never cleaned by the SDK: it may be any object at all."""
    record = log(body=body)
    record.attributes = {**ANNOTATED, **attributes}
    made = Converter(properties=["body"]).log(record, SHOP, InstrumentationScope("shop"), ORDER, ALICE)
    assert made == Converter(properties=["body"]).log(record, SHOP, InstrumentationScope("shop"), ORDER, ALICE)
    assert_strict(made)
