"""The halves of a route: those of applications that are mounted inside the one whose span the request has.

Theory of operation
===================

An instrumentation knows the routes of one application. Where applications, routers or mounts lie inside each other, the request's span has
the outermost half of the route, such as `/shop`, or none. The other halves come from three places:

* **Inner spans.** OpenTelemetry's instrumentations make an INTERNAL span with the inner route for each application inside. In process the
  request's scope keeps these spans, in a file they are looked for in the same document (`InnerRoutes`).
* **The ASGI scope.** Starlette (from 1.0) and FastAPI leave the route object that they chose in it; the way from the application's routes
  to this object gives the templates of the mounts that have no span (`_routes_found`).

* **The glue** (`instrument(app, mounted_at="/admin")`), where nothing else knows the outer half: a Flask application under a dispatcher.

`join` in `_routes` puts the halves together, and compares each step with the path of the request. Neither the path, nor `root_path`, nor
`SCRIPT_NAME` is ever a source: they hold real values, such as the name of a tenant.

**Raw text.** Some instrumentations write the path itself where their search for a template fails (routing by host names). `without_values`
recognises it, because the values of parameters stand in it, and removes it.
"""

from __future__ import annotations

import sys
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from otel_amplitude.convert._routes import join, normalise, parts_of
from otel_amplitude.convert._tables import METHOD, ROUTE, TORNADO
from otel_amplitude.convert._view import read_path

if TYPE_CHECKING:
    from otel_amplitude.identity import RequestScope

_MAX_ABOVE: Final = 64
_MAX_DEPTH: Final = 8
_MAX_KNOWN: Final = 1_024


def inner_route(span: ReadableSpan) -> str:
    """Give the route of a span that an instrumentation made for an application inside the request; `""` for any other span."""
    attributes = span.attributes or {}
    route = attributes.get(ROUTE)
    return route if isinstance(route, str) and any(name in attributes for name in METHOD) else ""


class InnerRoutes:
    """Finds the inner routes of requests among spans that came together; nothing is kept where no span has one."""

    def __init__(self, spans: Iterable[ReadableSpan], above: Iterable[tuple[int, int, int]] = ()) -> None:
        """Look through these spans, which may be in any order; what is no span is passed over.

        Args:
            spans: at least those of requests and those with a route.
            above: trace id, span id and local parent's span id of further spans, which may lie between them.
        """
        found = [span for span in spans if isinstance(span, ReadableSpan)]
        inner = [span for span in found if span.kind is SpanKind.INTERNAL and span.context is not None and inner_route(span)]
        self._found: dict[tuple[int, int], list[ReadableSpan]] = {}
        if not inner:
            return
        links = {(trace_id, span_id): (trace_id, parent_id) for trace_id, span_id, parent_id in above}
        links |= {_key(span.context): _key(span.parent) for span in found if _has_local_parent(span)}
        requests = {_key(span.context) for span in found if span.kind is SpanKind.SERVER and span.context is not None}
        for span in inner:
            request = _request_above(_key(span.context), links, requests)
            if request is not None:
                self._found.setdefault(request, []).append(span)

    def of(self, span: ReadableSpan) -> list[str]:
        """Give the routes inside the request of `span`, the outermost first."""
        if not self._found or span.context is None:
            return []
        return [inner_route(inner) for inner in sorted(self._found.get(_key(span.context), ()), key=lambda inner: inner.start_time or 0)]


def _key(context: Any) -> tuple[int, int]:
    return context.trace_id, context.span_id


def _has_local_parent(span: ReadableSpan) -> bool:
    return span.context is not None and span.parent is not None and not span.parent.is_remote


def _request_above(
    key: tuple[int, int], links: Mapping[tuple[int, int], tuple[int, int]], requests: Container[tuple[int, int]]
) -> tuple[int, int] | None:
    for _ in range(_MAX_ABOVE):
        above = links.get(key)
        if above is None or above in requests:
            return above
        key = above
    return None


class _Found(NamedTuple):
    """The templates under which a route can be reached from applications; both are kept, so that their ids stay theirs."""

    apps: tuple[object, object]
    route: object
    templates: tuple[str, ...]
    normalised: frozenset[str]


_NONE: Final = _Found((None, None), None, (), frozenset())
# By the ids of outermost application, innermost application and route.
_known: dict[tuple[int, int, int], _Found] = {}


def _routes_found(asgi: Mapping[str, Any], outermost: object) -> _Found:
    """Give the templates of the route in an ASGI scope, of which there are several where it lies in several mounts. Never raises.

    The routers of the outermost application that is known are searched, then those of the innermost; at the first request of a route only.
    """
    apps, route = (outermost, asgi.get("app")), asgi.get("route")
    template = getattr(route, "path", None)
    if not isinstance(template, str) or _children(route) is not None:  # a mount is no end: what it serves has its own routes, or none
        return _NONE
    key = (id(apps[0]), id(apps[1]), id(route))
    found = _known.get(key)
    if found is None:
        ways = (tuple(dict.fromkeys(_guarded_ways(app, route))) for app in apps)
        templates = next(filter(None, ways), (template,))
        found = _Found(apps, route, templates, frozenset(map(normalise, templates)))
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        _known[key] = found
    return found


def _guarded_ways(app: object, route: object) -> list[str]:
    try:
        return [*_ways(getattr(app, "routes", ()), route, "", 0)]
    except Exception:  # a router class of the application's own
        return []


def _children(route: object) -> Any:
    """Give the routes below a mount, a router or a host; None for a route that ends in a view."""
    return None if hasattr(route, "endpoint") else getattr(route, "routes", None)


def _ways(routes: Iterable[Any], wanted: object, prefix: str, depth: int) -> Iterator[str]:
    contexts = getattr(sys.modules.get("fastapi.routing"), "iter_route_contexts", None)
    for route in routes if contexts is None else contexts(routes):
        original = getattr(route, "original_route", route)
        path = str(getattr(route, "path", None) or getattr(original, "path", ""))
        if original is wanted or route is wanted:
            yield prefix + path
        elif depth < _MAX_DEPTH and (children := _children(original)) is not None:
            yield from _ways(children, wanted, prefix + path, depth + 1)


def whole_route(attributes: Mapping[str, Any], inner: Sequence[str] = (), scope: RequestScope | None = None) -> str | None:
    """Give the whole route of a request; None where its span has it already, `""` where it has none but raw text.

    Args:
        attributes: of the request's span.
        inner: the routes of the applications inside, the outermost first.
        scope: of the request; what it knows of the ASGI scope, the place where the glue's application is mounted, and the path.
    """
    written = attributes.get(ROUTE)
    given = written if isinstance(written, str) else ""
    asgi, mounted_at = (None, "") if scope is None else (scope.asgi, scope.mounted_at)
    if given and asgi is None and not inner and not mounted_at and not normalise(given).startswith("/{"):
        return None  # most requests: nothing knows more than their span
    found = _NONE if scope is None or asgi is None else _routes_found(asgi, scope.app)
    normal = normalise(given)
    parameters = None if asgi is None or normal in found.normalised else asgi.get("path_params")
    is_whole = normal in found.normalised if found.templates else bool(given) and not parameters
    if TORNADO in attributes and not given:
        return None  # its route stands in the name of the span
    if is_whole and not inner and not mounted_at and not normal.startswith("/{"):  # which may be a catch-all, and this the home page
        return None
    path = read_path(attributes)
    whole = _whole(without_values(given, path, parameters) if given and parameters else given, inner, found, path, mounted_at)
    if not whole and (_is_root(path) or (scope is not None and scope.at_root)):
        whole = "/"
    return None if whole in (written, normal if is_whole else None) else whole


def _whole(given: str, inner: Sequence[str], found: _Found, path: str, mounted_at: str) -> str:
    if _is_root(path) and not mounted_at:
        return "/"
    # What the routers tell is whole, or lacks what spans know.
    halves = [[template] for template in found.templates] + [[*inner, template] for template in found.templates or ("",)]
    whole = next((route for half in halves if (route := join(given, half, path)) is not None), None)
    if mounted_at:
        whole = _mounted(mounted_at, [route for route in (whole, given, *found.templates) if route], path)
    return normalise(given) if whole is None else whole


def _is_root(path: str) -> bool:
    return bool(path) and not parts_of(path)


def _mounted(mounted_at: str, routes: Sequence[str], path: str) -> str | None:
    """Give a route with the template of the mount before it: as it fits the path, else before the first, since a proxy may cut the path."""
    joined = (join(mounted_at, [route], path) for route in routes)
    whole = next((route for route in joined if route is not None), None)
    if whole is None and routes:
        whole = normalise(f"{mounted_at}/{normalise(routes[0])}")
    return whole


def without_values(route: str, path: str, parameters: Mapping[str, Any]) -> str:
    """Give a route in which no values of the request's parameters stand; `""` where it can not be told which part they are.

    Args:
        route: as an instrumentation wrote it; only one as long as the path is looked at, since a template of a mount is shorter.
        path: of the request.
        parameters: those that the routers found, by name.
    """
    parts = parts_of(normalise(route))
    if len(parts) != len(parts_of(path)):
        return route
    for name, value in parameters.items():
        text = str(value)
        if "{" + name + "}" in parts or not any(text in part for part in parts if "{" not in part):
            continue
        if parts.count(text) != 1:
            return ""
        parts[parts.index(text)] = "{" + name + "}"
    return "/" + "/".join(parts)
