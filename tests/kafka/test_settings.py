"""Settings of librdkafka: where they come from, and what can not be set."""

from __future__ import annotations

from pathlib import Path

import pytest
from kafka_parts import need_confluent

from otel_amplitude.errors import ConfigurationError, KafkaError
from otel_amplitude.kafka import settings as module
from otel_amplitude.kafka.settings import (
    consumer_settings,
    is_secret,
    library,
    make_client,
    producer_settings,
    read_settings,
    secrets_of,
    variable_of,
)
from otel_amplitude.log import Log


def read(*given: str, brokers: str | None = "b:9092", file: str | None = None, **environ: str) -> dict[str, str]:
    return read_settings(given, brokers=brokers, file=file, environ=environ)


def test_an_argument_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    """Each name once."""
    file = tmp_path / "kafka.properties"
    file.write_text("# a comment\n\nlinger.ms = 1\nfetch.min.bytes=2\nclient.id=file\nbootstrap.servers=file:9092\nsasl.password=a=b\n")
    found = read(
        "linger.ms=3", file=str(file), OTEL_AMPLITUDE_KAFKA_LINGER_MS="2", OTEL_AMPLITUDE_KAFKA_CLIENT_ID="env", KAFKA_PORT="tcp://1"
    )
    assert found == {
        "linger.ms": "3",
        "fetch.min.bytes": "2",
        "client.id": "env",
        "bootstrap.servers": "b:9092",
        "sasl.password": "a=b",
    }


def test_brokers_may_stand_in_the_file_or_the_environment() -> None:
    """Without any, the error has the three ways."""
    assert read(brokers=None, OTEL_AMPLITUDE_KAFKA_BOOTSTRAP_SERVERS="e:9092") == {"bootstrap.servers": "e:9092"}
    with pytest.raises(
        ConfigurationError, match=r"--brokers HOST:9092, set OTEL_AMPLITUDE_KAFKA_BOOTSTRAP_SERVERS, or put bootstrap\.servers"
    ):
        read(brokers=None)


@pytest.mark.parametrize(
    "name", ["sasl.password", "ssl.key.password", "ssl.key.pem", "sasl.oauthbearer.client.secret", "sasl.oauthbearer.config"]
)
def test_a_secret_is_no_argument(name: str) -> None:
    """The error has the two ways, and not the secret."""
    with pytest.raises(ConfigurationError) as error:
        read(f"{name}=hunter2")
    assert "hunter2" not in str(error.value)
    assert "--kafka-config FILE" in str(error.value)
    assert variable_of(name) in str(error.value)
    assert read(**{variable_of(name): "hunter2"})[name] == "hunter2"


def test_what_is_secret_is_known_to_the_log() -> None:
    """By its value."""
    assert secrets_of({"sasl.password": "hunter2", "sasl.username": "me"}) == ("hunter2",)
    assert not is_secret("ssl.ca.pem")


@pytest.mark.parametrize("name", ["enable.auto.commit", "acks", "partitioner", "group.id", "enable.idempotence", "auto.offset.reset"])
def test_what_the_promises_rest_on_can_not_be_set(name: str) -> None:
    """Wherever it stands."""
    for found in ({"given": f"{name}=1"}, {"environ": {variable_of(name): "1"}}):
        with pytest.raises(ConfigurationError, match=f"^{name} can not be set: .*; remove it$"):
            read(*([found["given"]] if "given" in found else []), **found.get("environ", {}))


@pytest.mark.parametrize("text", ["linger.ms", "=5", ""])
def test_a_setting_without_name_or_value_is_refused(text: str, tmp_path: Path) -> None:
    """Unquoted, since it may be a secret."""
    with pytest.raises(ConfigurationError, match=r"in --kafka must look like name=value"):
        read(text)
    file = tmp_path / "kafka.properties"
    file.write_text("hunter2\n")
    with pytest.raises(ConfigurationError) as error:
        read(file=str(file))
    assert "hunter2" not in str(error.value)


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    """With the reason."""
    with pytest.raises(ConfigurationError, match=r"absent can not be read: No such file"):
        read(file=str(tmp_path / "absent"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="it is not UTF-8"):
        read(file=str(tmp_path / "binary"))


def test_a_producer_gets_what_order_and_durability_need() -> None:
    """Whatever was set; comfort can be changed."""
    found = producer_settings({"bootstrap.servers": "b", "linger.ms": "50"})
    assert (found["acks"], found["enable.idempotence"], found["partitioner"], found["linger.ms"]) == ("all", True, "murmur2_random", "50")


def test_a_consumer_commits_nothing_by_itself() -> None:
    """And keeps its partitions in a rebalance, unless the brokers decide about that."""
    found = consumer_settings({"bootstrap.servers": "b"}, "g")
    assert (found["group.id"], found["enable.auto.commit"], found["partition.assignment.strategy"]) == ("g", False, "cooperative-sticky")
    assert "partition.assignment.strategy" not in consumer_settings({"group.protocol": "consumer"}, "g")


def test_without_the_package_the_error_has_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """One can copy it."""

    def absent(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(module.importlib, "import_module", absent)
    with pytest.raises(KafkaError, match=r'pip install "otel-amplitude\[kafka\]"'):
        library()


@pytest.mark.parametrize(("given", "said"), [({"no.such.setting": "1"}, "no.such.setting"), ({"batch.size": "much"}, "batch.size")])
def test_a_setting_that_librdkafka_does_not_know_is_named(given: dict[str, str], said: str) -> None:
    """At the start of the command."""
    kafka = need_confluent()
    with pytest.raises(ConfigurationError, match=said):
        make_client(kafka.Producer, {"bootstrap.servers": "127.0.0.1:1", **given}, Log("NONE"))


def test_clients_take_all_settings_that_we_make() -> None:
    """Of both kinds, with and without the newer protocol of groups."""
    kafka = need_confluent()
    base = {"bootstrap.servers": "127.0.0.1:1"}
    make_client(kafka.Producer, producer_settings(base), Log("NONE"))
    for more in ({}, {"group.protocol": "consumer"}):
        make_client(kafka.Consumer, consumer_settings({**base, **more}, "g"), Log("NONE")).close()
