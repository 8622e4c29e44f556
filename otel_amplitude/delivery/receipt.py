"""What became of each parcel of one request: one outcome for each, and advice for the next request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Verdict(Enum):
    """What one answer means for one parcel."""

    ACKNOWLEDGED = "acknowledged"
    REJECTED = "rejected"
    RETRY = "retry"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one answer means for one parcel.

    Attributes:
        verdict: acknowledged, rejected for good, or to be sent again.
        reason: the word for the books when rejected, and for logs when retried.
        charged: whether this attempt counts against the parcel's retries. Neighbours of a culprit are not charged.
        hold: seconds for which the ids of this parcel must rest, or None.
    """

    verdict: Verdict
    reason: str = ""
    charged: bool = True
    hold: float | None = None


ACKNOWLEDGED = Outcome(Verdict.ACKNOWLEDGED)
RESEND = Outcome(Verdict.RETRY, "neighbour", charged=False)


class Split(Enum):
    """How the parcels of a request that can not be taken as it is are to be divided."""

    NO = "no"
    BISECT = "bisect"  # one of them is bad and the answer does not say which: halve until it is alone
    SMALLER = "smaller"  # the request is too large: halve, and make the next ones smaller
    ONCE = "once"  # halve one time; a half that meets the same answer is final (the reader decides so with `halved`)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one request.

    Attributes:
        outcomes: one for each parcel, in the order of the request.
        reason: one word for logs, such as `acknowledged`, `invalid`, `throttled`, `server_error`, `unreachable`.
        split: how to divide what is to be sent again.
        server_fault: the server or the way to it is at fault: everyone waits, with backoff and one probe.
        pause: seconds everyone must wait at least (a server's delay, or the fixed probe interval of a bad key); or None.
        probing: a fault that only an operator can mend (bad key, wrong URL): wait exactly `pause` between probes, uncharged.
        status: the HTTP status, or None when there was no answer.
        response: the transport's response, for `on_retry`; or the TransportError.
    """

    outcomes: Sequence[Outcome]
    reason: str
    split: Split = Split.NO
    server_fault: bool = False
    pause: float | None = None
    probing: bool = False
    status: int | None = None
    response: object | None = None
