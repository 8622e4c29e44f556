"""Each row of the table of answers, with both content types, over HTTP."""

from __future__ import annotations

import gzip
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import pytest
from gateway.sending import ANNOTATED, REQUEST, TYPES, Gateway, Sender, encoded, gateway, logs, record, serving, span, traces

from otel_amplitude.gateway.access import Tokens
from otel_amplitude.gateway.answers import JSON, PROTOBUF
from otel_amplitude.gateway.limits import Limits
from otel_amplitude.gateway.server import Server
from otel_amplitude.testing import FakeTransport, answer

both = pytest.mark.parametrize("content_type", TYPES)


@both
def test_a_request_that_is_taken_gets_an_empty_answer(made: Gateway, sender: Sender, content_type: str) -> None:
    """200 of the same content type, and its events arrive."""
    answer = sender.post(traces(span(REQUEST), span(ANNOTATED, id=2, kind="INTERNAL")), content_type)
    assert (answer.status, answer.headers["content-type"], answer.said()) == (200, content_type, (0, ""))
    assert [event["event_type"] for event in made.events] == ["HTTP Request", "Order Paid"]


@both
def test_log_records_are_taken(made: Gateway, sender: Sender, content_type: str) -> None:
    """Those with a user, by their event name in the field or in the attribute `event.name`."""
    named = record({"user.id": "alice-1"}, name="user.login")
    by_attribute = record({"user.id": "alice-1", "event.name": "user.logout"})
    answer = sender.post(logs(record(ANNOTATED), named, by_attribute), content_type, "/v1/logs")
    assert (answer.status, answer.said("/v1/logs")) == (200, (0, ""))
    assert "Order Paid" in [event["event_type"] for event in made.events]


@both
@pytest.mark.parametrize("path", ["/v1/traces", "/v1/logs"])
def test_an_empty_request_is_a_success(sender: Sender, content_type: str, path: str) -> None:
    """Of no bytes, and of the empty JSON object."""
    bodies = [b"", b"{}"] if content_type == JSON else [b""]
    assert [sender.ask("POST", path, body, content_type=content_type).status for body in bodies] == [200] * len(bodies)


@both
def test_metrics_are_taken_and_thrown_away(made: Gateway, sender: Sender, content_type: str) -> None:
    """SDKs send them by default, and would log errors for ever."""
    assert sender.ask("POST", "/v1/metrics", b"whatever they are", content_type=content_type).status == 200
    assert made.intake.stats()["requests"] == {"metrics": 1}


@both
def test_a_span_that_can_not_be_read_costs_itself(made: Gateway, sender: Sender, content_type: str) -> None:
    """Its neighbours are taken, and the answer says what is wrong."""
    broken = span(ANNOTATED, id=2)
    broken["traceId"] = ""
    answer = sender.post(traces(span(REQUEST), broken), content_type)
    assert answer.status == 200
    rejected, message = answer.said()
    assert rejected == 1
    assert "traceId" in message
    assert len(made.events) == 1
    assert made.refused == {"unreadable": 1}


@both
def test_a_log_record_that_can_not_be_read_costs_itself(sender: Sender, content_type: str) -> None:
    """And is rejected as a log record."""
    broken = {**record(ANNOTATED), "traceId": "abcd"} if content_type == JSON else record(ANNOTATED)
    body = encoded(logs(record(ANNOTATED), broken), content_type)
    if content_type == PROTOBUF:
        body = body.replace(b"alice-1", b"alice\xff1", 1)
    answer = sender.ask("POST", "/v1/logs", body, content_type=content_type)
    assert (answer.status, answer.said("/v1/logs")[0]) == (200, 1)


def test_text_that_is_not_utf_8_costs_one_span(made: Gateway, sender: Sender) -> None:
    """As Go programs and Collectors pass it on."""
    body = encoded(traces(*(span({**REQUEST, "city": f"Z\u00fcrich-{i}"}, id=i + 1) for i in range(5))), PROTOBUF)
    answer = sender.ask("POST", "/v1/traces", body.replace(b"Z\xc3\xbcrich-2", b"Z\xc3\x28rich-2"), content_type=PROTOBUF)
    assert (answer.status, answer.said()[0]) == (200, 1)
    assert "UTF-8" in answer.said()[1]
    assert len(made.events) == 4


@both
def test_an_event_that_amplitude_would_refuse_is_rejected(made: Gateway, sender: Sender, content_type: str) -> None:
    """But not what is a decision: nobody known, a bot, opted out."""
    long_ago = {**span(ANNOTATED, id=2), "startTimeUnixNano": "1000", "endTimeUnixNano": "2000"}
    nobody = span({name: value for name, value in REQUEST.items() if name != "user.id"}, trace=3)
    bot = span({**REQUEST, "user_agent.original": "Googlebot/2.1"}, trace=4)
    opted_out = span({**REQUEST, "amplitude.opt_out": True}, trace=5)
    answer = sender.post(traces(span(REQUEST), long_ago, nobody, bot, opted_out), content_type)
    assert answer.said()[0] == 1
    assert len(made.events) == 1
    assert made.refused == {"invalid_time": 1, "no_identity": 1, "bot": 1, "opted_out": 1}


@both
@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"\x0a\xff\xff\xff\xff\x0f{", ""),
        (b"[" * 100_000, ""),
        (gzip.compress(b"{}" * 100)[:-9], "gzip"),
        (b"no gzip at all", "gzip"),
        (b"{}", "br"),
    ],
    ids=["no OTLP", "open brackets", "cut gzip", "no gzip", "another encoding"],
)
def test_what_can_not_be_decoded_is_a_bad_request(sender: Sender, content_type: str, body: bytes, encoding: str) -> None:
    """400, with a Status that says why."""
    headers = {"content_encoding": encoding} if encoding else {}
    answer = sender.ask("POST", "/v1/traces", body, content_type=content_type, **headers)
    assert (answer.status, answer.headers["content-type"]) == (400, content_type)
    assert len(answer.said()[1]) > 10


@both
def test_a_body_without_a_readable_span_is_a_bad_request(sender: Sender, content_type: str) -> None:
    """A document that is not OTLP, or OTLP that is damaged before its first span."""
    body = b'{"resourceSpans": 5}' if content_type == JSON else b"\x0a\x05\x12\x09abc"
    assert sender.ask("POST", "/v1/traces", body, content_type=content_type).status == 400
    assert sender.ask("POST", "/v1/traces", b'{"event_type": "Order Paid"}', content_type=JSON).status == 400


@both
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_compressed_bodies_are_taken(made: Gateway, sender: Sender, content_type: str, encoding: str) -> None:
    """Also a gzip of several members, as proxies make it."""
    body = encoded(traces(span(REQUEST)), content_type)
    half = len(body) // 2
    packed = zlib.compress(body) if encoding == "deflate" else gzip.compress(body[:half]) + gzip.compress(body[half:])
    assert sender.ask("POST", "/v1/traces", packed, content_type=content_type, content_encoding=encoding).status == 200
    assert len(made.events) == 1


@both
@pytest.mark.parametrize("is_packed", [False, True], ids=["plain", "gzip"])
def test_chunked_bodies_are_taken(made: Gateway, sender: Sender, content_type: str, is_packed: bool) -> None:
    """As Node's exporters send them, without a length."""
    body = encoded(traces(span(REQUEST)), content_type)
    body = gzip.compress(body) if is_packed else body
    headers = {"content_encoding": "gzip"} if is_packed else {}
    parts = iter([body[:10], body[10:]])
    assert sender.ask("POST", "/v1/traces", parts, content_type=content_type, **headers).status == 200
    assert len(made.events) == 1


@both
def test_no_token_is_unauthorised(made: Gateway, tmp_path: Path, content_type: str) -> None:
    """Neither none nor a wrong one; /healthz needs none, /stats does."""
    tokens = tmp_path / "tokens"
    tokens.write_text("first-token-0123456789\nsecond-token-0123456789\n")
    with serving(made, tokens=Tokens(str(tokens))) as server:
        document = traces(span(REQUEST))
        for header in ({}, {"authorization": "Bearer wrong-token-0123456789"}, {"authorization": "Basic second-token-0123456789"}):
            answer = Sender(server).post(document, content_type, **header)
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert "token" in answer.said()[1].lower()
        sender = Sender(server)
        assert sender.post(document, content_type, authorization="Bearer second-token-0123456789").status == 200
        assert sender.ask("GET", "/healthz").status == 200
        assert sender.ask("GET", "/stats").status == 401
        assert sender.ask("GET", "/stats", authorization="bearer first-token-0123456789").status == 200
    assert "0123456789" not in repr(server.tokens) + str(server.stats())


@both
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/v1/spans", 404), ("POST", "/", 404), ("GET", "/v1/traces", 405), ("PUT", "/v1/traces", 405), ("POST", "/healthz", 405)],
)
def test_other_paths_and_methods(server: Server, content_type: str, method: str, path: str, status: int) -> None:
    """404 and 405, the latter with what is allowed."""
    sender = Sender(server)
    answer = sender.ask(method, path, encoded(traces(span(REQUEST)), content_type), content_type=content_type)
    assert answer.status == status
    assert ("allow" in answer.headers) == (status == 405)


@both
def test_a_body_that_is_too_large(made: Gateway, content_type: str) -> None:
    """413, whether its length, its chunks or its decompression say so."""
    with serving(made, limits=Limits(max_body=50_000)) as server:
        large = encoded(traces(span({**REQUEST, "note": "x" * 60_000})), content_type)
        ways: list[tuple[Any, dict[str, str]]] = [
            (large, {}),
            (iter([large[:30_000], large[30_000:]]), {}),
            (gzip.compress(large), {"content_encoding": "gzip"}),
        ]
        for body, headers in ways:
            answer = Sender(server).ask("POST", "/v1/traces", body, content_type=content_type, **headers)
            assert (answer.status, answer.headers["content-type"]) == (413, content_type)
            assert "50,000" in answer.said()[1]


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/grpc"])
def test_other_content_types(server: Server, content_type: str) -> None:
    """415."""
    sender = Sender(server)
    assert sender.ask("POST", "/v1/traces", b"hello", content_type=content_type).status == 415


@both
def test_no_room_for_the_whole_request_takes_nothing_of_it(content_type: str) -> None:
    """503 with Retry-After; a smaller request is taken, and nothing is doubled."""
    with gateway(None, max_cached_events=100, upload_interval=60.0) as made, serving(made) as server:
        sender = Sender(server)
        assert sender.post(traces(*(span(REQUEST, id=i + 1) for i in range(60))), content_type).status == 200
        answer = sender.post(traces(*(span(REQUEST, trace=2, id=i + 1) for i in range(60))), content_type)
        assert (answer.status, answer.headers["content-type"]) == (503, content_type)
        assert 1 <= int(answer.headers["retry-after"]) <= 5
        assert made.client.stats().accepted == 60
        assert made.refused == {}
        assert sender.post(traces(*(span(REQUEST, trace=3, id=i + 1) for i in range(20))), content_type).status == 200
        assert len(made.events) == 80


def test_a_request_that_never_fits_is_too_large() -> None:
    """413, since a sender would repeat it for ever after a 503."""
    with gateway(None, max_cached_events=100) as made, serving(made) as server:
        sender = Sender(server)
        answer = sender.post(traces(*(span(REQUEST, id=i + 1) for i in range(101))))
        assert (answer.status, "100" in answer.said()[1]) == (413, True)


@both
def test_a_full_spool_refuses(tmp_path: Path, content_type: str) -> None:
    """503, and readiness says so; never a silent fall back to memory."""
    with gateway(tmp_path / "spool") as made, serving(made) as server:
        sender = Sender(server)
        shutil.rmtree(tmp_path / "spool", ignore_errors=True)
        (tmp_path / "spool").write_text("no directory")
        answer = sender.post(traces(span(REQUEST)), content_type)
        assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        assert sender.ask("GET", "/readyz").status == 503
        assert sender.ask("GET", "/healthz").status == 200
        assert made.client.stats().accepted == 0


@pytest.mark.heavy
def test_a_spool_that_fills_up_refuses_whole_requests(tmp_path: Path) -> None:
    """503 before the first event: what was accepted are the events of the requests that got 200, and no others."""
    down = FakeTransport(lambda _: answer(500))
    large = {**ANNOTATED, **{f"amplitude.event_properties.text{i}": "x" * 1_000 for i in range(4)}}
    with gateway(tmp_path / "spool", transport=down, max_spool_bytes=8 * 2**20) as made, serving(made) as server:
        sender, statuses = Sender(server), []
        for trace in range(1, 8):
            spans = traces(*(span(large, trace=trace, id=i + 1, kind="INTERNAL") for i in range(300)))
            statuses.append(sender.post(spans).status)
        assert statuses == sorted(statuses)
        assert set(statuses) == {200, 503}
        assert made.client.stats().accepted == 300 * statuses.count(200)
        assert made.refused == {}


@pytest.mark.heavy
def test_a_request_whose_estimate_is_above_the_spool_is_taken_when_its_events_fit(tmp_path: Path) -> None:
    """What is reserved is an estimate, 1 KiB for each event and more, which no spool of this size has room for."""
    with gateway(tmp_path / "spool", max_spool_bytes=8 * 2**20) as made, serving(made) as server:
        spans = traces(*(span(ANNOTATED, id=i + 1, kind="INTERNAL") for i in range(8_000)))
        assert Sender(server).post(spans).status == 200
        assert made.client.stats().accepted == 8_000


@both
def test_a_gateway_that_closes_refuses(made: Gateway, server: Server, content_type: str) -> None:
    """503, so that the sender goes elsewhere or comes again."""
    sender = Sender(server)
    assert sender.ask("GET", "/readyz").status == 200
    server.closing = True
    answer = sender.post(traces(span(REQUEST)), content_type)
    assert (answer.status, answer.headers["connection"]) == (503, "close")
    assert Sender(server).ask("GET", "/readyz").status == 503
    assert made.events == []


def test_statistics_tell_what_became_of_requests(made: Gateway, sender: Sender) -> None:
    """Requests, answers, refusals, items and the client's own counters; no key and no id."""
    sender.post(traces(span(REQUEST), span({}, id=2, kind="CLIENT")))
    sender.ask("POST", "/v1/traces", b"{", content_type=JSON)
    assert made.events
    text = sender.ask("GET", "/stats").body.decode()
    found = json.loads(text)
    assert found["requests"] == {"traces": 2}
    assert found["answers"] == {"200": 1, "400": 1}
    assert found["refused"] == {"unreadable": 1}
    assert found["items"] == {"not_chosen": 1, "read": 1}
    assert found["events"]["accepted"] == 1
    assert "0123456789abcdef" not in text
    assert "alice" not in text
