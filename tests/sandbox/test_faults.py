"""Which faults there are, what they refuse to be, and whom they hit."""

from __future__ import annotations

from typing import Any

import pytest

from otel_amplitude.sandbox import _faults
from otel_amplitude.sandbox._contract import BATCH, HTTPAPI
from otel_amplitude.sandbox._faults import AFTER, BEFORE, KINDS, REPLIES, Faults, reply

EVENTS = [{"device_id": "device-1", "user_id": "user-1"}, {"device_id": "device-2", "user_id": "user-2"}]
NEEDED = {"device": "device-2", "user": "user-2"}


def needed(name: str) -> dict[str, Any]:
    """The options that have no usable default."""
    return {option: NEEDED[option] for option in KINDS[name].options if option in NEEDED}


def test_every_kind_is_carried_out_somewhere() -> None:
    """Each kind acts before the answer, instead of it, or while it is written, and says in words what it does."""
    assert BEFORE | AFTER | REPLIES.keys() == KINDS.keys()
    assert not REPLIES.keys() & (BEFORE | AFTER)
    assert all(kind.words for kind in KINDS.values())


@pytest.mark.parametrize("name", sorted(KINDS))
def test_each_can_be_switched_on_with_its_defaults(name: str) -> None:
    """Only ids have to be given; what the page is told is what was set."""
    faults = Faults()
    faults.set(name, **needed(name))
    (fault,) = faults.active()
    assert fault.as_json() == {
        "fault": name,
        **KINDS[name].options,
        **needed(name),
        "count": None,
        "path": None,
        "stored": KINDS[name].stored,
        "hits": 0,
        "words": KINDS[name].words,
    }


WRONG = [
    ({"name": "fire"}, "no fault is called 'fire'"),
    ({"name": "status", "colour": 1}, "has no option 'colour'; it has status, retry_after"),
    ({"name": "html", "status": 1}, "it has none"),
    ({"name": "status", "status": "503"}, "must be a number from 200 to 599"),
    ({"name": "status", "status": 99}, "must be a number from 200 to 599"),
    ({"name": "latency", "seconds": -1}, "must be a number from 0"),
    ({"name": "latency", "seconds": True}, "must be a number"),
    ({"name": "latency", "seconds": float("nan")}, "must be a number"),
    ({"name": "throttle_device"}, "needs device"),
    ({"name": "throttle_user", "user": 7}, "needs user"),
    ({"name": "redirect", "location": "a\r\nSet-Cookie: b"}, "needs location: printable"),
    ({"name": "empty", "count": 0}, "count of fault empty"),
    ({"name": "empty", "count": 1.5}, "count of fault empty"),
    ({"name": "empty", "count": True}, "count of fault empty"),
    ({"name": "empty", "path": "/elsewhere"}, "path of fault empty must be one of /2/httpapi"),
]


@pytest.mark.parametrize(("given", "message"), WRONG, ids=lambda value: str(value)[:50])
def test_wrong_settings(given: dict[str, Any], message: str) -> None:
    """A wrong fault, option, value, count or path is refused with what would be right, and nothing is switched on."""
    faults = Faults()
    with pytest.raises(ValueError, match="fault") as refused:
        faults.set(**given)
    assert message in str(refused.value)
    assert faults.active() == []


def test_count() -> None:
    """A fault hits as many requests as it says and is then off, without having been cleared."""
    faults = Faults()
    fault = faults.set("status", count=2)
    hits = [bool(faults.take({"status"}, HTTPAPI, EVENTS, 10)) for _ in range(3)]
    assert (hits, fault.hits, fault.cleared, faults.active()) == ([True, True, False], 2, False, [])


@pytest.mark.parametrize(
    ("given", "endpoint", "size", "hit"),
    [
        ({"name": "empty", "path": "/batch"}, HTTPAPI, 10, False),
        ({"name": "empty", "path": "/batch"}, BATCH, 10, True),
        ({"name": "throttle_device", "device": "device-2"}, HTTPAPI, 10, True),
        ({"name": "throttle_device", "device": "device-3"}, HTTPAPI, 10, False),
        ({"name": "quota_user", "user": "user-1"}, HTTPAPI, 10, True),
        ({"name": "quota_user", "user": "user-3"}, HTTPAPI, 10, False),
        ({"name": "too_large", "bytes": 10}, HTTPAPI, 10, False),
        ({"name": "too_large", "bytes": 10}, HTTPAPI, 11, True),
        ({"name": "too_many", "events": 2}, HTTPAPI, 10, False),
        ({"name": "too_many", "events": 1}, HTTPAPI, 10, True),
    ],
    ids=str,
)
def test_whom_it_hits(given: dict[str, Any], endpoint: Any, size: int, hit: bool) -> None:
    """A fault hits requests of its path, its device or user, above its size; others do not use up its count."""
    faults = Faults()
    fault = faults.set(**given, count=1)
    assert faults.take({given["name"]}, endpoint, EVENTS, size) == ([fault] if hit else [])
    assert faults.active() == ([] if hit else [fault])


def test_replacing_and_clearing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same fault again takes the place of the first; devices stand beside each other; clearing tells who waits; there is a bound."""
    faults = Faults()
    first = faults.set("hang")
    second = faults.set("hang", seconds=2)
    one, other = faults.set("throttle_device", device="one"), faults.set("throttle_device", device="other")
    assert (first.cleared, faults.active()) == (True, [second, one, other])
    faults.clear("throttle_device")
    assert (one.cleared, other.cleared, faults.active()) == (True, True, [second])
    faults.clear()
    assert faults.active() == []
    monkeypatch.setattr(_faults, "MAX_ON", 2)
    for number in range(4):
        faults.set("silence_device", device=f"device-{number}")
    assert [fault.options["device"] for fault in faults.active()] == ["device-2", "device-3"]


def body(name: str, **options: Any) -> Any:
    """The reply of a fault."""
    return reply(Faults().set(name, **needed(name), **options), HTTPAPI, EVENTS, "the-key")


def test_replies() -> None:
    """Each replacing fault answers as the reference says Amplitude (or something in between) does."""
    assert body("status").status == 503
    assert body("status", status=500, retry_after=7).headers == {"Retry-After": "7"}
    device = body("throttle_device")
    assert (device.status, device.body["throttled_devices"], device.body["throttled_events"]) == (429, {"device-2": 41}, [1])
    assert (body("throttle_user").body["throttled_users"], body("throttle_user").body["throttled_events"]) == ({"user-2": 41}, [1])
    project = body("throttle_project").body
    assert not any(project[name] for name in project if name.startswith(("throttled", "exceeded")))
    assert body("quota_device").body["exceeded_daily_quota_devices"] == {"device-2": 500_200}
    assert body("quota_user").body["exceeded_daily_quota_users"] == {"user-2": 500_200}
    assert (body("silence_device").status, body("silence_device").body["silenced_events"]) == (400, [1])
    assert body("invalid_key").body["error"] == "Invalid API key: the-key"
    assert body("too_large").body == body("too_many").body == {"code": 413, "error": "Payload too large"}
    assert (body("html").status, body("html").headers) == (200, {"Content-Type": "text/html"})
    assert (body("empty").status, body("empty").body) == (200, b"")
    assert (body("redirect", status=308).status, list(body("redirect").headers)) == (308, ["Location"])
