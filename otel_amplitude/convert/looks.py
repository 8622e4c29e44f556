"""What a file looks like that is no OTLP, in words, with what to do about it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

_EXPORT: Final = "let the Collector's file exporter, or an SDK's OTLP file exporter, write it"

NOT_OTLP: Final = (
    f"is binary, but no OTLP in protobuf (one request, or requests behind their length as the Collector writes them): {_EXPORT}"
)
_BINARY: Final[tuple[tuple[bytes, str], ...]] = (
    (b"PAR1", "a Parquet file: convert it to OTLP, or to event lines with event_type and insert_id"),
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (b"BZh", "bzip2: unpack it first (bzip2 -dc FILE | otel-amplitude convert -)"),
    (b"\xfd7zXZ\x00", "xz: unpack it first (xz -dc FILE | otel-amplitude convert -)"),
    (b"\x04\x22\x4d\x18", "lz4: unpack it first (lz4 -dc FILE | otel-amplitude convert -)"),
    (b"\xff\x06\x00\x00sNaPpY", "snappy: unpack it first"),
    (b"SQLite format 3\x00", "an SQLite database: export OTLP from it"),
    (b"ARROW1", "an Arrow file: convert it to OTLP"),
    (b"Obj\x01", "an Avro file: convert it to OTLP"),
    (b"%PDF", "a PDF document, which holds no telemetry"),
    (b"\x7fELF", "a program, which holds no telemetry"),
    (b"\x89PNG", "a picture, which holds no telemetry"),
)
_TEXT: Final[tuple[tuple[re.Pattern[bytes], str], ...]] = (
    (re.compile(rb"\s*<(!doctype\s+html|html)\b", re.IGNORECASE), "an HTML page: a log-in or error page was saved in place of the data"),
    (re.compile(rb"\s*<(\?xml|[A-Za-z][\w:.-]*[\s>])"), f"XML: {_EXPORT}"),
    (re.compile(rb"ResourceSpans #\d|ResourceLog #\d|ScopeSpans #\d"), f"output of the Collector's debug exporter: {_EXPORT}"),
    (re.compile(rb"Activity\.(TraceId|Id):|LogRecord\.Timestamp:"), f"output of .NET's console exporter: {_EXPORT}"),
    (re.compile(rb"#<struct OpenTelemetry::SDK"), f"output of Ruby's console exporter: {_EXPORT}"),
    (re.compile(rb"LoggingSpanExporter|'[^'\n]*' : [0-9a-f]{32} [0-9a-f]{16} "), "output of Java's logging exporter: use logging-otlp"),
    (re.compile(rb"^\{\s*\n\s+\w+: ", re.MULTILINE), f"output of JavaScript's console exporter: {_EXPORT}"),
    (
        re.compile(rb"SpanContext \{|InstrumentationScope \{|^Spans\s*\n\s*Resource", re.MULTILINE),
        f"output of Rust's stdout exporter: {_EXPORT}",
    ),
    (re.compile(rb"^\s*resource_?(spans|logs|metrics) \{", re.MULTILINE), f"protobuf in its text form, as print() shows it: {_EXPORT}"),
    (re.compile(rb"\A(version https://git-lfs)"), "a pointer of Git LFS, not the file itself: git lfs pull"),
    (
        re.compile(rb"\A\s*[\w.\" -]+([,;\t])[\w.\" -]+(\1[^\n]*)?\r?\n[^\n]*\1"),
        "CSV: write event lines with event_type and insert_id instead",
    ),
    (re.compile(rb"\A(---\s*\n|[\w-]+:\s*(\n\s+|\S))"), f"YAML or a log: {_EXPORT}"),
)


def looks_binary(head: bytes) -> str:
    """Say what file the first bytes are the mark of; empty where they are none."""
    for magic, words in _BINARY:
        if head.startswith(magic):
            return f"looks like {words}"
    if head[257:262] == b"ustar":
        return "looks like a tar archive: unpack it first"
    return ""


def looks_text(head: bytes) -> str:
    """Say what a text that is not JSON looks like; empty where that can not be told."""
    for pattern, words in _TEXT:
        if pattern.search(head):
            return f"looks like {words}"
    return ""


def _has(*names: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda item: all(name in item for name in names)


_JSON: Final[tuple[tuple[Callable[[Mapping[str, Any]], bool], str], ...]] = (
    (_has("traceID", "spans"), f"Jaeger's own JSON: fetch the trace as OTLP (/api/v3/traces), or {_EXPORT}"),
    (_has("traceID", "spanID"), f"a span of Jaeger's own JSON: fetch the trace as OTLP (/api/v3/traces), or {_EXPORT}"),
    (_has("traceID", "rootServiceName"), "a search result of Tempo: fetch the traces themselves (/api/traces/ID)"),
    (lambda item: "traceId" in item and "id" in item and "spanId" not in item, f"Zipkin's JSON: {_EXPORT} (the Collector reads Zipkin)"),
    (
        lambda item: isinstance(item.get("context"), dict) and "trace_id" in item["context"],
        f"output of Python's console exporter: {_EXPORT}",
    ),
    (_has("severity_number", "body"), f"output of Python's console exporter for logs: {_EXPORT}"),
    (_has("SpanContext"), f"output of Go's stdout exporter: {_EXPORT}"),
    (_has("traceEvents"), "a trace of Chrome, which holds no spans of OpenTelemetry"),
    (_has("log", "stream"), "a container's log: take the lines out first (jq -r .log FILE | otel-amplitude convert -)"),
    (_has("errors"), "an error message, saved in place of the data"),
    (_has("error"), "an error message, saved in place of the data"),
    (_has("scope", "spanId"), f"a span without its resource: {_EXPORT}"),
    (_has("traceId", "spanId"), f"a span or log record without its resource: {_EXPORT}"),
)


def looks_json(data: object) -> str:
    """Say what a JSON value that is neither OTLP nor an event looks like."""
    inner = data
    for _ in range(3):
        if isinstance(inner, list) and inner:
            inner = inner[0]
        elif isinstance(inner, dict) and not _known(inner):
            inner = next((inner[name] for name in ("data", "traces", "result") if inner.get(name)), None)
    for item in (data, inner):
        if isinstance(item, dict) and (words := _known(item)):
            return f"looks like {words}"
    if isinstance(data, dict):
        names = ", ".join(list(data)[:4])
        return f"is JSON, but neither OTLP nor an event: there is no resourceSpans, resourceLogs or event_type in it, but {names}"
    return f"is JSON, but neither OTLP nor an event: {_JSON_NAMES.get(type(data), 'a number')}"


_JSON_NAMES: Final = {list: "a list of something else", str: "a text", type(None): "null", bool: "true or false"}


def _known(item: Mapping[str, Any]) -> str:
    return next((words for fits, words in _JSON if fits(item)), "")
