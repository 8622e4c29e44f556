"""Samplers that record the requests a trace sampler would drop, so that product events do not shrink with sampling.

A span that a sampler drops never reaches any processor (opentelemetry-python.md 1.4; spec: trace/sdk.md, Sampling). These
samplers leave the decision about tracing as it was, and turn a drop into "record only" for SERVER spans. Other exporters still
see only what was sampled; our processor sees every request. Children of an unsampled request stay dropped: who annotates them
needs `AlwaysRecordSampler` of the SDK (1.45).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.environment_variables import OTEL_TRACES_SAMPLER, OTEL_TRACES_SAMPLER_ARG
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision, ParentBased, Sampler, SamplingResult, TraceIdRatioBased
from opentelemetry.trace import SpanKind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.context import Context
    from opentelemetry.trace import Link, TraceState
    from opentelemetry.util.types import Attributes

_DEFAULT_RATIO: Final = 1.0


class RecordServerSpans(Sampler):
    """Asks `root` about every span, and lets SERVER spans be recorded even when it says drop."""

    def __init__(self, root: Sampler) -> None:
        """Wrap the sampler that decides about tracing."""
        self._root = root

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes | None = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Give the root's result, with a drop of a SERVER span turned into record only."""
        result = self._root.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)
        if kind is SpanKind.SERVER and result.decision is Decision.DROP:
            return SamplingResult(Decision.RECORD_ONLY, attributes, result.trace_state)
        return result

    def get_description(self) -> str:
        """Name the sampler and its root."""
        return f"RecordServerSpans{{{self._root.get_description()}}}"


def parentbased_traceidratio(ratio: str | None = None) -> Sampler:
    """Make the sampler `amplitude_parentbased_traceidratio` of `OTEL_TRACES_SAMPLER`.

    Args:
        ratio: `OTEL_TRACES_SAMPLER_ARG`; what is no number from 0 to 1 counts as 1, as in the SDK.
    """
    try:
        rate = float(ratio) if ratio else _DEFAULT_RATIO
        root = TraceIdRatioBased(rate)
    except ValueError:
        root = TraceIdRatioBased(_DEFAULT_RATIO)
    return RecordServerSpans(ParentBased(root))


def parentbased_always_on(_argument: str | None = None) -> Sampler:
    """Make the sampler `amplitude_parentbased_always_on` of `OTEL_TRACES_SAMPLER`."""
    return RecordServerSpans(ParentBased(ALWAYS_ON))


_BY_NAME: Final = {
    "amplitude_parentbased_traceidratio": parentbased_traceidratio,
    "amplitude_parentbased_always_on": parentbased_always_on,
}


def names_ours(environ: Mapping[str, str]) -> bool:
    """Tell whether `OTEL_TRACES_SAMPLER` names one of these samplers."""
    return environ.get(OTEL_TRACES_SAMPLER, "").strip().lower() in _BY_NAME


def sampler_of(environ: Mapping[str, str]) -> Sampler | None:
    """Give the sampler of a provider made in code: the one of ours that is named, all requests where none is; None for the SDK's own names.

    Only the SDK's configurator looks names up among entry points; a `TracerProvider` does not, and would take its default for ours.
    """
    if names_ours(environ):
        return _BY_NAME[environ[OTEL_TRACES_SAMPLER].strip().lower()](environ.get(OTEL_TRACES_SAMPLER_ARG))
    return None if environ.get(OTEL_TRACES_SAMPLER, "").strip() else parentbased_always_on()


def can_drop(sampler: object) -> bool:
    """Tell whether a provider's sampler can keep requests from every processor, as far as its description says."""
    describe = getattr(sampler, "get_description", None)
    description = str(describe()) if callable(describe) else ""
    return not description.startswith(("RecordServerSpans", "AlwaysOnSampler", "AlwaysRecord"))
