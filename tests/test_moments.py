"""Moments: whatever the unit or the form, the milliseconds that were meant; anything else is none."""

from __future__ import annotations

import datetime as dt

import pytest
import strategies
from hypothesis import given
from hypothesis import strategies as st

from otel_amplitude.moments import FIXES, MILLISECONDS, is_near, read_moment, read_session, session_ms

MS = 1_795_305_661_234


@given(strategies.moments)
def test_a_moment_in_any_form_is_the_one_that_was_meant(moment: tuple[object, int]) -> None:
    """What it was given in is one of the words that a warning exists for."""
    given_value, ms = moment
    read = read_moment(given_value)
    assert read is not None
    assert read.ms == ms
    assert read.given in {MILLISECONDS, *FIXES}
    assert session_ms(given_value) == read_session(given_value, lambda _cause, _what: None) == ms


@given(strategies.values)
def test_any_value_is_a_moment_or_none(value: object) -> None:
    """Nothing raises, and what is read is a whole number."""
    read = read_moment(value)
    assert read is None or type(read.ms) is int


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2026-11-22T00:01:01.234Z", MS),
        ("2026-11-22t00:01:01.234z", MS),
        ("2026-11-22T00:01:01,234Z", MS),
        ("2026-11-22T00:01:01.234999999Z", MS),
        ("2026-11-22 01:01:01.234 +01:00", MS),
        ("20261122T010101.234+0100", MS),
        ("2026-11-21T19:01:01.234-05", MS),
        ("2026-11-22 00:01:01.234 UTC", MS),
        ("2026-11-22T00:01", MS - 1_234),
        ("2026-11-22", MS - 61_234),
        ("1.795305661234e9", MS),
        ("+1795305661", MS - 234),
        *(
            (text, None)
            for text in (
                "",
                "now",
                "2026-13-01",
                "2026-11-22T25:00",
                "22.11.2026",
                "١٧٩٥٣٠٥٦٦١",
                "1e99",
                "2026-11-22T00:00:00+",
                "0x10",
                "9" * 70,
            )
        ),
    ],
)
def test_texts(text: str, ms: int | None) -> None:
    """Numbers, and ISO 8601 in its usual forms; other ways to write a date are not guessed at."""
    read = read_moment(text)
    assert (None if read is None else read.ms) == ms


@pytest.mark.parametrize(
    ("number", "unit"),
    [(10**11 - 1, "seconds"), (10**11, "milliseconds"), (10**14 - 1, "milliseconds"), (10**14, "microseconds"), (10**17, "nanoseconds")],
)
def test_the_magnitude_tells_the_unit(number: int, unit: str) -> None:
    """The bounds leave no doubt from 1973 to 5138."""
    read = read_moment(number)
    assert read is not None
    assert read.given == unit


@given(st.datetimes(timezones=st.none() | st.timezones()))
def test_every_datetime_is_a_moment(moment: dt.datetime) -> None:
    """Also at the ends of the calendar; without a zone it is UTC."""
    read = read_moment(moment)
    assert read is not None
    aware = moment if moment.utcoffset() is not None else moment.replace(tzinfo=dt.timezone.utc)
    assert read.ms == (aware - dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)) // dt.timedelta(milliseconds=1)


def test_near() -> None:
    """Ten years ago to a day ahead."""
    day = 86_400_000
    assert [is_near(MS + days * day, MS) for days in (-3_654, -3_653, 0, 1, 2)] == [False, True, True, True, False]
