"""What the tests of commands work on: events, OTLP lines, files, spools."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from spool_tools import make

from otel_amplitude.delivery.disk.spool import fingerprint

KEY = "0123456789abcdef0123456789abcdef"
NOW_MS = 1_790_000_000_000


def event(number: int = 0, **changes: Any) -> dict[str, Any]:
    """An automatic event of one of three users, one a second."""
    return {
        "event_type": "HTTP Request",
        "user_id": f"customer-{number % 3}",
        "time": NOW_MS + number * 1_000,
        "insert_id": f"{number + 1:032x}{number + 1:016x}",
        "event_properties": {"method": "POST", "route": "/orders", "status_code": 201, "trace_id": f"{number + 1:032x}"},
        **changes,
    }


def by_user(events: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """The insert_ids of each user's events, in order: what order is promised for; different users' may travel side by side."""
    found: dict[str, list[str]] = {}
    for item in events:
        found.setdefault(item["user_id"], []).append(item["insert_id"])
    return found


def lines(path: Path, *items: Any) -> Path:
    """A file of lines; texts as they are, everything else as JSON."""
    path.write_text("".join((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in items))
    return path


def otlp_span(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A request to /orders of a known user."""
    attributes = {
        "http.request.method": "POST",
        "http.route": "/orders",
        "http.response.status_code": 201,
        "user.id": f"customer-{number % 3}",
    }
    attributes |= changes.pop("attributes", {})
    return {
        "traceId": f"{number:032x}",
        "spanId": f"{number:016x}",
        "name": "POST /orders",
        "kind": 2,
        "startTimeUnixNano": str((NOW_MS + number * 1_000) * 1_000_000),
        "endTimeUnixNano": str((NOW_MS + number * 1_000 + 25) * 1_000_000),
        "attributes": [
            {"key": name, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
            for name, value in attributes.items()
        ],
        **changes,
    }


def otlp(*spans: dict[str, Any]) -> dict[str, Any]:
    """One request of the Collector's file exporter."""
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "shop"}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "flask"}, "spans": list(spans)}]}]}


def otlp_log(name: str, **attributes: str) -> dict[str, Any]:
    """One log record with an event name."""
    pairs = [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()]
    record = {"timeUnixNano": str(NOW_MS * 1_000_000), "eventName": name, "attributes": pairs}
    return {"resourceLogs": [{"scopeLogs": [{"scope": {"name": "shop"}, "logRecords": [record]}]}]}


def spool(directory: Path, *events: dict[str, Any], url: str = "https://api2.amplitude.com/2/httpapi", now_ms: int | None = None) -> Path:
    """A spool that an ended process left."""
    import time

    made = make(directory, fingerprint=fingerprint(url, KEY))
    for item in events:
        assert made.append(json.dumps(item).encode(), now_ms or int(time.time() * 1000)) is None
    made.abandon_after_fork()
    return directory
