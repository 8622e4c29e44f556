"""Imports that threads of ours make late: a process that forks waits for them, as its child would for ever."""

from __future__ import annotations

import os
import threading
from typing import Final

_SECONDS: Final = 5.0
_waited: list[bool] = []

# To be held around every import on a thread of ours: the locks of modules that are being imported are not renewed in a child.
late_import: Final = threading.RLock()


def _wait() -> None:
    _waited.append(late_import.acquire(timeout=_SECONDS))


def _go_on() -> None:
    if _waited.pop():
        late_import.release()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(before=_wait, after_in_parent=_go_on, after_in_child=_go_on)
