"""A gateway that writes to a topic, and the worker behind it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from gateway.program import Running
from gateway.sending import ANNOTATED, encoded, span, traces
from kafka_parts import Broker, Judge, need_confluent, wait_until, workers

from otel_amplitude.gateway.answers import PROTOBUF


@pytest.mark.heavy
@pytest.mark.timeout(120)
def test_what_was_answered_with_200_arrives_although_gateway_and_broker_fail(tmp_path: Path) -> None:
    """The gateway is killed and started again while the broker stands still: 0 missing, 0 inversions, in the topic and behind the worker."""
    need_confluent()
    folder = str(tmp_path / "spool")
    with Broker() as broker:
        broker.make(amplitude_events=4, amplitude_dead=1)
        words = ("--spool-dir", folder, "--to-kafka", broker.address, "--option", "request_timeout=3")
        sent = 0

        def send(gateway: Running, requests: int) -> None:
            nonlocal sent
            for _ in range(requests):
                made = []
                for number in range(sent, sent + 20):
                    facts = {**ANNOTATED, "user.id": f"user-{number % 40:03d}", "n": number, "kind": "order"}
                    made.append(span(facts, trace=number + 1, id=number + 1))
                body = encoded(traces(*made), PROTOBUF)
                wait_until(lambda body=body: gateway.post(body, {"Content-Type": PROTOBUF}) == 200, 45)
                sent += 20

        with Running("http://127.0.0.1:1", *words) as gateway:
            send(gateway, 40)
            broker.stop()
            send(gateway, 20)
            gateway.kill()
        broker.go_on()
        with Running("http://127.0.0.1:1", *words) as gateway:
            send(gateway, 20)
            broker.stop()
            send(gateway, 20)
            time.sleep(3.5)  # longer than one request to the brokers may take
            broker.go_on()
            wait_until(lambda: sum(gateway.counters()["events"]["pending"].values()) == 0, 40)
            assert gateway.terminate() == 0
        with Judge() as judge, workers(broker.address, judge.url, 1, "--until-idle", "2") as started:
            code, found, _ = started[0].result()
        assert (code, len(judge.seen), judge.inversions) == (0, sent, 0)
        records = broker.records("amplitude_events", found["taken"], partitions=4)
        firsts: dict[str, list[int]] = {}
        seen: set[str] = set()
        for record in records:
            event = json.loads(record.value())
            if event["insert_id"] not in seen:
                seen.add(event["insert_id"])
                firsts.setdefault(record.key().decode(), []).append(event["event_properties"]["n"])
        assert len(seen) == sent
        assert all(numbers == sorted(numbers) for numbers in firsts.values())
