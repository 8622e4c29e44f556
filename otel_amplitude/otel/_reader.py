"""One span or log record on its way into a client: chosen, identified, converted, accepted; or counted as refused."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from otel_amplitude import pipeline
from otel_amplitude.convert._exposures import FLAG_EVENTS
from otel_amplitude.convert._select import Choice, Selector
from otel_amplitude.convert._spans import Converter
from otel_amplitude.convert._tables import EVENT_TYPE, ROUTE, TORNADO
from otel_amplitude.convert._view import read_status
from otel_amplitude.convert.mounts import inner_route, whole_route
from otel_amplitude.identity._open_spans import OpenSpans
from otel_amplitude.identity._resolver import Identity
from otel_amplitude.identity._scope import RequestScope
from otel_amplitude.log import LOGGER_NAME
from otel_amplitude.otel._cap import Cap
from otel_amplitude.sdk_access import attributes_copied, events_of, has_lost_attributes
from otel_amplitude.suppression import is_suppressed

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Event

    from otel_amplitude.client import Amplitude
    from otel_amplitude.convert._assembly import Converted
    from otel_amplitude.identity._open_spans import Noted
    from otel_amplitude.identity._scope import Scope
    from otel_amplitude.otel._logs_api import ReadableLogRecord, ReadWriteLogRecord

# What is logged about our own requests must not come back as events (opentelemetry-python.md 2.5).
_OWN_LOGS: Final = frozenset({LOGGER_NAME, "urllib3", "requests"})
_ENVIRONMENTS: Final = ("deployment.environment.name", "deployment.environment")
_NOTHING: Final[Mapping[str, Any]] = {}
_MARKS: Final = frozenset((EVENT_TYPE, ROUTE, TORNADO))
_SERVER: Final = SpanKind.SERVER
_REDIRECTS: Final = range(300, 400)


class Outcome(Enum):
    """What became of an item that was read from elsewhere."""

    NOT_CHOSEN = "not chosen"
    COUNTED = "counted"
    """It is in the books of the client: accepted, or refused for a reason."""
    WAITS = "waits"
    """It is chosen and nobody is known to have acted, and more parents are to come: offer it again. Nothing was counted."""


class Reader:
    """Reads spans and log records for one client, whose processors and exporters share it. Any thread.

    Attributes:
        open_spans: where the scopes of open spans are noted.
        reads_unmarked: whether `span` must be called for each span, not only for those of requests and those with `amplitude.event_type`.
    """

    def __init__(self, client: Amplitude) -> None:
        """Compile what the client's options say about choosing, identifying and converting."""
        config = client.config
        self.open_spans = OpenSpans()
        self._client = client
        self._selector = Selector(
            select=config.select, rules=client.rules, methods=config.methods, exclude=config.exclude, exposures=config.exposures
        )
        self._converter = Converter(
            event_name=config.event_name,
            max_event_types=config.max_event_types,
            properties=config.properties,
            resource_properties=config.resource_properties,
            span_events=config.span_events,
            client_ip=config.client_ip,
            exposures=config.exposures,
            log=client.log,
            note=client.fixes.note,
        )
        self._resolver = client.resolver
        self._cap = Cap(config.auto_events_per_minute)
        self._environments = frozenset(config.environments) if config.environments else None
        self._told_unrouted = False
        self._reads_every_span = self._converter.reads_every_span
        self.reads_unmarked = self._reads_unmarked()
        # A request may say on a span that is read later that it wants privacy, so all its items wait for that span.
        self._waits_for_all = config.consent == "gpc"

    def span(
        self, span: ReadableSpan, context: Any, kind: SpanKind, attributes: dict[str, Any], noted: Noted | None, closed: bool = False
    ) -> None:
        """Read a span in `on_end` that is a request's or annotated; each span where `reads_unmarked`.

        Args:
            span: the span, as the SDK gives it.
            context: of the span.
            kind: of the span.
            attributes: a copy of the span's.
            noted: what was noted of the span when it started.
            closed: count what would be an event instead.
        """
        scope = self.open_spans.scope(span, noted)
        if kind is _SERVER:  # with or without a route: a request without one is counted
            self._request(span, context, attributes, scope, closed)
            return
        if context is not None and context.span_id in self.open_spans.beside:
            self.open_spans.beside.discard(context.span_id)
            self._request(_as_server(span), context, attributes, scope, closed)
            return
        choice = self._selector.span(span, attributes)
        if (choice is not None or self._reads_every_span) and not is_suppressed():
            if choice is not None and has_lost_attributes(span):
                self._client.fixes.note("lost_attributes", "span")
            self._read(span, attributes, choice, scope, self.open_spans.parents(span), closed)

    def _request(self, span: ReadableSpan, context: Any, attributes: Mapping[str, Any], scope: Scope | None, closed: bool) -> None:
        """Read the span of a request, or of an application inside one."""
        if isinstance(scope, RequestScope):
            if not scope.is_inner(context):
                inner = [route for found in scope.inner_spans if (route := inner_route(found))] if scope.inner_spans else ()
                attributes = _routed(attributes, inner, scope)
                scope.ended(context)
            elif EVENT_TYPE not in attributes:
                return  # the span of the request around it makes the event
        else:
            attributes = _routed(attributes)
        choice = self._selector.span(span, attributes)
        if (choice is not None or self._reads_every_span) and not is_suppressed():
            if choice is not None and has_lost_attributes(span):
                self._client.fixes.note("lost_attributes", "span")
            self._read(span, attributes, choice, scope, self.open_spans.parents(span), closed)

    def may_be_event(self, names: Collection[str], *, is_told: bool = False) -> bool:
        """Say whether an item with attributes of these names can become an event; by that alone, so that most need not be read whole.

        Args:
            names: of its attributes.
            is_told: whether it is the span of a request, or a log record with an event name.
        """
        return is_told or self.reads_unmarked or not _MARKS.isdisjoint(names)

    def _reads_unmarked(self) -> bool:
        return self._reads_every_span or not self._selector.only_marked

    @property
    def identity_attributes(self) -> frozenset[str]:
        """The attributes that identity reads, of an item or of the spans above it."""
        return self._resolver.attributes

    def exported_span(
        self, span: ReadableSpan, parents: Iterable[Any] = (), inner: Sequence[str] = (), *, final: bool = True, is_edge: bool = True
    ) -> Outcome:
        """Read a span in `export`, where instrumentation is always suppressed and no context is left; or one from elsewhere.

        Args:
            span: an ended span.
            parents: its local parents, nearest first, where they are known; only their `attributes` are read.
            inner: the routes of applications mounted inside its own, see `InnerRoutes`.
            final: whether the parents are all there are. If not, an item of which no user is known (under consent=gpc, any) is left as it
                is: `Outcome.WAITS`.
            is_edge: whether the span may be the request of a user. If not, it makes no automatic event (`inner_request`): the ids that
                baggage carries to each service would make an event in each of them.
        """
        attributes: Mapping[str, Any] = attributes_copied(span)
        if span.kind is _SERVER:
            attributes = _routed(attributes, inner)
        choice = self._selector.span(span, attributes)
        if choice is None and not self._reads_every_span:
            return Outcome.NOT_CHOSEN
        if not is_edge and choice is not None and (choice.kind == "automatic" if isinstance(choice, Choice) else choice != "rule"):
            choice = "inner_request"
        return self._read(span, attributes, choice, None, parents, final=final)

    def _read(
        self,
        span: ReadableSpan,
        attributes: Mapping[str, Any],
        choice: Choice | str | None,
        scope: Scope | None,
        parents: Iterable[Any],
        closed: bool = False,
        *,
        final: bool = True,
    ) -> Outcome:
        if choice == "no_route":
            choice = self._unrouted(span, self._resolve(span, attributes, scope, parents))
        elif scope is not None and (scope.not_automatic is not None or scope.user_agent is not None) and isinstance(choice, Choice):
            choice = self._selector.by_headers(span, attributes, choice, scope) or choice
        refusal = choice if isinstance(choice, str) else "closed" if closed else self._elsewhere(span)
        if refusal is not None or isinstance(choice, str):
            if choice is None:
                return Outcome.NOT_CHOSEN
            self._client.refuse(refusal or "rule")
            return Outcome.COUNTED
        events = events_of(span)
        if choice is None and not events:
            return Outcome.NOT_CHOSEN
        identity = self._resolve(span, attributes, scope, parents, final=final)
        if not final and self._waits(identity) and (choice is not None or any(map(_is_told, events))):
            return Outcome.WAITS
        if choice is not None:
            self._take(span, attributes, choice, identity)
        told = bool(events) and self._take_events(span, events, attributes, identity)
        return Outcome.COUNTED if told or choice is not None else Outcome.NOT_CHOSEN

    def _take_events(self, span: ReadableSpan, events: Sequence[Event], attributes: Mapping[str, Any], identity: Identity) -> bool:
        made = self._converter.span_events(span, events, attributes, identity)
        for converted in made:
            if identity.refusal == "opted_out":
                self._client.refuse("opted_out")
                self._converter.forget(converted[0])
            else:  # an event on a span may bring ids of its own, so the check at the end decides
                self._accept_or_forget(converted, span)
        return bool(made)

    def _take(self, span: ReadableSpan, attributes: Mapping[str, Any], choice: Choice, identity: Identity) -> None:
        refusal = identity.refusal or (self._refused_automatic(identity) if choice.kind == "automatic" else None)
        converted = refusal or self._converter.span(span, attributes, choice, identity)
        if isinstance(converted, str):
            self._client.refuse(converted)
        else:
            self._accept_or_forget(converted, span)

    def _resolve(
        self,
        span: ReadableSpan,
        attributes: Mapping[str, Any],
        scope: Scope | None,
        parents: Iterable[Any],
        *,
        final: bool = True,
    ) -> Identity:
        return self._resolver.resolve(attributes, scope, parents, span.start_time or span.end_time, final=final)

    def _unrouted(self, span: ReadableSpan, identity: Identity) -> str:
        """Give the refusal of a request whose route is not known; name it in the log once, if a visitor that we know made it.

        Its path and the name of its span stay out of the log: they may hold names of people.
        """
        if identity.refusal is not None or not identity.from_request:
            return identity.refusal or "no_identity"
        status = read_status(span.attributes or _NOTHING) or 0
        if not (self._told_unrouted or status in _REDIRECTS):  # redirects mostly come from before the router
            self._told_unrouted = True
            instrumentation = span.instrumentation_scope
            self._client.log.warning(
                "route.missing",
                instrumentation=instrumentation.name if instrumentation is not None else "unknown",
                cure="a request without http.route is no event: set http.route on its span to the template of the route, not to the path, "
                "or name the event by a rule or amplitude.event_type",
            )
        return "no_route"

    def _refused_automatic(self, identity: Identity) -> str | None:
        # An id that came over baggage is known to every service of a request: one click would be counted once for each.
        if not identity.from_request:
            return "no_identity"
        if self._cap.allows(identity.user_id or identity.device_id or ""):
            return None
        self._client.log.warning("events.capped", cure="auto_events_per_minute raises the cap; a rule or an annotation is exempt")
        return "cap"

    def log(self, record: ReadWriteLogRecord | ReadableLogRecord, *, closed: bool = False) -> None:
        """Read a log record in `on_emit`; `closed` counts what would be an event instead."""
        name = record.instrumentation_scope.name if record.instrumentation_scope else None
        if pipeline.inside() or (name is not None and name.partition(".")[0] in _OWN_LOGS):
            return
        choice = self._selector.log(record.log_record, name, record.resource)
        context = record.log_record.context
        if choice is None or is_suppressed() or (context and is_suppressed(context)):
            return
        scope, parents = self.open_spans.around(context or None)
        self._read_log(record, choice, scope, parents, closed=closed)

    def exported_log(self, record: ReadableLogRecord, parents: Iterable[Any] = (), *, final: bool = True) -> Outcome:
        """Read a log record in `export`, or one from elsewhere.

        Args:
            record: as an SDK holds it.
            parents: its span and the local parents of that, nearest first, where they are known.
            final: as for `exported_span`.
        """
        name = record.instrumentation_scope.name if record.instrumentation_scope else None
        if name is not None and name.partition(".")[0] in _OWN_LOGS:
            return Outcome.NOT_CHOSEN
        choice = self._selector.log(record.log_record, name, record.resource)
        return Outcome.NOT_CHOSEN if choice is None else self._read_log(record, choice, None, parents, final=final)

    def _read_log(
        self,
        record: ReadWriteLogRecord | ReadableLogRecord,
        choice: Choice | str,
        scope: Scope | None,
        parents: Iterable[Any],
        *,
        closed: bool = False,
        final: bool = True,
    ) -> Outcome:
        refusal = choice if isinstance(choice, str) else "closed" if closed else self._elsewhere(record)
        if refusal is not None or isinstance(choice, str):
            self._client.refuse(refusal or "rule")
            return Outcome.COUNTED
        item = record.log_record
        time_ns = item.timestamp or item.observed_timestamp
        identity = self._resolver.resolve(dict(item.attributes or _NOTHING), scope, parents, time_ns, final=final)
        if not final and self._waits(identity):
            return Outcome.WAITS
        if record.dropped_attributes:
            self._client.fixes.note("lost_attributes", "log record")
        if identity.refusal is not None:
            self._client.refuse(identity.refusal)
            return Outcome.COUNTED
        converted = self._converter.log(item, record.resource, record.instrumentation_scope, choice, identity)
        if isinstance(converted, str):
            self._client.refuse(converted)
        else:
            self._accept_or_forget(converted, record)
        return Outcome.COUNTED

    def _waits(self, identity: Identity) -> bool:
        """Say whether a parent that is read later may change who acted."""
        return (self._waits_for_all or identity.user_id is None) and identity.refusal != "opted_out"

    def _accept_or_forget(self, converted: Converted, source: object) -> None:
        """Hand an event to the client; what was remembered of it as sent is forgotten when it is not accepted."""
        event, extra, is_sound = converted
        client = self._client
        taken: object = None
        try:
            taken = client.accept(event, extra, source, is_sound)
        finally:  # under `strict` accept raises
            if type(taken) is not str:
                self._converter.forget(event)
        if client.leaving.hurried:
            client.leaving.soon()

    def _elsewhere(self, item: ReadableSpan | ReadWriteLogRecord | ReadableLogRecord) -> str | None:
        """Give the refusal of an item whose resource names an environment that is not to send."""
        if self._environments is None:
            return None
        resource = item.resource
        attributes = resource.attributes if resource is not None else _NOTHING
        found = next((attributes[name] for name in _ENVIRONMENTS if name in attributes), None)
        return None if found in self._environments else "environment"

    def reload_rules(self) -> bool:
        """Read the rules file again; on errors keep the last good one, and tell."""
        try:
            self._client.rules = self._client.read_rules()
            self._selector.use(self._client.rules)
            self.reads_unmarked = self._reads_unmarked()
        except Exception as error:
            self._client.log.error("rules.refused", problem=str(error), kept="the rules that were read before")
            return False
        return True

    def failed(self, error: Exception, *, lost: bool = True) -> None:
        """Tell that our own code stumbled, and count the item when it is lost; the application must not notice."""
        if lost:
            self._client.refuse("internal")
        self._client.log.error("conversion.failed", error=self._client.log.raised(error))


def _as_server(span: ReadableSpan) -> ReadableSpan:
    """Give the span of a request that started in the context of the one before as what it is; without its parent, which is no part of it."""
    return ReadableSpan(
        name=span.name,
        context=span.context,
        kind=_SERVER,
        resource=span.resource,
        attributes=span.attributes,
        events=span.events,
        links=span.links,
        status=span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _routed(attributes: Mapping[str, Any], inner: Sequence[str] = (), scope: RequestScope | None = None) -> Mapping[str, Any]:
    """Give the attributes of a request's span with its whole route."""
    route = whole_route(attributes, inner, scope)
    return attributes if route is None else {**attributes, ROUTE: route}


def _is_told(event: Event) -> bool:
    """Say whether an event of a span may become one of Amplitude."""
    return event.name in FLAG_EVENTS or EVENT_TYPE in (event.attributes or _NOTHING)


_making = threading.Lock()


def reader_of(client: Amplitude) -> Reader:
    """Give the one reader of a client."""
    with _making:
        if not isinstance(client.reader, Reader):
            client.reader = Reader(client)
        return client.reader
