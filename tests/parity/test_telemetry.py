"""Spans and log records carry all that `log_event` can: annotated with the same keys they arrive as the same event."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from otel.conftest import Joined
from parity.calls import EVERY_KEY, OPERATIONS

from otel_amplitude import Event, Identify, Payload, Revenue
from otel_amplitude.middleware import GroupsFromExtra
from otel_amplitude.testing import FakeTransport

MAPS: Final = ("event_properties", "user_properties", "groups", "group_properties")
# What a span has by itself.
AUTOMATIC: Final = ("service", "duration_ms", "trace_id", "severity")


def identify() -> dict[str, Any]:
    """Every operation but those whose value is a map, which no span attribute can be."""
    made = Identify()
    for name, *values in OPERATIONS:
        if not any(isinstance(value, dict) for value in values):
            getattr(made, {"setOnce": "set_once", "preInsert": "pre_insert", "postInsert": "post_insert"}.get(name, name))(*values)
    return made.to_dict()


# A tracking plan and the source are said once, as options of the client; a span has no maps to say them with.
BY_OPTION: Final = ("plan", "ingestion_metadata")
FLAT: Final = {name: value for name, value in EVERY_KEY["event_properties"].items() if name not in ("map", "list")}
EVENTS: Final[dict[str, dict[str, Any]]] = {
    "every key": {
        **{name: value for name, value in EVERY_KEY.items() if name not in BY_OPTION},
        "event_type": "Every Key",
        "user_id": "u-12345",
        "event_properties": {**FLAT, "list": ["a", "b"]},
    },
    "identify": {"event_type": "$identify", "user_id": "u-12345", "user_properties": identify()},
    "group identify": {
        "event_type": "$groupidentify",
        "user_id": "u-12345",
        "groups": {"org": "acme"},
        "group_properties": {"$set": {"seats": 5}, "$add": {"n": 1}},
    },
    "revenue": Revenue(price=2.5, quantity=2, product_id="tea", currency="EUR").to_event("u-12345"),
    "no sync": {"event_type": "Backfilled", "device_id": "device-12345", "$skip_user_properties_sync": True},
}


def flat(event: dict[str, Any]) -> dict[str, Any]:
    """An event as attributes, maps key by key."""
    attributes: dict[str, Any] = {}
    for name, value in event.items():
        if name not in MAPS:
            attributes[f"amplitude.{name}"] = value
            continue
        for key, inner in value.items():
            for path, leaf in ((f"{key}.{deep}", leaf) for deep, leaf in inner.items()) if isinstance(inner, dict) else [(key, inner)]:
                attributes[f"amplitude.{name}.{path}"] = leaf
    return attributes


def whole(event: dict[str, Any]) -> dict[str, Any]:
    """An event as attributes, maps as maps; log records may carry them."""
    return {f"amplitude.{name}": value for name, value in event.items()}


def span(joined: Joined, attributes: dict[str, Any]) -> None:
    joined.tracer.start_span("work", attributes=attributes).end()


def log(joined: Joined, attributes: dict[str, Any]) -> None:
    joined.logger.emit(attributes=attributes, body="text")


@pytest.fixture
def join() -> Iterator[Callable[..., Joined]]:
    made: list[Joined] = []

    def build(**given: Any) -> Joined:
        made.append(Joined(FakeTransport(), given))
        return made[-1]

    yield build
    for joined in made:
        joined.tracer_provider.shutdown()
        joined.logger_provider.shutdown()
        joined.client.shutdown(2)
        assert joined.client.stats().balanced


def without_automatic(event: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What does not come from the telemetry itself."""
    kept = {name: value for name, value in event.items() if name not in ("insert_id", "time") or name in given}
    own = {name: value for name, value in kept.pop("event_properties", {}).items() if name not in AUTOMATIC}
    return {**kept, **({"event_properties": own} if own else {})}


@pytest.mark.parametrize(
    ("record", "write"), [(span, flat), (log, flat), (log, whole)], ids=["a span", "a log record", "a log record with maps"]
)
@pytest.mark.parametrize("name", EVENTS)
def test_an_annotation_arrives_as_the_event_does(
    join: Callable[..., Joined], name: str, record: Callable[..., None], write: Callable[..., dict[str, Any]]
) -> None:
    """Groups, operations, revenue and every key of Amplitude's."""
    event = EVENTS[name]
    joined = join()
    assert joined.client.log_event(event).accepted
    record(joined, write(event))
    direct, carried = joined.events()
    assert without_automatic(carried, event) == without_automatic(direct, event)


@pytest.mark.parametrize("record", [span, log])
def test_extra_reaches_the_middleware_and_nobody_else(join: Callable[..., Joined], record: Callable[..., None]) -> None:
    """As the second argument of `log_event` does, with the span or record it came from."""
    seen: list[tuple[dict[str, Any], str]] = []

    def look(payload: Payload, next: Any) -> None:
        seen.append((payload.extra, type(payload.source).__name__))
        next(payload)

    joined = join(middleware=[look, GroupsFromExtra()])
    annotation = flat(Event(event_type="X", user_id="u-12345"))
    record(joined, {**annotation, "amplitude.extra.trusted": True, "amplitude.extra.groups.org": "acme"})
    (event,) = joined.events()
    ((extra, source),) = seen
    assert extra["trusted"] is True
    assert source in ("ReadableSpan", "_Span", "Span", "ReadWriteLogRecord")
    assert "trusted" not in str(event)
