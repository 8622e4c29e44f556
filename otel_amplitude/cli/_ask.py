"""Asking a running sandbox: its address checked, its answers as JSON, its silence as an error with a cure."""

from __future__ import annotations

import http.client
import json
import urllib.parse
import urllib.request
from typing import Any

from otel_amplitude.errors import TransportError

_SECONDS = 5.0


def ask(sandbox: str, path: str, **query: object) -> Any:
    """Give the answer of a sandbox.

    Args:
        sandbox: its address, such as `http://127.0.0.1:8010`.
        path: such as `/api/events`.
        **query: the filters.

    Raises:
        TransportError: it does not answer, or not as a sandbox does.
    """
    parts = urllib.parse.urlsplit(sandbox if "://" in sandbox else f"http://{sandbox}")
    address = f"{parts.scheme}://{parts.netloc}{path}?{urllib.parse.urlencode(query)}"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=_SECONDS) as answer:
            return json.load(answer)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise TransportError(
            f"no sandbox answers at {sandbox} ({error}); start one with otel-amplitude sandbox, and give the address it prints"
        ) from error
