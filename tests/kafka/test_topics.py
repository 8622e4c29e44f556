"""Topics that are absent end a command, with the line that creates them."""

from __future__ import annotations

import pytest
from kafka_parts import Quiet, need_confluent

from otel_amplitude.errors import KafkaError
from otel_amplitude.kafka.topics import check_topics, creation_line

SETTINGS = {"bootstrap.servers": "b1:9092,b2:9092"}


def test_absent_topics_are_named_and_not_created() -> None:
    """By a real client against a cluster that would create them."""
    kafka = need_confluent()
    cluster = kafka.Producer({"test.mock.num.brokers": 3, "bootstrap.servers": "x"}, logger=Quiet())
    cluster.list_topics("there", timeout=5)  # this one is made: it was asked for by its name
    with pytest.raises(KafkaError) as error:
        check_topics(cluster, {"there": 12, "amplitude_events": 12, "amplitude_dead": 1}, SETTINGS)
    said = str(error.value)
    assert "amplitude_events and amplitude_dead do not exist on b1:9092,b2:9092" in said
    assert creation_line("amplitude_events", 12, "b1:9092,b2:9092") in said
    assert creation_line("amplitude_dead", 1, "b1:9092,b2:9092") in said
    assert "--topic there" not in said
    assert set(cluster.list_topics(timeout=5).topics) == {"there"}
    check_topics(cluster, {"there": 12}, SETTINGS)


def test_the_line_fits_the_cluster() -> None:
    """One broker can not have three replicas."""
    assert "--replication-factor 3 --config min.insync.replicas=2" in creation_line("t", 12, "b")
    assert "--replication-factor 1 --config min.insync.replicas=1" in creation_line("t", 12, "b", nodes=1)


def test_brokers_that_do_not_answer_are_named() -> None:
    """With what to look at."""
    kafka = need_confluent()
    client = kafka.Producer({"bootstrap.servers": "127.0.0.1:1"}, logger=Quiet())
    with pytest.raises(KafkaError, match=r"no broker answers at 127\.0\.0\.1:1 within 0\.2 s .*; check --brokers"):
        check_topics(client, {"t": 1}, {"bootstrap.servers": "127.0.0.1:1"}, seconds=0.2)
