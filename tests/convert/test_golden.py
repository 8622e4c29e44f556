"""Golden files: one for each family of semantic conventions, items in and event out; every item of a file gives that same event.

A file holds `about`; `spans` or `logs` by a word; the `selector` and `converter` options, `resource` and `span_events` where they
differ from nothing; and `event` and `extra`, what must come out. To write these two again after an intended change, and review
the difference: `UPDATE_GOLDEN=1 pytest tests/convert/test_golden.py`.
"""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import pytest
from convert.recorded import ALICE, SHOP, log, span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_amplitude.convert import Choice, Converter, Selector
from otel_amplitude.convert._assembly import Converted
from otel_amplitude.events import check_event, encode_event

GOLDEN = Path(__file__).parent.parent / "golden"
CASES = sorted(GOLDEN.glob("*.json"))


def made_of_span(case: dict[str, Any], described: dict[str, Any]) -> Converted:
    """Event and extra of a described span, or of its one span event."""
    resource = Resource(case["resource"]) if "resource" in case else SHOP
    item = span(**described, resource=resource, events=tuple(case.get("span_events", ())))
    attributes = dict(item.attributes or {})
    converter = Converter(**case.get("converter", {}))
    if "span_events" in case:
        (made,) = converter.span_events(item, item.events, attributes, ALICE)
        return made
    choice = Selector(**case.get("selector", {})).span(item, attributes)
    assert isinstance(choice, Choice), choice
    result = converter.span(item, attributes, choice, ALICE)
    assert not isinstance(result, str)
    return result


def made_of_log(case: dict[str, Any], described: dict[str, Any]) -> Converted:
    """Event and extra of a described log record."""
    record = log(**described)
    choice = Selector(**case.get("selector", {})).log(record, "shop", SHOP)
    assert isinstance(choice, Choice), choice
    result = Converter(**case.get("converter", {})).log(record, SHOP, InstrumentationScope("shop"), choice, ALICE)
    assert not isinstance(result, str)
    return result


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_every_item_of_a_file_gives_its_event(path: Path) -> None:
    """Items in, event out; the event is one that Amplitude takes."""
    case = json.loads(path.read_text(encoding="utf-8"))
    made = {word: made_of_span(case, described) for word, described in case.get("spans", {}).items()}
    made |= {word: made_of_log(case, described) for word, described in case.get("logs", {}).items()}
    if os.environ.get("UPDATE_GOLDEN"):
        case["event"], case["extra"], _ = next(iter(made.values()))
        path.write_text(json.dumps(case, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    assert made
    for word, (event, extra, is_sound) in made.items():
        before = copy.deepcopy(event)
        assert check_event(event) == []
        assert event == before or not is_sound, "nobody checks a sound event"
        assert not is_sound or encode_event(event, is_plain=True) == encode_event(event)
        assert (json.loads(encode_event(event)), extra) == (case["event"], case["extra"]), word
