"""A client with a fake transport, joined to providers of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from otel_amplitude import Amplitude, AmplitudeLogRecordProcessor, AmplitudeSpanProcessor, Config
from otel_amplitude.testing import FakeTransport

KEY = "0123456789abcdef0123456789abcdef"


class Joined:
    """A client and the providers that feed it."""

    def __init__(self, transport: FakeTransport, options: dict[str, Any]) -> None:
        self.transport = transport
        sampler = options.pop("sampler", None)
        resource = Resource.create({"service.name": "shop", **options.pop("resource", {})})
        self.client = Amplitude(Config(KEY, transport=transport, **{"upload_interval": 0, **options}))
        self.tracer_provider = TracerProvider(shutdown_on_exit=False, sampler=sampler, resource=resource)
        self.logger_provider = LoggerProvider(shutdown_on_exit=False, resource=resource)
        self.span_processor = AmplitudeSpanProcessor(self.client)
        self.log_processor = AmplitudeLogRecordProcessor(self.client)
        self.tracer_provider.add_span_processor(self.span_processor)
        self.logger_provider.add_log_record_processor(self.log_processor)
        self.tracer = self.tracer_provider.get_tracer("shop")
        self.logger = self.logger_provider.get_logger("shop")

    def events(self) -> list[dict[str, Any]]:
        """What was delivered so far."""
        assert self.client.flush(5)
        return self.transport.events

    def refused(self) -> dict[str, int]:
        """The refusals of the books."""
        return dict(self.client.stats().refused)


@pytest.fixture
def join() -> Iterator[Callable[..., Joined]]:
    """Make clients joined to providers; all are shut down in the end."""
    made: list[Joined] = []

    def make(transport: FakeTransport | None = None, **options: Any) -> Joined:
        joined = Joined(transport or FakeTransport(), options)
        made.append(joined)
        return joined

    yield make
    for joined in made:
        joined.tracer_provider.shutdown()
        joined.logger_provider.shutdown()
        joined.client.shutdown(2)
        assert joined.client.stats().balanced
