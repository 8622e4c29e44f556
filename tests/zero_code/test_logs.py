"""Log records as events: by the standard library, by structlog, by OpenTelemetry's API; and no feedback from our own lines."""

from __future__ import annotations

import pytest
from zero_code.running import ended, environment, sandboxed, tool

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(120)]


@pytest.mark.parametrize("traces", ["amplitude", "none"])
def test_log_records_with_a_name_are_events(traces: str) -> None:
    """Three ways to log give three events of the visitor; lines without a name, and names of OpenTelemetry's own, give none."""
    with (
        sandboxed() as sandbox,
        ended(
            [tool("opentelemetry-instrument"), tool("python"), "logging_shop.py"],
            environment(
                sandbox.url, OTEL_TRACES_EXPORTER=traces, OTEL_LOGS_EXPORTER="amplitude", OTEL_EXPORTER_AMPLITUDE_LOG_LEVEL="VERBOSE"
            ),
        ) as program,
    ):
        events = {event["event_type"]: event for event in sandbox.events()}
        assert set(events) == {"Signed Up", "Trial Started", "Seat Added"} | ({"HTTP Request"} if traces == "amplitude" else set()), (
            program.output
        )
        assert all(
            (event["user_id"], event["device_id"], event["session_id"]) == ("customer-1", "browser-1-device", 1_700_000_000_000)
            for event in events.values()
        )
        assert events["Signed Up"]["event_properties"]["plan"] == "pro"
        assert events["Trial Started"]["event_properties"]["days"] == 14
        assert events["Seat Added"]["event_properties"]["seats"] == 3
        assert "s3cret" not in str(sandbox.requests)
        assert "refused=no_identity:1" in program.output
        assert "batch.acknowledged" in program.output, "our own lines must have reached the handlers"
        assert "flushed [True, True, True, True] more 0 soon True" in program.output, program.output
