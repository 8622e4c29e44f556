"""The way to a command, and how it ends."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import otel_amplitude.cli
from otel_amplitude.cli._main import COMMANDS, main

SPOOL = ("ls", "verify", "export", "replay", "purge")
MODULES = [name for _, name, _ in pkgutil.iter_modules(otel_amplitude.cli.__path__) if name not in ("_shop", "_plain_shop")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    """They are true."""
    failed, _ = doctest.testmod(importlib.import_module(f"otel_amplitude.cli.{name}"))
    assert failed == 0


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    """It lists every command and every exit code."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert [name for name in COMMANDS if f"    {name} " not in said] == []
    assert "exit codes:" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what the command does and gives examples that the command understands."""
    module = importlib.import_module(f"otel_amplitude.cli.{name}")
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(example in said for example in module.EXAMPLES)


def test_words_that_do_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    """They end with exit code 2, and the right words are told."""
    for words in (["dance"], ["catalog"], ["spool", "burn"]):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
    assert "choose from" in capsys.readouterr().err


def test_no_words_at_all(run: Any) -> None:
    """They get the help of all commands; nothing was done, so the exit code is 2."""
    ended = run()
    assert (ended.code, ended.err) == (2, "")
    assert "exit codes:" in ended.out


@pytest.mark.parametrize("words", ["rules init", "rules check", "rules explain", *(f"spool {name}" for name in SPOOL)])
def test_help_of_an_action(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It has an example of its own."""
    with pytest.raises(SystemExit):
        main([*words.split(), "--help"])
    assert f"\nexamples:\n  otel-amplitude {words}" in capsys.readouterr().out


def test_the_module_is_the_program() -> None:
    """`python -m otel_amplitude` works where otel-amplitude is not on the PATH."""
    ran = subprocess.run([sys.executable, "-m", "otel_amplitude", "--version"], capture_output=True, text=True, check=True, timeout=30)
    assert ran.stdout.startswith("otel-amplitude ")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (FileNotFoundError(2, "No such file or directory", "plan.csv"), 3, "plan.csv: No such file"),
        (OSError(28, "No space left on device"), 3, "input or output: No space left"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_stops_a_command(error: BaseException, code: int, words: str, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code says what happened, and no traceback is shown."""

    def stop(_: object) -> int:
        raise error

    monkeypatch.setattr("otel_amplitude.cli.cookie.run", stop)
    ended = run("cookie")
    assert ended.code == code
    assert words in ended.err
    assert "Traceback" not in ended.err


def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    """`| head -1` is no error."""
    path = tmp_path / "events.jsonl"
    path.write_text('{"event_type": "a", "user_id": "u-12345", "insert_id": "1"}\n' * 50_000)
    script = "from otel_amplitude.cli import main; import sys; sys.exit(main())"
    with subprocess.Popen([sys.executable, "-c", script, "convert", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(30) == 0
    assert b"Traceback" not in said
    assert b"Exception ignored" not in said
