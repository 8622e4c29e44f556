"""A `BatchExporter` that writes each event as one record of a topic, and counts it as acknowledged when all replicas in sync have it.

How order is kept. Records of one id have one key, so they lie in one partition. Delivery never has one id in two requests at once. Within a
request, records are produced in order, and the idempotent producer writes a partition in that order or not at all. So nothing may be given
up alone: when the deadline of a request passes, everything that was not reported is given up together, with the producer. The next request
uses a new producer and begins with the oldest record that was not reported. A record that the old one wrote after all is then written
twice, with equal bytes; the first of each pair stand in order.

How duplicates end. Both copies carry one `insert_id`, which Amplitude keeps once.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from otel_amplitude import limits
from otel_amplitude.clock import monotonic
from otel_amplitude.delivery.batch_exporter import BatchExporter
from otel_amplitude.delivery.dispatcher import Batch, DeliveryOptions
from otel_amplitude.delivery.receipt import ACKNOWLEDGED, Outcome, Receipt, Split, Verdict
from otel_amplitude.errors import TransportError
from otel_amplitude.exporter import read_ids
from otel_amplitude.kafka.settings import BROKERS, library, make_client, producer_settings, reason_of, secrets_of
from otel_amplitude.kafka.topics import check_topics, words_for_absent
from otel_amplitude.log import Log

if TYPE_CHECKING:
    from otel_amplitude.config import Config
    from otel_amplitude.delivery.disk.spool import Spool
    from otel_amplitude.delivery.observer import Observer
    from otel_amplitude.delivery.parcel import Parcel

PROBE_SECONDS: Final = 10.0
CHECK_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.05
_UPLOAD_SECONDS: Final = 0.1
PARTITIONS: Final = 12

_AGAIN: Final = Outcome(Verdict.RETRY, "broker_unreachable", charged=False)
_TOO_LARGE: Final = Outcome(Verdict.REJECTED, "too_large")
# What only an operator can mend: librdkafka's names.
_NO_TOPIC: Final = ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION")
_FORBIDDEN: Final = (
    "TOPIC_AUTHORIZATION_FAILED",
    "CLUSTER_AUTHORIZATION_FAILED",
    "SASL_AUTHENTICATION_FAILED",
    "_AUTHENTICATION",
    "TOPIC_DELETION_DISABLED",
    "POLICY_VIOLATION",
    "INVALID_RECORD",
    "INVALID_TIMESTAMP",
)
_LARGE: Final = ("MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE")

Record = tuple["bytes | str | None", "bytes | None", "Sequence[tuple[str, bytes]] | None"]
"""Key, value and headers of a record."""


K = TypeVar("K", bound="KafkaExporter")


class KafkaExporter(BatchExporter):
    """Delivers encoded events to a topic; the key of a record is the user id, else the device id.

    Nothing is connected before the first event. A forked child makes a producer of its own.
    """

    def __init__(
        self,
        settings: Mapping[str, str],
        topic: str,
        options: DeliveryOptions,
        *,
        log: Log,
        observers: Sequence[Observer] = (),
        spool: Spool | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Make an exporter.

        Args:
            settings: of librdkafka, as `kafka.settings.read_settings` gives them.
            topic: where to; it must exist.
            options: the numbers of delivery; more than one request in flight gains nothing, since one request keeps all partitions busy.
            log: receives what librdkafka says, at `VERBOSE`.
            observers: receive what happens.
            spool: the directory on disk, owned by the exporter from now on; None: memory only.
            clock: seconds that never go back.

        Raises:
            KafkaError: the package `confluent-kafka` is not installed.
        """
        self._library = library()
        self._settings = dict(settings)
        self._topic = topic
        self._log = log
        self._now = clock
        # By process: what a parent made has no threads in its child, and could not even be ended there.
        self._producers: dict[int, Any] = {}
        super().__init__(options, observers=observers, spool=spool, read_ids=read_ids, clock=clock)

    @classmethod
    def made_for(  # noqa: PYI019 -- Self needs Python 3.11
        cls: type[K], config: Config, settings: Mapping[str, str], topic: str, *, log: Log | None = None, observers: Sequence[Observer] = ()
    ) -> K:
        """Make one with the numbers and the spool of a client's options, for `Amplitude(config, exporter=…)`; arguments as there.

        Raises:
            KafkaError: the package `confluent-kafka` is not installed.
            SpoolError: the spool directory can not be trusted.
        """
        options = DeliveryOptions(
            upload_interval=min(config.upload_interval, _UPLOAD_SECONDS),
            max_batch_events=config.max_batch_events,
            max_batch_bytes=config.max_batch_bytes,
            max_cached_events=config.max_cached_events,
            max_cached_bytes=config.max_cached_bytes,
            max_event_age=config.max_event_age,
            max_in_flight=1,
            request_timeout=config.request_timeout,
            shutdown_timeout=config.shutdown_timeout,
        )
        return cls(
            settings,
            topic,
            options,
            log=log or Log(config.log_level, secrets_of(settings)),
            observers=observers,
            spool=_spool(config, topic),
        )

    def check_topic(self) -> bool:
        """Ask the brokers whether the topic exists; False when they do not answer, which is no error: events wait for them.

        Raises:
            KafkaError: it is absent; the message has the line that creates it.
            ConfigurationError: librdkafka does not know a setting.
        """
        return check_topics(self._producer(), {self._topic: PARTITIONS}, self._settings, CHECK_SECONDS, may_be_away=True)

    def record_of(self, parcel: Parcel) -> Record:
        """Give key, value and headers of the record of a parcel."""
        return parcel.ids[0], parcel.body, None

    def send_batch(self, batch: Batch, deadline: float) -> Receipt:
        """Produce one record for each parcel, and wait for the brokers' reports until `deadline`. Runs on a sender thread."""
        producer = self._producer()
        reports: deque[tuple[int, Any]] = deque()  # filled by `poll`, on whichever thread calls it
        expected = self._produce(producer, batch, reports, deadline)
        while len(reports) < expected and (left := deadline - self._now()) > 0:
            producer.poll(min(_POLL_SECONDS, left))
        if len(reports) < expected or any(error is not None and error.fatal() for _, error in reports):
            self._give_up(producer)
        return self._receipt(batch, dict(reports))

    def _produce(self, producer: Any, batch: Batch, reports: deque[tuple[int, Any]], deadline: float) -> int:
        """Hand records to the producer, in order; give how many reports will come. After one that it does not take, none is handed over."""
        for index, parcel in enumerate(batch):
            key, value, headers = self.record_of(parcel)
            while True:
                try:
                    producer.produce(self._topic, value, key, headers=headers, on_delivery=_reporter(index, reports))
                    break
                except BufferError:  # its queue is full
                    if self._now() >= deadline:
                        return index
                    producer.poll(_POLL_SECONDS)
                except self._library.KafkaException as error:
                    reports.append((index, error.args[0]))
                    if error.args[0].name() not in _LARGE:
                        return index + 1
                    break
        return len(batch)

    def _receipt(self, batch: Batch, errors: Mapping[int, Any]) -> Receipt:
        outcomes = [ACKNOWLEDGED if index in errors and errors[index] is None else _AGAIN for index in range(len(batch))]
        failed = {error.name(): error for error in errors.values() if error is not None}
        if not failed and _AGAIN not in outcomes:
            return Receipt(outcomes, "acknowledged")
        for names, reason in ((_NO_TOPIC, "unknown_topic"), (_FORBIDDEN, "refused")):
            if found := next((error for name, error in failed.items() if name in names), None):
                words = (
                    words_for_absent({self._topic: PARTITIONS}, self._settings[BROKERS])
                    if reason == "unknown_topic"
                    else reason_of_kafka(found)
                )
                return Receipt(outcomes, reason, probing=True, server_fault=True, pause=PROBE_SECONDS, response=TransportError(words))
        if failed and failed.keys() <= set(_LARGE):
            if len(batch) == 1:
                return Receipt([_TOO_LARGE], "too_large")
            return Receipt(outcomes, "too_large", split=Split.SMALLER)
        said = next((error for name, error in failed.items() if not name.startswith("_PURGE")), None)
        words = reason_of_kafka(said) if said is not None else f"no answer of {self._settings[BROKERS]} in time"
        return Receipt(outcomes, "broker_unreachable", server_fault=True, response=TransportError(words))

    # Producers

    def _producer(self) -> Any:
        pid = os.getpid()
        found = self._producers.get(pid)
        if found is None:
            found = self._producers.setdefault(pid, make_client(self._library.Producer, producer_settings(self._settings), self._log))
        return found

    def _give_up(self, producer: Any) -> None:
        """Forget what a producer still has, and let the next request make a new one."""
        if self._producers.get(os.getpid()) is producer:
            del self._producers[os.getpid()]
        producer.purge(in_queue=True, in_flight=True, blocking=False)
        producer.poll(0)

    def shutdown(self, timeout: float) -> bool:
        """As for every `BatchExporter`; then end the producer."""
        settled = super().shutdown(timeout)
        producer = self._producers.pop(os.getpid(), None)
        if producer is not None:
            producer.purge(in_queue=True, in_flight=True, blocking=False)
        return settled


def reason_of_kafka(error: Any) -> str:
    """Give librdkafka's name of an error and what it says."""
    return f"{error.name().lower().lstrip('_')}: {reason_of(Exception(error))}"


def _reporter(index: int, reports: deque[tuple[int, Any]]) -> Callable[[Any, Any], None]:
    def report(error: Any, _message: Any) -> None:
        reports.append((index, error))

    return report


def _spool(config: Config, topic: str) -> Spool | None:
    if not config.spool_dir:
        return None
    from otel_amplitude.delivery.disk.spool import Spool, fingerprint  # noqa: PLC0415 -- only those who keep events on disk pay for it

    # By topic, not by brokers: their list changes while events wait.
    return Spool(
        config.spool_dir,
        fingerprint(f"kafka:{topic}", ""),
        max_bytes=config.max_spool_bytes,
        max_age=min(config.max_event_age, limits.MAX_EVENT_AGE),
    )
