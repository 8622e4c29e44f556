"""The one thread that runs users' callbacks: logs, metrics, `on_result`, `on_retry`, in the order in which things happened."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from otel_amplitude.delivery.observer import Note, Observer, tell
from otel_amplitude.delivery.threads import start_thread
from otel_amplitude.pipeline import entered
from otel_amplitude.suppression import suppressed

# Notes, how many results are among them, and what to call when all of them were reported.
_Job = tuple[Sequence[Note], int, Callable[[], object]]


class Callbacks:
    """Reports notes to observers on a thread of its own, started by the first note; a callback that blocks holds up only later ones.

    `report`, `after` and `finish` are called by the worker; `reported` and `done` are written by the callbacks thread alone.

    Attributes:
        reported: how many results were reported.
        done: how many jobs are over.
        in_users_code: an observer that runs users' callbacks is at work.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._has_thread = False
        self._thread: int | None = None
        self._results = 0
        self._posted = 0
        self.reported = 0
        self.done = 0
        self.in_users_code = False

    @property
    def unreported(self) -> int:
        """How many results wait to be reported: they count as memory."""
        return self._results - self.reported

    @property
    def is_here(self) -> bool:
        """Whether the calling thread is the callbacks thread: it must not wait for itself."""
        return self._thread == threading.get_ident()

    @property
    def is_running(self) -> bool:
        """Whether something is being reported, or is to be."""
        return self.done < self._posted

    def after(self, then: Callable[[], object]) -> None:
        """Call `then` when everything posted until now was reported."""
        if self.is_running:
            self.report((), 0, then, may_start=True)
        else:
            then()

    def report(self, notes: Sequence[Note], results: int, then: Callable[[], object], *, may_start: bool) -> None:
        """Report notes in order, then call `then`; on this thread where no other `may_start`, or can be started."""
        self._results += results
        self._posted += 1
        self._jobs.put((notes, results, then))
        if not self._has_thread and may_start:
            self._has_thread = start_thread(self._run)
        if not self._has_thread:
            self._jobs.put(None)
            self._run()

    def finish(self) -> None:
        """End the thread when it has reported everything."""
        if self._has_thread:
            self._jobs.put(None)

    def _run(self) -> None:
        outer, self._thread = self._thread, threading.get_ident()
        with entered(), suppressed():
            while (job := self._jobs.get()) is not None:
                notes, results, then = job
                for note in notes:
                    for observer in self._observers:
                        self.in_users_code = observer.wants_results or observer.wants_retries
                        tell((observer,), (note,))
                self.in_users_code = False
                self.reported += results
                then()
                self.done += 1
        self._thread = outer
