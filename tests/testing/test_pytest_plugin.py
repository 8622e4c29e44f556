"""The fixture for users: it captures whatever way events are made."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry._logs import get_logger

import otel_amplitude

EVENT = {"event_type": "Order Paid", "user_id": "u-12345"}


def test_it_captures_what_the_default_instance_sends(amplitude_events: Any) -> None:
    """Code under test need not know of it."""
    otel_amplitude.get_instance().log_event(EVENT)
    assert amplitude_events.types == ["Order Paid"]
    assert amplitude_events.of_user("u-12345") == amplitude_events.of_type("Order Paid") == list(amplitude_events)


def test_it_captures_spans_and_log_records_of_the_global_providers(amplitude_events: Any) -> None:
    """As the application makes them."""
    with trace.get_tracer("shop").start_as_current_span("pay") as span:
        otel_amplitude.set_user("u-12345")
        span.set_attribute("amplitude.event_type", "Order Paid")
        get_logger("shop").emit(event_name="signup")
    assert sorted(amplitude_events.types) == ["Order Paid", "signup"]
    assert amplitude_events.one("Order Paid")["user_id"] == "u-12345"


def test_it_captures_clients_that_the_code_under_test_makes(amplitude_events: Any) -> None:
    """An application factory that calls configure or init, with a real key."""
    otel_amplitude.init("0123456789abcdef0123456789abcdef", name="billing").log_event(EVENT)
    otel_amplitude.configure("0123456789abcdef0123456789abcdef")
    with trace.get_tracer("shop").start_as_current_span("pay") as span:
        span.set_attribute("amplitude.event_type", "Span")
        span.set_attribute("amplitude.user_id", "u-12345")
    assert sorted(amplitude_events.types) == ["Order Paid", "Span"]


def test_each_test_starts_with_nothing(amplitude_events: Any) -> None:
    """Whatever ran before."""
    assert len(amplitude_events) == 0
    assert repr(amplitude_events) == "AmplitudeEvents([])"


def test_one_says_what_there_is(amplitude_events: Any) -> None:
    """A failed assertion must help."""
    otel_amplitude.get_instance().log_event(EVENT)
    with pytest.raises(AssertionError, match=r"expected one event 'Refund', found 0; all events: \['Order Paid'\]"):
        amplitude_events.one("Refund")
    assert amplitude_events[0]["user_id"] == "u-12345"
    assert len(amplitude_events[:1]) == 1
    amplitude_events.clear()
    assert len(amplitude_events) == 0
