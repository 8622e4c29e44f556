"""The books as a value."""

from __future__ import annotations

import pytest

from otel_amplitude.delivery.books import Pending
from otel_amplitude.delivery.ledger import Ledger


def test_a_snapshot_is_frozen() -> None:
    """Later bookings do not change a snapshot, and nobody can write into one."""
    ledger = Ledger()
    ledger.accepted = 3
    ledger.reject("invalid", 1)
    ledger.refuse("closed", 2)
    stats = ledger.snapshot(Pending(queued=1), accepted=1, adopted=1, dropped={"expired": 3, "spool_corrupt": 0})
    ledger.reject("invalid", 1)
    ledger.drop("expired", 1)
    assert stats.balanced
    assert (stats.rejected, stats.dropped, stats.refused) == ({"invalid": 1}, {"expired": 3}, {"closed": 2})
    assert ledger.refused("closed") == 2
    with pytest.raises(TypeError):
        stats.rejected["invalid"] = 0  # type: ignore[index]
