"""Small requests that unpack to much: a clear status, and memory within limits, in a process of its own."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator

import pytest
from gateway.program import Running
from gateway.sending import REQUEST, encoded, span, traces

from otel_amplitude.gateway.answers import JSON, PROTOBUF
from otel_amplitude.sandbox import Sandbox

MIB = 2**20
pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One gateway for all bombs, so that the last ones meet what the first ones left."""
    spool = tmp_path_factory.mktemp("bombs") / "spool"
    with Sandbox() as sandbox, Running(f"{sandbox.url}/2/httpapi", "--spool-dir", str(spool)) as found:
        assert found.post(encoded(traces(span(REQUEST)), PROTOBUF), {"Content-Type": PROTOBUF}) == 200
        yield found


def zipped_zeros(size: int) -> bytes:
    """A gzip of many zeros, made in steps."""
    buffer, zeros = io.BytesIO(), bytes(16 * MIB)
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1) as file:
        for _ in range(size // len(zeros)):
            file.write(zeros)
    return buffer.getvalue()


def varint(number: int) -> bytes:
    """A number of protobuf."""
    octets = bytearray()
    while number >= 0x80:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*octets, number])


def nested(content: bytes) -> bytes:
    """Items inside of scope, resource and request."""
    scope = b"\x12" + varint(len(content)) + content
    return b"\x0a" + varint(len(scope)) + scope


BOMBS = {
    "300 MiB of zeros": (lambda: zipped_zeros(304 * MIB), PROTOBUF, "gzip", {413}),
    "20 MiB of empty spans": (lambda: gzip.compress(nested(b"\x12\x00" * (19 * MIB // 2))), PROTOBUF, "gzip", {413}),
    "20 MiB of empty spans, plain": (lambda: nested(b"\x12\x00" * (19 * MIB // 2)), PROTOBUF, "", {413}),
    "20 MiB of empty spans in JSON": (
        lambda: b'{"resourceSpans":[{"scopeSpans":[{"spans":[' + b"{}," * (6 * MIB) + b"{}]}]}]}",
        JSON,
        "",
        {413},
    ),
    "100,000 open brackets": (lambda: b"[" * 100_000, JSON, "", {400}),
    "100,000 open objects": (lambda: b'{"a":' * 100_000, JSON, "", {400, 413}),
    "deep attribute values": (
        lambda: (
            b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"attributes":[{"key":"http.route","value":'
            + b'{"arrayValue":{"values":[' * 300
            + b"]}}" * 300
            + b"}]}]}]}]}"
        ),
        JSON,
        "",
        {200, 400},
    ),
    "2 MiB in one span": (lambda: nested(b"\x12" + varint(2 * MIB) + bytes(2 * MIB)), PROTOBUF, "", {200, 400}),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_gets_a_clear_status_and_little_memory(running: Running, name: str) -> None:
    """At most three times the largest body more than an idle gateway ever had."""
    make, content_type, encoding, statuses = BOMBS[name]
    before = running.memory()
    headers = {"Content-Type": content_type, **({"Content-Encoding": encoding} if encoding else {})}
    assert running.post(make(), headers) in statuses
    assert running.memory() - before < 64, "MiB more"
    assert running.post(encoded(traces(span(REQUEST)), PROTOBUF), {"Content-Type": PROTOBUF}) == 200
