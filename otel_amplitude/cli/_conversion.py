"""Documents in, events out: what `convert` does between reading and writing.

    document ─► its spans are noted (ancestors) ─► items that waited for one of them ─┐
             └► its items: most can not be events; the others are read whole ─────────┴► reader ─► client ─► transport
                                                      nobody known, and a parent is missing ─► waiting

An item waits until the span that is missing above it is read, whichever document or file that is in; the oldest is decided with what is
known when more than `MAX_WAITING` items or `MAX_WAITING_BYTES` wait, and all are at the end of the input. All of it runs on one thread;
the client delivers on its own.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import IO, Any, Final, NamedTuple

import orjson
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.trace import ReadableSpan

from otel_amplitude.cli._inputs import Problems
from otel_amplitude.client import Amplitude
from otel_amplitude.clock import wall
from otel_amplitude.config import Config, environment_values
from otel_amplitude.convert.ancestors import Ancestors, Line, Waiting, above
from otel_amplitude.convert.documents import Document
from otel_amplitude.convert.looks import looks_json
from otel_amplitude.convert.mounts import InnerRoutes
from otel_amplitude.convert.otlp import find_all
from otel_amplitude.convert.recorded import CAUSES, KnownResources, Recorded, guarded, problem_of
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.exporter import AmplitudeExporter, read_ids
from otel_amplitude.otel._reader import Outcome, reader_of
from otel_amplitude.transport import Request, Response, Transport

MAX_WAITING: Final = 100_000
MAX_WAITING_BYTES: Final = 64 * 2**20
_MAX_PROBLEMS: Final = 1_000
_KEY_OF_NOBODY: Final = "not-sent-anywhere"
# Yesterday's traffic comes at once: no cap by the minute. What is not sent is still in the input: no spool, but room for a slice.
OURS: Final[dict[str, Any]] = {
    "auto_events_per_minute": 0,
    "upload_interval": 0.2,
    "spool_dir": None,
    "dry_run": False,
    "max_cached_events": 500_000,
    "max_cached_bytes": 512 * 2**20,
}

_TAKEN: Final = Response(status=200, headers={}, body=b'{"code":200}')
_WITHOUT_ID: Final = "is an event without insert_id, which would be counted twice when this is repeated"

Place = tuple[int, int]
"""The number of a document, and that of an item in it."""


class Collecting:
    """A transport that hands over events, where others send them."""

    def __init__(self, take: Callable[[dict[str, Any]], object]) -> None:
        self._take = take

    def send(self, request: Request) -> Response:
        """Hand over the events of one request."""
        for event in orjson.loads(request.body)["events"]:
            self._take(event)
        return _TAKEN

    def close(self) -> None:
        """There is nothing to close."""


class Lines:
    """A transport that writes events as lines, where others send them."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def send(self, request: Request) -> Response:
        """Write the events of one request."""
        try:
            for event in orjson.loads(request.body)["events"]:
                self._file.write(orjson.dumps(event) + b"\n")
        except OSError as error:  # a full disk, a closed pipe: told by the command itself, nothing is tried again
            self.error = error
        return _TAKEN

    def close(self) -> None:
        """Write what is buffered."""
        self.flush()

    def flush(self) -> None:
        """Write what is buffered."""
        try:
            self._file.flush()
        except OSError as error:
            self.error = self.error or error

    def check(self) -> None:
        """Raise what went wrong on the thread that writes.

        Raises:
            OSError: that.
        """
        if self.error is not None:
            raise self.error


def config_for_writing(options: Mapping[str, Any], transport: Transport) -> Config:
    """Give the options of a client whose events go to `transport`: no key is needed, and the order of the input is kept.

    Args:
        options: of the command line; others come from the environment.
        transport: where the events go.

    Raises:
        ConfigurationError: an option can not be used.
    """
    known = {**environment_values(os.environ), **options}
    config = Config.load({**options, "api_key": known.get("api_key", _KEY_OF_NOBODY)})
    return replace(config, **OURS, max_in_flight=1, server_url=None, compression="none", transport=transport)


def is_event(data: object) -> bool:
    """Say whether a JSON value is an event of Amplitude, or the counters at the end of a dry run."""
    return isinstance(data, dict) and ("event_type" in data or "$books" in data)


class Books(NamedTuple):
    """What became of everything that was taken."""

    acknowledged: int
    rejected: Counter[str]
    dropped: Counter[str]
    refused: Counter[str]
    not_chosen: int


class _Wrong(list[str]):
    """The problems of one document: a thousand in words, which is what a file of nothing but problems may take of the memory."""

    def append(self, problem: str) -> None:
        """Keep a problem, unless there are very many."""
        if len(self) < _MAX_PROBLEMS:
            super().append(problem)


class _Waiter(NamedTuple):
    whole: ReadableSpan | ReadableLogRecord
    above: int
    place: Place
    size: int
    inner: Sequence[str] = ()


def _links(items: Iterable[Recorded]) -> Iterator[tuple[int, int, int]]:
    """Give what hangs on which local parent."""
    for item in items:
        ids = item.ids() if item.is_span else None
        if ids is not None and ids.parent_id and not ids.is_remote:
            yield ids.trace_id, ids.span_id, ids.parent_id


class Conversion(AbstractContextManager["Conversion"]):
    """Takes documents and ready events, and says what became of them.

    Attributes:
        empty: documents of OTLP in which there was no span and no log record.
    """

    def __init__(self, config: Config, lines: Lines | None = None, timeout: float = 60.0) -> None:
        """Begin.

        Args:
            config: the options of the client; with `lines` as its transport where events are written.
            lines: where events are written, None where they are sent.
            timeout: seconds that `settle` waits.
        """
        self.empty = 0
        self._client = Amplitude(config)
        self._reader = reader_of(self._client)
        # What was made, checked and encoded already goes out as it is.
        self._ready = AmplitudeExporter(config)
        self._lines = lines
        self._timeout = timeout
        self._identity = self._reader.identity_attributes
        self._resources = KnownResources()
        self._ancestors = Ancestors()
        self._waiting: Waiting[_Waiter] = Waiting(MAX_WAITING, MAX_WAITING_BYTES)
        self._restored: list[_Waiter] = []
        self._not_chosen = 0

    def take(self, document: Document, number: int, problems: Problems) -> int:
        """Take a document, noting what is wrong with it; give how many items were in it."""
        wrong = _Wrong([document.problem] if document.problem else [])
        taken = 0 if wrong else self._take(document, number, wrong)
        problems.note(document.where, wrong)
        return taken

    def _take(self, document: Document, number: int, wrong: list[str]) -> int:
        data = document.data
        if isinstance(data, list) and any(isinstance(member, dict) and "event_type" in member for member in data):
            return sum(self._event(member, orjson.dumps(member), wrong) for member in data)
        if is_event(data):
            return self._event(data, document.raw.strip(), wrong)
        taken = self._items(find_all(document, wrong, self._resources), number, wrong)
        self.empty += not taken and not wrong
        return taken

    def _event(self, data: object, raw: bytes, wrong: list[str]) -> int:
        if isinstance(data, dict) and "$books" in data:  # the last lines of a dry run
            return 0
        if not isinstance(data, dict) or "event_type" not in data:
            wrong.append(looks_json(data))
        elif not data.get("insert_id"):
            wrong.append(_WITHOUT_ID)
        else:
            self.event(raw, int(wall() * 1000))
            return 1
        return 0

    def event(self, body: bytes, accepted_ms: int) -> None:
        """Take one encoded event."""
        self._ready.submit(Parcel(body, read_ids(body), accepted_ms))

    # spans and log records

    def _items(self, found: Iterator[Recorded], number: int, wrong: list[str]) -> int:
        items = self._noted(found, wrong)
        read: list[tuple[int, Recorded, ReadableSpan | ReadableLogRecord]] = []
        for index, (item, names) in enumerate(items):
            if not self._reader.may_be_event(names, is_told=item.is_told()):
                self._not_chosen += 1
            elif (whole := guarded(item.read, wrong, item.where)) is not None:
                read.append((index, item, whole))
        spans = (whole for _, _, whole in read if isinstance(whole, ReadableSpan))
        mounted = InnerRoutes(spans, _links(item for item, _ in items))
        for index, item, whole in read:
            inner = mounted.of(whole) if isinstance(whole, ReadableSpan) else ()
            self._offer(_Waiter(whole, above(item.ids(), is_span=item.is_span), (number, index), item.size, inner))
        self._decide(self._waiting.too_many())
        return len(items)

    def _noted(self, found: Iterator[Recorded], wrong: list[str]) -> list[tuple[Recorded, Collection[str]]]:
        """Give the items that have ids as they should, and the names of their attributes; first decide what waited for one of the spans."""
        items, arrived = [], []
        for item in found:
            try:
                ids, names = item.ids(), item.names()
                if item.is_span:
                    known = None if self._identity.isdisjoint(names) else item.some(self._identity)
                    arrived.append(self._ancestors.note(ids, known))
            except CAUSES as error:
                wrong.append(problem_of(item.where, error))
            else:
                items.append((item, names))
        if len(self._waiting):
            for key in arrived:
                self._arrived(key)
        return items

    def _arrived(self, key: int) -> None:
        for held in self._waiting.arrived(key):
            line = self._ancestors.of(held.item.above)
            if self._read(held.item, line) is Outcome.WAITS:
                self._waiting.again(held, line.missing)
            else:
                self._waiting.take(held)

    def _offer(self, item: _Waiter) -> None:
        line = self._ancestors.of(item.above)
        if self._read(item, line) is Outcome.WAITS:
            self._waiting.add(item, line.missing, item.size)

    def _read(self, item: _Waiter, line: Line, *, final: bool = False) -> Outcome:
        whole, final = item.whole, final or not line.missing
        try:
            if isinstance(whole, ReadableSpan):
                outcome = self._reader.exported_span(whole, line.parents, item.inner, final=final)
            else:
                outcome = self._reader.exported_log(whole, line.parents, final=final)
        except Exception as error:  # as in an application: one item that can not be converted is counted, the others go on
            self._reader.failed(error)
            return Outcome.COUNTED
        self._not_chosen += outcome is Outcome.NOT_CHOSEN
        return outcome

    def _decide(self, items: Iterator[_Waiter]) -> None:
        for item in items:
            self._read(item, self._ancestors.of(item.above), final=True)

    # going on, and the end

    def again(self, document: Document, number: int, waited: Container[Place]) -> None:
        """Read a document that an earlier run took: its spans are noted, and those of its items that waited wait again."""
        found = iter(()) if document.problem else find_all(document, [], self._resources)
        for index, (item, _) in enumerate(self._noted(found, [])):
            if (number, index) in waited:
                whole = guarded(item.read, [], item.where)
                self._restored.append(_Waiter(whole, above(item.ids(), is_span=item.is_span), (number, index), item.size))

    def resume(self) -> None:
        """Let the items that waited wait again; after the last call of `again`."""
        for item in self._restored:
            self._offer(item)
        self._restored.clear()

    @property
    def waiting(self) -> list[Place]:
        """Where the items stand that wait, the oldest first."""
        return [item.place for item in self._waiting]

    def finish(self) -> None:
        """Decide what waits with what is known, since no more input comes."""
        self._decide(self._waiting.rest())

    def settle(self) -> bool:
        """Wait until everything decided is written or settled; False when that takes too long.

        Raises:
            OSError: it could not be written.
        """
        settled = self._client.flush(self._timeout) and self._ready.flush(self._timeout)
        if self._lines is not None:
            self._lines.flush()
            self._lines.check()
        return settled

    def books(self) -> Books:
        """Give the books of both ways together."""
        one, other = self._client.stats(), self._ready.stats()
        rejected, dropped, refused = (
            Counter(getattr(one, name)) + Counter(getattr(other, name)) for name in ("rejected", "dropped", "refused")
        )
        return Books(one.acknowledged + other.acknowledged, rejected, dropped, refused, self._not_chosen)

    def __exit__(self, *_: object) -> None:
        self._client.shutdown(1.0)
        self._ready.shutdown(1.0)
