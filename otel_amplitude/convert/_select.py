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
    PROTOCOL,
    REGISTERED_EVENTS,
    SCHEME,
    SKIP,
    SYNTHETIC,
    URL,
    USER_AGENT,
)
from otel_amplitude.convert._view import LogView, SpanView, is_skipped, read_event_type, read_path, read_route, read_status, read_text
from otel_amplitude.events import SPECIAL_TYPES
from otel_amplitude.identity._headers import PURPOSES, UPGRADE, attributes_of, captured, is_prefetch, is_websocket
from otel_amplitude.identity._headers import USER_AGENT as USER_AGENT_HEADER
from otel_amplitude.limits import MAX_STRING
from otel_amplitude.log import LOGGER_NAME

if TYPE_CHECKING:
    from opentelemetry._logs import LogRecord
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_amplitude.convert._rule import Rule
    from otel_amplitude.convert._rules import Rules
    from otel_amplitude.identity import Scope

_NOTHING: Final[Mapping[str, Any]] = {}
_MAX_ROUTES: Final = 4_096
_MAX_USER_AGENT: Final = 2_048
_SERVER: Final = SpanKind.SERVER
_PURPOSE_ATTRIBUTES: Final = frozenset(attribute for name in PURPOSES for attribute in attributes_of(name))
_WEBSOCKET_SCHEMES: Final = frozenset({"ws", "wss"})
_SWITCHING_PROTOCOLS: Final = 101

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
            The choice; None for what is no event; or the reason word under which the refusal is counted: `rule`, `prefetch`,
            `websocket`, `bot`, `excluded`, or `no_route`, which is meant for a request of a known visitor only.
        """
        name = attributes.get(EVENT_TYPE)
        if (EMITTED in attributes or SKIP in attributes) and is_skipped(attributes):
            return None
        if type(name) is str and len(name) <= MAX_STRING:
            choice: Choice | str | None = _annotated(name)
        else:
            choice = None if name is None else _choice_of(read_event_type(attributes))
        if choice is None:
            choice = self._unannotated(span, attributes)
        if (
            type(choice) is Choice
            and not _PURPOSE_ATTRIBUTES.isdisjoint(attributes)
            and span.kind is _SERVER
            and _was_prefetched(attributes)
        ):
            return "prefetch"
        return choice

    def by_headers(self, span: ReadableSpan, attributes: Mapping[str, Any], choice: Choice, scope: Scope) -> str | None:
        """Give the reason why a chosen span is no event by the headers of its request, where the span itself does not have them.

        A prefetched page is none, however it was chosen: nobody has seen it. WebSocket handshakes and bots are no automatic events.
        """
        if span.kind is not _SERVER:
            return None
        if scope.not_automatic == "prefetch" or choice.kind != "automatic" or self._decide is not None:
            return "prefetch" if scope.not_automatic == "prefetch" else None
        if scope.not_automatic is not None or scope.user_agent is None or read_text(attributes, USER_AGENT):
            return scope.not_automatic
        return _refused_agent(scope.user_agent[:_MAX_USER_AGENT])

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
        status = read_status(attributes)
        if _is_websocket(attributes, status):
            return "websocket"
        method, route = (read_text(attributes, METHOD) or "").upper(), read_route(attributes, span)
        if status is None or status >= 400 or not (method or route):
            return None
        if method in NOT_AUTOMATIC_METHODS if self._methods is None else method not in self._methods:
            return None
        if self._is_excluded(route, attributes):
            return "excluded"
        agent = read_text(attributes, USER_AGENT) or captured(attributes, USER_AGENT_HEADER)
        refusal = "bot" if SYNTHETIC in attributes else _refused_agent(agent[:_MAX_USER_AGENT]) if agent else None
        return refusal or (_AUTOMATIC if route else "no_route")

    def _is_excluded(self, route: str, attributes: Mapping[str, Any]) -> bool:
        excluded = self._excluded.get(route)
        if excluded is None:
            excluded = self._matches_exclude(route)
            if len(self._excluded) < _MAX_ROUTES:
                self._excluded[route] = excluded
        # A route that ends in a parameter, or a mounted application, may serve a whole tree, /app.js and /robots.txt included.
        if excluded or ("{" in route and route[-1] != "}"):
            return excluded
        path = read_path(attributes)
        return path != route and self._matches_exclude(path)

    def log(self, record: LogRecord, scope_name: str | None, resource: Resource | None = None) -> Choice | str | None:
        """Choose a log record: annotated, taken by a rule, or an event by its name; answers as `span` does.

        Args:
            record: the API's log record.
            scope_name: the name of its instrumentation scope; our own log lines are no events.
            resource: asked for `service` by rules.
        """
        if scope_name is not None and scope_name.partition(".")[0] == LOGGER_NAME:
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


def _is_websocket(attributes: Mapping[str, Any], status: int | None) -> bool:
    """Say whether a request's span is about the handshake of a WebSocket, in the words of any instrumentation."""
    if status == _SWITCHING_PROTOCOLS or attributes.get(PROTOCOL) == "websocket":
        return True
    scheme = read_text(attributes, SCHEME)
    if scheme is None:
        scheme = (read_text(attributes, URL) or "").partition(":")[0]
    return scheme in _WEBSOCKET_SCHEMES or is_websocket(captured(attributes, UPGRADE) or "")


def _was_prefetched(attributes: Mapping[str, Any]) -> bool:
    return any(is_prefetch(captured(attributes, name) or "") for name in PURPOSES)


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
