"""Named strategies: what applications put into events, spans and records, from ordinary to hostile."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import types
import uuid
from typing import Any, NamedTuple

import attrs
import numpy as np
import pydantic
from hypothesis import strategies as st

from otel_amplitude.events import KEYS, OPERATIONS


class Colour(enum.Enum):
    """Members with a text, a number and something else."""

    RED = "red"
    BLUE = 2
    NONE = ()


class Hostile:
    """Raises when asked for its text, or compared."""

    def __str__(self) -> str:
        raise RuntimeError("no text of me")

    def __repr__(self) -> str:
        return "Hostile()"

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison with me")

    __hash__ = object.__hash__


class HostileMap(dict[Any, Any]):
    """A dict that can not be listed."""

    def keys(self) -> Any:
        raise RuntimeError("no keys of me")

    __iter__ = items = values = keys


class ShoutingText(str):
    """A text that writes itself as something else."""

    __slots__ = ()

    def __str__(self) -> str:
        return self.upper()


# Any text, lone surrogates included, sometimes longer than Amplitude keeps.
texts = st.one_of(
    st.text(max_size=20),
    st.text(st.characters(categories=["Cs", "Lu", "So"]), max_size=5),
    st.integers(1_020, 1_030).map(lambda size: "ü" * size),
    st.sampled_from(['quote"', "back\\slash", "null", "\ud83d\ude00", "", ShoutingText("loud"), "a" * 3_000, ('"' + "b" * 600) * 2]),
)
integers = st.one_of(st.integers(), st.sampled_from([2**53, 2**53 + 1, -(2**63), 2**64, 10**4_000]))
floats = st.floats()
scalars = st.one_of(st.none(), st.booleans(), integers, floats, texts)
exotic = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([b"x" * 2_000, bytearray(b"ab"), memoryview(b"cd"), range(3), Colour.RED, Colour.BLUE, Colour.NONE, object()]),
    st.datetimes(timezones=st.none() | st.just(dt.timezone.utc)),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.decimals(),
    st.fractions(),
    st.frozensets(st.integers(), max_size=4),
    st.just(decimal.Decimal("sNaN")),
    st.just(uuid.UUID(int=0)),
    st.builds(Hostile),
    st.just(HostileMap(a=1)),
)


@dataclasses.dataclass
class Account:
    """A field that is public, one that is not, and one that its class hides."""

    plan: Any
    _internal: Any = "internal"
    password: Any = dataclasses.field(default="hidden", repr=False)


@attrs.define
class Parcel:
    """The same, as attrs has it; its fields are slots."""

    plan: Any
    _internal: Any = "internal"
    password: Any = attrs.field(default="hidden", repr=False)


class Order(pydantic.BaseModel, arbitrary_types_allowed=True):
    """The same, as pydantic has it."""

    plan: Any
    password: Any = pydantic.Field(default="hidden", exclude=True)


class Item(NamedTuple):
    """Names for a tuple."""

    plan: Any
    count: Any = 1


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects with fields, whose public one is `plan`; numpy's scalars and arrays; objects that have no form in JSON."""
    return st.one_of(
        inner.map(Account),
        inner.map(Parcel),
        inner.map(lambda value: Order.model_construct(plan=value)),
        inner.map(Item),
        inner.map(lambda value: types.SimpleNamespace(plan=value, _internal="internal")),
        st.integers(-9, 9).map(np.int64),
        st.floats(width=32).map(np.float32),
        st.lists(st.floats(), max_size=3).map(np.array),
        st.sampled_from([np.datetime64("NaT", "s"), np.timedelta64(1, "s"), np.bool_(True), iter(()), len, types]),
    )


# A moment as it is given, with the milliseconds it means: in each unit, as a number or a text, with and without a zone.
_near = st.integers(1_500_000_000_000, 1_790_000_000_000)
moments = st.one_of(
    _near.map(lambda ms: (ms, ms)),
    _near.map(lambda ms: (ms // 1_000, ms // 1_000 * 1_000)),
    _near.map(lambda ms: (ms * 1_000 + 999, ms)),
    _near.map(lambda ms: (ms * 1_000_000 + 999_999, ms)),
    _near.map(lambda ms: (str(ms), ms)),
    _near.map(lambda ms: (str(ms * 1_000_000), ms)),
    _near.map(lambda ms: (decimal.Decimal(ms) / 1_000, ms)),
    _near.map(lambda ms: (np.datetime64(ms, "ms"), ms)),
    st.tuples(_near, st.integers(-14 * 60, 14 * 60), st.booleans()).map(
        lambda drawn: (_zoned(drawn[0], drawn[1]) if drawn[2] else _zoned(drawn[0], drawn[1]).isoformat(), drawn[0])
    ),
    _near.map(lambda ms: (_zoned(ms, 0).replace(tzinfo=None), ms)),
)


def _zoned(ms: int, minutes: int) -> dt.datetime:
    moment = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc) + dt.timedelta(milliseconds=ms)
    return moment.astimezone(dt.timezone(dt.timedelta(minutes=minutes)))


keys = st.one_of(texts, st.integers(0, 3), st.none(), st.booleans(), st.binary(max_size=3), st.tuples(st.integers(0, 2)))


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=4),
        objects(inner),
    )


# Anything at all, nested.
values = st.recursive(scalars | exotic, _containers, max_leaves=12)
# Anything under keys of any type.
maps = st.dictionaries(keys, values, max_size=6)
# What a well-behaved application attaches.
plain_maps = st.dictionaries(
    st.text("abc.é", min_size=1, max_size=5),
    st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text("aé .", max_size=9),
    max_size=6,
)
ids = st.one_of(
    st.just("u-12345"),
    st.text(max_size=8),
    st.sampled_from(["  padded  ", "None", "00000", "", "x" * 1_025, 123_456, uuid.UUID(int=7), True, None]),
)
event_types = st.one_of(
    st.sampled_from(["Order Paid", "$identify", "$groupidentify", "revenue_amount", "[Amplitude] Revenue", "", " "]), texts
)
operations = st.dictionaries(st.sampled_from(sorted(OPERATIONS | {"$no", "plain"})), maps | values, max_size=3)
# An event as anyone might hand it over: every known key with anything in it, unknown keys, keys that are no text.
events = st.fixed_dictionaries(
    {"event_type": event_types, "user_id": ids},
    optional={
        "device_id": ids,
        "time": moments.map(lambda moment: moment[0]) | st.integers(0, 2**42) | values,
        "event_properties": maps,
        "user_properties": operations | maps,
        "group_properties": operations | maps,
        "groups": st.dictionaries(texts, texts | st.lists(texts, max_size=12), max_size=7) | values,
        "price": st.floats() | st.decimals() | values,
        "session_id": moments.map(lambda moment: moment[0]) | integers | values,
        "currency": st.sampled_from(["EUR", "eur", "Euro", 1]),
    },
)
odd_events = st.builds(
    lambda event, known, unknown: {**event, **known, **unknown},
    events,
    st.dictionaries(st.sampled_from(sorted(KEYS - {"event_type", "user_id"})), values, max_size=4),
    st.dictionaries(keys, values, max_size=2),
)

header_names = st.from_regex(r"[a-z](-?[a-z0-9]){1,12}", fullmatch=True)
header_texts = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=30).filter(lambda text: text[0] != "[")


def captured_headers(name: str, text: str) -> st.SearchStrategy[dict[str, object]]:
    """The attribute in which some language's instrumentation captures a header: with dashes or underscores, as a text or a list."""
    spelling = st.sampled_from([name, name.replace("-", "_")])
    value = st.sampled_from([text, [text], (text,), json.dumps([text])])
    return st.builds(lambda spelt, held: {f"http.request.header.{spelt}": held}, spelling, value)
