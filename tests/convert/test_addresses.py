"""The client's address: public, and vouched for by one's own proxies."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_amplitude.convert._addresses import client_address, public_address

HEADER = "http.request.header.x_forwarded_for"


@pytest.mark.parametrize(
    ("attributes", "proxies", "address"),
    [
        ({"client.address": "8.8.8.8"}, 0, "8.8.8.8"),
        ({"net.peer.ip": "8.8.8.8"}, 0, "8.8.8.8"),
        ({"client.address": "10.0.0.1", "net.peer.ip": "8.8.8.8"}, 0, None),
        ({"client.address": "/var/run/app.sock"}, 0, None),
        ({"client.address": 7}, 0, None),
        ({}, 0, None),
        ({HEADER: ("1.1.1.1, 8.8.4.4",), "client.address": "8.8.8.8"}, 0, "8.8.8.8"),
        ({HEADER: ("1.1.1.1, 8.8.4.4",)}, 1, "8.8.4.4"),
        ({HEADER: ("1.1.1.1, 8.8.4.4",)}, 2, "1.1.1.1"),
        ({HEADER: ("1.1.1.1", "8.8.4.4, 10.0.0.3")}, 2, "8.8.4.4"),
        ({HEADER: "1.1.1.1"}, 1, "1.1.1.1"),
        ({HEADER: ("1.1.1.1",)}, 2, None),
        ({HEADER: ("1.1.1.1, 10.0.0.3",)}, 1, None),
        ({HEADER: (7,)}, 1, None),
        ({HEADER: 7}, 1, None),
        ({"client.address": "8.8.8.8"}, 1, None),
    ],
)
def test_the_address_is_counted_from_the_right(attributes: dict[str, Any], proxies: int, address: str | None) -> None:
    """Only what trusted proxies wrote is believed; without their header there is none."""
    assert client_address(attributes, proxies) == address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("8.8.8.8:443", "8.8.8.8"),
        ("[2001:4860:4860::8888]:443", "2001:4860:4860::8888"),
        ("2001:4860:4860::8888", "2001:4860:4860::8888"),
        ("::ffff:8.8.8.8", "8.8.8.8"),
        ("::ffff:10.0.0.1", None),
        ("fe80::1%eth0", None),
        ('"8.8.8.8"', "8.8.8.8"),
        ("127.0.0.1", None),
        ("192.168.1.1", None),
        ("100.64.0.1", None),
        ("224.0.0.1", None),
        ("localhost", None),
        ("unknown", None),
    ],
)
def test_only_public_addresses_count(text: str, address: str | None) -> None:
    """Private, local, shared and multicast addresses are never sent."""
    assert public_address(text) == address


@given(st.text(max_size=200))
def test_no_text_breaks_it(text: str) -> None:
    """An address is a claim by a stranger."""
    assert client_address({HEADER: (text,)}, 1) is None or public_address(text.rsplit(",", maxsplit=1)[-1].strip())
