"""How automatic events are called, and how many names one process may make up."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from otel_amplitude.convert._tables import DEFAULT_NAME, ORIGINAL_NAME, OTHER_NAME

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from otel_amplitude.log import Log

EventName = Callable[["ReadableSpan"], str | None]


class EventTypes:
    """The generated names this process has used, at most `most`: a project indexes 2,000 event types for all its services (Limits page).

    Any thread may call it; two threads at the very edge may let one name more through.
    """

    def __init__(self, most: int, log: Log | None) -> None:
        self._most = most
        self._log = log
        self._seen: set[str] = set()

    def admit(self, name: str, properties: dict[str, Any]) -> str:
        """Give `name`, or `(other)` when it is one too many: then the name becomes a property, and the log is told the first time."""
        if name in self._seen:
            return name
        if len(self._seen) < self._most:
            self._seen.add(name)
            return name
        if self._log is not None:
            self._log.warning("event_types.exceeded", max_event_types=self._most, further=OTHER_NAME)
            self._log = None
        properties[ORIGINAL_NAME] = name
        return OTHER_NAME


class Naming:
    """Names automatic events: `HTTP Request`, the method and route, or what a callable says."""

    def __init__(self, event_name: str | EventName | None, event_types: EventTypes, log: Log | None) -> None:
        """Make it.

        Args:
            event_name: None, `route`, or a callable that takes the span and gives a name, or None for `HTTP Request`.
            event_types: the guard that generated names pass.
            log: told when that callable raises.
        """
        self._by_route = event_name == "route"
        self._call = event_name if callable(event_name) else None
        self._event_types = event_types
        self._log = log

    def name(self, span: ReadableSpan, given: str, properties: dict[str, Any]) -> str:
        """Give the event type of an automatic event.

        Args:
            span: the span.
            given: what a callable `select` called it, or `""`.
            properties: of the event; `method` and `route` are read from here, and a name too many is kept here.
        """
        name = given or (self._ask(self._call, span) if self._call is not None else None)
        if not name:
            method = properties.get("method")
            if method is not None and not self._by_route:
                return DEFAULT_NAME
            # Only a callable `select` brings spans here that are no requests.
            name = f"{method} {properties.get('route', '')}".strip() if method is not None else span.name
        return self._event_types.admit(name, properties)

    def _ask(self, call: EventName, span: ReadableSpan) -> str | None:
        try:
            name = call(span)
        except Exception as error:  # the event is worth more than its name
            if self._log is not None:
                self._log.warning("conversion.failed", reason="event_name", error=type(error).__name__)
            return None
        return name if isinstance(name, str) else None
