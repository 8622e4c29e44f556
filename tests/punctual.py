"""How long something took, less what the machine withheld: a promise about time is kept or broken by our code, not by its neighbours."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path


class Stopwatch:
    """Runs from when it is made. On an idle machine its seconds are those of the clock."""

    def __init__(self) -> None:
        self._waited = _waited()
        self._stolen = _stolen()
        self._began = time.monotonic()

    def seconds(self) -> float:
        """Seconds since the start, less those in which a thread of this process could have run but was given no processor."""
        took = time.monotonic() - self._began
        # Thread by thread: those that ended meanwhile must not take what they waited for before the start with them.
        waited = sum(max(0.0, seconds - self._waited.get(thread, 0.0)) for thread, seconds in _waited().items())
        return took - waited - (_stolen() - self._stolen)


def _waited() -> dict[str, float]:
    """Seconds for which each thread of this process has waited for a processor so far; nothing where the kernel does not count them."""
    waited = {}
    for task in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            waited[task.parent.name] = int(task.read_text().split()[1]) / 1e9
    return waited


def _stolen() -> float:
    """Seconds that the host of this virtual machine took from its processors so far, even from threads that ran: `steal` of proc(5)."""
    try:
        return int(Path("/proc/stat").read_text().split(maxsplit=9)[8]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0
