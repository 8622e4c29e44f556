"""A provider, a visitor and the propagators for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from frameworks.seen import KEY, SESSION, Seen
from opentelemetry import propagate
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, attach, detach
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from otel_amplitude.identity import AmplitudePropagator, make_cookie


@pytest.fixture
def seen() -> Seen:
    """The processor, and with it the provider, of this test."""
    return Seen()


@pytest.fixture
def cookie() -> str:
    """The cookie of a visitor whom the browser does not know by name."""
    return make_cookie(KEY, "d-browser", None, SESSION)


@pytest.fixture(autouse=True)
def propagators() -> Iterator[None]:
    """The propagators as `configure()` leaves them, and a context of one's own."""
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator(), AmplitudePropagator({})]))
    token = attach(Context())
    yield
    detach(token)
    propagate.set_global_textmap(before)


@pytest.fixture
def no_propagator() -> None:
    """An application that traces, but does not know our propagator."""
    propagate.set_global_textmap(TraceContextTextMapPropagator())
