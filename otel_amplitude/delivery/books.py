"""The counters: where every event that was ever accepted is now. *Books* is the name of the invariant that `Stats` states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

_NOTHING: Mapping[str, int] = MappingProxyType({})

SPOOL_FULL: Final = "spool_full"
SPOOL_IO: Final = "spool_io"
REJECTED_REASONS = ("invalid", "silenced", "quota", "too_large", "forbidden")
DROPPED_REASONS = ("expired", "attempts", SPOOL_FULL, SPOOL_IO, "spool_corrupt", "quarantined", "shutdown", "internal")
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
    SPOOL_IO,
    "internal",
)


@dataclass(frozen=True, slots=True)
class Pending:
    """Where the unsettled events are; each is counted in one place.

    Attributes:
        queued: in memory, to be sent.
        held: waiting since an id of theirs is held, in memory or on disk.
        in_flight: in a request that was not answered yet.
        spooled: on disk, to be sent.
    """

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
    """A snapshot of the counters of one client in this process.

    `accepted + adopted == acknowledged + sum(rejected) + sum(dropped) + returned + pending.total` holds in every snapshot.

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
        returned: events handed back to a source that keeps them; 0 for an ordinary client.
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
    returned: int = 0

    @property
    def balanced(self) -> bool:
        """Whether the law holds."""
        settled = self.acknowledged + sum(self.rejected.values()) + sum(self.dropped.values()) + self.returned
        return self.accepted + self.adopted == settled + self.pending.total


class Ledger:
    """Counts how events came to their end. Owned by the worker."""

    __slots__ = ("acknowledged", "adopted", "dropped", "rejected", "returned")

    def __init__(self) -> None:
        self.adopted = 0
        self.acknowledged = 0
        self.returned = 0
        self.rejected: dict[str, int] = {}
        self.dropped: dict[str, int] = {}

    def count(self, outcome: str, reason: str, events: int) -> None:
        """Count events that came to their end: `acknowledged`, `returned`, `rejected` or `dropped` for `reason`."""
        if outcome == "acknowledged":
            self.acknowledged += events
        elif outcome == "returned":
            self.returned += events
        else:
            counts = self.rejected if outcome == "rejected" else self.dropped
            counts[reason] = counts.get(reason, 0) + events


@dataclass(frozen=True, slots=True)
class Books:
    """What the worker publishes after each of its turns, in one assignment: the counters up to some number of accepted events.

    Attributes:
        stats: the counters; balanced with the events that are covered.
        in_memory: how many of the events appended to memory they cover.
        on_disk: how many of the events appended to files they cover.
    """

    stats: Stats = Stats()
    in_memory: int = 0
    on_disk: int = 0

    def with_appended(self, in_memory: int, on_disk: int, refused: Mapping[str, int]) -> Stats:
        """Give the counters with what was appended since, and what was refused. `in_memory` and `on_disk` must be read after this snapshot."""
        pending, stats = self.stats.pending, self.stats
        return replace(
            stats,
            accepted=in_memory + on_disk,
            refused=MappingProxyType({reason: count for reason, count in refused.items() if count}),
            pending=replace(pending, queued=pending.queued + in_memory - self.in_memory, spooled=pending.spooled + on_disk - self.on_disk),
        )
