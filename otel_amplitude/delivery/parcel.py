"""What travels: frozen bytes and the ids that may be held."""

from __future__ import annotations


class Parcel:
    """One accepted item, encoded once; every transmission sends the same bytes.

    Attributes:
        body: the frozen bytes of one event, a JSON object without trailing comma.
        ids: the ids a server may throttle; the first decides the shard. Never empty.
        accepted_ms: when it was accepted, in milliseconds since the epoch; decides its age.
        attempts: requests that contained it and were charged to it. Written by the dispatcher alone.
        place: where it lies on disk, or None. Written by whoever reads or writes the spool.
        order: its number in the order of acceptance. Written by the dispatcher alone.
    """

    __slots__ = ("accepted_ms", "attempts", "body", "ids", "order", "place")

    def __init__(self, body: bytes, ids: tuple[str, ...], accepted_ms: int, place: object | None = None) -> None:
        self.body = body
        self.ids = ids
        self.accepted_ms = accepted_ms
        self.attempts = 0
        self.place = place
        self.order = 0
