"""Parcels, receipts and an observer that remembers: what the tests of delivery are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from otel_amplitude.delivery.books import Pending, Stats
from otel_amplitude.delivery.dispatcher import Answer, Batch, DeliveryOptions, Dispatcher, attempts_to_ask
from otel_amplitude.delivery.observer import Observer, tell
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.receipt import ACKNOWLEDGED, RESEND, Outcome, Receipt, Split, Verdict
from otel_amplitude.delivery.retry import ExponentialBackoff, RetryPolicy

CHARGED = Outcome(Verdict.RETRY, "server_error")
INVALID = Outcome(Verdict.REJECTED, "invalid")
HELD = Outcome(Verdict.RETRY, "throttled", hold=30.0)


def parcel(name: str = "event", *ids: str, size: int = 10, accepted_ms: int = 0) -> Parcel:
    """Give a parcel whose body tells its name and has `size` bytes at least."""
    return Parcel(name.encode().ljust(size), ids or ("somebody",), accepted_ms)


def names(parcels: Sequence[Parcel]) -> list[str]:
    """Give the names of parcels."""
    return [parcel.body.decode().strip() for parcel in parcels]


def acknowledged(batch: Sequence[Parcel]) -> Receipt:
    """Everything arrived."""
    return Receipt([ACKNOWLEDGED] * len(batch), "acknowledged", status=200)


def fault(batch: Sequence[Parcel], pause: float | None = None) -> Receipt:
    """The server is at fault."""
    return Receipt([CHARGED] * len(batch), "server_error", server_fault=True, pause=pause, status=503)


def throttled(batch: Sequence[Parcel], *ids: str, seconds: float = 30.0) -> Receipt:
    """Some ids must rest."""
    held = Outcome(Verdict.RETRY, "throttled", hold=seconds)
    outcomes = [held if set(ids) & set(parcel.ids) else RESEND for parcel in batch]
    return Receipt(outcomes, "throttled", status=429)


def rejected(batch: Sequence[Parcel], *bad: str) -> Receipt:
    """Some parcels are named as bad, the others are not taken either."""
    outcomes = [INVALID if name in bad else RESEND for name in names(batch)]
    return Receipt(outcomes, "invalid", status=400)


def divided(batch: Sequence[Parcel], split: Split) -> Receipt:
    """The request can not be taken as it is."""
    return Receipt([RESEND] * len(batch), "invalid", split=split, status=400)


class Memory(Observer):
    """Remembers what it was told."""

    def __init__(self, *, wants_results: bool = True) -> None:
        self._wants_results = wants_results
        self.ends: list[tuple[str, str, str]] = []
        self.parcels: list[Parcel] = []
        self.attempts: list[int] = []
        self.told: list[tuple[object, ...]] = []
        self.batches: list[list[str]] = []
        self.stats: Stats | None = None

    @property
    def wants_results(self) -> bool:
        return self._wants_results

    def started(self) -> None:
        self.told.append(("started",))

    def settled(self, batch: Sequence[Parcel], receipt: Receipt, seconds: float) -> None:
        self.batches.append(names(batch))

    def retried(self, receipt: Receipt, attempt: int, *, last: bool) -> None:
        self.told.append(("retried", receipt.reason, attempt, last))

    def finished(self, parcel: Parcel, outcome: str, reason: str, status: int | None, attempts: int) -> None:
        self.attempts.append(attempts)
        self.ends.append((*names([parcel]), outcome, reason))
        self.parcels.append(parcel)

    def dropped(self, reason: str, count: int) -> None:
        self.told.append(("dropped", reason, count))

    def held(self, count: int, seconds: float, batch: int) -> None:
        self.told.append(("held", count, seconds, batch))

    def paused(self, seconds: float, reason: str) -> None:
        self.told.append(("paused", seconds, reason))

    def resumed(self) -> None:
        self.told.append(("resumed",))

    def noticed(self, event: str, facts: object) -> None:
        self.told.append(("noticed", event, facts))

    def raised(self, part: str, error: Exception) -> None:
        self.told.append(("raised", part, str(error)))

    def stopped(self, stats: Stats) -> None:
        self.stats = stats

    @property
    def outcomes(self) -> Counter[str]:
        """How many parcels ended how."""
        return Counter(outcome for _, outcome, _ in self.ends)


class Events:
    """A source of parcels in memory: numbers are positions in a list, and everything is at hand."""

    def __init__(self, clock: Callable[[], float] = lambda: 0.0) -> None:
        self._clock = clock
        self.parcels: list[Parcel] = []
        self.times: list[float] = []
        self.resolved: set[int] = set()
        self.flying: set[int] = set()
        self.lined: set[int] = set()
        self.cursor = 0

    def add(self, *parcels: Parcel) -> None:
        self.parcels += parcels
        self.times += [self._clock()] * len(parcels)

    def read(self) -> tuple[int, Parcel] | None:
        while self.cursor < len(self.parcels):
            number = self.cursor
            if number not in self.resolved:
                parcel = self.at_hand(number)
                if parcel is None:
                    return None
                self.cursor += 1
                return number, parcel
            self.cursor += 1
        return None

    def at_hand(self, number: int) -> Parcel | None:
        return self.parcels[number]

    def parcel(self, number: int, is_wanted: Callable[[int], bool]) -> Parcel | None:
        assert is_wanted(number)
        return self.at_hand(number)

    def evict(self, number: int) -> None:
        assert number not in self.resolved

    def accepted_at(self, number: int) -> float:
        return self.times[number]

    def group(self, number: int) -> int:
        return 0

    def resolve(self, number: int) -> None:
        assert number not in self.resolved
        self.resolved.add(number)

    def moved(self, numbers: Iterable[int], *, lined: int = 0, flying: int = 0) -> None:
        for number in numbers:
            for change, place in ((lined, self.lined), (flying, self.flying)):
                if change:
                    assert (number in place) == (change < 0)
                    (place.add if change > 0 else place.discard)(number)

    def expired(self, before: float) -> list[tuple[int, Parcel]]:
        return [
            (number, self.parcels[number])
            for number, at in enumerate(self.times)
            if at < before and number not in self.resolved and number not in self.flying
        ]

    @property
    def oldest_at(self) -> float | None:
        left = [at for number, at in enumerate(self.times) if number not in self.resolved and number not in self.flying]
        return min(left, default=None)

    def is_settled(self, mark: int) -> bool:
        return all(number in self.resolved for number in range(min(mark, len(self.parcels))))

    def rest(self) -> list[tuple[int, Parcel]]:
        return [(number, parcel) for number, parcel in enumerate(self.parcels) if number not in self.resolved]


class EventsOnDisk(Events):
    """The same on a disk: an event that is not at hand has to be loaded, and one that has to wait may leave the memory."""

    def __init__(self, clock: Callable[[], float] = lambda: 0.0) -> None:
        super().__init__(clock)
        self.loaded: set[int] = set()
        self.wanted: set[int] = set()

    def at_hand(self, number: int) -> Parcel | None:
        if number in self.loaded:
            return self.parcels[number]
        self.wanted.add(number)
        return None

    def evict(self, number: int) -> None:
        super().evict(number)
        self.loaded.discard(number)

    def load(self) -> bool:
        """Read back what was asked for, and what follows; whether there was anything."""
        found = bool(self.wanted)
        for number in self.wanted:
            self.loaded.update(range(number, number + 3))
        self.wanted = set()
        return found

    @property
    def oldest_at(self) -> float | None:
        return None

    def expired(self, before: float) -> list[tuple[int, Parcel]]:
        return []


class Desk:
    """A dispatcher with a clock that stands still until it is moved, and an observer."""

    def __init__(self, retry: RetryPolicy | None = None, chance: float = 1.0, **options: float) -> None:
        self.now = 0.0
        self.memory = Memory()
        self.chance = chance
        self.retry = retry or ExponentialBackoff()
        self.options = DeliveryOptions(**options)  # type: ignore[arg-type]
        self.events = Events(lambda: self.now)
        self.dispatcher = Dispatcher(self.options, self.events, wants_results=lambda: True, random=lambda: chance)

    def accept(self, *parcels: Parcel) -> None:
        self.events.add(*parcels)

    def next(self) -> Batch | None:
        return self.dispatcher.next_batch(self.now)

    def wake(self) -> float | None:
        """When there is something to send, where there is nothing now."""
        assert self.next() is None
        return self.dispatcher.wake_at()

    def send(self) -> Batch:
        """Give the next batch without waiting for company."""
        self.dispatcher.hurry(len(self.events.parcels))
        batch = self.next()
        assert batch is not None
        return batch

    def settle(self, batch: Batch, receipt: Receipt) -> None:
        self.dispatcher.settle(batch, answer(batch, receipt, self.retry, lambda: self.chance), self.now)
        self.tell()

    def expire(self) -> None:
        self.dispatcher.expire(self.now)
        self.tell()

    def tell(self) -> None:
        notes, self.dispatcher.notes = self.dispatcher.notes, []
        tell([self.memory], notes)

    def stats(self) -> Stats:
        """The counters, counted from the structures."""
        ledger, flying, held = self.dispatcher.ledger, len(self.events.flying), self.dispatcher.held
        rest = len(self.events.rest())
        return Stats(
            accepted=len(self.events.parcels),
            acknowledged=ledger.acknowledged,
            rejected=ledger.rejected,
            dropped=ledger.dropped,
            pending=Pending(queued=rest - flying - held, held=held, in_flight=flying),
        )


def answer(batch: Batch, receipt: Receipt, retry: RetryPolicy, random: Callable[[], float], seconds: float = 0.1) -> Answer:
    """What a sender posts for a receipt: the policy is asked once for each attempt number."""
    attempts = attempts_to_ask(batch, receipt)
    ahead = [attempts[-1] + 1] if attempts else []
    return Answer(receipt, {attempt: retry.wait(attempt, random) for attempt in {*attempts, *ahead}}, seconds)
