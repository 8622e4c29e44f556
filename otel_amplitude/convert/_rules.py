r"""The rules file: which requests are which events, in words an analyst can read and a review can judge.

A TOML file of `[[event]]` tables. They are tried from top to bottom; the first whose `match` fits takes the span or log record.

::

    [[event]]
    name = "Order Placed"
    match = {route = "/orders", method = "POST", status = "2xx"}
    properties = {total = "cart.total", items = {from = "cart.items", as = "integer", default = 0}}
    constants = {channel = "web"}
    groups = {org = "tenant.id"}
    user_properties = {plan = "customer.plan"}
    revenue = {revenue = "cart.total", currency = {value = "EUR"}, product_id = "cart.sku"}

    [[event]]
    name = "Article Read"
    match.route = "/blog/*"
    match.attributes.section = ["news", "sport"]     # an attribute without a dot in its name
    match."article.words" = {min = 100}
    properties = ["article.*"]                       # every such attribute, under its own name; sensitive names are left out
    sample = 0.1                                     # one user in ten, always the same ones

    [[event]]
    name = "{method} {route}"                        # at most `max_event_types` such names in one process
    match = {route = "/api/*", status = ["2xx", 304]}
    properties = {page = {template = "{service}: {route}"}}

    [[event]]
    match = {route = "/poll"}
    drop = true

**match** takes an item when all of it fits. Its words: `route` (written one way whatever the framework: `/users/{uid}`), `method`,
`status`, `name` (of a span), `event_name` (of a log record), `kind` (`server`, `client`, `internal`, `producer`, `consumer`, `log`),
`scope`, `service`; everything with a dot is an attribute, and `attributes` holds those without. A rule about route, method or
status is about requests answered: unless it names a `kind`, only server spans fit. `match = {}` fits everything.

**Values** in a match: a text (`*` and `?` make it a glob), a number, true or false; a list of them: any one; a table of
`equals`, `glob`, `in`, `min`, `max`, `present`. A status may be `"2xx"` or `"200-299"`.

**Picks** in properties, groups, user_properties and revenue: the name of an attribute or one of the words above, or a table with `from`
(and `as`: `text`, `integer`, `number`, `boolean`; and `default`), or `value`, or `template`. A pick whose attribute is absent is left out.
"""

from __future__ import annotations

import difflib
import os
import re
import string
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from otel_amplitude.convert._casts import CASTS, NAMED_CASTS
from otel_amplitude.convert._globs import has_wildcard
from otel_amplitude.convert._matcher import WORDS, Condition, Matcher, Range, why_not
from otel_amplitude.convert._plan import Planner
from otel_amplitude.convert._routes import normalise
from otel_amplitude.convert._rule import Pick, Picks, Rule, Template
from otel_amplitude.convert._tables import REVENUE_FIELDS
from otel_amplitude.convert._view import KINDS, LOG_KIND, View
from otel_amplitude.errors import RulesError
from otel_amplitude.limits import MAX_STRING
from otel_amplitude.values import clean_properties

MAX_FILE_BYTES: Final = 1_000_000
_KINDS: Final = (*KINDS.values(), LOG_KIND)
_OPERATORS: Final = ("equals", "glob", "in", "min", "max", "present")
_PICK_KEYS: Final = ("from", "as", "default", "value", "template")
_STATUS_CLASS: Final = re.compile(r"([1-5])xx")
_STATUS_RANGE: Final = re.compile(r"([1-5]\d\d)\s*-\s*([1-5]\d\d)")


class _WrongError(Exception):
    """What is wrong with one rule, and at which of its keys."""

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class Rules:
    """A rules file, compiled; immutable, any thread may ask.

    Attributes:
        source: where they came from.
        rules: in the order of the file.
        warnings: what is allowed but surely not meant: rules that can never be reached.
    """

    def __init__(self, rules: tuple[Rule, ...], source: str) -> None:
        self.source = source
        self.rules = rules
        self._matcher = Matcher(rules)
        self.warnings = tuple(
            f"{source}:{later.line}: {later} can never be reached: {earlier} takes all it would; move it up or take it out"
            for later, earlier in self._matcher.unreachable()
        )
        self.choose: Callable[[View], Rule | None] = self._matcher.first
        """Give the first rule that takes an item, or None."""

    def explain(self, view: View) -> list[tuple[Rule, str | None]]:
        """Give every rule with the condition for which it refuses the item, or None when it would take it; the first None decides."""
        return [(rule, why_not(rule, view)) for rule in self.rules]


# --- reading ------------------------------------------------------------------------------------------------------------------


def load_rules(path: str | os.PathLike[str]) -> Rules:
    """Read a rules file.

    Raises:
        RulesError: when the file can not be read or anything in it is wrong; it names file, line and cure.
    """
    source = os.fspath(path)
    file = Path(source)
    try:
        if not file.exists():
            raise RulesError(f"{source}: there is no such rules file; check the option rules, or write one with otel-amplitude rules init")
        if not file.is_file():
            raise RulesError(f"{source}: is {'a directory' if file.is_dir() else 'not a file'}; rules must name one TOML file")
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise RulesError(f"{source}: can not be read ({error.strerror}); check its owner and mode") from error
    if len(content) > MAX_FILE_BYTES:
        raise RulesError(f"{source}: is larger than {MAX_FILE_BYTES:,} bytes; a rules file is a few pages, is this the right one?")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RulesError(f"{source}:{line}: is not UTF-8; save it as UTF-8 text") from error
    return parse_rules(text, source)


def parse_rules(text: str, source: str = "rules") -> Rules:
    r"""Compile the text of a rules file; `source` is what messages call it.

    Raises:
        RulesError: when anything in it is wrong; it names source, line and cure.

    >>> rules = parse_rules('[[event]]\nname = "Order Placed"\nmatch = {route = "/orders"}')
    >>> print(*rules.rules)
    rule 1 (line 1): Order Placed
    """
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        found = re.search(r"line (\d+)", str(error))
        line = found.group(1) if found else str(text.count("\n") + 1) if "end of document" in str(error) else "1"
        raise RulesError(f"{source}:{line}: is not TOML: {error}; texts need quotes, tables need braces on one line") from error
    lines = _Lines(text)
    events = document.pop("event", None)
    for key in document:
        raise RulesError(f"{source}:{lines.of(key)}: unknown key {key!r}{_cure(key, ('event',))}; a file holds only [[event]] tables")
    if not isinstance(events, list) or not events:
        raise RulesError(f"{source}:1: has no [[event]] table, so no rule; write one, or take the option rules away")
    rules = []
    for number, table in enumerate(events, start=1):
        try:
            rules.append(_rule(table, number, lines.header(number)))
        except _WrongError as wrong:
            raise RulesError(f"{source}:{lines.of(wrong.key, number)}: rule {number}: {wrong}") from None
    return Rules(tuple(rules), source)


class _Lines:
    """Finds the line of a key by a look at the text: enough for a message."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()
        self._headers = [at for at, line in enumerate(self._lines, start=1) if re.match(r"\s*\[\[\s*event\s*\]\]", line)]

    def header(self, number: int) -> int:
        """Give the line where rule `number` begins."""
        return self._headers[number - 1] if number <= len(self._headers) else 1

    def of(self, key: str, number: int | None = None) -> int:
        """Give the line that sets `key`, within rule `number`; the header's when it is not found."""
        first = 1 if number is None else self.header(number)
        last = self._headers[number] - 1 if number is not None and number < len(self._headers) else len(self._lines)
        for wanted in (key, key.rpartition(".")[2]):
            pattern = re.compile(rf"(?<![\w.-])[\"']?(?:[\w-]+\.)*[\"']?{re.escape(wanted)}[\"']?\s*=") if wanted else None
            for at in range(first, last + 1) if pattern else ():
                if pattern and pattern.search(self._lines[at - 1][:2_000]):
                    return at
        return first


def _cure(word: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _of_type(table: Mapping[str, Any], key: str, kind: type, what: str, default: Any) -> Any:
    value = table.get(key, default)
    if not isinstance(value, kind):
        raise _WrongError(f"{key} must be {what}, not {value!r}", key)
    return value


def _rule(table: Any, number: int, line: int) -> Rule:
    if not isinstance(table, dict):
        raise _WrongError(f"must be a table, not {table!r}; write [[event]]")
    for key in table:
        if key not in _READERS:
            raise _WrongError(f"unknown key {key!r}{_cure(key, tuple(_READERS))}; a rule has {', '.join(_READERS)}", key)
    read = {key: reader(table) for key, reader in _READERS.items()}
    name, drop = read["name"], read["drop"]
    if drop and len(table) > 2:
        extra = next(key for key in table if key not in ("match", "drop"))
        raise _WrongError(f"drops what it matches, so {extra} has no use; take it out", extra)
    if not drop and not name:
        raise _WrongError("needs a name for its events, or drop = true")
    globs, properties = read["properties"]
    return Rule(
        number=number,
        line=line,
        name=name,
        drop=drop,
        conditions=read["match"],
        title=_template(name, "name") if "{" in name or "}" in name else None,
        constants=read["constants"],
        planner=Planner(globs, own=False) if globs else None,
        properties=properties,
        groups=read["groups"],
        user_properties=read["user_properties"],
        fields=read["revenue"],
        sample=read["sample"],
    )


def _name(table: Mapping[str, Any]) -> str:
    name: str = _of_type(table, "name", str, "a text", "")
    if "name" in table and not name.strip():
        raise _WrongError("name must not be empty", "name")
    if len(name) > MAX_STRING:
        raise _WrongError(f"name must be at most {MAX_STRING} characters", "name")
    if name.startswith("[Amplitude]"):
        raise _WrongError("names that begin with [Amplitude] are Amplitude's own; choose another", "name")
    return name.strip()


def _sample(table: Mapping[str, Any]) -> float:
    sample = table.get("sample", 1.0)
    if isinstance(sample, bool) or not isinstance(sample, (int, float)) or not 0.0 <= sample <= 1.0:
        raise _WrongError(f"sample must be a number from 0 to 1 (0.1: one user in ten), not {sample!r}", "sample")
    return float(sample)


def _template(text: str, key: str) -> Template:
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise _WrongError(f"{key} {text!r} has a brace too many or too few ({error}); a brace itself is written twice", key) from None
    for _, attribute, spec, conversion in parsed:
        if attribute == "" or spec or conversion:
            raise _WrongError(f"{key} {text!r}: braces hold the name of an attribute and nothing else, as in {{method}}", key)
    return Template(tuple((literal, attribute) for literal, attribute, _, _ in parsed))


# --- match --------------------------------------------------------------------------------------------------------------------


def _flat(table: Mapping[str, Any], operators: tuple[str, ...], key: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give names and values, with tables of tables as names with dots: TOML reads `cart.total = 1` as two of them."""
    for name, value in table.items():
        full = f"{prefix}{name}"
        if isinstance(value, dict) and value and not all(inner in operators for inner in value):
            mixed = next((inner for inner in value if inner in operators), None)
            if mixed is not None:
                unknown = next(inner for inner in value if inner not in operators)
                raise _WrongError(f"{key}: {full} mixes {mixed!r} with {unknown!r}{_cure(unknown, operators)}", full)
            yield from _flat(value, operators, key, f"{full}.")
        else:
            yield full, value


def _match(table: Mapping[str, Any]) -> tuple[Condition, ...]:
    if "match" not in table:
        raise _WrongError("needs a match; match = {} takes everything")
    match = dict(_of_type(table, "match", dict, "a table", {}))
    attributes = match.pop("attributes", {})
    if not isinstance(attributes, dict):
        raise _WrongError(f"match: attributes must be a table, not {attributes!r}", "attributes")
    conditions = []
    for name, value in _flat(match, _OPERATORS, "match"):
        if name not in WORDS and "." not in name:
            words = ", ".join(WORDS)
            raise _WrongError(
                f"match: unknown word {name!r}{_cure(name, WORDS)}; the words are {words}; "
                f"an attribute without a dot goes into attributes = {{{name} = …}}",
                name,
            )
        conditions.append(_condition(name, value, is_word=name in WORDS))
    conditions += [_condition(name, value, is_word=False) for name, value in _flat(attributes, _OPERATORS, "match")]
    asked = {condition.fact for condition in conditions if condition.is_word}
    if asked & {"route", "method", "status"} and "kind" not in asked:
        conditions.insert(0, Condition("kind", is_word=True, values=frozenset({"server"})))
    return tuple(conditions)


def _condition(name: str, value: Any, *, is_word: bool) -> Condition:
    if isinstance(value, dict):
        return _operators(name, value, is_word=is_word)
    return _values(name, value if isinstance(value, list) else [value], is_word=is_word)


def _values(name: str, given: list[Any], *, is_word: bool, globs: bool = True) -> Condition:
    """Give the condition that a fact is any of these."""
    if not given:
        raise _WrongError(f"match: {name} has an empty list, so nothing can fit; name at least one value", name)
    values: set[str | float] = set()
    flags: set[bool] = set()
    patterns: list[str] = []
    ranges: list[Range] = []
    for value in given:
        if isinstance(value, bool):
            flags.add(value)
        elif isinstance(value, (int, float)):
            values.add(value)
        elif not isinstance(value, str):
            raise _WrongError(f"match: {name} must be text, a number, true or false, or a list of them, not {value!r}", name)
        elif is_word and name == "status":
            ranges.append(_status(value))
        elif globs and has_wildcard(value):
            patterns.append(value)
        else:
            values.add(_word(name, value) if is_word else value)
    return Condition(name, is_word, frozenset(values), frozenset(flags), tuple(patterns), tuple(ranges))


def _word(name: str, value: str) -> str:
    if name == "route":
        return normalise(value)
    if name == "method":
        return value.upper()
    if name == "kind" and value not in _KINDS:
        raise _WrongError(f"match: kind must be one of {', '.join(_KINDS)}, not {value!r}{_cure(value, _KINDS)}", name)
    return value


def _status(value: str) -> Range:
    if found := _STATUS_CLASS.fullmatch(value.strip().lower()):
        return (int(found[1]) * 100, int(found[1]) * 100 + 99)
    if found := _STATUS_RANGE.fullmatch(value.strip()):
        return (int(found[1]), int(found[2]))
    if value.strip().isdecimal():
        return (int(value), int(value))
    raise _WrongError(f'match: status must be a number, "2xx" or "200-299", not {value!r}', "status")


def _operators(name: str, table: Mapping[str, Any], *, is_word: bool) -> Condition:
    if not table:
        raise _WrongError(f"match: {name} = {{}} says nothing; use {', '.join(_OPERATORS)}", name)
    kinds = {"equals"}, {"glob"}, {"in"}, {"present"}, {"min", "max"}
    if not any(set(table) <= kind for kind in kinds):
        raise _WrongError(f"match: {name} takes one of equals, glob, in, present, or min and max, not {' and '.join(table)}", name)
    if "present" in table:
        return Condition(name, is_word, present=_of_type(table, "present", bool, "true or false", None))
    if "glob" in table:
        given = table["glob"] if isinstance(table["glob"], list) else [table["glob"]]
        if not given or not all(isinstance(pattern, str) for pattern in given):
            raise _WrongError(f"match: {name}: glob must be a text or a list of texts, not {table['glob']!r}", name)
        return Condition(name, is_word, globs=tuple(given))
    if "equals" in table or "in" in table:
        given = table["in"] if "in" in table else [table["equals"]]
        if not isinstance(given, list):
            raise _WrongError(f"match: {name}: in must be a list, not {given!r}", name)
        return _values(name, given, is_word=is_word, globs=False)
    least, most = (_bound(table, key, name, default) for key, default in (("min", float("-inf")), ("max", float("inf"))))
    if least > most:
        raise _WrongError(f"match: {name}: min {least:g} is above max {most:g}, so nothing can fit; exchange them", name)
    return Condition(name, is_word, ranges=((least, most),))


def _bound(table: Mapping[str, Any], key: str, name: str, default: float) -> float:
    value = table.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _WrongError(f"match: {name}: {key} must be a number, not {value!r}", name)
    return value


# --- picks --------------------------------------------------------------------------------------------------------------------


def _picks(key: str) -> Callable[[Mapping[str, Any]], Picks]:
    def read(table: Mapping[str, Any]) -> Picks:
        given = _of_type(table, key, dict, 'a table of name = "attribute"', {})
        return tuple((name, _pick(key, name, value)) for name, value in _flat(given, _PICK_KEYS, key))

    return read


def _pick(key: str, name: str, given: Any) -> Pick:
    if isinstance(given, str) and given:
        return Pick(source=given)
    if not isinstance(given, dict):
        raise _WrongError(
            f"{key}: {name} must be the name of an attribute, or a table with from, value or template, not {given!r}; "
            f"a constant is written {{value = …}}",
            name,
        )
    ways = [way for way in ("from", "value", "template") if way in given]
    if len(ways) != 1 or (ways != ["from"] and len(given) > 1):
        raise _WrongError(f"{key}: {name} takes from (with as and default), or value, or template; exactly one of them", name)
    if ways == ["value"]:
        return Pick(value=given["value"])
    if ways == ["template"]:
        return Pick(template=_template(_of_type(given, "template", str, "a text", None), "template"))
    cast = given.get("as")
    if cast is not None and (not isinstance(cast, str) or cast not in NAMED_CASTS):
        raise _WrongError(f"{key}: {name}: as must be one of {', '.join(NAMED_CASTS)}, not {cast!r}", name)
    source = _of_type(given, "from", str, "the name of an attribute", None)
    return Pick(source=source, value=given.get("default"), cast=None if cast is None else NAMED_CASTS[cast])


def _properties(table: Mapping[str, Any]) -> tuple[tuple[str, ...], Picks]:
    given = table.get("properties", {})
    if not isinstance(given, list):
        return (), _picks("properties")(table)
    if not all(isinstance(name, str) and name for name in given):
        raise _WrongError(f"properties must be a table, or a list of attribute names and globs, not {given!r}", "properties")
    return tuple(given), ()


def _constants(table: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(clean_properties(_of_type(table, "constants", dict, "a table of name = value", {})).items())


def _revenue(table: Mapping[str, Any]) -> Picks:
    picks = _picks("revenue")(table)
    for name, _ in picks:
        if name not in REVENUE_FIELDS:
            known = tuple(REVENUE_FIELDS)
            raise _WrongError(f"revenue: unknown key {name!r}{_cure(name, known)}; it has {', '.join(known)}", name)
    fields = []
    for name, pick in picks:
        key, kind = REVENUE_FIELDS[name]
        cast = CASTS[kind]
        value = None if pick.value is None else cast(pick.value)
        if pick.value is not None and value is None:
            raise _WrongError(f"revenue: {name} must be {'text' if kind is str else 'a number'}, not {pick.value!r}", name)
        fields.append((key, Pick(pick.source, value, pick.template, pick.cast if pick.cast is cast else cast)))
    return tuple(fields)


_READERS: Final[dict[str, Callable[[Mapping[str, Any]], Any]]] = {
    "name": _name,
    "match": _match,
    "drop": lambda table: _of_type(table, "drop", bool, "true or false", False),
    "properties": _properties,
    "constants": _constants,
    "groups": _picks("groups"),
    "user_properties": _picks("user_properties"),
    "revenue": _revenue,
    "sample": _sample,
}
