"""Posts the counters of a client to a sandbox on this machine, so that its page can answer "why is there no event?".

How it works. A sandbox adds the header `X-Sandbox-Counters` to its answers at the upload URL. The header holds a token that permits
posting counters and nothing else. An exporter accepts it only when `server_url` has a literal loopback address, so no other server
receives anything. Where events are refused and none was uploaded, there is no answer to read: then a refusal asks for the token with one
GET of the upload URL, without a key. An answer without the header comes from something else than a sandbox, which is not asked again.

What is posted. The fields of `stats()`, the service name and the process id. No event, no id, no key.

Which thread does what. `changed` runs on threads of the application and of delivery: it sets a flag, and the first call starts a thread.
That thread posts at most once in `PERIOD` seconds and ends when the counters rest. `last` posts on the thread that calls `shutdown`,
because no thread can be started while the interpreter exits, and takes no longer than that call has left. Every failure is ignored.

There is no lock: a refusal may come from a signal handler or finalizer that interrupts this module on the same thread. State belongs to
one process id, so a forked child starts without the thread and the token of its parent.
"""

from __future__ import annotations

import _thread
import ipaddress
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import orjson
from opentelemetry import trace

from otel_amplitude.delivery.observer import Observer
from otel_amplitude.late_imports import late_import
from otel_amplitude.pipeline import entered
from otel_amplitude.suppression import suppressed

if TYPE_CHECKING:
    from otel_amplitude.delivery.books import Stats
    from otel_amplitude.delivery.parcel import Parcel
    from otel_amplitude.delivery.receipt import Receipt

HEADER: Final = "X-Sandbox-Counters"
PATH: Final = "/api/counters"
PERIOD: Final = 1.0
_SECONDS: Final = 0.5
_LAST_SECONDS: Final = 0.1
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{16,64}")
_MAX_SERVICE: Final = 100


class _Process:
    """What one process knows: the token, whether the server is no sandbox, what was posted last, and the thread that posts."""

    def __init__(self) -> None:
        self.token = ""
        self.is_other = False
        self.may_ask = False
        self.has_changed = False
        self.posted = b""
        self.thread: dict[str, object] = {}


class SandboxCounters(Observer):
    """Posts the counters of one client to the sandbox that it uploads to."""

    def __init__(self, server_url: str, stats: Callable[[], Stats]) -> None:
        """Take the upload URL, whose host is a loopback address (see `counters_for`), and the function that gives the counters."""
        parts = urlsplit(server_url)
        self._host, self._port, self._path = parts.hostname or "", parts.port or 80, parts.path or "/"
        self._stats = stats
        self._processes: dict[int, _Process] = {}

    def counted(self, refuse: Callable[[str], None]) -> Callable[[str], None]:
        """Give a function that calls `refuse` and then posts the counters."""

        def count(reason: str) -> None:
            refuse(reason)
            self._mine().may_ask = True
            self.changed()

        return count

    # From delivery

    def settled(self, batch: Sequence[Parcel], receipt: Receipt, seconds: float) -> None:  # noqa: ARG002 -- the signature of the base class
        """Read the token of an answer, and post."""
        headers = getattr(receipt.response, "headers", None)
        if headers is not None:
            self._learn(self._mine(), headers.get(HEADER.lower()))
        self.changed()

    def dropped(self, reason: str, count: int) -> None:  # noqa: ARG002 -- the signature of the base class
        """Post: events were dropped, or refused by delivery."""
        self.changed()

    # From any thread

    def changed(self) -> None:
        """Post soon. Never waits, never raises."""
        mine = self._mine()
        mine.has_changed = True
        if mine.is_other:
            return
        mark = object()
        if mine.thread.setdefault("thread", mark) is mark:
            try:
                _thread.start_new_thread(self._run, (mine,))
            except RuntimeError:  # no more threads, or the interpreter is exiting: `last` posts
                mine.thread.clear()

    def last(self, seconds: float) -> None:
        """Post on this thread, unless everything was posted; at most about `seconds`, or a tenth of a second where a sandbox answered before."""
        mine = self._processes.get(os.getpid())
        if mine is not None and not mine.is_other:
            timeout = min(max(seconds, _LAST_SECONDS if mine.token else 0.0), _SECONDS)
            if timeout > 0:
                self._post(mine, timeout)

    def _mine(self) -> _Process:
        pid = os.getpid()
        return self._processes.get(pid) or self._processes.setdefault(pid, _Process())

    def _learn(self, mine: _Process, token: object) -> None:
        mine.token = token if isinstance(token, str) and _TOKEN.fullmatch(token) else ""
        mine.is_other = not mine.token

    # On the thread that posts

    def _run(self, mine: _Process) -> None:
        while mine.has_changed and not mine.is_other:
            mine.has_changed = False
            self._post(mine, _SECONDS)
            time.sleep(PERIOD)
        mine.thread.clear()
        if mine.has_changed:  # between the last look and the line above
            self.changed()

    def _post(self, mine: _Process, timeout: float) -> None:
        with entered(), suppressed():
            try:
                body = _body(self._stats())
                for _ in range(2):  # a sandbox that was started again has another token
                    if body == mine.posted or not self._has_token(mine, timeout):
                        return
                    status, _headers = self._request("POST", PATH, body, {"Content-Type": "application/json", HEADER: mine.token}, timeout)
                    if status == 403:
                        mine.token, mine.may_ask = "", True
                    else:
                        mine.posted = body
            except Exception:  # nothing depends on this: the next change tries again
                return

    def _has_token(self, mine: _Process, timeout: float) -> bool:
        if not mine.token and mine.may_ask:
            _status, headers = self._request("GET", self._path, None, {}, timeout)
            self._learn(mine, headers.get(HEADER.lower()))
        return bool(mine.token)

    def _request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, dict[str, str]]:
        with late_import:
            from http.client import HTTPConnection  # noqa: PLC0415 -- only a sandbox needs it
        connection = HTTPConnection(self._host, self._port, timeout=timeout)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()


def counters_for(server_url: str, stats: Callable[[], Stats]) -> SandboxCounters | None:
    """Give what posts the counters, or None when `server_url` is not `http://` with a literal loopback address.

    A name such as `localhost` is not enough: what it resolves to is decided elsewhere.
    """
    parts = urlsplit(server_url)
    try:
        is_loopback = ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return None
    return SandboxCounters(server_url, stats) if is_loopback and parts.scheme == "http" else None


def _body(stats: Stats) -> bytes:
    counters: dict[str, Any] = {name: getattr(stats, name) for name in ("accepted", "adopted", "acknowledged")}
    counters |= {name: dict(getattr(stats, name)) for name in ("rejected", "dropped", "refused")}
    counters["pending"] = asdict(stats.pending)
    return orjson.dumps({"service": _service(), "pid": os.getpid(), "counters": counters})


def _service() -> str:
    resource: Any = getattr(trace.get_tracer_provider(), "resource", None)
    found = resource.attributes.get("service.name") if resource is not None else os.environ.get("OTEL_SERVICE_NAME")
    return str(found or "unknown_service")[:_MAX_SERVICE]
