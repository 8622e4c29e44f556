"""Samplers that never hide a request from product analytics, and change nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_OFF,
    DEFAULT_ON,
    Decision,
    ParentBased,
    ParentBasedTraceIdRatio,
    Sampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags

from otel_amplitude.otel._sampler import RecordServerSpans, can_drop, parentbased_always_on, parentbased_traceidratio

kinds = st.sampled_from(SpanKind)
trace_ids = st.integers(1, 2**128 - 1)
parents = st.none() | st.builds(lambda sampled, remote: (sampled, remote), st.booleans(), st.booleans())


def within(parent: tuple[bool, bool] | None, trace_id: int) -> trace.Context | None:  # type: ignore[name-defined]
    """A context with such a parent span: sampled, remote."""
    if parent is None:
        return None
    sampled, remote = parent
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return trace.set_span_in_context(NonRecordingSpan(SpanContext(trace_id, 7, remote, flags)))


@given(kinds, trace_ids, parents, st.sampled_from([ALWAYS_ON, ALWAYS_OFF, DEFAULT_ON, DEFAULT_OFF, TraceIdRatioBased(0.5)]))
def test_only_drops_of_server_spans_change(kind: SpanKind, trace_id: int, parent: tuple[bool, bool] | None, root: Sampler) -> None:
    """The decision about tracing is the root's; a drop of a SERVER span is recorded, unsampled."""
    context = within(parent, trace_id)
    before = root.should_sample(context, trace_id, "GET", kind, {"a": 1})
    after = RecordServerSpans(root).should_sample(context, trace_id, "GET", kind, {"a": 1})
    assert after.decision.is_sampled() == before.decision.is_sampled()
    assert after.trace_state == before.trace_state
    if kind is SpanKind.SERVER:
        assert after.decision is not Decision.DROP
        assert after.attributes == {"a": 1}
    else:
        assert after.decision is before.decision


@given(trace_ids, parents, st.floats(0, 1))
def test_the_ratio_is_that_of_the_sdk(trace_id: int, parent: tuple[bool, bool] | None, ratio: float) -> None:
    """Other exporters see what they would see with the SDK's own sampler of the same ratio."""
    context = within(parent, trace_id)
    ours = parentbased_traceidratio(str(ratio)).should_sample(context, trace_id, "GET", SpanKind.SERVER)
    theirs = ParentBasedTraceIdRatio(ratio).should_sample(context, trace_id, "GET", SpanKind.SERVER)
    assert ours.decision.is_sampled() == theirs.decision.is_sampled()


@pytest.mark.parametrize("argument", [None, "", "a lot", "7", "-1", "nan"])
def test_a_ratio_that_is_none_counts_as_one(argument: str | None) -> None:
    """As in the SDK, what is no number from 0 to 1 means everything."""
    result = parentbased_traceidratio(argument).should_sample(None, 2**128 - 1, "GET", SpanKind.INTERNAL)
    assert result.decision is Decision.RECORD_AND_SAMPLE


def test_always_on_follows_the_parent() -> None:
    """Everything is sampled but what an unsampled caller sends, whose requests are recorded."""
    sampler = parentbased_always_on("ignored")
    assert sampler.should_sample(None, 1, "GET", SpanKind.SERVER).decision is Decision.RECORD_AND_SAMPLE
    unsampled = within((False, True), 1)
    assert sampler.should_sample(unsampled, 1, "GET", SpanKind.SERVER).decision is Decision.RECORD_ONLY
    assert sampler.should_sample(unsampled, 1, "GET", SpanKind.INTERNAL).decision is Decision.DROP
    assert sampler.get_description().startswith("RecordServerSpans{ParentBased{")


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (ALWAYS_ON, False),
        (parentbased_always_on(), False),
        (parentbased_traceidratio("0.01"), False),
        (DEFAULT_ON, True),
        (ParentBased(TraceIdRatioBased(0.1)), True),
        (ALWAYS_OFF, True),
        (None, True),
    ],
)
def test_who_can_drop_requests(sampler: Sampler | None, expected: bool) -> None:
    """A sampler that can keep requests from processors is known by its description."""
    assert can_drop(sampler) is expected
