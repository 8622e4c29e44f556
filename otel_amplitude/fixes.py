"""What was changed or removed so that an event could be sent: counted by cause, and each kind of it named once in the log."""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from otel_amplitude.log import Log

Note = Callable[[str, str], None]
"""Takes a cause, one of `CURES`, and what it is about, such as the name of a type or of a key. Any thread."""

CURES: Final[Mapping[str, str]] = {
    "object": "an object of this type has no fields that could be sent: send its fields, or register its class with values.as_text",
    "seconds": "a moment was read as seconds, by its magnitude: give milliseconds since 1970",
    "milliseconds": "the start of a span was read as milliseconds, by its magnitude: OpenTelemetry takes nanoseconds since 1970",
    "microseconds": "a moment was read as microseconds, by its magnitude: give milliseconds since 1970",
    "nanoseconds": "a moment was read as nanoseconds, by its magnitude: give milliseconds since 1970",
    "naive": "a time without a zone was read as UTC: give an aware datetime, such as datetime.now(timezone.utc)",
    "operations": "operations stand alone in user or group properties: put plain ones into $set",
    "lost_attributes": "OpenTelemetry's limit took attributes away before we saw them: raise OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
}
# Names of types and keys come from code, so they are few; a program that makes classes up fills no memory.
_MOST_NAMED: Final = 200


def ignore(_cause: str, _what: str) -> None:
    """Note nothing: where there is no client to count for."""


_all: weakref.WeakSet[Fixes] = weakref.WeakSet()


def _renew_after_fork() -> None:
    # A child counts for itself, and another thread of the parent may have held the lock.
    for fixes in list(_all):
        fixes._start_empty()  # noqa: SLF001 -- our own class


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_renew_after_fork)


class Fixes:
    """Counts the fixes of one client. Any thread, and a signal handler in the middle of a count, may note one."""

    def __init__(self, log: Log | None = None) -> None:
        """Make a counter that writes each kind to `log` once."""
        self._log = log
        self._start_empty()
        _all.add(self)

    def _start_empty(self) -> None:
        self._lock = threading.RLock()
        self._counts: Counter[str] = Counter()
        self._named: set[tuple[str, str]] = set()

    def note(self, cause: str, what: str) -> None:
        """Count one fix, and name it in the log if it is the first of its kind."""
        with self._lock:
            self._counts[cause] += 1
            is_new = (cause, what) not in self._named and len(self._named) < _MOST_NAMED
            if is_new:
                self._named.add((cause, what))
        if is_new and self._log is not None:
            self._log.warning("event.fixed", reason=cause, problem=what, cure=CURES[cause])

    def counts(self) -> Mapping[str, int]:
        """Give how many there were of each cause that occurred."""
        with self._lock:
            return MappingProxyType(dict(self._counts))
