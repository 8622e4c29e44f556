"""The law of the books: whatever is submitted, answered and waited for, a dispatcher keeps every promise a small model knows of."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from parcels import CHARGED, HELD, INVALID, Memory, acknowledged, divided, fault, names, throttled

from otel_amplitude.delivery._dispatcher import Batch, DeliveryOptions, Dispatcher
from otel_amplitude.delivery._observer import tell
from otel_amplitude.delivery._parcel import Parcel
from otel_amplitude.delivery._receipt import ACKNOWLEDGED, RESEND, Outcome, Receipt, Split, Verdict
from otel_amplitude.delivery._retry import ExponentialBackoff, FixedWaits

IDS = st.sampled_from([("u1", "d1"), ("u1",), ("d1",), ("u2", "d2"), ("u2", "d1"), ("u3",), ("d4",), ("u5", "d5"), ("u6",), ("u7",)])
VERDICTS = st.sampled_from([ACKNOWLEDGED, INVALID, CHARGED, RESEND, HELD, Outcome(Verdict.RETRY, "slow", charged=False, hold=5.0)])
AGE = 1000.0


class Delivery(RuleBasedStateMachine):
    """Drives a dispatcher with any history; the model is a list of everything accepted and a set of what came to its end."""

    @initialize(
        fixed=st.booleans(),
        events=st.integers(1, 8),
        size=st.sampled_from([15, 60, 10_000]),
        flying=st.integers(1, 4),
        chance=st.floats(0, 1),
    )
    def begin(self, fixed: bool, events: int, size: int, flying: int, chance: float) -> None:
        self.options = DeliveryOptions(max_batch_events=events, max_batch_bytes=size, max_in_flight=flying, max_event_age=AGE)
        self.retry = FixedWaits((0.1, 0.2)) if fixed else ExponentialBackoff()
        self.chance = chance
        self.now = 0.0
        self.start()

    def start(self) -> None:
        self.dispatcher = Dispatcher(self.options, self.retry, lambda: self.chance, wants_results=lambda: True)
        self.memory = Memory()
        self.accepted: list[Parcel] = []
        self.bodies: dict[str, bytes] = {}
        self.flying: list[Batch] = []
        self.closed = False

    def tell(self) -> None:
        notes, self.dispatcher.notes = self.dispatcher.notes, []
        tell([self.memory], notes)

    @property
    def ended(self) -> set[str]:
        return {name for name, _, _ in self.memory.ends}

    @rule(ids=st.lists(IDS, min_size=1, max_size=12), size=st.integers(10, 40))
    def submit(self, ids: list[tuple[str, ...]], size: int) -> None:
        parcels = [Parcel(f"{len(self.accepted) + i}".encode().ljust(size), each, int(self.now * 1000)) for i, each in enumerate(ids)]
        self.accepted += parcels
        self.bodies.update(zip(names(parcels), [parcel.body for parcel in parcels], strict=True))
        assert self.dispatcher.accept(parcels, self.now) == sum(len(parcel.body) for parcel in parcels)
        self.tell()

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 5.0, 30.0, 61.0]))
    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.dispatcher.expire(int(self.now * 1000), self.now)
        self.tell()

    @rule()
    def flush(self) -> None:
        self.dispatcher.hurry(self.dispatcher.last_order)

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
        assert self.dispatcher.stats().balanced
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
        stats = self.dispatcher.stats()
        assert stats.balanced, stats
        assert stats.accepted == len(self.accepted)
        assert stats.pending.in_flight == (0 if self.closed else sum(map(len, self.flying)))
        assert len(self.memory.ends) == len(self.ended) == len(self.accepted) - stats.pending.total
        assert stats.acknowledged == self.memory.outcomes["acknowledged"]
        assert sum(stats.rejected.values()) == self.memory.outcomes["rejected"]
        assert sum(stats.dropped.values()) == self.memory.outcomes["dropped"]
        pending = sum(len(parcel.body) for parcel in self.accepted if names([parcel])[0] not in self.ended)
        assert self.dispatcher.memory_bytes == pending
        assert self.dispatcher.backlog.size == sum(len(parcel.body) for parcel in self.dispatcher.backlog.ready)

    def teardown(self) -> None:
        """Whatever happened before: a server that answers from now on gets everything, soon."""
        if not hasattr(self, "dispatcher"):
            return
        end = self.now + AGE / 2
        for parcel in self.accepted:
            parcel.accepted_ms = int(self.now * 1000)
        while self.dispatcher.memory_events:
            for batch in self.flying:
                self.dispatcher.settle(batch, acknowledged(batch), self.now)
            self.flying = []
            self.tell()
            batch = self.dispatcher.next_batch(self.now)
            if batch is not None:
                self.check_sent(batch)
                self.flying.append(batch)
            elif self.dispatcher.memory_events:
                wake_at = self.dispatcher.wake_at(self.now, int(self.now * 1000))
                assert wake_at is not None
                assert self.now < wake_at < end
                self.now = wake_at
        self.books_balance()


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
