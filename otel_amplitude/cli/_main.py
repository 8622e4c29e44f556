"""Finds the command and runs it; every command is one module with `HELP`, `EXAMPLES`, `add_arguments` and `run`."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Final

from otel_amplitude._version import __version__
from otel_amplitude.cli._options import epilog
from otel_amplitude.errors import OtelAmplitudeError

COMMANDS: Final = ("run", "demo", "sandbox", "doctor", "rules", "catalog", "convert", "gateway", "worker", "spool", "cookie")

EXIT_CODES: Final = """exit codes:
  0  done, nothing wrong
  1  done, and something is wrong: the output says what
  2  not done: the command was called with words it does not know, or without the key that it needs
  3  not done: a file, an address or an option could not be used; the message says what to change
  130  ended by Ctrl-C
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; give its exit code.

    Args:
        arguments: the words after `otel-amplitude`; None takes them from the process.
    """
    parser = argparse.ArgumentParser(
        prog="otel-amplitude",
        description="OpenTelemetry spans and log records as Amplitude events.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"otel-amplitude {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for stream in (sys.stdout, sys.stderr):  # a name that a terminal can not write must not stop a report
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    words = sys.argv[1:] if arguments is None else arguments
    # Only the command that was asked for is loaded, unless help about all of them is.
    for name in words[:1] if words and words[0] in COMMANDS else COMMANDS:
        module = importlib.import_module(f"otel_amplitude.cli.{name}")
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            epilog=epilog(module.EXAMPLES),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    if not words:
        parser.print_help()
        return 2
    chosen = parser.parse_args(words)
    try:
        return int(chosen.run(chosen))
    except OtelAmplitudeError as error:
        print(f"otel-amplitude {chosen.command}: {error}", file=sys.stderr)
        return 3
    except BrokenPipeError:  # the reader of the output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is buffered is flushed at exit, to nowhere
        return 0
    except OSError as error:
        print(f"otel-amplitude {chosen.command}: {error.filename or 'input or output'}: {error.strerror or error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
