"""Spans and log records as an SDK would have recorded them, from plain descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry._logs import LogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind

from otel_amplitude.convert import Choice, Converter, Selector
from otel_amplitude.identity import Identity

TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C
SPAN_ID = 0xB7AD6B7169203331
START = 1_700_000_000_123_456_789
SHOP = Resource({"service.name": "shop"})
ALICE = Identity(user_id="u-alice", device_id="device-1")
ANNOTATED = {"amplitude.event_type": "Order Paid"}
PAGE = {"http.request.method": "GET", "http.route": "/cart", "http.response.status_code": 200}


def span(
    attributes: Mapping[str, Any] | None = None,
    *,
    kind: str = "SERVER",
    name: str = "GET /cart",
    parent: str | None = None,
    events: tuple[dict[str, Any], ...] = (),
    start: int | None = START,
    end: int | None = START + 25_000_000,
    scope: str = "opentelemetry.instrumentation.flask",
    resource: Resource = SHOP,
    trace_id: int = TRACE_ID,
    span_id: int = SPAN_ID,
) -> ReadableSpan:
    """A span made by hand; `parent` is None, `local` or `remote`."""
    return ReadableSpan(
        name,
        context=SpanContext(trace_id, span_id, is_remote=False),
        parent=None if parent is None else SpanContext(TRACE_ID, 7, is_remote=parent == "remote"),
        resource=resource,
        attributes=attributes or {},
        events=[Event(event["name"], event.get("attributes"), event.get("timestamp", START)) for event in events],
        kind=SpanKind[kind],
        start_time=start,
        end_time=end,
        instrumentation_scope=InstrumentationScope(scope),
    )


def recorded_span(attributes: Mapping[str, Any], kind: SpanKind = SpanKind.SERVER, name: str = "GET /cart") -> ReadableSpan:
    """A span that the SDK itself made, with whatever it makes of the attributes."""
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False, resource=SHOP)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    provider.get_tracer("shop").start_span(name, kind=kind, attributes=attributes).end()
    (ended,) = memory.get_finished_spans()
    provider.shutdown()
    return ended


def log(event_name: str | None = "Order Paid", attributes: Mapping[str, Any] | None = None, **facts: Any) -> LogRecord:
    """A log record as the API holds it."""
    return LogRecord(
        **{"timestamp": START, "observed_timestamp": START + 1, "event_name": event_name, "attributes": attributes or {}, **facts}
    )


def choose(item: ReadableSpan, **options: Any) -> Choice | str | None:
    """What a selector with these options says about a span."""
    return Selector(**options).span(item, dict(item.attributes or {}))


def convert(item: ReadableSpan, identity: Identity = ALICE, *, selector: Selector | None = None, **options: Any) -> dict[str, Any]:
    """The event of a span that must be chosen."""
    return convert_with(Converter(**options), item, identity, selector)[0]


def convert_with(
    converter: Converter, item: ReadableSpan, identity: Identity = ALICE, selector: Selector | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Event and extra of a span that must be chosen."""
    attributes = dict(item.attributes or {})
    choice = (selector or Selector()).span(item, attributes)
    assert isinstance(choice, Choice), choice
    made = converter.span(item, attributes, choice, identity)
    assert not isinstance(made, str), made
    return made[:2]


def convert_log(record: LogRecord, identity: Identity = ALICE, *, selector: Selector | None = None, **options: Any) -> dict[str, Any]:
    """The event of a log record that must be chosen."""
    choice = (selector or Selector()).log(record, "shop", SHOP)
    assert isinstance(choice, Choice), choice
    made = Converter(**options).log(record, SHOP, InstrumentationScope("shop"), choice, identity)
    assert not isinstance(made, str), made
    return made[0]


class Heard:
    """A log that remembers."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **facts: Any) -> None:
        self.lines.append((event, facts))
