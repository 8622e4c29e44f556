"""A Flask shop under gunicorn with several workers and a spool: an accepted event survives `kill -9`.

    OTEL_EXPORTER_AMPLITUDE_API_KEY=… SPOOL_DIR=/var/lib/shop/amplitude gunicorn -c gunicorn.conf.py shop:app

The client is made in the master, before the workers are forked; nothing is opened or started before a worker has its first event.
Each worker writes to a directory of its own; what a dead one left behind is taken over by the next.
"""

from __future__ import annotations

import os

from flask import Flask, jsonify, request
from opentelemetry.instrumentation.flask import FlaskInstrumentor

import otel_amplitude

amplitude = otel_amplitude.configure(spool_dir=os.environ["SPOOL_DIR"])
app = Flask(__name__)
FlaskInstrumentor().instrument_app(app)


@app.post("/orders")
def order() -> str:
    otel_amplitude.set_user(request.headers["X-Customer"])
    return "ordered\n"


@app.get("/healthz")
def books() -> object:  # what an SRE wants to know, also good for an alert
    stats = amplitude.stats()
    return jsonify(pid=os.getpid(), accepted=stats.accepted, adopted=stats.adopted, pending=stats.pending.total)
