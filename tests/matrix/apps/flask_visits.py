"""Flask: an application factory that instruments last, as in most of them."""

from __future__ import annotations

import threading

import places
from flask import Flask, Response, copy_current_request_context, request
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from places import Body, at, in_threads

app = Flask("visits")
if places.GLUE:
    from otel_amplitude.frameworks.flask import instrument

    instrument(app)
app.before_request(lambda: at("early hook", request.query_string))
FlaskInstrumentor().instrument_app(app)
app.before_request(lambda: at("hook", request.query_string))


@app.after_request
def after(response: Response) -> Response:
    at("after hook", request.query_string)
    return response


@app.teardown_request
def teardown(_error: BaseException | None) -> None:
    if threading.current_thread() is not request.environ["helper"]:  # Flask runs it for each copy of the context as well
        at("teardown", request.query_string)


@app.get("/<path>")
def view(path: str) -> Response:
    query = request.query_string
    at("view", query)
    in_threads(query)
    thread = threading.Thread(target=copy_current_request_context(lambda: at("thread, request context", query)))
    request.environ["helper"] = thread
    thread.start()
    thread.join()
    response = Response(Body(query))
    response.call_on_close(lambda: at("call_on_close", query))
    return response


places.serve_books()
