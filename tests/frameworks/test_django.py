"""Django: the user reaches the server span when the view looked, and looking costs nobody a query or a cache."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import django
import pytest
from django.conf import settings
from frameworks.seen import SESSION, Seen
from opentelemetry.instrumentation.django import DjangoInstrumentor

from otel_amplitude.frameworks.django import AmplitudeMiddleware
from otel_amplitude.identity import scope_of, set_user

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "otel_amplitude.frameworks.django.AmplitudeMiddleware",
]


class SimpleUrls:
    """A URL configuration without a module."""

    def __init__(self, urlpatterns: list[Any]) -> None:
        self.urlpatterns = urlpatterns


class ByName(AmplitudeMiddleware):
    """A site whose browser SDK knows user names."""

    def user_id(self, user: Any) -> object:
        """The user's name."""
        return f"name-{user.get_username()}"


@pytest.fixture(scope="module", autouse=True)
def site(tmp_path_factory: pytest.TempPathFactory) -> None:
    """One site for this module: Django allows one per process."""
    if not settings.configured:
        settings.configure(
            SECRET_KEY="secret",
            ALLOWED_HOSTS=["*"],
            DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path_factory.mktemp("db") / "site.sqlite3")}},
            INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
            MIDDLEWARE=[],
            USE_TZ=True,
        )
        django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


@pytest.fixture
def served(seen: Seen) -> Iterator[Seen]:
    """The site, instrumented, with a user of primary key 12345."""
    from django.contrib.auth.models import User
    from django.db import connections
    from django.test import override_settings
    from django.urls import path

    urls = SimpleUrls([path(name, view) for name, view in VIEWS.items()])
    middleware = list(MIDDLEWARE)
    with override_settings(MIDDLEWARE=middleware, ROOT_URLCONF=urls):
        User.objects.all().delete()
        User.objects.create_user("zoe", pk=12345)
        DjangoInstrumentor().instrument(tracer_provider=seen.provider)
        yield seen
        DjangoInstrumentor().uninstrument()
    connections.close_all()


def _answer(text: object = "ok") -> Any:
    from django.http import HttpResponse

    return HttpResponse(str(text))


def _login(request: Any) -> Any:
    from django.contrib.auth import login
    from django.contrib.auth.models import User

    login(request, User.objects.get(pk=12345))
    return _answer()


def _logout(request: Any) -> Any:
    from django.contrib.auth import logout

    logout(request)
    return _answer()


def _explicit(request: Any) -> Any:
    set_user("u-explicit")
    return _answer()


def _token(request: Any) -> Any:
    # what Django REST framework does with a token's user
    request.user = SimpleNamespace(is_authenticated=True, pk=67890)
    return _answer()


async def _async_me(request: Any) -> Any:
    return _answer((await request.auser()).pk)


async def _async_plain(request: Any) -> Any:
    return _answer()


VIEWS: dict[str, Any] = {
    "plain": lambda request: _answer(),
    "me": lambda request: _answer(request.user.pk),
    "session": lambda request: _answer(request.session.get("cart")),
    "login": _login,
    "logout": _logout,
    "explicit": _explicit,
    "token": _token,
    "ame": _async_me,
    "aplain": _async_plain,
}


def users(served: Seen) -> list[str | None]:
    """The users of the server spans since the last call."""
    found = [identity.user_id for identity in served.servers()]
    served.spans.clear()
    return found


def test_the_user_the_view_looked_at(served: Seen, cookie: str) -> None:
    """The server span has the primary key, with the browser's device and session; a later anonymous request has none."""
    from django.test import Client

    client = Client()
    client.get("/login")
    client.cookies.load(cookie)
    client.get("/me")
    assert [identity[:3] for identity in served.servers()][1] == ("12345", "d-browser", SESSION)
    served.spans.clear()
    Client().get("/me")
    assert users(served) == [None]
    assert scope_of() is None


def test_a_view_that_does_not_look_costs_nothing(served: Seen) -> None:
    """No query and no Vary are added, and nobody is told."""
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    client = Client()
    client.get("/login")
    users(served)
    with CaptureQueriesContext(connection) as queries:
        response = client.get("/plain")
    assert (len(queries), "Vary" in response.headers) == (0, False)
    assert users(served) == [None]


def test_a_view_that_read_the_session_tells_without_a_further_query(served: Seen) -> None:
    """The session names its user; loading them is not needed."""
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext, override_settings

    client = Client()
    client.get("/login")
    users(served)
    with CaptureQueriesContext(connection) as queries:
        client.get("/session")
    assert users(served) == ["12345"]
    with override_settings(MIDDLEWARE=MIDDLEWARE[:2]), CaptureQueriesContext(connection) as without:
        plain = Client()
        plain.cookies = client.cookies
        plain.get("/session")
    assert len(queries) == len(without) == 1


def test_logging_out_is_known(served: Seen) -> None:
    """After logout the browser's cookie may still name the user, who no longer acts."""
    from django.test import Client

    from otel_amplitude.identity import make_cookie

    client = Client()
    client.get("/login")
    client.cookies.load(make_cookie("0123456789", "d-browser", "u-browser", SESSION))
    client.get("/logout")
    client.get("/plain")
    assert users(served) == ["12345", None, "u-browser"]


def test_what_the_view_says_itself(served: Seen) -> None:
    """set_user in a view and users set by other authentications are seen."""
    from django.test import Client

    Client().get("/explicit")
    Client().get("/token")
    assert users(served) == ["u-explicit", "67890"]


def test_another_id(served: Seen) -> None:
    """A subclass chooses the id, and the session's primary key is then not used in its place."""
    from django.test import Client, override_settings

    with override_settings(MIDDLEWARE=[settings.MIDDLEWARE[0], *MIDDLEWARE[:2], f"{__name__}.ByName"]):
        client = Client()
        client.get("/login")
        client.get("/me")
        client.get("/session")
    assert users(served) == ["name-zoe", "name-zoe", None]


def test_a_site_without_sessions_and_users(served: Seen) -> None:
    """What is not there is not looked at."""
    from django.test import Client, override_settings

    with override_settings(MIDDLEWARE=[settings.MIDDLEWARE[0], "otel_amplitude.frameworks.django.AmplitudeMiddleware"]):
        assert Client().get("/plain").status_code == 200
    assert users(served) == [None]


def test_an_asynchronous_stack(served: Seen, cookie: str) -> None:
    """Under ASGI the same holds, and requests that interleave stay apart."""
    from django.test import AsyncClient

    async def main() -> list[int]:
        client = AsyncClient()
        await client.get("/login")
        client.cookies.load(cookie)
        responses = await asyncio.gather(client.get("/ame"), AsyncClient().get("/ame"), client.get("/aplain"), client.get("/me"))
        return [response.status_code for response in responses]

    assert asyncio.run(main()) == [200] * 4
    found = [(span.attributes or {}).get("http.route") for span, _ in served.spans]
    by_route = sorted(zip(found, users(served), strict=True), key=str)
    assert by_route == [("ame", "12345"), ("ame", None), ("aplain", None), ("login", "12345"), ("me", "12345")]


def test_without_opentelemetrys_instrumentation(served: Seen, cookie: str) -> None:
    """log_event in a view finds user and browser, and nothing stays on the thread."""
    from django.test import Client, override_settings
    from django.urls import path

    found = []

    def view(request: Any) -> Any:
        found.append(scope_of())
        return _answer(request.user.pk)

    urls = SimpleUrls([path("home", view), *(path(name, other) for name, other in VIEWS.items())])
    with override_settings(MIDDLEWARE=MIDDLEWARE, ROOT_URLCONF=urls):
        client = Client()
        client.get("/login")
        client.cookies.load(cookie)
        client.get("/home")
    [scope] = found
    assert scope is not None
    assert scope.user_id == "12345"
    assert scope_of() is None
    assert users(served) == []
