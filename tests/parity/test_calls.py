"""The same calls made with Amplitude's clients for Node and Python, and with ours: what arrived is the same, but for what is listed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import needs
import pytest
from parity.calls import BAD_CALLS, CALLS, user_of
from parity.differences import ALL, ARRIVED, BOTH, REFUSED, Refusal

from otel_amplitude import Amplitude, Config, Identify, Result, Revenue
from otel_amplitude.sandbox import Sandbox

HERE: Final = Path(__file__).parent
PACKAGES: Final = ("@amplitude/node@1.10.2", "@amplitude/identify@1.10.2")
METHODS: Final = {"setOnce": "set_once", "preInsert": "pre_insert", "postInsert": "post_insert", "clearAll": "clear_all"}
KEYS: Final = {"productId": "product_id", "revenueType": "revenue_type", "receiptSig": "receipt_sig"}
BY_NAME: Final = {call["name"]: call for call in (*CALLS, *BAD_CALLS)}

pytestmark = [pytest.mark.heavy, pytest.mark.node]


@dataclass(frozen=True)
class Run:
    """What one client did: the events that arrived and what it said, by the name of the call, and the `extra` middleware saw."""

    events: dict[str, dict[str, Any]]
    said: dict[str, str]
    seen: dict[str, Any]


def events_by_call(sandbox: Sandbox) -> dict[str, dict[str, Any]]:
    """What was accepted."""
    return {str(event.get("user_id")).removeprefix("case-"): event for event in sandbox.events()}


def run_official(command: list[str], sandbox: Sandbox, **environment: str) -> Run:
    silent = {refusal.name for refusal in REFUSED if refusal.python == "nothing"}  # for all others something is said, and waited for
    calls = [{**call, "user": user_of(call), "silent": name in silent} for name, call in BY_NAME.items()]
    order = json.dumps({"url": f"{sandbox.url}/2/httpapi", "calls": calls})
    done = subprocess.run(command, input=order, capture_output=True, text=True, timeout=55, check=True, env={**os.environ, **environment})
    told = json.loads(done.stdout)
    return Run(events_by_call(sandbox), told["said"], told.get("seen", {}))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All calls by `@amplitude/node`."""
    folder = tmp_path_factory.mktemp("official")
    install = [needs.npm(), "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent", "--prefix", str(folder), *PACKAGES]
    subprocess.run(install, check=True, timeout=50)
    with Sandbox() as sandbox:
        return run_official([needs.node(), str(HERE / "official.js")], sandbox, NODE_PATH=str(folder / "node_modules"))


@pytest.fixture(scope="module")
def python() -> Run:
    """All calls by `amplitude-analytics`."""
    with Sandbox() as sandbox:
        return run_official([sys.executable, str(HERE / "official.py")], sandbox)


def identify_of(operations: list[list[Any]]) -> Identify:
    made = Identify()
    for name, *values in operations:
        getattr(made, METHODS.get(name, name))(*values)
    return made


def make(client: Amplitude, call: dict[str, Any]) -> Result:
    """One call with our client."""
    user, wait = user_of(call), {"timeout": 10}
    if call["call"] == "identify":
        return client.identify(user, None, identify_of(call["operations"]), **wait)
    if call["call"] == "set_group":
        return client.set_group(user, None, *call["group"], **wait)
    if call["call"] == "group_identify":
        return client.group_identify(*call["group"], identify_of(call["operations"]), user_id=user, **wait)
    if call["call"] == "revenue":
        return client.revenue(user, None, Revenue(**{KEYS.get(name, name): value for name, value in call["revenue"].items()}), **wait)
    return client.log_event(call["event"] if user is None else {**call["event"], "user_id": user}, call.get("extra"), **wait)


@pytest.fixture(scope="module")
def ours() -> Run:
    """All calls by our client."""
    seen: dict[str, Any] = {}

    def look(payload: Any, next: Any) -> None:
        if payload.extra:
            seen[payload.event.user_id.removeprefix("case-")] = payload.extra
        next(payload)

    with Sandbox() as sandbox:
        client = Amplitude(Config("some-key", server_url=f"{sandbox.url}/2/httpapi", upload_interval=0, middleware=[look]))
        results = {name: make(client, call) for name, call in BY_NAME.items()}
        client.shutdown(5)
        assert client.stats().balanced
        said = {name: f"{result.outcome} {result.message or result.reason}".strip() for name, result in results.items()}
        return Run(events_by_call(sandbox), said, seen)


ABSENT: Final = "absent"


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of an event by the path of its keys; an empty map is a value."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else key)
    else:
        yield path, value


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> set[tuple[str, str]]:
    """The paths at which two events differ, and how: `absent` (with us), `added` or `changed`."""
    mine, other = dict(leaves(ours)), dict(leaves(theirs))
    return {
        (path, "added" if path not in other else ABSENT if path not in mine else "changed")
        for path in {*mine, *other}
        if mine.get(path, ABSENT) != other.get(path, ABSENT)
    }


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("client", BOTH)
def test_what_arrived_is_the_same(client: str, name: str, ours: Run, request: pytest.FixtureRequest) -> None:
    """Event by event and key by key, but for the differences on the list, each of which is there."""
    theirs: Run = request.getfixturevalue(client)
    intended = {(difference.path, difference.how) for difference in ARRIVED if difference.client == client and name in difference.calls}
    assert differences(ours.events[name], theirs.events[name]) == intended


@pytest.mark.parametrize("refusal", REFUSED, ids=lambda refusal: refusal.name)
def test_bad_calls_are_refused_with_field_and_rule(refusal: Refusal, ours: Run, node: Run, python: Run) -> None:
    """Nothing of them arrives; the others' ways are known."""
    assert ours.said[refusal.name].startswith(f"refused {refusal.ours}")
    assert refusal.name not in ours.events
    assert (node.said[refusal.name], python.said[refusal.name]) == (refusal.node, refusal.python)
    assert {client for client, run in zip(BOTH, (node, python), strict=True) if refusal.name in run.events} == set(refusal.accepted)


def test_all_good_calls_are_taken(ours: Run, node: Run, python: Run) -> None:
    """By everyone; every bad call has its line in the table."""
    assert {ours.said[name] for name in ALL} == {"acknowledged"}
    assert {node.said[name] for name in ALL} == {"success 200"}
    assert {python.said[name] for name in ALL} == {"200"}
    assert {refusal.name for refusal in REFUSED} == {call["name"] for call in BAD_CALLS}


def test_middleware_sees_extra_as_in_node(ours: Run, node: Run) -> None:
    """The same data; the Python client has none."""
    assert ours.seen == node.seen == {"extra": {"trusted": True}}
