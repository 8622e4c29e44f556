"""Moments: the one place where a value becomes the milliseconds since 1970 that Amplitude takes as `time` and `session_id`.

Amplitude reads a number in another unit without a word: seconds are events of 1970, microseconds of the year 58,885. So a number is read
by its magnitude, which leaves no doubt between 1973 and 5138:

    below 1e11 seconds   below 1e14 milliseconds   below 1e17 microseconds   else nanoseconds

Texts are numbers, or ISO 8601 with a date and, mostly, a time and a zone. What has no zone is UTC. The caller logs each unit
that was not milliseconds, and of times without a zone, once.
"""

from __future__ import annotations

import datetime as dt
import decimal
import math
import numbers
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from otel_amplitude.errors import interrupts
from otel_amplitude.fixes import Note

MILLISECONDS: Final = "milliseconds"
NAIVE: Final = "naive"
# A number below the first bound is in the unit beside it: multiplied, or divided, it is milliseconds.
_UNITS: Final = (
    (1e11, "seconds", 1_000, 1),
    (1e14, MILLISECONDS, 1, 1),
    (1e17, "microseconds", 1, 1_000),
    (math.inf, "nanoseconds", 1, 1_000_000),
)
_ODD_UNITS: Final = tuple(unit for _, unit, _, _ in _UNITS if unit != MILLISECONDS)
FIXES: Final = (*_ODD_UNITS, NAIVE)
"""What a moment may have been given in that deserves a word: a unit, or a time without a zone."""
_MAX_BITS: Final = 80
_MAX_TEXT: Final = 64
_NUMBER: Final = r"[+-]?\d{1,20}(?:\.\d{0,20})?(?:[eE][+-]?\d{1,2})?"
_ISO: Final = r"(\d{4})-?(\d\d)-?(\d\d)(?:[Tt ](\d\d)(?::?(\d\d)(?::?(\d\d)(?:[.,](\d{1,9}))?)?)?\s?([Zz]|UTC|GMT|[+-]\d\d(?::?\d\d)?)?)?"
_EPOCH: Final = dt.datetime(1970, 1, 1)  # noqa: DTZ001 -- UTC, as everything here whose zone was taken off
_MILLISECOND: Final = dt.timedelta(milliseconds=1)
# 2000 and 2100: an id of a session that is outside is no moment.
EARLIEST_MS: Final = 946_684_800_000
LATEST_MS: Final = 4_102_444_800_000
# An event may be ten years late and, by clocks that differ, a day early.
MAX_LATE_MS: Final = 3_653 * 86_400_000
MAX_EARLY_MS: Final = 86_400_000


NO_SESSION: Final = -1


class Moment(NamedTuple):
    """A moment that was read.

    Attributes:
        ms: milliseconds since 1970.
        given: `milliseconds`, or what else it was given in: one of `FIXES`.
    """

    ms: int
    given: str


def read_moment(value: object) -> Moment | None:
    """Read a number, a text, a datetime, a date, a numpy `datetime64` or a pandas `Timestamp` as a moment; None for anything else.

    >>> [read_moment(value)[1] for value in (1795305600000, "1795305600", 1795305600.5, "2026-11-22T00:00:00Z", "2026-11-22")]
    ['milliseconds', 'seconds', 'seconds', 'milliseconds', 'naive']
    """
    try:
        return _read(value)
    except BaseException as error:  # out of range, NaT, or a hostile value
        if interrupts(error):
            raise
        return None


def is_near(ms: int, now_ms: int) -> bool:
    """Say whether an event may have happened at `ms`: from ten years ago to a day ahead of `now_ms`."""
    return -MAX_LATE_MS <= ms - now_ms <= MAX_EARLY_MS


def is_no_session(value: object) -> bool:
    """Say whether a session id is Amplitude's word for no session: -1, as a number or a text."""
    return value in (-1, "-1") if isinstance(value, (int, float, str)) and not isinstance(value, bool) else False


def read_session(value: object, note: Note) -> int | None:
    """Read what the application gives as a session id: -1, or a moment between 2000 and 2100; None for anything else.

    `note` is called for a moment that was not given in milliseconds.
    """
    if type(value) is int and EARLIEST_MS <= value <= LATEST_MS:
        return value
    if is_no_session(value):
        return NO_SESSION
    moment = read_moment(value)
    if moment is None or not EARLIEST_MS <= moment.ms <= LATEST_MS:
        return None
    if moment.given != MILLISECONDS:
        note(moment.given, "session_id")
    return moment.ms


def session_ms(value: object) -> int | None:
    """Give the start of a session in milliseconds; None for what is no moment between 2000 and 2100.

    >>> session_ms(1795305600000), session_ms("1795305600"), session_ms("c0ffee"), session_ms(True)
    (1795305600000, 1795305600000, None, None)
    """
    if type(value) is int and EARLIEST_MS <= value <= LATEST_MS:
        return value
    moment = read_moment(value)
    return moment.ms if moment is not None and EARLIEST_MS <= moment.ms <= LATEST_MS else None


def _read(value: Any) -> Moment | None:
    kind = type(value)
    for kinds, read in _READERS:
        if issubclass(kind, kinds):
            return read(value)
    return _date(value.astype("datetime64[us]").item()) if hasattr(kind, "astype") and value.dtype.kind == "M" else None


def _by_magnitude(number: Any) -> Moment | None:
    if not isinstance(number, int):
        # Not by way of float alone: nanoseconds are longer than a double.
        number = int(number) if number == int(number) else float(number)
    if isinstance(number, int) and number.bit_length() > _MAX_BITS:
        return None
    size = abs(number)
    unit, times, parts = next((unit, times, parts) for below, unit, times, parts in _UNITS if size < below)
    return Moment(number * times // parts if isinstance(number, int) else math.floor(number * times / parts), unit)


def _text(text: str) -> Moment | None:
    text = text.strip()
    if len(text) > _MAX_TEXT or not text.isascii():
        return None
    if re.fullmatch(_NUMBER, text):
        return _by_magnitude(int(text) if text.lstrip("+-").isdigit() else decimal.Decimal(text))
    found = re.fullmatch(_ISO, text)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    fraction, zone = found[7], found[8]
    moment = dt.datetime(year, month, day, hour, minute, second, int((fraction or "0").ljust(6, "0")[:6]))  # noqa: DTZ001 -- the zone follows
    if zone is None:
        return _date(moment)
    return Moment((moment - _offset(zone) - _EPOCH) // _MILLISECOND, MILLISECONDS)


def _offset(zone: str) -> dt.timedelta:
    if zone[0] not in "+-":
        return dt.timedelta()
    digits = zone[1:].replace(":", "").ljust(4, "0")
    offset = dt.timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return -offset if zone[0] == "-" else offset


def _date(value: dt.date) -> Moment:
    if not isinstance(value, dt.datetime):
        value = dt.datetime(value.year, value.month, value.day)  # noqa: DTZ001 -- UTC
    offset = value.utcoffset()
    moment = value.replace(tzinfo=None)
    return Moment((moment - (offset or dt.timedelta()) - _EPOCH) // _MILLISECOND, NAIVE if offset is None else MILLISECONDS)


# The first type that fits reads.
_READERS: Final[tuple[tuple[Any, Callable[[Any], Moment | None]], ...]] = (
    (bool, lambda _: None),
    (int, lambda value: _by_magnitude(int.__index__(value))),
    (str, lambda value: _text(str.__str__(value))),
    (dt.date, _date),
    ((numbers.Real, decimal.Decimal), _by_magnitude),
)
