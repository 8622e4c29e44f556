"""413 for one event alone: certain or sent again."""

from __future__ import annotations

import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_amplitude.client import Amplitude
from otel_amplitude.config import Config
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.receipt import Verdict
from otel_amplitude.limits import MAX_EVENT_BYTES
from otel_amplitude.testing import FakeTransport, answer
from otel_amplitude.transport import Request, Response
from otel_amplitude.wire._answers import read_receipt
from otel_amplitude.wire._too_large import TooLarge

KEY = "0123456789abcdef0123456789abcdef"
EVENT = Parcel(b'{"event_type":"Order Paid"}', ("user-1",), 0)
OTHER = Parcel(b'{"event_type":"Cart Viewed"}', ("user-2",), 0)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def refusals_until_final(known: TooLarge, *, most: int = 100) -> int:
    """How often `EVENT` must be refused alone until it is rejected."""
    return next(count for count in range(1, most) if known.refused(EVENT) is None)


def test_an_event_above_every_limit_is_rejected_at_once() -> None:
    """No request with more than 64 KB of one event is ever taken."""
    assert TooLarge().refused(Parcel(b" " * (MAX_EVENT_BYTES + 1), ("user-1",), 0)) is None


def test_one_refusal_is_not_final() -> None:
    """The event waits with its ids, uncharged, and nobody else does."""
    found = read_receipt(Response(413, {}, b"<html>nginx</html>"), [EVENT])
    (outcome,) = found.outcomes
    assert (outcome.verdict, outcome.reason, outcome.charged, outcome.hold) == (Verdict.RETRY, "too_large", False, 0.05)
    assert not found.server_fault


def test_a_server_that_takes_everything_else_is_believed_soon() -> None:
    """The more other requests pass meanwhile, the fewer refusals are needed."""
    known = TooLarge()
    known.refused(EVENT)
    for _ in range(100):
        known.acknowledged([OTHER])
    assert refusals_until_final(known) == 2


def test_a_server_that_refuses_half_of_all_single_events_is_believed_late() -> None:
    """Then a few refusals in a row are chance."""
    known = TooLarge()
    for _ in range(9):
        assert known.refused(EVENT) is not None
        known.refused(OTHER)
        known.acknowledged([OTHER])


def test_an_acknowledged_event_starts_again() -> None:
    """What was refused before counts no longer."""
    known = TooLarge()
    assert [known.refused(EVENT), known.refused(EVENT)] == [0.05, 0.1]
    known.acknowledged([EVENT])
    assert known.refused(EVENT) == 0.05


def test_nothing_is_final_while_nothing_is_acknowledged() -> None:
    """A server that refuses everything is at fault, not the event: all wait, and one request probes. After ten minutes it is final."""
    clock = Clock()
    known = TooLarge(clock)
    receipts = [read_receipt(Response(413, {}, b""), [EVENT], too_large=known) for _ in range(30)]
    assert [found.server_fault for found in receipts] == [False] * 4 + [True] * 26
    assert all(found.outcomes[0].verdict is Verdict.RETRY and not found.outcomes[0].charged for found in receipts)
    clock.now = 600.0
    assert read_receipt(Response(413, {}, b""), [EVENT], too_large=known).outcomes[0].verdict is Verdict.REJECTED


@given(st.lists(st.sampled_from(["refused", "other refused", "other taken"]), max_size=60))
def test_an_event_is_never_rejected_for_what_chance_explains(answers: list[str]) -> None:
    """Whatever the order of answers: never before the third refusal, and never without an acknowledgement since the first."""
    known = TooLarge(Clock())
    refused = taken = 0
    for each in answers:
        if each == "refused":
            refused += 1
            if known.refused(EVENT) is None:
                assert refused >= 3
                assert taken
                return
        elif each == "other refused":
            known.refused(OTHER)
        else:
            known.acknowledged([Parcel(b"{}", ("user-3",), 0)])
            taken += bool(refused)


def test_what_is_remembered_is_bounded() -> None:
    """Refused events of a long outage do not fill the memory."""
    known = TooLarge()
    for number in range(1_100):
        known.refused(Parcel(b"%d" % number, ("user-1",), 0))
    assert len(known._refused) <= 1_001


class NowAndThen(FakeTransport):
    """A proxy that answers 413 now and then, whatever the size."""

    def __init__(self, refuses: object) -> None:
        super().__init__(self._judge)
        self._refuses = iter(refuses)  # type: ignore[call-overload]
        self._one = threading.Lock()

    def _judge(self, _request: Request) -> Response:
        with self._one:
            return answer(413 if next(self._refuses) else 200)


def alternating() -> object:
    while True:
        yield True
        yield False


def by_chance() -> object:
    chance = random.Random(5)
    while True:
        yield chance.random() < 0.3


@pytest.mark.parametrize("refuses", [alternating, by_chance])
def test_a_proxy_that_answers_413_now_and_then_loses_no_event(refuses: object) -> None:
    """Fault matrix, row 17b: 365 of 1,000 small events were rejected."""
    transport = NowAndThen(refuses())  # type: ignore[operator]
    client = Amplitude(Config(KEY, transport=transport, max_batch_events=50, upload_interval=0.05, log_level="NONE"))
    for number in range(300):
        client.log_event({"event_type": "t", "device_id": f"device-{number % 50:04d}"})
    assert client.flush(60)
    books = client.stats()
    client.shutdown(1)
    assert (books.acknowledged, books.rejected, books.dropped) == (300, {}, {})
