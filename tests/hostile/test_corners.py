"""Corners of delivery that a reviewer found with scripts of his own: each was once a lost, doubled, overtaken or forgotten event."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from punctual import Stopwatch
from refused_threads import Threads

from otel_amplitude import Amplitude, Config
from otel_amplitude.delivery.disk import format as layout
from otel_amplitude.delivery.disk.spool import fingerprint
from otel_amplitude.results import Result
from otel_amplitude.testing import FakeTransport, answer
from otel_amplitude.transport import Request, Response

KEY = "0123456789abcdef0123456789abcdef"
PATIENCE = 30.0
Make = Callable[..., Amplitude]


class Soon:
    """A retry policy that hardly waits."""

    def wait(self, _attempt: int, _random: Callable[[], float], /) -> float:
        return 0.01


class Server(FakeTransport):
    """A server that is down until the test says otherwise."""

    def __init__(self, *, up: bool = False) -> None:
        self.up = threading.Event()
        self.asked = threading.Event()
        if up:
            self.up.set()
        super().__init__(self._answer)

    def _answer(self, _request: Request) -> Response:
        self.asked.set()
        return answer(200) if self.up.is_set() else answer(503)

    @property
    def numbers(self) -> list[int]:
        """The numbers of the events, in the order of their first transmission."""
        return list(dict.fromkeys(event["event_properties"]["n"] for event in self.events))


def event(number: int, user: str = "user-12345", **more: Any) -> dict[str, Any]:
    return {"event_type": "Order Paid", "user_id": user, "event_properties": {"n": number}, **more}


def wait_for(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.005)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A maker of clients, with a spool in the same directory where one is asked for; each is shut down, and its books balance."""
    made: list[Amplitude] = []

    def build(transport: Any, **options: Any) -> Amplitude:
        if options.pop("spool", False):
            options["spool_dir"] = str(tmp_path / "spool")
        given = {"transport": transport, "upload_interval": 0.01, "retry": Soon(), "log_level": "NONE", **options}
        made.append(Amplitude(Config(KEY, **given)))
        return made[-1]

    yield build
    for client in made:
        client.shutdown(1)
        assert client.stats().balanced


def test_what_the_disk_refused_is_not_overtaken_by_what_it_took_later(make: Make) -> None:
    """Events of one user, some of which the disk refused for a moment during an outage, leave in the order accepted."""
    server = Server()
    client = make(server, spool=True, max_cached_events=200, max_batch_events=20)
    queue, spool = client._exporter._worker().queue, client._exporter._spool
    assert spool is not None
    for number in range(180):
        client.log_event(event(number))
    enough, spool._min_free = spool._min_free, 1 << 60
    for number in range(180, 185):
        queue._grant = 0  # also if the spool was measuring when we began
        client.log_event(event(number))
    assert client.stats().pending.queued, "the fault did not fire"
    spool._min_free = enough
    wait_for(lambda: queue.disk_refusal is None)  # it takes events again
    for number in range(185, 205):
        assert client.log_event(event(number)).accepted
    server.up.set()
    assert client.flush(PATIENCE)
    assert server.numbers == list(range(205))


def test_a_throttled_user_with_a_backlog_on_disk_holds_up_nobody(make: Make) -> None:
    """After an outage most of what lies on disk is of one user, whom Amplitude throttles: the others' events leave all the same."""
    up = threading.Event()
    arrived: list[str] = []

    def judge(request: Request) -> Response:
        users = [one["user_id"] for one in orjson.loads(request.body)["events"]]
        if not up.is_set() or "user-hot" in users:
            return answer(429, throttled_users={"user-hot": 99}) if up.is_set() else answer(503)
        arrived.extend(users)
        return answer(200)

    client = make(FakeTransport(judge), spool=True, max_cached_events=200, max_batch_events=20)
    for number in range(1000):
        assert client.log_event(event(number, "user-hot")).accepted
    for number in range(30):
        assert client.log_event(event(number, f"user-{number}-cold")).accepted
    up.set()
    wait_for(lambda: client.stats().acknowledged == 30)
    assert sorted(arrived) == sorted(f"user-{number}-cold" for number in range(30))
    stats = client.stats()
    assert (stats.pending.total, stats.balanced) == (1000, True)
    assert client.log_event(event(1000, "user-hot")).accepted  # on disk, behind the others


def left_behind(tmp_path: Path, *bodies: bytes) -> None:
    """Lay what a dead process left into the spool."""
    config = Config(KEY, spool_dir=str(tmp_path / "spool"))
    folder = tmp_path / "spool" / fingerprint(config.endpoint, KEY) / "host-1-0123abcd"
    folder.mkdir(parents=True, mode=0o700)
    for above in (folder, *folder.parents[:2]):
        above.chmod(0o700)
    now = int(time.time() * 1000) - 60_000
    with os.fdopen(os.open(folder / "00000001.seg", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        file.write(layout.write_header(now) + b"".join(layout.write_record(body, now) for body in bodies))


def test_what_a_dead_process_left_precedes_what_is_accepted_now(make: Make, tmp_path: Path) -> None:
    """For the same user."""
    left_behind(tmp_path, *(orjson.dumps(event(number)) for number in range(3)))
    server = Server(up=True)
    client = make(server, spool=True)
    client.log_event(event(3))
    assert client.flush(PATIENCE)
    assert server.numbers == [0, 1, 2, 3]


@pytest.mark.parametrize("body", [b"[1]", b"12", b"no JSON", b'"text"'])
def test_a_record_that_is_no_event_stops_none_of_its_neighbours(make: Make, tmp_path: Path, body: bytes) -> None:
    """Somebody planted it with a good checksum: it never travels, and the others arrive."""
    left_behind(tmp_path, orjson.dumps(event(0)), body, orjson.dumps(event(1)))
    arrived: list[int] = []

    def judge(request: Request) -> Response:
        try:
            events = orjson.loads(request.body)["events"]
        except ValueError:
            return answer(400, error="Invalid JSON request body")
        if not all(isinstance(one, dict) for one in events):
            return answer(400, error="Invalid event JSON")
        arrived.extend(one["event_properties"]["n"] for one in events)
        return answer(200)

    class Judge:
        def send(self, request: Request) -> Response:
            return judge(request)

        def close(self) -> None:
            """Nothing is open."""

    client = make(Judge(), spool=True, compression="none")
    assert client.flush(PATIENCE)
    assert sorted(arrived) == [0, 1]
    assert client.stats().dropped == {"spool_corrupt": 1}


def test_what_expires_on_disk_is_told_like_everything_else(make: Make, tmp_path: Path) -> None:
    """`on_result` fires once for each event, wherever it met its end."""
    told: list[Result] = []
    left_behind(tmp_path, *(orjson.dumps(event(number, insert_id=f"i{number}")) for number in range(3)))
    client = make(Server(up=True), spool=True, max_event_age=30.0, on_result=told.append)
    client.log_event(event(3))
    assert client.flush(PATIENCE)
    assert sorted((one.event["event_properties"]["n"], one.outcome, one.reason) for one in told) == [
        (0, "dropped", "expired"),
        (1, "dropped", "expired"),
        (2, "dropped", "expired"),
        (3, "acknowledged", ""),
    ]


def test_a_flush_inside_a_callback_does_not_wait_for_its_own_thread(make: Make) -> None:
    """The next batch, which that thread was to send, is sent by another one."""
    answers: list[bool] = []
    client = make(Server(up=True), max_batch_events=2, on_result=lambda _: answers.append(client.flush(PATIENCE)))
    for number in range(8):
        client.log_event(event(number))
    watch = Stopwatch()
    assert client.flush(PATIENCE)
    assert watch.seconds() < PATIENCE / 2
    wait_for(lambda: len(answers) == 8)
    assert all(answers)


def test_a_second_shutdown_does_not_say_more_than_the_first(make: Make) -> None:
    """While the first is still at it, nothing is known to be settled."""
    release, reached = threading.Event(), threading.Event()

    def hang(_request: Request) -> Response:
        reached.set()
        release.wait(PATIENCE)
        return answer(503)

    client = make(FakeTransport(hang))
    client.log_event(event(0))
    assert reached.wait(PATIENCE)
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(client.shutdown(1.0)))
    thread.start()
    wait_for(lambda: client._exporter.closed)
    assert not client.shutdown(0.0)
    thread.join(PATIENCE)
    release.set()
    assert answers == [False]


def test_a_flush_without_threads_keeps_its_time(make: Make, threads: Threads) -> None:
    """An attempt made on the caller's own thread has what is left of the flush, not the whole `request_timeout`."""
    given: list[float] = []

    class Patient:
        def send(self, request: Request) -> Response:
            given.append(request.timeout)
            return answer(503)

        def close(self) -> None:
            """Nothing is open."""

    threads.refuse()
    client = make(Patient(), request_timeout=10.0)
    client.log_event(event(0))
    assert not client.flush(1.0)
    assert given
    assert max(given) <= 1.0


INTERRUPTED = """
import random, signal, sys, time
from otel_amplitude import Amplitude, Config
from otel_amplitude.testing import FakeTransport
class Interrupt(BaseException): pass
def interrupt(*_): raise Interrupt
signal.signal(signal.SIGALRM, interrupt)
client = Amplitude(Config("0" * 32, transport=FakeTransport(), upload_interval=0.01, log_level="NONE"))
hits, end = 0, time.monotonic() + 3
chance = random.Random(int(sys.argv[1]))
while time.monotonic() < end:
    try:
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(2e-5, 4e-4))
        while True:
            client.log_event({"event_type": "x", "user_id": "u-12345"}); client.stats(); client.flush(0.0)
    except Interrupt:
        hits += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
assert hits > 100, "the fault did not fire"
assert client.flush(30), client.stats()
assert client.stats().balanced, client.stats()
"""


@pytest.mark.heavy
def test_ctrl_c_anywhere_leaves_delivery_alive_and_the_books_balanced(tmp_path: Path) -> None:
    """A signal handler that raises inside `log_event`, `stats` and `flush`, thousands of times, keeps no lock and loses no book-keeping."""
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-c", INTERRUPTED, "7"], cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stderr
