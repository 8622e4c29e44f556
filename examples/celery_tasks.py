"""A Celery task acts for the user who caused it: who it was travels in the task's headers, not in baggage.

    OTEL_EXPORTER_AMPLITUDE_API_KEY=… python celery_tasks.py

Broker and worker are in this process, so that the example runs alone. Tasks are events only when they say so.
"""

from __future__ import annotations

from celery import Celery
from celery.contrib.testing.worker import start_worker
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor

import otel_amplitude
from otel_amplitude.frameworks import celery as amplitude_celery

app = Celery("shop", broker="memory://", backend="cache+memory://")
amplitude = otel_amplitude.configure()
CeleryInstrumentor().instrument()
# In the application that sends and in the worker; the client is delivered when a worker process stops.
amplitude_celery.instrument(client=otel_amplitude.get_instance)


@app.task
def send_receipt(order: int) -> None:
    span = trace.get_current_span()
    span.set_attribute("amplitude.event_type", "Receipt Sent")
    span.set_attribute("amplitude.event_properties.order", order)


@app.task
def clean_up() -> None:
    """Not annotated, so no event: a nightly task must not make a user active at 3 am."""


def main() -> None:
    with start_worker(app, perform_ping_check=False):
        for number, customer in enumerate(("alice-1", "bob-22"), start=1):
            with trace.get_tracer("shop").start_as_current_span("order"):
                otel_amplitude.set_user(customer)
                send_receipt.delay(number).get(timeout=10)
                clean_up.delay().get(timeout=10)
        amplitude.flush()
    print(amplitude.stats())


if __name__ == "__main__":
    main()
