"""Guarded reads of OpenTelemetry's own fields; no other file names a private field of the SDK.

The public way to read a span costs several times what the field costs, and every span of the application pays for it: `attributes` makes
a proxy, `events` copies a list that is mostly empty, each property is a call. So the fields are read directly, but only from objects whose
exact type is one of the SDK's that was found to have these fields when this module was imported. For any other object, and for an SDK
that keeps them elsewhere, the same function reads the public properties. The answers are the same.

All functions: any thread; raise only what the public properties of a foreign object raise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import get_current_span, propagation

_FIELDS: Final = ("_context", "_kind", "_parent", "_attributes", "_events", "_resource", "_start_time", "_end_time")


def _known(name: str, *arguments: object, fields: tuple[str, ...], **options: object) -> Any:
    """Give the SDK's type of this name if its objects, made of the arguments, have these fields; else None."""
    kind: Any = getattr(sdk, name, None)
    try:
        found = kind(*arguments, **options)
        return kind if type(found) is kind and all(hasattr(found, field) for field in fields) else None
    except Exception:  # another SDK; the public way is left
        return None


# What `on_end` is given, and what `on_start` is given: a subclass, with the same fields.
_ENDED: Final = _known("ReadableSpan", "probe", resource=Resource({}), fields=_FIELDS)
_STARTED: Final = None if _ENDED is None or not issubclass(getattr(sdk, "_Span", int), _ENDED) else sdk._Span
_ATTRIBUTES: Final = _known("BoundedAttributes", fields=("_dict", "dropped"))
_LIST: Final = _known("BoundedList", 1, fields=("_dq",))

# Where a SpanContext, which is a tuple, has these; its properties cost three times as much.
SPAN_ID: Final = 1
IS_REMOTE: Final = 2
# Under which a context has its current span; what is not found there is asked for by `get_current_span`.
_SPAN_KEY: Final[str] = getattr(propagation, "_SPAN_KEY", "")


def _current_context() -> Callable[[], Context]:
    runtime: Any = getattr(otel_context, "_RUNTIME_CONTEXT", None)
    if type(runtime).__name__ == "ContextVarsRuntimeContext":  # OpenTelemetry chooses it once, at its import
        get: Callable[[], Context] | None = getattr(getattr(runtime, "_current_context", None), "get", None)
        if get is not None:
            return get
    return otel_context.get_current


current_context: Final = _current_context()
"""Gives the current context, as `get_current` does."""


def span_context_in(context: Context) -> Any:
    """Give the `SpanContext` of the current span of a context; an invalid one where there is none."""
    span: Any = context.get(_SPAN_KEY)
    if type(span) is _STARTED:
        return span._context
    return get_current_span(context).get_span_context()


def started(span: Any) -> tuple[Any, Any, Any]:
    """Give context, kind and parent of a span that has just started."""
    if type(span) is _STARTED:
        return span._context, span._kind, span._parent
    return span.context, span.kind, span.parent


def ended(span: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Give context, kind and attributes of a span that has ended. The attributes may be the SDK's own dict: to be read, not kept."""
    if type(span) is _ENDED:
        attributes = span._attributes
        if type(attributes) is _ATTRIBUTES:
            return span._context, span._kind, attributes._dict
    return span.context, span.kind, attributes_copied(span)


def attributes_copied(span: Any) -> dict[str, Any]:
    """Give a copy of the attributes of a span, which may be open."""
    if type(span) is _STARTED or type(span) is _ENDED:
        attributes = span._attributes
        if type(attributes) is _ATTRIBUTES:
            copied: dict[str, Any] = attributes._dict.copy()
            return copied
    found = span.attributes
    # Asked for None, not for truth, which would ask for their number in Python. One step, without the lock that .items() takes.
    return {} if found is None else found.copy()


def parent_of(span: Any) -> Any:
    """Give the parent of a span."""
    return span._parent if type(span) is _STARTED or type(span) is _ENDED else span.parent


def times_and_resource(span: Any) -> tuple[int | None, int | None, Any, Any]:
    """Give start and end of a span, in nanoseconds since 1970, its resource and its context."""
    if type(span) is _ENDED:
        return span._start_time, span._end_time, span._resource, span._context
    return span.start_time, span.end_time, span.resource, span.context


def events_of(span: Any) -> Any:
    """Give the events of a span."""
    if type(span) is _ENDED:
        events = span._events
        if type(events) is _LIST and not events._dq:
            return ()
    return span.events


def has_lost_attributes(span: Any) -> bool:
    """Say whether attributes of a span were dropped by the SDK's limits."""
    if type(span) is _ENDED:
        attributes = span._attributes
        if type(attributes) is _ATTRIBUTES:
            return bool(attributes.dropped)
    return bool(span.dropped_attributes)
