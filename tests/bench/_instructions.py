"""Instructions of the calling thread for one span, counted by valgrind: they repeat on noisy machines."""

from __future__ import annotations

import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from os import getppid
from pathlib import Path

from opentelemetry.sdk.trace import SpanProcessor

from tests.bench import _work
from tests.bench._contenders import CONTENDERS, ours
from tests.bench._feed import feed

# Few, so that no queue fills and no thread has a reason to wake meanwhile.
_LOOPS = 100
_DEAD = "http://127.0.0.1:9"
# name → processor, whether its spans are chosen
PHASES: dict[str, tuple[Callable[[str], SpanProcessor], bool]] = {
    "none": (CONTENDERS["none"], True),
    "bsp": (CONTENDERS["bsp"], False),
    "not chosen": (lambda url: ours(url, upload_interval=3600.0), False),
    "floor": (CONTENDERS["floor"], True),
    "chosen": (lambda url: ours(url, upload_interval=3600.0), True),
    "0 middlewares": (lambda url: ours(url, upload_interval=3600.0, middlewares=0), True),
    "10 middlewares": (lambda url: ours(url, upload_interval=3600.0, middlewares=10), True),
}


def run(names: list[str]) -> None:
    """Inside valgrind: `getppid` begins and ends each count."""
    contexts = _work.contexts(3 * _LOOPS)
    for name in names:
        make, is_chosen = PHASES[name]
        processor = make(_DEAD)
        pairs = (_work.chosen if is_chosen else _work.not_chosen)(3 * _LOOPS)
        feed(processor, pairs[:20], _work.contexts(20))
        gc.collect()
        gc.freeze()  # the spans waiting here are the benchmark's
        getppid()
        feed(processor, pairs[:_LOOPS], contexts)
        getppid()
        feed(processor, pairs[_LOOPS:], contexts, _LOOPS)
        getppid()


def count(names: list[str]) -> dict[str, int]:
    """Give the instructions of `on_start` and `on_end` for one span, by phase; empty without valgrind."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "count"
        command = [valgrind, "--tool=callgrind", "--dump-before=getppid", f"--callgrind-out-file={out}", sys.executable, "-m"]
        subprocess.run([*command, "tests.bench._instructions", *names], check=True, capture_output=True, timeout=600)
        totals = [_total(Path(f"{out}.{part}")) for part in range(1, 3 * len(names) + 1)]
    return {name: (totals[3 * at + 2] - totals[3 * at + 1]) // _LOOPS for at, name in enumerate(names)}


def _total(dump: Path) -> int:
    found = re.search(r"^(?:totals|summary): (\d+)", dump.read_text(), re.MULTILINE)
    assert found is not None, f"{dump} has no total"
    return int(found[1])


if __name__ == "__main__":
    run(sys.argv[1:])
    os._exit(0)
