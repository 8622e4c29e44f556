"""Runs a plugin of `amplitude-analytics`, Amplitude's SDK for Python, as middleware."""

from __future__ import annotations

import copy
import importlib
from typing import Any, Final

from otel_amplitude.errors import ConfigurationError, MiddlewareError
from otel_amplitude.events import GROUP_IDENTIFY, IDENTIFY, REVENUE, Event
from otel_amplitude.middleware._chain import Next, Payload

# amplitude-analytics 1.3.0, amplitude/event.py: the class by event type, and the attributes that are objects there.
_CLASSES: Final = {IDENTIFY: "IdentifyEvent", GROUP_IDENTIFY: "GroupIdentifyEvent", REVENUE: "RevenueEvent"}
_OBJECTS: Final = {"plan": ("Plan", "get_plan_body"), "ingestion_metadata": ("IngestionMetadata", "get_body")}


class Plugin:
    """Run a plugin's `execute` on each event, as `BaseEvent`, `IdentifyEvent`, `GroupIdentifyEvent` or `RevenueEvent`.

    What a plugin of type BEFORE or ENRICHMENT gives back goes on, None drops the event. One of any other type (DESTINATION) gets a
    copy, and the event goes on as it was. `setup` is not called: its argument would be a client of the other SDK.

    Args:
        plugin: an `EventPlugin`, or anything with `execute(event)` and `plugin_type`.

    Raises:
        ConfigurationError: `amplitude-analytics` is not installed, or the object has no `execute`.
    """

    def __init__(self, plugin: Any) -> None:
        try:
            self._sdk: Any = importlib.import_module("amplitude.event")
        except ImportError as error:
            raise ConfigurationError("Plugin needs amplitude-analytics: pip install amplitude-analytics") from error
        if not callable(getattr(plugin, "execute", None)):
            raise ConfigurationError(f"plugin must have execute(event), not be a {type(plugin).__name__}")
        self._plugin = plugin
        self.__name__ = type(plugin).__name__
        # The keys of the other SDK: its attribute, and Amplitude's name for it.
        self._names = {attribute: row[0] for attribute, row in self._sdk.EVENT_KEY_MAPPING.items()}

    def __call__(self, payload: Payload, next: Next) -> None:
        """Run the plugin; pass on what it gives back."""
        theirs = self._to_theirs(payload.event)
        if getattr(getattr(self._plugin, "plugin_type", None), "name", "") not in ("BEFORE", "ENRICHMENT"):
            self._plugin.execute(theirs)
            next(payload)
            return
        result = self._plugin.execute(theirs)
        if result is not None:
            self._take(result, payload.event)
            next(payload)

    def _to_theirs(self, event: Event) -> Any:
        kind = event.get("event_type") or ""
        theirs = getattr(self._sdk, _CLASSES[kind])() if kind in _CLASSES else self._sdk.BaseEvent(kind)
        for attribute, name in self._names.items():
            value = event.get(name)
            if value is not None:
                # Set past `__setitem__`, which refuses a whole map for one value it does not like.
                setattr(theirs, attribute, self._object(attribute, copy.deepcopy(value)))
        return theirs

    def _object(self, attribute: str, value: Any) -> Any:
        if attribute not in _OBJECTS or not isinstance(value, dict):
            return value
        made = getattr(self._sdk, _OBJECTS[attribute][0])()
        for name, text in value.items():
            setattr(made, "version_id" if name == "versionId" else name, text)
        return made

    def _take(self, theirs: Any, event: Event) -> None:
        if not isinstance(theirs, self._sdk.EventOptions):
            raise MiddlewareError(f"execute must give back an event or None, not {type(theirs).__name__}")
        for attribute, name in self._names.items():
            value = getattr(theirs, attribute, None)
            if attribute in _OBJECTS and hasattr(value, _OBJECTS[attribute][1]):
                value = getattr(value, _OBJECTS[attribute][1])()
            if value is None:
                event.pop(name, None)
            else:
                event[name] = value
