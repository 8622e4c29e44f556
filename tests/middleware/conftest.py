"""One event through one middleware."""

from collections.abc import Callable
from typing import Any, TypeAlias

import pytest

from otel_amplitude.events import Event
from otel_amplitude.middleware import Chain, Middleware, Payload

Through: TypeAlias = Callable[..., Event | None]


@pytest.fixture
def through() -> Through:
    """Send an event through a middleware: gives the event that came out, or None; raises the middleware's error."""

    def send(middleware: Middleware, event: dict[str, Any], extra: dict[str, Any] | None = None) -> Event | None:
        out: list[Event] = []
        errors: list[BaseException] = []

        def refuse(_reason: str, _name: str, error: BaseException | None) -> None:
            errors.extend([error] if error else [])

        Chain([middleware], lambda payload: out.append(payload.event), refuse)(Payload(Event(event), extra))
        if errors:
            raise errors[0]
        return out[0] if out else None

    return send
