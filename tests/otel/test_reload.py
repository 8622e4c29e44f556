"""The rules file is read again on SIGHUP and in forked children; errors keep the last good rules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, signal, sys, time
import otel_amplitude
from opentelemetry import trace
from otel_amplitude.testing import FakeTransport

rules, how = sys.argv[1:]
transport = FakeTransport()
amplitude = otel_amplitude.configure("0123456789abcdef0123456789abcdef", rules=rules, transport=transport, upload_interval=0)

def names():
    with trace.get_tracer("shop").start_as_current_span("pay", attributes={"user.id": "u-12345"}):
        pass
    amplitude.flush(5)
    return transport.events[-1]["event_type"]

print(names(), flush=True)  # else the forked child says it as well
write = lambda text: open(rules, "w").write(text)
write('[[event]]\\nname = "After"\\nmatch = {name = "pay"}\\n' if how != "broken" else "[[event")
if how == "fork":
    if os.fork() == 0:
        print(names(), flush=True)
        os._exit(0)
    os.wait()
else:
    os.kill(os.getpid(), signal.SIGHUP)
    end = time.monotonic() + 10
    while names() == "Before" and how == "signal" and time.monotonic() < end:
        time.sleep(0.01)
    if how == "broken":
        for thread in __import__("threading").enumerate():
            if thread.name == "otel-amplitude-reload":
                thread.join(10)
    print(names())
"""


@pytest.mark.heavy
@pytest.mark.parametrize(("how", "after"), [("signal", "After"), ("fork", "After"), ("broken", "Before")])
def test_the_rules_are_read_again(tmp_path: Path, how: str, after: str) -> None:
    """Without a restart; a broken file is refused with an error, and the last good one stays."""
    rules = tmp_path / "events.toml"
    rules.write_text('[[event]]\nname = "Before"\nmatch = {name = "pay"}\n')
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(rules), how], capture_output=True, text=True, check=False, timeout=50, stdin=subprocess.DEVNULL
    )
    assert ran.stdout.split() == ["Before", after], ran.stderr
    assert ("rules.refused" in ran.stderr) == (how == "broken")
