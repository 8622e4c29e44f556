"""`otel-amplitude convert`: what was recorded elsewhere (OTLP in files, events, a spool) as Amplitude events: written, or sent."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Final

from otel_amplitude.cli._conversion import OURS, Books, Conversion, Lines, config_for_writing
from otel_amplitude.cli._inputs import HELP as INPUT_HELP
from otel_amplitude.cli._inputs import STANDARD_INPUT, Inputs, Problems, SourceError
from otel_amplitude.cli._options import add_options, given_options, make_config
from otel_amplitude.cli._table import Progress, counted, printable
from otel_amplitude.clock import wall
from otel_amplitude.delivery.disk.inspect import iter_records

HELP: Final = "Make Amplitude events of OTLP files, event lines or a spool: to a file, to standard output, or sent."
EXAMPLES: Final = (
    "otel-amplitude convert traces.jsonl > events.jsonl",
    "otel-amplitude convert 'traces-*.json.gz' logs.json --output events.jsonl",
    "kubectl logs deployment/shop | otel-amplitude convert - > events.jsonl   # of an exporter to standard output",
    "otel-amplitude convert traces.jsonl --output events.jsonl --state convert.state   # may be stopped and started again",
    "otel-amplitude convert traces.jsonl --send --option server_zone=EU --option rules=rules.toml",
    "otel-amplitude convert --spool /var/spool/amplitude --send",
)
_SEND: Final = (
    "send them to Amplitude; safe to repeat, since insert_id stays the same. Not so for spans that were exported from the process before, "
    "and come from a store that keeps microseconds (Jaeger, Zipkin): their start times differ, so they count twice"
)
_SLICE: Final = 2_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the words of this command."""
    parser.add_argument("input", nargs="*", help=INPUT_HELP)
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
    """How far a conversion came.

    Attributes:
        documents: read so far, over all files; for a spool, its records.
        read: bytes read so far.
        written: bytes of the output.
        events: written or sent, those of earlier runs included.
        empty: documents of OTLP in which there was no span and no log record.
        waiting: the items that wait for a parent, as numbers of document and item.
        problems: what was wrong so far.
    """

    documents: int = 0
    read: int = 0
    written: int = 0
    events: int = 0
    empty: int = 0
    waiting: list[tuple[int, int]] = field(default_factory=list)
    problems: Problems = field(default_factory=Problems)


def run(arguments: argparse.Namespace) -> int:
    """Convert; 1 when something could not be read, or events were lost on the way."""
    inputs = _checked(arguments)
    done = _restored(arguments, inputs)
    # Wrong options are told before the output is emptied.
    options = given_options(arguments)
    config = replace(make_config(arguments), **OURS) if arguments.send else config_for_writing(options, Lines(sys.stdout.buffer))
    with ExitStack() as stack:
        stack.enter_context(_rare_collections())
        lines = None if arguments.send else Lines(stack.enter_context(_opened(arguments, done)))
        conversion = stack.enter_context(Conversion(replace(config, transport=lines) if lines else config, lines, arguments.timeout))
        progress = stack.enter_context(Progress("converting", inputs.size if inputs else None))
        settled = _convert(arguments, inputs, done, conversion, progress)
    return _report(arguments, done, conversion.books(), settled=settled)


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Look for reference cycles rarely: a document is very many objects without any, and each search walks over all of them."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, 50, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _checked(arguments: argparse.Namespace) -> Inputs | None:
    if bool(arguments.input) == bool(arguments.spool):
        raise SourceError("say what to convert: files of OTLP or of event lines (- is standard input), or --spool DIR")
    if arguments.state and (arguments.spool or STANDARD_INPUT in arguments.input):
        raise SourceError("--state needs files as input: only in a file can one go on where one stopped")
    if arguments.state and not arguments.send and arguments.output == "-":
        raise SourceError("--state needs --output FILE or --send: standard output can not be gone on with")
    if arguments.spool:
        if not Path(arguments.spool).is_dir():
            raise SourceError(f"{arguments.spool} is no directory; give the one in the option spool_dir")
        return None
    inputs = Inputs(arguments.input)
    if arguments.output != "-" and any(Path(arguments.output).absolute() == Path(name).absolute() for name in inputs.names):
        raise SourceError("--output is one of the inputs; choose another file")
    return inputs


def _convert(arguments: argparse.Namespace, inputs: Inputs | None, done: _Done, conversion: Conversion, progress: Progress) -> bool:
    events, empty = done.events, done.empty
    for _ in _slices(_feed_spool(arguments, conversion, done) if inputs is None else _feed(inputs, conversion, done), conversion):
        if not conversion.settle():
            return False
        done.events, done.empty = events + conversion.books().acknowledged, empty + conversion.empty
        done.waiting = conversion.waiting
        _keep(arguments, inputs, done)
        progress.update(done.read if inputs else done.documents, f"{counted(done.events, 'event')}, {done.problems.count:,} broken")
    return True


def _slices(counts: Iterator[int], conversion: Conversion) -> Iterator[None]:
    """Give control back whenever enough items were taken for a slice, and at the end."""
    taken = 0
    for count in counts:
        taken += count
        if taken >= _SLICE:
            yield
            taken = 0
    conversion.finish()
    yield


def _feed(inputs: Inputs, conversion: Conversion, done: _Done) -> Iterator[int]:
    earlier, waited = done.documents, frozenset((document, item) for document, item in done.waiting)
    for number, document in enumerate(inputs, start=1):
        if number <= earlier:
            conversion.again(document, number, waited)
            continue
        if number == earlier + 1:
            conversion.resume()
        taken = conversion.take(document, number, done.problems)
        done.documents, done.read = number, inputs.read
        yield taken
    if done.documents == earlier:
        conversion.resume()


def _feed_spool(arguments: argparse.Namespace, conversion: Conversion, done: _Done) -> Iterator[int]:
    now = int(wall() * 1000)
    for record in iter_records(arguments.spool):
        done.documents += 1
        try:
            # What is sent may have grown too old; what is written may not.
            conversion.event(record.body, record.accepted_ms if arguments.send else now)
        except (ValueError, AttributeError):
            done.problems.note(f"record {done.documents} ({record.process}/{record.segment})", ["is no event"])
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


def _restored(arguments: argparse.Namespace, inputs: Inputs | None) -> _Done:
    """Give how far the last run came; the beginning without a state file."""
    if not arguments.state or inputs is None or not Path(arguments.state).exists():
        return _Done()
    try:
        kept = json.loads(Path(arguments.state).read_bytes())
        if kept.pop("inputs") != _names(inputs)[: kept.pop("files")] or (inputs.size or 0) < kept["read"]:
            raise SourceError(f"{arguments.state} is about another input; choose another --state, or delete it to begin anew")
        if kept.pop("send") != arguments.send:
            raise SourceError(f"{arguments.state} is about another output; choose another --state, or delete it to begin anew")
        problems = Problems.restored(kept.pop("broken"), kept.pop("problems"))
        return _Done(**kept, problems=problems)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SourceError(f"{arguments.state} is no state file of convert; choose another --state, or delete it") from error


def _names(inputs: Inputs) -> list[str]:
    return [str(Path(name).absolute()) for name in inputs.names]


def _keep(arguments: argparse.Namespace, inputs: Inputs | None, done: _Done) -> None:
    if not arguments.state or inputs is None:
        return
    if not arguments.send:
        done.written = Path(arguments.output).stat().st_size
    facts = {**asdict(replace(done, problems=Problems())), "broken": done.problems.count, "problems": done.problems.kept()}
    part = Path(f"{arguments.state}.part")
    part.write_text(json.dumps({**facts, "inputs": _names(inputs), "files": len(inputs.names), "send": arguments.send}))
    part.replace(arguments.state)


# What became of it


def _report(arguments: argparse.Namespace, done: _Done, books: Books, *, settled: bool) -> int:
    lost = {**books.rejected, **books.dropped, **{name: books.refused[name] for name in _LOSSES if books.refused[name]}}
    facts = {
        "events": done.events,
        "documents": done.documents,
        "broken": done.problems.count,
        "empty": done.empty,
        "problems": list(done.problems.lines()),
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
    return 0 if settled and not done.problems.count and not lost else 1


# Refusals that are losses; the others are decisions: nobody known, a rule, a bot.
_LOSSES: Final = ("queue_full", "id_backlog", "invalid", "unserializable", "too_large", "internal")
_UNSETTLED: Final = (
    "otel-amplitude convert: gave up: not everything was settled in time; run it again (insert_id keeps events from being counted twice)"
)


def _told(arguments: argparse.Namespace, done: _Done, books: Books) -> Iterator[str]:
    yield from done.problems.lines()
    what = "records" if arguments.spool else "documents"
    verb = "sent" if arguments.send else "written"
    yield f"{counted(done.events, 'event')} {verb} from {done.documents:,} {what}, {done.problems.count:,} of them broken"
    if done.empty:
        yield f"{done.empty:,} documents hold no span, log record or event (empty requests, metrics, profiles)"
    if not done.documents:
        yield "the input is empty"
    none = books.refused + Counter({"not chosen": books.not_chosen})
    for word, counts in (("became no event", none), ("rejected by the server", books.rejected), ("dropped", books.dropped)):
        if counts:
            yield f"{word}: " + ", ".join(
                f"{count:,} {'dropped by a rule' if reason == 'rule' else reason}" for reason, count in counts.most_common()
            )
