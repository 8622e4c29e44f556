"""The one thread that changes the state of delivery. Others send it messages; it waits for nothing but its mailbox.

One turn: apply messages, read what was appended, hand batches to senders, let the disk thread know what is resolved, publish the
counters, report notes, see which flushes are done. Where no thread can be started, callers that flush or shut down do the turns.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from otel_amplitude.clock import monotonic
from otel_amplitude.delivery.books import SPOOL_IO, Books, Pending, Stats
from otel_amplitude.delivery.callbacks import Callbacks
from otel_amplitude.delivery.disk_thread import DiskThread, ReadIds
from otel_amplitude.delivery.dispatcher import Answer, Batch, DeliveryOptions, Dispatcher
from otel_amplitude.delivery.observer import Note, Observer, tell
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.queue import FIRST_OWN, POSITION_BITS, Queue, Segment
from otel_amplitude.delivery.reader import Reader
from otel_amplitude.delivery.receipt import Receipt
from otel_amplitude.delivery.retry import RetryPolicy
from otel_amplitude.delivery.senders import Senders
from otel_amplitude.delivery.threads import Mailbox, Signal, start_thread
from otel_amplitude.pipeline import entered
from otel_amplitude.suppression import suppressed

if TYPE_CHECKING:
    from otel_amplitude.delivery.disk.segment_file import SegmentFile
    from otel_amplitude.delivery.disk.spool import Spool

# A thread could not be started (limits, or the interpreter is ending): try again after this time.
START_AGAIN_SECONDS: Final = 1.0
# How long the end may take beyond the time it was given, and how long it waits for an append that is under way.
GRACE_SECONDS: Final = 0.15
# A disk that hangs is left alone so long after the deadline: the callers have to see the counters of the end.
_DISK_GRACE_SECONDS: Final = 0.05
SEAL_SECONDS: Final = 0.06
# Time that is kept at the end, at most half of all: for each event that is left, to count it as dropped on a busy machine; for one that is
# written to the disk, and at least for such.
_END_SECONDS: Final = 20e-6
_WRITE_SECONDS: Final = 200e-6
_LEAST_WRITE_SECONDS: Final = 0.25
# An append is under way: look again after this time.
_BUSY_SECONDS: Final = 0.001
# A load that failed is tried again after this time, so many times in a row.
_LOAD_AGAIN_SECONDS: Final = 1.0
_MOST_LOADS: Final = 3
# Results that were not reported yet may be this part of the events in memory.
_UNREPORTED_SHARE: Final = 4
# What a caller that does the worker's turns waits at most between two of them.
_LOOK_AGAIN_SECONDS: Final = 0.05
# Beyond so many events at a time the worker lets other threads run.
_SLICE: Final = 256
_REPORTED_REFUSALS: Final = ("queue_full", "id_backlog")
# How much longer than its time the end waits for a callback that is running: one may be slow, or never return.
LAST_CALLBACK_SECONDS: Final = 1.0
_FOREVER: Final = 86_400.0 * 365


class _Flush:
    """One caller that waits for everything accepted before its call.

    Attributes:
        mark: the number behind the last of it; set by the worker.
        is_callback: it comes from a callback, which must not wait for callbacks.
        failed: something that ended processes left could not be taken over.
        done: set when everything before `mark` is settled, and reported.
    """

    __slots__ = ("done", "failed", "is_callback", "mark")

    def __init__(self, *, is_callback: bool) -> None:
        self.mark = 0
        self.is_callback = is_callback
        self.failed = False
        self.done = Signal()


class Worker:
    """Everything that delivery is in one process. Made by the first event of that process.

    Any thread may call `accept` and `refuse` of `queue`, `stats`, `post`, `start`, `flush`, `shut_down`, `withdraw`; what else there is
    runs on the worker. `running` is held by the thread that does the turns.
    """

    def __init__(
        self,
        options: DeliveryOptions,
        send: Callable[[Batch, float], Receipt],
        *,
        observers: tuple[Observer, ...],
        retry: RetryPolicy,
        spool: Spool | None,
        read_ids: ReadIds,
        clock: Callable[[], float],
        wall: Callable[[], float],
        random: Callable[[], float],
        begin: Callable[[], object],
    ) -> None:
        self._options = options
        self._clock = clock
        self._begin = begin
        self._here = tuple(observer for observer in observers if observer.on_worker)
        self._observers = observers
        self._mailbox = Mailbox()
        self.post = self._mailbox.post
        self._running = threading.Lock()
        self._runner: int | None = None
        self._has_thread = False
        self._was_started = False
        self._start_not_before = float("-inf")
        self.queue = Queue(options.max_cached_events, options.max_cached_bytes, clock, spool, self._arrived, self._append_failed)
        self._disk = None if spool is None else DiskThread(spool, self.queue, self, read_ids, clock, wall, options.max_cached_bytes)
        self._has_disk_thread = False
        self.reader = Reader(self.queue, options.max_cached_events, options.max_cached_bytes, load=self._load, looks=spool is not None)
        self.dispatcher = Dispatcher(options, self.reader, wants_results=self._wants_results, random=random)
        self._callbacks = Callbacks(tuple(each for each in observers if not each.on_worker))
        self._senders = Senders(
            lambda batch: send(batch, min(clock() + options.request_timeout, self._latest)),
            retry, random, clock, self._answered,
            asks_ahead=lambda: any(observer.wants_retries for observer in observers),
        )  # fmt: skip
        self.books = Books()
        self._parts: dict[int, list[tuple[Segment, int, int]]] = {}
        self._flushes: list[_Flush] = []
        self._withdraws: list[tuple[Callable[[Parcel], bool], Signal]] = []
        self._done: list[Segment] = []
        self._failed_loads: dict[int, int] = {}
        self._loads_again: list[Segment] = []
        self._load_again_at: float | None = None
        self._complete = True
        self._refusals_reported = dict.fromkeys(_REPORTED_REFUSALS, 0)
        self._has_begun = False
        # The end.
        self._latest = float("inf")
        self._close_at: float | None = None
        self._stop_at = self._half_at = float("inf")
        self._seal_until = float("-inf")
        self._is_sealed = False
        self._has_stopped = False
        self._disk_closes = False
        self._refusals: dict[int, str] = {}
        self.ended = Signal()
        self.over = Signal()
        self.ended_clean = True

    # Any thread.

    def _arrived(self) -> bool:
        """As many events were appended as the worker asked for; under the append lock. False: no thread can be started now."""
        if not self.start():
            return False
        self._wake()
        return True

    def _wake(self) -> None:
        self.post(_nothing)

    def start(self) -> bool:
        """Start the worker unless there is one; False when no thread can be started now."""
        if self._has_thread or self.ended.is_set:
            return self._has_thread
        now = self._clock()
        if now >= self._start_not_before:
            begin, self._begin = self._begin, _nothing
            begin()
            # The caller may be interrupted anywhere here, so it takes nothing: the thread itself takes `_running`. Where two callers start
            # one at once, the second thread ends.
            self._was_started = start_thread(self._run)
            self._start_not_before = now + START_AGAIN_SECONDS
        return self._was_started

    def stats(self) -> Stats:
        """Give the counters. No lock: one snapshot, and what was appended since."""
        books = self.books
        return books.with_appended(*self.queue.appended(), self.queue.refused)

    def hurry(self) -> None:
        """Send what was accepted until now without waiting for company."""
        self.post(self._hurry)
        if self.queue.arrived or self._disk is not None:
            self.start()

    def flush(self, timeout: float) -> bool:
        """Wait until everything accepted before the call is settled and reported."""
        deadline = self._clock() + min(timeout, _FOREVER)
        if not self._has_thread and not self.queue.arrived and self._disk is None:
            return True
        flush = _Flush(is_callback=self._callbacks.is_here)
        self.post(self._flush_asked, flush)
        self._wait(flush.done, deadline)
        return flush.done.is_set and not flush.failed

    def withdraw(self, predicate: Callable[[Parcel], bool], timeout: float) -> bool:
        """Return the events that match to their source; see `BatchExporter.withdraw`."""
        if not self.queue.arrived:
            return True
        done = Signal()
        self.post(self._withdraw_asked, predicate, done)
        self._wait(done, self._clock() + min(timeout, _FOREVER))
        if not done.is_set:
            self.post(self.dispatcher.forget, predicate)
        # After the end nothing is sent any more: what matched is settled, unless something stays in a spool.
        return done.is_set or (self.ended.is_set and not self.stats().pending.total)

    def shut_down(self, timeout: float) -> bool:
        """Accept nothing more, settle what can be settled in time, and end."""
        deadline = self._clock() + min(timeout, _FOREVER)
        self.queue.close()
        self.post(self._close_asked, deadline, timeout)
        is_inside = self._callbacks.is_here or self._runner == threading.get_ident()
        self._wait(self.ended, deadline + GRACE_SECONDS, starts=bool(self.queue.arrived))
        if self.ended.is_set and not is_inside:
            left = max(0.0, deadline - self._clock())
            if not self.over.wait(left + GRACE_SECONDS / 2) and self._callbacks.in_users_code:
                self.over.wait(LAST_CALLBACK_SECONDS)
        return self.ended.is_set and self.ended_clean

    def _wait(self, signal: Signal, deadline: float, *, starts: bool = True) -> None:
        """Wait for what the worker sets; where there is no worker, do its turns."""
        if self._runner == threading.get_ident():
            return  # this thread does the turns, and interrupted itself
        until = monotonic() + deadline - self._clock()
        while not signal.is_set and not self.ended.is_set:
            if not self._has_thread and not (starts and self.start()) and self._running.acquire(blocking=False):
                try:
                    self._run_here(signal, deadline)
                finally:
                    self._running.release()
            else:
                signal.wait(min(until - monotonic(), _LOOK_AGAIN_SECONDS))
            if monotonic() >= until:
                return

    # The thread.

    def _run(self) -> None:
        if not self._running.acquire(timeout=START_AGAIN_SECONDS):
            return  # another thread does the turns
        try:
            self._runner, self._has_thread = threading.get_ident(), True
            while not self.ended.is_set:
                try:
                    self._sleep(self._turn())
                except Exception as error:  # such as a user's clock: without the worker nothing would ever be sent again
                    self._report_raised("worker", error)
                    time.sleep(START_AGAIN_SECONDS)
        finally:
            self._runner, self._has_thread, self._was_started = None, False, False
            self._running.release()

    def _report_raised(self, part: str, error: Exception) -> None:
        """Report what went wrong in a turn, at once: the next turn may raise as well."""
        note: Note = lambda observer: observer.raised(part, error)  # noqa: E731 -- typed
        self._callbacks.report((note,), 0, _nothing, may_start=self._has_thread)

    def _run_here(self, signal: Signal, deadline: float) -> None:
        """Do turns on the calling thread, since no other can be started; at least one."""
        self._runner = threading.get_ident()
        latest, self._latest = self._latest, min(self._latest, deadline)
        try:
            with entered(), suppressed():
                while True:
                    wake_at = self._turn()
                    now = self._clock()
                    if signal.is_set or self.ended.is_set or now >= deadline or self._may_start():
                        return
                    self._sleep(min(deadline, now + _LOOK_AGAIN_SECONDS if wake_at is None else min(wake_at, now + _LOOK_AGAIN_SECONDS)))
        finally:
            self._latest = latest if self._close_at is None else min(latest, self._close_at)
            self._runner = None

    def _may_start(self) -> bool:
        """Whether a thread may be had again: then the caller stops doing the turns, and tries."""
        return self._was_started or (
            self._clock() >= self._start_not_before and self.queue.arrived > 0 and self._start_not_before > float("-inf")
        )

    def _sleep(self, wake_at: float | None) -> None:
        """Wait for a message until `wake_at`; None: without end."""
        timeout = None if wake_at is None else wake_at - self._clock()
        if timeout is not None and timeout <= 0:
            return
        self._mailbox.apply(timeout, self.reader.refresh)

    def _turn(self) -> float | None:
        """Do what is to be done now; give when to do the next turn, or None: when a message comes."""
        now = self._clock()
        if not self._has_begun:
            self._begin_here()
        if self._disk is not None and not self._has_disk_thread:
            self._disk.turn(wait=False)
        while self._mailbox.apply(before=self.reader.refresh):
            pass
        arrived_bytes = self.queue.arrived_bytes
        self.reader.refresh()
        self._load_again(now)
        self.dispatcher.expire(now)
        is_full = self._callbacks.unreported * _UNREPORTED_SHARE > self._options.max_cached_events
        if not self._has_stopped and not is_full:
            self._dispatch(now)
        self._note_refused()
        self._settle_files()
        self._publish()
        self._report()
        moments = [self.dispatcher.wake_at() if not is_full else None, self._senders.release_idle(now), self._load_again_at]
        self._end_flushes()
        self._end_withdraws()
        if self._close_at is not None:
            moments.append(self._advance_end(now, self._close_at))
        if self._disk is not None and not self._has_disk_thread:
            moments.append(now + _LOOK_AGAIN_SECONDS)
        wanted, wanted_bytes = (2**62, 2**62) if is_full or self._has_stopped else self.dispatcher.wanted_company()
        may_sleep = self.queue.try_want(
            self._covered + wanted, arrived_bytes + wanted_bytes, caches=not self.reader.unread, done=self._done
        )
        if may_sleep is not None:
            self.reader.retire(self._done)
            self._done = []
        if may_sleep is False or self.ended.is_set:
            return now
        if may_sleep is None:
            moments.append(now + _BUSY_SECONDS)
        return min((moment for moment in moments if moment is not None), default=None)

    def _begin_here(self) -> None:
        self._has_begun = True
        if self._disk is not None and self._close_at is None:
            self._has_disk_thread = start_thread(self._disk.run)
        if self.queue.arrived or self._disk is not None:
            self.dispatcher.notes.append(lambda observer: observer.started())

    def _dispatch(self, now: float) -> None:
        while (batch := self.dispatcher.next_batch(now)) is not None:
            self._mark_and_send(batch)
            if len(batch) > _SLICE:
                time.sleep(0)

    # Sending.

    def _mark_and_send(self, batch: Batch) -> None:
        """Hand a batch to a sender; what it has of adopted segments is noted on disk before."""
        parts = self.reader.adopted_parts(batch.numbers) if self._disk is not None else []
        if not parts or self._disk is None:
            self._send(batch)
            return
        self._parts[id(batch)] = parts
        self._disk.put(self._disk.mark, [self._flying_part(segment) for segment, _, _ in parts], batch)

    def _flying_part(self, segment: Segment) -> tuple[Segment, int | None, int | None]:
        flying = [part for parts in self._parts.values() for part in parts if part[0] is segment]
        if not flying:
            return segment, None, None
        return segment, min(first for _, first, _ in flying), max(last for _, _, last in flying)

    def marked(self, batch: Batch) -> None:
        """The disk thread has noted what is in `batch`."""
        self.post(self._send, batch)

    def _send(self, batch: Batch) -> None:
        if not self._has_stopped and not self._senders.hand_over(batch):
            with entered(), suppressed():
                self._senders.send(batch)

    def _answered(self, batch: Batch, answer: Answer) -> None:
        self.post(self._settle, batch, answer)

    def _settle(self, batch: Batch, answer: Answer) -> None:
        now = self._clock()
        self._senders.returned(now)
        self.dispatcher.settle(batch, answer, now)
        parts = self._parts.pop(id(batch), None)
        if parts is not None and self._disk is not None:
            self._disk.put(self._disk.mark, [self._flying_part(segment) for segment, _, _ in parts], None)
        if len(batch) > _SLICE:
            time.sleep(0)

    # Counters and reports.

    def _wants_results(self) -> bool:
        return any(observer.wants_results for observer in self._observers)

    @property
    def _covered(self) -> int:
        return self.books.in_memory + self.books.on_disk

    def _publish(self) -> None:
        """Publish the counters, before anything else learns what happened in this turn."""
        counts = self.reader.counts()
        ledger, dispatcher = self.dispatcher.ledger, self.dispatcher
        held = dispatcher.held
        # What is in line without a hold waits like everything else.
        rest = counts.lined - held
        spooled = min(rest, self.reader.lined_on_disk)
        self.books = Books(
            Stats(
                adopted=ledger.adopted + counts.adopted,
                acknowledged=ledger.acknowledged,
                rejected=MappingProxyType(ledger.rejected.copy()),
                dropped=MappingProxyType(ledger.dropped.copy()),
                pending=Pending(
                    queued=counts.queued + rest - spooled,
                    held=held,
                    in_flight=sum(map(len, dispatcher.flying)),
                    spooled=counts.spooled + spooled,
                ),
                returned=ledger.returned,
            ),
            counts.in_memory,
            counts.on_disk,
        )
        self.queue.crowded = dispatcher.crowded

    def _note_refused(self) -> None:
        """Report what was refused since the last turn because memory is full."""
        for reason in _REPORTED_REFUSALS:
            count = self.queue.refused[reason]
            if count > self._refusals_reported[reason]:
                self.dispatcher.tell_dropped(reason, count - self._refusals_reported[reason])
                self._refusals_reported[reason] = count

    def _report(self) -> None:
        notes, self.dispatcher.notes = self.dispatcher.notes, []
        results, self.dispatcher.results = self.dispatcher.results, 0
        if notes:
            tell(self._here, notes)
            self._callbacks.report(notes, results, self._wake if results else _nothing, may_start=self._has_thread)

    # The disk thread's answers: each method is called there, and posts what the worker does.

    def _append_failed(self, reason: str) -> None:
        if self._disk is not None:
            self._disk.put(self._disk.failed, reason)

    def _load(self, segment: Segment, positions: list[int]) -> None:
        if self._disk is not None:
            self._disk.put(self._disk.load, segment, positions)

    def adopted(self, segment: Segment, parcels: dict[int, Parcel], damaged: list[int], hashes: frozenset[int]) -> None:
        """A segment of an ended process is in the queue."""
        self.post(self._take_adopted, segment, parcels, damaged, hashes)

    def _take_adopted(self, segment: Segment, parcels: dict[int, Parcel], damaged: list[int], hashes: frozenset[int]) -> None:
        if segment.seq < FIRST_OWN:
            self.reader.knows_ids(segment, hashes)
        self.loaded_here(segment, parcels, damaged)

    def found_damaged(self, damaged: int, quarantined: int) -> None:
        """Events without a number were met: they count as adopted and dropped."""
        self.post(self._count_damaged, damaged, quarantined)

    def _count_damaged(self, damaged: int, quarantined: int) -> None:
        for reason, count in (("spool_corrupt", damaged), ("quarantined", quarantined)):
            if count:
                self.dispatcher.ledger.adopted += count
                self.dispatcher.ledger.count("dropped", reason, count)
                self.dispatcher.tell_dropped(reason, count)

    def looked(self, complete: bool) -> None:
        """Ended processes were looked for."""
        self.post(self._has_looked, complete)

    def _has_looked(self, complete: bool) -> None:
        self.reader.has_looked = True
        self._complete = complete
        for flush in self._flushes:
            flush.failed = flush.failed or not complete

    def loaded(self, segment: Segment, parcels: dict[int, Parcel], damaged: list[int]) -> None:
        """Records were read back."""
        self.post(self.loaded_here, segment, parcels, damaged)

    def loaded_here(self, segment: Segment, parcels: Mapping[int, Parcel], damaged: list[int]) -> None:
        """Put them into memory; what is no event is dropped as `spool_corrupt`."""
        self._failed_loads.pop(segment.seq, None)
        self.reader.loaded(segment, parcels)
        self.dispatcher.damaged([segment.seq << POSITION_BITS | position for position in damaged])
        self.dispatcher.loaded()

    def not_loaded(self, segment: Segment, positions: list[int]) -> None:
        """The disk failed while records were read."""
        self.post(self._load_failed, segment, positions)

    def _load_failed(self, segment: Segment, positions: list[int]) -> None:
        failures = self._failed_loads[segment.seq] = self._failed_loads.get(segment.seq, 0) + 1
        if failures >= _MOST_LOADS:  # given up, so that it holds up nothing behind it
            self.loaded_here(segment, {}, positions)
        else:
            self._loads_again.append(segment)
            self._load_again_at = self._clock() + _LOAD_AGAIN_SECONDS

    def _load_again(self, now: float) -> None:
        """Let loads that failed be asked for again."""
        if self._load_again_at is not None and now >= self._load_again_at:
            self._load_again_at = None
            for segment in self._loads_again:
                segment.is_loading = False
            self._loads_again = []
            self.dispatcher.loaded()

    def written(self, segment: Segment, file: SegmentFile) -> None:
        """A segment that was in memory has a file."""
        self.post(self._take_written, segment, file)

    def _take_written(self, segment: Segment, file: SegmentFile) -> None:
        segment.is_writing = False
        segment.file = file
        self.reader.touch(segment)

    def not_written(self, segment: Segment, reason: str) -> None:
        """It has none."""
        self.post(self._write_failed, segment, reason)

    def _write_failed(self, segment: Segment, reason: str) -> None:
        segment.is_writing = False
        self._refusals[segment.seq] = reason
        self.reader.touch(segment)

    def removed(self, segment: Segment) -> None:
        """The file of a segment is gone."""
        self.post(self._done.append, segment)

    def reopened(self) -> None:
        """The disk takes events again: what memory holds before them is written as well."""
        self.post(self._write_memory)

    def _write_memory(self) -> None:
        for segment in self.reader.in_memory:
            if not segment.is_writing and self._disk is not None:
                segment.is_writing = True
                items = [
                    (position, segment.parcels[position].body, segment.parcels[position].accepted_ms)
                    for position in self.reader.unresolved(segment)
                ]
                self._disk.put(self._disk.write, segment, items)

    def noticed(self, event: str, facts: dict[str, object]) -> None:
        """The disk thread has something to log."""
        self.post(self._note, _noticed(event, facts))

    def raised(self, part: str, error: Exception) -> None:
        """The disk thread met an exception, and goes on."""
        self.post(self._report_raised, part, error)

    def _note(self, note: Note) -> None:
        self.dispatcher.notes.append(note)

    def closed(self) -> None:
        """The disk thread has done its last job."""
        self.post(self._disk_closed)

    def _settle_files(self) -> None:
        """Let the disk thread know what is resolved, and remove segments of which nothing is left."""
        for segment in self.reader.touched():
            if not self._remove_done(segment) and segment.file is not None and segment.head > segment.acknowledged:
                segment.acknowledged = segment.head
                if self._disk is not None:
                    self._disk.put(self._disk.acknowledge, segment, segment.head)

    def _remove_done(self, segment: Segment) -> bool:
        """Remove a segment of which nothing is left; whether that is so."""
        is_done = segment.sealed and segment.resolved == segment.count and not segment.is_writing
        if is_done and not segment.is_leaving:
            segment.is_leaving = True
            if segment.file is not None and self._disk is not None:
                self._disk.put(self._disk.remove, segment)
            else:
                self._done.append(segment)
        return is_done

    # Flush and withdraw.

    def _hurry(self) -> None:
        self.dispatcher.hurry(self.reader.end - 1)

    def _flush_asked(self, flush: _Flush) -> None:
        flush.mark = max(self.reader.end, FIRST_OWN << POSITION_BITS)
        flush.failed = self.reader.has_looked and not self._complete and not self.reader.has_flushed
        self.reader.has_flushed = True
        self.dispatcher.hurry(flush.mark - 1)
        self._flushes.append(flush)

    def _end_flushes(self) -> None:
        if not self._flushes or not (self.reader.has_looked or self._has_stopped):
            return
        left: list[_Flush] = []
        for flush in self._flushes:
            if not self.reader.is_settled(flush.mark):
                left.append(flush)
            elif flush.is_callback:
                flush.done.set()
            else:
                self._callbacks.after(flush.done.set)
        self._flushes = left

    def _withdraw_asked(self, predicate: Callable[[Parcel], bool], done: Signal) -> None:
        self.dispatcher.withdraw(predicate, self.reader.waiting(in_memory_only=True))
        self._withdraws.append((predicate, done))

    def _end_withdraws(self) -> None:
        for predicate, done in list(self._withdraws):
            if self.dispatcher.withdrawn(predicate):
                self._withdraws.remove((predicate, done))
                done.set()

    # The end.

    def _close_asked(self, deadline: float, timeout: float) -> None:
        if self._close_at is not None:
            return
        now = self._clock()
        self._close_at = deadline
        self._latest = min(self._latest, deadline)
        self._seal_until = now + SEAL_SECONDS
        self._half_at = deadline - min(timeout, _FOREVER) / 2
        self._stop_at = deadline - self._last_seconds(timeout)
        self.dispatcher.hurry(2**62)

    def _last_seconds(self, timeout: float) -> float:
        """Give what is to be kept of the time for what memory holds: to write it to the disk, or to count it."""
        events = sum(segment.count - segment.resolved for segment in self.reader.segments if segment.file is None)
        if self._disk is None or not events or self._options.at_end != "spool":
            return min(timeout / 2, events * _END_SECONDS)
        return min(timeout / 2, _LEAST_WRITE_SECONDS + events * _WRITE_SECONDS)

    def _advance_end(self, now: float, close_at: float) -> float | None:
        """Go on with the end as far as possible; give when to look again."""
        if not self._is_sealed:
            self._is_sealed = self.queue.seal(0.0)
            if not self._is_sealed and now < self._seal_until:
                return now + _BUSY_SECONDS
            if self._is_sealed:
                self.reader.refresh()
                self.dispatcher.hurry(2**62)
        is_settled = self.reader.is_settled(2**62)
        if not self._has_stopped:
            if not is_settled and now < self._stop_at:
                if now >= self._half_at:
                    self._half_at = float("inf")
                    self.dispatcher.notes.append(lambda observer: observer.stopping())
                    return now
                return min(self._half_at, self._stop_at)
            self._stop()
        if self._disk_closes and now < close_at + _DISK_GRACE_SECONDS:
            return close_at + _DISK_GRACE_SECONDS
        self._end()
        return None

    def _stop(self) -> None:
        """Send nothing more; let the disk thread write and leave what is left."""
        self._has_stopped = True
        self.dispatcher.give_up()
        if self._disk is not None:
            self._disk_closes = True
            if self._options.at_end == "spool":
                self._write_memory()
            left = [segment for segment in self.reader.segments if not self._remove_done(segment)]
            files = [segment.file for segment in left if segment.file is not None and not segment.is_adopted]
            self._disk.put(self._disk.end, files, not self._is_sealed)

    def _disk_closed(self) -> None:
        self._disk_closes = False

    def _end(self) -> None:
        """Count what is left, publish for the last time, and report."""
        self.reader.refresh()
        is_returned = self._options.at_end == "return"
        left = self.reader.waiting(in_memory_only=True)
        self.ended_clean = not left and self.reader.is_settled(2**62)
        by_reason: dict[str, list[tuple[int, Parcel]]] = {}
        for entry in left:
            segment_reason = "shutdown" if self._disk is None else self._refusals.get(entry[0] >> POSITION_BITS, SPOOL_IO)
            by_reason.setdefault("shutdown" if is_returned else segment_reason, []).append(entry)
        for reason, entries in by_reason.items():
            self.dispatcher.end_rest(entries, "returned" if is_returned else "dropped", reason)
        self._publish()
        stats = self.stats()
        self.dispatcher.notes.append(lambda observer: observer.stopped(stats))
        self.ended.set()
        self._report()
        for flush in self._flushes:
            flush.failed = flush.failed or not self.reader.is_settled(flush.mark)
            flush.done.set()
        self._senders.stop()
        self._callbacks.after(self.over.set)
        self._callbacks.finish()


def _nothing() -> None:
    """Only wake the worker."""


def _noticed(event: str, facts: dict[str, object]) -> Note:
    return lambda observer: observer.noticed(event, facts)
