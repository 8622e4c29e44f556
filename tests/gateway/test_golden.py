"""Golden items give equal events in process, by JSON and by protobuf, wherever the item itself says who acts."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from convert.recorded import log, span
from convert.test_otlp_json import attribute_maps, encode_log, encode_span, line
from gateway.sending import KEY, TYPES, Gateway
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_amplitude.client import Amplitude
from otel_amplitude.clock import wall
from otel_amplitude.config import Config
from otel_amplitude.gateway.intake import Rules
from otel_amplitude.otel._reader import reader_of
from otel_amplitude.testing import FakeTransport

GOLDEN = sorted((Path(__file__).parents[1] / "golden").glob("*.json"))
WHO = {"user.id": "alice-1", "app.installation.id": "device-1"}
SCOPE = InstrumentationScope("shop")
OPTIONS: dict[str, Any] = {"auto_events_per_minute": 0, "upload_interval": 0.0, "span_events": True, "exposures": True, "log_level": "NONE"}


def spans_of(case: dict[str, Any]) -> list[Any]:
    """The spans of a golden file, as of now and by somebody."""
    resource = Resource(case.get("resource", {"service.name": "shop"}))
    start = int(wall() * 1e9)
    found = []
    for number, described in enumerate(case.get("spans", {}).values(), start=1):
        attributes = {**(described.get("attributes") or {}), **WHO}
        events = tuple({**event, "timestamp": start} for event in case.get("span_events", ()))
        times = {"start": start, "end": start + 25_000_000, "scope": "shop", "span_id": number, "trace_id": number}
        found.append(span(**{**described, **times, "attributes": attributes}, resource=resource, events=events))
    return found


def logs_of(case: dict[str, Any]) -> list[Any]:
    """The log records, likewise."""
    now = int(wall() * 1e9)
    found = []
    for described in case.get("logs", {}).values():
        found.append(
            log(**{**described, "attributes": {**(described.get("attributes") or {}), **WHO}, "timestamp": now, "observed_timestamp": now})
        )
    return found


class Ways:
    """The three ways of an item to Amplitude; each gives its events."""

    def __init__(self) -> None:
        self._transport = FakeTransport()
        self._client = Amplitude(Config(KEY, transport=self._transport, **OPTIONS))
        # A parent in another process is none of a golden item's business.
        self._gateways = {name: Gateway(None, Rules("memory", requests_of=("*",)), **OPTIONS) for name in TYPES}

    def in_process(self, spans: list[Any], logs: list[Any], resource: Resource) -> list[dict[str, Any]]:
        """The events that an application would send."""
        reader = reader_of(self._client)
        for item in spans:
            reader.exported_span(item)
        for record in logs:
            reader.exported_log(ReadableLogRecord(record, resource, SCOPE))
        assert self._client.flush(10)
        return taken(self._transport)

    def over_otlp(self, spans: list[Any], logs: list[Any], resource: Resource, content_type: str) -> list[dict[str, Any]]:
        """The events that a gateway sends."""
        made, about = self._gateways[content_type], dict(resource.attributes)
        if spans:
            assert made.take(json.loads(line([encode_span(item) for item in spans], resource=about)), content_type).said() == (0, "")
        if logs:
            assert made.take(json.loads(line([], [encode_log(item) for item in logs], resource=about)), content_type).status == 200
        assert made.client.flush(10)
        return taken(made.transport)

    def close(self) -> None:
        """End the clients."""
        for client in (self._client, *(made.client for made in self._gateways.values())):
            client.shutdown(5)


def taken(transport: FakeTransport) -> list[dict[str, Any]]:
    """What arrived since the last call."""
    events = transport.events
    transport.requests.clear()
    return events


@pytest.fixture
def ways() -> Iterator[Ways]:
    """The three ways."""
    found = Ways()
    yield found
    found.close()


@pytest.mark.parametrize("content_type", TYPES)
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_golden_item_gives_the_same_event(ways: Ways, path: Path, content_type: str) -> None:
    """Key for key, `insert_id` included."""
    case = json.loads(path.read_text(encoding="utf-8"))
    resource = Resource(case.get("resource", {"service.name": "shop"}))
    spans, logs = spans_of(case), logs_of(case)
    expected = ways.in_process(spans, logs, resource)
    assert ways.over_otlp(spans, logs, resource, content_type) == expected


def test_any_attributes_give_the_same_events(ways: Ways) -> None:
    """In process, by JSON and by protobuf."""
    resource = Resource({"service.name": "shop"})
    traces = itertools.count(1)

    @settings(max_examples=60)
    @given(st.lists(attribute_maps, min_size=1, max_size=3))
    def same(maps: list[dict[str, Any]]) -> None:
        start = int(wall() * 1e9)
        about = {"kind": "INTERNAL", "start": start, "end": start + 1, "scope": "shop"}
        spans = [span({**found, **WHO, "amplitude.event_type": "Order Paid"}, trace_id=next(traces), **about) for found in maps]
        expected = ways.in_process(spans, [], resource)
        assert len(expected) == len(spans)
        assert [ways.over_otlp(spans, [], resource, content_type) == expected for content_type in TYPES] == [True, True]

    same()
