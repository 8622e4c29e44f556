"""Lets a declarative file load our processors: the SDK's file configuration knows exporters by entry point, but not processors.

Entries under `instrumentation/development.python.amplitude` are given to `instrument` once the providers exist
(opentelemetry-python.md 4.4). Plain auto-instrumentation calls it too, without options: then it only adds a middleware to a Django site, as OpenTelemetry's does.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from otel_amplitude.otel import _components

# What instrumentation loaders pass to everyone; not options of ours.
_LOADER_WORDS: Final = ("skip_dep_check", "raise_exception_on_conflict", "tracer_provider", "meter_provider", "logger_provider")


class AmplitudeInstrumentor(BaseInstrumentor):  # type: ignore[misc] # an optional package without types here
    """Attaches our processors and propagator to the global providers; its options are those of `Config`."""

    def instrumentation_dependencies(self) -> Collection[str]:
        """It needs no other package."""
        return ()

    def instrument(self, **options: Any) -> None:
        """Make the client of these options and attach it; without options only prepare the frameworks. Never raises."""
        given = {name: value for name, value in options.items() if name not in _LOADER_WORDS}
        if given:
            super().instrument(skip_dep_check=True, **given)
        _components.prepare_frameworks()

    def _instrument(self, **options: Any) -> None:
        given = {name: value for name, value in options.items() if name not in _LOADER_WORDS}
        client = _components.client_for(given)
        if client is not None:
            _components.join(client)

    def _uninstrument(self, **_options: Any) -> None:
        """Processors can not be taken from a provider; the client goes with the process."""
