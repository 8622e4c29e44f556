"""The books as OpenTelemetry metrics."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_amplitude.delivery.books import Pending, Stats
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.errors import TransportError
from otel_amplitude.telemetry._metrics import SWITCH, MetricsObserver, metrics_observers
from otel_amplitude.testing._transport import answer
from otel_amplitude.wire._answers import read_receipt

URL = "https://api2.amplitude.com/2/httpapi"
PARCELS = [Parcel(b"{}", ("user-a",), 0)] * 3


class Books:
    """Whoever has the books."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = Stats(
            accepted=100,
            acknowledged=60,
            rejected={"invalid": 4, "quota": 1},
            dropped={"expired": 5},
            refused={"queue_full": 3, "closed": 2},
            pending=Pending(queued=10, held=8, in_flight=9, spooled=3),
        )

    def stats(self) -> Stats:
        with self.lock:
            return self.now


class Meters:
    """A provider whose metrics can be read at any time."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)

    def read(self) -> dict[str, list]:
        data = self.reader.get_metrics_data()
        found: dict[str, list] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                assert scope.scope.name == "otel_amplitude"
                for metric in scope.metrics:
                    found.setdefault(metric.name, []).extend((metric.unit, point) for point in metric.data.data_points)
        return found

    def values(self, name: str) -> dict[str | None, int]:
        """By `error.type`."""
        return {point.attributes.get("error.type"): point.value for _, point in self.read()[name]}


@pytest.fixture
def meters() -> Meters:
    """Meters nobody else uses."""
    return Meters()


def observe(meters: Meters, books: Books) -> MetricsObserver:
    """An observer of these books."""
    return MetricsObserver(books.stats, endpoint=URL, capacity=16_000, meter_provider=meters.provider)


def test_the_books_under_the_names_of_opentelemetry(meters: Meters) -> None:
    """Acknowledged without `error.type`, everything else under its reason."""
    books = Books()
    observe(meters, books)
    assert meters.values("otel.sdk.exporter.span.exported") == {None: 60, "invalid": 4, "quota": 1, "expired": 5}
    assert meters.values("otel.sdk.exporter.span.inflight") == {None: 30}
    assert meters.values("otel.sdk.processor.span.processed") == {None: 100, "queue_full": 3, "already_shutdown": 2}
    assert meters.values("otel.sdk.processor.span.queue.size") == {None: 18}
    assert meters.values("otel.sdk.processor.span.queue.capacity") == {None: 16_000}


def test_metrics_follow_the_books(meters: Meters) -> None:
    """Each reading asks anew."""
    books = Books()
    observe(meters, books)
    meters.read()
    books.now = Stats(accepted=101, acknowledged=101)
    assert meters.values("otel.sdk.exporter.span.exported") == {None: 101}


def test_component_and_server_are_named(meters: Meters) -> None:
    """Each client is a component of its own, never a UUID."""
    books = Books()
    first, second = observe(meters, books), observe(meters, books)
    assert first is not second
    points = [point.attributes for _, point in meters.read()["otel.sdk.exporter.span.inflight"]]
    assert {each["otel.component.type"] for each in points} == {"otel_amplitude.exporter.AmplitudeExporter"}
    assert len({each["otel.component.name"] for each in points}) == 2
    assert all(each["otel.component.name"].rpartition("/")[2].isdigit() for each in points)
    assert {(each["server.address"], each["server.port"]) for each in points} == {("api2.amplitude.com", 443)}


def test_clients_made_before_the_provider_are_counted_once_it_is_set() -> None:
    """The usual order: our client first, the application's meter provider later; and no warning about instruments made twice."""
    code = """
import logging, sys
logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from otel_amplitude.delivery.books import Stats
from otel_amplitude.telemetry._metrics import MetricsObserver
class Books:
    def __init__(self, accepted): self.accepted = accepted
    def stats(self): return Stats(accepted=self.accepted)
books = [Books(1), Books(2)]
told = [MetricsObserver(each.stats, endpoint="https://a.example/", capacity=1) for each in books]
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader], shutdown_on_exit=False))
books.append(Books(3))
told.append(MetricsObserver(books[-1].stats, endpoint="https://a.example/", capacity=1))
[resource] = reader.get_metrics_data().resource_metrics
[scope] = resource.scope_metrics
print(sorted(point.value for metric in scope.metrics if metric.name.endswith("processed") for point in metric.data.data_points))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[1, 2, 3]", "")


def test_the_duration_of_each_request(meters: Meters) -> None:
    """One observation each, without buckets; a failure says why."""
    books = Books()
    told = observe(meters, books)
    for response in (answer(200), answer(503), TransportError("reset")):
        told.settled(PARCELS, read_receipt(response, PARCELS), 0.25)
    points = meters.read()["otel.sdk.exporter.operation.duration"]
    assert {unit for unit, _ in points} == {"s"}
    found = {
        (point.attributes.get("http.response.status_code"), point.attributes.get("error.type")): (
            point.count,
            point.sum,
            point.bucket_counts,
        )
        for _, point in points
    }
    assert found == {
        (200, None): (1, 0.25, (1,)),
        (503, "server_error"): (1, 0.25, (1,)),
        (None, "unreachable"): (1, 0.25, (1,)),
    }


def test_a_client_that_is_gone_is_not_kept(meters: Meters) -> None:
    """The meter provider outlives clients."""
    books = Books()
    told = observe(meters, books)
    assert meters.values("otel.sdk.exporter.span.inflight") == {None: 30}
    del books
    gc.collect()
    assert "otel.sdk.exporter.span.inflight" not in meters.read()
    told.settled(PARCELS, read_receipt(answer(200), PARCELS), 0.1)


@pytest.mark.parametrize(("value", "count"), [("true", 1), (" TRUE ", 1), ("false", 0), ("1", 0), ("", 0), (None, 0)])
def test_the_switch_is_opentelemetrys(monkeypatch: pytest.MonkeyPatch, value: str | None, count: int) -> None:
    """Off unless the SDK's own metrics are on."""
    monkeypatch.delenv(SWITCH, raising=False)
    if value is not None:
        monkeypatch.setenv(SWITCH, value)
    assert len(metrics_observers(Books().stats, endpoint=URL, capacity=1)) == count


def test_the_switch_is_the_one_the_sdk_reads() -> None:
    """The name is theirs; SDKs before 1.44 or so did not have it yet."""
    from opentelemetry.sdk import environment_variables

    declared = [value for name, value in vars(environment_variables).items() if name.startswith("OTEL_PYTHON_SDK_INTERNAL_METRICS")]
    assert declared in ([], [SWITCH])


def test_a_port_is_taken_from_the_endpoint(meters: Meters) -> None:
    """A sandbox has another one."""
    books = Books()
    MetricsObserver(books.stats, endpoint="http://127.0.0.1:8123/2/httpapi", capacity=1, meter_provider=meters.provider)
    [(_, point)] = meters.read()["otel.sdk.exporter.span.inflight"]
    assert (point.attributes["server.address"], point.attributes["server.port"]) == ("127.0.0.1", 8123)
