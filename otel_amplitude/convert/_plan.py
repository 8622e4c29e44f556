"""One decision for each attribute name: property, key of the event, group, or nobody's business; remembered for each set of names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from otel_amplitude.convert._casts import CASTS, Cast
from otel_amplitude.convert._globs import compile_globs, has_wildcard
from otel_amplitude.convert._tables import (
    FIELDS,
    IDENTITY_FIELDS,
    MAPS,
    RESERVED_PROPERTIES,
    ROUTE,
    TELEMETRY_PROPERTIES,
    TORNADO,
    is_own,
    is_sensitive,
)
from otel_amplitude.limits import MAX_KEYS
from otel_amplitude.values import clean

_PREFIX: Final = "amplitude."
_EVENT_PROPERTIES: Final = "amplitude.event_properties."
# Attribute names come from code, so their sets are few; a program that makes names up starts the memory anew.
_MAX_PLANS: Final = 1_024
# The names in the body of a log record may come from a stranger's form: such a set is planned each time, and 8 MB is the most kept.
_MAX_LETTERS: Final = 8_192
_WHOLE: Final = ""


class Plan(NamedTuple):
    """What becomes of the attributes of one set of names.

    Attributes:
        dropped: the attributes that are no property, at least not under their own name.
        renamed: (attribute, property).
        has_route: whether a route may be read.
        fields: (attribute, key of the event, cast).
        entries: (attribute, map, name in it); `""` when the attribute is the whole map.
        is_explicit: whether there are fields or entries.
    """

    dropped: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    has_route: bool
    fields: tuple[tuple[str, str, Cast], ...]
    entries: tuple[tuple[str, str, str], ...]
    is_explicit: bool


class Planner:
    """Makes plans; any thread may ask.

    Args:
        properties: globs over attributes that become properties under their own names. One without a wildcard names its attribute,
            also a sensitive one; what a wildcard finds must not be sensitive.
        own: whether the application's own attributes become properties.
        identity: whether ids are keys like others: where no resolver reads them.
    """

    def __init__(self, properties: Iterable[str] = (), *, own: bool, identity: bool = False) -> None:
        patterns = tuple(properties)
        self._named = frozenset(pattern for pattern in patterns if not has_wildcard(pattern))
        self._matches = compile_globs(pattern for pattern in patterns if has_wildcard(pattern))
        self._own = own
        self._fields = {**FIELDS, **IDENTITY_FIELDS} if identity else FIELDS
        self._plans: dict[tuple[str, ...], Plan] = {}

    def plan(self, names: tuple[str, ...]) -> Plan:
        """Give the plan for these attribute names, in this order."""
        plan = self._plans.get(names)
        if plan is None:
            plan = self._make(names)
            if sum(len(name) for name in names if isinstance(name, str)) <= _MAX_LETTERS:
                if len(self._plans) >= _MAX_PLANS:
                    self._plans.clear()
                self._plans[names] = plan
        return plan

    def _make(self, all_names: tuple[str, ...]) -> Plan:
        names = [name for name in all_names if isinstance(name, str) and name]
        known = set(names)
        table = [(found, name) for name, rows in TELEMETRY_PROPERTIES if (found := next((row for row in rows if row in known), None))]
        table = [(attribute, name) for attribute, name in table if attribute != ROUTE]
        kept = [(name, clean(name)) for name in names if self._keeps(name)]
        explicit = [(name, clean(entry)) for name in names if (entry := _after(_EVENT_PROPERTIES, name))]
        # The later of two with one name wins.
        sources = {name: attribute for attribute, name in (table + kept + explicit)[-MAX_KEYS:]}
        fields = tuple((name, key, CASTS[kind]) for name in names if name in self._fields for key, kind in (self._fields[name],))
        entries = tuple(_entries(names))
        return Plan(
            dropped=tuple(name for name in all_names if sources.get(name) != name),
            renamed=tuple((attribute, name) for name, attribute in sources.items() if attribute != name),
            has_route=ROUTE in known or TORNADO in known,
            fields=fields,
            entries=entries,
            is_explicit=bool(fields or entries),
        )

    def _keeps(self, name: str) -> bool:
        if name in self._named:
            return True
        wanted = (self._own and is_own(name)) or (self._matches(name) and not name.startswith((_PREFIX, *RESERVED_PROPERTIES)))
        return wanted and not is_sensitive(name)


def _after(prefix: str, name: str) -> str:
    return name[len(prefix) :] if name.startswith(prefix) else ""


def _entries(names: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    for name in names:
        if name.startswith(_PREFIX):
            kind, dot, entry = name[len(_PREFIX) :].partition(".")
            if kind in MAPS and bool(dot) == bool(entry) and not (kind == "event_properties" and entry):
                yield name, kind, entry or _WHOLE
