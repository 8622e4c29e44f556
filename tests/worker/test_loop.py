"""The loop of a worker, with a fake consumer: what is committed, paused, given back and counted."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from kafka_parts import event, need_confluent, wait_until
from worker.fakes import TOPIC, Message, Rig, error, failure

from otel_amplitude.errors import KafkaError
from otel_amplitude.log import Log
from otel_amplitude.worker.loop import Snapshot


@pytest.fixture
def rig() -> Iterator[Rig]:
    need_confluent()
    made = Rig(log=Log("WARN"))
    yield made
    made.end()


def records(partition: int, count: int, first: int = 0) -> list[Message]:
    return [Message(partition, offset, event(offset, f"user-{partition}")) for offset in range(first, first + count)]


def test_offsets_are_committed_behind_what_was_acknowledged(rig: Rig) -> None:
    """Of each partition; the snapshot says the same."""
    rig.assign(0, 1)
    rig.give(*records(0, 5), *records(1, 3, first=40))
    rig.consumer.marks = {0: (0, 5), 1: (0, 50)}
    rig.settle()
    assert rig.consumer.stored == {0: 5, 1: 43}
    now = rig.loop.snapshot
    assert (now.taken, now.settled, now.pending, now.partitions) == (8, 8, 0, 2)
    assert dict(now.lag) == {(TOPIC, 0): 0, (TOPIC, 1): 7}


def test_what_is_in_flight_holds_the_commit(rig: Rig) -> None:
    """Until it is answered."""
    rig.sink.gate.clear()
    rig.assign(0)
    rig.give(*records(0, 3))
    rig.turn()
    rig.sink.waiting.wait(10)
    for _ in range(3):
        rig.turn(1.1)
    assert rig.consumer.commits == []
    rig.sink.gate.set()
    rig.settle()
    assert rig.consumer.stored == {0: 3}


def test_a_commit_is_made_once_a_second(rig: Rig) -> None:
    """Not once a turn."""
    rig.assign(0)
    for number in range(30):
        rig.give(*records(0, 1, first=number))
        rig.turn(0.1)
    assert len(rig.consumer.commits) <= 4


def test_what_is_rejected_is_a_dead_letter_before_it_is_settled(rig: Rig) -> None:
    """Without the letter's acknowledgement nothing behind it is committed."""
    bad = event(1, "user-0")
    rig.sink.rejects = {bad}
    rig.dead.gate.clear()
    rig.assign(0)
    rig.give(*records(0, 3))

    def is_buried() -> bool:
        rig.turn(1.1)
        return rig.dead.waiting.is_set()

    wait_until(is_buried, 10)
    rig.turn(1.1)
    assert rig.consumer.stored.get(0, 0) <= 1
    rig.dead.gate.set()
    rig.settle()
    assert rig.consumer.stored == {0: 3}
    (letter,) = rig.dead.taken
    assert letter.value == bad
    assert dict(letter.headers)["reason"] == b"invalid"
    assert dict(rig.loop.snapshot.dead) == {"invalid": 1}


def test_poison_is_a_dead_letter_and_the_others_go_on(rig: Rig) -> None:
    """With its key and without a change."""
    rig.assign(0)
    rig.give(Message(0, 0, b"poison", key=b"k"), Message(0, 1, None), *records(0, 2, first=2))
    rig.settle()
    assert rig.consumer.stored == {0: 4}
    assert [(letter.key, letter.value) for letter in rig.dead.taken] == [(b"k", b"poison"), (None, None)]
    assert len(rig.sink.taken) == 2


def test_a_letter_that_its_topic_refuses_for_good_is_said_and_stops_nothing(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """The record is still where it was, until its retention ends."""
    rig.dead.rejects = {b"poison"}
    rig.assign(0)
    rig.give(Message(0, 0, b"poison"))
    rig.settle()
    assert rig.loop.snapshot.unwritten == 1
    assert rig.consumer.stored == {0: 1}
    assert "worker.letter_refused" in caplog.text


def test_a_revoked_partition_is_committed_and_its_rest_given_back() -> None:
    """What was not sent is withdrawn: the next owner sends it, once."""
    rig = Rig(interval=0.0)
    rig.assign(0, 1)
    rig.give(*records(0, 2))
    rig.settle()
    rig.sink.gate.clear()
    rig.give(*records(0, 1, first=2))
    rig.turn()
    rig.sink.waiting.clear()
    rig.give(*records(0, 3, first=3), *records(1, 1))
    rig.turn()
    rig.sink.gate.set()
    rig.consumer.rebalance("on_revoke", 0)
    stored = rig.consumer.stored[0]
    sent = len([parcel for parcel in rig.sink.taken if parcel.ids == ("user-0",)])
    assert stored <= sent
    assert rig.loop._progress.events <= 1
    rig.settle()
    assert rig.consumer.stored == {0: stored, 1: 1}
    assert rig.sink.stats().returned == 6 - sent
    rig.end()


def test_a_lost_partition_commits_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Another worker may have read on."""
    rig = Rig(interval=60.0, log=Log("WARN"))
    rig.assign(0)
    rig.give(*records(0, 3))
    rig.turn()
    rig.consumer.rebalance("on_lost", 0)
    wait_until(lambda: rig.sink.stats().returned == 3, 10)
    rig.turn(1.1)
    assert rig.consumer.commits == []
    assert (rig.loop.snapshot.pending, rig.loop.snapshot.partitions) == (0, 0)
    assert "worker.lost" in caplog.text
    rig.end()


def test_a_partition_that_comes_back_begins_at_its_commit(rig: Rig) -> None:
    """What ends late of the first assignment changes nothing in the second."""
    rig.sink.gate.clear()
    rig.assign(0)
    rig.give(*records(0, 2))
    rig.turn()
    rig.sink.waiting.wait(10)
    rig.consumer.rebalance("on_lost", 0)
    rig.assign(0)
    rig.give(*records(0, 2))
    rig.turn()
    assert rig.loop._progress.events == 2
    rig.sink.gate.set()
    rig.settle()
    assert rig.consumer.stored == {0: 2}


def test_above_the_bound_nothing_is_read_and_below_half_of_it_again() -> None:
    """While the consumer is still asked, so that the group knows that the worker lives."""
    rig = Rig(max_pending=100)
    rig.sink.gate.clear()
    rig.assign(0, 1, 2, 3, 4)
    for partition in range(5):
        rig.give(*records(partition, 25))
    rig.turn()
    assert rig.consumer.paused == {0, 1, 2, 3, 4}
    rig.give(*records(0, 1, first=25))
    rig.turn(1.1)
    assert rig.loop.snapshot.paused == 5
    assert rig.loop.snapshot.taken == 125
    rig.sink.gate.set()
    rig.settle()
    assert rig.consumer.paused == set()
    assert rig.consumer.stored == {0: 26, 1: 25, 2: 25, 3: 25, 4: 25}
    rig.end()


def test_one_partition_that_is_held_up_does_not_stop_the_others() -> None:
    """It rests alone."""
    rig = Rig(max_pending=100, interval=60.0)
    rig.assign(0, 1)
    rig.give(*records(0, 26), *records(1, 5))
    rig.turn()
    assert rig.consumer.paused == {0}
    rig.end()


def test_records_that_retention_removed_are_said_and_counted(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Those that are missing before the oldest one, from the group's offset on."""
    rig.consumer.stored = {0: 10}
    rig.consumer.marks = {0: (100, 200)}
    rig.assign(0)
    rig.give(*records(0, 2, first=100))
    rig.settle()
    assert rig.loop.snapshot.gone == 90
    assert "worker.records_gone" in caplog.text
    assert "records=90" in caplog.text


def test_gaps_that_compaction_or_transactions_leave_are_no_loss(rig: Rig) -> None:
    """The oldest record lies before them."""
    rig.consumer.marks = {0: (0, 200)}
    rig.assign(0)
    rig.give(*records(0, 1), *records(0, 1, first=7))
    rig.settle()
    assert rig.loop.snapshot.gone == 0
    assert rig.consumer.stored == {0: 8}


def test_a_gap_counts_as_a_loss_when_the_brokers_can_not_be_asked(rig: Rig) -> None:
    """Said too often rather than never."""
    rig.assign(0)
    rig.give(*records(0, 1))
    rig.turn()
    rig.consumer.marks = {0: failure("_TRANSPORT")}  # type: ignore[dict-item]
    rig.give(*records(0, 1, first=7))
    rig.turn()
    rig.consumer.marks = {}
    assert rig.loop._gone == 6
    rig.settle()


def test_a_topic_that_was_made_anew_is_read_from_its_beginning(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Its offsets begin again, and so do the commits."""
    rig.assign(0)
    rig.give(*records(0, 5, first=50))
    rig.settle()
    rig.give(*records(0, 2))
    rig.settle()
    assert rig.consumer.stored == {0: 2}
    assert "worker.rewound" in caplog.text


@pytest.mark.parametrize("name", ["ILLEGAL_GENERATION", "REBALANCE_IN_PROGRESS", "UNKNOWN_MEMBER_ID"])
def test_a_commit_that_comes_too_late_is_counted_and_not_logged(rig: Rig, caplog: pytest.LogCaptureFixture, name: str) -> None:
    """The next owner has it."""
    rig.consumer.commit_error = error(name)
    rig.assign(0)
    rig.give(*records(0, 1))
    wait_until(lambda: rig.turn(1.1) or rig.loop.snapshot.commit_failures, 10)
    assert set(rig.loop.snapshot.commit_failures) == {name.lower()}
    assert "worker.commit_failed" not in caplog.text
    rig.consumer.commit_error = None
    wait_until(lambda: rig.turn(1.1) or rig.consumer.stored, 10)
    assert rig.consumer.stored == {0: 1}


def test_a_commit_that_fails_is_logged_and_tried_again(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Also one that the client does not even send."""
    rig.consumer.commit_error = failure("_NO_OFFSET")
    rig.assign(0)
    rig.give(*records(0, 1))
    wait_until(lambda: rig.turn(1.1) or rig.loop.snapshot.commit_failures, 10)
    assert "worker.commit_failed" in caplog.text
    rig.consumer.commit_error = None
    rig.settle()
    assert rig.consumer.stored == {0: 1}


def test_an_absent_topic_is_an_error_with_the_line_that_makes_it(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Once a minute; the loop goes on."""
    for _ in range(3):
        rig.give(Message(0, 0, None, fault=error("UNKNOWN_TOPIC_OR_PART")))
        rig.turn()
    lines = [line for line in caplog.messages if "worker.topic_absent" in line]
    assert len(lines) == 1
    assert f"--create --topic {TOPIC}" in lines[0]


def test_a_fatal_error_ends_the_worker_with_its_words(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """Others are logged."""
    callback = rig.loop.callbacks()["error_cb"]
    callback(error("_ALL_BROKERS_DOWN"))
    rig.turn()
    assert "kafka.failed" in caplog.text
    callback(error("_FATAL", fatal=True))
    with pytest.raises(KafkaError, match="can not go on: .*said; start the worker again"):
        rig.turn()


def test_a_client_that_raises_ends_the_worker_with_its_words(rig: Rig) -> None:
    """Once it is fenced, it can not read any more."""

    def consume(*_: object) -> list[Message]:
        raise failure("_FENCED")

    rig.consumer.consume = consume  # type: ignore[method-assign]
    with pytest.raises(KafkaError, match="can not go on: said"):
        rig.turn()


def test_an_exporter_that_refuses_ends_the_worker_and_settles_nothing(rig: Rig) -> None:
    """As one that is closed does."""
    rig.sink.shutdown(1)
    rig.assign(0)
    rig.give(*records(0, 3))
    with pytest.raises(KafkaError, match="delivery refuses events"):
        rig.turn()
    rig.loop._commit()
    assert rig.consumer.commits == []


def test_the_end_commits_what_is_settled_and_gives_the_rest_back(caplog: pytest.LogCaptureFixture) -> None:
    """The books are written at the end."""
    caplog.set_level(logging.INFO, "otel_amplitude")
    rig = Rig(log=Log("WARN"))
    rig.assign(0)
    rig.give(*records(0, 2))
    rig.settle()
    rig.sink.fails = True
    rig.give(*records(0, 3, first=2))
    rig.turn()
    assert rig.loop.close()
    assert rig.consumer.stored == {0: 2}
    assert rig.loop.snapshot.pending == 3
    assert rig.sink.stats().returned == 3
    assert "worker.books taken=5 settled=2 acknowledged=2 pending=3" in caplog.text


def test_a_client_that_can_not_be_closed_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brokers that do not answer hold it up without end."""
    rig = Rig()
    rig.consumer.closes.clear()
    monkeypatch.setattr("otel_amplitude.worker.loop.CLOSE_SECONDS", 0.1)
    assert not rig.loop.close()
    rig.consumer.closes.set()


def test_commits_that_are_not_answered_do_not_hold_up_the_end() -> None:
    """Three seconds, on the loop's clock."""
    rig = Rig()
    rig.assign(0)
    rig.consumer.answers = False
    rig.give(*records(0, 1))
    wait_until(lambda: rig.turn(1.1) or rig.consumer.commits, 10)
    real = rig.consumer.consume

    def consume(most: int, timeout: float) -> list[Message]:
        rig.now += timeout
        return real(most, timeout)

    rig.consumer.consume = consume  # type: ignore[method-assign]
    assert rig.loop.close()


def test_the_rate_bounds_what_is_asked_for() -> None:
    """And while nothing is allowed, the loop waits for a moment instead of asking."""
    rig = Rig(rate=100.0)
    rig.assign(0)
    rig.give(*records(0, 200))
    for _ in range(10):
        rig.turn(0.1)
    assert rig.loop._taken <= 110
    assert max(rig.consumer.asked) <= 10
    rig.turn()
    assert rig.slept
    rig.end()


def test_idle_is_a_worker_with_an_assignment_and_without_work(rig: Rig) -> None:
    """Neither records, nor what is pending, nor a lag that is known."""
    rig.now += 100
    assert rig.loop.idle_seconds() == 0
    rig.assign(0)
    rig.give(*records(0, 1))
    rig.settle()
    rig.now += 5
    assert rig.loop.idle_seconds() >= 5
    rig.consumer.marks = {0: (0, 3)}
    rig.turn(1.1)
    assert rig.loop.idle_seconds() == 0
    rig.consumer.marks = {0: (0, 1)}
    rig.turn(1.1)
    rig.assign(1)
    assert rig.loop.idle_seconds() == 0
    rig.consumer.rebalance("on_lost", 0, 1)
    rig.now += 5
    assert rig.loop.idle_seconds() == 0


def test_it_runs_until_it_is_told_or_idle(rig: Rig) -> None:
    """And reports each turn."""
    seen: list[Snapshot] = []
    rig.assign(0)
    rig.loop.run(lambda: len(seen) >= 3, each_turn=seen.append)
    assert len(seen) == 3

    def step(snapshot: Snapshot) -> None:
        seen.append(snapshot)
        rig.now += 1

    rig.loop.run(lambda: False, until_idle=4.0, each_turn=step)
    assert len(seen) <= 9


def test_brokers_that_do_not_say_what_is_committed_cost_only_the_look_for_gaps(rig: Rig) -> None:
    """The group's offset is the brokers' affair anyway."""

    def committed(*_: object, **_more: object) -> list[object]:
        raise failure("_TIMED_OUT")

    rig.consumer.committed = committed  # type: ignore[method-assign]
    rig.assign(0)
    rig.give(*records(0, 2, first=7))
    rig.settle()
    assert rig.consumer.stored == {0: 9}
