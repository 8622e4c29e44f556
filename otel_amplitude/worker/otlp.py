"""Records of a Collector's topics to `amplitude_events`: one record is one request of OTLP, and is settled when all of its events are.

A record is read as a gateway reads a request, with the same rules of identity. Each of its events carries the place of the record: the record is
settled when its reading is over and the topic of events has acknowledged every event. A record that is read again makes the same events,
with the same `insert_id`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from otel_amplitude.client import Amplitude
from otel_amplitude.gateway.answers import JSON, PROTOBUF
from otel_amplitude.gateway.exporter import PerRequest
from otel_amplitude.gateway.intake import Intake, Rules
from otel_amplitude.gateway.limits import RefusedError
from otel_amplitude.kafka.exporter import KafkaExporter
from otel_amplitude.kafka.settings import secrets_of
from otel_amplitude.log import Log
from otel_amplitude.worker.bounds import options_to_topic
from otel_amplitude.worker.records import NotAnEventError, Position

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_amplitude.config import Config
    from otel_amplitude.delivery.parcel import Parcel
    from otel_amplitude.worker.loop import Ends
    from otel_amplitude.worker.progress import Assignment

SPANS: Final = "otlp_spans"
LOGS: Final = "otlp_logs"
DEAD: Final = "otlp_dead"
# Of another client than that of an application: a backlog of hours comes in seconds, so a cap by the minute would cut it.
DEFAULTS: Final[dict[str, Any]] = {"auto_events_per_minute": 0}
_UPLOAD_SECONDS: Final = 0.1


class _Places(PerRequest, KafkaExporter):
    """Gives each event the place of the record that is being read. One thread."""

    place: tuple[Assignment, int] | None = None

    def take(self, parcel: Parcel) -> str | None:
        """As `BatchExporter.take`; the record is settled only with this event."""
        if self.place is None:
            return super().take(parcel)
        assignment, offset = self.place
        refusal = super().take(Position(parcel.body, parcel.ids, parcel.accepted_ms, assignment, offset))
        if refusal is None:
            assignment.add_part(offset)
        return refusal


class ToTopic:
    """Makes the events of records of OTLP, and writes them to a topic."""

    def __init__(self, config: Config, settings: Mapping[str, str], topic: str, ends: Ends, rules: Rules) -> None:
        """Make a client of its own.

        Args:
            config: its options; those about memory, disk and endpoint are not used.
            settings: of librdkafka.
            topic: where events go.
            ends: the observer of the loop.
            rules: about identity, as those of a gateway.
        """
        options = options_to_topic(
            upload_interval=min(config.upload_interval, _UPLOAD_SECONDS),
            request_timeout=config.request_timeout,
            max_batch_events=config.max_batch_events,
            max_batch_bytes=config.max_batch_bytes,
        )
        self._ends = ends
        self._places = _Places(settings, topic, options, log=Log(config.log_level, secrets_of(settings)), observers=(ends,))
        self.client = Amplitude(config, exporter=self._places)
        self._intake = Intake(self.client, self._places, rules)

    @property
    def exporter(self) -> KafkaExporter:
        """That of the client."""
        return self._places

    def take(self, message: Any, value: bytes | None, assignment: Assignment, offset: int) -> str | None:
        """Take the request of OTLP in a record; None, or why it was refused.

        Raises:
            NotAnEventError: it can not be read as OTLP.
        """
        body = value or b""  # an empty request is zero bytes of protobuf
        self._places.place = (assignment, offset)
        try:
            self._intake.take(_signal(message), JSON if body[:1] in (b"{", b"[") else PROTOBUF, body, _holds)
        except RefusedError as refusal:
            if refusal.status == 503:
                return refusal.reason
            raise NotAnEventError(refusal.reason) from None
        finally:
            self._places.place = None
        # The record itself, beside its events: without any it is settled at once.
        self._ends.ended.append((Position(b"", ("",), 0, assignment, offset), "acknowledged", "", None))
        return None


def _signal(message: Any) -> Any:
    """Say what a record holds: in protobuf, requests of spans and of log records do not differ. A dead letter names its topic."""
    topic = next((text for name, text in message.headers() or () if name == "topic" and text), message.topic().encode())
    return "logs" if b"log" in topic else "traces"


def _holds(_size: int) -> None:
    """Nothing is bounded here: one record is read at a time."""
