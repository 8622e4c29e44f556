"""Exporters for those who keep OpenTelemetry's stock batch processors; our own processors are the better way.

The stock processors drop unsampled spans, drop the oldest when full, convert outside the request and never flush an exporter
(opentelemetry-python.md 0.2, 2.1). So `export` does not return before its batch is settled or its time is up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_amplitude.client import Amplitude
from otel_amplitude.config import Config
from otel_amplitude.convert.mounts import InnerRoutes
from otel_amplitude.errors import InvalidEventError
from otel_amplitude.otel._logs_api import LogRecordExporter, LogRecordExportResult
from otel_amplitude.otel._reader import reader_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from otel_amplitude.otel._logs_api import ReadableLogRecord


class Settling:
    """What both exporters do: hand each item over, then wait for the client."""

    def __init__(self, client: Amplitude | str | None = None, **options: Any) -> None:
        """Export to a client.

        Args:
            client: a client, which stays its maker's to shut down; or the API key of one that is made here.
            **options: the options of the client that is made here; those not given are read from the environment.

        Raises:
            ConfigurationError: for an option that does not exist, or a value that breaks its rule.
        """
        self._owned = not isinstance(client, Amplitude)
        self.client = client if isinstance(client, Amplitude) else Amplitude(Config.load({"api_key": client, **options}))
        self._reader = reader_of(self.client)
        self._closed = False

    def _settle(self, read: Callable[[Any], object], items: Sequence[Any]) -> bool:
        if self._closed:
            return False
        for item in items:
            try:
                read(item)
            except InvalidEventError:  # under `strict`: counted and logged where it was refused, and the rest of the batch counts as well
                continue
            except Exception as error:
                self._reader.failed(error)
        return self.client.flush(self.client.config.request_timeout)

    def shutdown(self, timeout_millis: float = 30_000) -> None:
        """Flush, and shut a client down that was made here. May be called again."""
        if self._closed:
            return
        self._closed = True
        timeout = min(timeout_millis / 1000, self.client.config.shutdown_timeout)
        if self._owned:
            self.client.shutdown(timeout)
        else:
            self.client.flush(timeout)

    def force_flush(self, timeout_millis: float = 30_000) -> bool:
        """Flush the client; True when everything is settled."""
        return self.client.flush(timeout_millis / 1000)


class AmplitudeSpanExporter(Settling, SpanExporter):
    """Exports spans as events of a client, for a stock `BatchSpanProcessor`.

    `export` may be called from any thread, also concurrently. It waits at most `request_timeout` for the batch to be settled.
    """

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Hand the spans over and wait; FAILURE means that some are not settled yet, and the client goes on trying."""
        inner = InnerRoutes(spans)
        settled = self._settle(lambda span: self._reader.exported_span(span, inner=inner.of(span)), spans)
        return SpanExportResult.SUCCESS if settled else SpanExportResult.FAILURE


class AmplitudeLogRecordExporter(Settling, LogRecordExporter):
    """Exports log records as events of a client, for a stock `BatchLogRecordProcessor`.

    That processor empties the record's context (since SDK 1.44), so identity comes from the record's attributes alone.
    """

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Hand the records over and wait; FAILURE means that some are not settled yet, and the client goes on trying."""
        return LogRecordExportResult.SUCCESS if self._settle(self._reader.exported_log, batch) else LogRecordExportResult.FAILURE
