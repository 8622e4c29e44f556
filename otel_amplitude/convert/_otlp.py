"""OTLP in JSON, one request a line as the Collector's file exporter writes it, as the spans and log records an SDK would have held.

The encoding (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding): names in lowerCamelCase, ids in hexadecimal, 64-bit
integers as text or number, enums as numbers (names are taken as well), bytes in base64, unknown names ignored.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeVar

import orjson
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

_KINDS: Final = (SpanKind.INTERNAL, SpanKind.INTERNAL, SpanKind.SERVER, SpanKind.CLIENT, SpanKind.PRODUCER, SpanKind.CONSUMER)
_KIND_NAMES: Final = ("SPAN_KIND_UNSPECIFIED", *(f"SPAN_KIND_{kind.name}" for kind in _KINDS[1:]))
_STATUSES: Final = (StatusCode.UNSET, StatusCode.OK, StatusCode.ERROR)
_STATUS_NAMES: Final = tuple(f"STATUS_CODE_{status.name}" for status in _STATUSES)
# opentelemetry/proto/trace/v1/trace.proto, SpanFlags: whether it is known that the parent is remote, and whether it is.
_HAS_IS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200
# Where it is not known: these two are made on behalf of another process, the others within one.
_FROM_ELSEWHERE: Final = (SpanKind.SERVER, SpanKind.CONSUMER)
_MOST_NANOSECONDS: Final = 2**64

T = TypeVar("T")


class Batch(NamedTuple):
    """What one line holds.

    Attributes:
        spans: those that could be read.
        records: likewise.
        problems: what could not be read and why, in words; empty for a line that is whole.
    """

    spans: list[ReadableSpan]
    records: list[ReadableLogRecord]
    problems: list[str]

    def parents_of(self, span: ReadableSpan) -> list[ReadableSpan]:
        """Give the local parents of a span that are in the same batch, from the nearest on; they may know who acts."""
        by_id = {item.context.span_id: item for item in self.spans if item.context}
        found: list[ReadableSpan] = []
        while span.parent is not None and not span.parent.is_remote:
            above = by_id.pop(span.parent.span_id, None)
            if above is None or above.context is None or above.context.trace_id != span.parent.trace_id:
                break
            found.append(above)
            span = above
        return found


class _WrongError(Exception):
    """Something is not as OTLP says; the message says what."""


def read_line(line: bytes | str) -> Batch:
    """Read one line; raises nothing, whatever it holds. One broken span or record costs itself, not its neighbours.

    >>> read_line(b'{"resourceSpans": []}').problems, read_line(b"{").problems[0][:11]
    ([], 'is not JSON')
    """
    try:
        data = orjson.loads(line)
    except ValueError as error:
        return Batch([], [], [f"is not JSON: {error}"])
    return read_request(data)


def read_request(data: object) -> Batch:
    """Read one request that was parsed already, in the way of `read_line`."""
    batch = Batch([], [], [])
    if not isinstance(data, dict) or not any(name in data for name in ("resourceSpans", "resourceLogs", "resourceMetrics")):
        batch.problems.append("is not OTLP: there is no resourceSpans or resourceLogs in it")
        return batch
    _read_all(data, ("resourceSpans", "scopeSpans", "spans"), _span, batch.spans, batch.problems)
    _read_all(data, ("resourceLogs", "scopeLogs", "logRecords"), _record, batch.records, batch.problems)
    return batch


def _read_all(
    data: Mapping[str, Any],
    names: tuple[str, str, str],
    read: Callable[[Mapping[str, Any], Resource, InstrumentationScope | None], T],
    into: list[T],
    problems: list[str],
) -> None:
    what = names[2][:-1]
    for resource_item in _guarded(_objects, problems, names[0], data, names[0]):
        for resource in _guarded(_resource, problems, "resource", resource_item):
            for scope_item in _guarded(_objects, problems, names[1], resource_item, names[1]):
                for scope in _guarded(_scope, problems, "scope", scope_item):
                    for number, item in enumerate(_guarded(_objects, problems, names[2], scope_item, names[2]), start=1):
                        into.extend(_guarded(lambda *of: [read(*of)], problems, f"{what} {number}", item, resource, scope))


def _guarded(read: Callable[..., list[T]], problems: list[str], where: str, *of: Any) -> list[T]:
    try:
        return read(*of)
    except RecursionError:
        problems.append(f"{where}: is nested too deeply")
    except (_WrongError, ValueError, TypeError, OverflowError) as error:
        problems.append(f"{where}: {error}")
    return []


def _object(value: object, name: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _WrongError(f"{name} must be an object, not {_shown(value)}")
    return value


def _objects(item: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = item.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _WrongError(f"{name} must be a list, not {_shown(value)}")
    return [_object(member, name) if member is not None else {} for member in value]


def _shown(value: object) -> str:
    return repr(value)[:60]


def _resource(item: Mapping[str, Any]) -> list[Resource]:
    return [Resource(_attributes(_object(item.get("resource"), "resource")), item.get("schemaUrl") or None)]


def _scope(item: Mapping[str, Any]) -> list[InstrumentationScope | None]:
    scope = _object(item.get("scope"), "scope")
    if not scope.get("name"):
        return [None]
    return [InstrumentationScope(_text(scope, "name"), _text(scope, "version") or None, item.get("schemaUrl") or None)]


def _span(item: Mapping[str, Any], resource: Resource, scope: InstrumentationScope | None) -> ReadableSpan:
    trace_id, span_id, parent_id = (_id(item, name, size) for name, size in (("traceId", 32), ("spanId", 16), ("parentSpanId", 16)))
    if not trace_id or not span_id:
        raise _WrongError(f"{'spanId' if trace_id else 'traceId'} is missing")
    flags = _integer(item.get("flags") or 0, "flags")
    kind = _KINDS[_enum(item.get("kind"), _KIND_NAMES, "kind")]
    is_remote = bool(flags & _IS_REMOTE) if flags & _HAS_IS_REMOTE else kind in _FROM_ELSEWHERE
    trace_flags = TraceFlags(flags & 0xFF)
    return ReadableSpan(
        _text(item, "name"),
        context=SpanContext(trace_id, span_id, is_remote=False, trace_flags=trace_flags),
        parent=SpanContext(trace_id, parent_id, is_remote=is_remote, trace_flags=trace_flags) if parent_id else None,
        resource=resource,
        attributes=_attributes(item),
        events=[Event(_text(event, "name"), _attributes(event), _moment(event, "timeUnixNano") or 0) for event in _objects(item, "events")],
        kind=kind,
        status=_status(_object(item.get("status"), "status")),
        start_time=_moment(item, "startTimeUnixNano"),
        end_time=_moment(item, "endTimeUnixNano"),
        instrumentation_scope=scope,
    )


def _record(item: Mapping[str, Any], resource: Resource, scope: InstrumentationScope | None) -> ReadableLogRecord:
    severity = _integer(item.get("severityNumber") or 0, "severityNumber")
    record = LogRecord(
        timestamp=_moment(item, "timeUnixNano"),
        observed_timestamp=_moment(item, "observedTimeUnixNano"),
        context=Context(),
        severity_text=_text(item, "severityText") or None,
        severity_number=SeverityNumber(severity) if 0 < severity <= SeverityNumber.FATAL4.value else None,
        body=None if item.get("body") is None else _value(item["body"]),
        attributes=_attributes(item),
        event_name=_text(item, "eventName") or None,
    )
    # Afterwards: the constructor takes those of the current span where they are absent.
    record.trace_id, record.span_id = _id(item, "traceId", 32), _id(item, "spanId", 16)
    record.trace_flags = TraceFlags(_integer(item.get("flags") or 0, "flags") & 0xFF)
    return ReadableLogRecord(record, resource, scope)


def _status(item: Mapping[str, Any]) -> Status:
    code = _STATUSES[_enum(item.get("code"), _STATUS_NAMES, "status code")]
    return Status(code, _text(item, "message") or None if code is StatusCode.ERROR else None)


def _id(item: Mapping[str, Any], name: str, digits: int) -> int:
    text = item.get(name) or ""
    if not isinstance(text, str) or len(text) not in (0, digits) or not (text.isalnum() or not text):
        raise _WrongError(f"{name} must be {digits} hexadecimal digits, not {_shown(text)}")
    try:
        return int(text or "0", 16)
    except ValueError:
        raise _WrongError(f"{name} must be {digits} hexadecimal digits, not {_shown(text)}") from None


def _text(item: Mapping[str, Any], name: str) -> str:
    value = item.get(name)
    if value is not None and not isinstance(value, str):
        raise _WrongError(f"{name} must be text, not {_shown(value)}")
    return value or ""


def _integer(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise _WrongError(f"{name} must be a whole number, not {_shown(value)}")
    try:
        return int(value)
    except ValueError:
        raise _WrongError(f"{name} must be a whole number, not {_shown(value)}") from None


def _moment(item: Mapping[str, Any], name: str) -> int | None:
    nanoseconds = _integer(item.get(name) or 0, name)
    if not 0 <= nanoseconds < _MOST_NANOSECONDS:
        raise _WrongError(f"{name} must be nanoseconds since 1970, not {nanoseconds}")
    return nanoseconds or None


def _enum(value: object, names: tuple[str, ...], what: str) -> int:
    if value is None:
        return 0
    number = names.index(value) if isinstance(value, str) and value in names else value
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(names):
        raise _WrongError(f"{what} must be a number from 0 to {len(names) - 1} or one of {', '.join(names)}, not {_shown(value)}")
    return number


def _attributes(item: Mapping[str, Any]) -> dict[str, Any]:
    return dict(_pairs(item, "attributes"))


def _pairs(item: Mapping[str, Any], name: str) -> Iterator[tuple[str, Any]]:
    for pair in _objects(item, name):
        value = pair.get("value")
        yield _text(pair, "key"), None if value is None else _value(value)


def _value(item: object) -> Any:
    """Give an AnyValue; no value at all is None, as in the SDK."""
    for name, value in _object(item, "value").items():
        reader = _VALUES.get(name)
        if reader is not None and value is not None:
            return reader(value)
    return None


def _plain(kind: type, word: str) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        if not isinstance(value, kind):
            raise _WrongError(f"a value must be {word}, not {_shown(value)}")
        return value

    return read


def _double(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise _WrongError(f"doubleValue must be a number, not {_shown(value)}")
    try:
        return float(value)  # also "NaN", "Infinity" and "-Infinity", as protobuf writes them
    except ValueError:
        raise _WrongError(f"doubleValue must be a number, not {_shown(value)}") from None


_VALUES: Final[dict[str, Callable[[Any], Any]]] = {
    "stringValue": _plain(str, "text"),
    "boolValue": _plain(bool, "true or false"),
    "intValue": lambda value: _integer(value, "intValue"),
    "doubleValue": _double,
    "arrayValue": lambda value: tuple(_value(member) for member in _objects(_object(value, "arrayValue"), "values")),
    "kvlistValue": lambda value: dict(_pairs(_object(value, "kvlistValue"), "values")),
    "bytesValue": lambda value: b64decode(_plain(str, "base64")(value), validate=True),
}
