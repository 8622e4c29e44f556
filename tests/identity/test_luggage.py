"""What travels with a task comes out as it went in, without the site's other cookies, and damage comes out empty."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_amplitude.identity import RequestScope, make_cookie
from otel_amplitude.identity._luggage import pack, unpack

FIELDS = ("user_id", "device_id", "session_id", "groups", "opted_out", "anonymous", "cookie", "headers", "gpc", "baggage")
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def facts(scope: RequestScope) -> dict[str, Any]:
    """What the scope knows."""
    return {name: getattr(scope, name) for name in FIELDS}


@given(
    st.none() | texts.filter(bool),
    st.none() | st.integers(1, 2**53),
    st.none() | st.dictionaries(texts, texts | st.lists(texts), min_size=1),
    st.booleans(),
    st.booleans(),
)
def test_round_trip(user: str | None, session: int | None, groups: dict[str, Any] | None, opt_out: bool, gpc: bool) -> None:
    """Everything that is known arrives."""
    scope = RequestScope()
    scope.learn(user_id=user, session_id=session, groups=groups, opt_out=opt_out)
    scope.gpc = gpc
    scope.cookie = make_cookie("0123456789", "d-12345")
    assert facts(unpack(pack(scope))) == facts(scope)
    assert unpack(pack(scope)).shared


def test_other_cookies_stay() -> None:
    """The broker sees no session of the site."""
    scope = RequestScope()
    scope.cookie = "sessionid=secret; AMP_0123456789=abc; csrftoken=x"
    assert unpack(pack(scope)).cookie == "AMP_0123456789=abc"


def test_an_empty_scope_is_no_luggage() -> None:
    """Who knows nothing sends nothing."""
    assert pack(RequestScope()) is None


def test_other_types_travel_as_text() -> None:
    """A UUID is an id too."""
    scope = RequestScope()
    scope.learn(user_id=uuid.UUID(int=7))
    assert unpack(pack(scope)).user_id == str(uuid.UUID(int=7))


@pytest.mark.parametrize("value", ["\ud800", "x" * 40_000, 2**70])
def test_what_can_not_travel_stays(value: object) -> None:
    """Text that is no Unicode, or far too much of it, is not sent; the task is."""
    scope = RequestScope()
    scope.learn(groups={"org": value})
    assert pack(scope) is None


@pytest.mark.parametrize(
    "text", [None, 5, b"{}", "", "{", "[]", "null", '{"user_id":[1],"groups":"x","opted_out":1,"unknown":1,"remote":false}']
)
def test_damage_is_empty(text: object) -> None:
    """A header that somebody else wrote gives an empty scope."""
    assert facts(unpack(text)) == facts(RequestScope())
