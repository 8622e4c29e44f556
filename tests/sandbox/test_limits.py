"""Rates per device and user, with plain numbers for the time."""

from __future__ import annotations

import pytest

from otel_amplitude.sandbox import _limits
from otel_amplitude.sandbox._contract import BATCH, HTTPAPI, Endpoint
from otel_amplitude.sandbox._limits import EpsLimits, Limits


def of(device: str, count: int = 1, user: str = "somebody") -> list[dict[str, str]]:
    """Events of one device and its user."""
    return [{"device_id": device, "user_id": f"{user}-{device}"}] * count


@pytest.mark.parametrize(("endpoint", "eps"), [(HTTPAPI, 30), (BATCH, 1_000)], ids=["httpapi", "batch"])
def test_the_mean_over_thirty_seconds(endpoint: Endpoint, eps: int) -> None:
    """Exactly the limit times the window passes, one more is throttled, and a window later there is room again."""
    limits = Limits(EpsLimits())
    full = of("device-1", eps * 30)
    assert limits.check(endpoint, full, 0.0) is None
    limits.count(endpoint, full, 0.0)
    refused = limits.check(endpoint, of("device-1"), 29.9)
    assert refused is not None
    assert (refused["code"], refused["eps_threshold"], refused["throttled_devices"]) == (429, eps, {"device-1": eps + 1})
    assert limits.check(endpoint, of("device-1"), 30.0) is None


def test_only_the_noisy_are_named() -> None:
    """Neighbours in the same request are not named, and an endpoint does not count for the other."""
    limits = Limits(EpsLimits(httpapi=1.0, window=2.0))
    refused = limits.check(HTTPAPI, of("quiet") + of("noisy", 3), 0.0)
    assert refused is not None
    assert (refused["throttled_events"], list(refused["throttled_devices"]), list(refused["throttled_users"])) == (
        [1, 2, 3],
        ["noisy"],
        ["somebody-noisy"],
    )
    assert limits.check(BATCH, of("noisy", 3), 0.0) is None


def test_devices_of_one_user_are_throttled_together() -> None:
    """Both ids are measured: many quiet devices make one noisy user."""
    limits = Limits(EpsLimits(httpapi=1.0, window=2.0))
    refused = limits.check(HTTPAPI, [{"device_id": f"device-{number}", "user_id": "one user"} for number in range(3)], 0.0)
    assert refused is not None
    assert (refused["throttled_devices"], refused["throttled_users"]) == ({}, {"one user": 2})


def test_what_was_refused_does_not_count() -> None:
    """Only stored events count, so that waiting always helps."""
    limits = Limits(EpsLimits(httpapi=1.0, window=2.0))
    for _ in range(3):
        assert limits.check(HTTPAPI, of("noisy", 3), 0.0) is not None
    assert limits.check(HTTPAPI, of("noisy", 2), 0.0) is None


def test_memory_is_bounded_and_can_be_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the oldest ids are forgotten; reset forgets all; without limits nothing is ever throttled."""
    monkeypatch.setattr(_limits, "MAX_IDS", 4)
    limits = Limits(EpsLimits(httpapi=1.0, window=2.0))
    for number in range(9):
        limits.count(HTTPAPI, of(f"device-{number}", 2), 0.0)
    assert len(limits._stored) == 4
    assert limits.check(HTTPAPI, of("device-8"), 0.0) is not None
    limits.reset()
    assert limits.check(HTTPAPI, of("device-8"), 0.0) is None
    unlimited = Limits(None)
    unlimited.count(HTTPAPI, of("noisy", 5_000), 0.0)
    assert unlimited.check(HTTPAPI, of("noisy", 5_000), 0.0) is None
