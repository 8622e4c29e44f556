"""Code of a request that runs outside of OpenTelemetry's span finds the request; the next request of the thread does not find what it said."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, Response, copy_current_request_context, request, stream_with_context
from opentelemetry import trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware
from werkzeug.test import EnvironBuilder

import otel_amplitude
from otel_amplitude.frameworks.flask import instrument
from otel_amplitude.frameworks.wsgi import AmplitudeMiddleware
from otel_amplitude.identity import make_cookie
from otel_amplitude.testing._captured import KEY

TRACED = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"


def note(name: str) -> None:
    """End an annotated span."""
    with trace.get_tracer("shop").start_as_current_span("note") as span:
        span.set_attribute("amplitude.event_type", name)


def visit(app: Flask, path: str, device: str, **headers: str) -> None:
    """Visit a page and read all of it, on this thread, as a sync worker of gunicorn does."""
    response = app.test_client(use_cookies=False).get(path, headers={"Cookie": make_cookie(KEY, device), **headers})
    response.get_data()
    response.close()


def users(events: Any, name: str) -> list[Any]:
    """The users of the events of this name."""
    return [event.get("user_id") for event in events if event["event_type"] == name]


@pytest.fixture(autouse=True)
def thread() -> Iterator[None]:
    """The context of a new thread."""
    token = attach(Context())
    yield
    detach(token)


@pytest.fixture
def make() -> Iterator[Callable[..., Flask]]:
    """Makes applications that set the user and make an event where the query says so; instrumented last, as in an application factory."""
    made = []

    def application(*, glue: bool, excluded: str | None = None) -> Flask:
        app = Flask("shop")
        if glue:
            instrument(app)

        def at(place: str) -> None:
            if request.args.get("at") == place:
                otel_amplitude.set_user(request.args["user"])
            if request.args.get("note") == place:
                note("Noted")

        app.before_request(lambda: at("hook"))
        app.teardown_request(lambda _: at("teardown"))

        @app.get("/<kind>")
        def page(kind: str) -> Response:
            at("view")
            arguments = dict(request.args)

            def step(place: str) -> None:
                if arguments.get("at") == place:
                    otel_amplitude.set_user(arguments["user"])
                if arguments.get("note") == place:
                    note("Noted")

            def body() -> Iterator[str]:
                step("body")
                yield "a"
                step("second step")
                yield "b"

            response = Response(stream_with_context(body()) if kind == "with" else body())
            response.call_on_close(lambda: step("close"))
            return response

        FlaskInstrumentor().instrument_app(app, excluded_urls=excluded)
        made.append(app)
        return app

    yield application
    for app in made:
        FlaskInstrumentor().uninstrument_app(app)


@pytest.mark.parametrize("glue", [False, True], ids=["zero code", "glue"])
def test_a_user_who_is_set_before_the_span_begins(amplitude_events: Any, make: Callable[..., Flask], glue: bool) -> None:
    """contrib#1397, contrib#813: in an application factory instrument_app comes last, so its span begins after the first hooks."""
    visit(make(glue=glue), "/bare?at=hook&user=user-1234", "device-1")
    assert users(amplitude_events, "HTTP Request") == ["user-1234"]


@pytest.mark.parametrize("glue", [False, True], ids=["zero code", "glue"])
@pytest.mark.parametrize("excluded", [None, "with,bare"], ids=["traced", "excluded"])
@pytest.mark.parametrize("kind", ["with", "bare"])
@pytest.mark.parametrize("said", ["hook", "view", "body", "second step", "close", "teardown"])
def test_what_is_said_late_is_not_the_next_visitors(
    amplitude_events: Any, make: Callable[..., Flask], kind: str, said: str, excluded: str | None, glue: bool
) -> None:
    """sentry-python#218, contrib#3401, sentry-python#177: the state of one streaming request was seen by the next on the thread."""
    app = make(glue=glue, excluded=excluded)
    visit(app, f"/{kind}?at={said}&user=alice-1&note=close", "device-of-alice")
    for place in ("hook", "view", "body", "second step", "close"):
        visit(app, f"/{kind}?note={place}", "device-of-bob")
    seen = [(event.get("user_id"), event["device_id"]) for event in amplitude_events if event["event_type"] == "Noted"]
    # Flask tears a request down before its body, unless the body keeps the context.
    assert seen[0] in {("alice-1", "device-of-alice"), (None if said == "teardown" else "alice-1", "device-of-alice")}
    assert seen[1:] == [(None, "device-of-bob")] * 5


def test_a_span_that_stays_open_over_steps_keeps_its_children(amplitude_events: Any, make: Callable[..., Flask]) -> None:
    """opentelemetry-python#2606: a wrapper of the body must not cut the trace that the body makes."""
    app = make(glue=False)
    parents: list[Any] = []

    @app.get("/chat")
    def chat() -> Response:
        def answer() -> Iterator[str]:
            with trace.get_tracer("shop").start_as_current_span("answer") as span:
                for _ in range(3):
                    with trace.get_tracer("shop").start_as_current_span("chunk") as chunk:
                        parents.append(chunk.parent is not None and chunk.parent.span_id == span.get_span_context().span_id)  # type: ignore[attr-defined]
                    yield "x"

        return Response(answer())

    visit(app, "/chat", "device-1")
    assert parents == [True] * 3
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_thread_with_the_context_of_flask(amplitude_events: Any, make: Callable[..., Flask]) -> None:
    """pallets/flask documents `copy_current_request_context` for threads; a bare thread of a pool finds nothing, and is counted."""
    app = make(glue=False)

    @app.get("/threads")
    def threads() -> str:
        for work in (
            copy_current_request_context(lambda: otel_amplitude.set_user("user-1234")),
            lambda: otel_amplitude.set_user("nobody-1"),
        ):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        return "ok"

    visit(app, "/threads", "device-1")
    assert users(amplitude_events, "HTTP Request") == ["user-1234"]
    assert otel_amplitude.get_instance().stats().set_user_outside == 1


@pytest.mark.parametrize("outer", [False, True])
def test_the_teardown_of_an_application_context(amplitude_events: Any, outer: bool) -> None:
    """pallets/flask runs `teardown_appcontext` after the request is no more current; one that outlives its requests belongs to none of them."""
    app = Flask("shop")
    app.add_url_rule("/", view_func=lambda: otel_amplitude.set_user(request.args["user"]) or "")
    app.teardown_appcontext(lambda _: note("Noted"))
    otel_amplitude.configure(KEY)
    FlaskInstrumentor().instrument_app(app)
    try:
        if outer:
            with app.app_context():
                visit(app, "/?user=alice-1", "device-of-alice")
                note("Between")
        else:
            visit(app, "/?user=alice-1", "device-of-alice")
        visit(app, "/?user=bob-111", "device-of-bob")
    finally:
        FlaskInstrumentor().uninstrument_app(app)
    assert users(amplitude_events, "Noted") == (["bob-111"] if outer else ["alice-1", "bob-111"])
    assert users(amplitude_events, "Between") == []


def test_one_response_object_that_all_requests_share(amplitude_events: Any) -> None:
    """A module may keep one response for all visitors: what runs at its end belongs to none of them."""
    app, shared = Flask("shop"), Response("ok")
    shared.call_on_close(lambda: note("Closed"))
    app.add_url_rule("/", view_func=lambda: shared)
    FlaskInstrumentor().instrument_app(app)
    for device in ("device-1", "device-2", "device-3"):
        visit(app, "/", device)
    FlaskInstrumentor().uninstrument_app(app)
    assert [event["device_id"] for event in amplitude_events if event["event_type"] == "Closed"][1:] == []


def wsgi(app: Any, path: str, device: str, *, read: bool = True, **headers: str) -> None:
    """Serve one request, as a server does; it need not read the body."""
    environ = EnvironBuilder(path, headers={"Cookie": make_cookie(KEY, device), **headers}).get_environ()
    body = app(environ, lambda *_: None)
    if read:
        list(body)
    getattr(body, "close", lambda: None)()


@pytest.mark.parametrize("glue", [False, True], ids=["zero code", "glue"])
def test_a_body_that_is_never_begun(amplitude_events: Any, glue: bool) -> None:
    """contrib#3401: OpenTelemetry's WSGI middleware detaches inside of a generator, which never runs when the client is gone."""

    def page(environ: Any, start_response: Any) -> list[bytes]:
        note("View " + environ["PATH_INFO"])
        start_response("200 OK", [])
        return [b"x"]

    app: Any = OpenTelemetryMiddleware(page)
    app = AmplitudeMiddleware(app) if glue else app
    wsgi(app, "/a", "device-a", read=False, traceparent=TRACED)
    wsgi(app, "/b", "device-b")
    seen = [(event["event_type"], event["device_id"]) for event in amplitude_events if event["event_type"].startswith("View")]
    assert seen == [("View /a", "device-a"), ("View /b", "device-b")][: 2 if glue else 1]


def test_a_body_of_any_wsgi_application(amplitude_events: Any) -> None:
    """contrib#3401: code that streams under Falcon or Bottle; with the middleware it belongs to its request, also after an error."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        if environ["PATH_INFO"] == "/fails":
            otel_amplitude.set_user("alice-1")
            raise ValueError
        start_response("200 OK", [])

        def body() -> Iterator[bytes]:
            note("Begun")
            yield b"a"
            if environ["PATH_INFO"] == "/late":
                otel_amplitude.set_user("alice-1")
            yield b"b"
            note("Streamed")

        return body()

    served = AmplitudeMiddleware(app)
    with pytest.raises(ValueError, match=r"^$"):
        wsgi(served, "/fails", "device-a")
    wsgi(served, "/late", "device-a")
    wsgi(served, "/", "device-b")
    seen = [(event["event_type"], event.get("user_id"), event["device_id"]) for event in amplitude_events]
    assert seen == [
        ("Begun", None, "device-a"),
        ("Streamed", "alice-1", "device-a"),
        ("Begun", None, "device-b"),
        ("Streamed", None, "device-b"),
    ]


def test_a_server_that_uses_one_environ_again(amplitude_events: Any) -> None:
    """A dict that a server keeps for the next request is not the next request's scope."""

    def page(environ: Any, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/a":
            otel_amplitude.set_user("alice-1")
        note("Seen")
        start_response("200 OK", [])
        return [b"x"]

    for app in (OpenTelemetryMiddleware(page), AmplitudeMiddleware(page)):
        environ = EnvironBuilder("/a", headers={"Cookie": make_cookie(KEY, "device-a")}).get_environ()
        list(app(environ, lambda *_: None))
        environ |= {"PATH_INFO": "/b", "HTTP_COOKIE": make_cookie(KEY, "device-b")}
        list(app(environ, lambda *_: None))
    seen = [(event.get("user_id"), event["device_id"]) for event in amplitude_events if event["event_type"] == "Seen"]
    assert seen == [("alice-1", "device-a"), (None, "device-b")] * 2
