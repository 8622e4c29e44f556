"""Product events out of structlog: a log line that is an event is written like any other, with one bound word more.

    OTEL_EXPORTER_AMPLITUDE_API_KEY=… python structlog_events.py

structlog hands its lines to the standard library, OpenTelemetry's handler makes log records of them, and those with an event
name become events. The other lines stay what they were.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

import structlog
from opentelemetry.instrumentation.logging.handler import LoggingHandler

import otel_amplitude


def name_product_events(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A line with `product=True` is an event of the line's own name."""
    if line.pop("product", False):
        line["otel.event.name"] = line["event"]
    return line


def main() -> None:
    amplitude = otel_amplitude.configure()
    logging.basicConfig(level=logging.INFO, handlers=[logging.StreamHandler(), LoggingHandler()], format="%(message)s")
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, name_product_events, structlog.stdlib.render_to_log_kwargs],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    log = structlog.get_logger("shop").bind(currency="EUR")

    otel_amplitude.set_user("u-12345")
    log.info("cache warmed", keys=120)  # a log line, no event
    log.info("Order Paid", product=True, total=12.5)
    log.info("Coupon Used", product=True, coupon="TEA")
    amplitude.flush()


if __name__ == "__main__":
    main()
