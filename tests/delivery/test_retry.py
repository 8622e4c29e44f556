"""How long to wait is a value."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otel_amplitude.delivery.retry import ExponentialBackoff, FixedWaits


@given(attempt=st.integers(1, 10_000), chance=st.floats(0, 1))
def test_backoff_stays_between_nothing_and_its_bound(attempt: int, chance: float) -> None:
    """Full jitter: any part of a bound that doubles, never above the most, whatever the attempt."""
    wait = ExponentialBackoff(0.5, 60.0).wait(attempt, lambda: chance)
    assert wait is not None
    assert 0.0 <= wait <= min(60.0, 0.5 * 2.0 ** min(attempt - 1, 100))


def test_fixed_waits_give_up_after_the_last() -> None:
    """Two waits mean three attempts."""
    policy = FixedWaits((0.1, 0.2))
    assert [policy.wait(attempt, lambda: 1.0) for attempt in (1, 2, 3)] == [0.1, 0.2, None]


def test_an_empty_list_means_no_retry() -> None:
    """Nothing is sent twice."""
    assert FixedWaits().wait(1, lambda: 1.0) is None
