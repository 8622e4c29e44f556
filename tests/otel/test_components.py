"""What OpenTelemetry builds by entry point: exporters that work, hand over, or are disabled by wrong options."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator

import pytest
from opentelemetry import propagate
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from otel.fresh import KEY, PAID, fresh_process, spans

from otel_amplitude import instances as clients
from otel_amplitude.otel._components import AmplitudeLogRecordExporter, AmplitudeSpanExporter, take_over
from otel_amplitude.testing import FakeTransport


@pytest.fixture
def transport() -> FakeTransport:
    """Where the events of a test arrive."""
    return FakeTransport()


@pytest.fixture(autouse=True)
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[TracerProvider]:
    """The tracer provider of a process that has just started."""
    with fresh_process(monkeypatch) as tracers:
        yield tracers


def test_without_the_hook_the_exporter_works(transport: FakeTransport, provider: TracerProvider) -> None:
    """Where nobody runs the pre-instrument hook, `export` delivers."""
    exporter = AmplitudeSpanExporter(KEY, transport=transport)
    span = provider.get_tracer("shop").start_span("pay", attributes=PAID)
    span.end()
    assert exporter.export([span]) is SpanExportResult.SUCCESS  # type: ignore[list-item]
    assert [event["event_type"] for event in transport.events] == ["Order Paid"]
    assert exporter.force_flush(1000)
    exporter.shutdown()


def test_after_the_hand_over_the_exporter_is_idle(
    transport: FakeTransport, provider: TracerProvider, capfd: pytest.CaptureFixture[str]
) -> None:
    """Our processor delivers each span once, however often the stock processor exports it."""
    exporter = AmplitudeSpanExporter(KEY, transport=transport)
    take_over()
    take_over()
    spans(provider)
    span = provider.get_tracer("shop").start_span("pay", attributes=PAID)
    assert exporter.export([span]) is SpanExportResult.SUCCESS  # type: ignore[list-item]
    assert exporter.client.flush(5)
    assert len(transport.events) == 1
    assert capfd.readouterr().err.count("exporter.started") == 1


def test_both_signals_share_a_client(transport: FakeTransport) -> None:
    """Exporters of the same options feed one client, and `get_instance` finds it."""
    one, two = AmplitudeSpanExporter(KEY, transport=transport), AmplitudeLogRecordExporter(KEY, transport=transport)
    assert one.client is two.client is clients.get_instance()
    other = AmplitudeSpanExporter("another-key", transport=transport)
    assert other.client is not one.client


def test_two_exporters_of_the_same_options_feed_once(transport: FakeTransport, provider: TracerProvider) -> None:
    """An exporter that stands twice in a file doubles nothing."""
    exporter = AmplitudeSpanExporter(KEY, transport=transport)
    AmplitudeSpanExporter(KEY, transport=transport)
    take_over()
    spans(provider, 3)
    assert exporter.client.flush(5)
    assert len(transport.events) == 3


def test_wrong_options_are_told_once_and_disable(transport: FakeTransport, caplog: pytest.LogCaptureFixture) -> None:
    """No exception, one error for both signals, and an exporter that says SUCCESS to everything."""
    caplog.set_level(logging.ERROR)
    exporters = [AmplitudeSpanExporter(KEY, transport=transport, bogus=1), AmplitudeLogRecordExporter(KEY, transport=transport, bogus=1)]
    take_over()
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["exporter.disabled"]
    assert "'bogus' is no option" in caplog.text
    for exporter in exporters:
        assert exporter.idle
        assert exporter.force_flush()
        assert exporter.export([]).name == "SUCCESS"
        exporter.shutdown()


def test_a_hand_over_that_fails_leaves_the_exporter_at_work(
    transport: FakeTransport, provider: TracerProvider, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A provider that takes no processors costs the better way, not the events."""
    monkeypatch.setattr(TracerProvider, "add_span_processor", lambda *_: 1 / 0)
    exporter = AmplitudeSpanExporter(KEY, transport=transport)
    take_over()
    assert not exporter.idle
    assert "ZeroDivisionError" in caplog.text or "division by zero" in caplog.text
    span = provider.get_tracer("shop").start_span("pay", attributes=PAID)
    span.end()
    exporter.export([span])  # type: ignore[list-item]
    assert len(transport.events) == 1


def test_the_hook_does_nothing_for_others() -> None:
    """Every instrumented process with our package calls it; where nobody asked for us, nothing is touched."""
    before = propagate.get_global_textmap(), signal.getsignal(signal.SIGTERM)
    take_over()
    assert (propagate.get_global_textmap(), signal.getsignal(signal.SIGTERM)) == before


def test_a_disabled_sdk_is_left_alone(transport: FakeTransport, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """With `OTEL_SDK_DISABLED` nothing is attached, and it is said."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "TRUE")
    exporter = AmplitudeSpanExporter(KEY, transport=transport)
    take_over()
    assert not exporter.idle
    assert "OTEL_SDK_DISABLED is true" in caplog.text


def test_sigterm_is_handled_unless_forbidden(transport: FakeTransport) -> None:
    """Under zero code the default handler of SIGTERM is replaced; the option forbids it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    AmplitudeSpanExporter(KEY, transport=transport, flush_on_sigterm=False)
    take_over()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    AmplitudeLogRecordExporter("another-key", transport=transport)
    take_over()
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL


def test_a_handler_that_comes_later_is_wrapped(transport: FakeTransport, provider: TracerProvider) -> None:
    """A server that installs its handler in a worker finds it called first, and the events flushed."""
    calls: list[str] = []
    exporter = AmplitudeSpanExporter(KEY, transport=transport)
    take_over()
    signal.signal(signal.SIGTERM, lambda *_: calls.append("server"))
    spans(provider)
    signal.raise_signal(signal.SIGTERM)
    assert calls == ["server"]
    assert len(transport.events) == 1
    spans(provider)
    assert len(transport.events) == 2, "after SIGTERM each event is settled at once"
    assert exporter.client.stats().pending.total == 0


def test_a_misspelt_variable_is_named_with_the_nearest(
    transport: FakeTransport, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each unknown variable with our prefix is told."""
    monkeypatch.setenv("OTEL_EXPORTER_AMPLITUDE_SERVERZONE", "EU")
    monkeypatch.setenv("OTEL_EXPORTER_AMPLITUDE_QUX", "1")
    AmplitudeSpanExporter(KEY, transport=transport)
    assert "OTEL_EXPORTER_AMPLITUDE_SERVERZONE nearest=OTEL_EXPORTER_AMPLITUDE_SERVER_ZONE" in caplog.text
    assert "OTEL_EXPORTER_AMPLITUDE_QUX nearest=" in caplog.text
