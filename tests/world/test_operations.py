"""Identify and groups as Amplitude's SDKs send them, and what OpenTelemetry lost before we saw it."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace import SpanLimits, TracerProvider

from otel_amplitude import Amplitude, AmplitudeSpanProcessor, Config, Identify
from otel_amplitude.testing import FakeTransport


@pytest.fixture
def sent() -> FakeTransport:
    return FakeTransport()


@pytest.fixture
def client(sent: FakeTransport) -> Any:
    made = Amplitude(Config("0" * 32, transport=sent))
    yield made
    made.shutdown(5)


def test_every_operation_of_a_group_arrives(client: Amplitude, sent: FakeTransport) -> None:
    """amplitude/amplitude-dev-center#687: the page names fewer operations than the SDKs send."""
    client.group_identify(
        "org", "acme", Identify().set("seats", 3).pre_insert("tags", "new").post_insert("more", 1).remove("tags_old", "x")
    )
    assert client.flush(5)
    expected = {"$set": {"seats": 3}, "$preInsert": {"tags": "new"}, "$postInsert": {"more": 1}, "$remove": {"tags_old": "x"}}
    assert sent.events[0]["group_properties"] == expected


def test_plain_properties_beside_operations_are_set_and_it_is_said_once(client: Amplitude, sent: FakeTransport, caplog: Any) -> None:
    """segmentio/segment-docs#5421, amplitude/Amplitude-Swift#273: plain ones beside operations are $set."""
    for _ in range(2):
        client.log_event(
            {"event_type": "$identify", "user_id": "user-1234", "user_properties": {"$append": {"interests": "music"}, "plan": "paid"}}
        )
    assert client.flush(5)
    assert [event["user_properties"] for event in sent.events] == [{"$append": {"interests": "music"}, "$set": {"plan": "paid"}}] * 2
    assert client.stats().fixed == {"operations": 2}
    assert sum("reason=operations" in line for line in caplog.messages) == 1


@pytest.mark.parametrize("names", [["old", "older"], ("old", "older"), {"old": 1, "older": None}])
def test_names_alone_can_be_unset(client: Amplitude, sent: FakeTransport, names: Any) -> None:
    """Other services take a list of names there, so applications give Amplitude one too."""
    client.log_event({"event_type": "$identify", "user_id": "user-1234", "user_properties": {"$set": {"plan": "pro"}, "$unset": names}})
    assert client.flush(5)
    assert sent.events[0]["user_properties"] == {"$set": {"plan": "pro"}, "$unset": {"old": "-", "older": "-"}}


@pytest.mark.parametrize(
    ("wrong", "removed"),
    [
        ({"$add": {"orders": "two"}}, "user_properties.$add"),
        ({"$add": {"orders": "two", "visits": 1}}, "user_properties.$add.orders"),
        ({"$append": 5}, "user_properties.$append"),
    ],
)
def test_an_operation_that_can_not_be_carried_out_costs_itself(
    client: Amplitude, sent: FakeTransport, wrong: dict[str, Any], removed: str, caplog: Any
) -> None:
    """amplitude/Amplitude-Node#83 ("Skipping operation"): as in Amplitude's SDKs the other operations are sent, and the log names what was left out."""
    client.log_event({"event_type": "$identify", "user_id": "user-1234", "user_properties": {"$set": {"plan": "pro"}, **wrong}})
    assert client.flush(5)
    kept = {"$add": {"visits": 1}} if removed.endswith("orders") else {}
    assert sent.events[0]["user_properties"] == {"$set": {"plan": "pro"}, **kept}
    assert any(f"removed={removed} " in line for line in caplog.messages)


def test_attributes_that_a_limit_took_are_counted_and_named_once(client: Amplitude, sent: FakeTransport, caplog: Any) -> None:
    """A span keeps 128 attributes, and the oldest go first, without a word."""
    provider = TracerProvider(shutdown_on_exit=False, span_limits=SpanLimits(max_span_attributes=3))
    provider.add_span_processor(AmplitudeSpanProcessor(client))
    for _ in range(2):
        with provider.get_tracer("shop").start_as_current_span("pay") as span:
            for name in ("a", "b", "c", "amplitude.user_id", "amplitude.event_type"):
                span.set_attribute(name, "user-1234")
    assert client.flush(5)
    assert [event["event_properties"].keys() & {"a", "b", "c"} for event in sent.events] == [{"c"}] * 2
    assert client.stats().fixed == {"lost_attributes": 2}
    assert sum("reason=lost_attributes" in line for line in caplog.messages) == 1
