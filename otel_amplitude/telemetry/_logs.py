"""Writes the reports of delivery as log events whose names can be counted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Final

from otel_amplitude.delivery.books import Stats
from otel_amplitude.delivery.observer import Observer
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.receipt import Receipt, Split, Verdict
from otel_amplitude.log import Log
from otel_amplitude.transport import Response

# Faults that only an operator can mend, and how. The answer to a bad key is never quoted: it echoes the key.
_CURES: Final = {
    "invalid_api_key": "set {api_key} to the key of this project, and {server_zone} to its region",
    "wrong_endpoint": "correct {server_url}, or the proxy in HTTPS_PROXY",
}
# Not known to be anybody's fault, so a warning, but these are the places to look at.
_HINTS: Final = {"unreachable": "if it lasts, check network, proxy (HTTPS_PROXY), firewall, {ca_file} and {server_url}"}
_ELSEWHERE: Final = "or set {spool_dir} to a directory that survives and belongs to this user"
# What the disk said (the spool's `reason`: a name of errno, `cap`, or a directory that can not be trusted), and who can mend it.
_SPOOL_CURES: Final = {
    **dict.fromkeys(("EACCES", "EPERM"), f"let this user write there (owner, mode 0700), {_ELSEWHERE}"),
    **dict.fromkeys(("ENOENT", "ENOTDIR"), f"make the directory with mode 0700 for this user, {_ELSEWHERE}"),
    "EROFS": f"mount the file system so that it can be written, {_ELSEWHERE}",
    "SpoolError": f"make it a directory of this user's with mode 0700, no link, {_ELSEWHERE}",
    **dict.fromkeys(("ENOSPC", "EDQUOT"), f"make room, {_ELSEWHERE}"),
    "cap": "events come faster than they are sent; make room, or raise {max_spool_bytes}",
}
_NAMED_FIELDS: Final = ("events_with_invalid_fields", "events_with_missing_fields", "events_with_invalid_id_lengths")


class LogObserver(Observer):
    """Writes what happens to one client's log: `VERBOSE` for each batch, `WARN` for what is lost or late, `ERROR` for what needs a hand.

    Holds no lock; the ids and contents of events stay out.
    """

    def __init__(self, log: Log, spool_dir: str | None = None) -> None:
        """Write to `log`; `spool_dir` is the directory of the spool, for when it can not be used."""
        self._log = log
        self._spool_dir = spool_dir
        self._fault: Receipt | None = None
        self._acknowledged = 0  # the process whose first acknowledgement was logged

    def started(self) -> None:
        """Delivery works in this process."""
        self._log.debug("delivery.started", pid=os.getpid())

    def settled(self, batch: Sequence[Parcel], receipt: Receipt, seconds: float) -> None:
        """One request was answered, or failed."""
        facts = {"events": len(batch), "status": receipt.status, "seconds": round(seconds, 3)}
        if receipt.reason == "acknowledged":
            if self._log.zero_code and self._acknowledged != os.getpid():
                self._acknowledged = os.getpid()
                self._log.announce("delivery.first", **facts)
            if self._log.is_verbose:
                self._log.debug("batch.acknowledged", **facts, bytes=sum(len(parcel.body) for parcel in batch))
            return
        if receipt.server_fault:
            self._fault = receipt  # the cause for `paused`, which is called next
        for reason, count in _rejected(batch, receipt).items():
            self._log.warning("batch.rejected", reason=reason, rejected=count, **facts, **_said(receipt))
        if receipt.split is not Split.NO and len(batch) > 1:
            self._log.debug("batch.split", reason=receipt.reason, **facts, **_said(receipt))

    def held(self, count: int, seconds: float, batch: int) -> None:
        """Some ids must rest."""
        self._log.warning("id.held", held=count, seconds=round(seconds, 1), batch=batch)

    def paused(self, seconds: float, reason: str) -> None:
        """Nothing is sent for a while."""
        fault = self._fault
        status = {} if fault is None else {"status": fault.status}
        if reason in _CURES:
            self._log.error("sending.paused", reason=reason, seconds=round(seconds, 1), **status, cure=self._named(_CURES[reason]))
        else:
            said = {} if fault is None else _said(fault)
            hint = {"cure": self._named(_HINTS[reason])} if reason in _HINTS else {}
            # What only an operator can mend is an error, also where the words about it come with the receipt.
            write = self._log.error if fault is not None and fault.probing else self._log.warning
            write("sending.paused", reason=reason, seconds=round(seconds, 1), **status, **said, **hint)

    def resumed(self) -> None:
        """The server answers again."""
        self._fault = None
        self._log.forget("sending.paused")  # a sum of it, written later, would read as a new pause
        self._log.warning("sending.resumed")

    def dropped(self, reason: str, count: int) -> None:
        """Events were given up."""
        self._log.warning("events.dropped", reason=reason, count=count)

    def noticed(self, event: str, facts: Mapping[str, object]) -> None:
        """The spool has something to say; that it is full is a warning, with what can be done about it."""
        if event != "spool.full":
            self._log.debug(event, **facts)
            return
        where = {"directory": self._spool_dir} if self._spool_dir else {}
        cure = _SPOOL_CURES.get(str(facts.get("reason")))
        self._log.warning(event, **facts, **where, **({"cure": self._named(cure)} if cure else {}))

    def _named(self, cure: str) -> str:
        """Put the names of options into a cure."""
        names = (name for _, name, _, _ in Formatter().parse(cure) if name)
        return cure.format_map({name: self._log.option(name) for name in names})

    def raised(self, part: str, error: Exception) -> None:
        """Delivery met an exception and goes on; once a minute for each kind of it, with the sum."""
        self._log.error("delivery.failed", reason=part, problem=self._log.raised(error))

    def stopping(self) -> None:
        """There will be something to say when there is no time left."""
        self._log.prepare()

    def stopped(self, stats: Stats) -> None:
        """Delivery was shut down."""
        self._log.debug(
            "delivery.stopped",
            accepted=stats.accepted,
            adopted=stats.adopted,
            acknowledged=stats.acknowledged,
            rejected=sum(stats.rejected.values()),
            dropped=sum(stats.dropped.values()),
            pending=stats.pending.total,
        )


def _rejected(batch: Sequence[Parcel], receipt: Receipt) -> Counter[str]:
    # A half of a batch that meets the same answer again is final, which the dispatcher decides and notes on the batch.
    if receipt.split is Split.ONCE and getattr(batch, "halved", False):
        return Counter({receipt.reason: len(batch)})
    return Counter(outcome.reason for outcome in receipt.outcomes if outcome.verdict is Verdict.REJECTED)


def _said(receipt: Receipt) -> dict[str, object]:
    """What the server or the transport said, for people. The log escapes, cuts and redacts it."""
    if not isinstance(receipt.response, Response):
        return {"error": str(receipt.response)}
    answer = receipt.response.json() or {}
    error, missing = answer.get("error"), answer.get("missing_field")
    fields = sorted({name for kind in _NAMED_FIELDS if isinstance(answer.get(kind), dict) for name in answer[kind]})
    return {
        **({"error": error} if isinstance(error, str) else {}),
        **({"missing": missing} if isinstance(missing, str) else {}),
        **({"fields": ",".join(fields)} if fields else {}),
    }
