"""When the rules file is read again without a restart: on SIGHUP, and in a forked child.

A server that reloads (gunicorn on SIGHUP) forks its new workers from an old master, whose rules they would inherit.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otel_amplitude.client import Amplitude

_followers: weakref.WeakSet[Amplitude] = weakref.WeakSet()


def follow_rules(client: Amplitude) -> None:
    """Read the client's rules file again when it is asked for; without such a file do nothing. Main thread only, for signals.

    SIGHUP is taken only where the application does not handle it, and not in a terminal, whose closing it announces: there it still ends the process.
    """
    if not client.config.rules:
        return
    _followers.add(client)
    with contextlib.suppress(ValueError, OSError, AttributeError):  # no main thread, no signals, no standard input
        if signal.getsignal(signal.SIGHUP) == signal.SIG_DFL and not sys.stdin.isatty():
            signal.signal(signal.SIGHUP, _on_sighup)


def _on_sighup(_number: int, _frame: Any) -> None:
    # A signal can arrive anywhere, also inside a lock of the logging module's; a thread of its own can wait for it.
    with contextlib.suppress(RuntimeError):  # no threads are to be had: the rules stay, and the application does not notice
        threading.Thread(target=_reload, name="otel-amplitude-reload", daemon=True).start()


def _reload() -> None:
    for client in list(_followers):
        client.reload_rules()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_reload)
