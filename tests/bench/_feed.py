"""How spans get to a processor: in the context of their user, as fast as possible or at a pace."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from opentelemetry.context import Context, attach, detach
from opentelemetry.sdk.trace import SpanProcessor

from tests.bench._work import Pair


def feed(processor: SpanProcessor, pairs: Sequence[Pair], contexts: Sequence[Context], first: int = 0) -> None:
    """Start and end spans at one processor, each in the context of its user, which is the current one as in a server."""
    started, ended, users = processor.on_start, processor.on_end, len(contexts)
    for number, (span, readable) in enumerate(pairs, first):
        context = contexts[number % users]
        token = attach(context)
        started(span, context)
        ended(readable)
        detach(token)


def paced(items: Sequence[Any], a_second: float, most: int = 40) -> Iterator[tuple[int, Sequence[Any]]]:
    """Give slices of `items`, each with the number of its first, so that `a_second` items pass in a second."""
    began = time.perf_counter()
    for first in range(0, len(items), most):
        wait = began + first / a_second - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        yield first, items[first : first + most]


def finish(processor: Any) -> None:
    """Deliver everything, and close."""
    client = getattr(processor, "_client", None)
    if hasattr(client, "stats"):
        assert client.shutdown(30), client.stats()
    else:
        processor.force_flush()
        processor.shutdown()
