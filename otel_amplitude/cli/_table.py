"""What terminals show: tables and progress, rich's where it is installed (extra `cli`), plain text elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import IO, Any, Final

_EVERY_SECONDS: Final = 2.0
_LEAST_COLUMN: Final = 12


def printable(text: str) -> str:
    r"""Give a text that came over the network as one line without anything that steers a terminal.

    >>> printable("Order\x1b[2J\nPlaced")
    'Order\\x1b[2J\\nPlaced'
    """
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def counted(number: int, one: str, more: str = "") -> str:
    """Give a number with what it counts.

    >>> counted(1, "event"), counted(1_200, "event"), counted(2, "directory", "directories")
    ('1 event', '1,200 events', '2 directories')
    """
    return f"{number:,} {one if number == 1 else more or f'{one}s'}"


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; columns of numbers are aligned to the right."""
    title, cells = printable(title), [[printable(str(cell)) for cell in row] for row in rows]
    right = [bool(cells) and all(_is_number(row[index]) for row in cells) for index in range(len(columns))]
    try:
        from rich import box  # noqa: PLC0415 -- optional
        from rich.console import Console  # noqa: PLC0415 -- optional
        from rich.table import Table  # noqa: PLC0415 -- optional
        from rich.text import Text  # noqa: PLC0415 -- optional
    except ImportError:
        _print_plain(title, columns, cells, right)
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    for name, is_number in zip(columns, right, strict=True):
        table.add_column(Text(name), justify="right" if is_number else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(highlight=False)
    console.print()
    console.print(Text(title, style="bold"))
    console.print(table)


def _is_number(cell: str) -> bool:
    return cell in ("", "-") or cell.replace(",", "").replace(".", "").isdigit()


def _print_plain(title: str, columns: Sequence[str], cells: list[list[str]], right: list[bool]) -> None:
    widths = _widths([list(columns), *cells])
    print(f"\n{title}")
    for row in [list(columns), ["-" * width for width in widths], *cells]:
        folded = [_fold(cell, width) for cell, width in zip(row, widths, strict=True)]
        for line in range(max(map(len, folded))):
            parts = [cell[line] if line < len(cell) else "" for cell in folded]
            padded = [
                part.rjust(width) if is_number else part.ljust(width) for part, width, is_number in zip(parts, widths, right, strict=True)
            ]
            print("  ".join(padded).rstrip())


def _widths(rows: list[list[str]]) -> list[int]:
    """Give each column what it needs; where all do not fit, the widest give way."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    room = max(shutil.get_terminal_size().columns - 2 * (len(widths) - 1), _LEAST_COLUMN * len(widths))
    while sum(widths) > room:
        widths[widths.index(max(widths))] -= 1
    return widths


def _fold(cell: str, width: int) -> list[str]:
    lines = []
    while len(cell) > width:
        at = cell.rfind(" ", 1, width + 1)
        at = at if at > 0 else width
        lines.append(cell[:at].rstrip())
        cell = cell[at:].lstrip()
    return [*lines, cell]


class Progress(AbstractContextManager["Progress"]):
    """How far a long work has come: a bar with rich in a terminal, a line every two seconds without; silent where the output is no terminal."""

    def __init__(self, what: str, total: int | None, stream: IO[str] | None = None) -> None:
        """Begin.

        Args:
            what: what is done, in a word.
            total: of the units that `update` counts; None when it is not known.
            stream: where to write; by default standard error, so that a pipe gets data only.
        """
        self._what = what
        self._total = total
        self._stream = stream or sys.stderr
        self._told = time.monotonic()
        self._bar: Any = None
        if not self._stream.isatty():
            return
        try:
            from rich.console import Console  # noqa: PLC0415 -- optional
            from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415 -- optional
        except ImportError:
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self._bar = Progress(*columns, console=Console(file=self._stream))
        self._task = self._bar.add_task(what, total=total, note="")
        self._bar.start()

    def update(self, done: int, note: str) -> None:
        """Tell how many units are done, and what else is worth a word."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, note=note)
        elif self._stream.isatty() and time.monotonic() - self._told > _EVERY_SECONDS:
            self._told = time.monotonic()
            share = f"{100 * done // self._total} %" if self._total else f"{done:,}"
            print(f"{self._what}: {share}  {note}", file=self._stream)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
