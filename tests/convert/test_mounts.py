"""The halves of routes: joined where they fit the path of the request, and never with raw text in them."""

from __future__ import annotations

from typing import Any

import fastapi
import pytest
from convert.recorded import span
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router
from starlette.testclient import TestClient

from otel_amplitude.convert._routes import join
from otel_amplitude.convert.mounts import InnerRoutes, whole_route, without_values
from otel_amplitude.identity import RequestScope
from otel_amplitude.identity._anchor import ASGI, anchor


@pytest.mark.parametrize(
    ("outer", "inner", "path", "whole"),
    [
        ("/v2", ["/users/{uid}"], "/v2/users/7", "/v2/users/{uid}"),
        ("/v2", ["/users/{uid:int}"], "/v2/users/7/", "/v2/users/{uid}"),
        ("/v2", ["/v2/x"], "/v2/x", "/v2/x"),
        ("/v2", ["/v2/x"], "/v2/v2/x", "/v2/v2/x"),
        ("/a", ["/mid", "/users/{uid}"], "/a/mid/users/7", "/a/mid/users/{uid}"),
        ("/t/{tenant}", ["/users/{uid}"], "/t/acme/users/7", "/t/{tenant}/users/{uid}"),
        ("", ["/users/{uid}"], "/users/7", "/users/{uid}"),
        ("", ["/"], "/", "/"),
        ("/v2", ["/"], "/v2/", "/v2"),
        ("/legacy", ["polls/<int:pk>/"], "/legacy/polls/3/", "/legacy/polls/{pk}"),
        ("/legacy", [r"^polls/(?P<pk>\d+)/$"], "/legacy/polls/3/", "/legacy/polls/{pk}"),
        ("/files", ["/{rest:path}"], "/files/a/b/c", "/files/{rest}"),
        ("/files", ["/{rest:path}"], "/files/", "/files/{rest}"),
        ("/files", ["/{name}.{kind}"], "/files/tea.png", "/files/{name}.{kind}"),
        # under a prefix of a proxy, which is no part of the route
        ("/v2", ["/users/{uid}"], "/api/acme/v2/users/7", "/v2/users/{uid}"),
        # does not fit
        ("/a", ["/users/{uid}"], "/a/b/users/7", None),
        ("/v2", ["/x"], "/v2/y", None),
        ("/{tenant}", ["/x/{y}"], "/p/acme/x/3", None),
        ("/v2", ["/users/{uid}"], "", None),
        ("/v2", ["/users/{uid}"], "/x" * 65, None),
        ("/v2", [], "/v2/users/7", None),
        ("/v2", [""], "/v2/users/7", None),
    ],
)
def test_halves_are_joined_where_they_fit_the_path(outer: str, inner: list[str], path: str, whole: str | None) -> None:
    """Each step the beginning of the path, the last one all of it."""
    assert join(outer, inner, path) == whole


names = st.sampled_from(["users", "v1", "orders", "{uid}", "{tenant}", "{a}-{b}"])
templates = st.lists(names, max_size=3).map(lambda parts: "/" + "/".join(parts))
values = st.sampled_from(["ann", "users", "v1", "7", "a-b", "ann@example.org"])


@given(templates, st.lists(templates, max_size=3), st.lists(values, max_size=6))
def test_a_joined_route_consists_of_its_halves(outer: str, inner: list[str], parts: list[str]) -> None:
    """No part of a path ever gets into a route, whatever the client sends."""
    whole = join(outer, inner, "/" + "/".join(parts))
    if whole is not None:
        assert set(whole.split("/")) <= {*outer.split("/"), *(part for half in inner for part in half.split("/")), ""}


@given(templates, st.lists(templates, min_size=1, max_size=3), st.data())
def test_halves_that_a_path_was_made_of_are_joined(outer: str, inner: list[str], data: st.DataObject) -> None:
    """What a router matched fits its own template."""
    parts = [part for template in (outer, *inner) for part in template.split("/") if part]
    filled = [data.draw(st.sampled_from(["ann", "7"])) if part in ("{uid}", "{tenant}") else part for part in parts]
    path = "/" + "/".join("x-y" if part == "{a}-{b}" else part for part in filled)
    whole = join(outer, inner, path)
    assert whole is not None
    assert len(whole.split("/")) <= len(parts) + 1 or whole == "/"


@pytest.mark.parametrize(
    ("route", "path", "parameters", "safe"),
    [
        ("/people/ann@example.org", "/people/ann@example.org", {"mail": "ann@example.org"}, "/people/{mail}"),
        ("/t/acme/users/{uid}", "/t/acme/users/7", {"tenant": "acme", "uid": 7}, "/t/{tenant}/users/{uid}"),
        ("/t/acme/users/{uid:int}", "/t/acme/users/7", {"tenant": "acme", "uid": 7}, "/t/{tenant}/users/{uid}"),
        ("/acme/acme", "/acme/acme", {"tenant": "acme"}, ""),
        ("/x/acme-shop", "/x/acme-shop", {"tenant": "acme"}, ""),
        ("/fixed", "/fixed", {"sub": "www"}, "/fixed"),
        ("/v2", "/v2/users/v2", {"uid": "v2"}, "/v2"),
        ("/users/{uid}", "/users/7", {"uid": 7}, "/users/{uid}"),
    ],
)
def test_values_of_parameters_leave_a_route(route: str, path: str, parameters: dict[str, object], safe: str) -> None:
    """Each is replaced by its name; where it can not be told which part it is, the route goes."""
    assert without_values(route, path, parameters) == safe


# --- the routes that Starlette and FastAPI found -----------------------------------------------------------------------------


def answer(_: Any) -> PlainTextResponse:
    return PlainTextResponse("ok")


def known(asgi: dict[str, Any]) -> RequestScope:
    """The scope of a request that has this ASGI scope."""
    scope = RequestScope()
    anchor(asgi, ASGI, scope)
    return scope


def asked(app: Any, path: str, host: str = "testserver") -> RequestScope:
    """The scope of a request after the application has answered it."""
    scopes: list[dict[str, Any]] = []

    async def outermost(scope: dict[str, Any], receive: Any, send: Any) -> None:
        scopes.append(scope)
        await app(scope, receive, send)

    assert TestClient(outermost, base_url=f"http://{host}").get(path).status_code == 200
    return known(scopes[-1])


PAGES = [Route("/users/{uid:int}", answer), Route("/", answer)]
SITE = Starlette(
    routes=[
        Mount("/v2", routes=PAGES),
        Mount("/t/{tenant}", routes=PAGES),
        Mount("/a", routes=[Mount("/b/{x}", routes=[Route("/users/{uid}", answer), Route("/orders", answer)])]),
        Host("{sub}.shop.example", Router([Route("/people/{mail}", answer), Route("/fixed", answer)])),
        Mount("", routes=PAGES),
    ]
)


@pytest.mark.parametrize(
    ("given_route", "path", "whole"),
    [
        ("/v2", "/v2/users/7", "/v2/users/{uid}"),
        ("/v2", "/v2/", "/v2"),
        ("/t/{tenant}", "/t/acme/users/7", "/t/{tenant}/users/{uid}"),
        ("/t/acme/users/{uid:int}", "/t/acme/users/7", "/t/{tenant}/users/{uid}"),
        ("/a", "/a/b/7/users/7", "/a/b/{x}/users/{uid}"),
        ("/a", "/a/b/orders/orders", "/a/b/{x}/orders"),
        (None, "/users/7", "/users/{uid}"),
        (None, "/", "/"),
    ],
)
def test_mounts_of_starlette_have_their_whole_route(given_route: str | None, path: str, whole: str) -> None:
    """apitally/apitally-py#79: contrib finds the mount, and Starlette tells which route it chose inside; one route may be in many mounts."""
    scope = asked(SITE, path)
    attributes = {"url.path": path} | ({} if given_route is None else {"http.route": given_route})
    assert (whole_route(attributes, (), scope) or given_route) == whole


@pytest.mark.parametrize(("path", "whole"), [("/people/ann@example.org", "/people/{mail}"), ("/fixed", "/fixed")])
def test_a_raw_path_is_no_route(path: str, whole: str) -> None:
    """Routing by host names: contrib falls back on the path, address of a person included."""
    scope = asked(SITE, path, "www.shop.example")
    attributes = {"url.path": path, "http.route": path}
    assert (whole_route(attributes, (), scope) or path) == whole


def test_a_raw_path_without_a_template_is_refused() -> None:
    """A router of the application's own, which tells only what it found in the path."""
    scope = {"type": "http", "path_params": {"mail": "ann@example.org"}, "app": object(), "path": "/mailto:ann@example.org"}
    attributes = {"url.path": "/mailto:ann@example.org", "http.route": "/mailto:ann@example.org"}
    assert whole_route(attributes, (), known(scope)) == ""


def test_included_routers_of_fastapi_have_their_prefix() -> None:
    """fastapi/fastapi#15232 and its kind: the route object in the scope knows nothing of the prefixes it was included with."""
    router, inner, app = fastapi.APIRouter(prefix="/r"), fastapi.FastAPI(), fastapi.FastAPI()
    router.get("/{x}")(lambda x: x)
    inner.include_router(router, prefix="/v1")
    app.include_router(router, prefix="/v1")
    app.mount("/in", inner)
    assert whole_route({"url.path": "/v1/r/3", "http.route": "/v1/r/{x}"}, (), asked(app, "/v1/r/3")) is None
    assert whole_route({"url.path": "/in/v1/r/3", "http.route": "/in"}, (), asked(app, "/in/v1/r/3")) == "/in/v1/r/{x}"


def test_files_of_a_mount_keep_its_route() -> None:
    """A mount that ends in another application has no route inside that could be told."""

    async def files(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("ok")(scope, receive, send)

    scope = asked(Starlette(routes=[Mount("/files", app=files)]), "/files/ann.png")
    assert whole_route({"url.path": "/files/ann.png", "http.route": "/files"}, (), scope) is None


def test_a_route_that_is_whole_costs_no_comparison() -> None:
    """As for nearly all requests."""
    assert whole_route({"http.route": "/users/{uid}"}) is None
    assert whole_route({"tornado.handler": "Users", "http.target": "/"}) is None


def test_a_home_page_is_its_own_route_also_where_a_catch_all_serves_it() -> None:
    """A single-page application has one page for all paths; its home is the one that everybody calls so."""
    assert whole_route({"http.route": "/{path:path}", "url.path": "/"}) == "/"
    assert whole_route({"http.route": "/{path:path}", "url.path": "/about"}) is None
    assert whole_route({"http.route": "/{lang}/about", "url.path": "/en/about"}) is None


# --- spans that came together ------------------------------------------------------------------------------------------------


def test_inner_routes_are_found_among_spans_in_any_order() -> None:
    """contrib's ASGI middleware ends the outer span first; spans of user code may lie between."""
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext, SpanKind

    def made(number: int, parent: int | None, route: str | None, kind: SpanKind = SpanKind.INTERNAL, trace: int = 1) -> ReadableSpan:
        attributes = {"http.method": "GET"} | ({} if route is None else {"http.route": route})
        above = None if parent is None else SpanContext(trace, parent, is_remote=False)
        return ReadableSpan(
            "x", context=SpanContext(trace, number, is_remote=False), parent=above, attributes=attributes, kind=kind, start_time=number
        )

    request, other = made(1, None, "/a", SpanKind.SERVER), made(1, None, "/a", SpanKind.SERVER, trace=2)
    spans = [
        request,
        made(4, 3, "/users/{uid}"),
        made(3, 2, None),
        made(2, 1, "/mid"),
        other,
        made(9, 8, "/lost"),
        span({"http.route": "/x"}),
    ]
    inner = InnerRoutes(spans)
    assert inner.of(request) == ["/mid", "/users/{uid}"]
    assert inner.of(other) == []
    assert InnerRoutes([request]).of(request) == []
