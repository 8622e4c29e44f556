"""How many records may be read now."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from otel_amplitude.worker.rate import MOST_AT_ONCE, Rate


def test_without_a_rate_as_many_as_one_call_takes() -> None:
    """At any time."""
    rate = Rate(None, 0.0)
    assert (rate.allowed(0.0), rate.wait(0.1)) == (MOST_AT_ONCE, 0.0)


@given(per_second=st.floats(0.1, 1e6), steps=st.lists(st.floats(0, 2), max_size=50))
def test_never_more_than_the_rate_and_a_tenth_of_a_second(per_second: float, steps: list[float]) -> None:
    """Whenever it is asked."""
    rate, now, spent = Rate(per_second, 0.0), 0.0, 0
    for step in steps:
        now += step
        allowed = rate.allowed(now)
        rate.spend(allowed)
        spent += allowed
        assert spent <= per_second * now + max(1.0, per_second * 0.1) + 1e-6


@given(per_second=st.floats(0.1, 1e3))
def test_after_the_wait_one_is_allowed(per_second: float) -> None:
    """So that nothing is asked in vain."""
    rate = Rate(per_second, 0.0)
    rate.allowed(0.0)
    wait = rate.wait(100.0)
    assert rate.allowed(wait + 1e-6) >= 1
