"""Any Python value as JSON within Amplitude's limits: cleaned per key, never per event."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import enum
import math
import numbers
import re
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

import orjson

from otel_amplitude.errors import interrupts
from otel_amplitude.limits import INVALID_IDS, MAX_DEPTH, MAX_EVENT_BYTES, MAX_INTEGER, MAX_KEYS, MAX_LIST, MAX_STRING

# What needs no look inside; a set, since whole maps are asked at once.
PLAIN_TYPES: Final = frozenset((str, int, float, bool))
CUT_MARK: Final = "…"
# An event of 64 KB has no room for more values than this (two bytes each). Without the bound a few lists that hold one another
# many times would grow without end.
_MAX_NODES: Final = MAX_EVENT_BYTES // 2
# A double keeps 15 decimal digits exactly; a longer Decimal stays whole as text.
_DOUBLE_DIGITS: Final = 15
# Beyond this CPython refuses to write an int in decimal (sys.set_int_max_str_digits); ~4,000 digits.
_MAX_DECIMAL_BITS: Final = 13_000
# What is searched for personal data is longer than what is sent, lest the cut hides half of a match; `re` gets no more than this (S17).
MAX_RAW: Final = 2 * MAX_STRING
# A text here, so that `re` compiles it at first use, which an import need not pay for.
_CONTROL: Final = "[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
_LONGEST_INVALID: Final = max(len(value) for value in INVALID_IDS if value.strip("0-"))
_LISTS: Final = (list, tuple, set, frozenset, deque, range)

_truncated = 0


def truncated() -> int:
    """Give how many values this process has cut so far (texts, lists, maps and depth); only grows, any thread may read it."""
    return _truncated


def is_sound_id(value: object, min_length: int) -> bool:
    """Say whether `value` is an id that Amplitude takes as it is, so that it needs no closer look.

    Cheap questions in place of a pattern: nearly every event is asked. The first letter sorts after the one of a text that is not
    trimmed, of only zeros, and of `-1`; False is also said of a few good ids.

    >>> [is_sound_id(value, 5) for value in ("u-12345", 12345, "anonymous", "0000-0000", " u-12345", "[REDACTED]")]
    [True, False, False, False, False, False]
    """
    return (
        type(value) is str
        and min_length <= len(value) <= MAX_STRING
        and value >= "1"
        and value[0] != "["
        and value[-1] != " "
        and value.isprintable()
        and (len(value) > _LONGEST_INVALID or value.lower() not in INVALID_IDS)
    )


def has_control(text: str) -> bool:
    r"""Say whether a text holds what ends a line or moves a cursor, or half a character.

    isprintable is the cheap question; the pattern spares the odd but honest space it also refuses.

    >>> has_control("u-12345"), has_control("u\x1b[31m"), has_control("Zoë\u00a0Example")
    (False, True, False)
    """
    return not text.isprintable() and re.search(_CONTROL, text) is not None


def is_placeholder(text: str) -> bool:
    """Say whether a trimmed text stands where an id should be and names nobody.

    Amplitude's list and ours, its rule about device ids of only zeros, and what instrumentations write over a captured header.

    >>> [is_placeholder(text) for text in ("None", "00000-000", "[REDACTED]", "0012")]
    [True, True, True, False]
    """
    # All but those zeros are short: a long id is not looked up.
    return (len(text) <= _LONGEST_INVALID and text.lower() in INVALID_IDS) or not text.strip("0-") or text == "[REDACTED]"


def _count_cut() -> None:
    global _truncated  # noqa: PLW0603 -- one count for the process, read by telemetry
    # No call between reading and writing: CPython does not switch threads here.
    _truncated += 1


def clean(value: object, *, depth: int = 0, without: Callable[[str], bool] | None = None) -> Any:
    """Give `value` as JSON that Amplitude takes; never raises.

    Texts are cut to 1,024 characters, NaN and infinities become text, as do integers beyond 2^53, bytes (base64), dates
    (`YYYY-MM-DDTHH:MM:SS`, in UTC when they know their zone) and lists inside lists (JSON text). Decimals become numbers, enum
    members their value, sets sorted lists. None stays None here, and is left out of lists and maps.
    (HTTP V2 and Limits pages; "Dates are compared as strings".)

    Args:
        value: anything.
        depth: how many maps and lists already stand around it; below 40 levels everything is cut.
        without: says of a name whether it is left out of every map in `value`.

    >>> clean(float("nan")), clean(2**60), clean(b"ab"), clean([1, [2, 3]])
    ('NaN', '1152921504606846976', 'YWI=', [1, '[2,3]'])
    """
    if value is None or type(value) is bool:
        return value
    if type(value) is str:
        return _text(value)
    return _Cleaner(without=without).value(value, depth)


def clean_properties(properties: object, *, depth: int = 0, raw: bool = False) -> dict[str, Any]:
    """Give a new dict with text keys and cleaned values; `{}` for what is no map; never raises.

    Keys are cut to 1,024 characters and their number to 1,024; entries that are None or have an empty key are left out.
    An ordinary dict of texts and numbers costs about 0.1 µs for each value.

    Args:
        properties: a mapping.
        depth: how many maps and lists already stand around it.
        raw: leave lists in lists as they are, and texts up to 2,048 characters, for who looks into them and cleans again.
    """
    if type(properties) is dict and len(properties) <= MAX_KEYS:
        cleaned = properties.copy()
        if _ordinary(cleaned):
            return cleaned
    cleaned = _Cleaner(raw=raw).value(properties, depth)
    return cleaned if type(cleaned) is dict else {}


def _ordinary(properties: dict[Any, Any]) -> bool:
    """Tell whether nothing needs cleaning; one flat loop, since every event pays for it."""
    for key, value in properties.items():
        if type(key) is not str or not key or len(key) > MAX_STRING or not (key.isascii() or _encodable(key)):
            return False
        kind = type(value)
        if kind is str:
            if len(value) > MAX_STRING or not (value.isascii() or _encodable(value)):
                return False
        elif kind is int:
            if not -MAX_INTEGER <= value <= MAX_INTEGER:
                return False
        elif kind is float:
            if value - value != 0.0:
                return False
        elif kind is not bool:
            return False
    return True


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(text: str, most: int = MAX_STRING) -> str:
    if len(text) > most:
        _count_cut()
        text = text[:most]
    if text.isascii():
        return text
    # Two halves of one character, as JavaScript writes them, become that character; half a one becomes U+FFFD.
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _integer(value: int) -> int | str:
    if -MAX_INTEGER <= value <= MAX_INTEGER:
        return value
    return str(value) if value.bit_length() <= _MAX_DECIMAL_BITS else hex(value)


def _float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124 -- only NaN differs from itself


def _decimal(value: decimal.Decimal) -> float | str:
    if not value.is_finite() or len(value.as_tuple().digits) > _DOUBLE_DIGITS or not math.isfinite(float(value)):
        return str(value)
    return float(value)


def _bytes(value: bytes | bytearray | memoryview) -> str:
    view = memoryview(value).cast("B")
    room = MAX_STRING // 4 * 3
    if len(view) > room:
        _count_cut()
    return base64.b64encode(view[:room]).decode("ascii")


def _date(value: dt.date) -> str:
    if not isinstance(value, dt.datetime):
        return value.isoformat()
    if value.tzinfo is not None:
        value = value.astimezone(dt.timezone.utc).replace(tzinfo=None)
    return value.isoformat(timespec="seconds")


def _named(value: object) -> str:
    return f"<{type(value).__name__}>"


def _member(value: enum.Enum) -> Any:
    return _scalar(value.value) if isinstance(value.value, (str, int, float)) else value.name


def _object(value: object) -> str:
    if type(value).__str__ is object.__str__ and type(value).__repr__ is object.__repr__:
        # Nothing but an address, a new one each time.
        return _named(value)
    return str.__str__(str(value))


# The first type that fits converts; subclasses of int, float and str lose what they override.
_SCALARS: Final[tuple[tuple[Any, Any], ...]] = (
    (enum.Enum, _member),
    (bool, bool),
    (str, str.__str__),
    (int, lambda value: _integer(int.__index__(value))),
    (float, lambda value: _float(float.__float__(value))),
    ((bytes, bytearray, memoryview), _bytes),
    (dt.date, _date),
    (dt.time, lambda value: value.isoformat()),
    (dt.timedelta, lambda value: _float(value.total_seconds())),
    (decimal.Decimal, _decimal),
    (uuid.UUID, str),
    (numbers.Integral, lambda value: _integer(int(value))),
    (numbers.Real, lambda value: _float(float(value))),
    (object, _object),
)


def _scalar(value: object) -> Any:
    """Give what is neither map nor list as JSON; a text as long as it is."""
    return next((convert(value) for kinds, convert in _SCALARS if isinstance(value, kinds)), None)


class _Cleaner:
    """One walk through one value: knows what it stands in (cycles) and how much it may still visit."""

    __slots__ = ("_around", "_left", "_raw", "_without")

    def __init__(self, *, raw: bool = False, without: Callable[[str], bool] | None = None) -> None:
        self._around: set[int] = set()
        self._left = _MAX_NODES
        self._raw = raw
        self._without = without

    def value(self, value: object, depth: int, *, in_list: bool = False) -> Any:
        """Clean one value."""
        self._left -= 1
        if value is None:
            return None
        try:
            return self._read(value, depth, in_list)
        except BaseException as error:  # a hostile __str__, keys() or __class__ costs its own value only
            if interrupts(error):
                raise
            return _named(value)

    def _read(self, value: object, depth: int, in_list: bool) -> Any:
        if isinstance(value, Mapping):
            return self.map(value, depth)
        if isinstance(value, _LISTS):
            return self._json_text(value, depth) if in_list and not self._raw else self._list(value, depth)
        plain = value if type(value) is str else _scalar(value)
        return _text(plain, MAX_RAW if self._raw else MAX_STRING) if isinstance(plain, str) else plain

    def _enter(self, value: object, depth: int) -> bool:
        if depth >= MAX_DEPTH or id(value) in self._around or self._left <= 0:
            _count_cut()
            return False
        self._around.add(id(value))
        return True

    def map(self, properties: Mapping[Any, Any], depth: int) -> Any:
        """Clean a map; a cycle, or one too deep, becomes `…`."""
        if not self._enter(properties, depth):
            return CUT_MARK
        cleaned: dict[str, Any] = {}
        try:
            for key, inner in self._within(_entries(properties), MAX_KEYS):
                name = _text(key if type(key) is str else str(self.value(key, MAX_DEPTH)))
                if not name or (self._without is not None and self._without(name)):
                    continue
                value = self.value(inner, depth + 1)
                if value is not None:
                    cleaned[name] = value
        finally:
            self._around.discard(id(properties))
        return cleaned

    def _list(self, values: Iterable[Any], depth: int) -> Any:
        if not self._enter(values, depth):
            return CUT_MARK
        try:
            cleaned = [self.value(inner, depth + 1, in_list=True) for inner in self._within(iter(values), MAX_LIST)]
        finally:
            self._around.discard(id(values))
        kept = [value for value in cleaned if value is not None]
        # A set has another order in every process, and the same value must give the same bytes.
        return sorted(kept, key=str) if isinstance(values, (set, frozenset)) else kept

    def _json_text(self, values: Iterable[Any], depth: int) -> str:
        self._raw = True
        try:
            return _text(orjson.dumps(self._list(values, depth)).decode())
        finally:
            self._raw = False

    def _within(self, values: Iterator[Any], most: int) -> Iterator[Any]:
        for value in islice(values, most):
            if self._left <= 0:
                _count_cut()
                return
            yield value
        if next(values, self) is not self:
            _count_cut()


def _entries(properties: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
    if isinstance(properties, dict):
        # A copy in one step: another thread may be writing.
        return iter(list(dict.items(properties)))
    return ((key, properties[key]) for key in properties)
