"""The options of a client for commands that make one: `--option name=value`, else the environment."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any, Final

from otel_amplitude.config import Config
from otel_amplitude.errors import ConfigurationError

# What only an application can give.
_OBJECTS: Final = ("name",)


def epilog(examples: Iterable[str], start: str = "") -> str:
    """Give the end of a help page: the examples that begin so."""
    return "examples:\n" + "".join(f"  {line}\n" for line in examples if line.startswith(start))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the word that sets options of the client."""
    parser.add_argument(
        "--option",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="an option, such as server_zone=EU; may be given again (others come from OTEL_EXPORTER_AMPLITUDE_…)",
    )


def given_options(arguments: argparse.Namespace) -> dict[str, str]:
    """Give the options of the command line by name.

    Raises:
        ConfigurationError: one does not look like name=value.
    """
    found = {}
    for text in arguments.option:
        name, equals, value = text.partition("=")
        if not equals or not name or name in _OBJECTS:
            raise ConfigurationError(f"--option must look like name=value, such as server_zone=EU, not {name!r}")
        found[name.strip().lower()] = value
    return found


def make_config(arguments: argparse.Namespace, **more: Any) -> Config:
    """Give the options of a client.

    Args:
        arguments: of the command.
        **more: what the command itself decides; it wins.

    Raises:
        ConfigurationError: an option does not exist, or its value breaks its rule.
    """
    return Config.load({**given_options(arguments), **more})
