"""Flask: the user of the view reaches the server span, by one call or by none, and never the next request."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from typing import Any

import flask
import flask_login
import pytest
from frameworks.seen import KEY, SESSION, Seen
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from werkzeug.serving import make_server

from otel_amplitude.frameworks.flask import instrument
from otel_amplitude.identity import make_cookie, scope_of, set_user


@pytest.fixture
def app(seen: Seen) -> Iterator[flask.Flask]:
    """An instrumented application that takes the user from the query."""
    app = flask.Flask("shop")
    app.secret_key = "secret"
    FlaskInstrumentor().instrument_app(app, tracer_provider=seen.provider)

    @app.get("/orders")
    def orders() -> str:
        user = flask.request.args.get("user")
        with seen.tracer.start_as_current_span("before"):
            pass
        if user:
            set_user(user)
        with seen.tracer.start_as_current_span("after"):
            pass
        return "ok"

    @app.get("/fails")
    def fails() -> str:
        set_user("u-12345")
        raise ValueError

    yield app
    FlaskInstrumentor().uninstrument_app(app)


def test_set_user_in_the_view_needs_nothing_else(app: flask.Flask, seen: Seen, cookie: str) -> None:
    """The server span and later children have the user, all have the browser's device and session, and no span shows it."""
    app.test_client(use_cookies=False).get("/orders?user=u-12345", headers={"Cookie": cookie})
    assert [identity[:3] for _, identity in seen.spans] == [
        (None, "d-browser", SESSION),
        ("u-12345", "d-browser", SESSION),
        ("u-12345", "d-browser", SESSION),
    ]
    assert "d-browser" not in seen.texts()
    assert "AMP_" not in seen.texts()


def test_requests_on_one_thread_stay_apart(app: flask.Flask, seen: Seen) -> None:
    """The second request knows nothing of the first."""
    client = app.test_client(use_cookies=False)
    client.get("/orders?user=u-12345")
    client.get("/orders")
    assert seen.users("GET /orders") == ["u-12345", None]
    assert scope_of() is None


@pytest.mark.usefixtures("no_propagator")
def test_without_the_propagator_the_server_span_still_has_the_user(app: flask.Flask, seen: Seen) -> None:
    """set_user finds the span, and the next request does not find the user."""
    client = app.test_client(use_cookies=False)
    client.get("/orders?user=u-12345")
    client.get("/orders")
    assert seen.users("GET /orders") == ["u-12345", None]


def test_a_callable_says_who_it_is(app: flask.Flask, seen: Seen, cookie: str) -> None:
    """It is asked after the view; None is a known absence, and an exception is no answer."""
    answers: list[Any] = [12345, None]
    instrument(app, user=lambda: answers.pop(0))
    client = app.test_client(use_cookies=False)
    for _ in range(3):
        assert client.get("/orders", headers={"Cookie": cookie}).status_code == 200
    assert seen.users("GET /orders") == ["12345", None, None]


def test_a_failed_view_still_has_its_user(app: flask.Flask, seen: Seen) -> None:
    """Flask answers 500 and asks all the same."""
    instrument(app, user=lambda: "u-67890")
    assert app.test_client(use_cookies=False).get("/fails").status_code == 500
    assert [identity.user_id for identity in seen.servers()] == ["u-67890"]


def test_a_view_that_does_not_look_at_the_session_varies_by_no_cookie(app: flask.Flask, seen: Seen) -> None:
    """Asking for a user that nobody loaded leaves the session alone."""
    instrument(app)
    assert "Vary" not in app.test_client().get("/orders").headers
    assert seen.users("GET /orders") == [None]


class User(flask_login.UserMixin):
    def __init__(self, user_id: str) -> None:
        self.id = user_id


def test_flask_login_is_asked_only_where_the_view_asked(app: flask.Flask, seen: Seen) -> None:
    """A view that does not look at the user costs no load."""
    loaded: list[str] = []
    manager = flask_login.LoginManager(app)
    instrument(app)

    @manager.user_loader
    def load(user_id: str) -> User:
        loaded.append(user_id)
        return User(user_id)

    @app.get("/login")
    def login() -> str:
        flask_login.login_user(User("u-12345"))
        return "ok"

    @app.get("/logout")
    def logout() -> str:
        flask_login.logout_user()
        return "ok"

    @app.get("/me")
    def me() -> str:
        return str(flask_login.current_user.is_authenticated)

    client = app.test_client()
    assert client.get("/me").text == "False"
    client.get("/login")
    assert client.get("/me").text == "True"
    loaded.clear()
    client.get("/orders")
    assert loaded == []
    client.get("/logout")
    client.get("/me")
    assert [identity.user_id for identity in seen.servers()] == [None, "u-12345", "u-12345", None, None, None]


def test_without_opentelemetrys_instrumentation(cookie: str) -> None:
    """log_event in a view finds user and browser, and nothing stays on the thread."""
    app = flask.Flask("plain")
    instrument(app, user=lambda: None)
    found = []

    @app.get("/")
    def home() -> str:
        set_user("u-12345")
        found.append(scope_of())
        return "ok"

    @app.get("/next")
    def following() -> str:
        found.append(scope_of())
        return "ok"

    client = app.test_client(use_cookies=False)
    client.get("/", headers={"Cookie": cookie})
    client.get("/next")
    first, second = found
    assert first is not None
    assert second is not None
    assert (first.user_id, first.cookie) == ("u-12345", cookie)
    assert (second.cookie, second.user_id, second.anonymous) == (None, None, True)
    assert scope_of() is None


def test_instrumented_after_ours(seen: Seen) -> None:
    """Whichever is called first, the server span gets the user and nothing stays behind."""
    app = flask.Flask("late")
    instrument(app, user=lambda: "u-12345")
    FlaskInstrumentor().instrument_app(app, tracer_provider=seen.provider)
    app.add_url_rule("/", view_func=lambda: "ok")
    app.test_client(use_cookies=False).get("/")
    FlaskInstrumentor().uninstrument_app(app)
    assert [identity.user_id for identity in seen.servers()] == ["u-12345"]
    assert scope_of() is None


def test_a_gate_before_ours_leaves_nothing_on_the_thread() -> None:
    """Where an earlier function answered and nothing traces, each request still has a scope of its own, and the thread none."""
    app, found = flask.Flask("gated"), []

    @app.before_request
    def gate() -> tuple[str, int]:
        found.append(scope_of())
        return "no", 403

    instrument(app, user=lambda: "u-12345")
    client = app.test_client(use_cookies=False)
    assert [client.get("/").status_code for _ in range(2)] == [403, 403]
    first, second = found
    assert first is not None
    assert second is not first
    assert scope_of() is None


def test_a_gate_before_ours_in_a_traced_request(app: flask.Flask, seen: Seen) -> None:
    """There the server span gets the user all the same."""
    app.before_request(lambda: ("no", 403))
    instrument(app, user=lambda: "u-12345")
    app.test_client(use_cookies=False).get("/orders")
    assert [identity.user_id for identity in seen.servers()] == ["u-12345"]


def test_nobody_by_session_takes_nothing_back(app: flask.Flask, seen: Seen) -> None:
    """A view that knows its user by a token has said so; one that named nobody is still known to be logged out."""
    flask_login.LoginManager(app).user_loader(lambda _: None)
    instrument(app)

    @app.get("/api")
    def api() -> str:
        assert not flask_login.current_user.is_authenticated
        set_user(flask.request.headers.get("x-token-user", ""))
        return "ok"

    client = app.test_client(use_cookies=False)
    cookie = make_cookie(KEY, "d-browser", "u-browser", SESSION)
    for headers in ({"x-token-user": "u-12345"}, {}):
        client.get("/api", headers={"Cookie": cookie, **headers})
    assert [identity[:2] for identity in seen.servers()] == [("u-12345", "d-browser"), (None, "d-browser")]


def test_the_glue_gives_a_scope_to_what_is_excluded_from_tracing(seen: Seen) -> None:
    """What is said in the first request is not known in the second."""
    app, found = flask.Flask("excluded"), []
    FlaskInstrumentor().instrument_app(app, excluded_urls="internal", tracer_provider=seen.provider)
    instrument(app)

    @app.get("/internal")
    def internal() -> str:
        scope = scope_of()
        found.append(scope.user_id if scope is not None else "no request")
        set_user("u-12345")
        return "ok"

    client = app.test_client(use_cookies=False)
    for _ in range(2):
        client.get("/internal")
    FlaskInstrumentor().uninstrument_app(app)
    assert (found, seen.spans) == ([None, None], [])


def test_two_cookie_headers_over_a_real_server(app: flask.Flask, seen: Seen, cookie: str) -> None:
    """A WSGI server makes one text of them; the browser is found in either."""
    server = make_server("127.0.0.1", 0, app)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        for pair in ((cookie, "a=b"), ("a=b", cookie)):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
            connection.putrequest("GET", "/orders")
            for header in pair:
                connection.putheader("Cookie", header)
            connection.endheaders()
            assert connection.getresponse().read() == b"ok"
            connection.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert [identity.device_id for identity in seen.servers()] == ["d-browser"] * 2
