"""The counters of a client reach a sandbox on this machine, and nothing else reaches anything else."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from servers import Server, accept, answer

from otel_amplitude.client import Amplitude
from otel_amplitude.config import Config
from otel_amplitude.sandbox import Sandbox
from otel_amplitude.telemetry import _sandbox
from otel_amplitude.telemetry._sandbox import counters_for
from otel_amplitude.testing import FakeTransport

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A running sandbox."""
    with Sandbox() as running:
        yield running


@pytest.fixture
def make() -> Iterator[Callable[..., Amplitude]]:
    """A maker of clients, each closed afterwards."""
    made: list[Amplitude] = []

    def client(url: str, **options: Any) -> Amplitude:
        made.append(Amplitude(Config(KEY, server_url=url, log_level="NONE", upload_interval=0, **options)))
        return made[-1]

    yield client
    for one in made:
        one.shutdown(1)


def counters(sandbox: Sandbox) -> dict[str, Any]:
    """What the sandbox was told."""
    return sandbox._running.counters()


def refused(sandbox: Sandbox) -> dict[str, int]:
    """The refusals by reason that the sandbox was told."""
    return {entry["reason"]: entry["count"] for entry in counters(sandbox)["refused"]}


def test_a_service_without_events_shows_its_refusals(sandbox: Sandbox, make: Callable[..., Amplitude]) -> None:
    """The first refusal asks for the token, so that the page explains an empty list from the first second."""
    client = make(f"{sandbox.url}/2/httpapi")
    client.refuse("no_identity")
    assert sandbox.wait_for(lambda _: refused(sandbox) == {"no_identity": 1})
    assert sandbox.requests == []
    (post,) = counters(sandbox)["processes"]
    assert (post["pid"], set(post)) == (os.getpid(), {"service", "pid", "at", "counters"})


def test_counters_follow_uploads(sandbox: Sandbox, make: Callable[..., Amplitude]) -> None:
    """The answer to an upload brings the token; what was accepted and acknowledged is posted with what was refused."""
    client = make(f"{sandbox.url}/2/httpapi")
    client.log_event({"event_type": "Order Paid", "user_id": "u-12345"}, timeout=5)

    def shown() -> list[tuple[int, int]]:
        return [(post["counters"]["accepted"], post["counters"]["acknowledged"]) for post in counters(sandbox)["processes"]]

    assert sandbox.wait_for(lambda _: shown() == [(1, 1)])
    client.refuse("bot")
    assert client.shutdown(5)
    assert refused(sandbox) == {"bot": 1}


def test_nothing_of_an_event_is_posted(make: Callable[..., Amplitude]) -> None:
    """The posts hold numbers, reasons, service and pid: no key and no id."""
    with Server(answers("a-token-for-counters")) as server:
        client = make(server.url)
        client.log_event({"event_type": "Order Paid", "user_id": "secret-user"}, timeout=5)
        client.refuse("bot")
        client.shutdown(5)
        posts = [request for request in server.requests if request.target == "/api/counters"]
    assert posts
    for post in posts:
        assert set(json.loads(post.body)) == {"service", "pid", "counters"}
        assert not [word for word in (KEY, "secret-user", "Order Paid") if word in f"{post.body!r} {post.headers}"]


def answers(token: str) -> Callable[..., bool]:
    """A server that answers everything 200 with a token."""
    return answer(200, headers={"X-Sandbox-Counters": token})


@pytest.mark.parametrize(
    "url",
    [
        "https://api2.amplitude.com/2/httpapi",
        "https://127.0.0.1/2/httpapi",
        "http://localhost:8010/2/httpapi",
        "http://10.0.0.7:8010/2/httpapi",
        "http://127.0.0.1.example.com/2/httpapi",
    ],
)
def test_other_servers_are_never_told(url: str) -> None:
    """Only a literal loopback address of plain http makes anything at all: elsewhere there is no object, so no thread and no cost."""
    client = Amplitude(Config(KEY, server_url=url, log_level="NONE", allow_insecure_http=True))
    assert client._sandbox is None
    assert client._count_refused == client._exporter.refuse
    client.shutdown(0)


def test_own_transports_are_left_alone(sandbox: Sandbox, make: Callable[..., Amplitude]) -> None:
    """Where an own transport or a dry run carries the events, nobody is asked."""
    for options in ({"transport": FakeTransport()}, {"dry_run": True}):
        assert make(f"{sandbox.url}/2/httpapi", **options)._sandbox is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "[::1]"])
def test_literal_loopback_addresses(host: str) -> None:
    """These are told."""
    assert counters_for(f"http://{host}:8010/2/httpapi", lambda: pytest.fail("nothing happened yet")) is not None


def test_a_server_that_is_no_sandbox_is_asked_once(make: Callable[..., Amplitude]) -> None:
    """An answer without the header ends the asking."""
    with Server(accept()) as server:
        client = make(server.url)
        for _ in range(3):
            client.refuse("bot")
            until(lambda: not client._sandbox._mine().thread)  # type: ignore[union-attr]
        client.shutdown(1)
    assert [(request.target, request.body) for request in server.requests] == [("/2/httpapi", b"")]


@pytest.mark.parametrize("token", ["short", "x" * 65, "with space in the middle"])
def test_a_token_that_is_none_is_not_taken(token: str, make: Callable[..., Amplitude]) -> None:
    """Only what a sandbox would make is sent back in a header."""
    with Server(answers(token)) as server:
        client = make(server.url)
        client.refuse("bot")
        until(lambda: client._sandbox._mine().is_other)  # type: ignore[union-attr]
        client.shutdown(1)
    assert [request.target for request in server.requests] == ["/2/httpapi"]


def test_posts_are_a_second_apart(sandbox: Sandbox, make: Callable[..., Amplitude], monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of refusals makes one post in each period."""
    slept: list[float] = []
    monkeypatch.setattr(_sandbox, "time", SimpleNamespace(sleep=slept.append))  # the other threads keep the real one
    posts: list[bytes] = []
    post = sandbox._running.post_counters
    monkeypatch.setattr(sandbox._running, "post_counters", lambda body: (posts.append(body), post(body)))
    client = make(f"{sandbox.url}/2/httpapi")
    for _ in range(1_000):
        client.refuse("bot")
    assert sandbox.wait_for(lambda _: refused(sandbox) == {"bot": 1_000})
    until(lambda: not client._sandbox._mine().thread)  # type: ignore[union-attr]
    assert len(posts) <= len(slept)
    assert set(slept) == {_sandbox.PERIOD} == {1.0}


def test_another_run_of_the_sandbox(make: Callable[..., Amplitude], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its token is another; it is asked for when the old one is refused."""
    monkeypatch.setattr(_sandbox, "PERIOD", 0.01)
    with Sandbox() as first:
        client = make(f"{first.url}/2/httpapi")
        client.refuse("bot")
        assert first.wait_for(lambda _: refused(first) == {"bot": 1})
        port = int(first.url.rpartition(":")[2])
    client.refuse("bot")  # into the void
    with Sandbox(port) as second:
        client.refuse("bot")
        assert second.wait_for(lambda _: refused(second) == {"bot": 3})


def test_a_forked_child_posts_for_itself(sandbox: Sandbox, make: Callable[..., Amplitude]) -> None:
    """Also where the thread of its parent was at work when it was born."""
    client = make(f"{sandbox.url}/2/httpapi")
    client.refuse("bot")
    assert sandbox.wait_for(lambda _: refused(sandbox) == {"bot": 1})
    pid = os.fork()
    if pid == 0:
        try:
            client.refuse("rule")
            client.shutdown(2)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    posts = {post["pid"]: post["counters"]["refused"] for post in counters(sandbox)["processes"]}
    assert posts[os.getpid()] == {"bot": 1}
    assert posts[pid]["rule"] == 1


def test_a_process_that_rests_has_no_thread(sandbox: Sandbox, make: Callable[..., Amplitude], monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread ends when the counters stop to change, and begins again with the next change."""
    monkeypatch.setattr(_sandbox, "PERIOD", 0.01)
    client = make(f"{sandbox.url}/2/httpapi")
    for count in (1, 2):
        client.refuse("bot")
        assert sandbox.wait_for(lambda _, count=count: refused(sandbox) == {"bot": count})
        until(lambda: not client._sandbox._mine().thread)  # type: ignore[union-attr]


def test_uploads_that_fail_ask_nothing_else(make: Callable[..., Amplitude]) -> None:
    """Only a refusal asks for the token: a server at fault meets the uploads alone, and a shutdown ends when it should."""
    with Server(answer(500)) as server:
        client = make(server.url)
        client.log_event({"event_type": "Order Paid", "user_id": "u-12345"})
        assert not client.shutdown(0.2)
    assert {(request.target, bool(request.body)) for request in server.requests} <= {("/2/httpapi", True)}


def test_a_sandbox_that_hangs_holds_nobody(make: Callable[..., Amplitude], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever refuses does not wait, and shutdown waits for one short request."""
    monkeypatch.setattr(_sandbox, "_SECONDS", 0.1)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        client = make(f"http://127.0.0.1:{deaf.getsockname()[1]}/2/httpapi")
        begun = time.monotonic()
        client.refuse("bot")
        client.shutdown(0.1)
        assert time.monotonic() - begun < 5


def until(holds: Callable[[], bool]) -> None:
    """Wait until something is so, at most ten seconds."""
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)
