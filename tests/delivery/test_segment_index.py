"""The index of a segment, against a plain dictionary."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otel_amplitude.delivery.disk.segment_index import SegmentIndex, Shelved

STARTS = st.integers(0, 30).map(lambda number: 64 + number * 10)
STEPS = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 5)),
    st.tuples(st.sampled_from(["resolve", "take"]), STARTS),
    st.tuples(st.just("shelve"), st.builds(Shelved, STARTS, st.integers(1, 2**40), st.integers(0, 100_000))),
)


@given(steps=st.lists(STEPS, max_size=40), looks=st.lists(st.integers(0, 400), min_size=3, max_size=3))
def test_knows_what_became_of_each_record(steps: list[tuple[str, object]], looks: list[int]) -> None:
    """Records are added in order; whatever is said of one that was not added is passed over."""
    index = SegmentIndex()
    model: dict[int, Shelved | str] = {}
    for name, value in steps:
        if name == "add":
            assert isinstance(value, int)
            starts = [64 + (len(model) + number) * 10 for number in range(value)]
            index.add(starts)
            model.update(dict.fromkeys(starts, "read"))
        elif name == "shelve":
            assert isinstance(value, Shelved)
            if model.get(value.start) == "resolved":
                continue  # that is final
            index.shelve(value)
            if value.start in model:
                model[value.start] = value._replace(attempts=min(value.attempts, 65_535))
        else:
            assert isinstance(value, int)
            if model.get(value) == "resolved":
                continue
            (index.resolve if name == "resolve" else index.take)(value)
            if value in model:
                model[value] = "resolved" if name == "resolve" else "read"
        assert index.first_unresolved() == next((start for start, what in model.items() if what != "resolved"), None)
    shelved = [value for value in model.values() if isinstance(value, Shelved)]
    for look in looks:
        assert index.first_shelved(look) == next((record for record in shelved if record.start >= look), None)
