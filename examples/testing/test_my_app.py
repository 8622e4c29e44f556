"""Tests of an application's own events, with the fixture that comes with otel_amplitude: `pytest examples/testing`.

Nothing is configured and nothing leaves the process: clients made during a test deliver into the fixture.
"""

from __future__ import annotations

import pytest
from shop import app

from otel_amplitude.testing import AmplitudeEvents


@pytest.fixture(autouse=True)
def paid(amplitude_events: AmplitudeEvents) -> None:
    assert app.test_client().post("/orders", headers={"X-Customer": "u-12345"}).status_code == 200


def test_an_order_is_an_event(amplitude_events: AmplitudeEvents) -> None:
    event = amplitude_events.one("Order Paid")
    assert event["user_id"] == "u-12345"
    assert event["event_properties"]["cart.total"] == 12.5


def test_the_card_stays_here(amplitude_events: AmplitudeEvents) -> None:
    assert "4111" not in str(list(amplitude_events))


def test_the_request_is_an_event_too(amplitude_events: AmplitudeEvents) -> None:
    assert amplitude_events.types == ["Order Paid", "HTTP Request"]
    assert amplitude_events.of_user("u-12345") == list(amplitude_events)
