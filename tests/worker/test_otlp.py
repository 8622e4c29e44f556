"""A Collector's topics to the topic of events: one record is settled when all of its events are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from kafka_parts import Broker, WorkerProcess, need_confluent, wait_until
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from worker.fakes import Message

from otel_amplitude.config import Config
from otel_amplitude.gateway.intake import Rules
from otel_amplitude.worker.loop import Ends
from otel_amplitude.worker.otlp import ToTopic
from otel_amplitude.worker.progress import Assignment, Progress
from otel_amplitude.worker.records import NotAnEventError


def text(value: str) -> dict[str, Any]:
    return {"stringValue": value}


def attributes(facts: dict[str, str]) -> list[dict[str, Any]]:
    return [{"key": name, "value": text(value)} for name, value in facts.items()]


def span(number: int, user: str | None = "user-1", event: str | None = "Order") -> dict[str, Any]:
    facts = {name: value for name, value in (("amplitude.user_id", user), ("amplitude.event_type", event)) if value is not None}
    moment = 1_796_000_000_000_000_000 + number
    return {
        "traceId": f"{number + 1:032x}",
        "spanId": f"{number + 1:016x}",
        "name": "work",
        "kind": 1,
        "startTimeUnixNano": str(moment),
        "endTimeUnixNano": str(moment + 1),
        "attributes": attributes(facts),
    }


def spans(*made: dict[str, Any]) -> dict[str, Any]:
    resource = {"attributes": attributes({"service.name": "shop"})}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "shop"}, "spans": list(made)}]}]}


def protobuf(data: dict[str, Any]) -> bytes:
    # Ids are base64 there, and hexadecimal in OTLP.
    import base64

    from google.protobuf.json_format import ParseDict

    def fixed(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: base64.b64encode(bytes.fromhex(item)).decode() if name in ("traceId", "spanId") else fixed(item)
                for name, item in value.items()
            }
        return [fixed(item) for item in value] if isinstance(value, list) else value

    kind = ExportTraceServiceRequest if "resourceSpans" in data else ExportLogsServiceRequest
    return ParseDict(fixed(data), kind()).SerializeToString()


def logs(number: int, user: str = "user-1") -> dict[str, Any]:
    record = {
        "timeUnixNano": str(1_796_000_000_000_000_000 + number),
        "eventName": "user.login",
        "attributes": attributes({"amplitude.user_id": user, "amplitude.event_type": "Login"}),
        "body": text("x"),
    }
    resource = {"attributes": attributes({"service.name": "shop"})}
    return {"resourceLogs": [{"resource": resource, "scopeLogs": [{"scope": {"name": "shop"}, "logRecords": [record]}]}]}


class Of(Message):
    """A record of a topic."""

    def __init__(self, value: bytes | None, topic: str = "otlp_spans", headers: Any = None) -> None:
        super().__init__(0, 0, value)
        self._topic = topic
        self._headers = headers

    def topic(self) -> str:
        return self._topic

    def headers(self) -> Any:
        return self._headers


class Rig:
    """Takes records as the loop does; what it makes is kept where the producer would send it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rules: Rules | None = None) -> None:
        need_confluent()
        self.ends = Ends()
        config = Config("0" * 32, auto_events_per_minute=0)
        self.to = ToTopic(config, {"bootstrap.servers": "127.0.0.1:1"}, "amplitude_events", self.ends, rules or Rules(answer="memory"))
        self.sent: list[dict[str, Any]] = []
        from otel_amplitude.delivery.receipt import ACKNOWLEDGED, Receipt

        def send(batch: Any, _deadline: float) -> Receipt:
            self.sent += [json.loads(parcel.body) for parcel in batch]
            return Receipt([ACKNOWLEDGED] * len(batch), "acknowledged")

        monkeypatch.setattr(self.to.exporter, "send_batch", send)
        self.progress = Progress(100, 10**9)
        self.assignment: Assignment = self.progress.assign("otlp_spans", 0, None)
        self.offset = 0

    def take(self, message: Of) -> None:
        self.progress.take(self.assignment, self.offset, 1)
        self.offset += 1
        assert self.to.take(message, message.value(), self.assignment, self.offset - 1) is None

    def drain(self) -> int:
        while self.ends.ended:
            parcel, outcome, _, _ = self.ends.ended.popleft()
            assert outcome == "acknowledged"
            self.progress.settle(parcel.assignment, parcel.offset)
        return self.progress.events


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    made = Rig(monkeypatch)
    yield made
    made.to.client.shutdown(1)


@pytest.mark.parametrize("encode", [lambda data: json.dumps(data).encode(), protobuf], ids=["json", "protobuf"])
def test_a_record_is_settled_with_its_last_event(rig: Rig, encode: Any) -> None:
    """Spans that are no events cost nothing."""
    rig.take(Of(encode(spans(span(0), span(1), span(2, event=None)))))
    assert rig.drain() == 1
    assert rig.to.exporter.flush(10)
    assert rig.drain() == 0
    assert [event["user_id"] for event in rig.sent] == ["user-1", "user-1"]


@pytest.mark.parametrize("encode", [lambda data: json.dumps(data).encode(), protobuf], ids=["json", "protobuf"])
@pytest.mark.parametrize(
    ("topic", "headers"), [("otlp_logs", None), ("otlp_dead", [("topic", b"otlp_logs")])], ids=["its topic", "a dead letter"]
)
def test_log_records_are_read_as_such(rig: Rig, encode: Any, topic: str, headers: Any) -> None:
    """In protobuf only the topic says what a record holds; a dead letter says which one that was."""
    rig.take(Of(encode(logs(1)), topic, headers))
    assert rig.to.exporter.flush(10)
    assert (rig.drain(), [event["event_type"] for event in rig.sent]) == (0, ["Login"])


@pytest.mark.parametrize(
    "value", [None, b"", b"{}", json.dumps(spans(span(1, event=None))).encode(), json.dumps(spans(span(1, user=None))).encode()]
)
def test_a_record_without_events_is_settled_at_once(rig: Rig, value: bytes | None) -> None:
    """Empty, of nobody, or of spans that nothing chooses."""
    rig.take(Of(value))
    assert rig.drain() == 0


def test_a_bare_list_of_resources_is_read(rig: Rig) -> None:
    """As Rotel writes JSON."""
    rig.take(Of(json.dumps(spans(span(1))["resourceSpans"]).encode()))
    assert rig.to.exporter.flush(10)
    assert len(rig.sent) == 1


@pytest.mark.parametrize("value", [b"poison", b"\xff\xff\xff", b'{"a":1}', b"[1]", b"[" * 100_000])
def test_what_is_no_otlp_is_a_dead_letter(rig: Rig, value: bytes) -> None:
    """With its reason."""
    with pytest.raises(NotAnEventError, match="^unreadable$"):
        rig.take(Of(value))


def test_the_same_record_makes_the_same_events(rig: Rig) -> None:
    """So that what is read again counts once."""
    for _ in range(2):
        rig.take(Of(json.dumps(spans(span(1), span(2))).encode()))
    assert rig.to.exporter.flush(10)
    assert len(rig.sent) == 4
    assert len({event["insert_id"] for event in rig.sent}) == 2


def test_services_that_export_in_process_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would count twice."""
    rig = Rig(monkeypatch, Rules(answer="memory", not_services=("shop",)))
    rig.take(Of(json.dumps(spans(span(1))).encode()))
    assert rig.drain() == 0
    rig.to.client.shutdown(1)


@pytest.mark.heavy
@pytest.mark.timeout(120)
def test_every_event_of_a_collectors_topics_is_in_the_topic_of_events() -> None:
    """Protobuf and JSON, spans and logs; one of two workers is killed and another one takes its place."""
    need_confluent()
    with Broker() as broker:
        broker.make(otlp_spans=4, otlp_logs=2, amplitude_events=4, otlp_dead=1)
        # 300 records of 10 spans and 200 of one log record; the ids of a record are of its own.
        some = [spans(*(span(10 * record + number, f"user-{record % 20}") for number in range(10))) for record in range(300)]
        records = [protobuf(data) if number % 2 else json.dumps(data).encode() for number, data in enumerate(some)]
        broker.produce("otlp_spans", [(f"{number}", value) for number, value in enumerate(records[:150])])
        broker.produce("otlp_logs", [(f"{number}", protobuf(logs(number, f"user-{number % 20}"))) for number in range(200)])
        broker.produce("otlp_spans", [("x", b"poison")])
        words = ("--from", "otlp", "--until-idle", "3")
        first, second = (WorkerProcess(broker.address, "http://127.0.0.1:1", *words, "--rate", "60") for _ in range(2))
        third = None
        try:
            wait_until(lambda: sum(max(0, offset) for offset in broker.committed("otel-amplitude-otlp", "otlp_spans", 4)) > 20, 45)
            first.kill()
            broker.produce("otlp_spans", [(f"{number}", value) for number, value in enumerate(records[150:])])
            third = WorkerProcess(broker.address, "http://127.0.0.1:1", *words)
            codes = [each.result(60)[0] for each in (second, third)]
        finally:
            for each in (first, second, third):
                if each is not None:
                    each.end()
        found = broker.records("amplitude_events", 3_200, partitions=4)
        assert len({json.loads(record.value())["insert_id"] for record in found}) == 3_200
        assert all(record.key().decode() == json.loads(record.value())["user_id"] for record in found)
        (letter,) = broker.records("otlp_dead", 1)
        assert (letter.value(), dict(letter.headers())["reason"]) == (b"poison", b"unreadable")
        assert sorted(codes) in ([0, 1], [0, 0])
        assert sum(broker.committed("otel-amplitude-otlp", "otlp_spans", 4)) == 301
