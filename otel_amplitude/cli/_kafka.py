"""The words of the command line about Kafka, for every command that speaks to it."""

from __future__ import annotations

import argparse
import os
from typing import Final

from otel_amplitude.kafka.settings import ENVIRONMENT_PREFIX, read_settings

KEY_OF_NOTHING: Final = "not-sent-anywhere"
"""The API key of a client that writes to a topic: it needs none, and a client has one."""


def add_kafka(parser: argparse.ArgumentParser) -> None:
    """Add the words that set librdkafka."""
    parser.add_argument(
        "--kafka",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a setting of librdkafka, such as security.protocol=SASL_SSL; may be given again; never a secret",
    )
    parser.add_argument(
        "--kafka-config",
        metavar="FILE",
        help=f"a file of NAME=VALUE lines, also for secrets such as sasl.password; or set {ENVIRONMENT_PREFIX}SASL_PASSWORD",
    )


def kafka_settings(arguments: argparse.Namespace, brokers: str | None) -> dict[str, str]:
    """Give the settings of all Kafka clients of a command.

    Raises:
        ConfigurationError: one can not be used; see `read_settings`.
    """
    return read_settings(arguments.kafka, brokers=brokers, file=arguments.kafka_config, environ=os.environ)
