"""The sandbox on a socket: HTTP in and out, who may ask what, and the `Sandbox` class that starts and stops it."""

from __future__ import annotations

import contextlib
import hmac
import ipaddress
import json
import re
import secrets
import socket
import struct
import sys
import threading
import time
import urllib.parse
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import TYPE_CHECKING, Any

from otel_amplitude.sandbox._contract import ENDPOINTS, MAX_RAW, parse, refusal
from otel_amplitude.sandbox._guide import guide
from otel_amplitude.sandbox._limits import EpsLimits
from otel_amplitude.sandbox._project import Project, Received
from otel_amplitude.sandbox._store import HISTORY

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from otel_amplitude.sandbox._contract import Endpoint, Event, Json
    from otel_amplitude.sandbox._project import Decision

IDLE_SECONDS = 30.0
BODY_SECONDS = 60.0
MAX_CONNECTIONS = 256
MAX_STREAMS = 16
MAX_API_BODY = 64 * 1024
STREAM_PAUSE = 0.15
STREAM_ROWS = 300
HEARTBEAT = 15.0

# Each asset by its URL, so that no URL ever becomes a path in the file system.
ASSETS = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
TOKEN_HEADER = "X-Sandbox-Token"  # noqa: S105 -- the name, not the token
TOKEN_MARK = b"SANDBOX_TOKEN"
# An exporter reads this header of an answer and posts its counters with it; it permits nothing else.
COUNTERS_HEADER = "X-Sandbox-Counters"
COUNTERS_PATH = "/api/counters"
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


class _RefusedError(Exception):
    """A request that is answered with a status and nothing else."""

    def __init__(self, status: int, error: str) -> None:
        super().__init__(error)
        self.status = status


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], project: Project, allow_origins: Collection[str]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.project = project
        self.allow_origins = frozenset(allow_origins)
        self.token = secrets.token_urlsafe(18)
        self.counters_token = secrets.token_urlsafe(18)
        self.run = secrets.token_hex(8)
        self.hosts = {"127.0.0.1", "localhost", "[::1]", f"[{address[0]}]" if ":" in address[0] else address[0]} - {"0.0.0.0", "[::]"}  # noqa: S104 -- taken out
        self.streams = threading.BoundedSemaphore(MAX_STREAMS)
        self._connections: set[socket.socket] = set()
        self._last_connected = time.monotonic()
        self._all_closed = threading.Condition()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._all_closed:
            full = len(self._connections) >= MAX_CONNECTIONS
            if not full:
                self._connections.add(request)
        if full:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._all_closed:
                self._connections.discard(request)
                self._last_connected = time.monotonic()
                self._all_closed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 -- the signature of the base class
        """Ignore clients that disconnect; log any other exception as a warning."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            warnings.warn(f"the sandbox failed on a request: {error!r}", RuntimeWarning, stacklevel=2)

    @property
    def idle_seconds(self) -> float:
        """How long ago the last connection ended; 0 while there is one."""
        with self._all_closed:
            return 0.0 if self._connections else time.monotonic() - self._last_connected

    def close_connections(self, seconds: float) -> None:
        """Hang up on everyone and wait until every thread has noticed."""
        with self._all_closed:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._all_closed.wait_for(lambda: not self._connections, seconds)


def _page(name: str, token: str) -> bytes:
    content = resources.files("otel_amplitude.sandbox").joinpath("page", name).read_bytes()
    return content.replace(TOKEN_MARK, token.encode()) if name == "index.html" else content


def _query(text: str) -> dict[str, str]:
    try:
        return dict(urllib.parse.parse_qsl(text, errors="replace", max_num_fields=64))
    except ValueError as error:
        raise _RefusedError(400, "Invalid request path") from error


def _filters(query: dict[str, str]) -> dict[str, Any]:
    numbers = {"since": (0, 2**62), "seq": (1, 2**62), "limit": (1, 1_000)}
    filters: dict[str, Any] = {name: query[name][:200] for name in ("type", "user", "device", "text", "verdict") if query.get(name)}
    for name, (least, most) in numbers.items():
        if name in query:
            if not re.fullmatch("[0-9]{1,18}", query[name], re.ASCII):
                raise _RefusedError(400, f"{name} must be a whole number")
            filters[name] = min(max(int(query[name]), least), most)
    return filters


GETS: dict[str, Callable[[Project, dict[str, str]], Any]] = {
    "/api/events": lambda project, query: {"events": project.find(**_filters(query))},
    "/api/summary": lambda project, _: project.summary(),
    "/api/timeline": lambda project, query: project.timeline(query.get("user", "")),
    "/api/problems": lambda project, _: project.problems(),
    "/api/catalog": lambda project, _: {"types": project.catalog()},
    "/api/faults": lambda project, _: project.faults(),
    COUNTERS_PATH: lambda project, _: project.counters(),
}


def _post_fault(project: Project, body: Json) -> Json:
    options = dict(body)
    name = options.pop("fault", None)
    try:
        project.set_fault(name if isinstance(name, str) else repr(name), **options)
    except (ValueError, TypeError) as error:
        raise _RefusedError(400, str(error)) from error
    return project.faults()


def _post_clear(project: Project, body: Json) -> Json:
    name = body.get("fault")
    project.clear_faults(name if isinstance(name, str) else None)
    return project.faults()


def _post_counters(project: Project, body: Json) -> Json:
    try:
        project.post_counters(body)
    except ValueError as error:
        raise _RefusedError(400, str(error)) from error
    return {"code": 200}


def _post_reset(project: Project, _: Json) -> Json:
    project.reset()
    return {"code": 200}


POSTS: dict[str, Callable[[Project, Json], Json]] = {
    "/api/faults": _post_fault,
    "/api/faults/clear": _post_clear,
    COUNTERS_PATH: _post_counters,
    "/api/reset": _post_reset,
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "sandbox"
    sys_version = ""
    timeout = IDLE_SECONDS
    # Without these two an answer leaves in several packets and waits for the client's delayed acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    # ---------------------------------------------------------------------------------------------------------- entry

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_OPTIONS(self) -> None:
        self._answer(self._preflight)

    def _not_allowed(self) -> None:
        self._answer(self._refuse_method)

    def _refuse_method(self, _path: str, _query: dict[str, str]) -> None:
        raise _RefusedError(405, "Method not allowed")

    do_HEAD = do_PUT = do_DELETE = do_PATCH = _not_allowed  # noqa: N815 -- names of the base class

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent: the page is the log."""

    def _answer(self, work: Callable[[str, dict[str, str]], None]) -> None:
        path, _, query = self.path.partition("?")
        try:
            self._check_host()
            work(path, _query(query))
        except _RefusedError as refused:
            # The body may not have been read: a second request on this connection could not be separated from its rest.
            self.close_connection = True
            self._write_json(refused.status, refusal(refused.status, str(refused)))
            self._linger()

    # ----------------------------------------------------------------------------------------------------- who may ask

    def _is_host(self) -> bool:
        hosts = self.headers.get_all("Host") or []
        return len(hosts) == 1 and re.sub(r":[0-9]{1,5}\Z", "", hosts[0].strip().lower()) in self.server.hosts

    def _check_host(self) -> None:
        if not self._is_host():
            raise _RefusedError(403, "Forbidden: the sandbox answers to 127.0.0.1, localhost and [::1] only")

    def _origin(self) -> str | None:
        origins = self.headers.get_all("Origin") or []
        return origins[0].strip() if origins else None

    def _is_own(self) -> bool:
        origin = self._origin()
        if origin is None:
            return self.headers.get("Sec-Fetch-Site", "none") in ("none", "same-origin", "same-site")
        return origin == f"http://{self.headers['Host'].strip().lower()}"

    def _check_own(self) -> None:
        if not self._is_own():
            raise _RefusedError(403, "Forbidden: only the sandbox's own page may ask this")

    def _check_sender(self) -> None:
        if not self._is_own() and self._origin() not in self.server.allow_origins:
            raise _RefusedError(403, "Forbidden: start the sandbox with --allow-origin to let pages of this origin send events")

    def _check_token(self, path: str) -> None:
        if not self._has(TOKEN_HEADER, self.server.token) and not (
            path == COUNTERS_PATH and self._has(COUNTERS_HEADER, self.server.counters_token)
        ):
            raise _RefusedError(403, f"Forbidden: state changes need the header {TOKEN_HEADER} with this run's token")

    def _has(self, header: str, token: str) -> bool:
        return hmac.compare_digest(self.headers.get(header, "").encode(errors="replace"), token.encode())

    def _may_count(self) -> bool:
        """Tell whether this is an upload URL, asked by a program: a page that may send events has an Origin, or says that it is a page."""
        return (
            self.path.partition("?")[0] in ENDPOINTS and self._is_host() and self._origin() is None and "Sec-Fetch-Site" not in self.headers
        )

    def _content_type(self) -> str:
        return (self.headers.get("Content-Type") or "").partition(";")[0].strip().lower()

    # -------------------------------------------------------------------------------------------------------- requests

    def _get(self, path: str, query: dict[str, str]) -> None:
        if path in ASSETS:
            name, content_type = ASSETS[path]
            self._write(200, _page(name, self.server.token), {"Content-Type": content_type})
            return
        if path in ENDPOINTS or path in POSTS.keys() - GETS.keys():
            raise _RefusedError(405, "Method not allowed: use POST")
        if path not in ("/api/stream", "/api/guide") and path not in GETS:
            raise _RefusedError(404, "Invalid request path")
        self._check_own()
        if path == "/api/stream":
            self._stream(query)
        elif path == "/api/guide":
            self._write_json(200, guide(f"http://{self.headers['Host'].strip()}"))
        else:
            self._write_json(200, GETS[path](self.server.project, query))

    def _post(self, path: str, _: dict[str, str]) -> None:
        if path in ENDPOINTS:
            self._upload(ENDPOINTS[path])
            return
        if path not in POSTS:
            raise _RefusedError(404, "Invalid request path")
        self._check_own()
        self._check_token(path)
        if self._content_type() != "application/json":
            raise _RefusedError(415, "Content-Type must be application/json")
        try:
            body = parse(self._body(MAX_API_BODY))
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise _RefusedError(400, "the body must be a JSON object")
        self._write_json(200, POSTS[path](self.server.project, body))

    def _preflight(self, path: str, _: dict[str, str]) -> None:
        origin = self._origin()
        if path not in ENDPOINTS or origin not in self.server.allow_origins:
            raise _RefusedError(403, "Forbidden: start the sandbox with --allow-origin to let pages of this origin send events")
        more = {
            "Access-Control-Allow-Methods": "POST",
            "Access-Control-Allow-Headers": "content-type, content-encoding",
            "Access-Control-Max-Age": "600",
        }
        self._write(204, b"", more)

    def _upload(self, endpoint: Endpoint) -> None:
        self._check_sender()
        if self._content_type() not in (FORMS if endpoint.form else ("application/json",)):
            raise _RefusedError(415, "Content-Type must be " + (" or ".join(FORMS) if endpoint.form else "application/json"))
        body = self._body(MAX_RAW)
        headers = {name.lower(): value for name, value in self.headers.items()}
        decision = self.server.project.receive(endpoint, headers, body)
        if decision is None:
            self._reset_connection()
        else:
            self._carry_out(decision)

    def _body(self, limit: int) -> bytes:
        lengths = self.headers.get_all("Content-Length") or []
        if "Transfer-Encoding" in self.headers or len(lengths) != 1 or not re.fullmatch("[0-9]{1,18}", lengths[0].strip(), re.ASCII):
            raise _RefusedError(411, "Length required: send one Content-Length and no Transfer-Encoding")
        length = int(lengths[0])
        if length > limit:
            raise _RefusedError(413, "Payload too large")
        parts: list[bytes] = []
        deadline = time.monotonic() + BODY_SECONDS
        while length:
            part = self.rfile.read1(min(length, 1 << 20))
            if not part or time.monotonic() > deadline:
                raise _RefusedError(408, "Request timeout")
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    # --------------------------------------------------------------------------------------------------------- answers

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        origin = self._origin()
        if origin is not None and origin in self.server.allow_origins and self.path.partition("?")[0] in ENDPOINTS:
            headers = {**headers, "Access-Control-Allow-Origin": origin, "Vary": "Origin", "Cross-Origin-Resource-Policy": "cross-origin"}
        if self._may_count():
            headers = {**headers, COUNTERS_HEADER: self.server.counters_token}
        if self.close_connection:
            headers = {**headers, "Connection": "close"}
        for name, value in {**SECURITY_HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _write(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self._head(status, headers if status == 204 else {**headers, "Content-Length": str(len(body))})
        self.wfile.write(body)

    def _write_json(self, status: int, body: Any) -> None:
        self._write(status, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _carry_out(self, decision: Decision) -> None:
        reply = decision.reply
        body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        headers = {"Content-Type": "application/json", **reply.headers}
        after = {fault.name: fault for fault in decision.after}
        if "half_answer" in after:
            self.close_connection = True
            self._head(reply.status, {**headers, "Content-Length": str(len(body))})
            self.wfile.write(body[: len(body) // 2])
        elif "trickle" in after:
            self._head(reply.status, {**headers, "Content-Length": str(len(body))})
            for position in range(len(body)):
                if self._wait(after["trickle"].options["seconds"]):
                    self.close_connection = True
                    return
                self.wfile.write(body[position : position + 1])
                self.wfile.flush()
        else:
            self._write(reply.status, body, headers)

    def _wait(self, seconds: float) -> bool:
        """Wait; tell whether the sandbox is stopping."""
        project = self.server.project
        with project.changed:
            return project.changed.wait_for(lambda: project.stopped, seconds)

    def _reset_connection(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _linger(self) -> None:
        """Let the client read the refusal before the unread rest of its body makes the system reset the connection."""
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(0.5)
            deadline = time.monotonic() + 2.0
            while self.connection.recv(1 << 16) and time.monotonic() < deadline:
                pass

    # ---------------------------------------------------------------------------------------------------------- stream

    def _stream(self, query: dict[str, str]) -> None:
        if not self.server.streams.acquire(blocking=False):
            raise _RefusedError(503, f"at most {MAX_STREAMS} pages may watch at a time")
        try:
            last = _filters({"since": self.headers.get("Last-Event-ID") or query.get("since") or str(self.server.project.last())})
            self.close_connection = True
            self._head(200, {"Content-Type": "text/event-stream"})
            self.wfile.write(b"retry: 1000\n")
            self._follow(last["since"])
        except OSError:
            return  # the page was closed
        finally:
            self.server.streams.release()

    def _follow(self, last: int) -> None:
        project = self.server.project
        while not project.stopped:
            version, epoch = project.version, project.epoch
            newest = project.find(since=last, limit=STREAM_ROWS)
            last = newest[0]["seq"] if newest else last
            message = {"events": newest, "last": last, "epoch": epoch, "run": self.server.run}
            self.wfile.write(f"id: {last}\ndata: {json.dumps(message)}\n\n".encode())
            self.wfile.flush()
            project.wait_for_change(version, HEARTBEAT)
            self._wait(STREAM_PAUSE)


class Sandbox:
    """A stand-in for Amplitude on loopback, as a context manager or with `start()` and `stop()`; runs in daemon threads.

    Uploads go to `url + "/2/httpapi"`, `"/batch"`, `"/identify"` or `"/groupidentify"`; `url` itself is a live page.

    Args:
        port: 0 is any free port.
        host: the address to listen on; anything but loopback gives a warning. It answers to that address and to loopback names
            only, so that 0.0.0.0 suits a container with a published port, not a network.
        api_keys: the keys it knows; None is any non-empty key.
        eps_limits: throttle a device or user that sends too fast; False (the default) suits functional tests, the command line
            turns it on. `EpsLimits` sets other numbers.
        db: a file that keeps the history; None is memory.
        allow_origins: origins (such as `http://localhost:3000`) whose pages may send events.
        history: how many accepted events are kept, the newest.
    """

    def __init__(
        self,
        port: int = 0,
        host: str = "127.0.0.1",
        *,
        api_keys: Collection[str] | None = None,
        eps_limits: bool | EpsLimits = False,
        db: str | None = None,
        allow_origins: Collection[str] = (),
        history: int = HISTORY,
    ) -> None:
        for name, value in (("api_keys", api_keys), ("allow_origins", allow_origins)):
            if isinstance(value, str):
                raise TypeError(f"{name} must be a collection of texts, not one text: write {{...}} around it")
        self._address = (host, port)
        self._allow_origins = allow_origins
        eps = eps_limits if isinstance(eps_limits, EpsLimits) else EpsLimits() if eps_limits else None
        self._make: Callable[[], Project] = lambda: Project(api_keys, eps, db, history)
        self._project: Project | None = None
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> Sandbox:
        """Listen; answers when this returns.

        Raises:
            OSError: the address is in use or not ours.
        """
        if self._server is not None:
            raise RuntimeError("this sandbox is running already")
        if not _is_loopback(self._address[0]):
            warnings.warn(f"the sandbox listens on {self._address[0]}: others on the network can reach it", stacklevel=2)
        project = self._make()
        try:
            server = _Server(self._address, project, self._allow_origins)
        except BaseException:
            project.close()
            raise
        self._project, self._server = project, server
        self._thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="amplitude-sandbox", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop listening, hang up on everyone, close everything; what arrived can no longer be asked for. Harmless twice."""
        server, self._server = self._server, None
        if server is None or self._project is None or self._thread is None:
            return
        self._project.stop()
        server.shutdown()
        server.server_close()
        server.close_connections(5.0)
        self._thread.join(5.0)
        self._project.close()

    def __enter__(self) -> Sandbox:  # noqa: PYI034 -- Self needs Python 3.11
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def idle_seconds(self) -> float:
        """How long ago the last connection ended, such as that of an open page; 0 while there is one, or when it does not run."""
        return 0.0 if self._server is None else self._server.idle_seconds

    @property
    def _running(self) -> Project:
        if self._project is None or self._server is None:
            raise RuntimeError("the sandbox is not running: enter it with `with`, or call start()")
        return self._project

    @property
    def url(self) -> str:
        """Where it listens.

        For example `http://127.0.0.1:41234`.
        """
        if self._server is None:
            raise RuntimeError("the sandbox is not running: enter it with `with`, or call start()")
        address, port = self._server.server_address[:2]
        host = _REACHED_AT.get(str(address), str(address))
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def token(self) -> str:
        """What POSTs to /api/… carry in the header X-Sandbox-Token; new in every run."""
        if self._server is None:
            raise RuntimeError("the sandbox is not running: enter it with `with`, or call start()")
        return self._server.token

    @property
    def duplicates(self) -> int:
        """How many events were answered 200 and ignored, since their insert_id had come from that device before."""
        return self._running.duplicates

    @property
    def accepted(self) -> int:
        """How many events were accepted, duplicates aside; goes on counting when the history forgets."""
        return self._running.accepted

    @property
    def requests(self) -> list[Received]:
        """The newest upload requests, oldest first (at most 10,000 and 64 MB of bodies)."""
        return self._running.requests()

    def events(self) -> list[Event]:
        """Give the accepted events in order of arrival, without duplicates, exactly as sent (the newest `history`)."""
        return self._running.events()

    def wait_for(self, predicate: Callable[[Sandbox], bool], timeout: float = 5.0) -> bool:
        """Wait until the predicate holds, asking it after each request; tell whether it did within `timeout` seconds."""
        return self._running.wait_for(lambda: predicate(self), timeout)

    def set_fault(self, name: str, **options: Any) -> None:
        """Switch a fault on, such as `set_fault("status", status=503, count=2)`; see `_faults.KINDS` for all.

        Raises:
            ValueError: no such fault, or an option it does not know or cannot use.
        """
        self._running.set_fault(name, **options)

    def clear_faults(self) -> None:
        """Switch all faults off; requests that hang end (without an answer)."""
        self._running.clear_faults()

    def user_properties(self, user_id: str) -> Json:
        """Give the properties that `$identify` and plain `user_properties` gave a user (or a device that has none)."""
        return self._running.user_properties(user_id)

    def group_properties(self, kind: str, name: str) -> Json:
        """Give the properties that `$groupidentify` gave a group."""
        return self._running.group_properties(kind, name)


# Who listens everywhere is reached here, and answers to these names only.
_REACHED_AT = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 -- not bound here


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
