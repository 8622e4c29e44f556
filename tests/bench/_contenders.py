"""The contenders: a span processor each, made in a process of its own."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from otel_amplitude.identity import scope_of

KEY = "0123456789abcdef0123456789abcdef"


def _touch(payload: Any, next: Callable[[Any], None]) -> None:
    """Change one property, as a middleware would."""
    payload.event.event_properties["tier"] = "gold"
    next(payload)


def ours(url: str, *, middlewares: int = 1, **options: Any) -> SpanProcessor:
    """Our processor, with options as everybody gets them; gzip as Amplitude's own hosts get it."""
    from otel_amplitude import Amplitude, AmplitudeSpanProcessor, Config

    given = {"server_url": url + "/2/httpapi", "compression": "gzip", "middleware": (_touch,) * middlewares, **options}
    return AmplitudeSpanProcessor(Amplitude(Config(KEY, **given)))


def _spooled(url: str) -> SpanProcessor:
    return ours(url, spool_dir=tempfile.mkdtemp(prefix="bench-spool-"))


class _Nowhere(SpanExporter):
    def export(self, spans: object) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def _batch_to_nowhere(_url: str) -> SpanProcessor:
    return BatchSpanProcessor(_Nowhere())


def _otlp(url: str) -> SpanProcessor:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return BatchSpanProcessor(OTLPSpanExporter(endpoint=url + "/v1/traces"))


class _Tracking(SpanProcessor):
    """What people write today: `track` of Amplitude's SDK in `on_end`."""

    def __init__(self, url: str) -> None:
        from amplitude import Amplitude, BaseEvent, Config

        logging.getLogger("amplitude").setLevel(logging.CRITICAL)
        self._event = BaseEvent
        self._client = Amplitude(KEY, configuration=Config(server_url=url + "/2/httpapi"))
        self._scopes: dict[int, Any] = {}

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self._scopes[span.get_span_context().span_id] = scope_of(parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        context = span.context
        assert context is not None
        scope = self._scopes.pop(context.span_id, None)
        attributes = dict(span.attributes or {})
        name = attributes.pop("amplitude.event_type", None)
        if name is None or scope is None:
            return
        attributes.update(tier="gold", service="shop", service_version="2026.11.1", environment="production")
        attributes["trace_id"] = f"{context.trace_id:032x}"
        attributes["duration_ms"] = ((span.end_time or 0) - (span.start_time or 0)) / 1e6
        self._client.track(
            self._event(
                str(name),
                user_id=scope.user_id,
                device_id=scope.device_id,
                session_id=scope.session_id,
                time=(span.start_time or 0) // 1_000_000,
                insert_id=f"{context.trace_id:032x}{context.span_id:016x}",
                event_properties=attributes,
            )
        )

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        for future in self._client.flush() or ():
            if future is not None:
                future.result(timeout_millis / 1000)
        return True

    def shutdown(self) -> None:
        self._client.shutdown()


def _none(_url: str) -> SpanProcessor:
    return SpanProcessor()


def _floor(url: str) -> SpanProcessor:
    from tests.bench._floor import Floor

    return Floor(url)


CONTENDERS: dict[str, Callable[[str], SpanProcessor]] = {
    "none": _none,
    "bsp": _batch_to_nowhere,
    "floor": _floor,
    "ours+fast": ours,
    "ours": ours,
    "ours+fast spool_dir": _spooled,
    "ours+fast 0 middlewares": lambda url: ours(url, middlewares=0),
    "ours+fast 10 middlewares": lambda url: ours(url, middlewares=10),
    "otlp": _otlp,
    "amplitude": _Tracking,
}
