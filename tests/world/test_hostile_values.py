"""Values that have no end, and values that raise: `log_event` returns at once, and nothing reaches the application.

Reported for other SDKs: https://github.com/langfuse/langfuse-python/issues/1655 and /pull/1577 (a serializer that never returns),
https://github.com/getsentry/sentry-python/issues/469 (a mapping with code of its own).
"""

from __future__ import annotations

import collections.abc
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.context import attach, detach

from otel_amplitude.client import Amplitude
from otel_amplitude.config import Config
from otel_amplitude.errors import interrupts
from otel_amplitude.events import Identify
from otel_amplitude.identity import AmplitudePropagator
from otel_amplitude.middleware import Redact
from otel_amplitude.testing import FakeTransport

KEY = "0123456789abcdef0123456789abcdef"
OK = {"event_type": "Order Paid", "user_id": "user-12345"}


def shared(depth: int = 30) -> Any:
    """31 lists with 10^30 leaves."""
    held: Any = ["leaf"]
    for _ in range(depth):
        held = [held] * 10
    return held


class Endless(collections.abc.Mapping):
    def __getitem__(self, _key: object) -> object:
        return self

    def __iter__(self) -> Iterator[str]:
        number = 0
        while True:
            yield f"key{number}"
            number += 1

    def __len__(self) -> int:
        return 3


class Classless:
    @property
    def __class__(self) -> Any:
        raise RuntimeError("of the application")


class Exits:
    def __str__(self) -> str:
        raise SystemExit(3)

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, _other: object) -> bool:
        raise SystemExit(4)


class ExitsAsText(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise SystemExit(5)

    def strip(self, *_: Any) -> str:
        raise SystemExit(6)


HUGE = "x" * 1_000_000
HOSTILE = {
    "shared lists": shared(),
    "a shared long text": {f"key{number}": HUGE for number in range(1_000)},
    "a list of a shared long text": [HUGE] * 1_000,
    "a mapping without end": Endless(),
    "an object whose class raises": Classless(),
    "an object whose text exits": Exits(),
    "a text that exits": ExitsAsText("user-12345"),
}
PLACES = (
    "event_properties",
    "user_properties",
    "groups",
    "group_properties",
    "plan",
    "price",
    "user_id",
    "time",
    "event_type",
    "insert_id",
    "session_id",
    "unknown_key",
)


@pytest.fixture
def client() -> Iterator[Amplitude]:
    made = Amplitude(Config(KEY, transport=FakeTransport()))
    yield made
    made.shutdown(5)
    assert made.stats().balanced


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """What has no end would not end: far more time than any of these needs."""
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < 20


def is_answer(outcome: str) -> bool:
    return outcome in ("pending", "refused")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_value_reaches_no_application(client: Amplitude, caplog: pytest.LogCaptureFixture, place: str, name: str) -> None:
    """Wherever it stands, as the value and inside a map; the lines about it stay short."""
    caplog.set_level(logging.DEBUG)
    value = HOSTILE[name]
    assert is_answer(client.log_event({**OK, place: value}).outcome)
    assert is_answer(client.log_event({**OK, place: {"name": value}}).outcome)
    assert is_answer(client.log_event({**OK, place: {"name": [value, {"inner": value}]}}).outcome)
    assert all(len(record.getMessage()) < 2_000 for record in caplog.records)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_value_as_the_event_itself(client: Amplitude, name: str) -> None:
    """The event, the data for middleware, an operation of Identify."""
    value: Any = HOSTILE[name]
    assert is_answer(client.log_event(value).outcome)
    assert is_answer(client.log_event(OK, value).outcome)
    assert is_answer(client.identify("user-12345", None, Identify().set("name", value)).outcome)
    assert is_answer(client.identify(value, value, Identify().add("name", value)).outcome)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_value_inside_a_request(client: Amplitude, name: str) -> None:
    """There the identity of the request is asked as well."""
    token = attach(AmplitudePropagator({}).extract({}))
    try:
        for place in ("user_id", "device_id"):
            assert is_answer(client.log_event({**OK, place: HOSTILE[name]}).outcome)
    finally:
        detach(token)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_value_passes_redaction(name: str) -> None:
    """Redaction looks into every value."""
    client = Amplitude(Config(KEY, transport=FakeTransport(), middleware=[Redact(patterns=["secret"])]))
    assert is_answer(client.log_event({**OK, "event_properties": {"name": HOSTILE[name]}}).outcome)
    client.shutdown(5)


@pytest.mark.parametrize("depth", [2, 5, 39, 41, 300])
@pytest.mark.parametrize(
    "step", [lambda below: [below] * 7, lambda below: {"a": below, "b": below}, lambda below: [{"a": below, "b": [below] * 3}]]
)
def test_a_shared_structure_is_bounded(client: Amplitude, depth: int, step: Callable[[Any], Any]) -> None:
    """Lists and maps that hold the one below several times, beyond the depth that Amplitude takes and beyond that of the encoder."""
    held: Any = 1
    for _ in range(depth):
        held = step(held)
    assert is_answer(client.log_event({**OK, "event_properties": {"name": held}}).outcome)


def test_a_signal_still_ends_the_process() -> None:
    """`SystemExit` of a signal handler that runs while a value is read is the application's end, not the value's."""

    class Signals(collections.abc.Mapping[str, str]):
        def __getitem__(self, key: str) -> str:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0)
            return "text"

        def __iter__(self) -> Iterator[str]:
            return iter(["key"])

        def __len__(self) -> int:
            return 1

    def leave(*_: object) -> None:
        raise SystemExit(0)

    before = signal.signal(signal.SIGUSR1, leave)
    client = Amplitude(Config(KEY, transport=FakeTransport(), log_level="NONE"))
    try:
        with pytest.raises(SystemExit):
            client.log_event({**OK, "event_properties": {"name": Signals()}})
    finally:
        signal.signal(signal.SIGUSR1, before)
        client.shutdown(5)


def test_ctrl_c_always_interrupts() -> None:
    """Wherever it comes from."""
    assert interrupts(KeyboardInterrupt())
    assert not interrupts(SystemExit())
    assert not interrupts(ValueError())
