"""A shop in Flask; of Amplitude it knows `set_user` and one annotation."""

from __future__ import annotations

from flask import Flask, Response, request
from opentelemetry import trace

from otel_amplitude import set_user

app = Flask(__name__)
tracer = trace.get_tracer("shop")


@app.before_request
def who() -> None:
    if "X-Customer" in request.headers:
        set_user(request.headers["X-Customer"])


@app.get("/products/<int:pid>")
def product(pid: int) -> str:
    return f"product {pid}"


@app.post("/login")
def login() -> str:
    return "welcome"


@app.post("/orders")
def order() -> str:
    with tracer.start_as_current_span("pay") as span:
        span.set_attribute("amplitude.event_type", "Order Paid")
    return "paid"


@app.get("/stream")
def stream() -> Response:
    return Response(f"piece {number}\n" for number in range(3))


@app.get("/healthz")
def healthz() -> str:
    return "ok"


@app.get("/boom")
def boom() -> str:
    raise ValueError("boom")
