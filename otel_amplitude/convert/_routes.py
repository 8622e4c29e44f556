"""A route is written one way, whatever the framework: `/users/{uid}`, so that a move from Flask to FastAPI breaks no chart."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

# Converters of Flask, Django, Bottle and Sanic: they tell `<int:uid>` (type first) from `<uid:int>` (name first).
_CONVERTERS: Final = frozenset(
    {"alpha", "any", "default", "filter", "float", "int", "number", "path", "re", "regex", "slug", "str", "string", "uuid", "ymd"}
)
_CLOSING: Final = {"<": ">", "{": "}", "(": ")"}
_MAX_ROUTE: Final = 2_048


@lru_cache(maxsize=4_096)
def normalise(template: str) -> str:
    r"""Give the template of a route as `/users/{uid}`: a leading slash, no trailing one, parameters as bare names.

    Linear in its length; longer than 2,048 characters is cut. `""` stays `""`: no route is known.

    >>> [normalise(route) for route in ("/users/<int:uid>", "users/<int:uid>/", "/users/{uid:int}", "^users/(?P<uid>[0-9]+)/$")]
    ['/users/{uid}', '/users/{uid}', '/users/{uid}', '/users/{uid}']
    """
    template = template.strip()[:_MAX_ROUTE]
    if not template:
        return ""
    written = _regex(template) if _is_regex(template) else _template(template)
    parts = [_segment(part) for part in written.split("/") if part]
    return "/" + "/".join(parts)


def _is_regex(template: str) -> bool:
    return template[0] == "^" or template.endswith(("$", r"\Z", r"\z")) or "(?" in template or (template[0] != "{" and "/(" in template)


def _segment(segment: str) -> str:
    """Rewrite what marks a parameter by its first letter: `:uid` (Express), `*rest` (Pyramid, aiohttp), `%s` (Tornado)."""
    if segment[0] in ":*" and segment[1:].isidentifier():
        return "{" + segment[1:] + "}"
    return segment.replace("%s", "{}") if "%s" in segment else segment


def _template(template: str) -> str:
    written: list[str] = []
    at = 0
    while at < len(template):
        letter = template[at]
        if letter not in "<{":
            written.append(letter)
            at += 1
            continue
        end = _closing(template, at)
        if end < 0:
            written.append(template[at:])
            break
        inner = template[at + 1 : end]
        written.append("{" + (_angle_name(inner) if letter == "<" else inner.split(":", 1)[0].strip(" *")) + "}")
        at = end + 1
    return "".join(written)


def _angle_name(inner: str) -> str:
    # A converter may have arguments: <string(length=2):lang>; the name never has.
    kind, colon, name = inner.partition(":")
    if "(" in kind:
        kind, colon, name = inner.rpartition(":")
    if not colon or (name.split(":", 1)[0].split("(", 1)[0] in _CONVERTERS and kind.split("(", 1)[0] not in _CONVERTERS):
        return kind.strip() if colon else inner.strip()
    return name.strip()


def _regex(pattern: str) -> str:
    written: list[str] = []
    at = unnamed = 0
    while at < len(pattern):
        letter = pattern[at]
        if letter == "\\":
            # \Z, \z, \A and \b are positions; \d, \w and other classes outside a group stand for something unnamed.
            escaped = pattern[at + 1 : at + 2]
            written.append("" if escaped in "ZzAbB" else "{}" if escaped.isalpha() else escaped)
            at += 2
        elif letter == "(":
            end = _closing(pattern, at)
            end = len(pattern) - 1 if end < 0 else end
            name = _group_name(pattern[at + 1 : end])
            if name == "":
                unnamed += 1
                name = str(unnamed)
            written.append("" if name is None else "{" + name + "}")
            at = end + 1
        else:
            written.append("" if letter in "^$?*+" else letter)
            at += 1
    return "".join(written)


def _group_name(inner: str) -> str | None:
    """Give the name of a group, `""` for one that only captures, None for a look-around or flags."""
    if inner.startswith(("?P<", "?<")) and inner[2:3] not in "=!":
        return inner.partition("<")[2].partition(">")[0]
    if inner.startswith("?") and not inner.startswith("?:"):
        return None
    return ""


def _closing(text: str, start: int) -> int:
    """Give where the bracket at `start` closes, brackets of its own kind inside it and escapes left out; -1 if never."""
    opening, closing = text[start], _CLOSING[text[start]]
    depth, at = 0, start
    while at < len(text):
        letter = text[at]
        if letter == "\\":
            at += 1
        elif letter == opening:
            depth += 1
        elif letter == closing:
            depth -= 1
            if depth == 0:
                return at
        at += 1
    return -1
