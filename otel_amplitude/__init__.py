"""OpenTelemetry spans and log records as Amplitude events, delivered without losing or doubling any.

>>> import otel_amplitude
>>> amplitude = otel_amplitude.init("0123456789abcdef0123456789abcdef", dry_run=True)
>>> amplitude.log_event({"event_type": "Order Paid", "user_id": "u-12345"}).outcome
'pending'
>>> amplitude.shutdown()
True

Names are imported when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from otel_amplitude._version import __version__

if TYPE_CHECKING:
    from otel_amplitude.client import Amplitude
    from otel_amplitude.config import Config
    from otel_amplitude.delivery.batch_exporter import BatchExporter
    from otel_amplitude.delivery.books import Pending, Stats
    from otel_amplitude.delivery.retry import ExponentialBackoff, FixedWaits, RetryPolicy
    from otel_amplitude.errors import (
        ConfigurationError,
        InvalidEventError,
        MiddlewareError,
        OtelAmplitudeError,
        RulesError,
        SpoolError,
        TransportError,
    )
    from otel_amplitude.events import Event, Identify, Revenue
    from otel_amplitude.exporter import AmplitudeExporter
    from otel_amplitude.identity._current import acting, set_user
    from otel_amplitude.identity._propagator import AmplitudePropagator
    from otel_amplitude.instances import get_instance, init
    from otel_amplitude.middleware._chain import Middleware, Next, Payload
    from otel_amplitude.otel._exporters import AmplitudeLogRecordExporter, AmplitudeSpanExporter
    from otel_amplitude.otel._processors import AmplitudeLogRecordProcessor, AmplitudeSpanProcessor
    from otel_amplitude.results import Result
    from otel_amplitude.setup import configure
    from otel_amplitude.transport import Request, RequestsTransport, Response, Transport

_HOMES = {
    "client": ("Amplitude",),
    "config": ("Config",),
    "delivery.batch_exporter": ("BatchExporter",),
    "delivery.retry": ("ExponentialBackoff", "FixedWaits", "RetryPolicy"),
    "delivery.books": ("Pending", "Stats"),
    "errors": (
        "ConfigurationError",
        "InvalidEventError",
        "MiddlewareError",
        "OtelAmplitudeError",
        "RulesError",
        "SpoolError",
        "TransportError",
    ),
    "events": ("Event", "Identify", "Revenue"),
    "exporter": ("AmplitudeExporter",),
    "identity._current": ("acting", "set_user"),
    "identity._propagator": ("AmplitudePropagator",),
    "instances": ("get_instance", "init"),
    "middleware._chain": ("Middleware", "Next", "Payload"),
    "otel._exporters": ("AmplitudeLogRecordExporter", "AmplitudeSpanExporter"),
    "otel._processors": ("AmplitudeLogRecordProcessor", "AmplitudeSpanProcessor"),
    "results": ("Result",),
    "setup": ("configure",),
    "transport": ("Request", "RequestsTransport", "Response", "Transport"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Amplitude",
    "AmplitudeExporter",
    "AmplitudeLogRecordExporter",
    "AmplitudeLogRecordProcessor",
    "AmplitudePropagator",
    "AmplitudeSpanExporter",
    "AmplitudeSpanProcessor",
    "BatchExporter",
    "Config",
    "ConfigurationError",
    "Event",
    "ExponentialBackoff",
    "FixedWaits",
    "Identify",
    "InvalidEventError",
    "Middleware",
    "MiddlewareError",
    "Next",
    "OtelAmplitudeError",
    "Payload",
    "Pending",
    "Request",
    "RequestsTransport",
    "Response",
    "Result",
    "RetryPolicy",
    "Revenue",
    "RulesError",
    "SpoolError",
    "Stats",
    "Transport",
    "TransportError",
    "__version__",
    "acting",
    "configure",
    "get_instance",
    "init",
    "set_user",
]


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
