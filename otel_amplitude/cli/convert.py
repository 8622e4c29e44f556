"""`otel-amplitude convert`: what was recorded elsewhere (OTLP JSON lines, events, a spool) as Amplitude events: written, or sent."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import orjson

from otel_amplitude.cli._options import add_options, given_options, make_config
from otel_amplitude.cli._seen import SourceError
from otel_amplitude.cli._table import Progress, printable
from otel_amplitude.client import Amplitude
from otel_amplitude.clock import wall
from otel_amplitude.config import Config, environment_values
from otel_amplitude.convert._otlp import Batch, read_request
from otel_amplitude.delivery.disk.inspect import iter_records
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.exporter import AmplitudeExporter, read_ids
from otel_amplitude.otel._reader import reader_of
from otel_amplitude.results import Result
from otel_amplitude.transport import Request, Response

HELP: Final = "Make Amplitude events of OTLP JSON lines, event lines or a spool: to a file, to standard output, or sent."
EXAMPLES: Final = (
    "otel-amplitude convert traces.jsonl > events.jsonl",
    "otel-amplitude convert traces.jsonl --output events.jsonl --state convert.state   # may be stopped and started again",
    "otel-amplitude convert traces.jsonl --send --option server_zone=EU --option rules=rules.toml",
    "otel-amplitude convert --spool /var/spool/amplitude --send",
)
_SEND: Final = (
    "send them to Amplitude; safe to repeat, since insert_id stays the same. Not so for spans that were exported from the process before, "
    "and come from a store that keeps microseconds (Jaeger, Zipkin): their start times differ, so they count twice"
)
_SLICE: Final = 2_000
_TAKEN: Final = Response(status=200, headers={}, body=b'{"code":200}')
_MOST_NAMED: Final = 100
_KEY_OF_NOBODY: Final = "not-sent-anywhere"
# Yesterday's traffic comes at once: no cap by the minute. What is not sent is still in the input: no spool, but room for a slice.
_OURS: Final[dict[str, Any]] = {
    "auto_events_per_minute": 0,
    "upload_interval": 0.2,
    "spool": None,
    "dry_run": False,
    "max_cached_events": 500_000,
    "max_cached_bytes": 512 * 2**20,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the words of this command."""
    parser.add_argument("input", nargs="?", help="OTLP JSON lines (the Collector's file exporter) or event lines; - is standard input")
    parser.add_argument("--spool", metavar="DIR", help="a spool directory instead; it is only read (spool replay sends and empties one)")
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--output",
        metavar="FILE",
        default="-",
        help="write events as JSON lines to this file, which is replaced (default: standard output)",
    )
    where.add_argument("--send", action="store_true", help=_SEND)
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="give up when a slice is not settled by then (default: 60)"
    )
    parser.add_argument("--state", metavar="FILE", help="remember here how far it came, and go on from there the next time")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, to standard error")
    add_options(parser)


@dataclass
class _Done:
    """How far a conversion came; what a state file holds."""

    offset: int = 0
    line: int = 0
    written: int = 0
    events: int = 0
    broken: int = 0
    problems: list[str] = field(default_factory=list)

    def note(self, problem: str) -> None:
        self.broken += 1
        if len(self.problems) < _MOST_NAMED:
            self.problems.append(problem)


class _Lines:
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


class _Client(Amplitude):
    """A client that knows whether anything came of an item: one that nothing chooses is in no book."""

    touched = False

    def accept(self, *arguments: Any) -> Result | str:
        """As any client."""
        self.touched = True
        return super().accept(*arguments)

    def refuse(self, reason: str, *, insert_id: str = "", message: str = "") -> Result:
        """As any client."""
        self.touched = True
        return super().refuse(reason, insert_id=insert_id, message=message)


class _Sink(AbstractContextManager["_Sink"]):
    """Takes spans, records and ready events, a slice at a time, and says what became of them."""

    def __init__(self, config: Config, lines: _Lines | None, timeout: float) -> None:
        self._client = _Client(config)
        self._reader = reader_of(self._client)
        # What was made, checked and encoded already goes out as it is.
        self._ready = AmplitudeExporter(config)
        self._lines = lines
        self._timeout = timeout
        self._not_chosen = 0

    def line(self, line: bytes, where: str, done: _Done) -> int:
        """Take one line, noting what is wrong with it; give how many items were in it."""
        try:
            data = orjson.loads(line)
        except ValueError as error:
            done.note(f"{where}: is not JSON: {error}")
            return 0
        if isinstance(data, dict) and "$books" in data:  # the last lines of a dry run
            return 0
        if isinstance(data, dict) and "event_type" in data:
            if not data.get("insert_id"):
                done.note(f"{where}: is an event without insert_id, which would be counted twice when this is repeated")
                return 0
            self.event(line.strip(), int(wall() * 1000))
            return 1
        return self._otlp(read_request(data), where, done)

    def _otlp(self, batch: Batch, where: str, done: _Done) -> int:
        for span in batch.spans:
            self._guarded(lambda item: self._reader.exported_span(item, batch.parents_of(item)), span)
        for record in batch.records:
            self._guarded(self._reader.exported_log, record)
        if batch.problems:
            more = f" (and {len(batch.problems) - 1:,} more)" if len(batch.problems) > 1 else ""
            done.note(f"{where}: {batch.problems[0]}{more}")
        return len(batch.spans) + len(batch.records)

    def _guarded(self, read: Callable[[Any], None], item: object) -> None:
        self._client.touched = False
        try:
            read(item)
        except Exception as error:  # as in an application: one item that can not be converted is counted, the others go on
            self._reader.failed(error)
        self._not_chosen += not self._client.touched

    def event(self, body: bytes, accepted_ms: int) -> None:
        """Take one encoded event."""
        self._ready.submit(Parcel(body, read_ids(body), accepted_ms))

    def settle(self) -> bool:
        """Wait until everything taken is written or settled; False when that takes too long.

        Raises:
            OSError: it could not be written.
        """
        settled = self._client.flush(self._timeout) and self._ready.flush(self._timeout)
        if self._lines is not None:
            self._lines.flush()
            self._lines.check()
        return settled

    def books(self) -> _Books:
        """Give the books of both ways together."""
        one, other = self._client.stats(), self._ready.stats()
        rejected, dropped, refused = (
            Counter(getattr(one, name)) + Counter(getattr(other, name)) for name in ("rejected", "dropped", "refused")
        )
        return _Books(one.acknowledged + other.acknowledged, rejected, dropped, refused, self._not_chosen)

    def __exit__(self, *_: object) -> None:
        self._client.shutdown(1.0)
        self._ready.shutdown(1.0)


class _Books(NamedTuple):
    acknowledged: int
    rejected: Counter[str]
    dropped: Counter[str]
    refused: Counter[str]
    not_chosen: int


def run(arguments: argparse.Namespace) -> int:
    """Convert; 1 when lines were broken, or events were lost on the way."""
    _check(arguments)
    done = _restored(arguments)
    config = _config(arguments)
    with ExitStack() as stack:
        lines = None if arguments.send else _Lines(stack.enter_context(_opened(arguments, done)))
        sink = stack.enter_context(_Sink(config if lines is None else replace(config, transport=lines), lines, arguments.timeout))
        progress = stack.enter_context(Progress("converting", _size(arguments.input)))
        settled = _convert(arguments, done, sink, progress)
    return _report(arguments, done, sink.books(), settled=settled)


def _check(arguments: argparse.Namespace) -> None:
    if bool(arguments.input) == bool(arguments.spool):
        raise SourceError("say what to convert: a file of OTLP JSON lines (- is standard input), or --spool DIR")
    if arguments.state and (arguments.spool or arguments.input == "-"):
        raise SourceError("--state needs a file as input: only in a file can one go on where one stopped")
    if arguments.state and not arguments.send and arguments.output == "-":
        raise SourceError("--state needs --output FILE or --send: standard output can not be gone on with")
    if arguments.output != "-" and arguments.input and Path(arguments.output).absolute() == Path(arguments.input).absolute():
        raise SourceError("--output is the input; choose another file")
    if arguments.spool and not Path(arguments.spool).is_dir():
        raise SourceError(f"{arguments.spool} is no directory; give the one in the option spool_dir")


def _config(arguments: argparse.Namespace) -> Config:
    if arguments.send:
        return replace(make_config(arguments), **_OURS)
    # Nothing leaves, so no key is needed, and the order of the input is kept.
    known = {**environment_values(os.environ), **given_options(arguments)}
    config = make_config(arguments, api_key=known.get("api_key", _KEY_OF_NOBODY))
    return replace(config, **_OURS, max_in_flight=1, server_url=None, compression="none")


def _convert(arguments: argparse.Namespace, done: _Done, sink: _Sink, progress: Progress) -> bool:
    before = done.events
    for _ in _slices(arguments, sink, done):
        if not sink.settle():
            return False
        done.events = before + sink.books().acknowledged
        _keep(arguments, done)
        progress.update(done.offset or done.line, f"{done.events:,} events, {done.broken:,} broken lines")
    return True


def _slices(arguments: argparse.Namespace, sink: _Sink, done: _Done) -> Iterator[None]:
    """Feed the input to the sink, and give control back whenever a slice is full, and at the end."""
    taken = 0
    for count in _feed_spool(arguments, sink, done) if arguments.spool else _feed_lines(arguments, sink, done):
        taken += count
        if taken >= _SLICE:
            yield
            taken = 0
    yield


def _feed_lines(arguments: argparse.Namespace, sink: _Sink, done: _Done) -> Iterator[int]:
    with ExitStack() as stack:
        file = sys.stdin.buffer if arguments.input == "-" else stack.enter_context(Path(arguments.input).open("rb"))
        if done.offset:
            file.seek(done.offset)
        for line in file:
            done.line += 1
            done.offset += len(line)
            if line.strip():
                yield sink.line(line, f"line {done.line}", done)


def _feed_spool(arguments: argparse.Namespace, sink: _Sink, done: _Done) -> Iterator[int]:
    now = int(wall() * 1000)
    for record in iter_records(arguments.spool):
        done.line += 1
        try:
            # What is sent may have grown too old; what is written may not.
            sink.event(record.body, record.accepted_ms if arguments.send else now)
        except (ValueError, AttributeError):
            done.note(f"record {done.line} ({record.process}/{record.segment}): is no event")
        yield 1


# Where it goes, and how far it came


def _opened(arguments: argparse.Namespace, done: _Done) -> AbstractContextManager[IO[bytes]]:
    if arguments.output == "-":
        return nullcontext(sys.stdout.buffer)
    # 0600: the lines hold user ids. A file that is gone on with is cut to what the state knows of it.
    begin = 0 if done.written else os.O_TRUNC
    file = os.fdopen(os.open(arguments.output, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | begin, 0o600), "wb")
    if os.fstat(file.fileno()).st_size < done.written:
        file.close()
        raise SourceError(f"{arguments.output} is shorter than {arguments.state} says; delete {arguments.state} to begin anew")
    if done.written:
        file.seek(done.written)
        file.truncate()
    return file


def _size(path: str | None) -> int | None:
    return Path(path).stat().st_size if path and path != "-" else None


def _restored(arguments: argparse.Namespace) -> _Done:
    """Give how far the last run came; the beginning without a state file."""
    if not arguments.state or not Path(arguments.state).exists():
        return _Done()
    try:
        kept = json.loads(Path(arguments.state).read_bytes())
        if kept.pop("input") != str(Path(arguments.input).absolute()) or (_size(arguments.input) or 0) < kept["offset"]:
            raise SourceError(f"{arguments.state} is about another input; choose another --state, or delete it to begin anew")
        if kept.pop("send") != arguments.send:
            raise SourceError(f"{arguments.state} is about another output; choose another --state, or delete it to begin anew")
        return _Done(**kept)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SourceError(f"{arguments.state} is no state file of convert; choose another --state, or delete it") from error


def _keep(arguments: argparse.Namespace, done: _Done) -> None:
    if not arguments.state:
        return
    if not arguments.send:
        done.written = Path(arguments.output).stat().st_size
    part = Path(f"{arguments.state}.part")
    part.write_text(json.dumps({**asdict(done), "input": str(Path(arguments.input).absolute()), "send": arguments.send}))
    part.replace(arguments.state)


# What became of it


def _report(arguments: argparse.Namespace, done: _Done, books: _Books, *, settled: bool) -> int:
    lost = {**books.rejected, **books.dropped, **{name: books.refused[name] for name in _LOSSES if books.refused[name]}}
    facts = {
        "events": done.events,
        "lines": done.line,
        "broken_lines": done.broken,
        "problems": done.problems,
        "not_chosen": books.not_chosen,
        "refused": dict(books.refused),
        "rejected": dict(books.rejected),
        "dropped": dict(books.dropped),
        "settled": settled,
    }
    if arguments.json:
        print(json.dumps(facts, ensure_ascii=False), file=sys.stderr)
    else:
        for line in _told(arguments, done, books):
            print(printable(f"otel-amplitude convert: {line}"), file=sys.stderr)
        if not settled:
            print(_UNSETTLED, file=sys.stderr)
    return 0 if settled and not done.broken and not lost else 1


# Refusals that are losses; the others are decisions: nobody known, a rule, a bot.
_LOSSES: Final = ("queue_full", "id_backlog", "invalid", "unserializable", "too_large", "internal")
_UNSETTLED: Final = (
    "otel-amplitude convert: gave up: not everything was settled in time; run it again (insert_id keeps events from being counted twice)"
)


def _told(arguments: argparse.Namespace, done: _Done, books: _Books) -> Iterator[str]:
    yield from done.problems
    if done.broken > len(done.problems):
        yield f"… and {done.broken - len(done.problems):,} more broken lines"
    what = "records" if arguments.spool else "lines"
    yield f"{done.events:,} events {'sent' if arguments.send else 'written'} from {done.line:,} {what}, {done.broken:,} of them broken"
    none = books.refused + Counter({"not chosen": books.not_chosen})
    for word, counts in (("no events", none), ("rejected by the server", books.rejected), ("dropped", books.dropped)):
        if counts:
            yield f"{word}: " + ", ".join(f"{reason} {count:,}" for reason, count in counts.most_common())
