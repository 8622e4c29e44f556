"""A shop in FastAPI; of Amplitude it knows `set_user` in a dependency that runs in a thread, and one annotation."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, Header
from fastapi.responses import StreamingResponse
from fastapi.staticfiles import StaticFiles
from opentelemetry import trace

from otel_amplitude import set_user

tracer = trace.get_tracer("shop")


def who(x_customer: Annotated[str | None, Header()] = None) -> None:
    if x_customer:
        set_user(x_customer)


app = FastAPI(dependencies=[Depends(who)])
app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))


@app.get("/products/{pid}")
async def product(pid: int) -> str:
    return f"product {pid}"


@app.post("/login")
async def login() -> str:
    return "welcome"


@app.post("/orders")
def order() -> str:
    with tracer.start_as_current_span("pay") as span:
        span.set_attribute("amplitude.event_type", "Order Paid")
    return "paid"


@app.get("/stream")
async def stream() -> StreamingResponse:
    def pieces() -> Iterator[str]:
        yield from (f"piece {number}\n" for number in range(3))

    return StreamingResponse(pieces())


@app.get("/slow")
def slow(until: Path) -> str:
    """Answer once the file is there."""
    print("slow began", flush=True)
    while not until.exists():
        time.sleep(0.01)
    return "done"


@app.get("/healthz")
async def healthz() -> str:
    return "ok"


@app.get("/boom")
async def boom() -> str:
    raise ValueError("boom")
