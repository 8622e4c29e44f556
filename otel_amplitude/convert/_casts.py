"""A value as the type that a key of the event, or a rule, asks for; None when it honestly can not be."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from otel_amplitude.limits import MAX_GROUP_NAMES, MAX_GROUP_TYPES, MAX_STRING
from otel_amplitude.moments import MILLISECONDS, NO_SESSION, Moment, is_no_session, read_moment, session_ms
from otel_amplitude.values import as_map, clean, id_text

Cast = Callable[[Any], Any]


def to_text(value: Any) -> str | None:
    """Give texts, numbers and booleans as text.

    >>> to_text("a"), to_text(7), to_text(True), to_text([1])
    ('a', '7', 'true', None)
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(clean(value)) if isinstance(value, (str, int, float)) else None


def to_integer(value: Any) -> int | None:
    """Give integers, whole floats and decimal digits as an integer.

    >>> to_integer("42"), to_integer(3.0), to_integer(3.5), to_integer(True)
    (42, 3, None, None)
    """
    number = to_number(value)
    if isinstance(number, float):
        return int(number) if number.is_integer() else None
    return number


def to_number(value: Any) -> float | None:
    """Give finite numbers, and texts of one, as a number.

    >>> to_number("12.5"), to_number(2), to_number("twelve"), to_number(float("nan"))
    (12.5, 2, None, None)
    """
    if isinstance(value, str) and len(value) <= 32:
        try:
            value = int(value) if value.strip().lstrip("+-").isdigit() else float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or (isinstance(value, float) and not math.isfinite(value)):
        return None
    cleaned = clean(value)
    return cleaned if isinstance(cleaned, (int, float)) else None


def to_boolean(value: Any) -> bool | None:
    """Give booleans, and the words true and false, as a boolean."""
    return value if isinstance(value, bool) else {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else None


def to_map(value: Any) -> dict[str, Any] | None:
    """Give maps, cleaned."""
    return as_map(value)


def to_session(value: Any) -> Moment | None:
    """Give the start of a session as a moment; -1 stays, for no session."""
    if is_no_session(value):
        return Moment(NO_SESSION, MILLISECONDS)
    return read_moment(value) if session_ms(value) is not None else None


# A date stands for a moment, a zone for the start of a session: no other types would be read so.
CASTS: Final[dict[type, Cast]] = {
    str: to_text,
    int: to_integer,
    float: to_number,
    bool: to_boolean,
    dict: to_map,
    dt.datetime: read_moment,
    dt.tzinfo: to_session,
}
NAMED_CASTS: Final[dict[str, Cast]] = {"text": to_text, "integer": to_integer, "number": to_number, "boolean": to_boolean}


def to_groups(groups: Mapping[str, Any]) -> dict[str, str | list[str]]:
    """Give group names as text or lists of it: at most 5 types and 10 names (Accounts page: the excess is not tracked)."""
    if len(groups) <= MAX_GROUP_TYPES and all(type(name) is str and 0 < len(name) <= MAX_STRING for name in groups.values()):
        return dict(groups)
    cleaned: dict[str, str | list[str]] = {}
    room = MAX_GROUP_NAMES
    for kind, names in groups.items():
        texts = [text for name in (names if isinstance(names, (list, tuple)) else (names,)) if (text := id_text(name) or to_text(name))][
            :room
        ]
        if texts and len(cleaned) < MAX_GROUP_TYPES:
            cleaned[str(clean(kind))] = texts if isinstance(names, (list, tuple)) else texts[0]
            room -= len(texts)
    return cleaned
