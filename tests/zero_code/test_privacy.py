"""Forty secrets wherever a request can carry them: none travels, none is kept, none is logged; and nothing of ours is on a trace."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from zero_code.running import KEY, Program, ended, environment, sandboxed, tool

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(120)]

FRAMEWORKS = pytest.mark.parametrize("framework", ["flask", "fastapi"])
EVENTS = {"HTTP Request", "Order Paid", "Signed Up", "Seat Added", "Import Failed"}
SECRETS = ("s3cret", "203.0.113.99")
_EVERYTHING = {
    "OTEL_LOGS_EXPORTER": "amplitude",
    "OTEL_EXPORTER_AMPLITUDE_LOG_LEVEL": "VERBOSE",
    "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST": ".*",
}


def command(framework: str) -> list[str]:
    """The shop that handles secrets."""
    return [tool("opentelemetry-instrument"), tool("python"), "secret_shop.py", framework]


def places(program: Program) -> list[str]:
    """Where the shop has put a secret."""
    found = re.findall(r"^places (.*)$", program.output, re.MULTILINE)
    assert found, program.output
    return found[0].split(",")


@FRAMEWORKS
def test_no_secret_travels_or_is_logged(framework: str) -> None:
    """All headers are captured on spans, and VERBOSE is on: no request and no line of ours has one of them."""
    with sandboxed() as sandbox, ended(command(framework), environment(sandbox.url, **_EVERYTHING)) as program:
        assert len(places(program)) >= 40
        events = sandbox.events()
        assert {event["event_type"] for event in events} == EVENTS
        assert {(event["user_id"], event["device_id"]) for event in events} == {("customer-1", "browser-1-device")}
        assert "batch.acknowledged" in program.output
        for hidden in SECRETS:
            assert hidden not in str(events)
            assert hidden not in str(sandbox.requests)
            assert hidden not in program.output
        assert KEY not in program.output


@FRAMEWORKS
def test_no_secret_is_kept_on_disk(framework: str, tmp_path: Path) -> None:
    """With a server that is away, the spool keeps the events, without a secret and without the key."""
    variables = {
        "OTEL_EXPORTER_AMPLITUDE_SPOOL_DIR": str(tmp_path / "spool"),
        "OTEL_EXPORTER_AMPLITUDE_SHUTDOWN_TIMEOUT": "1",  # there is nobody to wait for
    }
    with ended(command(framework), environment("http://127.0.0.1:9", **_EVERYTHING, **variables)) as program:
        kept = b"".join(file.read_bytes() for file in (tmp_path / "spool").rglob("*") if file.is_file())
        assert all(f'"{name}"'.encode() in kept for name in EVENTS), program.output
        for hidden in (*SECRETS, KEY):
            assert hidden.encode() not in kept
            assert hidden not in program.output


@FRAMEWORKS
def test_another_exporter_sees_nothing_of_ours(framework: str) -> None:
    """The console exporter shows the spans with most of the secrets on them, and no word about who acts."""
    variables = {"OTEL_TRACES_EXPORTER": "amplitude,console", "OTEL_LOGS_EXPORTER": "amplitude,console"}
    with sandboxed() as sandbox, ended(command(framework), environment(sandbox.url, **variables)) as program:
        assert {event["event_type"] for event in sandbox.events()} == EVENTS
        assert sum(f"s3cret-{place.replace('.', '-')}" in program.output for place in places(program)) > 30
        for ours in ("browser-1-device", "customer-1", "AMP_0123456789", "1700000000000", KEY):
            assert ours not in program.output
