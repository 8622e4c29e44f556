"""What terminals show, with rich and without."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest

from otel_amplitude.cli import _table
from otel_amplitude.cli._table import Progress, print_table

ROWS = [("Order Placed", "1,234"), ("Cart Viewed", "7")]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("plain")
def test_a_table_without_rich(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns are aligned, numbers to the right."""
    print_table("Events", ("event type", "count"), ROWS)
    assert capsys.readouterr().out == ("\nEvents\nevent type    count\n------------  -----\nOrder Placed  1,234\nCart Viewed       7\n")


@pytest.mark.usefixtures("plain")
def test_a_wide_table_without_rich(capsys: pytest.CaptureFixture[str]) -> None:
    """Long cells are folded at spaces where there are any, and no line is wider than the terminal."""
    print_table("Rules", ("rule", "why"), [("a b", "word " * 40), ("x" * 100, "y" * 200)])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert out.count("word") == 40
    assert out.count("y") == 200 + len("why") - len("wh")


def test_a_table_with_rich(capsys: pytest.CaptureFixture[str]) -> None:
    """It fits the terminal, and nothing in a cell is taken for markup."""
    print_table("Events [bold]", ("event type", "count"), [*ROWS, ("[red]not markup[/red]", "1"), ("z" * 200, "2")])
    out = capsys.readouterr().out
    assert "[red]not markup[/red]" in out
    assert "Events [bold]" in out
    assert max(map(len, out.splitlines())) <= 80
    assert out.count("z") == 200


def test_an_empty_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Only its head is shown."""
    print_table("Events", ("event type", "count"), [])
    assert "event type" in capsys.readouterr().out


def test_a_bar_with_rich() -> None:
    """A terminal shows how far it is, and a note."""
    stream = Terminal()
    with Progress("converting", 100, stream) as progress:
        progress.update(50, "7 events")
        progress.update(100, "14 events")
    assert "converting" in stream.getvalue()
    assert "14 events" in stream.getvalue()


@pytest.mark.usefixtures("plain")
def test_lines_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal gets a line now and then, with a share where the total is known."""
    now = [0.0]
    monkeypatch.setattr(_table, "time", SimpleNamespace(monotonic=lambda: now[0]))  # not for the threads that other tests left
    stream = Terminal()
    for total in (200, None):
        with Progress("converting", total, stream) as progress:
            progress.update(10, "too early")
            now[0] += 3
            progress.update(50, "7 events")
    assert stream.getvalue() == "converting: 25 %  7 events\nconverting: 50  7 events\n"


@pytest.mark.parametrize("fixture", [None, "plain"])
def test_nobody_looks(fixture: str | None, request: Any) -> None:
    """Where the stream is no terminal, nothing is written."""
    if fixture:
        request.getfixturevalue(fixture)
    stream = io.StringIO()
    with Progress("converting", 100, stream) as progress:
        progress.update(50, "7 events")
    assert stream.getvalue() == ""
