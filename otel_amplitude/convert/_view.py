"""What a rule, a name or a table may ask about one span, span event or log record; nothing is read before it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from opentelemetry.trace import SpanKind

from otel_amplitude.convert._routes import normalise
from otel_amplitude.convert._tables import EMITTED, EVENT_TYPE, METHOD, ROUTE, SKIP, STATUS, TARGET, TORNADO, URL

if TYPE_CHECKING:
    from opentelemetry._logs import LogRecord
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

LOG_KIND: Final = "log"
# By identity: `kind.name` would cost twice as much.
KINDS: Final = {kind: kind.name.lower() for kind in SpanKind}


def is_skipped(attributes: Mapping[str, Any]) -> bool:
    """Say whether an item must never become an event: marked so, or sent by another Amplitude SDK already."""
    return (EMITTED in attributes or SKIP in attributes) and (_is_true(attributes.get(EMITTED)) or _is_true(attributes.get(SKIP)))


def read_event_type(attributes: Mapping[str, Any]) -> str:
    """Give the event type an item is annotated with; `""` when it is not. A member of a text enum counts as its text."""
    name = attributes.get(EVENT_TYPE)
    if name is None:
        return ""
    if type(name) is str:
        return name.strip()
    return str.__str__(name).strip() if isinstance(name, str) else ""


def _is_true(value: object) -> bool:
    return value is True or (isinstance(value, str) and value == "true")


_STATUS_DIGITS: Final = 3


def read_text(attributes: Mapping[str, Any], names: tuple[str, str]) -> str | None:
    """Give the text under the stable or the old name of an attribute; None when it is none."""
    value = attributes.get(names[0])
    if value is None:
        value = attributes.get(names[1])
    return value if type(value) is str else None


def read_status(attributes: Mapping[str, Any]) -> int | None:
    """Give the status of the answer, in its stable or its old name; None when it is none.

    Proxies, and collectors that rename attributes, write it as text, or as a number with a fraction.
    """
    status = attributes.get(STATUS[0])
    if status is None:
        status = attributes.get(STATUS[1])
    if type(status) is int:
        return status
    if type(status) is str and len(status) == _STATUS_DIGITS and status.isdecimal() and status.isascii():
        return int(status)
    if isinstance(status, int):  # such as a member of http.HTTPStatus
        return None if type(status) is bool else int(status)
    return int(status) if type(status) is float and status.is_integer() else None


def read_path(attributes: Mapping[str, Any]) -> str:
    """Give the path of a request without its query, as the client sent it; `""` when none was recorded.

    >>> read_path({"http.url": "https://shop.example/a/b?q=1"}), read_path({"http.target": "/a?q=1"})
    ('/a/b', '/a')
    """
    path = read_text(attributes, TARGET)
    if path is None:
        path = read_text(attributes, URL) or ""
        _, scheme, rest = path.partition("://")
        if scheme:
            path = "/" + rest.partition("?")[0].partition("/")[2]
    path = path.partition("?")[0]
    return path if path.startswith("/") else ""


def read_route(attributes: Mapping[str, Any], span: ReadableSpan | None) -> str:
    """Give the route written our way; `""` when none is known. The name of `span` is read only where it is needed."""
    route = attributes.get(ROUTE)
    if type(route) is str:
        return normalise(route)
    if TORNADO in attributes and span is not None:
        path = (span.name or "").partition(" ")[2]
        return normalise(path) if path.startswith("/") else ""
    return ""


class View(Protocol):
    """The facts about one item that rules ask for by a word of their own; attributes are asked for by name. None: not there."""

    @property
    def attributes(self) -> Mapping[str, Any]:
        """The attributes, as one plain dict."""
        ...

    @property
    def kind(self) -> str:
        """`server`, `client`, `internal`, `producer`, `consumer` or `log`."""
        ...

    @property
    def name(self) -> str | None:
        """The name of a span."""
        ...

    @property
    def event_name(self) -> str | None:
        """The event name of a log record."""
        ...

    @property
    def body(self) -> object:
        """The body of a log record, any object."""
        ...

    @property
    def scope(self) -> str | None:
        """The name of the instrumentation scope."""
        ...

    @property
    def service(self) -> str | None:
        """`service.name` of the resource."""
        ...

    @property
    def route(self) -> str | None:
        """The route, written our way."""
        ...

    @property
    def method(self) -> str | None:
        """The method of the request."""
        ...

    @property
    def status(self) -> int | None:
        """The status of the answer."""
        ...


class _Request:
    """What the attributes say about an HTTP request."""

    __slots__ = ("attributes",)

    attributes: Mapping[str, Any]

    @property
    def method(self) -> str | None:
        return read_text(self.attributes, METHOD)

    @property
    def status(self) -> int | None:
        return read_status(self.attributes)


class SpanView(_Request):
    """The view of a span whose attributes were copied already."""

    __slots__ = ("_span",)

    event_name = None
    body = None

    def __init__(self, span: ReadableSpan, attributes: Mapping[str, Any]) -> None:
        self.attributes = attributes
        self._span = span

    @property
    def kind(self) -> str:
        """`server`, `client`, `internal`, `producer` or `consumer`."""
        return KINDS[self._span.kind]

    @property
    def name(self) -> str:
        """Its name."""
        return self._span.name

    @property
    def route(self) -> str | None:
        """The route, written our way; None when none is known."""
        return read_route(self.attributes, self._span) or None

    @property
    def scope(self) -> str | None:
        """The name of the instrumentation scope."""
        return scope_name(self._span.instrumentation_scope)

    @property
    def service(self) -> str | None:
        """`service.name` of the resource."""
        return _service(self._span.resource)


class LogView(_Request):
    """The view of a log record, whose scope and resource do not hang on it."""

    __slots__ = ("_resource", "_scope", "body", "event_name")

    kind = LOG_KIND
    name = None

    def __init__(
        self, record: LogRecord, attributes: Mapping[str, Any], scope: InstrumentationScope | str | None, resource: Resource | None
    ) -> None:
        self.attributes = attributes
        self.event_name = record.event_name or None
        self.body = record.body
        self._scope = scope
        self._resource = resource

    @property
    def route(self) -> str | None:
        """The route, written our way; None when none is known."""
        return read_route(self.attributes, None) or None

    @property
    def scope(self) -> str | None:
        """The name of the instrumentation scope."""
        return scope_name(self._scope)

    @property
    def service(self) -> str | None:
        """`service.name` of the resource."""
        return _service(self._resource)


def scope_name(scope: InstrumentationScope | str | None) -> str | None:
    """Give the name of an instrumentation scope; older SDKs gave records the name itself."""
    return scope if scope is None or isinstance(scope, str) else scope.name


def _service(resource: Resource | None) -> str | None:
    service = None if resource is None else resource.attributes.get("service.name")
    return service if isinstance(service, str) else None
