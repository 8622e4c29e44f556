"""One request, one try, over real sockets that misbehave."""

from __future__ import annotations

import gc
import importlib.util
import os
import pathlib
import queue
import re
import ssl
import subprocess
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator

import pytest
import requests
import servers
import trustme
from hypothesis import given
from hypothesis import strategies as st
from servers import Server
from typing_extensions import Self

import otel_amplitude
from otel_amplitude import _adapter
from otel_amplitude.client import Amplitude
from otel_amplitude.config import Config
from otel_amplitude.errors import TransportError
from otel_amplitude.limits import MAX_ANSWER_BYTES
from otel_amplitude.transport import CONNECTIONS, Request, RequestsTransport, Response

KEY = "0123456789abcdef0123456789abcdef"
BODY = b'{"api_key":"%b","events":[{"event_type":"Order Paid"}]}' % KEY.encode()
LONG = 10.0  # seconds nobody should ever need on a busy machine, far below `servers.PATIENCE`


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the machine's own environment reaches a test."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def transport() -> Iterator[RequestsTransport]:
    """A transport that is closed afterwards."""
    mine = RequestsTransport()
    yield mine
    mine.close()


def post(url: str, timeout: float = LONG, body: bytes = BODY, headers: dict[str, str] | None = None) -> Request:
    """A request for `url`."""
    return Request(url, {"Content-Type": "application/json", **(headers or {})}, body, timeout)


def test_gives_status_headers_and_body(transport: RequestsTransport) -> None:
    """Any status is an answer; header names come in lower case."""
    with Server(servers.answer(429, {"code": 429}, {"Retry-After": "7", "X-Two": "a"})) as server:
        response = transport.send(post(server.url))
    assert (response.status, response.body) == (429, b'{"code": 429}')
    assert response.headers["retry-after"] == "7"


def test_sends_the_bytes_and_headers_it_was_given(transport: RequestsTransport) -> None:
    """The body travels unchanged, and no compressed answer is asked for."""
    with Server() as server:
        transport.send(post(server.url, headers={"X-Team": "shop"}))
    [received] = server.requests
    assert received.body == BODY
    assert received.target == "/2/httpapi"
    assert received.headers["x-team"] == "shop"
    assert received.headers["accept-encoding"] == "identity"
    assert "cookie" not in received.headers


def test_a_thousand_requests_take_one_connection(transport: RequestsTransport) -> None:
    """Connections are kept alive, whatever the status."""
    with Server(*[servers.accept(), servers.answer(500)] * 500) as server:
        for _ in range(1000):
            transport.send(post(server.url))
        assert (server.connections, len(server.requests)) == (1, 1000)


def test_chunked_answers_keep_the_connection(transport: RequestsTransport) -> None:
    """An answer in chunks is read to its end."""

    def chunked(peer: servers.Peer) -> bool:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (b'5\r\n{"cod\r\n', b'7\r\ne":200}\r\n', b"0\r\n\r\n"):
            peer.send(piece)
        return True

    with Server(chunked) as server:
        bodies = [transport.send(post(server.url)).body for _ in range(3)]
        assert server.connections == 1
    assert bodies == [b'{"code":200}'] * 3


def test_four_threads_send_at_once(transport: RequestsTransport) -> None:
    """Up to `max_in_flight` exchanges run side by side, each on its own connection."""
    meeting = threading.Barrier(4)

    def together(peer: servers.Peer) -> bool:
        peer.request()
        meeting.wait(LONG)
        peer.send(servers.reply(200, b'{"code":200}'))
        return True

    with Server(together) as server:
        threads = [threading.Thread(target=transport.send, args=(post(server.url),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
        assert (server.connections, len(server.requests)) == (4, 4)


SILENT = {
    "reset before reading": servers.reset_unread(),
    "reset after reading": servers.reset(),
    "closed without an answer": servers.hang_up(),
    "half an answer": servers.half_an_answer(),
    "half a header": servers.send_raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "half a status line": servers.send_raw(b"HTTP/1."),
    "not HTTP": servers.send_raw(b"SSH-2.0-OpenSSH_9.7\r\n"),
    "half a chunk": servers.send_raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc"),
    "no chunk size": servers.send_raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "a wrong length": servers.send_raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nabc"),
    "endless headers": servers.endless_headers(),
    "a very long header": servers.send_raw(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 200_000 + b"\r\n\r\n"),
    "interim answers for ever": servers.endless_continue(),
}


@pytest.mark.parametrize("behaviour", SILENT.values(), ids=SILENT)
def test_no_readable_answer_is_one_error(transport: RequestsTransport, behaviour: servers.Behaviour) -> None:
    """Whatever happens to the answer becomes a TransportError that names the server and shows nothing of the request."""
    with Server(behaviour) as server, pytest.raises(TransportError) as caught:
        transport.send(post(server.url))
    assert str(caught.value).startswith(f"127.0.0.1:{server.port}: ")
    assert KEY not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert server.connections == 1


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("reset after reading", "connection reset"),
        ("closed without an answer", "connection closed before an answer"),
        ("half an answer", "the answer ended too early"),
        ("half a chunk", "the answer ended too early"),
        ("half a header", "the answer is not HTTP"),
        ("not HTTP", "the answer is not HTTP"),
        ("endless headers", "the answer is not HTTP"),
        ("interim answers for ever", "the answer is too long"),
    ],
)
def test_the_error_says_what_was_wrong(transport: RequestsTransport, behaviour: str, words: str) -> None:
    """In words of ours, since the system's may hold what the server sent."""
    with Server(SILENT[behaviour]) as server, pytest.raises(TransportError) as caught:
        transport.send(post(server.url))
    assert str(caught.value) == f"127.0.0.1:{server.port}: {words}"


STALLING = {
    "never answering": servers.never_answer(),
    "trickling headers": servers.trickle_headers(0.02),
    "trickling body": servers.trickle_body(0.02),
    "trickling chunks": servers.trickle_body(0.02, chunked=True),
}


@pytest.mark.parametrize("behaviour", STALLING.values(), ids=STALLING)
def test_the_deadline_is_for_the_whole_exchange(transport: RequestsTransport, behaviour: servers.Behaviour) -> None:
    """A server that always has one more byte is hung up on when the time is over."""
    with Server(behaviour) as server:
        begun = time.monotonic()
        with pytest.raises(TransportError, match="in time"):
            transport.send(post(server.url, timeout=1))
        assert time.monotonic() - begun > 0.9  # asked here: the server may have come late
        deadline = time.monotonic() + servers.PATIENCE
        while not server.patience and time.monotonic() < deadline:
            server.stopping.wait(0.01)
    assert server.patience[0] < LONG


def test_the_deadline_covers_the_sending(transport: RequestsTransport) -> None:
    """A server that does not read the body is left when the time is over."""
    begun = time.monotonic()
    with Server(servers.never_read()) as server, pytest.raises(TransportError, match="in time"):
        transport.send(post(server.url, timeout=0.5, body=b" " * 20_000_000))
    assert time.monotonic() - begun < LONG


def test_the_deadline_covers_a_connection_that_is_not_accepted(transport: RequestsTransport) -> None:
    """A listener whose queue is full gives no answer to a connection attempt."""
    import socket

    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        begun = time.monotonic()
        with pytest.raises(TransportError, match="no connection in time"):
            transport.send(post(f"http://127.0.0.1:{port}/", timeout=0.5))
        assert time.monotonic() - begun < LONG
        for sock in waiting:
            sock.close()


def test_an_address_that_does_not_answer_leaves_time_for_the_next(transport: RequestsTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several addresses each gets its share of the deadline."""
    import socket

    with Server() as server, socket.create_server(("127.0.0.1", 0)) as unused:
        dead = unused.getsockname()
        unused.close()
        family = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [(*family, dead), (*family, ("127.0.0.1", server.port))])
        assert transport.send(post(server.url)).status == 200


def test_no_time_is_no_request(transport: RequestsTransport) -> None:
    """A deadline that has passed before anything began."""
    with Server() as server, pytest.raises(TransportError, match="no connection in time"):
        transport.send(post(server.url, timeout=0))
    assert server.connections == 0


def test_a_refused_connection_says_so(transport: RequestsTransport) -> None:
    """Nobody listens."""
    with Server() as server:
        pass
    with pytest.raises(TransportError, match=r"^127\.0\.0\.1:\d+: connection refused$"):
        transport.send(post(server.url))


def test_a_name_that_can_not_be_resolved_says_so(transport: RequestsTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """No address, no request."""
    import socket

    def fail(*_arguments: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(TransportError, match=r"nowhere\.example: its name could not be resolved"):
        transport.send(post("http://nowhere.example/2/httpapi"))


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http://", "http://[::1", "nonsense", "http://127.0.0.1:99999/"])
def test_a_url_that_can_not_be_used_is_the_same_error(transport: RequestsTransport, url: str) -> None:
    """Nothing but TransportError leaves this room."""
    with pytest.raises(TransportError):
        transport.send(post(url))


def test_a_connection_closed_while_idle_is_replaced(transport: RequestsTransport) -> None:
    """A kept-alive connection that the server closed costs nothing."""
    with Server(servers.answer_and_close()) as server:
        assert [transport.send(post(server.url)).status for _ in range(5)] == [200] * 5
        assert (server.connections, len(server.requests)) == (5, 5)


@pytest.mark.parametrize("end", [servers.hang_up(), servers.reset(), servers.reset_unread()], ids=["closed", "reset", "unread"])
def test_a_connection_closed_just_as_it_is_used_again_is_replaced_at_once(transport: RequestsTransport, end: servers.Behaviour) -> None:
    """The race every kept-alive connection can lose is not a fault of the server."""
    with Server(servers.accept(), end, servers.accept()) as server:
        assert [transport.send(post(server.url)).status for _ in range(2)] == [200, 200]
        assert server.connections == 2


def test_a_server_that_resets_everything_is_tried_once(transport: RequestsTransport) -> None:
    """A fresh connection that fails is a fault; the one retry loop is elsewhere."""
    with Server(servers.accept(), servers.hang_up()) as server:
        transport.send(post(server.url))
        with pytest.raises(TransportError, match="connection closed before an answer"):
            transport.send(post(server.url))
        assert len(server.requests) == 3


def test_an_answer_that_began_is_never_asked_for_again(transport: RequestsTransport) -> None:
    """Half an answer on a reused connection is an error, not a reason to send again."""
    with Server(servers.accept(), servers.half_an_answer(), servers.accept()) as server:
        transport.send(post(server.url))
        with pytest.raises(TransportError):
            transport.send(post(server.url))
        assert len(server.requests) == 2


def test_a_redirect_is_not_followed(transport: RequestsTransport) -> None:
    """The key never goes where an answer points to."""
    with Server() as elsewhere, Server(servers.redirect(elsewhere.url)) as server:
        assert transport.send(post(server.url)).status == 302
        assert elsewhere.connections == 0


def test_a_redirect_with_an_endless_body_is_not_read(transport: RequestsTransport) -> None:
    """Requests itself would read it all to look for the next hop."""
    with Server(servers.flood(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", b"a" * 4096)) as server:
        response = transport.send(post(server.url))
    assert (response.status, len(response.body)) == (302, MAX_ANSWER_BYTES + 1)


def test_an_endless_body_is_cut(transport: RequestsTransport) -> None:
    """At most 64 KiB and one byte of an answer are read, then the connection is closed."""
    with Server(servers.endless_body()) as server:
        response = transport.send(post(server.url))
        assert (response.status, len(response.body), response.json()) == (200, MAX_ANSWER_BYTES + 1, None)


@pytest.mark.parametrize(("size", "read"), [(MAX_ANSWER_BYTES, {"code": 200}), (MAX_ANSWER_BYTES + 1, None), (1 << 20, None)])
def test_an_answer_that_is_too_long_is_not_read_as_json(transport: RequestsTransport, size: int, read: object) -> None:
    """Fault matrix, row 39: the first 64 KiB of a longer answer may look complete."""
    with Server(servers.send_raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b'{"code":200}'.ljust(size))) as server:
        response = transport.send(post(server.url))
    assert (response.status, response.json()) == (200, read)


def test_a_compressed_answer_is_not_unpacked(transport: RequestsTransport) -> None:
    """None was asked for, so it is not read; its status still counts."""
    with Server(servers.gzip_bomb(), servers.accept()) as server:
        response = transport.send(post(server.url))
        assert (response.status, response.body) == (200, b"")
        assert transport.send(post(server.url)).json() == {"code": 200}


def test_an_early_answer_is_heard_while_sending(transport: RequestsTransport) -> None:
    """A proxy that refuses a large body before it has read it is understood."""
    with Server(servers.answer_unread(413)) as server:
        assert transport.send(post(server.url, body=b" " * 20_000_000)).status == 413


def test_cookies_are_not_kept(transport: RequestsTransport) -> None:
    """What a server sets is forgotten."""
    with Server(servers.answer(200, None, {"Set-Cookie": "a=b; Path=/"})) as server:
        for _ in range(2):
            transport.send(post(server.url))
        assert "cookie" not in server.requests[1].headers


def test_netrc_is_not_read(transport: RequestsTransport, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """Credentials of other programs stay where they are."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with Server() as server:
        transport.send(post(server.url))
        assert "authorization" not in server.requests[0].headers


def test_the_proxy_of_the_environment_is_used(transport: RequestsTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY is honoured; it is read once."""
    with Server() as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://someone:secret@127.0.0.1:{server.port}")
        transport.send(post("http://amplitude.example/2/httpapi"))
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
        transport.send(post("http://amplitude.example/2/httpapi"))
        assert [each.target for each in server.requests] == ["http://amplitude.example/2/httpapi"] * 2
        assert server.requests[0].headers["proxy-authorization"].startswith("Basic ")
        assert server.connections == 1


def test_no_proxy_is_honoured(transport: RequestsTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hosts in NO_PROXY are reached directly."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as server:
        assert transport.send(post(server.url)).status == 200


def test_a_dead_proxy_shows_no_credentials(transport: RequestsTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither name nor password of a proxy is in an error."""
    monkeypatch.setenv("HTTP_PROXY", "http://someone:secret@127.0.0.1:1")
    with pytest.raises(TransportError) as caught:
        transport.send(post("http://amplitude.example/2/httpapi"))
    assert "secret" not in "".join(traceback.format_exception(caught.value))


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """A certificate authority that nobody else trusts."""
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path) -> str:
    """The file with its certificate."""
    path = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def tls(authority: trustme.CA, name: str = "localhost", newest: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A server's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    if newest:
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.maximum_version = newest
    return context


def test_a_private_authority_is_trusted_when_named(authority: trustme.CA, trusted: str) -> None:
    """`ca_file` replaces the usual certificates; the connection is kept."""
    transport = RequestsTransport(ca_file=trusted)
    with Server(tls=tls(authority)) as server:
        assert [transport.send(post(server.url)).status for _ in range(3)] == [200] * 3
        assert server.connections == 1
        transport.close()


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_bundles_of_the_environment_are_trusted(authority: trustme.CA, trusted: str, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The usual variables are honoured."""
    monkeypatch.setenv(name, trusted)
    transport = RequestsTransport()
    with Server(tls=tls(authority)) as server:
        assert transport.send(post(server.url)).status == 200
        transport.close()


def test_an_unknown_authority_is_refused(transport: RequestsTransport, authority: trustme.CA) -> None:
    """Without `ca_file` a private certificate is an error that names the cure."""
    with Server(tls=tls(authority)) as server, pytest.raises(TransportError, match=r"not trusted.*ca_file"):
        transport.send(post(server.url))
    assert server.requests == []


def test_a_certificate_for_another_name_is_refused(authority: trustme.CA, trusted: str) -> None:
    """Trusting the authority is not enough."""
    with Server(tls=tls(authority, "elsewhere.example")) as server, pytest.raises(TransportError, match="not trusted"):
        RequestsTransport(ca_file=trusted).send(post(server.url))
    assert server.requests == []


def test_old_tls_is_refused(authority: trustme.CA, trusted: str) -> None:
    """TLS 1.1 is not spoken."""
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context = tls(authority, newest=ssl.TLSVersion.TLSv1_1)
    with Server(tls=context) as server, pytest.raises(TransportError):
        RequestsTransport(ca_file=trusted).send(post(server.url))
    assert server.requests == []


def test_the_deadline_covers_the_handshake(trusted: str) -> None:
    """A server that accepts and says nothing to a TLS hello is left in time."""
    begun = time.monotonic()
    with Server(lambda peer: peer.until_gone() or False) as server, pytest.raises(TransportError, match="in time"):
        RequestsTransport(ca_file=trusted).send(post(server.url.replace("http://127.0.0.1", "https://localhost"), timeout=0.5))
    assert time.monotonic() - begun < LONG


@pytest.mark.parametrize("behaviour", STALLING.values(), ids=STALLING)
def test_the_deadline_holds_over_tls(authority: trustme.CA, trusted: str, behaviour: servers.Behaviour) -> None:
    """The same stalls, encrypted."""
    begun = time.monotonic()
    with Server(behaviour, tls=tls(authority)) as server, pytest.raises(TransportError, match="in time"):
        RequestsTransport(ca_file=trusted).send(post(server.url, timeout=1))
    assert time.monotonic() - begun < LONG


def test_the_deadline_covers_sending_over_tls(authority: trustme.CA, trusted: str) -> None:
    """Not reading is no way to keep a sender, encrypted or not."""
    begun = time.monotonic()
    with Server(servers.never_read(), tls=tls(authority)) as server, pytest.raises(TransportError, match="in time"):
        RequestsTransport(ca_file=trusted).send(post(server.url, timeout=1, body=b" " * 20_000_000))
    assert time.monotonic() - begun < LONG


def test_https_goes_through_a_tunnel(authority: trustme.CA, trusted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTPS_PROXY is asked to connect; the proxy sees only the name."""
    transport = RequestsTransport(ca_file=trusted)
    with Server(tls=tls(authority)) as server, Server(servers.proxy()) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert [transport.send(post(server.url)).status for _ in range(2)] == [200, 200]
        assert [each.target for each in proxy.requests] == [f"localhost:{server.port}"]
        assert server.requests[0].body == BODY
        transport.close()


def test_the_deadline_covers_the_tunnel(trusted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that trickles its answer to CONNECT is left in time."""
    with Server(servers.proxy(interval=0.02)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        begun = time.monotonic()
        with pytest.raises(TransportError, match="in time"):
            RequestsTransport(ca_file=trusted).send(post("https://amplitude.example/", timeout=0.5))
        assert time.monotonic() - begun < LONG


def test_a_proxy_that_speaks_tls_itself(authority: trustme.CA, trusted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """TLS to the proxy and TLS through it, both against the same authorities."""
    transport = RequestsTransport(ca_file=trusted)
    with Server(tls=tls(authority)) as server, Server(servers.proxy(), tls=tls(authority)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert transport.send(post(server.url)).status == 200
        transport.close()


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        (servers.send_raw(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"), "the proxy: no tunnel, status 407"),
        (servers.hang_up(), "connection closed before an answer"),
    ],
)
def test_a_proxy_that_does_not_connect_is_named(
    transport: RequestsTransport, monkeypatch: pytest.MonkeyPatch, behaviour: servers.Behaviour, words: str
) -> None:
    """Whose fault it is saves an hour."""
    with Server(behaviour) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(TransportError) as caught:
            transport.send(post("https://amplitude.example/2/httpapi"))
    assert str(caught.value) == f"amplitude.example: {words}"


def test_a_proxy_that_is_not_there_is_named(transport: RequestsTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not Amplitude refused, the proxy did."""
    with Server() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    with pytest.raises(TransportError, match=r"^amplitude\.example: the proxy: connection refused$"):
        transport.send(post("https://amplitude.example/2/httpapi"))


def test_a_socks_proxy_needs_a_package(transport: RequestsTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which."""
    monkeypatch.setitem(sys.modules, "socks", None)
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:1")

    def missing(*_arguments: object, **_options: object) -> None:
        raise requests.exceptions.InvalidSchema("Missing dependencies for SOCKS support.")

    monkeypatch.setattr(requests.adapters, "SOCKSProxyManager", missing)
    with pytest.raises(TransportError, match="PySocks"):
        transport.send(post("http://amplitude.example/2/httpapi"))


def test_a_socks_proxy_keeps_its_own_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its way to connect is another one."""
    manager = types.SimpleNamespace(pool_classes_by_scheme="its own", pools={}, clear=lambda: None)
    monkeypatch.setattr(requests.adapters, "SOCKSProxyManager", lambda *_, **__: manager)
    adapter = _adapter.Adapter(4, None)
    assert adapter.proxy_manager_for("socks5://127.0.0.1:1") is manager
    assert manager.pool_classes_by_scheme == "its own"
    adapter.close()


def test_certificates_that_can_not_be_used_are_named(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can only be found out later becomes ours, too, with the file to look at."""
    path = tmp_path / "empty.pem"
    path.write_text("nothing")
    url = "https://localhost:1/"
    with pytest.raises(TransportError, match=r"^localhost:1: the certificates in .*empty\.pem can not be used$"):
        RequestsTransport(ca_file=path).send(post(url))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "absent.pem"))
    with pytest.raises(TransportError, match=r"the certificates in .*absent\.pem can not be used$"):
        RequestsTransport().send(post(url))


# Processes


def test_a_forked_child_opens_its_own_connection_and_leaves_the_parents_alone(transport: RequestsTransport) -> None:
    """After a fork both go on, the parent on the connection it had."""
    with Server() as server:
        transport.send(post(server.url))
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if transport.send(post(server.url)).status == 200 else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        transport.send(post(server.url))
        assert [each.connection for each in server.requests] == [1, 2, 1]


def test_closing_in_a_forked_child_closes_what_was_inherited(authority: trustme.CA, trusted: str) -> None:
    """The child's copies of the descriptors are closed, without a TLS goodbye to the parent's server."""
    transport = RequestsTransport(ca_file=trusted)
    with Server(tls=tls(authority)) as server:
        transport.send(post(server.url))
        [adapter] = transport._adapters.values()
        [sock] = adapter._sockets
        descriptor = sock.fileno()
        child = os.fork()
        if child == 0:
            try:
                transport.close()
                os.fstat(descriptor)
            except OSError:
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        transport.send(post(server.url))
        assert server.connections == 1
        transport.close()


def test_closing_closes_and_sending_opens_again(transport: RequestsTransport) -> None:
    """`close` is not the end, and may be called at any time."""
    transport.close()
    with Server() as server:
        for _ in range(2):
            transport.send(post(server.url))
            transport.close()
        assert server.connections == 2


def wait_until(condition: Callable[[], bool], otherwise: str = "it never came to that") -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.001)


class Sending:
    """A request on a thread of its own that is under way when the block begins."""

    def __init__(self, transport: RequestsTransport, request: Request) -> None:
        self._transport = transport
        self._request = request
        self.problem = ""
        self._thread = threading.Thread(target=self._send)

    def _send(self) -> None:
        try:
            self._transport.send(self._request)
        except TransportError as error:
            self.problem = str(error)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(self._holds_a_socket)
        return self

    def _holds_a_socket(self) -> bool:
        adapters = list(self._transport._adapters.values())
        return any(attempt._socket is not None for adapter in adapters for attempt in list(adapter._attempts))

    def __exit__(self, *_: object) -> None:
        self._thread.join(LONG)
        assert not self._thread.is_alive()


@pytest.mark.parametrize("behaviour", [*STALLING.values(), servers.never_read()], ids=[*STALLING, "never reading"])
@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("kept_alive", [False, True])
def test_closing_ends_the_request_under_way(
    authority: trustme.CA, trusted: str, behaviour: servers.Behaviour, encrypted: bool, kept_alive: bool
) -> None:
    """Fault matrix, row X7: the thread returns at once and its socket is free, long before the timeout of the request."""
    transport = RequestsTransport(ca_file=trusted if encrypted else None)
    script = [servers.accept(), behaviour] if kept_alive else [behaviour]
    with Server(*script, tls=tls(authority) if encrypted else None) as server:
        if kept_alive:
            transport.send(post(server.url))
        body = BODY if behaviour in STALLING.values() else b" " * 20_000_000
        with Sending(transport, post(server.url, timeout=servers.PATIENCE, body=body)) as sending:
            wait_until(lambda: len(server.requests) == len(script) or (body is not BODY and server.met == len(script)))
            transport.close()
        if body is BODY:  # a server that does not read does not see it
            wait_until(lambda: not server._socks, "the socket stayed open")
        assert sending.problem == f"{'localhost' if encrypted else '127.0.0.1'}:{server.port}: the transport was closed"


def test_closing_ends_a_tls_handshake(trusted: str) -> None:
    """A server that says nothing to a TLS hello."""
    transport = RequestsTransport(ca_file=trusted)
    with Server(lambda peer: peer.until_gone() or False) as server:
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        with Sending(transport, post(url, timeout=servers.PATIENCE)) as sending:
            wait_until(lambda: server.met == 1)
            transport.close()
    assert sending.problem.endswith("the transport was closed")


def test_closing_ends_an_attempt_to_connect(transport: RequestsTransport) -> None:
    """A listener whose queue is full."""
    import socket

    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        begun = time.monotonic()
        with Sending(transport, post(f"http://127.0.0.1:{port}/", timeout=servers.PATIENCE)) as sending:
            transport.close()
        assert time.monotonic() - begun < LONG
        assert sending.problem == f"127.0.0.1:{port}: the transport was closed"
        for sock in waiting:
            sock.close()


def test_a_request_that_had_not_begun_to_connect_is_ended_too(transport: RequestsTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a name is resolved there is no socket yet: what follows must not connect."""
    import socket

    def resolve(*_: object) -> object:
        transport.close()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port))]

    with Server() as server:
        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        with pytest.raises(TransportError, match="the transport was closed"):
            transport.send(post(server.url))
        assert server.requests == []


def test_a_client_that_was_shut_down_keeps_neither_thread_nor_socket() -> None:
    """Fault matrix, row X7: the request under way at the end of `shutdown` is closed with it, not at its own timeout."""
    with Server(servers.never_answer()) as server:
        client = Amplitude(Config(KEY, server_url=server.url, upload_interval=0, request_timeout=LONG, log_level="NONE"))
        client.log_event({"event_type": "Order Paid", "user_id": "u-12345"})
        wait_until(lambda: bool(server.requests))
        begun = time.monotonic()
        client.shutdown(0.1)
        wait_until(lambda: not server._socks, "the socket stayed open")
        assert time.monotonic() - begun < LONG / 2


def test_no_descriptor_is_left_behind(transport: RequestsTransport) -> None:
    """Neither answers nor faults leak sockets."""
    script = [*SILENT.values(), servers.gzip_bomb(1), servers.endless_body(), servers.accept()]
    with Server(*script) as server:
        for _ in script:
            try:
                transport.send(post(server.url))
            except TransportError:
                continue
        [adapter] = transport._adapters.values()
        assert len(adapter._sockets) == 1
        transport.close()
        assert len(adapter._sockets) == 0
    gc.collect()  # a socket that nobody closed would warn, which is an error here


def test_what_belongs_to_another_process_is_abandoned(transport: RequestsTransport) -> None:
    """Descriptors are closed, whatever state they are in."""
    with Server() as server:
        transport.send(post(server.url))
        adapter = transport._adapters.pop(os.getpid())
        [sock] = adapter._sockets
        descriptor = sock.fileno()
        transport._adapters[os.getpid() + 1] = adapter
        transport.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
        adapter.abandon()
        assert transport.send(post(server.url)).status == 200
        assert server.connections == 2


def test_stale_connections_do_not_go_on_for_ever(transport: RequestsTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs one try, and there are only so many."""
    monkeypatch.setattr(_adapter.Attempt, "stale", True)
    with Server(servers.hang_up()) as server:
        with pytest.raises(TransportError):
            transport.send(post(server.url))
        assert server.connections == CONNECTIONS + 1


def test_without_requests_there_is_one_error(transport: RequestsTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken installation is told like any fault."""
    monkeypatch.delattr(otel_amplitude, "_adapter")
    monkeypatch.setitem(sys.modules, "otel_amplitude._adapter", None)
    with pytest.raises(TransportError, match="requests can not be imported"):
        transport.send(post("http://127.0.0.1:1/"))


def test_idle_connections_are_few_and_the_latest_comes_first() -> None:
    """What urllib3 asks of its queue."""
    idle = _adapter._Idle(2)
    idle.put("a")
    idle.put("b")
    with pytest.raises(queue.Full):
        idle.put("c")
    assert idle.qsize() == 2
    assert [idle.get(), idle.get()] == ["b", "a"]
    with pytest.raises(queue.Empty):
        idle.get()


def run(code: str, *, strict: bool = True) -> str:
    """What a fresh interpreter prints."""
    options = ["-W", "error"] if strict else []
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_nothing_is_imported_before_the_first_send() -> None:
    """A monkey patch may still come after the package was imported, and who never sends never pays."""
    code = """
import sys
from otel_amplitude.transport import RequestsTransport
transport = RequestsTransport()
transport.close()
print(sorted({"requests", "urllib3", "ssl", "http.client"} & set(sys.modules)))
"""
    assert run(code) == "[]"


@pytest.mark.heavy
def test_a_process_patched_by_gevent_after_the_import(authority: trustme.CA, trusted: str, tmp_path) -> None:
    """Sends run side by side in greenlets, over TLS, and the deadline holds for each."""
    if importlib.util.find_spec("gevent") is None:
        message = "gevent is not installed: pip install gevent"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    chain = tmp_path / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(chain)
    code = f"""
import sys, threading
from otel_amplitude.transport import Request, RequestsTransport, TransportError
import gevent.monkey
gevent.monkey.patch_all()
import gevent, ssl
sys.path.insert(0, {str(pathlib.Path(servers.__file__).parent)!r})
import servers
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain({str(chain)!r})
transport = RequestsTransport(ca_file={trusted!r})
meeting = threading.Barrier(4)
def together(peer):
    peer.request()
    meeting.wait(10)
    peer.send(servers.reply(200, b"ok"))
    return True
with servers.Server(together, tls=context) as server:
    greenlets = [gevent.spawn(transport.send, Request(server.url, {{}}, b"{{}}", 10)) for _ in range(4)]
    gevent.joinall(greenlets)
    print([each.value.status for each in greenlets], server.connections)
with servers.Server(servers.trickle_body(0.02)) as server:
    try:
        transport.send(Request(server.url, {{}}, b"{{}}", 0.5))
    except TransportError as error:
        print(str(error).partition(": ")[2])
transport.close()
"""
    assert run(code, strict=False).splitlines() == ["[200, 200, 200, 200] 4", "no complete answer in time"]


def test_urllib3_and_the_adapter_are_the_only_users_of_requests() -> None:
    """The transport alone imports requests."""
    root = pathlib.Path(otel_amplitude.__file__).parent
    users = [path.name for path in root.rglob("*.py") if re.search(r"^\s*(import|from) (requests|urllib3)", path.read_text(), re.MULTILINE)]
    assert users == ["_adapter.py"]


# The values


def test_neither_request_nor_response_shows_its_content() -> None:
    """The API key is in the body of one, and may be echoed in the other."""
    request = Request("https://api2.amplitude.com/2/httpapi", {"Authorization": KEY}, BODY, 10.0)
    assert repr(request) == "Request(url='https://api2.amplitude.com/2/httpapi', timeout=10.0)"
    assert repr(Response(400, {"x": KEY}, b"Invalid API key: " + KEY.encode())) == "Response(status=400)"


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"code":200}', {"code": 200}),
        (b'{"a":"[[[[[[[[[[[[[[[[[[[[[[[[\\"[["}', {"a": '[[[[[[[[[[[[[[[[[[[[[[[["[['}),
        (b'{"a":' + b"[" * 19 + b"]" * 19 + b"}", {"a": eval("[" * 19 + "]" * 19)}),
        (b'{"a":' + b"[" * 20 + b"]" * 20 + b"}", None),
        (b"[" * 60_000, None),
        (b'{"a":' * 10_000, None),
        (b"[1]", None),
        (b"200", None),
        (b"", None),
        (b"<html></html>", None),
        (b'{"a":NaN}', None),
        (b'{"a":"\xff"}', None),
        (b'{"a":"' + b"a" * MAX_ANSWER_BYTES + b'"}', None),
        (b'{"a":1', None),
    ],
)
def test_only_a_small_flat_json_object_is_one(body: bytes, value: object) -> None:
    """Anything else is no answer of Amplitude's."""
    assert Response(200, {}, body).json() == value


@given(st.binary(max_size=300) | st.text(alphabet='[]{}"\\,:a1', max_size=300).map(str.encode))
def test_no_bytes_make_json_raise(body: bytes) -> None:
    """Whatever a server sends, there is a value."""
    assert isinstance(Response(200, {}, body).json(), (dict, type(None)))
