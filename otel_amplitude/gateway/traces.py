"""The trace memory: who acts in a trace, where the spans of one request arrive in several batches.

In Node's Express, `setAttribute("enduser.id", …)` in a handler sets the attribute on a child of the request's span. The child ends first
and is often exported in an earlier batch, so the request's own span has no user when it arrives. `TraceMemory` keeps the ids found on any
span of a trace, and gives them to later spans of the same process.

* The key is the trace and the resource, since a downstream service may act as another account.
* Two different users, devices or sessions of one key: the trace gives no ids from then on. Such a trace is a batch job.
* It only looks back: no item waits. An item that arrives before its user is refused as `no_identity` and counted.
* An opt-out (`amplitude.opt_out`) holds for the whole trace, in every service, for all that is read after it.

Pure: no clock, no I/O. Bounded by number and by bytes; the oldest trace goes first. Any thread.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

from otel_amplitude.convert.ancestors import Knows
from otel_amplitude.identity._resolver import DEVICE_ATTRIBUTES, OPT_OUT, USER_ATTRIBUTES, clean_id

# Names of one row are spellings of one id, so two values in a row are two persons, devices or sessions.
_ROWS: Final = (
    ("amplitude.user_id",),
    USER_ATTRIBUTES,
    ("amplitude.device_id",),
    DEVICE_ATTRIBUTES,
    ("amplitude.session_id",),
    ("session.id",),
)
NAMES: Final = frozenset(name for row in _ROWS for name in row)
_ROW_OF: Final = {name: row[0] for row in _ROWS for name in row}
_MAX_TRACES: Final = 100_000
_MAX_BYTES: Final = 64 * 2**20
_SIZE_OF_TRACE: Final = 250

Key = tuple[int, int]


class _Known:
    """The ids of one trace in one process; `ids` is None when there were two."""

    __slots__ = ("ids", "resource", "size")

    def __init__(self, resource: object) -> None:
        self.resource = resource  # kept, so that its `id` stands for no other one meanwhile
        self.ids: dict[str, Any] | None = {}
        self.size = _SIZE_OF_TRACE


class TraceMemory:
    """Remembers the ids and opt-outs of the newest traces."""

    def __init__(self, most: int = _MAX_TRACES, most_bytes: int = _MAX_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._known: OrderedDict[Key, _Known] = OrderedDict()
        self._opted_out: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def note(self, trace_id: int, resource: object, attributes: Mapping[str, Any]) -> None:
        """Remember the ids of a span.

        Args:
            trace_id: its trace.
            resource: the object of its process; the same one for all of its spans.
            attributes: those of `NAMES` that it has.
        """
        found = {_ROW_OF[name]: text for name, value in attributes.items() if name in NAMES and (text := clean_id(value)) is not None}
        if not found:
            return
        # Two spellings on one span are compared as well.
        differ = any(found[_ROW_OF[name]] != text for name, value in attributes.items() if name in NAMES and (text := clean_id(value)))
        key = (trace_id, id(resource))
        with self._lock:
            known = self._known.get(key)
            if known is None:
                known = self._known[key] = _Known(resource)
                self._bytes += known.size
            if known.ids is not None:
                if differ or any(known.ids.get(name, text) != text for name, text in found.items()):
                    known.ids = None
                else:
                    added = sum(len(text) for name, text in found.items() if name not in known.ids)
                    known.ids = {**known.ids, **found}  # another one: readers have the old one without a lock
                    known.size += added
                    self._bytes += added
            while len(self._known) > self._most or self._bytes > self._most_bytes:
                _, oldest = self._known.popitem(last=False)
                self._bytes -= oldest.size

    def of(self, trace_id: int, resource: object) -> Knows | None:
        """Give the ids of a trace in one process as a span that is above all others; None when no user, or more than one, is known."""
        with self._lock:
            known = self._known.get((trace_id, id(resource)))
        return Knows(0, known.ids) if known is not None and known.ids else None

    def opt_out(self, trace_id: int) -> None:
        """Refuse all that is read of a trace from now on."""
        with self._lock:
            self._opted_out[trace_id] = None
            if len(self._opted_out) > self._most:
                self._opted_out.popitem(last=False)

    def has_opted_out(self, trace_id: int) -> bool:
        """Say whether a trace has opted out."""
        return trace_id in self._opted_out


OPTED_OUT: Final = Knows(0, {OPT_OUT: True})
"""A span above the items of a trace that has opted out."""
