"""One shop's request, an order paid in it and a coupon used: in every shape in which people have OTLP, the same events come out.

The files are in `otlp/`; `files.json` says which events each must give, `events.json` what these are. `javascript.*` were written by
OpenTelemetry's serializers for JavaScript, the files of protobuf and of protobuf's JSON by Google's library, the others by hand after what
programs write: the Collector's file exporter (opentelemetry-collector-contrib#44077, #32565), jq, PowerShell, Java's logging-otlp exporter, Tempo (tempo#3802, grafana#43060) and Jaeger, ids as Swift
and others write them (opentelemetry-swift#537, opentelemetry-js#3892, traceway#129), Go's encoding/json, OTLP before 0.16.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from world.files import convert

from otel_amplitude.cli import main

FOLDER = Path(__file__).parent / "otlp"
FILES: dict[str, list[str]] = json.loads((FOLDER / "files.json").read_text())
EVENTS: dict[str, dict[str, Any]] = json.loads((FOLDER / "events.json").read_text())


def named(event: dict[str, Any]) -> str:
    """The name in `events.json` of an event that is equal to what stands there."""
    found = [name for name, facts in EVENTS.items() if facts == {key: event.get(key) for key in facts}]
    return found[0] if found else f"unexpected: {event}"


def test_every_file_is_listed() -> None:
    """A file without the events that must come out would test nothing."""
    assert {path.name for path in FOLDER.iterdir()} == {*FILES, "files.json", "events.json"}


@pytest.mark.parametrize("name", FILES)
def test_the_events_of_a_file(name: str) -> None:
    """Exactly those, and nothing is wrong with the file."""
    made = convert(FOLDER / name)
    assert sorted(map(named, made.events)) == sorted(FILES[name]), made.told
    assert made.code == 0, made.told
    assert convert((FOLDER / name).read_bytes()).events == made.events


def test_all_files_together_give_each_event_once() -> None:
    """Every shape gives the same insert_id, so that Amplitude counts an event that it gets in several shapes once."""
    by_name: dict[str, set[str]] = {}
    for event in convert(FOLDER / "*.*", "--option", "auto_events_per_minute=0").events:
        by_name.setdefault(named(event).removesuffix("_alone"), set()).add(event["insert_id"])
    assert {name: len(ids) for name, ids in by_name.items()} == {"request": 1, "paid": 1, "coupon": 1}


@pytest.mark.parametrize("name", ["many_lines.json", "collector_zstd.pb", "tempo_old.json", "lines.jsonl.gz", "javascript.pb"])
def test_rules_explain_reads_the_same_files(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The request is asked about, and the rule that takes it is named."""
    (tmp_path / "rules.toml").write_text('[[event]]\nname = "Order Placed"\nmatch = {route = "/orders/{id}"}\n')
    assert main(["rules", "explain", str(tmp_path / "rules.toml"), str(FOLDER / name)]) == 0
    assert "→ Order Placed, by rule 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("module", "name"), [("otel_amplitude.convert.otlp_protobuf", "collector.pb"), ("backports.zstd", "lines.jsonl.zst")]
)
def test_without_the_extra(module: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line names it."""
    if module == "backports.zstd" and sys.version_info >= (3, 14):
        pytest.skip("zstd is in the standard library")
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delattr("otel_amplitude.convert.otlp_protobuf", raising=False)
    made = convert(FOLDER / name)
    assert (made.code, made.events) == (1, [])
    assert "pip install otel-amplitude[otlp]" in made.told.splitlines()[0]
