"""The chain: each event comes out once or is refused once, whatever a middleware does."""

# ruff: noqa: A006 -- `next` is the word of Amplitude's SDKs

import functools
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_amplitude.errors import MiddlewareError
from otel_amplitude.events import Event
from otel_amplitude.middleware import Chain, Middleware, Next, Payload


class Ends:
    """Remembers what came through and what was refused."""

    def __init__(self) -> None:
        self.finished: list[Payload] = []
        self.refused: list[tuple[str, str, BaseException | None]] = []

    def chain(self, *middlewares: Middleware) -> Chain:
        return Chain(middlewares, self.finished.append, lambda *facts: self.refused.append(facts))


def payload(**extra: Any) -> Payload:
    """A good event on its way."""
    return Payload(Event(event_type="Order Paid", user_id="u-12345"), extra, None)


def mark(word: str) -> Middleware:
    """A middleware that writes its word before and after."""

    def marking(payload: Payload, next: Next) -> None:
        payload.extra.setdefault("words", []).append(f"+{word}")
        next(payload)
        payload.extra["words"].append(f"-{word}")

    return marking


def drop(payload: Payload, next: Next) -> None:
    """Keep it."""


def fail(payload: Payload, next: Next) -> None:
    """Break."""
    raise ValueError("broken redaction")


def fail_after(payload: Payload, next: Next) -> None:
    """Pass it on, then break."""
    next(payload)
    raise ValueError("too late")


def twice(payload: Payload, next: Next) -> None:
    """Pass it on twice."""
    next(payload)
    next(payload)


def other_twice(payload: Payload, next: Next) -> None:
    """Make two of one."""
    next(Payload(payload.event))
    next(Payload(payload.event))


def wrong(payload: Payload, next: Next) -> None:
    """Pass on the event alone."""
    next(payload.event)  # type: ignore[arg-type]


def test_no_middleware_is_a_straight_way() -> None:
    """The same payload comes out."""
    ends, given_payload = Ends(), payload()
    ends.chain()(given_payload)
    assert (ends.finished, ends.refused) == ([given_payload], [])


def test_middlewares_run_in_the_order_given() -> None:
    """The first sees the payload first, and again last; the end comes after all of them."""
    ends = Ends()
    ends.chain(mark("a"), mark("b"))(payload())
    assert ends.finished[0].extra["words"] == ["+a", "+b", "-b", "-a"]


def test_what_a_middleware_changes_comes_out() -> None:
    """The event may be changed, replaced, or handed on in another payload."""

    def change(payload: Payload, next: Next) -> None:
        payload.event.event_properties["a"] = 1
        next(payload)

    def replace(payload: Payload, next: Next) -> None:
        next(Payload(Event(payload.event, platform="x"), payload.extra, payload.source))

    ends = Ends()
    ends.chain(change, replace)(payload(kept=True))
    assert ends.finished[0].event == {"event_type": "Order Paid", "user_id": "u-12345", "event_properties": {"a": 1}, "platform": "x"}
    assert ends.finished[0].extra == {"kept": True}


def test_not_calling_next_drops_the_event_by_name() -> None:
    """What stands behind is never asked."""
    ends = Ends()
    ends.chain(mark("a"), drop, fail)(payload())
    assert (ends.finished, ends.refused) == ([], [("middleware", "drop", None)])


@pytest.mark.parametrize(
    ("middleware", "error"),
    [(fail, ValueError), (fail_after, ValueError), (twice, MiddlewareError), (other_twice, MiddlewareError), (wrong, MiddlewareError)],
)
def test_one_that_breaks_loses_its_event_once(middleware: Any, error: type[Exception]) -> None:
    """By its own name, wherever it stands, and nothing comes out."""
    for before, behind in itertools.product(([], [mark("a")]), repeat=2):
        ends = Ends()
        ends.chain(*before, middleware, *behind)(payload())
        assert ends.finished == []
        ((reason, name, caught),) = ends.refused
        assert (reason, name, type(caught)) == ("middleware", middleware.__name__, error)


def test_a_second_next_can_not_jump_over_a_drop() -> None:
    """A middleware behind that dropped the event stays the last word."""
    ends = Ends()
    ends.chain(twice, drop, mark("b"))(payload())
    assert ends.finished == []
    assert [refused[:2] for refused in ends.refused] == [("middleware", "twice")]


def test_next_is_dead_after_the_middleware_has_returned() -> None:
    """One that keeps it for later gets an error of its own."""
    kept: list[tuple[Next, Payload]] = []
    ends = Ends()
    ends.chain(lambda payload, next: kept.append((next, payload)))(payload())
    assert [refused[:2] for refused in ends.refused] == [("middleware", "<lambda>")]
    with pytest.raises(MiddlewareError, match="had returned"):
        kept[0][0](kept[0][1])
    assert ends.finished == []


@pytest.mark.parametrize("leaving", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_exception_passes(leaving: type[BaseException]) -> None:
    """A cancellation reaches the application; its event is refused."""

    def cancelled(payload: Payload, next: Next) -> None:
        raise leaving

    ends = Ends()
    with pytest.raises(leaving):
        ends.chain(mark("a"), cancelled)(payload())
    assert [refused[:2] for refused in ends.refused] == [("middleware", "cancelled")]
    assert ends.finished == []


def test_a_chain_may_run_inside_itself() -> None:
    """A middleware that logs another event does not disturb its own."""
    ends = Ends()
    chain: Chain

    def log_another(payload: Payload, next: Next) -> None:
        if payload.extra:
            chain(Payload(Event(event_type="Another")))
        next(payload)

    chain = ends.chain(log_another)
    chain(payload(first=True))
    assert [finished.event.event_type for finished in ends.finished] == ["Another", "Order Paid"]


class Tagging:
    """A middleware with options."""

    def __call__(self, payload: Payload, next: Next) -> None:
        next(payload)

    def method(self, payload: Payload, next: Next) -> None:
        del payload, next


def test_names_are_those_of_functions_or_classes() -> None:
    """A partial goes by its class, a method by its own name."""
    for middleware, name in ((Tagging().method, "method"), (functools.partial(drop), "partial")):
        ends = Ends()
        ends.chain(Tagging(), middleware)(payload())
        assert ends.refused == [("middleware", name, None)]


def test_a_payload_shows_itself_without_its_source() -> None:
    """A span's repr is long, and may be hostile."""
    assert repr(Payload(Event(event_type="A"), None, 3.5)) == "Payload(event={'event_type': 'A'}, extra={}, source=float)"


@given(st.lists(st.sampled_from([mark("m"), drop, fail, fail_after, twice, other_twice, wrong]), max_size=6))
def test_every_event_has_one_end(middlewares: list[Middleware]) -> None:
    """Finished or refused, once, whatever the mix."""
    ends = Ends()
    ends.chain(*middlewares)(payload())
    assert len(ends.finished) + len(ends.refused) == 1
