"""Identity that arrives in headers: captured on spans in any spelling, in baggage, in a token that only the application can read."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import flask
import pytest
from opentelemetry import propagate
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.trace import SpanKind
from world.traced import KEY, Traced

from otel_amplitude.cli._main import main
from otel_amplitude.config import Config
from otel_amplitude.errors import ConfigurationError
from otel_amplitude.frameworks.celery import _publish
from otel_amplitude.identity import AmplitudePropagator, make_cookie
from otel_amplitude.identity._luggage import HEADER, unpack
from otel_amplitude.otel._components import client_for
from otel_amplitude.otel._processors import AmplitudeLogRecordProcessor
from otel_amplitude.setup import attach_propagator

PAGE = {"http.request.method": "GET", "http.route": "/a", "http.response.status_code": 200}
TOKEN = "Bearer abc.user-1234.xyz"


def user_of(value: str) -> str | None:
    """The user of a token, as an application would read it."""
    kind, _, token = value.partition(" ")
    if kind != "Bearer":
        return None
    _, user, _ = token.split(".")
    return user


def request(service: Traced, **attributes: Any) -> None:
    """A request of a service in any language."""
    named = {name.replace("__", "."): value for name, value in attributes.items()}
    service.tracer.start_span("GET /a", kind=SpanKind.SERVER, attributes={**PAGE, **named}).end()


@pytest.mark.parametrize("name", ["http.request.header.sec-gpc", "http.request.header.sec_gpc"])
@pytest.mark.parametrize("value", [("1",), ["1"], "1", '["1"]', ("1", "1"), "1 "], ids=repr)
def test_an_opt_out_is_seen_in_either_spelling(name: str, value: Any) -> None:
    """open-telemetry/opentelemetry-js#6381, semantic-conventions#304: the conventions keep the dashes, Python writes underscores."""
    service = Traced(consent="gpc")
    request(service, **{"user.id": "user-1234", name: value})
    assert (service.events(), service.refused()) == ([], {"opted_out": 1})


@pytest.mark.parametrize("name", ["http.request.header.x-device-id", "http.request.header.x_device_id"])
@pytest.mark.parametrize("value", [("device-1234",), "device-1234", '["device-1234"]'], ids=repr)
def test_an_identity_header_is_seen_in_either_spelling(name: str, value: Any) -> None:
    """As above, for ids."""
    service = Traced(identity_headers={"device": "X-Device-Id"})
    request(service, **{name: value})
    assert [event["device_id"] for event in service.events()] == ["device-1234"]


@pytest.mark.parametrize("name", ["http.request.header.x-forwarded-for", "http.request.header.x_forwarded_for"])
@pytest.mark.parametrize("value", [("8.8.4.4, 8.8.8.8",), ["8.8.4.4", "8.8.8.8"], "8.8.4.4,8.8.8.8", '["8.8.4.4, 8.8.8.8"]'], ids=repr)
def test_an_address_is_seen_in_either_spelling(name: str, value: Any) -> None:
    """As above, for the client's address behind one proxy."""
    service = Traced(client_ip=1)
    request(service, **{"user.id": "user-1234", name: value})
    assert [event["ip"] for event in service.events()] == ["8.8.8.8"]


@pytest.mark.parametrize("now", [0, 86_400_000])
def test_the_session_of_a_captured_cookie_is_judged_by_the_time_of_the_item(now: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same item gives the same event today and tomorrow: its session was alive when it happened."""
    begin = 1_795_305_600_000
    cookie = make_cookie(KEY, "device-1234", "user-1234", begin - 60_000, last_event_ms=begin - 10_000)
    service = Traced()
    monkeypatch.setattr(service.client.resolver, "_wall", lambda: (begin + now) / 1000)
    attributes = {**PAGE, "http.request.header.cookie": (cookie,)}
    for start_ms in (begin, begin + 31 * 60_000):
        span = service.tracer.start_span("GET /a", kind=SpanKind.SERVER, attributes=attributes, start_time=start_ms * 1_000_000)
        span.end(start_ms * 1_000_000 + 5_000_000)
    assert [event.get("session_id") for event in service.events()] == [begin - 60_000, None]


def test_a_span_that_began_before_another_keeps_the_session_of_its_own_time(traced: Traced) -> None:
    """What was decided for a late span of a long request does not hold for an early one of it."""
    begin = 1_795_305_600_000
    headers = {"cookie": make_cookie(KEY, "device-1234", "user-1234", begin - 60_000, last_event_ms=begin - 10_000)}
    context = propagate.extract(headers)
    tea = {"amplitude.event_type": "Tea"}
    early = traced.tracer.start_span("early", context, attributes=tea, start_time=begin * 1_000_000)
    for later in (begin + 3_600_000, begin + 3_600_001):
        traced.tracer.start_span("late", context, attributes=tea, start_time=later * 1_000_000).end(later * 1_000_000)
    early.end((begin + 3_600_002) * 1_000_000)
    assert [event.get("session_id") for event in traced.events()] == [None, None, begin - 60_000]


def test_baggage_loses_its_properties(traced: Traced) -> None:
    """open-telemetry/opentelemetry-dotnet#5677: `;ttl=30` is about the entry, no part of the id."""
    context = propagate.extract({"baggage": "amplitude.user_id=user-1234;ttl=30;private, amplitude.device_id=device-1234 ; a"})
    traced.tracer.start_span("pay", context, attributes={"amplitude.event_type": "Order Paid"}).end()
    assert [(event["user_id"], event["device_id"]) for event in traced.events()] == [("user-1234", "device-1234")]


@pytest.mark.parametrize(("name", "is_ours"), [("requestsapp.orders", False), ("otel_amplitude_shop", False), ("otel_amplitude.x", True)])
def test_loggers_whose_names_only_begin_like_ours_are_the_applications(name: str, is_ours: bool) -> None:
    """A service called `requestsapp` lost its events, in no count."""
    service = Traced()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(AmplitudeLogRecordProcessor(service.client))
    provider.get_logger(name).emit(event_name="Order Paid", attributes={"amplitude.user_id": "user-1234"})
    assert [event["event_type"] for event in service.events()] == ([] if is_ours else ["Order Paid"])
    provider.shutdown()


def test_user_properties_of_a_refused_event_are_not_remembered_as_sent() -> None:
    """They were withheld for ten minutes from the events that followed, and so never arrived."""

    def without_drafts(payload: Any, pass_on: Any) -> Any:
        return None if payload.event["event_type"] == "Draft" else pass_on(payload)

    service = Traced(middleware=[without_drafts])
    for name in ("Draft", "Order Paid", "Order Paid"):
        attributes = {"amplitude.event_type": name, "amplitude.user_id": "user-1234", "amplitude.user_properties.plan": "paid"}
        service.tracer.start_span("x", attributes=attributes).end()
    assert [event.get("user_properties") for event in service.events()] == [{"plan": "paid"}, None]


# --- a function of the application's own -------------------------------------------------------------------------------------


@pytest.fixture
def shop(traced: Traced) -> tuple[Traced, Any]:
    """A service whose ids stand in a token, and the browser that asks it."""
    service = Traced(identity_headers={"user": ("Authorization", user_of), "device": "x-device-id"})
    attach_propagator(service.client.config.identity_headers)
    app = flask.Flask("shop")
    FlaskInstrumentor().instrument_app(app, tracer_provider=service.provider)
    app.add_url_rule("/items/<item>", view_func=lambda item: item)
    return service, app.test_client(use_cookies=False)


def test_a_function_makes_the_id_of_a_header(shop: tuple[Traced, Any]) -> None:
    """The user of a token, which no header names in plain text."""
    service, browser = shop
    browser.get("/items/7", headers={"Authorization": TOKEN})
    browser.get("/items/7", headers={"Authorization": "Basic abc", "X-Device-Id": "device-1234"})
    assert [(event.get("user_id"), event.get("device_id")) for event in service.events()] == [("user-1234", None), (None, "device-1234")]


def test_a_function_that_raises_gives_no_id(shop: tuple[Traced, Any], caplog: pytest.LogCaptureFixture) -> None:
    """Counted, said once, and never with the header's value."""
    service, browser = shop
    with caplog.at_level(logging.WARNING, logger="otel_amplitude"):
        for _ in range(2):
            assert browser.get("/items/7", headers={"Authorization": "Bearer secret"}).status_code == 200
    assert (service.events(), service.refused(), service.client.resolver.failed_functions) == ([], {"no_identity": 2}, 2)
    said = [line for line in caplog.messages if "identity.header_failed" in line]
    assert len(said) == 1
    assert "field=user" in said[0]
    assert "ValueError" in said[0]
    assert "secret" not in caplog.text


def test_a_function_reads_captured_headers_too() -> None:
    """As for spans of other services, and in `convert`."""
    service = Traced(identity_headers={"user": ("authorization", user_of)})
    request(service, **{"http.request.header.authorization": (TOKEN,)})
    request(service, **{"http.request.header.authorization": ("[REDACTED]",)})
    assert [event["user_id"] for event in service.events()] == ["user-1234"]
    assert service.refused() == {"no_identity": 1}


def test_a_function_is_called_once_a_request_and_only_when_it_is_needed() -> None:
    """To check a token is dear."""
    called: list[str] = []

    def read(value: str) -> str:
        called.append(value)
        return "user-1234"

    service = Traced(identity_headers={"user": ("authorization", read)})
    context = AmplitudePropagator(service.client.config.identity_headers).extract({"authorization": TOKEN})
    assert called == []
    for _ in range(3):
        service.tracer.start_span("x", context, attributes={"amplitude.event_type": "Tea", "cup": 1}).end()
    assert len(service.events()) == 3
    assert called == [TOKEN]


def test_a_task_gets_the_id_and_never_the_token(shop: tuple[Traced, Any]) -> None:
    """What a queue keeps must not open a door."""
    _, browser = shop
    sent: dict[str, Any] = {}

    def buy() -> str:
        _publish(headers=sent)
        return "ok"

    browser.application.add_url_rule("/buy", view_func=buy)
    browser.get("/buy", headers={"Authorization": TOKEN})
    assert "abc" not in str(sent)
    ids = unpack(sent[HEADER]).header_ids
    assert ids is not None
    assert ids["authorization"].read() == "user-1234"


@pytest.mark.parametrize(
    ("option", "rule"),
    [
        ({"user": "bad header!"}, "must map device, session or user to a header name, not user=bad header!"),
        ({"user": ("authorization", "nowhere.auth:user_of")}, "'nowhere.auth:user_of' can not be imported"),
        ("user=authorization:nowhere.auth:user_of", "'nowhere.auth:user_of' can not be imported"),
        ({"user": ("authorization", "os:sep")}, "must be a callable"),
        ({"user": ("authorization", 7)}, "not user=('authorization', 7)"),
        ({"user": ("a", "b", "c")}, "must map"),
        ({"mail": "x-mail"}, "must map device, session or user"),
        (7, "must map"),
    ],
)
def test_a_wrong_entry_is_refused_at_once(option: Any, rule: str) -> None:
    """With option, value, rule and cure, and before any request."""
    with pytest.raises(ConfigurationError, match="identity_headers") as raised:
        Config(KEY, identity_headers=option)
    assert rule in str(raised.value)
    assert "OTEL_EXPORTER_AMPLITUDE_IDENTITY_HEADERS" in str(raised.value)


def test_the_environment_can_name_a_function() -> None:
    """Header names have no colon, so the first one begins the import string."""
    variables = {"OTEL_EXPORTER_AMPLITUDE_IDENTITY_HEADERS": "user=Authorization:world.test_headers:user_of,device=x-device-id"}
    config = Config.load({"api_key": KEY}, variables)
    assert config.identity_headers == {"user": ("authorization", config.identity_headers["user"][1]), "device": "x-device-id"}  # type: ignore[index]
    assert Config(KEY, identity_headers={"user": ["authorization", "world.test_headers:user_of"]}).identity_headers is not None


def test_without_code_a_wrong_function_disables_the_exporter_with_one_error(caplog: pytest.LogCaptureFixture) -> None:
    """The application starts all the same."""
    given = {"api_key": KEY, "identity_headers": "user=authorization:nowhere.auth:user_of"}
    with caplog.at_level(logging.WARNING, logger="otel_amplitude"):
        assert [client_for(given), client_for(given)] == [None, None]
    assert len(caplog.messages) == 1
    assert "exporter.disabled" in caplog.messages[0]
    assert "'nowhere.auth:user_of' can not be imported" in caplog.messages[0]


# --- files -------------------------------------------------------------------------------------------------------------------


def line(attributes: dict[str, Any]) -> str:
    """A request as a line of the Collector's file exporter."""
    pairs = [{"key": name, "value": value if isinstance(value, dict) else {"stringValue": value}} for name, value in attributes.items()]
    made = {"traceId": "af7651916cd43dd8448eb211c80319c1", "spanId": "b7ad6b7169203331", "name": "GET", "kind": 2, "attributes": pairs}
    made |= {"startTimeUnixNano": "1795305600000000000", "endTimeUnixNano": "1795305600100000000"}
    return json.dumps({"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": [made]}]}]})


def converted(tmp_path: Path, capsys: pytest.CaptureFixture[str], attributes: dict[str, Any], *words: str) -> tuple[list[Any], Any]:
    """The events, and the counts, that `convert` makes of one request."""
    given, made = tmp_path / "given.jsonl", tmp_path / "made.jsonl"
    page: dict[str, Any] = {"http.request.method": "GET", "http.route": "/a", "http.response.status_code": {"intValue": "200"}}
    given.write_text(line({name: value for name, value in {**page, **attributes}.items() if value is not None}), encoding="utf-8")
    assert main(["convert", str(given), "--output", str(made), "--json", *words]) == 0
    counts = json.loads(capsys.readouterr().err.splitlines()[-1])["refused"]
    return [json.loads(event) for event in made.read_text(encoding="utf-8").splitlines()], counts


@pytest.mark.parametrize(
    ("attributes", "words", "refused"),
    [
        ({"http.request.header.sec-gpc": {"arrayValue": {"values": [{"stringValue": "1"}]}}}, ["--option", "consent=gpc"], "opted_out"),
        ({"http.request.header.sec-purpose": "prefetch"}, [], "prefetch"),
        ({"url.scheme": "wss"}, [], "websocket"),
        ({"http.route": None, "url.path": "/people/ann"}, [], "no_route"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_files_are_judged_like_spans_in_process(
    attributes: dict[str, Any], words: list[str], refused: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same request under the same word, over OTLP."""
    assert converted(tmp_path, capsys, {"user.id": "user-1234", **attributes}, *words) == ([], {refused: 1})


def test_a_home_page_in_a_file_has_its_route(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The path `/` is its own template."""
    events, refused = converted(tmp_path, capsys, {"user.id": "user-1234", "http.route": None, "url.path": "/"})
    assert ([event["event_properties"]["route"] for event in events], refused) == (["/"], {})


def test_the_halves_of_a_mount_are_joined_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """open-telemetry/opentelemetry-python-contrib#2891: contrib ends the outer span first, and a span of the application may lie between."""

    def made(number: int, parent: int | None, **attributes: Any) -> dict[str, Any]:
        pairs = [{"key": name.replace("__", "."), "value": {"stringValue": value}} for name, value in attributes.items()]
        span = {"traceId": "af7651916cd43dd8448eb211c80319c1", "spanId": f"{number:016x}", "name": "x", "kind": 1, "attributes": pairs}
        span |= {"startTimeUnixNano": f"{1795305600000000000 + number}", "endTimeUnixNano": "1795305600100000000"}
        return span | ({} if parent is None else {"parentSpanId": f"{parent:016x}"})

    request = made(1, None, http__method="GET", http__route="/v1", http__target="/v1/users/ann", user__id="user-1234")
    request["attributes"].append({"key": "http.status_code", "value": {"intValue": "200"}})
    request["kind"] = 2
    spans = [request, made(2, 1), made(3, 2, http__method="GET", http__route="/users/{name}")]
    given, out = tmp_path / "given.json", tmp_path / "made.jsonl"
    given.write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}), encoding="utf-8")
    assert main(["convert", str(given), "--output", str(out)]) == 0
    capsys.readouterr()
    routes = [json.loads(event)["event_properties"]["route"] for event in out.read_text(encoding="utf-8").splitlines()]
    assert routes == ["/v1/users/{name}"]
