"""`otel-amplitude rules`: a first rules file from what was seen, a check of one, and which rule takes a span."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any, Final

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from otel_amplitude.cli._draft import draft
from otel_amplitude.cli._inputs import HELP as INPUT_HELP
from otel_amplitude.cli._inputs import Problems, SourceError
from otel_amplitude.cli._options import epilog
from otel_amplitude.cli._sample import read_files, read_trace, trace_of
from otel_amplitude.cli._seen import Seen, add_sources, read_events, source_of
from otel_amplitude.cli._table import counted, print_table, printable
from otel_amplitude.config import ENVIRONMENT_PREFIX
from otel_amplitude.convert import Choice, Converter, Selector
from otel_amplitude.convert._rule import Rule
from otel_amplitude.convert._rules import Rules, load_rules, parse_rules
from otel_amplitude.convert._view import LogView, SpanView, View, is_skipped, read_event_type
from otel_amplitude.convert.mounts import whole_route
from otel_amplitude.errors import RulesError
from otel_amplitude.identity import Identity

HELP: Final = "Write, check and explain the rules file that names events without code."
EXAMPLES: Final = (
    "otel-amplitude rules init --sandbox http://127.0.0.1:8010 --output rules.toml",
    "otel-amplitude rules check rules.toml",
    "otel-amplitude rules explain rules.toml traces.jsonl",
    "otel-amplitude rules explain rules.toml --sandbox http://127.0.0.1:8010 --trace 0af7651916cd43dd8448eb211c80319c",
)
_VARIABLE: Final = f"{ENVIRONMENT_PREFIX}RULES"
_SOMEBODY: Final = Identity(user_id="(a known user)", from_request=True)
_WHY_NOT: Final = {
    "bot": "its user agent is a bot's",
    "prefetch": "a browser fetched the page before a person asked for it",
    "websocket": "it is the handshake of a WebSocket",
    "no_route": "its route is not known: set http.route on the span",
    "excluded": "its route is a probe or a static file (option exclude)",
    "rule": "a rule drops it",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the words of this command."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, words: str) -> argparse.ArgumentParser:
        return actions.add_parser(
            name,
            help=words,
            description=words,
            epilog=epilog(EXAMPLES, f"otel-amplitude rules {name}"),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    init = add("init", "write a first file from what was seen")
    add_sources(init)
    init.add_argument("--output", metavar="FILE", help="write here (default: standard output); an existing file is not touched")
    check = add("check", "check a file: errors with line and cure, rules that can never be reached")
    check.add_argument("file", nargs="?", default=os.environ.get(_VARIABLE), help=f"the rules file (default: {_VARIABLE})")
    check.add_argument("--json", action="store_true", help="print JSON")
    explain = add("explain", "say which rule takes a span or log record, and why not the others")
    explain.add_argument("file", help="the rules file")
    explain.add_argument("input", nargs="*", help=INPUT_HELP)
    explain.add_argument("--sandbox", metavar="URL", help="a running sandbox, to take a trace from")
    explain.add_argument("--trace", metavar="ID", help="of all there is, only this trace")
    explain.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Do one of the three."""
    return {"init": _init, "check": _check, "explain": _explain}[arguments.action](arguments)


# init


def _init(arguments: argparse.Namespace) -> int:
    seen = Seen("")
    text = draft(read_events(arguments, seen), source_of(arguments))
    parse_rules(text)  # a draft that could not be read back would be worse than none
    if arguments.output is None:
        print(text, end="")
    else:
        try:
            with Path(arguments.output).open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise SourceError(f"{arguments.output} exists and is not overwritten; choose another --output") from None
        print(
            f"{arguments.output}: {counted(text.count('[[event]]'), 'rule')} to rename or take out; next: otel-amplitude rules check {arguments.output}"
        )
    for problem in seen.broken.lines():
        print(f"otel-amplitude rules: {problem}", file=sys.stderr)
    return 1 if seen.broken.count else 0


# check


def _check(arguments: argparse.Namespace) -> int:
    if not arguments.file:
        raise SourceError(f"name a rules file, or set {_VARIABLE}")
    try:
        rules = load_rules(arguments.file)
    except RulesError as error:
        if not Path(arguments.file).is_file() or isinstance(error.__cause__, OSError):
            raise  # not read is not checked
        found = _errors(arguments.file, error)
        if arguments.json:
            print(json.dumps({"file": arguments.file, "rules": 0, "errors": found, "warnings": []}))
        else:
            print("\n".join(f"error: {each}" for each in found))
        return 1
    if arguments.json:
        print(json.dumps({"file": arguments.file, "rules": len(rules.rules), "errors": [], "warnings": list(rules.warnings)}))
    else:
        print_table(
            f"{arguments.file}: {counted(len(rules.rules), 'rule')}, no errors",
            ("line", "rule", "takes"),
            [_described(rule) for rule in rules.rules],
        )
        for warning in rules.warnings:
            print(f"warning: {warning}")
    return 1 if rules.warnings else 0


_HEADER: Final = re.compile(r"\s*\[\[\s*event\s*\]\]")


def _errors(source: str, first: RulesError) -> list[str]:
    """Give every error of a file, in the order of its lines.

    The parser stops at the first one. So the line that it names is emptied and the text parsed again; an error that this causes (a key
    that is now missing, a value cut in two) shows at another line than a key's, and ends the search in that rule.
    """
    try:
        lines = Path(source).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return [str(first)]
    headers = [at for at, line in enumerate(lines) if _HEADER.match(line)]
    found: dict[int, str] = {}
    touched: set[int] = set()
    error: RulesError | None = first
    while error is not None:
        place = re.match(rf"{re.escape(source)}:(\d+): ", str(error))
        at = int(place[1]) - 1 if place else -1
        rule = sum(header <= at for header in headers)
        is_key = 0 <= at < len(lines) and at not in headers and "is not TOML" not in str(error)
        if rule not in touched or is_key:
            found[at] = re.sub(r": rule \d+: ", f": rule {rule}: ", str(error), count=1)
        if not rule or not 0 <= at < len(lines) or ("is not TOML" in str(error) and rule not in touched):
            break  # about the whole file: what follows can not be separated
        end = headers[rule] if rule < len(headers) else len(lines)
        for line in (at,) if is_key and lines[at] else range(headers[rule - 1], end):
            lines[line] = ""
        touched.add(rule)
        error = _error("\n".join(lines), source)
    return [found[at] for at in sorted(found)]


def _error(text: str, source: str) -> RulesError | None:
    if not any(map(_HEADER.match, text.splitlines())):
        return None
    try:
        parse_rules(text, source)
    except RulesError as error:
        return error
    return None


def _described(rule: Rule) -> tuple[object, ...]:
    conditions = " and ".join(f"{condition.fact} {condition}" for condition in rule.conditions)
    share = f", {rule.sample:.0%} of users" if rule.sample < 1 else ""
    return rule.line, "(drop)" if rule.drop else rule.name, (conditions or "everything") + share


# explain


def _explain(arguments: argparse.Namespace) -> int:
    if bool(arguments.input) == bool(arguments.sandbox):
        raise SourceError("say what to explain: files of OTLP, or --sandbox URL with --trace ID")
    if arguments.sandbox and not arguments.trace:
        raise SourceError("--sandbox needs --trace ID; copy the trace id from an event on its page")
    rules = load_rules(arguments.file)
    if arguments.sandbox:
        items: list[ReadableSpan | ReadableLogRecord] = [*read_trace(arguments.sandbox, arguments.trace.lower())]
        problems = Problems()
    else:
        items, problems = read_files(arguments.input, arguments.trace)
    answers = [_answer(item, rules) for item in items]
    if arguments.sandbox:  # what was rebuilt has not all that the event was made of, and the event itself is in the sandbox
        answers = [{**answer, "event": None} for answer in answers]
    if arguments.json:
        print(json.dumps({"items": answers, "broken": list(problems.lines())}, ensure_ascii=False, indent=2))
    else:
        for answer in answers:
            _print_answer(answer)
        if arguments.sandbox and answers:
            print("note: rebuilt from the event in the sandbox; attributes that did not become properties are not known here.")
    for problem in problems.lines():
        print(printable(f"otel-amplitude rules: {problem}"), file=sys.stderr)
    if not answers:
        print("otel-amplitude rules: there is no such span or log record in the input", file=sys.stderr)
    return 1 if problems.count or not answers else 0


def _answer(item: ReadableSpan | ReadableLogRecord, rules: Rules) -> dict[str, Any]:
    """Give what becomes of one item and what each rule says to it."""
    view, choice, event = _judged_log(item, rules) if isinstance(item, ReadableLogRecord) else _judged_span(item, rules)
    explained = rules.explain(view)
    taker = next((rule for rule, reason in explained if reason is None), None)
    named = read_event_type(view.attributes)
    return {
        "item": f"log record {view.event_name or '(no event name)'}" if isinstance(item, ReadableLogRecord) else f"span {view.name}",
        "kind": view.kind,
        "service": view.service,
        "trace_id": trace_of(item),
        "outcome": _outcome(view, choice, taker, named),
        "event": event,
        "rules": [
            {
                "rule": rule.number,
                "line": rule.line,
                "name": "(drop)" if rule.drop else rule.name,
                "takes": rule is taker and not named,
                "why": _why(rule, reason, taker),
            }
            for rule, reason in explained
        ],
    }


def _why(rule: Rule, reason: str | None, taker: Rule | None) -> str:
    if reason is not None:
        return reason
    return "everything in its match fits" if rule is taker else "would fit, but an earlier rule takes it"


def _outcome(view: View, choice: Choice | str | None, taker: Rule | None, named: str) -> str:
    if is_skipped(view.attributes):
        return "no event: it is marked to be skipped"
    if named:
        return f"{named}, since it is annotated; rules are not asked"
    if taker is not None:
        return f"no event: {taker} drops it" if taker.drop else f"{taker.name}, by {taker}"
    if isinstance(choice, Choice):
        return (
            "an automatic event, for a known user; no rule takes it" if choice.kind == "automatic" else f"{choice.name}, by its event name"
        )
    return f"no event: {_WHY_NOT.get(choice or '', 'no rule takes it, and it is no request that was answered to a person')}"


def _judged_span(span: ReadableSpan, rules: Rules) -> tuple[View, Choice | str | None, dict[str, Any] | None]:
    attributes = dict(span.attributes or {})
    if span.kind is SpanKind.SERVER and (route := whole_route(attributes)) is not None:
        attributes["http.route"] = route
    choice = Selector(rules=rules).span(span, attributes)
    made = Converter().span(span, attributes, choice, _SOMEBODY) if isinstance(choice, Choice) else None
    return SpanView(span, attributes), choice, _shown(made)


def _judged_log(item: ReadableLogRecord, rules: Rules) -> tuple[View, Choice | str | None, dict[str, Any] | None]:
    record, scope = item.log_record, item.instrumentation_scope
    choice = Selector(rules=rules).log(record, scope.name if scope else None, item.resource)
    made = Converter().log(record, item.resource, scope, choice, _SOMEBODY) if isinstance(choice, Choice) else None
    return LogView(record, dict(record.attributes or {}), scope, item.resource), choice, _shown(made)


def _shown(made: Any) -> dict[str, Any] | None:
    """Give what is worth showing of the event that would be made: not who, not when."""
    if not isinstance(made, tuple):
        return None
    hidden = ("user_id", "device_id", "session_id", "time", "insert_id", "library")
    return {key: value for key, value in made[0].items() if key not in hidden and value not in (None, {}, [])}


def _print_answer(answer: dict[str, Any]) -> None:
    print_table(
        f"{answer['item']} ({answer['kind']}{', ' + answer['service'] if answer['service'] else ''}, trace {answer['trace_id']})",
        ("line", "rule", "", "why"),
        [(each["line"], each["name"], "takes it" if each["takes"] else "no", each["why"]) for each in answer["rules"]],
    )
    print(printable(f"→ {answer['outcome']}"))
    if answer["event"]:
        print(printable(f"  {json.dumps(answer['event'], ensure_ascii=False)}"))
