"""Tornado, on its own server."""

from __future__ import annotations

import asyncio
import sys

import places
import tornado.web
from opentelemetry.instrumentation.tornado import TornadoInstrumentor
from places import at, created_task, in_threads

TornadoInstrumentor().instrument()


class Page(tornado.web.RequestHandler):
    def initialize(self) -> None:
        at("early hook", self.request.query)

    def prepare(self) -> None:
        at("hook", self.request.query)

    async def get(self, path: str) -> None:
        query = self.request.query
        at("view", query)
        created_task(query, "after finish")
        in_threads(query)
        self.write("first, ")
        await self.flush()
        at("body", query)
        await self.finish("second")
        at("after finish", query)

    def on_finish(self) -> None:
        at("teardown", self.request.query)


async def main() -> None:
    places.serve_books()
    tornado.web.Application([(r"/(\w+)", Page)]).listen(int(sys.argv[1]), "127.0.0.1")
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
