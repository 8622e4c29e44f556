"""Three transports of one's own: in memory, recording what goes by, and writing to a file; then one that decides about retries.

    python examples/own_transports.py

A transport is any object with `send(request)`, which returns a `Response` or raises `TransportError`, and `close()`. Up to
`max_in_flight` threads call `send` at once. It tries once: waiting and trying again is delivery's work.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import otel_amplitude
from otel_amplitude import Request, RequestsTransport, Response, Transport, TransportError

TAKEN = Response(200, {}, b'{"code": 200}')


class InMemory:
    """Keeps the events, for tests, as `otel_amplitude.testing.FakeTransport` does and more."""

    def __init__(self) -> None:
        self.events: list[dict[str, object]] = []

    def send(self, request: Request) -> Response:
        """Keep the events, and say that they were taken."""
        self.events += json.loads(request.body)["events"]
        return TAKEN

    def close(self) -> None:
        """Nothing is open."""


class Recording:
    """Passes everything on, and remembers how large it was and what was answered; never the key, which is in the body."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.seen: list[tuple[int, str]] = []

    def send(self, request: Request) -> Response:
        """Send with the other transport."""
        try:
            response = self._inner.send(request)
        except TransportError as error:
            self.seen.append((len(request.body), str(error)))
            raise
        self.seen.append((len(request.body), str(response.status)))
        return response

    def close(self) -> None:
        """Close the other one."""
        self._inner.close()


class ToFile:
    """Appends each event as one line of JSON, for a loader that takes files; the option `dry_run` with a path does this too."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def send(self, request: Request) -> Response:
        """Append the events."""
        lines = "".join(json.dumps(event) + "\n" for event in json.loads(request.body)["events"])
        try:
            with self._lock, self._path.open("a") as file:
                file.write(lines)
        except OSError as error:  # a full disk is an outage: the events are kept and tried again
            raise TransportError(f"can not write: {error.strerror}") from error
        return TAKEN

    def close(self) -> None:
        """Nothing is open."""


class ThreeTries:
    """A retry policy: waits 0.1 s, then 0.2 s, then gives up; the option `retry_timeouts=[0.1, 0.2]` does this too."""

    def wait(self, attempt: int, _random: Callable[[], float], /) -> float | None:
        """Give the seconds after so many failed attempts, or None to give up."""
        return {1: 0.1, 2: 0.2}.get(attempt)


def main() -> None:
    key = os.environ.get("OTEL_EXPORTER_AMPLITUDE_API_KEY", "0123456789abcdef0123456789abcdef")
    event = {"event_type": "Order Paid", "user_id": "u-12345"}

    memory = InMemory()
    with_memory = otel_amplitude.init(key, name="memory", transport=memory)
    with_memory.log_event(event, timeout=5)
    print("in memory:", [kept["event_type"] for kept in memory.events])

    # Where OTEL_EXPORTER_AMPLITUDE_SERVER_URL is set this goes over the network, else into memory again.
    inner = RequestsTransport() if "OTEL_EXPORTER_AMPLITUDE_SERVER_URL" in os.environ else memory
    recording = Recording(inner)
    recorded = otel_amplitude.init(key, name="recorded", transport=recording, retry=ThreeTries())
    print("recorded:", recorded.log_event(event, timeout=5).outcome, [answer for _, answer in recording.seen])

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        to_file = otel_amplitude.init(key, name="file", transport=ToFile(path))
        to_file.log_event(event, timeout=5)
        print("in the file:", path.read_text().strip())

    settled = [client.shutdown(timeout=5) for client in (with_memory, recorded, to_file)]
    print("all settled:", all(settled))


if __name__ == "__main__":
    main()
