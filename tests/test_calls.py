"""What the speed rests on, as exact counts: how often something is called, never how long it takes."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any, ClassVar

import pytest
import servers
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.trace import SpanKind

from otel_amplitude import Amplitude, AmplitudeSpanProcessor, Config, Event, client
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.identity._scope import RequestScope, with_scope
from otel_amplitude.middleware import Middleware, Next, Payload
from otel_amplitude.testing import FakeTransport
from otel_amplitude.testing._transport import answer
from otel_amplitude.transport import Request, RequestsTransport

KEY = "0123456789abcdef0123456789abcdef"
EVENT = {"event_type": "Order Paid", "user_id": "u-12345"}
EVENT_OF_A_SPAN = {"amplitude.event_type": "Order Paid", "amplitude.user_id": "u-12345"}


class Calls:
    """Counts the calls of functions it replaces, and passes them on."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self.counts: Counter[str] = Counter()

    def of(self, owner: Any, name: str) -> None:
        """Count the calls of `owner.name` under `name`."""
        original = getattr(owner, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            self.counts[name] += 1
            return original(*arguments, **options)

        self._patch.setattr(owner, name, counted)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(monkeypatch)


class CountingSpan:
    """A span that counts how often each of its parts is read."""

    def __init__(self, span: ReadableSpan) -> None:
        self._span = span
        self.reads: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        self.reads[name] += 1
        return getattr(self._span, name)


def ended(kind: SpanKind, attributes: dict[str, Any]) -> CountingSpan:
    span = TracerProvider(shutdown_on_exit=False).get_tracer("test").start_span("work", Context(), kind, attributes)
    span.end()
    assert isinstance(span, ReadableSpan)
    return CountingSpan(span)


@pytest.mark.parametrize("kind", [SpanKind.INTERNAL, SpanKind.CLIENT, SpanKind.PRODUCER, SpanKind.CONSUMER])
def test_a_span_that_is_not_chosen_is_asked_for_three_things(calls: Calls, kind: SpanKind) -> None:
    """Its context, once its attributes, and its kind, since a request without a route is counted; never its events, links, resource or parent."""
    processor = AmplitudeSpanProcessor(Amplitude(Config(KEY, transport=FakeTransport())))
    span = ended(kind, {f"key.{number}": number for number in range(15)})
    processor.on_end(span)  # type: ignore[arg-type]
    assert span.reads == {"context": 1, "attributes": 1, "kind": 1}


def test_the_attributes_of_a_span_that_is_not_chosen_are_not_scanned() -> None:
    """They are copied in one step; nobody asks for their items, keys or number."""

    class Attributes(dict[str, Any]):
        asked: ClassVar[Counter[str]] = Counter()

        def copy(self) -> dict[str, Any]:
            self.asked["copy"] += 1
            return Copied(self)

    class Copied(dict[str, Any]):
        def __iter__(self) -> Any:
            raise AssertionError("scanned")

        keys = values = items = __iter__

    span = ended(SpanKind.INTERNAL, {})
    span.attributes = Attributes({"a": 1})
    processor = AmplitudeSpanProcessor(Amplitude(Config(KEY, transport=FakeTransport())))
    processor.on_end(span)  # type: ignore[arg-type]
    assert Attributes.asked == {"copy": 1}


def test_the_attributes_of_a_chosen_span_are_copied_once() -> None:
    """Choosing, identifying and converting read the same copy."""
    span = ended(SpanKind.SERVER, EVENT_OF_A_SPAN)
    amplitude = Amplitude(Config(KEY, transport=FakeTransport()))
    AmplitudeSpanProcessor(amplitude).on_end(span)  # type: ignore[arg-type]
    assert (span.reads["attributes"], span.reads["events"], amplitude.stats().accepted) == (1, 1, 1)


class Odd:
    """A value of somebody's own that can not even be compared."""

    def __eq__(self, _other: object) -> bool:
        raise RuntimeError

    __hash__ = None  # type: ignore[assignment]

    def __str__(self) -> str:
        return "odd"


def change_a_key(payload: Payload, next: Next) -> None:
    payload.event["user_id"] = "  u-54321 "
    next(payload)


def change_a_property(payload: Payload, next: Next) -> None:
    payload.event.event_properties["sizes"] = [1, [2, 3], float("nan")]
    next(payload)


def put_an_odd_value(payload: Payload, next: Next) -> None:
    payload.event["session_id"] = Odd()  # type: ignore[assignment]
    next(payload)


def put_another_event(payload: Payload, next: Next) -> None:
    payload.event = Event(payload.event, device_id="  phone-1234567 ")
    next(payload)


@pytest.mark.parametrize(
    ("middleware", "checks", "sent"),
    [
        (None, 0, {"user_id": "u-1234567890", "session_id": 1_795_305_600_000}),
        (change_a_property, 0, {"event_properties": {"total": 3, "sizes": [1, "[2,3]", "NaN"]}}),
        (change_a_key, 1, {"user_id": "u-54321"}),
        (put_an_odd_value, 1, {"user_id": "u-1234567890"}),
        (put_another_event, 1, {"device_id": "phone-1234567"}),
    ],
)
def test_an_event_of_a_span_is_checked_where_a_middleware_changed_a_key(
    calls: Calls, middleware: Middleware | None, checks: int, sent: dict[str, Any]
) -> None:
    """What made it knew that it is good; its properties are looked at again whenever there is a middleware."""
    calls.of(client, "check_event")
    transport = FakeTransport()
    amplitude = Amplitude(Config(KEY, transport=transport, middleware=[middleware] if middleware else []))
    processor = AmplitudeSpanProcessor(amplitude)
    scope = RequestScope()
    scope.learn(user_id="u-1234567890", session_id=1_795_305_600_000)
    context = with_scope(scope, Context())
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    provider.get_tracer("test").start_span("work", context, attributes={"amplitude.event_type": "Order Paid", "total": 3}).end()
    assert amplitude.flush(5)
    assert calls.counts["check_event"] == checks
    (event,) = transport.events
    event["event_properties"] = {name: event["event_properties"][name] for name in ("total", "sizes") if name in event["event_properties"]}
    assert {name: event[name] for name in sent} == sent
    assert ("session_id" in event) == (middleware is not put_an_odd_value)


def test_limits_on_values_are_applied_after_the_chain() -> None:
    """A middleware sees what was recorded: plain values as they were, lists as lists; what leaves is within Amplitude's limits."""
    seen: dict[str, Any] = {}

    def look(payload: Payload, next: Next) -> None:
        seen.update(payload.event.event_properties)
        next(payload)

    transport = FakeTransport()
    amplitude = Amplitude(Config(KEY, transport=transport, middleware=[look]))
    attributes = {**EVENT_OF_A_SPAN, "text": "x" * 2_000, "rate": float("nan"), "big": 2**60, "sizes": (1, 2)}
    AmplitudeSpanProcessor(amplitude).on_end(ended(SpanKind.SERVER, attributes))  # type: ignore[arg-type]
    assert amplitude.flush(5)
    assert (len(seen["text"]), repr(seen["rate"]), seen["big"], seen["sizes"]) == (2_000, "nan", 2**60, [1, 2])
    sent = transport.events[0]["event_properties"]
    assert (len(sent["text"]), sent["rate"], sent["big"], sent["sizes"]) == (1_024, "NaN", str(2**60), [1, 2])


def test_an_event_is_checked_and_encoded_once_whatever_the_retries(calls: Calls) -> None:
    """Every transmission sends the bytes that were frozen when the event was accepted."""
    calls.of(client, "check_event")
    calls.of(client, "encode_event")
    transport = FakeTransport([answer(500), answer(503), answer(502), answer(500)])
    amplitude = Amplitude(Config(KEY, transport=transport, upload_interval=0, retry_timeouts=[0] * 9))
    assert amplitude.log_event(EVENT, timeout=10).outcome == "acknowledged"
    amplitude.shutdown(5)
    assert len(transport.requests) == 5
    assert (calls.counts["check_event"], calls.counts["encode_event"]) == (1, 1)
    assert len({recorded.request.body for recorded in transport.requests}) == 1


def test_a_thousand_batches_need_one_connection() -> None:
    """The connection is kept alive."""
    with servers.Server(*[servers.answer(200)] * 1_000) as server:
        transport = RequestsTransport()
        for _ in range(1_000):
            assert transport.send(Request(server.url, {"Content-Type": "application/json"}, b"{}", 5.0)).status == 200
        transport.close()
        assert server.connections == 1


def test_a_full_memory_of_events_takes_as_few_requests_as_fit() -> None:
    """Ten thousand events are ten requests, not thousands."""
    transport = FakeTransport()
    amplitude = Amplitude(Config(KEY, transport=transport, upload_interval=60.0, max_in_flight=1))
    for number in range(10_000):
        assert amplitude._exporter.submit(Parcel(b'{"insert_id":"%d"}' % number, ("u",), 2**42))
    assert amplitude.flush(20)
    amplitude.shutdown(5)
    assert len(transport.requests) == 10


def test_the_worker_is_woken_once_for_many_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first event wakes it; those that join the first change nothing until a batch is full."""
    amplitude = Amplitude(Config(KEY, transport=FakeTransport(), upload_interval=60.0))
    amplitude.log_event(EVENT)
    worker = amplitude._exporter._worker()
    settled = threading.Event()
    for _ in range(1_000):
        if worker.queue._wake_at > 1 and worker.dispatcher.staged:
            break
        settled.wait(0.01)
    wakes: list[int] = []
    monkeypatch.setattr(worker.queue, "_wake", lambda: wakes.append(1))
    for _ in range(900):
        amplitude.log_event(EVENT)
    amplitude.shutdown(0.1)
    assert wakes == []


def test_nothing_is_started_before_the_first_event(started_here: list[object]) -> None:
    """A client, its processor and spans that are no events cost no thread."""
    span = ended(SpanKind.INTERNAL, {"a": 1})
    started_here.clear()  # the SDK's provider has some
    amplitude = Amplitude(Config(KEY, transport=FakeTransport()))
    processor = AmplitudeSpanProcessor(amplitude)
    for _ in range(100):
        processor.on_end(span)  # type: ignore[arg-type]
    assert not started_here
    assert amplitude.log_event({"event_type": "Order Paid", "user_id": "user-12345"}).accepted
    assert len(started_here) == 1
    assert amplitude.shutdown(10)
