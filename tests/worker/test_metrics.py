"""Lag and counters as OpenTelemetry metrics."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_amplitude.worker.loop import Snapshot
from otel_amplitude.worker.metrics import WorkerMetrics


def read(reader: InMemoryMetricReader) -> dict[str, dict[frozenset[tuple[str, Any]], int]]:
    data = reader.get_metrics_data()
    assert data is not None
    (scope,) = data.resource_metrics[0].scope_metrics
    return {
        metric.name: {frozenset(point.attributes.items()): point.value for point in metric.data.data_points} for metric in scope.metrics
    }


def test_what_a_worker_did_is_read_when_a_reader_asks() -> None:
    """Lag by partition, records by their end, commits by their error."""
    reader = InMemoryMetricReader()
    now = Snapshot(
        taken=10,
        settled=8,
        dead={"invalid": 2},
        gone=1,
        commits=4,
        commit_failures={"illegal_generation": 3},
        pending=2,
        partitions=3,
        paused=1,
        lag={("amplitude_events", 0): 7, ("amplitude_events", 1): 0},
    )
    metrics = WorkerMetrics(lambda: now, "g", MeterProvider([reader]))
    found = read(reader)
    common = {("messaging.system", "kafka"), ("messaging.consumer.group.name", "g")}
    place = {("messaging.destination.name", "amplitude_events")}
    assert found["otel_amplitude.worker.lag"] == {
        frozenset({*common, *place, ("messaging.destination.partition.id", "0")}): 7,
        frozenset({*common, *place, ("messaging.destination.partition.id", "1")}): 0,
    }
    assert found["otel_amplitude.worker.pending"] == {frozenset(common): 2}
    assert found["otel_amplitude.worker.partitions"] == {
        frozenset({*common, ("state", "reading")}): 2,
        frozenset({*common, ("state", "paused")}): 1,
    }
    assert found["otel_amplitude.worker.commits"] == {frozenset(common): 4, frozenset({*common, ("error.type", "illegal_generation")}): 3}
    records = found["otel_amplitude.worker.records"]
    assert records[frozenset({*common, ("outcome", "taken")})] == 10
    assert records[frozenset({*common, ("outcome", "dead"), ("error.type", "invalid")})] == 2
    now = Snapshot(taken=11)
    assert read(reader)["otel_amplitude.worker.records"][frozenset({*common, ("outcome", "taken")})] == 11
    assert metrics is not None
