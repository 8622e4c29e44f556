"""The client: what a user of Amplitude's SDKs expects, and what must never happen."""

from __future__ import annotations

import contextlib
import decimal
import fractions
import json
import logging
import math
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.context import attach, detach, get_current
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind

import otel_amplitude.instances
from otel_amplitude import (
    Amplitude,
    Config,
    ConfigurationError,
    Identify,
    InvalidEventError,
    Next,
    Payload,
    Result,
    Revenue,
    RulesError,
    set_user,
)
from otel_amplitude.errors import TransportError
from otel_amplitude.exporter import read_ids
from otel_amplitude.identity import AmplitudePropagator, make_cookie
from otel_amplitude.testing import FakeTransport, answer

KEY = "0123456789abcdef0123456789abcdef"
EVENT = {"event_type": "Order Paid", "user_id": "u-12345"}


@pytest.fixture
def transport() -> FakeTransport:
    return FakeTransport()


@pytest.fixture
def make(transport: FakeTransport) -> Iterator[Any]:
    made: list[Amplitude] = []

    def build(**options: Any) -> Amplitude:
        client = Amplitude(Config(KEY, **{"transport": transport, "upload_interval": 0, **options}))
        made.append(client)
        return client

    yield build
    for client in made:
        client.shutdown(1)
        assert client.stats().balanced


def test_an_event_is_completed_and_delivered(make: Any, transport: FakeTransport) -> None:
    """insert_id, time and library are filled in; what the caller gave stays."""
    client = make()
    result = client.log_event({**EVENT, "event_properties": {"total": 12.5}})
    assert (result.outcome, result.accepted) == ("pending", True)
    assert client.flush(5)
    (event,) = transport.events
    assert event["insert_id"] == result.insert_id
    assert event["library"].startswith("otel-amplitude/")
    assert isinstance(event["time"], int)
    assert event["event_properties"] == {"total": 12.5}
    assert client.stats().acknowledged == 1


def test_the_callers_dictionary_is_left_alone(make: Any) -> None:
    """It is theirs."""
    given = dict(EVENT)
    make().log_event(given)
    assert given == EVENT


def test_waiting_gives_the_final_result(make: Any) -> None:
    """For scripts and tests; the upload interval is not waited for."""
    result = make(upload_interval=3600).log_event(EVENT, timeout=5)
    assert (result.outcome, result.status, result.attempts) == ("acknowledged", 200, 1)
    assert result.event["event_type"] == "Order Paid"


def test_waiting_for_ever(make: Any) -> None:
    """Infinity is more than a lock can wait, and no reason to raise."""
    assert make().log_event(EVENT, timeout=math.inf).outcome == "acknowledged"


def test_waiting_in_vain_gives_pending(make: Any) -> None:
    """The event stays the client's."""
    silence = threading.Event()

    def never(_request: Any) -> Any:
        silence.wait(5)
        return answer(200)

    client = make(transport=FakeTransport(never))
    assert client.log_event(EVENT, timeout=0.01).outcome == "pending"
    silence.set()
    assert client.flush(5)


def test_waiting_for_a_rejected_event_says_so(make: Any) -> None:
    """By name, with the status."""
    transport = FakeTransport(lambda _: answer(400, error="Invalid field values on some events", events_with_invalid_fields={"time": [0]}))
    result = make(transport=transport).log_event(EVENT, timeout=5)
    assert (result.outcome, result.reason, result.status) == ("rejected", "invalid", 400)


@pytest.mark.parametrize("event", [{"event_type": "X"}, EVENT])
def test_nobody_waits_any_more_when_strict_raised(make: Any, event: Any) -> None:
    """A waiter left behind would have delivery look into every event for ever."""
    client = make(strict=True)
    with contextlib.suppress(InvalidEventError):
        client.log_event(event, timeout=5)
    assert not client._results.wants_results


BAD = [
    ({"user_id": "u-12345"}, "invalid", "event_type"),
    ({"event_type": "X"}, "no_identity", "user_id"),
    ({"event_type": "X", "user_id": "u"}, "invalid", "user_id"),
    ({"event_type": "X", "user_id": "anonymous"}, "invalid", "user_id"),
    ({"event_type": "$identify", "user_id": "u-12345", "user_properties": {"$set": 1}}, "invalid", "user_properties"),
    ("Order Paid", "invalid", "mapping"),
    (None, "invalid", "mapping"),
]


@pytest.mark.parametrize(("event", "reason", "word"), BAD)
def test_a_bad_event_is_refused_with_field_and_rule(make: Any, event: Any, reason: str, word: str) -> None:
    """Logged and counted, never raised."""
    client = make()
    result = client.log_event(event)
    assert (result.outcome, result.reason) == ("refused", reason)
    assert word in result.message
    assert client.stats().refused == {reason: 1}


@pytest.mark.parametrize(("event", "reason", "word"), BAD)
def test_strict_raises_what_is_bad(make: Any, event: Any, reason: str, word: str) -> None:
    """Tests like it."""
    with pytest.raises(InvalidEventError, match=word) as raised:
        make(strict=True).log_event(event)
    assert raised.value.reason == reason


def test_ids_come_from_set_user(make: Any, transport: FakeTransport) -> None:
    """Said once, good for every event of the context."""
    client = make()
    token = attach(get_current())
    set_user("u-67890", device_id="d-12345", session_id=1795305600000, groups={"org": "acme"})
    client.log_event({"event_type": "X"})
    client.log_event({"event_type": "X", "user_id": "u-12345"})
    detach(token)
    assert client.flush(5)
    first, second = transport.events
    assert (first["user_id"], first["device_id"], first["session_id"], first["groups"]) == (
        "u-67890",
        "d-12345",
        1795305600000,
        {"org": "acme"},
    )
    assert second["user_id"] == "u-12345"
    assert "device_id" not in second


def test_opting_out_of_set_user_holds_for_log_event(make: Any) -> None:
    """Opt-out beats every source."""
    client = make()
    token = attach(get_current())
    set_user("u-67890", opt_out=True)
    assert client.log_event(EVENT).reason == "opted_out"
    detach(token)


def test_consent_is_asked_outside_a_request_too(make: Any, transport: FakeTransport) -> None:
    """The callable gets an empty scope there; its answer holds for events with ids of their own, and it supplies none."""
    answers = iter([False, True])
    client = make(
        consent=lambda scope: scope.user_id is None and next(answers), anonymous=lambda attributes, scope: {"device_id": "worker"}
    )
    assert [client.log_event(EVENT, timeout=5).reason for _ in range(2)] == ["opted_out", ""]
    assert client.stats().refused == {"opted_out": 1}
    assert "device_id" not in transport.events[0]


def test_set_user_with_anything_costs_no_exception(make: Any, transport: FakeTransport) -> None:
    """An event is sent without what can not be read."""

    class Column:
        def __eq__(self, _other: object) -> bool:
            raise TypeError

        __hash__ = None  # type: ignore[assignment]

    token = attach(get_current())
    set_user("u-12345", Column(), Column(), {"org": Column()})  # type: ignore[arg-type]
    assert make().log_event({"event_type": "Order Paid"}, timeout=5).outcome == "acknowledged"
    detach(token)
    assert (transport.events[0]["user_id"], transport.events[0].get("session_id")) == ("u-12345", None)


def test_the_hint_about_nobody_names_what_exclude_understands(
    make: Any, transport: FakeTransport, caplog: pytest.LogCaptureFixture
) -> None:
    """The route is written as in events, not as the framework writes it."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(otel_amplitude.AmplitudeSpanProcessor(make()))
    with caplog.at_level(logging.WARNING, "otel_amplitude"):
        attributes = {"http.request.method": "GET", "http.route": "/products/<name>", "http.response.status_code": 200}
        provider.get_tracer("test").start_span("GET", kind=SpanKind.SERVER, attributes=attributes).end()
    assert "route=/products/{name}" in caplog.text


def test_inside_a_request_log_event_knows_what_the_browser_said(make: Any, transport: FakeTransport) -> None:
    """Device and session of the cookie, the server's user in its format, and the visitor's opt-out."""
    client = make(user_id_format="user-{id}")
    cookie = make_cookie(KEY, "browser-device", session_id=int(time.time() * 1000))
    for header in (cookie, make_cookie(KEY, "browser-device", opt_out=True)):
        token = attach(AmplitudePropagator().extract({"cookie": header}))
        set_user(42)
        client.log_event({"event_type": "X"})
        client.log_event({"event_type": "Y", "user_id": "u-12345"})
        detach(token)
    assert client.flush(5)
    first, second = transport.events
    assert (first["user_id"], first["device_id"], "session_id" in first) == ("user-42", "browser-device", True)
    assert (second["user_id"], "device_id" in second) == ("u-12345", False)
    assert client.stats().refused == {"opted_out": 2}


def test_identify_group_identify_and_revenue(make: Any, transport: FakeTransport) -> None:
    """The events of Amplitude's SDKs."""
    client = make()
    client.identify("u-12345", None, Identify().set("plan", "pro").add("orders", 1))
    client.group_identify("org", "acme", Identify().set("seats", 5), user_id="u-12345")
    client.set_group("u-12345", None, "org", "acme")
    client.revenue("u-12345", None, Revenue(price=2.5, quantity=2, product_id="tea"))
    assert client.flush(5)
    identify, group, membership, revenue = transport.events
    assert (identify["event_type"], identify["user_properties"]) == ("$identify", {"$set": {"plan": "pro"}, "$add": {"orders": 1}})
    assert (group["event_type"], group["groups"], group["group_properties"]) == ("$groupidentify", {"org": "acme"}, {"$set": {"seats": 5}})
    assert (membership["groups"], membership["user_properties"]) == ({"org": "acme"}, {"$set": {"org": "acme"}})
    assert (revenue["event_type"], revenue["event_properties"]["$price"]) == ("revenue_amount", 2.5)


def test_a_group_needs_no_person(make: Any, transport: FakeTransport) -> None:
    """Its name stands as the device id, which the server may want."""
    assert make().group_identify("org", "acme", Identify().set("seats", 5), timeout=5).outcome == "acknowledged"
    assert transport.events[0]["device_id"] == "group-org-acme"


def test_opt_out_can_be_switched(make: Any) -> None:
    """At run time, as in every SDK of Amplitude's."""
    client = make()
    client.opt_out = True
    assert client.log_event(EVENT).reason == "opted_out"
    client.opt_out = False
    assert client.log_event(EVENT).accepted


def test_plan_and_ingestion_metadata_are_merged_and_the_events_own_win(make: Any, transport: FakeTransport) -> None:
    """As in the Node SDK."""
    client = make(plan={"branch": "main", "source": "web"}, ingestion_metadata={"source_name": "shop"})
    client.log_event({**EVENT, "plan": {"branch": "trial"}})
    assert client.flush(5)
    assert transport.events[0]["plan"] == {"branch": "trial", "source": "web"}
    assert transport.events[0]["ingestion_metadata"] == {"source_name": "shop"}


# Middleware


def test_middleware_runs_in_order_and_sees_extra(make: Any, transport: FakeTransport) -> None:
    """Calls can be joined."""
    seen: list[Any] = []

    def first(payload: Payload, next: Any) -> None:
        seen.append(("first", payload.extra, payload.source))
        payload.event.event_properties["touched"] = True
        next(payload)

    def second(payload: Payload, next: Any) -> None:
        seen.append("second")
        next(payload)

    client = make().add_event_middleware(first).add_event_middleware(second)
    client.log_event(EVENT, {"trusted": True})
    assert client.flush(5)
    assert seen == [("first", {"trusted": True}, None), "second"]
    assert transport.events[0]["event_properties"] == {"touched": True}


def test_a_middleware_may_drop(make: Any) -> None:
    """By not calling next; counted by reason."""
    client = make().add_event_middleware(lambda _payload, _next: None)
    assert client.log_event(EVENT).reason == "middleware"
    assert client.stats().refused == {"middleware": 1}


@pytest.mark.parametrize("key", ["time", "session_id"])
@pytest.mark.parametrize("kind", [float, fractions.Fraction, decimal.Decimal])
def test_a_number_that_is_equal_but_of_another_type_is_mended(make: Any, transport: FakeTransport, key: str, kind: Any) -> None:
    """An event that was sound is checked again, since Amplitude takes no 1795305661001.0 as a time."""

    def divides(payload: Payload, next: Any) -> None:
        payload.event[key] = kind(payload.event[key])
        next(payload)

    client = make(middleware=[divides])
    sound = {**EVENT, "insert_id": "i-1", "time": 1_795_305_661_001, "session_id": 1_795_305_600_000, "event_properties": {}}
    assert client.accept(sound.copy(), {}, None, True) == "i-1"
    assert client.flush(5)
    assert type(transport.events[0][key]) is int
    assert transport.events[0][key] == sound[key]


def test_a_middleware_that_raises_is_told_without_its_words(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """They may quote the event it was busy with; what the chain itself says about a mistake quotes none."""

    def looks(payload: Payload, _next: Next) -> None:
        {}[payload.event["user_id"]]

    def twice(payload: Payload, following: Next) -> None:
        following(payload)
        following(payload)

    make(middleware=[looks]).log_event(EVENT)
    make(middleware=[twice]).log_event(EVENT)
    first, second = (record.getMessage() for record in caplog.records)
    assert re.fullmatch(r'middleware\.failed middleware=looks error="KeyError at test_client\.py:\d+"', first)
    assert "next was called twice" in second


def test_at_shutdown_outstanding_sums_are_told(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Else a short process would show one of a thousand equal warnings."""
    client = make()
    for _ in range(3):
        client.log_event({"event_type": "", "user_id": "u-12345"})
    client.shutdown()
    assert [record.getMessage().rpartition(" ")[2] for record in caplog.records][1:] == ["repeated=2"]


def test_an_event_logged_by_middleware_goes_through_once(make: Any) -> None:
    """One level, so that a middleware that logs can not go on for ever."""

    def logs(payload: Payload, next: Any) -> None:
        client.log_event({"event_type": "Audit", "user_id": "u-12345"})
        next(payload)

    client = make().add_event_middleware(logs)
    client.log_event(EVENT)
    assert client.flush(5)
    books = client.stats()
    assert (books.accepted, books.refused) == (2, {"middleware": 1})


def test_a_middleware_must_be_callable(make: Any) -> None:
    """Said at once."""
    with pytest.raises(ConfigurationError, match="callable"):
        make().add_event_middleware(5)


# Results and retries


def test_on_result_is_told_once_for_each_event(make: Any) -> None:
    """Whatever its end."""
    results: list[Result] = []
    told = threading.Semaphore(0)
    invalid = answer(400, error="x", events_with_invalid_fields={"time": [1]})
    client = make(
        transport=FakeTransport([invalid]), upload_interval=3600, on_result=lambda result: (results.append(result), told.release())
    )
    ids = [client.log_event({**EVENT, "n": 1}).insert_id for _ in range(3)]
    assert client.flush(5)
    assert all(told.acquire(timeout=5) for _ in ids)  # callbacks run after the settling that `flush` waits for
    assert sorted(result.insert_id for result in results) == sorted(ids)
    assert {result.insert_id: result.outcome for result in results}[ids[1]] == "rejected"
    assert sorted(result.outcome for result in results) == ["acknowledged", "acknowledged", "rejected"]


def test_a_callback_that_raises_stops_nothing(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged."""
    heard = threading.Event()

    def hear(record: logging.LogRecord) -> bool:
        if record.getMessage().startswith("callback.failed"):
            heard.set()
        return True

    caplog.handler.addFilter(hear)
    client = make(on_result=lambda _: 1 / 0)
    client.log_event(EVENT)
    assert client.flush(5)
    assert heard.wait(5)


def test_a_callback_is_told_without_its_words(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """They may quote the event."""
    client = make(on_result=lambda result: {}[result.event["user_id"]])
    client.log_event(EVENT)
    client.shutdown(5)
    (line,) = (record.getMessage() for record in caplog.records if record.getMessage().startswith("callback.failed"))
    assert "KeyError at test_client.py:" in line
    assert EVENT["user_id"] not in line


def test_retry_timeouts_are_exact_and_the_last_is_known(make: Any) -> None:
    """Node's meaning: the waits are listed; then the event is dropped."""
    retries: list[tuple[int, bool]] = []
    transport = FakeTransport(lambda _: answer(500))
    client = make(transport=transport, retry_timeouts=[0, 0], on_retry=lambda _, attempt, last: retries.append((attempt, last)))
    assert client.log_event(EVENT, timeout=5).reason == "attempts"
    assert client.flush(30)  # callbacks follow what `log_event` waits for
    assert len(transport.requests) == 3
    assert retries == [(1, False), (2, True)]


def test_no_retry_timeouts_means_no_retry(make: Any) -> None:
    """An empty list."""
    transport = FakeTransport(lambda _: answer(500))
    result = make(transport=transport, retry_timeouts=[]).log_event(EVENT, timeout=5)
    assert (result.outcome, result.reason, len(transport.requests)) == ("dropped", "attempts", 1)


def test_every_attempt_sends_the_same_bytes(make: Any) -> None:
    """Encoded once; the same insert_id for ever."""
    transport = FakeTransport([TransportError("reset"), answer(503)])
    client = make(transport=transport, retry_timeouts=[0, 0, 0])
    client.log_event(EVENT, timeout=5)
    assert len({recorded.request.body for recorded in transport.requests}) == 1
    assert len(transport.requests) == 3


# Instances


@pytest.mark.parametrize(
    ("body", "ids"),
    [
        (b'{"event_type": "t", "user_id": "u-12345", "device_id": "d-12345"}', ("u-12345", "d-12345")),
        (b'{"event_type": "t", "device_id": "d-12345"}', ("d-12345",)),
        (b'{"event_type": "t"}', ("",)),
        (b'{"event_type": "t", "user_id": ["u"], "device_id": {"d": 1}}', ("['u']", "{'d': 1}")),
    ],
)
def test_ids_that_are_read_back_are_text(body: bytes, ids: tuple[str, ...]) -> None:
    """They become keys of what is held, so that nothing a file holds may be anything else."""
    assert read_ids(body) == ids


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b'"t"', b'{"event_type": 1}', b'{"event_type": "t"} {}', b'{"event_type": "t"}],"api_key":"x","x":[{}', b"\xff"],
)
def test_what_is_not_exactly_one_event_does_not_travel(body: bytes) -> None:
    """Security row S10: it could end its place in the request and add keys to it."""
    with pytest.raises(ValueError):  # noqa: PT011 -- whatever orjson says of it
        read_ids(body)


def test_rules_that_can_not_be_used_are_told_at_once() -> None:
    """Not when the first processor is made."""
    with pytest.raises(RulesError, match="there is no such rules file"):
        Amplitude(Config("0" * 32, rules="no/such/rules.toml"))


def test_instances_are_found_by_name() -> None:
    """init makes them, get_instance finds them, a second init of a name takes its place."""
    first = otel_amplitude.init(KEY, name="billing", transport=FakeTransport())
    assert otel_amplitude.get_instance("billing") is first
    second = otel_amplitude.init(KEY, name="billing", transport=FakeTransport())
    assert otel_amplitude.get_instance("billing") is second
    assert first.log_event(EVENT).reason == "closed"
    assert second.log_event(EVENT).accepted
    second.shutdown()


def test_a_misspelt_variable_is_told_by_init_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever writes SERVERZONE=EU would send data of Europeans to the US without a word."""
    monkeypatch.setattr(otel_amplitude.instances, "_told_misspelt", set())
    monkeypatch.setenv("OTEL_EXPORTER_AMPLITUDE_SERVERZONE", "EU")
    for name in ("one", "two"):
        otel_amplitude.init(KEY, name=name, transport=FakeTransport())
    assert [record.getMessage() for record in caplog.records] == [
        "config.ignored reason=OTEL_EXPORTER_AMPLITUDE_SERVERZONE nearest=OTEL_EXPORTER_AMPLITUDE_SERVER_ZONE"
    ]


def test_an_instance_that_is_missing_is_named() -> None:
    """With the cure."""
    with pytest.raises(ConfigurationError, match=r"init\(api_key, name='nowhere'\)"):
        otel_amplitude.get_instance("nowhere")


# Nothing leaks


def test_the_key_is_in_no_log_line_and_no_repr(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Not even when the server echoes it."""
    caplog.set_level(logging.DEBUG, "otel_amplitude")
    echo = answer(400, error=f"Invalid API key: {KEY}")
    client = make(transport=FakeTransport(lambda _: echo), log_level="VERBOSE")
    client.log_event(EVENT)
    assert not client.flush(0.2)
    end = time.monotonic() + 30
    while "sending.paused" not in caplog.text:
        assert time.monotonic() < end
        time.sleep(0.005)
    assert KEY not in caplog.text + repr(client) + repr(client.config) + repr(client.stats())


@pytest.mark.parametrize("level", ["NONE", "ERROR", "WARN"])
def test_success_is_silent(make: Any, caplog: pytest.LogCaptureFixture, level: str) -> None:
    """No log noise."""
    client = make(log_level=level)
    client.log_event(EVENT, timeout=5)
    assert client.flush(30)  # callbacks follow what `log_event` waits for
    assert caplog.text == ""


def test_after_shutdown_events_are_refused(make: Any) -> None:
    """Counted as closed."""
    client = make()
    assert client.shutdown()
    assert client.shutdown()
    refused = client.log_event(EVENT)
    assert refused.reason == "closed"
    assert "the client was shut down" in refused.message


def test_many_threads_one_client(make: Any, transport: FakeTransport) -> None:
    """Every event once, and the books balance."""
    client = make()
    start = threading.Barrier(8)

    def work(name: int) -> None:
        start.wait()
        for number in range(50):
            client.log_event({**EVENT, "insert_id": f"{name}-{number}"})

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.flush(10)
    assert len({event["insert_id"] for event in transport.events}) == len(transport.events) == 400


def test_dry_run_keeps_the_books_and_may_keep_the_events(make: Any, tmp_path: Any) -> None:
    """Everything but sending."""
    target = tmp_path / "events.jsonl"
    client = make(dry_run=str(target), transport=None)
    assert client.log_event(EVENT, timeout=5).outcome == "acknowledged"
    assert json.loads(target.read_text())["event_type"] == "Order Paid"
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_dry_run_that_can_not_write_keeps_the_events(make: Any, tmp_path: Any) -> None:
    """Like an outage."""
    client = make(dry_run=str(tmp_path / "no" / "folder"), transport=None)
    assert client.log_event(EVENT, timeout=0.05).outcome == "pending"
