"""A shop that handles forty secrets, in Flask and in FastAPI, and puts them wherever applications put them.

    secret_shop.py flask|fastapi

Prints which places it used, never a secret.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from opentelemetry import trace
from opentelemetry._logs import get_logger
from opentelemetry.trace import SpanKind, Status, StatusCode

import otel_amplitude
from otel_amplitude.identity import make_cookie

handler = logging.StreamHandler()
handler.addFilter(lambda record: record.name.startswith(("otel_amplitude", "urllib3", "requests")))  # what is said because of us
logging.basicConfig(level=logging.DEBUG, handlers=[handler])
tracer, log, direct = trace.get_tracer("shop"), logging.getLogger("shop"), get_logger("shop")


def secret(place: str) -> str:
    """The secret of one place; the test knows the pattern."""
    places.append(place)
    return f"s3cret-{place.replace('.', '-')}"


places: list[str] = []
OWN = (
    "password",
    "userPassword",
    "api_key",
    "card.number",
    "cvv",
    "iban",
    "ssn",
    "customer.email",
    "phone",
    "auth.token",
    "csrf",
    "first_name",
)
TELEMETRY = (
    "db.statement",
    "db.query.text",
    "url.full",
    "http.request.body",
    "http.response.body",
    "enduser.scope",
    "user.email",
    "user.full_name",
    "gen_ai.prompt",
    "gen_ai.completion",
    "llm.prompts",
    "client.address",
    "exception.message",
    "messaging.message.body",
    "graphql.document",
    "process.command_line",
)


def act() -> None:
    """What the handler does: a payment that is an event, with a database call, a prompt, an exception, log lines."""
    with tracer.start_as_current_span("pay", attributes={"amplitude.event_type": "Order Paid", "cart.items": 3}) as span:
        for name in (*OWN, *TELEMETRY):
            span.set_attribute(name, secret(name))
        span.add_event("gen_ai.choice", {"message": secret("span-event")})
        span.record_exception(ValueError(secret("exception-text")))
        span.set_status(Status(StatusCode.ERROR, secret("status-text")))
    with tracer.start_as_current_span("SELECT", kind=SpanKind.CLIENT, attributes={"db.statement": secret("sql")}):
        pass
    log.info(
        "signed up with %s", secret("log-text"), extra={"otel.event.name": "Signed Up", "password": secret("log-extra"), "plan": "pro"}
    )
    direct.emit(event_name="Seat Added", body={"seats": 3, "token": secret("log-body")})
    try:
        raise RuntimeError(secret("log-exception"))  # noqa: TRY301 -- it is the point
    except RuntimeError:
        log.exception("it failed", extra={"otel.event.name": "Import Failed"})


HEADERS = {
    "Authorization": f"Bearer {secret('authorization')}",
    "X-Api-Key": secret("x-api-key"),
    "User-Agent": f"Mozilla/5.0 Firefox/140.0 {secret('user-agent')}",
    "Referer": f"https://shop.example/{secret('referer')}",
    "X-Forwarded-For": "203.0.113.99",
    "baggage": f"session={secret('baggage')}",
    "Cookie": f"session={secret('cookie')}; " + make_cookie("0123456789abcdef", "browser-1-device", "customer-1", 1_700_000_000_000),
}
PATH = f"/orders/{secret('path')}?token={secret('query')}&q=1"
FORM = f"card={secret('form')}&note=hello"


def flask() -> int:
    """One request in Flask."""
    from flask import Flask

    app = Flask(__name__)

    @app.post("/orders/<token>")
    def order(token: str) -> str:
        act()
        return "paid"

    kind = "application/x-www-form-urlencoded"
    return app.test_client(use_cookies=False).post(PATH, data=FORM, content_type=kind, headers=HEADERS).status_code


def fastapi() -> int:
    """One request in FastAPI."""
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    app = FastAPI()

    @app.post("/orders/{token}")
    def order(token: str) -> str:
        act()
        return "paid"

    headers: dict[str, Any] = {**HEADERS, "Content-Type": "application/x-www-form-urlencoded"}
    return TestClient(app).post(PATH, content=FORM, headers=headers).status_code


def main() -> None:
    assert {"flask": flask, "fastapi": fastapi}[sys.argv[1]]() == 200
    print(f"places {','.join(places)}\n", end="", flush=True)  # in one piece: the sender's thread logs to the same file
    otel_amplitude.get_instance().flush(2)


if __name__ == "__main__":
    main()
