"""The spans and log records that `rules explain` is asked about: from files of OTLP, or rebuilt from events in a sandbox."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind

from otel_amplitude.cli._ask import ask
from otel_amplitude.cli._inputs import Inputs, Problems, SourceError
from otel_amplitude.convert.otlp import read_document
from otel_amplitude.convert.recorded import KnownResources

# property of an event ← attribute of the span it was made from
_ATTRIBUTES: Final = {"method": "http.request.method", "route": "http.route", "status_code": "http.response.status_code"}
_RESOURCE: Final = {"service": "service.name", "service_version": "service.version", "environment": "deployment.environment.name"}


def read_files(given: Sequence[str], trace: str | None) -> tuple[list[ReadableSpan | ReadableLogRecord], Problems]:
    """Give the spans and log records of files, and what could not be read.

    Args:
        given: names, wildcards, folders, `-` for standard input.
        trace: the id of the only trace that is wanted, None for all.

    Raises:
        SourceError: a name stands for no file.
        OSError: a file can not be read.
    """
    found: list[ReadableSpan | ReadableLogRecord] = []
    problems, resources = Problems(), KnownResources()
    for document in Inputs(given):
        batch = read_document(document, resources)
        items: list[ReadableSpan | ReadableLogRecord] = [*batch.spans, *batch.records]
        found.extend(item for item in items if trace is None or trace_of(item) == trace.lower())
        problems.note(document.where, batch.problems)
    return found, problems


def trace_of(item: ReadableSpan | ReadableLogRecord) -> str:
    """Give the trace id of an item as text."""
    number = item.log_record.trace_id if isinstance(item, ReadableLogRecord) else item.context.trace_id if item.context else 0
    return f"{number or 0:032x}"


def read_trace(sandbox: str, trace_id: str) -> list[ReadableSpan]:
    """Give the spans of a trace whose events are in a sandbox, as far as the events tell.

    Raises:
        TransportError: the sandbox does not answer.
        SourceError: it has no such trace, or none that rules are asked about.
    """
    rows = ask(sandbox, "/api/events", text=trace_id, limit=1_000)["events"]
    events = [row["sent"] for row in reversed(rows) if row["trace"] == trace_id]
    spans = [span for number, event in enumerate(events, 1) for span in _rebuilt(event, trace_id, number)]
    if events and not spans:
        names = ", ".join(sorted({str(event.get("event_type")) for event in events}))
        raise SourceError(
            f"trace {trace_id} is in {sandbox} with {names}, but as no request that could be rebuilt: annotated and logged events name "
            "themselves, and no rule is asked; for other spans give files of OTLP"
        )
    if not spans:
        raise SourceError(f"no event of trace {trace_id} is in {sandbox}; copy the trace id from an event on its page")
    return spans


def _rebuilt(event: Mapping[str, Any], trace_id: str, number: int) -> Iterator[ReadableSpan]:
    """Give the span that an automatic event was made from, under a span id of its own; nothing for an event of something else."""
    properties = event.get("event_properties")
    if not isinstance(properties, dict) or "route" not in properties:
        return
    try:
        context = SpanContext(int(trace_id, 16), number, is_remote=False)
    except ValueError:
        return
    start = int(event["time"]) * 1_000_000 if isinstance(event.get("time"), int) else None
    own = {
        name: value for name, value in properties.items() if name not in (*_ATTRIBUTES, *_RESOURCE, "duration_ms", "trace_id", "error_type")
    }
    known = {attribute: properties[name] for name, attribute in _ATTRIBUTES.items() if name in properties}
    ids = {f"amplitude.{name}": event[name] for name in ("user_id", "device_id") if event.get(name)}
    yield ReadableSpan(
        f"{properties.get('method', '')} {properties['route']}".strip(),
        context=context,
        resource=Resource({attribute: properties[name] for name, attribute in _RESOURCE.items() if name in properties}),
        attributes={**own, **known, **ids},
        kind=SpanKind.SERVER,
        start_time=start,
        end_time=start,
    )
