"""A loopback server that misbehaves on command.

    with Server(accept(), reset(), trickle_body(0.05)) as server:
        transport.send(Request(server.url, {}, b"{}", timeout=1))

Each request (or connection, for those who do not read) meets the next behaviour of the script; the last one stays for ever.
A behaviour is a function of a `Peer` that says whether the connection may be used again.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

PATIENCE = 20.0  # no behaviour lasts longer, whatever the client does


@dataclass
class Received:
    """One request as it arrived; `connection` counts from 1."""

    connection: int
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def envelope(self) -> dict:
        """The decoded body."""
        packed = self.headers.get("content-encoding") == "gzip"
        return json.loads(gzip.decompress(self.body) if packed else self.body)


@dataclass
class Peer:
    """One connection, as a behaviour sees it."""

    server: Server
    sock: socket.socket
    number: int
    buffer: bytearray = field(default_factory=bytearray)

    def fill(self) -> bool:
        """Receive some more; False when there is no more."""
        piece = self.sock.recv(65536)
        self.buffer += piece
        return bool(piece)

    def head(self) -> tuple[str, dict[str, str]]:
        """Read the request line and the headers; remember when they had arrived."""
        while b"\r\n\r\n" not in self.buffer:
            if not self.fill():
                raise ConnectionError("no request")
        text, _, rest = bytes(self.buffer).partition(b"\r\n\r\n")
        self.buffer[:] = rest
        line, *lines = text.decode("latin-1").split("\r\n")
        return line.split(" ")[1], {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}

    def request(self) -> Received:
        """Read and record one request."""
        target, headers = self.head()
        length = int(headers.get("content-length", "0"))
        while len(self.buffer) < length:
            if not self.fill():
                raise ConnectionError("half a request")
        received = Received(self.number, target, headers, bytes(self.buffer[:length]))
        del self.buffer[:length]
        self.server.requests.append(received)
        return received

    def send(self, data: bytes) -> None:
        """Send, or raise OSError when the client is gone."""
        self.sock.sendall(data)

    def until_gone(self) -> None:
        """Wait until the client closes, and note how long it had patience."""
        begun = time.monotonic()
        with contextlib.suppress(OSError):
            while not self.server.stopping.is_set() and time.monotonic() - begun < PATIENCE:
                ready, _, _ = select.select([self.sock], [], [], 0.05)
                if ready and not self.sock.recv(65536):
                    break
        self.server.patience.append(time.monotonic() - begun)

    def drip(self, data: Iterator[bytes], interval: float) -> None:
        """Send piece by piece until the client closes, and note how long it had patience."""
        begun = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - begun < PATIENCE and not self.server.stopping.wait(interval):
                self.sock.sendall(next(data))
        self.server.patience.append(time.monotonic() - begun)

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


Behaviour = Callable[[Peer], bool]


class Server:
    """A server on 127.0.0.1 with a script of behaviours; a context manager that leaves no thread behind.

    Attributes:
        requests: what arrived completely, in order.
        connections: how many were accepted.
        met: how many behaviours were met.
        patience: for each behaviour that made the client wait, the seconds until it hung up.
        errors: exceptions of behaviours that are not the network's; empty in a good test.
    """

    def __init__(self, *script: Behaviour, tls: ssl.SSLContext | None = None, path: str = "/2/httpapi", port: int = 0) -> None:
        self._script = list(script) or [accept()]
        self._tls = tls
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", port))
        self._socks: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self.stopping = threading.Event()
        self.requests: list[Received] = []
        self.connections = 0
        self.met = 0
        self.patience: list[float] = []
        self.errors: list[BaseException] = []
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://{'localhost' if tls else '127.0.0.1'}:{self.port}{path}"

    def __enter__(self):
        self._start(self._accept)
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Close everything and wait for the threads."""
        self.stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for acceptor in self._threads[:1]:
            acceptor.join(10)  # the one that accepts: what it accepted last has its thread now
        self._listener.close()
        # A thread adds its socket and then asks whether we are stopping: either it is shut down here, or never read from.
        for sock in list(self._socks):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in self._threads)
        assert self.errors == []

    @property
    def events(self) -> list[dict]:
        """The events of all complete uploads; those sent again are there again."""
        return [event for request in list(self.requests) if request.body for event in request.envelope["events"]]

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._start(self._serve, sock, self.connections)

    def _next(self) -> Behaviour:
        with self._lock:
            self.met += 1
            return self._script.pop(0) if len(self._script) > 1 else self._script[0]

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            sock.settimeout(PATIENCE)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls:
                sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            self._socks.add(sock)
            if self._tls and not self.stopping.is_set():
                sock.do_handshake()
            peer = Peer(self, sock, number)
            while not self.stopping.is_set() and (peer.buffer or peer.fill()):
                if not self._next()(peer):
                    break
        except OSError:
            pass  # the client hung up, or does not trust us
        except BaseException as error:
            self.errors.append(error)
        finally:
            self._socks.discard(sock)
            sock.close()


def reply(status: int = 200, body: bytes = b"", headers: dict[str, str] | None = None, *, length: int | None = None) -> bytes:
    """The bytes of one answer."""
    lines = {"Content-Type": "application/json", "Content-Length": str(len(body) if length is None else length), **(headers or {})}
    return f"HTTP/1.1 {status} Whatever\r\n".encode() + "".join(f"{k}: {v}\r\n" for k, v in lines.items()).encode() + b"\r\n" + body


def answer(status: int, body: object = None, headers: dict[str, str] | None = None) -> Behaviour:
    """Read the request, answer with bytes or JSON, keep the connection."""
    content = body if isinstance(body, bytes) else json.dumps({"code": status} if body is None else body).encode()

    def behave(peer: Peer) -> bool:
        peer.request()
        peer.send(reply(status, content, headers))
        return True

    return behave


def accept() -> Behaviour:
    """Answer as Amplitude does when all is well."""
    return answer(200)


def answer_and_close(status: int = 200) -> Behaviour:
    """Answer as if the connection would be kept, then close it: it is stale when used again."""

    def behave(peer: Peer) -> bool:
        peer.request()
        peer.send(reply(status, b'{"code":%d}' % status))
        return False

    return behave


def redirect(location: str) -> Behaviour:
    """302 to somewhere."""
    return answer(302, b"", {"Location": location})


def reset_unread() -> Behaviour:
    """Reset the connection without reading the request."""

    def behave(peer: Peer) -> bool:
        peer.reset()
        return False

    return behave


def reset() -> Behaviour:
    """Take the request, then reset the connection."""

    def behave(peer: Peer) -> bool:
        peer.request()
        peer.reset()
        return False

    return behave


def hang_up() -> Behaviour:
    """Take the request, then close without an answer."""

    def behave(peer: Peer) -> bool:
        peer.request()
        return False

    return behave


def send_raw(data: bytes) -> Behaviour:
    """Take the request, send these bytes, close: half an answer, or no HTTP at all."""

    def behave(peer: Peer) -> bool:
        peer.request()
        peer.send(data)
        return False

    return behave


def half_an_answer() -> Behaviour:
    """Promise 100 bytes, send 12, close."""
    return send_raw(reply(200, b'{"code":200}', length=100))


def never_answer() -> Behaviour:
    """Take the request and say nothing."""

    def behave(peer: Peer) -> bool:
        peer.request()
        peer.until_gone()
        return False

    return behave


def never_read() -> Behaviour:
    """Take the headers and leave the body where it is, until the test is over."""

    def behave(peer: Peer) -> bool:
        peer.head()
        peer.server.stopping.wait(PATIENCE)
        return False

    return behave


def trickle_headers(interval: float) -> Behaviour:
    """Send a header that never ends, one byte at a time."""

    def behave(peer: Peer) -> bool:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nX-Long: ")
        peer.drip(iter(lambda: b"a", None), interval)
        return False

    return behave


def trickle_body(interval: float, *, chunked: bool = False) -> Behaviour:
    """Send the body one byte, or one chunk of a byte, at a time."""
    how = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": "1000"}

    def behave(peer: Peer) -> bool:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\n" + "".join(f"{k}: {v}\r\n" for k, v in how.items()).encode() + b"\r\n")
        peer.drip(iter(lambda: b"1\r\na\r\n" if chunked else b"a", None), interval)
        return False

    return behave


def flood(head: bytes, piece: bytes) -> Behaviour:
    """Send `head` and then `piece` for ever, as fast as it is taken."""

    def behave(peer: Peer) -> bool:
        peer.request()
        peer.send(head)
        peer.drip(iter(lambda: piece, None), 0)
        return False

    return behave


def endless_body() -> Behaviour:
    """A body without length that never ends."""
    return flood(b"HTTP/1.1 200 OK\r\n\r\n", b"a" * 4096)


def endless_headers() -> Behaviour:
    """Headers that never end."""
    return flood(b"HTTP/1.1 200 OK\r\n", b"X-More: %s\r\n" % (b"a" * 1000))


def endless_continue() -> Behaviour:
    """An interim answer after the other."""
    return flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n")


def gzip_bomb(megabytes: int = 50) -> Behaviour:
    """A small compressed answer that unpacks into a large one."""
    return answer(200, gzip.compress(b" " * (megabytes << 20)), {"Content-Encoding": "gzip"})


def answer_unread(status: int) -> Behaviour:
    """Answer after the headers, leave the body unread, close: what proxies do with a body that is too large."""

    def behave(peer: Peer) -> bool:
        peer.head()
        peer.send(reply(status, b'{"code":%d}' % status, {"Connection": "close"}))
        peer.sock.shutdown(socket.SHUT_WR)
        peer.until_gone()
        return False

    return behave


def proxy(*, interval: float | None = None) -> Behaviour:
    """Take CONNECT and tunnel to the loopback port it names; with `interval`, answer the CONNECT one byte at a time, for ever."""

    def behave(peer: Peer) -> bool:
        target, headers = peer.head()
        peer.server.requests.append(Received(peer.number, target, headers, b""))
        if interval is not None:
            peer.send(b"HTTP/1.1 200 OK\r\nX-Long: ")
            peer.drip(iter(lambda: b"a", None), interval)
            return False
        with socket.create_connection(("127.0.0.1", int(target.rpartition(":")[2]))) as far:
            peer.send(b"HTTP/1.1 200 Connected\r\n\r\n")
            _tunnel(peer, far)
        return False

    return behave


def _tunnel(peer: Peer, far: socket.socket) -> None:
    other = {peer.sock: far, far: peer.sock}
    while not peer.server.stopping.is_set():
        for sock in select.select(list(other), [], [], 0.05)[0]:
            data = sock.recv(65536)
            if not data:
                return
            other[sock].sendall(data)
