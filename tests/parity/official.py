"""Makes the calls of a JSON file with Amplitude's own client for Python, unchanged; prints what the client said about each."""

import json
import logging
import sys
import threading
from typing import Any

from amplitude import Amplitude, BaseEvent, Config, EventOptions, Identify, IngestionMetadata, Plan, Revenue

logging.disable(logging.CRITICAL)  # it tells about every event
METHODS = {"setOnce": "set_once", "preInsert": "pre_insert", "postInsert": "post_insert", "clearAll": "clear_all"}
KEYS = {"productId": "product_id", "revenueType": "revenue_type", "receiptSig": "receipt_sig"}


def identify_of(operations: list[list[Any]]) -> Identify:
    made = Identify()
    for name, *values in operations:
        getattr(made, METHODS.get(name, name))(*values)
    return made


def event_of(given: dict[str, Any], user: str | None) -> BaseEvent:
    fields = {KEYS.get(name, name): value for name, value in given.items()}
    if "plan" in fields:
        plan = dict(fields["plan"])
        fields["plan"] = Plan(version_id=plan.pop("versionId", None), **plan)
    if "ingestion_metadata" in fields:
        fields["ingestion_metadata"] = IngestionMetadata(**fields["ingestion_metadata"])
    event = BaseEvent(fields.pop("event_type", None), user_id=user)
    for name, value in fields.items():
        event[name] = value
    return event


def make(client: Amplitude, call: dict[str, Any]) -> None:
    person = EventOptions(user_id=call["user"])
    if call["call"] == "identify":
        client.identify(identify_of(call["operations"]), person)
    elif call["call"] == "set_group":
        client.set_group(*call["group"], person)
    elif call["call"] == "group_identify":
        client.group_identify(*call["group"], identify_of(call["operations"]), person)
    elif call["call"] == "revenue":
        client.revenue(Revenue(**{"price": None, **{KEYS.get(name, name): value for name, value in call["revenue"].items()}}), person)
    else:
        client.track(event_of(call["event"], call["user"]))


given = json.load(sys.stdin)
said = {}
for each in given["calls"]:
    told = threading.Event()

    def tell(_event: Any, code: int, _message: Any, *, name: str = each["name"], told: threading.Event = told) -> None:
        said[name] = str(code)
        told.set()

    config = Config(server_url=given["url"], flush_interval_millis=1, flush_max_retries=2, callback=tell)
    client = Amplitude("some-key", config)
    said[each["name"]] = "nothing"
    try:
        make(client, each)
    except Exception as error:
        said[each["name"]] = f"raised {type(error).__name__}"
    else:
        told.wait(1 if each["silent"] else 20)
    client.shutdown()
print(json.dumps({"said": said}))
