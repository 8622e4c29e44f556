"""What was seen: the events of a sandbox, a dry run or a spool, and what was refused meanwhile; for `catalog` and `rules init`."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from otel_amplitude.cli._ask import ask
from otel_amplitude.cli._inputs import SourceError
from otel_amplitude.delivery.disk.inspect import iter_records

_MAX_PROPERTIES: Final = 200
_MAX_SAMPLE: Final = 80
_MONTH_SECONDS: Final = 30 * 86_400
# Of less than ten minutes a month would be a guess: a demo of half a minute would promise a million events.
_ENOUGH_SECONDS: Final = 600
_ROWS: Final = 1_000
_JSON_TYPES: Final = {bool: "boolean", int: "number", float: "number", str: "text", list: "list", dict: "map", type(None): "null"}


@dataclass
class PropertySeen:
    """One property of one event type: how often, of which JSON types, and the last value."""

    count: int = 0
    types: set[str] = field(default_factory=set)
    sample: str = ""


@dataclass
class TypeSeen:
    """One event type.

    Attributes:
        count: its events.
        users: who sent them; only their number where a sandbox counted them.
        first, last: milliseconds since 1970, None where no event had a time.
        properties: by name.
    """

    count: int = 0
    users: set[str] = field(default_factory=set)
    user_count: int = 0
    first: float | None = None
    last: float | None = None
    properties: dict[str, PropertySeen] = field(default_factory=dict)

    def add(self, event: Mapping[str, Any]) -> None:
        """Count one event."""
        self.count += 1
        self.users.add(str(event.get("user_id") or event.get("device_id")))
        self.user_count = len(self.users)
        at = event.get("time")
        if isinstance(at, (int, float)) and at > 0:
            self.first = at if self.first is None else min(at, self.first)
            self.last = at if self.last is None else max(at, self.last)
        properties = event.get("event_properties")
        for name, value in properties.items() if isinstance(properties, dict) else ():
            if len(self.properties) < _MAX_PROPERTIES or name in self.properties:
                seen = self.properties.setdefault(name, PropertySeen())
                seen.count += 1
                seen.types.add(_JSON_TYPES[type(value)])
                seen.sample = json.dumps(value, ensure_ascii=False)[:_MAX_SAMPLE]


@dataclass
class Seen:
    """Everything that was seen.

    Attributes:
        source: where, in words.
        types: by event type.
        refusals: events that were refused before they were sent, by reason, from the books of the processes.
        rejections: what the sandbox rejected, by reason.
        broken: lines that were no event.
        forgotten: events that a sandbox took, and has no more.
    """

    source: str
    types: dict[str, TypeSeen] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)
    rejections: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    forgotten: int = 0

    @property
    def events(self) -> int:
        """All events."""
        return sum(seen.count for seen in self.types.values())

    @property
    def seconds(self) -> float:
        """The time from the first event to the last."""
        firsts = [seen.first for seen in self.types.values() if seen.first is not None]
        lasts = [seen.last for seen in self.types.values() if seen.last is not None]
        return (max(lasts) - min(firsts)) / 1000 if firsts and lasts else 0.0

    def per_month(self, count: int, seconds: float | None = None) -> int | None:
        """Give how many events a month of 30 days `count` would be at this rate; None when less than ten minutes were watched."""
        seconds = seconds or self.seconds
        return round(count / seconds * _MONTH_SECONDS) if seconds >= _ENOUGH_SECONDS else None


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Add the words that say where to look, one of which must be given."""
    sources = parser.add_mutually_exclusive_group(required=True)
    sources.add_argument("--sandbox", metavar="URL", help="a running sandbox")
    sources.add_argument("--events", metavar="FILE", help="events as JSON lines: what the option dry_run wrote, or spool export")
    sources.add_argument("--spool", metavar="DIR", help="a spool directory")


def read_catalog(arguments: argparse.Namespace) -> Seen:
    """Count what the chosen source saw.

    Raises:
        OtelAmplitudeError: the source can not be read.
    """
    if arguments.sandbox:
        return _sandbox_catalog(arguments.sandbox)
    seen = Seen(_source(arguments))
    for event in read_events(arguments, seen):
        seen.types.setdefault(str(event.get("event_type")), TypeSeen()).add(event)
    return seen


def read_events(arguments: argparse.Namespace, seen: Seen) -> Iterator[dict[str, Any]]:
    """Give the events of the chosen source one by one (a sandbox's: the newest 1,000 of each type); note the rest in `seen`.

    Raises:
        OtelAmplitudeError: the source can not be read.
    """
    if arguments.sandbox:
        for entry in ask(arguments.sandbox, "/api/catalog")["types"]:
            rows = ask(arguments.sandbox, "/api/events", type=entry["type"], verdict="accepted", limit=_ROWS)["events"]
            yield from (row["sent"] for row in rows)
    elif arguments.spool:
        if not Path(arguments.spool).is_dir():
            raise SourceError(f"{arguments.spool} is no directory; give the one in the option spool_dir")
        for number, record in enumerate(iter_records(arguments.spool), start=1):
            yield from _event(record.body, f"record {number} of {record.process}/{record.segment}", seen, {})
    else:
        books: dict[str, Mapping[str, Any]] = {}
        try:
            with Path(arguments.events).open("rb") as lines:
                for number, line in enumerate(lines, start=1):
                    if line.strip():
                        yield from _event(line, f"line {number}", seen, books)
        except OSError as error:
            raise SourceError(f"{arguments.events} can not be read ({error.strerror}); give the file in the option dry_run") from error
        for process in books.values():
            seen.refusals.update(_counts(process.get("refused")))


def _source(arguments: argparse.Namespace) -> str:
    return f"sandbox {arguments.sandbox}" if arguments.sandbox else str(arguments.events or arguments.spool)


def _event(line: bytes, where: str, seen: Seen, books: dict[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    try:
        event = orjson.loads(line)
    except ValueError:
        event = None
    if isinstance(event, dict) and isinstance(event.get("$books"), dict):
        books[str(event.get("process"))] = event["$books"]
    elif isinstance(event, dict) and isinstance(event.get("event_type"), str):
        yield event
    else:
        seen.broken.append(f"{where} is no event")


def _counts(value: object) -> dict[str, int]:
    return {str(name): count for name, count in value.items() if isinstance(count, int)} if isinstance(value, dict) else {}


def _sandbox_catalog(address: str) -> Seen:
    seen = Seen(f"sandbox {address}")
    summary = ask(address, "/api/summary")  # before the catalog: what comes meanwhile is in that, and nothing seems forgotten
    for entry in ask(address, "/api/catalog")["types"]:
        properties = {item["name"]: PropertySeen(item["count"], set(item["types"]), item["sample"]) for item in entry["properties"]}
        seen.types[entry["type"]] = TypeSeen(
            entry["count"], user_count=entry["users"], first=entry.get("first"), last=entry.get("last"), properties=properties
        )
    seen.forgotten = max(0, summary["accepted"] - seen.events)
    seen.rejections.update(_counts(summary["rejections"]))
    for entry in ask(address, "/api/counters")["refused"]:
        seen.refusals[entry["reason"]] = entry["count"]
    return seen
