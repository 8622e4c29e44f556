"""Routes of every framework, written one way."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_amplitude.convert._routes import normalise


@pytest.mark.parametrize(
    ("template", "route"),
    [
        ("/users/<int:uid>", "/users/{uid}"),  # Flask
        ("/users/<uid>", "/users/{uid}"),
        ("/static/<path:filename>", "/static/{filename}"),
        ("/<string(length=2):lang>/x", "/{lang}/x"),
        ("/<any(about, help):page>", "/{page}"),
        ('/<regex("[a-z]{2}:x"):code>/a', "/{code}/a"),
        ("users/<int:uid>/", "/users/{uid}"),  # Django
        ("users/<slug:name>/<uuid:key>/", "/users/{name}/{key}"),
        (r"^users/(?P<uid>[0-9]+)/$", "/users/{uid}"),
        (r"^api/v1/users/(?P<pk>[^/.]+)\.(?P<format>[a-z0-9]+)/?$", "/api/v1/users/{pk}.{format}"),
        (r"^archive/(?P<year>\d{4}(?:-\d\d)?)/\Z", "/archive/{year}"),
        (r"^a(?=b)/(?#note)c$", "/a/c"),
        (r"^items/\d+$", "/items/{}"),
        ("^$", "/"),
        (r"^articles/(?:page-(?P<page>\d+)/)?$", "/articles/page-{page}"),  # Django: groups that do not capture
        (r"^report\.(?:json|xml)$", "/report.{json|xml}"),
        (r"^(?:en|de)/about/$", "/{en|de}/about"),
        (r"^(?:(?P<pk>\d+)|new)/edit/$", "/{pk|new}/edit"),
        (r"^(?i)users/(?P<uid>\d+)/$", "/users/{uid}"),  # flags
        (r"^(?i:users)/(?-i:A)/$", "/users/A"),
        ("(?x)^users/  (?P<uid> \\d+ ) / $  # one of them", "/users/{uid}"),
        (r"^items/[\w-]+/$", "/items/{}"),
        (r"^items/[^/(]{2,5}/x$", "/items/{}/x"),
        (r"^files/.*$", "/files/{}"),
        (r"^robots.txt$", "/robots.txt"),
        (r"^((?P<lang>en|de)/)?home/$", "/{lang}/home"),
        (r"^(?P<a>\d+)-(?P=a)/(?<!x)(?!y)z$", "/{a}-{a}/z"),
        (r"^old/$|^older/$", "/{old/|older/}"),
        (r"^a(?:|b)/(?:c|c)$", "/ab/c"),
        (r"^v(?:1|2)/(\w+)/(\d{4})$", "/v{1|2}/{1}/{2}"),
        ("^" + "(?:" * 40 + "a" + ")" * 40 + "$", "/{}"),
        ("/users/{uid}", "/users/{uid}"),  # FastAPI
        ("/users/{uid:int}", "/users/{uid}"),  # Starlette
        ("/files/{path:path}", "/files/{path}"),
        (r"/users/{uid:\d{3}}", "/users/{uid}"),  # aiohttp
        ("/{tail:.*}", "/{tail}"),
        ("/users/{uid:int(min=1)}", "/users/{uid}"),  # Falcon
        (r"/users/(\d+)/(\w+)", "/users/{1}/{2}"),  # Tornado
        ("/users/%s", "/users/{}"),
        ("/<uid:int>", "/{uid}"),  # Sanic, Bottle
        ("/x/<name:re:[a-z]+>", "/x/{name}"),
        ("/u/:uid", "/u/{uid}"),  # Express
        ("/f/*rest", "/f/{rest}"),  # Pyramid
        ("/", "/"),
        ("", ""),
        ("  ", ""),
        ("/a//b/", "/a/b"),
        ("/a(b", "/a(b"),
        ("^a(b", "/a{1}"),
        ("/<open", "/<open"),
    ],
)
def test_a_route_is_written_one_way(template: str, route: str) -> None:
    """Leading slash, no trailing one, parameters as bare names in braces."""
    assert normalise(template) == route


@given(st.text(st.sampled_from(r"/<>{}()?P:^$\*.ab1%s"), max_size=40) | st.text(max_size=30))
def test_a_route_is_always_a_path(template: str) -> None:
    """Whatever a framework may write, the route begins with a slash or is not known."""
    route = normalise(template)
    assert route == "" if not template.strip() else route.startswith("/")
    assert route == "/" or not route.endswith("/")


@pytest.mark.parametrize("letter", ["<", "{", "(", "^(", "(?P<a>", "\\", "^(?:", "^(?:a|", "^[", "^(?:[|])|", "^(?:(a|b)|"])
def test_a_hostile_template_costs_little(letter: str) -> None:
    """A template full of brackets that never close takes no quadratic time."""
    start = time.process_time()
    normalise(letter * 2_000)
    assert time.process_time() - start < 0.5
