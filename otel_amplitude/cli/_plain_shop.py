"""The shop of `otel-amplitude demo --rules`: it knows of Flask and OpenTelemetry, and not of Amplitude."""

from __future__ import annotations

from typing import Any

from flask import Flask, jsonify, session
from opentelemetry import trace

PRICE = 12.5

app = Flask(__name__)
app.secret_key = "only a demo"  # noqa: S105 -- it guards nothing


def describe_cart(cart: list[str]) -> None:
    """Tell the trace what is in the cart, as any service might."""
    trace.get_current_span().set_attributes({"cart.items": len(cart), "cart.total": PRICE * len(cart)})


@app.get("/healthz")
def healthz() -> str:
    """A probe."""
    return "ok"


@app.get("/products")
def products() -> Any:
    """List what is for sale."""
    return jsonify(products=["tea", "pot", "cup"])


@app.post("/cart/<name>")
def add_to_cart(name: str) -> Any:
    """Put a product into the cart."""
    session["cart"] = [*session.get("cart", []), name]
    return jsonify(cart=session["cart"])


@app.get("/cart")
def cart() -> Any:
    """Show the cart."""
    describe_cart(session.get("cart", []))
    return jsonify(cart=session.get("cart", []))


@app.get("/poll")
def poll() -> Any:
    """A page polls this every few seconds; it must not become an event."""
    return jsonify(news=[])


@app.post("/orders")
def order() -> Any:
    """Pay."""
    describe_cart(session.pop("cart", []))
    return jsonify(paid=True), 201
