"""Parcels to one request: their bytes joined, never encoded again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal
from urllib.parse import urlsplit

import orjson

from otel_amplitude._version import __version__
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.limits import ENDPOINTS, MIN_GZIP_BYTES
from otel_amplitude.transport import Request

try:
    from isal import igzip as _gzip  # the extra `fast`: a fifth of the price of zlib
except ImportError:
    import gzip as _gzip  # type: ignore[no-redef]

Compression = Literal["auto", "gzip", "none"]

_OWN_HOSTS: Final = frozenset(urlsplit(url).netloc for url in ENDPOINTS.values())
# Headers that only the body decides.
_DESCRIBING: Final = frozenset({"content-type", "content-encoding", "content-length", "transfer-encoding"})
_HEADERS: Final = {"Accept": "*/*", "User-Agent": f"otel-amplitude/{__version__}"}


def build_upload(
    parcels: Sequence[Parcel],
    *,
    api_key: str,
    url: str,
    min_id_length: int | None = None,
    headers: Mapping[str, str] | None = None,
    compression: Compression = "auto",
    timeout: float = 10.0,
) -> Request:
    """Give the request that carries `parcels`, in their order (HTTP V2 page, "Upload request"; Batch is identical).

    `client_upload_time` is left out on purpose: replayed with a batch it would move every event in time, and a server's clock
    needs no correction.

    Args:
        parcels: what to send.
        api_key: of the project; it travels in the body.
        url: the whole endpoint.
        min_id_length: sent as `options.min_id_length` unless None.
        headers: more of them. They may replace `User-Agent` and `Accept`, not those that describe the body.
        compression: `gzip`, `none`, or `auto`: gzip from 2,048 bytes on, for Amplitude's own hosts (proxies often break it).
        timeout: seconds for the whole exchange.
    """
    options = b"" if min_id_length is None else b'"options":{"min_id_length":%d},' % min_id_length
    events = b",".join([parcel.body for parcel in parcels])
    body = b'{"api_key":%b,%b"events":[%b]}' % (orjson.dumps(api_key), options, events)
    ours = {**_HEADERS, "Content-Type": "application/json"}
    if compression == "gzip" or (compression == "auto" and len(body) >= MIN_GZIP_BYTES and urlsplit(url).netloc in _OWN_HOSTS):
        body = _gzip.compress(body, 1, mtime=0)
        ours["Content-Encoding"] = "gzip"
    given = {name.lower(): value for name, value in (headers or {}).items() if name.lower() not in _DESCRIBING}
    return Request(url, {**{name: value for name, value in ours.items() if name.lower() not in given}, **given}, body, timeout)
