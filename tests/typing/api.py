"""How users' code looks to type checkers; never run, read by mypy and pyright in strict mode."""

from __future__ import annotations

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import otel_amplitude
from otel_amplitude import (
    Amplitude,
    AmplitudeLogRecordProcessor,
    AmplitudeSpanExporter,
    AmplitudeSpanProcessor,
    Event,
    Identify,
    Next,
    Payload,
    Request,
    Response,
    Result,
    Revenue,
    Stats,
)


def hide_health_checks(payload: Payload, next: Next) -> None:
    if payload.event.event_properties.get("http.route") != "/healthz":
        next(payload)


class Redact:
    def __call__(self, payload: Payload, next: Next) -> None:
        payload.event.user_id = None
        next(payload)


class MemoryTransport:
    def __init__(self) -> None:
        self.requests: list[Request] = []

    def send(self, request: Request) -> Response:
        self.requests.append(request)
        return Response(200, {}, b'{"code": 200}')

    def close(self) -> None: ...


amplitude: Amplitude = otel_amplitude.init(
    "API_KEY",
    server_zone="EU",
    log_level="WARN",
    upload_interval=2,
    retry_timeouts=[0.1, 0.2],
    transport=MemoryTransport(),
    middleware=[hide_health_checks, Redact()],
)
amplitude.add_event_middleware(hide_health_checks).add_event_middleware(Redact())

tracer_provider = TracerProvider()
tracer_provider.add_span_processor(AmplitudeSpanProcessor(amplitude))
tracer_provider.add_span_processor(BatchSpanProcessor(AmplitudeSpanExporter(amplitude)))
logger_provider = LoggerProvider()
logger_provider.add_log_record_processor(AmplitudeLogRecordProcessor(amplitude))

otel_amplitude.set_user("u-12345", device_id=None, session_id=None, groups={"org": "acme"})
result: Result = amplitude.log_event(
    {"event_type": "Order Paid", "user_id": "u-12345", "event_properties": {"total": 12.5}}, extra={"trusted": True}
)
outcome: str = result.outcome
event = Event(event_type="Order Paid", user_id="u-12345")
event.event_properties["total"] = 12.5
amplitude.log_event(event, timeout=1)
amplitude.identify("u-12345", None, Identify().set("plan", "pro").add("orders", 1))
amplitude.revenue("u-12345", None, Revenue(price=2.5, quantity=2))
settled: bool = amplitude.flush(timeout=5.0)
books: Stats = amplitude.stats()
pending: int = books.pending.total
configured: Amplitude = otel_amplitude.configure("API_KEY", rules="events.toml")
