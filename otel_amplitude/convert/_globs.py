"""Globs as people write them: `*` is any text, `?` any letter, everything else itself."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable
from typing import Final

# Amplitude cuts texts at half of this, and a regular expression must not see more (ReDoS).
_MAX_TEXT: Final = 2_048


def has_wildcard(text: str) -> bool:
    """Say whether `text` is a glob at all."""
    return "*" in text or "?" in text


def compile_globs(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Give one function that says whether a text matches any of `patterns`; case counts.

    >>> compile_globs(["/api/*", "*.css"])("/api/v1/users")
    True
    """
    # A bracket is a letter here: fnmatch would make it a class.
    texts = [fnmatch.translate(pattern.replace("[", "[[]")) for pattern in patterns]
    if not texts:
        return lambda _text: False
    match = re.compile("|".join(texts)).match
    return lambda text: match(text[:_MAX_TEXT]) is not None
