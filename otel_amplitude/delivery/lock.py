"""Locks of threads that a signal handler or finalizer may interrupt at any line."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def acquired(lock: threading.RLock, timeout: float = threading.TIMEOUT_MAX) -> Iterator[bool]:
    """Hold `lock`; gives False if `timeout` seconds ran out, or if this thread holds it already: it interrupted itself, and can not wait."""
    if owns(lock):
        yield False
        return
    try:
        yield lock.acquire(timeout=max(0.0, timeout))
    finally:
        # What a signal handler raises (Ctrl-C) may come behind any call, also right behind `acquire`. Only a lock that knows its
        # owner can be given back without knowing whether it is held; and no other call may come before.
        try:  # noqa: SIM105 -- suppress() would be one
            lock.release()
        except RuntimeError:
            pass


def owns(lock: threading.RLock) -> bool:
    """Whether this thread holds `lock`."""
    return lock._is_owned()  # type: ignore[attr-defined,no-any-return] # noqa: SLF001 -- as threading.Condition asks it
