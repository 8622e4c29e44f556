"""Compressed bytes are unpacked within limits, wherever they end, and what is wrong with them is said."""

from __future__ import annotations

import gzip
import io

import pytest
from backports import zstd
from hypothesis import assume, given
from hypothesis import strategies as st

from otel_amplitude.convert.inflate import InflateError, inflate, inflated, kind_of

PACK = {"gzip": gzip.compress, "zstd": zstd.compress}


@pytest.mark.parametrize("kind", PACK)
@given(parts=st.lists(st.binary(max_size=300), min_size=1, max_size=4), repeat=st.sampled_from([1, 1_000]))
def test_any_content_in_any_number_of_members(kind: str, parts: list[bytes], repeat: int) -> None:
    """It comes back whole."""
    packed = b"".join(PACK[kind](part * repeat) for part in parts)
    content = b"".join(part * repeat for part in parts)
    assume(kind_of(content) is None)  # what is compressed twice is unpacked twice
    assert inflate(packed, len(content)) == content
    source, layers = inflated(io.BufferedReader(io.BytesIO(packed)))
    assert (source.read(), [layer.trouble for layer in layers][:1]) == (content, [""])


@pytest.mark.parametrize("kind", PACK)
def test_what_ends_early_or_is_damaged(kind: str) -> None:
    """What came before is given, and the trouble is named."""
    packed = PACK[kind](bytes(range(256)) * 4_000)
    for broken in (packed[:-9], packed[:9], packed[: len(packed) // 2] + b"\xff" * 50):
        source, (layer, *_) = inflated(io.BufferedReader(io.BytesIO(broken)))
        source.read()
        assert layer.trouble
        with pytest.raises(InflateError, match=kind):
            inflate(broken, 10**9)


@pytest.mark.parametrize("kind", PACK)
def test_bombs(kind: str) -> None:
    """What is larger than the bound, or grows as no telemetry does, is refused before it fills the memory."""
    with pytest.raises(InflateError, match="more than 1,000 bytes"):
        inflate(PACK[kind](bytes(1_001)), 1_000)
    with pytest.raises(InflateError, match="grows more than 200 times"):
        inflate(PACK[kind](bytes(100 * 2**20)), 2**30)


def test_other_bytes() -> None:
    """They are given as they are; a skippable frame of zstd is one of zstd."""
    assert inflate(b"{}", 10) == b"{}"
    assert kind_of(b"") is None
    found = kind_of(b"\x50\x2a\x4d\x18\x00\x00\x00\x00")
    assert found is not None
    assert found[0] == "zstd"
