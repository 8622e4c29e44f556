"""A function as AWS Lambda calls it: the process is frozen after each call, so each call delivers its events before it answers.

OTEL_EXPORTER_AMPLITUDE_API_KEY=… python lambda_handler.py     # calls it twice, as the platform would
"""

from __future__ import annotations

import json
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind

import otel_amplitude

amplitude = otel_amplitude.configure(upload_interval=0.0)  # once for each process, outside the handler
tracer = trace.get_tracer("checkout")


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    # opentelemetry-instrumentation-aws-lambda makes this span for you, and flushes our processor as well.
    with tracer.start_as_current_span("checkout", kind=SpanKind.SERVER) as span:
        otel_amplitude.set_user(event["requestContext"]["authorizer"]["principalId"])
        order = json.loads(event["body"])
        span.set_attributes({"amplitude.event_type": "Order Paid", "cart.total": order["total"], "cart.items": order["items"]})
    settled = amplitude.flush(timeout=2.0)  # bounded: the caller waits for us. What is not settled is sent by a later call.
    return {"statusCode": 200, "body": json.dumps({"settled": settled})}


if __name__ == "__main__":
    for number in (1, 2):
        request = {"requestContext": {"authorizer": {"principalId": "u-12345"}}, "body": json.dumps({"total": 12.5, "items": number})}
        print(handler(request, None))
