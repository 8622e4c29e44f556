"""Keeping our own work out of traces and events."""

from __future__ import annotations

import threading

import requests
from opentelemetry import context as otel_context
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.instrumentation.utils import is_http_instrumentation_enabled, is_instrumentation_enabled, suppress_instrumentation
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from servers import Server

from otel_amplitude.suppression import KEYS, is_suppressed, suppressed
from otel_amplitude.transport import Request, RequestsTransport


def test_every_way_to_ask_is_answered_inside_of_the_block() -> None:
    """The SDK's key, the one for HTTP and the plain one are set together, and gone afterwards."""
    with suppressed():
        assert is_suppressed()
        assert not is_instrumentation_enabled()
        assert not is_http_instrumentation_enabled()
        assert otel_context.get_value("suppress_instrumentation") is True
    assert len(KEYS) == 3
    assert not is_suppressed()
    assert is_http_instrumentation_enabled()


def test_the_rest_of_the_context_stays() -> None:
    """Only keys are added."""
    token = otel_context.attach(otel_context.set_value("mine", 1))
    with suppressed():
        assert otel_context.get_value("mine") == 1
    otel_context.detach(token)


def test_each_key_alone_is_recognised() -> None:
    """Whoever suppressed, we keep silent."""
    for key in KEYS:
        assert is_suppressed(otel_context.set_value(key, True))
        assert not is_suppressed(otel_context.set_value(key, False))
    with suppress_instrumentation():
        assert is_suppressed()


def test_a_new_thread_does_not_inherit_it() -> None:
    """It has to be entered in the thread that works."""
    found: list[bool] = []
    with suppressed():
        thread = threading.Thread(target=lambda: found.append(is_suppressed()))
        thread.start()
        thread.join()
    assert found == [False]


def test_our_requests_make_no_spans_and_carry_no_trace() -> None:
    """Requests are instrumented, other people's make spans, ours do not."""
    spans = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    instrumentor = RequestsInstrumentor()
    instrumentor.instrument(tracer_provider=provider)
    transport = RequestsTransport()
    try:
        with Server() as server, provider.get_tracer("test").start_as_current_span("work"):
            requests.post(server.url, data=b"{}", timeout=5)
            with suppressed():
                transport.send(Request(server.url, {}, b"{}", 5.0))
                requests.post(server.url, data=b"{}", timeout=5)
            theirs, ours, suppressed_one = server.requests
    finally:
        instrumentor.uninstrument()
        transport.close()
    assert "traceparent" in theirs.headers
    assert "traceparent" not in ours.headers
    assert "traceparent" not in suppressed_one.headers
    assert [span.name for span in spans.get_finished_spans()] == ["POST", "work"]
