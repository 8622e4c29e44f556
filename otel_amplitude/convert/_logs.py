"""One log record as one event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from otel_amplitude import insert_ids
from otel_amplitude.convert._assembly import Assembly, Converted, Draft, taken, to_milliseconds
from otel_amplitude.convert._exposures import EXPOSURE, FLAG_EVENTS, Exposures
from otel_amplitude.convert._plan import Planner
from otel_amplitude.convert._tables import is_sensitive
from otel_amplitude.convert._view import LogView, scope_name
from otel_amplitude.values import clean, clean_properties

if TYPE_CHECKING:
    from opentelemetry._logs import LogRecord
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    from otel_amplitude.convert._select import Choice
    from otel_amplitude.identity import Identity

_BODY = "body"


class LogConverter:
    """Makes events of chosen log records. Any thread may call it."""

    def __init__(self, assembly: Assembly, exposures: Exposures | None, *, properties: tuple[str, ...]) -> None:
        self._assembly = assembly
        self._exposures = exposures
        self._annotated = Planner(properties, own=True)
        self._other = Planner(properties, own=False)
        # The text of a log line may hold anything: a property only when named.
        self._wants_body = _BODY in properties

    def log(
        self, record: LogRecord, resource: Resource | None, scope: InstrumentationScope | str | None, choice: Choice, identity: Identity
    ) -> Converted | str:
        """Make the event of a log record; the fields of a body that is a map count as attributes."""
        rule = choice.rule
        if rule is not None and not rule.keeps(identity.user_id or identity.device_id or ""):
            return "sampled"
        attributes = dict(record.attributes or {})
        facts = self._assembly.resources.facts(resource)
        properties = facts.properties.copy()
        if record.trace_id:
            properties["trace_id"] = insert_ids.trace_text(record.trace_id)
        time_ms = to_milliseconds(record.timestamp or record.observed_timestamp, self._assembly.note)
        if self._exposures is not None and record.event_name in FLAG_EVENTS and choice.name == EXPOSURE:
            exposure = self._exposures.event(attributes, identity, time_ms, properties)
            return "repeated" if exposure is None else (exposure, {}, False)
        insert_id = insert_ids.of_log_record(record, attributes, scope_name(scope), facts.instance)
        # Raw: a list of lists that was made a text already would keep what is sensitive inside.
        fields = clean_properties(record.body, raw=True)
        items = {**fields, **attributes}
        plan = (self._annotated if choice.kind == "annotated" else self._other).plan(tuple(items))
        if self._wants_body and record.body is not None and not fields and not isinstance(record.body, Mapping):
            properties[_BODY] = clean(record.body, without=is_sensitive, note=self._assembly.note)
        properties.update(taken(items, plan, self._assembly.note))
        draft = Draft(properties, identity)
        name = choice.name
        if rule is not None:
            name = rule.shape(draft, LogView(record, items, scope, resource), self._assembly)
        self._assembly.take_explicit(draft, plan, items)
        return self._assembly.event(draft, name, time_ms, insert_id), draft.extra, False
