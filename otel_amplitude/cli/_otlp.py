"""The words of the command line about identity, for every command that reads OTLP of other processes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from otel_amplitude.gateway.intake import Rules

if TYPE_CHECKING:
    from otel_amplitude.gateway.intake import AnswerWhen


def add_identity(parser: argparse.ArgumentParser) -> None:
    """Add the words that say whose telemetry is read, and what may be an automatic event."""
    parser.add_argument(
        "--requests-of",
        metavar="GLOB,…",
        default="",
        help="services whose requests may be automatic events although another service or a browser called them (default: none)",
    )
    parser.add_argument("--services", metavar="GLOB,…", default="", help="the only services that are read (default: all)")
    parser.add_argument("--not-services", metavar="GLOB,…", default="", help="services that are not read: those that export in process")
    parser.add_argument(
        "--users",
        choices=("trace", "span"),
        default="trace",
        help="ids found on any span of a trace count for later spans of the same process (default), or only those of a span and its parents",
    )


def rules_of(arguments: argparse.Namespace, answer: AnswerWhen) -> Rules:
    """Give the rules that the words say."""

    def globs(text: str) -> tuple[str, ...]:
        return tuple(word.strip() for word in text.split(",") if word.strip())

    return Rules(
        answer=answer,
        requests_of=globs(arguments.requests_of),
        services=globs(arguments.services),
        not_services=globs(arguments.not_services),
        remembers=arguments.users == "trace",
    )
