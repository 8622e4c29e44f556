"""An exporter that knows which events belong to the request that the calling thread reads.

`PerRequest` is mixed into any `BatchExporter`. While a thread is inside `reading`, the events that it submits use the room that was
reserved, and what is refused is counted for the request as well as for the client. Other threads, and events outside, are not affected.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from otel_amplitude.delivery.batch_exporter import BatchExporter, Ticket
from otel_amplitude.delivery.observer import Observer
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.exporter import AmplitudeExporter
from otel_amplitude.kafka.exporter import KafkaExporter


class Reading:
    """What became of the events of one request.

    Attributes:
        accepted: how many were accepted.
        refused: how many were not, by reason.
        rejected: how many Amplitude rejected, where the request waits for that.
    """

    def __init__(self, ticket: Ticket, *, waits: bool) -> None:
        self.ticket = ticket
        self.waits = waits
        self.accepted = 0
        self.refused: Counter[str] = Counter()
        self.rejected = 0
        self._acknowledged = 0
        self._unsettled = 0
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)

    def began(self) -> None:
        """One more event is to be settled."""
        with self._lock:
            self._unsettled += 1

    def ended(self, outcome: str) -> None:
        """One event was settled; any thread."""
        with self._changed:
            self._unsettled -= 1
            self._acknowledged += outcome == "acknowledged"
            self.rejected += outcome == "rejected"
            self._changed.notify_all()

    def wait(self, timeout: float) -> bool:
        """Wait until every event was acknowledged or rejected; False when one was not within `timeout` seconds, or was given up."""
        with self._changed:
            self._changed.wait_for(lambda: self._unsettled == 0, timeout)
            return self._acknowledged + self.rejected == self.accepted


class OfRequest(Parcel):
    """An event whose request waits for its end."""

    __slots__ = ("reading",)

    def __init__(self, parcel: Parcel, reading: Reading) -> None:
        super().__init__(parcel.body, parcel.ids, parcel.accepted_ms)
        self.reading = reading


class _Settled(Observer):
    """Gives the requests that wait what became of their events."""

    on_worker = True

    @property
    def wants_results(self) -> bool:
        return True

    def finished(self, parcel: Parcel, outcome: str, reason: str, status: int | None, attempts: int) -> None:  # noqa: ARG002 -- the signature of the base class
        if isinstance(parcel, OfRequest):
            parcel.reading.ended(outcome)


class PerRequest(BatchExporter):
    """The part of an exporter that a gateway needs, whatever it exports to."""

    _here: threading.local

    def count_per_request(self, *, waits: bool) -> None:
        """Begin, before the first event; `waits`: requests wait until their events are settled."""
        self._here = threading.local()
        self._waits = waits
        if waits:
            self.observe(_Settled())

    @contextmanager
    def reading(self, events: int, size: int, *, durable: bool) -> Iterator[Reading | None]:
        """Reserve room for the events of a request, which this thread then submits; None when there is not enough.

        Args:
            events: at most how many.
            size: about how many bytes of bodies.
            durable: every event must be on disk before it counts as accepted.
        """
        ticket = self.reserve(events, size, durable=durable)
        if ticket is None:
            yield None
            return
        with ticket:
            self._here.reading = reading = Reading(ticket, waits=self._waits)
            try:
                yield reading
            finally:
                self._here.reading = None

    def take(self, parcel: Parcel) -> str | None:
        """As `BatchExporter.take`; inside of `reading`, in the room of the request."""
        reading: Reading | None = getattr(self._here, "reading", None)
        if reading is None:
            return super().take(parcel)
        if reading.waits:
            parcel = OfRequest(parcel, reading)
            reading.began()
        refusal = reading.ticket.take(parcel)
        if refusal is None:
            reading.accepted += 1
        else:
            reading.refused[refusal] += 1
            if reading.waits:
                reading.ended("refused")
        return refusal

    def refuse(self, reason: str, count: int = 1) -> None:
        """As `BatchExporter.refuse`; inside of `reading`, also for the request."""
        reading: Reading | None = getattr(self._here, "reading", None)
        if reading is not None:
            reading.refused[reason] += count
        super().refuse(reason, count)


class GatewayExporter(PerRequest, AmplitudeExporter):
    """Delivers the events of a gateway to Amplitude."""


class GatewayToKafka(PerRequest, KafkaExporter):
    """Writes the events of a gateway to a topic."""
