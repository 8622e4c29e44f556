"""Celery, called from Flask: a task that runs in the request, and one that a worker runs."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import places
from celery import Celery, signals
from flask import Flask, request
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from places import at, visit_of

from otel_amplitude.frameworks import celery as celery_glue
from otel_amplitude.frameworks import flask as flask_glue

_OUT, _IN, _CONTROL = (Path(os.environ["BROKER"]) / name for name in ("out", "in", "control"))
_publishing = threading.Lock()
tasks = Celery("visits", broker="filesystem://")
_folders = {"data_folder_in": str(_IN), "data_folder_out": str(_OUT), "control_folder": str(_CONTROL)}
tasks.conf.update(broker_connection_retry_on_startup=True, broker_transport_options={**_folders, "polling_interval": 0.01})
_connect = [CeleryInstrumentor().instrument]
if places.GLUE:
    _connect.insert(0 if os.environ["APPLICATION"] == "glue first" else 1, celery_glue.instrument)
for each in _connect:
    each()


@tasks.task(name="eager")
def eager(query: str) -> None:
    at("eager task", query)


@tasks.task(name="queued")
def queued(query: str, said: bool) -> None:
    visit_of(query).said = said
    at("queued task", query)


app = Flask("visits")
if places.GLUE:
    flask_glue.instrument(app)
FlaskInstrumentor().instrument_app(app)


@app.get("/<path>")
def view(path: str) -> str:
    query = request.query_string.decode()
    at("view", query)
    eager.apply((query,))
    with _publishing:  # the transport's reader stumbles over files that are still being written, so it gets whole ones
        queued.delay(query, visit_of(query).said)
        for message in _OUT.iterdir():
            message.rename(_IN / message.name)
    return "ok"


if "worker" in sys.argv:
    signals.worker_process_init.connect(
        lambda **_: places.serve_books(), weak=False, dispatch_uid="books"
    )  # in the child that runs the tasks
else:
    places.serve_books()
