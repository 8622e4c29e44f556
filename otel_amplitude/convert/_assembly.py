"""What spans, span events and log records share on their way to an event: resource, identity, explicit keys, user properties."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from otel_amplitude.clock import application_time, monotonic
from otel_amplitude.convert._casts import to_groups, to_text
from otel_amplitude.convert._globs import compile_globs, has_wildcard
from otel_amplitude.convert._naming import EventTypes
from otel_amplitude.convert._recent import Recent
from otel_amplitude.convert._tables import MAPS, RESOURCE_PROPERTIES, UNKNOWN_SERVICE, is_sensitive
from otel_amplitude.events import GROUP_IDENTIFY, IDENTIFY
from otel_amplitude.fixes import Note, ignore
from otel_amplitude.limits import MAX_INTEGER, MAX_STRING
from otel_amplitude.moments import MILLISECONDS, Moment, read_moment
from otel_amplitude.values import PLAIN_TYPES, as_map, clean, clean_properties

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

    from otel_amplitude.convert._plan import Plan
    from otel_amplitude.identity import Identity
    from otel_amplitude.log import Log

Converted = tuple[dict[str, Any], dict[str, object], bool]
"""The keys of an event, what its annotations leave for the `extra` of the middleware, and whether the event is sound.

`check_event` has nothing to say about a sound event, nor has `encode_event` anything to look for in its properties.
"""
# From here on a number is read as nanoseconds: 1973.
FIRST_NANOSECONDS: Final = 10**17
FIRST_MILLISECONDS: Final = 10**11
# A process has one; a file of a Collector, or a gateway, has those of all its services.
_MAX_RESOURCES: Final = 1_024
# `amplitude.<map>` → the part of a draft
_DRAFT_MAPS: Final = {name: name for name in MAPS} | {"event_properties": "properties"}


class Facts(NamedTuple):
    """One resource, converted.

    Attributes:
        resource: kept, so that its identity is not given to another one.
        properties: of every event of this resource, with their values; to be copied.
        instance: `service.instance.id`.
    """

    resource: Resource | None
    properties: dict[str, Any]
    instance: str


class Resources:
    """Converts each resource once, as long as it is among the newest; what reads OTLP gives equal ones as one object. Any thread may ask."""

    def __init__(self, properties: Iterable[str]) -> None:
        patterns = tuple(properties)
        self._named = frozenset(pattern for pattern in patterns if not has_wildcard(pattern))
        self._matches = compile_globs(pattern for pattern in patterns if has_wildcard(pattern))
        self._facts: OrderedDict[int, Facts] = OrderedDict()

    def facts(self, resource: Resource | None) -> Facts:
        """Give what `resource` adds to its events."""
        facts = self._facts.get(id(resource))
        if facts is None:
            facts = self._convert(resource)
            self._facts[id(resource)] = facts
            if len(self._facts) > _MAX_RESOURCES:
                self._facts.popitem(last=False)
        return facts

    def _convert(self, resource: Resource | None) -> Facts:
        attributes = {} if resource is None else dict(resource.attributes)
        properties = {name: next((attributes[row] for row in rows if row in attributes), None) for name, rows in RESOURCE_PROPERTIES}
        if str(properties["service"]).startswith(UNKNOWN_SERVICE):
            del properties["service"]
        wanted = (name for name in attributes if name in self._named or (self._matches(name) and not is_sensitive(name)))
        properties.update((name, clean(attributes[name], without=is_sensitive)) for name in wanted)
        return Facts(resource, clean_properties(properties), to_text(attributes.get("service.instance.id")) or "")


class Changes:
    """Remembers the user properties last sent for the users recently seen: Amplitude takes 1,800 updates of a user an hour (Limits page).

    What has not changed is sent again after ten minutes, in case the event that carried it was lost. Any thread may ask.
    """

    def __init__(self, most: int = 4_096, seconds: float = 600.0, clock: Callable[[], float] = monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._sent: Recent[tuple[str, ...], tuple[int, float]] = Recent(most)

    def changed(self, who: str, properties: Mapping[str, Any]) -> bool:
        """Say whether `properties` must be sent for `who`, and remember that they are."""
        key = (who, *properties)
        content, now = hash(orjson.dumps(properties)), self._clock()
        before = self._sent.swap(key, (content, now))
        if before is None or before[0] != content or now - before[1] >= self._seconds:
            return True
        self._sent.swap(key, before)
        return False

    def forget(self, who: str, properties: Mapping[str, Any]) -> None:
        """Remember no longer that `properties` were sent for `who`."""
        self._sent.forget((who, *properties))


class LeftOut(Counter[str]):
    """How many values could not be used, by cause; approximate under many threads. The log is told of each cause once a minute."""

    def __init__(self, log: Log | None) -> None:
        super().__init__()
        self._log = log

    def __setitem__(self, cause: str, count: int) -> None:
        if self._log is not None and count > self[cause]:
            self._log.warning("event.fixed", reason=cause)
        super().__setitem__(cause, count)


class Draft:
    """One event being made: who it was, and what is known about it so far; its properties are plain values at every moment."""

    __slots__ = ("extra", "fields", "group_properties", "groups", "identity", "properties", "user_properties")

    def __init__(self, properties: dict[str, Any], identity: Identity) -> None:
        self.identity = identity
        self.properties = properties
        self.extra: dict[str, object] = {}
        self.fields: dict[str, Any] = {}
        self.groups: dict[str, Any] = {}
        self.group_properties: dict[str, Any] = {}
        self.user_properties: dict[str, Any] = {}


class Assembly:
    """Turns drafts into events. Any thread may call it.

    Attributes:
        event_types: the guard that generated names pass.
        left_out: how many values could not be used, by cause: `field`, `user_property`, and the rules' `absent` and `cast`.
    """

    def __init__(
        self,
        *,
        resource_properties: Iterable[str],
        event_types: EventTypes,
        clock: Callable[[], float],
        log: Log | None = None,
        note: Note = ignore,
    ) -> None:
        self.note = note
        self.resources = Resources(resource_properties)
        self.event_types = event_types
        self.left_out = LeftOut(log)
        self._changes = Changes(clock=clock)

    def take_explicit(self, draft: Draft, plan: Plan, attributes: Mapping[str, Any]) -> None:
        """Add what `amplitude.*` attributes say; they win over everything else."""
        for attribute, key, cast in plan.fields:
            value = cast(attributes[attribute])
            if isinstance(value, Moment):
                if value.given != MILLISECONDS:
                    self.note(value.given, key)
                # Read once: what is before 1973 would be taken for another unit by the check, which refuses it as it was given.
                value = value.ms if value.ms >= FIRST_MILLISECONDS or key != "time" else attributes[attribute]
            if value is None:
                self.left_out["field"] += 1
            else:
                draft.fields[key] = value
        for attribute, kind, entry in plan.entries:
            value = attributes[attribute]
            target: dict[str, Any] = getattr(draft, _DRAFT_MAPS[kind])
            if entry:
                target[entry] = value
            elif (held := as_map(value, self.note)) is not None:
                target.update(held)
            else:
                self.left_out["field"] += 1

    def event(self, draft: Draft, name: str, time_ms: int, insert_id: str | None) -> dict[str, Any]:
        """Make the event of a draft; what is explicit stands above what is derived."""
        identity = draft.identity
        event = plain_event(name, time_ms, insert_id, draft.properties, identity)
        if draft.groups:
            event["groups"] = to_groups({**(identity.groups or {}), **draft.groups})
        event.update(draft.fields)
        if draft.user_properties:
            self._add_user_properties(event, draft.user_properties)
        if draft.group_properties:
            event["group_properties"] = self._operations(draft.group_properties, operations=name == GROUP_IDENTIFY)
        return event

    def forget(self, event: Mapping[str, Any]) -> None:
        """Take back that the user properties of an event of `event` were sent: it was not accepted."""
        properties = event.get("user_properties")
        if properties and event["event_type"] != IDENTIFY:
            self._changes.forget(_who(event), properties)

    def _add_user_properties(self, event: dict[str, Any], given: dict[str, Any]) -> None:
        is_identify = event["event_type"] == IDENTIFY
        properties = self._operations(given, operations=is_identify)
        if properties and (is_identify or self._changes.changed(_who(event), properties)):
            event["user_properties"] = properties

    def _operations(self, given: dict[str, Any], *, operations: bool) -> dict[str, Any]:
        """Give user properties: as operations for `$identify`, plain for other events, where only `$set` has a meaning (AI 3.2)."""
        plain: dict[str, Any] = {}
        grouped: dict[str, dict[str, Any]] = {}
        for name, value in given.items():
            operation, dot, entry = name.partition(".")
            if not operation.startswith("$"):
                plain[name] = value
            elif dot:
                grouped.setdefault(operation, {})[entry] = value
            elif (held := as_map(value, self.note)) is not None:
                grouped.setdefault(operation, {}).update(held)
            else:
                self.left_out["user_property"] += 1
        wanted = {**grouped.pop("$set", {}), **plain}
        if operations:
            return clean_properties({"$set": wanted, **grouped} if wanted else grouped, note=self.note)
        self.left_out["user_property"] += sum(map(len, grouped.values()))
        return clean_properties(wanted, note=self.note)


def _who(event: Mapping[str, Any]) -> str:
    return event.get("user_id") or event.get("device_id") or ""


def plain_event(name: str, time_ms: int, insert_id: str | None, properties: dict[str, Any], identity: Identity) -> dict[str, Any]:
    """Make the event of an item with nothing more to it than a name, plain properties and who it was."""
    user_id, device_id, session_id, groups, *_ = identity
    # Mostly all of it is there: made in one step, then mended.
    event: dict[str, Any] = {
        "event_type": name,
        "time": time_ms,
        "insert_id": insert_id,
        "user_id": user_id,
        "device_id": device_id,
        "session_id": session_id,
        "event_properties": properties,
    }
    if insert_id is None:
        del event["insert_id"]
    if user_id is None:
        del event["user_id"]
    if device_id is None:
        del event["device_id"]
    if session_id is None:
        del event["session_id"]
    if groups:
        event["groups"] = to_groups(groups)
    return event


def is_ordinary(value: object) -> bool:
    """Say whether a value is clean as it is: a short text, a small integer, a finite float, a boolean."""
    if type(value) is str:
        return len(value) <= MAX_STRING
    if type(value) is int:
        return -MAX_INTEGER <= value <= MAX_INTEGER
    return type(value) is bool or (type(value) is float and math.isfinite(value))


def taken(attributes: Mapping[str, Any], plan: Plan, note: Note) -> dict[str, Any]:
    """Give the properties that a plan makes of attributes: a new dict of plain values, lists and maps of them; None is nothing.

    What a limit does to a value (long texts, NaN, large integers) is left to the encoder, which looks at every event anyway.
    """
    # Copied whole, since that is one step, then mended, since that is little: this is most of what a conversion costs.
    properties = dict(attributes)
    for name in plan.dropped:
        del properties[name]
    for attribute, name in plan.renamed:
        properties[name] = attributes[attribute]
    if not PLAIN_TYPES.issuperset(map(type, properties.values())):
        _clean_all(properties, plan, note)
    return properties


def _clean_all(properties: dict[str, Any], plan: Plan, note: Note) -> None:
    renamed = {name for _, name in plan.renamed}
    for name, value in list(properties.items()):
        if value is None:
            del properties[name]
        elif type(value) not in PLAIN_TYPES:
            # An application's own map may hold what would have been left out as an attribute.
            properties[name] = clean(value, without=None if name in renamed else is_sensitive, note=note)


def to_milliseconds(nanoseconds: int | None, note: Note) -> int:
    """Give the time of an event; now, for an item that was made by hand without one.

    A time that can not be nanoseconds is read by its magnitude: an application may set the start of a span in another unit.
    """
    if not nanoseconds:
        return int(application_time() * 1000)
    if nanoseconds >= FIRST_NANOSECONDS:
        return nanoseconds // 1_000_000
    moment = read_moment(nanoseconds)
    if moment is None or moment.ms < FIRST_MILLISECONDS:
        return 0
    note(moment.given, "time")
    return moment.ms
