"""A real broker, real workers, and what happens to them: no event may be missing, none may overtake another one of its user."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka_parts import Broker, Judge, WorkerProcess, event, events, need_confluent, wait_until, workers

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(240)]
GROUP = "otel-amplitude"


@pytest.fixture
def broker() -> Iterator[Broker]:
    need_confluent()
    with Broker() as started:
        started.make(amplitude_events=6, amplitude_dead=1)
        yield started


def settled(results: list[tuple[int, dict, str]], name: str) -> int:
    return sum(found.get(name, 0) for _, found, _ in results)


def test_every_event_arrives_once_and_offsets_are_those_of_the_end(broker: Broker) -> None:
    """Poison lies among the dead letters, unchanged, with its reason."""
    broker.produce("amplitude_events", events(6_000, users=50))
    broker.produce("amplitude_events", [("x", b"poison"), ("y", b'{"event_type":"Order","insert_id":"a"}'), ("z", None)])
    with Judge() as judge, workers(broker.address, judge.url, 1, "--until-idle", "2") as started:
        code, found, _ = started[0].result()
    assert (len(judge.seen), judge.duplicates, judge.inversions) == (6_000, 0, 0)
    assert (code, found["settled"], found["acknowledged"], found["pending"]) == (1, 6_003, 6_000, 0)
    assert found["dead"] == {"empty": 1, "no_id": 1, "not_json": 1}
    letters = {letter.key(): letter for letter in broker.records("amplitude_dead", 3)}
    assert {key: letter.value() for key, letter in letters.items()} == {
        b"x": b"poison",
        b"y": b'{"event_type":"Order","insert_id":"a"}',
        b"z": None,
    }
    said = dict(letters[b"x"].headers())
    assert (said["outcome"], said["reason"], said["topic"]) == (b"poison", b"not_json", b"amplitude_events")
    assert sum(broker.committed(GROUP, "amplitude_events", 6)) == 6_003


@pytest.mark.soak  # 2 runs of 4 on the last day: one worker had not ended after 50 s; why is not known yet
def test_a_killed_worker_a_stopped_broker_and_a_worker_that_joins_lose_nothing(broker: Broker) -> None:
    """While Amplitude fails in one request of ten and cuts another one."""
    broker.produce("amplitude_events", events(6_000, users=200))
    with Judge(flaky=0.1) as judge, workers(broker.address, judge.url, 2, "--until-idle", "4", "--rate", "1500") as started:
        wait_until(lambda: len(judge.seen) > 1_000, 45)
        started[0].kill()
        broker.produce("amplitude_events", events(6_000, users=200, first=6_000))
        joined = WorkerProcess(broker.address, judge.url, "--until-idle", "4")
        try:
            wait_until(lambda: len(judge.seen) > 4_000, 45)
            broker.stop()
            time.sleep(3)  # the outage is what is tested
            broker.go_on()
            results = [each.result(100) for each in (started[1], joined)]
        finally:
            joined.end()
    assert (len(judge.seen), judge.inversions) == (12_000, 0)
    assert judge.faults > 0
    assert [code for code, _, _ in results] == [0, 0]
    assert sum(broker.committed(GROUP, "amplitude_events", 6)) == 12_000


def test_a_worker_that_sleeps_is_replaced_and_wakes_without_harm(broker: Broker) -> None:
    """SIGSTOP for longer than its session: its partitions are another one's, and what it commits then counts for nothing."""
    broker.produce("amplitude_events", events(3_000, users=100))
    with Judge() as judge, workers(broker.address, judge.url, 2, "--rate", "1500") as started:
        wait_until(lambda: len(judge.seen) > 800, 45)
        started[0].process.send_signal(signal.SIGSTOP)
        broker.produce("amplitude_events", events(3_000, users=100, first=3_000))
        wait_until(lambda: len(judge.seen) == 6_000, 45)
        started[0].process.send_signal(signal.SIGCONT)
        for each in started:
            each.process.terminate()
        codes = [each.result(20)[0] for each in started]
    assert codes == [0, 0]
    assert judge.inversions == 0
    assert sum(broker.committed(GROUP, "amplitude_events", 6)) == 6_000


def test_a_worker_that_is_told_to_end_leaves_the_rest_to_the_next_one(broker: Broker) -> None:
    """SIGTERM: what is in flight is waited for, what was not sent is returned; nothing is sent twice."""
    broker.produce("amplitude_events", events(9_000, users=100))
    with Judge() as judge:
        with workers(broker.address, judge.url, 1, "--rate", "1000") as started:
            wait_until(lambda: len(judge.seen) > 1_000, 45)
            started[0].process.terminate()
            code, _, _ = started[0].result(20)
            assert code == 0
        first = len(judge.seen)
        assert sum(max(0, offset) for offset in broker.committed(GROUP, "amplitude_events", 6)) == first < 9_000
        with workers(broker.address, judge.url, 1, "--until-idle", "2") as started:
            started[0].result()
    assert (len(judge.seen), judge.duplicates, judge.inversions) == (9_000, 0, 0)


def test_what_amplitude_refuses_is_a_dead_letter_and_can_be_sent_again(broker: Broker) -> None:
    """The others of its request arrive; `--topic amplitude_dead` replays it once Amplitude takes it."""
    broker.make(amplitude_dead_again=1)
    broker.produce("amplitude_events", events(500, users=10))
    with Judge() as judge:
        judge.refused = {"e-00000007", "e-00000123"}
        with workers(broker.address, judge.url, 1, "--until-idle", "2") as started:
            code, found, said = started[0].result()
        assert (code, found["dead"], found["settled"]) == (1, {"invalid": 2}, 500)
        assert "amplitude_dead" in said or "dead_letter" in said
        assert dict(broker.records("amplitude_dead", 1)[0].headers())["status"] == b"400"
        judge.refused = set()
        words = ("--topic", "amplitude_dead", "--dead-topic", "amplitude_dead_again", "--until-idle", "2")
        with workers(broker.address, judge.url, 1, *words) as started:
            code, found, _ = started[0].result()
        assert (code, found["acknowledged"]) == (0, 2)
    assert len(judge.seen) == 500


def test_a_user_over_the_limit_stops_its_own_partition_only(broker: Broker) -> None:
    """Thousands of events of one held user rest; those of other partitions arrive, and memory stays bounded."""
    broker.produce("amplitude_events", [("held-user", event(number, "held-user")) for number in range(4_000)])
    broker.produce("amplitude_events", events(4_000, users=60, first=10_000))
    with Judge() as judge:
        judge.held = {"held-user"}
        with workers(broker.address, judge.url, 1, "--max-pending", "4000", "--until-idle", "3") as started:
            wait_until(lambda: len(judge.order) >= 45, 45)
            judge.held = set()
            started[0].process.terminate()
            code, found, _ = started[0].result(20)
    assert code == 0
    assert found["paused"] >= 1
    assert found["pending"] <= 4_000 // 4 + 1_000 + 200


def test_a_topic_that_vanishes_is_named_and_its_return_is_used(broker: Broker, tmp_path: Path) -> None:
    """The worker says which line makes it, and goes on by itself."""
    broker.produce("amplitude_events", events(100, users=5))
    with Judge() as judge:
        worker = WorkerProcess(broker.address, judge.url, "--until-idle", "3", folder=tmp_path)
        try:
            wait_until(lambda: len(judge.seen) == 100, 45)
            broker.kill()
            broker.start()
            wait_until(lambda: "worker.topic_absent" in worker.said(), 45)
            broker.make(amplitude_events=6, amplitude_dead=1)
            broker.produce("amplitude_events", events(100, users=5, first=100))
            code, _, said = worker.result(45)
        finally:
            worker.end()
    assert (code, len(judge.seen)) == (0, 200)
    assert "--create --topic amplitude_events" in said
