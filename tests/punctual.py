"""How long something took, less what the machine withheld: a promise about time is kept or broken by our code, not by its neighbours."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path


class Stopwatch:
    """Runs from when it is made. On an idle machine its seconds are those of the clock."""

    def __init__(self) -> None:
        self._withheld = _withheld()
        self._began = time.monotonic()

    def seconds(self) -> float:
        """Seconds since the start, less those in which a thread of this process could have run but was given no processor."""
        return time.monotonic() - self._began - max(0.0, _withheld() - self._withheld)


def _withheld() -> float:
    """Seconds for which this process's threads have waited for a processor so far; 0 where the kernel does not count them."""
    nanoseconds = 0
    for task in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            nanoseconds += int(task.read_text().split()[1])
    return nanoseconds / 1e9
