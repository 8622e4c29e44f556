"""Every use that Amplitude's middleware page shows, in one shop: run it, and read what arrived.

    python examples/middleware_catalogue.py

Events go to a sandbox that this program starts, or to OTEL_EXPORTER_AMPLITUDE_SERVER_URL where that is set.
Needs `pip install otel-amplitude jsonschema amplitude-analytics`, the last two only for what they show.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

import jsonschema
from amplitude import BaseEvent, EventPlugin, PluginType

import otel_amplitude
from otel_amplitude import Next, Payload
from otel_amplitude.middleware import Enrich, Filter, GroupsFromExtra, Plugin, Redact
from otel_amplitude.sandbox import Sandbox

DEVELOPMENT = os.environ.get("SHOP_ENVIRONMENT", "development") == "development"
SCHEMAS = {
    "Order Paid": {
        "type": "object",
        "required": ["total"],
        "properties": {"total": {"type": "number", "minimum": 0}},
    }
}


def validate(payload: Payload, next: Next) -> None:
    """Schema validation: in development an invalid event is stopped, in production it is only told."""
    try:
        jsonschema.validate(payload.event.event_properties, SCHEMAS.get(payload.event.event_type or "", {}))
    except jsonschema.ValidationError as error:
        print(f"schema: {payload.event.event_type}: {error.message}")
        if DEVELOPMENT:
            return  # without next() the event goes no further, counted as `middleware`
    next(payload)


def modify(payload: Payload, next: Next) -> None:
    """Modify properties: amounts in cents, as the analysts like them."""
    properties = payload.event.event_properties
    if "total" in properties:
        properties["total_cents"] = round(properties.pop("total") * 100)
    next(payload)


def add_device_id(payload: Payload, next: Next) -> None:
    """Add a missing device id: a till has no browser, but a name that the caller hands over."""
    if payload.event.device_id is None and "till" in payload.extra:
        payload.event.device_id = f"till-{payload.extra['till']}"
    next(payload)


class SendElsewhere:
    """Send to a third party: a copy, after personal data is gone. A real one puts it on a queue, since this runs in the request."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def __call__(self, payload: Payload, next: Next) -> None:
        """Copy what may be shared, pass the event on."""
        if payload.extra.get("share", True):
            self.sent.append(dict(payload.event))
        next(payload)


class Shouting(EventPlugin):
    """A plugin written for `amplitude-analytics`, used as it is."""

    def __init__(self) -> None:
        super().__init__(PluginType.ENRICHMENT)

    def execute(self, event: BaseEvent) -> BaseEvent:
        """Write cities in capitals."""
        event["city"] = event.city.upper() if event.city else None
        return event


def shop(amplitude: otel_amplitude.Amplitude) -> None:
    """What the application does; it knows nothing of the middleware but `extra`."""
    amplitude.log_event(
        {
            "event_type": "Order Paid",
            "user_id": "u-12345",
            "city": "Vík",
            "event_properties": {"total": 12.5, "email": "zoe@example.org", "note": "call zoe@example.org"},
        },
        {"groups": {"org": "acme"}, "till": 7},
    )
    amplitude.log_event({"event_type": "Order Paid", "user_id": "u-12345", "event_properties": {"total": "free"}})
    amplitude.log_event({"event_type": "Health Check", "user_id": "u-monitor"})
    amplitude.log_event({"event_type": "Page Seen", "user_id": "u-12345"}, {"share": False})


def main() -> None:
    with contextlib.ExitStack() as stack:
        sandbox = None
        if "OTEL_EXPORTER_AMPLITUDE_SERVER_URL" not in os.environ:
            sandbox = stack.enter_context(Sandbox())
            os.environ["OTEL_EXPORTER_AMPLITUDE_SERVER_URL"] = f"{sandbox.url}/2/httpapi"
            os.environ.setdefault("OTEL_EXPORTER_AMPLITUDE_API_KEY", "0123456789abcdef0123456789abcdef")
        elsewhere = SendElsewhere()
        amplitude = otel_amplitude.init()
        for middleware in (
            Filter(lambda event: event.event_type != "Health Check"),  # filter
            validate,
            modify,
            Redact(keys=["email"], patterns=[r"[^@\s]+@[^@\s]+"], hash_with=os.environ.get("SHOP_SECRET", "a secret")),  # obfuscate
            add_device_id,
            GroupsFromExtra(),  # event-level groups
            Enrich(shop="Reykjavík"),
            Plugin(Shouting()),
            elsewhere,  # last: it gets what Amplitude gets
        ):
            amplitude.add_event_middleware(middleware)
        shop(amplitude)
        print("everything settled:", amplitude.shutdown(timeout=10))
        print("books:", amplitude.stats())
        print("sent elsewhere:", [event["event_type"] for event in elsewhere.sent])
        for event in sandbox.events() if sandbox else ():
            print(json.dumps(event, ensure_ascii=False, indent=2))


if __name__ == "__main__":
    main()
