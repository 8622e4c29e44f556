"""The books as OpenTelemetry metrics, under the names that OpenTelemetry gave to every exporter."""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter

from otel_amplitude._version import __version__
from otel_amplitude.delivery.books import Stats
from otel_amplitude.delivery.observer import Observer
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.receipt import Receipt

SWITCH: Final = "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED"
_COMPONENT: Final = "otel_amplitude.exporter.AmplitudeExporter"
_PORTS: Final = {"https": 443, "http": 80}
_numbers = itertools.count()

# What each metric reads in the books: pairs of `error.type` (None when all is well) and count.
# (https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/; one name for all, since an event is an event wherever it came from)
_Reading = Iterable[tuple[str | None, int]]


def _exported(stats: Stats) -> _Reading:
    return [(None, stats.acknowledged), *stats.rejected.items(), *stats.dropped.items()]


def _processed(stats: Stats) -> _Reading:
    return [(None, stats.accepted), *((_PROCESSOR_WORDS.get(reason, reason), count) for reason, count in stats.refused.items())]


def _inflight(stats: Stats) -> _Reading:
    return [(None, stats.pending.total)]


def _queue_size(stats: Stats) -> _Reading:
    return [(None, stats.pending.queued + stats.pending.held)]


# "If a processor reports a span dropped because it has already been shut down, `error.type` MUST be `already_shutdown`."
_PROCESSOR_WORDS: Final = {"closed": "already_shutdown"}


class _Instruments:
    """The instruments of one meter provider, which all clients share: of two equal observable ones the SDK reads only the first."""

    def __init__(self, meter_provider: MeterProvider | None) -> None:
        self.members: dict[int, MetricsObserver] = {}
        meter = get_meter("otel_amplitude", __version__, meter_provider)
        up_down, counter = meter.create_observable_up_down_counter, meter.create_observable_counter
        up_down("otel.sdk.exporter.span.inflight", [self._reader(_inflight, server=True)], "{span}")
        counter("otel.sdk.exporter.span.exported", [self._reader(_exported, server=True)], "{span}")
        counter("otel.sdk.processor.span.processed", [self._reader(_processed)], "{span}")
        up_down("otel.sdk.processor.span.queue.size", [self._reader(_queue_size)], "{span}")
        up_down("otel.sdk.processor.span.queue.capacity", [self._capacity], "{span}")
        self.duration = meter.create_histogram("otel.sdk.exporter.operation.duration", "s", explicit_bucket_boundaries_advisory=[])

    def _living(self) -> Iterator[tuple[MetricsObserver, Stats]]:
        for number, member in list(self.members.items()):
            stats = member.stats()
            if stats is None:
                self.members.pop(number, None)
            else:
                yield member, stats()

    def _reader(self, read: Callable[[Stats], _Reading], *, server: bool = False) -> Callable[[CallbackOptions], Iterator[Observation]]:
        def observe(_options: CallbackOptions) -> Iterator[Observation]:
            for member, stats in self._living():
                attributes = member.server if server else member.component
                for error, count in read(stats):
                    yield Observation(count, attributes if error is None else {**attributes, "error.type": error})

        return observe

    def _capacity(self, _options: CallbackOptions) -> Iterator[Observation]:
        for member, _ in self._living():
            yield Observation(member.capacity, member.component)


_instruments: weakref.WeakKeyDictionary[object, _Instruments] = weakref.WeakKeyDictionary()


class MetricsObserver(Observer):
    """Gives the books of one client, and the duration of each request, to metric readers.

    Counts are read from `stats()` when a reader asks, on its thread: nothing is added to the way of an event, and metrics
    and books can not differ. Every event counts as a span, whether it came from a span, a log record or `log_event`.
    Keeps only a weak reference to the client.
    """

    def __init__(self, stats: Callable[[], Stats], *, endpoint: str, capacity: int, meter_provider: MeterProvider | None = None) -> None:
        """Join the instruments of the meter provider.

        Args:
            stats: the bound method that gives the books.
            endpoint: the URL events are sent to.
            capacity: the most events that memory may hold.
            meter_provider: by default the global one, also when it is set later.
        """
        self.stats = weakref.WeakMethod(stats)
        self.capacity = capacity
        url, number = urlsplit(endpoint), next(_numbers)
        self.component: dict[str, str | int] = {"otel.component.type": _COMPONENT, "otel.component.name": f"{_COMPONENT}/{number}"}
        self.server = {**self.component, "server.address": url.hostname or "", "server.port": url.port or _PORTS[url.scheme]}
        key = meter_provider or get_meter  # the global one, which may be set later, is known by the function that finds it
        if key not in _instruments:
            _instruments[key] = _Instruments(meter_provider)
        self._shared = _instruments[key]
        self._shared.members[number] = self

    def settled(self, batch: Sequence[Parcel], receipt: Receipt, seconds: float) -> None:  # noqa: ARG002 -- the observer's signature
        """Record how long one request took; `error.type` says why it was none that all events survived."""
        facts = {**self.server}
        if receipt.status is not None:
            facts["http.response.status_code"] = receipt.status
        if receipt.reason != "acknowledged":
            facts["error.type"] = receipt.reason
        self._shared.duration.record(seconds, facts)


def metrics_observers(stats: Callable[[], Stats], *, endpoint: str, capacity: int) -> tuple[Observer, ...]:
    """Give the observer that makes metrics where OpenTelemetry's own switch is on, else none; arguments as there."""
    if os.environ.get(SWITCH, "").strip().lower() != "true":
        return ()
    return (MetricsObserver(stats, endpoint=endpoint, capacity=capacity),)
