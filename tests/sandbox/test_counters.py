"""What exporters post about themselves."""

from __future__ import annotations

from typing import Any

import pytest

from otel_amplitude.delivery.books import DROPPED_REASONS, REFUSED_REASONS
from otel_amplitude.gateway.intake import REASONS as GATEWAY_REASONS
from otel_amplitude.sandbox._counters import REASONS, Processes


def post(pid: int = 1, **counters: Any) -> dict[str, Any]:
    """What one process posts."""
    return {"service": "shop", "pid": pid, "counters": counters}


def test_refusals_of_all_processes_are_summed() -> None:
    """By reason, the most frequent first; of one process the newest post counts."""
    processes = Processes()
    for body in (post(1, refused={"bot": 1}), post(1, refused={"bot": 2}), post(2, refused={"bot": 1, "no_identity": 9}), post(3)):
        processes.post(body)
    assert processes.answer()["refused"] == [{"reason": "no_identity", "count": 9}, {"reason": "bot", "count": 3}]


def test_processes_are_bounded() -> None:
    """The 64 processes that posted last are kept."""
    processes = Processes()
    for pid in range(70):
        processes.post(post(pid))
    processes.post(post(6, accepted=100))
    found = processes.answer()["processes"]
    assert (len(found), found[-1]["counters"]) == (64, {"accepted": 100})
    assert 5 not in [each["pid"] for each in found]


def test_forgetting_starts_from_zero() -> None:
    """A process counts on, but only what came after the reset is shown as refused."""
    processes = Processes()
    processes.post(post(refused={"bot": 3}))
    processes.forget()
    assert processes.answer()["processes"] == []
    processes.post(post(refused={"bot": 5, "rule": 1}))
    assert processes.answer()["refused"] == [{"reason": "bot", "count": 2}, {"reason": "rule", "count": 1}]


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {**post(), "service": ""},
        {**post(), "service": "x" * 201},
        {**post(), "pid": "7"},
        {**post(), "pid": True},
        {**post(), "counters": 1},
        post(accepted="5"),
        post(accepted=-1),
        post(accepted=2**60),
        post(refused={"bot": {}}),
        post(refused={str(number): 1 for number in range(65)}),
        post(**{str(number): 1 for number in range(65)}),
        post(refused={"x" * 201: 1}),
    ],
)
def test_what_does_not_look_like_counters(wrong: dict[str, Any]) -> None:
    """It is refused with an example, and nothing is kept."""
    processes = Processes()
    with pytest.raises(ValueError, match="counters look like"):
        processes.post(wrong)
    assert processes.answer()["processes"] == []


def test_every_reason_has_words_and_a_cure() -> None:
    """The page explains each reason for which the exporter itself refuses or drops an event."""
    assert set(REASONS) == {*REFUSED_REASONS, *DROPPED_REASONS, *GATEWAY_REASONS}
    assert all(words and cure for words, cure in REASONS.values())
