"""Spans and log records that come from elsewhere, in whichever encoding of OTLP: what the encodings share.

Reading has two steps, because most spans become no event. An encoding first gives each span or record as a `Recorded`, which knows the
names of its attributes and its ids but has read no value. Only one that can become an event is then read whole, by `read`, as the object
an SDK would have held. A span or record that is not as OTLP says raises `WrongError` and costs itself, not its neighbours.
"""

from __future__ import annotations

from base64 import b64encode
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from typing import Any, Final, NamedTuple, Protocol

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

KINDS: Final = (SpanKind.INTERNAL, SpanKind.INTERNAL, SpanKind.SERVER, SpanKind.CLIENT, SpanKind.PRODUCER, SpanKind.CONSUMER)
STATUSES: Final = (StatusCode.UNSET, StatusCode.OK, StatusCode.ERROR)
SEVERITIES: Final = {severity.value: severity for severity in SeverityNumber if severity.value}
# opentelemetry/proto/trace/v1/trace.proto, SpanFlags: whether it is known that the parent is remote, and whether it is.
_HAS_IS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200
# Where it is not known: a span of these kinds is made on behalf of another process, the others within one.
_FROM_ELSEWHERE: Final = (SpanKind.SERVER, SpanKind.CONSUMER)
_MAX_NANOSECONDS: Final = 2**64
_MAX_RESOURCES: Final = 1_024
EVENT_NAME: Final = "event.name"
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")


class WrongError(Exception):
    """Something is not as OTLP says; the message says what."""


CAUSES: Final = (WrongError, ValueError, TypeError, OverflowError, RecursionError)
"""What reading raises for input that is not as OTLP says."""


class Ids(NamedTuple):
    """Where a span or record stands in its trace.

    Attributes:
        trace_id, span_id: 0 where a log record has none.
        parent_id: of a span, 0 without a parent; of a log record, 0.
        is_remote: whether the parent is in another process.
        flags: of the trace context, 0 to 255.
    """

    trace_id: int
    span_id: int
    parent_id: int
    is_remote: bool
    flags: int


class Recorded(Protocol):
    """A span or log record of which nothing is read before it is asked for. One thread at a time."""

    @property
    def is_span(self) -> bool:
        """Whether it is a span; a log record otherwise."""
        ...

    @property
    def size(self) -> int:
        """About how many bytes it takes in memory."""
        ...

    @property
    def where(self) -> str:
        """Its place in the request, in words: `span 3`."""
        ...

    def names(self) -> Collection[str]:
        """Give the names of its attributes."""
        ...

    def is_told(self) -> bool:
        """Say whether it is the span of a request, or a log record with an event name."""
        ...

    def ids(self) -> Ids:
        """Give its ids.

        Raises:
            WrongError: they are no ids.
        """
        ...

    def some(self, names: Collection[str]) -> dict[str, Any]:
        """Give those attributes that are in `names`.

        Raises:
            WrongError: one has no value of OTLP.
        """
        ...

    def resource(self) -> Resource:
        """Give its resource: the same object for all items of one content, as long as that is known.

        Raises:
            WrongError: it is not as OTLP says.
        """
        ...

    def read(self) -> ReadableSpan | ReadableLogRecord:
        """Give it whole, as an SDK would have held it.

        Raises:
            WrongError: it is not as OTLP says.
        """
        ...


class Batch(NamedTuple):
    """What a document holds, read whole.

    Attributes:
        spans: those that could be read.
        records: likewise.
        problems: what could not be read and why, in words; empty for a document that is whole.
    """

    spans: list[ReadableSpan]
    records: list[ReadableLogRecord]
    problems: list[str]

    def take(self, found: Iterator[Recorded]) -> Batch:
        """Read everything that is found."""
        for item in found:
            whole = guarded(item.read, self.problems, item.where)
            if isinstance(whole, ReadableSpan):
                self.spans.append(whole)
            elif whole is not None:
                self.records.append(whole)
        return self


def guarded(read: Callable[..., Any], problems: list[str], where: str, *of: Any) -> Any:
    """Give what `read` gives; None, and a problem noted, where it is not as OTLP says. Raises nothing of what input can cause."""
    try:
        return read(*of)
    except CAUSES as error:
        problems.append(problem_of(where, error))
    return None


def problem_of(where: str, error: Exception) -> str:
    """Give a problem in words."""
    return f"{where}: is nested too deeply" if isinstance(error, RecursionError) else f"{where}: {error}"


class KnownResources:
    """Resources and scopes by their encoded content: a service sends the same ones in each request, and they are converted once.

    One thread at a time.
    """

    def __init__(self, most: int = _MAX_RESOURCES) -> None:
        self._most = most
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, content: Hashable, make: Callable[[], Any]) -> Any:
        """Give what `make` made of this content; the one not used for longest gives way."""
        try:
            self._kept.move_to_end(content)
            return self._kept[content]
        except KeyError:
            made = self._kept[content] = make()
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
            return made


# ids


def to_id(octets: bytes, size: int) -> int | None:
    """Give an id of `size` bytes; 0 for none, None for what is no id.

    Programs that took the hexadecimal text for the bytes, or for base64, wrote ids of twice or one and a half times the size
    (opentelemetry-swift#537, traceway#129); which is meant is certain, since all of it must be hexadecimal digits.

    >>> to_id(bytes(7) + b"a", 8), to_id(b"0000000000000061", 8), to_id(b"", 8), to_id(b"abc", 8)
    (97, 97, 0, None)
    """
    if len(octets) == size or not octets:
        return int.from_bytes(octets, "big")
    text = octets if len(octets) == 2 * size else b64encode(octets) if 2 * len(octets) == 3 * size else b""
    return int(text, 16) if text and _HEX.issuperset(text) else None


def check_ids(trace_id: int, span_id: int) -> None:
    """Refuse a span without ids.

    Raises:
        WrongError: an id is missing.
    """
    if not trace_id or not span_id:
        raise WrongError(f"{'spanId' if trace_id else 'traceId'} is missing")


def make_ids(trace_id: int, span_id: int, parent_id: int, flags: int, kind: SpanKind) -> Ids:
    """Give the ids of a span; whether its parent is remote follows from the kind where the flags do not say."""
    is_remote = bool(flags & _IS_REMOTE) if flags & _HAS_IS_REMOTE else kind in _FROM_ELSEWHERE
    return Ids(trace_id, span_id, parent_id, is_remote, flags & 0xFF)


# whole items


def make_span(
    ids: Ids,
    *,
    name: str,
    kind: SpanKind,
    attributes: dict[str, Any],
    events: list[Event],
    status: Status,
    start: int | None,
    end: int | None,
    resource: Resource,
    scope: InstrumentationScope | None,
) -> ReadableSpan:
    """Give a span as an SDK would have held it."""
    trace_id, span_id, parent_id, is_remote, flags = ids
    trace_flags = TraceFlags(flags)
    return ReadableSpan(
        name,
        context=SpanContext(trace_id, span_id, is_remote=False, trace_flags=trace_flags),
        parent=SpanContext(trace_id, parent_id, is_remote=is_remote, trace_flags=trace_flags) if parent_id else None,
        resource=resource,
        attributes=attributes,
        events=events,
        kind=kind,
        status=status,
        start_time=start,
        end_time=end,
        instrumentation_scope=scope,
    )


def make_record(
    ids: Ids,
    *,
    time: int | None,
    observed: int | None,
    severity: int,
    severity_text: str | None,
    body: Any,
    attributes: Mapping[str, Any],
    event_name: str | None,
    resource: Resource,
    scope: InstrumentationScope | None,
) -> ReadableLogRecord:
    """Give a log record as an SDK would have held it."""
    record = LogRecord(
        timestamp=time,
        observed_timestamp=observed,
        context=Context(),
        severity_text=severity_text,
        severity_number=SEVERITIES.get(severity),
        body=body,
        attributes=attributes,
        event_name=event_name or event_name_in(attributes),
    )
    # Afterwards: the constructor takes those of the current span where they are absent.
    record.trace_id, record.span_id, record.trace_flags = ids.trace_id, ids.span_id, TraceFlags(ids.flags)
    return ReadableLogRecord(record, resource, scope)


def event_name_in(attributes: Mapping[str, Any]) -> str | None:
    """Give the event name in an attribute: there it stood before log records had a field, and there the Collector's receivers write it."""
    name = attributes.get(EVENT_NAME)
    return name if isinstance(name, str) and name else None


def make_status(code: int, message: str) -> Status:
    """Give a status; only errors have a message."""
    status = STATUSES[code] if 0 <= code < len(STATUSES) else StatusCode.UNSET
    return Status(status, message or None if status is StatusCode.ERROR else None)


def to_moment(nanoseconds: int, name: str) -> int | None:
    """Give a time; None for 0, which means that none was set.

    Raises:
        WrongError: it is no time.
    """
    if not 0 <= nanoseconds < _MAX_NANOSECONDS:
        raise WrongError(f"{name} must be nanoseconds since 1970, not {nanoseconds}")
    return nanoseconds or None
