"""How much of a sender's bytes is taken: sizes of one request, and the bytes of all requests together."""

from __future__ import annotations

import threading
import zlib
from dataclasses import dataclass
from typing import Final

_STEP: Final = 256 * 1024
_FREE_BYTES: Final = 2**20
_GZIP_OR_ZLIB: Final = 47  # the header decides
_ENCODINGS: Final = {"": 0, "identity": 0, "gzip": _GZIP_OR_ZLIB, "x-gzip": _GZIP_OR_ZLIB, "deflate": _GZIP_OR_ZLIB}


@dataclass(frozen=True, slots=True)
class Limits:
    """Numbers of the server.

    Attributes:
        max_body: bytes of one request, as sent and after decompression.
        max_in_flight: bytes of all requests that are being read, together. One request alone is always taken.
        max_connections: connections at the same time. Above it the longest idle one is closed.
        max_ratio: how often a body larger than 1 MiB may grow by decompression. Real OTLP grows 14 to 40 times.
        request_seconds: from the first byte of a request to its last.
        idle_seconds: how long a connection may wait for its next request.
    """

    max_body: int = 20 * 2**20
    max_in_flight: int = 64 * 2**20
    max_connections: int = 256
    max_ratio: int = 100
    request_seconds: float = 30.0
    idle_seconds: float = 75.0


class RefusedError(Exception):
    """A request is not taken.

    Attributes:
        status: the HTTP status of the answer.
        reason: one word for the counters.
        retry_after: seconds, for 503.
        drain: the rest of the body was not read, so the connection must be closed.
    """

    def __init__(self, status: int, reason: str, message: str, *, retry_after: int = 0, drain: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after
        self.drain = drain


class Budget:
    """Counts the bytes that all requests hold. Any thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self.used = 0

    def take(self, size: int, held: int) -> bool:
        """Take `size` more bytes for a request that holds `held`; False when there are too many. A request that is alone always gets them."""
        with self._lock:
            if self.used + size > self._most and self.used > held:
                return False
            self.used += size
            return True

    def give_back(self, size: int) -> None:
        """Give bytes back."""
        with self._lock:
            self.used -= size


class Hold:
    """The bytes that one request holds; a context manager that gives them back."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._held = 0

    def take(self, size: int) -> None:
        """Hold more bytes.

        Raises:
            RefusedError: 503, all requests together hold too many.
        """
        if not self._budget.take(size, self._held):
            raise RefusedError(503, "in_flight", "too many bytes are in flight: try again", retry_after=1, drain=True)
        self._held += size

    def __enter__(self) -> Hold:  # noqa: PYI034 -- Self needs Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.give_back(self._held)


def too_large(most: int) -> RefusedError:
    """Give the refusal of a body that is larger than `most` bytes."""
    return RefusedError(
        413, "too_large", f"a request must have at most {most:,} bytes after decompression: send smaller batches", drain=True
    )


def decoded(body: bytes, encoding: str, limits: Limits, hold: Hold) -> bytes:
    """Undo the content encoding of a body.

    Memory grows in steps of 256 KiB, and each step is taken from the budget before the next one.

    Args:
        body: as it was sent.
        encoding: the header `Content-Encoding`.
        limits: the sizes that are allowed.
        hold: takes the bytes.

    Raises:
        RefusedError: 400 for an encoding that is not known, or damaged data; 413 for too many bytes or too large a ratio; 503 over budget.
    """
    bits = _ENCODINGS.get(encoding.strip().lower())
    if bits is None:
        raise RefusedError(400, "encoding", f"Content-Encoding {encoding!r} is not known: send gzip, deflate or none")
    if not bits:
        return body
    parts: list[bytes] = []
    total, allowed = 0, min(limits.max_body, max(_FREE_BYTES, limits.max_ratio * len(body)))
    try:
        unpacker, left = zlib.decompressobj(bits), body
        while True:
            part = unpacker.decompress(left, _STEP)
            left = unpacker.unconsumed_tail
            total += len(part)
            if total > limits.max_body:
                raise too_large(limits.max_body)
            if total > allowed:
                raise RefusedError(
                    413, "ratio", f"the body grows more than {limits.max_ratio} times by decompression, as no telemetry does"
                )
            hold.take(len(part))
            parts.append(part)
            if unpacker.eof:
                left = unpacker.unused_data
                if not left:
                    return b"".join(parts)
                unpacker = zlib.decompressobj(bits)  # a gzip file may have several members
            elif not left and not part:
                raise RefusedError(400, "encoding", "the compressed data is cut off")
    except zlib.error as error:
        raise RefusedError(400, "encoding", f"the compressed data is damaged ({error})") from None
