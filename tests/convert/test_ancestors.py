"""Which spans are above another one, in whatever order they are read, within bounds."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from otel_amplitude.convert.ancestors import Ancestors, Waiting, above, key_of
from otel_amplitude.convert.recorded import Ids

TRACE = 7


def ids(number: int, parent: int = 0, *, is_remote: bool = False) -> Ids:
    return Ids(TRACE, number, parent, is_remote, 0)


def key(number: int) -> int:
    return key_of(ids(number))


def users(line: Any) -> list[str]:
    return [known.attributes["user.id"] for known in line.parents]


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_order_does_not_matter(forest: list[tuple[int, bool]], random: Any) -> None:
    """Asked at any moment and in any order, the chain that is known in the end is the chain there is; circles end."""
    spans = [(number, parent if parent <= len(forest) else 0, has_user) for number, (parent, has_user) in enumerate(forest, start=1)]
    random.shuffle(spans)
    found = Ancestors()
    for number, parent, has_user in spans:
        found.note(ids(number, parent), {"user.id": str(number)} if has_user else None)
        found.of(key(random.randint(1, len(spans))))  # shortens what is known so far
    by_number = {number: (parent, has_user) for number, parent, has_user in spans}
    for number in by_number:
        line = found.of(key(number))
        chain, step, passed = [], number, set()
        while step and step not in passed:
            passed.add(step)
            if by_number[step][1]:
                chain.append(str(step))
            step = by_number[step][0]
        assert (users(line), line.missing) == (chain, 0)


def test_what_is_missing() -> None:
    """It is the first span above that was not read; a remote parent, and none, end the way."""
    found = Ancestors()
    found.note(ids(3, 2), None)
    found.note(ids(2, 1), {"user.id": "two"})
    line = found.of(key(3))
    assert (users(line), line.missing) == (["two"], key(1))
    found.note(ids(1, 9, is_remote=True), {"user.id": "one"})
    line = found.of(key(3))
    assert (users(line), line.missing) == (["two", "one"], 0)
    assert found.of(0) == ([], 0)
    assert above(ids(1, 9, is_remote=True), is_span=True) == 0
    assert above(ids(1, 9), is_span=False) == key(1)
    assert above(Ids(0, 0, 0, False, 0), is_span=False) == 0


def test_a_chain_of_any_length_costs_about_one_step() -> None:
    """Asked for each of its spans, a chain of ten thousand is walked once, not ten thousand times."""
    count, steps = 10_000, 0

    class Counted(Ancestors):
        def _link(self, link: int) -> Any:
            nonlocal steps
            steps += 1
            return super()._link(link)

    found = Counted()
    for number in range(1, count + 1):
        found.note(ids(number, number - 1), {"user.id": "one"} if number == 1 else None)
    for number in range(count, 0, -1):
        assert users(found.of(key(number))) == ["one"]
    assert steps < 5 * count


def test_the_newest_spans_are_remembered() -> None:
    """At least half of the bound, at most all of it."""
    found = Ancestors(most=1_000)
    for number in range(1, 5_001):
        found.note(ids(number), {"user.id": str(number)})
    known = [number for number in range(1, 5_001) if not found.of(key(number)).missing]
    assert 500 <= len(known) <= 1_000
    assert known[-1] == 5_000
    assert len(found._young) + len(found._old) <= 1_000


def test_items_that_wait() -> None:
    """They come out when their span arrives, or when there are too many or too much of them, the oldest first."""
    waiting: Waiting[str] = Waiting(most=3, most_bytes=100)
    for number, name in enumerate("abcd"):
        waiting.add(name, key=number % 2, size=10)
    assert list(waiting.too_many()) == ["a"]
    first, second = waiting.arrived(1)
    assert (waiting.take(first), second.item, len(waiting)) == ("b", "d", 2)
    waiting.again(second, key=5)
    assert waiting.arrived(1) == []
    waiting.add("e", key=5, size=85)
    assert list(waiting.too_many()) == ["c"]
    assert list(waiting) == ["d", "e"]
    assert [held.item for held in waiting.arrived(5)] == ["d", "e"]
    assert list(waiting.rest()) == ["d", "e"]
    assert len(waiting) == 0


def test_keys_of_items_that_are_gone_take_no_memory() -> None:
    """A file of orphans, each with a parent of its own, keeps to the bound."""
    waiting: Waiting[int] = Waiting(most=100, most_bytes=10**9)
    for number in range(10_000):
        waiting.add(number, key=number, size=1)
        list(waiting.too_many())
    assert len(waiting) == 100
    assert len(waiting._by_key) <= 201
