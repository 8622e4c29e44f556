"""What an answer of Amplitude means: one outcome for each parcel of the request, and advice for the next one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Any, Final

import orjson

from otel_amplitude.clock import wall
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.receipt import ACKNOWLEDGED, RESEND, Outcome, Receipt, Split, Verdict
from otel_amplitude.errors import TransportError
from otel_amplitude.limits import BATCH_THROTTLE_PAUSE, PROJECT_PAUSE, THROTTLE_PAUSE
from otel_amplitude.transport import Response
from otel_amplitude.wire._too_large import TooLarge

# An operator has to mend it: one request a minute is enough to find out whether it was mended.
PROBE_PAUSE: Final = 60.0
# A server that asks for more than five minutes is asked again after five.
MAX_RETRY_AFTER: Final = 300.0
_NOBODY: Final[AbstractSet[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class _Answer:
    """A response beside its request; what its readers read."""

    response: Response
    body: Mapping[str, Any]
    parcels: Sequence[Parcel]
    batch_endpoint: bool
    now: float
    too_large: TooLarge

    def all(self, outcome: Outcome, reason: str = "", **advice: Any) -> Receipt:
        """The same outcome for each parcel."""
        return self.each([outcome] * len(self.parcels), reason or outcome.reason, **advice)

    def each(self, outcomes: Sequence[Outcome], reason: str, **advice: Any) -> Receipt:
        return Receipt(outcomes, reason, status=self.response.status, response=self.response, **advice)

    @property
    def retry_after(self) -> float | None:
        """The seconds the server asks for, 0 to 300, given as seconds or as a date (RFC 9110, 10.2.3); else None."""
        text = self.response.headers.get("retry-after", "").strip()[:64]
        if text.isascii() and text.isdigit():
            return min(float(text), MAX_RETRY_AFTER)
        try:
            date = parsedate_to_datetime(text)
            seconds = (date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp() - self.now
        except (ValueError, TypeError, OverflowError, IndexError):
            return None
        return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _success(answer: _Answer) -> Receipt:
    """Only Amplitude's own word is an acknowledgement; a login page of a captive portal is also a 200."""
    code = answer.body.get("code")
    if type(code) is int and code == 200:
        answer.too_large.acknowledged(answer.parcels)
        return answer.all(ACKNOWLEDGED, "acknowledged")
    return _server_fault(answer, "unknown")


def _server_fault(answer: _Answer, reason: str = "server_error") -> Receipt:
    return answer.all(Outcome(Verdict.RETRY, reason), server_fault=True, pause=answer.retry_after)


def _redirect(answer: _Answer) -> Receipt:
    """Never followed: the key is in the body."""
    return _server_fault(answer, "redirect")


def _wrong_endpoint(answer: _Answer) -> Receipt:
    return _probe(answer, "wrong_endpoint")


def _probe(answer: _Answer, reason: str) -> Receipt:
    return answer.all(Outcome(Verdict.RETRY, reason, charged=False), server_fault=True, pause=PROBE_PAUSE, probing=True)


def _split(answer: _Answer, split: Split, reason: str) -> Receipt:
    """Halve what can be halved (that a half was halved before is known where it is divided); one parcel alone is the culprit."""
    if len(answer.parcels) > 1:
        return answer.all(RESEND, reason, split=split)
    return answer.all(Outcome(Verdict.REJECTED, reason))


def _too_large(answer: _Answer) -> Receipt:
    """413: a smaller request may pass. One event alone is sent again until it is certain that the event is the reason."""
    wait = answer.too_large.refused(answer.parcels[0]) if len(answer.parcels) == 1 else None
    if wait is None:
        return _split(answer, Split.SMALLER, "too_large")
    if answer.too_large.refuses_all:
        return answer.all(Outcome(Verdict.RETRY, "too_large", charged=False), server_fault=True, pause=answer.retry_after)
    return answer.all(Outcome(Verdict.RETRY, "too_large", charged=False, hold=max(wait, answer.retry_after or 0.0)))


def _forbidden(answer: _Answer) -> Receipt:
    """A firewall, or something else that no retry helps: one split saves half of the innocent, then it is final."""
    return _split(answer, Split.ONCE, "forbidden")


def _bad_request(answer: _Answer) -> Receipt:
    """400: nothing was stored, neither the bad events nor the good ones.

    HTTP V2 names only the first offender of each kind, Batch all of them; the others are sent again at once, so further ones may
    follow. What the answer says is only believed when all of it makes sense.
    """
    error = answer.body.get("error")
    if isinstance(error, str) and "invalid api key" in error.lower():
        return _probe(answer, "invalid_api_key")
    missing = answer.body.get("missing_field")
    if isinstance(missing, str) and missing:  # of the envelope, which is the same for every request: ours to mend, no retry helps
        return answer.all(Outcome(Verdict.REJECTED, "invalid"))
    try:
        named = _named_in_400(answer)
    except _SenselessError:
        named = {}
    if not named:
        return _split(answer, Split.BISECT, "invalid")
    return answer.each([named.get(position, RESEND) for position in range(len(answer.parcels))], _main_reason(named))


def _named_in_400(answer: _Answer) -> dict[int, Outcome]:
    named: dict[int, Outcome] = {}
    for held in _positions(answer, answer.body.get("throttled_events")) + _holding(answer, devices=_keys(answer, "throttled_devices")):
        named[held] = _held(answer)
    silenced = answer.body.get("silenced_devices") or ()
    devices = {name for name in silenced if isinstance(name, str)} if isinstance(silenced, list) else set()
    for position in _positions(answer, answer.body.get("silenced_events")) + _holding(answer, devices=devices):
        named[position] = Outcome(Verdict.REJECTED, "silenced")
    for position in _holding(answer, devices=_keys(answer, "exceeded_daily_quota_devices")):
        named[position] = Outcome(Verdict.REJECTED, "quota")
    for kind in ("events_with_invalid_fields", "events_with_missing_fields", "events_with_invalid_id_lengths"):
        fields = answer.body.get(kind) or {}
        if not isinstance(fields, dict):
            raise _SenselessError
        for positions in fields.values():
            named.update(dict.fromkeys(_positions(answer, positions), Outcome(Verdict.REJECTED, "invalid")))
    return named


def _throttled(answer: _Answer) -> Receipt:
    """429: nothing was stored. Ids that the answer names are held or over their daily limit; without ids the whole project waits."""
    try:
        positions = _positions(answer, answer.body.get("throttled_events"))
    except _SenselessError:
        positions = []
    hot = _holding(answer, users=_keys(answer, "throttled_users"), devices=_keys(answer, "throttled_devices"))
    spent = _holding(answer, users=_keys(answer, "exceeded_daily_quota_users"), devices=_keys(answer, "exceeded_daily_quota_devices"))
    named = dict.fromkeys(positions + hot, _held(answer))
    named.update(dict.fromkeys(spent, Outcome(Verdict.REJECTED, "quota")))
    if not named:
        asked = answer.retry_after
        return answer.all(Outcome(Verdict.RETRY, "throttled"), server_fault=True, pause=PROJECT_PAUSE if asked is None else asked)
    return answer.each([named.get(position, RESEND) for position in range(len(answer.parcels))], _main_reason(named))


def _held(answer: _Answer) -> Outcome:
    pause = BATCH_THROTTLE_PAUSE if answer.batch_endpoint else THROTTLE_PAUSE
    return Outcome(Verdict.RETRY, "throttled", hold=max(pause, answer.retry_after or 0.0))


def _main_reason(named: Mapping[int, Outcome]) -> str:
    reasons = {outcome.reason for outcome in named.values()}
    return next(reason for reason in ("invalid", "silenced", "quota", "throttled") if reason in reasons)


class _SenselessError(ValueError):
    """The answer names events that were not in the request, or names them in no way we know."""


def _positions(answer: _Answer, value: object) -> list[int]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(type(position) is int and 0 <= position < len(answer.parcels) for position in value):
        raise _SenselessError
    return value


def _keys(answer: _Answer, field: str) -> AbstractSet[str]:
    value = answer.body.get(field)
    return value.keys() if isinstance(value, dict) else _NOBODY


def _holding(answer: _Answer, *, devices: AbstractSet[str], users: AbstractSet[str] = _NOBODY) -> list[int]:
    """The positions of all events of these users and devices: those the answer left out would meet the same answer."""
    named = devices | users
    return [
        position
        for position, parcel in enumerate(answer.parcels)
        if not named.isdisjoint(parcel.ids) and _is_of(parcel, users=users, devices=devices)
    ]


def _is_of(parcel: Parcel, *, users: AbstractSet[str], devices: AbstractSet[str]) -> bool:
    """Tell users from devices: one may have the name of another. What a lone id is, only the event itself says."""
    if len(parcel.ids) > 1:
        return parcel.ids[0] in users or parcel.ids[1] in devices
    return parcel.ids[0] in (users if orjson.loads(parcel.body).get("user_id") else devices)


# 421 (another connection), 423 (locked), 425 (too early) and 449 (retry with) ask for another attempt, as 408 does.
_READERS: Final[Mapping[int, Callable[[_Answer], Receipt]]] = {
    400: _bad_request,
    401: _wrong_endpoint,
    404: _wrong_endpoint,
    405: _wrong_endpoint,
    407: _wrong_endpoint,
    408: _server_fault,
    413: _too_large,
    421: _server_fault,
    423: _server_fault,
    425: _server_fault,
    429: _throttled,
    449: _server_fault,
}
# By the first digit of any other status; one that is no status at all is a fault of the server, too.
_CLASSES: Final[Mapping[int, Callable[[_Answer], Receipt]]] = {2: _success, 3: _redirect, 4: _forbidden}


def read_receipt(
    answer: Response | TransportError,
    parcels: Sequence[Parcel],
    *,
    batch_endpoint: bool = False,
    now: float | None = None,
    too_large: TooLarge | None = None,
) -> Receipt:
    """Give one outcome for each of `parcels`, whatever the answer is. Never raises.

    Pages: "HTTP V2" and "Batch", responses; `Retry-After` is not documented there and obeyed nevertheless, up to five minutes.

    Args:
        answer: what the transport gave, or raised.
        parcels: those of the request, in its order.
        batch_endpoint: whether it was `/batch`, whose throttled ids wait 15 seconds instead of 30.
        now: seconds since the epoch, for a `Retry-After` that is a date; by default the clock says.
        too_large: what the exporter knows of earlier 413 answers; the only state. None: nothing.
    """
    if isinstance(answer, TransportError):
        return Receipt([Outcome(Verdict.RETRY, "unreachable")] * len(parcels), "unreachable", server_fault=True, response=answer)
    read = _READERS.get(answer.status) or _CLASSES.get(answer.status // 100, _server_fault)
    moment = wall() if now is None else now
    return read(_Answer(answer, answer.json() or {}, parcels, batch_endpoint, moment, TooLarge() if too_large is None else too_large))
