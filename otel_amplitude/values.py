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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Any, Final

import orjson

from otel_amplitude.errors import interrupts
from otel_amplitude.fixes import Note, ignore
from otel_amplitude.limits import INVALID_IDS, MAX_DEPTH, MAX_EVENT_BYTES, MAX_INTEGER, MAX_KEYS, MAX_LIST, MAX_STRING
from otel_amplitude.objects import NOTHING, as_text, fields_of, items_of, name_of, text_of, unwrapped

__all__ = [
    "CUT_MARK",
    "MAX_RAW",
    "PLAIN_TYPES",
    "as_map",
    "as_text",
    "clean",
    "clean_properties",
    "has_control",
    "id_text",
    "is_placeholder",
    "is_sound_id",
    "truncated",
]

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
# A number kept as an id has at most 128 bits (a UUID).
_ID_END: Final = 1 << 128
_LISTS: Final = (list, tuple, set, frozenset, deque, range)
# What an application calls a list or a set of its own; never an iterator, which would be used up.
_LIKE_LISTS: Final = (Sequence, AbstractSet, ValuesView)

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


def id_text(value: object) -> str | None:
    """Give an id as text: a text, a whole number (also numpy's and a Decimal) of at most 128 bits, a UUID, or a member of an enum of these.

    None for anything else: a float may have lost digits. May raise what a hostile value raises.

    >>> id_text(42), id_text(decimal.Decimal("42")), id_text(uuid.UUID(int=7)), id_text(4.0), id_text(True)
    ('42', '42', '00000000-0000-0000-0000-000000000007', None, None)
    """
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, decimal.Decimal) and value.is_finite() and abs(value) < _ID_END and value == int(value):
        value = int(value)
    # numpy's durations call themselves integers.
    if (
        isinstance(value, bool)
        or not isinstance(value, numbers.Integral)
        or getattr(getattr(value, "dtype", None), "kind", "i") not in "iu"
    ):
        return None
    number = int(value)
    return str(number) if -_ID_END < number < _ID_END else None


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


def clean(value: object, *, depth: int = 0, without: Callable[[str], bool] | None = None, note: Note = ignore) -> Any:
    """Give `value` as JSON that Amplitude takes; never raises.

    Texts are cut to 1,024 characters, NaN and infinities become text, as do integers beyond 2^53, bytes (base64), dates
    (`YYYY-MM-DDTHH:MM:SS`, in UTC when they know their zone) and lists inside lists (JSON text). Decimals become numbers, enum
    members their value, sets sorted lists, objects with fields maps (see `objects`). None stays None here, and is left out of lists
    and maps; so is what has no form in JSON, which `note` is told of.
    (HTTP V2 and Limits pages; "Dates are compared as strings".)

    Args:
        value: anything.
        depth: how many maps and lists already stand around it; below 40 levels everything is cut.
        without: says of a name whether it is left out of every map in `value`.
        note: told of what was left out since it has no form in JSON.

    >>> clean(float("nan")), clean(2**60), clean(b"ab"), clean([1, [2, 3]])
    ('NaN', '1152921504606846976', 'YWI=', [1, '[2,3]'])
    """
    if value is None or type(value) is bool:
        return value
    if type(value) is str:
        return _text(value)
    return _Cleaner(without=without, note=note).value(value, depth)


def clean_properties(properties: object, *, depth: int = 0, raw: bool = False, note: Note = ignore) -> dict[str, Any]:
    """Give a new dict with text keys and cleaned values; `{}` for what is neither a map nor an object with fields; never raises.

    Keys are cut to 1,024 characters and their number to 1,024; entries that are None or have an empty key are left out.
    An ordinary dict of texts and numbers costs about 0.1 µs for each value.

    Args:
        properties: a mapping, or an object with fields.
        depth: how many maps and lists already stand around it.
        raw: leave lists in lists as they are, and texts up to 2,048 characters, for who looks into them and cleans again.
        note: told of what was left out since it has no form in JSON.
    """
    if type(properties) is dict and len(properties) <= MAX_KEYS:
        cleaned = properties.copy()
        if _ordinary(cleaned):
            return cleaned
    cleaned = _Cleaner(raw=raw, note=note).value(properties, depth)
    return cleaned if type(cleaned) is dict else {}


def as_map(value: object, note: Note = ignore) -> dict[str, Any] | None:
    """Give a mapping, or an object with fields, as a cleaned dict; None for anything else. Never raises."""
    if issubclass(type(value), (str, *_LISTS)) and not hasattr(type(value), "_fields"):
        return None
    cleaned = _Cleaner(note=note).value(value, 0)
    return cleaned if type(cleaned) is dict else None


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


def _date(value: dt.date) -> str | None:
    if value != value:  # noqa: PLR0124 -- pandas' NaT, which is a datetime
        return None
    if not isinstance(value, dt.datetime):
        return value.isoformat()
    if value.tzinfo is not None:
        value = value.astimezone(dt.timezone.utc).replace(tzinfo=None)
    return value.isoformat(timespec="seconds")


def _member(value: enum.Enum) -> Any:
    return _scalar(value.value) if isinstance(value.value, (str, int, float)) else value.name


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
    # numpy's durations call themselves integers, of any unit: its scalars are read as its arrays are.
    (numbers.Integral, lambda value: NOTHING if hasattr(value, "dtype") else _integer(int(value))),
    (numbers.Real, lambda value: _float(float(value))),
    (numbers.Complex, str),
)


def _scalar(value: object) -> Any:
    """Give what is neither map nor list as JSON, a text as long as it is; NOTHING for an object that is none of these."""
    kind = type(value)
    return next((convert(value) for kinds, convert in _SCALARS if issubclass(kind, kinds)), NOTHING)


class _Cleaner:
    """One walk through one value: knows what it stands in (cycles) and how much it may still visit."""

    __slots__ = ("_around", "_left", "_note", "_raw", "_without")

    def __init__(self, *, raw: bool = False, without: Callable[[str], bool] | None = None, note: Note = ignore) -> None:
        self._around: set[int] = set()
        self._left = _MAX_NODES
        self._note = note
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
            return self._remove(value)

    def _read(self, value: Any, depth: int, in_list: bool) -> Any:
        # The type is asked, not the object: a lazy one answers `__class__` with a query.
        kind = type(value)
        if issubclass(kind, Mapping):
            return self._map(value, _entries(value), depth)
        if kind is list or (issubclass(kind, _LISTS) and not hasattr(kind, "_fields")):
            return self._json_text(value, depth) if in_list and not self._raw else self._list(value, depth)
        plain = value if kind is str else _scalar(value)
        if plain is NOTHING:
            return self._object(value, depth, in_list)
        return _text(plain, MAX_RAW if self._raw else MAX_STRING) if isinstance(plain, str) else plain

    def _object(self, value: object, depth: int, in_list: bool) -> Any:
        text = text_of(value)
        if text is not None:
            return _text(text, MAX_RAW if self._raw else MAX_STRING)
        held = unwrapped(value)
        if held is not value:
            return self.value(held, depth + 1, in_list=in_list)
        fields = fields_of(value)
        if fields is not None:
            return self._map(value, fields, depth)
        kind: Any = type(value)
        items = list(islice(iter(value), MAX_LIST + 1)) if issubclass(kind, _LIKE_LISTS) else items_of(value)  # type: ignore[call-overload]
        if items is NOTHING:
            return self._remove(value)
        if issubclass(kind, AbstractSet):
            items = frozenset(items)
        return self.value(items, depth, in_list=in_list)

    def _remove(self, value: object) -> None:
        self._note("object", name_of(value))

    def _enter(self, value: object, depth: int) -> bool:
        if depth >= MAX_DEPTH or id(value) in self._around or self._left <= 0:
            _count_cut()
            return False
        self._around.add(id(value))
        return True

    def _map(self, holder: object, entries: Iterator[tuple[Any, Any]], depth: int) -> Any:
        """Clean a map, or the fields of an object; a cycle, or one too deep, becomes `…`."""
        if not self._enter(holder, depth):
            return CUT_MARK
        cleaned: dict[str, Any] = {}
        try:
            for key, inner in self._within(entries, MAX_KEYS):
                name = _text(key if type(key) is str else self._name(key))
                if not name or (self._without is not None and self._without(name)):
                    continue
                value = self.value(inner, depth + 1)
                if value is not None:
                    cleaned[name] = value
        finally:
            self._around.discard(id(holder))
        return cleaned

    def _name(self, key: object) -> str:
        """Give a key that is no text as text; `""` for an object that has none."""
        if isinstance(key, bytes):  # such as Redis gives; base64 would hide the name from who looks for it
            return bytes.decode(key, errors="replace")
        name = self._json_text(key, MAX_DEPTH - 1) if type(key) is tuple else self.value(key, MAX_DEPTH)
        return str(name) if name is not None or key is None else ""

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
        raw, self._raw = self._raw, True
        try:
            return _text(orjson.dumps(self._list(values, depth)).decode())
        finally:
            self._raw = raw

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
