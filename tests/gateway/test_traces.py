"""The trace memory: one user of a trace and process, nobody where there are two, bounded, and it only looks back."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from otel_amplitude.gateway.traces import TraceMemory

SHOP, CART = object(), object()


def known(memory: TraceMemory, trace: int, resource: object = SHOP) -> dict[str, Any]:
    """The ids of a trace; empty for nobody."""
    found = memory.of(trace, resource)
    return {} if found is None else found.attributes


def test_ids_of_any_span_are_those_of_the_trace() -> None:
    """In whatever spelling; but never those of another process or trace."""
    memory = TraceMemory()
    memory.note(1, SHOP, {"enduser.id": "alice-1"})
    memory.note(1, SHOP, {"device.id": "device-1", "user.id": "alice-1"})
    assert known(memory, 1) == {"user.id": "alice-1", "app.installation.id": "device-1"}
    assert (known(memory, 2), known(memory, 1, CART)) == ({}, {})


def test_two_users_are_nobody() -> None:
    """For good, whatever comes later; another process of the trace is not touched."""
    memory = TraceMemory()
    for user in ("alice-1", "bob-12", "alice-1"):
        memory.note(1, SHOP, {"user.id": user})
    memory.note(1, CART, {"user.id": "carol-1"})
    assert (known(memory, 1), known(memory, 1, CART)) == ({}, {"user.id": "carol-1"})


def test_two_spellings_on_one_span_are_compared() -> None:
    """`user.id` and `enduser.id` that differ are two users."""
    memory = TraceMemory()
    memory.note(1, SHOP, {"user.id": "alice-1", "enduser.id": "bob-12"})
    assert known(memory, 1) == {}


def test_placeholders_name_nobody() -> None:
    """So a login in the middle of a trace is no second user."""
    memory = TraceMemory()
    for user in ("anonymous", "", None, "alice-1", "00000"):
        memory.note(1, SHOP, {"user.id": user})
    assert known(memory, 1) == {"user.id": "alice-1"}


def test_the_oldest_traces_are_forgotten() -> None:
    """Above the number, and above the bytes."""
    by_number, by_bytes = TraceMemory(most=10), TraceMemory(most_bytes=10_000)
    for trace in range(1, 101):
        by_number.note(trace, SHOP, {"user.id": f"user-{trace}"})
        by_bytes.note(trace, SHOP, {"user.id": f"{trace:0900}"})
    assert [trace for trace in range(1, 101) if known(by_number, trace)] == list(range(91, 101))
    assert 5 <= len(by_bytes) <= 10
    assert known(by_bytes, 100)


def test_an_opt_out_holds_for_the_trace() -> None:
    """And for no other one; also bounded."""
    memory = TraceMemory(most=2)
    for trace in (1, 2, 3):
        memory.opt_out(trace)
    assert [memory.has_opted_out(trace) for trace in (1, 2, 3, 4)] == [False, True, True, False]


spans = st.lists(
    st.tuples(
        st.integers(1, 3), st.sampled_from([SHOP, CART]), st.sampled_from(["user.id", "enduser.id"]), st.sampled_from(["alice-1", "bob-12"])
    ),
    max_size=20,
)


@given(spans)
def test_it_gives_the_one_user_or_nobody(noted: list[tuple[int, object, str, str]]) -> None:
    """The model: the set of users of each trace and process."""
    memory = TraceMemory()
    users: dict[tuple[int, object], set[str]] = {}
    for trace, resource, name, user in noted:
        memory.note(trace, resource, {name: user})
        users.setdefault((trace, resource), set()).add(user)
        for (some_trace, some_resource), seen in users.items():
            expected = {"user.id": next(iter(seen))} if len(seen) == 1 else {}
            assert known(memory, some_trace, some_resource) == expected
