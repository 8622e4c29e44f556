"""One request, one try: a response, or a `TransportError`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import urlsplit

import orjson

from otel_amplitude.clock import monotonic
from otel_amplitude.errors import TransportError, without_frames
from otel_amplitude.late_imports import late_import
from otel_amplitude.limits import MAX_ANSWER_BYTES, MAX_ANSWER_DEPTH

if TYPE_CHECKING:
    from otel_amplitude._adapter import Adapter


@dataclass(frozen=True, slots=True)
class Request:
    """One POST. Neither headers nor body are shown by `repr`: the API key is in them.

    Attributes:
        url: where to, http or https.
        headers: all of them, except those that only the transport knows (`Host`, `Content-Length`, `Accept-Encoding`).
        body: the bytes as they travel, compressed or not.
        timeout: seconds for the whole exchange.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    timeout: float


@dataclass(frozen=True, slots=True)
class Response:
    """One answer. Neither headers nor body are shown by `repr`: a server may echo the API key.

    Attributes:
        status: the HTTP status.
        headers: their names in lower case.
        body: all of it up to 64 KiB; of a longer one the first 64 KiB and one byte, by which it is known to be too long.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)

    def json(self) -> dict[str, Any] | None:
        """Give the body as a JSON object, or None when it is anything else, too long or nested too deep. Never raises."""
        if len(self.body) > MAX_ANSWER_BYTES or _depth(self.body) > MAX_ANSWER_DEPTH:
            return None
        try:
            value = orjson.loads(self.body)
        except ValueError:
            return None
        return value if isinstance(value, dict) else None


def _depth(text: bytes) -> int:
    if text.count(b"{") + text.count(b"[") <= MAX_ANSWER_DEPTH:
        return 0
    depth = deepest = 0
    # Without escapes every quote begins or ends a string, so each second piece stands outside of strings.
    for piece in text.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2]:
        for byte in piece:
            if byte in b"[{":
                depth += 1
                deepest = max(deepest, depth)
            elif byte in b"]}":
                depth -= 1
    return deepest


class Transport(Protocol):
    """What carries a request. One of your own may be given as the option `transport`."""

    def send(self, request: Request) -> Response:
        """Send once, never retry, never follow a redirect, and give the answer whatever its status.

        Called from up to `max_in_flight` threads at once. It must return or raise within `request.timeout` seconds.

        Raises:
            TransportError: no answer that could be read.
        """
        ...

    def close(self) -> None:
        """Close all connections, also those in use: a `send` that waits on another thread must raise `TransportError` soon.

        Called at the end of a shutdown, when its time is over. A later `send` opens new connections.
        """
        ...


def _place(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return "the URL can not be used"


# More than anybody's `max_in_flight`; connections are only opened when that many threads send at once.
CONNECTIONS: Final = 16


class RequestsTransport:
    """The transport everybody gets: requests over kept-alive connections of its own.

    * `request.timeout` bounds the whole exchange, also against a server that sends one byte at a time. Two things it can not
      bound: resolving the host name, which the operating system does not let us interrupt, and a SOCKS proxy, for which it
      holds for each read instead.
    * Redirects are not followed, cookies not kept, `.netrc` not read; answers are read up to 64 KiB and one byte, and one that is compressed
      although we asked for none is not read at all.
    * TLS is 1.2 or later and certificates are always verified, against `ca_file`, else `REQUESTS_CA_BUNDLE`, else
      `CURL_CA_BUNDLE`, else the bundle that comes with requests.
    * Proxies come from the environment (`HTTPS_PROXY`, `NO_PROXY` …), read once for each process.
    * A server may close an idle connection just as it is used again. A request that met this (a reused connection, not one byte
      of an answer) is sent once more on another connection within the same timeout: `insert_id` makes that harmless.
    * A forked child opens connections of its own; what it inherited is closed without a word to the server.
    * `close` ends requests under way at once, and their sockets are freed. It can not interrupt the resolving of a host name (the
      request then ends before it connects) and a SOCKS proxy.

    Any thread may call it. Nothing is imported or opened before the first `send`.
    """

    def __init__(self, ca_file: str | os.PathLike[str] | None = None) -> None:
        """Remember which certificates to trust.

        Args:
            ca_file: a file or directory of PEM certificates to trust instead of the usual ones. `Config` checks that it can be read;
                what no certificates can be read from fails each `send`.
        """
        self._ca_file = None if ca_file is None else os.fspath(ca_file)
        self._adapters: dict[int, Adapter] = {}

    def send(self, request: Request) -> Response:
        """Send once; see the class.

        Raises:
            TransportError: no answer that could be read; the message says why and never contains body or key.
        """
        # Raised outside of the handler: no foreign exception, whose frames hold the body, hangs on ours.
        answer = self._try(request, monotonic() + request.timeout)
        if isinstance(answer, str):
            raise TransportError(answer)
        return answer

    def _try(self, request: Request, deadline: float) -> Response | str:
        try:
            with late_import:
                from otel_amplitude import _adapter  # noqa: PLC0415 -- gevent must be able to patch before anything imports ssl
        except Exception as error:  # such as a broken installation, or an interpreter that is ending
            return f"requests can not be imported: {type(error).__name__}"
        problem = ""
        for _ in range(CONNECTIONS + 1):
            attempt = None
            try:
                adapter = self._adapter(_adapter.Adapter)
                attempt = adapter.attempt(deadline)
                return Response(*adapter.post(attempt, request.url, request.headers, request.body))
            except Exception as error:  # whatever it is, it becomes ours at the door
                problem = _adapter.describe(error, attempt)
                without_frames(error)
            if attempt is None or not attempt.stale:
                break
        return f"{_place(request.url)}: {problem}"

    def _adapter(self, make: type[Adapter]) -> Adapter:
        mine = self._adapters.get(os.getpid())
        if mine is None:
            self._abandon_inherited()
            # No lock, since a fork could leave it held for ever: of two that race here one wins.
            mine = self._adapters.setdefault(os.getpid(), make(CONNECTIONS, self._ca_file))
        return mine

    def _abandon_inherited(self) -> None:
        for pid in [pid for pid in self._adapters if pid != os.getpid()]:
            self._adapters.pop(pid).abandon()

    def close(self) -> None:
        """End requests under way and close all connections; in a forked child, also what was inherited. Any thread, any time.

        A `send` that waits raises `TransportError`. A later `send` opens new connections.
        """
        self._abandon_inherited()
        mine = self._adapters.pop(os.getpid(), None)
        if mine is not None:
            mine.close()
