"""The stand-in for one Amplitude project: takes uploads, decides, remembers. Knows no socket; safe to call from any thread."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otel_amplitude.sandbox import _contract as contract
from otel_amplitude.sandbox._contract import REFUSING, Reading
from otel_amplitude.sandbox._counters import Processes
from otel_amplitude.sandbox._faults import AFTER, BEFORE, KINDS, Fault, Faults, Reply, reply
from otel_amplitude.sandbox._limits import EpsLimits, Limits
from otel_amplitude.sandbox._properties import People
from otel_amplitude.sandbox._store import HISTORY, Row, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from otel_amplitude.sandbox._contract import Endpoint, Event, Json

MAX_REQUESTS = 10_000
MAX_REQUEST_BYTES = 64_000_000
MAX_REJECTIONS = 200
CHART_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Received:
    """One upload request as it came: header names in lower case, the body unpacked, and the status it got (0: no answer)."""

    path: str
    headers: dict[str, str]
    body: bytes
    encoding: str
    status: int
    events: int
    at: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What to write, and what to do to the connection while writing it."""

    reply: Reply
    after: list[Fault] = field(default_factory=list)


class Project:
    """All state of the sandbox, behind one lock; `changed` is called after every change.

    Args:
        api_keys: the keys it knows; None is any non-empty key.
        eps: limits for one device or user; None is none.
        db: a file to keep the history in; None is memory.
        history: how many accepted events are kept.
    """

    def __init__(self, api_keys: Collection[str] | None, eps: EpsLimits | None, db: str | None, history: int = HISTORY) -> None:
        self.changed = threading.Condition()
        self.stopped = False
        self.version = 0
        self.epoch = 0
        self._api_keys = None if api_keys is None else frozenset(api_keys)
        self._store = Store(db, history)
        self._limits = Limits(eps)
        self._faults = Faults()
        self._people = People()
        self._processes = Processes()
        self._forget()
        for event in self._store.events():
            self._people.learn(event)

    def _forget(self) -> None:
        self.accepted = 0
        self.duplicates = 0
        self._rejected: Counter[str] = Counter()
        self._uploads = 0
        self._requests: deque[Received] = deque()
        self._request_bytes = 0
        self._rejections: deque[Json] = deque(maxlen=MAX_REJECTIONS)
        self._seconds: dict[int, list[int]] = {}

    # ------------------------------------------------------------------------------------------------------- uploads

    def receive(self, endpoint: Endpoint, headers: Mapping[str, str], raw: bytes) -> Decision | None:
        """Take one upload; None means that the connection is to be reset.

        Waits here when a fault says so: one thread per request.
        """
        now = time.time()
        encoding = headers.get("content-encoding", "").strip().lower()
        try:
            body, reading = contract.unpack(raw, encoding, endpoint.max_bytes), None
        except contract.UndecodableError as error:
            body = raw
            reading = Reading(error.status, contract.refusal(error.status, str(error)), reason="encoding")
        reading = reading or self._read(endpoint, headers, body, int(now * 1000))
        if self._before(endpoint, reading.events, len(body)):
            with self.changed:
                self._record(Received(endpoint.path, dict(headers), body, encoding, 0, len(reading.events), now))
            return None
        with self.changed:
            decision = self._decide(endpoint, reading, len(body), now)
            gone = any(fault.name == "reset_after" for fault in decision.after)
            status = 0 if gone else decision.reply.status
            self._record(Received(endpoint.path, dict(headers), body, encoding, status, len(reading.events), now))
        return None if gone else decision

    def _read(self, endpoint: Endpoint, headers: Mapping[str, str], body: bytes, now_ms: int) -> Reading:
        if endpoint.form:
            return contract.read_identify(endpoint, body, headers.get("content-type", ""), now_ms, self._knows)
        return contract.read_upload(endpoint, body, now_ms, self._knows)

    def _knows(self, key: str) -> bool:
        return self._api_keys is None or key in self._api_keys

    def _before(self, endpoint: Endpoint, events: list[Event], size: int) -> bool:
        """Carry out the faults that come before anything else; tell whether the connection is to be reset."""
        with self.changed:
            hit = self._faults.take(BEFORE, endpoint, events, size)
            if hit:
                self._tell()
            for fault in hit:
                self._hold(fault)
            return any(fault.name != "latency" for fault in hit)

    def _hold(self, fault: Fault) -> None:
        self.changed.wait_for(lambda: self.stopped or fault.cleared, fault.options.get("seconds", 0))

    def _decide(self, endpoint: Endpoint, reading: Reading, size: int, now: float) -> Decision:
        body = self._limits.check(endpoint, reading.events, now) if reading.status == 200 else None
        if body is not None:
            reading = Reading(429, body, reading.events, reading.findings, reading.api_key, "throttled")
        after = self._faults.take(AFTER, endpoint, reading.events, size)
        replaced = self._faults.take(KINDS.keys() - BEFORE - AFTER, endpoint, reading.events, size)
        stored = reading.status == 200 and all(fault.stored for fault in (*replaced, *after))
        if stored:
            self._accept(endpoint, reading, now)
        if replaced:
            instead = reply(replaced[0], endpoint, reading.events, reading.api_key)
            reason, error = f"fault {replaced[0].name}", "switched on in the sandbox"
            self._reject(endpoint, reading, now, status=instead.status, reason=reason, error=error, kept=stored)
            return Decision(instead, after)
        if reading.status != 200:
            self._reject(endpoint, reading, now, status=reading.status, reason=reading.reason, error=str(reading.body["error"]))
        return Decision(Reply(reading.status, reading.body), after)

    def _accept(self, endpoint: Endpoint, reading: Reading, now: float) -> None:
        # The same key in two runs of a file is one project; the key itself is written nowhere.
        project = hashlib.sha256(reading.api_key.encode(errors="replace")).hexdigest()[:16]
        self._store.begin()
        rows = [
            Row("duplicate" if self._store.is_duplicate(project, event, now) else "accepted", event, findings)
            for event, findings in zip(reading.events, reading.findings, strict=True)
        ]
        self._store.add(endpoint.path, rows, now)
        self._store.commit()
        fresh = [row.event for row in rows if row.verdict == "accepted"]
        self._limits.count(endpoint, reading.events, now)
        self.accepted += len(fresh)
        self.duplicates += len(rows) - len(fresh)
        self._mark(now, len(fresh), len(rows) - len(fresh))
        for event in fresh:
            self._people.learn(event)

    def _reject(
        self, endpoint: Endpoint, reading: Reading, now: float, *, status: int, reason: str, error: str, kept: bool = False
    ) -> None:
        offenders = [
            Row("rejected", event, findings)
            for event, findings in zip(reading.events, reading.findings, strict=True)
            if any(finding.kind in REFUSING for finding in findings)
        ]
        if offenders:
            self._store.begin()
            self._store.add(endpoint.path, offenders, now)
            self._store.commit()
        words = Counter(finding.words for row in offenders for finding in row.findings if finding.kind in REFUSING)
        self._rejected[reason] += 1
        if not kept:
            self._mark(now, rejected=max(len(reading.events), 1))
        self._rejections.append(
            {
                "at": now,
                "path": endpoint.path,
                "status": status,
                "reason": reason,
                "error": "Invalid API key" if reason == "invalid key" else error,
                "events": len(reading.events),
                "offenders": len(offenders),
                "stored": kept,
                "words": [{"words": text, "count": count} for text, count in words.most_common(20)],
            }
        )

    def _record(self, request: Received) -> None:
        self._uploads += 1
        self._requests.append(request)
        self._request_bytes += len(request.body)
        while len(self._requests) > MAX_REQUESTS or (self._request_bytes > MAX_REQUEST_BYTES and len(self._requests) > 1):
            self._request_bytes -= len(self._requests.popleft().body)
        self._tell()

    def _mark(self, now: float, accepted: int = 0, duplicates: int = 0, rejected: int = 0) -> None:
        second = self._seconds.setdefault(int(now), [0, 0, 0])
        for position, count in enumerate((accepted, duplicates, rejected)):
            second[position] += count
        while len(self._seconds) > CHART_SECONDS:
            del self._seconds[next(iter(self._seconds))]

    def _tell(self) -> None:
        self.version += 1
        self.changed.notify_all()

    # ----------------------------------------------------------------------------------------------------- questions

    def events(self) -> list[Event]:
        """Give the accepted events in the history, in order of arrival, as they were sent."""
        with self.changed:
            return self._store.events()

    def requests(self) -> list[Received]:
        """Give the newest upload requests, oldest first."""
        with self.changed:
            return list(self._requests)

    def user_properties(self, user_id: str) -> Json:
        """Give the properties of a user (or of a device that has none)."""
        with self.changed:
            return self._people.of_user(user_id)

    def group_properties(self, kind: str, name: str) -> Json:
        """Give the properties of a group."""
        with self.changed:
            return self._people.of_group(kind, name)

    def find(self, **filters: Any) -> list[Json]:
        """Give rows for the page, newest first (see `Store.find`)."""
        with self.changed:
            return self._store.find(**filters)

    def last(self) -> int:
        """Give the number of the newest row."""
        with self.changed:
            return self._store.last()

    def summary(self) -> Json:
        """Give the totals and the table of types."""
        with self.changed:
            return {
                "types": self._store.types(),
                "accepted": self.accepted,
                "duplicates": self.duplicates,
                "rejections": dict(self._rejected),
                "requests": self._uploads,
                "epoch": self.epoch,
                "users": self._store.people(),
                "user_count": self._store.head_count(),
                "faults": len(self._faults.active()),
                "now": time.time(),
                "seconds": [[second, *counts] for second, counts in self._seconds.items()],
                "last": self._store.last(),
            }

    def timeline(self, user: str) -> Json:
        """Give a user's events in order of time, and the user's properties."""
        with self.changed:
            return {"user": user, "events": self._store.timeline(user), "properties": self._people.of_user(user)}

    def problems(self) -> Json:
        """Give the newest rejections, and what would be changed about accepted events."""
        with self.changed:
            return {"rejections": list(reversed(self._rejections)), "changes": self._store.changes()}

    def catalog(self) -> list[Json]:
        """Give each event type with count, users, first and last time, and its properties with their types and a sample."""
        types: dict[str, Json] = {}
        for event in self.events():
            name = str(event.get("event_type"))
            entry = types.setdefault(name, {"type": name, "count": 0, "users": set(), "properties": {}})
            entry["count"] += 1
            entry["users"].add(event.get("user_id") or event.get("device_id"))
            at = event.get("time")
            if isinstance(at, (int, float)) and at > 0:
                entry["first"], entry["last"] = min(at, entry.get("first", at)), max(at, entry.get("last", at))
            properties = event.get("event_properties")
            for key, value in properties.items() if isinstance(properties, dict) else ():
                if len(entry["properties"]) < 200 or key in entry["properties"]:
                    seen = entry["properties"].setdefault(key, {"name": key, "types": set(), "count": 0, "sample": ""})
                    seen["count"] += 1
                    seen["types"].add(_json_type(value))
                    seen["sample"] = json.dumps(value, ensure_ascii=False)[:80]
        return [
            {
                **entry,
                "users": len(entry["users"]),
                "properties": [{**seen, "types": sorted(seen["types"])} for seen in entry["properties"].values()],
            }
            for entry in sorted(types.values(), key=lambda entry: (-entry["count"], entry["type"]))
        ]

    # ------------------------------------------------------------------------------------------------------- changes

    def set_fault(self, name: str, **options: Any) -> None:
        """Switch a fault on (see `Faults.set`)."""
        with self.changed:
            self._faults.set(name, **options)
            self._tell()

    def clear_faults(self, name: str | None = None) -> None:
        """Switch all faults off, or those of one name; requests that hang end."""
        with self.changed:
            self._faults.clear(name)
            self._tell()

    def faults(self) -> Json:
        """Give the faults that are on and those there are."""
        with self.changed:
            kinds = [{"fault": name, "words": kind.words, "options": kind.options, "stored": kind.stored} for name, kind in KINDS.items()]
            return {"active": [fault.as_json() for fault in self._faults.active()], "kinds": kinds}

    def post_counters(self, body: Json) -> None:
        """Keep the newest counters of a process (see `Processes.post`)."""
        with self.changed:
            self._processes.post(body)
            self._tell()

    def counters(self) -> Json:
        """Give the newest counters of each process, and the refusals of all."""
        with self.changed:
            return self._processes.answer()

    def reset(self) -> None:
        """Forget events, duplicates, requests, counters and faults."""
        with self.changed:
            self._store.reset()
            self._limits.reset()
            self._people.forget()
            self._processes.forget()
            self._faults.clear()
            self._forget()
            self.epoch += 1
            self._tell()

    def wait_for(self, predicate: Callable[[], bool], timeout: float) -> bool:
        """Wait until the predicate holds, asking it after each change; tell whether it does.

        The lock is free while the predicate runs in the caller's thread, so it may ask anything.
        """
        deadline = time.monotonic() + timeout
        while True:
            with self.changed:
                version = self.version
            if predicate():
                return True
            if not self.wait_for_change(version, max(deadline - time.monotonic(), 0)) or self.stopped:
                return False

    def wait_for_change(self, version: int, timeout: float) -> bool:
        """Wait until something changed after `version` or the sandbox stops; tell whether it did."""
        with self.changed:
            return self.changed.wait_for(lambda: self.version != version or self.stopped, timeout)

    def stop(self) -> None:
        """Wake everyone who waits; uploads still in a fault end now."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()

    def close(self) -> None:
        """Close the store, after every request has ended."""
        self._store.close()


_JSON_TYPES: list[tuple[type | tuple[type, ...], str]] = [
    (bool, "boolean"),
    ((int, float), "number"),
    (str, "text"),
    (list, "list"),
    (dict, "object"),
]


def _json_type(value: Any) -> str:
    return next((name for types, name in _JSON_TYPES if isinstance(value, types)), "null")
