"""Sampling by user."""

import pytest

from otel_amplitude.errors import ConfigurationError
from otel_amplitude.middleware import SampleByUser

USERS = [f"user-{number}" for number in range(400)]


def kept(through, rate: float) -> set[str]:
    """The users that a rate lets through."""
    return {user for user in USERS if through(SampleByUser(rate), {"user_id": user})}


def test_about_the_share_is_kept_and_more_of_it_at_higher_rates(through) -> None:
    """A user of a smaller sample is in every larger one."""
    some, more = kept(through, 0.1), kept(through, 0.5)
    assert some < more
    assert 20 <= len(some) <= 65
    assert 160 <= len(more) <= 240
    assert kept(through, 0) == set()
    assert kept(through, 1) == set(USERS)


def test_the_choice_never_changes(through) -> None:
    """The same in every process and release: these three are in or out for good."""
    assert [through(SampleByUser(0.5), {"user_id": user}) is not None for user in ("u-12345", "u-12346", "u-12347")] == [True, False, True]
    assert through(SampleByUser(0.5), {"user_id": " u-12345 "}) is not None


def test_the_device_decides_where_no_user_is_known_and_nobody_passes(through) -> None:
    """Nobody is refused later, by its own reason."""
    half = SampleByUser(0.5)
    for name in USERS[:20]:
        assert (through(half, {"device_id": name}) is None) == (through(half, {"user_id": name, "device_id": "other"}) is None)
    assert through(SampleByUser(0), {"event_type": "A"}) == {"event_type": "A"}


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan"), "0.1"])
def test_the_rate_is_a_share(rate) -> None:
    """Said at start-up."""
    with pytest.raises(ConfigurationError, match="rate must be 0 to 1, not "):
        SampleByUser(rate)
