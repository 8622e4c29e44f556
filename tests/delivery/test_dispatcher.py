"""When to send and what to do with a receipt, with plain numbers for the time."""

from __future__ import annotations

import math

import pytest
from parcels import Desk, acknowledged, divided, fault, names, parcel, rejected, throttled

from otel_amplitude.delivery.dispatcher import MOST_HELD_IDS, MOST_RAISES, Answer, Batch
from otel_amplitude.delivery.receipt import ACKNOWLEDGED, RESEND, Outcome, Receipt, Split, Verdict
from otel_amplitude.delivery.retry import FixedWaits


def raised(batch: Batch) -> Receipt:
    """What a sender makes of an exception."""
    split = Split.BISECT if len(batch) > 1 else Split.NO
    return Receipt([Outcome(Verdict.RETRY, "internal")] * len(batch), "internal", split, server_fault=True)


def test_a_parcel_waits_for_company() -> None:
    """A lone parcel is sent when the upload interval is over, and not before."""
    desk = Desk()
    desk.accept(parcel("a"))
    assert desk.next() is None
    assert desk.wake() == 1.0
    desk.now = 1.0
    batch = desk.next()
    assert batch is not None
    assert names(batch) == ["a"]


def test_a_full_batch_goes_at_once() -> None:
    """Nobody waits for company that there is no room for, by count or by bytes."""
    desk = Desk(max_batch_events=2)
    desk.accept(parcel("a"), parcel("b"), parcel("c"))
    assert len(desk.next() or ()) == 2
    desk = Desk(max_batch_bytes=20)
    desk.accept(parcel("a", size=15), parcel("b", size=15))
    assert len(desk.next() or ()) == 1


def test_a_hurried_parcel_does_not_wait() -> None:
    """What a flush waits for goes without company; what came later does not."""
    desk = Desk()
    desk.accept(parcel("a"))
    desk.dispatcher.hurry(0)
    assert names(desk.next() or []) == ["a"]
    desk.accept(parcel("b", "other"))
    assert desk.next() is None


def test_an_acknowledged_batch_leaves_the_books_balanced() -> None:
    """Accepted equals acknowledged when all is done, and each parcel ends once."""
    desk = Desk()
    desk.accept(parcel("a"), parcel("b"))
    batch = desk.send()
    assert desk.stats().pending.in_flight == 2
    desk.settle(batch, acknowledged(batch))
    stats = desk.stats()
    assert (stats.accepted, stats.acknowledged, stats.pending.total) == (2, 2, 0)
    assert desk.memory.ends == [("a", "acknowledged", ""), ("b", "acknowledged", "")]


def test_more_than_one_request_only_under_a_backlog() -> None:
    """A second request goes beside the first only when it is full, and at most `max_in_flight` go."""
    desk = Desk(max_batch_events=2, max_in_flight=2, upload_interval=0.0)
    desk.accept(*[parcel(f"{i}", f"u{i}") for i in range(5)])
    assert len(desk.next() or ()) == 2
    assert len(desk.next() or ()) == 2
    assert desk.next() is None
    desk = Desk(max_batch_events=2, max_in_flight=4, upload_interval=0.0)
    desk.accept(*[parcel(f"{i}", f"u{i}") for i in range(3)])
    assert len(desk.next() or ()) == 2
    assert desk.next() is None


def test_one_id_never_flies_twice() -> None:
    """A backlog of one id is sent one request after the other, without asking again and again."""
    desk = Desk(max_batch_events=2)
    desk.accept(*[parcel(f"{i}", "u1") for i in range(6)])
    first = desk.next()
    assert first is not None
    assert desk.next() is None
    assert desk.wake() == 48 * 3600
    desk.settle(first, acknowledged(first))
    assert names(desk.next() or []) == ["2", "3"]


def test_one_device_at_fault_that_device_waits() -> None:
    """Of 500 parcels 39 are throttled: they rest 30 seconds, the others and newcomers go on at once, uncharged."""
    desk = Desk()
    desk.accept(*[parcel(f"{i}", "D" if i % 13 == 0 else f"u{i}") for i in range(500)])
    batch = desk.send()
    desk.settle(batch, throttled(batch, "D"))
    assert desk.stats().pending.held == 39
    assert ("held", 39, 30.0, 500) in desk.memory.told
    desk.accept(parcel("new", "D"), parcel("other", "E"))
    rest = desk.next()
    assert rest is not None
    assert len(rest) == 462
    assert set(rest.attempts) == {0}
    desk.settle(rest, acknowledged(rest))
    assert desk.next() is None
    assert desk.wake() == 30.0
    desk.now = 30.0
    late = desk.next()
    assert late is not None
    assert names(late) == [f"{i}" for i in range(0, 500, 13)] + ["new"]
    desk.settle(late, acknowledged(late))
    assert desk.stats().acknowledged == 502
    assert desk.stats().balanced


def test_server_at_fault_all_wait_and_one_probes() -> None:
    """After a fault nothing goes until the backoff is over, then one request, not the backlog; its success frees the others."""
    desk = Desk(max_batch_events=2, max_in_flight=4)
    desk.accept(*[parcel(f"{i}", f"u{i}") for i in range(8)])
    first = desk.next()
    assert first is not None
    desk.settle(first, fault(first))
    assert ("paused", 0.5, "server_error") in desk.memory.told
    assert desk.next() is None
    desk.now = 0.5
    probe = desk.next()
    assert probe is not None
    assert names(probe) == ["0", "1"]
    assert desk.next() is None
    desk.settle(probe, acknowledged(probe))
    assert ("resumed",) in desk.memory.told
    assert [len(desk.next() or ()) for _ in range(3)] == [2, 2, 2]


def test_the_backoff_doubles_up_to_a_minute() -> None:
    """With the worst chance the waits are 0.5, 1, 2 and so on, and never above 60 seconds."""
    desk = Desk()
    desk.accept(parcel("a"))
    waits = []
    for _ in range(10):
        batch = desk.send()
        before = len(desk.memory.told)
        desk.settle(batch, fault(batch))
        (pause,) = [told for told in desk.memory.told[before:] if told[0] == "paused"]
        waits.append(pause[1])
        desk.now += float(str(pause[1]))
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_requests_that_fail_together_are_one_fault() -> None:
    """Four requests in flight that fail at once do not quadruple the wait."""
    desk = Desk(max_batch_events=1, max_in_flight=4)
    desk.accept(*[parcel(f"{i}", f"u{i}") for i in range(4)])
    flying = [desk.send() for _ in range(4)]
    desk.now = 1.0
    for batch in flying:
        desk.settle(batch, Receipt([RESEND], "server_error", server_fault=True, status=503))
    assert [told[1] for told in desk.memory.told if told[0] == "paused"] == [0.5]
    desk.now = 1.5
    probe = desk.send()
    desk.settle(probe, Receipt([RESEND], "server_error", server_fault=True, status=503))
    assert desk.wake() == 2.5


def test_the_byte_target_recovers() -> None:
    """After a 413 each success lets requests grow by a tenth, up to the size that was refused; that one is tried again much later."""
    desk = Desk(max_batch_bytes=1000, max_batch_events=1000)
    desk.accept(*[parcel(f"{i}", size=9) for i in range(1000)])
    batch = desk.send()
    desk.settle(batch, divided(batch, Split.SMALLER))
    sizes = []
    for _ in range(9):
        batch = desk.send()
        sizes.append(batch.size)
        desk.settle(batch, acknowledged(batch))
    assert sizes == [500, 550, 600, 660, 730, 800, 880, 970, 990]


@pytest.mark.parametrize("flights", [1, 4])
@pytest.mark.parametrize("order", [0, -1])
def test_a_server_that_takes_ten_events_is_soon_understood(flights: int, order: int) -> None:
    """Fault row 18: with a 413 above ten events five thousand need at most 750 requests, whichever answer of those in flight comes first."""
    desk = Desk(max_batch_events=50, max_in_flight=flights)
    desk.accept(*[parcel(f"{number}", f"user-{number % 50}", size=400) for number in range(5_000)])
    requests = 0
    flying: list[Batch] = []
    while desk.dispatcher.ledger.acknowledged < 5_000:
        desk.dispatcher.hurry(5_000)
        while (batch := desk.next()) is not None:
            flying.append(batch)
            requests += 1
        batch = flying.pop(order)
        desk.settle(batch, divided(batch, Split.SMALLER) if len(batch) > 10 else acknowledged(batch))
    assert requests <= 750
    assert desk.dispatcher.ledger.rejected == {}


def test_a_servers_delay_is_a_minimum_and_has_a_cap() -> None:
    """Retry-After is obeyed when it is longer than the backoff, and up to 300 seconds."""
    for asked, paused in ((5.0, 5.0), (0.1, 0.5), (86_400.0, 300.0)):
        desk = Desk()
        desk.accept(parcel("a"))
        batch = desk.send()
        desk.settle(batch, fault(batch, pause=asked))
        assert ("paused", paused, "server_error") in desk.memory.told


def test_a_project_wide_pause_is_no_fault() -> None:
    """Everyone waits as long as asked, uncharged, and then the whole backlog may go."""
    desk = Desk(max_batch_events=1)
    desk.accept(parcel("a", "u1"), parcel("b", "u2"))
    batch = desk.send()
    desk.settle(batch, Receipt([RESEND], "throttled", pause=60.0, status=429))
    desk.now = 59.0
    assert desk.next() is None
    desk.now = 60.0
    assert desk.next() is not None
    assert desk.next() is not None


def test_a_bad_key_is_probed_once_a_minute() -> None:
    """An operator's fault holds everything, uncharged, and waits exactly as long as said between probes."""
    desk = Desk(FixedWaits(()))
    desk.accept(parcel("a"), parcel("b"))
    for _ in range(5):
        batch = desk.send()
        desk.settle(batch, Receipt([RESEND] * 2, "invalid_api_key", pause=60.0, probing=True, status=400))
        assert desk.wake() == desk.now + 60.0
        desk.now += 60.0
    assert desk.stats().pending.queued == 2
    assert not desk.stats().dropped


def test_named_parcels_are_rejected_and_the_others_resent() -> None:
    """A 400 that names one removes exactly that one; its neighbours go at once and are not charged."""
    desk = Desk()
    desk.accept(parcel("a"), parcel("b"), parcel("c"))
    batch = desk.send()
    desk.settle(batch, rejected(batch, "b"))
    again = desk.next()
    assert again is not None
    assert names(again) == ["a", "c"]
    assert set(again.attempts) == {0}
    assert desk.stats().rejected == {"invalid": 1}
    assert ("b", "rejected", "invalid") in desk.memory.ends


@pytest.mark.parametrize("count", [2, 3, 10, 64, 100, 1000])
@pytest.mark.parametrize("where", [0.0, 0.37, 0.99])
def test_bisection_isolates_one_quickly(count: int, where: float) -> None:
    """A bad parcel that nobody names is found in at most 2·⌈log2 n⌉ further requests, and nobody else is lost."""
    bad = str(int(count * where))
    desk = Desk()
    desk.accept(*[parcel(f"{i}", f"u{i % 7}") for i in range(count)])
    requests = 0
    batch = desk.send()
    while not desk.stats().rejected:
        desk.settle(batch, divided(batch, Split.BISECT) if bad in names(batch) else acknowledged(batch))
        if not desk.stats().rejected:
            batch = desk.send()
            requests += 1
    assert requests <= 2 * math.ceil(math.log2(count))
    while desk.stats().pending.total:
        batch = desk.send()
        desk.settle(batch, acknowledged(batch))
    assert desk.stats().acknowledged == count - 1
    assert desk.stats().rejected == {"invalid": 1}
    assert not desk.dispatcher._cuts


def test_too_large_halves_until_it_fits_and_recovers() -> None:
    """A 413 halves the byte target, a success lets it grow by a tenth, and one parcel alone is rejected."""
    desk = Desk(max_batch_bytes=1000)
    desk.accept(parcel("large", size=400), *[parcel(f"{i}", size=49) for i in range(20)])
    sizes = []
    while desk.stats().pending.total:
        batch = desk.send()
        sizes.append(batch.size)
        desk.settle(batch, divided(batch, Split.SMALLER) if batch.size > 300 else acknowledged(batch))
    assert desk.stats().rejected == {"too_large": 1}
    assert desk.stats().acknowledged == 20
    assert sizes[0] > 900
    assert len(sizes) < 12


def test_a_part_that_meets_the_same_answer_is_final() -> None:
    """A 403 is tried again in two halves, and then believed."""
    desk = Desk()
    desk.accept(*[parcel(f"{i}") for i in range(4)])
    batch = desk.send()
    assert not batch.halved
    desk.settle(batch, divided(batch, Split.ONCE))
    left = desk.send()
    assert left.halved
    assert len(left) == 2
    desk.settle(left, divided(left, Split.ONCE))
    assert desk.stats().rejected == {"forbidden": 2}
    right = desk.send()
    desk.settle(right, acknowledged(right))
    assert desk.stats().acknowledged == 2


def test_fixed_waits_are_exact_and_then_the_parcels_are_dropped() -> None:
    """A list of waits means exactly these; then `attempts`."""
    desk = Desk(FixedWaits((0.1, 0.2)))
    desk.accept(parcel("a"))
    for wait in (0.1, 0.2):
        batch = desk.send()
        desk.settle(batch, fault(batch))
        assert desk.wake() == desk.now + wait
        desk.now += wait
    batch = desk.send()
    desk.settle(batch, fault(batch))
    assert desk.stats().dropped == {"attempts": 1}
    assert desk.memory.ends == [("a", "dropped", "attempts")]
    assert ("dropped", "attempts", 1) in desk.memory.told
    retries = [told for told in desk.memory.told if told[0] == "retried"]
    assert retries == [("retried", "server_error", 1, False), ("retried", "server_error", 2, True)]


def test_the_next_parcels_wait_politely_when_a_list_is_used_up() -> None:
    """No retry for a parcel does not mean no pause for the server."""
    desk = Desk(FixedWaits(()))
    desk.accept(parcel("a"))
    batch = desk.send()
    desk.settle(batch, fault(batch))
    assert ("paused", 0.5, "server_error") in desk.memory.told


def test_answers_without_progress_are_a_fault() -> None:
    """A server that says 'again' for everyone, without a pause, is not asked in a tight loop."""
    desk = Desk()
    desk.accept(parcel("a"), parcel("b"))
    batch = desk.send()
    desk.settle(batch, Receipt([RESEND, RESEND], "odd", status=400))
    assert desk.next() is None
    assert ("paused", 0.5, "odd") in desk.memory.told


def test_a_parcel_that_makes_the_sender_raise_is_isolated() -> None:
    """A batch for which sending raises is halved with backoff; the culprit alone is given up in the end, all others arrive."""
    desk = Desk()
    desk.accept(*[parcel(f"{i}") for i in range(10)])
    for _ in range(100):
        if not desk.stats().pending.total:
            break
        batch = desk.send()
        if "7" in names(batch):
            desk.settle(batch, raised(batch))
        else:
            desk.settle(batch, acknowledged(batch))
        desk.now += 60.0
    assert desk.stats().dropped == {"internal": 1}
    assert desk.stats().acknowledged == 9
    assert MOST_RAISES > 10


def test_the_old_expire() -> None:
    """What is older than `max_event_age` is dropped wherever it waits; the clock that says when to look is the one that drops."""
    desk = Desk(max_event_age=100.0, upload_interval=1000.0)
    desk.accept(parcel("a", "u1"))
    desk.now = 60.0
    desk.accept(parcel("b", "u2"))
    desk.now = 99.999
    assert desk.next() is None
    assert desk.wake() == 100.0
    desk.expire()
    assert desk.stats().pending.total == 2
    desk.now = 100.0
    desk.expire()
    assert desk.memory.ends == []
    desk.now = 100.001
    desk.expire()
    assert desk.memory.ends == [("a", "dropped", "expired")]
    assert desk.wake() == 160.0
    desk.now = 161.0
    desk.expire()
    assert desk.stats().dropped == {"expired": 2}
    assert desk.wake() is None


def test_what_came_back_from_flight_expires_too() -> None:
    """A parcel that was in flight while others expired does not live for ever."""
    desk = Desk(max_event_age=100.0)
    desk.accept(parcel("a"))
    batch = desk.send()
    desk.now = 101.0
    desk.expire()
    assert desk.stats().pending.in_flight == 1
    desk.settle(batch, fault(batch))
    desk.expire()
    assert desk.stats().dropped == {"expired": 1}


def test_the_followers_of_one_id_take_at_most_a_tenth() -> None:
    """A hot device that is held can not fill the memory, by count or by bytes; others are not asked."""
    for options in ({"max_cached_events": 20}, {"max_cached_bytes": 200}):
        desk = Desk(**options)
        desk.accept(parcel("a", "hot", "also"), parcel("b", "hot"))
        batch = desk.send()
        assert desk.dispatcher.lines.crowded == set()
        desk.settle(batch, throttled(batch, "hot"))
        assert desk.dispatcher.lines.crowded == {"hot"}
        desk.now = 31.0
        batch = desk.send()
        assert desk.dispatcher.lines.crowded == set()


def test_too_many_held_ids_make_everyone_wait() -> None:
    """Beyond 10,000 held ids nobody is held any more: all wait as long as was asked."""
    desk = Desk(max_cached_events=100_000)
    desk.accept(*[parcel(f"{i}", f"u{i}") for i in range(MOST_HELD_IDS + 500)])
    desk.dispatcher.hurry(MOST_HELD_IDS + 500)
    while (batch := desk.next()) is not None:
        desk.settle(batch, Receipt([Outcome(Verdict.RETRY, "throttled", hold=30.0)] * len(batch), "throttled", status=429))
        assert len(desk.dispatcher.lines.holds) <= MOST_HELD_IDS
    assert ("paused", 30.0, "throttled") in desk.memory.told
    assert desk.stats().pending.total == MOST_HELD_IDS + 500


def test_giving_up_drops_everything_once() -> None:
    """At shutdown what waits, is held or in flight is dropped; a late answer does not disturb the counters."""
    desk = Desk(max_batch_events=2, max_in_flight=2)
    desk.accept(*[parcel(f"{i}", f"u{i}") for i in range(5)])
    batch = desk.send()
    desk.settle(batch, throttled(batch, "u0"))
    flying = desk.send()
    desk.dispatcher.give_up()
    assert desk.stats().balanced
    desk.dispatcher.end_rest(desk.events.rest(), "dropped", "shutdown")
    desk.tell()
    desk.settle(flying, acknowledged(flying))
    assert desk.stats().dropped == {"shutdown": 5}
    assert desk.stats().balanced
    assert len(desk.memory.ends) == 5


def test_company_that_would_change_something() -> None:
    """Callers wake the worker for the first parcel, for a full batch, and otherwise not."""
    desk = Desk(max_batch_events=10, max_batch_bytes=1000)
    assert desk.dispatcher.wanted_company() == (1, 1)
    desk.accept(parcel("a", "u1"))
    assert desk.next() is None
    assert desk.dispatcher.wanted_company() == (9, 989)
    batch = desk.send()
    desk.settle(batch, fault(batch))
    assert desk.next() is None
    assert min(desk.dispatcher.wanted_company()) > 10**9
    desk.now = 10.0
    batch = desk.send()
    desk.settle(batch, acknowledged(batch))


def test_nobody_pays_for_results_that_nobody_wants() -> None:
    """Without an observer that wants results none is told of each parcel."""
    desk = Desk()
    desk.dispatcher._wants_results = lambda: False
    desk.accept(parcel("a"))
    batch = desk.send()
    desk.dispatcher.settle(batch, Answer(acknowledged(batch), {}, 0.1), 0.0)
    assert len(desk.dispatcher.notes) == 1
    assert desk.stats().acknowledged == 1


def test_a_mixed_answer_is_booked_parcel_by_parcel() -> None:
    """One answer may acknowledge, reject and send back."""
    desk = Desk()
    desk.accept(parcel("a"), parcel("b"), parcel("c"))
    batch = desk.send()
    desk.settle(batch, Receipt([ACKNOWLEDGED, Outcome(Verdict.REJECTED, "quota"), RESEND], "quota", status=429))
    assert desk.stats().acknowledged == 1
    assert desk.stats().rejected == {"quota": 1}
    assert desk.stats().pending.queued == 1
