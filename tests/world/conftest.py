"""A service that is traced, for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import propagate
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, attach, detach
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from world.traced import Traced

from otel_amplitude.identity import AmplitudePropagator


@pytest.fixture
def traced() -> Iterator[Traced]:
    """A client, its provider, and the propagators as `configure()` leaves them."""
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator(), AmplitudePropagator({})]))
    token = attach(Context())
    service = Traced()
    yield service
    detach(token)
    propagate.set_global_textmap(before)
    service.client.shutdown(5)
