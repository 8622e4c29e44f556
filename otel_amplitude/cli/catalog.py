"""`otel-amplitude catalog`: which events there are, how many of whom with what in them, and what a month of them makes."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from typing import Any, Final

from otel_amplitude.cli._seen import Seen, add_sources, read_catalog
from otel_amplitude.cli._table import counted, print_table

HELP: Final = "List event types with counts, users, properties, refusals, and events per month at this rate."
EXAMPLES: Final = (
    "otel-amplitude catalog --sandbox http://127.0.0.1:8010",
    "otel-amplitude catalog --events dry-run.jsonl --csv > tracking-plan.csv",
    "otel-amplitude catalog --events 'traces-*.json.gz'   # what would come of OTLP",
    "otel-amplitude catalog --spool /var/spool/amplitude --json",
)
_COLUMNS: Final = ("event_type", "events", "users", "events_per_month", "property", "property_types", "property_count", "property_sample")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the words of this command."""
    add_sources(parser)
    parser.add_argument("--watched", type=float, metavar="SECONDS", help="how long was watched (default: from the first event to the last)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="print one row for each property, for a tracking plan")


def run(arguments: argparse.Namespace) -> int:
    """Print the catalog; 1 when something could not be read."""
    seen = read_catalog(arguments)
    found = _described(seen, arguments.watched)
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
    elif arguments.csv:
        _print_csv(found)
    else:
        _print_tables(seen, found)
    if seen.forgotten:
        print(
            f"otel-amplitude catalog: the sandbox keeps its newest {counted(seen.events, 'event')}; {seen.forgotten:,} older ones are not counted here"
            " (the option dry_run writes all to a file, for --events)",
            file=sys.stderr,
        )
    for problem in seen.broken.lines():
        print(f"otel-amplitude catalog: {problem}", file=sys.stderr)
    if seen.broken.count:
        print(
            f"otel-amplitude catalog: {counted(seen.broken.count, 'document was no event or held', 'documents were no events or held')} what is none",
            file=sys.stderr,
        )
    return 1 if seen.broken.count else 0


def _described(seen: Seen, watched: float | None) -> dict[str, Any]:
    """Give everything as JSON would have it."""
    types = sorted(seen.types.items(), key=lambda item: (-item[1].count, item[0]))
    return {
        "source": seen.source,
        "seconds": watched or seen.seconds,
        "events": seen.events,
        "events_per_month": seen.per_month(seen.events, watched),
        "types": [
            {
                "type": name,
                "events": entry.count,
                "users": entry.user_count,
                "events_per_month": seen.per_month(entry.count, watched),
                "properties": [
                    {"name": key, "types": sorted(item.types), "count": item.count, "sample": item.sample}
                    for key, item in sorted(entry.properties.items())
                ],
            }
            for name, entry in types
        ],
        "refused": dict(seen.refusals.most_common()),
        "rejected": dict(seen.rejections.most_common()),
        "broken": seen.broken.count,
        "forgotten": seen.forgotten,
    }


def _print_csv(found: dict[str, Any]) -> None:
    writer = csv.writer(sys.stdout)
    writer.writerow(_COLUMNS)
    for entry in found["types"]:
        head = [_safe(entry["type"]), entry["events"], entry["users"], entry["events_per_month"]]
        for item in entry["properties"] or [{"name": "", "types": [], "count": "", "sample": ""}]:
            writer.writerow([*head, _safe(item["name"]), " ".join(item["types"]), item["count"], _safe(item["sample"])])


def _safe(cell: str) -> str:
    """Keep a spreadsheet from taking a text that came over the network for a formula."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


def _print_tables(seen: Seen, found: dict[str, Any]) -> None:
    month = (
        "too short to tell a month (ten minutes are enough)"
        if found["events_per_month"] is None
        else f"{found['events_per_month']:,} a month at this rate"
    )
    print_table(
        f"Event types of {seen.source}: {counted(seen.events, 'event')} in {_duration(found['seconds'])}, {month}",
        ("event type", "events", "users", "a month", "properties"),
        [
            (
                entry["type"],
                f"{entry['events']:,}",
                f"{entry['users']:,}",
                "-" if entry["events_per_month"] is None else f"{entry['events_per_month']:,}",
                len(entry["properties"]),
            )
            for entry in found["types"]
        ],
    )
    for entry in found["types"]:
        if entry["properties"]:
            rows = [(item["name"], ", ".join(item["types"]), f"{item['count']:,}", item["sample"]) for item in entry["properties"]]
            print_table(f"Properties of {entry['type']}", ("property", "type", "events", "sample"), rows)
    for title, counts in (("Refused before sending, by reason", found["refused"]), ("Requests the sandbox rejected", found["rejected"])):
        if counts:
            print_table(title, ("reason", "count"), [(reason, f"{count:,}") for reason, count in counts.items()])


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.1f} s"
