"""The stopwatch of the tests: what our code takes counts, what the machine withheld does not."""

from __future__ import annotations

import punctual
import pytest


def test_only_what_the_machine_withheld_is_taken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that end meanwhile, and those that begin with the number of one that ended, do not make it more or less."""
    now, waited, stolen = [100.0], {"1": 5.0, "2": 7.0, "3": 9.0}, [1.0]
    monkeypatch.setattr(punctual.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(punctual, "_waited", lambda: dict(waited))
    monkeypatch.setattr(punctual, "_stolen", lambda: stolen[0])
    watch = punctual.Stopwatch()
    now[0] += 2.0
    assert watch.seconds() == 2.0
    del waited["2"]
    waited.update({"1": 5.25, "3": 0.0, "4": 0.125})
    stolen[0] += 0.5
    assert watch.seconds() == 2.0 - 0.25 - 0.125 - 0.5
