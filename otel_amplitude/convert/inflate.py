"""Compressed bytes as a stream, within limits: what grows more than telemetry does is a bomb, or must be unpacked by hand first.

gzip is in the standard library. zstd is `compression.zstd` from Python 3.14 on and its backport before, in the extra `otlp`: one interface
for all versions, and the one that stays (`zstandard` has another one and would be needed for ever).
"""

from __future__ import annotations

import importlib
import io
import sys
import zlib
from collections.abc import Callable
from typing import IO, Any, Final, Protocol

GZIP: Final = b"\x1f\x8b\x08"
ZSTD: Final = b"\x28\xb5\x2f\xfd"
MAX_RATIO: Final = 200
"""Real OTLP shrinks to a 14th to 40th; identical lines one after the other go further."""
FREE_BYTES: Final = 64 * 2**20
"""Up to here any ratio is taken: so much does no harm."""
_MAX_LAYERS: Final = 3
_INPUT: Final = 64 * 1024
MISSING: Final = "zstd needs the extra: pip install otel-amplitude[otlp]"


class InflateError(ValueError):
    """Compressed bytes that can not or must not be unpacked; the message says why and what to do."""


class _Unpacker(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def unpack(self, data: bytes, most: int) -> bytes: ...

    def waits(self) -> bool:
        """Whether it has given all that its input holds."""
        ...


class _Gzip:
    def __init__(self) -> None:
        self._inner = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def unpack(self, data: bytes, most: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, most)

    def waits(self) -> bool:
        return not self._inner.unconsumed_tail


class _Zstd:
    def __init__(self) -> None:
        self._inner: Any = _zstd().ZstdDecompressor()

    @property
    def eof(self) -> bool:
        return bool(self._inner.eof)

    @property
    def unused_data(self) -> bytes:
        found: bytes = self._inner.unused_data
        return found

    def unpack(self, data: bytes, most: int) -> bytes:
        found: bytes = self._inner.decompress(data, most)
        return found

    def waits(self) -> bool:
        return bool(self._inner.needs_input)


def _zstd() -> Any:
    """Give the module.

    Raises:
        InflateError: the extra is not installed.
    """
    try:
        return importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    except ImportError:
        raise InflateError(MISSING) from None


def kind_of(head: bytes) -> tuple[str, Callable[[], _Unpacker]] | None:
    """Give the name of a compression by the first bytes, and what unpacks it; None for other bytes."""
    if head.startswith(GZIP):
        return "gzip", _Gzip
    # A frame, or a skippable one before it (RFC 8878, 3.1.2).
    if head.startswith(ZSTD) or (head[1:4] == b"\x2a\x4d\x18" and head[:1] in b"PQRSTUVWXYZ[\\]^_"):
        return "zstd", _Zstd
    return None


class Inflating(io.RawIOBase):
    """The content of a compressed stream, member after member.

    Attributes:
        trouble: why the content ends early, in words; empty while it does not.
    """

    def __init__(self, source: IO[bytes], name: str, make: Callable[[], _Unpacker], max_ratio: int = MAX_RATIO) -> None:
        self.trouble = ""
        self._source = source
        self._name = name
        self._make = make
        self._max_ratio = max_ratio
        self._unpacker: _Unpacker | None = None
        self._left = b""
        self._taken = 0
        self._given = 0

    def readable(self) -> bool:
        """As every stream to read from."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as one step gives content; 0 at the end, also at an early one."""
        while not self.trouble:
            try:
                content = self._step(len(buffer))
            except (zlib.error, InflateError, ValueError) as error:
                self.trouble = str(error) if isinstance(error, InflateError) else f"the {self._name} data is damaged ({error})"
                return 0
            except Exception as error:  # zstd has an error class of its own, in a module that may be absent
                self.trouble = f"the {self._name} data is damaged ({error})"
                return 0
            if content is None:
                return 0
            if content:
                buffer[: len(content)] = content
                return len(content)
        return 0

    def _step(self, most: int) -> bytes | None:
        """Give some content, perhaps none; None at the end."""
        unpacker = self._unpacker
        if unpacker is None:
            data = self._left or self._more()
            self._left = b""
            while data and len(data) < len(ZSTD) and (more := self._more()):
                data += more
            if not data.strip(b"\0") or (self._given and kind_of(data) is None):  # padding, as tapes and object stores add
                return None
            self._unpacker = unpacker = self._make()
        else:
            data = self._more() if unpacker.waits() else b""
            if not data and unpacker.waits():
                raise InflateError(f"the {self._name} data ends early; what came before it was read")
        content = unpacker.unpack(data, most)
        self._given += len(content)
        if self._given > FREE_BYTES and self._given > self._max_ratio * self._taken:
            raise InflateError(
                f"the {self._name} data grows more than {self._max_ratio} times, as no telemetry does; if it is to be trusted, unpack it first"
            )
        if unpacker.eof:
            self._left, self._unpacker = unpacker.unused_data, None
        return content

    def _more(self) -> bytes:
        data = self._source.read(_INPUT)
        self._taken += len(data)
        return data


def inflated(source: io.BufferedReader) -> tuple[io.BufferedReader, list[Inflating]]:
    """Give the content of a stream that may be compressed, even twice, and its layers, whose `trouble` is to be asked at the end.

    Raises:
        InflateError: the extra that unpacks it is not installed.
    """
    layers: list[Inflating] = []
    while len(layers) < _MAX_LAYERS and (found := kind_of(source.peek(4)[:4])) is not None:
        name, make = found
        make()
        layers.append(Inflating(source, name, make))
        source = io.BufferedReader(layers[-1], _INPUT)
    return source, layers


def inflate(data: bytes, most: int, max_ratio: int = MAX_RATIO) -> bytes:
    """Give the content of compressed bytes; bytes that are not compressed are given as they are.

    Args:
        data: one message.
        most: bytes of content that are taken.
        max_ratio: how often it may grow once it is above 64 MiB.

    Raises:
        InflateError: it is damaged, too large or needs the extra.
    """
    found = kind_of(data)
    if found is None:
        return data
    layer = Inflating(io.BytesIO(data), *found, max_ratio)
    content = io.BufferedReader(layer, _INPUT).read(most + 1)
    if layer.trouble:
        raise InflateError(layer.trouble)
    if len(content) > most:
        raise InflateError(f"the {found[0]} data holds more than {most:,} bytes")
    return content
