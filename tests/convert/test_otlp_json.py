"""OTLP JSON, written by hand here, gives back what it was written from; and whatever a line holds, reading it raises nothing."""

from __future__ import annotations

import json
import math
from base64 import b64encode
from typing import Any

import pytest
from convert.recorded import ALICE, SHOP, START, convert, convert_log, log, span
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanKind, StatusCode

from otel_amplitude.convert.otlp_json import read_line
from otel_amplitude.convert.recorded import Batch

KINDS = {"INTERNAL": 1, "SERVER": 2, "CLIENT": 3, "PRODUCER": 4, "CONSUMER": 5}


def encode_value(value: Any) -> dict[str, Any]:
    """An AnyValue, as the specification writes it."""
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        words = {math.inf: "Infinity", -math.inf: "-Infinity"}
        return {"doubleValue": words.get(value, "NaN" if math.isnan(value) else value)}
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bytes):
        return {"bytesValue": b64encode(value).decode()}
    if isinstance(value, (tuple, list)):
        return {"arrayValue": {"values": [encode_value(member) for member in value]}}
    return {"kvlistValue": {"values": encode_map(value)}}


def encode_map(attributes: Any) -> list[dict[str, Any]]:
    return [{"key": key, "value": encode_value(value)} for key, value in attributes.items()]


def encode_span(item: ReadableSpan) -> dict[str, Any]:
    """A Span message; whether the parent is remote stands in the flags."""
    parent = item.parent
    return {
        "traceId": f"{item.context.trace_id:032x}",
        "spanId": f"{item.context.span_id:016x}",
        "parentSpanId": f"{parent.span_id:016x}" if parent else "",
        "flags": 0 if parent is None else 0x300 if parent.is_remote else 0x100,
        "name": item.name,
        "kind": KINDS[item.kind.name],
        "startTimeUnixNano": str(item.start_time or 0),
        "endTimeUnixNano": str(item.end_time or 0),
        "attributes": encode_map(item.attributes),
        "events": [
            {"name": event.name, "timeUnixNano": str(event.timestamp), "attributes": encode_map(event.attributes)} for event in item.events
        ],
        "status": {"code": item.status.status_code.value},
        "somethingNew": {"of": "a later version"},
    }


def encode_log(record: Any) -> dict[str, Any]:
    return {
        "timeUnixNano": str(record.timestamp or 0),
        "observedTimeUnixNano": str(record.observed_timestamp or 0),
        "eventName": record.event_name or "",
        "body": encode_value(record.body),
        "attributes": encode_map(record.attributes or {}),
        "traceId": f"{record.trace_id:032x}" if record.trace_id else "",
        "spanId": f"{record.span_id:016x}" if record.span_id else "",
    }


def line(spans: list[Any] = (), logs: list[Any] = (), resource: Any = None, scope: str = "shop") -> str:
    """One line of a file exporter."""
    about = {"resource": {"attributes": encode_map(resource or {"service.name": "shop"})}}
    return json.dumps(
        {
            **({"resourceSpans": [{**about, "scopeSpans": [{"scope": {"name": scope}, "spans": spans}]}]} if spans else {}),
            **({"resourceLogs": [{**about, "scopeLogs": [{"scope": {"name": scope}, "logRecords": logs}]}]} if logs else {}),
        }
    )


def read_span(item: dict[str, Any]) -> ReadableSpan:
    batch = read_line(line([item]))
    assert batch.problems == []
    (only,) = batch.spans
    return only


attribute_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=9) | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
attribute_maps = st.dictionaries(st.text(min_size=1, max_size=8), attribute_values, max_size=5)


@given(
    attributes=attribute_maps,
    kind=st.sampled_from(sorted(KINDS)),
    parent=st.sampled_from([None, "local", "remote"]),
    event=attribute_maps,
    start=st.integers(1, 2**63),
    trace_id=st.integers(1, 2**128 - 1),
    span_id=st.integers(1, 2**64 - 1),
)
def test_a_span_comes_back(attributes: Any, kind: str, parent: str | None, event: Any, start: int, trace_id: int, span_id: int) -> None:
    """Every fact of a span that a conversion may ask for survives the way through OTLP."""
    made = span(
        attributes,
        kind=kind,
        parent=parent,
        start=start,
        end=start + 1,
        events=({"name": "e", "attributes": event},),
        trace_id=trace_id,
        span_id=span_id,
    )
    back = read_span(encode_span(made))
    assert repr(dict(back.attributes)) == repr(dict(made.attributes))
    assert repr(dict(back.events[0].attributes)) == repr(event)
    assert (back.name, back.kind, back.start_time, back.end_time) == (made.name, made.kind, start, start + 1)
    assert (back.context.trace_id, back.context.span_id) == (trace_id, span_id)
    assert (back.parent is None) == (parent is None)
    assert back.parent is None or back.parent.is_remote == (parent == "remote")
    assert (back.resource.attributes["service.name"], back.instrumentation_scope.name) == ("shop", "shop")


@given(body=attribute_values, attributes=attribute_maps)
def test_a_log_record_comes_back(body: Any, attributes: Any) -> None:
    """Body, attributes, times, name and ids of a record survive."""
    made = log("Order Paid", attributes, body=body, trace_id=7, span_id=8)
    batch = read_line(line(logs=[encode_log(made)]))
    assert batch.problems == []
    back = batch.records[0].log_record
    assert repr((back.body, dict(back.attributes))) == repr((body, attributes))
    assert (back.timestamp, back.observed_timestamp, back.event_name) == (START, START + 1, "Order Paid")
    assert (back.trace_id, back.span_id) == (7, 8)


def test_the_event_is_the_same_as_in_the_process() -> None:
    """A span or record from a file gives the very event, insert_id included, that the process itself would have sent."""
    made = span(
        {"amplitude.event_type": "Order Paid", "cart.total": 12.5, "tags": ("a", "b")}, kind="INTERNAL", parent="local", scope="shop"
    )
    assert convert(read_span(encode_span(made)), ALICE) == convert(made, ALICE)
    record = log("Order Paid", {"total": 1}, body={"items": [1, 2]}, trace_id=7, span_id=8)
    (back,) = read_line(line(logs=[encode_log(record)])).records
    assert convert_log(back.log_record) == convert_log(record)
    assert back.resource.attributes["service.name"] == SHOP.attributes["service.name"]
    assert isinstance(back.instrumentation_scope, InstrumentationScope)


def test_a_parent_of_unknown_origin() -> None:
    """Without the flag, the parent of a request's span is another process's, and any other parent is of this one."""
    for kind, is_remote in (("SERVER", True), ("CONSUMER", True), ("INTERNAL", False), ("CLIENT", False)):
        item = {**encode_span(span(kind=kind, parent="local")), "flags": 1}
        assert read_span(item).parent.is_remote is is_remote


def test_names_numbers_and_absence() -> None:
    """Enums by name, numbers as numbers, and what is absent is absent."""
    item = {
        "traceId": "0A" * 16,
        "spanId": "b" * 16,
        "kind": "SPAN_KIND_SERVER",
        "startTimeUnixNano": 5,
        "status": {"code": "STATUS_CODE_ERROR"},
    }
    read = read_span(item)
    assert (read.kind, read.start_time, read.end_time, read.name) == (SpanKind.SERVER, 5, None, "")
    assert (read.status.status_code, read.context.trace_id) == (StatusCode.ERROR, int("0a" * 16, 16))
    assert read_line(b'{"resourceMetrics": []}') == Batch([], [], [])
    assert read_line(b'{"resourceLogs": [{"scopeLogs": [{"logRecords": [{}]}]}]}').records[0].instrumentation_scope is None
    assert isinstance(read.resource, Resource)


GOOD = {"traceId": "a" * 32, "spanId": "b" * 16}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"traceId": "xyz"}, "span 2: traceId must be 32 hexadecimal digits, not 'xyz'"),
        ({"traceId": "z" * 32}, "traceId must be 32"),
        ({"traceId": "-" + "1" * 31}, "traceId must be 32"),
        ({"traceId": ""}, "traceId is missing"),
        ({"spanId": "0" * 16}, "spanId is missing"),
        ({"spanId": 5}, "spanId must be 16"),
        ({"kind": 6}, "kind must be a number from 0 to 5"),
        ({"kind": "SPAN_KIND_MAIN"}, "or a name such as SPAN_KIND_SERVER"),
        ({"kind": True}, "kind must be"),
        ({"name": 5}, "name must be text, not 5"),
        ({"startTimeUnixNano": "soon"}, "startTimeUnixNano must be a whole number"),
        ({"startTimeUnixNano": -1}, "nanoseconds since 1970, not -1"),
        ({"startTimeUnixNano": 1.5}, "must be a whole number"),
        ({"attributes": {}}, "attributes must be a list"),
        ({"attributes": [1]}, "attributes must be an object"),
        ({"attributes": [{"key": "a", "value": {"intValue": "one"}}]}, "intValue must be a whole number"),
        ({"attributes": [{"key": "a", "value": {"stringValue": 1}}]}, "a value must be text, not 1"),
        ({"attributes": [{"key": "a", "value": {"doubleValue": "much"}}]}, "doubleValue must be a number"),
        ({"attributes": [{"key": "a", "value": {"doubleValue": True}}]}, "doubleValue must be a number"),
        ({"attributes": [{"key": "a", "value": {"bytesValue": "?"}}]}, "span 2: "),
        ({"attributes": [{"key": "a", "value": "text"}]}, "value must be an object"),
        ({"events": [{"name": []}]}, "name must be text"),
        ({"status": 2}, "status must be an object"),
    ],
)
def test_one_broken_span_costs_itself(change: dict[str, Any], words: str) -> None:
    """Its neighbours are read, and the problem says which span, what and how it should be."""
    batch = read_line(line([GOOD, {**GOOD, **change}, GOOD]))
    assert len(batch.spans) == 2
    (problem,) = batch.problems
    assert words in problem


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"not json",
        b"[5]",
        b'{"a": 1}',
        b"null",
        b'{"resourceSpans": 5}',
        b'{"resourceSpans": [5]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": {}}]}]}',
        b"\xff",
        b'{"resourceSpans": [{"resource": [], "scopeSpans": [{"spans": [{"traceId": "%s", "spanId": "%s"}]}]}]}' % (b"a" * 32, b"b" * 16),
        b'{"resourceLogs": [{"scopeLogs": [{"scope": {"name": 1}, "logRecords": [{}]}]}]}',
    ],
)
def test_a_broken_line(text: bytes) -> None:
    """It gives a problem in words and nothing else."""
    batch = read_line(text)
    assert (batch.spans, batch.records, len(batch.problems)) == ([], [], 1)


def test_too_deep() -> None:
    """Nesting without end is a problem of that line."""
    value = '{"arrayValue":{"values":[' * 330 + '{"intValue":1}' + "]}}" * 330
    item = json.dumps({**GOOD, "attributes": [{"key": "a", "value": "?"}]}).replace('"?"', value)
    text = '{"resourceSpans":[{"scopeSpans":[{"spans":[%s]}]}]}' % item  # noqa: UP031 -- braces
    batch = read_line(text)
    assert (batch.spans, batch.problems) == ([], ["span 1: is nested too deeply"])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["resourceSpans", "scopeSpans", "spans", "attributes", "value", "traceId", "arrayValue", "values"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_anything_else(value: Any) -> None:
    """Whatever JSON a line holds, reading it raises nothing."""
    read_line(json.dumps(value))
