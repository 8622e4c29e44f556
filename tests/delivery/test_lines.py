"""The one rule for order, against a model that looks at every event each time."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from otel_amplitude.delivery.lines import Lines

IDS = st.sampled_from([("a",), ("b",), ("a", "x"), ("c", "x"), ("a", "a")])
NAMES = ("a", "b", "c", "x")
SHARE = 3
SIZE = 10


class Rule(RuleBasedStateMachine):
    """Events are read, passed over, put into a request, sent, sent again and dropped; ids are held and released."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = Lines(SHARE, 5 * SIZE)
        self.now = 0.0
        self.last = 0
        self.waiting: dict[int, tuple[str, ...]] = {}
        self.staged: dict[int, tuple[str, ...]] = {}
        self.flying: list[dict[int, tuple[str, ...]]] = []
        self.holds: dict[str, float] = {}

    def is_at_rest(self, name: str) -> bool:
        """Whether an id is neither held nor in flight."""
        return self.holds.get(name, 0.0) <= self.now and not any(name in ids for batch in self.flying for ids in batch.values())

    def may_go(self, number: int) -> bool:
        ids = self.waiting[number]
        is_first = not any(set(ids) & set(other) for earlier, other in self.waiting.items() if earlier < number)
        return is_first and all(map(self.is_at_rest, ids))

    @rule(ids=IDS)
    def read(self, ids: tuple[str, ...]) -> None:
        self.last += 1
        blocked = not all(map(self.is_at_rest, ids)) or any(set(ids) & set(other) for other in self.waiting.values())
        assert self.lines.blocks(ids) == blocked
        if blocked:
            self.lines.pass_over(self.last, ids, SIZE)
            self.waiting[self.last] = ids
        else:
            self.staged[self.last] = ids

    @rule()
    def take(self) -> None:
        number = self.lines.peek()
        assert number == min(filter(self.may_go, self.waiting), default=None)
        if number is not None:
            self.lines.take(number)
            self.staged[number] = self.waiting.pop(number)

    @rule()
    def postpone(self) -> None:
        """What is not in memory lets the next one go first, until it is loaded."""
        number = self.lines.peek()
        if number is not None:
            self.lines.postpone()
            assert self.lines.peek() == min((other for other in self.waiting if other != number and self.may_go(other)), default=None)
            self.lines.again(number)

    @precondition(lambda self: self.staged)
    @rule()
    def send(self) -> None:
        self.lines.depart({name for ids in self.staged.values() for name in ids})
        self.flying.append(self.staged)
        self.staged = {}

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), held=st.sets(st.sampled_from(NAMES), max_size=2))
    def answer(self, data: st.DataObject, held: set[str]) -> None:
        batch = self.flying.pop(data.draw(st.integers(0, len(self.flying) - 1)))
        again = {number: ids for number, ids in sorted(batch.items()) if data.draw(st.booleans())}
        for name in sorted(held):
            self.lines.hold(name, self.now + 5)
            self.holds[name] = self.now + 5
        self.lines.back({name for ids in batch.values() for name in ids}, [(number, ids, SIZE) for number, ids in again.items()])
        self.waiting.update(again)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.waiting)))
        self.lines.drop(number)
        del self.waiting[number]

    @rule(seconds=st.sampled_from([1.0, 5.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.lines.release(self.now)

    @invariant()
    def counts(self) -> None:
        held = {name for name, until in self.holds.items() if until > self.now}
        assert set(self.lines.holds) == held
        assert self.lines.next_release is None or self.lines.next_release > self.now
        assert self.lines.numbers() == sorted(self.waiting)
        assert len(self.lines) == len(self.waiting)
        assert self.lines.held == sum(bool(held.intersection(ids)) for ids in self.waiting.values())
        assert all(self.lines.is_waiting(number) != bool(held.intersection(ids)) for number, ids in self.waiting.items())
        assert self.lines.crowded == {name for name in NAMES if sum(name in ids for ids in self.waiting.values()) >= SHARE}


TestRule = Rule.TestCase
TestRule.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
