"""The catalog says the same whatever saw the events."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from cli.trial import KEY, event, lines, spool

from otel_amplitude.client import Amplitude
from otel_amplitude.config import Config
from otel_amplitude.sandbox import Sandbox

EVENTS = [event(number) for number in range(10)] + [
    event(20 + number, event_type="Order Paid", event_properties={"total": 12.5, "tags": ["a"], "gift": None}) for number in range(2)
]
BOOKS = {"$books": {"accepted": 12, "refused": {"bot": 3, "cap": 1}}, "process": "1-a"}


def catalog(run: Any, *words: object) -> dict[str, Any]:
    ended = run("catalog", *words, "--json")
    assert ended.code == 0, ended.err
    found: dict[str, Any] = json.loads(ended.out)
    return found


def test_a_dry_run(run: Any, tmp_path: Path) -> None:
    """Types with counts, users, properties, and the refusals; of one process the last books count."""
    path = lines(tmp_path / "events.jsonl", *EVENTS, {**BOOKS, "$books": {"refused": {"bot": 1}}}, BOOKS, {**BOOKS, "process": "2-b"}, "")
    found = catalog(run, "--events", path)
    assert (found["events"], found["seconds"]) == (12, 21.0)
    assert found["events_per_month"] is None
    first, second = found["types"]
    assert (first["type"], first["events"], first["users"]) == ("HTTP Request", 10, 3)
    assert {item["name"]: (item["types"], item["count"]) for item in second["properties"]} == {
        "total": (["number"], 2),
        "tags": (["list"], 2),
        "gift": (["null"], 2),
    }
    assert found["refused"] == {"bot": 6, "cap": 2}


def test_the_rate_of_what_was_watched(run: Any, tmp_path: Path) -> None:
    """Who knows how long was watched says so; less than ten minutes make no rate."""
    path = lines(tmp_path / "events.jsonl", event())
    assert catalog(run, "--events", path)["events_per_month"] is None
    assert catalog(run, "--events", path, "--watched", 86_400)["events_per_month"] == 30
    assert catalog(run, "--events", path, "--watched", 599)["events_per_month"] is None
    later = lines(tmp_path / "later.jsonl", event(time=1_790_000_000_000), event(time=1_790_000_600_000))
    assert catalog(run, "--events", later)["events_per_month"] == 2 * 30 * 24 * 6
    assert "too short to tell a month" in run("catalog", "--events", path).out


def test_a_real_dry_run(run: Any, tmp_path: Path) -> None:
    """The file that the option dry_run writes is read, books and all."""
    client = Amplitude(Config(KEY, dry_run=str(tmp_path / "events.jsonl"), log_level="NONE"))
    client.log_event({"event_type": "Order Paid", "user_id": "u-12345"})
    client.refuse("no_identity")
    client.shutdown()
    found = catalog(run, "--events", tmp_path / "events.jsonl")
    assert (found["events"], found["refused"]) == (1, {"no_identity": 1})


def test_a_sandbox(run: Any, sandbox: Sandbox) -> None:
    """The same from a running sandbox, with what it rejected and what the exporter refused."""
    client = Amplitude(Config(KEY, server_url=f"{sandbox.url}/2/httpapi", log_level="NONE", upload_interval=0))
    for item in EVENTS:
        client.log_event(item)
    assert client.flush(5)
    sandbox.set_fault("status", status=500, count=1)
    client.log_event({"event_type": "Late", "user_id": "u-12345"}, timeout=5)
    client.refuse("bot")
    client.shutdown()
    found = catalog(run, "--sandbox", sandbox.url.removeprefix("http://"))
    assert {entry["type"]: (entry["events"], entry["users"]) for entry in found["types"]} == {
        "HTTP Request": (10, 3),
        "Order Paid": (2, 2),
        "Late": (1, 1),
    }
    assert found["refused"] == {"bot": 1}
    assert sum(found["rejected"].values()) == 1


def test_a_sandbox_that_has_forgotten(run: Any) -> None:
    """It keeps a history; what is older is told, since a count that is silently short is wrong."""
    with Sandbox(history=10) as sandbox:
        client = Amplitude(Config(KEY, server_url=f"{sandbox.url}/2/httpapi", log_level="NONE", upload_interval=0))
        for item in EVENTS:
            client.log_event(item)
        assert client.shutdown(5)
        ended = run("catalog", "--sandbox", sandbox.url)
        found = catalog(run, "--sandbox", sandbox.url)
    assert (found["events"], found["forgotten"]) == (10, 2)
    assert ended.code == 0
    assert "keeps its newest 10 events; 2 older ones are not counted here" in ended.err


def test_a_spool(run: Any, tmp_path: Path) -> None:
    """What waits on disk counts as well."""
    found = catalog(run, "--spool", spool(tmp_path / "spool", *EVENTS))
    assert (found["events"], len(found["types"])) == (12, 2)


def test_a_tracking_plan(run: Any, tmp_path: Path) -> None:
    """One row for each property; what a spreadsheet would take for a formula is text."""
    path = lines(
        tmp_path / "events.jsonl",
        *EVENTS,
        event(event_type="=cmd()", event_properties={"@a": "-1"}),
        event(event_type="Empty", event_properties={}),
    )
    rows = list(csv.DictReader(io.StringIO(run("catalog", "--events", path, "--csv").out)))
    assert {row["property"] for row in rows if row["event_type"] == "Order Paid"} == {"total", "tags", "gift"}
    assert [(row["event_type"], row["property"]) for row in rows if "cmd" in row["event_type"]] == [("'=cmd()", "'@a")]
    assert [row["property"] for row in rows if row["event_type"] == "Empty"] == [""]


@pytest.mark.parametrize("fixture", [None, "plain"])
def test_tables(fixture: str | None, run: Any, tmp_path: Path, request: Any) -> None:
    """People get tables that fit the terminal."""
    if fixture:
        request.getfixturevalue(fixture)
    out = run("catalog", "--events", lines(tmp_path / "events.jsonl", *EVENTS, BOOKS)).out
    assert "12 events in 21.0 s" in " ".join(out.split())
    assert "Properties of Order Paid" in out
    assert "Refused before sending" in out


def test_long_times(run: Any, tmp_path: Path) -> None:
    """They are said in minutes, hours or days."""
    for seconds, words in ((600, "10.0 minutes"), (7_200, "2.0 hours"), (864_000, "10.0 days")):
        path = lines(tmp_path / "events.jsonl", event(0), event(seconds))
        assert words in run("catalog", "--events", path).out


@pytest.mark.parametrize("fixture", [None, "plain"])
def test_names_that_would_steer_a_terminal(fixture: str | None, run: Any, tmp_path: Path, request: Any) -> None:
    """What came over the network is shown, not obeyed."""
    if fixture:
        request.getfixturevalue(fixture)
    out = run("catalog", "--events", lines(tmp_path / "events.jsonl", event(event_type="\x1b[2JOrder\x9b\n"))).out
    assert "\x1b" not in out
    assert "\x9b" not in out
    assert "\\x1b[2JOrder" in out


def test_broken_lines(run: Any, tmp_path: Path) -> None:
    """They are named, counted and left out, and the exit code says so."""
    ended = run("catalog", "--events", lines(tmp_path / "events.jsonl", event(), "{", '{"a": 1}', "[]"))
    assert ended.code == 1
    assert "line 2: is JSON that is cut off" in ended.err
    assert "2 documents were no events" in ended.err


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (("--events", "missing.jsonl"), "missing.jsonl: No such file"),
        (("--spool", "missing"), "spool_dir"),
        (("--sandbox", "http://127.0.0.1:9"), "otel-amplitude sandbox"),
        (("--sandbox", "http://127.0.0.1:port"), "otel-amplitude sandbox"),
    ],
)
def test_a_source_that_is_not_there(words: tuple[str, ...], cure: str, run: Any) -> None:
    """The message says what to give instead."""
    ended = run("catalog", *words)
    assert (ended.code, ended.out) == (3, "")
    assert cure in ended.err


def test_too_many_properties(run: Any, tmp_path: Path) -> None:
    """Two hundred of a type are kept, so that a run-away name does not fill the memory."""
    path = lines(tmp_path / "events.jsonl", *(event(number, event_properties={f"p{number}": 1}) for number in range(250)))
    assert len(catalog(run, "--events", path)["types"][0]["properties"]) == 200
