"""Times and sessions as applications really give them: in the unit of their database, as text, as datetimes."""

from __future__ import annotations

import datetime as dt
import operator
import time
from typing import Any

import numpy as np
import pytest
from opentelemetry.sdk.trace import TracerProvider

from otel_amplitude import Amplitude, AmplitudePropagator, AmplitudeSpanProcessor, Config, Event
from otel_amplitude.identity._cookie import make_cookie
from otel_amplitude.testing import FakeTransport

KEY = "0" * 32
NOW = dt.datetime.now(dt.timezone.utc).replace(microsecond=0)
MS = int(NOW.timestamp() * 1000)
KIND = operator.attrgetter("__class__.__name__")  # every process must give a case the same name
UNITS = {"seconds": MS // 1000, "microseconds": MS * 1000, "nanoseconds": MS * 1_000_000}


@pytest.fixture
def sent() -> FakeTransport:
    return FakeTransport()


@pytest.fixture
def client(sent: FakeTransport) -> Any:
    made = Amplitude(Config(KEY, transport=sent, auto_events_per_minute=0))
    yield made
    made.shutdown(5)


def spans(client: Amplitude) -> Any:
    """A tracer whose spans go to the client."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(AmplitudeSpanProcessor(client))
    return provider.get_tracer("shop")


@pytest.mark.parametrize("unit", UNITS)
def test_a_time_in_another_unit_is_the_same_moment(client: Amplitude, sent: FakeTransport, unit: str, caplog: Any) -> None:
    """amplitude/Amplitude-JavaScript#155, Amplitude-Android#177: 200, and never seen; toothrot/amplitude-api#15: which unit?"""
    for _ in range(3):
        client.log_event({"event_type": "Order Paid", "user_id": "user-1234", "time": UNITS[unit], "session_id": UNITS[unit]})
    assert client.flush(5)
    assert [(event["time"], event["session_id"]) for event in sent.events] == [(MS, MS)] * 3
    assert client.stats().fixed == {unit: 6}
    assert sum("event.fixed" in line and f"problem={name}" in line for line in caplog.messages for name in ("time", "session_id")) == 2


@pytest.mark.parametrize(
    ("given", "fixed"),
    [
        (time.time(), {"seconds": 1}),
        (NOW, {}),
        (NOW.astimezone(dt.timezone(dt.timedelta(hours=5, minutes=30))), {}),
        (NOW.replace(tzinfo=None), {"naive": 1}),
        (NOW.isoformat(), {}),
        (NOW.isoformat().replace("+00:00", "Z"), {}),
        (NOW.strftime("%Y%m%dT%H%M%SZ"), {}),
        (NOW.strftime("%Y-%m-%d %H:%M:%S"), {"naive": 1}),
        (str(MS), {}),
        (f" {MS // 1000} ", {"seconds": 1}),
        (np.datetime64(MS, "ms"), {"naive": 1}),
        (np.int64(MS), {}),
        (np.float64(MS), {}),
    ],
    ids=KIND,
)
def test_a_time_in_any_form_is_the_moment_it_means(client: Amplitude, sent: FakeTransport, given: Any, fixed: dict[str, int]) -> None:
    """snowplow/snowplow-android-tracker#523, segmentio/analytics-python#94: local times, and dates that were no numbers."""
    client.log_event(Event(event_type="Order Paid", user_id="user-1234", time=given))
    assert client.flush(5)
    assert abs(sent.events[0]["time"] - MS) < 3_600_000 if given.__class__ is float else sent.events[0]["time"] == MS
    assert client.stats().fixed == fixed


@pytest.mark.parametrize(
    "given", [0, 1, -1, "tomorrow", NOW + dt.timedelta(days=2), NOW - dt.timedelta(days=3_700), MS * 10_000, 20_260_115], ids=KIND
)
def test_a_time_that_can_not_be_is_refused_and_counted(client: Amplitude, sent: FakeTransport, given: Any) -> None:
    """amplitude/Amplitude-JavaScript#155: an event of 1970 was acknowledged, and seen by no one."""
    result = client.log_event({"event_type": "Order Paid", "user_id": "user-1234", "time": given})
    assert (result.outcome, result.reason) == ("refused", "invalid_time")
    assert client.stats().refused == {"invalid_time": 1}


@pytest.mark.parametrize("given", [MS // 1000, f"{MS}", NOW.isoformat(), MS / 1000], ids=KIND)
def test_attributes_of_a_span_are_moments_too(client: Amplitude, sent: FakeTransport, given: Any) -> None:
    """snowplow/snowplow-ios-tracker#467: a documentation that named the wrong unit."""
    attributes = {"amplitude.event_type": "Order Paid", "amplitude.user_id": "user-1234", "amplitude.time": given}
    spans(client).start_span("pay", attributes={**attributes, "amplitude.session_id": given}).end()
    spans(client).start_span("pay", attributes={**attributes, "session.id": given}).end()
    assert client.flush(5)
    assert [(event["time"], event["session_id"]) for event in sent.events] == [(MS, MS)] * 2


@pytest.mark.parametrize("unit", ["seconds", "milliseconds", "microseconds"])
def test_a_span_that_was_started_in_another_unit_is_at_its_moment(client: Amplitude, sent: FakeTransport, unit: str) -> None:
    """open-telemetry/opentelemetry-python#1944: `start_time` in microseconds, where nanoseconds are meant."""
    attributes = {"amplitude.event_type": "Order Paid", "amplitude.user_id": "user-1234"}
    spans(client).start_span("pay", attributes=attributes, start_time={**UNITS, "milliseconds": MS}[unit]).end()
    assert client.flush(5)
    assert [event["time"] for event in sent.events] == [MS]
    assert client.stats().fixed == {unit: 1}


def test_a_span_from_another_century_is_refused(client: Amplitude, sent: FakeTransport) -> None:
    """amplitude/Amplitude-JavaScript#155: events of 1970 come from spans as well."""
    attributes = {"amplitude.event_type": "Order Paid", "amplitude.user_id": "user-1234"}
    spans(client).start_span("pay", attributes=attributes, start_time=10**17).end()
    assert client.stats().refused == {"invalid_time": 1}


@pytest.mark.parametrize("given", [MS // 1000, MS * 1000, str(MS), MS], ids=KIND)
def test_the_session_of_a_request_may_be_in_any_unit(client: Amplitude, sent: FakeTransport, given: Any) -> None:
    """toothrot/amplitude-api#15: a session is a moment as well, and a cookie may be written by hand."""
    cookie = make_cookie(KEY, "browser-device", session_id=given, last_event_ms=MS)
    context = AmplitudePropagator().extract({"cookie": cookie})
    attributes = {"amplitude.event_type": "Order Paid"}
    spans(client).start_span("pay", context=context, attributes=attributes).end()
    assert client.flush(5)
    assert sent.events[0]["session_id"] == MS


@pytest.mark.parametrize("given", [-1, "-1"])
def test_no_session_stays_no_session(client: Amplitude, sent: FakeTransport, given: Any) -> None:
    """Amplitude's word for an event outside any session is no moment."""
    client.log_event({"event_type": "Order Paid", "user_id": "user-1234", "session_id": given})
    attributes = {"amplitude.event_type": "Order Paid", "amplitude.user_id": "user-1234", "amplitude.session_id": given}
    spans(client).start_span("pay", attributes=attributes).end()
    assert client.flush(5)
    assert [event["session_id"] for event in sent.events] == [-1, -1]
    assert client.stats().fixed == {}
