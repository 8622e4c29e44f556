"""A shop in Flask whose handlers log: by the standard library, by structlog, and by OpenTelemetry's own API; root logger at DEBUG."""

from __future__ import annotations

import logging
import time

import structlog
from flask import Flask
from opentelemetry._logs import get_logger, get_logger_provider

import otel_amplitude
from otel_amplitude.identity import make_cookie

logging.basicConfig(level=logging.DEBUG)
structlog.configure(
    processors=[structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
)
app = Flask(__name__)
standard, structured, direct = logging.getLogger("shop"), structlog.get_logger("shop.structured"), get_logger("shop")


@app.get("/trial")
def trial() -> str:
    standard.info("somebody signed up", extra={"otel.event.name": "Signed Up", "plan": "pro"})
    structured.info("a trial began", plan="pro", days=14, **{"otel.event.name": "Trial Started"})
    direct.emit(event_name="Seat Added", attributes={"seats": 3})
    standard.warning("only a line, of nobody's interest")
    direct.emit(event_name="gen_ai.client.inference.operation.details", attributes={"gen_ai.prompt": "s3cret"})
    direct.emit(event_name="session.start", attributes={"session.id": "s3cret"})
    return "ok"


def main() -> None:
    cookie = make_cookie("0123456789abcdef", "browser-1-device", "customer-1", 1_700_000_000_000)
    assert app.test_client(use_cookies=False).get("/trial", headers={"Cookie": cookie}).status_code == 200
    standard.info("outside of any request", extra={"otel.event.name": "Nobody Did This"})
    client = otel_amplitude.get_instance()
    begun = time.monotonic()
    flushed = [client.flush(10), client.flush(10)]
    accepted = client.stats().accepted
    flushed += [get_logger_provider().force_flush(10_000), client.flush(10)]
    more, soon = client.stats().accepted - accepted, time.monotonic() - begun < 8
    print(f"flushed {flushed} more {more} soon {soon}\n", end="", flush=True)  # in one piece: the sender's thread logs to the same file


if __name__ == "__main__":
    main()
