"""The shop of `otel-amplitude demo`: an ordinary Flask application that knows of OpenTelemetry, but of Amplitude only in two lines.

Those are the annotation on the span "pay" and the `set_user` after a log-in.
"""

from __future__ import annotations

from typing import Any

from flask import Flask, jsonify, request, session
from opentelemetry import trace

from otel_amplitude import set_user

app = Flask(__name__)
app.secret_key = "only a demo"  # noqa: S105 -- it guards nothing
tracer = trace.get_tracer("shop")


@app.before_request
def who() -> None:
    """The one line that sets the acting user: the shop's own log-in."""
    if "customer" in session:
        set_user(session["customer"])


@app.get("/healthz")
def healthz() -> str:
    """A probe; probes become no events."""
    return "ok"


@app.post("/login")
def login() -> Any:
    """Log a customer in."""
    session["customer"] = request.form["customer"]
    set_user(session["customer"])
    return jsonify(welcome=session["customer"])


@app.get("/products")
def products() -> Any:
    """List what is for sale."""
    return jsonify(products=["tea", "pot", "cup"])


@app.get("/products/<name>")
def product(name: str) -> Any:
    """Show one product; `?token=…` stays out of events."""
    with tracer.start_as_current_span("SELECT product"):
        return jsonify(name=name, price=12.5)


@app.post("/cart/<name>")
def add_to_cart(name: str) -> Any:
    """Put a product into the cart."""
    session["cart"] = [*session.get("cart", []), name]
    return jsonify(cart=session["cart"])


@app.post("/checkout")
def checkout() -> Any:
    """Pay: the one span that says itself which event it is."""
    cart = session.pop("cart", [])
    with tracer.start_as_current_span("pay") as span:
        span.set_attribute("amplitude.event_type", "Order Paid")
        span.set_attribute("amplitude.event_properties.items", len(cart))
        span.set_attribute("amplitude.revenue", 12.5 * len(cart))
    return jsonify(paid=True)
