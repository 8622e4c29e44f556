"""The next change that makes a span 5 % dearer fails here, by exact counts; no time is measured."""

from __future__ import annotations

import shutil

import pytest

from tests.bench._instructions import count

# Instructions for one span, `on_start` and `on_end`, as multiples of those of a fixed piece of Python in the same run.
BUDGETS = {"not chosen": 0.071, "chosen": 1.78, "automatic": 1.85}
TOLERANCE = 1.05


@pytest.mark.heavy
@pytest.mark.timeout(300)
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind counts the instructions")
def test_a_span_costs_no_more_instructions_than_it_did() -> None:
    """A change that needs more says so in its commit message, and raises the budget here; one that needs fewer lowers it."""
    counts = count(["none", "reference", *BUDGETS])
    unit = counts["reference"] - counts["none"]
    costs = {name: round((counts[name] - counts["none"]) / unit, 4) for name in BUDGETS}
    assert {name: cost for name, cost in costs.items() if cost > BUDGETS[name] * TOLERANCE} == {}, costs
