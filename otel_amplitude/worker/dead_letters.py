"""The topic of dead letters: one more destination of delivery, so that retries, order and counters are those of every exporter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_amplitude.kafka.exporter import KafkaExporter, Record
from otel_amplitude.worker.bounds import options_to_topic
from otel_amplitude.worker.records import DeadLetter

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_amplitude.delivery.observer import Observer
    from otel_amplitude.delivery.parcel import Parcel
    from otel_amplitude.log import Log

_LARGEST_BYTES: Final = 16 * 2**20


class DeadLetters(KafkaExporter):
    """Writes dead letters with their headers. What can not be written is not settled."""

    def __init__(self, settings: Mapping[str, str], topic: str, *, log: Log, observers: Sequence[Observer], request_timeout: float) -> None:
        options = options_to_topic(upload_interval=0.0, request_timeout=request_timeout)
        # A record that its topic took must fit through this client as well: the topic decides.
        super().__init__({"message.max.bytes": str(_LARGEST_BYTES), **settings}, topic, options, log=log, observers=observers)

    def record_of(self, parcel: Parcel) -> Record:
        """Give the record as it was, with the headers that say why it is here."""
        if isinstance(parcel, DeadLetter):
            return parcel.key, parcel.value, parcel.headers
        return super().record_of(parcel)
