"""A Flask shop: requests of known users are events by themselves, one span says which event it is.

    OTEL_EXPORTER_AMPLITUDE_API_KEY=… flask --app flask_app run

The same shop needs neither `configure` nor the instrumentor under `otel-amplitude run`; see docs/start/flask.md.
"""

from __future__ import annotations

from flask import Flask, request, session
from opentelemetry import trace
from opentelemetry.instrumentation.flask import FlaskInstrumentor

import otel_amplitude
from otel_amplitude.frameworks import flask as amplitude_flask

otel_amplitude.configure(flush_on_sigterm=True)
app = Flask(__name__)
app.secret_key = "of the example"
FlaskInstrumentor().instrument_app(app)
# Who is logged in; None means nobody. With Flask-Login, `instrument(app)` alone does.
amplitude_flask.instrument(app, user=lambda: session.get("customer"))
tracer = trace.get_tracer("shop")


@app.post("/login")
def login() -> str:
    session["customer"] = request.form["customer"]
    return "welcome\n"


@app.get("/products/<name>")
def product(name: str) -> str:  # GET /products/tea is an event `HTTP Request` with the route /products/{name}
    return f"{name} costs 12.50\n"


@app.post("/orders")
def order() -> str:
    otel_amplitude.set_user(session["customer"])  # `instrument` asks after the view; the span in it ends before
    with tracer.start_as_current_span("pay") as span:
        span.set_attributes({"amplitude.event_type": "Order Paid", "amplitude.revenue": 12.5, "cart.items": 1})
    return "paid\n"


@app.get("/healthz")
def healthz() -> str:  # a probe is no event
    return "ok\n"
