"""A FastAPI shop: a dependency says who acts, and everything in the request belongs to that user.

OTEL_EXPORTER_AMPLITUDE_API_KEY=… uvicorn fastapi_app:app
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, FastAPI, Header
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

import otel_amplitude
from otel_amplitude.frameworks.asgi import FlushOnShutdown


def who(x_customer: Annotated[str, Header()]) -> str:  # runs in a thread; the request learns it all the same
    otel_amplitude.set_user(x_customer)
    return x_customer


otel_amplitude.configure(event_name="route")  # `GET /products/{name}` instead of `HTTP Request`
app = FastAPI(dependencies=[Depends(who)])
# uvicorn skips exit hooks when it is stopped, so the application's own shutdown delivers what is pending.
app.add_middleware(FlushOnShutdown, client=otel_amplitude.get_instance)
FastAPIInstrumentor.instrument_app(app)
tracer = trace.get_tracer("shop")


@app.get("/products/{name}")
async def product(name: str) -> dict[str, str]:
    return {"name": name, "price": "12.50"}


@app.post("/orders")
async def order() -> dict[str, bool]:
    with tracer.start_as_current_span("pay") as span:
        span.set_attributes({"amplitude.event_type": "Order Paid", "amplitude.revenue": 12.5})
    return {"paid": True}
