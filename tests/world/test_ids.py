"""Ids as applications have them: keys of databases, members of enums, and texts that name nobody."""

from __future__ import annotations

import decimal
import enum
import uuid
from typing import Any

import numpy as np
import pytest
from opentelemetry import propagate
from opentelemetry.trace import SpanKind
from world.traced import Traced, visitor

from otel_amplitude import acting, set_user
from otel_amplitude.identity._luggage import pack, unpack
from otel_amplitude.identity._scope import RequestScope

UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")


class Account(enum.Enum):
    ADMIN = "user-99"
    ROBOT = 123456


IDS = [
    (123456, "123456"),
    (np.int64(123456), "123456"),
    (np.uint32(123456), "123456"),
    (decimal.Decimal(123456), "123456"),
    (UUID, str(UUID)),
    (Account.ADMIN, "user-99"),
    (Account.ROBOT, "123456"),
]


@pytest.mark.parametrize(("given", "text"), IDS, ids=lambda value: repr(value)[:20])
def test_a_key_of_a_database_is_an_id_wherever_it_is_given(given: Any, text: str, traced: Traced) -> None:
    """boto/boto3#369 (DynamoDB gives Decimal), numpy/numpy#27651 (numpy's integers are no `int`): the same id in each way."""
    traced.client.log_event({"event_type": "Order Paid", "user_id": given, "insert_id": given, "groups": {"org": given}})
    with (
        acting(given, groups={"org": given}),
        traced.tracer.start_as_current_span("pay", attributes={"amplitude.event_type": "Order Paid"}),
    ):
        pass
    first, second = traced.events()
    assert (first["user_id"], second["user_id"], first["insert_id"], first["groups"]) == (text, text, text, {"org": text})
    assert second["groups"] == {"org": text}


def test_a_function_of_a_header_may_give_a_key_of_a_database() -> None:
    """A token's subject is often made a UUID; a task gets it too."""

    def subject(value: str) -> object:
        return uuid.UUID(value)

    traced = Traced(identity_headers={"user": ("authorization", subject)})
    attributes = {"amplitude.event_type": "Order Paid", "http.request.header.authorization": (str(UUID),)}
    traced.tracer.start_span("pay", attributes=attributes).end()
    assert [event["user_id"] for event in traced.events()] == [str(UUID)]
    traced.client.shutdown(5)
    scope = RequestScope()
    scope.learn(user_id=Account.ADMIN)
    assert unpack(pack(scope)).user_id == "user-99"


@pytest.mark.parametrize(
    "given", [1.5, 123456.0, True, float("nan"), decimal.Decimal("1.5"), decimal.Decimal("NaN"), np.timedelta64(123456, "s"), b"user-99"]
)
def test_what_is_no_key_is_no_id(given: Any, traced: Traced) -> None:
    """A float may have lost digits, and durations of numpy call themselves integers."""
    traced.client.log_event({"event_type": "Order Paid", "user_id": given})
    with acting(given), traced.tracer.start_as_current_span("pay", attributes={"amplitude.event_type": "Order Paid"}):
        pass
    assert (traced.events(), sum(traced.refused().values())) == ([], 2)


@pytest.mark.parametrize("given", ["AnonymousUser", "anonymousUser", "[object Object]", "(null)", "<null>"])
def test_a_text_that_stands_for_nobody_is_no_id(given: str, traced: Traced) -> None:
    """PostHog/posthog#12008: `str(request.user)` of Django, Spring Security's principal, JavaScript's text of any object would make one person of all."""
    traced.client.log_event({"event_type": "Order Paid", "user_id": given})
    with acting(given), traced.tracer.start_as_current_span("pay", attributes={"amplitude.event_type": "Order Paid"}):
        pass
    assert (traced.events(), traced.refused()) == ([], {"invalid": 1, "no_identity": 1})


@pytest.mark.parametrize(
    "own", [{}, {"amplitude.device_id": "device-of-bob", "amplitude.session_id": 1_795_305_600_000}], ids=["user", "all"]
)
@pytest.mark.parametrize("known_by", ["set_user", "attribute", "convention"])
def test_what_is_said_of_another_user_has_nothing_of_the_visitors(known_by: str, own: dict[str, Any], traced: Traced) -> None:
    """Amplitude credits a device's anonymous events to the last user seen on it: alice invites bob, whose event must not be on her device."""
    attributes = {"attribute": {"amplitude.user_id": "alice-1"}, "convention": {"user.id": "alice-1"}}.get(known_by, {})
    context = propagate.extract({"cookie": visitor()["Cookie"]})
    with traced.tracer.start_as_current_span("invite", context=context, kind=SpanKind.SERVER, attributes=attributes):
        if known_by == "set_user":
            set_user("alice-1", groups={"org": "acme"})
        for user in ("bob-111", "alice-1"):
            mine = own if user == "bob-111" else {}
            traced.tracer.start_span("tell", attributes={"amplitude.event_type": "Told", "amplitude.user_id": user, **mine}).end()
    bob, alice = traced.events()
    assert {name: bob.get(name) for name in ("user_id", "device_id", "session_id", "groups")} == {
        "user_id": "bob-111",
        "device_id": own.get("amplitude.device_id"),
        "session_id": own.get("amplitude.session_id"),
        "groups": None,
    }
    assert (alice["user_id"], alice["device_id"], alice.get("groups")) == (
        "alice-1",
        "device-1234",
        {"org": "acme"} if known_by == "set_user" else None,
    )
