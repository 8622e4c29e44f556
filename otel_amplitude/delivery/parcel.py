"""One accepted event on its way: the bytes that travel, and the ids that a server may throttle."""

from __future__ import annotations


class Parcel:
    """One event, encoded once; every transmission sends the same bytes. Nothing changes it: what delivery learns is kept by number.

    A source may subclass it to carry a position of its own: without a spool, observers get the very object that was submitted.

    Attributes:
        body: the bytes of one event, a JSON object without trailing comma.
        ids: the ids that a server may throttle; the first decides the shard. Never empty.
        accepted_ms: when it was accepted, in milliseconds since the epoch.
    """

    __slots__ = ("accepted_ms", "body", "ids")

    def __init__(self, body: bytes, ids: tuple[str, ...], accepted_ms: int) -> None:
        self.body = body
        self.ids = ids
        self.accepted_ms = accepted_ms
