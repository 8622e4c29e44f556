"""Parcels, receipts and an observer that remembers: what the tests of delivery are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from otel_amplitude.delivery.books import Stats
from otel_amplitude.delivery.dispatcher import Batch, DeliveryOptions, Dispatcher
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

    def finished(self, parcel: Parcel, outcome: str, reason: str, status: int | None) -> None:
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

    def stopped(self, stats: Stats) -> None:
        self.stats = stats

    @property
    def outcomes(self) -> Counter[str]:
        """How many parcels ended how."""
        return Counter(outcome for _, outcome, _ in self.ends)


class Desk:
    """A dispatcher with a clock that stands still until it is moved, and an observer."""

    def __init__(self, retry: RetryPolicy | None = None, chance: float = 1.0, **options: float) -> None:
        self.now = 0.0
        self.memory = Memory()
        self.options = DeliveryOptions(**options)
        self.dispatcher = Dispatcher(self.options, retry or ExponentialBackoff(), lambda: chance, wants_results=lambda: True)

    def accept(self, *parcels: Parcel) -> None:
        self.dispatcher.accept(parcels, self.now)

    def next(self) -> Batch | None:
        return self.dispatcher.next_batch(self.now)

    def send(self) -> Batch:
        """Give the next batch without waiting for company."""
        self.dispatcher.hurry(self.dispatcher.last_order)
        batch = self.next()
        assert batch is not None
        return batch

    def settle(self, batch: Batch, receipt: Receipt) -> None:
        self.dispatcher.settle(batch, receipt, self.now)
        self.tell()

    def expire(self, wall_ms: int) -> None:
        self.dispatcher.expire(wall_ms, self.now)
        self.tell()

    def tell(self) -> None:
        notes, self.dispatcher.notes = self.dispatcher.notes, []
        tell([self.memory], notes)

    def stats(self) -> Stats:
        return self.dispatcher.stats()


class Record:
    """An event on a `Disk`."""

    def __init__(self, parcel: Parcel) -> None:
        self.parcel = parcel
        self.order = self.attempts = 0
        self.state = "unread"  # then "read"; "shelved", "unread"; "gone"


class Disk:
    """A spool without files: gives everything once, oldest first, and what is shelved once more when it is told to revisit."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.adopted = self.corrupt = self.expired = self.gone = 0

    @property
    def appended(self) -> int:
        return len(self.records)

    @property
    def behind(self) -> bool:
        return any(record.state == "unread" for record in self.records)

    @property
    def revisits(self) -> bool:
        return any(record.state == "unread" and record.order for record in self.records)

    def write(self, parcel: Parcel) -> None:
        self.records.append(Record(parcel))

    def read(self, most: int, before_ms: int, expired: list[Parcel]) -> list[Parcel]:
        found: list[Parcel] = []
        for record in [record for record in self.records if record.state == "unread"][:most]:
            parcel = Parcel(record.parcel.body, record.parcel.ids, record.parcel.accepted_ms, record)
            parcel.order, parcel.attempts = record.order, record.attempts
            is_old = parcel.accepted_ms < before_ms
            record.state = "gone" if is_old else "read"
            self.expired += is_old
            self.gone += is_old and not record.order
            (expired if is_old else found).append(parcel)
        return found

    def shelve(self, parcels: Sequence[Parcel]) -> None:
        for parcel in parcels:
            record = parcel.place
            assert isinstance(record, Record)
            assert record.state == "read"
            record.state, record.order, record.attempts = "shelved", parcel.order, parcel.attempts

    def revisit(self) -> None:
        for record in self.records:
            if record.state == "shelved":
                record.state = "unread"

    def resolve(self, places: Sequence[object]) -> None:
        for record in places:
            assert isinstance(record, Record)
            assert record.state == "read"
            record.state = "gone"
