"""The files of a command line: names, wildcards, folders or standard input, as documents one after the other; and what was wrong with them."""

from __future__ import annotations

import glob
import io
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, Final

from otel_amplitude.convert.documents import Document, documents
from otel_amplitude.errors import OtelAmplitudeError

STANDARD_INPUT: Final = "-"
HELP: Final = "OTLP (JSON or protobuf, one document or many, gzip or zstd) or event lines; several files, wildcards and folders work, - is standard input"
_MOST_NAMED: Final = 20
_BUFFER: Final = 256 * 1024
_VARIABLE: Final = re.compile(r"\d[\d,.]*|'[^']*'")


class SourceError(OtelAmplitudeError):
    """A file or address that was named can not be used; the message says what to change."""


class Inputs:
    """Files to read, in their order.

    Attributes:
        names: the files, `-` for standard input.
        read: bytes read so far, before anything is unpacked.
        documents: how many documents were given so far.
    """

    def __init__(self, given: Sequence[str]) -> None:
        """Find the files.

        Args:
            given: names, wildcards and folders; the files of a folder come by name, without those that begin with a dot.

        Raises:
            SourceError: a name stands for no file.
        """
        self.names = list(dict.fromkeys(name for word in given for name in _found(word)))
        self.read = 0
        self.documents = 0

    @property
    def size(self) -> int | None:
        """All bytes of the files; None where one of them has no size, as a pipe."""
        if STANDARD_INPUT in self.names or not all(Path(name).is_file() for name in self.names):
            return None
        return sum(Path(name).stat().st_size for name in self.names)

    def __iter__(self) -> Iterator[Document]:
        """Give the documents; where there are several files, the name of the file is part of each one's place.

        Raises:
            OSError: a file can not be read.
        """
        for name in self.names:
            place = f"{name}: " if len(self.names) > 1 else ""
            with ExitStack() as stack:
                raw: IO[bytes] = sys.stdin.buffer if name == STANDARD_INPUT else stack.enter_context(Path(name).open("rb", buffering=0))
                for document in documents(io.BufferedReader(_Counting(raw, self), _BUFFER)):
                    self.documents += 1
                    yield document._replace(where=place + document.where) if place else document


class _Counting(io.RawIOBase):
    """A file whose bytes are counted."""

    def __init__(self, file: IO[bytes], inputs: Inputs) -> None:
        self._file = file
        self._inputs = inputs

    def readable(self) -> bool:
        """As every file to read from."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read, and count what came."""
        # Of a pipe what is there, without waiting for the buffer to be full.
        data = getattr(self._file, "read1", self._file.read)(len(buffer))
        buffer[: len(data)] = data
        self._inputs.read += len(data)
        return len(data)


def _found(word: str) -> list[str]:
    path = Path(word)
    if word == STANDARD_INPUT or path.is_file():
        return [word]
    if path.is_dir():
        names = sorted(str(inner) for inner in path.iterdir() if inner.is_file() and not inner.name.startswith("."))
        if not names:
            raise SourceError(f"the folder {word} holds no files; name one that does, or a wildcard such as '{word}/**/*.json'")
        return names
    if glob.has_magic(word):
        names = sorted(name for name in glob.iglob(word, recursive=True) if Path(name).is_file())  # noqa: PTH207 -- Path.glob takes no absolute pattern
        if not names:
            raise SourceError(f"no file is named like {word}")
        return names
    path.stat()  # raises what is wrong with it
    return [word]


class Problems:
    """What was wrong with documents: equal problems are one line, with the place of the first and their number.

    Attributes:
        count: how many documents had one.
    """

    def __init__(self) -> None:
        self.count = 0
        self._first: dict[str, list[Any]] = {}

    def note(self, where: str, problems: Sequence[str]) -> None:
        """Note the problems of one document."""
        self.count += bool(problems)
        for problem in problems:
            kind = _VARIABLE.sub("", problem)
            if kind in self._first:
                self._first[kind][1] += 1
            else:
                self._first[kind] = [f"{where}: {problem}", 1]

    def lines(self) -> Iterator[str]:
        """Give them in words, at most twenty, in the order in which they came."""
        found = list(self._first.values())
        for text, count in found[:_MOST_NAMED]:
            yield f"{text} (and {count - 1:,} more like it)" if count > 1 else text
        if len(found) > _MOST_NAMED:
            yield f"… and {sum(count for _, count in found[_MOST_NAMED:]):,} more problems"

    def kept(self) -> dict[str, list[Any]]:
        """Give what `restored` takes."""
        return self._first

    @classmethod
    def restored(cls, count: int, kept: dict[str, list[Any]]) -> Problems:
        """Give problems as they were noted in an earlier run."""
        found = cls()
        found.count, found._first = count, kept
        return found
