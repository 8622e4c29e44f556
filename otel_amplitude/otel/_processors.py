"""Where spans and log records come in: choose, ask who it was, convert, accept. All of it on the application's thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import SpanKind

from otel_amplitude.convert._tables import EVENT_TYPE
from otel_amplitude.errors import InvalidEventError
from otel_amplitude.otel._logs_api import LogRecordProcessor
from otel_amplitude.otel._reader import reader_of
from otel_amplitude.sdk_access import SPAN_ID, ended

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

    from otel_amplitude.client import Amplitude
    from otel_amplitude.otel._logs_api import ReadWriteLogRecord

_SERVER: Final = SpanKind.SERVER


class _Feeder:
    """What both processors share: a client, the reader that feeds it, and an end."""

    def __init__(self, client: Amplitude) -> None:
        """Feed `client`; several processors may feed one."""
        self._client = client
        self._reader = reader_of(client)
        self._spans = self._reader.open_spans
        self._closed = False
        client.leaving.attach()

    def shutdown(self) -> None:
        """Stop this processor and flush; the client itself stays open for others, and for the exit hook."""
        if not self._closed:
            self._closed = True
            self._client.leaving.detach()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Flush the client within the time given."""
        return self._client.flush(timeout_millis / 1000)


class AmplitudeSpanProcessor(_Feeder, SpanProcessor):
    """Turns ended spans into events of one client.

    `on_start` remembers whose request a span belongs to; `on_end` chooses, converts and hands over. Both run on the
    application's thread, take microseconds for a span that is not chosen, wait for nothing and raise nothing
    (under `strict`, `on_end` raises for a bad event). Spans that were recorded but not sampled count as well:
    product analytics must not shrink with trace sampling.
    """

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Remember whose request the span belongs to."""
        try:
            self._spans.started(span, parent_context)
        except Exception as error:
            self._reader.failed(error, lost=False)

    def on_end(self, span: ReadableSpan) -> None:
        """Make an event of the span, when it is chosen."""
        try:
            context, kind, attributes = ended(span)
            noted = None if context is None else self._spans.forget(context[SPAN_ID], None)
            # Most spans end here, so each application pays for what is done up to this line.
            if kind is _SERVER or EVENT_TYPE in attributes or self._reader.reads_unmarked or self._spans.beside:
                self._reader.span(span, context, kind, attributes.copy(), noted, self._closed)
        except InvalidEventError:
            if self._client.config.strict:
                raise
        except Exception as error:
            self._reader.failed(error)


class AmplitudeLogRecordProcessor(_Feeder, LogRecordProcessor):
    """Turns log records with an event name, or with `amplitude.event_type`, into events of one client.

    `on_emit` runs on the thread that emitted the record, in its context; it waits for nothing and raises nothing
    (under `strict` it raises for a bad event).
    """

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Make an event of the record, when it is chosen."""
        try:
            self._reader.log(log_record, closed=self._closed)
        except InvalidEventError:
            if self._client.config.strict:
                raise
        except Exception as error:
            self._reader.failed(error)
