"""More than a process can send, from many threads, on a busy machine: kills, faults, and threads that take turns at every step."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from delivery.load import kill_at_random, run_for
from parcels import acknowledged, names, parcel

from otel_amplitude.delivery.batch_exporter import BatchExporter
from otel_amplitude.delivery.dispatcher import Batch, DeliveryOptions
from otel_amplitude.delivery.receipt import Receipt

# As fast as the machine lets eight threads log, and no faster than this.
RATE = 16_000


@pytest.mark.heavy
@pytest.mark.timeout(120)
def test_kills_at_saturation_lose_nothing(tmp_path: Path) -> None:
    """Fault row 56c: eight threads log as fast as they can, each kill comes at a random moment, and the next process sends in order."""
    figures = kill_at_random(tmp_path, 5, seed=1, longest=1.5, rate=RATE)
    assert figures["set_aside"] <= 1


@pytest.mark.soak
@pytest.mark.heavy
@pytest.mark.timeout(3 * 3600)
def test_three_hundred_kills_at_saturation_lose_nothing(tmp_path: Path) -> None:
    """The same three hundred times, with at least 8,000 events accepted in each second that a process lived."""
    figures = kill_at_random(tmp_path, 300, seed=2, longest=2.0, rate=RATE)
    print(figures)
    assert figures["a_second"] >= 8_000, "this machine is too slow for the trial"
    assert figures["set_aside"] <= 6


@pytest.mark.soak
@pytest.mark.heavy
@pytest.mark.timeout(100 * 3600)
def test_an_hour_of_faults_and_restarts(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Balanced counters in each second, nothing lost, order kept, and no growth of memory, threads or descriptors; `--soak-minutes` long."""
    figures = run_for(60 * request.config.getoption("soak_minutes"), tmp_path, seed=3, rate=500)
    print(figures)
    assert figures["mebibytes"] <= 200
    assert figures["threads"] <= 8 + 10
    assert figures["descriptors"] <= 60
    assert figures["set_aside"] <= 1


class Ordered(BatchExporter):
    """Checks each request as it is sent: no id of it is in another one, and each id's events come in the order of their numbers."""

    def __init__(self) -> None:
        super().__init__(DeliveryOptions(upload_interval=0.001, max_batch_events=50, max_cached_events=5_000))
        self._checking = threading.Lock()
        self._flying: set[str] = set()
        self._last: dict[str, int] = {}
        self.sent = 0
        self.faults: list[str] = []

    def send_batch(self, batch: Batch, deadline: float) -> Receipt:
        ids = {name for each in batch for name in each.ids}
        with self._checking:
            self.faults += sorted(ids & self._flying)
            self._flying |= ids
            for each, name in zip(batch, names(batch), strict=True):
                number = int(name.rpartition("-")[2])
                self.faults += [name for owner in each.ids if number != self._last.get(owner, -1) + 1]
                self._last.update(dict.fromkeys(each.ids, number))
            self.sent += len(batch)
        time.sleep(0)
        with self._checking:
            self._flying -= ids
        return acknowledged(batch)


def submit_from_many_threads(threads: int, seconds: float) -> int:
    """Submit from threads that each own an id, while another one takes snapshots and flushes; give how many were accepted."""
    post = Ordered()
    end = time.monotonic() + seconds
    accepted = [0] * threads
    unbalanced: list[object] = []

    def submit(thread: int) -> None:
        while time.monotonic() < end:
            if post.submit(parcel(f"{thread}-{accepted[thread]}", f"user-{thread}")):
                accepted[thread] += 1
            else:
                time.sleep(0.001)

    def look() -> None:
        last = (0, 0)
        while time.monotonic() < end:
            stats = post.stats()
            if not stats.balanced or (stats.accepted, stats.acknowledged) < last or min(stats.pending.queued, stats.pending.in_flight) < 0:
                unbalanced.append(stats)
            last = (stats.accepted, stats.acknowledged)
            post.hurry()

    running = [threading.Thread(target=submit, args=(number,)) for number in range(threads)] + [threading.Thread(target=look)]
    for each in running:
        each.start()
    for each in running:
        each.join()
    assert post.flush(60.0)
    assert post.shutdown(60.0)
    stats = post.stats()
    assert unbalanced == []
    assert post.faults == []
    assert (stats.accepted, stats.acknowledged, post.sent, stats.balanced) == (sum(accepted), sum(accepted), sum(accepted), True)
    queue = post._worker().queue
    assert (queue.used_events, queue.used_bytes) == (0, 0)
    return sum(accepted)


@pytest.mark.usefixtures("eager_switching")
def test_sixty_four_threads_that_take_turns_at_every_step() -> None:
    """However threads interleave: every snapshot is balanced, no id is in two requests, and each id's events are sent in order, once."""
    assert submit_from_many_threads(64, 2.0) > 64


@pytest.mark.soak
@pytest.mark.heavy
@pytest.mark.timeout(300)
@pytest.mark.usefixtures("eager_switching")
def test_sixty_four_threads_for_a_minute() -> None:
    """The same for a minute."""
    print(submit_from_many_threads(64, 60.0))
