"""The history, the memory of insert_ids, and the questions asked of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from otel_amplitude.sandbox import _store
from otel_amplitude.sandbox._contract import CHANGE, INVALID, Finding
from otel_amplitude.sandbox._store import SEVEN_DAYS, Row, Store, origin, trace_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def store() -> Iterator[Store]:
    """A store in memory."""
    made = Store(history=50)
    yield made
    made.close()


def add(store: Store, *events: dict[str, Any], verdict: str = "accepted", now: float = 1.0) -> None:
    """Add events without findings."""
    store.add("/batch", [Row(verdict, event, []) for event in events], now)


def event(name: str = "Clicked", **fields: Any) -> dict[str, Any]:
    """An event of Ada on her phone."""
    return {"event_type": name, "user_id": "ada", "device_id": "phone", "time": 1_000, **fields}


def test_the_history_is_bounded() -> None:
    """The oldest accepted events leave first; refused ones have a tenth of the room and push nobody out."""
    store = Store(history=20)
    add(store, *[event(n=number) for number in range(30)])
    add(store, *[event("Bad")] * 50, verdict="rejected")
    assert [kept["n"] for kept in store.events()] == list(range(10, 30))
    assert len(store.find(verdict="rejected")) == 2
    assert len(store.find(limit=1_000)) == 22
    add(store, event(n=30))
    assert [kept["n"] for kept in store.events()][-2:] == [29, 30]
    store.close()


def test_deduplication(store: Store) -> None:
    """Same project, device and insert_id within seven days; anything else is new; without insert_id everything is."""

    def duplicate(now: float, project: str = "p", **fields: Any) -> bool:
        return store.is_duplicate(project, event(**fields), now)

    assert not duplicate(0.0, insert_id="one")
    assert duplicate(1.0, insert_id="one")
    assert duplicate(1.0, insert_id="one", user_id="bob")
    assert not duplicate(1.0, insert_id="two")
    assert not duplicate(1.0, insert_id="one", device_id="tablet")
    assert not duplicate(1.0, insert_id="one", project="q")
    assert not duplicate(1.0)
    assert not duplicate(1.0)
    assert not duplicate(1.0, insert_id="one", device_id=None)
    assert duplicate(1.0, insert_id="one", device_id=None)
    assert not duplicate(1.0, insert_id="one", device_id=None, user_id="bob")
    assert duplicate(SEVEN_DAYS - 1, insert_id="one")
    assert not duplicate(SEVEN_DAYS, insert_id="one")
    assert duplicate(SEVEN_DAYS + 1, insert_id="one")


def test_the_memory_of_insert_ids_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond a million the oldest tenth is forgotten."""
    monkeypatch.setattr(_store, "MAX_SEEN", 10)
    for number in range(11):
        assert not store.is_duplicate("p", event(insert_id=f"id-{number}"), float(number))
    assert not store.is_duplicate("p", event(insert_id="id-0"), 11.0)
    assert store.is_duplicate("p", event(insert_id="id-9"), 11.0)


def test_a_file_keeps_the_history(tmp_path: Path) -> None:
    """What one run took, the next one knows, insert_ids included."""
    path = str(tmp_path / "sandbox.db")
    first = Store(path)
    assert not first.is_duplicate("p", event(insert_id="one"), 1.0)
    add(first, event(insert_id="one"))
    first.close()
    second = Store(path)
    assert second.events() == [event(insert_id="one")]
    assert second.is_duplicate("p", event(insert_id="one"), 2.0)
    second.reset()
    assert (second.events(), second.find(), second.last()) == ([], [], 1)
    second.close()


def test_finding(store: Store) -> None:
    """Newest first; the type exactly, the rest anywhere within and whatever the case."""
    add(
        store,
        event("Clicked"),
        event("Clicked Twice", user_id="Bob"),
        event("Paid", device_id="tablet", event_properties={"note": "Grüße"}),
    )
    add(store, event("Clicked", user_id="bobby"), verdict="duplicate")

    def types(**filters: Any) -> list[str]:
        return [row["type"] for row in store.find(**filters)]

    assert types() == ["Clicked", "Paid", "Clicked Twice", "Clicked"]
    assert types(type="Clicked") == ["Clicked", "Clicked"]
    assert types(user="BOB") == ["Clicked", "Clicked Twice"]
    assert types(device="tab") == ["Paid"]
    assert types(text="grüße") == types(text="note") == ["Paid"]
    assert types(text="'; DROP TABLE events; --") == []
    assert types(verdict="duplicate") == ["Clicked"]
    assert types(since=3) == types(limit=1) == ["Clicked"]


def test_what_a_row_tells(store: Store) -> None:
    """A row has the event as sent, its ids, its trace, and each finding with its kind and words."""
    sent = event(event_properties={"trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}, session_id=5)
    store.add("/batch", [Row("rejected", sent, [Finding(INVALID, "time", "Bad."), Finding(CHANGE, "ip", "Changed.")])], 7.0)
    assert store.find() == [
        {
            "seq": 1,
            "at": 7.0,
            "verdict": "rejected",
            "path": "/batch",
            "type": "Clicked",
            "user": "ada",
            "device": "phone",
            "session": 5,
            "time": 1_000,
            "trace": "4bf92f3577b34da6a3ce929d0e0e4736",
            "sent": sent,
            "notes": [{"kind": "rejected", "field": "time", "words": "Bad."}, {"kind": "changed", "field": "ip", "words": "Changed."}],
            "origin": "server",
        }
    ]


def test_odd_events_can_be_kept(store: Store) -> None:
    """What was refused for odd types is kept as well as it can be, however deep."""
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    add(
        store,
        {"event_type": 7, "user_id": ["x"], "time": 2**70, "session_id": True, "insert_id": {}},
        {"event_properties": deep},
        verdict="rejected",
    )
    deepest, odd = store.find()
    assert (odd["type"], odd["time"], odd["session"], odd["trace"]) == ("7", None, None, "")
    assert "too deeply" in deepest["sent"]["sandbox"]
    while deep:  # taken apart by hand: the interpreter would recurse
        deep = deep.pop()


@pytest.mark.parametrize(
    ("fields", "trace"),
    [
        ({"event_properties": {"trace_id": "abc"}}, "abc"),
        ({"event_properties": {"[Agent] Trace ID": "def"}}, "def"),
        ({"event_properties": {"trace_id": 7}, "insert_id": "0" * 32 + "-1"}, ""),
        ({"insert_id": "short"}, ""),
        ({"event_properties": [], "insert_id": 7}, ""),
    ],
    ids=str,
)
def test_trace_id(fields: dict[str, Any], trace: str) -> None:
    """The trace id is a property of that name; an insert_id is never cut."""
    assert trace_id(event(**fields)) == trace


def test_origin() -> None:
    """Amplitude's browser libraries and the platform Web mean a browser, everything else a server."""
    assert (
        origin(event(library="amplitude-ts/2.48.1"))
        == origin(event(library="amplitude-js/8"))
        == origin(event(platform="Web"))
        == "browser"
    )
    assert origin(event()) == origin(event(library="amplitude-python/1.3.0")) == "server"


def test_types_and_people(store: Store) -> None:
    """Counts and people are of accepted events only; a device without a user is somebody too."""
    add(store, event("Paid"), event("Clicked"), event("Clicked", user_id="bob"), event("Clicked", user_id=None))
    add(store, event("Clicked", user_id="eve"), verdict="rejected")
    assert [(row["type"], row["count"], row["users"]) for row in store.types()] == [("Clicked", 3, 3), ("Paid", 1, 1)]
    assert (store.people(), store.head_count()) == (["phone", "bob", "ada"], 3)


def test_timeline(store: Store) -> None:
    """A user's events in order of their time, with those of the user's devices while nobody was signed in, but not other people's."""
    add(
        store,
        event("second", time=2_000),
        event("first", time=1_000, user_id=None),
        event("other", user_id="bob"),
        event("elsewhere", user_id=None, device_id="tablet"),
        event("without time", time=None),
    )
    assert [row["type"] for row in store.timeline("ada")] == ["first", "without time", "second"]
    assert [row["type"] for row in store.timeline("tablet")] == ["elsewhere"]


def test_changes(store: Store) -> None:
    """Findings on accepted events are summed by their words, the most frequent first."""
    note, other = Finding(CHANGE, "ip", "Changed."), Finding(CHANGE, "time", "Taken.")
    store.add("/batch", [Row("accepted", event(), [note]), Row("accepted", event(), [note, other]), Row("rejected", event(), [note])], 1.0)
    assert store.changes() == [
        {"words": "Changed.", "field": "ip", "count": 2, "example": 2},
        {"words": "Taken.", "field": "time", "count": 1, "example": 2},
    ]
