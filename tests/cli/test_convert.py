"""Recorded telemetry becomes events: all of it, once, whatever is broken on the way."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from cli.trial import KEY, NOW_MS, by_user, event, lines, otlp, otlp_log, otlp_span, spool

from otel_amplitude.cli import convert
from otel_amplitude.cli._conversion import Conversion
from otel_amplitude.sandbox import Sandbox


def read(path: Path | str) -> list[dict[str, Any]]:
    text = path if isinstance(path, str) else path.read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def to_sandbox(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Sandbox:
    """The sandbox is what the environment names as Amplitude."""
    monkeypatch.setenv("OTEL_EXPORTER_AMPLITUDE_API_KEY", KEY)
    monkeypatch.setenv("OTEL_EXPORTER_AMPLITUDE_SERVER_URL", f"{sandbox.url}/2/httpapi")
    return sandbox


def test_to_standard_output(run: Any, tmp_path: Path) -> None:
    """Spans and log records become lines of events, in their order; what is no event is counted by reason."""
    unknown = otlp_span(3)
    unknown["attributes"] = [item for item in unknown["attributes"] if item["key"] != "user.id"]
    path = lines(
        tmp_path / "in.jsonl", otlp(otlp_span(1), otlp_span(2)), otlp(unknown), otlp_log("Order Paid", **{"user.id": "customer-9"})
    )
    ended = run("convert", path)
    assert ended.code == 0, ended.err
    events = read(ended.out)
    assert [(item["event_type"], item["user_id"]) for item in events] == [
        ("HTTP Request", "customer-1"),
        ("HTTP Request", "customer-2"),
        ("Order Paid", "customer-9"),
    ]
    assert events[0]["insert_id"] == f"{1:032x}{1:016x}{(NOW_MS + 1_000) * 1_000_000:016x}"
    assert "3 events written from 3 documents" in ended.err
    assert "1 no_identity" in ended.err


def test_what_nothing_chooses_is_counted(run: Any, tmp_path: Path) -> None:
    """Every span and log record is an event, refused for a reason, or not chosen: the sum is what was in the file."""
    rules = tmp_path / "rules.toml"
    rules.write_text('[[event]]\nmatch = {route = "/poll"}\ndrop = true\n')
    drop, client, failed = (
        otlp_span(2, attributes={"http.route": "/poll"}),
        otlp_span(3, kind=3),
        otlp_span(4, attributes={"http.response.status_code": 500}),
    )
    path = lines(tmp_path / "in.jsonl", otlp(otlp_span(1), drop, client), otlp(failed), otlp_log(""))
    facts = json.loads(run("convert", path, "--option", f"rules={rules}", "--json").err)
    assert (facts["events"], facts["refused"], facts["not_chosen"]) == (1, {"rule": 1}, 3)
    assert "became no event: 3 not chosen, 1 dropped by a rule" in run("convert", path, "--option", f"rules={rules}").err


def test_what_a_parent_knows(run: Any, tmp_path: Path) -> None:
    """A child without ids is of the user whom its parent in the same line names."""
    child = otlp_span(2, kind=1, traceId=f"{1:032x}", parentSpanId=f"{1:016x}", flags=0x100, attributes={"amplitude.event_type": "Paid"})
    child["attributes"] = [item for item in child["attributes"] if item["key"] == "amplitude.event_type"]
    events = read(run("convert", lines(tmp_path / "in.jsonl", otlp(child, otlp_span(1)))).out)
    assert {item["event_type"]: item["user_id"] for item in events} == {"Paid": "customer-1", "HTTP Request": "customer-1"}


def test_rules_and_other_options(run: Any, tmp_path: Path) -> None:
    """Options hold as in an application, from the command line too, but for the cap by the minute."""
    rules = tmp_path / "rules.toml"
    rules.write_text('[[event]]\nname = "Order Placed"\nmatch = {route = "/orders"}\n')
    path = lines(tmp_path / "in.jsonl", otlp(*(otlp_span(3 * number) for number in range(1, 100))))
    assert {item["event_type"] for item in read(run("convert", path, "--option", f"rules={rules}").out)} == {"Order Placed"}
    assert len(read(run("convert", path, "--option", "event_name=route").out)) == 99


def test_broken_lines(run: Any, tmp_path: Path) -> None:
    """They are named by number and counted, stop nothing, and make the exit code 1."""
    broken = otlp({**otlp_span(1), "kind": "?"}, {**otlp_span(1), "traceId": 1}, otlp_span(2))
    path = lines(tmp_path / "in.jsonl", "{", otlp(otlp_span(1)), "", "[5]", broken, {"event_type": "a", "user_id": "u-12345"})
    ended = run("convert", path, "--json")
    assert ended.code == 1
    assert len(read(ended.out)) == 2
    facts = json.loads(ended.err)
    assert (facts["events"], facts["broken"], facts["documents"]) == (2, 4, 5)
    assert [problem.split(": ")[:2] for problem in facts["problems"]] == [
        ["line 1", "is JSON that is cut off or broken"],
        ["line 4", "is JSON, but neither OTLP nor an event"],
        ["line 5", "span 1"],
        ["line 5", "span 2"],
        ["line 6", "is an event without insert_id, which would be counted twice when this is repeated"],
    ]


def test_the_same_problem_many_times_is_one_line(run: Any, tmp_path: Path) -> None:
    """It is named where it came first, and counted."""
    ended = run("convert", lines(tmp_path / "in.jsonl", *["not json"] * 150))
    assert ended.err.splitlines() == [
        "otel-amplitude convert: line 1: is not JSON (and 149 more like it)",
        "otel-amplitude convert: 0 events written from 150 documents, 150 of them broken",
    ]


def test_very_many_problems(run: Any, tmp_path: Path) -> None:
    """Twenty kinds are named, the others counted."""
    ended = run("convert", lines(tmp_path / "in.jsonl", *({"x" * number: 1} for number in range(1, 31))))
    assert "… and 10 more problems" in ended.err
    assert ended.err.count("neither OTLP nor an event") == 20


def test_sent_twice_counted_once(run: Any, tmp_path: Path, to_sandbox: Sandbox) -> None:
    """A repeat sends the same insert_ids, so that Amplitude counts nothing twice."""
    path = lines(tmp_path / "in.jsonl", *(otlp(otlp_span(number)) for number in range(1, 31)), event(7), {"$books": {}, "process": "1"})
    for _ in range(2):
        ended = run("convert", path, "--send")
        assert ended.code == 0, ended.err
        assert "31 events sent" in ended.err
    assert (to_sandbox.accepted, to_sandbox.duplicates) == (31, 31)


def test_a_spool_is_only_read(run: Any, tmp_path: Path, to_sandbox: Sandbox) -> None:
    """Its events are sent or written as they are, and stay."""
    path = spool(tmp_path / "spool", *(event(number) for number in range(5)))
    assert run("convert", "--spool", path, "--send").code == 0
    assert by_user(to_sandbox.events()) == by_user(event(number) for number in range(5))
    assert read(run("convert", "--spool", path).out) == [event(number) for number in range(5)]


def test_an_old_spool_is_still_written(run: Any, tmp_path: Path) -> None:
    """What is too old to be sent can be looked at."""
    path = spool(tmp_path / "spool", event(), now_ms=1_000_000_000_000)
    assert len(read(run("convert", "--spool", path).out)) == 1


def test_a_record_that_is_no_event(run: Any, tmp_path: Path) -> None:
    """It is named by its place."""
    ended = run("convert", "--spool", spool(tmp_path / "spool", [1], event()))  # type: ignore[arg-type]
    assert ended.code == 1
    assert len(read(ended.out)) == 1
    assert "record 1 (" in ended.err


# going on


def test_goes_on_where_it_stopped(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a stop at any line, a second run with the same state gives the file that one run would have given."""
    monkeypatch.setattr(convert, "_SLICE", 3)
    items = [otlp(otlp_span(number)) for number in range(1, 20)]
    items[4] = "{"  # type: ignore[call-overload]
    path = lines(tmp_path / "in.jsonl", *items)
    run("convert", path, "--output", tmp_path / "whole.jsonl")
    words = ("convert", path, "--output", tmp_path / "out.jsonl", "--state", tmp_path / "state")
    real, seen = Conversion.take, []

    def stops(self: Any, *of: Any) -> int:
        seen.append(of)
        if len(seen) == 11:
            raise KeyboardInterrupt
        return real(self, *of)

    monkeypatch.setattr(Conversion, "take", stops)
    assert run(*words).code == 130
    assert 0 < len(read(tmp_path / "out.jsonl")) < 18
    with (tmp_path / "out.jsonl").open("a") as file:
        file.write('{"half": ')  # what a kill may leave behind the last state
    ended = run(*words)
    assert ended.code == 1
    assert "18 events written from 19 documents, 1 of them broken" in ended.err
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert (tmp_path / "out.jsonl").stat().st_mode & 0o777 == 0o600
    with path.open("a") as file:  # the input has grown
        file.write(json.dumps(otlp(otlp_span(20))) + "\n")
    assert "19 events" in run(*words).err


def test_goes_on_sending(run: Any, tmp_path: Path, to_sandbox: Sandbox) -> None:
    """A state also tells how far sending came; a server that does not answer ends the run, and the next one sends the rest."""
    path = lines(tmp_path / "in.jsonl", otlp(otlp_span(1)))
    words = ("convert", path, "--send", "--state", tmp_path / "state")
    to_sandbox.set_fault("status", status=503)
    ended = run(*words, "--timeout", 0.5)
    assert ended.code == 1
    assert "gave up" in ended.err
    assert not (tmp_path / "state").exists()
    to_sandbox.clear_faults()
    assert run(*words).code == 0
    assert to_sandbox.accepted == 1
    assert "1 event sent" in run(*words).err
    assert (to_sandbox.accepted, to_sandbox.duplicates) == (1, 0)


def test_what_the_server_refuses(run: Any, tmp_path: Path, to_sandbox: Sandbox) -> None:
    """It is counted by reason, and the exit code says so."""
    path = lines(tmp_path / "in.jsonl", event(1), event(2, user_id="x"))
    ended = run("convert", path, "--send")
    assert ended.code == 1
    assert "rejected by the server: 1 invalid" in ended.err
    assert to_sandbox.accepted == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "no state file"),
        ("[]", "no state file"),
        ('{"inputs": ["/elsewhere"], "files": 1}', "another input"),
        ('{"inputs": ["IN", "/elsewhere"], "files": 2}', "another input"),
        ('{"inputs": ["IN"], "files": 1, "read": 10000000, "send": false}', "another input"),
        ('{"inputs": ["IN"], "files": 1, "read": 0, "send": true}', "another output"),
        ('{"inputs": ["IN"], "files": 1, "read": 0, "send": false, "broken": 0, "problems": {}, "written": 5}', "is shorter than"),
        ('{"inputs": ["IN"], "files": 1, "read": 0, "send": false, "broken": 0, "problems": {}, "more": 5}', "no state file"),
    ],
)
def test_a_state_of_something_else(content: str, words: str, run: Any, tmp_path: Path) -> None:
    """It is refused, with the cure; nothing is written over."""
    path = lines(tmp_path / "in.jsonl", otlp(otlp_span(1)))
    (tmp_path / "state").write_text(content.replace("IN", str(path)))
    ended = run("convert", path, "--output", tmp_path / "out.jsonl", "--state", tmp_path / "state")
    assert ended.code == 3
    assert words in ended.err
    assert "delete" in ended.err


# how it is called


def test_standard_input(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe works as well."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(otlp(otlp_span(1))).encode())))
    assert len(read(run("convert", "-").out)) == 1


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        ((), "files of OTLP"),
        (("in.jsonl", "--spool", "."), "files of OTLP"),
        (("-", "--state", "s"), "--state needs files as input"),
        (("in.jsonl", "--state", "s"), "--state needs --output"),
        (("in.jsonl", "--output", "in.jsonl"), "choose another file"),
        (("--spool", "missing"), "spool_dir"),
        (("in.jsonl", "--option", "server_zone"), "name=value"),
        (("in.jsonl", "--option", "zone=EU"), "no option"),
        (("in.jsonl", "--send"), "api_key is missing"),
        (("missing.jsonl",), "missing.jsonl: No such file"),
        (("in.jsonl", "--output", "missing/out.jsonl"), "missing/out.jsonl: No such file"),
    ],
)
def test_called_wrongly(words: tuple[str, ...], cure: str, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to give."""
    monkeypatch.chdir(tmp_path)
    lines(tmp_path / "in.jsonl", otlp(otlp_span(1)))
    ended = run("convert", *words)
    assert ended.code == 3
    assert cure in ended.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is played by /dev/full, which Linux has")
@pytest.mark.parametrize("count", [2, 200])
def test_a_full_disk(count: int, run: Any, tmp_path: Path) -> None:
    """It is told as what it is."""
    ended = run("convert", lines(tmp_path / "in.jsonl", *(otlp(otlp_span(number)) for number in range(1, count))), "--output", "/dev/full")
    assert ended.code == 3
    assert "No space left" in ended.err


def test_an_item_that_can_not_be_converted(run: Any, tmp_path: Path) -> None:
    """It is counted as lost, the others go on, and the exit code says so."""
    path = lines(tmp_path / "in.jsonl", otlp(otlp_span(1), otlp_span(2)), otlp_log("Order Paid", **{"user.id": "customer-9"}))
    ended = run("convert", path, "--option", "select=cli.broken_select:select")
    assert ended.code == 1
    assert "1 internal" in ended.err
    assert len(read(ended.out)) == 2


def test_progress_over_several_files(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts the bytes read of all files, before they are unpacked, and ends at their sum."""
    import gzip

    monkeypatch.setattr(convert, "_SLICE", 1)
    seen: list[Any] = []

    class Watched(convert.Progress):
        def __init__(self, what: str, total: int | None) -> None:
            super().__init__(what, total)
            seen.append(total)

        def update(self, done: int, note: str) -> None:
            seen.append(done)

    monkeypatch.setattr(convert, "Progress", Watched)
    one, two = tmp_path / "1.jsonl.gz", tmp_path / "2.jsonl"
    one.write_bytes(gzip.compress(json.dumps(otlp(otlp_span(1))).encode()))
    lines(two, otlp(otlp_span(2)))
    ended = run("convert", tmp_path / "*.jsonl*")
    total, *done = seen
    assert total == one.stat().st_size + two.stat().st_size
    assert done == sorted(done)
    assert done[-1] == total
    assert "converting" not in ended.err  # no terminal, no bar
