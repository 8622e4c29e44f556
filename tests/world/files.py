"""Small telemetry for the tests of files: spans of one shop, requests of OTLP, and `convert` as a function."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from otel_amplitude.cli import main

TRACE = "af7651916cd43dd8448eb211c80319c1"
START = 1_795_305_600_000_000_000
USER = "user-1234"
REQUEST = {
    "http.request.method": "GET",
    "http.route": "/a",
    "http.response.status_code": {"intValue": "200"},
    "user.id": USER,
}
PAID = {"amplitude.event_type": "Order Paid"}


def pairs(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": value if isinstance(value, dict) else {"stringValue": value}} for name, value in attributes.items()]


def span(number: int, parent: int | None = None, trace: str = TRACE, **attributes: Any) -> dict[str, Any]:
    """A request without a parent; inner work with one."""
    made = {"traceId": trace, "spanId": f"{number:016x}", "name": "x", "kind": 1 if parent else 2, "attributes": pairs(attributes)}
    made |= {"startTimeUnixNano": str(START), "endTimeUnixNano": str(START + 100_000_000)}
    return made | ({"parentSpanId": f"{parent:016x}"} if parent else {})


def spans(*members: dict[str, Any]) -> dict[str, Any]:
    return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": list(members)}]}]}


def record(span_id: int | None = None, **attributes: Any) -> dict[str, Any]:
    made = {"timeUnixNano": str(START), "eventName": "coupon.used", "attributes": pairs(attributes)}
    return made | ({"traceId": TRACE, "spanId": f"{span_id:016x}"} if span_id else {})


def logs(*members: dict[str, Any]) -> dict[str, Any]:
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": list(members)}]}]}


class Converted(NamedTuple):
    """How `convert` ended."""

    events: list[dict[str, Any]]
    code: int
    told: str

    @property
    def users(self) -> list[tuple[str, str | None]]:
        """Type and user of each event, in order."""
        return [(event["event_type"], event.get("user_id")) for event in self.events]


def convert(*words: Path | str | bytes) -> Converted:
    """Run `otel-amplitude convert`; bytes are standard input."""
    given = next((word for word in words if isinstance(word, bytes)), b"")
    out, err, stdin = io.TextIOWrapper(io.BytesIO()), io.StringIO(), io.TextIOWrapper(io.BytesIO(given))
    with mock.patch.object(sys, "stdin", stdin), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["convert", *("-" if isinstance(word, bytes) else str(word) for word in words)])
    out.seek(0)
    return Converted([json.loads(line) for line in out], code, err.getvalue())


def write(path: Path, *documents: Any) -> Path:
    """A file of documents, one a line; bytes as they are."""
    parts = [each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n" for each in documents]
    path.write_bytes(b"".join(parts))
    return path
