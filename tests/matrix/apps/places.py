"""What every application of the matrix does at each place of a request, and the journal of what it did.

A request is a visit, named in its query: `visit=17&says=view&traced=1`. The application calls `at(place, query)` wherever its framework runs code.
`at` calls `set_user` where the visit asks for it, then makes an event of each kind. Visits are found by the query, never by a context, so
that the journal is right where the package is wrong.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs

from opentelemetry import trace
from opentelemetry._logs import LogRecord, get_logger
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind

import otel_amplitude

GLUE = os.environ["GLUE"] == "glue"
if os.environ["BROKEN"]:
    import broken

    getattr(broken, os.environ["BROKEN"])()
# Where the instrumentations keep the query, which carries the visit onto the event of the request.
QUERY_ATTRIBUTES = ("http.target", "http.url", "url.full", "url.query")
_journal = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND)


class Visit:
    """One request.

    Attributes:
        traced: whether it has a span.
        said: whether `set_user` was called.
        seen: the places that were reached so far.
        waits_for: the places that the created task waits for, and how it is told.
    """

    def __init__(self, number: str, says: str, traced: bool) -> None:
        self.number, self.says, self.traced, self.said = number, says, traced, False
        self.seen: set[str] = set()
        self.waits_for: tuple[set[str], Callable[[], object]] | None = None

    def note(self, place: str) -> None:
        """Write into the journal that the visit was at a place."""
        os.write(_journal, json.dumps({"visit": self.number, "place": place, "said": self.said}).encode() + b"\n")
        self.seen.add(place)
        if self.waits_for is not None and self.waits_for[0] <= self.seen:
            self.waits_for[1]()


_visits: dict[str, Visit] = {}
_making = threading.Lock()


def visit_of(query: str | bytes) -> Visit:
    """Give the visit that a query names."""
    found = parse_qs(query.decode() if isinstance(query, bytes) else query)
    with _making:
        return _visits.setdefault(found["visit"][0], Visit(found["visit"][0], found["says"][0], found["traced"] == ["1"]))


class _Requests(SpanProcessor):
    """Notes the end of each request's own span. It runs before the package's processor."""

    def on_end(self, span: ReadableSpan) -> None:
        if span.kind is not SpanKind.SERVER or (span.parent is not None and not span.parent.is_remote):
            return
        values = (str((span.attributes or {}).get(name)) for name in QUERY_ATTRIBUTES)
        visit = visit_of(next(value.rpartition("?")[2] for value in values if "visit=" in value))
        visit.note("request")


_provider = TracerProvider(ALWAYS_ON, shutdown_on_exit=False)
_provider.add_span_processor(_Requests())
trace.set_tracer_provider(_provider)
client = otel_amplitude.configure(properties=QUERY_ATTRIBUTES, upload_interval=0.05)
_tracer, _logger = trace.get_tracer("visits"), get_logger("visits")


def at(place: str, query: str | bytes) -> None:
    """Call `set_user` if this visit does so here; make a span, a log record and a call that are events; note it."""
    visit = visit_of(query)
    if visit.says == place:
        otel_amplitude.set_user(f"visitor-{visit.number}")
        visit.said = True
    made = {"visit": visit.number, "place": place}
    with _tracer.start_as_current_span("made") as span:
        span.set_attributes({"amplitude.event_type": "span", **made})
    _logger.emit(LogRecord(event_name="log", attributes=made))
    client.log_event({"event_type": "call", "event_properties": made})
    visit.note(place)
    pause()


def pause() -> None:
    """Let another thread or greenlet run."""
    time.sleep(0)


_pool = ThreadPoolExecutor(1)


def in_threads(query: str | bytes) -> None:
    """Use the one thread of a pool, which all visits share: with a copy of the context, and without."""
    _pool.submit(contextvars.copy_context().run, at, "thread, copied context", query).result()
    _pool.submit(at, "thread", query).result()


class Body:
    """The body of a response, as an iterable with `close`."""

    def __init__(self, query: str | bytes) -> None:
        self._query = query

    def __iter__(self) -> Iterator[bytes]:
        yield b"first, "
        at("body", self._query)
        yield b"second"

    def close(self) -> None:
        at("close", self._query)


def created_task(query: str | bytes, *after: str) -> None:
    """Start a task that goes on when the request is over: its span has ended and it was at its last places."""
    visit, over, loop = visit_of(query), asyncio.Event(), asyncio.get_running_loop()
    visit.waits_for = ({*after, *(["request"] if visit.traced else [])}, lambda: loop.call_soon_threadsafe(over.set))

    async def work() -> None:
        await over.wait()
        at("created task", query)

    task = asyncio.create_task(work())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


_tasks: set[asyncio.Task[None]] = set()


def outside(app: Callable[..., object]) -> Callable[..., object]:
    """Wrap an ASGI application in a middleware that runs before all instrumentation of it."""

    async def early(scope: dict[str, object], receive: object, send: object) -> None:
        if scope["type"] == "http":
            at("early ASGI hook", scope["query_string"])
        await app(scope, receive, send)

    return early


class _Books(BaseHTTPRequestHandler):
    """Gives the counters of the client; no instrumentation sees it."""

    def do_GET(self) -> None:
        books = client.stats()
        answer = json.dumps({"accepted": books.accepted, "refused": dict(books.refused), "outside": books.set_user_outside}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""


def serve_books() -> None:
    """Serve the counters of this process; called where no fork follows."""
    server = HTTPServer(("127.0.0.1", int(os.environ["BOOKS"])), _Books)
    threading.Thread(target=server.serve_forever, daemon=True).start()
