"""The SDK's fields are read directly where they are known, and by the public way everywhere else, with the same answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanLimits, TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, get_current_span, set_span_in_context

from otel_amplitude import sdk_access

REMOTE = SpanContext(7, 8, is_remote=True, trace_flags=TraceFlags(1))
FIELDS = ("_context", "_kind", "_parent", "_attributes", "_events", "_resource", "_start_time", "_end_time")


def made(**options: Any) -> Span:
    provider = TracerProvider(shutdown_on_exit=False, span_limits=SpanLimits(max_span_attributes=3))
    around = set_span_in_context(NonRecordingSpan(REMOTE), Context())
    span = provider.get_tracer("test").start_span("work", around, SpanKind.SERVER, {"a": 1, "b": "two"}, **options)
    assert isinstance(span, Span)
    return span


def readable(**attributes: Any) -> ReadableSpan:
    span = made()
    span.set_attributes(attributes)
    span.end()
    return span._readable_span()


class Unknown:
    """A span of another type: all that is public, none of the fields."""

    def __init__(self, span: Any) -> None:
        self.__span = span

    def __getattr__(self, name: str) -> Any:
        if name in FIELDS:
            raise AssertionError(f"{name} was read of a type that is not known")
        return getattr(self.__span, name)


class Hidden(ReadableSpan):
    """A span of a subclass, which may keep its fields elsewhere."""

    def __init__(self, span: ReadableSpan) -> None:
        self.span = span

    def __getattribute__(self, name: str) -> Any:
        if name in FIELDS:
            raise AssertionError(f"{name} was read of a type that is not known")
        return getattr(object.__getattribute__(self, "span"), name)


READS: list[tuple[Callable[[Any], Any], Callable[[Any], Any]]] = [
    (
        sdk_access.started,
        lambda span: (span.context, span.kind, span.parent),
    ),
    (sdk_access.ended, lambda span: (span.context, span.kind, dict(span.attributes))),
    (sdk_access.attributes_copied, lambda span: dict(span.attributes)),
    (sdk_access.parent_of, lambda span: span.parent),
    (sdk_access.times_and_resource, lambda span: (span.start_time, span.end_time, span.resource, span.context)),
    (sdk_access.events_of, lambda span: span.events),
    (sdk_access.has_lost_attributes, lambda span: span.dropped_attributes > 0),
]


def test_the_fields_of_this_sdk_are_known() -> None:
    """So it is on the oldest and on the newest SDK: none of the reads falls back for what the SDK makes."""
    assert (type(made()), type(readable())) == (sdk_access._STARTED, sdk_access._ENDED)
    assert sdk_access._ATTRIBUTES is type(readable()._attributes)
    assert sdk_access._LIST is type(readable()._events)
    assert get_current is not sdk_access.current_context
    assert set_span_in_context(made(), Context()).keys() == {sdk_access._SPAN_KEY}


@pytest.mark.parametrize(("read", "public"), READS)
def test_each_read_answers_as_the_public_way(read: Callable[[Any], Any], public: Callable[[Any], Any]) -> None:
    """For open and ended spans, with and without events and lost attributes, made by the SDK or by hand."""
    with_event = made()
    with_event.add_event("happened")
    spans = [made(), with_event, readable(), with_event._readable_span(), readable(c=1, d=2), ReadableSpan("by hand")]
    spans += [ReadableSpan("by hand", attributes={"a": 1}, events=()), ReadableSpan("by hand", context=REMOTE, attributes=None)]
    for span in spans:
        assert read(span) == public(span)


@pytest.mark.parametrize(("read", "public"), READS)
@pytest.mark.parametrize("foreign", [Unknown, Hidden])
def test_an_unknown_type_is_read_by_the_public_way(
    foreign: Callable[[ReadableSpan], Any], read: Callable[[Any], Any], public: Callable[[Any], Any]
) -> None:
    """A wrapper and a subclass answer for themselves."""
    span = readable(c=1, d=2)
    assert read(foreign(span)) == public(span)


@pytest.mark.parametrize(("read", "public"), READS)
def test_an_sdk_that_keeps_its_fields_elsewhere_is_read_by_the_public_way(
    monkeypatch: pytest.MonkeyPatch, read: Callable[[Any], Any], public: Callable[[Any], Any]
) -> None:
    """Where the probe at import finds other types, all reads are public."""
    for name in ("_STARTED", "_ENDED", "_ATTRIBUTES", "_LIST"):
        monkeypatch.setattr(sdk_access, name, None)
    span = readable(c=1)
    assert read(span) == public(span)


def test_a_type_without_the_fields_is_not_known() -> None:
    """Nor is one that is not there, or that can not be made."""
    assert sdk_access._known("ReadableSpan", "probe", fields=("_elsewhere",)) is None
    assert sdk_access._known("NoSuchType", fields=()) is None
    assert sdk_access._known("BoundedList", fields=("_dq",)) is None


def test_the_current_context_is_that_of_opentelemetry() -> None:
    """With and without something attached."""
    around = Context({"key": 1})
    token = attach(around)
    assert sdk_access.current_context() is get_current() is around
    detach(token)
    assert sdk_access.current_context() is get_current()


def test_another_runtime_context_is_asked_by_the_public_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """`OTEL_PYTHON_CONTEXT` may name one, which is asked by `get_current`."""
    monkeypatch.setattr("opentelemetry.context._RUNTIME_CONTEXT", object())
    assert sdk_access._current_context() is get_current


@pytest.mark.parametrize("span", [made(), NonRecordingSpan(REMOTE), None, "no span"])
def test_the_context_of_the_current_span(span: Any) -> None:
    """It is what `get_current_span` gives, whatever stands in its place."""
    context = set_span_in_context(span, Context())
    assert sdk_access.span_context_in(context) == get_current_span(context).get_span_context()
