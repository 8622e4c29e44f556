"""Runs a small program in a fresh interpreter: for cases that depend on what a process has imported or set up before."""

from __future__ import annotations

import os
import subprocess
import sys

_SECONDS = 50


def run(program: str, **environment: str) -> str:
    """Run `program` with the given environment variables, without any of OpenTelemetry's or Amplitude's; give its standard output.

    A program that fails, or writes to standard error, fails the test with what it wrote.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "AMPLITUDE_"))}
    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
        env={**kept, "PYTHONWARNINGS": "error", **environment},
    )
    assert (ran.returncode, ran.stderr) == (0, ""), f"exit code {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout
