"""Values as the type that a key asks for."""

import json
from typing import Any

import pytest
import strategies
from hypothesis import given

from otel_amplitude.convert._casts import CASTS, NAMED_CASTS, to_boolean, to_groups, to_integer, to_map, to_number, to_text


@pytest.mark.parametrize(
    ("cast", "value", "result"),
    [
        (to_text, "a", "a"),
        (to_text, 7, "7"),
        (to_text, False, "false"),
        (to_text, None, None),
        (to_text, ["a"], None),
        (to_integer, 3.0, 3),
        (to_integer, " -42 ", -42),
        (to_integer, 3.5, None),
        (to_integer, True, None),
        (to_integer, "many", None),
        (to_integer, 2**60, None),
        (to_number, "12.5", 12.5),
        (to_number, "inf", None),
        (to_number, "1" * 40, None),
        (to_number, [1], None),
        (to_number, "--1", None),
        (to_boolean, "TRUE", True),
        (to_boolean, False, False),
        (to_boolean, "yes", None),
        (to_boolean, 1, None),
        (to_map, {"a": None, "b": 1}, {"b": 1}),
        (to_map, "a", None),
    ],
)
def test_a_cast_gives_its_type_or_none(cast: Any, value: Any, result: Any) -> None:
    """What honestly is of the type becomes it; everything else is None."""
    made = cast(value)
    assert made == result
    assert type(made) is type(result)


@given(strategies.values)
def test_no_value_breaks_a_cast(value: Any) -> None:
    """A cast never raises, and gives what JSON can hold."""
    for cast in (*CASTS.values(), *NAMED_CASTS.values()):
        json.dumps(cast(value), allow_nan=False)


def test_groups_are_text_and_few() -> None:
    """At most five types and ten names: Amplitude does not track the rest."""
    assert to_groups({"org": "acme", "team": ["a", 2, None], "level": 3, "none": None, "empty": []}) == {
        "org": "acme",
        "team": ["a", "2"],
        "level": "3",
    }
    assert to_groups({"team": [str(number) for number in range(12)], "org": "acme"}) == {"team": [str(number) for number in range(10)]}
    assert len(to_groups({f"g{number}": "x" for number in range(9)})) == 5
