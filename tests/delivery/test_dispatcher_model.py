"""The law of the books: whatever is submitted, answered and waited for, a dispatcher keeps every promise a small model knows of."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from parcels import CHARGED, HELD, INVALID, Events, EventsOnDisk, Memory, acknowledged, answer, divided, fault, names, throttled

from otel_amplitude.delivery import dispatcher as room
from otel_amplitude.delivery.dispatcher import Batch, DeliveryOptions, Dispatcher
from otel_amplitude.delivery.observer import tell
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.receipt import ACKNOWLEDGED, RESEND, Outcome, Receipt, Split, Verdict
from otel_amplitude.delivery.retry import ExponentialBackoff, FixedWaits

IDS = st.sampled_from([("u1", "d1"), ("u1",), ("d1",), ("u2", "d2"), ("u2", "d1"), ("u3",), ("d4",), ("u5", "d5"), ("u6",), ("u7",)])
VERDICTS = st.sampled_from([ACKNOWLEDGED, INVALID, CHARGED, RESEND, HELD, Outcome(Verdict.RETRY, "slow", charged=False, hold=5.0)])
AGE = 1000.0
MOST_IN_LINE = room.MOST_IN_LINE


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

    def make_events(self) -> Events:
        return Events(lambda: self.now)

    def start(self) -> None:
        self.events = self.make_events()
        self.dispatcher = Dispatcher(self.options, self.events, wants_results=lambda: True, random=lambda: self.chance)
        self.memory = Memory()
        self.accepted: list[Parcel] = []
        self.bodies: dict[str, bytes] = {}
        self.flushes: list[int] = []
        self.flying: list[Batch] = []
        self.closed = False

    def settle(self, batch: Batch, receipt: Receipt) -> None:
        self.dispatcher.settle(batch, answer(batch, receipt, self.retry, lambda: self.chance), self.now)
        self.tell()

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

    @precondition(lambda self: not self.closed)
    @rule(ids=st.lists(IDS, min_size=1, max_size=12), size=st.integers(10, 40))
    def submit(self, ids: list[tuple[str, ...]], size: int) -> None:
        self.events.add(*self.parcels(ids, size))

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 5.0, 30.0, 61.0]))
    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.dispatcher.expire(self.now)
        self.tell()

    @rule()
    def flush(self) -> None:
        self.dispatcher.hurry(len(self.accepted))
        self.flushes.append(len(self.accepted))

    @rule()
    def send(self) -> None:
        while (batch := self.dispatcher.next_batch(self.now)) is not None:
            self.check_sent(batch)
            self.flying.append(batch)
            assert len(self.flying) <= self.options.max_in_flight
        self.tell()
        wake_at = self.dispatcher.wake_at()
        waiting = (self.dispatcher.staged or len(self.dispatcher.lines)) and not self.closed
        assert wake_at is None or wake_at > self.now
        assert not waiting or self.flying or wake_at is not None or self.is_loading

    @rule(ids=st.lists(IDS, min_size=1, max_size=12))
    def submit_and_send(self, ids: list[tuple[str, ...]]) -> None:
        """Without these, few histories of this length have much in flight."""
        if not self.closed:
            self.submit(ids, 10)
            self.flush()
        self.send()

    @property
    def is_loading(self) -> bool:
        """Whether the next decision comes with an answer of the disk."""
        return False

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
        self.settle(batch, receipt)

    @precondition(lambda self: self.flying)
    @rule()
    def succeed(self) -> None:
        batch = self.flying.pop(0)
        self.settle(batch, acknowledged(batch))

    @precondition(lambda self: self.flying)
    @rule(which=st.integers(0, 3), ids=st.sets(st.sampled_from(["u1", "d1", "u2", "d4", "u6"]), min_size=1, max_size=2))
    def throttle(self, which: int, ids: set[str]) -> None:
        batch = self.flying.pop(which % len(self.flying))
        self.settle(batch, throttled(batch, *ids))

    @precondition(lambda self: self.flying)
    @rule(which=st.integers(0, 3), pause=st.sampled_from([None, 2.0, 1e6]))
    def fail(self, which: int, pause: float | None) -> None:
        batch = self.flying.pop(which % len(self.flying))
        self.settle(batch, fault(batch, pause))

    @precondition(lambda self: self.flying)
    @rule(which=st.integers(0, 3), split=st.sampled_from(Split))
    def divide(self, which: int, split: Split) -> None:
        batch = self.flying.pop(which % len(self.flying))
        self.settle(batch, divided(batch, split))

    @precondition(lambda self: self.flying)
    @rule()
    def raise_an_error(self) -> None:
        batch = self.flying.pop()
        split = Split.BISECT if len(batch) > 1 else Split.NO
        self.settle(batch, Receipt([Outcome(Verdict.RETRY, "internal")] * len(batch), "internal", split, server_fault=True))

    @precondition(lambda self: not self.closed and len(self.accepted) > 12)
    @rule(dice=st.integers(0, 4))
    def shut_down(self, dice: int) -> None:
        if dice:  # else most histories would end too soon
            return
        self.dispatcher.give_up()
        self.dispatcher.end_rest(self.events.rest(), "dropped", "shutdown")
        self.tell()
        self.closed = True
        assert not self.events.rest()

    @precondition(lambda self: len(self.accepted) > 40)
    @rule()
    def fork(self) -> None:
        self.start()

    @invariant()
    def books_balance(self) -> None:
        if not hasattr(self, "dispatcher"):
            return
        self.tell()
        ledger, flying = self.dispatcher.ledger, self.dispatcher.flying
        pending = len(self.accepted) - len(self.events.resolved)
        assert len(self.accepted) == ledger.acknowledged + sum(ledger.rejected.values()) + sum(ledger.dropped.values()) + pending
        assert sum(map(len, flying)) == len(self.events.flying) == (0 if self.closed else sum(map(len, self.flying)))
        assert len(self.dispatcher.lines) == len(self.events.lined)
        assert self.dispatcher.staged + len(self.events.lined) + len(self.events.flying) <= pending
        assert len(self.memory.ends) == len(self.ended) == len(self.accepted) - pending
        assert ledger.acknowledged == self.memory.outcomes["acknowledged"]
        assert sum(ledger.rejected.values()) == self.memory.outcomes["rejected"]
        assert sum(ledger.dropped.values()) == self.memory.outcomes["dropped"]

    @invariant()
    def a_flush_tells_the_truth(self) -> None:
        if not hasattr(self, "dispatcher"):
            return
        for count in self.flushes:
            if self.events.is_settled(count):
                assert set(names(self.accepted[:count])) <= self.ended

    def look_after_disk(self) -> None:
        """Do what an exporter does between two looks at its dispatcher."""

    def teardown(self) -> None:
        """Whatever happened before: a server that answers from now on gets everything, soon."""
        if not hasattr(self, "dispatcher"):
            return
        end = self.now + AGE / 2
        self.events.times = [self.now] * len(self.events.times)
        while self.events.rest():
            for batch in self.flying:
                self.settle(batch, acknowledged(batch))
            self.flying = []
            self.look_after_disk()
            batch = self.dispatcher.next_batch(self.now)
            if batch is not None:
                self.check_sent(batch)
                self.flying.append(batch)
            elif self.events.rest() and not self.is_loading:
                wake_at = self.dispatcher.wake_at()
                assert wake_at is not None
                assert self.now < wake_at < end
                self.now = wake_at
        self.books_balance()


class DeliveryWithDisk(Delivery):
    """The same with a disk: what has to wait leaves the memory, and must be loaded before it can be sent."""

    cached = 10

    def make_events(self) -> Events:
        return EventsOnDisk(lambda: self.now)

    @property
    def is_loading(self) -> bool:
        assert isinstance(self.events, EventsOnDisk)
        return bool(self.events.wanted)

    @rule()
    def look_after_disk(self) -> None:
        """The disk answers."""
        assert isinstance(self.events, EventsOnDisk)
        if self.events.load():
            self.dispatcher.loaded()

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
            self.settle(batch, Receipt(outcomes, "throttled", status=429))
        self.flying = []


class DeliveryOfStrangers(DeliveryWithDisk):
    """The same, where so many events have to wait that reading forward has to stop."""

    known = 3

    def start(self) -> None:
        room.MOST_IN_LINE = self.known  # type: ignore[misc]
        super().start()

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            room.MOST_IN_LINE = MOST_IN_LINE  # type: ignore[misc]


TestDelivery = Delivery.TestCase
TestDeliveryWithDisk = DeliveryWithDisk.TestCase
TestDeliveryWithDisk.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
TestDeliveryOfStrangers = DeliveryOfStrangers.TestCase
TestDeliveryOfStrangers.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestDelivery.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
