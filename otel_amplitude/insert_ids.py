"""How each `insert_id` is made: Amplitude keeps one event of an `insert_id` for each device within seven days.

An `insert_id` is a pure function of what was recorded, so the same item gives the same one from whichever processor, exporter or file, and
two items give two:

* A span: trace id, span id and start time in nanoseconds. Programs that seed `random` repeat both ids; the start time differs.
* An event on a span: that of the span, and its position.
* A log record with `log.record.uid`: that. Any other one: a hash of everything in it, but the observed time only where nothing else says
  when it was: a Collector that reads a log file again observes each line again.
* An exposure: a hash of person, flag, variant and day.
* `log_event`: what the application gives, else a random one.

Nothing reads parts out of an `insert_id`: what its trace was stands in the property `trace_id`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import orjson

from otel_amplitude.values import clean, id_text

if TYPE_CHECKING:
    from opentelemetry._logs import LogRecord
    from opentelemetry.trace import SpanContext

_UID: Final = "log.record.uid"
# Set by the Collector's filelog receiver, and by whatever else follows the conventions for a record that is a line of a file.
_OF_A_FILE: Final = ("log.file.name", "log.file.path", "log.file.name_resolved", "log.file.path_resolved")
_64_BITS: Final = (1 << 64) - 1


def trace_text(trace_id: int) -> str:
    """Give a trace id as 32 hexadecimal digits.

    >>> trace_text(255)
    '000000000000000000000000000000ff'
    """
    return trace_id.to_bytes(16, "big").hex()


def of_span(context: SpanContext | None, start_ns: int | None) -> tuple[str, str] | None:
    """Give the trace id as text, and the `insert_id` of a span: 64 hexadecimal digits.

    Args:
        context: the span's.
        start_ns: its start in nanoseconds since 1970; None counts as 0.

    Returns:
        Both; None for a span made by hand without valid ids, which can not be told from another one.
    """
    if context is None:
        return None
    # A span context is a tuple; each of its properties would cost a call.
    trace_id, span_id, _, _, _, is_valid = context
    if not is_valid:
        return None
    trace = trace_id.to_bytes(16, "big").hex()
    return trace, trace + (span_id << 64 | ((start_ns or 0) & _64_BITS)).to_bytes(16, "big").hex()


def of_span_event(span_insert_id: str, index: int) -> str:
    """Give the `insert_id` of the event at position `index` on a span."""
    return f"{span_insert_id}-{index}"


def of_log_record(record: LogRecord, attributes: Mapping[str, Any], scope: str | None, instance: str) -> str:
    """Give the `insert_id` of a log record: 32 hexadecimal digits.

    Args:
        record: read for its ids, times, event name and body.
        attributes: its attributes.
        scope: the name of the instrumentation scope.
        instance: `service.instance.id` of its resource; `""` when it has none.
    """
    uid = clean(attributes.get(_UID))
    if isinstance(uid, (str, int)) and uid:
        return _digest(("uid", str(uid)))
    observed = None if record.timestamp or any(name in attributes for name in _OF_A_FILE) else record.observed_timestamp
    return _digest(
        (
            f"{record.trace_id or 0:x}-{record.span_id or 0:x}-{record.timestamp or 0}-{observed or 0}",
            clean(scope),
            clean(record.event_name),
            instance,
            clean(record.body),
            clean(attributes),
        )
    )


def of_exposure(who: str, flag: str, variant: str, day: int) -> str:
    """Give the `insert_id` of an exposure: the same for one person, flag, variant and day (in days since 1970)."""
    seen = "\0".join((who, flag, variant, str(day)))
    return blake2b(seen.encode("utf-8", "surrogatepass"), digest_size=16, person=b"exposure").hexdigest()


def given_or_new(given: object) -> str:
    """Give the application's own key as text, a random one where there is none: keys of databases are numbers or UUIDs."""
    if type(given) is str and given:
        return given
    return id_text(given) or uuid.uuid4().hex


def _digest(content: object) -> str:
    return blake2b(orjson.dumps(content, option=orjson.OPT_SORT_KEYS), digest_size=16).hexdigest()
