"""Records of `amplitude_events` to Amplitude: one record is one event, and its bytes travel as they are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from otel_amplitude.clock import wall
from otel_amplitude.exporter import AmplitudeExporter
from otel_amplitude.worker.bounds import UNBOUNDED_BYTES, UNBOUNDED_EVENTS
from otel_amplitude.worker.records import Position, read_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_amplitude.config import Config
    from otel_amplitude.delivery.observer import Observer
    from otel_amplitude.worker.progress import Assignment

# Where the options say nothing else: a worker has a backlog more often than an application, and its endpoint is the one made for that.
DEFAULTS: Final[dict[str, Any]] = {"use_batch": True, "max_batch_events": 2_000, "upload_interval": 0.2}


class ToAmplitude:
    """Delivers the events of records to Amplitude."""

    def __init__(self, config: Config, observers: Sequence[Observer]) -> None:
        """Take the options of a client; those about memory are not used, since the loop bounds what is pending."""
        unbounded = replace(config, max_cached_events=UNBOUNDED_EVENTS, max_cached_bytes=UNBOUNDED_BYTES)
        self.exporter = AmplitudeExporter(unbounded, observers=observers, at_end="return")

    def take(self, _message: Any, value: bytes | None, assignment: Assignment, offset: int) -> str | None:
        """Take the event in a record; None, or why it was refused.

        Raises:
            NotAnEventError: there is none.
        """
        ids = read_event(value)
        return self.exporter.take(Position(value or b"", ids, int(wall() * 1000), assignment, offset))
