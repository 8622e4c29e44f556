"""The books as a value: where every event that was ever accepted is now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

_NOTHING: Mapping[str, int] = MappingProxyType({})

SPOOL_FULL: Final = "spool_full"
SPOOL_IO: Final = "spool_io"
REJECTED_REASONS = ("invalid", "silenced", "quota", "too_large", "forbidden")
DROPPED_REASONS = ("expired", "attempts", SPOOL_FULL, SPOOL_IO, "spool_corrupt", "shutdown", "internal")
REFUSED_REASONS = (
    "no_identity",
    "opted_out",
    "middleware",
    "bot",
    "prefetch",
    "websocket",
    "no_route",
    "excluded",
    "cap",
    "sampled",
    "rule",
    "repeated",
    "environment",
    "invalid",
    "invalid_time",
    "unserializable",
    "too_large",
    "queue_full",
    "id_backlog",
    "closed",
    "internal",
)


@dataclass(frozen=True, slots=True)
class Pending:
    """Where the unsettled events are; each is counted in one place."""

    queued: int = 0
    held: int = 0
    in_flight: int = 0
    spooled: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.queued + self.held + self.in_flight + self.spooled


@dataclass(frozen=True, slots=True)
class Stats:
    """A snapshot of the books of one client in this process.

    `accepted + adopted == acknowledged + sum(rejected) + sum(dropped) + pending.total` holds in every snapshot.

    Attributes:
        accepted: events this process took responsibility for.
        adopted: events taken over from the spool of a process that ended.
        acknowledged: events for which a valid success answer was read.
        rejected: events the server will never take, by reason.
        dropped: events given up here, by reason.
        refused: events never accepted, by reason; outside the law.
        pending: where the others are.
        set_user_outside: how often `set_user` was called where no request can be known, and refused; or overtaken by a request. About the
            process, so the same in all clients; outside the law.
        fixed: what was changed or removed so that events could be sent, by cause; outside the law.
    """

    accepted: int = 0
    adopted: int = 0
    acknowledged: int = 0
    rejected: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    dropped: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    refused: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    pending: Pending = Pending()
    set_user_outside: int = 0
    fixed: Mapping[str, int] = field(default_factory=lambda: _NOTHING)

    @property
    def balanced(self) -> bool:
        """Whether the law of the books holds."""
        settled = self.acknowledged + sum(self.rejected.values()) + sum(self.dropped.values())
        return self.accepted + self.adopted == settled + self.pending.total
