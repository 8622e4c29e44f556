r"""A route that is a regular expression (Django, Tornado) as a template that a person can read: `^users/(?P<uid>\d+)/$` is `users/{uid}/`.

What matches one text is written as that text, what captures as a parameter:

* A named group is `{name}`, an unnamed one that captures its number, unless named ones stand inside it.
* A group that does not capture, or sets flags, is what stands inside it, an optional one as well: the longest form names the most.
* Alternatives are `{json|xml}`, a class of characters or `.*` outside of a group `{}`.
* Look-arounds, comments, flags, anchors and quantifiers match no text of their own.
"""

from __future__ import annotations

import re
from typing import Final

# Whoever nests deeper writes no route; each level reads its part of the pattern once more.
_MAX_DEPTH: Final = 16
_QUANTIFIER: Final = r"(?:[*+?]|\{\d*,?\d*\})[?+]?"
# What stands before the text of a group that does not capture: `?:`, `?>`, and flags such as `?i:` and `?-i:`.
_PLAIN_GROUP: Final = r"\?(?::|>|[aiLmsux]*(?:-[imsx]+)?:)"
_NAMED_GROUP: Final = r"\?P?<([^=!>][^>]*)>"
_POSITIONS: Final = "ZzAbBG"


def readable(pattern: str) -> str:
    r"""Give a template for a pattern of at most 2,048 characters; linear in its length, and any text will do.

    >>> readable(r"^(?:en|de)/items/(?P<pk>\d+)(?:\.(?P<format>json))?$")
    '{en|de}/items/{pk}.{format}'
    """
    flags = re.match(r"\^?\(\?[a-zA-Z]*x[a-zA-Z]*\)", pattern)
    if flags is not None:  # the verbose form: spaces and comments are layout
        pattern = re.sub(r"(?<!\\)(?:\s+|#[^\n]*)", "", pattern[flags.end() :])
    return _Reader().alternatives(pattern, 0)


class _Reader:
    """Reads one pattern; counts its unnamed groups."""

    def __init__(self) -> None:
        self._unnamed = 0

    def alternatives(self, pattern: str, depth: int) -> str:
        """Give the text of what stands between the bars of a pattern: all of it, in braces, where it differs."""
        written = dict.fromkeys(self._sequence(part, depth) for part in _parts(pattern))
        texts = [text for text in written if text]
        if len(texts) < 2:
            return texts[0] if texts else ""
        return "{" + "|".join(text[1:-1] if text[0] == "{" and text.find("}") == len(text) - 1 else text for text in texts) + "}"

    def _sequence(self, pattern: str, depth: int) -> str:
        written: list[str] = []
        at = 0
        while at < len(pattern):
            text, at, is_atom = self._next(pattern, at, depth)
            written.append(text)
            found = re.compile(_QUANTIFIER).match(pattern, at) if is_atom else None
            if found is not None:
                at = found.end()
                if text == "." and found[0][0] in "*+{":
                    written[-1] = "{}"
        return "".join(written)

    def _next(self, pattern: str, at: int, depth: int) -> tuple[str, int, bool]:
        """Give the text of what stands at `at`, where it ends, and whether a quantifier may follow."""
        letter = pattern[at]
        if letter == "\\":
            escaped = pattern[at + 1 : at + 2]
            return "" if escaped in _POSITIONS else "{}" if escaped.isalpha() else escaped, at + 2, True
        if letter == "(":
            end = _end_of_group(pattern, at)
            return self._group(pattern[at + 1 : end], depth), end + 1, True
        if letter == "[":
            return "{}", _end_of_class(pattern, at), True
        return "" if letter in "^$?*+" else letter, at + 1, letter not in "^$?*+"

    def _group(self, inner: str, depth: int) -> str:
        named = re.match(_NAMED_GROUP, inner)
        if named is not None:
            return "{" + named[1] + "}"
        again = re.match(r"\?P=(\w+)$", inner)
        if again is not None:
            return "{" + again[1] + "}"
        plain = re.match(_PLAIN_GROUP, inner)
        if plain is None and inner.startswith("?"):
            return ""
        if plain is None and re.search(r"\(\?P?<[^=!]", inner) is None:
            self._unnamed += 1
            return "{" + str(self._unnamed) + "}"
        return self.alternatives(inner[plain.end() if plain is not None else 0 :], depth + 1) if depth < _MAX_DEPTH else "{}"


def _parts(pattern: str) -> list[str]:
    """Split a pattern at the bars that stand in no group and no class."""
    if "|" not in pattern:
        return [pattern]
    parts, start, at = [], 0, 0
    while at < len(pattern):
        letter = pattern[at]
        if letter == "\\":
            at += 2
        elif letter == "(":
            at = _end_of_group(pattern, at) + 1
        elif letter == "[":
            at = _end_of_class(pattern, at)
        else:
            if letter == "|":
                parts.append(pattern[start:at])
                start = at + 1
            at += 1
    return [*parts, pattern[start:]]


def _end_of_group(pattern: str, start: int) -> int:
    """Give where the bracket at `start` closes; the last place when it never does."""
    depth, at = 0, start
    while at < len(pattern):
        letter = pattern[at]
        if letter == "\\":
            at += 1
        elif letter == "[":
            at = _end_of_class(pattern, at) - 1
        elif letter == "(":
            depth += 1
        elif letter == ")":
            depth -= 1
            if depth == 0:
                return at
        at += 1
    return len(pattern) - 1 if depth == 1 and pattern[-1] == ")" else len(pattern)


def _end_of_class(pattern: str, start: int) -> int:
    """Give the place behind the class of characters that opens at `start`; a bracket that stands first in it is one of them."""
    at = start + 1
    at += pattern.startswith("^", at)
    at += pattern.startswith("]", at)
    while at < len(pattern):
        if pattern[at] == "]":
            return at + 1
        at += 2 if pattern[at] == "\\" else 1
    return len(pattern)
