"""OTLP in protobuf, as the spans and log records an SDK would have held. Needs the extra `otlp`; imported when the first message comes.

The outer levels, request, resource and scope, are walked by hand, and each span or record is parsed on its own, when it is asked for:

* one string that is not UTF-8, which Go programs and Collectors pass on, costs one span (protobuf refuses the whole request otherwise);
* memory does not grow with the request: 20 MiB of empty spans, 20 KiB of gzip, take 1.7 GiB when they are parsed at once;
* resources and scopes are known by their bytes, so that each is read once.

The fields are those of opentelemetry/proto (collector/trace/v1, trace/v1, logs/v1). Requests for spans, log records and metrics have the
same outer levels; where it is not known which one a message is, the first item decides it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, ClassVar, Final, Literal

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope as ScopeMessage
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord as RecordMessage
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_amplitude.convert.recorded import (
    EVENT_NAME,
    KINDS,
    Ids,
    KnownResources,
    Recorded,
    WrongError,
    check_ids,
    make_ids,
    make_record,
    make_span,
    make_status,
    to_id,
    to_moment,
)

Signal = Literal["spans", "records"]
MAX_ITEM: Final = 2**20
"""The bytes of one span or record."""
_BYTES_OF_ITEM: Final = 16  # a span needs its ids alone 28; less on average is an attack, or no OTLP
_SOME_ITEMS: Final = 1_024
_BYTES_OF_FIELD: Final = 8  # around the items: a resource, a scope, a list of items
_SOME_FIELDS: Final = 4_096
_SIZE_OF_ITEM: Final = 1_024

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_REQUEST_RESOURCES: Final = (1,)
_RESOURCE, _SCOPES, _RESOURCE_SCHEMA = 1, (2, 1000), 3  # 1000: where OTLP 0.15 kept the scopes of before
_SCOPE, _SCOPE_SCHEMA = 1, 3
_ITEM_FIELDS: Final = (2,)
_Split = tuple[list[tuple[int, int]], dict[int, bytes]]


def find(body: bytes, problems: list[str], resources: KnownResources, signal: Signal | None = None) -> Iterator[Recorded]:
    """Give the spans or log records of a request one by one.

    Args:
        body: the message.
        problems: takes what could not be read, in words.
        resources: those known so far.
        signal: what the request is about; None finds it out.
    """
    try:
        yield from walk(body, problems, resources, signal)
    except WrongError as error:
        problems.append(str(error))


class TooManyError(WrongError):
    """A message holds more items than telemetry of its size does."""


def walk(body: bytes, problems: list[str], resources: KnownResources, signal: Signal | None, most: int | None = None) -> Iterator[Recorded]:
    """As `find`; but a message that is damaged around its items raises.

    Args:
        body: as for `find`.
        problems: likewise.
        resources: likewise.
        signal: likewise.
        most: how many items are given; None: as many as telemetry of this size can have.

    Raises:
        WrongError: the bytes are no message of OTLP, or cut off.
        TooManyError: it holds more items than it should.
    """
    try:
        yield from _walk(body, problems, resources, signal, most)
    except TooManyError:
        raise
    except WrongError as error:
        raise WrongError(f"is no OTLP in protobuf, or cut off ({error})") from None
    except IndexError:
        raise WrongError("is cut off") from None


class _Left:
    """How many items and fields a message may still have: to look at a field costs time, however small it is.

    Attributes:
        broken: what is wrong with the bytes behind those that were split; raised when what stands before it was given.
    """

    def __init__(self, size: int, most: int | None) -> None:
        by_size = _SOME_ITEMS + size // _BYTES_OF_ITEM
        self._most = most
        self._items = by_size if most is None else min(by_size, most)
        self._fields = _SOME_FIELDS + size // _BYTES_OF_FIELD
        self.broken: WrongError | None = None

    def split(self, body: bytes, at: int, end: int, items: Collection[int], others: Collection[int] = ()) -> _Split:
        """Look at the fields of a message once, as far as they can be read.

        Raises:
            TooManyError: there are too many of them.
        """
        found: list[tuple[int, int]] = []
        singles: dict[int, bytes] = {}
        for field, kind, begin, stop in self._readable(body, at, end):
            self._fields -= 1
            if self._fields < 0:
                raise TooManyError(f"holds more than one field for {_BYTES_OF_FIELD} bytes, as no telemetry does; the rest is not read")
            if kind != _LENGTH:
                continue
            if field in items:
                found.append((begin, stop))
                if items is _ITEM_FIELDS:
                    self._item()
            elif field in others:
                singles.setdefault(field, body[begin:stop])
        return found, singles

    def _readable(self, body: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        try:
            yield from _fields(body, at, end)
        except WrongError as error:
            self.broken = self.broken or error

    def _item(self) -> None:
        self._items -= 1
        if self._items < 0:
            most = self._most
            too_many = (
                f"more than one item for {_BYTES_OF_ITEM} bytes, as no telemetry does" if most is None else f"more than {most:,} items"
            )
            raise TooManyError(f"holds {too_many}; the rest is not read")


def _walk(body: bytes, problems: list[str], resources: KnownResources, signal: Signal | None, most: int | None) -> Iterator[Recorded]:
    left = _Left(len(body), most)
    for begin, end in left.split(body, 0, len(body), _REQUEST_RESOURCES)[0]:
        scopes, about = left.split(body, begin, end, _SCOPES, (_RESOURCE, _RESOURCE_SCHEMA))
        resource = about.get(_RESOURCE, b""), about.get(_RESOURCE_SCHEMA, b"")
        for inner, inner_end in scopes:
            items, scope = left.split(body, inner, inner_end, _ITEM_FIELDS, (_SCOPE, _SCOPE_SCHEMA))
            around = _Around(resource, (scope.get(_SCOPE, b""), scope.get(_SCOPE_SCHEMA, b"")), resources)
            for number, (first, last) in enumerate(items, start=1):
                signal = signal or signal_of(body, first, last)
                if signal is None:
                    continue
                make = _Span if signal == "spans" else _Record
                if last - first > MAX_ITEM:
                    problems.append(f"{make.what} {number}: is larger than {MAX_ITEM:,} bytes")
                else:
                    yield make(body[first:last], number, around)
    if left.broken is not None:
        raise left.broken


def signal_of(body: bytes, begin: int, end: int) -> Signal | None:
    """Say whether a message is a span or a log record; None for a metric, or for one that holds too little to tell.

    A span has its times as fields 7 and 8; a log record its time as field 1 or 11 and its severity as field 2; a metric begins with its
    name as field 1, and has messages elsewhere.
    """
    for field, kind, _, _ in _fields(body, begin, end):
        if kind == _FIXED64 and field in (7, 8):
            return "spans"
        if (kind == _FIXED64 and field in (1, 11)) or (kind == _VARINT and field == 2):
            return "records"
    return None


# the wire


def _varint(body: bytes, at: int, end: int) -> tuple[int, int]:
    number = shift = 0
    while at < end and shift < 70:
        byte = body[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    raise WrongError("a number without end")


def _fields(body: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Give number, wire type, begin and end of the fields of a message.

    Raises:
        WrongError: the bytes are no message.
    """
    while at < end:
        tag, at = _varint(body, at, end)
        kind = tag & 7
        begin = at
        if kind == _LENGTH:
            length, begin = _varint(body, at, end)
            at = begin + length
        elif kind == _VARINT:
            _, at = _varint(body, at, end)
        elif kind == _FIXED64:
            at += 8
        elif kind == _FIXED32:
            at += 4
        else:
            raise WrongError(f"a field of type {kind}")
        if at > end:
            raise WrongError("a field that is longer than what holds it")
        yield tag >> 3, kind, begin, at


# items


class _Around:
    """The resource and scope of items, made when the first item asks for them."""

    __slots__ = ("_known", "_resource", "_resources", "_scope")

    def __init__(self, resource: tuple[bytes, bytes], scope: tuple[bytes, bytes], resources: KnownResources) -> None:
        self._resource = resource
        self._scope = scope
        self._resources = resources
        self._known: tuple[Resource, InstrumentationScope | None] | None = None

    def get(self) -> tuple[Resource, InstrumentationScope | None]:
        """Give them.

        Raises:
            WrongError: they are not as OTLP says.
        """
        if self._known is None:
            self._known = (
                self._resources.get(("resource", *self._resource), lambda: _resource(*self._resource)),
                self._resources.get(("scope", *self._scope), lambda: _scope(*self._scope)),
            )
        return self._known


def _resource(message: bytes, schema: bytes) -> Resource:
    return Resource(_attributes(_parsed(ResourceMessage, message, "resource").attributes), schema.decode("utf-8", "replace") or None)


def _scope(message: bytes, schema: bytes) -> InstrumentationScope | None:
    scope = _parsed(ScopeMessage, message, "scope")
    return InstrumentationScope(scope.name, scope.version or None, schema.decode("utf-8", "replace") or None) if scope.name else None


def _parsed(message: Any, data: bytes, what: str) -> Any:
    try:
        return message.FromString(data)
    except DecodeError:
        raise WrongError(f"{what}: a string in it is not UTF-8, or it is damaged") from None


class _Item:
    """What a span and a log record have in common."""

    __slots__ = ("_around", "_data", "_ids", "_message", "_number")

    is_span: ClassVar[bool]
    what: ClassVar[str]
    _type: ClassVar[Any]

    def __init__(self, data: bytes, number: int, around: _Around) -> None:
        self._data = data
        self._number = number
        self._around = around
        self._message: Any = None
        self._ids: Ids | None = None

    @property
    def where(self) -> str:
        """As `Recorded` says."""
        return f"{self.what} {self._number}"

    @property
    def size(self) -> int:
        """As `Recorded` says."""
        return 4 * len(self._data) + _SIZE_OF_ITEM

    def _parse(self) -> Any:
        if self._message is None:
            try:
                self._message = self._type.FromString(self._data)
            except DecodeError:
                raise WrongError("a string in it is not UTF-8, or it is damaged") from None
        return self._message

    def names(self) -> Collection[str]:
        """As `Recorded` says."""
        return [pair.key for pair in self._parse().attributes]

    def resource(self) -> Resource:
        """As `Recorded` says."""
        return self._around.get()[0]

    def some(self, names: Collection[str]) -> dict[str, Any]:
        """As `Recorded` says."""
        return {pair.key: _value(pair.value) for pair in self._parse().attributes if pair.key in names}


class _Span(_Item):
    __slots__ = ()
    is_span = True
    what = "span"
    _type = SpanMessage

    def is_told(self) -> bool:
        """As `Recorded` says."""
        return bool(self._parse().kind == SpanMessage.SPAN_KIND_SERVER)

    def ids(self) -> Ids:
        """As `Recorded` says."""
        if self._ids is None:
            message = self._parse()
            trace_id, span_id = _id(message.trace_id, "traceId", 16), _id(message.span_id, "spanId", 8)
            check_ids(trace_id, span_id)
            parent_id = message.parent_span_id
            self._ids = make_ids(
                trace_id, span_id, _id(parent_id, "parentSpanId", 8) if parent_id else 0, message.flags, _kind(message.kind)
            )
        return self._ids

    def read(self) -> ReadableSpan:
        """As `Recorded` says."""
        message = self._parse()
        resource, scope = self._around.get()
        return make_span(
            self.ids(),
            name=message.name,
            kind=_kind(message.kind),
            attributes=_attributes(message.attributes),
            events=[Event(event.name, _attributes(event.attributes), event.time_unix_nano) for event in message.events],
            status=make_status(message.status.code, message.status.message),
            start=to_moment(message.start_time_unix_nano, "startTimeUnixNano"),
            end=to_moment(message.end_time_unix_nano, "endTimeUnixNano"),
            resource=resource,
            scope=scope,
        )


class _Record(_Item):
    __slots__ = ()
    is_span = False
    what = "logRecord"
    _type = RecordMessage

    def is_told(self) -> bool:
        """As `Recorded` says."""
        return bool(self._parse().event_name) or EVENT_NAME in self.names()

    def ids(self) -> Ids:
        """As `Recorded` says."""
        if self._ids is None:
            message = self._parse()
            self._ids = Ids(_id(message.trace_id, "traceId", 16), _id(message.span_id, "spanId", 8), 0, False, message.flags & 0xFF)
        return self._ids

    def read(self) -> ReadableLogRecord:
        """As `Recorded` says."""
        message = self._parse()
        resource, scope = self._around.get()
        return make_record(
            self.ids(),
            time=to_moment(message.time_unix_nano, "timeUnixNano"),
            observed=to_moment(message.observed_time_unix_nano, "observedTimeUnixNano"),
            severity=message.severity_number,
            severity_text=message.severity_text or None,
            body=_value(message.body) if message.HasField("body") else None,
            attributes=_attributes(message.attributes),
            event_name=message.event_name or None,
            resource=resource,
            scope=scope,
        )


def _id(octets: bytes, name: str, size: int) -> int:
    found = to_id(octets, size)
    if found is None:
        raise WrongError(f"{name} must be {size} bytes, not {len(octets)}")
    return found


def _kind(number: int) -> Any:
    if not 0 <= number < len(KINDS):
        raise WrongError(f"kind must be a number from 0 to {len(KINDS) - 1}, not {number}")
    return KINDS[number]


def _attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    """Give an AnyValue; no value at all is None, as in the SDK."""
    if text := value.string_value:  # nine of ten
        return text
    name = value.WhichOneof("value")
    reader = _VALUES.get(name)
    return None if name is None else reader(value) if reader is not None else getattr(value, name)


_VALUES: Final[dict[str, Callable[[Any], Any]]] = {
    "array_value": lambda value: tuple([_value(member) for member in value.array_value.values]),
    "kvlist_value": lambda value: _attributes(value.kvlist_value.values),
}
