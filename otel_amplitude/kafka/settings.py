"""Settings of librdkafka: where they come from, which ones are fixed, and that secrets never stand in arguments.

A setting comes from an argument, else from the environment (`OTEL_AMPLITUDE_KAFKA_SASL_PASSWORD` is `sasl.password`), else from a file of
`name=value` lines. What this package promises depends on some settings; those can not be changed, and the error says why.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from otel_amplitude.errors import ConfigurationError, KafkaError
from otel_amplitude.log import Log

ENVIRONMENT_PREFIX: Final = "OTEL_AMPLITUDE_KAFKA_"
BROKERS: Final = "bootstrap.servers"
_SECRET_WORDS: Final = ("password", "secret", "passphrase", "ssl.key.pem", "private.key.pem", "sasl.oauthbearer.config")

_DELIVERED: Final = "an event counts as delivered when all replicas in sync have it, once and in order"
_COMMITS: Final = "offsets are committed behind what was settled, by the worker"
_FIXED: Final = {
    "acks": _DELIVERED,
    "request.required.acks": _DELIVERED,
    "enable.idempotence": _DELIVERED,
    "message.timeout.ms": "the option request_timeout decides how long a record may take",
    "delivery.timeout.ms": "the option request_timeout decides how long a record may take",
    "transactional.id": "records are written without transactions",
    "partitioner": "one id belongs to one partition, whatever language wrote the record",
    "allow.auto.create.topics": "topics are never created silently",
    "enable.auto.commit": _COMMITS,
    "enable.auto.offset.store": _COMMITS,
    "auto.offset.reset": "a group without offsets begins with the oldest record",
    "group.id": "give --group",
    "partition.assignment.strategy": "a rebalance must not take every partition from every worker (cooperative-sticky)",
}
# What a record needs to be delivered once and in order. murmur2 is the hash of Java's producers: records of one key meet in one partition.
_PRODUCER: Final[dict[str, Any]] = {
    "acks": "all",
    "enable.idempotence": True,
    "partitioner": "murmur2_random",
    "allow.auto.create.topics": False,
    # Never given up one by one, which would let a later record of the same key pass: the exporter gives up a whole request.
    "message.timeout.ms": 0,
}
_PRODUCER_DEFAULTS: Final[dict[str, Any]] = {
    "linger.ms": 5,
    "compression.type": "lz4",
    "topic.metadata.propagation.max.ms": 1_000,
    "socket.keepalive.enable": True,
}
_CONSUMER: Final[dict[str, Any]] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "earliest",
    "allow.auto.create.topics": False,
}
_CONSUMER_DEFAULTS: Final[dict[str, Any]] = {
    "queued.max.messages.kbytes": 16_384,
    "socket.keepalive.enable": True,
}


def read_settings(
    given: Sequence[str],
    *,
    brokers: str | None = None,
    file: str | None = None,
    environ: Mapping[str, str],
) -> dict[str, str]:
    """Give the settings of all clients of one command, as text.

    Args:
        given: settings from arguments, each `NAME=VALUE`.
        brokers: `HOST:PORT,…` from arguments, or None.
        file: a file of `name=value` lines, or None.
        environ: the environment.

    Raises:
        ConfigurationError: a setting has no name, is fixed, or is a secret in an argument; the file can not be read; or there are no brokers.
    """
    settings: dict[str, str] = {}
    if file is not None:
        settings.update(_pairs(_lines(file), file))
    for variable, value in environ.items():
        if variable.startswith(ENVIRONMENT_PREFIX) and value:
            settings[variable.removeprefix(ENVIRONMENT_PREFIX).lower().replace("_", ".")] = value
    for name, value in _pairs(given, "--kafka"):
        if is_secret(name):
            raise ConfigurationError(
                f"--kafka {name}=… would show a secret to every process of this machine; "
                f"put the line {name}=… into a file of mode 0600 and give --kafka-config FILE, or set {variable_of(name)}"
            )
        settings[name] = value
    if brokers is not None:
        settings[BROKERS] = brokers
    for name in settings:
        if name in _FIXED:
            raise ConfigurationError(f"{name} can not be set: {_FIXED[name]}; remove it")
    if not settings.get(BROKERS, "").strip():
        raise ConfigurationError(
            f"no broker is named; give --brokers HOST:9092, set {variable_of(BROKERS)}, or put {BROKERS}=HOST:9092 into the file of --kafka-config"
        )
    return settings


def is_secret(name: str) -> bool:
    """Whether a setting must not stand where other processes can read it."""
    return any(word in name for word in _SECRET_WORDS)


def secrets_of(settings: Mapping[str, str]) -> tuple[str, ...]:
    """Give the values that no log line may show."""
    return tuple(value for name, value in settings.items() if is_secret(name))


def variable_of(name: str) -> str:
    """Give the environment variable of a setting.

    >>> variable_of("sasl.password")
    'OTEL_AMPLITUDE_KAFKA_SASL_PASSWORD'
    """
    return ENVIRONMENT_PREFIX + name.upper().replace(".", "_")


def _lines(file: str) -> list[str]:
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"--kafka-config {file} can not be read: {why}; give a text file of name=value lines") from error
    return [line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#")]


def _pairs(texts: Sequence[str], place: str) -> Iterator[tuple[str, str]]:
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not name or not equals:
            # The line may be a secret that lost its name: it is not quoted.
            raise ConfigurationError(f"a setting in {place} must look like name=value, such as security.protocol=SASL_SSL")
        yield name, value


# Clients


def producer_settings(settings: Mapping[str, str]) -> dict[str, Any]:
    """Give the settings of a producer."""
    return {**_PRODUCER_DEFAULTS, **settings, **_PRODUCER}


def consumer_settings(settings: Mapping[str, str], group: str) -> dict[str, Any]:
    """Give the settings of a consumer of one group."""
    # In the newer protocol of groups the brokers decide who reads what, and the setting is refused.
    chosen = {} if settings.get("group.protocol") == "consumer" else {"partition.assignment.strategy": "cooperative-sticky"}
    return {**_CONSUMER_DEFAULTS, **settings, **_CONSUMER, **chosen, "group.id": group}


def library() -> Any:
    """Give the module `confluent_kafka`.

    Raises:
        KafkaError: it is not installed.
    """
    try:
        return importlib.import_module("confluent_kafka")
    except ImportError as error:
        raise KafkaError('Kafka needs the package confluent-kafka; run: pip install "otel-amplitude[kafka]"') from error


class ClientLog:
    """Takes the lines of librdkafka, which would go to standard error, into the log, at `VERBOSE`: it repeats each lost connection."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def log(self, _level: int, text: str, *arguments: object) -> None:
        """Write one line; the signature is that of `logging.Logger`."""
        self._log.debug("kafka.client", line=text % arguments)


def make_client(make: Callable[..., Any], settings: Mapping[str, Any], log: Log) -> Any:
    """Make a producer, a consumer or an admin client.

    Raises:
        ConfigurationError: librdkafka does not know a setting, or not its value.
    """
    try:
        return make(dict(settings), logger=ClientLog(log))
    except (library().KafkaException, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"the Kafka client refuses its settings: {reason_of(error)}; correct --kafka, --kafka-config or {ENVIRONMENT_PREFIX}…"
        ) from error


def reason_of(error: BaseException) -> str:
    """Give what the client says about an error, in one line."""
    first = error.args[0] if error.args else error
    text = first.str() if hasattr(first, "str") else str(first)
    return " ".join(str(text).split())
