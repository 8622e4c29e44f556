"""The law of the books: whatever is submitted, answered and waited for, a dispatcher keeps every promise a small model knows of."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from parcels import CHARGED, HELD, INVALID, Disk, Memory, acknowledged, divided, fault, names, throttled

from otel_amplitude.delivery.dispatcher import NO_DISK, Batch, DeliveryOptions, DiskBooks, Dispatcher
from otel_amplitude.delivery.observer import tell
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.receipt import ACKNOWLEDGED, RESEND, Outcome, Receipt, Split, Verdict
from otel_amplitude.delivery.retry import ExponentialBackoff, FixedWaits
from otel_amplitude.delivery.shelf import MOST_SHELVED_IDS, Shelf

IDS = st.sampled_from([("u1", "d1"), ("u1",), ("d1",), ("u2", "d2"), ("u2", "d1"), ("u3",), ("d4",), ("u5", "d5"), ("u6",), ("u7",)])
VERDICTS = st.sampled_from([ACKNOWLEDGED, INVALID, CHARGED, RESEND, HELD, Outcome(Verdict.RETRY, "slow", charged=False, hold=5.0)])
AGE = 1000.0


class Delivery(RuleBasedStateMachine):
    """Drives a dispatcher with any history; the model is a list of everything accepted and a set of what came to its end."""

    cached = DeliveryOptions().max_cached_events

    @initialize(
        fixed=st.booleans(),
        events=st.integers(1, 8),
        size=st.sampled_from([15, 60, 10_000]),
        flying=st.integers(1, 4),
        chance=st.floats(0, 1),
    )
    def begin(self, fixed: bool, events: int, size: int, flying: int, chance: float) -> None:
        self.options = DeliveryOptions(
            max_batch_events=events, max_batch_bytes=size, max_in_flight=flying, max_event_age=AGE, max_cached_events=self.cached
        )
        self.retry = FixedWaits((0.1, 0.2)) if fixed else ExponentialBackoff()
        self.chance = chance
        self.now = 0.0
        self.start()

    def start(self) -> None:
        self.dispatcher = Dispatcher(self.options, self.retry, lambda: self.chance, wants_results=lambda: True)
        self.memory = Memory()
        self.accepted: list[Parcel] = []
        self.bodies: dict[str, bytes] = {}
        self.disk_books: DiskBooks = NO_DISK
        self.flushes: list[tuple[int, int]] = []
        self.flying: list[Batch] = []
        self.closed = False

    def tell(self) -> None:
        notes, self.dispatcher.notes = self.dispatcher.notes, []
        tell([self.memory], notes)

    @property
    def ended(self) -> set[str]:
        return {name for name, _, _ in self.memory.ends}

    def parcels(self, ids: list[tuple[str, ...]], size: int) -> list[Parcel]:
        parcels = [Parcel(f"{len(self.accepted) + i}".encode().ljust(size), each, int(self.now * 1000)) for i, each in enumerate(ids)]
        self.accepted += parcels
        self.bodies.update(zip(names(parcels), [parcel.body for parcel in parcels], strict=True))
        return parcels

    @rule(ids=st.lists(IDS, min_size=1, max_size=12), size=st.integers(10, 40))
    def submit(self, ids: list[tuple[str, ...]], size: int) -> None:
        parcels = self.parcels(ids, size)
        assert self.dispatcher.accept(parcels, self.now) == sum(len(parcel.body) for parcel in parcels)
        self.tell()

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 5.0, 30.0, 61.0]))
    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.dispatcher.expire(int(self.now * 1000), self.now)
        self.tell()

    @rule()
    def flush(self) -> None:
        mark = self.dispatcher.last_number(self.disk_books)
        self.dispatcher.hurry(mark)
        self.flushes.append((len(self.accepted), mark))

    @rule()
    def send(self) -> None:
        while (batch := self.dispatcher.next_batch(self.now)) is not None:
            self.check_sent(batch)
            self.flying.append(batch)
            assert len(self.flying) <= self.options.max_in_flight
        wake_at = self.dispatcher.wake_at(self.now, int(self.now * 1000))
        waiting = self.dispatcher.backlog.ready or self.dispatcher.backlog.aside
        assert wake_at is None or wake_at > self.now
        assert not waiting or self.flying or wake_at is not None

    def check_sent(self, batch: Batch) -> None:
        assert 0 < len(batch) <= self.options.max_batch_events
        assert len(batch) == 1 or batch.size <= self.options.max_batch_bytes
        assert [parcel.body for parcel in batch] == [self.bodies[name] for name in names(batch)]
        settled = self.ended
        for later in batch:
            own = names([later])[0]
            for earlier in self.accepted[: int(own)]:
                name = names([earlier])[0]
                assert name in settled or not set(earlier.ids) & set(later.ids), (name, own)
            settled.add(own)

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), which=st.integers(0, 3))
    def answer(self, data: st.DataObject, which: int) -> None:
        batch = self.flying.pop(which % len(self.flying))
        outcomes = data.draw(
            st.one_of(
                st.just([ACKNOWLEDGED] * len(batch)),
                st.just([RESEND] * len(batch)),
                st.lists(VERDICTS, min_size=len(batch), max_size=len(batch)),
            )
        )
        receipt = Receipt(
            outcomes,
            "some_reason",
            split=data.draw(st.sampled_from(Split)),
            server_fault=data.draw(st.booleans()),
            pause=data.draw(st.sampled_from([None, None, 2.0, 1e6])),
            probing=data.draw(st.sampled_from([False, False, True])),
        )
        self.dispatcher.settle(batch, receipt, self.now, 0.1)
        self.tell()

    @precondition(lambda self: self.flying)
    @rule()
    def succeed(self) -> None:
        batch = self.flying.pop(0)
        self.dispatcher.settle(batch, acknowledged(batch), self.now)
        self.tell()

    @precondition(lambda self: self.flying)
    @rule(which=st.integers(0, 3), ids=st.sets(st.sampled_from(["u1", "d1", "u2", "d4", "u6"]), min_size=1, max_size=2))
    def throttle(self, which: int, ids: set[str]) -> None:
        batch = self.flying.pop(which % len(self.flying))
        self.dispatcher.settle(batch, throttled(batch, *ids), self.now)
        self.tell()

    @precondition(lambda self: self.flying)
    @rule(which=st.integers(0, 3))
    def fail(self, which: int) -> None:
        batch = self.flying.pop(which % len(self.flying))
        self.dispatcher.settle(batch, fault(batch), self.now)
        self.tell()

    @precondition(lambda self: self.flying)
    @rule(which=st.integers(0, 3), split=st.sampled_from(Split))
    def divide(self, which: int, split: Split) -> None:
        batch = self.flying.pop(which % len(self.flying))
        self.dispatcher.settle(batch, divided(batch, split), self.now)
        self.tell()

    @precondition(lambda self: self.flying)
    @rule()
    def raise_an_error(self) -> None:
        self.dispatcher.fail(self.flying.pop(), RuntimeError("bug"), self.now)
        self.tell()

    @precondition(lambda self: not self.closed and len(self.accepted) > 40)
    @rule()
    def shut_down(self) -> None:
        self.dispatcher.give_up()
        assert self.dispatcher.stats(self.disk_books).balanced
        self.dispatcher.drop_leaving()
        self.tell()
        self.closed = True
        assert self.dispatcher.memory_bytes == 0

    @precondition(lambda self: len(self.accepted) > 40)
    @rule()
    def fork(self) -> None:
        self.start()

    @invariant()
    def books_balance(self) -> None:
        if not hasattr(self, "dispatcher"):
            return
        stats = self.dispatcher.stats(self.disk_books)
        assert stats.balanced, stats
        assert stats.accepted == len(self.accepted)
        assert stats.pending.in_flight == (0 if self.closed else sum(map(len, self.flying)))
        assert len(self.memory.ends) == len(self.ended) == len(self.accepted) - stats.pending.total
        assert stats.acknowledged == self.memory.outcomes["acknowledged"]
        assert sum(stats.rejected.values()) == self.memory.outcomes["rejected"]
        assert sum(stats.dropped.values()) == self.memory.outcomes["dropped"]
        elsewhere = self.ended | self.on_disk
        pending = sum(len(parcel.body) for parcel in self.accepted if names([parcel])[0] not in elsewhere)
        assert self.dispatcher.memory_bytes == pending
        assert stats.pending.spooled == len(self.on_disk)
        assert self.dispatcher.backlog.size == sum(len(parcel.body) for parcel in self.dispatcher.backlog.ready)

    @property
    def on_disk(self) -> set[str]:
        """What lies on disk and nowhere else."""
        return set()

    @invariant()
    def a_flush_tells_the_truth(self) -> None:
        if not hasattr(self, "dispatcher"):
            return
        for count, mark in self.flushes:
            if not self.dispatcher.is_waiting(mark, self.disk_books):
                assert set(names(self.accepted[:count])) <= self.ended

    def look_after_disk(self) -> None:
        """Do what an exporter does between two looks at its dispatcher."""

    def wake_at(self) -> float | None:
        return self.dispatcher.wake_at(self.now, int(self.now * 1000))

    def teardown(self) -> None:
        """Whatever happened before: a server that answers from now on gets everything, soon."""
        if not hasattr(self, "dispatcher"):
            return
        end = self.now + AGE / 2
        for parcel in self.accepted:
            parcel.accepted_ms = int(self.now * 1000)
        self.look_after_disk()
        while self.dispatcher.memory_events or (self.on_disk and not self.closed):
            for batch in self.flying:
                self.dispatcher.settle(batch, acknowledged(batch), self.now)
            self.flying = []
            self.tell()
            self.look_after_disk()
            batch = self.dispatcher.next_batch(self.now)
            if batch is not None:
                self.check_sent(batch)
                self.flying.append(batch)
            elif self.dispatcher.memory_events or self.on_disk:
                wake_at = self.wake_at()
                assert wake_at is not None
                assert self.now < wake_at < end
                self.now = wake_at
        self.books_balance()


class DeliveryWithDisk(Delivery):
    """The same with a disk, and with a memory of which so little may be used for whoever waits that most of them have to stay on disk."""

    cached = 10
    known = MOST_SHELVED_IDS

    def start(self) -> None:
        super().start()
        self.dispatcher.backlog.shelf = Shelf(self.known)
        self.disk_books = self.disk = Disk()
        self.is_read = True  # and the exporter knows it

    def tell(self) -> None:
        super().tell()
        self.disk.resolve(self.dispatcher.resolved)
        self.dispatcher.resolved = []

    @property
    def on_disk(self) -> set[str]:
        states = ("unread", "read", "shelved") if self.closed else ("unread", "shelved")
        return set(names([record.parcel for record in self.disk.records if record.state in states] + self.dispatcher.shelved))

    @rule(ids=st.lists(IDS, min_size=1, max_size=12), size=st.integers(10, 40))
    def submit(self, ids: list[tuple[str, ...]], size: int) -> None:
        """Nothing is booked while anything that was accepted before is still to be read."""
        if self.closed or self.is_read:
            super().submit(ids, size)
        else:
            self.write(ids, size)

    @precondition(lambda self: not self.closed)
    @rule(ids=st.lists(IDS, min_size=1, max_size=12), size=st.integers(10, 40))
    def write(self, ids: list[tuple[str, ...]], size: int) -> None:
        for parcel in self.parcels(ids, size):
            self.disk.write(parcel)
            self.is_read = False

    @precondition(lambda self: not self.closed)
    @rule(most=st.integers(1, 8))
    def read(self, most: int) -> None:
        self.read_some(most)

    def read_some(self, most: int) -> bool:
        expired: list[Parcel] = []
        parcels = self.disk.read(most, int((self.now - AGE) * 1000), expired)
        self.dispatcher.tell_expired(expired)
        if parcels:
            self.dispatcher.read_from_disk(parcels, self.now)
        elif not self.disk.behind:
            self.is_read = True
        if not self.disk.revisits:
            self.dispatcher.end_sweep(self.now)
        self.shelve()
        return bool(parcels)

    @precondition(lambda self: not self.closed)
    @rule()
    def shelve(self) -> None:
        shelved, self.dispatcher.shelved = self.dispatcher.shelved, []
        self.disk.shelve(shelved)
        self.tell()

    @precondition(lambda self: not self.closed)
    @rule()
    def sweep(self) -> None:
        self.begins_sweep()

    def begins_sweep(self) -> bool:
        begins = self.dispatcher.begins_sweep(self.now)
        if begins:
            self.disk.revisit()
            self.is_read = False
        return begins

    @rule(
        ids=st.sets(st.sampled_from(["u1", "d1", "u2", "d4", "u6"]), max_size=2), looks=st.booleans(), seconds=st.sampled_from([0.0, 31.0])
    )
    def work(self, ids: set[str], looks: bool, seconds: float) -> None:
        """One round of what an exporter does, while some ids are throttled."""
        self.now += seconds
        if looks:
            self.look_after_disk()
        self.flush()
        self.send()
        for batch in self.flying:
            outcomes = [ACKNOWLEDGED if ids.isdisjoint(parcel.ids) else HELD for parcel in batch]
            self.dispatcher.settle(batch, Receipt(outcomes, "throttled", status=429), self.now)
            self.tell()
        self.flying = []

    @rule()
    def look_after_disk(self) -> None:
        if self.closed:
            return
        self.shelve()
        while (self.begins_sweep() or not self.is_read) and self.read_some(8):
            pass

    def wake_at(self) -> float | None:
        moments = [super().wake_at(), self.dispatcher.backlog.sweep_at()]
        return min((moment for moment in moments if moment is not None), default=None)


class DeliveryOfStrangers(DeliveryWithDisk):
    """The same, where so many ids have events on disk that not all of them may be known."""

    known = 3


TestDelivery = Delivery.TestCase
TestDeliveryWithDisk = DeliveryWithDisk.TestCase
TestDeliveryWithDisk.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
TestDeliveryOfStrangers = DeliveryOfStrangers.TestCase
TestDeliveryOfStrangers.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestDelivery.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
