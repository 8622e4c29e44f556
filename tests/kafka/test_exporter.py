"""Events as records: what the reports of the brokers mean, and that order survives every failure."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given
from kafka_parts import Quiet, event, need_confluent, wait_until

from otel_amplitude.client import Amplitude
from otel_amplitude.config import Config
from otel_amplitude.delivery.dispatcher import Batch, DeliveryOptions
from otel_amplitude.delivery.observer import Observer
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.receipt import Receipt, Split, Verdict
from otel_amplitude.kafka import exporter as module
from otel_amplitude.kafka.exporter import KafkaExporter
from otel_amplitude.log import Log

SETTINGS = {"bootstrap.servers": "127.0.0.1:1"}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeProducer:
    """Reports what a script says about each record: an error's code, None for written, or nothing at all."""

    def __init__(self, script: Callable[[bytes], Any], clock: Clock) -> None:
        self._script = script
        self._clock = clock
        self._waiting: deque[tuple[Any, Any]] = deque()
        self.written: list[bytes] = []
        self.purged = False

    def produce(self, topic: str, value: bytes, key: str, headers: Any = None, on_delivery: Any = None) -> None:
        kafka = need_confluent()
        found = self._script(value)
        if isinstance(found, Exception):
            raise found
        if found == "never":
            return
        if found is None:
            self.written.append(value)
        self._waiting.append((on_delivery, None if found is None else kafka.KafkaError(found)))

    def poll(self, seconds: float = 0) -> None:
        self._clock.now += seconds
        while self._waiting:
            report, error = self._waiting.popleft()
            report(error, None)

    def purge(self, **_: Any) -> None:
        self.purged = True


def made(script: Callable[[bytes], Any]) -> tuple[KafkaExporter, list[FakeProducer], Clock]:
    need_confluent()
    clock, producers = Clock(), []

    def make(*_: Any, **_more: Any) -> FakeProducer:
        producers.append(FakeProducer(script, clock))
        return producers[-1]

    exporter = KafkaExporter(SETTINGS, "amplitude_events", DeliveryOptions(), log=Log("NONE"), clock=clock)
    exporter._library = SimpleNamespace(Producer=make, KafkaException=need_confluent().KafkaException)
    return exporter, producers, clock


def send(script: Callable[[bytes], Any], count: int = 3) -> tuple[Receipt, list[FakeProducer]]:
    exporter, producers, clock = made(script)
    batch = Batch([Parcel(b"%d" % number, ("u",), 0) for number in range(count)])
    return exporter.send_batch(batch, clock.now + 1.0), producers


def code(name: str) -> int:
    return int(getattr(need_confluent().KafkaError, name))


def test_records_that_all_replicas_have_are_acknowledged() -> None:
    """In order, under the key of the first id."""
    receipt, (producer,) = send(lambda _: None)
    assert receipt.reason == "acknowledged"
    assert {outcome.verdict for outcome in receipt.outcomes} == {Verdict.ACKNOWLEDGED}
    assert producer.written == [b"0", b"1", b"2"]
    assert not producer.purged


def test_what_is_not_reported_in_time_is_sent_again_by_a_new_producer() -> None:
    """The old one may write nothing more of it."""
    receipt, (producer,) = send(lambda body: None if body == b"0" else "never")
    assert [outcome.verdict for outcome in receipt.outcomes] == [Verdict.ACKNOWLEDGED, Verdict.RETRY, Verdict.RETRY]
    assert receipt.server_fault
    assert not any(outcome.charged for outcome in receipt.outcomes[1:])
    assert producer.purged


@pytest.mark.parametrize("name", ["UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"])
def test_a_topic_that_is_gone_is_probed_for_and_named(name: str) -> None:
    """Nothing is dropped; the line that makes it is in the receipt, for the log."""
    receipt, _ = send(lambda _: code(name))
    assert (receipt.reason, receipt.probing, receipt.pause) == ("unknown_topic", True, module.PROBE_SECONDS)
    assert "--create --topic amplitude_events" in str(receipt.response)
    assert {outcome.verdict for outcome in receipt.outcomes} == {Verdict.RETRY}


def test_a_broker_that_refuses_is_probed_for_and_quoted() -> None:
    """An operator has to grant it."""
    receipt, _ = send(lambda _: code("TOPIC_AUTHORIZATION_FAILED"))
    assert (receipt.reason, receipt.probing) == ("refused", True)
    assert "topic_authorization_failed" in str(receipt.response)


def test_too_large_a_request_is_divided_and_one_record_alone_rejected() -> None:
    """The limit of a topic is one of its batches."""
    receipt, _ = send(lambda _: code("MSG_SIZE_TOO_LARGE"))
    assert (receipt.split, {outcome.verdict for outcome in receipt.outcomes}) == (Split.SMALLER, {Verdict.RETRY})
    receipt, _ = send(lambda _: code("MSG_SIZE_TOO_LARGE"), count=1)
    assert (receipt.outcomes[0].verdict, receipt.outcomes[0].reason) == (Verdict.REJECTED, "too_large")


def test_nothing_is_handed_over_behind_a_record_that_the_producer_does_not_take() -> None:
    """Else a later record of its key would pass it."""
    kafka = need_confluent()
    failure = kafka.KafkaException(kafka.KafkaError(code("_UNKNOWN_TOPIC")))
    receipt, (producer,) = send(lambda body: failure if body == b"1" else None)
    assert producer.written == [b"0"]
    assert [outcome.verdict for outcome in receipt.outcomes] == [Verdict.ACKNOWLEDGED, Verdict.RETRY, Verdict.RETRY]
    full = BufferError("full")
    receipt, (producer,) = send(lambda body: full if body == b"1" else None)
    assert producer.written == [b"0"]


@given(
    st.lists(
        st.sampled_from(["ok", "never", "_MSG_TIMED_OUT", "NOT_LEADER_FOR_PARTITION", "UNKNOWN_TOPIC_OR_PART", "raise", "full"]),
        min_size=1,
        max_size=12,
    )
)
def test_whatever_happens_each_record_is_acknowledged_or_sent_again(fates: list[str]) -> None:
    """Acknowledged only if it was written; never dropped for a fault of the brokers."""
    kafka = need_confluent()

    def script(body: bytes) -> Any:
        fate = fates[int(body)]
        if fate == "raise":
            return kafka.KafkaException(kafka.KafkaError(code("_FATAL")))
        if fate == "full":
            return BufferError("full")
        return None if fate == "ok" else fate if fate == "never" else code(fate)

    receipt, producers = send(script, len(fates))
    written = {int(body) for producer in producers for body in producer.written}
    assert len(receipt.outcomes) == len(fates)
    for number, outcome in enumerate(receipt.outcomes):
        assert outcome.verdict is (Verdict.ACKNOWLEDGED if number in written else Verdict.RETRY)
    assert (receipt.reason == "acknowledged") == (len(written) == len(fates))


# Against the mock cluster inside of librdkafka


class Ends(Observer):
    wants_results = True

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []

    def finished(self, parcel: Parcel, outcome: str, reason: str, status: int | None, attempts: int) -> None:
        self.found.append((outcome, reason))


def cluster() -> tuple[Any, str]:
    """A cluster in this process, and where it listens; it ends with the first of the two."""
    kafka = need_confluent()
    producer = kafka.Producer({"test.mock.num.brokers": 2, "bootstrap.servers": "x"}, logger=Quiet())
    brokers = producer.list_topics(timeout=5).brokers.values()
    return producer, ",".join(f"{broker.host}:{broker.port}" for broker in brokers)


def read_all(brokers: str, topic: str, partitions: int, count: int) -> list[Any]:
    kafka = need_confluent()
    consumer = kafka.Consumer({"bootstrap.servers": brokers, "group.id": "r", "auto.offset.reset": "earliest"}, logger=Quiet())
    consumer.assign([kafka.TopicPartition(topic, number, 0) for number in range(partitions)])
    found: list[Any] = []

    def has_all() -> bool:
        found.extend(message for message in consumer.consume(count, 0.2) if message.error() is None)
        return len(found) >= count

    wait_until(has_all, 10)
    consumer.close()
    return found


def test_a_client_writes_events_to_a_topic(tmp_path: Path) -> None:
    """By `Amplitude(config, exporter=…)`, with a spool: counted as acknowledged, keyed by the user, else the device."""
    mock, brokers = cluster()
    mock.list_topics("amplitude_events", timeout=5)
    config = Config("0" * 32, spool_dir=str(tmp_path / "spool"))
    exporter = KafkaExporter.made_for(config, {"bootstrap.servers": brokers}, "amplitude_events")
    client = Amplitude(config, exporter=exporter)
    client.log_event({"event_type": "Order", "user_id": "user-1", "insert_id": "a"})
    client.log_event({"event_type": "Order", "device_id": "device-1", "insert_id": "b"})
    assert client.flush(20)
    assert client.stats().acknowledged == 2
    partitions = len(mock.list_topics("amplitude_events", timeout=5).topics["amplitude_events"].partitions)
    found = {record.key(): record.value() for record in read_all(brokers, "amplitude_events", partitions, 2)}
    assert set(found) == {b"user-1", b"device-1"}
    assert b'"insert_id":"a"' in found[b"user-1"]
    assert client.shutdown(5)


def test_an_absent_topic_is_not_created_and_events_wait_for_it() -> None:
    """The cluster would create it for any producer that asks."""
    mock, brokers = cluster()
    ends = Ends()
    options = DeliveryOptions(upload_interval=0.0, request_timeout=3.0, at_end="return")
    exporter = KafkaExporter({"bootstrap.servers": brokers}, "absent", options, log=Log("NONE"), observers=(ends,))
    exporter.take(Parcel(event(1, "user-1"), ("user-1",), 0))
    exporter.flush(3.5)
    assert "absent" not in mock.list_topics(timeout=5).topics
    assert exporter.stats().pending.total == 1
    exporter.shutdown(1)
    assert [outcome for outcome, _ in ends.found] == ["returned"]
    assert exporter.stats().balanced


def test_a_forked_child_would_make_a_producer_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer has threads, which a child has not."""
    exporter, producers, _ = made(lambda _: None)
    assert exporter._producer() is exporter._producer()
    monkeypatch.setattr(module.os, "getpid", lambda: 4711)
    exporter._producer()
    assert len(producers) == 2


def test_several_threads_share_one_producer() -> None:
    """Of those that begin at once one is kept."""
    exporter, producers, _ = made(lambda _: None)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(exporter._producer())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(producer) for producer in found}) == 1
    assert exporter._producer() is found[0]
    assert producers
