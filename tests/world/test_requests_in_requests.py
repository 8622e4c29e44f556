"""A request inside a request is part of it: one event, of the one scope, with the outermost route."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import fastapi
import pytest
from celery import Celery, signals
from fastapi.testclient import TestClient
from flask import Flask
from opentelemetry import trace
from opentelemetry.instrumentation.aiohttp_server import AioHttpServerInstrumentor
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.starlette import StarletteInstrumentor
from starlette.applications import Starlette
from starlette.routing import Mount

import otel_amplitude
from otel_amplitude.frameworks.celery import instrument
from otel_amplitude.identity import make_cookie
from otel_amplitude.testing._captured import KEY

COOKIE = {"Cookie": make_cookie(KEY, "device-1")}


def seen(events: Any) -> list[Any]:
    """User and device of the requests."""
    return [(event.get("user_id"), event.get("device_id")) for event in events if event["event_type"] == "HTTP Request"]


def test_a_sub_application_of_aiohttp(amplitude_events: Any) -> None:
    """aio-libs/aiohttp#2454, contrib#840: each application of a tree of sub-applications makes a root span."""
    with pytest.warns(DeprecationWarning, match="web.Application is discouraged"):  # the instrumentation makes a subclass
        AioHttpServerInstrumentor().instrument()
    from aiohttp import ClientSession, web

    async def page(_request: web.Request) -> web.Response:
        otel_amplitude.set_user("user-1234")
        return web.Response(text="ok")

    async def main() -> None:
        innermost, inner, outer = web.Application(), web.Application(), web.Application()
        innermost.router.add_get("/items/{id}", page)
        inner.add_subapp("/new", innermost)
        outer.add_subapp("/shop", inner)
        runner = web.AppRunner(outer)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with ClientSession() as session, session.get(f"{address}/shop/new/items/3", headers=COOKIE) as answer:
            assert answer.status == 200
        await runner.cleanup()

    try:
        asyncio.run(main())
    finally:
        AioHttpServerInstrumentor().uninstrument()
    assert [event["event_properties"]["route"] for event in amplitude_events] == ["/shop/new/items/{id}"]
    assert seen(amplitude_events) == [("user-1234", "device-1")]


@pytest.mark.parametrize("both", [False, True], ids=["outer", "outer and inner"])
def test_a_mounted_fastapi_under_contrib(amplitude_events: Any, both: bool) -> None:
    """pydantic/logfire#259: FastAPIInstrumentor.instrument_app with a mounted FastAPI, whose own telemetry is native."""
    outer, inner = fastapi.FastAPI(), fastapi.FastAPI()

    @inner.get("/users/{user}")
    def page(user: str) -> str:
        otel_amplitude.set_user("user-1234")
        return user

    outer.mount("/v2", inner)
    apps = [outer, inner] if both else [outer]
    for app in apps:
        FastAPIInstrumentor.instrument_app(app)
    try:
        assert TestClient(outer, headers=COOKIE).get("/v2/users/7").status_code == 200
    finally:
        for app in apps:
            FastAPIInstrumentor.uninstrument_app(app)
    assert len(seen(amplitude_events)) <= 1
    assert set(seen(amplitude_events)) <= {("user-1234", "device-1")}


def test_a_fastapi_mounted_in_starlette(amplitude_events: Any) -> None:
    """SigNoz#559: contrib's Starlette outside, FastAPI's native telemetry inside, which extracts from an object of its own."""
    inner = fastapi.FastAPI()

    @inner.get("/users/{user}")
    async def page(user: str) -> str:
        otel_amplitude.set_user("user-1234")
        with trace.get_tracer("shop").start_as_current_span("note") as span:
            span.set_attribute("amplitude.event_type", "Noted")
        return user

    app = Starlette(routes=[Mount("/v2", inner)])
    StarletteInstrumentor.instrument_app(app)
    try:
        assert TestClient(app, headers=COOKIE).get("/v2/users/7").status_code == 200
    finally:
        StarletteInstrumentor.uninstrument_app(app)
    assert [(event.get("user_id"), event["device_id"]) for event in amplitude_events.of_type("Noted")] == [("user-1234", "device-1")]
    assert len(seen(amplitude_events)) <= 1


def test_an_application_called_from_a_request_of_another_visitor(amplitude_events: Any) -> None:
    """Two environs are two requests, also when one is served inside the other: who acts in one is not said of the other."""
    outer, inner = Flask("outer"), Flask("inner")
    inner.add_url_rule("/inner", view_func=lambda: (otel_amplitude.set_user("bob-1234"), "ok")[1])

    @outer.get("/outer")
    def page() -> str:
        otel_amplitude.set_user("alice-1234")
        inner.test_client(use_cookies=False).get("/inner")
        with trace.get_tracer("shop").start_as_current_span("note") as span:
            span.set_attribute("amplitude.event_type", "Noted")
        return "ok"

    FlaskInstrumentor().instrument_app(outer)
    try:
        outer.test_client(use_cookies=False).get("/outer", headers=COOKIE)
    finally:
        FlaskInstrumentor().uninstrument_app(outer)
    assert [event["user_id"] for event in amplitude_events] == ["alice-1234", "alice-1234"]


@pytest.fixture
def tasks() -> Iterator[Celery]:
    """Tasks that run where they are called."""
    app = Celery("tasks", broker="memory://", set_as_current=False)
    app.conf.task_always_eager = True

    @app.task(name="send", shared=False)
    def send() -> None:
        with trace.get_tracer("shop").start_as_current_span("mail") as span:
            span.set_attribute("amplitude.event_type", "Mail Sent")

    @app.task(name="outer", shared=False)
    def outer() -> None:
        app.tasks["send"].delay()

    yield app
    CeleryInstrumentor().uninstrument()
    for signal in (signals.before_task_publish, signals.task_prerun, signals.task_postrun):
        signal.disconnect(dispatch_uid="otel_amplitude")


@pytest.mark.parametrize("task", ["send", "outer"])
@pytest.mark.parametrize("order", ["glue", "contrib", "glue, contrib", "contrib, glue"])
def test_a_task_that_runs_eagerly(amplitude_events: Any, tasks: Celery, order: str, task: str) -> None:
    """celery#9199: an eager task extracts from its own headers, which are empty; whichever was connected first."""
    for step in order.split(", "):
        if step == "glue":
            instrument()
        else:
            CeleryInstrumentor().instrument()
    app = Flask("shop")

    @app.get("/")
    def page() -> str:
        otel_amplitude.set_user("user-1234")
        tasks.tasks[task].delay()
        with trace.get_tracer("shop").start_as_current_span("after") as span:
            span.set_attribute("amplitude.event_type", "Afterwards")
        return "ok"

    FlaskInstrumentor().instrument_app(app)
    try:
        app.test_client(use_cookies=False).get("/", headers=COOKIE)
    finally:
        FlaskInstrumentor().uninstrument_app(app)
    found = {event["event_type"]: (event["user_id"], event["device_id"]) for event in amplitude_events}
    assert found == dict.fromkeys(("Mail Sent", "Afterwards", "HTTP Request"), ("user-1234", "device-1"))
