"""What a record holds, and how it travels: an event with its place, or a dead letter with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson

from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.exporter import ids_of
from otel_amplitude.worker.progress import Assignment

# Amplitude takes no request that is larger, so no event either.
MAX_RECORD_BYTES: Final = 1_000_000

Headers = Sequence["tuple[str, bytes]"]


class NotAnEventError(ValueError):
    """A record holds no event that could be delivered; the message is the reason, in one word."""


def read_event(value: bytes | None) -> tuple[str, ...]:
    """Give the ids of the event in a record.

    Raises:
        NotAnEventError: it is `empty`, `too_large`, `not_json`, `not_an_event`, has `no_insert_id` or `no_id`. Bytes that are not exactly one
            JSON object must not travel: they could end the array of events that they stand in.
    """
    if not value:
        raise NotAnEventError("empty")
    if len(value) > MAX_RECORD_BYTES:
        raise NotAnEventError("too_large")
    try:
        event = orjson.loads(value)
    except ValueError:
        raise NotAnEventError("not_json") from None
    if type(event) is not dict or type(event.get("event_type")) is not str:
        raise NotAnEventError("not_an_event")
    insert_id = event.get("insert_id")
    if type(insert_id) is not str or not insert_id:
        raise NotAnEventError("no_insert_id")
    ids = ids_of(event)
    for name in ids:
        if type(name) is not str or not name:
            raise NotAnEventError("no_id")
    return ids


class Position(Parcel):
    """A parcel that knows the record it comes from."""

    __slots__ = ("assignment", "offset")

    def __init__(self, body: bytes, ids: tuple[str, ...], accepted_ms: int, assignment: Assignment, offset: int) -> None:
        self.body = body
        self.ids = ids
        self.accepted_ms = accepted_ms
        self.assignment = assignment
        self.offset = offset


class DeadLetter(Position):
    """A record that can not be delivered, on its way to the topic of dead letters.

    Attributes:
        key: of the record; what it was.
        value: of the record, unchanged; None: it had none.
        headers: those of the record, and what became of it.
    """

    __slots__ = ("headers", "key", "value")

    def __init__(
        self,
        assignment: Assignment,
        offset: int,
        accepted_ms: int,
        *,
        key: bytes | str | None,
        value: bytes | None,
        headers: Headers | None,
        outcome: str,
        reason: str,
        status: int | None = None,
    ) -> None:
        super().__init__(value or b"", ("",), accepted_ms, assignment, offset)
        self.key = key
        self.value = value
        facts: dict[str, Any] = {
            "outcome": outcome,
            "reason": reason,
            "status": status,
            "topic": assignment.topic,
            "partition": assignment.partition,
            "offset": offset,
        }
        said = [(name, str(fact).encode()) for name, fact in facts.items() if fact is not None]
        # A letter that was sent again and failed again says what became of it now.
        self.headers = [*((name, text) for name, text in headers or () if name not in facts), *said]
