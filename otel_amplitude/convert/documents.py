r"""The documents in a file, whatever wraps them: the step before OTLP.

What is taken apart here, outermost first:

* gzip and zstd, several members one after the other, up to three layers;
* byte order marks, UTF-16 and UTF-32 (as PowerShell's `>` writes);
* text: JSON documents, one a line, over many lines, one right after the other, with text of a log before them on the line;
* binary: one message of protobuf, or messages with their length before each (4 bytes, big-endian), as the Collector's file exporter
  writes protobuf and everything compressed; a message may again be compressed, and may be protobuf or JSON.

A document of JSON ends where its brackets close, so lines are only a help: a line that is a document by itself is one. When a line begins
with a bracket where the JSON before it allows none, the document before it was cut off: its first line is reported, and reading goes on.
Nothing is held but the document at hand, at most `MAX_DOCUMENT` bytes.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterator
from typing import IO, Any, Final, NamedTuple

import orjson

from otel_amplitude.convert.inflate import InflateError, Inflating, inflate, inflated, kind_of
from otel_amplitude.convert.looks import NOT_OTLP, looks_binary, looks_text

MAX_DOCUMENT: Final = 128 * 2**20
"""The bytes of one JSON text or protobuf message; JSON takes about five times as many in memory."""
_HEAD: Final = 4_096
_BUFFER: Final = 256 * 1024
_MAX_RETRIES: Final = 100
_NOT_JSON: Final = "is not JSON"
_CUT: Final = "is JSON that is cut off or broken"
_DEPTH: Final = re.compile("depth limit|ecursion")  # orjson's limit is a thousand levels; its versions word it differently
_TOO_DEEP: Final = "is nested too deeply"
_TOO_LARGE: Final = f"is larger than {MAX_DOCUMENT // 2**20} MiB; write one request, or one resource, a line (jq -c '.resourceSpans[]')"

_BOM: Final = b"\xef\xbb\xbf"
# UTF-32 first: its mark begins with that of UTF-16.
_ENCODINGS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Without a mark: the first letter of JSON is ASCII (RFC 4627, 3).
_MARKLESS: Final = ((re.compile(rb"[\[{]\0[^\0]\0"), "utf-16-le"), (re.compile(rb"\0[\[{]\0[^\0]"), "utf-16-be"))
_SPACE: Final = b" \t\r\n\f\x1e,"  # with the record separator of JSON text sequences (RFC 7464), and a comma between documents
_NOT_TEXT: Final = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c\x1d\x1f\x7f]")
_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}"]', re.DOTALL)
_BRACKETS: Final = (b"{", b"[")
_BEGIN: Final = re.compile(rb'\{\s*(?:["}]|$)|\[\s*(?:[\[{"\]\d-]|true|false|null|$)')
_AFTER_LOG: Final = re.compile(rb'\{"(?:resource|scope)[A-Z"_]')


class Document(NamedTuple):
    """One document of a file.

    Attributes:
        where: its place in words: `line 3`, `message 2`.
        size: its bytes.
        is_json: whether it is JSON; protobuf otherwise.
        data: parsed JSON.
        raw: the text of the JSON, or the message of protobuf.
        problem: why there is nothing to read, in words; empty where there is.
    """

    where: str
    size: int = 0
    is_json: bool = False
    data: Any = None
    raw: bytes = b""
    problem: str = ""


def documents(source: io.BufferedReader) -> Iterator[Document]:
    """Give the documents of a file one by one; what is none is a document with a `problem`.

    Args:
        source: to read from, at its beginning.

    Raises:
        OSError: it can not be read.
    """
    layers: list[Inflating] = []
    try:
        source, layers = inflated(source)
        yield from _contents(source)
    except InflateError as error:
        yield Document("the file", problem=str(error))
    for layer in layers:
        if layer.trouble:
            yield Document("the end of the file", problem=layer.trouble)


def _contents(source: io.BufferedReader) -> Iterator[Document]:
    head = source.peek(_HEAD)[:_HEAD]
    encoding = _encoding(head)
    if encoding:
        source = io.BufferedReader(_Recoded(source, encoding), _BUFFER)
        head = source.peek(_HEAD)[:_HEAD]
    if looks := looks_binary(head):
        yield Document("the file", problem=looks)
    elif not _NOT_TEXT.search(head[:1_024]):
        yield from json_documents(source)
    elif _begins_protobuf(head):
        message = source.read(MAX_DOCUMENT + 1)
        large = len(message) > MAX_DOCUMENT
        yield Document("the file", problem=_TOO_LARGE) if large else Document("the file", len(message), raw=message)
    elif _is_framed(head):
        yield from _frames(source)
    else:
        yield Document("the file", problem=NOT_OTLP)


def _encoding(head: bytes) -> str:
    marked = next((encoding for mark, encoding in _ENCODINGS if head.startswith(mark)), "")
    return marked or next((encoding for pattern, encoding in _MARKLESS if pattern.match(head)), "")


class _Recoded(io.RawIOBase):
    """A text in another encoding, as UTF-8."""

    def __init__(self, source: IO[bytes], encoding: str) -> None:
        self._source = source
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._left = b""

    def readable(self) -> bool:
        """As every stream to read from."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with what comes next."""
        while not self._left:
            data = self._source.read(_BUFFER)
            self._left = self._decoder.decode(data, final=not data).encode("utf-8", "replace")
            if not data:
                break
        part, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


# binary


def _begins_protobuf(head: bytes) -> bool:
    """Say whether bytes can be a request: all of its fields have the number 1 and a length."""
    return head[:1] == b"\x0a" and len(head) > 1


def _is_framed(head: bytes) -> bool:
    while head.startswith(bytes(4)):  # an empty request is a message of no bytes
        head = head[4:]
    inner = head[4:]
    fits = 0 < int.from_bytes(head[:4], "big") <= MAX_DOCUMENT
    return fits and (inner[:1] in (b"\x0a", *_BRACKETS) or kind_of(inner) is not None)


def _frames(source: io.BufferedReader) -> Iterator[Document]:
    number = 0
    while prefix := source.read(4):
        number += 1
        where = f"message {number}"
        length = int.from_bytes(prefix, "big")
        if len(prefix) < 4 or length > MAX_DOCUMENT:
            yield Document(where, problem="has no length in front that can be right; what comes after it is not read")
            return
        message = source.read(length)
        if len(message) < length:
            yield Document(where, problem="is cut off: the file ends before it does")
            return
        try:
            message = inflate(message, MAX_DOCUMENT)
        except InflateError as error:
            yield Document(where, problem=str(error))
            continue
        if message[:1] in (b"{", b"["):
            yield _whole(message, where) or Document(where, problem=_CUT)
        else:
            yield Document(where, length, raw=message)


# JSON


def parse(text: bytes) -> Any:
    """Give the value of a JSON text.

    What orjson refuses, the standard library may read: half of a surrogate pair, as JavaScript writes where it cut a text, NaN, and bytes
    that are no UTF-8 (kept as surrogates, so that different ids stay different).

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return orjson.loads(text)
    except ValueError:
        if b"\\u" not in text and b"NaN" not in text and b"Infinity" not in text and text.isascii():
            raise
    try:
        return json.loads(text.decode("utf-8", "surrogateescape"))
    except RecursionError as error:
        raise ValueError(str(error)) from None


def _whole(text: bytes, where: str) -> Document | None:
    try:
        return Document(where, len(text), is_json=True, data=parse(text), raw=text)
    except ValueError as error:
        return Document(where, problem=_TOO_DEEP) if _DEPTH.search(str(error)) else None


class _Open:
    """A document that goes on on the next line.

    Attributes:
        begin: the number of its first line.
        lines: those taken so far.
        is_large: whether it is above the bound; its lines are then no longer kept.
    """

    def __init__(self, begin: int) -> None:
        self.begin = begin
        self.lines: list[bytes] = []
        self.is_large = False
        self._size = 0
        self._depth = 0
        self._last = b"["  # so that the document may begin

    def feed(self, line: bytes) -> int | None:
        """Take a line; give the offset at which the document ends on it, None when it goes on.

        Raises:
            ValueError: the line can not be its next one.
        """
        text = line.strip()
        if text[:1] in _BRACKETS and self._last not in (b"[", b",", b":"):
            raise ValueError("another document begins")
        bare = _STRING.sub(b"", line)
        if b'"' in bare:
            raise ValueError("a text is not closed on its line")
        closing = bare.count(b"}") + bare.count(b"]")
        if closing < self._depth:
            self._depth += bare.count(b"{") + bare.count(b"[") - closing
        else:
            for token in _TOKEN.finditer(line):
                self._depth += (token[0] in b"{[") - (token[0] in b"}]")
                if self._depth == 0 and token[0] in b"}]":
                    return token.end()
        self._size += len(line)
        self._last = text[-1:] or self._last
        if self._size <= MAX_DOCUMENT:
            self.lines.append(line)
        elif not self.is_large:
            self.is_large = True
            self.lines.clear()
        return None


class _Splitter:
    """Takes lines, any of which may be no JSON, and gives the documents that end on them."""

    def __init__(self, looks: str) -> None:
        self._looks = looks
        self._open: _Open | None = None
        self._retries = 0

    def line(self, number: int, line: bytes, *, retried: bool = False) -> Iterator[Document]:
        """Take the next line; one that was `retried` belongs to a document that is reported already, so that it is not reported again."""
        while line:
            if self._open is None:
                line = line.removeprefix(_BOM).lstrip(_SPACE)
                document = _whole(line.rstrip(_SPACE), f"line {number}") if line else None
                if document is not None or not line:
                    yield from () if document is None else (document,)
                    return
                if not _BEGIN.match(line):
                    line, problem = self._after_log(number, line)
                    yield from () if retried else problem
                    continue
                self._open = _Open(number)
            opened, end = self._open, 0
            try:
                end = opened.feed(line) or 0
                if not end:
                    return
                yield self._ended(opened, line[:end])
                line = line[end:]
            except ValueError:
                self._open = None
                if opened.begin == number:
                    line, problem = self._after_log(number, line)
                    yield from () if retried else problem
                else:
                    yield from self._retry(opened)
                    line = line[end:]

    def _ended(self, opened: _Open, last: bytes) -> Document:
        """Give the document that ends here.

        Raises:
            ValueError: it is no JSON.
        """
        where = f"line {opened.begin}"
        if opened.is_large:
            self._open = None
            return Document(where, problem=_TOO_LARGE)
        text = b"".join([*opened.lines, last])
        document = Document(where, len(text), is_json=True, data=parse(text), raw=text)
        self._retries, self._open = 0, None
        return document

    def _after_log(self, number: int, line: bytes) -> tuple[bytes, tuple[Document, ...]]:
        """Give the JSON behind the text that a logger wrote before it on the line; else a problem."""
        found = _AFTER_LOG.search(line, 1)
        if found is not None:
            return line[found.start() :], ()
        return b"", (Document(f"line {number}", problem=self._looks or (_CUT if _BEGIN.match(line) else _NOT_JSON)),)

    def _retry(self, opened: _Open) -> Iterator[Document]:
        """Report a document that is cut off; lines in it that begin like a document at the margin may be some themselves."""
        yield Document(f"line {opened.begin}", problem=_TOO_LARGE if opened.is_large else self._looks or _CUT)
        self._retries += 1
        if self._retries <= _MAX_RETRIES:
            for number, line in enumerate(opened.lines[1:], start=opened.begin + 1):
                if self._open is not None or line[:1] in _BRACKETS:
                    yield from self.line(number, line, retried=True)

    def end(self) -> Iterator[Document]:
        """Give what is left at the end of the text."""
        while (opened := self._open) is not None:
            self._open = None
            yield from self._retry(opened)


def json_documents(source: io.BufferedReader) -> Iterator[Document]:
    """Give the JSON documents of a text, in which any line may be none."""
    splitter = _Splitter(looks_text(source.peek(_HEAD)[:_HEAD].removeprefix(_BOM)))
    number = 0
    while line := source.readline(MAX_DOCUMENT + 1):
        number += 1
        if len(line) > MAX_DOCUMENT:
            yield Document(f"line {number}", problem=_TOO_LARGE)
            while line and not line.endswith(b"\n"):
                line = source.readline(_BUFFER)
            continue
        yield from splitter.line(number, line)
    yield from splitter.end()
