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

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from tests.bench import _work
from tests.bench._contenders import CONTENDERS, ours
from tests.bench._feed import feed

# Few, so that no queue fills and no thread has a reason to wake meanwhile.
_LOOPS = 100
_DEAD = "http://127.0.0.1:9"

Work = Callable[[int], list[_work.Pair]]


def _ours(middlewares: int = 1) -> Callable[[str], SpanProcessor]:
    return lambda url: ours(url, upload_interval=3600.0, middlewares=middlewares)


class Reference(SpanProcessor):
    """A fixed piece of plain Python for each span, to which other counts are compared: builds of Python differ by more than a change of ours."""

    def on_end(self, span: ReadableSpan) -> None:
        """Copy, search, change and join a dict, as the work on an event does."""
        texts = 0
        for _ in range(4):
            copied = _work.CHOSEN.copy()
            for name, value in copied.items():
                if type(value) is str and len(value) < 1_024:
                    texts += len(name.partition(".")[2])
            copied["number"] = texts
            del copied["cart.gift"]
            "".join(copied)


# name → processor, its spans
PHASES: dict[str, tuple[Callable[[str], SpanProcessor], Work]] = {
    "none": (CONTENDERS["none"], _work.chosen),
    "reference": (lambda _url: Reference(), _work.chosen),
    "bsp": (CONTENDERS["bsp"], _work.not_chosen),
    "not chosen": (_ours(), _work.not_chosen),
    "floor": (CONTENDERS["floor"], _work.chosen),
    "chosen": (_ours(), _work.chosen),
    "0 middlewares": (_ours(0), _work.chosen),
    "10 middlewares": (_ours(10), _work.chosen),
    "automatic": (_ours(0), _work.automatic),
}


def run(names: list[str]) -> None:
    """Inside valgrind: `getppid` begins and ends each count."""
    contexts = _work.contexts(3 * _LOOPS)
    for name in names:
        make, work = PHASES[name]
        processor = make(_DEAD)
        pairs = work(3 * _LOOPS)
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
        # A fixed seed: the order of a set, and so a count, would change from run to run.
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        subprocess.run([*command, "tests.bench._instructions", *names], check=True, capture_output=True, timeout=600, env=environment)
        totals = [_total(Path(f"{out}.{part}")) for part in range(1, 3 * len(names) + 1)]
    return {name: (totals[3 * at + 2] - totals[3 * at + 1]) // _LOOPS for at, name in enumerate(names)}


def _total(dump: Path) -> int:
    found = re.search(r"^(?:totals|summary): (\d+)", dump.read_text(), re.MULTILINE)
    assert found is not None, f"{dump} has no total"
    return int(found[1])


if __name__ == "__main__":
    run(sys.argv[1:])
    os._exit(0)
