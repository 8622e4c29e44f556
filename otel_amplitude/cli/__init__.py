"""The command line `otel-amplitude`."""

from otel_amplitude.cli._main import main

__all__ = ["main"]
