"""Django, under WSGI and under ASGI."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator
from typing import Any

import django.core.signals  # before `configure`, as in the module of a site
import places
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished, request_started
from django.http import HttpRequest, StreamingHttpResponse
from django.urls import path
from opentelemetry.instrumentation.django import DjangoInstrumentor
from places import Body, at, created_task, in_threads, outside

EARLY = [*(["otel_amplitude.frameworks.django.AmplitudeMiddleware"] if places.GLUE else []), f"{__name__}.EarlyHook"]
settings.configure(
    SECRET_KEY="test", LOGGING_CONFIG=None, ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF=__name__, MIDDLEWARE=[*EARLY, f"{__name__}.Hook"]
)
ASGI = os.environ["APPLICATION"] == "asgi"


class Hook:
    sync_capable = async_capable = True

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        return self.answer(request) if iscoroutinefunction(self) else self._after(request, self.get_response(self._before(request)))

    async def answer(self, request: HttpRequest) -> Any:
        return self._after(request, await self.get_response(self._before(request)))

    def _before(self, request: HttpRequest) -> HttpRequest:
        at("hook", request.META["QUERY_STRING"])
        return request

    def _after(self, request: HttpRequest, response: Any) -> Any:
        at("after hook", request.META["QUERY_STRING"])
        return response


class EarlyHook(Hook):
    def _before(self, request: HttpRequest) -> HttpRequest:
        at("early hook", request.META["QUERY_STRING"])
        return request

    def _after(self, request: HttpRequest, response: Any) -> Any:
        return response


class AsyncBody(Body):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in super().__iter__():
            yield part


def view(request: HttpRequest, path: str) -> StreamingHttpResponse:
    query = request.META["QUERY_STRING"]
    at("view", query)
    in_threads(query)
    return Response(Body(query), query)


async def async_view(request: HttpRequest, path: str) -> StreamingHttpResponse:
    query = request.META["QUERY_STRING"]
    at("view", query)
    created_task(query, "request_finished")
    in_threads(query)
    return Response(AsyncBody(query), query)


class Response(StreamingHttpResponse):
    """Names its visit to the receiver of `request_finished`, which Django gives no request."""

    def __init__(self, body: object, query: str) -> None:
        super().__init__(body)
        self._query = query

    def close(self) -> None:
        finished.query = self._query
        super().close()


finished = threading.local()


def started(environ: dict[str, Any], **_: object) -> None:
    at("request_started", environ["QUERY_STRING"])


DjangoInstrumentor().instrument(middleware_position=len(EARLY))
if not ASGI:
    request_started.connect(started)
request_finished.connect(lambda **_: at("request_finished", finished.query), weak=False)
urlpatterns = [path("<path>", async_view if ASGI else view)]
django.setup()
app = outside(ASGIHandler()) if ASGI else WSGIHandler()
places.serve_books()
