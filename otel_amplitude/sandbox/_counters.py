"""What exporters post about themselves: their counters, and what each reason means and needs."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otel_amplitude.sandbox._contract import Json

MAX_PROCESSES = 64
MAX_TEXT = 200
MAX_REASONS = 64

# Reasons of events that were refused in the exporter's process, before anything was sent: what they mean, and the cure.
REASONS: dict[str, tuple[str, str]] = {
    "no_identity": (
        "neither user nor device is known",
        (
            "Call otel_amplitude.set_user(user.id) where your application knows who is logged in, or send Amplitude's browser cookie "
            "(otel-amplitude cookie prints one). Ids with fewer than 5 characters count as none: set "
            "OTEL_EXPORTER_AMPLITUDE_USER_ID_FORMAT=user-{id}."
        ),
    ),
    "excluded": (
        "a health check or its user agent, a static file, or a route in exclude",
        (
            "Nothing to do, if that is what they are. OTEL_EXPORTER_AMPLITUDE_EXCLUDE lists the routes; "
            "a rule or amplitude.event_type on the span makes an event of one all the same."
        ),
    ),
    "bot": (
        "the user agent belongs to a crawler or a headless browser",
        "Nothing to do for those. A rule or amplitude.event_type on the span makes an event all the same.",
    ),
    "prefetch": ("a browser fetched the page before a person asked for it", "Nothing to do: the visit itself is a request of its own."),
    "websocket": ("the handshake of a WebSocket", "Log events in its handler, or name the handshake by a rule."),
    "invalid_time": (
        "the time of the event is no moment, more than ten years ago or more than a day ahead",
        "Give time in milliseconds since 1970, as a datetime, or leave it out.",
    ),
    "no_route": ("the route of the request is not known", "Set http.route on the span, or install the framework's instrumentation."),
    "cap": (
        "one user or device makes more automatic events than auto_events_per_minute",
        "Name the events that matter by a rule or an annotation, or raise OTEL_EXPORTER_AMPLITUDE_AUTO_EVENTS_PER_MINUTE.",
    ),
    "rule": ("a rule with drop = true", "otel-amplitude rules explain shows which rule applies to a request."),
    "sampled": ("outside the sample of its rule", "Nothing to do, if the rule's sample is meant."),
    "opted_out": ("the user or the process has opted out", "Consent, the cookie's opt-out, or the option opt_out: take it back to send."),
    "middleware": (
        "a middleware did not pass the event on, or raised",
        "The log says which: middleware.failed, or middleware.dropped at VERBOSE.",
    ),
    "repeated": ("this exposure was sent already today", "Nothing to do."),
    "environment": ("its deployment environment is not in environments", "Correct OTEL_EXPORTER_AMPLITUDE_ENVIRONMENTS or the resource."),
    "invalid": ("Amplitude would reject it", "The log line event.invalid names the field and the rule."),
    "unserializable": ("a key or value can not be read as JSON", "The log line event.invalid names it."),
    "too_large": ("the event is too large", "Send fewer or shorter properties."),
    "queue_full": ("the memory for waiting events is full", "See why sending is slow: the log says sending.paused and its reason."),
    "id_backlog": ("too many events of one user or device wait", "That id is throttled: send fewer events for it."),
    "closed": ("it came after shutdown", "Shut down later, or log earlier."),
    # Of a gateway.
    "inner_request": (
        "a request that another service made, not a user",
        "Nothing to do, if so. If users or browsers call this service, start the gateway with --requests-of and its name.",
    ),
    "unreadable": (
        "a span or log record that is not as OTLP says, such as one with text that is not UTF-8",
        "The answer to the sender, partial_success, says what is wrong with the first ones.",
    ),
    "internal": ("a fault of the exporter", "The log has the traceback; please report it."),
    # Events that were accepted and given up later.
    "expired": (
        "older than max_event_age before they could be sent",
        "See why sending was slow: the log says sending.paused and its reason.",
    ),
    "attempts": ("retry_timeouts is used up", "See why sending failed: the log says sending.paused and its reason."),
    "spool_full": ("in memory at exit, and the spool has no room", "Raise OTEL_EXPORTER_AMPLITUDE_MAX_SPOOL_BYTES, or free the disk."),
    "spool_io": ("in memory at exit, and the disk failed", "otel-amplitude doctor examines the spool directory."),
    "spool_corrupt": ("a damaged record in the spool", "otel-amplitude spool verify says where; check the disk."),
    "quarantined": (
        "several processes ended while this event was being sent alone",
        "otel-amplitude spool ls shows it; otel-amplitude convert --spool DIR --send sends it.",
    ),
    "shutdown": ("not acknowledged within shutdown_timeout", "Raise OTEL_EXPORTER_AMPLITUDE_SHUTDOWN_TIMEOUT, or set a spool directory."),
}


class Processes:
    """The newest counters of the processes that posted last; the caller holds the lock."""

    def __init__(self) -> None:
        self._posts: dict[tuple[str, int], Json] = {}
        self._forgotten: dict[tuple[str, int], Json] = {}

    def post(self, body: Json) -> None:
        """Keep what one process posted in place of its last post.

        Raises:
            ValueError: it does not look like counters.
        """
        service, pid, counters = body.get("service"), body.get("pid"), body.get("counters")
        if not _is_text(service) or not _is_count(pid) or not isinstance(counters, dict) or not _are_counters(counters):
            raise ValueError('counters look like {"service": "shop", "pid": 7, "counters": {"accepted": 1, "refused": {"bot": 2}}}')
        key = (str(service), int(pid or 0))
        self._posts.pop(key, None)
        self._posts[key] = {"service": service, "pid": pid, "at": time.time(), "counters": counters}
        while len(self._posts) > MAX_PROCESSES:
            del self._posts[next(iter(self._posts))]

    def forget(self) -> None:
        """Start from zero: what processes counted until now is left out of `refused` from now on."""
        self._forgotten.update(self._posts)
        self._posts = {}
        while len(self._forgotten) > MAX_PROCESSES:
            del self._forgotten[next(iter(self._forgotten))]

    def answer(self) -> Json:
        """Give the posts, the refusals of all processes by reason (most frequent first), and what the reasons mean."""
        refused: Counter[str] = Counter()
        for key, post in self._posts.items():
            before = _by_reason(self._forgotten.get(key))
            refused.update({reason: max(0, count - before.get(reason, 0)) for reason, count in _by_reason(post).items()})
        return {
            "processes": list(self._posts.values()),
            "refused": [{"reason": reason, "count": count} for reason, count in refused.most_common() if count],
            "reasons": {reason: {"words": words, "cure": cure} for reason, (words, cure) in REASONS.items()},
        }


def _by_reason(post: Json | None) -> dict[str, int]:
    refused = post["counters"].get("refused") if post is not None else None
    return refused if isinstance(refused, dict) else {}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _are_counters(counters: Json) -> bool:
    """Tell whether each value is a count, or counts by reason."""
    return _are_few(counters) and all(
        _is_count(value) or (isinstance(value, dict) and _are_few(value) and all(map(_is_count, value.values())))
        for value in counters.values()
    )


def _are_few(values: Json) -> bool:
    return len(values) <= MAX_REASONS and all(map(_is_text, values))
