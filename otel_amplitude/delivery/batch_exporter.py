"""Threads, locks, forks and the disk around a dispatcher."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from os import getpid
from random import random as any_random
from typing import TYPE_CHECKING, Final

from otel_amplitude.clock import monotonic
from otel_amplitude.clock import wall as machine_wall
from otel_amplitude.delivery.books import SPOOL_IO, Stats
from otel_amplitude.delivery.dispatcher import NO_DISK, Batch, DeliveryOptions, DiskBooks, Dispatcher
from otel_amplitude.delivery.lock import acquired, owns
from otel_amplitude.delivery.observer import Note, Observer, tell
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.receipt import Receipt
from otel_amplitude.delivery.retry import ExponentialBackoff, RetryPolicy
from otel_amplitude.errors import without_frames
from otel_amplitude.pipeline import entered, inside
from otel_amplitude.suppression import suppressed

if TYPE_CHECKING:
    from otel_amplitude.delivery.disk.spool import Record, Spool

# Arrivals are booked in slices, so that callers are never kept from the interpreter for long.
_SLICE: Final = 256
# A sender that found nothing to do for this long ends; the next batch starts another.
_PARKED_SECONDS: Final = 5.0
# The thread could not be started (limits, or the interpreter is ending): try again after this time.
_START_AGAIN_SECONDS: Final = 1.0
# Our lock is only ever held for milliseconds; whoever waits longer interrupted its owner (a signal handler).
_LOCK_SECONDS: Final = 1.0
_NEVER_WAKE: Final = sys.maxsize
# No lock or event waits for infinity, or for centuries.
_FOR_EVER: Final = 365 * 86_400.0
# Without it, above this part of the memory bounds new parcels go to the disk.
_WATERMARK: Final = 0.75
# Above this part of them nobody lines up in memory for a disk that takes parcels again, nor is more read from it than one at a time.
_CROWDED: Final = 0.875
# Leftovers are written to the spool in slices of this many, to see whether time is up. One of them takes a tenth of this
# on a machine with nothing else to do; a process that is told to end often shares its processor with its successor.
_LEFTOVERS: Final = 256
_LEFTOVER_SECONDS: Final = 200e-6
# However few they are: a container may be kept from its processor for a while, just when all of its processes end.
_LEAST_MOVING_SECONDS: Final = 0.25
# A spool that can not do at once what is due is asked again after this time.
_SPOOL_REST_SECONDS: Final = 0.05
# By this much the time of day may go its own way between two looks before we say that somebody set the clock.
_CLOCK_SET_SECONDS: Final = 60.0
# Whoever flushes where no worker could be started sees this often whether there is one by now.
_LOOK_AGAIN_SECONDS: Final = 0.05
# How long the end may take beyond the time it was given.
_GRACE_SECONDS: Final = 0.15
# How much longer, once it is over, it waits for a user's callback that is running: one may be slow, or never return.
_LAST_WORDS_SECONDS: Final = 1.0
# While most of what is read from the disk has to stay there, see after so many reads what can be sent.
_READS_AT_ONCE: Final = 10
# The place of a parcel that the disk should have taken and did not: it waits in memory until those before it are read back.
_AFTER_DISK: Final = object()
# What is told when events are refused since we are too slow or too small.
_FULL: Final = ("queue_full", "id_backlog")

_exporters: weakref.WeakSet[BatchExporter] = weakref.WeakSet()


def _renew_after_fork() -> None:
    for exporter in list(_exporters):
        exporter._start_empty()  # noqa: SLF001 -- our own class


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_renew_after_fork)


def _finish(reference: weakref.ref[BatchExporter], timeout: float) -> None:
    """End an exporter in a `multiprocessing` child, where `atexit` does not run."""
    exporter = reference()
    if exporter is not None:
        exporter.shutdown(timeout)


class _Flush:
    """One caller that waits for everything accepted before its call.

    Attributes:
        mark: the number the last of them has or will have; whatever is adopted meanwhile may come before it.
        adopted: how many were adopted by then.
        adopts: the first look for what ended processes left is yet to be made, and what it finds is waited for.
        untold: it comes from a callback, which must not wait until it was told everything.
        told_by: number of the telling by which observers know of everything that is waited for.
        done: set when all came to their end, and observers were told.
    """

    __slots__ = ("adopted", "adopts", "done", "mark", "told_by", "untold")

    def __init__(self, *, adopts: bool) -> None:
        self.mark = 0
        self.adopted = 0
        self.adopts = adopts
        self.untold = inside()
        self.told_by = _NEVER_WAKE
        self.done = threading.Event()


class BatchExporter(ABC):
    """Takes parcels from any thread and brings each to exactly one end; a subclass says how one request is sent.

    One daemon thread, started by the first parcel, decides when to send; senders, one or under a backlog a few, wait for answers. Nothing
    is shared with a forked child but the options: it starts empty. Callers never touch the network and never wait for a lock.
    """

    def __init__(
        self,
        options: DeliveryOptions,
        *,
        observers: Sequence[Observer] = (),
        retry: RetryPolicy | None = None,
        spool: Spool | None = None,
        read_ids: Callable[[bytes], tuple[str, ...]] = lambda _body: ("",),
        clock: Callable[[], float] = monotonic,
        wall: Callable[[], float] = machine_wall,
        random: Callable[[], float] = any_random,
    ) -> None:
        """Make an exporter; no thread, file or connection exists before the first parcel.

        Args:
            options: the numbers, checked by whoever made them.
            observers: told what happens; their faults are swallowed.
            retry: how long to wait after a fault; by default 0.5 s to 60 s, full jitter, without end.
            spool: the disk, owned by the exporter from now on; None: memory only.
            read_ids: gives the ids of a parcel read back from the spool.
            clock: seconds that never go back.
            wall: seconds since the epoch, for the age of parcels.
            random: chance from 0 to 1, for jitter.
        """
        self._options = options
        self._observers = tuple(observers)
        self._retry = retry if retry is not None else ExponentialBackoff()
        self._spool = spool
        self._read_ids = read_ids
        self._clock = clock
        self._wall = wall
        self._random = random
        self._max_events = options.max_cached_events
        self._max_bytes = options.max_cached_bytes
        share = 0.0 if options.spool_always else _WATERMARK
        self._watermark_events = int(options.max_cached_events * share)
        self._watermark_bytes = int(options.max_cached_bytes * share)
        # What is read back from the disk stays below three quarters: that alone must not make memory crowded.
        self._crowded_events = int(options.max_cached_events * _CROWDED)
        self._crowded_bytes = int(options.max_cached_bytes * _CROWDED)
        self._closed = False
        self._start_empty()
        _exporters.add(self)

    @abstractmethod
    def send_batch(self, batch: Batch, deadline: float) -> Receipt:
        """Send one request and say what became of each parcel; called by sender threads, several at once under a backlog.

        Args:
            batch: the parcels in order, with `halved` for the reader of the answer.
            deadline: the moment on the clock (`otel_amplitude.clock.monotonic` by default) by which this attempt must have ended.

        Returns:
            One outcome for each parcel.
        """

    # The state of one process.

    def _start_empty(self) -> None:
        """Begin anew in this process: empty books, new locks, no thread. What the parent holds is the parent's."""
        forked = getattr(self, "_pid", None) is not None
        self._pid = getpid()
        self._lock = threading.RLock()
        # Whoever looks after the spool: one at a time, also where no thread can be started and everybody who flushes has to.
        self._looking = threading.RLock()
        self._ending = threading.RLock()
        self._ended = threading.Event()
        # Behind it, when observers were told: whoever shuts down as well waits for that.
        self._over = threading.Event()
        self._ended_clean = True
        self._last_moment = float("inf")
        self._inbox: deque[Parcel] = deque()
        self._inbox_bytes = 0
        self._memory_events = 0
        # Parcels that went to the disk since the worker looked, and whether there may be any that it has not read.
        self._appended = 0
        self._on_disk = False
        # Whether what ended processes left was looked for: it precedes what is accepted now, so nothing is booked before.
        self._has_looked = self._spool is None
        self._dispatcher = Dispatcher(self._options, self._retry, self._random, wants_results=self._wants_results)
        self._last_stats = Stats()
        self._wall_offset: float | None = None
        self._flushes: list[_Flush] = []
        # How often observers were told something, and which of these tellings are under way.
        self._tellings = 0
        self._telling: set[int] = set()
        # What users' callbacks are to hear of the end, by the numbers of these tellings, and whether the worker has told all of it.
        self._last_words: deque[tuple[list[Note], int, list[Observer]]] = deque()
        self._said = threading.Event()
        # Leftovers on their way to the disk at the end, which are in nobody's books.
        self._in_hand: deque[Parcel] = deque()
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._wake_events = 1
        self._wake_bytes = _NEVER_WAKE
        self._has_worker = False
        self._starting = threading.Lock()
        self._start_not_before = float("-inf")
        self._jobs: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._parked = 0
        # By thread: the batch that a sender sends as soon as it has told observers of the last one.
        self._following: dict[int, Batch] = {}
        self._told = dict.fromkeys((*_FULL, "expired", "spool_corrupt"), 0)
        if forked and self._spool is not None:
            self._spool.abandon_after_fork()
        if self._closed:
            self._dispatcher.give_up()
            self._ended.set()
            self._over.set()

    # Accepting threads.

    def submit(self, parcel: Parcel) -> bool:
        """Take responsibility for one parcel; False: refused and counted; see `take`."""
        return self.take(parcel) is None

    def take(self, parcel: Parcel) -> str | None:
        """Take responsibility for one parcel; None, or why it was refused and counted (`closed`, `queue_full`, `id_backlog`).

        Any thread. Never waits, never raises, takes no lock but that of the spool around one write: it may be called from
        finalizers, signal and log handlers.
        """
        if self._pid != getpid():
            self._start_empty()
        if self._closed:
            return self._refused("closed")
        dispatcher, inbox, spool = self._dispatcher, self._inbox, self._spool
        is_crowded = bool(dispatcher.backlog.holds) and dispatcher.id_is_crowded(parcel)
        size = len(parcel.body)
        arrived, arrived_bytes = len(inbox) + 1, self._inbox_bytes + size
        used_events, used_bytes = arrived + self._memory_events, arrived_bytes + dispatcher.memory_bytes
        if spool is not None:
            is_above = used_events > self._watermark_events or used_bytes > self._watermark_bytes
            may_line_up = used_events <= self._crowded_events and used_bytes <= self._crowded_bytes
            shelf = dispatcher.backlog.shelf
            # The shelf is asked last: as long as anything is to be read on disk, it may come to know more ids.
            goes_there = is_above or self._on_disk or (self._has_looked and spool.behind) or shelf.is_full
            is_crowded = is_crowded or shelf.knows(parcel.ids)
            if (goes_there or is_crowded) and not (is_crowded and spool.is_tight) and self._append(parcel, spool, may_line_up):
                return None
        if is_crowded:
            return self._refused("id_backlog")
        if used_events > self._max_events or used_bytes > self._max_bytes:
            return self._refused("queue_full")
        inbox.append(parcel)
        self._inbox_bytes += size
        if self.closed and self._was_late(parcel):  # asked once more: it may have been closed meanwhile
            return self._refused("closed")
        if arrived >= self._wake_events or arrived_bytes >= self._wake_bytes:
            self._wake_worker()
        return None

    def _was_late(self, parcel: Parcel) -> bool:
        """Take back a parcel that came when all was over already, and nobody books any more."""
        if not self._ended.is_set():
            return False
        try:
            self._inbox.remove(parcel)
        except ValueError:  # it was booked after all
            return False
        self._inbox_bytes -= len(parcel.body)
        return True

    def _append(self, parcel: Parcel, spool: Spool, may_line_up: bool) -> bool:
        """Bring a parcel to the disk; False: it has to wait in memory for its turn behind what is there.

        Where others wait already it lines up behind them, as long as it may: to keep what is accepted matters more than its order.
        """
        if not (may_line_up and self._some_wait_for_disk()):
            if spool.append(parcel.body, parcel.accepted_ms) is None:
                self._on_disk = True
                self._appended += 1
                if self._appended >= self._wake_events:
                    self._wake_worker()
                return True
            self._wake_events = 0  # the worker brings it there as soon as the disk takes it, or reads what is before it
        parcel.place = _AFTER_DISK
        return False

    def _some_wait_for_disk(self) -> bool:
        """Whether there are parcels in memory that belong behind those on disk; then the next ones belong behind them."""
        try:
            return self._inbox[-1].place is _AFTER_DISK
        except IndexError:
            return False

    def refuse(self, reason: str, count: int = 1) -> None:
        """Book events that never became a parcel; any thread, without a lock."""
        self._dispatcher.ledger.refuse(reason, count)

    def _refused(self, reason: str) -> str:
        self.refuse(reason)
        return reason

    def _wake_worker(self) -> None:
        self._wake_events = self._wake_bytes = _NEVER_WAKE
        if self._has_worker:
            self._wake.put(None)
        elif not self._start_worker():
            self._wake_events = 1

    # Anyone.

    def flush(self, timeout: float) -> bool:
        """Send without waiting for company; True when everything accepted before the call came to its end within `timeout` seconds.

        Any thread. Skips no hold and no backoff. What lies on disk has not come to its end.
        """
        if self._pid != getpid():
            self._start_empty()
        return self._flush_until(self._clock() + min(timeout, _FOR_EVER))

    def hurry(self) -> None:
        """Send what was accepted until now without waiting for company, and do not wait for the answer; any thread."""
        with acquired(self._lock, _LOCK_SECONDS) as held:
            if held:
                self._dispatcher.hurry(self._last_accepted()[0])
        if self._inbox:
            self._start_worker()
        self._wake.put(None)

    @property
    def closed(self) -> bool:
        """Whether nothing is accepted any more."""
        return self._closed

    def shutdown(self, timeout: float) -> bool:
        """Accept nothing more and send what can be sent within `timeout` seconds; the rest goes to the spool or is dropped (`shutdown`).

        Any thread, any number of times: later calls wait for the first and give its answer.

        Returns:
            Whether nothing was left.
        """
        timeout = min(timeout, _FOR_EVER)
        deadline = self._clock() + timeout
        if self._pid != getpid():
            self._start_empty()
        self._closed = True
        with acquired(self._ending, 0.0) as first:
            if first and not self._ended.is_set():
                self._last_moment = deadline
                until = deadline - self._moving_seconds(timeout)
                settled = self._flush_until(min(until, deadline - timeout / 2))
                if not settled:
                    with entered(), suppressed():
                        tell(self._observers, [lambda observer: observer.stopping()])
                    settled = self._flush_until(until)
                self._give_up(deadline + _GRACE_SECONDS, settled=settled)
        # Who interrupted the first one, or is called by it, would wait for itself.
        if not first and not inside() and not owns(self._ending):
            self._over.wait(max(0.0, deadline - self._clock()))
        return self._ended.is_set() and self._ended_clean

    def stats(self) -> Stats:
        """Give the books of this process; any thread."""
        if self._pid != getpid():
            self._start_empty()
        # Nothing is changed here, nor where a flush begins: a signal handler may raise in the thread that asks, between any two steps.
        with acquired(self._lock, _LOCK_SECONDS) as held:
            if held:
                self._last_stats = self._dispatcher.stats(self._disk_books(), len(self._inbox))
        return self._last_stats

    def _wants_results(self) -> bool:
        return any(observer.wants_results for observer in self._observers)

    def _disk_books(self) -> DiskBooks:
        return NO_DISK if self._spool is None else self._spool.counts()

    @contextmanager
    def _locked(self, timeout: float = threading.TIMEOUT_MAX, *, last: bool = False) -> Iterator[bool]:
        """Hold the lock with all arrivals booked, then let observers, flushing callers and the spool know; gives False as `acquired` does.

        `last`: what users' callbacks are to hear is left for the end, `_last_words`.
        """
        notes: list[Note] = []
        places: list[object] = []
        dispatcher = self._dispatcher
        with acquired(self._lock, timeout) as held:
            if not held:
                yield False
                return
            self._book_arrivals(dispatcher)
            yield True
            self._memory_events = dispatcher.memory_events
            notes, dispatcher.notes = dispatcher.notes, notes
            places, dispatcher.resolved = dispatcher.resolved, places
            if notes:
                self._tellings += 1
                self._telling.add(self._tellings)
            telling = self._tellings
            done = self._done_flushes()
        if places and self._spool is not None:
            self._spool.resolve(places)
        if notes and last and (users := [observer for observer in self._observers if observer.wants_results]):
            self._last_words.append((notes, telling, users))
            with entered(), suppressed():
                tell([observer for observer in self._observers if observer not in users], notes)
        elif notes:
            done += self._tell(notes, telling, self._observers)
        for flush in done:
            flush.done.set()

    def _tell(self, notes: list[Note], number: int, observers: Sequence[Observer]) -> list[_Flush]:
        """Tell observers, and give the flushes that waited for that."""
        try:
            with entered(), suppressed():
                tell(observers, notes)
        finally:
            with self._lock:
                self._telling.discard(number)
                done = self._done_flushes()
        return done

    def _say_last_words(self, said: threading.Event) -> None:
        """Let users' callbacks hear of the end; any number of threads, each of the words once."""
        with suppress(IndexError):
            while True:
                notes, number, users = self._last_words.popleft()
                for flush in self._tell(notes, number, users):
                    flush.done.set()
        said.set()

    def _wait_for_last_words(self, deadline: float) -> None:
        """Let the worker tell users' callbacks of the end, another thread if the disk keeps it, and bear with one that blocks."""
        if self._has_worker:
            if inside() or self._said.wait(max(0.0, deadline - self._clock())):  # who is inside may be the worker
                return
            with self._lock:
                is_running = self._telling - {number for _, number, _ in tuple(self._last_words)}
            if is_running:
                self._said.wait(_LAST_WORDS_SECONDS)
                return
        said = threading.Event()
        if self._start_thread(self._say_last_words, said):
            said.wait(_LAST_WORDS_SECONDS)
        else:
            self._say_last_words(said)

    def _book_arrivals(self, dispatcher: Dispatcher) -> None:
        while self._inbox and self._has_looked and self._book_slice(dispatcher):
            pass

    def _book_slice(self, dispatcher: Dispatcher) -> bool:
        """Book the next arrivals; False when those left have to wait for the disk. Under the lock."""
        inbox = self._inbox
        most = min(len(inbox), _SLICE)
        count = self._not_waiting(most) if self._on_disk else most
        if count:
            now = self._clock()
            # Counted twice for a moment rather than not at all: the memory bound holds meanwhile.
            self._memory_events += count
            parcels = [inbox.popleft() for _ in range(count)]
            if self._spool is not None:
                for parcel in parcels:
                    parcel.place = None
            size = dispatcher.accept(parcels, now)
            # Not `-= dispatcher.accept(...)`: that reads before the call, and forgets what callers add meanwhile.
            self._inbox_bytes -= size
            self._memory_events = dispatcher.memory_events
        return count == most

    def _not_waiting(self, most: int) -> int:
        """Give how many of the first `most` arrivals precede those that wait for the disk."""
        return next((number for number in range(most) if self._inbox[number].place is _AFTER_DISK), most)

    @property
    def _has_adopted(self) -> bool:
        """Whether ended processes were looked for, and all that they left was read."""
        return self._spool is None or (self._spool.next_maintenance() is not None and not self._spool.behind)

    def _done_flushes(self) -> list[_Flush]:
        is_ending = self._dispatcher.closed and not self._ended.is_set()  # and leftovers may be in nobody's books
        if not self._flushes or is_ending:
            return []
        disk = self._disk_books()
        done: list[_Flush] = []
        for flush in self._flushes:
            mark = flush.mark + disk.adopted - flush.adopted
            self._dispatcher.hurry(mark)
            found = not flush.adopts or self._has_adopted
            if not found or self._dispatcher.is_waiting(mark, disk, len(self._inbox)):
                flush.told_by = _NEVER_WAKE
                continue
            # Observers were told of the last of them in the latest telling or before: what comes later is not waited for.
            flush.told_by = min(flush.told_by, self._tellings)
            if flush.untold or min(self._telling, default=_NEVER_WAKE) > flush.told_by:
                done.append(flush)
        self._flushes = [flush for flush in self._flushes if flush not in done]
        return done

    # The worker: decides, hands to senders, looks after the disk, sleeps.

    def _start_worker(self) -> bool:
        """Start the worker unless there is one; False when it can not be started now."""
        if self._has_worker:
            return True
        if self._clock() < self._start_not_before or not self._starting.acquire(blocking=False):
            return False
        try:
            if not self._has_worker:
                if self._start_not_before == float("-inf"):
                    # Made anew: gevent may have replaced the class since, and a thread of gevent's must not wait in one of Python's.
                    self._wake, self._jobs = queue.SimpleQueue(), queue.SimpleQueue()
                    self._finish_with_multiprocessing()
                self._start_not_before = self._clock() + _START_AGAIN_SECONDS
                self._has_worker = self._start_thread(self._work)
            return self._has_worker
        finally:
            self._starting.release()

    def _start_thread(self, target: Callable[..., None], *arguments: object) -> bool:
        try:
            threading.Thread(target=target, args=arguments, name="otel-amplitude", daemon=True).start()
        except RuntimeError:  # no more threads, or the interpreter is ending: whoever flushes sends by itself
            return False
        return True

    def _finish_with_multiprocessing(self) -> None:
        """Ask `multiprocessing`, if this process is a child of it, to shut us down: it leaves by `os._exit`, without `atexit`."""
        process = sys.modules.get("multiprocessing.process")
        if process is not None and process.parent_process() is not None:
            from multiprocessing.util import Finalize  # noqa: PLC0415 -- only where it is loaded already

            Finalize(self, _finish, args=(weakref.ref(self), self._options.shutdown_timeout), exitpriority=10)

    def _work(self) -> None:
        ended = self._ended
        with entered(), suppressed():
            tell(self._observers, [lambda observer: observer.started()])
            while not ended.is_set():
                try:
                    self._step(None)
                except Exception:  # a clock or policy of the user's: without the worker nothing would ever be sent again
                    ended.wait(_START_AGAIN_SECONDS)
            self._say_last_words(self._said)

    def _step(self, deadline: float | None) -> None:
        """Hand out what is to be sent, then sleep until the next decision, an arrival, or `deadline`."""
        self._appended = 0
        self._book_slowly()
        moments = [self._look_after_spool(), None if deadline is None else min(deadline, self._clock() + _LOOK_AGAIN_SECONDS)]
        batches: list[Batch] = []
        with self._locked():
            now = self._clock()
            wall_ms = self._wall_ms(now)
            dispatcher = self._dispatcher
            if dispatcher.expire(wall_ms, now) and self._on_disk:
                moments.append(now)  # memory has room again for what lies on disk
            while (batch := dispatcher.next_batch(now)) is not None:
                batches.append(batch)
            self._tell_full(dispatcher)
            moments.append(dispatcher.wake_at(now, wall_ms))
            moments.append(dispatcher.backlog.sweep_at())
            wanted_events, wanted_bytes = dispatcher.wanted_company()
            if self._on_disk and self._inbox and self._inbox[0].place is _AFTER_DISK:
                # They wait for a disk that gives nothing: more of them are no reason to wake.
                wanted_events = wanted_bytes = _NEVER_WAKE
                moments.append(now + _START_AGAIN_SECONDS)
        for batch in batches:
            self._hand_over(batch, deadline)
        self._wake_events, self._wake_bytes = wanted_events, wanted_bytes
        if batches or len(self._inbox) + self._appended >= wanted_events or self._inbox_bytes >= wanted_bytes or self._ended.is_set():
            return
        wake_at = min((moment for moment in moments if moment is not None), default=None)
        with suppress(queue.Empty):
            self._wake.get(timeout=None if wake_at is None else max(0.0, wake_at - self._clock()))
            while True:
                self._wake.get_nowait()

    def _wall_ms(self, now: float) -> int:
        """Give the time of day, and see whether somebody set the clock; under the lock."""
        wall = self._wall()
        jump = 0.0 if self._wall_offset is None else wall - now - self._wall_offset
        self._wall_offset = wall - now
        if abs(jump) > _CLOCK_SET_SECONDS:
            self._dispatcher.clock_was_set(int(jump * 1000), int(wall * 1000))
        return int(wall * 1000)

    def _book_slowly(self) -> None:
        """Book a crowd of arrivals in slices, and let other threads run between them."""
        for _ in range(len(self._inbox) // _SLICE if self._has_looked else 0):
            with self._lock:
                self._book_slice(self._dispatcher)
            time.sleep(0)

    def _tell_full(self, dispatcher: Dispatcher) -> None:
        """Let observers know what was refused or lost on disk since the last look."""
        disk = self._disk_books()
        counts = {reason: dispatcher.ledger.refused(reason) for reason in _FULL}
        counts |= {"expired": disk.expired, "spool_corrupt": disk.corrupt}
        for reason, count in counts.items():
            if count > self._told[reason]:
                dispatcher.tell_dropped(reason, count - self._told[reason])
                self._told[reason] = count

    def _look_after_spool(self) -> float | None:
        """Let the spool do what is due, bring its next parcels into memory, and give when it wants to be looked after again."""
        if self._spool is None:
            return None
        with acquired(self._looking, 0.0) as held:
            return self._look_after(self._spool) if held else self._clock() + _SPOOL_REST_SECONDS

    def _look_after(self, spool: Spool) -> float | None:
        due = spool.next_maintenance()
        if due is None or due <= self._clock():
            notices = spool.maintain()
            tell(self._observers, [_noticed(event, facts) for event, facts in notices])
            if spool.behind:
                self._on_disk = True
        if not self._has_looked:
            while self._has_room_for_more() and self._read_disk(spool, own=False):
                pass
            with self._lock:
                if spool.adopts:  # what could not be read yet is older than what was accepted meanwhile
                    for parcel in self._inbox:
                        parcel.place = _AFTER_DISK
                self._has_looked = True
        self._shelve(spool)
        reads = 0
        while (self._begins_sweep(spool) or self._on_disk) and self._has_room_for_more() and self._read_disk(spool):
            self._shelve(spool)
            reads += 1
            if reads == _READS_AT_ONCE:
                return self._clock()  # what can be sent is sent first
        self._move_behind(spool)
        due = spool.next_maintenance()
        if self._on_disk and self._has_room_for_more():  # it could not be read just now
            due = min(due or _FOR_EVER, self._clock() + _START_AGAIN_SECONDS)
        return None if due is None else max(due, self._clock() + _SPOOL_REST_SECONDS)

    def _read_disk(self, spool: Spool, *, own: bool = True) -> bool:
        """Bring the next parcels from the disk into memory; False when there are none for now."""
        room, room_bytes = self._room()
        self._memory_events += room  # until it is known better: callers must not take the same room meanwhile
        expired: list[Record] = []
        most, most_bytes = min(room, self._options.max_batch_events), min(room_bytes, self._options.max_batch_bytes)
        records = spool.read(most, most_bytes, expired, own=own)
        parcels, gone = self._parcels_of(records), self._parcels_of(expired if self._wants_results() else ())
        with self._locked():
            self._dispatcher.tell_expired(gone)
            if parcels:
                self._dispatcher.read_from_disk(parcels, self._clock())
            else:
                self._on_disk = spool.behind
            if not spool.revisits:
                self._dispatcher.end_sweep(self._clock())
        if not parcels:
            # Somebody appended meanwhile, or the disk is failing: then the next look is soon enough.
            self._on_disk = self._on_disk or spool.behind
        return bool(parcels)

    def _begins_sweep(self, spool: Spool) -> bool:
        """Let the disk give once more what was left there, if it is time."""
        with self._lock:
            begins = self._dispatcher.begins_sweep(self._clock())
            self._on_disk = self._on_disk or begins
        if begins:
            spool.revisit()
        return begins

    def _shelve(self, spool: Spool) -> None:
        """Let the disk know what stays there; by the thread that reads it, so that no sweep overlooks any of that."""
        with self._lock:
            shelved, self._dispatcher.shelved = self._dispatcher.shelved, []
        if shelved:
            spool.shelve([(parcel.place, parcel.order, parcel.attempts) for parcel in shelved])

    def _parcels_of(self, records: Sequence[Record]) -> list[Parcel]:
        wall = self._wall()
        parcels: list[Parcel] = []
        for record in records:
            parcel = Parcel(record.body, self._ids_in(record.body), int((wall - record.age) * 1000), record.place)
            parcel.order, parcel.attempts = record.order, record.attempts
            parcels.append(parcel)
        return parcels

    def _ids_in(self, body: bytes) -> tuple[str, ...]:
        try:
            return self._read_ids(body)
        except Exception:  # whatever somebody put into the file: the server will refuse it by name, and its neighbours go on
            return ("",)

    def _move_behind(self, spool: Spool) -> None:
        """Bring parcels that wait in memory for their turn behind the disk to the disk, once it takes them again."""
        inbox = self._inbox
        while self._on_disk and inbox and inbox[0].place is _AFTER_DISK:
            # Nobody else takes it out of there meanwhile, and whoever comes lines up behind it.
            if spool.append(inbox[0].body, inbox[0].accepted_ms) is not None:
                return
            with self._lock:
                self._inbox_bytes -= len(inbox.popleft().body)

    def _has_room_for_more(self) -> bool:
        """Whether the senders could soon run out of parcels, and memory is not crowded with others."""
        backlog = self._dispatcher.backlog
        batches = self._options.max_in_flight + 1
        room, room_bytes = self._room()
        return (
            len(backlog.ready) < self._options.max_batch_events * batches
            and backlog.size < self._options.max_batch_bytes * batches
            and room > 0
            and room_bytes > 0
        )

    def _room(self) -> tuple[int, int]:
        """How many parcels, and bytes, of the disk memory has room for.

        Where everybody in memory waits for somebody who may be on disk, more of it may be used, and there is always room for one.
        """
        is_idle = self._dispatcher.is_idle
        share = _CROWDED if is_idle else _WATERMARK
        room = min(int(self._max_events * share), self._max_events - len(self._inbox)) - self._memory_events
        room_bytes = min(int(self._max_bytes * share), self._max_bytes - self._inbox_bytes) - self._dispatcher.memory_bytes
        return max(room, int(is_idle)), max(room_bytes, int(is_idle))

    def _hand_over(self, batch: Batch, deadline: float | None) -> None:
        """Give `batch` to a sender that waits, to a new one, or where no thread can be started, send it here, by `deadline`."""
        with self._lock:
            parked = self._parked > 0
            self._parked -= parked
        if parked:
            self._jobs.put(batch)
        elif not self._start_thread(self._send_until_idle, batch):
            with entered(), suppressed():  # this may be anybody's thread
                self._send(batch, alone=True, deadline=deadline)

    # Senders: wait for answers.

    def _send_until_idle(self, batch: Batch | None) -> None:
        with entered(), suppressed():
            while batch is not None:
                batch = self._send(batch) or self._park()

    def _send(self, batch: Batch, *, alone: bool = False, deadline: float | None = None) -> Batch | None:
        """Send one batch, settle it, and give the next one if there is one to send at once, unless this one is to be sent `alone`."""
        started = self._clock()
        latest = self._last_moment if deadline is None else min(deadline, self._last_moment)
        receipt, error = self._attempt(batch, min(started + self._options.request_timeout, latest))
        with self._locked():
            now = self._clock()
            if receipt is not None:
                self._dispatcher.settle(batch, receipt, now, now - started)
            else:
                self._dispatcher.fail(batch, error, now, now - started)
            following = None if alone else self._dispatcher.next_batch(now)
            if following is not None:
                self._following[threading.get_ident()] = following
        self._wake.put(None)
        # Observers were told meanwhile. One that flushed has handed the next batch to somebody else, since it would have waited for itself.
        return self._following.pop(threading.get_ident(), None)

    def _attempt(self, batch: Batch, deadline: float) -> tuple[Receipt | None, BaseException | None]:
        try:
            receipt = self.send_batch(batch, deadline)
            if len(receipt.outcomes) == len(batch):
                return receipt, None
            return None, ValueError(f"send_batch gave {len(receipt.outcomes)} outcomes for {len(batch)} parcels")
        except BaseException as error:  # not even SystemExit may end a sender with parcels in its hands
            return None, without_frames(error)

    def _park(self) -> Batch | None:
        """Wait a while for another batch; None: end."""
        with self._lock:
            self._parked += 1
        with suppress(queue.Empty):
            return self._jobs.get(timeout=_PARKED_SECONDS)
        with self._lock:
            if self._parked > 0 and self._jobs.empty():
                self._parked -= 1
                return None
        # Somebody has counted on this sender: the batch is on its way.
        return self._jobs.get()

    # The end.

    def _last_accepted(self) -> tuple[int, int]:
        """Give the number that the parcel accepted last has or will have, and how many were adopted until now."""
        disk = self._disk_books()
        return self._dispatcher.last_number(disk) + len(self._inbox), disk.adopted

    def _flush_until(self, deadline: float) -> bool:
        following = self._following.pop(threading.get_ident(), None)
        if following is not None:
            self._hand_over(following, deadline)
        flush = _Flush(adopts=self._spool is not None and not self._closed and self._spool.next_maintenance() is None)
        with acquired(self._lock, deadline + _GRACE_SECONDS - self._clock()) as held:
            if not held:
                return False
            flush.mark, flush.adopted = self._last_accepted()
            self._flushes.append(flush)
            done = self._done_flushes()
        for one in done:
            one.done.set()
        if (self._inbox or self._has_worker) and self._start_worker():
            self._wake.put(None)  # also where there is no time to wait: then the sending has begun
        while not flush.done.is_set() and self._clock() < deadline:
            if self._ended.is_set() or self._start_worker():
                self._wake.put(None)
                flush.done.wait(max(0.0, deadline - self._clock()))
            else:
                self._step(deadline)
        with acquired(self._lock, deadline + _GRACE_SECONDS - self._clock()):
            self._flushes = [other for other in self._flushes if other is not flush]
        return flush.done.is_set()

    def _give_up(self, deadline: float, *, settled: bool) -> None:
        """Bring everything that is left to the disk or to its end."""
        # Nothing waits for the disk any longer: all arrivals are booked now.
        self._on_disk, self._has_looked = False, True
        with self._locked(_GRACE_SECONDS, last=True) as locked:
            if not locked:
                # This thread interrupted the owner of the lock: it can not wait for itself. The next call ends what this one began.
                self._ended_clean = False
                return
            self._dispatcher.give_up()
        if self._spool is not None:
            self._move_to_disk(self._spool, deadline)
        with self._locked(last=True):
            in_hand, self._in_hand = list(self._in_hand), deque()  # not empty: the disk hangs
            self._dispatcher.could_not_move(in_hand, SPOOL_IO)
            self._dispatcher.drop_leaving()
            stats = self._dispatcher.stats(self._disk_books())
        self._ended_clean = settled and not stats.pending.spooled
        has_last_words = bool(self._last_words)  # asked before the worker takes them
        self._ended.set()
        with self._locked():  # what slipped in until now: whoever comes later sees that it is over
            stats = self._dispatcher.stats(self._disk_books())
        self._wake.put(None)
        for _ in range(self._options.max_in_flight):
            self._jobs.put(None)
        if has_last_words:
            self._wait_for_last_words(deadline)
        with entered(), suppressed():
            tell(self._observers, [lambda observer: observer.stopped(stats)])
        self._over.set()

    def _moving_seconds(self, timeout: float) -> float:
        """Give what is to be kept of `timeout` for writing the memory to the disk: at most half."""
        leftovers = len(self._inbox) + self._memory_events
        if self._spool is None or not leftovers:
            return 0.0
        return min(timeout / 2, _LEAST_MOVING_SECONDS + leftovers * _LEFTOVER_SECONDS)

    def _move_to_disk(self, spool: Spool, deadline: float) -> None:
        """Write leftovers to the spool and close it, on a thread of its own: a disk that hangs must not hold up whoever leaves."""
        moved = threading.Event()
        if self._start_thread(self._move, spool, deadline, moved):
            moved.wait(max(0.0, deadline - self._clock()))
        else:
            self._move(spool, deadline, moved)

    def _move(self, spool: Spool, deadline: float, moved: threading.Event) -> None:
        with entered(), suppressed():
            until = deadline - _GRACE_SECONDS / 3
            while self._clock() < until and self._move_slice(spool, self._in_hand, until):
                pass
            spool.close()
        moved.set()
        if self._ended.is_set():  # the disk hung, and the worker may have told the others already
            self._say_last_words(threading.Event())

    def _move_slice(self, spool: Spool, in_hand: deque[Parcel], until: float) -> bool:
        """Write the next leftovers; False when none are left, or they were given up meanwhile."""
        with self._locked(last=True):
            in_hand.extend(self._dispatcher.move_to_disk(_LEFTOVERS))
        failed: dict[str, list[Parcel]] = {}
        moving = bool(in_hand)
        while in_hand and in_hand is self._in_hand:
            refusal = spool.append(in_hand[0].body, in_hand[0].accepted_ms)
            if refusal == SPOOL_IO and not spool.refuses and self._clock() < until:
                continue  # somebody else was at it
            with self._lock:
                if in_hand is not self._in_hand:
                    # The disk hung until this one and all behind it were given up: it is there all the same.
                    if refusal is None:
                        self._dispatcher.moved_after_all(SPOOL_IO)
                    break
                parcel = in_hand.popleft()
            if refusal is not None:
                failed.setdefault(refusal, []).append(parcel)
        with self._locked(last=True):
            for refusal, parcels in failed.items():
                self._dispatcher.could_not_move(parcels, refusal)
        return moving and in_hand is self._in_hand


def _noticed(event: str, facts: Mapping[str, object]) -> Note:
    return lambda observer: observer.noticed(event, facts)
