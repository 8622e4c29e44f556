"""A consumer and destinations for tests of the loop: no broker, no network; delivery itself is the real one."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from kafka_parts import need_confluent, wait_until

from otel_amplitude.delivery.batch_exporter import BatchExporter
from otel_amplitude.delivery.dispatcher import Batch, DeliveryOptions
from otel_amplitude.delivery.observer import Observer
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.receipt import ACKNOWLEDGED, Outcome, Receipt, Verdict
from otel_amplitude.log import Log
from otel_amplitude.worker.loop import Ends, Loop, Options
from otel_amplitude.worker.records import Position, read_event

TOPIC = "amplitude_events"


def error(name: str, *, fatal: bool = False) -> Any:
    kafka = need_confluent()
    return kafka.KafkaError(getattr(kafka.KafkaError, name), "said", fatal)


def failure(name: str) -> Exception:
    made: Exception = need_confluent().KafkaException(error(name))
    return made


def place(partition: int, offset: int | None = None, topic: str = TOPIC) -> Any:
    make = need_confluent().TopicPartition
    return make(topic, partition) if offset is None else make(topic, partition, offset)


class Message:
    """One record as the client gives it."""

    def __init__(self, partition: int, offset: int, value: bytes | None, *, key: bytes | None = None, fault: Any = None) -> None:
        self._facts = (TOPIC, partition, offset, value, key, fault)

    def topic(self) -> str:
        return self._facts[0]

    def partition(self) -> int:
        return self._facts[1]

    def offset(self) -> int:
        return self._facts[2]

    def value(self) -> bytes | None:
        return self._facts[3]

    def key(self) -> bytes | None:
        return self._facts[4]

    def headers(self) -> None:
        return None

    def error(self) -> Any:
        return self._facts[5]


class Consumer:
    """Gives what it was told to; notes what it is asked for."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.asked: list[int] = []
        self.paused: set[int] = set()
        self.commits: list[dict[int, int]] = []
        self.stored: dict[int, int] = {}
        self.commit_error: Any = None
        self.answers = True
        self.marks: dict[int, tuple[int, int]] = {}
        self.closes = threading.Event()
        self.closes.set()
        self._callbacks: dict[str, Any] = {}
        self._answered: list[tuple[Any, list[Any]]] = []
        self.on_commit: Any = None

    def subscribe(self, _topics: Sequence[str], **callbacks: Any) -> None:
        self._callbacks = callbacks

    def rebalance(self, kind: str, *partitions: int) -> None:
        self._callbacks[kind](self, [place(partition) for partition in partitions])

    def consume(self, most: int, _timeout: float) -> list[Message]:
        self.asked.append(most)
        while self._answered:
            self.on_commit(*self._answered.pop(0))
        given = [each for each in self.messages if each.partition() not in self.paused][:most]
        self.messages = [each for each in self.messages if each not in given]
        return given

    def pause(self, places: Sequence[Any]) -> None:
        self.paused |= {each.partition for each in places}

    def resume(self, places: Sequence[Any]) -> None:
        self.paused -= {each.partition for each in places}

    def commit(self, *, offsets: Sequence[Any], asynchronous: bool) -> list[Any] | None:
        if isinstance(self.commit_error, Exception):
            raise self.commit_error
        if self.commit_error is None:
            self.commits.append({each.partition: each.offset for each in offsets})
            self.stored.update(self.commits[-1])
        if not asynchronous:
            return list(offsets)
        if self.answers:
            self._answered.append((self.commit_error, list(offsets)))
        return None

    def committed(self, places: Sequence[Any], timeout: float) -> list[Any]:
        assert timeout > 0
        return [place(each.partition, self.stored.get(each.partition, -1001)) for each in places]

    def get_watermark_offsets(self, where: Any, timeout: float | None = None, cached: bool = False) -> tuple[int, int]:
        assert cached or timeout
        found = self.marks.get(where.partition, (0, -1001))
        if isinstance(found, Exception):
            raise found
        return found

    def close(self) -> None:
        self.closes.wait(20)


class Sink(BatchExporter):
    """A destination that acknowledges, rejects, fails or waits, by the text of an event."""

    def __init__(self, *observers: Observer, interval: float = 0.0) -> None:
        options = DeliveryOptions(upload_interval=interval, max_in_flight=1, at_end="return", request_timeout=20.0)
        super().__init__(options, observers=observers)
        self.taken: list[Parcel] = []
        self.rejects: set[bytes] = set()
        self.fails = False
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()

    def send_batch(self, batch: Batch, deadline: float) -> Receipt:
        self.waiting.set()
        self.gate.wait(20)
        if self.fails:
            return Receipt([Outcome(Verdict.RETRY, "down", charged=False)] * len(batch), "down", server_fault=True)
        self.taken += batch
        outcomes = [Outcome(Verdict.REJECTED, "invalid") if parcel.body in self.rejects else ACKNOWLEDGED for parcel in batch]
        return Receipt(outcomes, "acknowledged", status=200)


class To:
    """What the loop asks to take records."""

    def __init__(self, exporter: Sink) -> None:
        self.exporter = exporter

    def take(self, _message: Any, value: bytes | None, assignment: Any, offset: int) -> str | None:
        return self.exporter.take(Position(value or b"", read_event(value), 0, assignment, offset))


class Rig:
    """A loop with its fakes; `settle` does turns until nothing is pending."""

    def __init__(self, *, interval: float = 0.0, log: Log | None = None, **options: Any) -> None:
        self.now = 1_000.0
        ends = Ends()
        self.sink, self.dead = Sink(ends, interval=interval), Sink(ends)
        self.consumer = Consumer()
        self.slept: list[float] = []
        self.loop = Loop(
            To(self.sink),
            self.dead,
            ends,
            Options(**{"shutdown_timeout": 0.5, **options}),
            log or Log("NONE"),
            settings={"bootstrap.servers": "b:9092"},
            clock=lambda: self.now,
            wait=self._wait,
        )
        self.consumer.on_commit = self.loop.callbacks()["on_commit"]
        self.loop.subscribe(self.consumer, [TOPIC])

    def _wait(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def assign(self, *partitions: int) -> None:
        self.consumer.rebalance("on_assign", *partitions)

    def give(self, *messages: Message) -> None:
        self.consumer.messages += messages

    def turn(self, seconds: float = 0.0) -> None:
        self.now += seconds
        self.loop.turn()

    def settle(self) -> None:
        """Do turns, a second apart, until all is settled and committed."""

        def is_settled() -> bool:
            self.turn(1.1)
            return not self.consumer.messages and self.loop.snapshot.pending == 0 and not self.loop._commits_under_way

        wait_until(is_settled, 20)
        self.turn(1.1)

    def end(self) -> None:
        for each in (self.sink, self.dead):
            each.gate.set()
            each.shutdown(1)
