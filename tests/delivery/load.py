"""A load of eight threads in processes that are killed, and a server that knows of every event whether and in which order it arrived."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen

import orjson
from hostile.programs import program, replay
from servers import Behaviour, Peer, Server, reply

from otel_amplitude.delivery.disk.inspect import iter_records

THREADS = 8
# Each thread logs events of so many devices in turn.
DEVICES = 8
PATIENCE = 60.0

# One process that has imported everything makes one child after the other, each for a line with its number, and says its process id and how
# it ended. A child answers each line with its counters, until `leave`. What was accepted is counted in a file that is mapped into memory:
# such a count survives SIGKILL.
LIVES = """
import mmap, requests, structlog
from otel_amplitude import _adapter
COUNTS, THREADS, DEVICES, RATE, MORE = sys.argv[4], *map(int, sys.argv[5:8]), json.loads(sys.argv[8])
def live(life):
    with open(COUNTS, "r+b") as file:
        counts = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
    client = Amplitude(Config(KEY, **spooling(upload_interval=0.2, log_level="NONE", max_spool_bytes=1 << 30, **MORE)))
    text = "x" * 900
    def feed(thread):
        place, number, began = life * THREADS + thread, 0, time.monotonic()
        while True:
            taken = client.log_event({
                "event_type": "Order Paid", "device_id": f"device-{thread}-{number % DEVICES}", "insert_id": f"{life}-{thread}-{number}",
                "event_properties": {"text": text},
            })
            if taken.accepted:
                number += 1
                counts[place] = number
            if not taken.accepted or number % 40 == 0:
                time.sleep(max(0.001, began + number * THREADS / RATE - time.monotonic()))
    for thread in range(THREADS):
        threading.Thread(target=feed, args=(thread,), daemon=True).start()
    for line in sys.stdin:
        if line == "leave\\n":
            client.shutdown(5)
            os._exit(0)
        say(json.dumps({"balanced": client.stats().balanced, "accepted": client.stats().accepted}))
for line in sys.stdin:
    life = int(line)
    child = os.fork()
    if child == 0:
        live(life)
    say(child)
    say(os.waitpid(child, 0)[1])
"""


class Arrivals:
    """What reached the server, and what of it came too early: event `number` of a thread of a process, known by its insert_id.

    Attributes:
        events: how many arrived, those that were sent again included.
        disorder: events that arrived for the first time behind a later one of their device.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[tuple[int, int], bytearray] = {}
        self._last: dict[tuple[int, int], tuple[int, int]] = {}
        self.events = 0
        self.disorder: list[tuple[int, int, int]] = []

    def add(self, body: bytes) -> None:
        """Note the events of one request."""
        ids = [tuple(map(int, event["insert_id"].split("-"))) for event in orjson.loads(body)["events"]]
        with self._lock:
            self.events += len(ids)
            for life, thread, number in ids:
                self._add(life, thread, number)

    def _add(self, life: int, thread: int, number: int) -> None:
        seen = self._seen.setdefault((life, thread), bytearray())
        if number >= len(seen):
            seen.extend(bytes(number + 1 - len(seen)))
        if not seen[number]:
            seen[number] = 1
            device = (thread, number % DEVICES)
            if (life, number) < self._last.get(device, (-1, -1)):
                self.disorder.append((life, thread, number))
            else:
                self._last[device] = (life, number)

    def missing(self, life: int, thread: int, count: int) -> list[int]:
        """Give which of the first `count` events of a thread did not arrive."""
        seen = self._seen.get((life, thread), bytearray()).ljust(count, b"\0")
        return [number for number, arrived in enumerate(seen[:count]) if not arrived]

    def unsaid(self, life: int, thread: int, count: int) -> int:
        """Give how many arrived beyond the first `count`: their acceptance was not counted before the kill."""
        return sum(self._seen.get((life, thread), bytearray())[count:])


def answering(arrivals: Arrivals, fault: Callable[[Peer], bool | None] = lambda _: None, *, seconds: float = 0.02) -> Behaviour:
    """Read a request; answer it as `fault` does, or note its events and acknowledge them after `seconds`."""

    def behave(peer: Peer) -> bool:
        body = peer.request().body
        peer.server.requests.clear()
        keeps = fault(peer)
        if keeps is None:
            arrivals.add(body)
            time.sleep(seconds)  # as far away as a server is
            peer.send(reply(200, b'{"code":200}'))
        return keeps is None or keeps

    return behave


class Faults:
    """What a server and a network do to one request in ten, and to all in five seconds of each minute."""

    def __init__(self, chance: random.Random) -> None:
        self._lock = threading.Lock()
        self._chance = chance
        self.are_over = False
        self.met: Counter[str] = Counter()

    def __call__(self, peer: Peer) -> bool | None:
        with self._lock:
            lot = self._chance.choices(("", "503", "reset", "silence", "429"), (90, 4, 4, 1, 1))[0]
            kind = "" if self.are_over else "outage" if time.monotonic() % 60 > 55 else lot
            device = f"device-{self._chance.randrange(THREADS)}-{self._chance.randrange(DEVICES)}"
            self.met[kind] += 1
        if kind == "503":
            peer.send(reply(503, b'{"code":503}'))
        elif kind == "429":
            peer.send(reply(429, orjson.dumps({"code": 429, "throttled_devices": {device: 31}})))
        elif kind == "silence":
            peer.until_gone()
        elif kind:
            peer.reset()
        return None if not kind else kind in ("503", "429")


class Lives:
    """Processes that log events until they are killed, one after the other, each with a number of its own."""

    def __init__(self, url: str, folder: Path, lives: int, *, rate: int, **options: object) -> None:
        self.url = url
        self.folder = folder
        self.lives = lives
        self._arguments = (THREADS, DEVICES, rate, orjson.dumps(options).decode())
        self._file = folder.parent / "counts"
        self._file.write_bytes(bytes(8 * THREADS * lives))
        with self._file.open("r+b") as file:
            self._counts = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")

    @contextlib.contextmanager
    def mother(self) -> Iterator[Popen[str]]:
        """Start the process that makes the others."""
        with program(LIVES, self.url, self.folder, self._file, *self._arguments) as process:
            yield process

    def accepted(self, life: int) -> int:
        """Give how many events a life has accepted so far."""
        return sum(self._counts[life * THREADS : (life + 1) * THREADS])

    def begin(self, mother: Popen[str], life: int) -> tuple[int, float]:
        """Start a life; give its process id, when it has accepted its first event, and this moment."""
        tell(mother, life)
        child = int(line(mother))
        end = time.monotonic() + PATIENCE
        while not self.accepted(life):
            assert time.monotonic() < end, f"life {life} did not begin"
            time.sleep(0.001)
        return child, time.monotonic()

    def check(self, arrivals: Arrivals) -> int:
        """Nothing that was accepted is missing, and each device's events arrived in the order in which they were accepted.

        Gives how many events were set aside in quarantine: the process was killed three times in a row with the same one in flight.
        """
        aside = {record.body for record in iter_records(self.folder)}
        for life in range(self.lives):
            for thread in range(THREADS):
                count = self._counts[life * THREADS + thread]
                missing = [each for each in arrivals.missing(life, thread, count) if not _is_among(aside, f"{life}-{thread}-{each}")]
                assert not missing, f"life {life}, thread {thread}: {len(missing)} of {count} are lost, the first is {missing[0]}"
                unsaid = arrivals.unsaid(life, thread, count)
                assert unsaid <= 1, f"life {life}, thread {thread}: {unsaid} arrived that were not accepted"
        assert not arrivals.disorder, f"{len(arrivals.disorder)} are out of order, the first is {arrivals.disorder[0]}"
        return len(aside)


def _is_among(bodies: set[bytes], insert_id: str) -> bool:
    return any(orjson.loads(body)["insert_id"] == insert_id for body in bodies)


def kill_at_random(folder: Path, kills: int, *, seed: int, longest: float, rate: int) -> dict[str, float]:
    """Kill one process after the other at random moments, let the next one adopt what it left, and check everything; give the figures.

    Under this load a process that lives for so short a time sends less than it accepts; after each five of them one without load sends the rest.
    """
    chance = random.Random(seed)
    arrivals = Arrivals()
    seconds = 0.0
    with Server(answering(arrivals)) as server:
        lives = Lives(server.url, folder / "spool", kills, rate=rate)
        with lives.mother() as mother:
            for life in range(kills):
                child, began = lives.begin(mother, life)
                time.sleep(chance.random() * longest)  # the random moment
                seconds += time.monotonic() - began
                os.kill(child, signal.SIGKILL)
                assert int(line(mother)) == signal.SIGKILL
                if life % 5 == 4:
                    replay(server, lives.folder, seconds=300.0)
        replay(server, lives.folder, seconds=300.0)
        aside = lives.check(arrivals)
    accepted = sum(map(lives.accepted, range(kills)))
    return {"kills": kills, "accepted": accepted, "a_second": accepted / seconds, "sent": arrivals.events, "set_aside": aside}


def run_for(seconds: float, folder: Path, *, seed: int, rate: int) -> dict[str, float]:
    """Let processes live for a minute or less, with a server and a network at fault, and end by a kill or in order; give the figures."""
    chance = random.Random(seed)
    arrivals, faults = Arrivals(), Faults(chance)
    most = int(seconds // 20) + 1
    end = time.monotonic() + seconds
    peak: Counter[str] = Counter()
    with Server(answering(arrivals, faults)) as server:
        lives = Lives(server.url, folder / "spool", most, rate=rate, max_cached_events=4_000, retry_timeouts=[0.05] * 3 + [0.5] * 2_000)
        with lives.mother() as mother:
            for life in range(most):
                child, began = lives.begin(mother, life)
                stop = min(began + chance.uniform(20, 60), end)
                while time.monotonic() < stop:
                    time.sleep(min(1.0, max(0.0, stop - time.monotonic())))
                    tell(mother, "stats")
                    assert orjson.loads(line(mother))["balanced"]
                    peak |= Counter(_size_of(child))
                if is_kill := chance.random() < 0.5:
                    os.kill(child, signal.SIGKILL)
                else:
                    tell(mother, "leave")
                assert int(line(mother)) == (signal.SIGKILL if is_kill else 0)
                if time.monotonic() >= end:
                    break
        faults.are_over = True
        replay(server, lives.folder, seconds=300.0)
        aside = lives.check(arrivals)
    return {
        **peak,
        **faults.met,
        "lives": life + 1,
        "accepted": sum(map(lives.accepted, range(most))),
        "sent": arrivals.events,
        "set_aside": aside,
    }


def _size_of(process: int) -> dict[str, int]:
    """Give the memory of a process in MiB, its threads and its descriptors."""
    status = dict(each.split(":", 1) for each in Path(f"/proc/{process}/status").read_text().splitlines() if ":" in each)
    descriptors = len(list(Path(f"/proc/{process}/fd").iterdir()))
    return {"mebibytes": int(status["VmRSS"].split()[0]) // 1024, "threads": int(status["Threads"]), "descriptors": descriptors}


def tell(process: Popen[str], word: object) -> None:
    """Write a line to a program."""
    assert process.stdin is not None
    process.stdin.write(f"{word}\n")
    process.stdin.flush()


def line(process: Popen[str]) -> str:
    """Read a line that a program says."""
    assert process.stdout is not None
    return process.stdout.readline()
