"""The format: what is written is read, and damage costs what it touches."""

from __future__ import annotations

import struct
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_amplitude.delivery.disk import format as layout

BODIES = [b'{"insert_id":"%d","text":"%s"}' % (number, b"x" * number) for number in range(20)]


def segment(bodies: list[bytes] = BODIES, low_water: int | None = None) -> bytes:
    data = bytearray(layout.write_header(1_790_000_000_000))
    if low_water is not None:
        at, slot = layout.write_slot(low_water, 1)
        data[at : at + len(slot)] = slot
    for number, body in enumerate(bodies):
        data += layout.write_record(body, 1_790_000_000_000 + number)
    return bytes(data)


def bodies_of(content: layout.Content | None) -> list[bytes]:
    return [record.body for record in content.records] if content else []


def test_header_and_record_are_laid_out_as_documented() -> None:
    """Another version, or a tool in another language, can rely on every offset."""
    data = segment([b"{}"])
    assert data[:8] == b"OTAMPSG1"
    assert struct.unpack_from("<HHQH", data, 8) == (1, 0, 1_790_000_000_000, 1)
    assert data[22:64] == bytes(42)
    rest = struct.pack("<B3xQ", 1, 1_790_000_000_000) + b"{}"
    assert data[64:] == struct.pack("<II", 2, crc32(rest)) + rest


@given(st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 2**64 - 1)), max_size=30))
def test_what_was_written_is_read(items: list[tuple[bytes, int]]) -> None:
    """Any bytes and any time come back, in order."""
    data = layout.write_header(0) + b"".join(layout.write_record(body, ms) for body, ms in items)
    content = layout.read_segment(data)
    assert content is not None
    assert [(record.body, record.accepted_ms) for record in content.records] == items
    assert content.damaged == 0


@given(st.binary(max_size=2_000))
def test_any_bytes_are_read_without_an_exception(data: bytes) -> None:
    """Whatever lies in a file, reading ends with an answer."""
    layout.read_segment(data)
    layout.read_segment(layout.write_header(0) + data)


@pytest.mark.parametrize("low_water", [None, 64 + len(layout.write_record(BODIES[0], 0))])
@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_a_flipped_byte_costs_at_most_its_record(mask: int, low_water: int | None) -> None:
    """Only the ten bytes that name the format make the whole segment foreign, and then it is left untouched."""
    data = segment(low_water=low_water)
    written = set(BODIES)
    expected = len(BODIES) - (low_water is not None)
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= mask
        content = layout.read_segment(bytes(damaged))
        found = bodies_of(content)
        assert set(found) <= written
        assert len(found) == len(set(found))
        if content is None:
            assert at < 10
        else:
            assert len(found) >= expected - 1
            assert len(found) + content.damaged >= expected or at >= len(data) - len(layout.write_record(BODIES[-1], 0))


def test_a_removed_byte_costs_at_most_its_record() -> None:
    """What follows is found again, though every offset has changed."""
    data = segment()
    for at in range(10, len(data)):
        found = bodies_of(layout.read_segment(data[:at] + data[at + 1 :]))
        assert set(found) <= set(BODIES)
        assert len(found) >= len(BODIES) - 1


def test_a_segment_cut_anywhere_gives_what_lies_before_the_cut() -> None:
    """A torn end is silent, in every segment: the append that wrote it did not return."""
    data = segment()
    ends = [64]
    for body in BODIES:
        ends.append(ends[-1] + layout.RECORD_BYTES + len(body))
    for at in range(len(data)):
        whole = max(0, sum(end <= at for end in ends) - 1)
        found = layout.read_segment(data[:at])
        assert found is not None
        assert bodies_of(found) == BODIES[:whole]
        assert found.damaged == 0


def test_a_zero_tail_is_torn() -> None:
    """A power cut may leave a longer file than was written, filled with zeros."""
    content = layout.read_segment(segment() + bytes(5_000))
    assert bodies_of(content) == BODIES
    assert content is not None
    assert content.damaged == 0


@pytest.mark.parametrize("data", [b"", b"OTAMPSG1", bytes(64), bytes(5_000)])
def test_what_a_crash_leaves_of_a_new_segment_is_empty(data: bytes) -> None:
    """Half a header, or zeros, is no event and no damage."""
    content = layout.read_segment(data)
    assert content is not None
    assert (content.records, content.damaged) == ([], 0)


def test_another_version_or_record_type_is_foreign() -> None:
    """What this version does not know it neither reads nor calls damaged."""
    data = segment()
    newer = data[:8] + struct.pack("<H", 2) + data[10:]
    assert layout.read_segment(newer) is None
    rest = struct.pack("<B3xQ", 2, 0) + b"{}"
    assert layout.read_segment(data + struct.pack("<II", 2, crc32(rest)) + rest) is None


def test_a_file_larger_than_any_of_ours_is_foreign() -> None:
    """Planted gigabytes are not read."""
    assert layout.read_segment(segment() + bytes(layout.MAX_FILE_BYTES)) is None


def test_a_record_over_a_mebibyte_is_damage() -> None:
    """A length is not believed, even where its checksum is right."""
    big = layout.write_record(b"x" * (layout.MAX_RECORD_BYTES + 1), 0)
    content = layout.read_segment(segment(BODIES[:1]) + big + layout.write_record(BODIES[1], 0))
    assert bodies_of(content) == BODIES[:2]
    assert content is not None
    assert content.damaged == 1


def test_planted_bytes_can_not_cost_minutes() -> None:
    """A segment full of headers that never verify is given up after a bounded search."""
    planted = struct.pack("<III", layout.MAX_RECORD_BYTES, 0, 1) * (2 * 2**20 // 12)
    content = layout.read_segment(layout.write_header(0) + planted)
    assert content is not None
    assert content.records == []
    assert content.damaged > 1


def test_the_newest_valid_slot_is_the_low_water_mark() -> None:
    """Slots alternate; a damaged one costs a repetition, never an event."""
    data = bytearray(segment(BODIES[:3]))
    first = layout.RECORD_BYTES + len(BODIES[0]) + 64
    second = first + layout.RECORD_BYTES + len(BODIES[1])
    places = []
    for generation, offset in ((1, first), (2, second)):
        at, slot = layout.write_slot(offset, generation)
        data[at : at + len(slot)] = slot
        places.append(at)
    assert len(set(places)) == 2
    assert bodies_of(layout.read_segment(bytes(data))) == BODIES[2:3]
    data[places[1]] ^= 1
    assert bodies_of(layout.read_segment(bytes(data))) == BODIES[1:3]


@pytest.mark.parametrize("offset", [0, 63, 10**9])
def test_a_low_water_mark_outside_the_file_is_ignored(offset: int) -> None:
    """A slot with a right checksum and a wrong offset hides nothing."""
    assert bodies_of(layout.read_segment(segment(low_water=offset))) == BODIES


def test_starts_stay_at_their_end() -> None:
    """The number of process starts does not wrap."""
    assert layout.write_starts(70_000) == b"\xff\xff"
