"""Segments as processes leave them that were killed, written byte by byte."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from otel_amplitude.delivery.disk import format as layout


def leave(
    directory: Path,
    fingerprint: str,
    bodies: Iterable[bytes],
    accepted_ms: int,
    *,
    process: int = 1,
    in_flight: tuple[int, int, int] | None = None,
) -> Path:
    """Write a directory with these events, in segments as full as they are; give it.

    Args:
        directory: the spool directory.
        fingerprint: that of endpoint and key.
        bodies: the events.
        accepted_ms: when all of them were accepted.
        process: a number of the process.
        in_flight: the first and the last event that were in flight when it was killed, and how many processes ended so before.
    """
    place = directory / fingerprint / f"host-{process}-{process:08x}"
    for each in (directory, place.parent, place):
        each.mkdir(0o700, exist_ok=True)
    records = [layout.write_record(body, accepted_ms) for body in bodies]
    number = at = 0
    while at < len(records):
        content = bytearray(layout.write_header(accepted_ms))
        starts: list[int] = []
        while at < len(records) and len(content) + len(records[at]) <= layout.SEGMENT_BYTES:
            starts.append(len(content))
            content += records[at]
            at += 1
        if in_flight is not None:
            first, last, ends = in_flight
            suspects = layout.write_suspects(layout.Suspects(starts[first], starts[last], ends))
            content[layout.SUSPECTS_AT : layout.SUSPECTS_AT + len(suspects)] = suspects
        number += 1
        (place / f"{number:08d}.seg").write_bytes(content)
    return place
