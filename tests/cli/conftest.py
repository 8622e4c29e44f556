"""The command line as a function, in an environment that says nothing about telemetry."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from otel_amplitude.cli import main
from otel_amplitude.sandbox import Sandbox


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine reaches a test, and the terminal is 80 columns wide."""
    for name in os.environ:
        if name.startswith(("OTEL_", "AMPLITUDE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run a command with these words."""

    def run_it(*words: object) -> Ended:
        capsys.readouterr()
        code = main([str(word) for word in words])
        return Ended(code, *capsys.readouterr())

    return run_it


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A running sandbox."""
    with Sandbox() as running:
        yield running


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without rich."""
    for name in ("rich", "rich.box", "rich.console", "rich.table", "rich.text", "rich.progress"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
