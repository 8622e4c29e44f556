"""A route is written one way, whatever the framework: `/users/{uid}`, so that a move from Flask to FastAPI breaks no chart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from otel_amplitude.convert._patterns import readable

# Converters of Flask, Django, Bottle and Sanic: they tell `<int:uid>` (type first) from `<uid:int>` (name first).
_CONVERTERS: Final = frozenset(
    {"alpha", "any", "default", "filter", "float", "int", "number", "path", "re", "regex", "slug", "str", "string", "uuid", "ymd"}
)
_CLOSING: Final = {"<": ">", "{": "}"}
_MAX_ROUTE: Final = 2_048
# A parameter that may hold slashes: `{name:path}`, `<path:name>`, `{tail:.*}`, `*rest`, `(?P<rest>.+)`.
_OPEN: Final = re.compile(r":path\b|<path:|\.[*+]|(?:^|/)\*")
_MAX_SEGMENTS: Final = 64
_MAX_HALVES: Final = 8


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
    written = readable(template) if _is_regex(template) else _template(template)
    parts = [_segment(part) for part in written.split("/") if part]
    return "/" + "/".join(parts)


class _Template(NamedTuple):
    """A normalised template in parts.

    Attributes:
        segments: what stands between its slashes.
        is_open: its last parameter may hold slashes.
    """

    segments: tuple[str, ...]
    is_open: bool

    def then(self, other: _Template) -> _Template:
        return _Template(self.segments + other.segments, other.is_open)


def join(outer: str, inner: Iterable[str], path: str) -> str | None:
    """Give the whole route of a request whose application is mounted in another one; None where the halves do not fit its path.

    Each half of `inner` is tried as it is, if it begins with what is joined already (some frameworks write whole routes), then
    appended; each step must fit the beginning of the path and the last one all of it. Where a proxy or a server puts the application
    under a prefix of its own, the halves fit the end of the path instead; that prefix is no part of the route, since it may be
    anybody's name. The path itself is only compared with: no part of it gets into a route.

    >>> join("/shop", ["/items/{id}"], "/shop/items/7"), join("/v2", ["/x"], "/v2/y")
    ('/shop/items/{id}', None)

    Args:
        outer: the route of the request's own span, as its instrumentation wrote it; `""` when it has none.
        inner: those of the applications inside, the outermost first.
        path: the request's, without query.
    """
    halves = [_template_of(half) for half in inner if half][:_MAX_HALVES]
    parts = parts_of(path[:_MAX_ROUTE])
    if not halves or not path or len(parts) > _MAX_SEGMENTS:
        return None
    begin = _template_of(outer)
    for skipped in range(max(1, len(parts))) if _is_literal(begin.segments or halves[0].segments) else (0,):
        if (whole := _joined(begin, halves, parts[skipped:])) is not None:
            return "/" + "/".join(whole.segments)
    return None


def parts_of(path: str) -> list[str]:
    """Give what stands between the slashes of a path or a route."""
    return [part for part in path.split("/") if part]


def _joined(whole: _Template, halves: Sequence[_Template], parts: Sequence[str]) -> _Template | None:
    if not halves:
        return whole if _fits(whole, parts, whole=True) else None
    half, *others = halves
    candidates = [half] if half.segments[: len(whole.segments)] == whole.segments else []
    candidates.append(whole.then(half))
    if half.segments and half.segments == whole.segments[-len(half.segments) :]:
        candidates.append(whole)  # it says the same again
    fitting = (candidate for candidate in candidates if _fits(candidate, parts, whole=False))
    return next((found for candidate in fitting if (found := _joined(candidate, others, parts)) is not None), None)


def _fits(template: _Template, parts: Sequence[str], *, whole: bool) -> bool:
    """Say whether a template fits the beginning of a path, or all of it. Linear in its length, whatever the client sent."""
    segments = template.segments
    if len(segments) > len(parts) and not (template.is_open and len(segments) == len(parts) + 1):
        return False
    if not all(map(_segment_fits, segments, parts)):
        return False
    return not whole or template.is_open or len(segments) == len(parts)


def _segment_fits(segment: str, part: str) -> bool:
    begin, mark, _ = segment.partition("{")
    if not mark:
        return segment == part
    end = segment.rpartition("}")[2]
    return len(part) >= len(begin) + len(end) and part.startswith(begin) and part.endswith(end)


@lru_cache(maxsize=1_024)
def _template_of(route: str) -> _Template:
    segments = tuple(parts_of(normalise(route)))
    return _Template(segments, bool(segments) and "{" in segments[-1] and _OPEN.search(route) is not None)


def _is_literal(segments: Sequence[str]) -> bool:
    return bool(segments) and "{" not in segments[0]


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
