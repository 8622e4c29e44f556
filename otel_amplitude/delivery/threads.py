"""What the threads of delivery are made of: how one is started, how one waits for another, how one gets messages.

A signal handler may raise in a thread that waits (Ctrl-C). `threading.Event` and `threading.Condition` then keep their lock for good, and
`threading.Thread.start` takes a lock that a fork in C may leave locked in the child. So nothing of `threading` that takes a lock of its
own is used here: `queue.SimpleQueue` and `_thread.start_new_thread` need none. Both names are looked up when they are used, since gevent
replaces them.
"""

from __future__ import annotations

import _thread
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from otel_amplitude.clock import monotonic
from otel_amplitude.pipeline import entered
from otel_amplitude.suppression import suppressed

# A message that raises is applied again, so often in all: what raised may have been a user's clock, or memory that was short.
_MOST_TRIES: Final = 3
# A waiter looks by itself as often as this: the token of a signal is lost when a waiter is interrupted with it in its hands.
_LOOK_SECONDS: Final = 0.5


def start_thread(target: Callable[[], object]) -> bool:
    """Start a daemon thread; False when none can be had: there are too many, or the interpreter is ending."""
    try:
        _thread.start_new_thread(_run, (target,))
    except RuntimeError:
        return False
    return True


def _run(target: Callable[[], object]) -> None:
    # As `threading.Thread` does: debuggers, profilers and coverage see this thread too.
    if (trace := threading.gettrace()) is not None:
        sys.settrace(trace)
    if (profile := threading.getprofile()) is not None:
        sys.setprofile(profile)
    with entered(), suppressed():
        target()


class Signal:
    """Something that happens once, for which other threads wait. An interrupted waiter leaves it as it was.

    Attributes:
        is_set: whether it has happened.
    """

    __slots__ = ("_tokens", "is_set")

    def __init__(self) -> None:
        self._tokens: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.is_set = False

    def set(self) -> None:
        """Let it happen. Any thread; never waits."""
        self.is_set = True
        self._tokens.put(None)

    def wait(self, seconds: float) -> bool:
        """Wait for it for so many seconds at most; whether it has happened."""
        deadline = monotonic() + seconds
        while not self.is_set and (left := deadline - monotonic()) > 0:
            try:
                self._tokens.get(timeout=min(left, _LOOK_SECONDS))
            except queue.Empty:
                continue
            self._tokens.put(None)  # for the next waiter
        return self.is_set


class Mailbox:
    """Messages for one thread, in order: functions that it calls. A message leaves the mailbox after it was applied."""

    def __init__(self) -> None:
        self._messages: queue.SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]] = queue.SimpleQueue()
        self._message: tuple[Callable[..., object], tuple[Any, ...]] | None = None
        self._tries = 0

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        """Leave a message. Any thread; never waits."""
        self._messages.put((function, arguments))

    def apply(self, seconds: float | None = 0.0, before: Callable[[], object] | None = None) -> bool:
        """Apply the next message, and call `before` before it; raises what they raise.

        Args:
            seconds: how long to wait for one; None: without end.
            before: brings up to date what the message is about.

        Returns:
            False when there was none.
        """
        if self._message is None:
            try:
                self._message = self._messages.get_nowait() if seconds is not None and seconds <= 0 else self._messages.get(timeout=seconds)
            except queue.Empty:
                return False
            self._tries = 0
        function, arguments = self._message
        self._tries += 1
        if self._tries == _MOST_TRIES:
            self._message = None
        if before is not None:
            before()
        function(*arguments)
        self._message = None
        return True
