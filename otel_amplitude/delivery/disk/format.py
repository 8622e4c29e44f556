"""The format of a segment file, version 1: a header with two low-water slots, then records; bytes in, values out, no I/O.

::

    header, 64 bytes: magic "OTAMPSG1" | version u16 | flags u16 | created_ms u64 | starts u16 | slot | slot | suspects | zeros
    slot,   16 bytes: offset u64 | generation u32 | crc32 u32
    suspects, 9 bytes: first u32 | last u32 | ends u8
    record: length u32 | crc32 u32 (of type to payload) | type u8 | 3 zeros | accepted_ms u64 | payload

All numbers are little-endian; `length` is that of the payload, the frozen JSON of one event. JSON never holds a raw
control character, so the four bytes of a type can stand nowhere else: that is how reading goes on behind damage.

`starts` counts the processes that owned the segment since it was last closed in order. `suspects` are the offsets of the first and the
last event of the request in flight, or zeros: a process that finds them set knows what its predecessor was sending when it ended, and
`ends` counts how many ended one after the other with the same first event in flight. Written in adopted segments only.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple
from zlib import crc32

MAGIC: Final = b"OTAMPSG1"
VERSION: Final = 1
HEADER_BYTES: Final = 64
SLOT_BYTES: Final = 16
SLOTS_AT: Final = 22
STARTS_AT: Final = 20
SUSPECTS_AT: Final = 54
SEGMENT_BYTES: Final = 4 * 2**20
# Lengths on disk are not trusted: nothing honest comes near this.
MAX_RECORD_BYTES: Final = 2**20
# A file may exceed its segment size by nothing, so anything larger was not written by this version.
MAX_FILE_BYTES: Final = SEGMENT_BYTES + MAX_RECORD_BYTES

_HEADER: Final = struct.Struct("<8sHHQH")
_SUSPECTS: Final = struct.Struct("<IIB")
_SLOT: Final = struct.Struct("<QII")
_PREFIX: Final = struct.Struct("<II")
_REST: Final = struct.Struct("<IQ")
_RECORD: Final = struct.Struct("<IIIQ")
# the type and its three zeros, as one number
_EVENT: Final = 1
_MARK: Final = b"\x01\0\0\0"
RECORD_BYTES: Final = _RECORD.size
# How many bytes may be checked in vain for a record after damage, so that planted bytes can not cost minutes.
_SEARCH_BYTES: Final = 64 * 2**20


class Suspects(NamedTuple):
    """What was in flight: offsets of the first and last event, 0 for none, and how many processes ended with this first one in flight."""

    first: int = 0
    last: int = 0
    ends: int = 0


class Header(NamedTuple):
    """What the header of a segment says: birth, process starts that tried to send it, where unresolved records begin, and suspects."""

    created_ms: int
    starts: int
    low_water: int
    generation: int
    suspects: Suspects = Suspects()


class Found(NamedTuple):
    """One whole record: where it begins and ends in the file, its type, and what it holds."""

    start: int
    end: int
    kind: int
    accepted_ms: int
    body: bytes


class Scan(NamedTuple):
    """What a stretch of a segment holds.

    Attributes:
        records: the whole ones, in order.
        end: the offset behind the last whole one; what follows is torn, damaged or not yet complete.
        damaged: about how many records are lost between the whole ones.
        foreign: a record of a type this version does not know was met; nothing behind it was read.
    """

    records: list[Found]
    end: int
    damaged: int
    foreign: bool


def write_header(created_ms: int, starts: int = 1) -> bytes:
    """Give the 64 bytes a new segment begins with."""
    return _HEADER.pack(MAGIC, VERSION, 0, created_ms, starts).ljust(HEADER_BYTES, b"\0")


def write_starts(starts: int) -> bytes:
    """Give the two bytes for `STARTS_AT`; the number stays at its end rather than wrap."""
    return min(starts, 0xFFFF).to_bytes(2, "little")


def write_suspects(suspects: Suspects) -> bytes:
    """Give the bytes for `SUSPECTS_AT`."""
    return _SUSPECTS.pack(suspects.first, suspects.last, min(suspects.ends, 0xFF))


def write_slot(low_water: int, generation: int) -> tuple[int, bytes]:
    """Give offset and bytes of the slot for this generation; neighbours alternate, so that one torn write loses nothing."""
    head = _SLOT.pack(low_water, generation, 0)[:12]
    return SLOTS_AT + generation % 2 * SLOT_BYTES, head + crc32(head).to_bytes(4, "little")


def read_header(data: bytes) -> Header | None:
    """Read the header of a file of at least `HEADER_BYTES`; None: foreign, or written by another version, and to be left alone.

    A damaged slot is passed over: at worst, events are sent again with the same `insert_id`.
    """
    magic, version, _flags, created_ms, starts = _HEADER.unpack_from(data)
    if (magic, version) != (MAGIC, VERSION):
        return None
    low_water, generation = HEADER_BYTES, 0
    for at in (SLOTS_AT, SLOTS_AT + SLOT_BYTES):
        offset, number, crc = _SLOT.unpack_from(data, at)
        if crc == crc32(data[at : at + 12]) and number > generation and HEADER_BYTES <= offset <= len(data):
            low_water, generation = offset, number
    return Header(created_ms, starts, low_water, generation, Suspects(*_SUSPECTS.unpack_from(data, SUSPECTS_AT)))


def write_record(body: bytes, accepted_ms: int) -> bytes:
    """Give the bytes of one record.

    >>> len(write_record(b"{}", 0)) - RECORD_BYTES
    2
    """
    rest = _REST.pack(_EVENT, accepted_ms)
    return _PREFIX.pack(len(body), crc32(body, crc32(rest))) + rest + body


class Content(NamedTuple):
    """What a whole segment holds: its header, the records that are not resolved, and about how many are lost to damage."""

    header: Header
    records: list[Found]
    damaged: int


def read_segment(data: bytes) -> Content | None:
    """Read a whole segment file of at most one byte more than `MAX_FILE_BYTES`; None: not of this version, and to be left alone.

    An unfinished write at the end is no loss: the append that wrote it did not return.
    """
    if len(data) < HEADER_BYTES or not data.strip(b"\0"):  # what a crash leaves of a segment that was just made
        return Content(Header(0, 0, HEADER_BYTES, 0), [], 0)
    header = read_header(data)
    if header is None or len(data) > MAX_FILE_BYTES:
        return None
    found = scan(data, header.low_water)
    if found.foreign:
        return None
    torn = _is_torn(data[found.end :])
    damaged = found.damaged + (0 if torn or found.end == len(data) else _lost_between(data, found.end, len(data)))
    return Content(header, found.records, damaged)


def scan(data: bytes, start: int = 0, *, base: int = 0) -> Scan:
    """Read the records of `data` from `start` on, passing over damage; never raises, whatever the bytes are.

    Args:
        data: a stretch of a segment.
        start: where in it a record begins.
        base: added to every offset that is given back: where in the file `data` begins.
    """
    records: list[Found] = []
    at, end, damaged = start, start, 0
    while len(data) - at >= RECORD_BYTES:
        found = record_at(data, at, base) or _search(data, at, base)
        if found is None:
            break
        if found.kind != _EVENT:
            return Scan(records, end + base, damaged, foreign=True)
        if found.start > at + base:
            damaged += _lost_between(data, at, found.start - base)
        records.append(found)
        at = end = found.end - base
    return Scan(records, end + base, damaged, foreign=False)


def _is_torn(tail: bytes) -> bool:
    if len(tail) < RECORD_BYTES or not tail.strip(b"\0"):
        return True
    length: int = _PREFIX.unpack_from(tail)[0]
    return length <= MAX_RECORD_BYTES and RECORD_BYTES + length > len(tail)


def _lost_between(data: bytes, start: int, end: int) -> int:
    # at least the one whose damage was met; every intact type after it is one more
    return max(1, data.count(_MARK, start, end))


def record_at(data: bytes, at: int, base: int) -> Found | None:
    """Give the whole record that begins at `at`; None when there is none."""
    if len(data) - at < RECORD_BYTES:
        return None
    length, crc, kind, accepted_ms = _RECORD.unpack_from(data, at)
    end = at + RECORD_BYTES + length
    if length > MAX_RECORD_BYTES or end > len(data):
        return None
    checked = data[at + _PREFIX.size : end]
    return Found(base + at, base + end, kind, accepted_ms, checked[_REST.size :]) if crc == crc32(checked) else None


def _search(data: bytes, damaged_at: int, base: int) -> Found | None:
    """Give the next whole record behind damage."""
    spent = 0
    mark = data.find(_MARK, damaged_at + 1 + _PREFIX.size)
    while mark >= 0 and spent <= _SEARCH_BYTES and len(data) - mark >= _REST.size:
        at = mark - _PREFIX.size
        if found := record_at(data, at, base):
            return found
        spent += RECORD_BYTES + min(_PREFIX.unpack_from(data, at)[0], MAX_RECORD_BYTES)
        mark = data.find(_MARK, mark + 1)
    return None
