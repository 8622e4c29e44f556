"""A shop on Tornado; of Amplitude it knows `set_user` and one annotation."""

from __future__ import annotations

import asyncio
import sys

from opentelemetry import trace
from tornado.web import Application, RequestHandler

from otel_amplitude import set_user

tracer = trace.get_tracer("shop")


class Plain(RequestHandler):
    def prepare(self) -> None:
        if "X-Customer" in self.request.headers:
            set_user(self.request.headers["X-Customer"])

    def get(self, pid: str = "") -> None:
        self.write("ok")

    def post(self) -> None:
        self.write("ok")


class Orders(Plain):
    def post(self) -> None:
        with tracer.start_as_current_span("pay") as span:
            span.set_attribute("amplitude.event_type", "Order Paid")
        self.write("paid")


class Stream(RequestHandler):
    async def get(self) -> None:
        for number in range(3):
            self.write(f"piece {number}\n")
            await self.flush()


class Boom(RequestHandler):
    def get(self) -> None:
        raise ValueError("boom")


async def main() -> None:
    app = Application(
        [
            (r"/products/(?P<pid>\d+)", Plain),
            (r"/login", Plain),
            (r"/orders", Orders),
            (r"/stream", Stream),
            (r"/healthz", Plain),
            (r"/boom", Boom),
        ]
    )
    app.listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
