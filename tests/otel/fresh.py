"""A process that has just started, as far as our components can tell."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import pytest
from opentelemetry import propagate, trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from otel_amplitude import instances as clients
from otel_amplitude import setup
from otel_amplitude.otel import _components

KEY = "0123456789abcdef0123456789abcdef"
PAID = {"amplitude.event_type": "Order Paid", "amplitude.user_id": "u-12345"}


@contextlib.contextmanager
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[TracerProvider]:
    """Global providers, propagators, SIGTERM and components as at the start of a process; give the tracer provider."""
    tracers, loggers = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False), LoggerProvider(shutdown_on_exit=False)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: tracers)
    monkeypatch.setattr(setup, "get_logger_provider", lambda: loggers)
    for name, empty in (("_built", []), ("_clients", []), ("_fed", set()), ("_reported", set())):
        monkeypatch.setattr(_components, name, empty)
    monkeypatch.setattr(clients, "_instances", {})
    monkeypatch.setattr(clients, "_told_misspelt", set())
    propagators, handler = propagate.get_global_textmap(), signal.getsignal(signal.SIGTERM)
    yield tracers
    tracers.shutdown()
    loggers.shutdown()
    for client in _components._clients:
        client.shutdown(1)
    propagate.set_global_textmap(propagators)
    signal.signal(signal.SIGTERM, handler)


def spans(provider: TracerProvider, count: int = 1) -> None:
    """End annotated spans."""
    for _ in range(count):
        provider.get_tracer("shop").start_span("pay", attributes=PAID).end()
