"""What is known of a span's event saves work and changes nothing: bytes, ids, books and log lines are those of the general way."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import strategies
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind

from otel_amplitude import Amplitude, AmplitudeSpanProcessor, Config, Event
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.identity import RequestScope
from otel_amplitude.identity._scope import with_scope
from otel_amplitude.middleware import Middleware, Next, Payload
from otel_amplitude.testing import FakeTransport

KEY = "0123456789abcdef0123456789abcdef"
NAMES = ("http.route", "http.request.method", "http.response.status_code", "cart.total", "cart.note", "price", "zone", "x" * 1_100, "route")
# With one of these an event is never sound.
EXPLICIT = ("amplitude.user_id", "amplitude.session_id", "amplitude.groups.org", "amplitude.event_properties.plan", "session.id", "user.id")
EVENT_TYPES = ("Order Paid", "Order Paid", "Order Paid", "$identify", "e" * 1_100, 5)
TEXTS = (
    "Order Paid",
    "$identify",
    "e" * 1_100,
    "/shop/{id}",
    "POST",
    "u-12345",
    "anonymous",
    'said "yes"\\n',
    "null",
    "\ud800",
    "t" * 1_024,
    "t" * 1_025,
)
NUMBERS = (0, 201, -1, 12.5, float("nan"), float("inf"), 2**53, 2**53 + 1, 2**70, 1_795_305_600_000, True)
VALUES = st.one_of(st.sampled_from(TEXTS), st.sampled_from(NUMBERS), strategies.values, st.lists(st.sampled_from(TEXTS), max_size=3))
IDS = st.sampled_from(("u-12345", "u-12345", "u-54321", None, "  u-54321 ", "anonymous", "u", 12345, "i" * 2_000))
SERVED = 1_795_305_661_001_000_000


class Lines(logging.Handler):
    """Collects what the clients log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


LINES = Lines()


@pytest.fixture(autouse=True, scope="module")
def logged() -> Iterator[None]:
    """What the clients log goes to `LINES` while this file is tested."""
    logger = logging.getLogger("otel_amplitude")
    logger.addHandler(LINES)
    yield
    logger.removeHandler(LINES)


def takeable(values: dict[str, Any]) -> dict[str, Any]:
    """Those that the SDK takes: of a value whose text raises it makes no span or resource at all."""
    taken = {}
    for name, value in values.items():
        with contextlib.suppress(Exception):
            Resource({name: value})
            taken[name] = value
    return taken


def put(name: Any, value: Any) -> Middleware:
    """A middleware that sets a property."""

    def middleware(payload: Payload, next: Next) -> None:
        payload.event.event_properties[name] = value
        next(payload)

    return middleware


def key(name: str, value: Any) -> Middleware:
    """A middleware that sets a key of the event."""

    def middleware(payload: Payload, next: Next) -> None:
        payload.event[name] = value
        next(payload)

    return middleware


def drop(_payload: Payload, _next: Next) -> None:
    """A middleware that lets nothing through."""


def fail(payload: Payload, next: Next) -> None:
    """A middleware that raises after the event has gone on."""
    next(payload)
    raise RuntimeError


def replace(payload: Payload, next: Next) -> None:
    """A middleware that puts an equal event, with properties of its own, in its place."""
    payload.event = Event(payload.event, event_properties=dict(payload.event.event_properties))
    next(payload)


def clear(payload: Payload, next: Next) -> None:
    """A middleware that takes all properties away."""
    payload.event.event_properties.clear()
    next(payload)


MIDDLEWARES = st.lists(
    st.one_of(
        st.builds(put, st.sampled_from(("tier", "cart.total", "", "n" * 1_100, 5, None)), VALUES),
        st.builds(key, st.sampled_from(("user_id", "time", "session_id", "event_type", "groups", "event_properties", "foo")), VALUES),
        st.sampled_from((drop, fail, replace, clear)),
    ),
    max_size=2,
)


class Way:
    """A client whose events are collected in place of being delivered."""

    def __init__(self, middleware: list[Middleware], options: dict[str, Any], *, general: bool) -> None:
        self.client = Amplitude(Config(KEY, transport=FakeTransport(), middleware=middleware, **options))
        self.processor = AmplitudeSpanProcessor(self.client)
        self.parcels: list[tuple[bytes, tuple[str, ...]]] = []
        self.client._exporter.take = self.take  # type: ignore[method-assign]
        if general:  # nothing is known of what the converter gives
            accept = self.client.accept
            self.client.accept = lambda event, extra, source, _is_sound: accept(event, extra, source, False)  # type: ignore[method-assign]

    def take(self, parcel: Parcel) -> None:
        self.parcels.append((parcel.body, parcel.ids))

    def result(self, lines: list[str]) -> tuple[Any, ...]:
        stats = self.client.stats()
        return self.parcels, dict(stats.refused), dict(stats.fixed), sorted(lines)


@given(
    attributes=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=8),
    explicit=st.one_of(st.just({}), st.dictionaries(st.sampled_from(EXPLICIT), VALUES, max_size=2)),
    event_type=st.sampled_from(EVENT_TYPES),
    resource=st.dictionaries(st.sampled_from(("service.name", "service.version", "zone")), VALUES, max_size=2),
    kind=st.sampled_from((SpanKind.SERVER, SpanKind.INTERNAL)),
    user=IDS,
    device=IDS,
    session=st.sampled_from((None, None, -1, 1_795_300_000_000, "1795300000", 5)),
    groups=st.sampled_from((None, None, None, {"org": "acme"})),
    times=st.sampled_from(((SERVED, 5_000), (SERVED, 0), (SERVED, -1), (5, 10), (4 * 10**18, 7))),
    middleware=MIDDLEWARES,
    options=st.sampled_from(
        ({}, {}, {}, {"plan": {"branch": "main"}}, {"resource_properties": ["*"], "properties": ["*"]}, {"min_id_length": 1})
    ),
)
@example(
    event_type="Order Paid",
    explicit={},
    attributes={"cart.note": 'said "yes"', "http.route": "/" + "r" * 1_100},
    resource={},
    kind=SpanKind.SERVER,
    user="u-12345",
    device=None,
    session=None,
    groups=None,
    times=(SERVED, 5_000),
    middleware=[],
    options={},
)
def test_a_sound_event_is_sent_as_the_general_way_sends_it(
    attributes: dict[str, Any],
    explicit: dict[str, Any],
    event_type: Any,
    resource: dict[str, Any],
    kind: SpanKind,
    user: Any,
    device: Any,
    session: Any,
    groups: Any,
    times: tuple[int, int],
    middleware: list[Middleware],
    options: dict[str, Any],
) -> None:
    """The same spans, scopes, middlewares and hostile values, in both ways."""
    provider = TracerProvider(resource=Resource(takeable(resource)), shutdown_on_exit=False)
    tracer, results = provider.get_tracer("test"), []
    given = takeable({"amplitude.event_type": event_type, **attributes, **explicit})
    span: Any = tracer.start_span("work", Context(), kind, given, start_time=times[0])
    span.end(times[0] + times[1])
    for general in (False, True):
        way = Way(middleware, options, general=general)
        scope = RequestScope()
        scope.learn(user_id=user, device_id=device, session_id=session, groups=groups)
        LINES.lines.clear()
        way.processor.on_start(span, with_scope(scope, Context()))
        way.processor.on_end(span._readable_span())
        results.append(way.result(LINES.lines))
    assert results[0] == results[1]
