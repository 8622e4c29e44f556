"""Writing, checking and explaining a rules file."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from cli.trial import KEY, event, lines, otlp, otlp_log, otlp_span, spool
from hypothesis import given
from hypothesis import strategies as st

from otel_amplitude.cli._draft import draft
from otel_amplitude.client import Amplitude
from otel_amplitude.config import Config
from otel_amplitude.convert._rules import load_rules, parse_rules
from otel_amplitude.errors import RulesError
from otel_amplitude.sandbox import Sandbox

RULES = """[[event]]
name = "Cart Viewed"
match = {route = "/cart"}

[[event]]
name = "Order Placed"
match = {route = "/orders", method = "POST", status = "2xx"}
properties = {total = "cart.total"}

[[event]]
match = {route = "/poll"}
drop = true
"""
SEEN = [
    *(event(number) for number in range(5)),
    *(
        event(number, event_properties={"method": "GET", "route": "/products/{id}", "status_code": 200, "colour": "red"})
        for number in range(3)
    ),
    event(event_type="Cart Viewed", event_properties={"method": "GET", "route": "/cart", "status_code": 304}),
    event(event_type="Order Paid", event_properties={"total": 5}),
]


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    return path


# init


def test_a_draft(run: Any, tmp_path: Path) -> None:
    """Each route gets a rule, the busiest first; an event that has a name keeps it, and annotated ones are told."""
    text = run("rules", "init", "--events", lines(tmp_path / "events.jsonl", *SEEN)).out
    drafted = parse_rules(text)
    assert [rule.name for rule in drafted.rules] == ["Orders Submitted", "Product Viewed", "Cart Viewed"]
    assert "#   Order Paid (1)" in text
    assert '# properties = ["colour"]' in text
    assert 'status = "3xx"' in text
    assert "# 5 times, 3 users" in text


def test_a_draft_in_a_file(run: Any, tmp_path: Path) -> None:
    """It is written once, never over another file, and passes its own check."""
    path = tmp_path / "rules.toml"
    words = ("rules", "init", "--spool", spool(tmp_path / "spool", *SEEN), "--output", path)
    assert "3 rules" in run(*words).out
    assert run("rules", "check", path).code == 0
    again = run(*words)
    assert again.code == 3
    assert "exists" in again.err


def test_a_draft_of_a_sandbox(run: Any, sandbox: Sandbox) -> None:
    """What arrived there is drafted from."""
    client = Amplitude(Config(KEY, server_url=f"{sandbox.url}/2/httpapi", log_level="NONE", upload_interval=0))
    for number, item in enumerate(SEEN):
        client.log_event({**item, "insert_id": str(number)})
    assert client.shutdown(5)
    assert 'name = "Product Viewed"' in run("rules", "init", "--sandbox", sandbox.url).out


def test_nothing_seen(run: Any, tmp_path: Path) -> None:
    """The draft shows what a rule looks like; broken lines are named."""
    ended = run("rules", "init", "--events", lines(tmp_path / "events.jsonl", "{"))
    assert ended.code == 1
    assert len(parse_rules(ended.out).rules) == 1
    assert "line 1: is JSON that is cut off" in ended.err


names = st.text(max_size=12) | st.sampled_from(
    ['a"b', "a\\b", "{x}", "/a/{b}", "\x7f", "\n[[event]]", "api/v1", "[Amplitude] x", "y" * 1_030, "\ud800", " "]
)


@given(
    st.lists(
        st.builds(
            lambda kind, method, route, status: event(
                event_type=kind, event_properties={"method": method, "route": route, "status_code": status, route: 1}
            ),
            names,
            names,
            names,
            st.integers(-1, 700),
        ),
        max_size=4,
    ),
    names,
)
def test_any_draft_can_be_read(events: list[dict[str, Any]], source: str) -> None:
    """Whatever methods, routes and names were seen, the draft is a rules file."""
    parse_rules(draft(events, source))


# check


def test_a_good_file(run: Any, rules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rules are listed in words; the file may be named by the option's variable."""
    monkeypatch.setenv("OTEL_EXPORTER_AMPLITUDE_RULES", str(rules))
    ended = run("rules", "check")
    assert ended.code == 0
    assert "3 rules, no errors" in " ".join(ended.out.split())
    assert "(drop)" in ended.out
    assert json.loads(run("rules", "check", rules, "--json").out) == {"file": str(rules), "rules": 3, "errors": [], "warnings": []}


def test_an_unreachable_rule(run: Any, rules: Path) -> None:
    """It is a warning, with its line and the rule that takes everything before it; something is wrong, so the exit code is 1."""
    rules.write_text(RULES + '[[event]]\nname = "Late"\nsample = 0.5\nmatch = {route = "/cart", method = "GET"}\n')
    ended = run("rules", "check", rules)
    assert ended.code == 1
    assert "warning: " in ended.out
    assert f"{rules}:13: rule 4" in ended.out
    assert "50%" in ended.out


def test_a_file_with_an_error(run: Any, rules: Path) -> None:
    """File, line and cure are told, and the exit code is 1."""
    rules.write_text(RULES.replace('method = "POST"', 'methud = "POST"'))
    ended = run("rules", "check", rules)
    assert ended.code == 1
    assert f"{rules}:7" in ended.out
    assert "did you mean 'method'" in ended.out
    (error,) = json.loads(run("rules", "check", rules, "--json").out)["errors"]
    assert "methud" in error


def test_a_file_with_several_errors(run: Any, rules: Path) -> None:
    """The first of each line is told, in their order, by the number of its rule; what only follows from one of them is not."""
    rules.write_text(
        '[[event]]\nname = "Paid"\nmatch = {methd = "POST", status = "2xz"}\nsampel = 0.5\n\n'
        "[[event]]\nmatch = {}\n\n"
        '[[event]]\nname = "Read"\nmatch = {route = "/blog/*"}\n\n'
        '[[event]]\nname = "Sent"\nmatch = {route = "/"}\nrevenue = {prize = "x"}\n',
        encoding="utf-8",
    )
    errors = json.loads(run("rules", "check", rules, "--json").out)["errors"]
    assert [(int(error.removeprefix(f"{rules}:").partition(":")[0]), error.split(": rule ")[1][0]) for error in errors] == [
        (3, "1"),
        (4, "1"),
        (6, "2"),
        (16, "4"),
    ], errors


@pytest.mark.parametrize(
    "text", ["[[event]]\nname = ", "x = 1\n[[event]]\nname = 'a'\nmatch = {}\n", "", "[[event]]\nname = 'a'\nmatch = {\nroute = '/'\n"]
)
def test_a_file_that_can_not_be_taken_apart(text: str, run: Any, rules: Path) -> None:
    """The first error is told, as the exporter would tell it."""
    rules.write_text(text, encoding="utf-8")
    with pytest.raises(RulesError) as raised:
        load_rules(rules)
    assert json.loads(run("rules", "check", rules, "--json").out)["errors"] == [str(raised.value)]


def test_no_file(run: Any, tmp_path: Path) -> None:
    """It is said which word or variable names one; one that is not there was not checked, which is another exit code."""
    ended = run("rules", "check")
    assert ended.code == 3
    assert "OTEL_EXPORTER_AMPLITUDE_RULES" in ended.err
    for path, words in ((tmp_path / "missing.toml", "no such rules file"), (tmp_path, "is a directory")):
        ended = run("rules", "check", path)
        assert (ended.code, ended.out) == (3, "")
        assert words in ended.err


# explain


def explained(run: Any, *words: object) -> list[dict[str, Any]]:
    ended = run("rules", "explain", *words, "--json")
    assert ended.code == 0, ended.err
    items: list[dict[str, Any]] = json.loads(ended.out)["items"]
    return items


def test_which_rule_and_why_not_the_others(run: Any, rules: Path, tmp_path: Path) -> None:
    """Each rule says what it misses; the one that takes it makes the event that is shown."""
    path = lines(tmp_path / "spans.jsonl", otlp(otlp_span(attributes={"cart.total": 12})))
    (item,) = explained(run, rules, path)
    assert [rule["takes"] for rule in item["rules"]] == [False, True, False]
    assert item["rules"][0]["why"] == "route is '/orders', not '/cart'"
    assert item["outcome"] == "Order Placed, by rule 2 (line 5): Order Placed"
    assert (item["event"]["event_type"], item["event"]["event_properties"]["total"]) == ("Order Placed", 12)
    assert "user_id" not in item["event"]
    out = run("rules", "explain", rules, path).out
    assert "takes it" in out
    assert "→ Order Placed" in out


@pytest.mark.parametrize(
    ("span", "outcome"),
    [
        (otlp_span(attributes={"http.route": "/poll"}), "no event: rule 3 (line 10): drop drops it"),
        (otlp_span(attributes={"http.route": "/other"}), "an automatic event, for a known user; no rule takes it"),
        (otlp_span(attributes={"http.route": "/healthz"}), "no event: its route is a probe"),
        (otlp_span(attributes={"http.route": "/x", "user_agent.original": "Googlebot"}), "no event: its user agent is a bot's"),
        (otlp_span(attributes={"amplitude.event_type": "Paid"}), "Paid, since it is annotated; rules are not asked"),
        (otlp_span(attributes={"amplitude.skip": "true"}), "no event: it is marked to be skipped"),
        (otlp_span(kind=3), "no event: no rule takes it"),
    ],
)
def test_outcomes(span: dict[str, Any], outcome: str, run: Any, rules: Path, tmp_path: Path) -> None:
    """It is said what becomes of a span that no rule names."""
    (item,) = explained(run, rules, lines(tmp_path / "spans.jsonl", otlp(span)))
    assert item["outcome"].startswith(outcome)


def test_two_rules_that_fit(run: Any, rules: Path, tmp_path: Path) -> None:
    """The later one would fit, and says that it comes too late."""
    rules.write_text(RULES + '[[event]]\nname = "Any"\nmatch = {kind = "server"}\n')
    (item,) = explained(run, rules, lines(tmp_path / "spans.jsonl", otlp(otlp_span())))
    assert item["rules"][3]["why"] == "would fit, but an earlier rule takes it"


def test_log_records(run: Any, rules: Path, tmp_path: Path) -> None:
    """They are explained as well: by a rule, by their name, or not at all."""
    rules.write_text('[[event]]\nname = "Mail Sent"\nmatch = {event_name = "mail.sent"}\n')
    items = explained(run, rules, lines(tmp_path / "logs.jsonl", otlp_log("mail.sent"), otlp_log("cart.left"), otlp_log("")))
    assert [item["outcome"].split(",")[0] for item in items] == ["Mail Sent", "cart.left", "no event: no rule takes it"]


def test_one_trace_of_many_from_standard_input(run: Any, rules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the trace that was asked for is explained; broken lines are named, and make the exit code 1."""
    text = "\n".join([json.dumps(otlp(otlp_span(1), otlp_span(2))), "", "{"])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    ended = run("rules", "explain", rules, "-", "--trace", f"{2:032X}")
    assert ended.code == 1
    assert f"{2:032x}" in ended.out
    assert f"{1:032x}" not in ended.out
    assert "line 3: is JSON that is cut off" in ended.err


def test_a_trace_in_a_sandbox(run: Any, rules: Path, sandbox: Sandbox) -> None:
    """The span is rebuilt from its event, as far as that goes, and it is said so; an insert_id that begins like the trace says nothing."""
    client = Amplitude(Config(KEY, server_url=f"{sandbox.url}/2/httpapi", log_level="NONE", upload_interval=0))
    client.log_event(event(1))
    client.log_event(event(1, insert_id="other", event_type="Order Paid", event_properties={"trace_id": f"{2:032x}"}))
    client.log_event(event(1, insert_id=f"{2:032x}{9:016x}", event_properties={"method": "POST", "route": "/orders"}))
    assert client.shutdown(5)
    trace = f"{2:032x}"
    (item,) = explained(run, rules, "--sandbox", sandbox.url, "--trace", trace)
    assert (item["outcome"], item["event"]) == ("Order Placed, by rule 2 (line 5): Order Placed", None)
    assert "rebuilt from the event" in run("rules", "explain", rules, "--sandbox", sandbox.url, "--trace", trace).out
    missing = run("rules", "explain", rules, "--sandbox", sandbox.url, "--trace", "a" * 32)
    assert (missing.code, "copy the trace id" in missing.err) == (3, True)


def test_a_trace_in_a_sandbox_that_rules_are_not_asked_about(run: Any, rules: Path, sandbox: Sandbox) -> None:
    """It is there, so the trace id was right: the message says why there is nothing to explain."""
    client = Amplitude(Config(KEY, server_url=f"{sandbox.url}/2/httpapi", log_level="NONE", upload_interval=0))
    client.log_event(event(1, event_type="Order Paid", event_properties={"total": 12.5, "trace_id": f"{2:032x}"}))
    assert client.shutdown(5)
    ended = run("rules", "explain", rules, "--sandbox", sandbox.url, "--trace", f"{2:032x}")
    assert ended.code == 3
    assert f"trace {2:032x} is in {sandbox.url} with Order Paid" in ended.err
    assert "no rule is asked" in ended.err


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        ((), "files of OTLP"),
        (("--sandbox", "http://127.0.0.1:9"), "--trace"),
        (("missing.jsonl",), "missing.jsonl: No such file"),
        (("spans.jsonl", "--sandbox", "http://127.0.0.1:9"), "say what to explain"),
    ],
)
def test_what_to_explain(words: tuple[str, ...], cure: str, run: Any, rules: Path) -> None:
    """The message says what to give."""
    ended = run("rules", "explain", rules, *words)
    assert ended.code == 3
    assert cure in ended.err


def test_nothing_to_explain(run: Any, rules: Path, tmp_path: Path) -> None:
    """A file without such a span makes the exit code 1."""
    ended = run("rules", "explain", rules, lines(tmp_path / "spans.jsonl", otlp()))
    assert ended.code == 1
    assert "no such span" in ended.err
