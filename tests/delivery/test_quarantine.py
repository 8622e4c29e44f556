"""An event whose sending ends the process is set aside after three ends; ends for other reasons make nothing slower."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from delivery.left_behind import leave
from parcels import Memory, acknowledged, names
from spool_tools import FINGERPRINT, NOW_MS, Clock, make, segments

from otel_amplitude.cli import main
from otel_amplitude.delivery.batch_exporter import BatchExporter
from otel_amplitude.delivery.disk import format as layout
from otel_amplitude.delivery.disk.inspect import inspect, iter_records
from otel_amplitude.delivery.disk.spool import Spool
from otel_amplitude.delivery.dispatcher import Batch, DeliveryOptions
from otel_amplitude.delivery.receipt import Receipt
from otel_amplitude.sandbox import Sandbox

KEY = "0123456789abcdef0123456789abcdef"
PATIENCE = 30.0


def wall() -> float:
    return NOW_MS / 1000


class Post(BatchExporter):
    """Acknowledges everything; remembers each request, and how many were in flight with it at most."""

    def __init__(self, directory: Path) -> None:
        self.memory = Memory()
        self.sent: list[list[str]] = []
        self.together: list[int] = []
        self._flying = 0
        self._counting = threading.Lock()
        super().__init__(
            DeliveryOptions(upload_interval=0.001, max_batch_events=100),
            observers=(self.memory,),
            spool=Spool(directory, FINGERPRINT, min_free=0, wall=wall),
            read_ids=lambda body: (body.split()[0].decode(),),
            wall=wall,
        )

    def send_batch(self, batch: Batch, deadline: float) -> Receipt:
        with self._counting:
            self._flying += 1
            self.together.append(self._flying)
            self.sent.append(names(batch))
        with self._counting:
            self._flying -= 1
        return acknowledged(batch)


def left_behind(directory: Path, events: int, first: int, last: int, ends: int) -> None:
    """Write what a process leaves that was killed while events `first` to `last` were in flight, after `ends` ends like this."""
    leave(directory, FINGERPRINT, (b"u%d" % number for number in range(events)), NOW_MS, in_flight=(first, last, ends))


def texts(*numbers: int) -> list[str]:
    return [f"u{number}" for number in numbers]


def test_one_end_makes_nothing_slower(tmp_path: Path) -> None:
    """Processes are killed for many reasons: what was in flight is sent in full requests by the next one."""
    left_behind(tmp_path / "spool", 100, 0, 99, 0)
    post = Post(tmp_path / "spool")
    assert post.flush(PATIENCE)
    assert post.sent == [texts(*range(100))]
    assert post.shutdown(PATIENCE)


def test_after_two_ends_what_was_in_flight_is_sent_in_small_groups(tmp_path: Path) -> None:
    """The event that was first both times goes by itself, those behind it in eight groups, with nothing else in flight; others as ever."""
    left_behind(tmp_path / "spool", 100, 10, 75, 1)
    post = Post(tmp_path / "spool")
    assert post.flush(PATIENCE)
    assert [each for batch in post.sent for each in batch] == texts(*range(100))
    groups = [batch for batch in post.sent if set(batch) & set(texts(*range(10, 76)))]
    assert groups[0] == ["u10"]
    assert [len(batch) for batch in groups] == [1, *[8] * 8, 1]
    assert not {*texts(*range(10)), *texts(*range(76, 100))} & {each for batch in groups for each in batch}
    assert max(post.together) == 1
    assert post.shutdown(PATIENCE)


def test_one_that_was_alone_is_sent_alone_again(tmp_path: Path) -> None:
    """It was found by its group: from its first end on it meets no other event."""
    left_behind(tmp_path / "spool", 5, 2, 2, 0)
    post = Post(tmp_path / "spool")
    assert post.flush(PATIENCE)
    assert post.sent == [texts(0, 1), texts(2), texts(3, 4)]
    assert post.shutdown(PATIENCE)


def test_a_mark_is_taken_back_after_a_second_in_flight(tmp_path: Path) -> None:
    """A process that is killed while a server does not answer blames no event: one whose sending ends the process does so at once."""
    left_behind(tmp_path / "spool", 5, 0, 4, 0)
    clock = Clock()
    store = make(tmp_path / "spool", clock)
    store.maintain()
    (segment,), (path,) = store.queue.segments, segments(tmp_path / "spool")

    def marked() -> int:
        header = layout.read_header(path.read_bytes()[: layout.HEADER_BYTES])
        assert header is not None
        return header.suspects.first

    store.disk.mark([(segment, 1, 1)], None)
    assert marked()
    clock.now += 1.0
    store.maintain()
    assert not marked()


def test_after_three_ends_it_is_set_aside(tmp_path: Path) -> None:
    """Fault row 81: the others are sent, and it is counted, named in the log, and kept where the commands find it."""
    left_behind(tmp_path / "spool", 5, 2, 2, 2)
    post = Post(tmp_path / "spool")
    assert post.flush(PATIENCE)
    assert [each for batch in post.sent for each in batch] == texts(0, 1, 3, 4)
    stats = post.stats()
    assert (stats.adopted, stats.acknowledged, stats.dropped, stats.balanced) == (5, 4, {"quarantined": 1}, True)
    assert ("dropped", "quarantined", 1) in post.memory.told
    assert post.shutdown(PATIENCE)
    (segment,) = inspect(tmp_path / "spool")
    assert (segment.process, segment.records, segment.foreign, segment.alive) == ("quarantine", 1, False, False)
    assert [record.body for record in iter_records(tmp_path / "spool")] == [b"u2"]
    later = Post(tmp_path / "spool")
    assert later.flush(PATIENCE)
    assert (later.stats().adopted, later.sent) == (0, [])
    assert later.shutdown(PATIENCE)


@pytest.mark.parametrize("number", range(1, 12))
def test_a_disk_that_fails_meanwhile_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Whichever write fails: each event is sent or set aside, none of them is in neither place, and the counters are balanced."""
    left_behind(tmp_path / "spool", 5, 2, 2, 2)
    real, calls = os.pwrite, iter(range(1, 1_000))

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        if next(calls) == number:
            raise OSError(28, "No space left on device")
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", pwrite)
    post = Post(tmp_path / "spool")
    assert post.flush(PATIENCE)
    assert post.shutdown(PATIENCE)
    monkeypatch.undo()
    sent = [each for batch in post.sent for each in batch]
    aside = [record.body.decode() for record in iter_records(tmp_path / "spool")]
    assert set(sent) | set(aside) == set(texts(*range(5)))
    assert len(sent) == len(set(sent))
    assert post.stats().balanced


# Starts one process after the other, each with its events, until one is not ended by an event; says how each ended.
APP = """
import json, os, sys
from otel_amplitude import Amplitude, Config, Response
class Deadly:
    def send(self, request):
        if b"DEADLY" in request.body:
            os._exit(9)  # stands for a segmentation fault in a C extension
        return Response(200, {}, b'{"code":200}')
    def close(self): pass
def start(names):
    client = Amplitude(Config(sys.argv[1], server_url=sys.argv[2], spool_dir=sys.argv[3], transport=Deadly(), upload_interval=3600, compression="none"))
    for name in names:
        assert client.log_event({"event_type": name, "user_id": "user-12345", "insert_id": name}).accepted
    client.flush(20)
    books = client.stats()
    assert books.balanced
    client.shutdown(5)
    print(books.adopted, books.acknowledged, dict(books.dropped), flush=True)
names = json.loads(sys.argv[4])
while True:
    child = os.fork()
    if child == 0:
        start(names)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(code, flush=True)
    if code == 0:
        break
    names = ["later"]
"""


def starts(url: str, folder: Path, *events: str) -> list[str]:
    """Start processes until one ends in order; give what was said."""
    done = subprocess.run(
        [sys.executable, "-c", APP, KEY, url, str(folder), json.dumps(events)], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@pytest.mark.heavy
@pytest.mark.timeout(120)
def test_an_event_that_ends_the_process_ends_three_later_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then all others are sent, `spool ls` shows it, and `convert --spool --send` sends it."""
    folder = tmp_path / "spool"
    with Sandbox() as sandbox:
        url = sandbox.url + "/2/httpapi"
        assert starts(url, folder, "DEADLY", "fine") == ["9", "9", "9", "9", "5 5 {'quarantined': 1}", "0"]
        assert starts(url, folder, "fine") == ["0 1 {}", "0"]
        monkeypatch.setenv("OTEL_EXPORTER_AMPLITUDE_API_KEY", KEY)
        monkeypatch.setenv("OTEL_EXPORTER_AMPLITUDE_SERVER_URL", url)

        def command(*words: str) -> Any:
            assert main([*words]) == 0
            return capsys.readouterr().out

        (segment,) = json.loads(command("spool", "ls", str(folder), "--json"))
        assert (segment["process"], segment["records"]) == ("quarantine", 1)
        assert "quarantine" in command("spool", "ls", str(folder))
        command("convert", "--spool", str(folder), "--send")
        assert [event["insert_id"] for event in sandbox.events()] == ["DEADLY"]


@pytest.mark.heavy
@pytest.mark.timeout(120)
def test_one_that_is_hidden_among_many_is_found_within_few_ends(tmp_path: Path) -> None:
    """Each end leaves an eighth of the events to be looked at: for one in the middle of nine hundred six more ends are enough."""
    folder = tmp_path / "spool"
    said = starts("http://127.0.0.1:9/2/httpapi", folder, *(f"fine-{number}" for number in range(443)), "DEADLY", *map(str, range(456)))
    assert said[:7] == ["9"] * 7
    adopted, acknowledged, dropped = said[7].split(maxsplit=2)
    assert (adopted == acknowledged, dropped, said[8:]) == (True, "{'quarantined': 1}", ["0"])
