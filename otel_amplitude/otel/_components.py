"""What OpenTelemetry builds by entry point, from the environment or a declarative file alone; and the hand-over.

Under `opentelemetry-instrument` the SDK constructs the exporters named in `OTEL_TRACES_EXPORTER` and `OTEL_LOGS_EXPORTER` and wraps
them in its batch processors, which would be the lesser product: unsampled spans dropped, no context, conversion late. So the
`opentelemetry_pre_instrument` hook, opted in by "our exporter was constructed", attaches our own processors and propagator
instead and leaves the wrapped exporters idle. Where no such hook runs, they work as they are.

A wrong option must not keep an application from starting, nor its other exporters: it is reported once and the exporter is disabled.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any, ClassVar

from opentelemetry.sdk.trace.export import SpanExportResult

from otel_amplitude._exit import flush_on_sigterm
from otel_amplitude.client import Amplitude
from otel_amplitude.config import Config
from otel_amplitude.errors import ConfigurationError
from otel_amplitude.identity._propagator import connect_frameworks
from otel_amplitude.instances import register
from otel_amplitude.log import Voice
from otel_amplitude.otel import _exporters
from otel_amplitude.otel._logs_api import LogRecordExportResult
from otel_amplitude.otel._processors import AmplitudeSpanProcessor
from otel_amplitude.otel._reader import reader_of
from otel_amplitude.otel._reload import follow_rules
from otel_amplitude.setup import attach_logs, attach_propagator, attach_spans, tell_started

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, Span

    from otel_amplitude.otel._logs_api import ReadableLogRecord

_built: list[_Component] = []
_clients: list[Amplitude] = []
_fed: set[tuple[int, str]] = set()
_reported: set[str] = set()


def client_for(given: Mapping[str, Any]) -> Amplitude | None:
    """Give the client of these options, one for all components that say the same; None, reported once, when they are wrong."""
    try:
        config = Config.load(given)
        for client in _clients:
            if client.config == config:
                return client
        client = Amplitude(config)
        reader_of(client)  # so that whatever is wrong with it is met in here
    except Exception as error:  # whatever is wrong, the application and its other exporters must start
        report(error)
        return None
    client.log.zero_code = True
    if not _clients:
        register(client)
    _clients.append(client)
    return client


def report(error: Exception) -> None:
    """Say once what is wrong with the set-up."""
    if str(error) not in _reported:
        _reported.add(str(error))
        Voice().error(f"exporter.disabled: {error}")


class _Component(_exporters.Settling):
    """An exporter that is made of keywords alone, never raises for them, and can be made idle."""

    signal: ClassVar[str]

    def __init__(self, api_key: str | None = None, **options: Any) -> None:
        """Take the options; None means the environment's."""
        client = client_for({"api_key": api_key, **options})
        self.idle = client is None
        if client is not None:
            super().__init__(client)
            _built.append(self)

    def shutdown(self, timeout_millis: float = 30_000) -> None:
        """Flush, unless our own processor does."""
        if not self.idle:
            super().shutdown(timeout_millis)

    def force_flush(self, timeout_millis: float = 30_000) -> bool:
        """Flush, unless our own processor does."""
        return self.idle or super().force_flush(timeout_millis)


class AmplitudeSpanExporter(_Component, _exporters.AmplitudeSpanExporter):
    """The span exporter `amplitude` of `OTEL_TRACES_EXPORTER` and of declarative files; its keywords are the options."""

    signal = "spans"

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export, unless our own processor does."""
        return SpanExportResult.SUCCESS if self.idle else super().export(spans)


class AmplitudeLogRecordExporter(_Component, _exporters.AmplitudeLogRecordExporter):
    """The log record exporter `amplitude` of `OTEL_LOGS_EXPORTER` and of declarative files; its keywords are the options."""

    signal = "logs"

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Export, unless our own processor does."""
        return LogRecordExportResult.SUCCESS if self.idle else super().export(batch)


class WatchfulSpanProcessor(AmplitudeSpanProcessor):
    """Our span processor under zero code: it also sees to it that SIGTERM loses nothing under servers that skip `atexit`.

    Some servers install their handlers in each worker long after start-up, and end by the default action (uvicorn under gunicorn).
    The first span that starts on a process's main thread finds those handlers in place.
    """

    def __init__(self, client: Amplitude) -> None:
        super().__init__(client)
        self._watched = 0

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Remember whose request the span belongs to, and look once in each process whether somebody handles SIGTERM by now."""
        super().on_start(span, parent_context)
        process = os.getpid()
        if self._watched != process and threading.get_ident() == threading.main_thread().ident:
            self._watched = process
            watch_sigterm(self._client, wrap=True)


def watch_sigterm(client: Amplitude, *, wrap: bool) -> None:
    """Flush on SIGTERM unless the option forbids it."""
    if client.config.flush_on_sigterm is not False:
        with contextlib.suppress(ValueError, OSError):  # an interpreter that is not the main one has no signals
            flush_on_sigterm(client, wrap=wrap)


def take_over() -> None:
    """Attach our own processors for the exporters that were built, before instrumentors run; no-op where none was."""
    for client in _clients:
        join(client, {exporter.signal for exporter in _built if exporter.client is client})


def join(client: Amplitude, signals: Iterable[str] = ("spans", "logs")) -> None:
    """Let our own processors feed a client, each once, and make idle what was built to export the same; never raises."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        report(ConfigurationError("OTEL_SDK_DISABLED is true, so no telemetry reaches us"))
        return
    try:
        if [signal for signal in signals if _feed(client, signal)]:
            attach_propagator(client.config.identity_headers)
            watch_sigterm(client, wrap=False)
            follow_rules(client)
            tell_started(client)
    except Exception as error:  # exporters that are not idle work on behind the stock processors
        report(error)


def prepare_frameworks() -> None:
    """Let a Django site carry the scope of a request into bodies that stream under ASGI, which only a middleware can; never raises.

    As OpenTelemetry's instrumentor does, and only where that one does it too: `DJANGO_SETTINGS_MODULE` names the settings.
    """
    disabled = {name.strip() for name in os.environ.get("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "").split(",")}
    if not _clients or not os.environ.get("DJANGO_SETTINGS_MODULE") or disabled & {"django", "*"}:
        return
    with contextlib.suppress(Exception):  # no Django here, or settings that cannot be read: the site itself will say so
        from django.conf import settings  # noqa: PLC0415 -- only Django sites have it

        present = [str(name) for name in settings.MIDDLEWARE]
        if not any(name.startswith("otel_amplitude.frameworks.django.") for name in present):
            settings.MIDDLEWARE = ["otel_amplitude.frameworks.django.ScopeMiddleware", *present]
        connect_frameworks()


def _feed(client: Amplitude, signal: str) -> bool:
    new = (id(client), signal) not in _fed
    if new and signal == "spans":
        attach_spans(WatchfulSpanProcessor(client))
    elif new:
        attach_logs(client)
    _fed.add((id(client), signal))
    for exporter in _built:
        exporter.idle = exporter.idle or (exporter.client is client and exporter.signal == signal)
    return new
