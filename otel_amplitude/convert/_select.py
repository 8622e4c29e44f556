"""Which spans and log records become events: annotated, named by a rule, or automatic; the first that fits makes it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from opentelemetry.trace import SpanKind

from otel_amplitude.convert._exposures import EXPOSURE, FLAG_EVENTS
from otel_amplitude.convert._globs import compile_globs
from otel_amplitude.convert._tables import (
    BOTS,
    DEFAULT_EXCLUDE,
    EMITTED,
    EVENT_TYPE,
    METHOD,
    NOT_AUTOMATIC_METHODS,
    PROBES,
    REGISTERED_EVENTS,
    SKIP,
    SYNTHETIC,
    TARGET,
    USER_AGENT,
)
from otel_amplitude.convert._view import LogView, SpanView, is_skipped, read_event_type, read_route, read_status, read_text
from otel_amplitude.events import SPECIAL_TYPES
from otel_amplitude.limits import MAX_STRING
from otel_amplitude.log import LOGGER_NAME

if TYPE_CHECKING:
    from opentelemetry._logs import LogRecord
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_amplitude.convert._rule import Rule
    from otel_amplitude.convert._rules import Rules

_NOTHING: Final[Mapping[str, Any]] = {}
_MAX_ROUTES: Final = 4_096
_MAX_USER_AGENT: Final = 2_048
_SERVER: Final = SpanKind.SERVER

Select = Literal["default", "annotated"] | Callable[["ReadableSpan"], bool | str | None]


class Choice(NamedTuple):
    """Why an item becomes an event.

    Attributes:
        kind: `annotated`, `rule` or `automatic`. Only automatic ones ask that the identity came with this very request, and are capped.
        name: the event type, a rule's template of one, or `""`: the converter names it.
        rule: the rule that took it.
        is_sound: whether Amplitude takes an event of this name, and reads it by no rules of its own.
    """

    kind: Literal["annotated", "rule", "automatic"]
    name: str
    rule: Rule | None = None
    is_sound: bool = False


_AUTOMATIC: Final = Choice("automatic", "")


class Selector:
    """Chooses; any thread may call it at the same time, and a span that is not chosen costs it a few look-ups.

    It does not guard callers against `select`: what that callable raises is raised here.

    Attributes:
        rules: the rules in use; may be exchanged at any time by `use`.
        only_marked: whether a span without `amplitude.event_type`, `http.route` and `tornado.handler` is none; not so while there are
            rules or a callable. Callers may ask these names themselves, since every span pays for a call.
    """

    def __init__(
        self,
        *,
        select: Select = "default",
        rules: Rules | None = None,
        methods: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        exposures: bool = False,
    ) -> None:
        """Make a selector.

        Args:
            select: `default`; `annotated` for no automatic events; or a callable that takes a span and gives True (an automatic
                event), a text (its event type) or False, in place of the rules for automatic events.
            rules: the compiled rules file.
            methods: the only HTTP methods of automatic events; None means all but HEAD and OPTIONS.
            exclude: globs over routes that never become automatic events; None means probes and static files.
            exposures: whether `feature_flag.evaluation` log records are chosen, as `$exposure`.
        """
        self._default = select == "default"
        self._decide = select if callable(select) else None
        self.use(rules)
        self._methods = None if methods is None else frozenset(method.upper() for method in methods)
        self._matches_exclude = compile_globs(DEFAULT_EXCLUDE if exclude is None else exclude)
        self._exposures = exposures
        self._excluded: dict[str, bool] = {}

    def use(self, rules: Rules | None) -> None:
        """Choose by these rules from now on."""
        self.rules = rules
        self.only_marked = rules is None and self._decide is None

    def span(self, span: ReadableSpan, attributes: Mapping[str, Any]) -> Choice | str | None:
        """Choose a span.

        Args:
            span: an ended span.
            attributes: its attributes, copied once by the caller.

        Returns:
            The choice; None for what is no event; or the reason word under which the refusal is counted: `rule`, `bot`, `excluded`.
        """
        name = attributes.get(EVENT_TYPE)
        if (EMITTED in attributes or SKIP in attributes) and is_skipped(attributes):
            return None
        if type(name) is str and len(name) <= MAX_STRING:
            choice = _annotated(name)
        else:
            choice = None if name is None else _choice_of(read_event_type(attributes))
        return choice if choice is not None else self._unannotated(span, attributes)

    def _unannotated(self, span: ReadableSpan, attributes: Mapping[str, Any]) -> Choice | str | None:
        if self.rules is not None:
            rule = self.rules.choose(SpanView(span, attributes))
            if rule is not None:
                return "rule" if rule.drop else Choice("rule", rule.name, rule)
        if self._decide is not None:
            return _decided(self._decide(span))
        if not self._default or span.kind is not _SERVER:
            return None
        return self._request(span, attributes)

    def _request(self, span: ReadableSpan, attributes: Mapping[str, Any]) -> Choice | str | None:
        """Choose the span of a request that nobody annotated and no rule took."""
        parent = span.parent
        if parent is not None and not parent.is_remote:
            return None
        route = read_route(attributes, span)
        status = read_status(attributes)
        if not route or status is None or status >= 400:
            return None
        method = read_text(attributes, METHOD)
        if method in NOT_AUTOMATIC_METHODS if self._methods is None else method not in self._methods:
            return None
        if self._is_excluded(route, attributes):
            return "excluded"
        agent = read_text(attributes, USER_AGENT)
        refusal = _refused_agent(agent[:_MAX_USER_AGENT]) if agent else None
        return "bot" if SYNTHETIC in attributes else refusal or _AUTOMATIC

    def _is_excluded(self, route: str, attributes: Mapping[str, Any]) -> bool:
        excluded = self._excluded.get(route)
        if excluded is None:
            excluded = self._matches_exclude(route)
            if len(self._excluded) < _MAX_ROUTES:
                self._excluded[route] = excluded
        # A route that ends in a parameter, or a mounted application, may serve a whole tree, /app.js and /robots.txt included.
        if excluded or ("{" in route and route[-1] != "}"):
            return excluded
        path = (read_text(attributes, TARGET) or "").partition("?")[0]
        return path != route and self._matches_exclude(path)

    def log(self, record: LogRecord, scope_name: str | None, resource: Resource | None = None) -> Choice | str | None:
        """Choose a log record: annotated, taken by a rule, or an event by its name; answers as `span` does.

        Args:
            record: the API's log record.
            scope_name: the name of its instrumentation scope; our own log lines are no events.
            resource: asked for `service` by rules.
        """
        if scope_name is not None and scope_name.startswith(LOGGER_NAME):
            return None
        attributes = record.attributes or _NOTHING
        if is_skipped(attributes):
            return None
        if (choice := _choice_of(read_event_type(attributes))) is not None:
            return choice
        if self.rules is not None:
            rule = self.rules.choose(LogView(record, attributes, scope_name, resource))
            if rule is not None:
                return "rule" if rule.drop else Choice("rule", rule.name, rule)
        return self._named(record.event_name)

    def _named(self, event_name: str | None) -> Choice | None:
        if not event_name or type(event_name) is not str:
            return None
        if event_name in FLAG_EVENTS and self._exposures:
            return Choice("annotated", EXPOSURE)
        return None if REGISTERED_EVENTS.match(event_name) else Choice("annotated", event_name)


def _choice_of(name: str) -> Choice | None:
    return Choice("annotated", name, is_sound=name not in SPECIAL_TYPES) if name else None


@lru_cache(maxsize=1_024)
def _annotated(name: str) -> Choice | None:
    return _choice_of(name.strip())


def _decided(verdict: bool | str | None) -> Choice | None:
    if type(verdict) is str and verdict:
        return Choice("automatic", verdict)
    return _AUTOMATIC if verdict else None


@lru_cache(maxsize=1_024)
def _refused_agent(agent: str) -> str | None:
    agent = agent.lower()
    if re.search(PROBES, agent):
        return "excluded"
    return "bot" if re.search(BOTS, agent) else None
