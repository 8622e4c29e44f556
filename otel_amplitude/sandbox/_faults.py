"""The faults one can switch on: which exist, which are on, and for how many more requests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otel_amplitude.sandbox import _contract as contract

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from otel_amplitude.sandbox._contract import Endpoint, Event, Json


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of fault: what it does in words, its options with their defaults, and whether it stores the events."""

    words: str
    options: dict[str, int | float | str] = field(default_factory=dict)
    stored: bool = False


KINDS: dict[str, Kind] = {
    "status": Kind("The server fails with this status; “retry after” seconds add the header", {"status": 503, "retry_after": 0}),
    "latency": Kind("Every answer takes this many seconds longer", {"seconds": 1.0}, stored=True),
    "hang": Kind("The request is taken and never answered; after this many seconds the connection is cut", {"seconds": 300.0}),
    "trickle": Kind("The usual answer, one byte at a time, this many seconds apart", {"seconds": 0.25}, stored=True),
    "throttle_device": Kind("429 that names this device; its neighbours in the request suffer too", {"device": ""}),
    "throttle_user": Kind("429 that names this user; neighbours in the request suffer too", {"user": ""}),
    "throttle_project": Kind("429 without ids: the project's own limit"),
    "too_large": Kind("413 for bodies above this many bytes (unpacked)", {"bytes": 10_000}),
    "too_many": Kind("413 for requests of more than this many events", {"events": 10}),
    "invalid_key": Kind("400 for any key, which the answer echoes, as the real one does"),
    "silence_device": Kind("400 that names this device as silenced", {"device": ""}),
    "quota_device": Kind("429: this device's daily quota is used up", {"device": ""}),
    "quota_user": Kind("429: this user's daily quota is used up", {"user": ""}),
    "reset": Kind("The connection is reset before anything is stored"),
    "reset_after": Kind("The events are stored, then the connection is reset: was it accepted?", stored=True),
    "half_answer": Kind("The events are stored, then the connection ends in the middle of the answer", stored=True),
    "html": Kind("200 with an HTML page, as a hotel's proxy would; nothing is stored"),
    "empty": Kind("200 with an empty body; nothing is stored"),
    "redirect": Kind(
        "A redirect; a client that follows it gives its key away", {"status": 307, "location": "http://127.0.0.1:9/elsewhere"}
    ),
}

BEFORE = frozenset(("latency", "hang", "reset"))
AFTER = frozenset(("trickle", "reset_after", "half_answer"))


@dataclass(slots=True)
class Fault:
    """One fault that is switched on. `count` is how many more requests it hits; None is without end."""

    name: str
    options: dict[str, Any]
    count: int | None = None
    path: str | None = None
    stored: bool = False
    hits: int = 0
    cleared: bool = False
    """Switched off by hand, so that requests it holds end; not set when its count is used up."""

    def as_json(self) -> Json:
        """Give what the page shows."""
        return {
            "fault": self.name,
            **self.options,
            "count": self.count,
            "path": self.path,
            "stored": self.stored,
            "hits": self.hits,
            "words": KINDS[self.name].words,
        }

    def touches(self, endpoint: Endpoint, events: list[Event], size: int) -> bool:
        """Tell whether this request is one that the fault hits."""
        if self.path not in (None, endpoint.path):
            return False
        if "device" in self.options:
            return any(event.get("device_id") == self.options["device"] for event in events)
        if "user" in self.options:
            return any(event.get("user_id") == self.options["user"] for event in events)
        return bool(size > self.options.get("bytes", -1) and len(events) > self.options.get("events", -1))


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer ready to be written."""

    status: int
    body: Json | bytes
    headers: dict[str, str] = field(default_factory=dict)


def _status(fault: Fault, *_: Any) -> Reply:
    status, wait = int(fault.options["status"]), fault.options["retry_after"]
    return Reply(status, contract.refusal(status, "Switched on in the sandbox"), {"Retry-After": str(wait)} if wait else {})


def _throttle(fault: Fault, endpoint: Endpoint, events: list[Event], _key: str) -> Reply:
    rate = int(endpoint.eps) + 11
    devices = {fault.options["device"]: rate} if "device" in fault.options else {}
    users = {fault.options["user"]: rate} if "user" in fault.options else {}
    return Reply(429, contract.throttled(events, endpoint.eps, devices=devices, users=users))


def _quota(fault: Fault, endpoint: Endpoint, events: list[Event], _key: str) -> Reply:
    devices = {fault.options["device"]: 500_200} if "device" in fault.options else {}
    users = {fault.options["user"]: 500_200} if "user" in fault.options else {}
    return Reply(429, contract.throttled(events, endpoint.eps, quota_devices=devices, quota_users=users))


def _silence(fault: Fault, endpoint: Endpoint, events: list[Event], _key: str) -> Reply:
    return Reply(400, contract.silenced(events, endpoint.eps, [fault.options["device"]]))


def _html(*_: Any) -> Reply:
    return Reply(200, b"<html><body><h1>Please sign in</h1></body></html>", {"Content-Type": "text/html"})


REPLIES: dict[str, Callable[[Fault, Endpoint, list[Event], str], Reply]] = {
    "status": _status,
    "throttle_device": _throttle,
    "throttle_user": _throttle,
    "throttle_project": _throttle,
    "too_large": lambda *_: Reply(413, contract.too_large()),
    "too_many": lambda *_: Reply(413, contract.too_large()),
    "invalid_key": lambda _fault, _endpoint, _events, key: Reply(400, contract.invalid_key(key)),
    "silence_device": _silence,
    "quota_device": _quota,
    "quota_user": _quota,
    "html": _html,
    "empty": lambda *_: Reply(200, b""),
    "redirect": lambda fault, *_: Reply(int(fault.options["status"]), b"", {"Location": fault.options["location"]}),
}


def reply(fault: Fault, endpoint: Endpoint, events: list[Event], api_key: str) -> Reply:
    """Give the answer that a fault (neither in `BEFORE` nor in `AFTER`) puts in place of the real one."""
    return REPLIES[fault.name](fault, endpoint, events, api_key)


def _option(name: str, option: str, value: Any, default: float | str) -> Any:
    shown = repr(value)[:80]
    if isinstance(default, str):
        if not isinstance(value, str) or not value or not value.isprintable():
            raise ValueError(f"fault {name} needs {option}: printable text, not {shown}")
        return value
    least, most = (200, 599) if option == "status" else (0, 100_000_000)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError(f"{option} of fault {name} must be a number from {least} to {most}, not {shown}")
    return value


MAX_ON = 100


class Faults:
    """The faults that are on. The caller holds the lock."""

    def __init__(self) -> None:
        self._on: dict[tuple[str, str], Fault] = {}

    def set(self, name: str, count: int | None = None, path: str | None = None, stored: bool | None = None, **options: Any) -> Fault:
        """Switch a fault on, in place of one of the same name (and, where it has one, the same device or user).

        Args:
            name: a key of `KINDS`.
            count: hit only this many requests; None is until cleared.
            path: hit only this upload path; None is all.
            stored: whether the events are stored all the same (for faults that replace the answer); None is the kind's own way.
            options: those of the kind.

        Raises:
            ValueError: no such fault, or an option it does not know or cannot use.
        """
        kind = KINDS.get(name)
        if kind is None:
            raise ValueError(f"no fault is called {name!r:.80}; there are {', '.join(sorted(KINDS))}")
        unknown = sorted(options.keys() - kind.options.keys())
        if unknown:
            raise ValueError(f"fault {name} has no option {unknown[0]!r:.80}; it has {', '.join(kind.options) or 'none'}")
        if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
            raise ValueError(f"count of fault {name} must be a whole number from 1 on, or left out, not {count!r:.80}")
        if path is not None and path not in contract.ENDPOINTS:
            raise ValueError(f"path of fault {name} must be one of {', '.join(contract.ENDPOINTS)}, not {path!r:.80}")
        chosen = {option: _option(name, option, options.get(option, default), default) for option, default in kind.options.items()}
        fault = Fault(name, chosen, count, path, kind.stored if stored is None else bool(stored))
        key = (name, str(chosen.get("device") or chosen.get("user") or ""))
        self._drop([key] if key in self._on else list(self._on)[: -MAX_ON + 1])
        self._on[key] = fault
        return fault

    def clear(self, name: str | None = None) -> None:
        """Switch all faults off, or those of one name."""
        self._drop([key for key in self._on if name in (None, key[0])])

    def active(self) -> list[Fault]:
        """Give the faults that are on, oldest first."""
        return list(self._on.values())

    def take(self, names: AbstractSet[str], endpoint: Endpoint, events: list[Event], size: int) -> list[Fault]:
        """Give the faults among `names` that hit this request, and count them as used once."""
        hit = [fault for fault in self._on.values() if fault.name in names and fault.touches(endpoint, events, size)]
        for fault in hit:
            fault.hits += 1
            if fault.count is not None:
                fault.count -= 1
        self._on = {key: fault for key, fault in self._on.items() if fault.count != 0}
        return hit

    def _drop(self, keys: list[tuple[str, str]]) -> None:
        for key in keys:
            self._on.pop(key).cleared = True
