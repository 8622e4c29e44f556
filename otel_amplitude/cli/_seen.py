"""What was seen: the events of a sandbox, a dry run or a spool, and what was refused meanwhile; for `catalog` and `rules init`."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from otel_amplitude.cli._ask import ask
from otel_amplitude.cli._conversion import Collecting, Conversion, config_for_writing, is_event
from otel_amplitude.cli._inputs import HELP as INPUT_HELP
from otel_amplitude.cli._inputs import Inputs, Problems, SourceError
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
        broken: what in files was no event.
        forgotten: events that a sandbox took, and has no more.
    """

    source: str
    types: dict[str, TypeSeen] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)
    rejections: Counter[str] = field(default_factory=Counter)
    broken: Problems = field(default_factory=Problems)
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
    sources.add_argument(
        "--events", metavar="FILE", nargs="+", help="events: what the option dry_run wrote, or spool export; or " + INPUT_HELP
    )
    sources.add_argument("--spool", metavar="DIR", help="a spool directory")


def read_catalog(arguments: argparse.Namespace) -> Seen:
    """Count what the chosen source saw.

    Raises:
        OtelAmplitudeError: the source can not be read.
    """
    if arguments.sandbox:
        return _sandbox_catalog(arguments.sandbox)
    seen = Seen(source_of(arguments))
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
            yield from _event(_parsed(record.body), f"record {number} of {record.process}/{record.segment}", seen, {})
    else:
        yield from _file_events(arguments.events, seen)


def _file_events(names: Sequence[str], seen: Seen) -> Iterator[dict[str, Any]]:
    """Give the events in files: event lines as they are, OTLP as `convert` makes events of it with the options of the environment."""
    books: dict[str, Mapping[str, Any]] = {}
    made: list[dict[str, Any]] = []
    with ExitStack() as stack:
        conversion: Conversion | None = None
        for number, document in enumerate(Inputs(names), start=1):
            data = document.data
            if not document.problem and is_event(data[0] if isinstance(data, list) and data else data):
                yield from _event(data, document.where, seen, books)
                continue
            if conversion is None:
                conversion = stack.enter_context(Conversion(config_for_writing({}, Collecting(made.append))))
            conversion.take(document, number, seen.broken)
            if conversion.settle():
                yield from made
                made.clear()
        if conversion is not None:
            conversion.finish()
            conversion.settle()
            yield from made
            seen.refusals.update(conversion.books().refused)
    for process in books.values():
        seen.refusals.update(_counts(process.get("refused")))


def source_of(arguments: argparse.Namespace) -> str:
    """Say in words where the events come from."""
    return f"sandbox {arguments.sandbox}" if arguments.sandbox else arguments.spool or " ".join(arguments.events)


def _event(data: object, where: str, seen: Seen, books: dict[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    if isinstance(data, list):
        for member in data:
            yield from _event(member, where, seen, books)
    elif isinstance(data, dict) and isinstance(data.get("$books"), dict):
        books[str(data.get("process"))] = data["$books"]
    elif isinstance(data, dict) and isinstance(data.get("event_type"), str):
        yield data
    else:
        seen.broken.note(where, ["is no event"])


def _parsed(text: bytes) -> object:
    try:
        return orjson.loads(text)
    except ValueError:
        return None


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
