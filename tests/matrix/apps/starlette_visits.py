"""Starlette and FastAPI, each with contrib's instrumentation or with its own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

import places
from fastapi import Depends, FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.starlette import StarletteInstrumentor
from places import Body, at, created_task, in_threads, outside
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

APPLICATION = os.environ["APPLICATION"]
LAST = ("background task", "dependency exit") if APPLICATION.startswith("fastapi") else ("background task",)


async def body(query: str) -> AsyncIterator[bytes]:
    for part in Body(query):
        yield part


async def page(request: Request) -> Response:
    query = request.url.query
    at("view", query)
    created_task(query, *LAST)
    in_threads(query)
    return StreamingResponse(body(query), background=BackgroundTask(at, "background task", query))


async def hook(request: Request, call_next: Any) -> Response:
    at("hook", request.url.query)
    response = await call_next(request)
    at("after hook", request.url.query)
    return response


class Hook:
    """The same as an ASGI middleware, without the task that Starlette's base class starts."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_after(message: Any) -> None:
            if message["type"] == "http.response.start":
                at("after hook", scope["query_string"])
            await send(message)

        if scope["type"] == "http":
            at("hook", scope["query_string"])
        await self.app(scope, receive, send_after)


def threaded_dependency(request: Request) -> None:
    at("dependency", request.url.query)


async def dependency(request: Request) -> AsyncIterator[None]:
    at("async dependency", request.url.query)
    yield
    at("dependency exit", request.url.query)


if APPLICATION.startswith("fastapi"):
    app = FastAPI(openapi_url=None)
    app.middleware("http")(hook)
    app.get("/{path}", dependencies=[Depends(threaded_dependency), Depends(dependency)])(page)
    if APPLICATION == "fastapi contrib":
        FastAPIInstrumentor.instrument_app(app)
else:
    own = [] if APPLICATION == "starlette contrib" else [Middleware(OpenTelemetryMiddleware)]
    app = Starlette(routes=[Route("/{path}", page)], middleware=[*own, Middleware(Hook)])
    if not own:
        StarletteInstrumentor.instrument_app(app)
app = outside(app)
if places.GLUE:
    from otel_amplitude.frameworks.starlette import AmplitudeMiddleware

    app = AmplitudeMiddleware(app)
places.serve_books()
