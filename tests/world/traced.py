"""A client whose events stay in memory, fed by the spans of a provider of its own."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Tracer

from otel_amplitude import Amplitude, Config
from otel_amplitude.identity import make_cookie
from otel_amplitude.otel._processors import AmplitudeSpanProcessor
from otel_amplitude.testing import FakeTransport

KEY = "0123456789abcdef0123456789abcdef"


class Traced:
    """What a service that is traced with `provider` sends."""

    def __init__(self, **options: Any) -> None:
        self._transport = FakeTransport()
        self.client = Amplitude(Config(KEY, transport=self._transport, **{"upload_interval": 0, "max_in_flight": 1, **options}))
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(AmplitudeSpanProcessor(self.client))

    @property
    def tracer(self) -> Tracer:
        return self.provider.get_tracer("shop")

    def events(self) -> list[dict[str, Any]]:
        """All that was sent, in the order in which it was made."""
        assert self.client.flush(10)
        return list(self._transport.events)

    def routes(self) -> list[str]:
        """The routes of all events."""
        return [event["event_properties"].get("route", "") for event in self.events()]

    def refused(self) -> dict[str, int]:
        """The refused events by reason."""
        return dict(self.client.stats().refused)


def visitor(**headers: str) -> dict[str, str]:
    """The headers of a visitor with the cookie of Amplitude's browser SDK; `_` in a name stands for a dash."""
    return {"Cookie": make_cookie(KEY, "device-1234", "user-1234"), **{name.replace("_", "-"): value for name, value in headers.items()}}
