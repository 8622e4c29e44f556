"""OTLP in JSON, as the spans and log records an SDK would have held.

The encoding (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding): names in lowerCamelCase, ids in hexadecimal, 64-bit
integers as text or number, enums as numbers, bytes in base64, unknown names ignored. Programs that write it differ from that, so this is
read as well: names in snake_case or as Go's encoding/json writes them; enums by name, with or without prefix; ids in base64 or as lists
of bytes; integers as doubles without a fraction; names from before OTLP 0.16 (`instrumentationLibrarySpans`, `logs`).

A document is a request, or what holds requests or parts of one: a bare ResourceSpans or ScopeSpans, the answers of Tempo (`batches`,
`trace`) and Jaeger (`result`, `data`).
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, ClassVar, Final, NamedTuple

import orjson
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanKind

from otel_amplitude.convert.recorded import (
    EVENT_NAME,
    KINDS,
    SEVERITIES,
    STATUSES,
    Batch,
    Ids,
    KnownResources,
    Recorded,
    WrongError,
    check_ids,
    guarded,
    make_ids,
    make_record,
    make_span,
    make_status,
    to_id,
    to_moment,
)

_SIZE_OF_RESOURCE: Final = 1_024
_SERVER: Final = KINDS.index(SpanKind.SERVER)
_MAX_DEPTH: Final = 4
_UNKNOWN_NAMES: Final = 4_096

# The fields that are read, by message.
_SPAN: Final = frozenset(
    [
        "traceId",
        "spanId",
        "parentSpanId",
        "traceState",
        "flags",
        "name",
        "kind",
        "startTimeUnixNano",
        "endTimeUnixNano",
        "attributes",
        "droppedAttributesCount",
        "events",
        "droppedEventsCount",
        "links",
        "droppedLinksCount",
        "status",
    ]
)
_EVENT: Final = frozenset(["timeUnixNano", "name", "attributes", "droppedAttributesCount"])
_RECORD: Final = frozenset(
    [
        "timeUnixNano",
        "observedTimeUnixNano",
        "severityNumber",
        "severityText",
        "body",
        "attributes",
        "droppedAttributesCount",
        "flags",
        "traceId",
        "spanId",
        "eventName",
    ]
)
_STATUS: Final = frozenset(("code", "message"))
_SCOPE: Final = frozenset(("name", "version", "attributes", "droppedAttributesCount"))
_PAIR: Final = frozenset(("key", "value"))
_OUTER: Final = frozenset(
    [
        "resourceSpans",
        "resourceLogs",
        "resourceMetrics",
        "resourceProfiles",
        "scopeSpans",
        "scopeLogs",
        "scopeMetrics",
        "scopeProfiles",
        "spans",
        "logRecords",
        "resource",
        "scope",
        "schemaUrl",
        "batches",
        "trace",
        "result",
        "data",
    ]
)
# Names from before OTLP 0.16.
_OLD: Final = {
    "instrumentationLibrarySpans": "scopeSpans",
    "instrumentationLibraryLogs": "scopeLogs",
    "instrumentationLibraryMetrics": "scopeMetrics",
    "instrumentationLibrary": "scope",
    "logs": "logRecords",
}


def _flat(name: str) -> str:
    return name.replace("_", "").lower()


_BY_FLAT: Final = {_flat(name): name for name in _SPAN | _EVENT | _RECORD | _STATUS | _SCOPE | _PAIR | _OUTER}
_BY_FLAT.update({_flat(old): name for old, name in _OLD.items()})
_renamed: Final[dict[str, str]] = {}


def fields_of(item: Mapping[str, Any], known: frozenset[str]) -> Mapping[str, Any]:
    """Give a message with its fields by the names of the specification; the same object where they are so already."""
    if known.issuperset(item):
        return item
    found: dict[str, Any] = {}
    for name, value in item.items():
        right = _renamed.get(name)
        if right is None:
            right = _BY_FLAT.get(_flat(name), name)
            if len(_renamed) < _UNKNOWN_NAMES:
                _renamed[name] = right
        if right not in found or name == right:  # the exact name wins over another spelling of it
            found[right] = value
    return found


# documents


class _Signal(NamedTuple):
    resources: str
    scopes: str
    items: str
    make: Callable[[Mapping[str, Any], int, _Around], Recorded]


def read_line(line: bytes | str) -> Batch:
    """Read one document of JSON whole; raises nothing, whatever it holds. One broken span or record costs itself, not its neighbours.

    >>> read_line(b'{"resourceSpans": []}').problems, read_line(b"{").problems[0][:11]
    ([], 'is not JSON')
    """
    try:
        data = orjson.loads(line)
    except ValueError as error:
        return Batch([], [], [f"is not JSON: {error}"])
    return read_request(data)


def read_request(data: object) -> Batch:
    """Read one document that was parsed already, in the way of `read_line`."""
    batch = Batch([], [], [])
    found = find(data, batch.problems, KnownResources())
    if found is None:
        batch.problems.append("is not OTLP: there is no resourceSpans or resourceLogs in it")
        return batch
    return batch.take(found)


def find(data: object, problems: list[str], resources: KnownResources, size: int = 0, depth: int = 0) -> Iterator[Recorded] | None:
    """Give the spans and log records of a document one by one; None for what is no document of OTLP.

    Args:
        data: JSON, parsed.
        problems: takes what could not be read, in words.
        resources: those known so far.
        size: of the document in bytes, 0 when it is not known; shared out among its items.
        depth: how many containers are around it.
    """
    if isinstance(data, list):
        parts = [find(member, problems, resources, size // len(data), depth + 1) for member in data] if depth < _MAX_DEPTH else [None]
        known = [part for part in parts if part is not None]
        return (item for part in known for item in part) if len(known) == len(parts) else None
    message = fields_of(data, _OUTER) if isinstance(data, dict) else None
    if not message:
        return None if message is None else iter(())  # an empty request
    if not _REQUEST.isdisjoint(message):
        return _of_request(message, problems, resources, size)
    if not _PARTS.isdisjoint(message) and "processes" not in message:
        return _of_request(_completed(message), problems, resources, size)
    inner = [message[name] for name in _CONTAINERS if isinstance(message.get(name), (dict, list))] if depth < _MAX_DEPTH else []
    return next((found for value in inner if (found := find(value, problems, resources, size, depth + 1)) is not None), None)


_REQUEST: Final = frozenset(("resourceSpans", "resourceLogs", "resourceMetrics", "resourceProfiles", "batches"))
_PARTS: Final = frozenset(("scopeSpans", "scopeLogs", "scopeMetrics", "scopeProfiles", "spans", "logRecords"))
_CONTAINERS: Final = ("trace", "result", "data")


def _completed(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give a part of a request as a request."""
    for signal in _SIGNALS:
        if signal.items in message:
            return {signal.resources: [{signal.scopes: [message]}]}
        if signal.scopes in message:
            return {signal.resources: [message]}
    return {}


def _of_request(message: Mapping[str, Any], problems: list[str], resources: KnownResources, size: int) -> Iterator[Recorded]:
    if "batches" in message and "resourceSpans" not in message:
        message = {**message, "resourceSpans": message["batches"]}
    for signal in _SIGNALS:
        yield from _of_signal(signal, message, problems, resources, size)


def _of_signal(
    signal: _Signal, message: Mapping[str, Any], problems: list[str], resources: KnownResources, size: int
) -> Iterator[Recorded]:
    for outer in guarded(_objects, problems, signal.resources, message, signal.resources) or ():
        resource_item = fields_of(outer, _OUTER)
        for inner in guarded(_objects, problems, signal.scopes, resource_item, signal.scopes) or ():
            scope_item = fields_of(inner, _OUTER)
            items = guarded(_objects, problems, signal.items, scope_item, signal.items)
            if not items:
                continue
            around = _Around(resource_item, scope_item, resources, size // len(items))
            for number, item in enumerate(items, start=1):
                yield signal.make(item, number, around)


class _Around:
    """The resource and scope of items, made when the first item asks for them."""

    __slots__ = ("_known", "_resource_item", "_resources", "_scope_item", "size")

    def __init__(self, resource_item: Mapping[str, Any], scope_item: Mapping[str, Any], resources: KnownResources, size: int) -> None:
        self._resource_item = resource_item
        self._scope_item = scope_item
        self._resources = resources
        self._known: tuple[Resource, InstrumentationScope | None] | None = None
        self.size = size

    def get(self) -> tuple[Resource, InstrumentationScope | None]:
        """Give them.

        Raises:
            WrongError: they are not as OTLP says.
        """
        if self._known is None:
            self._known = self._made("resource", self._resource_item, _resource), self._made("scope", self._scope_item, _scope)
        return self._known

    def _made(self, name: str, item: Mapping[str, Any], make: Callable[[Mapping[str, Any]], Any]) -> Any:
        try:
            return self._resources.get((name, orjson.dumps([item.get(name), item.get("schemaUrl")])), lambda: make(item))
        except (WrongError, ValueError, TypeError) as error:
            raise WrongError(f"{name}: {error}") from None


def _resource(item: Mapping[str, Any]) -> Resource:
    return Resource(_attributes(_object(item.get("resource"), "resource")), _text(item, "schemaUrl") or None)


def _scope(item: Mapping[str, Any]) -> InstrumentationScope | None:
    scope = fields_of(_object(item.get("scope"), "scope"), _SCOPE)
    if not scope.get("name"):
        return None
    return InstrumentationScope(_text(scope, "name"), _text(scope, "version") or None, _text(item, "schemaUrl") or None)


# items


class _Item:
    """What a span and a log record have in common."""

    __slots__ = ("_around", "_ids", "_item", "_kind", "_number")

    is_span: ClassVar[bool]
    what: ClassVar[str]
    fields: ClassVar[frozenset[str]]

    def __init__(self, item: Mapping[str, Any], number: int, around: _Around) -> None:
        self._item = fields_of(item, self.fields)
        self._number = number
        self._around = around
        self._ids: Ids | None = None

    @property
    def where(self) -> str:
        return f"{self.what} {self._number}"

    @property
    def size(self) -> int:
        # Python's objects take about five times the bytes of the text.
        return 5 * self._around.size + _SIZE_OF_RESOURCE

    def names(self) -> Collection[str]:
        try:
            return [pair["key"] for pair in self._item["attributes"]]
        except (KeyError, TypeError):
            found = self._item.get("attributes")
            pairs = [fields_of(pair, _PAIR) for pair in found if isinstance(pair, dict)] if isinstance(found, list) else []
            return [pair["key"] for pair in pairs if isinstance(pair.get("key"), str)]

    def ids(self) -> Ids:
        if self._ids is None:
            self._ids = self._read_ids(self._item)
        return self._ids

    def resource(self) -> Resource:
        return self._around.get()[0]

    def some(self, names: Collection[str]) -> dict[str, Any]:
        return dict(_pairs(self._item, "attributes", names))

    def _read_ids(self, item: Mapping[str, Any]) -> Ids:
        raise NotImplementedError


class _Span(_Item):
    __slots__ = ()
    is_span = True
    what = "span"
    fields = _SPAN

    def is_told(self) -> bool:
        self.ids()
        return self._kind == _SERVER

    def _read_ids(self, item: Mapping[str, Any]) -> Ids:
        trace_id, span_id = _id(item, "traceId", 16), _id(item, "spanId", 8)
        check_ids(trace_id, span_id)
        flags, self._kind = item.get("flags"), _kind(item)
        return make_ids(trace_id, span_id, _id(item, "parentSpanId", 8), 0 if not flags else _integer(flags, "flags"), KINDS[self._kind])

    def read(self) -> ReadableSpan:
        item = self._item
        ids = self.ids()
        resource, scope = self._around.get()
        status = fields_of(_object(item.get("status"), "status"), _STATUS)
        return make_span(
            ids,
            name=_text(item, "name"),
            kind=KINDS[self._kind],
            attributes=_attributes(item),
            events=[_event(fields_of(event, _EVENT)) for event in _objects(item, "events")] if item.get("events") else [],
            status=make_status(_number_of(status.get("code"), _STATUSES) or 0, _text(status, "message")),
            start=_moment(item, "startTimeUnixNano"),
            end=_moment(item, "endTimeUnixNano"),
            resource=resource,
            scope=scope,
        )


class _Record(_Item):
    __slots__ = ()
    is_span = False
    what = "logRecord"
    fields = _RECORD

    def is_told(self) -> bool:
        return bool(self._item.get("eventName")) or EVENT_NAME in self.names()

    def _read_ids(self, item: Mapping[str, Any]) -> Ids:
        flags = item.get("flags")
        return Ids(_id(item, "traceId", 16), _id(item, "spanId", 8), 0, False, 0 if not flags else _integer(flags, "flags") & 0xFF)

    def read(self) -> ReadableLogRecord:
        item = self._item
        resource, scope = self._around.get()
        return make_record(
            self.ids(),
            time=_moment(item, "timeUnixNano"),
            observed=_moment(item, "observedTimeUnixNano"),
            severity=_number_of(item.get("severityNumber"), _SEVERITIES) or 0,
            severity_text=_text(item, "severityText") or None,
            body=None if item.get("body") is None else _value(item["body"]),
            attributes=_attributes(item),
            event_name=_text(item, "eventName") or None,
            resource=resource,
            scope=scope,
        )


_SIGNALS: Final = (
    _Signal("resourceSpans", "scopeSpans", "spans", _Span),
    _Signal("resourceLogs", "scopeLogs", "logRecords", _Record),
)


def _event(item: Mapping[str, Any]) -> Event:
    return Event(_text(item, "name"), _attributes(item), _moment(item, "timeUnixNano") or 0)


# fields


def _object(value: object, name: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise WrongError(f"{name} must be an object, not {_shown(value)}")
    return value


def _objects(item: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = item.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise WrongError(f"{name} must be a list, not {_shown(value)}")
    return [_object(member, name) if member is not None else {} for member in value]


def _shown(value: object) -> str:
    return repr(value)[:60]


def _id(item: Mapping[str, Any], name: str, size: int) -> int:
    value = item.get(name)
    if not value:
        return 0
    found = None
    if isinstance(value, str) and len(value) == 2 * size and value.isalnum():
        try:
            return int(value, 16)
        except ValueError:
            pass
    octets = _octets(value)
    if octets is not None:
        found = to_id(octets, size)
    if found is None and (not isinstance(value, str) or value.strip("0")):  # "0" is how some write that there is no parent
        raise WrongError(f"{name} must be {2 * size} hexadecimal digits, not {_shown(value)}")
    return found or 0


def _octets(value: object) -> bytes | None:
    """Give bytes that were written as hexadecimal, as base64, or as JavaScript writes an array of bytes; None for anything else."""
    if isinstance(value, dict):
        value = value.get("data") if value.get("type") == "Buffer" else list(value.values())
    try:
        if isinstance(value, list):
            return bytes(value)
        if not isinstance(value, str):
            return None
        try:
            return bytes.fromhex(value.removeprefix("0x"))
        except ValueError:
            return _base64(value)
    except (ValueError, TypeError):
        return None


def _base64(text: str) -> bytes:
    """Give bytes from base64, in both alphabets, padded or not."""
    text = text.rstrip("=")
    return b64decode(text.translate(_STANDARD) + "=" * (-len(text) % 4), validate=True)


_STANDARD: Final = str.maketrans("-_", "+/")


def _text(item: Mapping[str, Any], name: str) -> str:
    value = item.get(name)
    if value is not None and not isinstance(value, str):
        raise WrongError(f"{name} must be text, not {_shown(value)}")
    return value or ""


def _integer(value: object, name: str) -> int:
    if type(value) is int:
        return value
    if isinstance(value, dict) and value.keys() >= {"low", "high"}:  # a Long of protobuf.js
        return (_integer(value["high"], name) & 0xFFFFFFFF) << 32 | _integer(value["low"], name) & 0xFFFFFFFF
    if isinstance(value, float) and value.is_integer():  # as jq writes large numbers
        return int(value)
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            pass
    raise WrongError(f"{name} must be a whole number, not {_shown(value)}")


def _moment(item: Mapping[str, Any], name: str) -> int | None:
    return to_moment(_integer(item.get(name) or 0, name), name)


def _by_name(prefix: str, names: Mapping[str, int]) -> dict[object, int]:
    found: dict[object, int] = {}
    for name, number in names.items():
        found |= dict.fromkeys((number, str(number), name, f"{prefix}{name}"), number)
    return found


_KINDS: Final = _by_name("SPAN_KIND_", {"UNSPECIFIED": 0, **{kind.name: number for number, kind in enumerate(KINDS) if number}})
# No event depends on a status or a severity, so one that is not known must not cost the item.
_STATUSES: Final = _by_name("STATUS_CODE_", {status.name: number for number, status in enumerate(STATUSES)})
_SEVERITIES: Final = _by_name("SEVERITY_NUMBER_", {severity.name: number for number, severity in SEVERITIES.items()})


def _kind(item: Mapping[str, Any]) -> int:
    value = item.get("kind")
    if type(value) is int and 0 <= value < len(KINDS):
        return value
    if value is None or value == "":
        return 0
    number = _number_of(value, _KINDS)
    if number is None:
        raise WrongError(f"kind must be a number from 0 to {len(KINDS) - 1}, or a name such as SPAN_KIND_SERVER, not {_shown(value)}")
    return number


def _number_of(value: object, numbers: Mapping[object, int]) -> int | None:
    """Give the number of an enum, which may be written as number, text or name in any case, also as Python's `SpanKind.SERVER`."""
    if isinstance(value, str):
        return numbers.get(value) if value in numbers else numbers.get(value.rpartition(".")[2].strip().upper())
    return numbers.get(value) if type(value) is int or (isinstance(value, float) and value.is_integer()) else None


def _attributes(item: Mapping[str, Any]) -> dict[str, Any]:
    return dict(_pairs(item, "attributes"))


def _pairs(item: Mapping[str, Any], name: str, wanted: Collection[str] | None = None) -> Iterator[tuple[str, Any]]:
    for member in _objects(item, name):
        pair = fields_of(member, _PAIR)
        key = _text(pair, "key")
        if wanted is None or key in wanted:
            value = pair.get("value")
            yield key, None if value is None else _value(value)


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
            raise WrongError(f"a value must be {word}, not {_shown(value)}")
        return value

    return read


def _double(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise WrongError(f"doubleValue must be a number, not {_shown(value)}")
    try:
        return float(value)  # also "NaN", "Infinity" and "-Infinity", as protobuf writes them
    except ValueError:
        raise WrongError(f"doubleValue must be a number, not {_shown(value)}") from None


def _signed(value: Any) -> int:
    number = _integer(value, "intValue")
    return number - 2**64 if isinstance(value, dict) and number >= 2**63 else number


def _bytes(value: Any) -> bytes:
    found = _octets(value) if isinstance(value, (list, dict)) else _base64(_plain(str, "base64")(value))
    if found is None:
        raise WrongError(f"a value must be base64, not {_shown(value)}")
    return found


def _spelled(values: Mapping[str, Callable[[Any], Any]]) -> dict[str, Callable[[Any], Any]]:
    """Give the same for each spelling of a name: stringValue, string_value, StringValue."""
    found = dict(values)
    for name, read in values.items():
        word = name.removesuffix("Value")
        found |= {f"{word}_value": read, f"{word[0].upper()}{word[1:]}Value": read}
    return found


_VALUES: Final = _spelled(
    {
        "stringValue": _plain(str, "text"),
        "boolValue": _plain(bool, "true or false"),
        "intValue": _signed,
        "doubleValue": _double,
        "arrayValue": lambda value: tuple(_value(member) for member in _objects(_object(value, "arrayValue"), "values")),
        "kvlistValue": lambda value: dict(_pairs(_object(value, "kvlistValue"), "values")),
        "bytesValue": _bytes,
    }
) | {"Value": _value}  # Go's encoding/json writes the wrapper of a oneof
