"""OTLP in protobuf gives what OTLP in JSON gives, item by item; what is broken costs itself, and bytes made to harm cost little."""

from __future__ import annotations

from typing import Any

import pytest
from convert.recorded import log, span
from convert.test_otlp_json import attribute_maps, attribute_values, encode_log, encode_span, line
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_amplitude.convert.otlp_json import read_line
from otel_amplitude.convert.otlp_protobuf import TooManyError, find, signal_of, walk
from otel_amplitude.convert.recorded import Batch, KnownResources


def read(body: bytes) -> Batch:
    batch = Batch([], [], [])
    return batch.take(find(body, batch.problems, KnownResources()))


def to_protobuf(text: str) -> bytes:
    """The same request in protobuf, as Google's own library encodes it."""
    message = ExportTraceServiceRequest() if "resourceSpans" in text else ExportLogsServiceRequest()
    json_format.Parse(text, message, ignore_unknown_fields=True)
    # Its JSON has ids in base64, OTLP's in hexadecimal: what it took for 24 and 12 bytes are 16 and 8.
    for resource in getattr(message, "resource_spans", []):
        for item in resource.scope_spans[0].spans:
            item.trace_id, item.span_id, item.parent_span_id = _id(item.trace_id), _id(item.span_id), _id(item.parent_span_id)
    for resource in getattr(message, "resource_logs", []):
        for item in resource.scope_logs[0].log_records:
            item.trace_id, item.span_id = _id(item.trace_id), _id(item.span_id)
    return bytes(message.SerializeToString())


def _id(octets: bytes) -> bytes:
    from base64 import b64encode

    return bytes.fromhex(b64encode(octets).decode())


def facts(batch: Batch) -> str:
    """Everything that a conversion may ask for."""
    spans = [
        (item.name, item.context, item.parent, item.kind, dict(item.attributes), item.start_time, item.end_time, item.status.status_code)
        for item in batch.spans
    ]
    events = [(event.name, dict(event.attributes), event.timestamp) for item in batch.spans for event in item.events]
    records = [
        (
            one.body,
            dict(one.attributes),
            one.timestamp,
            one.observed_timestamp,
            one.event_name,
            one.trace_id,
            one.span_id,
            one.severity_number,
        )
        for one in (item.log_record for item in batch.records)
    ]
    around = [(dict(item.resource.attributes), item.instrumentation_scope) for item in [*batch.spans, *batch.records]]
    return repr((spans, events, records, around, batch.problems))


@given(
    attributes=attribute_maps,
    event=attribute_maps,
    kind=st.sampled_from(["SERVER", "INTERNAL"]),
    parent=st.sampled_from([None, "local", "remote"]),
)
def test_a_span_is_the_same_in_both_encodings(attributes: Any, event: Any, kind: str, parent: str | None) -> None:
    """Whatever its attributes and events hold."""
    text = line([encode_span(span(attributes, kind=kind, parent=parent, events=({"name": "e", "attributes": event},)))])
    assert facts(read(to_protobuf(text))) == facts(read_line(text))


@given(body=attribute_values, attributes=attribute_maps)
def test_a_log_record_is_the_same_in_both_encodings(body: Any, attributes: Any) -> None:
    """Whatever its body and attributes hold."""
    text = line(logs=[encode_log(log("Order Paid", attributes, body=body, trace_id=7, span_id=8))])
    assert facts(read(to_protobuf(text))) == facts(read_line(text))


def request(*names: str) -> bytes:
    return to_protobuf(line([encode_span(span({"who": name}, span_id=number)) for number, name in enumerate(names, start=1)]))


def test_one_string_that_is_not_utf_8_costs_one_span() -> None:
    """Go programs and Collectors pass such strings on; protobuf refuses the whole request for it."""
    body = request("one", "café", "three").replace("café".encode(), b"caf\xc3\xff")
    batch = read(body)
    assert [item.attributes["who"] for item in batch.spans] == ["one", "three"]
    assert batch.problems == ["span 2: a string in it is not UTF-8, or it is damaged"]


def test_a_request_that_is_cut_off_gives_what_is_whole() -> None:
    """At no place does it raise anything."""
    body = request("one", "two")
    for cut in range(1, len(body)):
        batch = read(body[:cut])
        assert len(batch.spans) <= 2
        assert batch.problems, cut


@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    """Whatever a message holds, reading it raises nothing."""
    read(body)
    read(b"\x0a" + body)


def test_signals_are_told_apart() -> None:
    """Spans, log records and metrics have the same outer levels; metrics give nothing, and are no problem."""
    metrics = ExportMetricsServiceRequest()
    metric = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="a" * 16, description="b" * 8, unit="s")
    metric.gauge.data_points.add(time_unix_nano=1, as_int=1)
    assert read(metrics.SerializeToString()) == Batch([], [], [])
    assert len(read(request("one")).spans) == 1
    only_observed = line(logs=[{"observedTimeUnixNano": "5", "body": {"stringValue": "x"}}])
    assert len(read(to_protobuf(only_observed)).records) == 1
    assert signal_of(b"", 0, 0) is None


def test_a_parent_is_remote_by_flags_or_kind() -> None:
    """As in JSON."""
    for kind, flags, is_remote in (("SERVER", 1, True), ("INTERNAL", 1, False), ("SERVER", 0x100, False), ("INTERNAL", 0x300, True)):
        body = to_protobuf(line([{**encode_span(span(kind=kind, parent="local")), "flags": flags}]))
        assert read(body).spans[0].parent.is_remote is is_remote


def test_ids_that_were_taken_for_text() -> None:
    """Hexadecimal digits sent as the bytes of an id, or decoded as base64 (traceway#129), are the id that was meant."""
    message = ExportTraceServiceRequest.FromString(request("one"))
    item = message.resource_spans[0].scope_spans[0].spans[0]
    for trace_id in (item.trace_id.hex().encode(), __import__("base64").b64decode(item.trace_id.hex())):
        made = ExportTraceServiceRequest.FromString(message.SerializeToString())
        made.resource_spans[0].scope_spans[0].spans[0].trace_id = trace_id
        assert read(made.SerializeToString()).spans[0].context.trace_id == int.from_bytes(item.trace_id, "big")
    item.trace_id = b"short"
    assert read(message.SerializeToString()).problems == ["span 1: traceId must be 16 bytes, not 5"]


def test_old_scopes() -> None:
    """OTLP 0.15 kept the instrumentationLibrarySpans of before in field 1000."""
    body = request("one")
    outer = ExportTraceServiceRequest.FromString(body).resource_spans[0]
    inner = outer.scope_spans[0].SerializeToString()
    moved = b"\xc2\x3e" + bytes([len(inner) & 0x7F | 0x80, len(inner) >> 7]) + inner
    resource = b"\x0a" + bytes([len(outer.resource.SerializeToString())]) + outer.resource.SerializeToString()
    both = resource + moved
    assert len(read(b"\x0a" + bytes([len(both) & 0x7F | 0x80, len(both) >> 7]) + both).spans) == 1


@pytest.mark.parametrize("count", [5_000, 500_000])
def test_a_request_of_empty_spans(count: int) -> None:
    """A bomb: two bytes for a span. It is given up early, however large it is."""
    spans = b"\x12\x00" * count

    def length(number: int) -> bytes:
        return bytes([number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80, number >> 14 & 0x7F | 0x80, number >> 21])

    scope = b"\x12" + length(len(spans)) + spans
    problems: list[str] = []
    found = list(find(b"\x0a" + length(len(scope)) + scope, problems, KnownResources(), "spans"))
    assert len(found) < 2_000 + count // 8 + 10
    assert "more than one item for 16 bytes" in problems[-1]


def test_a_span_without_end() -> None:
    """A span above a mebibyte is refused on its own."""
    batch = read(request("one", "x" * 2**20, "three"))
    assert [item.attributes["who"] for item in batch.spans] == ["one", "three"]
    assert batch.problems == ["span 2: is larger than 1,048,576 bytes"]


def test_what_stands_before_a_cut_is_read() -> None:
    """A request of two resources that is cut in the second one gives the spans of the first."""
    first = to_protobuf(line([encode_span(span())]))
    whole = first + first
    problems: list[str] = []
    found = list(find(whole[:-5], problems, KnownResources()))
    assert len(found) == 1
    assert "cut off" in problems[0]


def test_fields_and_items_are_bounded() -> None:
    """Bytes of nothing but tiny fields end early, wherever they stand; so do more items than were asked for."""
    tiny = b"\x20\x00" * 100_000
    for body in (tiny, b"\x0a" + _varint(len(tiny)) + tiny):
        with pytest.raises(TooManyError, match="one field for 8 bytes"):
            list(walk(body, [], KnownResources(), "spans"))
    two = to_protobuf(line([encode_span(span(span_id=1)), encode_span(span(span_id=2))]))
    assert len(list(walk(two, [], KnownResources(), "spans", 2))) == 2
    with pytest.raises(TooManyError, match="more than 1 items"):
        list(walk(two, [], KnownResources(), "spans", 1))


def _varint(number: int) -> bytes:
    octets = bytearray()
    while number >= 0x80:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*octets, number])
