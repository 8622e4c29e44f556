"""The events that code under test produced, as they would be sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

from otel_amplitude.instances import all_clients
from otel_amplitude.testing._transport import FakeTransport

KEY = "testing0123456789testing01234567"

captured = FakeTransport()
"""The transport of every client made while the fixture `amplitude_events` is in use."""


class AmplitudeEvents(Sequence[dict[str, Any]]):
    """What the code under test sent, in the order of arrival, each event once.

    Reading it flushes first, so that nothing is waited for. A span that has not ended yet is no event yet.
    """

    def __init__(self, transport: FakeTransport) -> None:
        """Read from the transport that clients under test deliver to."""
        self._transport = transport

    def _events(self) -> list[dict[str, Any]]:
        for client in all_clients():
            client.flush(5.0)
        # Two processors may see one span: Amplitude would keep one event of an insert_id, and so do we.
        return list({event["insert_id"]: event for event in self._transport.events}.values())

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        """Give one event, or some."""
        return self._events()[index]

    def __len__(self) -> int:
        """Count them."""
        return len(self._events())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Give each event as a dictionary."""
        return iter(self._events())

    def __repr__(self) -> str:
        return f"AmplitudeEvents({self._events()!r})"

    @property
    def types(self) -> list[str]:
        """Their event types, in order."""
        return [event["event_type"] for event in self]

    def of_type(self, event_type: str) -> list[dict[str, Any]]:
        """Give those of one type."""
        return [event for event in self if event["event_type"] == event_type]

    def of_user(self, user_id: str) -> list[dict[str, Any]]:
        """Give those of one user."""
        return [event for event in self if event.get("user_id") == user_id]

    def one(self, event_type: str) -> dict[str, Any]:
        """Give the only event of a type.

        Raises:
            AssertionError: there is none or more than one; the message lists what there is.
        """
        found = self.of_type(event_type)
        if len(found) != 1:
            raise AssertionError(f"expected one event {event_type!r}, found {len(found)}; all events: {self.types}")
        return found[0]

    def clear(self) -> None:
        """Forget what was sent so far."""
        self._events()
        self._transport.requests.clear()
