"""The rules file: what it may say, what it makes, and what it says when it is wrong."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from convert.recorded import ALICE, PAGE, convert, convert_with, log, span
from hypothesis import given
from hypothesis import strategies as st

from otel_amplitude.convert import Converter, Selector, _rules
from otel_amplitude.convert._rules import Rules, load_rules, parse_rules
from otel_amplitude.convert._view import LogView, SpanView
from otel_amplitude.errors import RulesError
from otel_amplitude.identity import Identity

EXAMPLE = "\n".join(line[4:] for line in (_rules.__doc__ or "").split("::\n", 1)[1].split("**match**")[0].splitlines())


def takes(match: str, attributes: Mapping[str, Any] = PAGE, **how: Any) -> bool:
    """Whether a rule with this match takes a span."""
    return parse_rules(f'[[event]]\nname = "X"\nmatch = {match}').choose(SpanView(span(**how), attributes)) is not None


def event(rule: str, attributes: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """The event that a rule makes of a span of `/cart`."""
    selector = Selector(rules=parse_rules(f"[[event]]\nmatch = {{route = '/cart'}}\n{rule}"))
    return convert(span({**PAGE, **attributes}), selector=selector, **options)


def properties(rule: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """What a rule adds to the properties every event has."""
    usual = {"service", "duration_ms", "trace_id", "route", "method", "status_code"}
    return {name: value for name, value in event(rule, attributes)["event_properties"].items() if name not in usual}


@pytest.mark.parametrize(
    ("match", "fits"),
    [
        ("{}", True),
        ('{route = "/cart"}', True),
        ('{route = "cart/"}', True),  # written one way on both sides
        ('{route = "/c*"}', True),
        ('{route = ["/x", "/cart"]}', True),
        ('{route = "/x"}', False),
        ('{method = "get"}', True),
        ('{method = ["POST", "PUT"]}', False),
        ("{status = 200}", True),
        ('{status = "2xx"}', True),
        ('{status = "2XX"}', True),
        ('{status = "200"}', True),
        ('{status = "200-204"}', True),
        ('{status = ["3xx", 404]}', False),
        ("{status = {min = 200, max = 399}}", True),
        ("{status = {max = 199}}", False),
        ('{name = "GET /cart"}', True),
        ('{name = {glob = ["POST *", "GET *"]}}', True),
        ('{kind = "server"}', True),
        ('{kind = ["client", "internal"]}', False),
        ('{scope = "opentelemetry.instrumentation.*"}', True),
        ('{service = "shop"}', True),
        ('{service = "billing"}', False),
        ("{service = {present = true}}", True),
        ('{event_name = "x"}', False),
        ('{"http.route" = "/cart"}', True),
        ('{http.route = "/cart"}', True),  # TOML reads this as tables
        ("{cart.total = {present = false}}", True),
        ("{cart.total = {min = 1}}", False),
        ('{attributes = {plain = "x"}}', False),
        ('{http.route = {in = ["/a", "/cart"]}}', True),
        ('{http.route = {equals = "/ca*"}}', False),  # no glob where equality is asked for
    ],
)
def test_what_a_match_takes(match: str, fits: bool) -> None:
    """Words, attributes, and every way of comparing."""
    assert takes(match) is fits


def test_attributes_without_a_dot_have_a_table_of_their_own() -> None:
    """So that a typing error in a word is not taken for one."""
    attributes = {**PAGE, "vip": True, "cart": {"a": 1}, "n": 3, "tags": ("a", "b")}
    assert takes("{attributes = {vip = true, n = {min = 3}, tags = 'a'}}", attributes)
    assert not takes("{attributes = {vip = false}}", attributes)


@pytest.mark.parametrize(
    ("match", "kind", "fits"), [('{route = "/cart"}', "CLIENT", False), ('{route = "/cart", kind = "client"}', "CLIENT", True)]
)
def test_routes_are_of_servers_unless_said_otherwise(match: str, kind: str, fits: bool) -> None:
    """An outgoing call has a method and a status as well."""
    assert takes(match, kind=kind) is fits


def test_the_first_match_wins() -> None:
    """From top to bottom, drops included."""
    rules = parse_rules(EXAMPLE)
    taken = {
        str(route): str(rules.choose(SpanView(span(), {**PAGE, "http.route": route, "section": "news", "article.words": 200}))).split(
            ": ", 1
        )[-1]
        for route in ("/blog/rust", "/api/users", "/poll", "/else")
    }
    assert taken == {"/blog/rust": "Article Read", "/api/users": "{method} {route}", "/poll": "drop", "/else": "None"}


def test_the_example_in_the_documentation_makes_what_it_says() -> None:
    """The file an analyst would copy."""
    rules = parse_rules(EXAMPLE)
    assert rules.warnings == ()
    attributes = {
        "http.request.method": "POST",
        "http.route": "/orders",
        "http.response.status_code": 201,
        "cart.total": 12.5,
        "cart.sku": "b-1",
        "tenant.id": "acme",
        "customer.plan": "pro",
    }
    made = convert(span(attributes), selector=Selector(rules=rules))
    assert made["event_type"] == "Order Placed"
    assert made["event_properties"].items() >= {"total": 12.5, "items": 0, "channel": "web"}.items()
    assert (made["groups"], made["user_properties"]) == ({"org": "acme"}, {"plan": "pro"})
    assert (made["revenue"], made["currency"], made["productId"]) == (12.5, "EUR", "b-1")
    page = convert(span({**PAGE, "http.route": "/api/<int:n>"}), selector=Selector(rules=rules))
    assert page["event_type"] == "GET /api/{n}"
    assert page["event_properties"]["page"] == "shop: /api/{n}"


@pytest.mark.parametrize(
    ("pick", "value", "made"),
    [
        ('"cart.n"', 3, 3),
        ('{from = "cart.n"}', "3", "3"),
        ('{from = "cart.n", as = "integer"}', "3", 3),
        ('{from = "cart.n", as = "number"}', "3.5", 3.5),
        ('{from = "cart.n", as = "text"}', 3, "3"),
        ('{from = "cart.n", as = "boolean"}', "true", True),
        ('{from = "cart.n", as = "integer", default = 7}', "many", 7),
        ('{from = "none.n", default = "none"}', 3, "none"),
        ("{value = 5}", 3, 5),
        ('{template = "{method}: {cart.n}"}', 3, "GET: 3"),
        ('{template = "{{{cart.n}}}"}', 3, "{3}"),
        ('"method"', 3, "GET"),
        ('"kind"', 3, "server"),
        ('"status"', 3, 200),
        ('"scope"', 3, "opentelemetry.instrumentation.flask"),
    ],
)
def test_a_pick_gives_a_property(pick: str, value: Any, made: Any) -> None:
    """An attribute or a word, cast, with a default, a constant, or a template."""
    assert properties(f'name = "X"\nproperties = {{p = {pick}}}', {"cart.n": value}) == {"p": made}


@pytest.mark.parametrize(
    "pick", ['"none.n"', '{from = "cart.n", as = "integer"}', '{template = "{none.n} x"}', '{template = "{cart.n} {none.n}"}', '"body"']
)
def test_what_can_not_be_picked_is_left_out(pick: str) -> None:
    """No null, no empty text."""
    assert properties(f'name = "X"\nproperties = {{p = {pick}}}', {"cart.n": "many"}) == {}


def test_what_is_left_out_is_counted() -> None:
    """Absent attributes of templates, and casts that failed; a name loses the part that is absent."""
    rule = '[[event]]\nname = "Seen {none.n} {cart.n}"\nmatch = {}\nproperties = {a = {template = "{none.n}"}, b = {from = "cart.n", as = "integer"}, c = "none.n"}'
    converter = Converter()
    made, _ = convert_with(converter, span({**PAGE, "cart.n": "many"}), selector=Selector(rules=parse_rules(rule)))
    assert made["event_type"] == "Seen many"
    assert converter.left_out == {"absent": 2, "cast": 1}


def test_generated_names_pass_the_guard() -> None:
    """Fixed ones do not; a template that gives nothing is `(other)`."""
    assert event('name = "{method} {route}"', {}, max_event_types=0)["event_type"] == "(other)"
    assert event('name = "Cart"', {}, max_event_types=0)["event_type"] == "Cart"
    assert event('name = "{none.n}"', {})["event_type"] == "(other)"


def test_properties_as_a_list_of_globs() -> None:
    """Attributes under their own names; sensitive ones only in full."""
    attributes = {"cart.total": 3, "cart.email": "a@example.com", "user.email": "b@example.com", "order": 1}
    assert properties('name = "X"\nproperties = ["cart.*", "user.email"]', attributes) == {"cart.total": 3, "user.email": "b@example.com"}


def test_a_name_with_a_dot_needs_no_quotes() -> None:
    """TOML reads it as a table of tables; a property goes by the full name."""
    assert properties('name = "X"\nproperties.cart.total = "n"\nproperties.cart.items = {from = "n"}', {"n": 3}) == {
        "cart.total": 3,
        "cart.items": 3,
    }


def test_an_annotation_on_the_span_wins_over_the_rule() -> None:
    """What the code says is more deliberate still."""
    made = event('name = "X"\ngroups = {org = "tenant"}', {"tenant": "a", "amplitude.groups.org": "b", "amplitude.event_properties.p": 1})
    assert (made["groups"], made["event_properties"]["p"]) == ({"org": "b"}, 1)


def test_the_sample_keeps_the_same_users_everywhere() -> None:
    """A tenth is about a tenth, and a larger sample holds the smaller one; without an id nothing is kept of a small one."""
    rules = parse_rules("".join(f'[[event]]\nname = "X"\nmatch.a.b = {share}\nsample = {share}\n' for share in (0.0, 0.1, 0.5, 1.0))).rules
    kept = [{number for number in range(2_000) if rule.keeps(f"user-{number}")} for rule in rules]
    assert kept[0] == set()
    assert 150 < len(kept[1]) < 250
    assert 900 < len(kept[2]) < 1_100
    assert kept[1] < kept[2] < kept[3]
    assert len(kept[3]) == 2_000


def test_explain_says_what_each_rule_refuses_an_item_for() -> None:
    """In the order of the file; the first None decides."""
    rules = parse_rules(EXAMPLE)
    told = {str(rule): why for rule, why in rules.explain(SpanView(span(), {**PAGE, "http.route": "/poll"}))}
    assert list(told.values()) == [
        "route is '/poll', not '/orders'",
        "route is '/poll', not like '/blog/*'",
        "route is '/poll', not like '/api/*'",
        None,
    ]
    assert list(told)[-1] == "rule 4 (line 24): drop"
    assert repr(rules.rules[0]) == "<rule 1 (line 2): Order Placed>"
    (absent,) = parse_rules('[[event]]\nname = "X"\nmatch.a.b = 1').explain(LogView(log(), {}, None, None))
    assert absent[1] == "a.b is absent, not 1"


UNREACHABLE = """
[[event]]
name = "A"
match = {route = "/api/*", status = ["2xx", "3xx"]}

[[event]]
name = "B"
match = {route = "/api/users", status = 201, method = "POST"}

[[event]]
name = "C"
match = {route = "/api/users", status = 404}
"""


def test_a_rule_that_can_never_be_reached_gets_a_warning() -> None:
    """With file, line, and the rule that takes everything from it."""
    assert parse_rules(UNREACHABLE, "shop.toml").warnings == (
        "shop.toml:6: rule 2 (line 6): B can never be reached: rule 1 (line 2): A takes all it would; move it up or take it out",
    )


# --- wrong files ------------------------------------------------------------------------------------------------------------

WRONG = [
    ("", r"rules:1: has no \[\[event\]\]"),
    ("# only words", r"rules:1: has no \[\[event\]\]"),
    ("event = 3", r"rules:1: has no \[\[event\]\]"),
    ("event = [3]", "rules:1: rule 1: must be a table"),
    ("[[event]\n", "rules:1: is not TOML"),
    ('[[event]]\nname = "X"\nname = "Y"', "rules:3: is not TOML"),
    ("a = " + "[" * 5_000, "rules:1: is not TOML"),
    ('[[events]]\nname = "X"', r"rules:1: unknown key 'events', did you mean 'event'\?"),
    ('x = 1\n[[event]]\nname = "X"', "rules:1: unknown key 'x'; a file holds only"),
    ('[[event]]\nname = "X"', r"rules:1: rule 1: needs a match; match = \{\} takes everything"),
    ("[[event]]\nmatch = {}", "rules:1: rule 1: needs a name for its events, or drop = true"),
    ('[[event]]\nname = ""\nmatch = {}', "rules:2: rule 1: name must not be empty"),
    ("[[event]]\nname = 3\nmatch = {}", "rules:2: rule 1: name must be a text, not 3"),
    ('[[event]]\nname = "[Amplitude] X"\nmatch = {}', "Amplitude's own"),
    (f'[[event]]\nname = "{"x" * 1_025}"\nmatch = {{}}', "at most 1024"),
    ('[[event]]\nname = "X"\nmatch = {}\ndrop = true', "rules:2: rule 1: drops what it matches, so name has no use"),
    ('[[event]]\nmatch = {}\ndrop = "yes"', "rules:3: rule 1: drop must be true or false, not 'yes'"),
    ('[[event]]\nname = "X"\nmatch = {}\npropertys = {}', r"rules:4: rule 1: unknown key 'propertys', did you mean 'properties'\?"),
    ('[[event]]\nname = "X"\nmatch = "/cart"', "rules:3: rule 1: match must be a table"),
    (
        '[[event]]\nname = "X"\nmatch = {rout = "/x"}',
        r"rules:3: rule 1: match: unknown word 'rout', did you mean 'route'\?.*attributes = \{rout",
    ),
    ('[[event]]\nname = "X"\nmatch = {attributes = 3}', "attributes must be a table"),
    ('[[event]]\nname = "X"\nmatch = {route = []}', "route has an empty list"),
    ('[[event]]\nname = "X"\nmatch = {route = [["/x"]]}', "route must be text, a number"),
    ('[[event]]\nname = "X"\nmatch = {a.b = 2026-11-22}', "a.b must be text, a number"),
    ('[[event]]\nname = "X"\nmatch = {status = "6xx"}', 'status must be a number, "2xx" or "200-299"'),
    ('[[event]]\nname = "X"\nmatch = {kind = "servr"}', r"kind must be one of .*did you mean 'server'\?"),
    ('[[event]]\nname = "X"\nmatch = {route = {}}', r"route = \{\} says nothing"),
    ('[[event]]\nname = "X"\nmatch = {route = {equals = "a", min = 3}}', "takes one of"),
    ('[[event]]\nname = "X"\nmatch = {route = {present = 1}}', "present must be true or false"),
    ('[[event]]\nname = "X"\nmatch = {route = {glob = 1}}', "glob must be a text"),
    ('[[event]]\nname = "X"\nmatch = {route = {glob = []}}', "glob must be a text"),
    ('[[event]]\nname = "X"\nmatch = {route = {in = "/x"}}', "in must be a list"),
    ('[[event]]\nname = "X"\nmatch = {a.b = {min = "1"}}', "min must be a number"),
    ('[[event]]\nname = "X"\nmatch = {a.b = {min = 2, max = 1}}', "min 2 is above max 1"),
    ('[[event]]\nname = "X"\nmatch = {a.b = {min = 2, mx = 1}}', r"a.b mixes 'min' with 'mx', did you mean 'max'\?"),
    ('[[event]]\nname = "X"\nmatch = {}\nsample = 10', r"rules:4: rule 1: sample must be a number from 0 to 1"),
    ('[[event]]\nname = "X"\nmatch = {}\nsample = true', "sample must be a number"),
    ('[[event]]\nname = "X"\nmatch = {}\nproperties = 3', "properties must be a table"),
    ('[[event]]\nname = "X"\nmatch = {}\nproperties = [3]', "properties must be a table, or a list"),
    ('[[event]]\nname = "X"\nmatch = {}\nproperties = {p = 3}', r"p must be the name of an attribute.*\{value"),
    ('[[event]]\nname = "X"\nmatch = {}\nproperties = {p = ""}', "p must be the name of an attribute"),
    ('[[event]]\nname = "X"\nmatch = {}\nproperties = {p = {}}', "exactly one of them"),
    ('[[event]]\nname = "X"\nmatch = {}\nproperties = {p = {value = 1, from = "a"}}', "exactly one of them"),
    ('[[event]]\nname = "X"\nmatch = {}\nproperties = {p = {value = 1, as = "text"}}', "exactly one of them"),
    ('[[event]]\nname = "X"\nmatch = {}\nproperties = {p = {from = 1}}', "from must be the name of an attribute"),
    ('[[event]]\nname = "X"\nmatch = {}\nproperties = {p = {from = "a", as = "date"}}', "as must be one of text, integer, number, boolean"),
    ('[[event]]\nname = "X"\nmatch = {}\nproperties = {p = {from = "a", as = []}}', "as must be one of"),
    ('[[event]]\nname = "X"\nmatch = {}\nproperties = {p = {template = 1}}', "template must be a text"),
    ('[[event]]\nname = "{method"\nmatch = {}', "rules:2: rule 1: name '{method' has a brace too many or too few"),
    ('[[event]]\nname = "method}"\nmatch = {}', "a brace too many or too few"),
    ('[[event]]\nname = "{}"\nmatch = {}', "braces hold the name of an attribute"),
    ('[[event]]\nname = "{method:>9}"\nmatch = {}', "braces hold the name of an attribute"),
    ('[[event]]\nname = "{method!r}"\nmatch = {}', "braces hold the name of an attribute"),
    ('[[event]]\nname = "X"\nmatch = {}\nconstants = []', "constants must be a table"),
    ('[[event]]\nname = "X"\nmatch = {}\ngroups = []', "groups must be a table"),
    ('[[event]]\nname = "X"\nmatch = {}\nrevenue = {prise = "a"}', r"revenue: unknown key 'prise', did you mean 'price'\?"),
    ('[[event]]\nname = "X"\nmatch = {}\nrevenue = {price = {value = "free"}}', "price must be a number, not 'free'"),
    ('[[event]]\nname = "X"\nmatch = {}\nrevenue = {currency = {value = []}}', "currency must be text"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[str(number) for number in range(len(WRONG))])
def test_a_wrong_file_says_where_and_what_to_do(text: str, message: str) -> None:
    """One clear error with the source and the line; nothing of the file is used."""
    with pytest.raises(RulesError, match=r"^rules:\d+: ") as raised:
        parse_rules(text)
    assert re.search(message, str(raised.value))


def test_the_line_is_that_of_the_wrong_key() -> None:
    """Within the rule that is wrong, however the key is written."""
    good = '[[event]]\nname = "A"\nmatch.route = "/a"\n\n'
    for wrong, line in (
        ('[[event]]\nname = "B"\n[event.match]\nrout = "/x"', 8),
        ('[[ event ]]\nname = "B"\nmatch."status" = "x"', 7),
        ('[[event]]\nname = "B"\nmatch.attributes.n = {min = "1"}', 7),
        ('[[event]]\nname = "B"\nmatch = {}\nrevenue.price = 3\n\n[[event]]\nname = "C"\nmatch = {}\nrevenue.price = "ok"', 8),
    ):
        with pytest.raises(RulesError, match=rf"^rules:{line}: rule 2: "):
            parse_rules(good + wrong)
    with pytest.raises(RulesError, match="^rules:1: rule 1: "):
        parse_rules('event = [{name = "A", match = {}, sampl = 1}]')


@given(st.text(st.sampled_from("[]{}=\"'.,#\n ab1eventmatchname"), max_size=60) | st.text(max_size=30))
def test_any_text_is_rules_or_an_error(text: str) -> None:
    """Nothing else comes out of a file, whatever is in it."""
    try:
        assert isinstance(parse_rules(text), Rules)
    except RulesError as error:
        assert str(error).startswith("rules:")


keys = st.sampled_from(["name", "match", "drop", "properties", "constants", "groups", "user_properties", "revenue", "sample", "other"])
toml_values = st.recursive(
    st.booleans() | st.integers(-9, 999) | st.sampled_from(["", "x", "/a*", "{a}", "2xx", "server"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["route", "status", "kind", "a.b", "attributes", "from", "as", "value", "template", "min", "glob", "price"]),
            inner,
            max_size=2,
        )
    ),
    max_leaves=5,
)


def written(value: Any) -> str:
    """A value as TOML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}" = {written(inner)}' for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(written(inner) for inner in value) + "]"
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)


@given(st.dictionaries(keys, toml_values, max_size=5))
def test_any_table_is_a_rule_or_an_error(table: dict[str, Any]) -> None:
    """Every type under every key; and a rule that was read can be used."""
    text = "[[event]]\n" + "\n".join(f"{key} = {written(value)}" for key, value in table.items())
    try:
        rules = parse_rules(text)
    except RulesError:
        return
    selector = Selector(rules=rules)
    choice = selector.span(span(PAGE), PAGE)
    if choice is not None and not isinstance(choice, str):
        assert Converter().span(span(PAGE), PAGE, choice, ALICE)


# --- files ------------------------------------------------------------------------------------------------------------------


def test_a_file_is_read(tmp_path: Path) -> None:
    """UTF-8, with or without the mark that Windows puts in front."""
    file = tmp_path / "rules.toml"
    file.write_bytes(b"\xef\xbb\xbf" + '[[event]]\nname = "Kjøp"\nmatch = {}'.encode())
    rules = load_rules(file)
    assert (rules.source, [rule.name for rule in rules.rules]) == (str(file), ["Kjøp"])


def test_files_that_can_not_be_used(tmp_path: Path) -> None:
    """Absent, a directory, a pipe, huge, not UTF-8: each says what it is, and none is waited for."""
    pipe, huge, latin = tmp_path / "pipe", tmp_path / "huge.toml", tmp_path / "latin.toml"
    os.mkfifo(pipe)
    huge.write_bytes(b"#" * 1_000_001)
    latin.write_bytes(b"[[event]]\n# caf\xe9")
    for path, message in (
        (tmp_path / "none.toml", "there is no such rules file"),
        (tmp_path, "is a directory"),
        (pipe, "is not a file"),
        (huge, "is larger than 1,000,000 bytes"),
        (latin, "latin.toml:2: is not UTF-8"),
    ):
        with pytest.raises(RulesError, match=message):
            load_rules(path)


def test_a_file_of_somebody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system says is passed on, with the file."""

    def refuse(*_arguments: object, **_facts: object) -> None:
        raise PermissionError(13, "Permission denied")

    file = tmp_path / "rules.toml"
    file.write_text(EXAMPLE)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(RulesError, match=r"rules.toml: can not be read \(Permission denied\)"):
        load_rules(file)


def test_a_log_record_is_matched_by_its_event_name() -> None:
    """A span has none, and a record has no span name."""
    rules = parse_rules('[[event]]\nname = "A"\nmatch = {event_name = "auth.*"}\n[[event]]\nname = "B"\nmatch = {name = "x"}')
    assert str(rules.choose(LogView(log("auth.login"), {}, "shop", None))).endswith("A")
    assert rules.choose(LogView(log("x"), {}, None, None)) is None


def test_two_hundred_rules_cost_few_instructions() -> None:
    """One look-up decides: the price does not grow with the number of rules."""
    text = "".join(
        f'[[event]]\nname = "E{number}"\nmatch = {{route = "/r{number}", method = "GET", status = "2xx"}}\n' for number in range(200)
    )
    rules = parse_rules(text)
    view = SpanView(span(), {**PAGE, "http.route": "/r199"})
    asked = 0
    original = _rules.Condition.accepts

    def counted(self: Any, value: Any) -> bool:
        nonlocal asked
        asked += 1
        return original(self, value)

    assert str(rules.choose(view)).endswith("E199")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_rules.Condition, "accepts", counted)
        assert str(rules.choose(view)).endswith("E199")
    assert asked == 0


def test_a_user_outside_the_sample_is_the_same_in_another_process() -> None:
    """Python's own hash differs between processes; this one does not."""
    code = (
        "from otel_amplitude.convert._rules import parse_rules;"
        "rule = parse_rules('[[event]]\\nname = \"X\"\\nmatch = {}\\nsample = 0.5').rules[0];"
        "print([rule.keeps(f'user-{n}') for n in range(20)])"
    )
    import sys

    outputs = {subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout for _ in range(2)}
    rule = parse_rules('[[event]]\nname = "X"\nmatch = {}\nsample = 0.5').rules[0]
    assert outputs == {f"{[rule.keeps(f'user-{number}') for number in range(20)]}\n"}


def test_identity_decides_the_sample() -> None:
    """The user, else the device."""
    rules = parse_rules('[[event]]\nname = "X"\nmatch = {}\nsample = 0.5')
    choice = Selector(rules=rules).span(span(PAGE), PAGE)
    assert choice is not None
    assert not isinstance(choice, str)
    kept = {
        number
        for number in range(50)
        if not isinstance(Converter().span(span(PAGE), PAGE, choice, Identity(f"user-{number}", "device")), str)
    }
    devices = {
        number for number in range(50) if not isinstance(Converter().span(span(PAGE), PAGE, choice, Identity(None, f"user-{number}")), str)
    }
    assert kept == devices
    assert 0 < len(kept) < 50
