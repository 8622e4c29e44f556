"""`otel-amplitude spool`: what lies on disk, whether it is whole, and taking it out: exported, sent, or removed."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, Final

import orjson

from otel_amplitude.cli._examine import way_out
from otel_amplitude.cli._inputs import SourceError
from otel_amplitude.cli._options import add_options, epilog, make_config
from otel_amplitude.cli._table import Progress, counted, print_table
from otel_amplitude.config import ENVIRONMENT_PREFIX
from otel_amplitude.delivery.books import Stats
from otel_amplitude.delivery.disk.directory import QUARANTINE
from otel_amplitude.delivery.disk.inspect import SegmentReport, inspect, iter_records, purge
from otel_amplitude.delivery.disk.spool import fingerprint
from otel_amplitude.exporter import AmplitudeExporter
from otel_amplitude.log import Log
from otel_amplitude.telemetry._logs import LogObserver

HELP: Final = "List, verify, export, replay or purge the events on disk."
EXAMPLES: Final = (
    "otel-amplitude spool ls /var/spool/amplitude",
    "otel-amplitude spool verify /var/spool/amplitude",
    "otel-amplitude spool export /var/spool/amplitude --output events.jsonl",
    "otel-amplitude spool replay /var/spool/amplitude",
    "otel-amplitude spool purge /var/spool/amplitude --user u-12345 --yes",
)
_VARIABLE: Final = f"{ENVIRONMENT_PREFIX}SPOOL_DIR"
_POLL_SECONDS: Final = 0.1
_STOP_SECONDS: Final = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the words of this command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, words in (
        ("ls", "list segments: whose they are, how many events, how old"),
        ("verify", "look for damage; exit code 1 when there is any"),
        ("export", "write the events as JSON lines; they stay in the spool"),
        ("replay", "send the events of ended processes now, and remove those that arrived"),
        ("purge", "remove events of ended processes"),
    ):
        action = actions.add_parser(
            name,
            help=words,
            description=words,
            epilog=epilog(EXAMPLES, f"otel-amplitude spool {name}"),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        action.add_argument("directory", nargs="?", default=os.environ.get(_VARIABLE), help=f"the spool (default: {_VARIABLE})")
        if name != "export":
            action.add_argument("--json", action="store_true", help="print JSON")
        if name in ("export", "purge"):
            action.add_argument("--user", metavar="ID", help="only events with this user_id or device_id")
        if name == "export":
            action.add_argument("--output", metavar="FILE", help="write here (default: standard output)")
        if name == "replay":
            action.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="stop after so long (default: 60)")
            add_options(action)
        if name == "purge":
            action.add_argument("--yes", action="store_true", help="do it; without this, it is only told what would go")


def run(arguments: argparse.Namespace) -> int:
    """Do one of the five."""
    if not hasattr(os, "O_DIRECTORY"):
        raise SourceError("a spool needs a POSIX system; on this one no exporter has written one")
    if not arguments.directory:
        raise SourceError(f"name the spool directory, or set {_VARIABLE}")
    if not Path(arguments.directory).is_dir():
        raise SourceError(f"{arguments.directory} is no directory; give the one in the option spool_dir")
    actions: dict[str, Callable[[argparse.Namespace], int]] = {
        "ls": _ls,
        "verify": _verify,
        "export": _export,
        "replay": _replay,
        "purge": _purge,
    }
    return actions[arguments.action](arguments)


def _ls(arguments: argparse.Namespace) -> int:
    segments = inspect(arguments.directory)
    if arguments.json:
        print(json.dumps([asdict(segment) for segment in segments]))
        return 0
    print_table(
        f"{arguments.directory}: {counted(sum(segment.records for segment in segments), 'event')} in {counted(len(segments), 'segment')}",
        ("project", "process", "segment", "events", "KiB", "oldest (UTC)", "owner"),
        [
            (
                segment.fingerprint,
                segment.process,
                segment.segment.removesuffix(".seg").lstrip("0"),
                f"{segment.records:,}",
                f"{segment.bytes / 1024:,.0f}",
                _moment(segment.oldest_ms),
                _owner(segment),
            )
            for segment in segments
        ],
    )
    return 0


def _moment(milliseconds: int | None) -> str:
    return "-" if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, timezone.utc).strftime("%m-%d %H:%M:%S")


def _owner(segment: SegmentReport) -> str:
    if segment.process == QUARANTINE:
        return "set aside"
    return "not readable" if segment.foreign else "running" if segment.alive else "ended"


def _verify(arguments: argparse.Namespace) -> int:
    segments = inspect(arguments.directory)
    wrong = [segment for segment in segments if segment.damaged or segment.foreign]
    whole = sum(segment.records for segment in segments)
    if arguments.json:
        print(json.dumps({"events": whole, "segments": len(segments), "damaged": [asdict(segment) for segment in wrong]}))
    else:
        for segment in wrong:
            said = "is no segment of this version" if segment.foreign else f"has lost about {counted(segment.damaged, 'event')} to damage"
            print(f"{segment.fingerprint}/{segment.process}/{segment.segment}: {said}")
        print(
            f"{counted(whole, 'event')} in {counted(len(segments), 'segment')} {'is' if whole == 1 else 'are'} whole{'; the others are passed over when it is sent' if wrong else ''}"
        )
    return 1 if wrong else 0


def _export(arguments: argparse.Namespace) -> int:
    matches = _of_user(arguments.user)
    count = 0
    with ExitStack() as stack:
        file: IO[bytes] = sys.stdout.buffer
        if arguments.output:
            # 0600: the lines hold user ids.
            descriptor = os.open(arguments.output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            file = stack.enter_context(os.fdopen(descriptor, "wb"))
        for record in iter_records(arguments.directory):
            if matches is None or matches(record.body):
                file.write(record.body + b"\n")
                count += 1
        file.flush()
    print(f"{counted(count, 'event')} written, still in the spool", file=sys.stderr)
    return 0


def _of_user(user: str | None) -> Callable[[bytes], bool] | None:
    if user is None:
        return None

    def matches(body: bytes) -> bool:
        try:
            event = orjson.loads(body)
        except ValueError:
            return False
        return isinstance(event, dict) and user in (event.get("user_id"), event.get("device_id"))

    return matches


def _purge(arguments: argparse.Namespace) -> int:
    matches = _of_user(arguments.user)
    if not arguments.yes:
        count = sum(matches is None or matches(record.body) for record in iter_records(arguments.directory))
        if arguments.json:
            print(json.dumps({"would_remove": count}))
        else:
            print(f"{counted(count, 'event')} would be removed for good (less what running processes own); add --yes to do it")
        return 0
    report = purge(arguments.directory, matches)
    if arguments.json:
        print(json.dumps(asdict(report)))
    else:
        print(f"{counted(report.removed, 'event')} removed, {report.kept:,} kept")
        if report.busy:
            print(
                f"{counted(report.busy, 'directory belongs', 'directories belong')} to running processes, passed over; stop those, and run this again"
            )
    return 1 if report.busy else 0


def _replay(arguments: argparse.Namespace) -> int:
    """Let the exporter itself adopt what ended processes left: the one way by which nothing is lost or sent out of turn."""
    config = make_config(arguments, spool_dir=arguments.directory)
    ours = fingerprint(config.endpoint, config.api_key)
    found = inspect(arguments.directory)
    ended = [segment for segment in found if not segment.alive and segment.process != QUARANTINE]
    waiting = sum(segment.records for segment in ended if segment.fingerprint == ours)
    others = sum(segment.records for segment in ended if segment.fingerprint != ours)
    log = Log(config.log_level, (config.api_key, *(config.headers or {}).values()))
    exporter = AmplitudeExporter(replace(config, dry_run=False, upload_interval=0.2), observers=(LogObserver(log, arguments.directory),))
    try:
        if waiting:
            exporter.hurry()
            with Progress("sending", waiting) as progress:
                _watch(exporter, waiting, arguments.timeout, progress)
    finally:
        exporter.shutdown(_STOP_SECONDS)  # what was not sent stays on disk
    return _replayed(arguments, exporter.stats(), waiting, others)


def _watch(exporter: AmplitudeExporter, waiting: int, timeout: float, progress: Progress) -> None:
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        books = exporter.stats()
        settled = books.acknowledged + sum(books.rejected.values()) + sum(books.dropped.values())
        progress.update(settled, f"{books.acknowledged:,} acknowledged")
        if settled >= waiting:
            return
        time.sleep(_POLL_SECONDS)


def _replayed(arguments: argparse.Namespace, books: Stats, waiting: int, others: int) -> int:
    left = waiting - books.acknowledged - sum(books.rejected.values()) - sum(books.dropped.values())
    facts: dict[str, Any] = {
        "acknowledged": books.acknowledged,
        "rejected": dict(books.rejected),
        "dropped": dict(books.dropped),
        "left": max(0, left),
        "of_other_projects": others,
    }
    if arguments.json:
        print(json.dumps(facts))
    else:
        print(f"{counted(books.acknowledged, 'event')} sent, {max(0, left):,} left in the spool")
        for word, counts in (("rejected by the server", books.rejected), ("dropped", books.dropped)):
            if counts:
                print(f"{word}: " + ", ".join(f"{reason} {count:,}" for reason, count in counts.items()))
        if others:
            print(
                f"{counted(others, 'event belongs', 'events belong')} to another key or endpoint, not sent: {way_out(arguments.directory)}"
            )
    return 1 if left > 0 or others or books.rejected or books.dropped else 0
