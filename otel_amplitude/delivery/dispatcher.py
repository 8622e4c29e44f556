"""When to send, and what an answer means. Pure: no thread, no clock, no disk, no network; the worker calls it and brings the time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Final, Literal, NamedTuple, Protocol

from otel_amplitude.delivery.books import Ledger
from otel_amplitude.delivery.lines import Entry, Lines
from otel_amplitude.delivery.observer import Note
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.receipt import ACKNOWLEDGED, Outcome, Receipt, Split, Verdict
from otel_amplitude.delivery.retry import ExponentialBackoff

# A server's delay is a minimum, but a mistaken one must not stop us for a day.
MOST_PAUSE: Final = 300.0
# Bound on held ids, because clients choose ids. Above it, all sending pauses.
MOST_HELD_IDS: Final = 10_000
# Bound on events in line. Above it, reading forward stops; what is in line is still sent.
MOST_IN_LINE: Final = 200_000
# The followers of one id may take this part of the memory.
FOLLOWERS_SHARE: Final = 10
# Each success lets the byte target, lowered by a 413, grow by this factor, but not to a size that was refused, until so many
# requests were accepted since.
RECOVERY: Final = 1.1
FORGOTTEN_AFTER: Final = 50
# `send_batch` raised this often for one parcel alone: the parcel is the cause.
MOST_RAISES: Final = 20
# What a parcel is that can not be divided any further.
_FINAL: Final = {Split.BISECT: "invalid", Split.SMALLER: "too_large", Split.ONCE: "forbidden"}
_NEVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class DeliveryOptions:
    """The numbers of delivery; durations in seconds, sizes in bytes. They are checked by the caller.

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
        at_end: what happens at shutdown to what could not be settled: `spool` keeps it on disk, `drop` counts it as dropped, `return`
            hands it back to the source that keeps it. Without a spool, `spool` means `drop`.
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
    at_end: Literal["spool", "drop", "return"] = "spool"


class Batch(list[Parcel]):
    """The parcels of one request, in order.

    Attributes:
        numbers: the number of each.
        attempts: how many requests that contained each were charged to it.
        halved: whether it is a part of a request that was divided once (`Split.ONCE`): the same answer again is final.
        sent_at: when it was handed out.
        is_suspect: processes ended while its parcels were in flight: nothing else is in flight with it.
    """

    def __init__(
        self,
        parcels: Iterable[Parcel],
        sent_at: float = 0.0,
        *,
        numbers: Sequence[int] = (),
        attempts: Sequence[int] = (),
        halved: bool = False,
        is_suspect: bool = False,
    ) -> None:
        super().__init__(parcels)
        self.numbers = list(numbers)
        self.attempts = list(attempts) or [0] * len(self)
        self.halved = halved
        self.sent_at = sent_at
        self.is_suspect = is_suspect

    @cached_property
    def size(self) -> int:
        """Bytes of the request, commas included; looked at only where one is too large."""
        return sum([len(parcel.body) for parcel in self]) + len(self)

    @cached_property
    def ids(self) -> frozenset[str]:
        """All ids of its parcels."""
        return frozenset([name for parcel in self for name in parcel.ids])


class Answer(NamedTuple):
    """What a sender posts.

    Attributes:
        receipt: one outcome for each parcel of the batch.
        waits: what the retry policy said, by attempt number.
        seconds: how long the request took.
    """

    receipt: Receipt
    waits: Mapping[int, float | None]
    seconds: float


class Source(Protocol):
    """Where parcels come from, by number: the queue, as the worker reads it."""

    def read(self) -> tuple[int, Parcel] | None:
        """Give the next parcel that was not read yet, in order; None: there is none, or it is being loaded."""
        ...

    def parcel(self, number: int, is_wanted: Callable[[int], bool]) -> Parcel | None:
        """Give a parcel that was read before; None: it is being loaded, and with it what follows it and is wanted soon."""
        ...

    def evict(self, number: int) -> None:
        """A parcel that has to wait may leave the memory, if it lies on disk and memory is short."""
        ...

    def accepted_at(self, number: int) -> float:
        """Give when it was accepted, on the exporter's clock."""
        ...

    def group(self, number: int) -> int:
        """Give the group of events that may be in one request with this one, and in flight with nothing else; 0: any others."""
        ...

    def resolve(self, number: int) -> None:
        """Forget a parcel that came to its end."""
        ...

    def moved(self, numbers: Iterable[int], *, lined: int = 0, flying: int = 0) -> None:
        """Count parcels that enter (1) or leave (-1) a line or a request."""
        ...

    def expired(self, before: float) -> list[tuple[int, Parcel]]:
        """Give the parcels in memory that were accepted before a moment and are in no request."""
        ...

    @property
    def oldest_at(self) -> float | None:
        """When the oldest parcel in memory that is in no request was accepted, or None."""
        ...


def attempts_to_ask(batch: Batch, receipt: Receipt) -> list[int]:
    """Give the attempt numbers for which the retry policy decides what happens after this receipt. Runs on a sender."""
    final = _finality(batch, receipt)
    return sorted(
        {
            attempts + 1
            for attempts, outcome in zip(batch.attempts, receipt.outcomes, strict=True)
            if outcome.verdict is Verdict.RETRY and outcome.charged and final is None
        }
    )


def _finality(batch: Batch, receipt: Receipt) -> Outcome | None:
    """Give the outcome of parcels that can not be divided any further, or None where there is another way."""
    split = receipt.split
    if split is Split.NO or (len(batch) > 1 and not (split is Split.ONCE and batch.halved)):
        return None
    return Outcome(Verdict.REJECTED, _FINAL[split])


def _finished(parcel: Parcel, outcome: str, reason: str, status: int | None, attempts: int) -> Note:
    return lambda observer: observer.finished(parcel, outcome, reason, status, attempts) if observer.wants_results else None


class Dispatcher:
    """Decides for one process. Owned by the worker.

    Laws: while the server is at fault all wait and one request probes; while an id is at fault that id waits; nothing else waits.
    Every parcel that was accepted reaches exactly one end.

    Attributes:
        lines: what was passed over, and for which ids it waits.
        ledger: how parcels came to their end.
        flying: the requests under way.
        notes: calls of observers that are due.
        results: how many of the notes are results.
    """

    def __init__(self, options: DeliveryOptions, source: Source, *, wants_results: Callable[[], bool], random: Callable[[], float]) -> None:
        self.lines = Lines(max(1, options.max_cached_events // FOLLOWERS_SHARE), max(1, options.max_cached_bytes // FOLLOWERS_SHARE))
        self.ledger = Ledger()
        self.flying: list[Batch] = []
        self.notes: list[Note] = []
        self.results = 0
        self._options = options
        self._source = source
        self._wants_results = wants_results
        self._random = random
        self._staged: list[tuple[int, Parcel]] = []
        self._staged_bytes = 0
        self._staged_ends = False
        self._staged_group = 0
        self._due_at = -_NEVER
        self._hurried_to = -1
        self._resume_at = -_NEVER
        self._suspect = False
        self._suspect_since = -_NEVER
        self._faults = 0
        self._target = float(options.max_batch_bytes)
        self._refused_size = _NEVER
        self._good_size = 0
        self._accepted_since = 0
        self._attempts: dict[int, int] = {}
        self._cuts: dict[int, Split] = {}
        self._postponed: list[int] = []
        self._withdraws: list[Callable[[Parcel], bool]] = []

    # When to send.

    @property
    def held(self) -> int:
        """How many events wait since ids are held."""
        return self.lines.held

    @property
    def staged(self) -> int:
        """How many events the next request has so far."""
        return len(self._staged)

    @property
    def is_paused(self) -> bool:
        """Whether the server is at fault: what arrives changes nothing."""
        return self._suspect

    @property
    def crowded(self) -> frozenset[str]:
        """The held ids whose followers take their share of the memory. What waits for an answer or for a server at fault is no follower."""
        return frozenset([name for name in self.lines.crowded if name in self.lines.holds]) if self.lines.crowded else frozenset()

    def hurry(self, mark: int) -> None:
        """Let no parcel up to number `mark` wait for company."""
        self._hurried_to = max(self._hurried_to, mark)

    def _is_full(self) -> bool:
        return self._staged_ends or len(self._staged) >= self._options.max_batch_events or self._staged_bytes >= int(self._target)

    def stage(self, now: float) -> None:
        """Put the next request together as far as there is anything for it."""
        self.lines.release(now)
        oldest = now - self._options.max_event_age
        while not self._is_full():
            found = self._next()
            if found is None:
                return
            number, parcel = found
            if self._source.accepted_at(number) < oldest:
                self._end([(number, parcel)], "dropped", "expired", None)
                continue
            size = len(parcel.body) + 1
            group = self._source.group(number)
            if self._staged and (self._staged_bytes + size > int(self._target) or group != self._staged_group):
                # It does not fit: it comes first in the next request, and nothing of its ids before it.
                self._staged_ends = True
                self.lines.back(parcel.ids, [(number, parcel.ids, len(parcel.body))])
                self._source.moved([number], lined=1)
                return
            if not self._staged:
                self._due_at = now + self._options.upload_interval
                self._staged_group = group
            self._staged.append(found)
            self._staged_bytes += size
            self._staged_ends = number in self._cuts

    def _next(self) -> tuple[int, Parcel] | None:
        """Give the next event that may enter the request, first those in line, then by reading forward."""
        while (number := self.lines.peek()) is not None:
            parcel = self._source.parcel(number, self.lines.is_waiting)
            if parcel is not None:
                self.lines.take(number)
                self._source.moved([number], lined=-1)
                return number, parcel
            self.lines.postpone()
            self._postponed.append(number)
        while len(self.lines) < MOST_IN_LINE:
            found = self._source.read()
            if found is None or not self.lines.blocks(found[1].ids):
                return found
            self._put_in_line(*found)
            self._source.evict(found[0])
        return None

    def _put_in_line(self, number: int, parcel: Parcel) -> None:
        self.lines.pass_over(number, parcel.ids, len(parcel.body))
        self._source.moved([number], lined=1)

    def loaded(self) -> None:
        """Parcels were loaded: look again at those that were not in memory."""
        postponed, self._postponed = self._postponed, []
        for number in postponed:
            self.lines.again(number)

    def _sendable_at(self) -> float | None:
        """Give the moment from which `next_batch` gives one; None: not before something else happens."""
        if not self._staged or len(self.flying) >= (1 if self._suspect else self._options.max_in_flight):
            return None
        if self.flying and (self.flying[0].is_suspect or self._staged_group):
            return None  # it flies alone, so that an end of the process can be laid to it
        at_once = self._is_full() or any(number <= self._hurried_to for number, _ in self._staged)
        if self.flying and not at_once:
            return None
        return self._resume_at if at_once else max(self._due_at, self._resume_at)

    def next_batch(self, now: float) -> Batch | None:
        """Give the next request, or None when nothing is to be sent now; it is in flight until `settle`."""
        self.stage(now)
        at = self._sendable_at()
        if at is None or at > now:
            return None
        numbers = [number for number, _ in self._staged]
        batch = Batch(
            [parcel for _, parcel in self._staged],
            now,
            numbers=numbers,
            attempts=[self._attempts.get(number, 0) for number in numbers] if self._attempts else (),
            halved=bool(self._cuts) and self._cuts.get(numbers[-1]) is Split.ONCE,
            is_suspect=self._staged_group != 0,
        )
        self._unstage()
        self.lines.depart(batch.ids)
        self.flying.append(batch)
        self._source.moved(numbers, flying=1)
        return batch

    def _unstage(self) -> list[tuple[int, Parcel]]:
        staged, self._staged, self._staged_bytes, self._staged_ends = self._staged, [], 0, False
        return staged

    def wanted_company(self) -> tuple[int, int]:
        """Give how many new parcels, or bytes of them, would change what this dispatcher does next."""
        if not self._staged:
            return 1, 1
        if self._is_full() or self._suspect:
            # What arrives is sent when an answer or the clock says so; but the share of one held id is enforced.
            return (max(1, self._options.max_cached_events // FOLLOWERS_SHARE) if self.lines.holds else 2**62), 2**62
        return self._options.max_batch_events - len(self._staged), max(1, int(self._target) - self._staged_bytes)

    def wake_at(self) -> float | None:
        """Give the moment of the next decision that no event from outside brings, or None."""
        oldest = self._source.oldest_at
        moments = [self._sendable_at(), self.lines.next_release, None if oldest is None else oldest + self._options.max_event_age]
        return min((moment for moment in moments if moment is not None), default=None)

    def expire(self, now: float) -> None:
        """Drop what is in memory and too old to be sent; what is in flight may still arrive."""
        oldest = self._source.oldest_at
        if oldest is None or oldest + self._options.max_event_age > now:
            return
        gone = self._source.expired(now - self._options.max_event_age)
        self._leave([number for number, _ in gone])
        self._end(gone, "dropped", "expired", None)

    def _leave(self, numbers: Sequence[int]) -> None:
        """Take parcels that are in no request out of wherever they wait."""
        leaving = set(numbers)
        if any(number in leaving for number, _ in self._staged):
            for entry in self._unstage():
                if entry[0] not in leaving:
                    self._staged.append(entry)
                    self._staged_bytes += len(entry[1].body) + 1
            self._staged_ends = bool(self._staged) and self._staged[-1][0] in self._cuts
        lined = [number for number in numbers if number in self.lines]
        for number in lined:
            self.lines.drop(number)
        self._source.moved(lined, lined=-1)

    # What came back.

    def settle(self, batch: Batch, answer: Answer, now: float) -> None:
        """Count what the answer says about each parcel of `batch`, put back what is to be sent again, and decide who waits.

        An answer to a batch that was given up meanwhile (at shutdown) changes nothing.
        """
        if not any(batch is other for other in self.flying):
            return
        receipt, waits, seconds = answer
        self.flying = [other for other in self.flying if other is not batch]
        self._source.moved(batch.numbers, flying=-1)
        self.notes.append(lambda observer: observer.settled(batch, receipt, seconds))
        if receipt.outcomes.count(ACKNOWLEDGED) == len(batch):
            self._end(list(zip(batch.numbers, batch, strict=True)), "acknowledged", "", receipt.status)
            self._server_answered()
            self._recover(batch)
            self.lines.back(batch.ids, ())
            return
        again, pauses = self._sort(batch, receipt, waits, now)
        progress = len(again) < len(batch) or bool(pauses or receipt.pause) or (receipt.split is not Split.NO and len(batch) > 1)
        self._divide(batch, again, receipt.split)
        self._wait(batch, again, receipt, waits, now, progress=progress)
        if pauses and len(self.lines.holds) + len(pauses) > MOST_HELD_IDS:
            self._pause(max(pauses.values()) - now, receipt.reason, now)
            pauses = {}
        for name, until in pauses.items():
            self.lines.hold(name, until)
        again = self._withdrawn(again)
        entries: list[Entry] = [(number, parcel.ids, len(parcel.body)) for number, parcel in again]
        self.lines.back(batch.ids, entries)
        self._source.moved([number for number, _ in again], lined=1)
        for number, _ in again if pauses else ():
            self._source.evict(number)
        if again:
            self._hurried_to = max(self._hurried_to, again[-1][0])

    def _sort(
        self, batch: Batch, receipt: Receipt, waits: Mapping[int, float | None], now: float
    ) -> tuple[list[tuple[int, Parcel]], dict[str, float]]:
        """Bring to their end all parcels that have one; give the others, and the ids that must rest with their moments."""
        final = _finality(batch, receipt)
        ends: dict[tuple[str, str], list[tuple[int, Parcel]]] = {}
        again: list[tuple[int, Parcel]] = []
        pauses: dict[str, float] = {}
        held = attempt = 0
        for number, parcel, outcome in zip(batch.numbers, batch, receipt.outcomes, strict=True):
            decided = final if final is not None and outcome.verdict is Verdict.RETRY else outcome
            entry = (number, parcel)
            if decided.verdict is not Verdict.RETRY:
                ends.setdefault((decided.verdict.value, decided.reason), []).append(entry)
                continue
            attempts = self._attempts.get(number, 0)
            if decided.charged:
                attempts = self._attempts[number] = attempts + 1
                if waits.get(attempts, 0.0) is None:
                    ends.setdefault(("dropped", "attempts"), []).append(entry)
                    continue
                if receipt.reason == "internal" and len(batch) == 1 and attempts > MOST_RAISES:
                    ends.setdefault(("dropped", "internal"), []).append(entry)
                    continue
            again.append(entry)
            attempt = max(attempt, attempts)
            if decided.hold is not None:
                held += 1
                until = now + min(decided.hold, MOST_PAUSE)
                pauses.update({name: max(until, pauses.get(name, until)) for name in parcel.ids})
        for (outcome_word, reason), entries in ends.items():
            self._end(entries, outcome_word, reason, receipt.status)
        if pauses:
            seconds = max(pauses.values()) - now
            self.notes.append(lambda observer: observer.held(held, seconds, len(batch)))
        if again:
            last = waits.get(attempt + 1, 0.0) is None
            # Neighbours of what was at fault are sent again uncharged: for an observer, that was an attempt as well.
            self.notes.append(lambda observer: observer.retried(receipt, max(1, attempt), last=last))
        again.sort(key=itemgetter(0))
        return again, pauses

    def _divide(self, batch: Batch, again: Sequence[tuple[int, Parcel]], split: Split) -> None:
        if split is Split.SMALLER and len(batch) > 1:
            self._refused_size = min(self._refused_size, batch.size)
            self._accepted_since = 0
            if self._good_size >= batch.size:  # the server has changed its mind
                self._good_size = 0
            self._target = max(1.0, min(self._target, max(batch.size / 2, self._good_size)))
        elif split is not Split.NO and again:
            self._cuts[again[len(again) // 2 - 1][0]] = split
            self._cuts[again[-1][0]] = split

    def _recover(self, batch: Batch) -> None:
        """After a success, let requests grow again, up to the smallest size that was refused lately."""
        if self._target < self._options.max_batch_bytes:
            self._good_size = max(self._good_size, batch.size)
            self._accepted_since += 1
            if self._accepted_since >= FORGOTTEN_AFTER:
                self._refused_size = _NEVER
            most = min(float(self._options.max_batch_bytes), self._refused_size - 1)
            self._target = max(1.0, min(self._target * RECOVERY, most))

    def _wait(
        self,
        batch: Batch,
        again: Sequence[tuple[int, Parcel]],
        receipt: Receipt,
        waits: Mapping[int, float | None],
        now: float,
        *,
        progress: bool,
    ) -> None:
        """Decide how long everything waits after this answer."""
        asked = min(receipt.pause or 0.0, MOST_PAUSE)
        if receipt.probing:
            self._suspect = True
            self._pause(asked, receipt.reason, now)
        elif receipt.server_fault or not progress:
            # Of requests that failed together the first one counts: four in flight are one fault.
            if batch.sent_at >= self._suspect_since:
                self._faults += 1
                self._suspect_since = now
                asked = max(asked, self._backoff(again, waits))
            self._suspect = True
            self._pause(asked, receipt.reason, now)
        else:
            self._server_answered()
            if asked:
                self._pause(asked, receipt.reason, now)

    def _backoff(self, again: Sequence[tuple[int, Parcel]], waits: Mapping[int, float | None]) -> float:
        attempt = max((self._attempts.get(number, 0) for number, _ in again), default=0)
        wait = waits.get(attempt)
        # The policy was not asked, or gave up on these parcels; the next ones wait politely all the same.
        return wait if wait is not None else ExponentialBackoff().wait(self._faults, self._random) or 0.0

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

    def _end(self, entries: Sequence[tuple[int, Parcel]], outcome: str, reason: str, status: int | None) -> None:
        """Count and forget parcels that came to their end: the only way out of the queue."""
        if not entries:
            return
        self.ledger.count(outcome, reason, len(entries))
        if outcome == "dropped":
            self.tell_dropped(reason, len(entries))
        if self._wants_results():
            # The request that settled an event counts as well, unless it was given up.
            charged = int(outcome in ("acknowledged", "rejected"))
            self.notes += [
                _finished(parcel, outcome, reason, status, self._attempts.get(number, 0) + charged) for number, parcel in entries
            ]
            self.results += len(entries)
        for number, _ in entries:
            self._source.resolve(number)
        if self._attempts or self._cuts:
            for number, _ in entries:
                self._attempts.pop(number, None)
                self._cuts.pop(number, None)

    def tell_dropped(self, reason: str, count: int) -> None:
        """Report parcels that were counted as dropped or refused."""
        self.notes.append(lambda observer: observer.dropped(reason, count))

    def damaged(self, numbers: Sequence[int]) -> None:
        """Records of these parcels can not be read any more, or are not events: nothing is known of them but their number."""
        if numbers:
            self._leave(numbers)
            self.ledger.count("dropped", "spool_corrupt", len(numbers))
            self.tell_dropped("spool_corrupt", len(numbers))
            for number in numbers:
                self._source.resolve(number)
                self._attempts.pop(number, None)
                self._cuts.pop(number, None)

    def withdraw(self, predicate: Callable[[Parcel], bool], entries: Sequence[tuple[int, Parcel]]) -> None:
        """Return parcels that are in no request to their source; those in flight are returned if their answer says *again*.

        `entries` are all parcels in memory that are in no request.
        """
        self._withdraws.append(predicate)
        gone = [entry for entry in entries if _holds(predicate, entry[1])]
        self._leave([number for number, _ in gone])
        self._end(gone, "returned", "", None)

    def withdrawn(self, predicate: Callable[[Parcel], bool]) -> bool:
        """Whether no parcel in flight matches `predicate` any more; then it is forgotten."""
        if any(_holds(predicate, parcel) for batch in self.flying for parcel in batch):
            return False
        self.forget(predicate)
        return True

    def forget(self, predicate: Callable[[Parcel], bool]) -> None:
        """Withdraw nothing more for `predicate`."""
        self._withdraws = [other for other in self._withdraws if other is not predicate]

    def _withdrawn(self, again: list[tuple[int, Parcel]]) -> list[tuple[int, Parcel]]:
        if not self._withdraws:
            return again
        gone = {entry[0]: entry for entry in again if any(_holds(predicate, entry[1]) for predicate in self._withdraws)}
        self._end(list(gone.values()), "returned", "", None)
        return [entry for entry in again if entry[0] not in gone]

    def give_up(self) -> None:
        """Close: nothing is in flight or waits to be sent any longer."""
        for batch in self.flying:
            self._source.moved(batch.numbers, flying=-1)
        self.flying = []
        self._unstage()
        self._source.moved(self.lines.numbers(), lined=-1)
        self.lines = Lines(1, 1)

    def end_rest(self, entries: Sequence[tuple[int, Parcel]], outcome: str, reason: str) -> None:
        """Bring what is left to its end, after `give_up`."""
        self._leave([number for number, _ in entries])
        self._end(entries, outcome, reason, None)


def _holds(predicate: Callable[[Parcel], bool], parcel: Parcel) -> bool:
    try:
        return bool(predicate(parcel))
    except Exception:  # a caller's predicate that fails matches nothing
        return False
