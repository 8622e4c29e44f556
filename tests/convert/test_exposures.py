"""Feature flag evaluations as exposures."""

from __future__ import annotations

from typing import Any

import pytest
from convert.recorded import ALICE, SHOP, START, log, span
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_amplitude.convert import Choice, Converter, Selector
from otel_amplitude.convert._exposures import Exposures
from otel_amplitude.identity import Identity

FLAG = {"feature_flag.key": "new-cart", "feature_flag.result.variant": "on"}
DAY = 86_400_000


def seen(exposures: Exposures, attributes: dict[str, Any] = FLAG, identity: Identity = ALICE, time_ms: int = 20 * DAY) -> str | None:
    """The insert_id of what came of one evaluation."""
    event = exposures.event(attributes, identity, time_ms, {})
    return None if event is None else event["insert_id"]


def test_once_for_each_user_flag_variant_and_day() -> None:
    """The same again is nothing; another of any of them is."""
    exposures = Exposures()
    assert seen(exposures)
    assert seen(exposures) is None
    assert seen(exposures, time_ms=20 * DAY + DAY - 1) is None
    assert seen(exposures, time_ms=21 * DAY)
    assert seen(exposures, {**FLAG, "feature_flag.key": "other"})
    assert seen(exposures, {**FLAG, "feature_flag.result.variant": "off"})
    assert seen(exposures, identity=Identity(device_id="device-2"))


def test_what_is_forgotten_comes_again_under_the_same_id() -> None:
    """Memory is bounded; Amplitude ignores what it knows by its insert_id."""
    exposures = Exposures(most=2)
    first = seen(exposures)
    for number in range(3):
        seen(exposures, {**FLAG, "feature_flag.key": f"flag-{number}"})
    assert seen(exposures) == first == seen(Exposures())


@pytest.mark.parametrize(
    ("attributes", "identity"),
    [
        ({"feature_flag.key": "new-cart"}, ALICE),
        ({"feature_flag.result.variant": "on"}, ALICE),
        (FLAG, Identity()),
        ({"feature_flag.key": []}, ALICE),
    ],
)
def test_no_variant_or_nobody_is_no_exposure(attributes: dict[str, Any], identity: Identity) -> None:
    """An evaluation that failed exposed nobody to anything."""
    assert seen(Exposures(), attributes, identity) is None


def test_variants_that_are_no_text_are_written_as_text() -> None:
    """A boolean flag has the variants true and false."""
    event = Exposures().event({**FLAG, "feature_flag.result.variant": True}, ALICE, 1, {"service": "shop"})
    assert event is not None
    assert event["event_properties"] == {"service": "shop", "flag_key": "new-cart", "variant": "true"}


def test_a_repeated_log_record_says_so() -> None:
    """The reason word is counted; without the option the record is an event like any other that was chosen."""
    converter = Converter(exposures=True)
    record = log("feature_flag.evaluation", FLAG)
    choice = Choice("annotated", "$exposure")
    first = converter.log(record, SHOP, InstrumentationScope("shop"), choice, ALICE)
    assert not isinstance(first, str)
    assert first[0]["event_type"] == "$exposure"
    assert converter.log(record, SHOP, None, choice, ALICE) == "repeated"


def test_span_events_are_evaluations_too() -> None:
    """Only when asked for, and each once."""
    events = tuple({"name": "feature_flag.evaluation", "attributes": FLAG, "timestamp": START} for _ in range(2))
    item = span(events=(*events, {"name": "other"}))
    assert Converter().span_events(item, item.events, {}, ALICE) == []
    made = Converter(exposures=True).span_events(item, item.events, {}, ALICE)
    assert [event["event_type"] for event, _, _ in made] == ["$exposure"]
    assert Converter(exposures=True).reads_every_span
    assert Selector(exposures=True).span(item, {}) is None
