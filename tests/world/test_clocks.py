"""Tests of applications stop or move the clock of Python; events are delivered all the same, with the time that the application sees."""

from __future__ import annotations

import datetime as dt
from typing import Any
from unittest import mock

import pytest
from freezegun import freeze_time
from opentelemetry import trace
from world import fresh

import otel_amplitude
from otel_amplitude.identity._cookie import make_cookie
from otel_amplitude.sandbox import Sandbox

KEY = "0" * 32
PAID = {"event_type": "Order Paid", "user_id": "user-1234"}
JANUARY = 1_768_478_400_000


@pytest.mark.parametrize("moment", ["2026-01-15 12:00:00", "2012-01-14", "2039-06-01 08:00:00"])
def test_the_fixture_sees_events_under_a_frozen_clock(amplitude_events: Any, moment: str) -> None:
    """spulec/freezegun#384, getsentry/snuba#5447: accepted by a frozen clock, judged by the real one, events had expired."""
    client = otel_amplitude.init(KEY)
    with freeze_time(moment):
        client.log_event(PAID)
        expected = dt.datetime.now(dt.timezone.utc)
        assert amplitude_events.types == ["Order Paid"]
    assert amplitude_events.one("Order Paid")["time"] == expected.timestamp() * 1000


def test_a_span_under_a_frozen_clock_is_an_event_of_that_moment(amplitude_events: Any) -> None:
    """chrisguidry/pytest-opentelemetry#39: span times under freezegun."""
    with freeze_time("2026-01-15 12:00:00"), trace.get_tracer("shop").start_as_current_span("pay") as span:
        span.set_attributes({"amplitude.event_type": "Order Paid", "amplitude.user_id": "user-1234"})
    assert amplitude_events.one("Order Paid")["time"] == JANUARY


def test_a_clock_that_is_moved_while_events_wait_expires_nothing(amplitude_events: Any) -> None:
    """spulec/freezegun#556: days pass, or the clock goes back, between two lines of a test."""
    client = otel_amplitude.init(KEY)
    with freeze_time("2026-01-15 12:00:00") as frozen:
        for _ in range(3):
            client.log_event(PAID)
            frozen.tick(dt.timedelta(days=30))
        assert len(amplitude_events) == 3


def test_a_request_is_sent_under_a_frozen_clock() -> None:
    """spulec/freezegun#384, DataDog/dd-trace-py#14036: a deadline on a frozen `time.monotonic` is never reached, or long past."""
    with Sandbox() as sandbox, freeze_time("2026-01-15 12:00:00"):
        client = otel_amplitude.Amplitude(otel_amplitude.Config(KEY, server_url=f"{sandbox.url}/2/httpapi"))
        client.log_event(PAID)
        assert client.flush(10)
        assert client.stats().acknowledged == 1
        assert client.shutdown(5)
        assert [event["time"] for event in sandbox.events()] == [JANUARY]


def test_an_import_under_a_frozen_clock_keeps_no_frozen_clock() -> None:
    """spulec/freezegun#140, #159: a clock taken as a default argument is frozen, or real, for good."""
    fresh.run("""if True:
        from freezegun import freeze_time
        with freeze_time("2012-01-14"):
            import otel_amplitude
            from otel_amplitude.testing import FakeTransport
            sent = FakeTransport()
            client = otel_amplitude.init("0" * 32, transport=sent)
            client.log_event({"event_type": "Order Paid", "user_id": "user-1234"})
        client.log_event({"event_type": "Order Paid", "user_id": "user-1234"})
        assert client.flush(10)
        assert len(sent.events) == client.stats().acknowledged == 2, client.stats()
        assert client.shutdown(5)
    """)


def test_a_time_that_a_test_mocks_is_the_events_time(amplitude_events: Any) -> None:
    """spulec/freezegun#307: threads see the real clock under freezegun, so tests patch `time.time` by hand."""
    client = otel_amplitude.init(KEY)
    with mock.patch("time.time", return_value=JANUARY / 1000):
        client.log_event(PAID)
    assert amplitude_events.one("Order Paid")["time"] == JANUARY


def test_a_cookies_session_lasts_by_the_frozen_clock(amplitude_events: Any) -> None:
    """getsentry/snuba#5447: a visitor made under the frozen clock is judged by the same clock."""
    otel_amplitude.configure(KEY)
    with freeze_time("2026-01-15 12:00:00"):
        cookie = make_cookie(KEY, "browser-device", session_id=JANUARY - 60_000)
        context = otel_amplitude.AmplitudePropagator().extract({"cookie": cookie})
        attributes = {"http.route": "/", "http.request.method": "GET", "http.response.status_code": 200}
        span = trace.get_tracer("shop").start_span("GET /", context=context, kind=trace.SpanKind.SERVER, attributes=attributes)
        span.end()
    assert amplitude_events.one("HTTP Request")["session_id"] == JANUARY - 60_000
