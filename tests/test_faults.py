"""From `log_event` to an acknowledgement, over real sockets, past every fault a server can have."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import servers
from punctual import Stopwatch
from servers import Behaviour, Peer, Server
from zero_code.running import free_port

from otel_amplitude.client import Amplitude
from otel_amplitude.config import Config

KEY = "0123456789abcdef0123456789abcdef"
PATIENCE = 30.0
QUICK = [0.01] * 100  # these waits instead of half a second and more


@contextmanager
def client(server: Server, **options: object) -> Iterator[Amplitude]:
    """A client of `server` that is shut down in the end, and whose books must balance all the time."""
    settings = {"upload_interval": 0.02, "retry_timeouts": QUICK, "request_timeout": 5.0, **options}
    amplitude = Amplitude(Config(KEY, server_url=server.url, **settings))
    over = threading.Event()
    unbalanced: list[object] = []

    def watch() -> None:
        while not over.wait(0.002):
            books = amplitude.stats()
            if not books.balanced:
                unbalanced.append(books)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield amplitude
    finally:
        over.set()
        watcher.join()
        amplitude.shutdown(5)
        assert unbalanced == []
        assert amplitude.stats().pending.total == 0


def log(amplitude: Amplitude, count: int, *, users: int = 3) -> list[str]:
    """Log so many events of a few users; give their insert_ids."""
    return [
        amplitude.log_event(
            {"event_type": "Order Paid", "user_id": f"user-{number % users}", "event_properties": {"number": number}}
        ).insert_id
        for number in range(count)
    ]


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until it has come to that."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.005)


def arrived(server: Server) -> dict[str, list[str]]:
    """What the server saw of each event: its bytes, once for each transmission."""
    found: dict[str, list[str]] = {}
    for event in server.events:
        found.setdefault(event["insert_id"], []).append(json.dumps(event))
    return found


def assert_kept(caplog: pytest.LogCaptureFixture) -> None:
    """No log line, of anybody, holds the key."""
    assert not [record for record in caplog.records if KEY in record.getMessage()]


FAULTS: dict[str, list[Behaviour]] = {
    "500": [servers.answer(500)],
    "502 with HTML": [servers.answer(502, b"<html>Bad Gateway</html>")],
    "503 with Retry-After": [servers.answer(503, None, {"Retry-After": "0"})],
    "504 and 500": [servers.answer(504), servers.answer(500), servers.answer(504)],
    "408": [servers.answer(408)],
    "reset before reading": [servers.reset_unread()] * 2,
    "reset after reading": [servers.reset()] * 2,
    "closed without an answer": [servers.hang_up()] * 2,
    "half an answer": [servers.half_an_answer()],
    "not HTTP": [servers.send_raw(b"SSH-2.0-OpenSSH_9.7\r\n")],
    "never answering": [servers.never_answer()],
    "trickling headers": [servers.trickle_headers(0.02)],
    "trickling body": [servers.trickle_body(0.02)],
    "endless headers": [servers.endless_headers()],
    "endless body": [servers.endless_body()],
    "gzip bomb": [servers.gzip_bomb()],
    "200 with HTML": [servers.answer(200, b"<html>Sign in to the hotel</html>")],
    "200 without a body": [servers.answer(200, b"")],
    "200 cut off": [servers.answer(200, b'{"code":200')],
    "200 with code 400": [servers.answer(200, {"code": 400, "error": f"Invalid API key: {KEY}"})],
    "302": [servers.redirect("http://127.0.0.1:1/elsewhere")],
    "429 for the project": [servers.answer(429, {"error": "Too many requests"}, {"Retry-After": "1"})],
    "deep JSON": [servers.answer(200, b'{"code":200,"a":' + b"[" * 5000 + b"]" * 5000 + b"}")],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
def test_every_event_arrives_after_a_fault(faults: list[Behaviour], caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is lost, nothing is changed on the way, nothing is told that must not be told."""
    caplog.set_level(logging.DEBUG)
    with Server(*faults, servers.accept()) as server, client(server, request_timeout=0.5, log_level="VERBOSE") as amplitude:
        ids = log(amplitude, 25)
        assert amplitude.flush(PATIENCE)
        books = amplitude.stats()
        found = arrived(server)
    assert server.met > len(faults)
    assert set(found) == set(ids)
    assert (books.accepted, books.acknowledged, books.rejected, books.dropped) == (25, 25, {}, {})
    assert all(len(set(transmissions)) == 1 for transmissions in found.values())
    assert_kept(caplog)


@pytest.mark.parametrize(
    "faults", [[servers.answer_and_close()], [servers.accept(), servers.hang_up()]], ids=["while idle", "as it is used"]
)
def test_a_connection_that_went_stale_costs_no_retry(faults: list[Behaviour]) -> None:
    """Kept-alive connections end all the time: that is no fault, no pause and no attempt."""
    with Server(*faults, servers.accept()) as server:
        with client(server, retry_timeouts=[], upload_interval=60) as amplitude:  # each flush is one request
            for _ in range(2):
                log(amplitude, 5)
                assert amplitude.flush(PATIENCE)
            assert amplitude.stats().acknowledged == 10
        assert server.connections == 2


def test_silenced_devices_are_rejected_by_name() -> None:
    """What Amplitude has silenced is lost and counted; the rest of the batch is not."""

    def judge(events: list[dict]) -> tuple[int, dict]:
        silenced = [position for position, event in enumerate(events) if event["user_id"] == "user-1"]
        return (400, {"error": "Events silenced for device_id", "silenced_events": silenced}) if silenced else (200, {})

    with Server(picky(judge)) as server, client(server, retry_timeouts=[]) as amplitude:
        log(amplitude, 24)
        assert amplitude.flush(PATIENCE)
        assert (amplitude.stats().acknowledged, amplitude.stats().rejected) == (16, {"silenced": 8})


def test_a_server_that_restarts(unused_port: int) -> None:
    """An outage is waited for, and ends when the server is back at its place."""
    with Server(port=unused_port) as server:
        url = server.url
    with client(server) as amplitude:
        ids = log(amplitude, 10)
        assert not amplitude.flush(0.2)
        assert amplitude.stats().pending.total == 10
        with Server(port=unused_port) as back:
            assert back.url == url
            assert amplitude.flush(PATIENCE)
            assert set(arrived(back)) == set(ids)


@pytest.fixture
def unused_port() -> int:
    """A port nobody listens on."""
    return free_port()


def picky(judge: Callable[[list[dict]], tuple[int, dict]]) -> Behaviour:
    """A server that decides by the events of a request."""

    def behave(peer: Peer) -> bool:
        status, body = judge(peer.request().envelope["events"])
        peer.send(servers.reply(status, json.dumps({"code": status, **body}).encode()))
        return True

    return behave


def number(event: dict) -> int:
    """Which event it is."""
    found: int = event["event_properties"]["number"]
    return found


BAD = {3, 17, 18}


def first_offender(events: list[dict]) -> tuple[int, dict]:
    """HTTP V2: "each list names only the first offending event"."""
    bad = [position for position, event in enumerate(events) if number(event) in BAD]
    return (400, {"error": "Invalid field values on some events", "events_with_invalid_fields": {"time": bad[:1]}}) if bad else (200, {})


def nobody_named(events: list[dict]) -> tuple[int, dict]:
    """A server that says no and not why."""
    return (400, {"error": "Invalid event JSON"}) if any(number(event) in BAD for event in events) else (200, {})


def out_of_range(events: list[dict]) -> tuple[int, dict]:
    """A server that counts from somewhere else."""
    bad = any(number(event) in BAD for event in events)
    return (400, {"events_with_invalid_fields": {"time": [len(events)]}}) if bad else (200, {})


def wrong_type(events: list[dict]) -> tuple[int, dict]:
    """A server that names events by text."""
    bad = [str(position) for position, event in enumerate(events) if number(event) in BAD]
    return (400, {"events_with_missing_fields": {"time": bad}}) if bad else (200, {})


@pytest.mark.parametrize("judge", [first_offender, nobody_named, out_of_range, wrong_type])
def test_bad_events_are_rejected_and_the_others_arrive(judge: Callable[[list[dict]], tuple[int, dict]]) -> None:
    """A 400 costs the culprits, nobody else, and not many requests."""
    with Server(picky(judge)) as server, client(server, retry_timeouts=[], upload_interval=60) as amplitude:
        log(amplitude, 25)
        assert amplitude.flush(PATIENCE)
        books = amplitude.stats()
    assert (books.acknowledged, books.rejected, books.dropped) == (22, {"invalid": 3}, {})
    assert len(server.requests) <= 3 * 2 * 5 + 5


def test_a_hidden_limit_is_found() -> None:
    """413 halves until it fits; the event that never fits is rejected alone."""

    def judge(events: list[dict]) -> tuple[int, dict]:
        return (413, {"error": "Payload too large"}) if len(events) > 4 or any(number(event) == 7 for event in events) else (200, {})

    with Server(picky(judge)) as server, client(server, retry_timeouts=[]) as amplitude:
        log(amplitude, 25)
        assert amplitude.flush(PATIENCE)
        books = amplitude.stats()
    assert (books.acknowledged, books.rejected, books.dropped) == (24, {"too_large": 1}, {})


def test_a_firewall_takes_half_of_a_batch_at_most() -> None:
    """403 is final after one split: what was not beside the culprit arrives."""

    def judge(events: list[dict]) -> tuple[int, dict]:
        return (403, {"error": "Forbidden"}) if any(number(event) == 20 for event in events) else (200, {})

    with Server(picky(judge)) as server, client(server, upload_interval=0.2) as amplitude:
        log(amplitude, 24)
        assert amplitude.flush(PATIENCE)
        books = amplitude.stats()
    assert books.acknowledged >= 11
    assert 1 <= books.rejected["forbidden"] <= 13
    assert books.acknowledged + books.rejected["forbidden"] == 24


def test_a_daily_quota_costs_one_user() -> None:
    """Whose day is over is rejected by name; the others go on at once."""

    def judge(events: list[dict]) -> tuple[int, dict]:
        over = any(event["user_id"] == "user-1" for event in events)
        return (429, {"exceeded_daily_quota_users": {"user-1": 500_200}}) if over else (200, {})

    with Server(picky(judge)) as server, client(server, retry_timeouts=[]) as amplitude:
        log(amplitude, 24)
        assert amplitude.flush(PATIENCE)
        books = amplitude.stats()
    assert (books.acknowledged, books.rejected, books.dropped) == (16, {"quota": 8}, {})


def test_a_throttled_user_waits_alone() -> None:
    """429 for one of many: the others are acknowledged while it is held, in order and complete."""

    def judge(events: list[dict]) -> tuple[int, dict]:
        named = [position for position, event in enumerate(events) if event["user_id"] == "user-1"]
        return (429, {"throttled_users": {"user-1": 41}, "throttled_events": named[:1]}) if named else (200, {})

    with Server(picky(judge)) as server, client(server, retry_timeouts=None, shutdown_timeout=0.1) as amplitude:
        log(amplitude, 24)
        assert not amplitude.flush(1.0)
        wait_for(lambda: (amplitude.stats().acknowledged, amplitude.stats().pending.held) == (16, 8))
        amplitude.shutdown(0.1)
        assert amplitude.stats().dropped == {"shutdown": 8}


def test_a_bad_key_holds_everything_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """One clear error, one request, no event lost to it, and the echoed key stays out of the log."""
    caplog.set_level(logging.DEBUG)
    refusal = servers.answer(400, {"code": 400, "error": f"Invalid API key: {KEY}"})
    with Server(refusal) as server, client(server, upload_interval=60) as amplitude:
        log(amplitude, 10)
        assert not amplitude.flush(0.0)
        wait_for(lambda: "invalid_api_key" in caplog.text)
        assert not amplitude.flush(0.5)
        assert amplitude.stats().pending.total == 10
        assert len(server.requests) == 1
        amplitude.shutdown(0.1)
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "invalid_api_key" in errors[0]
    assert_kept(caplog)


@pytest.mark.parametrize(
    "behaviour", [servers.never_answer(), servers.trickle_body(0.02), servers.reset()], ids=["silent", "trickling", "resetting"]
)
def test_flush_and_shutdown_are_punctual_whatever_the_server_does(behaviour: Behaviour) -> None:
    """`flush(t)` and `shutdown(t)` return within t and a quarter second; what is left is counted."""
    with Server(behaviour) as server:
        amplitude = Amplitude(Config(KEY, server_url=server.url, upload_interval=0.01))
        log(amplitude, 5)
        for wait in (amplitude.flush, amplitude.shutdown):
            watch = Stopwatch()
            assert not wait(0.3)
            assert watch.seconds() < 0.3 + 0.25
        assert amplitude.stats().dropped == {"shutdown": 5}


def test_order_per_user_holds_while_requests_fail() -> None:
    """First transmissions of one user's events come in the order logged, whatever fails in between."""
    script = [servers.accept(), servers.answer(500), servers.reset(), servers.answer_and_close(), servers.half_an_answer()] * 4
    with Server(*script, servers.accept()) as server, client(server, max_batch_events=7) as amplitude:
        log(amplitude, 120, users=4)
        assert amplitude.flush(PATIENCE)
    for user in range(4):
        seen: dict[int, None] = {}
        for event in server.events:
            if event["user_id"] == f"user-{user}":
                seen.setdefault(number(event))
        assert list(seen) == sorted(seen)
        assert len(seen) == 30
