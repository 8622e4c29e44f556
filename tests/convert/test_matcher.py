"""Conditions, and the compiled matcher against a naive loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import strategies
from convert.recorded import PAGE, SHOP, log, span
from hypothesis import given
from hypothesis import strategies as st

from otel_amplitude.convert._matcher import WORDS, Condition, Matcher, why_not
from otel_amplitude.convert._view import LogView, SpanView, View


@dataclass(frozen=True)
class Numbered:
    """A rule with nothing but conditions."""

    number: int
    conditions: tuple[Condition, ...]


def attribute(**facts: Any) -> Condition:
    """A condition on the attribute `a`."""
    return Condition("a", is_word=False, **facts)


@pytest.mark.parametrize(
    ("condition", "fits", "fits_not"),
    [
        (attribute(values=frozenset({"x", 1})), ["x", 1, 1.0, ("y", "x"), ["x"]], ["y", 2, True, None, (), {"x": 1}, b"x"]),
        (attribute(flags=frozenset({True})), [True, (False, True)], [False, 1, "true", None]),
        (attribute(globs=("a*", "?b")), ["abc", "ab", "xb"], ["b", "", 1, None]),
        (attribute(ranges=((1, 5), (10, 10))), [1, 5, 10, 2.5, (20, 3)], [0, 6, "3", True, None, float("nan")]),
        (attribute(present=True), [0, "", False, ()], [None]),
        (attribute(present=False), [None], [0, ""]),
    ],
)
def test_what_fits_a_condition(condition: Condition, fits: list[Any], fits_not: list[Any]) -> None:
    """Texts, numbers and booleans are told apart; a list fits by any of its members."""
    assert [value for value in fits if not condition.accepts(value)] == []
    assert [value for value in fits_not if condition.accepts(value)] == []


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (attribute(values=frozenset({"x", 1}), flags=frozenset({True})), "1 or 'x' or true"),
        (attribute(globs=("a*",), ranges=((200, 299),)), "like 'a*' or 200 to 299"),
        (attribute(present=True), "present"),
        (attribute(present=False), "absent"),
    ],
)
def test_a_condition_reads_as_text(condition: Condition, text: str) -> None:
    """For people who ask why a rule did not fit."""
    assert str(condition) == text


facts = (
    st.none()
    | st.sampled_from(["a", "ab", "b", "/cart", "GET", "shop", "server", 1, 2, 200, 404, True, False, 1.5])
    | st.lists(st.sampled_from(["a", "b", 1, 200, True]), max_size=2)
)
conditions = st.builds(
    Condition,
    st.just("a") | st.just("b"),
    is_word=st.just(False),
    values=st.frozensets(st.sampled_from(["a", "ab", "b", 1, 200]), max_size=2),
    flags=st.frozensets(st.booleans(), max_size=1),
    globs=st.lists(st.sampled_from(["a*", "?", "*", "b"]), max_size=1).map(tuple),
    ranges=st.sampled_from([(), ((1, 2),), ((0, 300),)]),
    present=st.none(),
) | st.builds(Condition, st.just("a") | st.just("b"), is_word=st.just(False), present=st.booleans())
words = st.builds(
    Condition,
    st.sampled_from(WORDS),
    is_word=st.just(True),
    values=st.frozensets(st.sampled_from(["/cart", "GET", "shop", "server", "log", "a", 200]), max_size=3),
    globs=st.lists(st.sampled_from(["/*", "G*", "*", "opentelemetry.*"]), max_size=1).map(tuple),
    ranges=st.sampled_from([(), ((200, 299),)]),
) | st.builds(Condition, st.sampled_from(WORDS), is_word=st.just(True), present=st.booleans())
rule_lists = st.lists(st.lists(conditions | words, max_size=3, unique_by=lambda one: (one.fact, one.is_word)).map(tuple), max_size=8).map(
    lambda lists: tuple(Numbered(number, each) for number, each in enumerate(lists))
)
attribute_sets = st.fixed_dictionaries(
    {}, optional={"a": facts, "b": facts, "http.route": facts, "http.method": facts, "http.response.status_code": facts}
)
views = st.builds(
    lambda attributes, kind, name: SpanView(span(kind=kind, name=name), attributes),
    attribute_sets,
    st.sampled_from(["SERVER", "INTERNAL"]),
    st.sampled_from(["GET /cart", "a"]),
) | st.builds(lambda attributes, name: LogView(log(name), attributes, "shop", SHOP), attribute_sets, st.sampled_from(["a", "b", None]))


def naive(rules: tuple[Numbered, ...], view: View) -> Numbered | None:
    """First match, spelled out."""
    return next((rule for rule in rules if all(condition.accepts(condition.read(view)) for condition in rule.conditions)), None)


@given(rule_lists, st.lists(views, min_size=1, max_size=5))
def test_the_compiled_matcher_and_a_naive_loop_always_agree(rules: tuple[Numbered, ...], items: list[View]) -> None:
    """In whichever order items come, since what was decided is remembered; and the reason given agrees with both."""
    matcher = Matcher(rules)
    for view in [*items, *items]:
        expected = naive(rules, view)
        assert matcher.first(view) is expected
        assert next((rule for rule in rules if why_not(rule, view) is None), None) is expected


@given(rule_lists, views)
def test_a_rule_called_unreachable_never_is(rules: tuple[Numbered, ...], view: View) -> None:
    """The warning may miss one, but is never wrong."""
    matcher = Matcher(rules)
    assert matcher.first(view) not in [later for later, _ in matcher.unreachable()]


@given(conditions, conditions, facts)
def test_covering_is_sound(wide: Condition, narrow: Condition, fact: Any) -> None:
    """Whatever fits the narrow condition fits the one that covers it."""
    if wide.covers(narrow) and narrow.accepts(fact):
        assert wide.accepts(fact)


@given(rule_lists, strategies.maps)
def test_no_attribute_breaks_the_matcher(rules: tuple[Numbered, ...], attributes: Mapping[Any, Any]) -> None:
    """Whatever its value is."""
    Matcher(rules).first(SpanView(span(), {**attributes, "a": attributes, "b": list(attributes.values())}))


def test_made_up_names_do_not_fill_the_memory() -> None:
    """Names that no rule asks for exactly are one and the same; those under a glob are forgotten in time."""
    exact = Matcher([Numbered(1, (Condition("name", is_word=True, values=frozenset({"job"})),))])
    for number in range(50):
        assert exact.first(SpanView(span(name=f"n{number}"), {})) is None
    assert len(exact._remembered) == 1
    assert exact.first(SpanView(span(name="job"), {})) is not None


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts anew when it is full."""
    monkeypatch.setattr("otel_amplitude.convert._matcher._MAX_REMEMBERED", 4)
    globbed = Matcher([Numbered(1, (Condition("name", is_word=True, globs=("n*",)),))])
    for number in range(50):
        assert globbed.first(SpanView(span(name=f"n{number}"), {})) is not None
    assert len(globbed._remembered) <= 4


def test_kinds_that_no_rule_asks_for_cost_one_look() -> None:
    """Most spans of a service are inner ones, most rules are about requests."""
    matcher = Matcher(
        [
            Numbered(
                1,
                (
                    Condition("kind", is_word=True, values=frozenset({"server"})),
                    Condition("method", is_word=True, values=frozenset({"GET"})),
                ),
            )
        ]
    )
    assert matcher.first(SpanView(span(kind="INTERNAL"), PAGE)) is None
    assert matcher._remembered == {}
    assert matcher.first(SpanView(span(), PAGE)) is not None
