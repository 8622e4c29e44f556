"""Reading headers where no instrumentation does, as OpenTelemetry's getters promise."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.propagators.textmap import Getter

from otel_amplitude.identity._anchor import EnvironGetter, HeaderGetter


@pytest.mark.parametrize(
    ("getter", "carrier", "names"),
    [
        (EnvironGetter(), {"HTTP_X_DEVICE_ID": "d-12345", "PATH_INFO": "/"}, ["HTTP_X_DEVICE_ID", "PATH_INFO"]),
        (HeaderGetter(), {"headers": [(b"X-Device-Id", b"d-12345"), (b"host", b"shop")]}, ["X-Device-Id", "host"]),
    ],
)
def test_getters(getter: Getter[Any], carrier: Any, names: list[str]) -> None:
    """A header that is there comes in a list, one that is not as None, and all names can be listed."""
    assert getter.get(carrier, "x-device-id") == ["d-12345"]
    assert getter.get(carrier, "x-user-id") is None
    assert getter.keys(carrier) == names
