"""A system that is not POSIX: everything but the spool works there, and the spool is refused with one line."""

from __future__ import annotations

import subprocess
import sys

import pytest

# What Python does not have on Windows, of what this package or a dependency might ask for.
TAKEN_AWAY = """
import os, signal, sys
for name in ("fcntl", "grp", "pwd", "resource", "termios", "tty", "syslog"):
    sys.modules[name] = None
for home, names in (
    (os, "register_at_fork fork getuid geteuid getgid O_NOFOLLOW O_DIRECTORY O_CLOEXEC fchmod statvfs killpg setsid pread pwrite writev"),
    (signal, "SIGHUP SIGUSR1 SIGUSR2 SIGKILL SIGQUIT SIGALRM SIGCHLD pthread_sigmask pthread_kill"),
):
    for name in names.split():
        if hasattr(home, name):
            delattr(home, name)
"""
PROGRAM = """
import otel_amplitude
from otel_amplitude.cli import main
from otel_amplitude.delivery.disk.directory import check_root
from otel_amplitude.errors import SpoolError
from otel_amplitude.sandbox import KEY, Sandbox
from pathlib import Path

with Sandbox() as sandbox:
    client = otel_amplitude.configure(KEY, server_url=f"{sandbox.url}/2/httpapi")
    assert client.log_event({"event_type": "Order Paid", "user_id": "u-12345"}, timeout=10).outcome == "acknowledged"
    client.shutdown()
dry = otel_amplitude.init(KEY, name="dry", dry_run=True)
dry.log_event({"event_type": "Order Paid", "user_id": "u-12345"})
assert dry.flush()
assert dry.stats().acknowledged == 1
try:
    check_root(Path("spool").absolute())
except SpoolError as error:
    print(error)
print(main(["spool", "ls", "."]), main(["run"]), main(["cookie", "--api-key", KEY, "--device-id", "d-12345"]))
"""


@pytest.mark.heavy
def test_without_posix() -> None:
    """Import, delivery, sandbox, dry run and command line work; a spool is refused in words."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", TAKEN_AWAY + PROGRAM], capture_output=True, text=True, check=False, timeout=50
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("a spool needs POSIX file locks")
    assert ran.stdout.splitlines()[-1] == "3 2 0"
    assert "otel-amplitude spool: a spool needs a POSIX system" in ran.stderr
    assert "Traceback" not in ran.stderr
