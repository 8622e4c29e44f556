"""When to send, and what to do with the receipt. No thread, no clock, no disk, no network."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Final, Protocol

from otel_amplitude.delivery.backlog import Backlog, bytes_of, in_order
from otel_amplitude.delivery.books import Pending, Stats
from otel_amplitude.delivery.ledger import Ledger
from otel_amplitude.delivery.observer import Note
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.receipt import ACKNOWLEDGED, Outcome, Receipt, Split, Verdict
from otel_amplitude.delivery.retry import ExponentialBackoff, RetryPolicy

# A server's delay is a minimum, but a mistaken one must not stop us for a day.
MOST_PAUSE: Final = 300.0
# Nor may a user's policy stop us for ever.
MOST_WAIT: Final = 86_400.0
# Whoever can make ids must not fill our memory with them: above this everyone waits instead.
MOST_HELD_IDS: Final = 10_000
# The followers of one id may take this part of the memory, and so may all who wait for ids and can wait on disk as well.
FOLLOWERS_SHARE: Final = 10
# Each success lets the byte target, lowered by a 413, grow by this factor.
RECOVERY: Final = 1.1
# `send_batch` raised this often for one parcel alone: the parcel is the cause.
MOST_RAISES: Final = 20
# What a parcel is that can not be divided any further.
_FINAL: Final = {Split.BISECT: "invalid", Split.SMALLER: "too_large", Split.ONCE: "forbidden"}
# While ids are held, arrivals are looked at when there are this many, so that the share of one id is enforced.
_HELD_COMPANY: Final = 256
_NEVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class DeliveryOptions:
    """The numbers of delivery; durations in seconds, sizes in bytes. Whoever makes one has checked them.

    Attributes:
        upload_interval: how long a parcel may wait for company.
        max_batch_events: how many parcels one request may carry.
        max_batch_bytes: how many bytes one request may carry.
        max_cached_events: how many parcels memory may hold: queued, held and in flight.
        max_cached_bytes: how many bytes their bodies may take.
        max_event_age: what was accepted longer ago is dropped (`expired`).
        max_in_flight: requests at once while a backlog exists.
        request_timeout: total for one attempt.
        shutdown_timeout: bound for the end of a `multiprocessing` child.
        spool_always: every parcel goes through the disk, not only what exceeds three quarters of the memory bounds.
    """

    upload_interval: float = 1.0
    max_batch_events: int = 1000
    max_batch_bytes: int = 900_000
    max_cached_events: int = 16_000
    max_cached_bytes: int = 16 * 2**20
    max_event_age: float = 48 * 3600.0
    max_in_flight: int = 4
    request_timeout: float = 10.0
    shutdown_timeout: float = 5.0
    spool_always: bool = False


class Batch(list[Parcel]):
    """The parcels of one request, in order.

    Attributes:
        halved: whether it is a part of a request that was divided once (`Split.ONCE`): the same answer again is final.
        sent_at: when it was handed out.
    """

    def __init__(self, parcels: Iterable[Parcel], sent_at: float, *, halved: bool = False) -> None:
        super().__init__(parcels)
        self.halved = halved
        self.sent_at = sent_at

    @cached_property
    def size(self) -> int:
        """Bytes of the request, commas included; looked at only where one is too large."""
        return bytes_of(self) + len(self)

    @cached_property
    def ids(self) -> frozenset[str]:
        """All ids of its parcels; looked at only while another request may fly beside this one."""
        return frozenset(name for parcel in self for name in parcel.ids)


def _finished(parcel: Parcel, outcome: str, reason: str, status: int | None) -> Note:
    return lambda observer: observer.finished(parcel, outcome, reason, status) if observer.wants_results else None


class DiskBooks(Protocol):
    """What a spool says of itself, in one consistent look.

    Attributes:
        appended: parcels written by this process.
        adopted: parcels taken over from processes that ended.
        expired: parcels that were too old when their turn came.
        corrupt: parcels whose bytes were damaged.
        gone: those of them that were never read.
    """

    @property
    def appended(self) -> int:
        """See the class."""
        ...

    @property
    def adopted(self) -> int:
        """See the class."""
        ...

    @property
    def expired(self) -> int:
        """See the class."""
        ...

    @property
    def corrupt(self) -> int:
        """See the class."""
        ...

    @property
    def gone(self) -> int:
        """See the class."""
        ...


@dataclass(frozen=True, slots=True)
class NoDisk:
    """The books of no spool at all."""

    appended: int = 0
    adopted: int = 0
    expired: int = 0
    corrupt: int = 0
    gone: int = 0


NO_DISK: Final = NoDisk()


class Dispatcher:
    """Decides for one process; whoever calls it holds one lock around every call and brings the time.

    Laws: while the server is at fault all wait and one request probes; while an id is at fault that id waits; nobody else pays.
    Every parcel that was accepted reaches exactly one end.

    Attributes:
        ledger: the books.
        backlog: what is to be sent.
        flying: the requests under way.
        from_disk: parcels that came into memory from the disk, and did not go back.
        memory_bytes: bytes of all bodies in memory.
        notes: what observers are to be told once the lock is released.
        resolved: places on disk that are done with.
        shelved: parcels that stay on disk, to be read again.
        last_order: number of the parcel accepted last.
    """

    def __init__(
        self,
        options: DeliveryOptions,
        retry: RetryPolicy,
        random: Callable[[], float],
        *,
        wants_results: Callable[[], bool] = lambda: False,
    ) -> None:
        self.ledger = Ledger()
        self.backlog = Backlog()
        self.flying: list[Batch] = []
        self.from_disk = 0
        self.memory_bytes = 0
        self.notes: list[Note] = []
        self.resolved: list[object] = []
        self.shelved: list[Parcel] = []
        self.last_order = 0
        self._read = 0
        self._options = options
        self._retry = retry
        self._random = random
        self._wants_results = wants_results
        self._due_at = -_NEVER
        self._hurried_to = 0
        self._resume_at = -_NEVER
        self._suspect = False
        self._suspect_since = -_NEVER
        self._faults = 0
        self._target = float(options.max_batch_bytes)
        self._crowded = False
        self._oldest_ms = _NEVER
        self._leaving: list[Parcel] = []
        self.closed = False

    # What comes in.

    def accept(self, parcels: Sequence[Parcel], now: float) -> int:
        """Take responsibility for new parcels, in order; give how many bytes they are."""
        self.ledger.accepted += len(parcels)
        self._number(parcels)
        size = self._take_in(parcels, now)
        self.backlog.append(parcels, size)
        if self.closed:
            # They slipped in while the doors were closing; the books must not show them as pending for ever.
            self._drop(self.backlog.clear(), "shutdown")
        return size

    def read_from_disk(self, parcels: Sequence[Parcel], now: float) -> None:
        """Take parcels from the disk into memory, in order; once closed they stay where they are.

        Those that would have to wait for an id, and for whom memory has no room, are `shelved`.
        """
        if self.closed:
            return
        fresh = [parcel for parcel in parcels if not parcel.order]
        self._number(fresh)
        self._read += len(fresh)
        self.from_disk += len(parcels)
        self._take_in(parcels, now)
        self._shelve(self.backlog.read_back(parcels, now))
        self._shelve_excess()

    def begins_sweep(self, now: float) -> bool:
        """Whether whoever reads the disk has to read all that is shelved again, from now on until `end_sweep`."""
        self.backlog.release(now)
        at = self.backlog.sweep_at()
        if at is None or at > now or self.shelved:
            return False
        self.backlog.shelf.begin_sweep(now)
        return True

    def end_sweep(self, now: float) -> None:
        """All that lies on disk was read, or is shelved."""
        if self.backlog.shelf.sweeps:
            self.backlog.end_sweep(now)

    def _shelve_excess(self) -> None:
        if not self.from_disk:
            return
        most, most_bytes = self._options.max_cached_events, self._options.max_cached_bytes
        self._shelve(self.backlog.shelve_excess(most // FOLLOWERS_SHARE, most_bytes // FOLLOWERS_SHARE))

    def _shelve(self, parcels: Sequence[Parcel]) -> None:
        """Let parcels that left the backlog stay on disk."""
        self.from_disk -= len(parcels)
        self.memory_bytes -= bytes_of(parcels)
        self.shelved += parcels

    def _number(self, parcels: Sequence[Parcel]) -> None:
        for order, parcel in enumerate(parcels, self.last_order + 1):
            parcel.order = order
        self.last_order += len(parcels)

    def _take_in(self, parcels: Sequence[Parcel], now: float) -> int:
        size = bytes_of(parcels)
        self.memory_bytes += size
        self._oldest_ms = min([self._oldest_ms, *[parcel.accepted_ms for parcel in parcels]])
        if not self.backlog.ready:
            self._due_at = now + self._options.upload_interval
        return size

    def id_is_crowded(self, parcel: Parcel) -> bool:
        """Whether `parcel` would wait behind an id whose followers have used up their share. May be asked without the lock."""
        holds = self.backlog.holds
        for name in parcel.ids:
            hold = holds.get(name)
            if hold is not None and (
                hold.events * FOLLOWERS_SHARE >= self._options.max_cached_events
                or hold.bytes * FOLLOWERS_SHARE >= self._options.max_cached_bytes
                or len(holds) >= MOST_HELD_IDS
            ):
                return True
        return False

    # When to send.

    @property
    def has_full_batch(self) -> bool:
        """Whether nothing would be gained by waiting for company."""
        return len(self.backlog.ready) >= self._options.max_batch_events or self.backlog.size >= self._target

    @property
    def is_idle(self) -> bool:
        """Whether nothing is sent, nor could be: whoever is in memory waits for somebody else."""
        return not (self.backlog.ready or self.flying)

    @property
    def _is_hurried(self) -> bool:
        return bool(self.backlog.ready) and self.backlog.ready[0].order <= self._hurried_to

    def hurry(self, mark: int) -> None:
        """Let no parcel up to number `mark` wait for company."""
        self._hurried_to = max(self._hurried_to, mark)

    def _sendable_at(self) -> float | None:
        """Give the moment from which `next_batch` gives one; None: not before something else happens."""
        if not self.backlog.ready or self._crowded:
            return None
        if len(self.flying) >= (1 if self._suspect else self._options.max_in_flight):
            return None
        at_once = self._is_hurried or self.has_full_batch
        if self.flying and not at_once:
            return None
        return self._resume_at if at_once else max(self._due_at, self._resume_at)

    def next_batch(self, now: float) -> Batch | None:
        """Give the next request, or None when nothing is to be sent now; it is in flight until `settle`."""
        self.backlog.release(now)
        at = self._sendable_at()
        if at is None or at > now:
            return None
        most, most_bytes = self._options.max_batch_events, int(self._target)
        if self.flying:
            ids = [batch.ids for batch in self.flying]
            taken = self.backlog.take_beside(set().union(*ids), most, most_bytes, partly=self._is_hurried)
            if not taken:
                # All that could go shares an id with what is in flight: one request of an id at a time.
                self._crowded = True
                return None
        else:
            taken = self.backlog.take(most, most_bytes)
        batch = Batch(taken, now, halved=self.backlog.cuts.get(taken[-1].order) is Split.ONCE)
        self.flying.append(batch)
        return batch

    def wanted_company(self) -> tuple[int, int]:
        """Give how many new parcels, or bytes of them, would change what this dispatcher does next."""
        if not self.backlog.ready:
            return 1, self._options.max_batch_bytes
        if self.has_full_batch or self._suspect:
            # They are sent when an answer or the clock says so. The books of held ids are brought up to date all the same.
            return (_HELD_COMPANY if self.backlog.holds else sys.maxsize), sys.maxsize
        return self._options.max_batch_events - len(self.backlog.ready), max(1, int(self._target) - self.backlog.size)

    def wake_at(self, now: float, wall_ms: int) -> float | None:
        """Give the moment of the next decision that no event from outside brings, or None."""
        moments = [self._sendable_at(), self.backlog.next_release if self.backlog.aside else None]
        if self._oldest_ms < _NEVER:
            moments.append(now + (self._oldest_ms - wall_ms) / 1000 + self._options.max_event_age)
        return min((moment for moment in moments if moment is not None), default=None)

    def expire(self, wall_ms: int, now: float) -> bool:
        """Drop what is too old to be sent, and say whether anything was; what is in flight may still arrive."""
        before_ms = wall_ms - int(self._options.max_event_age * 1000)
        if self._oldest_ms > before_ms:
            return False
        expired = self.backlog.expired(before_ms + 1, now)
        self._drop(expired, "expired")
        self._oldest_ms = min([parcel.accepted_ms for parcel in self.backlog], default=_NEVER)
        return bool(expired)

    def clock_was_set(self, jump_ms: int, wall_ms: int) -> None:
        """Let nobody's age change because somebody set the clock by `jump_ms`, to `wall_ms`: that must neither expire events nor keep them."""
        before_ms = wall_ms - jump_ms
        for parcel in chain(*self.flying, self.backlog, self._leaving):
            if abs(parcel.accepted_ms - before_ms) < abs(parcel.accepted_ms - wall_ms):  # else it was accepted after that
                parcel.accepted_ms += jump_ms
        self._oldest_ms = -_NEVER

    def is_waiting(self, mark: int, disk: DiskBooks = NO_DISK, arriving: int = 0) -> bool:
        """Whether any parcel up to number `mark` has not come to its end; `disk` and `arriving` as for `stats`."""
        is_elsewhere = arriving + self.spooled(disk) > 0 and (self.closed or self.last_order < mark)
        if is_elsewhere or self.backlog.shelf.first <= mark:
            return True
        return any(parcel.order <= mark for parcel in chain(*self.flying, self.backlog, self._leaving))

    # What came back.

    def settle(self, batch: Batch, receipt: Receipt, now: float, seconds: float = 0.0) -> None:
        """Book what the answer says about each parcel of `batch`, put back what is to be sent again, and decide who waits.

        An answer to a batch that was given up meanwhile (at shutdown) changes nothing.

        Args:
            batch: as given by `next_batch`.
            receipt: one outcome for each of its parcels.
            now: the time.
            seconds: how long the request took, for observers.
        """
        if not any(batch is other for other in self.flying):
            return
        self.flying = [other for other in self.flying if other is not batch]
        self._crowded = False
        self.notes.append(lambda observer: observer.settled(batch, receipt, seconds))
        if receipt.outcomes.count(ACKNOWLEDGED) == len(batch):
            self._acknowledge(batch, receipt.status)
            self._server_answered()
            self._target = min(self._target * RECOVERY, float(self._options.max_batch_bytes))
            return
        again, pauses = self._sort(batch, receipt, now)
        progress = len(again) < len(batch) or bool(pauses or receipt.pause) or (receipt.split is not Split.NO and len(batch) > 1)
        self._divide(batch, again, receipt.split)
        self._wait(batch, again, receipt, now, progress=progress)
        if pauses and len(self.backlog.holds) + len(pauses) > MOST_HELD_IDS:
            self._pause(max(pauses.values()) - now, receipt.reason, now)
            pauses = {}
        if again:
            self._due_at = -_NEVER
            self._oldest_ms = min([self._oldest_ms, *[parcel.accepted_ms for parcel in again]])
        self.backlog.give_back(again, pauses, now)
        self._shelve_excess()

    def fail(self, batch: Batch, error: BaseException | None, now: float, seconds: float = 0.0) -> None:
        """Settle a batch for which `send_batch` raised `error`: wait, and halve it until the parcel that makes it raise is alone and given up."""
        if len(batch) == 1 and batch[0].attempts >= MOST_RAISES and any(batch is other for other in self.flying):
            self.flying = [other for other in self.flying if other is not batch]
            self._drop(batch, "internal")
            return
        outcomes = [Outcome(Verdict.RETRY, "internal")] * len(batch)
        split = Split.BISECT if len(batch) > 1 else Split.NO
        self.settle(batch, Receipt(outcomes, "internal", split, server_fault=True, response=error), now, seconds)

    def _sort(self, batch: Batch, receipt: Receipt, now: float) -> tuple[list[Parcel], dict[str, float]]:
        """Bring to their end all parcels that have one; give the others, and the ids that must rest with their moments."""
        again: list[Parcel] = []
        exhausted: list[Parcel] = []
        pauses: dict[str, float] = {}
        held = 0
        for outcome, parcels in self._by_outcome(batch, receipt).items():
            if outcome.verdict is Verdict.ACKNOWLEDGED:
                self._acknowledge(parcels, receipt.status)
            elif outcome.verdict is Verdict.REJECTED:
                self.ledger.reject(outcome.reason, len(parcels))
                self._end(parcels, "rejected", outcome.reason, receipt.status)
            else:
                kept = self._charge(parcels, exhausted) if outcome.charged else parcels
                again += kept
                if outcome.hold is not None:
                    held += len(kept)
                    until = now + min(outcome.hold, MOST_PAUSE)
                    pauses.update({name: max(until, pauses.get(name, until)) for parcel in kept for name in parcel.ids})
        self._drop(exhausted, "attempts", receipt.status)
        if pauses:
            seconds = max(pauses.values()) - now
            self.notes.append(lambda observer: observer.held(held, seconds, len(batch)))
        if again:
            attempts = max(parcel.attempts for parcel in again)
            last = self._gives_up_after(attempts + 1)
            # Neighbours of what was at fault are sent again uncharged: for whoever is told, that was an attempt as well.
            self.notes.append(lambda observer: observer.retried(receipt, max(1, attempts), last=last))
        again.sort(key=in_order)
        return again, pauses

    def _by_outcome(self, batch: Batch, receipt: Receipt) -> dict[Outcome, list[Parcel]]:
        final = self._finality(batch, receipt)
        parcels: dict[Outcome, list[Parcel]] = {}
        for parcel, outcome in zip(batch, receipt.outcomes, strict=True):
            decided = final if final is not None and outcome.verdict is Verdict.RETRY else outcome
            parcels.setdefault(decided, []).append(parcel)
        return parcels

    def _charge(self, parcels: Iterable[Parcel], exhausted: list[Parcel]) -> list[Parcel]:
        """Count one attempt for each; give those that may be sent again, and put the others to `exhausted`."""
        kept: list[Parcel] = []
        for parcel in parcels:
            parcel.attempts += 1
            (exhausted if self._wait_after(parcel.attempts) is None else kept).append(parcel)
        return kept

    def _finality(self, batch: Batch, receipt: Receipt) -> Outcome | None:
        """Give the outcome of parcels that can not be divided any further, or None where there is another way."""
        split = receipt.split
        if split is Split.NO or (len(batch) > 1 and not (split is Split.ONCE and batch.halved)):
            return None
        return Outcome(Verdict.REJECTED, _FINAL[split])

    def _divide(self, batch: Batch, again: Sequence[Parcel], split: Split) -> None:
        if split is Split.SMALLER:
            self._target = max(1.0, min(self._target, batch.size / 2))
        elif split is not Split.NO and again:
            self.backlog.cuts[again[len(again) // 2 - 1].order] = split
            self.backlog.cuts[again[-1].order] = split

    def _wait(self, batch: Batch, again: Sequence[Parcel], receipt: Receipt, now: float, *, progress: bool) -> None:
        """Decide how long everyone waits after this answer."""
        asked = min(receipt.pause or 0.0, MOST_PAUSE)
        if receipt.probing:
            self._suspect = True
            self._pause(asked, receipt.reason, now)
        elif receipt.server_fault or not progress:
            # Of requests that failed together the first one counts: four in flight are one fault.
            if batch.sent_at >= self._suspect_since:
                self._faults += 1
                self._suspect_since = now
                asked = max(asked, self._backoff(again))
            self._suspect = True
            self._pause(asked, receipt.reason, now)
        else:
            self._server_answered()
            if asked:
                self._pause(asked, receipt.reason, now)

    def _backoff(self, again: Sequence[Parcel]) -> float:
        attempt = max((parcel.attempts for parcel in again), default=0) or self._faults
        wait = self._wait_after(attempt)
        # The policy gave up on these parcels; the next ones wait politely all the same.
        return wait if wait is not None else ExponentialBackoff().wait(self._faults, self._random) or 0.0

    def _wait_after(self, attempt: int) -> float | None:
        try:
            seconds = self._retry.wait(attempt, self._random)
            if seconds is None or float(seconds) >= 0.0:  # not so for what is not a number, in either sense
                return None if seconds is None else min(float(seconds), MOST_WAIT)
        except BaseException:  # a user's policy that fails must not lose events
            return ExponentialBackoff().wait(attempt, self._random)
        return ExponentialBackoff().wait(attempt, self._random)

    def _gives_up_after(self, attempt: int) -> bool:
        try:
            return self._retry.wait(attempt, lambda: 0.0) is None
        except BaseException:  # as above
            return False

    def _pause(self, seconds: float, reason: str, now: float) -> None:
        if now + seconds > self._resume_at:
            self._resume_at = now + seconds
            self.notes.append(lambda observer: observer.paused(seconds, reason))

    def _server_answered(self) -> None:
        if self._suspect:
            self._suspect = False
            self._faults = 0
            self.notes.append(lambda observer: observer.resumed())

    # What leaves.

    def _acknowledge(self, parcels: Sequence[Parcel], status: int | None) -> None:
        self.ledger.acknowledged += len(parcels)
        self._end(parcels, "acknowledged", "", status)

    def _drop(self, parcels: Sequence[Parcel], reason: str, status: int | None = None) -> None:
        if parcels:
            self.ledger.drop(reason, len(parcels))
            self.tell_dropped(reason, len(parcels))
            self._end(parcels, "dropped", reason, status)

    def tell_dropped(self, reason: str, count: int) -> None:
        """Let observers know of parcels that others have booked as dropped or refused."""
        self.notes.append(lambda observer: observer.dropped(reason, count))

    def tell_expired(self, parcels: Iterable[Parcel]) -> None:
        """Let whoever wants results know of parcels that expired on disk, where they are booked."""
        self.notes += [_finished(parcel, "dropped", "expired", None) for parcel in parcels]

    def _end(self, parcels: Sequence[Parcel], outcome: str, reason: str, status: int | None) -> None:
        """Forget parcels that came to their end: the only way out of memory."""
        self.memory_bytes -= bytes_of(parcels)
        self.resolved += [parcel.place for parcel in parcels if parcel.place is not None]
        if self._wants_results():
            self.notes += [_finished(parcel, outcome, reason, status) for parcel in parcels]
        if self.backlog.cuts:
            for parcel in parcels:
                self.backlog.cuts.pop(parcel.order, None)
        if not (self.flying or self.backlog):
            self._oldest_ms = _NEVER

    def give_up(self) -> None:
        """Close: nothing is in flight or waits to be sent any longer, all of it is leaving."""
        self.closed = True
        self._leaving = sorted([*self._leaving, *chain(*self.flying), *self.backlog.clear()], key=in_order)
        self.flying = []
        kept = [parcel for parcel in self._leaving if parcel.place is not None]
        self._leaving = [parcel for parcel in self._leaving if parcel.place is None]
        # They never left the disk: somebody else will read them.
        self.from_disk -= len(kept)
        self.memory_bytes -= bytes_of(kept)

    def move_to_disk(self, most: int) -> list[Parcel]:
        """Take the next parcels that are leaving out of the books: whoever writes them to the spool has them in the books again."""
        moving, self._leaving = self._leaving[:most], self._leaving[most:]
        self.memory_bytes -= bytes_of(moving)
        self.ledger.accepted -= len(moving)
        return moving

    def could_not_move(self, parcels: Sequence[Parcel], reason: str) -> None:
        """Book parcels of `move_to_disk` that the spool did not take."""
        self.ledger.accepted += len(parcels)
        self.memory_bytes += bytes_of(parcels)
        self._drop(parcels, reason)

    def moved_after_all(self, reason: str) -> None:
        """Take back the drop of one parcel that the spool took when nobody waited for it any longer: it is in the spool's books."""
        self.ledger.accepted -= 1
        self.ledger.drop(reason, -1)

    def drop_leaving(self) -> int:
        """Drop what is leaving and has no place to go; give how many."""
        leaving, self._leaving = self._leaving, []
        self._drop(leaving, "shutdown")
        return len(leaving)

    # The books.

    @property
    def memory_events(self) -> int:
        """How many parcels memory holds."""
        return len(self.backlog) + sum(map(len, self.flying)) + len(self._leaving)

    def spooled(self, disk: DiskBooks) -> int:
        """How many parcels lie on disk and nowhere else."""
        return disk.appended + disk.adopted - disk.expired - disk.corrupt - self.from_disk

    def last_number(self, disk: DiskBooks) -> int:
        """Give the number that the last parcel that was booked, or lies on disk, has or will have."""
        return self.last_order + disk.appended + disk.adopted - disk.gone - self._read

    def stats(self, disk: DiskBooks = NO_DISK, arriving: int = 0) -> Stats:
        """Give the books, counted from the structures.

        Args:
            disk: what the spool says.
            arriving: parcels that were accepted and wait for their turn to be booked.
        """
        return self.ledger.snapshot(
            Pending(
                queued=len(self.backlog.ready) + len(self._leaving) + arriving,
                held=len(self.backlog.aside) + len(self.backlog.late),
                in_flight=sum(map(len, self.flying)),
                spooled=self.spooled(disk),
            ),
            accepted=disk.appended + arriving,
            adopted=disk.adopted,
            dropped={"expired": disk.expired, "spool_corrupt": disk.corrupt},
        )
