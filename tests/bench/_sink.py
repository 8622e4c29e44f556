"""A server on loopback, in a process of its own, that takes everything and counts it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.request
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


class _Counts:
    """What arrived since the last reset.

    Attributes:
        delay: seconds before each answer.
        check: whether the order of each user's events is looked at.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.reset({})

    def reset(self, order: dict[str, Any]) -> None:
        self.delay: float = order.get("delay", 0.0)
        self.check: bool = order.get("check", False)
        self.requests = self.bytes = self.events = self.connections = self.disorder = 0
        self._last: dict[str, int] = {}

    def book(self, wire: int, body: bytes) -> None:
        events = body.count(b'"insert_id":')
        users = [(event["user_id"], event["event_properties"]["cart.number"]) for event in json.loads(body)["events"]] if self.check else []
        with self.lock:
            self.requests += 1
            self.bytes += wire
            self.events += events
            for user, number in users:
                self.disorder += number <= self._last.get(user, -1)
                self._last[user] = number


_counts = _Counts()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def setup(self) -> None:
        super().setup()
        _counts.connections += 1

    def do_GET(self) -> None:
        names = ("requests", "bytes", "events", "connections", "disorder")
        self._answer(json.dumps({name: getattr(_counts, name) for name in names}).encode())

    def do_PUT(self) -> None:
        _counts.reset(json.loads(self._body()))
        self._answer(b"{}")

    def do_POST(self) -> None:
        body = self._body()
        wire = len(body)
        if self.headers.get("Content-Encoding") == "gzip":
            body = zlib.decompress(body, 31)
        if self.path.endswith("traces"):
            _counts.book(wire, b"")
            self._answer(b"", "application/x-protobuf")
            return
        _counts.book(wire, body)
        if _counts.delay:
            time.sleep(_counts.delay)
        self._answer(b'{"code":200,"events_ingested":%d}' % body.count(b'"insert_id":'))

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def _answer(self, body: bytes, kind: str = "application/json") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Sink:
    """The server as seen by the benchmark; a context manager."""

    def __enter__(self) -> Sink:  # noqa: PYI034 -- 3.10 has no Self
        self._process = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()

    def reset(self, **order: object) -> None:
        reset(self.url, **order)


def reset(url: str, **order: object) -> None:
    """Forget all counts; `delay` and `check` hold from now on."""
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(order).encode(), method="PUT"), timeout=10) as answer:
        answer.read()


def counts(url: str) -> dict[str, int]:
    """Give what arrived since the last reset."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        found: dict[str, int] = json.load(answer)
        return found


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()
