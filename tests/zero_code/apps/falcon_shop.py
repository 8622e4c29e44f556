"""A shop in Falcon; of Amplitude it knows `set_user` in a middleware, and one annotation."""

from __future__ import annotations

import falcon
from opentelemetry import trace

from otel_amplitude import set_user

tracer = trace.get_tracer("shop")


class Who:
    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        if req.get_header("X-Customer"):
            set_user(req.get_header("X-Customer"))


class Plain:
    def on_get(self, req: falcon.Request, resp: falcon.Response, **values: object) -> None:
        resp.text = "ok"

    on_post = on_get


class Orders:
    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        with tracer.start_as_current_span("pay") as span:
            span.set_attribute("amplitude.event_type", "Order Paid")
        resp.text = "paid"


class Stream:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        resp.stream = (f"piece {number}\n".encode() for number in range(3))


class Boom:
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        raise ValueError("boom")


app = falcon.App(middleware=[Who()])
app.add_route("/products/{pid:int}", Plain())
app.add_route("/login", Plain())
app.add_route("/orders", Orders())
app.add_route("/stream", Stream())
app.add_route("/healthz", Plain())
app.add_route("/boom", Boom())
