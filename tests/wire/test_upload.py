"""Parcels to a request: bytes joined, never encoded again."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_amplitude._version import __version__
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.limits import ENDPOINTS
from otel_amplitude.transport import Request
from otel_amplitude.wire._upload import build_upload

KEY = "0123456789abcdef0123456789abcdef"
US = ENDPOINTS["US", False]
ELSEWHERE = "https://proxy.example/2/httpapi"


def parcel(body: bytes) -> Parcel:
    """A parcel of one user."""
    return Parcel(body, ("u-12345",), 0)


def upload(*bodies: bytes, url: str = ELSEWHERE, **options) -> Request:
    """The request for these bodies."""
    return build_upload([parcel(body) for body in bodies], api_key=KEY, url=url, **options)


def test_the_body_is_the_envelope_around_the_frozen_bytes() -> None:
    """Odd spacing inside of an event survives; nothing else is in the envelope."""
    request = upload(b'{"a": 1.0}', b'{"b":\t2}')
    assert request.body == b'{"api_key":"%b","events":[{"a": 1.0},{"b":\t2}]}' % KEY.encode()


def test_min_id_length_is_sent_when_given() -> None:
    """`options` is there only then."""
    assert json.loads(upload(b"{}", min_id_length=1).body) == {"api_key": KEY, "options": {"min_id_length": 1}, "events": [{}]}


@given(st.text(min_size=1, max_size=40).filter(lambda key: key.isprintable()))
def test_any_key_gives_valid_json(key: str) -> None:
    """A key with quotes in it is wrong, but breaks nothing."""
    assert json.loads(build_upload([parcel(b"{}")], api_key=key, url=US).body)["api_key"] == key


def test_url_and_timeout_are_passed_on() -> None:
    """They are the caller's."""
    request = upload(b"{}", timeout=3.5)
    assert (request.url, request.timeout) == (ELSEWHERE, 3.5)


SMALL, LARGE = b'{"a":1}', b'{"a":"%b"}' % (b"x" * 2048)


@pytest.mark.parametrize(
    ("compression", "url", "body", "compressed"),
    [
        *[("auto", url, LARGE, True) for url in ENDPOINTS.values()],
        ("auto", US, SMALL, False),
        ("auto", ELSEWHERE, LARGE, False),
        ("auto", "https://api2.amplitude.com.evil.example/2/httpapi", LARGE, False),
        ("gzip", ELSEWHERE, SMALL, True),
        ("none", US, LARGE, False),
    ],
)
def test_when_it_is_compressed(compression: str, url: str, body: bytes, compressed: bool) -> None:
    """Amplitude's own hosts unpack gzip, proxies often break it, and below 2 KB it is not worth it."""
    request = upload(body, url=url, compression=compression)
    assert (request.headers.get("Content-Encoding") == "gzip") is compressed
    plain = gzip.decompress(request.body) if compressed else request.body
    assert json.loads(plain)["events"] == [json.loads(body)]


def test_auto_compresses_from_2048_bytes_on() -> None:
    """The size is that of the whole body, before compression."""
    envelope = len(upload(b'{"a":""}').body)
    at = [upload(b'{"a":"%b"}' % (b"x" * (size - envelope)), url=US).headers.get("Content-Encoding") for size in (2047, 2048)]
    assert at == [None, "gzip"]


def test_the_same_parcels_give_the_same_bytes() -> None:
    """Compressed or not, each attempt is identical: no time stamp is in it."""
    assert upload(LARGE, compression="gzip").body == upload(LARGE, compression="gzip").body


def test_headers() -> None:
    """Ours describe the body and name the library; `client_upload_time` is nowhere."""
    assert upload(b"{}").headers == {
        "Accept": "*/*",
        "User-Agent": f"otel-amplitude/{__version__}",
        "Content-Type": "application/json",
    }


def test_more_headers_are_added_but_do_not_describe_the_body() -> None:
    """A user may name another user agent; the content's headers belong to who made the content."""
    given_headers = {
        "user-agent": "shop/1",
        "X-Team": "shop",
        "content-type": "text/plain",
        "Content-Encoding": "br",
        "CONTENT-LENGTH": "1",
    }
    assert upload(b"{}", headers=given_headers).headers == {
        "Accept": "*/*",
        "user-agent": "shop/1",
        "x-team": "shop",
        "Content-Type": "application/json",
    }


def test_without_the_extra_the_standard_library_compresses() -> None:
    """`fast` is an extra: without isal the same bytes come out after unpacking."""
    code = """
import gzip, sys
sys.modules["isal"] = None
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.wire import _upload
request = _upload.build_upload([Parcel(b"{}", ("u",), 0)], api_key="k", url="https://a.example/", compression="gzip")
assert _upload._gzip is gzip
print(gzip.decompress(request.body).decode())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == '{"api_key":"k","events":[{}]}'
