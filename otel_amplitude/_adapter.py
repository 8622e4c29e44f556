"""requests, made to obey one deadline: its sockets, connections, pools and adapter. Imported at the first send, by `transport` alone."""

from __future__ import annotations

import io
import os
import queue
import re
import socket
import ssl
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from http.client import HTTPException, HTTPResponse, IncompleteRead, RemoteDisconnected
from pathlib import Path
from typing import Any, Final

import requests
from requests.adapters import DEFAULT_CA_BUNDLE_PATH, HTTPAdapter
from requests.exceptions import InvalidSchema, RequestException
from requests.utils import get_environ_proxies
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import HTTPError, ProxyError
from urllib3.util.connection import allowed_gai_family
from urllib3.util.ssl_ import create_urllib3_context

from otel_amplitude.clock import monotonic
from otel_amplitude.limits import MAX_ANSWER_BYTES

# Status line, headers, framing and body of one answer, whatever their shares.
_MAX_READ: Final = 2 * MAX_ANSWER_BYTES


class AnswerTooLongError(OSError):
    """More bytes than any honest answer has."""


class BundleError(Exception):
    """The certificates to trust can not be read; the message names the file."""


class Attempt:
    """One exchange: when it must be over, and what happened to it so far.

    It belongs to the thread that sends; any other thread may `end` it.
    """

    __slots__ = ("_gate", "_is_copy", "_socket", "answered", "deadline", "dialled", "ended", "sent", "sockets")

    def __init__(self, deadline: float, sockets: set[_Socket], gate: threading.RLock) -> None:
        self.deadline = deadline
        self.sockets = sockets
        self.dialled = False
        self.sent = False
        self.answered = False
        self.ended = False
        self._gate = gate
        self._socket: Any = None
        self._is_copy = False

    def remaining(self) -> float:
        """Seconds that are left; never zero, which a socket would take for "do not wait"."""
        if self.ended:
            raise ConnectionAbortedError("the transport was closed")
        left = self.deadline - monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        return left

    @property
    def stale(self) -> bool:
        """Whether a connection that was kept alive turned out to be closed."""
        return self.sent and not self.dialled and not self.answered and not self.ended and monotonic() < self.deadline

    def dials(self, sock: socket.socket) -> None:
        """Note a socket that is about to connect. A copy of its descriptor is kept, since the TLS handshake makes another object of it."""
        self.dialled = True
        self._use(sock.dup(), is_copy=True)

    def reuses(self, raw: Any) -> None:
        """Note the socket of a kept-alive connection."""
        if not self.dialled:
            self._use(getattr(raw, "socket", raw), is_copy=False)  # TLS inside the TLS of a proxy hides the socket in `socket`

    def _use(self, sock: Any, *, is_copy: bool) -> None:
        self.release()
        with self._gate:
            self._socket, self._is_copy = sock, is_copy
        self.remaining()  # after the store, so that an `end` in between is seen on one side or the other

    def end(self) -> None:
        """Make the exchange fail now, from any thread: a read or write that waits returns, and the next one raises."""
        with self._gate:
            self.ended = True
            if self._socket is not None:
                with suppress(Exception):  # it may be closed, or not connected
                    self._socket.shutdown(socket.SHUT_RDWR)

    def abandon(self) -> None:
        """Close the copy in a forked child, where the thread that sends does not exist and its lock may be held for ever."""
        if self._is_copy and self._socket is not None:
            with suppress(Exception):
                os.close(self._socket.detach())

    def release(self) -> None:
        """Close the copy of the descriptor: the exchange is over, or takes another socket."""
        with self._gate:
            sock, self._socket = self._socket, None
            if self._is_copy and sock is not None:
                sock.close()


# The exchange of the current thread, or greenlet: how the deadline reaches a socket through two libraries that only know timeouts
# for single reads.
_current: ContextVar[Attempt] = ContextVar("otel_amplitude_attempt")


class _Reader(io.RawIOBase):
    """The receiving end of a socket: each read may take what is left of the deadline, all together no more than `_MAX_READ` bytes."""

    def __init__(self, sock: Any) -> None:
        super().__init__()
        self._sock = sock
        self._file = sock.makefile("rb", buffering=0)
        self._left = _MAX_READ

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        attempt = _current.get()
        if self._left <= 0:
            raise AnswerTooLongError("the answer is too long")
        self._sock.settimeout(attempt.remaining())
        size: int | None = self._file.readinto(buffer)
        if size:
            attempt.answered = True
            self._left -= size
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


class _Socket:
    """A connected socket, plain or TLS, whose every operation obeys the deadline of the current exchange."""

    def __init__(self, raw: Any, sockets: set[_Socket]) -> None:
        self.raw = raw
        self._sockets = sockets
        sockets.add(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)

    def settimeout(self, _seconds: float | None) -> None:
        """Do nothing: urllib3's timeouts are for single reads."""

    def sendall(self, data: Any) -> None:
        attempt = _current.get()
        attempt.reuses(self.raw)
        attempt.sent = True
        view = memoryview(data).cast("B")
        while view:
            self.raw.settimeout(attempt.remaining())
            view = view[self.raw.send(view) :]

    def makefile(self, *_arguments: object) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self.raw))

    def forget(self) -> None:
        self._sockets.discard(self)

    def abandon(self) -> None:
        """Close the descriptor in a forked child; the parent's connection lives on."""
        with suppress(Exception):  # whatever state it was in when the process forked
            os.close(self.raw.detach())


def _dial(host: str, port: int, options: Iterable[tuple[Any, ...]], attempt: Attempt) -> socket.socket:
    """Connect to one of the addresses of `host`; one that does not answer leaves time for the others."""
    addresses = socket.getaddrinfo(host.strip("[]"), port, allowed_gai_family(), socket.SOCK_STREAM)
    problem: OSError = OSError("the name has no address")
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = socket.socket(family, kind, protocol)
        try:
            attempt.dials(sock)
            for option in options:
                sock.setsockopt(*option)
            sock.settimeout(attempt.remaining() / (len(addresses) - tried))
            sock.connect(address)
            sock.settimeout(attempt.remaining())  # for the TLS handshake, which takes it as its total
            return sock
        except OSError as error:
            sock.close()
            problem = error
    raise problem


class _Answer(HTTPResponse):
    """An answer whose headers end where headers end; of others urllib3 would write a warning with what the server sent."""

    def begin(self) -> None:
        super().begin()
        if self.msg.defects or self.msg.get_payload():
            raise HTTPException("headers that can not be read")


class _Timed:
    """Mixed into urllib3's connections: whatever becomes their socket obeys the deadline."""

    response_class = _Answer
    _wrapped: _Socket | None = None
    _dns_host: str
    port: int
    socket_options: Iterable[tuple[Any, ...]] | None

    @property
    def sock(self) -> Any:
        return self._wrapped

    @sock.setter
    def sock(self, raw: Any) -> None:
        if self._wrapped is not None:
            self._wrapped.forget()
        self._wrapped = None if raw is None else _Socket(raw, _current.get().sockets)

    def _new_conn(self) -> socket.socket:
        return _dial(self._dns_host, self.port, self.socket_options or (), _current.get())

    def _tunnel(self) -> None:
        super()._tunnel()  # type: ignore[misc]
        self.sock.raw.settimeout(_current.get().remaining())  # the TLS handshake comes next


class _Connection(_Timed, HTTPConnection):  # type: ignore[misc]
    pass


class _TLSConnection(_Timed, HTTPSConnection):  # type: ignore[misc]
    pass


class _Idle:
    """Idle connections, the latest first. urllib3's own queue has a lock, which a fork could leave held for ever."""

    def __init__(self, maxsize: int) -> None:
        self._connections: deque[Any] = deque()
        self._maxsize = maxsize

    def get(self, block: bool = False, timeout: float | None = None) -> Any:  # noqa: ARG002 -- urllib3's queue has them
        try:
            return self._connections.pop()
        except IndexError:
            raise queue.Empty from None

    def put(self, connection: Any, block: bool = False) -> None:  # noqa: ARG002 -- urllib3's queue has it
        if len(self._connections) >= self._maxsize:
            raise queue.Full
        self._connections.append(connection)

    def qsize(self) -> int:
        return len(self._connections)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection  # type: ignore[assignment]
    QueueCls = _Idle  # type: ignore[assignment]


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = _TLSConnection  # type: ignore[assignment]
    QueueCls = _Idle  # type: ignore[assignment]


_POOLS: Final = {"http": _Pool, "https": _TLSPool}


def _trusting(ca_file: str | None) -> ssl.SSLContext:
    context = create_urllib3_context(ssl_minimum_version=ssl.TLSVersion.TLSv1_2, cert_reqs=ssl.CERT_REQUIRED)
    place = ca_file or os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or DEFAULT_CA_BUNDLE_PATH
    try:
        context.load_verify_locations(**{"capath" if Path(place).is_dir() else "cafile": place})
    except OSError:
        raise BundleError(f"the certificates in {place} can not be used") from None
    return context


class Adapter(HTTPAdapter):
    """The pools of one process. Used without a `Session`, which means: no cookies, no `.netrc`, no redirects, no environment."""

    def __init__(self, connections: int, ca_file: str | None) -> None:
        self._ca_file = ca_file
        self._context: ssl.SSLContext | None = None
        self._sockets: set[_Socket] = set()
        # Guards the two that follow, and the socket of each exchange. Re-entrant, since a signal handler may close what its thread uses.
        self._gate = threading.RLock()
        self._attempts: set[Attempt] = set()
        self._closed = False
        self._environment: dict[str, dict[str, str]] = {}
        super().__init__(pool_maxsize=connections)

    def _trust(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = _trusting(self._ca_file)  # tens of milliseconds: once, and only for https
        return self._context

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        if proxy in self.proxy_manager:
            return self.proxy_manager[proxy]
        if proxy.lower().startswith("https"):
            options["proxy_ssl_context"] = self._trust()
        manager = super().proxy_manager_for(proxy, **options)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOLS
        return manager

    def build_connection_pool_key_attributes(self, *arguments: Any, **options: Any) -> Any:
        place, trust = super().build_connection_pool_key_attributes(*arguments, **options)
        return place, ({**trust, "ssl_context": self._trust()} if place["scheme"] == "https" else trust)

    def cert_verify(self, conn: Any, *_arguments: object) -> None:
        """Require a certificate whatever is asked; the context knows whom to trust (requests would load the bundle again and again)."""
        conn.cert_reqs = "CERT_REQUIRED"

    def attempt(self, deadline: float) -> Attempt:
        """Begin one exchange, to be over at `deadline` of the monotonic clock."""
        return Attempt(deadline, self._sockets, self._gate)

    def post(self, attempt: Attempt, url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send once and give status, headers (names in lower case) and at most `MAX_ANSWER_BYTES` + 1 bytes of the body.

        Raises:
            Exception: anything of requests, urllib3, http.client, ssl or the system; `describe` makes words of it.
        """
        token = _current.set(attempt)
        with self._gate:
            self._attempts.add(attempt)
            attempt.ended = self._closed
        try:
            # `auth` is given, though it does nothing, so that requests does not look for credentials elsewhere.
            prepared = requests.Request("POST", url, {**headers, "Accept-Encoding": "identity"}, data=body, auth=_no_credentials).prepare()
            answer = self.send(prepared, stream=True, timeout=attempt.remaining(), proxies=self._proxies(url))
            found = {name.lower(): value for name, value in answer.headers.items()}
            return answer.status_code, found, _read(answer.raw, found)
        finally:
            _current.reset(token)
            with self._gate:
                self._attempts.discard(attempt)
            attempt.release()

    def _proxies(self, url: str) -> dict[str, str]:
        if url not in self._environment:
            self._environment[url] = dict(get_environ_proxies(url))
        return self._environment[url]

    def close(self) -> None:
        """End the exchanges under way and close idle connections now; requests leaves that to the garbage collector."""
        with self._gate:
            self._closed = True
            for attempt in list(self._attempts):
                attempt.end()
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118 -- urllib3's container can not be iterated
                manager.pools[key].close()
        super().close()

    def abandon(self) -> None:
        """Close what a forked child inherited, without a word to the server and without a lock."""
        for sock in list(self._sockets):
            sock.abandon()
        for attempt in list(self._attempts):
            attempt.abandon()


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _read(raw: Any, headers: Mapping[str, str]) -> bytes:
    body = b""
    if headers.get("content-encoding", "identity").strip().lower() == "identity":
        # To the end, not to the expected length: only then the connection goes back to its pool.
        while len(body) <= MAX_ANSWER_BYTES and (piece := raw.read(MAX_ANSWER_BYTES + 1 - len(body), decode_content=False)):
            body += piece
        if len(body) <= MAX_ANSWER_BYTES:
            return body
    raw.close()  # the rest is not read
    return body


def describe(error: BaseException, attempt: Attempt | None) -> str:
    """Say in our words what went wrong. Nothing of the request is in them, and of the answer at most a status."""
    if attempt is not None and attempt.ended:
        return "the transport was closed"
    root, proxy = error, ""
    while (inner := root.__cause__ or (None if root.__suppress_context__ else root.__context__)) is not None:
        root = inner
        if isinstance(root, ProxyError):
            proxy = "the proxy: "
    return proxy + _words(root, connecting=attempt is not None and not attempt.sent)


def _words(root: BaseException, *, connecting: bool) -> str:
    if isinstance(root, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({root.verify_message}); a private authority can be named by ca_file"
    if isinstance(root, BundleError):
        return str(root)
    if isinstance(root, TimeoutError) and connecting:
        return "no connection in time"
    for kind, words in _WORDS.items():
        if isinstance(root, kind):
            return words
    if refused := _NO_TUNNEL.match(str(root)):
        return f"no tunnel, status {refused[1]}"
    return str(getattr(root, "strerror", None) or type(root).__name__).lower()


_NO_TUNNEL: Final = re.compile(r"Tunnel connection failed: (\d{3})\b")
_WORDS: Final[dict[type[BaseException], str]] = {
    socket.gaierror: "its name could not be resolved",
    TimeoutError: "no complete answer in time",
    ConnectionRefusedError: "connection refused",
    RemoteDisconnected: "connection closed before an answer",
    ConnectionResetError: "connection reset",
    BrokenPipeError: "connection closed while sending",
    AnswerTooLongError: "the answer is too long",
    IncompleteRead: "the answer ended too early",
    HTTPException: "the answer is not HTTP",
    HTTPError: "the answer ended too early",
    InvalidSchema: "a SOCKS proxy needs the package PySocks",
    RequestException: "its URL, or that of its proxy, can not be used",
}
