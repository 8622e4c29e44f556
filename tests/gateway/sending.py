"""Requests of OTLP in both encodings, a gateway in this process, and plain sockets and connections to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson
from convert.recorded import PAGE
from convert.test_otlp_json import encode_map
from convert.test_otlp_protobuf import to_protobuf
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from otel_amplitude.client import Amplitude
from otel_amplitude.clock import wall
from otel_amplitude.config import Config
from otel_amplitude.gateway.answers import JSON, PROTOBUF
from otel_amplitude.gateway.exporter import GatewayExporter
from otel_amplitude.gateway.intake import Intake, Rules
from otel_amplitude.gateway.server import Server
from otel_amplitude.testing import FakeTransport

KEY = "0123456789abcdef0123456789abcdef"
KINDS = {"INTERNAL": 1, "SERVER": 2, "CLIENT": 3}
ALICE = {"user.id": "alice-1"}
REQUEST = {**PAGE, **ALICE}
ANNOTATED = {"amplitude.event_type": "Order Paid", **ALICE}
TYPES = [JSON, PROTOBUF]


def until(holds: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


def span(
    attributes: Mapping[str, Any], *, trace: int = 1, id: int = 1, parent: int = 0, is_remote: bool = False, kind: str = "SERVER"
) -> dict[str, Any]:
    """A span of OTLP in JSON."""
    now = int(wall() * 1e9)
    return {
        "traceId": f"{trace:032x}",
        "spanId": f"{id:016x}",
        "parentSpanId": f"{parent:016x}" if parent else "",
        "flags": 0x100 | (0x200 if is_remote else 0),
        "name": "a span",
        "kind": KINDS[kind],
        "startTimeUnixNano": str(now),
        "endTimeUnixNano": str(now + 1_000_000),
        "attributes": encode_map(attributes),
    }


def record(attributes: Mapping[str, Any], *, trace: int = 0, name: str = "") -> dict[str, Any]:
    """A log record of OTLP in JSON."""
    return {
        "timeUnixNano": str(int(wall() * 1e9)),
        "eventName": name,
        "attributes": encode_map(attributes),
        "traceId": f"{trace:032x}" if trace else "",
    }


def traces(*spans: dict[str, Any], service: str = "shop", **resource: Any) -> dict[str, Any]:
    """A request for spans."""
    about = {"resource": {"attributes": encode_map({"service.name": service, **resource})}}
    return {"resourceSpans": [{**about, "scopeSpans": [{"scope": {"name": "http"}, "spans": list(spans)}]}]}


def logs(*records: dict[str, Any], service: str = "shop") -> dict[str, Any]:
    """A request for log records."""
    about = {"resource": {"attributes": encode_map({"service.name": service})}}
    return {"resourceLogs": [{**about, "scopeLogs": [{"scope": {"name": "login"}, "logRecords": list(records)}]}]}


def encoded(document: dict[str, Any], content_type: str) -> bytes:
    """A request as bytes."""
    return orjson.dumps(document) if content_type == JSON else to_protobuf(json.dumps(document))


class Answered(NamedTuple):
    """An answer as it was received."""

    status: int
    headers: dict[str, str]
    body: bytes

    def said(self, path: str = "/v1/traces") -> tuple[int, str]:
        """How many items were rejected, and the message; of an error, 0 and its message."""
        is_json = self.headers["content-type"] == JSON
        if self.status != 200:
            return 0, json.loads(self.body)["message"] if is_json else Status.FromString(self.body).message
        name = "rejectedSpans" if path == "/v1/traces" else "rejectedLogRecords"
        if is_json:
            partial = json.loads(self.body).get("partialSuccess", {})
            return int(partial.get(name, 0)), partial.get("errorMessage", "")
        message = (ExportTraceServiceResponse if path == "/v1/traces" else ExportLogsServiceResponse).FromString(self.body)
        found = message.partial_success
        return (found.rejected_spans if path == "/v1/traces" else found.rejected_log_records), found.error_message


class Gateway:
    """A gateway in this process that delivers into a fake transport."""

    def __init__(self, spool: Path | None, rules: Rules | None = None, transport: FakeTransport | None = None, **options: Any) -> None:
        self.transport = transport or FakeTransport()
        given = {"api_key": KEY, "upload_interval": 0.0, "auto_events_per_minute": 0, "spool_dir": str(spool) if spool else None, **options}
        config = Config(transport=self.transport, **{name: value for name, value in given.items() if value is not None})
        self.exporter = GatewayExporter(config)
        self.client = Amplitude(config, exporter=self.exporter)
        self.intake = Intake(self.client, self.exporter, rules or Rules(answer="disk" if spool else "memory"))

    def take(self, document: dict[str, Any], content_type: str = PROTOBUF) -> Answered:
        """Take a request without a server."""
        path = "/v1/logs" if "resourceLogs" in document else "/v1/traces"
        answer = self.intake.take("logs" if path == "/v1/logs" else "traces", content_type, encoded(document, content_type), lambda _: None)
        return Answered(answer.status, {"content-type": answer.content_type}, answer.body)

    @property
    def events(self) -> list[dict[str, Any]]:
        """What Amplitude received."""
        assert self.client.flush(10)
        return self.transport.events

    @property
    def refused(self) -> dict[str, int]:
        """What was refused, by reason."""
        return dict(self.client.stats().refused)

    def users(self) -> list[str | None]:
        """Of the events that Amplitude received."""
        return [event.get("user_id") for event in self.events]


@contextlib.contextmanager
def gateway(spool: Path | None, rules: Rules | None = None, **options: Any) -> Iterator[Gateway]:
    """A gateway for one test."""
    made = Gateway(spool, rules, **options)
    try:
        yield made
    finally:
        made.client.shutdown(5)


_senders: list[Sender] = []


class Sender:
    """One connection to a server."""

    def __init__(self, server: Server, **options: Any) -> None:
        kind = http.client.HTTPSConnection if server.tls else http.client.HTTPConnection
        self.connection = kind("127.0.0.1", server.server_address[1], timeout=10, **options)
        _senders.append(self)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answered:
        """One request and its answer."""
        self.connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = self.connection.getresponse()
        return Answered(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())

    def post(self, document: dict[str, Any], content_type: str = PROTOBUF, path: str = "/v1/traces", **headers: str) -> Answered:
        """Send a request of OTLP."""
        return self.ask("POST", path, encoded(document, content_type), content_type=content_type, **headers)


@contextlib.contextmanager
def serving(made: Gateway, **options: Any) -> Iterator[Server]:
    """A server around a gateway."""
    server = Server(made.intake, "127.0.0.1", 0, **options).start()
    try:
        yield server
    finally:
        server.stop(5)
        while _senders:
            _senders.pop().connection.close()
