"""Which files this process has open: those of one test, since threads and garbage of earlier tests open and close others meanwhile."""

from __future__ import annotations

import contextlib
from pathlib import Path


def descriptors_below(directory: Path) -> list[str]:
    """Give the name of each open descriptor whose file lies in `directory`, or did before it was removed, and of `directory` itself."""
    found: list[str] = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # closed by now
            found.append(str(link.readlink()))
    return sorted(name for name in found if name.startswith(str(directory)))
