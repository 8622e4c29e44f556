"""Cleaning: whatever a value is, it becomes JSON within Amplitude's limits."""

import datetime as dt
import decimal
import fractions
import json
import math
import uuid
from collections.abc import Iterator, Mapping

import pytest
import strategies
from hypothesis import given

from otel_amplitude.limits import MAX_DEPTH, MAX_KEYS, MAX_LIST, MAX_STRING
from otel_amplitude.values import clean, clean_properties, truncated


def strict(text: str | bytes) -> object:
    """Parse JSON that knows no NaN."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def assert_limits(value: object, depth: int = 0, *, in_list: bool = False) -> None:
    """A JSON value as Amplitude takes it."""
    if isinstance(value, str):
        assert len(value) <= MAX_STRING
        value.encode()
    elif isinstance(value, float):
        assert math.isfinite(value)
    elif isinstance(value, list):
        assert not in_list
        assert len(value) <= MAX_LIST
        assert depth < MAX_DEPTH
        for inner in value:
            assert_limits(inner, depth + 1, in_list=True)
    elif isinstance(value, dict):
        assert len(value) <= MAX_KEYS
        assert depth < MAX_DEPTH
        for key, inner in value.items():
            assert key
            assert_limits(key)
            assert_limits(inner, depth + 1)
    else:
        assert isinstance(value, (bool, int))
        assert abs(value) <= 2**53


@given(strategies.maps)
def test_any_map_becomes_json_within_the_limits(properties: dict) -> None:
    """Nothing that an application holds breaks the JSON or the limits."""
    cleaned = clean_properties(properties)
    assert_limits(cleaned)
    assert strict(json.dumps(cleaned)) == cleaned


@given(strategies.maps)
def test_cleaning_twice_changes_nothing(properties: dict) -> None:
    """What is clean stays as it is."""
    once = clean_properties(properties)
    assert clean_properties(once) == once


@given(strategies.plain_maps)
def test_the_ordinary_passes_as_it_is(properties: dict) -> None:
    """A map of plain values is copied, not changed."""
    cleaned = clean_properties(properties)
    assert cleaned == properties
    assert cleaned is not properties


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
        (2**53, 2**53),
        (2**53 + 1, "9007199254740993"),
        (-(2**60), "-1152921504606846976"),
        (10**5_000, hex(10**5_000)[:MAX_STRING]),
        (b"\x00\xff", "AP8="),
        (bytearray(b"ab"), "YWI="),
        (memoryview(b"ab"), "YWI="),
        (b"x" * 1_000, "eHh4" * 256),
        (dt.datetime(2026, 11, 22, 3, 4, 5, 678), "2026-11-22T03:04:05"),
        (dt.datetime(2026, 11, 22, 3, 4, 5, tzinfo=dt.timezone(dt.timedelta(hours=2))), "2026-11-22T01:04:05"),
        (dt.datetime(1, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))), None),
        (dt.date(2026, 11, 22), "2026-11-22"),
        (dt.time(3, 4), "03:04:00"),
        (dt.timedelta(minutes=1.5), 90.0),
        (decimal.Decimal("12.50"), 12.5),
        (decimal.Decimal("12345678901234567.89"), "12345678901234567.89"),
        (decimal.Decimal("NaN"), "NaN"),
        (decimal.Decimal("1E+400"), "1E+400"),
        (fractions.Fraction(1, 2), 0.5),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (strategies.Colour.RED, "red"),
        (strategies.Colour.BLUE, 2),
        (strategies.Colour.NONE, "NONE"),
        (strategies.ShoutingText("loud"), "loud"),
        ({"b", "a"}, ["a", "b"]),
        ((1, None, 2), [1, 2]),
        (range(3), [0, 1, 2]),
        ([1, [2, [3, "x"]]], [1, '[2,[3,"x"]]']),
        ([{"a": [1, (2,)]}], [{"a": [1, "[2]"]}]),
        ({"a": None, "": 1, 3: 4, b"k": 5, None: 6}, {"3": 4, "k": 5, "None": 6}),
        ("lone \ud800", "lone \ufffd"),
        ("\ud83d\ude00", "😀"),
        ("é" * 1_030, "é" * 1_024),
        (object(), None),
        (strategies.Hostile(), None),
        (ValueError("words"), None),
        (1 + 2j, "(1+2j)"),
        (True, True),
        (None, None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_one_value(value: object, expected: object) -> None:
    """Each kind of value has one form."""
    assert clean(value) == expected
    assert type(clean(value)) is type(expected)


@pytest.mark.parametrize("odd", [float("nan"), 2**60, b"x", None, [1], "x" * 1_025, "\ud800", strategies.Colour.RED])
def test_one_odd_value_among_ordinary_ones_is_found(odd: object) -> None:
    """The short way for ordinary maps lets nothing else pass."""
    expected = {"before": 1.5, "odd": clean(odd), "after": "é"}
    assert clean_properties({"before": 1.5, "odd": odd, "after": "é"}) == {
        key: value for key, value in expected.items() if value is not None
    }


@pytest.mark.parametrize("key", ["", 1, "k" * 1_025, "\ud800"])
def test_one_odd_key_among_ordinary_ones_is_found(key: object) -> None:
    """Keys are cleaned as texts are."""
    expected = {"": {}, 1: {"1": True}, "k" * 1_025: {"k" * 1_024: True}, "\ud800": {"\ufffd": True}}
    assert clean_properties({"a": 1, key: True}) == {"a": 1, **expected[key]}


def test_a_cycle_is_cut_where_it_closes() -> None:
    """A list that holds itself ends in a mark."""
    loop: list[object] = [1]
    loop.append({"again": loop})
    assert clean(loop) == [1, {"again": "…"}]


def test_a_value_twice_is_no_cycle() -> None:
    """The same map under two keys is written twice."""
    shared = {"a": 1}
    assert clean({"x": shared, "y": shared}) == {"x": {"a": 1}, "y": {"a": 1}}


def test_depth_is_cut_at_forty_levels() -> None:
    """The forty-first map is a mark, whatever it holds."""
    deep: object = "bottom"
    for _ in range(60):
        deep = {"k": deep}
    cleaned = clean(deep)
    for _ in range(MAX_DEPTH):
        cleaned = cleaned["k"]
    assert cleaned == "…"
    assert clean({"k": {}}, depth=MAX_DEPTH - 1) == {"k": "…"}


def test_lists_that_hold_one_another_many_times_end_soon() -> None:
    """A few lists that would unfold to 10^20 values stop at a bound."""
    bomb: object = "boom"
    for _ in range(20):
        bomb = {str(index): bomb for index in range(10)}
    before = truncated()
    assert len(json.dumps(clean(bomb))) < 1_000_000
    assert truncated() > before


def test_long_lists_and_maps_are_cut_and_counted() -> None:
    """1,000 values of a list and 1,024 keys of a map stay, and each cut counts."""
    before = truncated()
    assert clean(list(range(2_000))) == list(range(1_000))
    assert clean_properties({str(index): index for index in range(2_000)}) == {str(index): index for index in range(1_024)}
    assert clean("x" * 2_000) == "x" * 1_024
    assert truncated() == before + 3


class Endless(Mapping[str, int]):
    """A mapping without end."""

    def __getitem__(self, key: str) -> int:
        return 1

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        number = 0
        while True:
            number += 1
            yield str(number)


def test_a_mapping_without_end_ends() -> None:
    """Any mapping is read, to its 1,024th key at most."""
    assert len(clean_properties(Endless())) == MAX_KEYS


@pytest.mark.parametrize("nothing", [None, 3, "text", ["a"], strategies.Hostile()], ids=lambda value: type(value).__name__)
def test_what_is_no_map_has_no_properties(nothing: object) -> None:
    """Properties that are no mapping are none."""
    assert clean_properties(nothing) == {}


class Refusing(Mapping[str, int]):
    """A mapping that gives nothing away."""

    def __getitem__(self, key: str) -> int:
        raise RuntimeError(key)

    def __len__(self) -> int:
        raise RuntimeError("len")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("iter")


def test_a_hostile_mapping_costs_itself_only() -> None:
    """One that raises is removed from other properties, and empty as properties."""
    assert clean_properties({"a": Refusing(), "b": strategies.HostileMap(x=1), "c": 1}) == {"b": {"x": 1}, "c": 1}
    assert clean_properties(Refusing()) == {}


def test_raw_keeps_lists_and_longer_texts() -> None:
    """For who looks into them before they are sent."""
    assert clean_properties({"a": [[1, b"x"]], "b": "x" * 3_000}, raw=True) == {"a": [[1, "eA=="]], "b": "x" * 2_048}
