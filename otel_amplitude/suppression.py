"""Keeping our own work out of traces and events: the suppress keys of OpenTelemetry, set all together or read all together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from opentelemetry import context as otel_context
from opentelemetry.context import Context

from otel_amplitude.sdk_access import current_context

# The SDK's processors set the first around `export`, instrumentations look for any of the three. Two of them are private names of
# the API package with a random suffix, so they are imported late and by name; the plain one is what older releases used.
_PLAIN: Final = "suppress_instrumentation"
KEYS: Final[tuple[str, ...]] = tuple(
    {str(getattr(otel_context, name, _PLAIN)): None for name in ("_SUPPRESS_INSTRUMENTATION_KEY", "_SUPPRESS_HTTP_INSTRUMENTATION_KEY", "")}
)

_keys: Final = frozenset(KEYS)


@contextmanager
def suppressed() -> Iterator[None]:
    """Suppress instrumentation in the current context while the block runs.

    A new thread does not inherit the context: enter it inside the thread that does the work.
    """
    context = otel_context.get_current()
    for key in KEYS:
        context = otel_context.set_value(key, True, context)
    token = otel_context.attach(context)
    try:
        yield
    finally:
        otel_context.detach(token)


def is_suppressed(context: Context | None = None) -> bool:
    """Whether anyone suppressed instrumentation in `context`, by default the current one."""
    found = current_context() if context is None else context
    if _keys.isdisjoint(found):  # all that most spans pay
        return False
    return any(found.get(key) for key in KEYS)
