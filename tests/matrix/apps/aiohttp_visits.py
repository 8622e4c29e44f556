"""aiohttp, on its own server."""

from __future__ import annotations

import sys
import warnings
from collections.abc import AsyncIterator
from typing import Any

import places
from aiohttp import web
from opentelemetry.instrumentation.aiohttp_server import AioHttpServerInstrumentor
from places import Body, at, created_task, in_threads

warnings.simplefilter("ignore", DeprecationWarning)  # the instrumentation makes a subclass of web.Application
AioHttpServerInstrumentor().instrument()


@web.middleware
async def hook(request: web.Request, handler: Any) -> web.StreamResponse:
    at("hook", request.query_string)
    response = await handler(request)
    at("after hook", request.query_string)
    return response


async def body(query: str) -> AsyncIterator[bytes]:
    for part in Body(query):
        yield part


async def view(request: web.Request) -> web.Response:
    query = request.query_string
    at("view", query)
    created_task(query, "body")
    in_threads(query)
    return web.Response(body=body(query))


async def prepare(request: web.Request, _response: web.StreamResponse) -> None:
    at("response prepared", request.query_string)


app = web.Application(middlewares=[hook])
app.on_response_prepare.append(prepare)
app.router.add_get("/{path}", view)
if __name__ == "__main__":
    places.serve_books()
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]))
