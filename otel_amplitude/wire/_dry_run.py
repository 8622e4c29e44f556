"""A transport that sends nothing: it acknowledges every upload, and may keep the events in a file for the catalog."""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import orjson

from otel_amplitude.errors import TransportError
from otel_amplitude.transport import Request, Response

if TYPE_CHECKING:
    from otel_amplitude.delivery.books import Stats

_TAKEN: Final = Response(status=200, headers={}, body=b'{"code":200}')


class DryRunTransport:
    """Acknowledges every request without a network.

    With a path, each event of a request becomes one JSON line there; several processes may share the file,
    since each request is one append.
    """

    def __init__(self, target: bool | str) -> None:
        """Take the path of the file, or True for none."""
        self._path = target if isinstance(target, str) else None
        self._made = secrets.token_hex(4)
        self._torn = False

    def send(self, request: Request) -> Response:
        """Keep the events and say that they were taken.

        Raises:
            TransportError: when the file can not be written; the events are tried again like after any outage.
        """
        if self._path:
            try:
                self._append(self._path, b"".join(orjson.dumps(event) + b"\n" for event in orjson.loads(request.body)["events"]))
            except OSError as error:
                raise TransportError(f"dry_run can not write to {self._path}: {error.strerror}") from error
        return _TAKEN

    def keep_books(self, stats: Stats) -> None:
        """Write the books as one line `{"$books": …, "process": …}`, so that the catalog can tell what was refused and why.

        Of several lines of one process the last one counts. A file that can not be written is no reason to stop a shutdown.
        """
        if self._path and (stats.accepted or stats.refused):
            counts = {name: dict(getattr(stats, name)) for name in ("rejected", "dropped", "refused")}
            books = {"accepted": stats.accepted, "adopted": stats.adopted, "acknowledged": stats.acknowledged, **counts}
            line = {"$books": {**books, "pending": asdict(stats.pending)}, "process": f"{os.getpid()}-{self._made}"}
            with contextlib.suppress(OSError):
                self._append(self._path, orjson.dumps(line) + b"\n")

    def close(self) -> None:
        """Nothing is held open between requests."""

    def _append(self, path: str, lines: bytes) -> None:
        # 0600: the lines hold user ids.
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # What is tried again must not stand in the line that was torn.
        left = b"\n" + lines if self._torn else lines
        try:
            # A disk that runs full takes a part of it, and says so only when it is asked again.
            while left:
                left = left[os.write(descriptor, left) :]
                self._torn = bool(left)
        finally:
            os.close(descriptor)
