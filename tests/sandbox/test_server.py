"""The sandbox over real sockets: answers, faults, who may ask, and what it does not put up with."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from punctual import Stopwatch

from otel_amplitude.sandbox import EpsLimits, Sandbox, _server
from otel_amplitude.sandbox._server import SECURITY_HEADERS

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Client

GETS = ["/api/events", "/api/summary", "/api/timeline?user=ada", "/api/problems", "/api/catalog", "/api/faults", "/api/counters", "/"]
POSTS = ["/api/faults", "/api/faults/clear", "/api/counters", "/api/reset"]


def raw(sandbox: Sandbox, data: bytes) -> bytes:
    """Send bytes on a connection of their own and give all that comes back until it ends."""
    port = int(sandbox.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(data)
        parts = []
        while part := connection.recv(65_536):
            parts.append(part)
        return b"".join(parts)


# ----------------------------------------------------------------------------------------------------------- life


def test_events_arrive(sandbox: Sandbox, client: Client, make_event: Callable[..., Any]) -> None:
    """What is uploaded on one connection is there, as sent, when the answer is."""
    first, second = make_event(), make_event()
    assert client.upload(first)[0] == client.upload(second, path="/batch")[0] == 200
    assert sandbox.events() == [first, second]
    assert [(request.path, request.status, request.events) for request in sandbox.requests] == [("/2/httpapi", 200, 1), ("/batch", 200, 1)]
    assert json.loads(sandbox.requests[0].body)["events"] == [first]
    assert sandbox.requests[0].headers["content-type"] == "application/json"
    client.upload(first)
    assert (sandbox.accepted, sandbox.duplicates) == (2, 1)


def test_gzip_is_taken(sandbox: Sandbox, client: Client, make_event: Callable[..., Any]) -> None:
    """A compressed body counts as what it is unpacked."""
    body = gzip.compress(json.dumps({"api_key": "k", "events": [make_event()]}).encode())
    assert client.request("POST", "/2/httpapi", body, Content_Encoding="gzip")[0] == 200
    assert (sandbox.requests[0].encoding, len(sandbox.events())) == ("gzip", 1)


def test_forms_are_taken(sandbox: Sandbox, client: Client) -> None:
    """The identify paths take forms and change properties."""
    form = b'api_key=k&identification={"user_id":"customer-42","user_properties":{"$set":{"plan":"pro"}}}'
    assert client.request("POST", "/identify", form, Content_Type="application/x-www-form-urlencoded")[0] == 200
    group = b'api_key=k&identification=[{"group_type":"org","group_value":"acme","group_properties":{"size":3}}]'
    assert client.request("POST", "/groupidentify", group, Content_Type="application/x-www-form-urlencoded")[0] == 200
    assert (sandbox.user_properties("customer-42"), sandbox.group_properties("org", "acme")) == ({"plan": "pro"}, {"size": 3})


def test_starting_and_stopping(make_client: Callable[..., Client], make_event: Callable[..., Any]) -> None:
    """It starts once, stops as often as one likes, leaves no thread and no open port, and says so when asked too late."""
    before = set(threading.enumerate())
    sandbox = Sandbox()
    with pytest.raises(RuntimeError, match="not running"):
        _ = sandbox.url
    sandbox.start()
    with pytest.raises(RuntimeError, match="running already"):
        sandbox.start()
    url = sandbox.url
    make_client(sandbox).upload(make_event())
    sandbox.stop()
    sandbox.stop()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)  # one that has hung up and said so may still be on its last lines
    assert {thread for thread in threading.enumerate() if not thread.name.startswith("Dummy")} <= before  # those of earlier tests' clients
    for late in (sandbox.events, lambda: sandbox.token, lambda: sandbox.url, lambda: sandbox.duplicates):
        with pytest.raises(RuntimeError, match="not running"):
            late()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))


def test_a_taken_port_is_an_error() -> None:
    """Two cannot listen on one port; the second says so and leaves nothing open."""
    with Sandbox() as first, pytest.raises(OSError, match="in use"):
        Sandbox(port=int(first.url.rpartition(":")[2])).start()


def test_stopping_ends_whatever_is_under_way(make_client: Callable[..., Client], make_event: Callable[..., Any]) -> None:
    """Requests that hang or trickle, pages that watch and idle connections do not hold up the end."""
    sandbox = Sandbox().start()
    idle, hanging, trickling, watching = (make_client(sandbox) for _ in range(4))
    idle.get("/api/summary")
    sandbox.set_fault("trickle", seconds=60, count=1)
    trickling.connection.request(
        "POST", "/batch", json.dumps({"api_key": "k", "events": [make_event()]}), {"Content-Type": "application/json"}
    )
    assert sandbox.wait_for(lambda s: s.accepted == 1)
    sandbox.set_fault("hang", count=1)
    hanging.connection.request(
        "POST", "/batch", json.dumps({"api_key": "k", "events": [make_event()]}), {"Content-Type": "application/json"}
    )
    watching.connection.request("GET", "/api/stream")
    assert watching.connection.getresponse().readline() == b"retry: 1000\n"
    stopwatch = Stopwatch()
    sandbox.stop()
    assert stopwatch.seconds() < 3
    assert not [thread for thread in threading.enumerate() if thread.name == "amplitude-sandbox"]


def test_ipv6() -> None:
    """It listens on ::1 as well, and says so in its address."""
    with Sandbox(host="::1") as sandbox:
        connection = http.client.HTTPConnection("::1", int(sandbox.url.rpartition(":")[2]), timeout=5)
        connection.request("GET", "/api/summary")
        assert connection.getresponse().status == 200
        connection.close()
        assert sandbox.url.startswith("http://[::1]:")


def test_one_text_is_no_collection() -> None:
    """A single key or origin in place of a collection is told at once, without showing it."""
    for wrong in ({"api_keys": "secret-key"}, {"allow_origins": "http://localhost:3000"}):
        with pytest.raises(TypeError, match="must be a collection of texts") as refused:
            Sandbox(**wrong)  # type: ignore[arg-type]
        assert "secret-key" not in str(refused.value)


def test_other_addresses_give_a_warning(make_client: Callable[..., Client]) -> None:
    """Listening where others can reach it is possible on request, and warned about; loopback still works."""
    with pytest.warns(UserWarning, match="others on the network can reach it"):
        sandbox = Sandbox(host="0.0.0.0").start()
    assert sandbox.url.startswith("http://127.0.0.1:")
    assert make_client(sandbox).get("/api/summary")[0] == 200
    assert make_client(sandbox).get("/api/summary", Host="0.0.0.0")[0] == 403
    sandbox.stop()
    with pytest.warns(UserWarning, match="others"), pytest.raises(OSError, match=r"."):
        Sandbox(host="192.0.2.1").start()  # an address that is nobody's (RFC 5737)


# --------------------------------------------------------------------------------------------------------- faults


def test_a_status_for_two_requests(sandbox: Sandbox, client: Client, make_event: Callable[..., Any]) -> None:
    """A fault with a count is over after as many requests."""
    sandbox.set_fault("status", status=502, retry_after=3, count=2)
    event = make_event()
    assert [client.upload(event)[0] for _ in range(3)] == [502, 502, 200]
    sandbox.set_fault("status")
    sandbox.clear_faults()
    assert client.upload(event)[0] == 200


def test_retry_after_and_redirects_have_their_headers(sandbox: Sandbox, client: Client) -> None:
    """Header options arrive as headers."""
    sandbox.set_fault("status", retry_after=3, count=1)
    assert client.request("POST", "/batch", {})[2]["Retry-After"] == "3"
    sandbox.set_fault("redirect", status=308, location="http://127.0.0.1:9/x", count=1)
    status, _, headers = client.request("POST", "/batch", {})
    assert (status, headers["Location"]) == (308, "http://127.0.0.1:9/x")


@pytest.mark.parametrize(("name", "stored"), [("reset", 0), ("reset_after", 1)])
def test_resets(sandbox: Sandbox, client: Client, make_event: Callable[..., Any], name: str, stored: int) -> None:
    """The connection is reset, not closed, before or after the events were stored."""
    sandbox.set_fault(name, count=1)
    with pytest.raises(ConnectionResetError):
        client.upload(make_event())
    assert sandbox.accepted == stored
    assert [request.status for request in sandbox.requests] == [0]
    client.connection.close()


def test_half_an_answer(sandbox: Sandbox, client: Client, make_event: Callable[..., Any]) -> None:
    """The answer ends in its middle, though its length was promised."""
    sandbox.set_fault("half_answer", count=1)
    with pytest.raises(http.client.IncompleteRead):
        client.upload(make_event())
    assert sandbox.accepted == 1


def test_html_and_nothing(sandbox: Sandbox, client: Client, make_event: Callable[..., Any]) -> None:
    """A 200 that is no answer of Amplitude's comes through as it is."""
    sandbox.set_fault("html", count=1)
    status, body, headers = client.request("POST", "/batch", {"api_key": "k", "events": [make_event()]})
    assert (status, headers["Content-Type"]) == (200, "text/html")
    assert body.startswith(b"<html>")
    sandbox.set_fault("empty", count=1)
    assert client.upload(make_event()) == (200, b"")
    assert sandbox.accepted == 0


def test_trickle(sandbox: Sandbox, client: Client, make_event: Callable[..., Any]) -> None:
    """The answer comes whole, but byte by byte."""
    sandbox.set_fault("trickle", seconds=0.0)
    assert client.upload(make_event())[1]["events_ingested"] == 1


def test_hang(sandbox: Sandbox, client: Client, make_event: Callable[..., Any]) -> None:
    """No answer comes; the client's own timeout has to end it."""
    sandbox.set_fault("hang")
    client.connection.timeout = 0.1
    with pytest.raises(TimeoutError):
        client.upload(make_event())
    assert sandbox.wait_for(lambda s: s._running.faults()["active"][0]["hits"] == 1, 20.0), "cleared before, it would hit nobody"
    sandbox.clear_faults()
    assert sandbox.wait_for(lambda s: [request.status for request in s.requests] == [0], 20.0)


def test_faults_over_http(sandbox: Sandbox, client: Client, make_event: Callable[..., Any]) -> None:
    """The page's words are the words of the Python API; mistakes come back as what would be right."""
    status, faults = client.tell("/api/faults", {"fault": "throttle_device", "device": "device-0001", "count": 1})
    assert (status, [fault["device"] for fault in faults["active"]]) == (200, ["device-0001"])
    assert "latency" in [kind["fault"] for kind in faults["kinds"]]
    status, body = client.upload(make_event(device_id="device-0002"), make_event())
    assert (status, body["throttled_events"]) == (429, [1])
    for wrong in (
        {},
        {"fault": "fire"},
        {"fault": "status", "colour": 1},
        {"fault": "status", "count": "all"},
        {"fault": "hang", "name": 1},
    ):
        status, body = client.tell("/api/faults", wrong)
        assert (status, body["code"]) == (400, 400)
    client.tell("/api/faults", {"fault": "empty"})
    client.tell("/api/faults", {"fault": "html"})
    assert [fault["fault"] for fault in client.tell("/api/faults/clear", {"fault": "html"})[1]["active"]] == ["empty"]
    assert client.tell("/api/faults/clear", {})[1]["active"] == []


# ----------------------------------------------------------------------------------------------------- page's questions


def test_questions(client: Client, make_event: Callable[..., Any]) -> None:
    """Each question of the page has an answer, filtered as asked."""
    client.upload(make_event(), make_event(event_type="Clicked", user_id="somebody"))
    client.upload(make_event(time="now"))
    assert [row["type"] for row in client.get("/api/events?type=Clicked&user=some&limit=5&since=0&verdict=accepted")[1]["events"]] == [
        "Clicked"
    ]
    assert client.get("/api/summary")[1]["accepted"] == 2
    assert len(client.get("/api/timeline?user=somebody")[1]["events"]) == 1
    assert len(client.get("/api/problems")[1]["rejections"]) == 1
    assert [entry["type"] for entry in client.get("/api/catalog")[1]["types"]] == ["Clicked", "Order Placed"]
    for wrong in ("limit=x", "since=-1", "limit=%00", "since=" + "9" * 30, "&".join(f"a{number}=" for number in range(100))):
        assert client.get(f"/api/events?{wrong}")[0] == 400


def test_counters(client: Client) -> None:
    """A process posts its counters with the token of an answer; that token permits nothing else, and the page's own does as well."""
    body = {"service": "shop", "pid": 7, "counters": {"accepted": 5, "refused": {"bot": 3}, "pending": {"queued": 1}}}
    token = client.request("GET", "/2/httpapi")[2]["X-Sandbox-Counters"]
    assert client.request("POST", "/api/counters", body, X_Sandbox_Counters=token)[0] == 200
    assert client.tell("/api/counters", body)[0] == 200
    found = client.get("/api/counters")[1]
    assert [(post["service"], post["pid"], post["counters"]) for post in found["processes"]] == [("shop", 7, body["counters"])]
    assert found["refused"] == [{"reason": "bot", "count": 3}]
    assert client.request("POST", "/api/reset", {}, X_Sandbox_Counters=token)[0] == 403
    assert client.request("POST", "/api/reset", {}, X_Sandbox_Token=token)[0] == 403


def test_the_token_for_counters_is_for_programs(sandbox: Sandbox, client: Client, make_event: Callable[..., Any]) -> None:
    """Every answer to an upload has it, also a rejection; an answer that a page could read, or to another host, has not."""
    upload = {"api_key": "k", "events": [make_event()]}
    assert "X-Sandbox-Counters" in client.request("POST", "/2/httpapi", upload)[2]
    assert "X-Sandbox-Counters" in client.request("POST", "/batch", {"api_key": "k", "events": []})[2]
    for headers in ({"Origin": sandbox.url}, {"Sec_Fetch_Site": "same-origin"}, {"Host": "evil.example"}):
        assert "X-Sandbox-Counters" not in client.request("POST", "/2/httpapi", upload, **headers)[2]
    for path in ("/", "/api/events", "/api/counters"):
        assert "X-Sandbox-Counters" not in client.get(path)[2]


def test_reset(sandbox: Sandbox, client: Client, make_event: Callable[..., Any]) -> None:
    """Reset forgets events, duplicates, requests, counters and faults."""
    event = make_event()
    client.upload(event)
    sandbox.set_fault("empty", count=1, path="/batch")
    assert client.tell("/api/reset", {})[0] == 200
    summary = client.get("/api/summary")[1]
    assert (sandbox.events(), sandbox.requests, summary["accepted"], summary["faults"], summary["epoch"]) == ([], [], 0, 0, 1)
    client.upload(event)
    assert (sandbox.accepted, sandbox.duplicates) == (1, 0)


def test_the_stream(sandbox: Sandbox, client: Client, make_client: Callable[..., Client], make_event: Callable[..., Any]) -> None:
    """A page that watches gets each event once, newest first, from where it left off."""
    client.upload(make_event(event_type="before"))
    watcher = make_client(sandbox)
    watcher.connection.request("GET", "/api/stream", headers={"Last-Event-ID": "0"})
    response = watcher.connection.getresponse()
    assert response.getheader("Content-Type") == "text/event-stream"

    def message() -> Any:
        lines = [response.readline().decode().rstrip("\n") for _ in range(3)]
        lines = [*lines[1:], response.readline().decode().rstrip("\n")] if lines[0] == "retry: 1000" else lines
        assert (lines[0].partition(": ")[0], lines[2]) == ("id", "")
        return json.loads(lines[1].removeprefix("data: "))

    assert [row["type"] for row in message()["events"]] == ["before"]
    client.upload(make_event(event_type="first"), make_event(event_type="second"))
    assert [row["type"] for row in message()["events"]] == ["second", "first"]
    sandbox.set_fault("empty")
    assert message()["events"] == []
    response.close()


def test_streams_are_bounded(sandbox: Sandbox, make_client: Callable[..., Client], monkeypatch: pytest.MonkeyPatch) -> None:
    """More than sixteen watchers are refused, and a watcher that leaves makes room."""
    watchers = [make_client(sandbox) for _ in range(_server.MAX_STREAMS)]
    responses = []
    for watcher in watchers:
        watcher.connection.request("GET", "/api/stream")
        responses.append(watcher.connection.getresponse())
        responses[-1].readline()
    assert make_client(sandbox).get("/api/stream")[0] == 503
    responses[0].close()
    watchers[0].connection.close()
    deadline = time.monotonic() + 10
    status = 503
    while status == 503 and time.monotonic() < deadline:
        sandbox.clear_faults()  # any change makes the server write, and so notice who has left
        one = make_client(sandbox)
        one.connection.request("GET", "/api/stream")
        response = one.connection.getresponse()
        status = response.status
        responses.append(response)
        if status == 503:  # however often it is refused until the server notices, it takes one connection
            response.close()
            one.connection.close()
    assert status == 200
    for response in responses:
        response.close()


# ------------------------------------------------------------------------------------------------------------- S21-S27


def test_every_answer_has_the_security_headers(client: Client) -> None:
    """Strict policy, nosniff and no-store on the page, on data, on uploads and on refusals; no third party is allowed anything (S21)."""
    for path in (*GETS, "/app.js", "/style.css", "/icon.svg", "/nowhere"):
        _, _, headers = client.get(path)
        assert {name: headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
        assert "Access-Control-Allow-Origin" not in headers
    policy = SECURITY_HEADERS["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self'; " in policy
    assert "connect-src 'self'" in policy
    assert "unsafe" not in policy
    assert client.request("POST", "/batch", {})[2]["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:{port}", "localhost", "LOCALHOST:{port}", "[::1]", "[::1]:{port}"])
def test_own_hosts(sandbox: Sandbox, host: str) -> None:
    """The names of this machine are answered, with a port or without (S22)."""
    host = host.format(port=sandbox.url.rpartition(":")[2])
    assert b" 200 " in raw(sandbox, f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())


@pytest.mark.parametrize(
    "headers",
    [
        "Host: evil.example",
        "Host: evil.example:80",
        "Host: 127.0.0.1.evil.example",
        "Host: 127.0.0.1@evil.example",
        "Host:",
        "X: y",
        "Host: localhost\r\nHost: evil.example",
        "Host: 127.0.0.1:80:80",
        "Host: 0.0.0.0",
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/events", "/api/stream"])
def test_foreign_hosts(sandbox: Sandbox, headers: str, path: str) -> None:
    """Any other Host, none or two are refused: that is what DNS rebinding looks like (S22)."""
    assert b" 403 " in raw(sandbox, f"GET {path} HTTP/1.1\r\n{headers}\r\nConnection: close\r\n\r\n".encode())


def test_foreign_hosts_cannot_upload(sandbox: Sandbox) -> None:
    """An upload under a foreign Host is not taken (S22)."""
    assert b" 403 " in raw(
        sandbox, b"POST /2/httpapi HTTP/1.1\r\nHost: evil.example\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    )
    assert sandbox.requests == []


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1", "https://127.0.0.1", "http://127.0.0.1"])
def test_foreign_origins(sandbox: Sandbox, client: Client, origin: str) -> None:
    """Pages of other origins may neither read, nor watch, nor upload, nor change anything (S23, S24)."""
    for path in (*GETS[:-1], "/api/stream"):
        assert client.get(path, Origin=origin)[0] == 403
    for path in POSTS:
        assert client.request("POST", path, {}, Origin=origin, X_Sandbox_Token=sandbox.token)[0] == 403
    for path in ("/2/httpapi", "/batch"):
        assert client.request("POST", path, {}, Origin=origin)[0] == 403
    for path in ("/identify", "/groupidentify"):
        assert client.request("POST", path, b"a=b", Origin=origin, Content_Type="application/x-www-form-urlencoded")[0] == 403
    assert client.request("OPTIONS", "/2/httpapi", Origin=origin)[0] == 403
    assert sandbox.requests == []


def test_cross_site_without_origin(sandbox: Sandbox, client: Client) -> None:
    """A browser that says cross-site is believed, even without an Origin (S23)."""
    assert client.get("/api/events", Sec_Fetch_Site="cross-site")[0] == 403
    assert client.request("POST", "/api/reset", {}, Sec_Fetch_Site="cross-site", X_Sandbox_Token=sandbox.token)[0] == 403
    assert client.request("POST", "/2/httpapi", {}, Sec_Fetch_Site="cross-site")[0] == 403
    assert client.get("/api/events", Sec_Fetch_Site="same-origin")[0] == 200


def test_the_own_page_may(sandbox: Sandbox, client: Client, make_event: Callable[..., Any]) -> None:
    """The page's own origin may read, upload, and with the token change things (S23)."""
    assert client.get("/api/events", Origin=sandbox.url)[0] == 200
    assert client.request("POST", "/2/httpapi", {"api_key": "k", "events": [make_event()]}, Origin=sandbox.url)[0] == 200
    assert client.request("POST", "/api/reset", {}, Origin=sandbox.url, X_Sandbox_Token=sandbox.token)[0] == 200


@pytest.mark.parametrize("path", POSTS)
def test_state_changes_need_the_token_and_json(sandbox: Sandbox, client: Client, path: str) -> None:
    """Without this run's token, with another, or not as JSON: refused and nothing changed (S23)."""
    sandbox.set_fault("empty")
    assert client.request("POST", path, {})[0] == 403
    assert client.request("POST", path, {}, X_Sandbox_Token="wrong")[0] == 403
    assert client.request("POST", path, {}, X_Sandbox_Token="é")[0] == 403
    assert client.request("POST", path, b"{}", X_Sandbox_Token=sandbox.token, Content_Type="text/plain")[0] == 415
    assert client.request("GET", f"{path}?token={sandbox.token}", X_Sandbox_Token=sandbox.token)[0] == (
        405 if path not in ("/api/faults", "/api/counters") else 200
    )
    assert len(client.get("/api/faults")[1]["active"]) == 1
    with Sandbox() as other:
        assert other.token != sandbox.token


def test_content_types(client: Client) -> None:
    """Uploads must be JSON, which forces a preflight in browsers; only the identify paths take forms (S23)."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""):
        assert client.request("POST", "/2/httpapi", b"{}", Content_Type=kind)[0] == 415
    assert client.request("POST", "/identify", b"{}", Content_Type="application/json")[0] == 415
    assert client.request("POST", "/2/httpapi", b"{}", Content_Type="Application/JSON; charset=UTF-8")[0] == 400


def test_allowed_origins(make_client: Callable[..., Client], make_event: Callable[..., Any]) -> None:
    """An allowed origin may upload, with a preflight, and nothing else; the answer names it alone (S23)."""
    origin = "http://localhost:3000"
    with Sandbox(allow_origins=[origin]) as sandbox:
        client = make_client(sandbox)
        status, _, headers = client.request("OPTIONS", "/2/httpapi", Origin=origin, Access_Control_Request_Method="POST")
        assert (status, headers["Access-Control-Allow-Origin"], headers["Vary"]) == (204, origin, "Origin")
        assert headers["Access-Control-Allow-Methods"] == "POST"
        status, _, headers = client.request(
            "POST", "/2/httpapi", {"api_key": "k", "events": [make_event()]}, Origin=origin, Sec_Fetch_Site="same-site"
        )
        assert (status, headers["Access-Control-Allow-Origin"]) == (200, origin)
        assert client.request("POST", "/2/httpapi", {}, Origin="http://localhost:3001")[0] == 403
        assert client.get("/api/events", Origin=origin)[0] == 403
        assert client.request("OPTIONS", "/api/reset", Origin=origin)[0] == 403
        assert client.request("POST", "/api/reset", {}, Origin=origin, X_Sandbox_Token=sandbox.token)[0] == 403


def test_large_bodies(sandbox: Sandbox, client: Client, make_client: Callable[..., Client]) -> None:
    """More than 20 MB is refused unread, a bomb is refused before it is unpacked, the page's posts are small (S25)."""
    assert client.request("POST", "/batch", b"x" * 20_000_001)[:2] == (413, {"code": 413, "error": "Payload too large"})
    bomb = gzip.compress(bytes(80_000_000), 1)
    assert make_client(sandbox).request("POST", "/batch", bomb, Content_Encoding="gzip")[0] == 413
    assert make_client(sandbox).tell("/api/counters", {"process": "x", "books": {"a": "x" * 70_000}})[0] == 413


BOMBS = {
    "spaces": b'{"api_key":"k","events":[' + b" " * (200 << 20) + b"]}",
    "spaces within the limit": b'{"api_key":"k","events":[' + b" " * 19_900_000 + b"]}",
    "lists": b'{"api_key":"k","events":[' + b"[]," * 6_000_000 + b"[]]}",
    "maps": b'{"api_key":"k","events":[' + b'{"a":1},' * 2_000_000 + b"{}]}",
}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of another process's memory is read in /proc")
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_costs_little_memory(bomb: str) -> None:
    """Fault matrix, row S25: whatever a body of 20 MB unpacks to, and is parsed to, the sandbox grows by at most 100 MB."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    box = subprocess.Popen(
        [sys.executable, "-m", "otel_amplitude.sandbox", "--port", str(port)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )

    def peak() -> float:
        return int(Path(f"/proc/{box.pid}/status").read_text().partition("VmHWM:")[2].split()[0]) / 1000

    try:
        assert box.stdout is not None
        while b"http://" not in box.stdout.readline():
            assert box.poll() is None
        before = peak()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=50)
        body = gzip.compress(BOMBS[bomb], 6)
        connection.request("POST", "/batch", body, {"Content-Type": "application/json", "Content-Encoding": "gzip"})
        assert connection.getresponse().status in (400, 413)
        connection.close()
        assert peak() - before < 100
    finally:
        box.terminate()
        box.wait(20)
        box.stdout.close()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "headers",
    [
        "Transfer-Encoding: chunked",
        "",
        "Content-Length: -1",
        "Content-Length: x",
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: +2",
    ],
)
def test_lengths(sandbox: Sandbox, headers: str) -> None:
    """A body must say its length once, and plainly (S25)."""
    line = f"{headers}\r\n" if headers else ""
    assert b" 411 " in raw(sandbox, f"POST /batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{line}\r\n".encode())


def test_slow_clients(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who says nothing, or never finishes a body, is hung up on (S25)."""
    head = b"POST /batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
    with monkeypatch.context() as patch:
        patch.setattr(_server, "BODY_SECONDS", -1.0)
        assert b" 408 " in raw(sandbox, head + b"x")
    monkeypatch.setattr(_server._Handler, "timeout", 0.1)
    assert raw(sandbox, b"") == b""
    assert sandbox._server is not None
    nobody_is_served = sandbox._server._all_closed
    with contextlib.ExitStack() as stack:
        with nobody_is_served:  # until everything is sent: else slow sending would be what is hung up on
            connection = stack.enter_context(socket.create_connection(sandbox._server.server_address[:2], timeout=10))
            connection.sendall(head + b"x")
        assert connection.recv(65_536) == b""


def test_connections_are_bounded(sandbox: Sandbox, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """One connection too many is hung up on; the others go on (S25)."""
    monkeypatch.setattr(_server, "MAX_CONNECTIONS", 1)
    client.get("/api/summary")
    assert raw(sandbox, b"") == b""
    assert client.get("/api/summary")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../_server.py",
        "/page/index.html",
        "/..%2f_server.py",
        "/index.html",
        "//etc/passwd",
        "/app.js/",
        "/api",
        "/httpapi",
        "/2/httpapi/",
        "/%00",
    ],
)
def test_only_the_assets_there_are(client: Client, path: str) -> None:
    """No path reaches the file system: what is not in the table is not there (S26)."""
    assert client.get(path)[0] == 404


def test_methods(client: Client) -> None:
    """Other methods, and uploads by GET, are refused; paths nobody knows are 404."""
    for method in ("PUT", "DELETE", "PATCH"):
        assert client.request(method, "/api/events")[0] == 405
    assert client.get("/2/httpapi")[0] == 405
    assert client.get("/identify?api_key=k&identification=%7B%7D")[0] == 405
    assert client.request("POST", "/nowhere", {})[0] == 404


def test_format_strings_stay_text(sandbox: Sandbox, client: Client, make_event: Callable[..., Any]) -> None:
    """Braces, percent signs and the page's own mark in an event are text like any other (S27)."""
    nasty = "{0.__class__} %s %(x)s SANDBOX_TOKEN </script><script>alert(1)</script>"
    client.upload(make_event(event_type=nasty, user_id=nasty, event_properties={nasty: nasty}))
    status, answer, headers = client.get("/api/events")
    assert (status, answer["events"][0]["type"], headers["Content-Type"]) == (200, nasty, "application/json")
    assert sandbox.token not in json.dumps(answer)


def test_rate_limits_can_be_turned_on(make_client: Callable[..., Client], make_event: Callable[..., Any]) -> None:
    """eps_limits is off for tests; True means Amplitude's numbers, and others can be given."""
    many = [make_event() for _ in range(901)]
    with Sandbox(eps_limits=True) as strict, Sandbox(eps_limits=EpsLimits(httpapi=100.0)) as loose, Sandbox(eps_limits=False) as none:
        assert [make_client(sandbox).upload(*many)[0] for sandbox in (strict, loose, none)] == [429, 200, 200]


def test_a_failure_of_our_own_is_a_warning(sandbox: Sandbox, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes wrong in the sandbox itself is told, not swallowed; a client that hangs up is nothing to tell."""
    monkeypatch.setattr(sandbox._running, "summary", lambda: 1 / 0)
    with pytest.warns(RuntimeWarning, match="ZeroDivisionError"), pytest.raises(http.client.RemoteDisconnected):
        client.get("/api/summary")


def test_many_at_once(sandbox: Sandbox, make_client: Callable[..., Client], make_event: Callable[..., Any]) -> None:
    """Uploads from many threads are all taken, each once, each connection in order."""

    def send(device: str, sequence: list[Any]) -> None:
        client = make_client(sandbox)
        for event in sequence:
            assert client.upload(event)[0] == 200

    plans = {
        f"device-{number}": [make_event(device_id=f"device-{number}", event_properties={"n": step}) for step in range(20)]
        for number in range(8)
    }
    threads = [threading.Thread(target=send, args=item) for item in plans.items()]
    for thread in threads:
        thread.start()
    assert sandbox.wait_for(lambda s: s.accepted == 160, 20.0)
    for thread in threads:
        thread.join()
    for device, sequence in plans.items():
        assert [event for event in sandbox.events() if event["device_id"] == device] == sequence
