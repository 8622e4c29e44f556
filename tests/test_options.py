"""Every option does what it says: one test at least for each, and none without one."""

from __future__ import annotations

import ast
import gzip
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import servers
import trustme
from opentelemetry.context import attach, detach
from opentelemetry.trace import SpanKind
from otel.conftest import Joined

import otel_amplitude
from otel_amplitude import Amplitude, AmplitudePropagator, Config, ConfigurationError, InvalidEventError, Payload, Result, set_user
from otel_amplitude.config import options
from otel_amplitude.identity import make_cookie
from otel_amplitude.sandbox import Sandbox
from otel_amplitude.testing import FakeTransport, answer

KEY = "0123456789abcdef0123456789abcdef"
EVENT = {"event_type": "Order Paid", "user_id": "u-12345"}
REQUEST = {"http.request.method": "POST", "http.route": "/orders", "http.response.status_code": 201}
PATIENCE = 10.0

SHOWN: dict[str, list[str]] = {}
# Shown beside the code that carries it out, and not once more here: option, file, test.
ELSEWHERE = [
    ("ca_file", "test_transport.py", "test_a_private_authority_is_trusted_when_named"),
    ("ca_file", "test_transport.py", "test_bundles_of_the_environment_are_trusted"),
    ("server_url", "test_transport.py", "test_the_proxy_of_the_environment_is_used"),
    ("server_url", "test_transport.py", "test_no_proxy_is_honoured"),
    ("server_url", "test_transport.py", "test_https_goes_through_a_tunnel"),
    ("retry_timeouts", "test_client.py", "test_retry_timeouts_are_exact_and_the_last_is_known"),
    ("on_result", "test_client.py", "test_on_result_is_told_once_for_each_event"),
    ("rules", "convert/test_rules.py", "test_the_example_in_the_documentation_makes_what_it_says"),
    ("request_timeout", "test_faults.py", "test_flush_and_shutdown_are_punctual_whatever_the_server_does"),
]


def shows(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Enter a test as the proof of these options."""

    def enter(test: Callable[..., None]) -> Callable[..., None]:
        for name in names:
            SHOWN.setdefault(name, []).append(test.__name__)
        return test

    return enter


class Signalling(FakeTransport):
    """Tells how many requests came, and lets a test wait for one."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._came = threading.Semaphore(0)

    def send(self, request: Any) -> Any:
        try:
            return super().send(request)
        finally:
            self._came.release()

    def wait(self) -> None:
        """Wait for one more request."""
        assert self._came.acquire(timeout=PATIENCE)


class Stuck(Signalling):
    """Answers nothing before it is let go."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.stuck = threading.Semaphore(0)
        super().__init__(self._hold)

    def _hold(self, _request: Any) -> Any:
        self.stuck.release()
        self.let_go.wait(PATIENCE)
        return answer(200)


class Clock:
    """A client's time, moved by hand from the moment it is taken over."""

    def __init__(self, client: Amplitude) -> None:
        self.exporter = client._exporter
        self.now = 1000.0
        self.wall = time.time()
        self.exporter._clock = lambda: self.now
        self.exporter._wall = lambda: self.wall

    def advance(self, seconds: float) -> None:
        """Let time pass, and let the worker look at the clock."""
        self.now += seconds
        self.wall += seconds
        self.exporter._worker()._wake()

    def due(self) -> float:
        """In how many seconds the worker has something to do."""
        end = time.monotonic() + PATIENCE
        while (at := self.exporter._worker().dispatcher.wake_at()) is None:
            assert time.monotonic() < end, "the worker waits for nothing"
            time.sleep(0.001)
        return at - self.now


@pytest.fixture
def transport() -> Signalling:
    return Signalling()


@pytest.fixture
def make(transport: Signalling) -> Iterator[Callable[..., Amplitude]]:
    made: list[Amplitude] = []

    def build(**given: Any) -> Amplitude:
        client = Amplitude(Config(**{"api_key": KEY, "transport": transport, "upload_interval": 0, **given}))
        made.append(client)
        return client

    yield build
    for client in made:
        client.shutdown(1)
        assert client.stats().balanced


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as running:
        yield running


@pytest.fixture
def join() -> Iterator[Callable[..., Joined]]:
    """Clients joined to tracer and logger providers of their own."""
    made: list[Joined] = []

    def build(**given: Any) -> Joined:
        made.append(Joined(FakeTransport(), given))
        return made[-1]

    yield build
    for joined in made:
        joined.tracer_provider.shutdown()
        joined.logger_provider.shutdown()
        joined.client.shutdown(1)


def request(joined: Joined, user: str | int | None = "u-12345", headers: dict[str, str] | None = None, **attributes: Any) -> None:
    """One request to the application, as an instrumentation traces it; names of attributes are written with `__` for a dot."""
    more = {name.replace("__", "."): value for name, value in attributes.items()}
    context = AmplitudePropagator(joined.client.config.identity_headers).extract(headers or {})
    token = attach(context)
    with joined.tracer.start_as_current_span("POST", kind=SpanKind.SERVER, attributes={**REQUEST, **more}):
        if user is not None:
            set_user(user)
    detach(token)


def types(joined: Joined) -> list[str]:
    """The types of what arrived."""
    return [event["event_type"] for event in joined.events()]


# --------------------------------------------------------------------------------------------------------------- complete


def test_no_option_is_left_without_a_test() -> None:
    """An option that nobody has seen at work is a promise, not an option."""
    assert {*SHOWN, *(name for name, _, _ in ELSEWHERE)} == {option.name for option in options()}
    for _, file, test in ELSEWHERE:
        tree = ast.parse((Path(__file__).parent / file).read_text())
        assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, f"{file} has no {test}"


# --------------------------------------------------------------------------------------------------------------- where to


@shows("api_key", "server_url", "min_id_length")
def test_a_full_url_gets_key_and_options(make: Any, sandbox: Sandbox) -> None:
    """A proxy in front of Amplitude, or the sandbox."""
    client = make(server_url=f"{sandbox.url}/2/httpapi", transport=None, min_id_length=2)
    assert client.log_event({**EVENT, "user_id": "u1"}, timeout=PATIENCE).outcome == "acknowledged"
    (received,) = sandbox.requests
    envelope = json.loads(received.body)
    assert (received.path, envelope["api_key"], envelope["options"]) == ("/2/httpapi", KEY, {"min_id_length": 2})
    assert sandbox.events()[0]["user_id"] == "u1"


@shows("name")
def test_a_name_finds_its_client(transport: FakeTransport) -> None:
    """Two projects in one process."""
    billing = otel_amplitude.init(KEY, name="options-billing", transport=transport)
    assert otel_amplitude.get_instance("options-billing") is billing
    billing.shutdown(1)


@shows("server_zone", "use_batch")
@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "https://api2.amplitude.com/2/httpapi"),
        ({"server_zone": "EU"}, "https://api.eu.amplitude.com/2/httpapi"),
        ({"use_batch": True}, "https://api2.amplitude.com/batch"),
        ({"server_zone": "EU", "use_batch": True}, "https://api.eu.amplitude.com/batch"),
    ],
)
def test_region_and_endpoint_decide_the_url(make: Any, transport: Signalling, given: dict[str, Any], url: str) -> None:
    """An EU key sent to the US host would lose everything."""
    assert make(**given).log_event(EVENT, timeout=PATIENCE).outcome == "acknowledged"
    assert transport.requests[0].request.url == url


@shows("use_batch")
def test_the_batch_endpoint_takes_requests_of_twenty_megabytes(make: Any) -> None:
    """On the other one they are refused at start."""
    assert make(use_batch=True, max_batch_bytes=19_000_000).config.max_batch_bytes == 19_000_000
    with pytest.raises(ConfigurationError, match="set use_batch"):
        make(max_batch_bytes=19_000_000)


@shows("headers")
def test_headers_travel_with_every_request(make: Any, sandbox: Sandbox) -> None:
    """For a proxy that wants to know who asks."""
    client = make(server_url=f"{sandbox.url}/batch", transport=None, headers={"X-Proxy-Token": "abc"})
    client.log_event(EVENT, timeout=PATIENCE)
    assert sandbox.requests[0].headers["x-proxy-token"] == "abc"
    assert "abc" not in repr(client)


@shows("compression")
@pytest.mark.parametrize(
    ("compression", "own_host", "size", "zipped"),
    [
        ("auto", True, 3_000, True),
        ("auto", True, 10, False),
        ("auto", False, 3_000, False),
        ("gzip", False, 10, True),
        ("none", True, 3_000, False),
    ],
)
def test_compression(make: Any, transport: Signalling, compression: str, own_host: bool, size: int, zipped: bool) -> None:
    """Of Amplitude's own hosts above 2 KB, always, or never."""
    client = make(compression=compression, **({} if own_host else {"server_url": "https://proxy.example/amplitude"}))
    text = {f"text{number}": "x" * 1000 for number in range(size // 1000)}
    client.log_event({**EVENT, "event_properties": text}, timeout=PATIENCE)
    sent = transport.requests[0].request
    assert (sent.headers.get("Content-Encoding") == "gzip") is zipped
    assert json.loads(gzip.decompress(sent.body) if zipped else sent.body)["events"][0]["event_properties"] == text


@shows("ca_file")
def test_a_private_certificate_is_trusted_by_the_clients_option(make: Any, tmp_path: Path) -> None:
    """A proxy that opens TLS, with a certificate of the company."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with servers.Server(tls=context) as server:
        client = make(server_url=server.url, transport=None, ca_file=str(tmp_path / "ca.pem"))
        assert client.log_event(EVENT, timeout=PATIENCE).outcome == "acknowledged"
        doubting = make(server_url=server.url, transport=None, retry_timeouts=[])
        assert doubting.log_event(EVENT, timeout=PATIENCE).outcome == "dropped"


@shows("allow_insecure_http")
def test_plain_http_needs_a_word(make: Any, transport: Signalling) -> None:
    """The key would be readable on the way."""
    url = "http://collector.internal/2/httpapi"
    with pytest.raises(ConfigurationError, match="ALLOW_INSECURE_HTTP"):
        make(server_url=url)
    make(server_url=url, allow_insecure_http=True).log_event(EVENT, timeout=PATIENCE)
    assert transport.requests[0].request.url == url


# -------------------------------------------------------------------------------------------------------------------- how


@shows("upload_interval")
def test_no_interval_sends_at_the_next_chance(make: Any, transport: Signalling) -> None:
    """As in the Node SDK, whose interval is 0."""
    make(upload_interval=0).log_event(EVENT)
    transport.wait()


@shows("upload_interval", "max_batch_events")
def test_an_event_waits_for_company_and_no_longer(make: Any, transport: Signalling) -> None:
    """The interval is exact; a full batch does not wait for it."""
    client = make(upload_interval=30, max_batch_events=2)
    clock = Clock(client)
    client.log_event(EVENT)
    assert clock.due() == 30
    assert transport.requests == []
    client.log_event(EVENT)
    transport.wait()
    assert client.flush(PATIENCE)  # the answer was read too: what is due next is the next event
    client.log_event(EVENT)
    assert clock.due() == 30
    clock.advance(30)
    transport.wait()
    assert [len(recorded.events) for recorded in transport.requests] == [2, 1]


@shows("max_batch_bytes")
def test_no_request_is_larger(make: Any, transport: Signalling) -> None:
    """Bytes before compression."""
    client = make(max_batch_bytes=2048, upload_interval=30, server_url="https://proxy.example/")
    for _ in range(20):
        client.log_event({**EVENT, "event_properties": {"text": "x" * 500}})
    assert client.flush(PATIENCE)
    assert len(transport.requests) > 5
    assert all(len(recorded.request.body) <= 2048 for recorded in transport.requests)


@shows("max_cached_events")
def test_when_the_memory_is_full_the_newest_is_refused(make: Any) -> None:
    """Counted, and nothing that was accepted is lost for it."""
    stuck = Stuck()
    client = make(transport=stuck, max_cached_events=3)
    client.log_event(EVENT)
    assert stuck.stuck.acquire(timeout=PATIENCE)
    outcomes = [client.log_event({**EVENT, "user_id": f"other-{number}"}).reason for number in range(4)]
    assert outcomes == ["", "", "queue_full", "queue_full"]
    stuck.let_go.set()
    assert client.flush(PATIENCE)
    assert client.stats().acknowledged == 3


@shows("max_cached_bytes")
def test_memory_is_bounded_in_bytes_too(make: Any) -> None:
    """A few large events are as many as many small ones."""
    stuck = Stuck()
    client = make(transport=stuck, max_cached_bytes=64 * 1024)
    large = {**EVENT, "event_properties": {f"text{number}": "x" * 1000 for number in range(30)}}
    reasons = [client.log_event({**large, "user_id": f"user-{number}"}).reason for number in range(4)]
    assert reasons == ["", "", "queue_full", "queue_full"]
    stuck.let_go.set()
    assert client.flush(PATIENCE)


@shows("retry_timeouts", "on_retry")
def test_retries_wait_exactly_as_listed(make: Any) -> None:
    """To the moment; `on_retry` is told before each wait, and not when it is given up."""
    told: list[tuple[int, int, bool]] = []
    called = threading.Semaphore(0)
    over = threading.Event()

    def on_retry(response: Any, attempt: int, is_last: bool) -> None:
        told.append((response.status, attempt, is_last))
        called.release()

    transport = Signalling(lambda _: answer(503))
    client = make(transport=transport, retry_timeouts=[5, 70.5, 900], on_retry=on_retry, on_result=lambda _: over.set())
    clock = Clock(client)
    client.log_event(EVENT)
    for wait in (5, 70.5, 900):
        assert called.acquire(timeout=PATIENCE)
        assert clock.due() == wait
        clock.advance(wait)
    assert over.wait(PATIENCE)
    assert told == [(503, 1, False), (503, 2, False), (503, 3, True)]
    assert len(transport.requests) == 4
    assert client.stats().dropped == {"attempts": 1}


@shows("on_retry", "retry")
def test_a_policy_without_an_end_knows_no_last_retry(make: Any) -> None:
    """A network error has no response but the error itself."""
    told: list[tuple[Any, int, bool]] = []
    client = make(transport=Signalling([OSError("cable")]), retry=Patient(), on_retry=lambda *facts: told.append(facts))
    assert client.log_event(EVENT, timeout=PATIENCE).outcome == "acknowledged"
    assert client.flush(PATIENCE)  # callbacks follow what `log_event` waits for
    ((response, attempt, is_last),) = told
    assert (type(response), attempt, is_last) == (OSError, 1, False)


@shows("on_retry")
def test_neighbours_of_a_bad_event_are_sent_again_and_told(make: Any) -> None:
    """Nothing is charged to them, but an attempt it was."""
    told: list[tuple[int, int, bool]] = []
    transport = Signalling([answer(400, error="x", events_with_invalid_fields={"time": [0]})])
    client = make(
        transport=transport, upload_interval=30, on_retry=lambda response, attempt, last: told.append((response.status, attempt, last))
    )
    client.log_event(EVENT)
    assert client.log_event(EVENT, timeout=PATIENCE).outcome == "acknowledged"
    assert client.flush(PATIENCE)  # callbacks follow what `log_event` waits for
    assert told == [(400, 1, False)]


@shows("on_retry", "retry")
def test_a_policy_that_fails_stops_nothing(make: Any) -> None:
    """Delivery goes on with its own."""

    class Broken:
        def wait(self, attempt: int, _random: Callable[[], float], /) -> float | None:
            raise RuntimeError("theirs")

    told: list[Any] = []
    client = make(transport=Signalling([answer(503)]), retry=Broken(), on_retry=lambda *facts: told.append(facts[1:]))
    assert client.log_event(EVENT, timeout=PATIENCE).outcome == "acknowledged"
    assert client.flush(PATIENCE)  # callbacks follow what `log_event` waits for
    assert told == [(1, False)]


class Patient:
    """A retry policy: at once, for ever."""

    def wait(self, attempt: int, _random: Callable[[], float], /) -> float | None:
        assert attempt >= 1
        return 0.0


class TwoTries(Patient):
    """A retry policy with an end."""

    def wait(self, attempt: int, _random: Callable[[], float], /) -> float | None:
        return 0.0 if attempt < 2 else None


@shows("retry")
def test_an_own_retry_policy_decides(make: Any) -> None:
    """By the documented protocol."""
    transport = Signalling(lambda _: answer(500))
    result = make(transport=transport, retry=TwoTries()).log_event(EVENT, timeout=PATIENCE)
    assert (result.outcome, result.reason, len(transport.requests)) == ("dropped", "attempts", 2)


@shows("transport")
def test_an_own_transport_carries_everything(make: Any) -> None:
    """By the documented protocol; a class stands for its instance."""
    client = make(transport=Signalling)
    assert client.log_event(EVENT, timeout=PATIENCE).outcome == "acknowledged"
    own = client._exporter._transport
    assert own.requests[0].events[0]["event_type"] == "Order Paid"
    client.shutdown()
    assert own.closed >= 1


@shows("max_event_age")
def test_what_is_too_old_is_dropped(make: Any) -> None:
    """Amplitude forgets insert_ids, so old resends would count twice."""
    over = threading.Event()
    retried = threading.Event()
    client = make(
        transport=Signalling(lambda _: answer(503)),
        max_event_age=600,
        retry_timeouts=[400, 400, 400],
        on_retry=lambda *_: retried.set(),
        on_result=lambda _: over.set(),
    )
    clock = Clock(client)
    client.log_event(EVENT)
    assert retried.wait(PATIENCE)
    clock.advance(601)
    assert over.wait(PATIENCE)
    assert client.stats().dropped == {"expired": 1}


@shows("request_timeout")
def test_an_attempt_ends_in_time(make: Any) -> None:
    """Against a server that says nothing."""
    with servers.Server(servers.never_answer()) as server:
        client = make(server_url=server.url, transport=None, request_timeout=0.2, retry_timeouts=[])
        begun = time.monotonic()
        assert client.log_event(EVENT, timeout=PATIENCE).outcome == "dropped"
        assert time.monotonic() - begun < 5


@shows("shutdown_timeout")
def test_exit_is_bounded(make: Any) -> None:
    """Whatever the server does; what is left is counted."""
    stuck = Stuck()
    client = make(transport=stuck, shutdown_timeout=0.2)
    client.log_event(EVENT)
    assert stuck.stuck.acquire(timeout=PATIENCE)
    begun = time.monotonic()
    assert not client.shutdown()
    assert time.monotonic() - begun < 3
    stuck.let_go.set()


@shows("max_in_flight")
@pytest.mark.parametrize("most", [1, 3])
def test_requests_at_once(make: Any, most: int) -> None:
    """As many as allowed, since there is a backlog, and never more."""
    lock = threading.Lock()
    reached = threading.Event()
    flying, peak = 0, 0

    def hold(_request: Any) -> Any:
        nonlocal flying, peak
        with lock:
            flying += 1
            peak = max(peak, flying)
            if peak == most:
                reached.set()
        reached.wait(PATIENCE)
        with lock:
            flying -= 1
        return answer(200)

    client = make(transport=Signalling(hold), max_in_flight=most, max_batch_events=5, upload_interval=3600)
    for number in range(200):
        client.log_event({**EVENT, "user_id": f"user-{number}"})
    assert client.flush(PATIENCE)
    assert peak == most


@shows("plan", "ingestion_metadata")
def test_tracking_plan_and_source_are_on_every_event(make: Any, transport: Signalling) -> None:
    """On identify too."""
    client = make(plan={"branch": "main", "versionId": "7"}, ingestion_metadata={"source_name": "shop", "source_version": "2"})
    client.log_event(EVENT)
    client.identify("u-12345", None, otel_amplitude.Identify().set("a", 1))
    assert client.flush(PATIENCE)
    for event in transport.events:
        assert event["plan"] == {"branch": "main", "versionId": "7"}
        assert event["ingestion_metadata"] == {"source_name": "shop", "source_version": "2"}


@shows("opt_out")
def test_opted_out_nothing_is_accepted_or_shown_to_middleware(make: Any, join: Any) -> None:
    """A middleware may send elsewhere; the switch works at run time."""
    seen: list[Any] = []
    client = make(opt_out=True, middleware=[lambda payload, go_on: (seen.append(payload), go_on(payload))])
    assert client.log_event(EVENT).reason == "opted_out"
    assert (seen, client.stats().refused) == ([], {"opted_out": 1})
    client.opt_out = False
    assert client.log_event(EVENT, timeout=PATIENCE).outcome == "acknowledged"
    joined = join(opt_out=True)
    request(joined)
    assert (types(joined), joined.refused()) == ([], {"opted_out": 1})


@shows("on_result")
def test_on_result_gets_the_event_on_demand(make: Any) -> None:
    """With what became of it."""
    results: list[Result] = []
    told = threading.Event()
    client = make(on_result=lambda result: (results.append(result), told.set()))
    key = client.log_event(EVENT).insert_id
    assert told.wait(PATIENCE)
    (result,) = results
    assert (result.insert_id, result.outcome, result.status, result.attempts) == (key, "acknowledged", 200, 1)
    assert result.event["event_type"] == "Order Paid"


def mark(payload: Payload, next: Any) -> None:
    payload.event.event_properties["marked"] = [*payload.event.event_properties.get("marked", []), "function"]
    next(payload)


class Mark:
    def __call__(self, payload: Payload, next: Any) -> None:
        payload.event.event_properties["marked"] = [*payload.event.event_properties.get("marked", []), "class"]
        next(payload)


@shows("middleware")
def test_middleware_by_name_and_by_object_in_order(make: Any, transport: Signalling) -> None:
    """Zero-code users name it."""
    client = make(middleware=["test_options:Mark", mark, "test_options:mark"])
    client.log_event(EVENT, timeout=PATIENCE)
    assert transport.events[0]["event_properties"]["marked"] == ["class", "function", "function"]


# ---------------------------------------------------------------------------------------------------------------- on disk


def spooled(folder: Path) -> int:
    """Bytes on disk."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@shows("spool_dir")
def test_spool_dir_means_on_disk_before_log_event_returns(make: Any, tmp_path: Path) -> None:
    """SIGKILL the next moment loses nothing."""
    stuck = Stuck()
    client = make(transport=stuck, spool_dir=str(tmp_path), upload_interval=3600)
    before = spooled(tmp_path)
    client.log_event(EVENT)
    assert spooled(tmp_path) > before
    stuck.let_go.set()
    assert client.flush(PATIENCE)


@shows("spool_dir")
def test_spool_dir_keeps_at_exit_what_could_not_be_sent(
    make: Any, transport: Signalling, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next process sends it under the same insert_id."""
    monkeypatch.setattr("otel_amplitude.delivery.worker.GRACE_SECONDS", PATIENCE)  # the disk may be slow
    dead = make(transport=Signalling(lambda _: answer(503)), spool_dir=str(tmp_path), shutdown_timeout=0.3)
    key = dead.log_event(EVENT).insert_id
    dead.shutdown()
    assert transport.requests == []
    following = make(spool_dir=str(tmp_path))
    following.log_event(EVENT)
    transport.wait()
    assert following.flush(PATIENCE)
    assert key in {event["insert_id"] for event in transport.events}
    assert following.stats().adopted == 1


@shows("max_spool_bytes")
def test_the_disk_is_bounded(make: Any, tmp_path: Path) -> None:
    """Beyond it events are refused or dropped, counted, and the files stay small."""
    most = 8 * 1024**2
    stuck = Stuck()
    client = make(transport=stuck, spool_dir=str(tmp_path), max_spool_bytes=most, max_cached_bytes=64 * 1024, upload_interval=3600)
    large = {f"text{number}": "x" * 1000 for number in range(55)}
    for number in range(250):
        client.log_event({**EVENT, "user_id": f"user-{number}", "event_properties": large})
    assert spooled(tmp_path) <= most + 64 * 1024
    books = client.stats()
    assert books.balanced
    assert sum(books.refused.values()) + sum(books.dropped.values()) > 50
    stuck.let_go.set()


# ----------------------------------------------------------------------------------------------------------- which events


@shows("select")
@pytest.mark.parametrize(
    ("select", "expected"),
    [
        ("default", ["HTTP Request", "Paid"]),
        ("annotated", ["Paid"]),
        (lambda span: "Chosen" if span.name == "SELECT" else False, ["Paid", "Chosen"]),
    ],
)
def test_select(join: Any, select: Any, expected: list[str]) -> None:
    """Automatic events, none of them, or a callable's choice."""
    joined = join(select=select)
    request(joined)
    joined.tracer.start_span("work", attributes={"amplitude.event_type": "Paid", "amplitude.user_id": "u-12345"}).end()
    joined.tracer.start_span("SELECT", kind=SpanKind.SERVER, attributes={**REQUEST, "amplitude.user_id": "u-12345"}).end()
    found = types(joined)
    assert found == expected if select != "default" else [*expected, "HTTP Request"]


@shows("rules")
def test_rules_name_and_drop(join: Any, tmp_path: Path) -> None:
    """From a file that an analyst can read."""
    rules = tmp_path / "rules.toml"
    rules.write_text('[[event]]\nname = "Order Placed"\nmatch = {route = "/orders"}\n\n[[event]]\nmatch = {route = "/poll"}\ndrop = true\n')
    joined = join(rules=str(rules))
    request(joined)
    request(joined, http__route="/poll")
    assert (types(joined), joined.refused()) == (["Order Placed"], {"rule": 1})


@shows("methods")
def test_only_these_methods(join: Any) -> None:
    """Of automatic events."""
    joined = join(methods=["POST"])
    request(joined)
    request(joined, http__request__method="GET")
    assert [event["event_properties"]["method"] for event in joined.events()] == ["POST"]


@shows("exclude")
def test_excluded_routes(join: Any) -> None:
    """By glob; counted."""
    joined = join(exclude=["/internal/*"])
    request(joined, http__route="/internal/jobs")
    request(joined)
    assert (types(joined), joined.refused()) == (["HTTP Request"], {"excluded": 1})


@shows("event_name")
@pytest.mark.parametrize(
    ("event_name", "expected"), [(None, "HTTP Request"), ("route", "POST /orders"), (lambda span: f"span {span.name}", "span POST")]
)
def test_names_of_automatic_events(join: Any, event_name: Any, expected: str) -> None:
    """One type, one for each route, or a callable's word."""
    joined = join(event_name=event_name)
    request(joined)
    assert types(joined) == [expected]


@shows("max_event_types")
def test_generated_names_are_bounded(join: Any) -> None:
    """Amplitude indexes 2,000 for all services together."""
    joined = join(event_name="route", max_event_types=2)
    for route in ("/a", "/b", "/c", "/a"):
        request(joined, http__route=route)
    assert types(joined) == ["POST /a", "POST /b", "(other)", "POST /a"]


@shows("auto_events_per_minute")
@pytest.mark.parametrize(("cap", "arrived"), [(2, 2), (0, 5)])
def test_automatic_events_of_one_id_are_capped(join: Any, cap: int, arrived: int) -> None:
    """0 is no cap."""
    joined = join(auto_events_per_minute=cap)
    for _ in range(5):
        request(joined)
    assert len(joined.events()) == arrived


@shows("exposures")
@pytest.mark.parametrize("exposures", [True, False])
def test_exposures(join: Any, exposures: bool) -> None:
    """A flag evaluation becomes `$exposure` where asked for."""
    joined = join(exposures=exposures)
    facts = {"feature_flag.key": "new-cart", "feature_flag.result.variant": "on", "amplitude.user_id": "u-12345"}
    joined.logger.emit(event_name="feature_flag.evaluation", attributes=facts)
    assert types(joined) == (["$exposure"] if exposures else [])


@shows("environments")
@pytest.mark.parametrize(("where", "arrived"), [("production", 1), ("staging", 0)])
def test_environments(join: Any, where: str, arrived: int) -> None:
    """Only those named send."""
    joined = join(environments=["production"], resource={"deployment.environment.name": where})
    request(joined)
    assert len(joined.events()) == arrived


@shows("dry_run")
def test_a_dry_run_does_everything_but_send(make: Any, transport: Signalling) -> None:
    """The books are those of a real run."""
    client = make(dry_run=True)
    assert client.log_event(EVENT, timeout=PATIENCE).outcome == "acknowledged"
    assert (transport.requests, client.stats().acknowledged) == ([], 1)


# -------------------------------------------------------------------------------------------------------- what is in them


@shows("properties")
def test_more_attributes_by_glob(join: Any) -> None:
    """Of automatic events, which otherwise carry a fixed table."""
    joined = join(properties=["cart.*"])
    request(joined, cart__total=12.5, other__thing=1)
    properties = joined.events()[0]["event_properties"]
    assert properties["cart.total"] == 12.5
    assert "other.thing" not in properties


@shows("resource_properties")
def test_more_of_the_resource_by_glob(join: Any) -> None:
    """Such as the region of the cloud."""
    joined = join(resource_properties=["cloud.*"], resource={"cloud.region": "eu-west-1", "host.name": "web-1"})
    request(joined)
    properties = joined.events()[0]["event_properties"]
    assert properties["cloud.region"] == "eu-west-1"
    assert "host.name" not in properties


@shows("span_events")
@pytest.mark.parametrize("everywhere", [True, False])
def test_span_events_on_any_span(join: Any, everywhere: bool) -> None:
    """Looking costs, so it is asked for."""
    joined = join(span_events=everywhere)
    with joined.tracer.start_as_current_span("work") as span:
        span.add_event("click", {"amplitude.event_type": "Clicked", "amplitude.user_id": "u-12345"})
    assert types(joined) == (["Clicked"] if everywhere else [])


@shows("client_ip")
@pytest.mark.parametrize(("proxies", "ip"), [(None, None), (1, "8.8.8.8"), (2, "9.9.9.9"), (3, None)])
def test_the_clients_address(join: Any, proxies: int | None, ip: str | None) -> None:
    """Counted from the right by the trusted proxies; never by default."""
    joined = join(client_ip=proxies)
    request(joined, http__request__header__x_forwarded_for=("9.9.9.9, 8.8.8.8",))
    assert joined.events()[0].get("ip") == ip


# ------------------------------------------------------------------------------------------------------------- who it was


@shows("identity_headers")
def test_headers_that_carry_ids(join: Any) -> None:
    """Device and session of a mobile app; a user only where it is named."""
    joined = join(identity_headers={"device": "X-Device-Id"})
    request(joined, user=None, headers={"x-device-id": "phone-12345", "x-user-id": "forged-1"})
    (event,) = joined.events()
    assert event["device_id"] == "phone-12345"
    assert "user_id" not in event


@shows("user_id_format")
def test_a_server_id_as_the_browser_writes_it(join: Any) -> None:
    """Else one person would become two."""
    joined = join(user_id_format="user-{id}")
    request(joined, user=42)
    assert joined.events()[0]["user_id"] == "user-42"


@shows("consent")
@pytest.mark.parametrize("consent", ["gpc", lambda scope: not scope.gpc])
def test_consent(join: Any, consent: Any) -> None:
    """`Sec-GPC`, or a callable's decision."""
    joined = join(consent=consent)
    request(joined, headers={"sec-gpc": "1"})
    request(joined)
    assert (len(joined.events()), joined.refused()) == (1, {"opted_out": 1})


@shows("anonymous")
def test_a_callable_may_supply_ids(join: Any) -> None:
    """For machine activity; by default nobody is dropped and counted."""
    dropping = join()
    dropping.tracer.start_span("work", attributes={"amplitude.event_type": "Nightly"}).end()
    assert dropping.refused() == {"no_identity": 1}
    joined = join(anonymous=lambda *_: {"device_id": "nightly-job"})
    joined.tracer.start_span("work", attributes={"amplitude.event_type": "Nightly"}).end()
    assert joined.events()[0]["device_id"] == "nightly-job"


@shows("api_key")
def test_the_cookie_is_that_of_the_key(join: Any) -> None:
    """Another project's visitor is none of ours."""
    joined = join(user_id_format=None)
    request(joined, user=None, headers={"cookie": make_cookie(KEY, "browser-12345")})
    request(joined, user=None, headers={"cookie": make_cookie("f" * 32, "browser-67890")})
    assert [event["device_id"] for event in joined.events()] == ["browser-12345"]


# ----------------------------------------------------------------------------------------------------------- what is said


@shows("log_level")
@pytest.mark.parametrize(("level", "lines"), [("NONE", set()), ("ERROR", {"ERROR"}), ("WARN", {"ERROR", "WARNING"}), ("VERBOSE", None)])
def test_log_levels(make: Any, caplog: pytest.LogCaptureFixture, level: str, lines: set[str] | None) -> None:
    """Node's four words."""
    caplog.set_level(logging.DEBUG, "otel_amplitude")
    client = make(log_level=level, middleware=[lambda payload, go_on: 1 / 0 if payload.extra else go_on(payload)])
    client.log_event({"event_type": "", "user_id": "u-12345"})
    client.log_event(EVENT, {"fail": True})
    client.log_event(EVENT, timeout=PATIENCE)
    assert client.flush(PATIENCE)  # callbacks follow what `log_event` waits for
    found = {record.levelname for record in caplog.records}
    assert found == lines if lines is not None else "DEBUG" in found


@shows("debug")
def test_debug_shows_every_batch_where_nobody_listens(sandbox: Sandbox) -> None:
    """On stderr, in a program that has configured no logging."""
    program = (
        "import otel_amplitude, sys\n"
        "client = otel_amplitude.init('0123456789abcdef', server_url=sys.argv[1], debug=True)\n"
        "client.log_event({'event_type': 'X', 'user_id': 'u-12345'}, timeout=10)\n"
        "client.shutdown()\n"
    )
    command = [sys.executable, "-c", program, f"{sandbox.url}/2/httpapi"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stderr
    assert "batch.acknowledged" in said
    assert "0123456789abcdef" not in said


@shows("flush_on_sigterm")
@pytest.mark.heavy
@pytest.mark.parametrize("flushes", [True, False])
def test_flush_on_sigterm(sandbox: Sandbox, flushes: bool) -> None:
    """Where nobody else flushes, a SIGTERM loses what waits for company, unless asked for."""
    program = (
        "import otel_amplitude, sys, time\n"
        "client = otel_amplitude.configure('0123456789abcdef', server_url=sys.argv[1], upload_interval=3600,\n"
        "    flush_on_sigterm=sys.argv[2] == 'True')\n"
        "client.log_event({'event_type': 'X', 'user_id': 'u-12345'})\n"
        "print('ready', flush=True)\n"
        "time.sleep(30)\n"
    )
    command = [sys.executable, "-c", program, f"{sandbox.url}/2/httpapi", str(flushes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONWARNINGS": "ignore"}) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == -signal.SIGTERM
    assert len(sandbox.events()) == flushes


@shows("strict")
def test_strict_raises_what_is_bad(make: Any) -> None:
    """From every call; without it none does."""
    calls: list[Callable[[Amplitude], Any]] = [
        lambda client: client.log_event({"user_id": "u-12345"}),
        lambda client: client.identify("u-12345", None, otel_amplitude.Identify().add("orders", "many")),
        lambda client: client.revenue("u-12345", None, otel_amplitude.Revenue(price="free")),
    ]
    strict, patient = make(strict=True), make()
    for call in calls:
        with pytest.raises(InvalidEventError):
            call(strict)
        assert call(patient).outcome == "refused"
