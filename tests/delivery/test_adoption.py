"""What many processes, or one with much, left on disk: all of it is taken over, in order, and new events do not wait for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from delivery.left_behind import leave
from parcels import acknowledged, names
from spool_tools import FINGERPRINT, NOW_MS

from otel_amplitude import Amplitude, Config
from otel_amplitude.delivery.batch_exporter import BatchExporter
from otel_amplitude.delivery.disk.segment_file import SegmentFile
from otel_amplitude.delivery.disk.spool import Spool, fingerprint
from otel_amplitude.delivery.dispatcher import Batch, DeliveryOptions
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.receipt import Receipt
from otel_amplitude.testing import FakeTransport, answer

KEY = "0123456789abcdef0123456789abcdef"
URL = "http://127.0.0.1:9/2/httpapi"
PATIENCE = 60.0


def wall() -> float:
    return NOW_MS / 1000


class Post(BatchExporter):
    """Acknowledges everything; remembers each request. A body is `NUMBER|ID` and padding."""

    def __init__(self, directory: Path, answer: Callable[[Batch], Receipt] = acknowledged, **options: Any) -> None:
        self.sent: list[list[str]] = []
        self.answer = answer
        super().__init__(
            DeliveryOptions(**{"upload_interval": 0.001, **options}),
            spool=Spool(directory, FINGERPRINT, min_free=0, wall=wall, max_bytes=2**30),
            read_ids=lambda body: (body.split()[0].decode().partition("|")[2],),
            wall=wall,
        )

    def send_batch(self, batch: Batch, deadline: float) -> Receipt:
        self.sent.append(names(batch))
        return self.answer(batch)


def old(number: int, of: int, size: int = 20) -> bytes:
    return (b"%d|old-%d" % (number, number % of)).ljust(size)


def in_order(post: Post) -> dict[str, list[int]]:
    """The numbers of the events that were sent of each id, in their order."""
    found: dict[str, list[int]] = {}
    for batch in post.sent:
        for name in batch:
            number, _, one = name.partition("|")
            found.setdefault(one, []).append(int(number) if number.isdigit() else -1)
    return found


def test_one_flush_takes_over_every_directory(tmp_path: Path) -> None:
    """Fault row X9: forty processes ended, and a flush that says True has sent what all of them left."""
    for process in range(40):
        leave(tmp_path / "spool", FINGERPRINT, [old(process, 40)], NOW_MS, process=process + 1)
    post = Post(tmp_path / "spool")
    assert post.submit(Parcel(b"new|new", ("new",), NOW_MS))
    assert post.flush(PATIENCE)
    assert {name for batch in post.sent for name in batch} == {"new|new", *(f"{number}|old-{number}" for number in range(40))}
    assert post.stats().adopted == 40
    assert post.shutdown(PATIENCE)
    assert not list((tmp_path / "spool").glob("*/*"))


def test_what_an_earlier_process_left_goes_before_what_a_later_one_did(tmp_path: Path) -> None:
    """Each of them was started after the one before it was killed, and their numbers began anew: an id's events keep their order."""
    for age, process in enumerate((99_998, 99_999, 100_001, 7, 8)):
        leave(tmp_path / "spool", FINGERPRINT, [b"%d|one" % (2 * age), b"%d|one" % (2 * age + 1)], NOW_MS - 60_000 + age, process=process)
    post = Post(tmp_path / "spool")
    assert post.flush(PATIENCE)
    assert in_order(post) == {"one": list(range(10))}
    assert post.shutdown(PATIENCE)


@pytest.mark.parametrize("of", [1, 1_000])
def test_a_new_event_does_not_wait_for_a_backlog(tmp_path: Path, of: int) -> None:
    """Fault row 82: of ten thousand events on disk a few requests are sent before the first new event of another id, however it is counted."""
    leave(tmp_path / "spool", FINGERPRINT, (old(number, of, 100) for number in range(10_000)), NOW_MS)
    begun, gone = threading.Event(), threading.Event()

    def answer(batch: Batch) -> Receipt:
        if any(name.startswith("new") for name in names(batch)):
            gone.set()
        begun.set()
        return acknowledged(batch)

    post = Post(tmp_path / "spool", answer, max_batch_events=100, max_in_flight=1)
    assert post.submit(Parcel(b"new-1|new", ("new",), NOW_MS))
    assert begun.wait(PATIENCE)
    before = len(post.sent)
    assert post.submit(Parcel(b"new-2|newer", ("newer",), NOW_MS))
    assert gone.wait(PATIENCE)
    assert post.flush(PATIENCE)
    place = {name: at for at, batch in enumerate(post.sent) for name in batch}
    assert place["new-1|new"] <= 5
    assert place["new-2|newer"] <= before + 10
    numbers = in_order(post)
    assert [numbers[f"old-{one}"] for one in range(of)] == [list(range(one, 10_000, of)) for one in range(of)]
    assert post.shutdown(PATIENCE)


def test_a_backlog_above_the_memory_is_read_in_large_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has to wait for an answer leaves the memory, and comes back with what follows it: requests stay full, whatever their ids are."""
    loads: list[int] = []
    real = SegmentFile.load

    def load(self: SegmentFile, positions: Any, most_bytes: int) -> Any:
        loaded = real(self, positions, most_bytes)
        loads.append(len(loaded.records))
        return loaded

    monkeypatch.setattr(SegmentFile, "load", load)
    leave(tmp_path / "spool", FINGERPRINT, (old(number, 500) for number in range(8_000)), NOW_MS)
    post = Post(tmp_path / "spool", max_cached_events=1_600, max_batch_events=200)
    assert post.flush(PATIENCE)
    assert post.stats().acknowledged == 8_000
    assert len(post.sent) <= 80  # 40 full ones
    assert len(loads) <= 120
    assert in_order(post) == {f"old-{one}": list(range(one, 8_000, 500)) for one in range(500)}
    assert post._worker().queue.used_events == 0
    assert post.shutdown(PATIENCE)


def event(name: str) -> bytes:
    return b'{"event_type":"%b","device_id":"device-1","insert_id":"%b"}' % (name.encode(), name.encode())


PLANTED = {
    "closes the array and adds a key": b'{"event_type":"t","device_id":"device-1"}],"api_key":"ATTACKERS-KEY","x":[{}',
    "two objects": b'{"event_type":"t","device_id":"device-1"},{"event_type":"u","device_id":"device-1"}',
    "text behind it": b'{"event_type":"t","device_id":"device-1"}]',
    "a list": b'[{"event_type":"t","device_id":"device-1"}]',
    "no event": b'{"api_key":"ATTACKERS-KEY"}',
    "a type that is no text": b'{"event_type":{"a":1},"device_id":"device-1"}',
    "nothing": b"",
    "not UTF-8": b'{"event_type":"\xff","device_id":"device-1"}',
    "no JSON": b'{"event_type":NaN,"device_id":"device-1"}',
}


@pytest.mark.parametrize("is_read_later", [False, True])
@pytest.mark.parametrize("planted", PLANTED.values(), ids=PLANTED)
def test_a_planted_record_travels_under_no_key(tmp_path: Path, planted: bytes, is_read_later: bool) -> None:
    """Security row S10: its checksum is right, and still it is dropped as `spool_corrupt`; its neighbours are sent with our key alone."""
    bodies = [event("a"), planted, event("b")]
    if is_read_later:  # behind more than memory keeps: it is checked when it is loaded
        bodies = [*(event(f"e{number}") for number in range(60)), *bodies]
    leave(tmp_path / "spool", fingerprint(URL, KEY), bodies, int(time.time() * 1000))
    transport = FakeTransport(lambda _: answer(200))
    options: dict[str, Any] = {"max_cached_events": 10} if is_read_later else {}
    client = Amplitude(
        Config(KEY, server_url=URL, spool_dir=str(tmp_path / "spool"), transport=transport, compression="none", log_level="NONE", **options)
    )
    assert client.flush(PATIENCE)
    stats = client.stats()
    assert (stats.adopted, stats.acknowledged, stats.dropped, stats.balanced) == (len(bodies), len(bodies) - 1, {"spool_corrupt": 1}, True)
    assert client.shutdown(PATIENCE)
    assert all(b"ATTACKERS-KEY" not in recorded.request.body for recorded in transport.requests)
    assert {recorded.envelope["api_key"] for recorded in transport.requests} == {KEY}
    assert [each["insert_id"] for each in transport.events] == [
        *(f"e{number}" for number in range(60) if is_read_later), "a", "b"
    ]  # fmt: skip
