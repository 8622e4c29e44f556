"""A service that knows nothing of Amplitude; `otel.yaml` beside it says everything.

    OTEL_CONFIG_FILE=otel.yaml AMPLITUDE_API_KEY=… opentelemetry-instrument python app.py

It needs the package opentelemetry-configuration.
"""

from __future__ import annotations

from opentelemetry import trace


def main() -> None:
    with trace.get_tracer("shop").start_as_current_span("pay") as span:
        span.set_attributes({"amplitude.event_type": "Order Paid", "amplitude.user_id": "u-12345", "cart.total": 12.5})
    print("paid")


if __name__ == "__main__":
    main()
