"""The options of a client for commands that make one: `--option name=value`, else the environment."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from otel_amplitude.config import ENVIRONMENT_PREFIX, Config
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


def add_key(parser: argparse.ArgumentParser) -> None:
    """Add the word that names a file with the API key. There is none for the key itself: arguments can be read by everyone on a machine."""
    parser.add_argument("--api-key-file", metavar="FILE", help=f"a file that holds the API key (default: {ENVIRONMENT_PREFIX}API_KEY)")


def options_with_key(arguments: argparse.Namespace) -> dict[str, str]:
    """Give the options of the command line by name, with the key of `--api-key-file`.

    Raises:
        ConfigurationError: the key is an argument, or the file can not be read.
    """
    given = given_options(arguments)
    if "api_key" in given:
        raise ConfigurationError(
            f"--option api_key would show the key to everyone on this machine; set {ENVIRONMENT_PREFIX}API_KEY or give --api-key-file"
        )
    if arguments.api_key_file:
        try:
            given["api_key"] = Path(arguments.api_key_file).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"--api-key-file {arguments.api_key_file} can not be read ({error}); give a file that holds the key alone"
            ) from None
    return given


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
