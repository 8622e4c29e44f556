"""The options of the exporters of a worker: the worker bounds what is pending, and a topic keeps it, so delivery's own bounds are out of the way."""

from __future__ import annotations

from typing import Any, Final

from otel_amplitude.delivery.dispatcher import DeliveryOptions

UNBOUNDED_EVENTS: Final = 10_000_000
UNBOUNDED_BYTES: Final = 16 * 2**30
_UNBOUNDED_AGE: Final = 1e9


def options_to_topic(*, upload_interval: float, request_timeout: float, **more: Any) -> DeliveryOptions:
    """Give the options of an exporter that writes to a topic: one request at a time, and what is left at the end is returned.

    Args:
        upload_interval: seconds that an event may wait for others.
        request_timeout: seconds of one attempt.
        more: further options.
    """
    return DeliveryOptions(
        upload_interval=upload_interval,
        max_cached_events=UNBOUNDED_EVENTS,
        max_cached_bytes=UNBOUNDED_BYTES,
        max_event_age=_UNBOUNDED_AGE,
        max_in_flight=1,
        request_timeout=request_timeout,
        at_end="return",
        **more,
    )
