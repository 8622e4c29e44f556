"""HTTP around an `Intake`: sockets, deadlines, chunked bodies, access, and the end.

The server is the standard library's, one thread for each connection, since the work of a request is Python on the CPU: other servers
(uvicorn, granian) were measured and are not cheaper for the batches that Collectors send. What the standard library lacks is added here:

* Chunked bodies. Node's exporters send them, without a length.
* One deadline for a whole request, besides the limit of each read. A sender that writes a byte every few seconds ends at the deadline.
* A limit of connections. Above it, the connection that has been idle for longest is closed; a sender opens it again.
* TLS handshakes on the connection's thread, so that a slow one does not stop the others.
* Answers before the body was read: the rest is read and thrown away for a moment, since a reset could overtake the answer.

State. `_Connections` has a lock: which connections exist, and which wait for a request. Everything else belongs to one connection.
"""

from __future__ import annotations

import contextlib
import io
import re
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from http.client import responses
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final

import orjson

from otel_amplitude.clock import monotonic
from otel_amplitude.gateway.access import Tls, Tokens
from otel_amplitude.gateway.answers import JSON, PROTOBUF, Answer, Signal, refused
from otel_amplitude.gateway.intake import Intake
from otel_amplitude.gateway.limits import Budget, Hold, Limits, RefusedError, decoded, too_large

_SIGNALS: Final[dict[str, Signal]] = {"/v1/traces": "traces", "/v1/logs": "logs", "/v1/metrics": "metrics"}
_PAGES: Final = ("/healthz", "/readyz", "/stats")
_TYPES: Final = {JSON: JSON, PROTOBUF: PROTOBUF, "application/protobuf": PROTOBUF}
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
_MAX_LINE: Final = 4_096
_MAX_TRAILERS: Final = 64
_STEP: Final = 64 * 1024
_LINGER_SECONDS: Final = 1.0
_LINGER_BYTES: Final = 4 * 2**20
_FULL: Final = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class _Timed(io.RawIOBase):
    """Bytes of a socket until a deadline."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.deadline = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._sock.recv_into(buffer)


class _Connections:
    """Which connections are open, and which of them wait for a request, the longest waiting first.

    A connection is known by the socket that was accepted; with TLS another socket takes its place (`wrapped`).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._open: dict[socket.socket, socket.socket] = {}
        self._idle: dict[socket.socket, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def opened(self, sock: socket.socket, most: int) -> bool:
        """Add a connection; False when there are too many and none of them is idle."""
        with self._lock:
            if len(self._open) >= most:
                if not self._idle:
                    return False
                longest = next(iter(self._idle))
                del self._idle[longest]
                _hang_up(self._open[longest])
            self._open[sock] = sock
            return True

    def wrapped(self, sock: socket.socket, tls: socket.socket) -> None:
        """A connection goes on by another socket."""
        with self._lock:
            self._open[sock] = tls

    def idle(self, sock: socket.socket) -> None:
        """A connection waits for a request."""
        with self._changed:
            self._idle[sock] = None
            self._changed.notify_all()

    def busy(self, sock: socket.socket) -> None:
        """A request has begun."""
        with self._lock:
            self._idle.pop(sock, None)

    def closed(self, sock: socket.socket) -> None:
        """A connection is gone."""
        with self._changed:
            self._open.pop(sock, None)
            self._idle.pop(sock, None)
            self._changed.notify_all()

    def finish(self, timeout: float) -> bool:
        """Wait until no request is under way; then close all connections."""
        with self._changed:
            finished = self._changed.wait_for(lambda: len(self._idle) >= len(self._open), timeout)
            for sock in self._open.values():
                _hang_up(sock)
        return finished


def _hang_up(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


class Server(socketserver.ThreadingMixIn, HTTPServer):
    """Serves one `Intake`. `start` serves on a thread of its own; `stop` drains.

    Attributes:
        url: where it listens.
        closing: requests are refused, since the process is to end.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(
        self, intake: Intake, host: str, port: int, *, tokens: Tokens | None = None, tls: Tls | None = None, limits: Limits | None = None
    ) -> None:
        """Bind.

        Raises:
            OSError: the address can not be used.
        """
        self.intake = intake
        self.tokens = tokens
        self.tls = tls
        self.limits = limits or Limits()
        self.budget = Budget(self.limits.max_in_flight)
        self.connections = _Connections()
        self.closing = False
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._thread: threading.Thread | None = None
        super().__init__((host, port), _Handler)
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if tls else 'http'}://{shown}:{self.server_address[1]}"

    def server_bind(self) -> None:
        """Bind, without the look-up of the own name that `HTTPServer` makes."""
        socketserver.TCPServer.server_bind(self)

    def start(self) -> Server:
        """Serve on a thread."""
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, name="gateway", daemon=True)
        self._thread.start()
        return self

    def stop(self, timeout: float) -> bool:
        """Refuse new requests, let those under way end within `timeout` seconds, and close; whether all of them ended."""
        self.closing = True
        finished = self.connections.finish(timeout)
        self.shutdown()
        self.server_close()
        self.connections.finish(0.0)
        return finished

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection on a new thread, unless there are too many."""
        if not self.connections.opened(request, self.limits.max_connections):
            self.intake.counters.add("refused", "connections")
            with contextlib.suppress(OSError):
                request.settimeout(0.1)
                if self.tls is None:
                    request.sendall(_FULL)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no more threads
            self.connections.closed(request)
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.closed(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 -- the signature of the base class
        """Count a connection that broke, and log anything else: senders come and go, and their handshakes fail."""
        self.intake.counters.add("connections", "broken")
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, OSError):
            self.intake.say_failed(error)

    def stats(self) -> dict[str, Any]:
        """Give everything that is counted."""
        return {
            **self.intake.stats(),
            "closing": self.closing,
            "connections_open": len(self.connections),
            "bytes_in_flight": self.budget.used,
        }


def _wrong_way(path: str) -> RefusedError:
    if path in _SIGNALS or path in _PAGES:
        return RefusedError(405, "method", f"use {'POST' if path in _SIGNALS else 'GET'} for {path}", drain=True)
    return RefusedError(404, "path", "this gateway takes POST /v1/traces and /v1/logs", drain=True)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = _STEP
    server: Server

    def setup(self) -> None:
        self._plain = self.request
        limits = self.server.limits
        if self.server.tls is not None:
            self.request.settimeout(limits.request_seconds)
            self.request = self.server.tls.context.wrap_socket(self.request, server_side=True)
            self.server.connections.wrapped(self._plain, self.request)
        super().setup()
        self._timed = _Timed(self.request)
        self._timed.deadline = monotonic() + limits.idle_seconds
        self.rfile = self._reader = io.BufferedReader(self._timed, _STEP)

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().finish()
        if self.request is not self._plain:
            self.request.close()

    def handle_one_request(self) -> None:
        """Wait for a request, and serve it before its deadline."""
        connections, limits = self.server.connections, self.server.limits
        self._content_type = ""
        self._body_left = False
        self._timed.deadline = monotonic() + limits.idle_seconds
        connections.idle(self._plain)
        try:
            begun = self._reader.peek(1)
        except (OSError, ValueError):
            begun = b""
        connections.busy(self._plain)
        self.close_connection = True
        if not begun:
            return
        self._timed.deadline = monotonic() + limits.request_seconds
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True
            self.server.intake.counters.add("connections", "broken")

    # methods

    def do_GET(self) -> None:
        """Answer the pages for operators."""
        path, server = self._path(), self.server
        if path == "/healthz":
            self._text(200, b"ok\n")
        elif path == "/readyz":
            ready = not server.closing and server.intake.has_room()
            self._text(200 if ready else 503, b"ready\n" if ready else b"refusing: closing, or no room\n")
        elif path == "/stats":
            if server.tokens is not None and not server.tokens.allow(self.headers.get("Authorization")):
                self._refuse(RefusedError(401, "token", "Authorization: Bearer TOKEN is missing or wrong"))
            else:
                self._send(Answer(200, orjson.dumps(server.stats(), option=orjson.OPT_INDENT_2), JSON))
        else:
            self._refuse(_wrong_way(path))

    def do_POST(self) -> None:
        """Take a request of OTLP."""
        try:
            self._send(self._post())
        except RefusedError as refusal:
            self._refuse(refusal)
        except OSError:
            raise
        except Exception as error:  # a fault of ours must have an answer, and a line
            self.server.intake.say_failed(error)
            self._refuse(RefusedError(500, "failed", "a fault of the gateway; its log says which", drain=True))

    def _other(self) -> None:
        self._refuse(_wrong_way(self._path()))

    do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_HEAD = do_TRACE = _other  # noqa: N815 -- the names that the base class looks for

    def _path(self) -> str:
        return self.path.partition("?")[0]

    def _post(self) -> Answer:
        server, headers = self.server, self.headers
        self._content_type = _TYPES.get(headers.get("Content-Type", "").partition(";")[0].strip().lower(), "")
        path = self._path()
        if server.tokens is not None and not server.tokens.allow(headers.get("Authorization")):
            raise RefusedError(401, "token", "Authorization: Bearer TOKEN is missing or wrong", drain=True)
        signal = _SIGNALS.get(path)
        if signal is None:
            raise _wrong_way(path)
        if server.closing:
            raise RefusedError(503, "closing", "the gateway is closing: try again", retry_after=1, drain=True)
        if not self._content_type:
            raise RefusedError(415, "content_type", f"Content-Type must be {PROTOBUF} or {JSON}", drain=True)
        with Hold(server.budget) as hold:
            body = decoded(self._body(hold), headers.get("Content-Encoding", ""), server.limits, hold)
            return server.intake.take(signal, self._content_type, body, hold.take)

    # bodies

    def _body(self, hold: Hold) -> bytes:
        """Read the body.

        Raises:
            RefusedError: its length or its chunks are wrong, or it is too large.
            ConnectionError: the sender closed in the middle.
        """
        coding = self.headers.get("Transfer-Encoding", "").strip().lower()
        if coding:
            if coding != "chunked":
                raise RefusedError(400, "length", "Transfer-Encoding must be chunked or absent", drain=True)
            if "Content-Length" in self.headers:  # chunked wins, and nothing after it is trusted (RFC 9112, 6.3)
                self._body_left = True
            return b"".join(self._chunks(hold))
        lengths = set(self.headers.get_all("Content-Length", ["0"]))
        length = lengths.pop().strip()
        if lengths or not length.isascii() or not length.isdigit() or len(length) > 18:
            raise RefusedError(400, "length", "Content-Length must be one number", drain=True)
        size = int(length)
        if size > self.server.limits.max_body:
            raise too_large(self.server.limits.max_body)
        hold.take(size)
        return self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        data = self.rfile.read(size) if size else b""
        if len(data) < size:
            raise ConnectionError("the sender closed in the middle of a body")
        return data

    def _chunks(self, hold: Hold) -> Iterator[bytes]:
        total, most = 0, self.server.limits.max_body
        while True:
            found = _CHUNK.fullmatch(self._line())
            if found is None:
                raise RefusedError(400, "chunks", "a chunk must begin with its length in hexadecimal digits", drain=True)
            size = int(found[1], 16)
            if not size:
                break
            total += size
            if total > most:
                raise too_large(most)
            hold.take(size)
            yield self._exactly(size)
            if self._line().strip(b"\r\n"):
                raise RefusedError(400, "chunks", "a chunk is longer than it said", drain=True)
        for _ in range(_MAX_TRAILERS):
            if not self._line().strip(b"\r\n"):
                return
        raise RefusedError(400, "chunks", "there are too many trailers", drain=True)

    def _line(self) -> bytes:
        line = self.rfile.readline(_MAX_LINE)
        if not line:
            raise ConnectionError("the sender closed in the middle of a body")
        return line if line.endswith(b"\n") else b"\0\n"

    # answers

    def handle_expect_100(self) -> bool:
        """Say at once that the body may come, since the sender waits for it."""
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def _refuse(self, refusal: RefusedError) -> None:
        self._body_left = self._body_left or refusal.drain
        answer = refused(refusal.status, self._content_type, refusal.reason, str(refusal), refusal.retry_after)
        if refusal.reason != "closing":
            self.server.intake.say_refused(refusal)
        self._send(answer)

    def _text(self, status: int, body: bytes) -> None:
        self._send(Answer(status, body, "text/plain"))

    def _send(self, answer: Answer) -> None:
        counters = self.server.intake.counters
        counters.add("answers", str(answer.status))
        if answer.reason:
            counters.add("refused", answer.reason)
        # One that must read on is closed, as is every one when the process ends.
        self.close_connection = self._body_left or self.server.closing or self._wants_close()
        self.connection.settimeout(max(0.1, self._timed.deadline - monotonic()))
        self.send_response_only(answer.status, responses.get(answer.status, ""))
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        if answer.retry_after:
            self.send_header("Retry-After", str(answer.retry_after))
        if answer.status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        if answer.status == 405:
            self.send_header("Allow", "POST" if self._path() in _SIGNALS else "GET")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)
        self.wfile.flush()
        if self._body_left:
            self._linger()

    def _wants_close(self) -> bool:
        words = self.headers.get("Connection", "").lower() if hasattr(self, "headers") else ""
        return "close" in words or (self.request_version == "HTTP/1.0" and "keep-alive" not in words)

    def _linger(self) -> None:
        """Read on for a moment: closing with unread bytes resets the connection, and a reset can overtake the answer."""
        with contextlib.suppress(OSError, ValueError):
            self.request.shutdown(socket.SHUT_WR)
            self._timed.deadline = monotonic() + _LINGER_SECONDS
            left = _LINGER_BYTES
            while left > 0 and (data := self._reader.read1(_STEP)):
                left -= len(data)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002 -- the signature of the base class
        """Answer what the base class could not parse."""
        self.request_version = getattr(self, "request_version", None) or "HTTP/1.1"
        self.command = getattr(self, "command", None) or ""
        self.path = getattr(self, "path", None) or ""
        self._refuse(RefusedError(code, "http", message or responses.get(code, ""), drain=True))

    def log_error(self, format: str, *args: Any) -> None:  # noqa: ARG002 -- the signature of the base class
        """Count a request that was not whole at its deadline: the only error that the base class still logs."""
        self.server.intake.counters.add("refused", "deadline")

    def log_message(self, format: str, *args: Any) -> None:
        """Write nothing: senders are many."""
