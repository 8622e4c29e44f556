"""The project without a socket: uploads in, decisions out."""

from __future__ import annotations

import gzip
import json
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_amplitude.sandbox import _project
from otel_amplitude.sandbox._contract import ENDPOINTS, HTTPAPI, IDENTIFY
from otel_amplitude.sandbox._faults import KINDS
from otel_amplitude.sandbox._limits import EpsLimits
from otel_amplitude.sandbox._project import Project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

JSON = {"content-type": "application/json"}


@pytest.fixture
def project() -> Iterator[Project]:
    """A project that takes any key and has no limits."""
    made = Project(None, None, None)
    yield made
    made.close()


def upload(project: Project, *events: Any, key: str = "some-key", path: str = "/2/httpapi") -> tuple[int, Any]:
    """Upload events; gives status and body, or 0 and None after a reset."""
    decision = project.receive(ENDPOINTS[path], JSON, json.dumps({"api_key": key, "events": list(events)}).encode())
    return (decision.reply.status, decision.reply.body) if decision else (0, None)


def test_accepting(project: Project, make_event: Any) -> None:
    """Accepted events are kept as sent and in order; duplicates are answered 200 and counted; keys are projects of their own."""
    first, second = make_event(), make_event(event_properties={"a": [1, None, "ü"]})
    assert upload(project, first, second, first)[1]["events_ingested"] == 3
    assert (project.events(), project.accepted, project.duplicates) == ([first, second], 2, 1)
    upload(project, first, key="another-key")
    assert (project.accepted, project.duplicates) == (3, 1)


def test_refusing(project: Project, make_event: Any) -> None:
    """Nothing of a rejected request is stored; the problem names the reason, the offenders and the words."""
    upload(project, make_event(), make_event(time="now"))
    assert (project.events(), project.accepted) == ([], 0)
    (problem,) = project.problems()["rejections"]
    assert (problem["status"], problem["reason"], problem["events"], problem["offenders"]) == (400, "invalid fields", 2, 1)
    assert "milliseconds" in problem["words"][0]["words"]
    assert [row["verdict"] for row in project.find()] == ["rejected"]
    assert project.summary()["rejections"] == {"invalid fields": 1}


def test_keys(make_event: Any) -> None:
    """Only known keys are taken, and no key shows up in what the page may ask for."""
    project = Project(["known-key"], None, None)
    assert upload(project, make_event(), key="known-key")[0] == 200
    assert upload(project, make_event(), key="strange-key")[1]["error"] == "Invalid API key: strange-key"
    seen = json.dumps([project.find(), project.summary(), project.problems(), project.catalog(), project.timeline("customer-42")])
    assert "known-key" not in seen
    assert "strange-key" not in seen
    project.close()


def test_rate_limits(make_event: Any) -> None:
    """A device that sends too fast is refused with 429 while others pass."""
    project = Project(None, EpsLimits(httpapi=1.0, window=1_000.0), None)
    noisy = [make_event(device_id="noisy-device", user_id="noisy-user") for _ in range(1_001)]
    status, body = upload(project, *noisy)
    assert (status, len(body["throttled_events"])) == (429, 1_001)
    assert upload(project, make_event())[0] == 200
    assert upload(project, *noisy[:999])[0] == 200
    assert upload(project, *noisy[:2])[0] == 429
    project.reset()
    assert upload(project, *noisy[:2])[0] == 200
    project.close()


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"hang", "latency"}))
def test_whether_a_fault_stores(project: Project, make_event: Any, name: str) -> None:
    """Each fault stores the events or not, as it says, and a client that resends ends with each event once."""
    options: dict[str, Any] = {option: {"device": "device-0001", "user": "customer-42"}.get(option) for option in KINDS[name].options}
    project.set_fault(
        name,
        count=1,
        **{option: value for option, value in options.items() if value},
        **({"bytes": 1} if name == "too_large" else {}),
        **({"events": 0} if name == "too_many" else {}),
    )
    event = make_event()
    upload(project, event)
    assert project.accepted == int(KINDS[name].stored)
    assert upload(project, event)[0] == 200
    assert (project.events(), project.accepted, project.duplicates) == ([event], 1, int(KINDS[name].stored))
    assert project.faults()["active"] == []


def test_a_500_can_store_all_the_same(project: Project, make_event: Any) -> None:
    """The choice is the user's: `stored` turns a plain 500 into one after which nobody knows."""
    project.set_fault("status", status=500, stored=True, count=1)
    assert upload(project, make_event())[0] == 500
    assert (project.accepted, project.problems()["rejections"][0]["stored"]) == (1, True)


def test_latency_and_hang_end_when_cleared_or_stopped(project: Project, make_event: Any) -> None:
    """A request that is held goes on when its fault is cleared, ends without an answer when it hung, and never outlives the project."""
    answers: list[int] = []

    def send() -> threading.Thread:
        thread = threading.Thread(target=lambda: answers.append(upload(project, make_event())[0]))
        thread.start()
        assert project.wait_for(lambda: any(fault["hits"] for fault in project.faults()["active"]), 5.0)
        return thread

    for name, ends, answer in (("latency", project.clear_faults, 200), ("hang", project.clear_faults, 0), ("hang", project.stop, 0)):
        project.set_fault(name, seconds=60)
        thread = send()
        ends()
        thread.join(30.0)  # less than the fault lasts
        assert answers.pop() == answer
    assert project.accepted == 1


def test_a_fault_that_is_used_up_still_holds(project: Project, make_event: Any) -> None:
    """The last request of a count waits its full time: used up is not cleared."""
    project.set_fault("latency", seconds=0.05, count=1)
    assert upload(project, make_event())[0] == 200
    project.set_fault("hang", seconds=0.05, count=1)
    assert upload(project, make_event())[0] == 0
    assert [request.status for request in project.requests()] == [200, 0]


def test_what_is_received(project: Project, make_event: Any) -> None:
    """Requests are remembered unpacked, with their encoding and status; broken ones as they came."""
    body = json.dumps({"api_key": "some-key", "events": [make_event()]}).encode()
    project.receive(HTTPAPI, {**JSON, "content-encoding": "gzip"}, gzip.compress(body))
    project.receive(HTTPAPI, {**JSON, "content-encoding": "gzip"}, b"broken")
    project.receive(HTTPAPI, {**JSON, "content-encoding": "br"}, b"other")
    seen = [(request.path, request.body, request.encoding, request.status, request.events) for request in project.requests()]
    assert seen == [
        ("/2/httpapi", body, "gzip", 200, 1),
        ("/2/httpapi", b"broken", "gzip", 400, 0),
        ("/2/httpapi", b"other", "br", 415, 0),
    ]


def test_requests_are_bounded(project: Project, make_event: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest requests are forgotten, by number and by the size of their bodies; totals go on."""
    monkeypatch.setattr(_project, "MAX_REQUESTS", 3)
    for _ in range(5):
        upload(project, make_event())
    assert len(project.requests()) == 3
    monkeypatch.setattr(_project, "MAX_REQUEST_BYTES", 1)
    upload(project, make_event())
    assert len(project.requests()) == 1
    assert project.summary()["requests"] == 6


def test_identify(project: Project) -> None:
    """The Identify API changes the user as the event does."""
    project.receive(
        IDENTIFY,
        {"content-type": "application/x-www-form-urlencoded"},
        b'api_key=k&identification={"user_id":"customer-42","user_properties":{"plan":"pro"}}',
    )
    upload(project, {"event_type": "$identify", "user_id": "customer-42", "user_properties": {"$add": {"orders": 2}}})
    upload(
        project,
        {"event_type": "$groupidentify", "user_id": "customer-42", "groups": {"org": "acme"}, "group_properties": {"$set": {"size": 3}}},
    )
    assert project.user_properties("customer-42") == {"plan": "pro", "orders": 2}
    assert project.group_properties("org", "acme") == {"size": 3}


def test_a_file_is_taken_up_again(tmp_path: Path) -> None:
    """A second run over the same file knows the events, the users and the duplicates of the first."""
    path, event = (
        str(tmp_path / "sandbox.db"),
        {"event_type": "$identify", "user_id": "customer-42", "insert_id": "one", "user_properties": {"plan": "pro"}},
    )
    first = Project(None, None, path)
    upload(first, event)
    first.close()
    second = Project(None, None, path)
    upload(second, event)
    assert (second.events(), second.duplicates, second.user_properties("customer-42")) == ([event], 1, {"plan": "pro"})
    second.close()
    assert b"some-key" not in (tmp_path / "sandbox.db").read_bytes()


def test_catalog(project: Project, make_event: Any) -> None:
    """Each type has its count, people, and properties with types, frequency and a short sample."""
    upload(
        project,
        make_event(event_properties={"total": 1.5, "ok": True, "items": [1], "more": {}, "none": None}),
        make_event(event_properties={"total": "x" * 200}),
    )
    upload(project, make_event(event_type="Clicked", event_properties=None))
    paid, clicked = project.catalog()
    assert (paid["type"], paid["count"], paid["users"]) == ("Order Placed", 2, 1)
    properties = {entry["name"]: entry for entry in paid["properties"]}
    assert {name: entry["types"] for name, entry in properties.items()} == {
        "total": ["number", "text"],
        "ok": ["boolean"],
        "items": ["list"],
        "more": ["object"],
        "none": ["null"],
    }
    assert (properties["total"]["count"], len(properties["total"]["sample"])) == (2, 80)
    assert (clicked["type"], clicked["properties"]) == ("Clicked", [])
    upload(project, make_event(event_type="Clicked", event_properties={f"p{number}": 1 for number in range(300)}))
    assert len(project.catalog()[0]["properties"]) == 200


def test_the_chart_is_bounded(project: Project, make_event: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accepted, duplicate and rejected events are counted for each of the last 120 seconds."""
    moments = iter(range(1_000, 1_200))
    monkeypatch.setattr(_project, "time", SimpleNamespace(time=lambda: float(next(moments))))  # other threads have the real one
    event = make_event()
    upload(project, event, event)
    upload(project, {"event_type": ""}, make_event())
    project.receive(HTTPAPI, JSON, b"")
    assert project._seconds == {1_000: [1, 1, 0], 1_001: [0, 0, 2], 1_002: [0, 0, 1]}
    for _ in range(130):
        project.receive(HTTPAPI, JSON, b"")
    assert len(project.summary()["seconds"]) == 120


def test_waiting(project: Project, make_event: Any) -> None:
    """wait_for asks again after each change and no oftener, and gives up in time or when the project stops."""
    asked: list[int] = []

    def three() -> bool:
        asked.append(project.accepted)
        return project.accepted == 3

    sender = threading.Thread(target=lambda: [upload(project, make_event()) for _ in range(3)])
    sender.start()
    assert project.wait_for(three, 5.0)
    sender.join()
    assert len(asked) <= 4
    assert not project.wait_for(lambda: False, 0.01)
    project.stop()
    assert not project.wait_for(lambda: False, 60.0)


bodies = st.binary(max_size=60) | st.recursive(
    st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner)
).map(lambda value: json.dumps(value).encode())
ids = st.sampled_from(["device-0001", "device-0002", "", "none", None, 7, "\x00\x01\x02\x03\x04", "é" * 2_000])
event_like = st.fixed_dictionaries(
    {},
    optional={
        "event_type": ids,
        "user_id": ids,
        "device_id": ids,
        "time": ids | st.integers(),
        "session_id": st.integers(),
        "insert_id": ids,
        "user_properties": st.dictionaries(
            st.sampled_from(["$set", "$add", "a"]), st.dictionaries(st.text(max_size=2), ids, max_size=2), max_size=2
        ),
    },
)
event_bodies = st.lists(event_like, max_size=4).map(lambda events: json.dumps({"api_key": "k", "events": events}).encode())


@given(
    requests=st.lists(st.tuples(st.sampled_from(sorted(ENDPOINTS)), bodies | event_bodies, st.sampled_from(["", "gzip", "x"])), max_size=5)
)
def test_any_requests_are_answered(requests: list[tuple[str, bytes, str]]) -> None:
    """Whatever is uploaded where: never an exception, never a 5xx, and every question can be answered afterwards."""
    project = Project(None, EpsLimits(), None)
    for path, body, encoding in requests:
        decision = project.receive(
            ENDPOINTS[path], {"content-type": "application/x-www-form-urlencoded", "content-encoding": encoding}, body
        )
        assert decision is not None
        assert decision.reply.status in (200, 400, 413, 415, 429)
    assert json.dumps([project.find(), project.summary(), project.problems(), project.catalog(), project.timeline("device-0001")])
    assert len(project.events()) == project.accepted
    project.close()
