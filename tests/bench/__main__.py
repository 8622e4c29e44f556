"""The command: runs the measurements, turn and turn about, and shows the table."""

from __future__ import annotations

import argparse
import compileall
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import otel_amplitude
from tests.bench import _instructions
from tests.bench._budgets import ROWS, Book
from tests.bench._contenders import CONTENDERS
from tests.bench._sink import Sink

_REQUESTS = ("none", "floor", "bsp", "ours+fast", "otlp", "amplitude")
# measurement → contenders, size of a quick and of a full run, rounds of a full run (a quick one has one)
PLAN: dict[str, tuple[tuple[str, ...], int, int, int]] = {
    "cpu_of_thread": (tuple(CONTENDERS), 8, 8, 3),
    "end_to_end": (tuple(CONTENDERS), 2, 4, 2),
    "requests": (_REQUESTS, 1, 2, 2),
    "throughput": (("0", "0.05", "0.2"), 3, 6, 1),
    "dead_server": (("-",), 6, 15, 1),
    "idle": (("-",), 1, 2, 1),
    "import": (("-",), 1, 1, 5),
    "rules": (("-",), 1, 4, 3),
    "sampler": (("-",), 1, 4, 3),
    "spool": (("new", "full"), 1, 4, 1),
    "convert": (("1", "512", "8192"), 1, 4, 3),
    "worker": (("-",), 1, 4, 3),
    "gateway": (("chosen", "mix", "not"), 1, 4, 3),
    "growth_events": (("-",), 1, 4, 1),
    "growth_threads": (("-",), 1, 3, 1),
    "growth_attributes": (("-",), 1, 3, 1),
    "growth_users": (("-",), 1, 4, 1),
    "growth_held": (("-",), 1, 4, 1),
}
# Taken further where somebody has a quarter of an hour: ten million events, a million users.
_LONG = {"growth_events": 100, "growth_users": 100}
_PACKAGES = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-http", "amplitude-analytics", "orjson", "isal", "requests")
_EXAMPLES = """examples:
  python -m tests.bench                        everything, about ten minutes
  python -m tests.bench --quick                one short round of everything, about two minutes
  python -m tests.bench --only instructions    what valgrind counts; needs valgrind
  python -m tests.bench --only end_to_end --only cpu_of_thread
  python -m tests.bench --only growth_events --only growth_users --long    ten million events, a million users; a quarter of an hour
  python -m tests.bench --json bench.json --plot bench.svg
"""
Samples = dict[tuple[str, str], list[dict[str, float]]]


def _jobs(only: list[str], *, quick: bool, long: bool) -> Iterator[tuple[str, str, int]]:
    """Contenders take turns, so that a busy moment of the machine meets all of them."""
    for measure, (contenders, small, large, rounds) in PLAN.items():
        if not only or measure in only:
            for _ in range(1 if quick else rounds):
                for contender in contenders:
                    yield measure, contender, _LONG.get(measure, large) if long else small if quick else large


def _measure(measure: str, contender: str, url: str, size: int, seconds: float) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench._child", measure, contender, url, str(size)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode:
        raise SystemExit(f"{measure} of {contender} failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(only: list[str], *, quick: bool, long: bool) -> Samples:
    """Give the figures of all measurements; progress goes to stderr."""
    samples: Samples = {}
    jobs = list(_jobs(only, quick=quick, long=long))
    # As pip leaves an installed package.
    compileall.compile_dir(Path(otel_amplitude.__file__).parent, quiet=1)
    began = time.monotonic()
    with Sink() as sink:
        for done, (measure, contender, size) in enumerate(jobs):
            print(
                f"\r\033[K{done}/{len(jobs)} {time.monotonic() - began:.0f} s: {measure} {contender}", end="", file=sys.stderr, flush=True
            )
            sink.reset()
            samples.setdefault((measure, contender), []).append(_measure(measure, contender, sink.url, size, 3_600 if long else 120))
    if not only or "instructions" in only:
        print("\r\033[Kinstructions, by valgrind", end="", file=sys.stderr, flush=True)
        counted = _instructions.count(list(_instructions.PHASES))
        if counted:
            samples["instructions", "all"] = [{name: float(number) for name, number in counted.items()}]
    print("\r\033[K", end="", file=sys.stderr)
    return samples


def rows(samples: Samples) -> list[dict[str, Any]]:
    """Give each row that was measured: name, figure, unit, budget, and whether it is met (None without a budget)."""
    book = Book(samples)
    found = []
    for row in ROWS:
        try:
            figure = row.figure(book)
        except KeyError:  # not measured this time
            continue
        sign = "≥" if row.at_least else "≤"
        budget = "" if row.budget is None else f"{sign} {row.budget:,g} {row.unit}".strip()
        found.append({"name": row.name, "figure": figure, "unit": row.unit, "budget": budget, "met": row.is_met(figure)})
    return found


def spread(samples: Samples) -> float:
    """Give by how much the rounds of one figure differ in the middle: (highest - lowest) / median of the end-to-end CPU."""
    spans = []
    for (measure, _), rounds in samples.items():
        if measure == "end_to_end" and len(rounds) > 1:
            costs = sorted(sample["cpu"] for sample in rounds)
            spans.append((costs[-1] - costs[0]) / costs[len(costs) // 2])
    return max(spans, default=0.0)


def _about() -> str:
    names = []
    for name in _PACKAGES:
        try:
            names.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            names.append(f"no {name}")
    stamp = time.strftime("%Y-%m-%d %H:%M")
    return f"{stamp}, CPython {platform.python_version()}, {os.cpu_count()} cores {platform.machine()}, {', '.join(names)}"


def _show(table: list[dict[str, Any]]) -> None:
    words = {True: "met", False: "NOT MET", None: ""}
    width = max((len(row["name"]) for row in table), default=0)
    for row in table:
        figure = f"{row['figure']:,.2f}" if abs(row["figure"]) < 100 else f"{row['figure']:,.0f}"
        print(f"{row['name']:{width}}  {figure:>12} {row['unit']:12}  {row['budget']:>22}  {words[row['met']]}")


def _plot(samples: Samples, file: Path) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    book = Book(samples)
    names = [name for name in CONTENDERS if name not in ("none", "bsp") and ("end_to_end", name) in samples]
    figure, axes = plt.subplots(figsize=(8, 0.45 * len(names) + 1.2))
    bars = axes.barh(names, [book.end_to_end(name) for name in names], color=["#1e61f0" if "ours" in name else "#b8bec9" for name in names])
    axes.bar_label(bars, fmt="%.0f µs", padding=4)
    axes.invert_yaxis()
    axes.set_xlabel("CPU per event from span.end() to the acknowledgement, µs")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(file)


def main() -> None:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="Measures what the package costs beside its peers, against a server in another process on loopback.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="one short round of everything")
    parser.add_argument("--long", action="store_true", help="take growth to ten million events and a million users")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", choices=[*PLAN, "instructions"], help=", ".join([*PLAN, "instructions"])
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures of all rounds")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the CPU of an event; needs matplotlib")
    chosen = parser.parse_args()
    samples = run(chosen.only, quick=chosen.quick, long=chosen.long)
    table = rows(samples)
    print(_about())
    _show(table)
    if spread(samples):
        print(f"rounds differ by up to {spread(samples):.0%} of their median")
    if chosen.json:
        raw = {f"{measure} {contender}": rounds for (measure, contender), rounds in samples.items()}
        chosen.json.write_text(json.dumps({"about": _about(), "rows": table, "samples": raw}, indent=1))
    if chosen.plot:
        _plot(samples, chosen.plot)


if __name__ == "__main__":
    main()
