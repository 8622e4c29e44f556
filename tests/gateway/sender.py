"""A Python service that knows nothing of Amplitude: its user is set on a child of each request's span, its SDK exports by OTLP over HTTP."""

from __future__ import annotations

import sys

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind

total = int(sys.argv[1])
provider = TracerProvider(resource=Resource({"service.name": "python-shop"}))
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), max_queue_size=2 * total + 1, max_export_batch_size=100))
tracer = provider.get_tracer("shop")
for number in range(total):
    with tracer.start_as_current_span("GET /cart", kind=SpanKind.SERVER) as request:
        request.set_attributes({"http.request.method": "GET", "http.route": f"/cart/{number}", "http.response.status_code": 200})
        with tracer.start_as_current_span("handler") as handler:
            handler.set_attribute("enduser.id", f"user-{number % 100:04d}")
print("flushed" if provider.force_flush(60_000) else "not flushed", flush=True)
provider.shutdown()
