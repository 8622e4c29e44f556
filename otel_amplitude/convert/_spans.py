"""One chosen span, or one event on a span, as one event; the one door to the conversion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import SpanKind

from otel_amplitude import insert_ids
from otel_amplitude.clock import monotonic
from otel_amplitude.convert._addresses import client_address
from otel_amplitude.convert._assembly import FIRST_NANOSECONDS, Assembly, Converted, Draft, plain_event, taken, to_milliseconds
from otel_amplitude.convert._exposures import FLAG_EVENTS, Exposures
from otel_amplitude.convert._logs import LogConverter
from otel_amplitude.convert._naming import EventName, EventTypes, Naming
from otel_amplitude.convert._plan import Planner
from otel_amplitude.convert._tables import DEFAULT_NAME
from otel_amplitude.convert._view import SpanView, is_skipped, read_event_type, read_route
from otel_amplitude.fixes import Note, ignore
from otel_amplitude.sdk_access import times_and_resource

if TYPE_CHECKING:
    from opentelemetry._logs import LogRecord
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event as SpanEvent
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    from otel_amplitude.convert._select import Choice
    from otel_amplitude.identity import Identity
    from otel_amplitude.log import Log

_SERVER: Final = SpanKind.SERVER


class Converter:
    """Makes events; what was recorded decides alone, so the same item always gives the same event, `insert_id` included.

    One exception, by intent: user properties are left out when nothing about them changed for a user recently seen. Any thread may
    call it. It raises nothing for any value of an attribute or body; callers guard it all the same.

    Attributes:
        reads_every_span: whether `span_events` is to be called for every span, not only for chosen ones.
    """

    def __init__(
        self,
        *,
        event_name: str | EventName | None = None,
        max_event_types: int = 500,
        properties: Iterable[str] | None = None,
        resource_properties: Iterable[str] | None = None,
        span_events: bool = False,
        client_ip: int | None = None,
        exposures: bool = False,
        log: Log | None = None,
        note: Note = ignore,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Make a converter.

        Args:
            event_name: the name of automatic events: None is `HTTP Request`, `route` is `POST /orders`, a callable takes the span
                and gives a text, or None for `HTTP Request`.
            max_event_types: generated names that one process may use; further ones become `(other)`.
            properties: globs over attributes that become properties as well; a sensitive one only when named without a wildcard.
            resource_properties: the same over the resource.
            span_events: whether annotated span events are looked for on every span.
            client_ip: send the client's address, behind this many trusted proxies; None: never.
            exposures: turn feature flag evaluations into `$exposure`.
            log: told once when names are too many, when `event_name` raises, and when a value can not be used.
            note: told of what was changed or removed, by cause.
            clock: seconds that only grow.
        """
        globs = tuple(properties or ())
        event_types = EventTypes(max_event_types, log)
        self._assembly = Assembly(resource_properties=resource_properties or (), event_types=event_types, clock=clock, log=log, note=note)
        self._naming = Naming(event_name, event_types, log)
        self._annotated = Planner(globs, own=True)
        self._other = Planner(globs, own=False)
        self._on_span = Planner(globs, own=True, identity=True)
        self._client_ip = client_ip
        self._exposures = Exposures() if exposures else None
        self._logs = LogConverter(self._assembly, self._exposures, properties=globs)
        self.reads_every_span = span_events or exposures

    @property
    def left_out(self) -> Counter[str]:
        """How many values could not be used, by cause: `field`, `user_property`, `absent`, `cast`; approximate under many threads."""
        return self._assembly.left_out

    def span(self, span: ReadableSpan, attributes: Mapping[str, Any], choice: Choice, identity: Identity) -> Converted | str:
        """Make the event of a span.

        Args:
            span: an ended span.
            attributes: its attributes, copied once by the caller; not changed here.
            choice: the selector's.
            identity: the resolver's.

        Returns:
            The event, what its annotations leave for the `extra` of the middleware, and whether it is sound; or the reason word of a refusal: `sampled`.
        """
        kind, name, rule, is_named_soundly = choice
        if rule is not None and not rule.keeps(identity.user_id or identity.device_id or ""):
            return "sampled"
        plan = (self._annotated if kind == "annotated" else self._other).plan(tuple(attributes))
        start, end, resource, context = times_and_resource(span)
        ids = insert_ids.of_span(context, start)
        properties = taken(attributes, plan, self._assembly.note)
        # What the application calls one of ours is its own.
        add = properties.setdefault
        for fact, value in self._assembly.resources.facts(resource).properties.items():
            add(fact, value)
        if start and end and end >= start:
            add("duration_ms", (end - start) // 1_000 / 1_000)
        insert_id = None
        if ids is not None:
            trace, insert_id = ids
            add("trace_id", trace)
        if plan.has_route and (route := read_route(attributes, span)):
            add("route", route)
        if kind == "automatic":
            name = self._naming.name(span, name, properties)
            is_named_soundly = name == DEFAULT_NAME
        time_ms = start // 1_000_000 if start and start >= FIRST_NANOSECONDS else to_milliseconds(start or end, self._assembly.note)
        client_ip = None if self._client_ip is None or span.kind is not _SERVER else client_address(attributes, self._client_ip)
        if rule is None and client_ip is None and not plan.is_explicit:
            # Its keys are ours and its ids the resolver's, so only the name could be refused.
            is_sound = is_named_soundly and insert_id is not None and type(time_ms) is int and not identity.groups
            return plain_event(name, time_ms, insert_id, properties, identity), {}, is_sound
        draft = Draft(properties, identity)
        if client_ip is not None:
            draft.fields["ip"] = client_ip
        if rule is not None:
            name = rule.shape(draft, SpanView(span, attributes), self._assembly)
        self._assembly.take_explicit(draft, plan, attributes)
        return self._assembly.event(draft, name, time_ms, insert_id), draft.extra, False

    def span_events(
        self, span: ReadableSpan, events: Sequence[SpanEvent], attributes: Mapping[str, Any], identity: Identity
    ) -> list[Converted]:
        """Make the events of the annotated events on a span, in their order; none for a span that is to be skipped.

        Args:
            span: an ended span, chosen or not.
            events: the span's, read once by the caller.
            attributes: the span's.
            identity: the resolver's, for the span; ids on the span event itself win.
        """
        if is_skipped(attributes):
            return []
        made = (self._span_event(span, index, event, identity) for index, event in enumerate(events))
        return [converted for converted in made if converted is not None]

    def _span_event(self, span: ReadableSpan, index: int, event: SpanEvent, identity: Identity) -> Converted | None:
        name = read_event_type(event.attributes or {})
        exposures = self._exposures if event.name in FLAG_EVENTS else None
        if not name and exposures is None:
            return None
        attributes = dict(event.attributes or {})
        time_ms = to_milliseconds(event.timestamp, self._assembly.note)
        properties = self._assembly.resources.facts(span.resource).properties.copy()
        ids = insert_ids.of_span(span.context, span.start_time)
        if ids is not None:
            properties["trace_id"] = ids[0]
        if not name and exposures is not None:
            exposure = exposures.event(attributes, identity, time_ms, properties)
            return None if exposure is None else (exposure, {}, False)
        plan = self._on_span.plan(tuple(attributes))
        properties.update(taken(attributes, plan, self._assembly.note))
        draft = Draft(properties, identity)
        self._assembly.take_explicit(draft, plan, attributes)
        return self._assembly.event(draft, name, time_ms, insert_ids.of_span_event(ids[1], index) if ids else None), draft.extra, False

    def log(
        self, record: LogRecord, resource: Resource | None, scope: InstrumentationScope | str | None, choice: Choice, identity: Identity
    ) -> Converted | str:
        """Make the event of a log record; answers as `span` does.

        The reason word may also be `repeated`: an exposure without a variant, or one that was told already today.
        """
        return self._logs.log(record, resource, scope, choice, identity)

    def forget(self, event: Mapping[str, Any]) -> None:
        """Take back what was remembered as sent of an event that was not accepted: an exposure, its user properties."""
        self._assembly.forget(event)
        if self._exposures is not None:
            self._exposures.forget(event)
