"""Directories that the first engine wrote are read, and what this one writes is of the same format: two versions may share a directory."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import orjson
import pytest
from parcels import Memory, acknowledged

from otel_amplitude.delivery.batch_exporter import BatchExporter
from otel_amplitude.delivery.disk.spool import Spool
from otel_amplitude.delivery.dispatcher import Batch, DeliveryOptions
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.receipt import Receipt
from otel_amplitude.exporter import read_ids

DATA = Path(__file__).parents[1] / "data" / "spool_v1"
FINGERPRINT = "0aa1ad67"
PATIENCE = 30.0


def wall() -> float:
    """A minute after the files were made."""
    return struct.unpack_from("<Q", (DATA / "whole.seg").read_bytes(), 12)[0] / 1000 + 60.0


class Post(BatchExporter):
    """Remembers what it sends; acknowledges it, unless the test says otherwise."""

    def __init__(self, directory: Path, answer: Callable[[Batch], Receipt] = acknowledged) -> None:
        self.answer = answer
        self.sent: list[bytes] = []
        self.memory = Memory()
        super().__init__(
            DeliveryOptions(upload_interval=0.001),
            observers=(self.memory,),
            spool=Spool(directory, FINGERPRINT, min_free=0, wall=wall),
            read_ids=read_ids,
            wall=wall,
        )

    def send_batch(self, batch: Batch, deadline: float) -> Receipt:
        self.sent += [each.body for each in batch]
        return self.answer(batch)


def left(directory: Path, content: bytes) -> Path:
    """Put a segment where the first engine had it, in the directory of a process that ended."""
    place = directory / FINGERPRINT / "vm-3934-035662f3"
    for each in (directory, place.parent, place):
        each.mkdir(0o700)
    (place / "lock").touch(0o600)
    (place / "00000001.seg").write_bytes(content)
    return place


def expected(kind: str, *numbers: int) -> list[bytes]:
    """The bytes of the events, as the first engine encoded them."""
    return [
        orjson.dumps(
            {
                "event_type": "Order Paid",
                "user_id": "user-12345",
                "device_id": f"device-{number % 2}",
                "insert_id": f"{kind}-{number}",
                "time": 1790000000000 + number,
                "event_properties": {"total": number, "text": "žluťoučký kůň"},
            }
        )
        for number in numbers
    ]


def parsed(bodies: list[bytes]) -> list[object]:
    """The same without what the client adds, such as `library`."""
    wanted = ("event_type", "user_id", "device_id", "insert_id", "time", "event_properties")
    return [{name: event[name] for name in wanted} for event in map(orjson.loads, bodies)]


@pytest.mark.parametrize(("kind", "numbers"), [("whole", range(5)), ("part", range(2, 5))])
def test_what_the_first_engine_left_is_sent(tmp_path: Path, kind: str, numbers: range) -> None:
    """All that was not acknowledged, in order, in the bytes that lie there; then nothing is left."""
    content = (DATA / f"{kind}.seg").read_bytes()
    left(tmp_path / "spool", content)
    post = Post(tmp_path / "spool")
    assert post.flush(PATIENCE)
    assert parsed(post.sent) == parsed(expected(kind, *numbers))
    assert all(body in content for body in post.sent)
    assert (post.stats().adopted, post.stats().acknowledged, post.stats().dropped) == (len(numbers), len(numbers), {})
    assert post.shutdown(PATIENCE)
    assert not list((tmp_path / "spool").glob("*/*"))


def test_a_torn_end_of_the_first_engine_is_silent(tmp_path: Path) -> None:
    """A write that did not return was never accepted: wherever it ends, the others are sent and nothing counts as damage."""
    content = (DATA / "whole.seg").read_bytes()
    last = content.rindex(b'{"event_type"') - 20
    for end in range(last, len(content), 17):
        directory = tmp_path / str(end)
        left(directory, content[:end])
        post = Post(directory)
        assert post.flush(PATIENCE)
        assert parsed(post.sent) == parsed(expected("whole", *range(4)))
        assert (post.stats().adopted, post.stats().dropped) == (4, {})
        assert post.shutdown(PATIENCE)


def test_a_directory_whose_owner_lives_is_left_alone(tmp_path: Path) -> None:
    """A process with the first engine keeps its events while it runs; the next start after its end sends them."""
    place = left(tmp_path / "spool", (DATA / "whole.seg").read_bytes())
    owner = os.open(place / "lock", os.O_RDWR)
    fcntl.flock(owner, fcntl.LOCK_EX)
    post = Post(tmp_path / "spool")
    assert post.submit(Parcel(b'{"event_type":"new"}', ("",), int(wall() * 1000)))
    assert post.flush(PATIENCE)
    assert (post.stats().adopted, post.sent) == (0, [b'{"event_type":"new"}'])
    assert post.shutdown(PATIENCE)
    os.close(owner)
    later = Post(tmp_path / "spool")
    assert later.flush(PATIENCE)
    assert parsed(later.sent) == parsed(expected("whole", *range(5)))
    assert later.shutdown(PATIENCE)


def read_as_first_engine(content: bytes) -> list[bytes]:
    """What the first engine reads of a segment: every field that it looks at, nothing else."""
    magic, version, _, _, _ = struct.unpack_from("<8sHHQH", content)
    assert (magic, version) == (b"OTAMPSG1", 1)
    low_water, newest = 64, 0
    for at in (22, 38):
        offset, generation, crc = struct.unpack_from("<QII", content, at)
        if crc == crc32(content[at : at + 12]) and generation > newest:
            low_water, newest = offset, generation
    found = []
    while low_water < len(content):
        length, crc, kind, _ = struct.unpack_from("<IIIQ", content, low_water)
        assert crc == crc32(content[low_water + 8 : low_water + 20 + length])
        assert kind == 1
        found.append(content[low_water + 20 : low_water + 20 + length])
        low_water += 20 + length
    return found


def test_what_this_engine_leaves_is_read_by_the_first_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own events, and those that it adopted and had in flight: the first engine finds all that was not acknowledged, and no more."""
    monkeypatch.setattr("otel_amplitude.delivery.worker.GRACE_SECONDS", PATIENCE)  # a loaded machine may take longer to leave the files
    place = left(tmp_path / "spool", (DATA / "whole.seg").read_bytes())
    seen: list[list[bytes]] = []

    def answer(batch: Batch) -> Receipt:
        seen.append(read_as_first_engine((place / "00000001.seg").read_bytes()))  # while it is noted that these are in flight
        raise OSError("the network is down")

    post = Post(tmp_path / "spool", answer)
    own = [b'{"event_type":"new","user_id":"user-%d"}' % number for number in range(3)]
    for body in own:
        assert post.submit(Parcel(body, ("user",), int(wall() * 1000)))
    assert not post.flush(0.3)
    assert not post.shutdown(0.5)
    assert seen
    assert parsed(seen[0]) == parsed(expected("whole", *range(5)))
    segments = sorted((tmp_path / "spool").glob("*/*/*.seg"), key=lambda path: path.parent != place)
    assert [body for path in segments for body in read_as_first_engine(path.read_bytes())] == [*seen[0], *own]
