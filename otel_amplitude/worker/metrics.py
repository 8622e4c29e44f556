"""Lag and counters of a worker as OpenTelemetry metrics, under the attributes of OpenTelemetry's messaging conventions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter

from otel_amplitude._version import __version__
from otel_amplitude.worker.loop import Snapshot

_Labels = Mapping[str, str]
_Reading = Iterable["tuple[int, _Labels]"]
_TOPIC: Final = "messaging.destination.name"
_PARTITION: Final = "messaging.destination.partition.id"
_GROUP: Final = "messaging.consumer.group.name"


class WorkerMetrics:
    """Reads the snapshot of one worker whenever a reader asks, on the reader's thread: nothing is added to the way of a record."""

    def __init__(self, snapshot: Callable[[], Snapshot], group: str, meter_provider: MeterProvider | None = None) -> None:
        """Make the instruments.

        Args:
            snapshot: gives what the worker has done; any thread may call it.
            group: the name of the group of consumers.
            meter_provider: by default the global one, also when it is set later.
        """
        self._snapshot = snapshot
        self._common: _Labels = {"messaging.system": "kafka", _GROUP: group}
        meter = get_meter("otel_amplitude", __version__, meter_provider)
        gauge, counter = meter.create_observable_gauge, meter.create_observable_counter
        gauge("otel_amplitude.worker.lag", [self._read(_lag)], "{record}", "Records behind the offset that may be committed.")
        gauge("otel_amplitude.worker.pending", [self._read(_pending)], "{record}", "Records taken and not settled.")
        gauge("otel_amplitude.worker.partitions", [self._read(_partitions)], "{partition}", "Assigned partitions, by state.")
        counter("otel_amplitude.worker.records", [self._read(_records)], "{record}", "Records, by what became of them.")
        counter("otel_amplitude.worker.commits", [self._read(_commits)], "{commit}", "Commits, the failed ones by error.")

    def _read(self, read: Callable[[Snapshot], _Reading]) -> Callable[[CallbackOptions], Iterator[Observation]]:
        def observe(_options: CallbackOptions) -> Iterator[Observation]:
            for count, labels in read(self._snapshot()):
                yield Observation(count, {**self._common, **labels})

        return observe


def _lag(now: Snapshot) -> _Reading:
    return [(lag, {_TOPIC: topic, _PARTITION: str(partition)}) for (topic, partition), lag in now.lag.items()]


def _pending(now: Snapshot) -> _Reading:
    return [(now.pending, {})]


def _partitions(now: Snapshot) -> _Reading:
    return [(now.partitions - now.paused, {"state": "reading"}), (now.paused, {"state": "paused"})]


def _records(now: Snapshot) -> _Reading:
    ends = [("taken", now.taken), ("settled", now.settled), ("gone", now.gone), ("unwritten", now.unwritten)]
    yield from ((count, {"outcome": outcome}) for outcome, count in ends)
    yield from ((count, {"outcome": "dead", "error.type": reason}) for reason, count in now.dead.items())


def _commits(now: Snapshot) -> _Reading:
    yield now.commits, {}
    yield from ((count, {"error.type": name}) for name, count in now.commit_failures.items())
