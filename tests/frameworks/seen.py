"""Spans of real frameworks, seen as our own processor sees them: with the identity each would be sent with."""

from __future__ import annotations

import time

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, Tracer

from otel_amplitude.identity import Identity, IdentityResolver, OpenSpans

KEY = "0123456789abcdef0123456789abcdef"
SESSION = int(time.time() * 1000) - 60_000


class Seen(SpanProcessor):
    """Every ended span with its identity, in order."""

    def __init__(self) -> None:
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self)
        self.spans: list[tuple[ReadableSpan, Identity]] = []
        self._open = OpenSpans()
        self._resolver = IdentityResolver(KEY)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self._open.started(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        scope, parents = self._open.scope(span, self._open.forget(span.context.span_id, None)), self._open.parents(span)
        self.spans.append((span, self._resolver.resolve(span.attributes or {}, scope, parents)))

    @property
    def tracer(self) -> Tracer:
        return self.provider.get_tracer("test")

    def servers(self) -> list[Identity]:
        """The identities of the server spans, in the order of their ends."""
        return [identity for span, identity in self.spans if span.kind is SpanKind.SERVER]

    def users(self, name: str) -> list[str | None]:
        """The users of the spans of this name."""
        return [identity.user_id for span, identity in self.spans if span.name == name]

    def texts(self) -> str:
        """Everything that other exporters would see of these spans."""
        return str([(span.name, dict(span.attributes or {}), span.events, span.links) for span, _ in self.spans])
