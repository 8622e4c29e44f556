"""The application under test: it knows OpenTelemetry, and one call of ours."""

from __future__ import annotations

from flask import Flask, request
from opentelemetry import trace
from opentelemetry.instrumentation.flask import FlaskInstrumentor

from otel_amplitude import set_user

app = Flask(__name__)
FlaskInstrumentor().instrument_app(app)


@app.post("/orders")
def order() -> str:
    set_user(request.headers["X-Customer"])
    with trace.get_tracer("shop").start_as_current_span("pay") as span:
        span.set_attributes({"amplitude.event_type": "Order Paid", "cart.total": 12.5, "card.number": "4111 1111 1111 1111"})
    return "paid\n"
