"""What lies on disk can be seen, checked, taken out, sent and removed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli.trial import KEY, by_user, event, spool
from spool_tools import make

from otel_amplitude.delivery.disk.inspect import iter_records
from otel_amplitude.delivery.disk.spool import fingerprint
from otel_amplitude.sandbox import Sandbox

EVENTS = [event(number) for number in range(6)]


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """Six events of three users, left by an ended process."""
    return spool(tmp_path / "spool", *EVENTS)


def count(path: Path) -> int:
    return sum(1 for _ in iter_records(path))


def test_ls(run: Any, left: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each segment with its events, age and owner; the directory may come from the option's variable."""
    monkeypatch.setenv("OTEL_EXPORTER_AMPLITUDE_SPOOL_DIR", str(left))
    ended = run("spool", "ls")
    assert ended.code == 0
    assert "6 events in 1 segment" in ended.out.replace("\n", " ")
    assert "ended" in ended.out
    (segment,) = json.loads(run("spool", "ls", left, "--json").out)
    assert (segment["records"], segment["alive"], segment["foreign"]) == (6, False, False)


def test_verify(run: Any, left: Path) -> None:
    """Damage is named by file, and makes the exit code 1."""
    assert run("spool", "verify", left).code == 0
    (path,) = left.glob("*/*/*.seg")
    data = bytearray(path.read_bytes())
    data[400] ^= 0xFF
    path.write_bytes(data)
    ended = run("spool", "verify", left)
    assert ended.code == 1
    assert f"{path.name}: has lost about 1 event" in ended.out
    found = json.loads(run("spool", "verify", left, "--json").out)
    assert (found["events"], len(found["damaged"])) == (5, 1)
    path.write_bytes(b"something else" * 10)
    assert "no segment of this version" in run("spool", "verify", left).out
    assert "not readable" in run("spool", "ls", left).out.replace("\n", " ")


def test_export(run: Any, left: Path, tmp_path: Path) -> None:
    """Events as lines, all or one user's, to a file that nobody else reads; they stay."""
    assert [json.loads(line) for line in run("spool", "export", left).out.splitlines()] == EVENTS
    path = tmp_path / "out.jsonl"
    ended = run("spool", "export", left, "--user", "customer-1", "--output", path)
    assert "2 events written" in ended.err
    assert {json.loads(line)["user_id"] for line in path.read_text().splitlines()} == {"customer-1"}
    assert path.stat().st_mode & 0o777 == 0o600
    assert count(left) == 6


def test_purge_of_a_user(run: Any, left: Path) -> None:
    """Nothing goes without --yes; with it, the events of that user or device and no others."""
    assert "2 events would be removed" in run("spool", "purge", left, "--user", "customer-1").out
    assert json.loads(run("spool", "purge", left, "--json").out) == {"would_remove": 6}
    assert count(left) == 6
    ended = run("spool", "purge", left, "--user", "customer-1", "--yes")
    assert (ended.code, "2 events removed, 4 kept" in ended.out) == (0, True)
    assert {json.loads(record.body)["user_id"] for record in iter_records(left)} == {"customer-0", "customer-2"}
    assert json.loads(run("spool", "purge", left, "--yes", "--json").out) == {"removed": 4, "kept": 0, "busy": 0}
    assert count(left) == 0


def test_purge_beside_a_running_process(run: Any, left: Path) -> None:
    """What it owns is passed over, and it is said so."""
    running = make(left, fingerprint=fingerprint("https://api2.amplitude.com/2/httpapi", KEY))
    assert running.append(b'{"insert_id": "1"', 1) is None
    ended = run("spool", "purge", left, "--user", "customer-1", "--yes")
    assert ended.code == 1
    assert "running processes" in ended.out
    assert "running" in run("spool", "ls", left).out
    running.close()


def test_replay(run: Any, tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ended processes left is sent and removed; what belongs to another key or endpoint is told and stays."""
    url = f"{sandbox.url}/2/httpapi"
    monkeypatch.setenv("OTEL_EXPORTER_AMPLITUDE_API_KEY", KEY)
    path = spool(tmp_path / "spool", *EVENTS, url=url)
    spool(path, event(9))
    ended = run("spool", "replay", path, "--option", f"server_url={url}", "--timeout", 10)
    assert ended.code == 1, ended.out + ended.err
    assert "6 events sent, 0 left" in ended.out
    assert "1 event belongs to another key or endpoint, not sent" in ended.out
    assert f"otel-amplitude convert --spool {path} --send" in ended.out
    assert by_user(sandbox.events()) == by_user(EVENTS)
    assert count(path) == 1
    assert run("convert", "--spool", path, "--send", "--option", f"server_url={url}").code == 0, "the way out that was named is one"
    assert [item["insert_id"] for item in sandbox.events()][6:] == [event(9)["insert_id"]]


def test_replay_without_a_server(run: Any, tmp_path: Path, sandbox: Sandbox) -> None:
    """What can not be sent stays for the next time, and the exit code says so; refused events are counted by reason."""
    url = f"{sandbox.url}/2/httpapi"
    path = spool(tmp_path / "spool", *EVENTS, event(7, user_id="x"), url=url)
    words = ("spool", "replay", path, "--option", f"server_url={url}", "--option", f"api_key={KEY}", "--json", "--timeout")
    sandbox.set_fault("status", status=503)
    ended = run(*words, 0.5)
    assert ended.code == 1
    assert json.loads(ended.out)["left"] == 7
    assert count(path) == 7
    sandbox.clear_faults()
    ended = run(*words, 10)
    assert ended.code == 1
    assert json.loads(ended.out) == {"acknowledged": 6, "rejected": {"invalid": 1}, "dropped": {}, "left": 0, "of_other_projects": 0}
    again = run(*words[:-2], "--timeout", 1)
    assert (again.code, "0 events sent, 0 left" in again.out) == (0, True)


def test_what_the_server_refuses(run: Any, tmp_path: Path, sandbox: Sandbox) -> None:
    """It is told in words."""
    url = f"{sandbox.url}/2/httpapi"
    path = spool(tmp_path / "spool", event(7, user_id="x"), url=url)
    ended = run("spool", "replay", path, "--option", f"server_url={url}", "--option", f"api_key={KEY}", "--timeout", 10)
    assert (ended.code, "rejected by the server: invalid 1" in ended.out) == (1, True)


def test_lines_that_are_no_events(run: Any, tmp_path: Path) -> None:
    """They are nobody's."""
    path = spool(tmp_path / "spool", [1])  # type: ignore[arg-type]
    made = make(path, fingerprint="0123abcd")
    assert made.append(b"{", 1) is None
    made.abandon_after_fork()
    assert "0 events written" in run("spool", "export", path, "--user", "x").err


@pytest.mark.parametrize(("words", "cure"), [((), "OTEL_EXPORTER_AMPLITUDE_SPOOL_DIR"), (("missing",), "spool_dir")])
@pytest.mark.parametrize("action", ["ls", "verify", "export", "replay", "purge"])
def test_no_directory(action: str, words: tuple[str, ...], cure: str, run: Any) -> None:
    """It is said which one to give."""
    ended = run("spool", action, *words)
    assert ended.code == 3
    assert cure in ended.err
