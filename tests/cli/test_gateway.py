"""`otel-amplitude gateway` as it is started: what it asks for, and how it ends."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from cli.conftest import Ended
from gateway.program import Running
from gateway.sending import KEY, REQUEST, encoded, span, traces, until
from kafka_parts import Quiet, need_confluent

from otel_amplitude.gateway.answers import JSON, PROTOBUF
from otel_amplitude.sandbox import Sandbox

Run = Callable[..., Ended]


def test_without_a_key_it_prints_the_line_that_works(run: Run) -> None:
    """And ends with 3."""
    ended = run("gateway", "--spool-dir", "spool")
    assert ended.code == 3
    assert "OTEL_EXPORTER_AMPLITUDE_API_KEY=YOUR_KEY otel-amplitude gateway --spool-dir /var/spool/amplitude" in ended.err


def test_without_a_spool_it_prints_the_line_that_works(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Since 200 means that events are on disk."""
    monkeypatch.setenv("OTEL_EXPORTER_AMPLITUDE_API_KEY", KEY)
    ended = run("gateway")
    assert ended.code == 3
    assert "otel-amplitude gateway --spool-dir /var/spool/amplitude" in ended.err
    assert KEY not in ended.err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--option", f"api_key={KEY}"), "show the key"),
        (("--api-key-file", "/nowhere"), "/nowhere can not be read"),
        (("--host", "0.0.0.0"), "--token-file"),
        (("--host", "0.0.0.0", "--tls-cert", "x"), "--token-file"),
        (("--tls-key", "x"), "--tls-cert"),
        (("--tls-cert", "/nowhere"), "--tls-cert /nowhere"),
        (("--token-file", "/nowhere"), "--token-file /nowhere"),
        (("--answer", "memory"), "leave out --spool-dir"),
        (("--port", "99999"), "choose another --host or --port"),
        (("--option", "server_zone=MARS"), "server_zone"),
    ],
)
def test_words_that_can_not_be_used(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...], problem: str
) -> None:
    """The message names the word and the cure, and never the key."""
    monkeypatch.setenv("OTEL_EXPORTER_AMPLITUDE_API_KEY", KEY)
    ended = run("gateway", "--spool-dir", tmp_path / "spool", *words)
    assert ended.code == 3
    assert problem in ended.err
    assert KEY not in ended.err


@pytest.mark.heavy
def test_it_serves_and_drains(tmp_path: Path) -> None:
    """A key from a file; SIGHUP renews tokens; SIGTERM sends what is there and ends with 0."""
    key, tokens = tmp_path / "key", tmp_path / "tokens"
    key.write_text(f"{KEY}\n")
    tokens.write_text("old-token-0123456789")
    body = encoded(traces(*(span(REQUEST, trace=trace) for trace in range(1, 51))), PROTOBUF)
    words = ("--spool-dir", str(tmp_path / "spool"), "--api-key-file", str(key), "--token-file", str(tokens))
    with (
        Sandbox() as sandbox,
        Running(
            f"{sandbox.url}/2/httpapi", *words, OTEL_EXPORTER_AMPLITUDE_UPLOAD_INTERVAL="60", OTEL_EXPORTER_AMPLITUDE_API_KEY=""
        ) as running,
    ):
        headers = {"Content-Type": PROTOBUF, "Authorization": "Bearer new-token-0123456789"}
        assert running.post(body, headers) == 401
        tokens.write_text("new-token-0123456789")
        running.process.send_signal(1)
        until(lambda: running.post(body, headers) == 200)
        assert sandbox.events() == []
        assert running.terminate() == 0
        assert len(sandbox.events()) == 50
        assert "50 events accepted, 50 acknowledged" in running.output
        assert KEY not in running.output


@pytest.mark.heavy
def test_the_page_of_a_sandbox_shows_what_a_gateway_refused(tmp_path: Path) -> None:
    """By the counters that every client shows to a sandbox on this machine."""
    nobody = {name: value for name, value in REQUEST.items() if name != "user.id"}
    inner = span(REQUEST, trace=2, parent=5, is_remote=True)
    broken = {**span(REQUEST), "traceId": ""}
    with Sandbox() as sandbox, Running(f"{sandbox.url}/2/httpapi", "--spool-dir", str(tmp_path / "spool")) as running:
        assert running.post(encoded(traces(span(nobody), inner, broken), JSON), {"Content-Type": JSON}) == 200
        until(lambda: len(shown_refusals(sandbox)) == 3)
        assert shown_refusals(sandbox) == {"no_identity": 1, "inner_request": 1, "unreadable": 1}


def shown_refusals(sandbox: Sandbox) -> dict[str, int]:
    """What the page asks for."""
    with urllib.request.urlopen(f"{sandbox.url}/api/counters", timeout=10) as answer:
        return {row["reason"]: row["count"] for row in json.load(answer)["refused"]}


@pytest.mark.heavy
def test_nothing_acknowledged_to_a_sender_is_lost_by_a_kill(tmp_path: Path) -> None:
    """SIGKILL twice under senders that retry, while Amplitude fails: each event arrives, and once by its insert_id."""
    total, per_request = 3_000, 25
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    left = list(range(0, total, per_request))
    lock, sent = threading.Lock(), threading.Semaphore(0)
    words = ("--spool-dir", str(tmp_path / "spool"), "--option", "auto_events_per_minute=0")

    def send() -> None:
        while True:
            with lock:
                if not left:
                    return
                first = left.pop()
            spans = (
                span({**REQUEST, "user.id": f"user-{number % 200:04d}"}, trace=number + 1) for number in range(first, first + per_request)
            )
            body = gzip.compress(encoded(traces(*spans), JSON), 1)
            until(lambda body=body: posted(port, body), 60)  # type: ignore[misc]
            sent.release()

    with Sandbox(eps_limits=False) as sandbox:
        url = f"{sandbox.url}/2/httpapi"
        sandbox.set_fault("status", status=500, count=5)
        sandbox.set_fault("reset_after", count=5)
        senders = [threading.Thread(target=send) for _ in range(3)]
        for _ in range(2):
            with Running(url, *words, port=port) as running:
                assert running.address == port
                if not senders[0].ident:
                    for thread in senders:
                        thread.start()
                for _ in range(30):
                    assert sent.acquire(timeout=30)
                running.kill()
        with Running(url, *words, port=port) as running:
            for thread in senders:
                thread.join(60)
            until(lambda: len({event["insert_id"] for event in sandbox.events()}) == total, 30)
            assert running.terminate() == 0
        traces_seen = {event["event_properties"]["trace_id"] for event in sandbox.events()}
        assert traces_seen == {f"{number + 1:032x}" for number in range(total)}


def posted(port: int, body: bytes) -> bool:
    """Send one request as an SDK does: a connection that breaks, and 503, are tried again."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("POST", "/v1/traces", body, {"Content-Type": JSON, "Content-Encoding": "gzip"})
        status = connection.getresponse().status
        assert status in (200, 503), status
        return status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def test_an_absent_topic_ends_it_with_the_line_that_creates_it(run: Run, tmp_path: Path) -> None:
    """No API key is asked for: Amplitude is behind the worker."""
    kafka = need_confluent()
    cluster = kafka.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "x"}, logger=Quiet())
    (broker,) = cluster.list_topics(timeout=5).brokers.values()
    address = f"{broker.host}:{broker.port}"
    ended = run("gateway", "--spool-dir", str(tmp_path / "spool"), "--port", "0", "--to-kafka", address)
    assert ended.code == 3
    assert f"kafka-topics.sh --bootstrap-server {address} --create --topic amplitude_events" in ended.err
    assert cluster.list_topics(timeout=5).topics == {}
