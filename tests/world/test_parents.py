"""Batches cut traces anywhere: who acted is the same wherever a trace is cut, and in whatever order its parts come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from world.files import PAID, REQUEST, USER, convert, logs, record, span, spans, write

from otel_amplitude.cli import _conversion

REQUESTED = ("HTTP Request", USER)
BOUGHT = ("Order Paid", USER)


def test_a_child_before_its_parent(tmp_path: Path) -> None:
    """Children end first (export-trace-action#133; 26 of 898 parents in a file of robotframework-trace-report are on another line)."""
    made = convert(write(tmp_path / "a.jsonl", spans(span(2, 1, **PAID)), spans(span(1, **REQUEST))))
    assert (made.users, made.code) == ([BOUGHT, REQUESTED], 0)


def test_a_child_after_its_parent(tmp_path: Path) -> None:
    """A span of the background that outlives the request's."""
    made = convert(write(tmp_path / "a.jsonl", spans(span(1, **REQUEST)), spans(span(2, 1, **PAID))))
    assert made.users == [REQUESTED, BOUGHT]


def test_a_parent_in_another_file(tmp_path: Path) -> None:
    """A rotated file ends in the middle of a trace."""
    child, parent = write(tmp_path / "1.jsonl", spans(span(2, 1, **PAID))), write(tmp_path / "2.jsonl", spans(span(1, **REQUEST)))
    assert convert(child, parent).users == [BOUGHT, REQUESTED]
    assert convert(parent, child).users == [REQUESTED, BOUGHT]
    assert convert(tmp_path / "*.jsonl").users == [BOUGHT, REQUESTED]
    assert convert(child).users == []


def test_spans_between_that_say_nothing(tmp_path: Path) -> None:
    """The chain is followed through any number of lines."""
    chain = [spans(span(number, number - 1)) for number in range(2, 50)]
    for documents in (
        [spans(span(50, 49, **PAID)), *reversed(chain)],
        [spans(span(50, 49, **PAID)), *chain],
        [*chain, spans(span(50, 49, **PAID))],
    ):
        assert BOUGHT in convert(write(tmp_path / "a.jsonl", *documents, spans(span(1, **REQUEST)))).users


def test_another_process_is_not_asked(tmp_path: Path) -> None:
    """A remote parent's user is that of another service, perhaps an account of a machine."""
    child = {**span(2, 1, **PAID), "flags": 0x300}
    made = convert(write(tmp_path / "a.jsonl", spans(child), spans(span(1, **REQUEST))))
    assert made.users == [REQUESTED]
    assert "1 no_identity" in made.told


def test_two_people_in_one_trace(tmp_path: Path) -> None:
    """A batch job has a span for each person: a child is of its own parent's, never of a neighbour's."""
    one, other = span(1, **{**REQUEST, "user.id": "user-one1"}), span(2, **{**REQUEST, "user.id": "user-two2"})
    documents = [spans(span(3, 1, **PAID)), spans(span(4, 2, **PAID)), spans(other), spans(one)]
    bought = [user for kind, user in convert(write(tmp_path / "a.jsonl", *documents)).users if kind == "Order Paid"]
    assert sorted(bought) == ["user-one1", "user-two2"]


def test_the_same_span_id_in_another_trace(tmp_path: Path) -> None:
    """Span ids are unique within a trace only."""
    stranger = span(1, trace="b" * 32, **REQUEST)
    assert convert(write(tmp_path / "a.jsonl", spans(span(2, 1, **PAID)), spans(stranger))).users == [REQUESTED]


def test_a_log_record_is_of_the_user_of_its_span(tmp_path: Path) -> None:
    """As in the process; the Collector writes logs and traces to different files."""
    told, traces = (
        write(tmp_path / "logs.jsonl", logs(record(2))),
        write(tmp_path / "traces.jsonl", spans(span(2, 1)), spans(span(1, **REQUEST))),
    )
    assert convert(told, traces).users == [("coupon.used", USER), REQUESTED]
    assert convert(traces, told).users == [REQUESTED, ("coupon.used", USER)]


def test_a_user_of_its_own_waits_for_nobody(tmp_path: Path) -> None:
    """What knows its user is an event at once, in the order of the file."""
    child = span(2, 1, **PAID, **{"user.id": USER})
    assert convert(write(tmp_path / "a.jsonl", spans(child), spans(span(1, **REQUEST)))).users == [BOUGHT, REQUESTED]


def test_privacy_that_a_parent_asked_for(tmp_path: Path) -> None:
    """Under consent=gpc an item waits for its request even though it knows its user: the request may refuse."""
    child, parent = span(2, 1, **PAID, **{"user.id": USER}), span(1, **REQUEST, **{"http.request.header.sec_gpc": "1"})
    made = convert(write(tmp_path / "a.jsonl", spans(child), spans(parent)), "--option", "consent=gpc")
    assert made.events == []
    assert "2 opted_out" in made.told


@pytest.mark.parametrize(("bound", "value"), [("MAX_WAITING", 3), ("MAX_WAITING_BYTES", 20_000)])
def test_too_many_that_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: int) -> None:
    """The oldest is decided with what is known, and counted; the others find their parent."""
    monkeypatch.setattr(_conversion, bound, value)
    waiting = [spans(span(number, 1, **{"amplitude.event_type": f"Paid {number}"})) for number in range(2, 12)]
    made = convert(write(tmp_path / "a.jsonl", *waiting, spans(span(1, **REQUEST))))
    refused = 10 - len(made.users) + 1
    assert 0 < refused < 10
    assert f"{refused} no_identity" in made.told
    assert [kind for kind, _ in made.users] == [*(f"Paid {number}" for number in range(2 + refused, 12)), "HTTP Request"]


def test_a_circle(tmp_path: Path) -> None:
    """Spans that are each other's parents, on lines of their own, end."""
    made = convert(write(tmp_path / "a.jsonl", spans(span(2, 3, **PAID)), spans(span(3, 2)), spans(span(4, 3, **PAID))))
    assert "2 no_identity" in made.told


def test_standard_input() -> None:
    """A pipe is read like a file (opentelemetry-java#6836: SDKs write OTLP to standard output)."""
    import json

    assert convert(json.dumps(spans(span(2, 1, **PAID))).encode() + json.dumps(spans(span(1, **REQUEST))).encode()).users == [
        BOUGHT,
        REQUESTED,
    ]


def test_a_stopped_run_goes_on_with_what_waited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is stopped between a child and its parent, and started again, gives what one run gives."""
    from otel_amplitude.cli import convert as command

    monkeypatch.setattr(command, "_SLICE", 1)
    path = write(
        tmp_path / "a.jsonl", spans(span(2, 1, **PAID)), spans(span(5, **REQUEST)), spans(span(3, 1, **PAID)), spans(span(1, **REQUEST))
    )
    words = (path, "--output", tmp_path / "out.jsonl", "--state", tmp_path / "state")
    for last in range(1, 4):
        with monkeypatch.context() as patch:
            real = _conversion.Conversion.take

            def stops(self: Any, document: Any, number: int, *of: Any, last: int = last, real: Any = real) -> int:
                if number > last:
                    raise KeyboardInterrupt
                return real(self, document, number, *of)

            patch.setattr(_conversion.Conversion, "take", stops)
            assert convert(*words).code == 130
    assert convert(*words).code == 0
    convert(path, "--output", tmp_path / "whole.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@st.composite
def traces(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[list[int]]]:
    """A few spans in a forest, some of which know a user, and two ways to cut them into documents."""
    count = draw(st.integers(1, 8))
    made = []
    for number in range(1, count + 1):
        parent = draw(st.none() | st.integers(1, count))
        attributes = {**(PAID if draw(st.booleans()) else {}), **({"user.id": f"user-{number:04}"} if draw(st.integers(0, 3)) == 0 else {})}
        made.append(span(number, parent, **attributes))
    order = draw(st.permutations(range(count)))
    cuts = draw(st.sets(st.integers(1, count), max_size=count))
    parts: list[list[int]] = [[]]
    for place, index in enumerate(order):
        if place in cuts:
            parts.append([])
        parts[-1].append(index)
    return made, parts


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(traces())
def test_cuts_do_not_matter(case: tuple[list[dict[str, Any]], list[list[int]]]) -> None:
    """Whatever the order of the spans and wherever the batches are cut, each event has the user it has when all are in one document."""
    import json

    made, parts = case
    whole = convert(json.dumps(spans(*made)).encode())
    cut = convert(b"\n".join(json.dumps(spans(*(made[index] for index in part))).encode() for part in parts if part))
    assert {event["insert_id"]: event["user_id"] for event in cut.events} == {
        event["insert_id"]: event["user_id"] for event in whole.events
    }
