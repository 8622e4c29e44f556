"""Starlette and FastAPI: dependencies, thread pools, tasks and WebSockets tell the request who acts, and never the next one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from frameworks.asgi_client import call, get
from frameworks.seen import SESSION, Seen
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.starlette import StarletteInstrumentor
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from otel_amplitude.frameworks.starlette import AmplitudeMiddleware
from otel_amplitude.identity import scope_of, set_user


def dependency(request: Request) -> None:
    """A plain function: FastAPI runs it in a thread, on a copy of the context variables."""
    assert threading.current_thread() is not threading.main_thread()
    if user := request.query_params.get("user"):
        set_user(user)


async def asynchronous(request: Request) -> None:
    """A coroutine: runs in the request's task."""
    if user := request.query_params.get("user"):
        set_user(user)


@pytest.fixture
def app(seen: Seen) -> Iterator[FastAPI]:
    """An instrumented FastAPI application."""
    app = FastAPI()

    @app.get("/orders/{order}")
    def orders(order: str, _: Annotated[None, Depends(dependency)]) -> str:
        with seen.tracer.start_as_current_span("inside"):
            return order

    @app.get("/async/{order}")
    async def orders_async(order: str, _: Annotated[None, Depends(asynchronous)]) -> str:
        await asyncio.sleep(0)
        return order

    @app.get("/task")
    async def in_a_task() -> str:
        async def learn() -> None:
            await asyncio.sleep(0)
            set_user("u-12345")

        await asyncio.gather(asyncio.create_task(learn()), asyncio.to_thread(set_user, device_id="d-thread"))
        return "ok"

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> str:
        def work() -> None:
            with seen.tracer.start_as_current_span("background"):
                pass

        set_user("u-12345")
        tasks.add_task(work)
        return "ok"

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def parts() -> Any:
            yield "a"
            set_user("u-12345")
            yield "b"

        return StreamingResponse(parts())

    @app.get("/fails")
    async def fails() -> str:
        set_user("u-12345")
        raise ValueError

    @app.websocket("/socket")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        set_user(await websocket.receive_text())
        with seen.tracer.start_as_current_span("message"):
            pass
        await websocket.close()

    FastAPIInstrumentor.instrument_app(app, tracer_provider=seen.provider)
    yield app
    FastAPIInstrumentor.uninstrument_app(app)


@pytest.mark.parametrize("path", ["/orders/7", "/async/7"])
def test_a_dependency_tells_the_server_span(app: FastAPI, seen: Seen, cookie: str, path: str) -> None:
    """Also one that ran in the thread pool; the browser's device and session come along, and no span shows any of it."""
    assert asyncio.run(get(app, f"{path}?user=u-12345", {"cookie": cookie})) == 200
    assert [identity[:3] for identity in seen.servers()] == [("u-12345", "d-browser", SESSION)]
    assert "d-browser" not in seen.texts()
    assert "AMP_" not in seen.texts()


def test_tasks_and_threads_of_a_request(app: FastAPI, seen: Seen) -> None:
    """What they learn is the request's."""
    asyncio.run(get(app, "/task"))
    assert [identity[:2] for identity in seen.servers()] == [("u-12345", "d-thread")]


def test_a_background_task_acts_for_the_user(app: FastAPI, seen: Seen) -> None:
    """It runs after the answer, still within what the request knows."""
    asyncio.run(get(app, "/background"))
    assert seen.users("background") == ["u-12345"]


def test_a_background_task_behind_a_middleware_acts_for_the_user(seen: Seen) -> None:
    """Starlette runs what is behind such a middleware in a task of its own, which goes on after the request's span has ended."""
    app = FastAPI()

    @app.middleware("http")
    async def middle(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    async def work() -> None:
        await asyncio.sleep(0)
        with seen.tracer.start_as_current_span("background"):
            pass

    @app.get("/")
    async def home(tasks: BackgroundTasks) -> str:
        set_user("u-12345")
        tasks.add_task(work)
        return "ok"

    FastAPIInstrumentor.instrument_app(app, tracer_provider=seen.provider)
    asyncio.run(get(app, "/"))
    FastAPIInstrumentor.uninstrument_app(app)
    assert seen.users("background") == ["u-12345"]


def test_a_stream_may_learn_late(app: FastAPI, seen: Seen) -> None:
    """The server span ends with the last part of the body."""
    asyncio.run(get(app, "/stream"))
    assert [identity.user_id for identity in seen.servers()] == ["u-12345"]


def test_a_failed_handler_still_has_its_user(app: FastAPI, seen: Seen) -> None:
    """The error goes its way, the user is known."""
    with pytest.raises(ValueError, match=r"^$"):
        asyncio.run(get(app, "/fails"))
    assert [identity.user_id for identity in seen.servers()] == ["u-12345"]


def test_requests_that_interleave_stay_apart(app: FastAPI, seen: Seen) -> None:
    """Twenty at once on one event loop and its threads: each has its own user, every third has none."""

    async def main() -> None:
        kinds = ("/orders/{0}?user=u-{0}", "/async/{0}?user=u-{0}", "/orders/{0}")
        await asyncio.gather(*(get(app, kinds[number % 3].format(1000 + number)) for number in range(20)))
        assert scope_of() is None

    asyncio.run(main())
    expected = [f"u-{1000 + number}" if number % 3 < 2 else None for number in range(20)]
    assert sorted(map(str, (identity.user_id for identity in seen.servers()))) == sorted(map(str, expected))
    inside = {span.parent.span_id: identity.user_id for span, identity in seen.spans if span.name == "inside" and span.parent}
    servers = {span.context.span_id: identity.user_id for span, identity in seen.spans if span.kind is SpanKind.SERVER and span.context}
    assert all(servers[parent] == user for parent, user in inside.items())


@pytest.mark.usefixtures("no_propagator")
def test_without_the_propagator(app: FastAPI, seen: Seen) -> None:
    """set_user in a thread-pool dependency finds the server span, and the next request finds nobody."""
    asyncio.run(get(app, "/orders/7?user=u-12345"))
    asyncio.run(get(app, "/orders/7"))
    assert [identity.user_id for identity in seen.servers()] == ["u-12345", None]


def test_a_websocket_has_a_scope(app: FastAPI, seen: Seen, cookie: str) -> None:
    """The cookie of the handshake and what a message says hold for the rest of the connection."""
    incoming = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "u-12345"}]
    asyncio.run(call(app, "websocket", "/socket", {"cookie": cookie}, incoming))
    assert [identity[:2] for identity in seen.servers()] == [("u-12345", "d-browser")]
    assert seen.users("message") == ["u-12345"]


class Zoe(BaseUser):
    is_authenticated = True
    identity = "u-12345"


class Backend(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        return (AuthCredentials(), Zoe()) if conn.query_params.get("user") else None


@pytest.fixture
def starlette(seen: Seen) -> Iterator[Callable[..., Starlette]]:
    """Makes instrumented Starlette applications with authentication and our middleware."""
    made: list[Starlette] = []

    def make(**options: Any) -> Starlette:
        app = Starlette(routes=[Route("/", lambda _: PlainTextResponse("ok"))])
        app.add_middleware(AmplitudeMiddleware, **options)
        app.add_middleware(AuthenticationMiddleware, backend=Backend())
        StarletteInstrumentor.instrument_app(app, tracer_provider=seen.provider)
        made.append(app)
        return app

    yield make
    for app in made:
        StarletteInstrumentor.uninstrument_app(app)


def test_the_middleware_tells_the_authenticated_user(starlette: Callable[..., Starlette], seen: Seen) -> None:
    """The user of AuthenticationMiddleware, and a known absence for somebody who is not logged in."""
    app = starlette()
    asyncio.run(get(app, "/?user=1"))
    asyncio.run(get(app, "/"))
    assert [identity.user_id for identity in seen.servers()] == ["u-12345", None]


def test_the_middleware_asks_a_callable(starlette: Callable[..., Starlette], seen: Seen) -> None:
    """An exception of it is no answer and no failed response."""
    answers: list[Any] = ["u-67890", None]
    app = starlette(user=lambda scope: answers.pop(0))
    statuses = [asyncio.run(get(app, "/?user=1")) for _ in range(3)]
    assert statuses == [200] * 3
    assert [identity.user_id for identity in seen.servers()] == ["u-67890", None, None]


def test_the_middleware_without_anything_else(cookie: str) -> None:
    """Without instrumentation and authentication log_event finds what the handler said and the browser's cookie; nothing stays."""
    found: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        set_user("u-12345")
        found.append(scope_of())
        await send({"type": f"{scope['type']}.accept" if scope["type"] == "websocket" else "http.response.start", "status": 200})

    async def main() -> None:
        await get(AmplitudeMiddleware(inner), "/", {"Cookie": cookie})
        await call(AmplitudeMiddleware(inner), "websocket", "/", {}, [])
        assert scope_of() is None

    asyncio.run(main())
    assert [(scope.user_id, scope.cookie) for scope in found] == [("u-12345", cookie), ("u-12345", None)]


def test_the_middleware_lets_the_lifespan_pass() -> None:
    """It has nothing to say about it."""
    kinds: list[str] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        kinds.append(scope["type"])

    asyncio.run(call(AmplitudeMiddleware(inner), "lifespan", "/", {}, []))
    assert kinds == ["lifespan"]
