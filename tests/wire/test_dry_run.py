"""A dry run takes everything, sends nothing, and may leave a file for the catalog."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest

from otel_amplitude.client import Amplitude
from otel_amplitude.config import Config
from otel_amplitude.errors import TransportError
from otel_amplitude.transport import Request
from otel_amplitude.wire._dry_run import DryRunTransport


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_events_and_books_in_a_file(tmp_path: Path) -> None:
    """Each event is one line, and the books are the last one: what was accepted, and what was refused for which reason."""
    path = tmp_path / "events.jsonl"
    client = Amplitude(Config("0123456789abcdef", dry_run=str(path), log_level="NONE"))
    client.log_event({"event_type": "Order Paid", "user_id": "u-12345"})
    client.log_event({"event_type": "Order Paid", "user_id": "x"})
    assert client.shutdown()
    event, books = lines(path)
    assert (event["event_type"], books["$books"]["accepted"], books["$books"]["acknowledged"]) == ("Order Paid", 1, 1)
    assert sum(books["$books"]["refused"].values()) == 1
    assert path.stat().st_mode & 0o777 == 0o600


def test_nothing_happened(tmp_path: Path) -> None:
    """A process without events leaves no file."""
    client = Amplitude(Config("0123456789abcdef", dry_run=str(tmp_path / "events.jsonl"), log_level="NONE"))
    assert client.shutdown()
    assert not (tmp_path / "events.jsonl").exists()


def test_without_a_file() -> None:
    """`true` keeps nothing."""
    client = Amplitude(Config("0123456789abcdef", dry_run=True, log_level="NONE"))
    assert client.log_event({"event_type": "Order Paid", "user_id": "u-12345"}, timeout=5).outcome == "acknowledged"
    assert client.shutdown()


def test_a_file_that_can_not_be_written(tmp_path: Path) -> None:
    """It counts as an outage, which is tried again; the books are no reason to fail."""
    transport = DryRunTransport(str(tmp_path / "missing" / "events.jsonl"))
    with pytest.raises(TransportError, match="can not write"):
        transport.send(Request("https://example.com", {}, b'{"events":[{}]}', 1.0))
    client = Amplitude(Config("0123456789abcdef", dry_run=str(tmp_path / "missing" / "e"), log_level="NONE", retry_timeouts=[]))
    client.log_event({"event_type": "Order Paid", "user_id": "u-12345"})
    client.shutdown(timeout=1)


def test_a_disk_that_runs_full_half_way(tmp_path: Path) -> None:
    """What was written in part is not taken; tried again, it does not stand in the line that was torn."""
    path = tmp_path / "events.jsonl"
    transport = DryRunTransport(str(path))
    events = [{"n": number, "text": "x" * 50} for number in range(30)]
    request = Request("https://example.com", {}, json.dumps({"events": events}).encode(), 1.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        with pytest.raises(TransportError, match="can not write"):
            transport.send(request)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.stat().st_size == 1_000
    assert transport.send(request).status == 200
    assert [json.loads(line) for line in path.read_text().splitlines()[-30:]] == events
