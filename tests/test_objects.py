"""Objects: their public fields without their code, whatever marks their class."""

from __future__ import annotations

import functools
import types
from typing import Any

import pydantic
import pytest
import strategies
from hypothesis import given

from otel_amplitude import objects
from otel_amplitude.errors import ConfigurationError
from otel_amplitude.values import as_map, clean_properties


@given(strategies.objects(strategies.scalars))
def test_no_field_that_is_private_or_hidden_is_sent(value: Any) -> None:
    """Whichever library made the class; and what is sent is what a map of the same fields would be."""
    cleaned = clean_properties({"value": value})
    assert not {"internal", "hidden", "_internal", "password"} & set(str(cleaned).replace("'", " ").split())
    if isinstance(cleaned.get("value"), dict) and hasattr(value, "plan"):
        assert {"value": {**cleaned["value"]}} == clean_properties({"value": {**cleaned["value"], "plan": value.plan}})


class Watched:
    """Has a property beside its fields, and tells when it runs."""

    __dataclass_fields__ = types.MappingProxyType({})
    ran = False

    @property
    def address(self) -> str:
        type(self).ran = True
        return "asked"


class Lazy(pydantic.BaseModel):
    plan: str

    @functools.cached_property
    def orders(self) -> list[int]:
        return [1, 2, 3]


def test_no_property_runs_and_what_one_cached_is_no_field() -> None:
    """A property may ask a database."""
    assert as_map(Watched()) is None
    assert not Watched.ran
    lazy = Lazy(plan="pro")
    assert lazy.orders == [1, 2, 3]
    assert as_map(lazy) == {"plan": "pro"}


class Struct:
    """As msgspec makes them: names on the class, values in slots."""

    __slots__ = ("email", "plan")
    __struct_fields__ = ("plan", "email")


def test_slots_that_are_not_set_are_left_out() -> None:
    """As for any field that an object does not have."""
    struct = Struct()
    struct.plan = "pro"
    assert as_map(struct) == {"plan": "pro"}


@pytest.mark.parametrize("value", ["text", 7, None, [("a", 1)], {1}, object(), len])
def test_what_is_no_map(value: object) -> None:
    """Lists of pairs are lists."""
    assert as_map(value) is None


def test_what_is_registered_must_be_a_class() -> None:
    """An object in its place is a mistake of configuration, which raises at once."""
    with pytest.raises(ConfigurationError, match=r"as_text takes a class, not 7: write as_text\(int\)"):
        objects.as_text(7)  # type: ignore[type-var]
