"""For those who keep the stock batch processors: export settles before it returns."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExportResult, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExportResult

from otel_amplitude import Amplitude, AmplitudeLogRecordExporter, AmplitudeSpanExporter, Config, ConfigurationError
from otel_amplitude.errors import TransportError
from otel_amplitude.testing import FakeTransport, answer

KEY = "0123456789abcdef0123456789abcdef"
ATTRIBUTES = {"amplitude.event_type": "Order Paid", "amplitude.user_id": "u-12345"}


@pytest.fixture
def transport() -> FakeTransport:
    return FakeTransport()


def test_the_stock_batch_processor_delivers_spans(transport: FakeTransport) -> None:
    """Its flush is enough, since export waits."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(AmplitudeSpanExporter(KEY, transport=transport)))
    for number in range(3):
        provider.get_tracer("x").start_span("pay", attributes={**ATTRIBUTES, "number": number}).end()
    provider.force_flush()
    assert [event["event_properties"]["number"] for event in transport.events] == [0, 1, 2]
    provider.shutdown()
    assert transport.closed == 1


def test_the_stock_batch_processor_delivers_log_records(transport: FakeTransport) -> None:
    """Identity can only be in the attributes there (OT 3.4)."""
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(AmplitudeLogRecordExporter(KEY, transport=transport)))
    provider.get_logger("shop").emit(event_name="signup", attributes={"amplitude.user_id": "u-12345"})
    provider.get_logger("otel_amplitude").emit(event_name="ours", attributes={"amplitude.user_id": "u-12345"})
    provider.force_flush()
    assert [event["event_type"] for event in transport.events] == ["signup"]
    provider.shutdown()


def test_simple_processors_work_too(transport: FakeTransport) -> None:
    """They call export on the application's thread."""
    spans, logs = TracerProvider(shutdown_on_exit=False), LoggerProvider(shutdown_on_exit=False)
    client = Amplitude(Config(KEY, transport=transport))
    spans.add_span_processor(SimpleSpanProcessor(AmplitudeSpanExporter(client)))
    logs.add_log_record_processor(SimpleLogRecordProcessor(AmplitudeLogRecordExporter(client)))
    spans.get_tracer("x").start_span("pay", attributes=ATTRIBUTES).end()
    logs.get_logger("x").emit(event_name="signup", attributes={"amplitude.user_id": "u-12345"})
    assert [event["event_type"] for event in transport.events] == ["Order Paid", "signup"]
    spans.shutdown()
    logs.shutdown()
    assert client.log_event({"event_type": "Still Open", "user_id": "u-12345"}).accepted
    client.shutdown()


def test_what_is_not_settled_in_time_is_a_failure_and_stays_the_clients() -> None:
    """The SDK drops what failed; our client goes on trying."""
    there: list[bool] = []

    def server(_: Any) -> Any:
        if not there:
            raise TransportError("refused")
        return answer(200)

    exporter = AmplitudeSpanExporter(KEY, transport=FakeTransport(server), request_timeout=0.01, retry_timeouts=[0.05] * 1_000)
    provider = TracerProvider(shutdown_on_exit=False)
    span = provider.get_tracer("x").start_span("pay", attributes=ATTRIBUTES)
    span.end()
    assert exporter.export([span]) is SpanExportResult.FAILURE
    there.append(True)
    assert exporter.client.flush(5)
    assert exporter.client.stats().acknowledged == 1
    exporter.shutdown()


def test_after_shutdown_export_fails(transport: FakeTransport) -> None:
    """As the specification asks; shutdown may be called again."""
    spans, logs = AmplitudeSpanExporter(KEY, transport=transport), AmplitudeLogRecordExporter(KEY, transport=transport)
    for exporter in (spans, logs):
        exporter.shutdown()
        exporter.shutdown()
        assert exporter.force_flush()
    assert spans.export([]) is SpanExportResult.FAILURE
    assert logs.export([]) is LogRecordExportResult.FAILURE


def test_an_item_that_our_code_stumbles_over_does_not_stop_the_others(transport: FakeTransport) -> None:
    """Counted as internal."""
    exporter = AmplitudeSpanExporter(KEY, transport=transport)
    span = TracerProvider(shutdown_on_exit=False).get_tracer("x").start_span("pay", attributes=ATTRIBUTES)
    span.end()
    hostile: Any = object()
    assert exporter.export([hostile, span]) is SpanExportResult.SUCCESS
    assert exporter.client.stats().refused == {"internal": 1}
    assert len(transport.events) == 1
    exporter.shutdown()


def test_a_bad_event_is_counted_once_under_strict(transport: FakeTransport) -> None:
    """As invalid, not as a fault of ours; and it does not stop the others."""
    exporter = AmplitudeSpanExporter(KEY, transport=transport, strict=True)
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("x")
    reserved = tracer.start_span("bad", attributes={**ATTRIBUTES, "amplitude.event_type": "[Amplitude] Revenue"})
    good = tracer.start_span("pay", attributes=ATTRIBUTES)
    reserved.end()
    good.end()
    assert exporter.export([reserved, good]) is SpanExportResult.SUCCESS
    assert exporter.client.stats().refused == {"invalid": 1}
    assert [event["event_type"] for event in transport.events] == ["Order Paid"]
    exporter.shutdown()


def test_an_exporter_built_by_hand_refuses_wrong_options() -> None:
    """Bad configuration raises at once."""
    with pytest.raises(ConfigurationError, match="no option"):
        AmplitudeSpanExporter(KEY, flush_every=3)
