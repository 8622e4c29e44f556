"""Sockets: senders that are slow, broken, many or strangers; TLS; and the end."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from pathlib import Path

import pytest
import trustme
from gateway.sending import REQUEST, TYPES, Gateway, Sender, encoded, serving, span, traces, until

from otel_amplitude.errors import ConfigurationError
from otel_amplitude.gateway.access import Tls, Tokens
from otel_amplitude.gateway.answers import PROTOBUF
from otel_amplitude.gateway.limits import Budget, Hold, Limits, RefusedError
from otel_amplitude.gateway.server import Server

BODY = encoded(traces(span(REQUEST)), PROTOBUF)
HEAD = b"POST /v1/traces HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/x-protobuf\r\n"


def raw(server: Server, *parts: bytes) -> bytes:
    """Send bytes, and read until the server closes."""
    with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=10) as sock:
        for part in parts:
            sock.sendall(part)
        received = b""
        with contextlib.suppress(OSError):  # it may be closed by now
            sock.shutdown(socket.SHUT_WR)
            while data := sock.recv(65536):
                received += data
    return received


@pytest.mark.parametrize(
    "body",
    [
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n" + b"1;x=" + b"y" * 10_000 + b"\r\na\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 100 + b"\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"Content-Length: -5\r\n\r\n",
        b"Content-Length: five\r\n\r\n",
        b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    ],
)
def test_a_wrong_length_is_a_bad_request(server: Server, body: bytes) -> None:
    """400, and the connection closes, since nothing after it can be trusted."""
    assert raw(server, HEAD + body).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "request_line", [b"POST\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9 + b"\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"]
)
def test_what_is_no_http_gets_an_answer_or_none(made: Gateway, server: Server, request_line: bytes) -> None:
    """Never a traceback: 4xx or 5xx, or the connection closes. The next sender is served."""
    raw(server, request_line)
    assert "failed" not in made.intake.stats().get("refused", {})
    assert Sender(server).ask("GET", "/healthz").status == 200


def test_chunked_and_a_length_together(made: Gateway, server: Server) -> None:
    """Chunked wins, and the connection closes (RFC 9112, 6.3): no second request is read from what the length leaves."""
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    received = raw(server, HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n" + chunks + b"GET /stats HTTP/1.1\r\n\r\n")
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.startswith(b"HTTP/1.1 200 ")
    assert len(made.events) == 1


def test_a_body_that_ends_early_is_no_request(made: Gateway, server: Server) -> None:
    """Half of a body, and half of a chunk: nothing is taken, and nothing is answered."""
    half = BODY[: len(BODY) // 2]
    assert raw(server, HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY), half) == b""
    assert raw(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(BODY), half) == b""
    assert (made.events, server.budget.used) == ([], 0)


def test_a_sender_that_waits_for_leave_gets_it(server: Server) -> None:
    """`Expect: 100-continue`, as curl sends it for large bodies."""
    with socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=10) as sock:
        sock.sendall(HEAD + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(BODY))
        assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
        sock.sendall(BODY)
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")


def test_a_slow_sender_ends_at_the_deadline(made: Gateway) -> None:
    """However it dribbles: one deadline for the whole request."""
    with (
        serving(made, limits=Limits(request_seconds=0.4)) as server,
        socket.create_connection(server.server_address[:2], timeout=10) as sock,
    ):
        sock.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
        closed = threading.Event()

        def dribble() -> None:
            try:
                while not closed.wait(0.05):
                    sock.sendall(b"x")
            except OSError:
                pass

        thread = threading.Thread(target=dribble)
        thread.start()
        try:
            assert sock.recv(100) == b""
        except ConnectionResetError:
            pass
        finally:
            closed.set()
            thread.join()
        assert made.intake.stats()["refused"] == {"deadline": 1}


def test_idle_connections_give_way_to_new_ones(made: Gateway) -> None:
    """300 connections that say nothing do not keep the next sender out, and threads are not more than connections."""
    with serving(made, limits=Limits(max_connections=50)) as server:
        address = server.server_address[:2]
        idle = [socket.create_connection(address, timeout=10) for _ in range(300)]
        try:
            until(lambda: len(server.connections) <= 50)
            sender = Sender(server)
            assert sender.post(traces(span(REQUEST))).status == 200
            assert len(server.connections) <= 50
        finally:
            for sock in idle:
                sock.close()


def test_connections_in_the_middle_of_a_request_are_not_closed_for_new_ones(made: Gateway) -> None:
    """The new one gets 503."""
    with serving(made, limits=Limits(max_connections=3)) as server:
        address = server.server_address[:2]
        busy = [socket.create_connection(address, timeout=10) for _ in range(3)]
        try:
            for sock in busy:
                sock.sendall(HEAD + b"Content-Length: 10\r\nExpect: 100-continue\r\n\r\n")
                assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
            assert Sender(server).ask("GET", "/healthz").status == 503
            assert made.intake.stats()["refused"] == {"connections": 1}
        finally:
            for sock in busy:
                sock.close()


def test_bytes_in_flight_are_limited() -> None:
    """A request that is alone is always taken; others wait for their turn with 503."""
    budget = Budget(100)
    with Hold(budget) as first:
        first.take(150)
        with Hold(budget) as second, pytest.raises(RefusedError) as refused:
            second.take(1)
        assert (refused.value.status, refused.value.retry_after) == (503, 1)
        first.take(10)
    assert budget.used == 0
    with Hold(budget) as first, Hold(budget) as second:
        first.take(50)
        second.take(50)
    assert budget.used == 0


@pytest.mark.parametrize("content_type", TYPES)
def test_a_connection_serves_many_requests(made: Gateway, sender: Sender, content_type: str) -> None:
    """Also after a refusal whose body was read."""
    for trace in range(1, 6):
        assert sender.post(traces(span(REQUEST, trace=trace)), content_type).status == 200
        assert sender.ask("POST", "/v1/traces", b"{", content_type=content_type).status == 400
    assert len(made.events) == 5


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """An authority for these tests."""
    return trustme.CA()


@pytest.fixture
def certificate(authority: trustme.CA, tmp_path: Path) -> str:
    """Key and certificate of the server."""
    path = tmp_path / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(path))
    return str(path)


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    """The context of a client."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def test_tls(made: Gateway, authority: trustme.CA, certificate: str) -> None:
    """Requests are taken; one who does not speak TLS, or is slow at it, does not stop the others."""
    with serving(made, tls=Tls(certificate)) as server:
        assert server.url.startswith("https://")
        with socket.create_connection(server.server_address[:2], timeout=10) as silent:
            assert not raw(server, b"GET /healthz HTTP/1.1\r\n\r\n").startswith(b"HTTP/")
            sender = Sender(server, context=trusting(authority))
            for trace in (1, 2):
                assert sender.post(traces(span(REQUEST, trace=trace))).status == 200
            silent.close()
        assert len(made.events) == 2


def test_mutual_tls(made: Gateway, authority: trustme.CA, certificate: str, tmp_path: Path) -> None:
    """Only senders with a certificate of the authority are served."""
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    with serving(made, tls=Tls(certificate, client_authority=str(ca))) as server:
        known = trusting(authority)
        authority.issue_cert("sender.example").configure_cert(known)
        sender = Sender(server, context=known)
        assert sender.post(traces(span(REQUEST))).status == 200
        stranger = Sender(server, context=trusting(authority))
        with pytest.raises((ssl.SSLError, OSError)):
            stranger.post(traces(span(REQUEST, trace=2)))
    assert len(made.events) == 1


def test_tokens_and_certificates_can_be_renewed(tmp_path: Path, certificate: str) -> None:
    """`reload` reads them again; what can not be used changes nothing."""
    path = tmp_path / "tokens"
    path.write_text("old-token-0123456789\n\n")
    tokens = Tokens(str(path))
    path.write_text("new-token-0123456789")
    tokens.reload()
    assert [tokens.allow(f"Bearer {word}-token-0123456789") for word in ("old", "new")] == [False, True]
    for text in ("", "short"):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match="token-file"):
            tokens.reload()
    assert tokens.allow("Bearer new-token-0123456789")
    tls = Tls(certificate)
    Path(certificate).write_text("no certificate")
    with pytest.raises(ConfigurationError, match="tls-cert"):
        tls.reload()


# the end


def test_a_request_under_way_ends_before_the_server_does(made: Gateway) -> None:
    """`stop` waits for it; new ones are refused meanwhile; idle connections are closed."""
    with serving(made) as server:
        idle = socket.create_connection(server.server_address[:2], timeout=10)
        with socket.create_connection(server.server_address[:2], timeout=10) as sock:
            sock.sendall(HEAD + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(BODY) + BODY[:10])
            assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
            stopped: list[bool] = []
            thread = threading.Thread(target=lambda: stopped.append(server.stop(10)))
            thread.start()
            until(lambda: server.closing)
            sock.sendall(BODY[10:])
            answer = sock.recv(1000)
            thread.join(10)
        assert answer.startswith((b"HTTP/1.1 503 ", b"HTTP/1.1 200 "))
        assert stopped == [True]
        assert idle.recv(10) == b""
        idle.close()
