"""A shop in Django; of Amplitude it knows `set_user` in a middleware, and one annotation."""

from __future__ import annotations

from collections.abc import Callable

from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from opentelemetry import trace

from otel_amplitude import set_user

tracer = trace.get_tracer("shop")


def who(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        if "X-Customer" in request.headers:
            set_user(request.headers["X-Customer"])
        return get_response(request)

    return middleware


def product(request: HttpRequest, pid: int) -> HttpResponse:
    return HttpResponse(f"product {pid}")


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse("ok")


def order(request: HttpRequest) -> HttpResponse:
    with tracer.start_as_current_span("pay") as span:
        span.set_attribute("amplitude.event_type", "Order Paid")
    return HttpResponse("paid")


def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(f"piece {number}\n" for number in range(3))


def boom(request: HttpRequest) -> HttpResponse:
    raise ValueError("boom")


urlpatterns = [
    path("products/<int:pid>", product),
    path("login", plain),
    path("orders", order),
    path("stream", stream),
    path("healthz", plain),
    path("boom", boom),
]

application = get_wsgi_application()
asgi = get_asgi_application()
