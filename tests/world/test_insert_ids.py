"""What is recorded once counts once, and what is recorded twice counts twice, whatever made the ids and whichever way it came."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

from cli.trial import NOW_MS, lines, otlp, otlp_span
from opentelemetry.sdk.trace import TracerProvider
from world import fresh

from otel_amplitude import Amplitude, AmplitudeSpanProcessor, Config
from otel_amplitude.cli import main
from otel_amplitude.testing import FakeTransport

KEY = "0" * 32


def converted(capsys: Any, path: Path) -> list[dict[str, Any]]:
    """The events of a file."""
    capsys.readouterr()
    assert main(["convert", str(path)]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def log_line(number: int, **changes: Any) -> dict[str, Any]:
    """A line of a log file as the Collector's filelog receiver hands it on, without a time of its own."""
    attributes = {"user.id": "user-1234", "log.file.name": "shop.log", "order": f"o-{number}", **changes.pop("attributes", {})}
    record = {
        "observedTimeUnixNano": str(NOW_MS * 1_000_000),
        "eventName": "Order Paid",
        "attributes": [{"key": name, "value": {"stringValue": value}} for name, value in attributes.items() if value is not None],
        **changes,
    }
    return {"resourceLogs": [{"scopeLogs": [{"scope": {"name": "shop"}, "logRecords": [record]}]}]}


def test_an_application_that_seeds_random_repeats_no_insert_id() -> None:
    """open-telemetry/opentelemetry-python#2974, #4376, openinference#1009, pydantic/logfire#437: trace and span ids repeat with the seed."""
    fresh.run("""if True:
        import random
        import otel_amplitude
        from opentelemetry import trace
        from otel_amplitude.sandbox import Sandbox

        with Sandbox() as sandbox:
            client = otel_amplitude.configure("0" * 32, server_url=f"{sandbox.url}/2/httpapi", log_level="ERROR")
            for number in range(3):
                random.seed(42)
                with trace.get_tracer("ml").start_as_current_span("recommend") as span:
                    span.set_attributes({"amplitude.event_type": "Recommended", "amplitude.user_id": "user-1234", "number": number})
            assert client.flush(10)
            assert [event["event_properties"]["number"] for event in sandbox.events()] == [0, 1, 2]
            assert len({event["event_properties"]["trace_id"] for event in sandbox.events()}) == 1
            assert client.shutdown(5)
    """)


def test_the_span_events_of_spans_with_repeated_ids_differ_too() -> None:
    """open-telemetry/opentelemetry-python#2974: what hangs on a span is told apart as the span is."""
    sent = FakeTransport()
    provider = TracerProvider(shutdown_on_exit=False)
    processor = AmplitudeSpanProcessor(Amplitude(Config(KEY, transport=sent, span_events=True)))
    provider.add_span_processor(processor)
    state = random.getstate()
    try:
        for _ in range(2):
            random.seed(42)
            with provider.get_tracer("ml").start_as_current_span("train") as span:
                span.add_event("epoch", {"amplitude.event_type": "Epoch Done", "amplitude.user_id": "user-1234"})
                span.add_event("epoch", {"amplitude.event_type": "Epoch Done", "amplitude.user_id": "user-1234"})
    finally:
        random.setstate(state)
    assert provider.force_flush(10_000)
    assert len({event["insert_id"] for event in sent.events}) == len(sent.events) == 4
    provider.shutdown()


def test_a_log_file_that_is_read_again_counts_once(tmp_path: Path, capsys: Any) -> None:
    """open-telemetry/opentelemetry-collector-contrib#2947, #17274: filelog without a storage reads all lines again after a restart."""
    again = str((NOW_MS + 3_600_000) * 1_000_000)
    read_twice = [log_line(number, **more) for more in ({}, {"observedTimeUnixNano": again}) for number in range(3)]
    events = converted(capsys, lines(tmp_path / "logs.jsonl", *read_twice))
    assert len(events) == 6
    assert len({event["insert_id"] for event in events}) == 3


def test_a_record_with_a_time_of_its_own_is_the_same_whenever_it_is_observed(tmp_path: Path, capsys: Any) -> None:
    """open-telemetry/opentelemetry-collector-contrib#17274: a time that was parsed out of the line says more than when it was read."""
    when = str(NOW_MS * 1_000_000)
    copies = [
        log_line(1, timeUnixNano=when, observedTimeUnixNano=observed, attributes={"log.file.name": None}) for observed in (when, when + "9")
    ]
    first, second = converted(capsys, lines(tmp_path / "logs.jsonl", *copies))
    assert first["insert_id"] == second["insert_id"]


def test_records_without_any_time_but_the_observed_one_stay_apart(tmp_path: Path, capsys: Any) -> None:
    """Logs data model: `Timestamp` is optional, then the SDK's observed time is all there is, and the same event may happen twice."""
    copies = [log_line(1, observedTimeUnixNano=str(NOW_MS * 1_000_000 + more), attributes={"log.file.name": None}) for more in range(2)]
    first, second = converted(capsys, lines(tmp_path / "logs.jsonl", *copies))
    assert first["insert_id"] != second["insert_id"]


def test_a_uid_of_a_record_is_its_identity(tmp_path: Path, capsys: Any) -> None:
    """Semantic conventions, `log.record.uid`: records with one uid are duplicates; a pipeline may have changed the rest."""
    uid = {"log.record.uid": "01ARZ3NDEKTSV4RRFFQ69G5FAV"}
    copies = [log_line(1, attributes=uid), log_line(1, attributes={**uid, "added.by.a.collector": "yes"}), log_line(1)]
    ids = [event["insert_id"] for event in converted(capsys, lines(tmp_path / "logs.jsonl", *copies))]
    assert ids[0] == ids[1] != ids[2]


def test_a_store_that_keeps_microseconds_makes_other_insert_ids(tmp_path: Path, capsys: Any) -> None:
    """census-instrumentation/opencensus-go#414: Jaeger keeps microseconds; the help of convert says what follows."""
    start = NOW_MS * 1_000_000 + 123_456_789
    spans = [otlp_span(1, startTimeUnixNano=str(moment)) for moment in (start, start, start // 1_000 * 1_000)]
    recorded, repeated, stored = converted(capsys, lines(tmp_path / "spans.jsonl", *map(otlp, spans)))
    assert recorded["insert_id"] == repeated["insert_id"] != stored["insert_id"]
    assert recorded["time"] == stored["time"]
    with contextlib.suppress(SystemExit):
        main(["convert", "--help"])
    assert "microseconds" in " ".join(capsys.readouterr().out.split())
