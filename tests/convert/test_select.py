"""Which spans and log records become events."""

from __future__ import annotations

import enum
from typing import Any

import pytest
import strategies
from convert.recorded import ANNOTATED, PAGE, SHOP, choose, log, span
from hypothesis import given
from hypothesis import strategies as st

from otel_amplitude.convert import Choice, Selector
from otel_amplitude.convert._rules import parse_rules

AUTOMATIC = Choice("automatic", "")
PAID = Choice("annotated", "Order Paid", is_sound=True)
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


class Name(str, enum.Enum):
    """Event types as an application may list them."""

    PAID = "Order Paid"


@pytest.mark.parametrize("kind", ["SERVER", "INTERNAL", "CLIENT", "PRODUCER", "CONSUMER"])
def test_an_annotation_makes_any_span_an_event(kind: str) -> None:
    """The event type on the span is the event's."""
    assert choose(span(ANNOTATED, kind=kind, parent="local")) == PAID


@pytest.mark.parametrize(("value", "choice"), [(Name.PAID, PAID), ("  ", None), ("", None), (7, None), (None, None)])
def test_only_text_is_an_event_type(value: Any, choice: Choice | None) -> None:
    """A member of a text enum counts as its text; anything else is no annotation."""
    assert Selector().span(span(kind="INTERNAL"), {"amplitude.event_type": value}) == choice


@pytest.mark.parametrize("mark", [{"amplitude.skip": True}, {"amplitude.skip": "true"}, {"amplitude.sdk.emitted": True}])
def test_a_marked_item_is_never_an_event(mark: dict[str, Any]) -> None:
    """Skipped, or sent by another Amplitude SDK: no annotation or rule brings it back."""
    selector = Selector(rules=parse_rules('[[event]]\nname = "All"\nmatch = {}'))
    assert selector.span(span(), {**ANNOTATED, **PAGE, **mark}) is None
    assert selector.log(log(attributes={**ANNOTATED, **mark}), "shop") is None


def test_a_mark_that_says_no_is_no_mark() -> None:
    """`amplitude.skip` false leaves a span what it is."""
    assert choose(span({**PAGE, "amplitude.skip": False})) == AUTOMATIC


@pytest.mark.parametrize("parent", [None, "remote"])
@pytest.mark.parametrize("names", ["stable", "old"])
def test_a_request_becomes_an_event_by_itself(parent: str | None, names: str) -> None:
    """A server span at the door of the service, under old and stable names."""
    old = {"http.method": "GET", "http.route": "/cart", "http.status_code": 399, "http.user_agent": BROWSER}
    stable = {**PAGE, "user_agent.original": BROWSER}
    assert choose(span(stable if names == "stable" else old, parent=parent)) == AUTOMATIC


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "INTERNAL"},
        {"kind": "CLIENT"},
        {"kind": "CONSUMER"},
        {"parent": "local"},
        {"http.response.status_code": 400},
        {"http.response.status_code": 500},
        {"http.response.status_code": None},
        {"http.response.status_code": "OK"},
        {"http.request.method": "HEAD"},
        {"http.request.method": "OPTIONS"},
    ],
    ids=str,
)
def test_what_is_no_answered_request_is_nothing(change: dict[str, Any]) -> None:
    """Inner spans, errors and methods without a person behind them make no automatic event, and are not counted."""
    how = {key: change[key] for key in change if key in ("kind", "parent")}
    assert choose(span({**PAGE, **{key: change[key] for key in change if key not in how}}, **how)) is None


@pytest.mark.parametrize("route", ["", None, 7])
def test_a_request_without_a_route_is_refused_under_that_name(route: object) -> None:
    """Other than a probe or a file, which have their own word, and what is no HTTP request, which has none."""
    bare = {**PAGE, "http.route": route}
    assert choose(span(bare)) == "no_route"
    assert choose(span({**bare, "url.path": "/static/app.js"})) == "excluded"
    assert choose(span({**bare, "http.request.method": None})) is None


@pytest.mark.parametrize(
    "route", ["/healthz", "/api/health", "/readyz", "/metrics", "/static/<path:name>", "/favicon.ico", "/ping", "main.css"]
)
def test_probes_and_files_are_counted_apart(route: str) -> None:
    """They are refused as `excluded`, so that hints about missing users name real routes."""
    assert choose(span({**PAGE, "http.route": route})) == "excluded"


@pytest.mark.parametrize("path", [{"url.path": "/app.js"}, {"http.target": "/app.js?v=1"}])
def test_a_route_that_serves_a_tree_is_judged_by_its_path(path: dict[str, str]) -> None:
    """A catch-all route serves pages and files."""
    assert choose(span({**PAGE, "http.route": "/{path:path}", **path})) == "excluded"
    assert choose(span({**PAGE, "http.route": "/{path:path}", "url.path": "/about"})) == AUTOMATIC
    assert choose(span({**PAGE, "http.route": "/{path:path}"})) == AUTOMATIC


def test_own_globs_and_methods_replace_the_defaults() -> None:
    """What an option names is all there is."""
    options = {"exclude": ["/internal/*"], "methods": ["post", "HEAD"]}
    assert choose(span({**PAGE, "http.request.method": "HEAD", "http.route": "/healthz"}), **options) == AUTOMATIC
    assert choose(span({**PAGE, "http.request.method": "POST", "http.route": "/internal/x"}), **options) == "excluded"
    assert choose(span(PAGE), **options) is None


@pytest.mark.parametrize(
    ("agent", "refusal"),
    [
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "bot"),
        ("Mozilla/5.0 (compatible; bingbot/2.0)", "bot"),
        ("Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2)", "bot"),
        ("facebookexternalhit/1.1", "bot"),
        ("Mozilla/5.0 (X11; Linux x86_64) HeadlessChrome/120.0", "bot"),
        ("kube-probe/1.29", "excluded"),
        ("ELB-HealthChecker/2.0", "excluded"),
        ("Mozilla/5.0 (Linux; Android 9; CUBOT X19) AppleWebKit/537.36 Mobile Safari/537.36", None),
        ("python-requests/2.32", None),
        (BROWSER, None),
        ("x" * 5_000 + "bot", None),
    ],
)
def test_bots_are_counted_apart(agent: str, refusal: str | None) -> None:
    """A crawler is a `bot`, a monitor is `excluded`, an unknown client is a person; only 2 KB of a user agent are read."""
    assert choose(span({**PAGE, "user_agent.original": agent})) == (refusal or AUTOMATIC)
    assert choose(span({**PAGE, "http.user_agent": agent})) == (refusal or AUTOMATIC)


@pytest.mark.parametrize("kind", ["bot", "test"])
def test_synthetic_requests_are_bots(kind: str) -> None:
    """OpenTelemetry's own word for it is believed."""
    assert choose(span({**PAGE, "user_agent.synthetic.type": kind})) == "bot"


def test_select_annotated_turns_automatic_events_off() -> None:
    """Annotations and rules still make events."""
    assert choose(span(PAGE), select="annotated") is None
    assert choose(span({**PAGE, **ANNOTATED}), select="annotated") == PAID


def test_a_callable_decides_itself() -> None:
    """True is an automatic event, a text its event type, anything else is none; bots and routes are its own business."""
    answers = {"a": True, "b": "Page Seen", "c": False, "d": None, "e": ""}
    decide = {"select": lambda item: answers[item.name]}
    assert [choose(span(name=name, kind="INTERNAL"), **decide) for name in "abcde"] == [
        AUTOMATIC,
        Choice("automatic", "Page Seen"),
        None,
        None,
        None,
    ]
    assert choose(span(ANNOTATED, name="c"), **decide) == PAID


def test_the_most_deliberate_word_wins() -> None:
    """An annotation goes before a rule, a rule before automatic events; a rule may also drop."""
    rules = parse_rules('[[event]]\nmatch = {route = "/poll"}\ndrop = true\n[[event]]\nname = "Cart"\nmatch = {route = "/cart"}')
    assert choose(span({**PAGE, **ANNOTATED}), rules=rules) == PAID
    assert choose(span(PAGE), rules=rules) == Choice("rule", "Cart", rules.rules[1])
    assert choose(span({**PAGE, "http.route": "/poll"}), rules=rules) == "rule"
    assert choose(span({**PAGE, "http.route": "/other"}), rules=rules) == AUTOMATIC


@pytest.mark.parametrize(
    ("event_name", "choice"),
    [
        ("Signed Up", Choice("annotated", "Signed Up")),
        ("session.start", None),
        ("gen_ai.client.inference.operation.details", None),
        ("feature_flag.evaluation", None),
        ("exception", None),
        ("", None),
        (None, None),
    ],
)
def test_a_log_record_is_an_event_by_its_name(event_name: str | None, choice: Choice | None) -> None:
    """Names that OpenTelemetry itself registered are telemetry."""
    assert Selector().log(log(event_name), "shop") == choice


def test_a_log_record_is_an_event_by_annotation_or_rule() -> None:
    """Also without an event name."""
    rules = parse_rules(
        '[[event]]\nname = "Failed"\nmatch = {kind = "log", service = "shop"}\n[[event]]\nmatch.event_name = "x"\ndrop = true'
    )
    assert Selector().log(log(None, ANNOTATED), "shop") == PAID
    assert Selector(rules=rules).log(log(None), "shop", SHOP) == Choice("rule", "Failed", rules.rules[0])
    assert Selector(rules=rules).log(log("x"), "shop") == "rule"
    assert Selector(rules=rules).log(log("y"), None) == Choice("annotated", "y")


def test_our_own_log_lines_are_no_events() -> None:
    """Whatever they carry."""
    assert Selector().log(log("Signed Up", ANNOTATED), "otel_amplitude") is None


def test_flag_evaluations_are_chosen_when_asked_for() -> None:
    """Exposures are opt-in."""
    assert Selector(exposures=True).log(log("feature_flag.evaluation"), "shop") == Choice("annotated", "$exposure")


def test_the_memory_for_routes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that makes routes up costs time, not memory."""
    monkeypatch.setattr("otel_amplitude.convert._select._MAX_ROUTES", 3)
    selector = Selector()
    for number in range(9):
        assert selector.span(span(), {**PAGE, "http.route": f"/{number % 5}"}) == AUTOMATIC
    assert len(selector._excluded) == 3


ASKED = st.sampled_from(
    """amplitude.event_type amplitude.skip amplitude.sdk.emitted http.request.method http.method http.route http.response.status_code
    http.status_code url.path http.target user_agent.original http.user_agent user_agent.synthetic.type tornado.handler""".split()
)


@given(st.dictionaries(ASKED, strategies.values | st.sampled_from(["GET", "/cart", 200])))
def test_no_attribute_breaks_the_choice(attributes: dict[str, Any]) -> None:
    """Anything may be under the names that are asked for."""
    rules = parse_rules('[[event]]\nname = "A"\nmatch = {route = "/x", method = "GET", "tornado.handler" = {min = 3}}')
    for selector in (Selector(), Selector(rules=rules)):
        assert isinstance(selector.span(span(), attributes), (Choice, str, type(None)))
        assert isinstance(selector.log(log(attributes=attributes), "shop"), (Choice, str, type(None)))
