"""Falcon; its glue is that of any WSGI application."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import falcon
import places
from opentelemetry.instrumentation.falcon import FalconInstrumentor
from places import Body, at, in_threads

FalconInstrumentor().instrument()


class Hook:
    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        at("hook", req.query_string)

    def process_response(self, req: falcon.Request, resp: falcon.Response, resource: object, succeeded: bool) -> None:
        at("after hook", req.query_string)


class Page:
    def on_get(self, req: falcon.Request, resp: falcon.Response, path: str) -> None:
        at("view", req.query_string)
        in_threads(req.query_string)
        resp.stream = Body(req.query_string)


_falcon = falcon.App(middleware=[Hook()])
_falcon.add_route("/{path}", Page())


def app(environ: dict[str, object], start_response: Callable[..., object]) -> Iterable[bytes]:
    at("early WSGI hook", environ["QUERY_STRING"])
    return _falcon(environ, start_response)


if places.GLUE:
    from otel_amplitude.frameworks.wsgi import AmplitudeMiddleware

    app = AmplitudeMiddleware(app)
places.serve_books()
