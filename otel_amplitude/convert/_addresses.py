"""The address of the person who asked: behind trusted proxies only, and never a private one."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from otel_amplitude.convert._tables import FORWARDED_FOR, PEER
from otel_amplitude.identity._headers import captured

_MAX_HEADER = 2_048


def client_address(attributes: Mapping[str, Any], proxies: int) -> str | None:
    """Give the client's public address, or None.

    `X-Forwarded-For` is written by every hop, so only what the `proxies` trusted ones wrote may be believed: the address is
    counted from the right. Without the captured header behind a proxy there is none, since the peer is the proxy.

    Args:
        attributes: of a SERVER span.
        proxies: how many proxies of one's own stand in front; 0 means the peer is the client.
    """
    if proxies == 0:
        peer = next((attributes[name] for name in PEER if name in attributes), None)
        return public_address(peer) if type(peer) is str else None
    hops = (captured(attributes, FORWARDED_FOR) or "")[-_MAX_HEADER:].split(",")
    return public_address(hops[-proxies].strip()) if len(hops) >= proxies else None


@lru_cache(maxsize=1_024)
def public_address(text: str) -> str | None:
    """Give an address without port, brackets and zone; None for a private one and for what is none (a host name, a socket path).

    >>> public_address("8.8.8.8:4711"), public_address("[2001:4860:4860::8888]:443"), public_address("10.0.0.1"), public_address("unix:")
    ('8.8.8.8', '2001:4860:4860::8888', None, None)
    """
    host = text[:100].strip(' "')
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    return str(address) if address.is_global and not address.is_multicast else None
