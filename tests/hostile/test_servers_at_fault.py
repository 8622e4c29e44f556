"""Servers that limit, throttle and lie, with the real client; and what the application does to itself meanwhile."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
from hostile.programs import KEY, arrived, run
from opentelemetry._logs import LogRecord
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.trace import TracerProvider
from servers import Behaviour, Peer, Server
from zero_code.running import free_port

from otel_amplitude import Amplitude, AmplitudeLogRecordProcessor, AmplitudeSpanProcessor, Config

PATIENCE = 30.0


@pytest.fixture
def client(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., Amplitude]]:
    """Makes clients of a server; in the end the books balance and the key is in no log line, no repr and no books."""
    caplog.set_level(logging.DEBUG)
    made: list[Amplitude] = []

    def make(server: Server, **options: Any) -> Amplitude:
        settings = {"upload_interval": 0.01, "retry_timeouts": [0.01] * 1000, "request_timeout": 3.0, "log_level": "VERBOSE", **options}
        made.append(Amplitude(Config(KEY, server_url=server.url, **settings)))
        return made[-1]

    yield make
    for each in made:
        each.shutdown(0.2)
        assert each.stats().balanced
        assert each.stats().pending.spooled == each.stats().pending.total
    assert KEY not in caplog.text + repr(made) + str([each.stats() for each in made])


def log(amplitude: Amplitude, count: int, users: int = 5, size: int = 0) -> set[str]:
    """Log so many events; give their insert_ids, all of which were accepted."""
    results = [
        amplitude.log_event(
            {"event_type": "Order Paid", "user_id": f"user-{number % users}", "event_properties": {"number": number, "text": "x" * size}}
        )
        for number in range(count)
    ]
    assert all(result.accepted for result in results)
    return {result.insert_id for result in results}


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.005)


def limit(most: int, *, unread: bool) -> Behaviour:
    """413 for every body over a limit nobody was told of; with `unread`, as proxies do it: the body is left where it is."""

    def behave(peer: Peer) -> bool:
        _, headers = peer.head()
        length = int(headers["content-length"])
        if length > most and unread:
            peer.send(servers.reply(413, b"<html>Request Entity Too Large</html>", {"Connection": "close"}))
            peer.sock.shutdown(1)
            peer.until_gone()
            return False
        while len(peer.buffer) < length:
            assert peer.fill()
        body = bytes(peer.buffer[:length])
        del peer.buffer[:length]
        if length > most:
            peer.send(servers.reply(413, b'{"code":413}'))
            return True
        peer.server.requests.append(servers.Received(peer.number, "/", headers, body))
        peer.send(servers.reply(200, b'{"code":200}'))
        return True

    return behave


@pytest.mark.parametrize("unread", [False, True])
def test_a_hidden_limit_in_bytes_is_found(client: Any, unread: bool) -> None:
    """Requests shrink until they pass, and grow again no further than they are let; not one event is lost to the limit."""
    with Server(limit(20_000, unread=unread)) as server:
        amplitude = client(server, upload_interval=60)  # else a slow machine makes more requests, one after each interval
        ids = log(amplitude, 400, size=900)
        assert amplitude.flush(PATIENCE)
        assert arrived(server) == ids
        assert len(server.requests) < 120
    assert (amplitude.stats().acknowledged, amplitude.stats().rejected, amplitude.stats().dropped) == (400, {}, {})


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "7"}], ids=["without Retry-After", "with Retry-After"])
def test_a_project_over_its_limit_is_asked_no_more(client: Any, headers: dict[str, str]) -> None:
    """429 that names nobody: one request, and then silence for as long as was asked for, or a minute."""
    with Server(servers.answer(429, {"code": 429, "error": "Too many requests"}, headers)) as server:
        amplitude = client(server, retry_timeouts=None, upload_interval=60)  # one request for all, not one for the first of them beside it
        log(amplitude, 50)
        begun = time.monotonic()
        assert not amplitude.flush(0.0)
        wait_for(lambda: amplitude._exporter._worker().dispatcher._resume_at > 0)
        answered = time.monotonic()
        assert not amplitude.flush(0.5)
        assert len(server.requests) == 1
    asked = 7 if headers else 60
    assert begun + asked <= amplitude._exporter._worker().dispatcher._resume_at <= answered + asked
    assert amplitude.stats().pending.total == 50


def test_every_device_throttled_at_once(client: Any) -> None:
    """Each rests with its events; somebody new goes at once; no request is made for those who rest."""

    def behave(peer: Peer) -> bool:
        users = {event["user_id"] for event in peer.request().envelope["events"]} - {"somebody-new"}
        body = {"code": 429, "throttled_users": dict.fromkeys(users, 31)} if users else {"code": 200}
        peer.send(servers.reply(429 if users else 200, json.dumps(body).encode()))
        return True

    with Server(behave) as server:
        amplitude = client(server, retry_timeouts=None)
        log(amplitude, 100, users=20)
        assert not amplitude.flush(0.3)
        wait_for(lambda: amplitude.stats().pending.held == 100)
        asked = len(server.requests)
        assert amplitude.log_event({"event_type": "X", "user_id": "somebody-new"}, timeout=PATIENCE).outcome == "acknowledged"
        assert len(server.requests) == asked + 1
        assert amplitude.stats().pending.held == 100


def test_an_outage_with_a_restart_and_a_small_memory(client: Any, tmp_path: Path) -> None:
    """More is logged during the outage than memory holds: the spool takes it, and the new server gets all of it in order."""
    reserved = Server(port=free_port())
    reserved.stop()
    amplitude = client(reserved, spool_dir=str(tmp_path / "spool"), max_cached_events=100, max_batch_events=50)
    ids: set[str] = set()
    for _ in range(10):
        ids |= log(amplitude, 100, users=3)
        time.sleep(0.02)
        assert amplitude.stats().balanced
    assert amplitude.stats().pending.total == 1000
    assert amplitude.stats().pending.spooled > 800
    with Server(servers.answer(502), servers.accept(), servers.reset(), servers.accept(), port=reserved.port) as server:
        assert amplitude.flush(PATIENCE)
        assert arrived(server) == ids
        first: dict[str, list[int]] = {}
        for event in server.events:
            first.setdefault(event["user_id"], []).append(event["time"])
    assert amplitude.stats().acknowledged == 1000
    assert all(min(times) == times[0] for times in first.values())


@pytest.mark.timeout(180)  # tracing all memory makes it slow
def test_memory_stays_under_its_cap_with_a_dead_server(tmp_path: Path) -> None:
    """Twenty megabytes of events into a client of four: the rest is refused by name, and the end comes in time."""
    text = """
        import gc, requests, tracemalloc
        from otel_amplitude import _adapter
        client = Amplitude(Config(KEY, **options(max_cached_bytes=4 * 2**20, max_cached_events=10**6, log_level="NONE")))
        client.log_event(event(0))
        tracemalloc.start()
        for number in range(20_000):
            client.log_event({**event(number), "event_properties": {"text": "x" * 800}})
        gc.collect()
        held, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        found = books(client)
        assert set(found.refused) == {"queue_full"} and found.pending.total > 2_000, found
        # A parcel is an object, a tuple and a header besides its bytes; a few requests of a megabyte may be on their way.
        assert held < 8 * 2**20, (held, most)
        assert most < 16 * 2**20, (held, most)
        watch = Stopwatch()
        client.shutdown(0.5)
        assert watch.seconds() < 0.75
        assert books(client).dropped == {"shutdown": found.pending.total}
        say(held, most)
    """
    run(text, "http://127.0.0.1:9/2/httpapi", tmp_path, seconds=150)


def test_middleware_that_blocks_raises_logs_traces_and_nests(client: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody but its own event pays: others pass meanwhile, nothing reaches the application, nothing goes round in circles."""
    release = threading.Event()
    tracer_provider = TracerProvider(shutdown_on_exit=False)

    def blocks(payload: Any, following: Any) -> None:
        if payload.event["event_type"] == "Slow":
            release.wait(PATIENCE)
        following(payload)

    def raises(payload: Any, following: Any) -> None:
        if payload.event["event_type"] == "Broken":
            raise KeyError(KEY)
        following(payload)

    def chatters(payload: Any, following: Any) -> None:
        logging.getLogger("shop").warning("an event passes")
        with tracer_provider.get_tracer("shop").start_as_current_span(
            "inner", attributes={"amplitude.event_type": "Inner", "amplitude.user_id": "user-1"}
        ):
            amplitude.log_event({"event_type": "Nested", "user_id": "user-1"})
        following(payload)

    with Server() as server:
        amplitude = client(server, middleware=[blocks, raises, chatters])
        tracer_provider.add_span_processor(AmplitudeSpanProcessor(amplitude))
        slow = threading.Thread(target=amplitude.log_event, args=({"event_type": "Slow", "user_id": "user-9"},))
        slow.start()
        assert amplitude.log_event({"event_type": "Broken", "user_id": "user-1"}).reason == "middleware"
        assert amplitude.log_event({"event_type": "Fine", "user_id": "user-1"}, timeout=PATIENCE).outcome == "acknowledged"
        assert slow.is_alive()
        release.set()
        slow.join(PATIENCE)
        assert amplitude.flush(PATIENCE)
        kinds = [event["event_type"] for event in server.events]
    assert sorted(kinds) == ["Fine", "Inner", "Inner", "Nested", "Nested", "Slow"]
    assert "middleware.failed" in caplog.text
    assert amplitude.stats().refused["middleware"] == 1 + 8


class Everything(logging.Handler):
    """Makes an annotated record of each log line, as an application's handler of OpenTelemetry may do."""

    def __init__(self, provider: LoggerProvider) -> None:
        super().__init__(logging.DEBUG)
        self._provider = provider

    def emit(self, record: logging.LogRecord) -> None:
        attributes = {"amplitude.user_id": "user-logs", "message": record.getMessage()}
        self._provider.get_logger(record.name).emit(LogRecord(event_name="a line was logged", attributes=attributes))


@pytest.mark.parametrize("own", [("otel_amplitude", "urllib3", "requests"), ("nobody",)], ids=["by name and mark", "by the mark alone"])
def test_a_root_logger_at_debug_does_not_feed_us_ourselves(client: Any, monkeypatch: pytest.MonkeyPatch, own: tuple[str, ...]) -> None:
    """Every log line of the application becomes an event; none of the sender's does, ours or urllib3's, so that there is an end."""
    monkeypatch.setattr("otel_amplitude.otel._reader._OWN_LOGS", own)
    provider = LoggerProvider(shutdown_on_exit=False)
    sent: list[str] = []

    def remember(payload: Any, following: Any) -> None:
        sent.append(payload.event["event_properties"].get("message", ""))
        following(payload)

    handler = Everything(provider)
    with Server(servers.answer(503), servers.hang_up(), servers.accept()) as server:
        amplitude = client(server, middleware=[remember])
        provider.add_log_record_processor(AmplitudeLogRecordProcessor(amplitude))
        logging.getLogger().addHandler(handler)
        try:
            ids = log(amplitude, 30)
            logging.getLogger("shop").debug("the application says something")
            assert amplitude.flush(PATIENCE)
            assert amplitude.shutdown(5)
        finally:
            logging.getLogger().removeHandler(handler)
        assert len(arrived(server) - ids) == 1
    assert [text for text in sent if text] == ["the application says something"]
