"""Whether the current thread, or greenlet, is at work for the pipeline: what it logs and traces then is never exported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Not `threading.local`: what gevent patches after this import would share one among all greenlets, and our sender marks them all.
_depth: ContextVar[int] = ContextVar("otel_amplitude_depth", default=0)


def inside() -> bool:
    """Whether this thread is delivering, converting or calling observers right now."""
    return _depth.get() > 0


@contextmanager
def entered() -> Iterator[None]:
    """Mark this thread as working for the pipeline until the block ends; may be nested."""
    token = _depth.set(_depth.get() + 1)
    try:
        yield
    finally:
        _depth.reset(token)
