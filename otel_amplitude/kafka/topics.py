"""Whether topics exist. They are never created silently: their partitions, replicas and retention are decisions of an operator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from otel_amplitude.errors import KafkaError
from otel_amplitude.kafka.settings import BROKERS, library, reason_of

EVENTS: Final = "amplitude_events"
DEAD: Final = "amplitude_dead"
_SECONDS: Final = 10.0
_REPLICAS: Final = 3
# More than two days, so that an outage over a weekend loses nothing, and less than the seven days for which Amplitude knows an `insert_id`.
_RETENTION_MS: Final = 4 * 86_400_000


def check_topics(
    client: Any, topics: Mapping[str, int], settings: Mapping[str, str], seconds: float = _SECONDS, *, may_be_away: bool = False
) -> bool:
    """Ask the brokers for all topics, which creates none; whether they answered.

    Args:
        client: a producer, consumer or admin client.
        topics: name → partitions to propose where it is absent.
        settings: of the client, for the words of an error.
        seconds: how long to wait for an answer.
        may_be_away: no answer is no error.

    Raises:
        KafkaError: no broker answers, or a topic is absent; the message has the lines that create what is absent.
    """
    brokers = settings[BROKERS]
    try:
        found = client.list_topics(timeout=seconds)
    except library().KafkaException as error:
        if may_be_away:
            return False
        raise KafkaError(
            f"no broker answers at {brokers} within {seconds:g} s ({reason_of(error)}); "
            "check --brokers, the network, and security.protocol and sasl.* in --kafka-config"
        ) from error
    absent = {name: partitions for name, partitions in topics.items() if name not in found.topics}
    if absent:
        raise KafkaError(words_for_absent(absent, brokers, len(found.brokers)))
    return True


def words_for_absent(topics: Mapping[str, int], brokers: str, nodes: int = _REPLICAS) -> str:
    """Say that topics are absent, and the lines that create them."""
    lines = [creation_line(name, partitions, brokers, nodes) for name, partitions in topics.items()]
    names = " and ".join(topics)
    verb = "does" if len(topics) == 1 else "do"
    return (
        f"{names} {verb} not exist on {brokers}, or may not be seen by this user; topics are never created silently. Create:\n"
        + "\n".join(f"  {line}" for line in lines)
    )


def creation_line(topic: str, partitions: int, brokers: str, nodes: int = _REPLICAS) -> str:
    """Give the line that creates a topic on a cluster of so many brokers."""
    replicas = max(1, min(_REPLICAS, nodes))
    server = brokers.split(",", maxsplit=1)[0].strip()
    return (
        f"kafka-topics.sh --bootstrap-server {server} --create --topic {topic} --partitions {partitions} --replication-factor {replicas} "
        f"--config min.insync.replicas={max(1, replicas - 1)} --config retention.ms={_RETENTION_MS}"
    )
