"""How a process ends: one time limit for everything at exit, `atexit` after the providers', and SIGTERM."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol

from otel_amplitude.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_REACH_SECONDS: Final = 0.25
# For so long in all an application that is told to end, and still serves, is held up by events that do not leave.
_PATIENCE_SECONDS: Final = 1.0
_open: dict[int, Exit] = {}
_settling: list[threading.Thread] = []  # of signal handlers that returned before their flush was over


class Client(Protocol):
    """What leaves: flushes, closes, and can say its books."""

    leaving: Exit

    def flush(self, timeout: float | None = None) -> bool:
        """Send what is waiting."""

    def shutdown(self, timeout: float | None = None) -> bool:
        """Close for good."""

    def stats(self) -> object:
        """Give the books, which takes the lock of delivery for a moment."""

    def say_books(self) -> None:
        """Write the books, when anyone should see them."""


class Exit:
    """The end of one client: who still feeds it, and how much time is left.

    `atexit` runs its hooks last in, first out. Ours is registered when this module is imported, which is before a provider is
    made in every ordinary program, so it runs after the providers have shut down. Where it runs earlier all the same, it only
    flushes, and the last processor to shut down closes the client.
    """

    def __init__(self, client: Client, timeout: float) -> None:
        self.client = client
        self.timeout = timeout
        self._deadline = float("-inf")
        self._feeders = 0
        self._leaving = False
        self._patience = _PATIENCE_SECONDS
        self._serves_until = float("inf")
        self.hurried = False
        _open[id(self)] = self

    def remaining(self) -> float:
        """Seconds left of the one limit that all shutdowns of this client share, from the first call on."""
        now = monotonic()
        # Long past: this is another shutdown, not the same exit. But a process ends once, however long its other clients take.
        if now > self._deadline + self.timeout and not (self._leaving and self._deadline > float("-inf")):
            self._deadline = now + self.timeout
        return max(0.0, self._deadline - now)

    def attach(self) -> None:
        """A processor feeds the client from now on."""
        self._feeders += 1

    def detach(self) -> bool:
        """A processor has shut down: flush, and close the client when the process is leaving and nobody feeds it any more."""
        self._feeders = max(0, self._feeders - 1)
        if self._leaving and not self._feeders:
            return self.client.shutdown()
        return self.client.flush(self.remaining())

    def hurry(self) -> None:
        """Start the clock, and the sending: several clients that leave share their time instead of adding it up."""
        self.remaining()
        self.client.flush(0.0)

    def leave(self) -> None:
        """The process ends."""
        self._leaving = True
        if self._feeders and self.client.flush(self.remaining()):
            self.hurried = True  # a provider may yet feed the client: nothing comes after that to send its events
        else:
            self.client.shutdown()

    def told_to_end(self) -> None:
        """The process got SIGTERM, which some servers end by without another word: for the time an exit may take, settle events at once."""
        self.hurried = True
        self._serves_until = monotonic() + self.timeout
        self.soon()

    def soon(self) -> None:
        """Settle what is waiting before the application goes on: it may end at any moment.

        It is held up for a second in all by events that do not leave, since it still serves; those go on their way beside it.
        """
        now = monotonic()
        if now > self._serves_until:  # that was not the end
            self.hurried = False
            return
        if not self.client.flush(max(0.0, min(self._patience, self.remaining()))):
            self._patience -= monotonic() - now
        self.client.say_books()

    def done(self) -> bool:
        """The client is closed, so nothing is left to do at exit; tell whether that is news."""
        return _open.pop(id(self), None) is not None


def open_clients() -> list[Client]:
    """Every client of this process that is not shut down."""
    return [leaving.client for leaving in list(_open.values())]


def _leave_all() -> None:
    leavers = list(_open.values())
    for leaving in leavers:
        leaving.hurry()
    # A daemon thread stops dead when the interpreter ends, with whatever it was about to say.
    for thread in _settling:
        thread.join(max((leaving.remaining() for leaving in leavers), default=0.0) + _REACH_SECONDS)
    for leaving in leavers:
        leaving.leave()


atexit.register(_leave_all)


def flush_on_sigterm(client: Client, *, wrap: bool) -> bool:
    """Flush when the process is told to end: before the default action does so, or beside a handler that begins a graceful stop.

    uvicorn raises the signal again after its graceful stop, and then no `atexit` hook runs; with the default handler none does either.
    Where SIGTERM is ignored it stays so.

    Args:
        client: whom to flush.
        wrap: also where somebody else handles SIGTERM already; else only where nobody does.

    Returns:
        Whether the handler is in place; never off the main thread, where Python allows no handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    before = signal.getsignal(signal.SIGTERM)
    if isinstance(before, _Handler):
        before.add(client)
        return True
    # None: installed by C code, which Python can not call
    if before in (None, signal.SIG_IGN) or (before != signal.SIG_DFL and not wrap):
        return False
    signal.signal(signal.SIGTERM, _Handler(client, before))
    return True


class _Handler:
    """Handles SIGTERM: lets the handler before it do its work and flushes; the default one is only reached after a shutdown.

    A signal can arrive while this very thread is inside delivery with its lock in hand. So the flush runs on a thread of its
    own, and where that one can not get hold of the books, the handler returns first and the thread finishes the job.
    """

    def __init__(self, client: Client, before: Callable[[int, FrameType | None], Any] | int | None) -> None:
        self._clients = [client]
        self._before = before

    def add(self, client: Client) -> None:
        """Flush this client as well."""
        if client not in self._clients:
            self._clients.append(client)

    def _flush(self, *, last: bool, reached: threading.Event) -> None:
        for client in self._clients:
            client.stats()
        reached.set()
        for client in self._clients:
            client.leaving.hurry()
        for client in self._clients:
            if last:
                client.shutdown()
            else:
                client.leaving.told_to_end()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        last = self._before == signal.SIG_DFL  # no exit hook comes after this
        reached, done = threading.Event(), threading.Event()
        waiting = threading.Lock()  # whoever takes it first ends the process: this handler or the thread

        def flush() -> None:
            with contextlib.suppress(Exception):
                self._flush(last=last, reached=reached)
            done.set()
            if last and waiting.acquire(blocking=False):
                os.kill(os.getpid(), number)

        if callable(self._before):
            self._before(number, frame)
        elif last:
            signal.signal(number, signal.SIG_DFL)
        waiting.acquire()
        thread = threading.Thread(target=flush, name="otel-amplitude-sigterm", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no threads are to be had at the very end
            done.set()
        else:
            _settling.append(thread)
            reached.wait(_REACH_SECONDS)
        if reached.is_set() or done.is_set():
            done.wait(max(client.leaving.timeout for client in self._clients) + _REACH_SECONDS)
            if last:
                os.kill(os.getpid(), number)
        else:
            waiting.release()
