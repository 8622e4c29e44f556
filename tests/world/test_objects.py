"""Applications attach what they have at hand: models, rows, arrays. Their fields are sent, and redaction sees what is sent."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import datetime as dt
import enum
import sqlite3
import types
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from uuid import UUID

import attrs
import numpy as np
import pydantic
import pytest
from django.conf import settings
from django.utils.functional import SimpleLazyObject, empty
from django.utils.translation import gettext_lazy
from pydantic import v1 as pydantic_v1

from otel_amplitude import Amplitude, Config, values
from otel_amplitude.middleware import Redact
from otel_amplitude.testing import FakeTransport

EMAIL = "ann@example.org"


@dataclasses.dataclass
class Customer:
    plan: str
    email: str
    _internal: str = "secret"


@dataclasses.dataclass(slots=True)
class Slotted:
    plan: str
    email: str


@dataclasses.dataclass
class Hidden:
    plan: str
    email: str
    password: str = dataclasses.field(default="hunter2", repr=False)


class Model(pydantic.BaseModel):
    plan: str
    email: str
    token: str = pydantic.Field(default="t-1", exclude=True)
    _note: str = pydantic.PrivateAttr(default="private")

    @pydantic.computed_field
    @property
    def computed(self) -> str:
        raise RuntimeError("a property ran")


class OldModel(pydantic_v1.BaseModel):
    plan: str
    email: str
    token: str = pydantic_v1.Field(default="t-1", exclude=True)


class OpenModel(pydantic.BaseModel, extra="allow"):
    plan: str


@attrs.define
class Attrs:
    plan: str
    email: str
    _internal: str = "secret"
    password: str = attrs.field(default="hunter2", repr=False)


class Row(NamedTuple):
    plan: str
    email: str


class Tags(pydantic.RootModel[list[str]]):
    """What stands around a list."""


def database_row() -> sqlite3.Row:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute(f"SELECT 'pro' AS plan, '{EMAIL}' AS email").fetchone()


class SqlRow(Sequence[Any]):
    """A row as SQLAlchemy makes them: a sequence that knows its names."""

    def __getitem__(self, index: Any) -> Any:
        return ("pro", EMAIL)[index]

    def __len__(self) -> int:
        return 2

    def _asdict(self) -> dict[str, Any]:
        return {"plan": "pro", "email": EMAIL}


OBJECTS = [
    Customer("pro", EMAIL),
    Slotted("pro", EMAIL),
    Hidden("pro", EMAIL),
    Model(plan="pro", email=EMAIL),
    OldModel(plan="pro", email=EMAIL),
    OpenModel(plan="pro", email=EMAIL),
    Attrs("pro", EMAIL),
    Row("pro", EMAIL),
    types.SimpleNamespace(plan="pro", email=EMAIL, _internal="secret"),
    database_row(),
    SqlRow(),
    types.MappingProxyType({"plan": "pro", "email": EMAIL}),
    collections.UserDict({"plan": "pro", "email": EMAIL}),
    np.array(("pro", EMAIL), dtype=[("plan", "U9"), ("email", "U99")]),
]


def sent_properties(properties: Any, *middleware: Any, client: list[Amplitude] | None = None) -> dict[str, Any]:
    """The event properties as they arrive."""
    sent = FakeTransport()
    made = Amplitude(Config("0" * 32, transport=sent, middleware=middleware))
    made.log_event({"event_type": "Plan Changed", "user_id": "user-1234", "event_properties": properties})
    assert made.shutdown(5)
    if client is not None:
        client.append(made)
    return sent.events[0]["event_properties"]


@pytest.mark.parametrize("value", OBJECTS, ids=lambda value: type(value).__name__)
def test_an_object_is_a_map_of_its_public_fields(value: Any) -> None:
    """PostHog/posthog-python#177: models arrived as the text of their repr."""
    assert sent_properties({"account": value}) == {"account": {"plan": "pro", "email": EMAIL}}


@pytest.mark.parametrize("value", OBJECTS, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("nest", [lambda value: value, lambda value: [value], lambda value: [[value]], lambda value: {"deep": (value,)}])
def test_redaction_sees_the_fields_that_are_sent(value: Any, nest: Any) -> None:
    """getsentry/sentry-python#2755 and #4230, getsentry/relay#1789: scrubbing by key missed what was nested in objects."""
    properties = sent_properties({"account": nest(value)}, Redact(keys=["email"]))
    assert EMAIL not in str(properties)
    assert "pro" in str(properties)


def test_the_whole_map_of_properties_may_be_a_model() -> None:
    """PostHog/posthog-python#177: a model in the place of the properties themselves."""
    assert sent_properties(Model(plan="pro", email=EMAIL), Redact(keys=["email"])) == {"plan": "pro"}


def test_a_root_model_is_what_it_stands_around() -> None:
    """PostHog/posthog-python#177: a model serializes as pydantic does it, a root model as its root."""
    assert sent_properties({"tags": Tags(["a", "b"])}) == {"tags": ["a", "b"]}


@pytest.fixture
def translations() -> Iterator[None]:
    """Django's settings, which its lazy texts need; taken back, since a process has one site, which another test may make."""
    made = not settings.configured
    if made:
        settings.configure(USE_I18N=False)
    yield
    if made:
        settings._wrapped = empty


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.str_("text"), "text"),
        (np.array([1, 2, 3]), [1, 2, 3]),
        (np.array([[1, 2], [3, 4]]), ["[1,2]", "[3,4]"]),
        (np.array(5), 5),
        (np.array([1.5, np.nan]), [1.5, "NaN"]),
        (np.datetime64("2026-01-15T12:00:00.123456789"), "2026-01-15T12:00:00"),
        (np.timedelta64(1_500, "ms"), 1.5),
        (np.array(["2026-01-15"], dtype="datetime64[D]"), ["2026-01-15T00:00:00"]),
        (np.zeros(1_000), [0.0] * 1_000),
        (collections.UserList([1, 2]), [1, 2]),
        ({"b": 1, "a": 2}.keys(), ["a", "b"]),
        ({"a": 2}.values(), [2]),
        (gettext_lazy("Order"), "Order"),
        (PurePosixPath("/srv/shop"), "/srv/shop"),
        (ip_address("192.0.2.1"), "192.0.2.1"),
        (ip_address("2001:db8::1"), "2001:db8::1"),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (enum.Enum("Level", {"HIGH": 3})["HIGH"], 3),
        (pydantic.SecretStr, None),
        (pydantic.SecretStr("hunter2"), None),
        (np.zeros(1_001), None),
        ((number for number in range(3)), None),
        (iter([1]), None),
        (map(str, [1]), None),
        (ValueError(f"no such user {EMAIL}"), None),
        (object(), None),
        (len, None),
        (types, None),
        (SimpleLazyObject(lambda: pytest.fail("a lazy object was asked")), None),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.usefixtures("translations")
def test_what_other_objects_become(value: Any, sent: Any) -> None:
    """segmentio/analytics-python#39, #94, launchdarkly/python-server-sdk#56, #57, 444B/streamlit-analytics2#118: one odd value cost the event."""
    assert sent_properties({"value": value, "kept": 1}) == ({"kept": 1} if sent is None else {"value": sent, "kept": 1})


def test_what_is_removed_is_counted_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    """getsentry/sentry-python#2755: what was left out must show somewhere."""
    clients: list[Amplitude] = []
    sent_properties({"a": object(), "b": [object(), len], "c": {"d": object()}}, client=clients)
    assert clients[0].stats().fixed == {"object": 4}
    lines = [line for line in caplog.messages if "event.fixed" in line]
    assert [("builtins.object" in line, "builtin_function_or_method" in line) for line in lines] == [(True, False), (False, True)]


def test_what_redaction_removed_is_counted_too() -> None:
    """getsentry/sentry-python#4230: the scrubber sees objects before the encoder does."""
    clients: list[Amplitude] = []
    sent_properties({"a": object()}, Redact(keys=["email"]), client=clients)
    assert clients[0].stats().fixed == {"object": 1}


def test_a_class_may_be_registered_as_text() -> None:
    """segmentio/analytics-python#94: what the application knows to be text was removed."""

    class OrderId:
        def __str__(self) -> str:
            return "o-7"

    assert sent_properties({"order": OrderId()}) == {}
    assert values.as_text(OrderId) is OrderId
    assert sent_properties({"order": OrderId()}) == {"order": "o-7"}


def test_a_cycle_of_objects_ends() -> None:
    """getsentry/sentry-python#2755: parents that know their children, which know their parents."""
    parent = types.SimpleNamespace(name="parent")
    parent.child = types.SimpleNamespace(name="child", parent=parent)
    assert sent_properties({"node": parent}) == {"node": {"name": "parent", "child": {"name": "child", "parent": "…"}}}


class Exploding(Mapping[str, Any]):
    """Raises whatever it is asked."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError(key)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no iteration")

    def __len__(self) -> int:
        raise RuntimeError("no length")


class ExplodingAttributes:
    """Raises for each attribute, and claims to be a dataclass."""

    __dataclass_fields__ = property(lambda self: 1 / 0)

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


class Endless(Sequence[int]):
    """Never ends."""

    def __getitem__(self, index: Any) -> Any:
        return index

    def __len__(self) -> int:
        return 2**62


@pytest.mark.parametrize("kind", [Exploding, ExplodingAttributes])
def test_a_hostile_object_costs_its_own_key(kind: type) -> None:
    """getsentry/sentry-python#4230: objects whose attributes raise."""
    assert sent_properties({"value": kind(), "kept": 1}) == {"kept": 1}


def test_an_endless_sequence_is_cut() -> None:
    """segmentio/analytics-python#39: a QuerySet, and whatever else goes on, is read no further than is sent."""
    assert len(sent_properties({"value": Endless()})["value"]) == 1_000


def test_a_text_in_a_wrapper_a_pair_as_a_key_and_a_missing_time() -> None:
    """`UserString` is a list of itself, keys of pandas are pairs, and its `NaT` is a datetime that is not equal to itself."""

    class Missing(dt.datetime):
        __hash__ = dt.datetime.__hash__

        def __eq__(self, _other: object) -> bool:
            return False

        def __ne__(self, _other: object) -> bool:
            return True

    given = {"name": collections.UserString("Tea"), "by": {("tea", 1): 2, ("tea", 2): 3}, "at": Missing(2026, 1, 1)}
    assert values.clean(given) == {"name": "Tea", "by": {'["tea",1]': 2, '["tea",2]': 3}}
