"""`python -m otel_amplitude.sandbox` as a process of its own."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from otel_amplitude.sandbox import Sandbox
from otel_amplitude.sandbox.__main__ import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.heavy
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=str)
def test_a_process(number: signal.Signals, tmp_path: Path) -> None:
    """One JSON line when it answers, options carried out, a clean end on a signal."""
    arguments = ["--db", str(tmp_path / "sandbox.db"), "--api-key", "known-key", "--allow-origin", "http://localhost:3000"]
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "otel_amplitude.sandbox", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        connection = http.client.HTTPConnection("127.0.0.1", int(ready["url"].rpartition(":")[2]), timeout=10)
        connection.request("POST", "/api/reset", b"{}", {"Content-Type": "application/json", "X-Sandbox-Token": ready["token"]})
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())) == (200, {"code": 200})
        body = json.dumps({"api_key": "other-key", "events": [{"event_type": "a", "user_id": "customer-42"}]})
        connection.request("POST", "/batch", body, {"Content-Type": "application/json", "Origin": "http://localhost:3000"})
        response = connection.getresponse()
        assert (response.status, response.getheader("Access-Control-Allow-Origin")) == (400, "http://localhost:3000")
        response.read()
        process.send_signal(number)
        output, errors = process.communicate(timeout=10)
        connection.close()
    assert (process.returncode, output, errors) == (0, "", "")
    assert (tmp_path / "sandbox.db").exists()


def test_a_taken_port(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that is taken is told with the cure, and the exit code is 1."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with Sandbox() as first:
        assert main(["--port", first.url.rpartition(":")[2]]) == 1
    out, err = capsys.readouterr()
    assert (out, "choose another --port" in err) == ("", True)


def test_it_ends_when_asked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 0, one line on stdout, and both signals ask."""
    asked: list[int] = []

    def at_once(number: int, handler: Callable[[int, None], object]) -> None:
        asked.append(number)
        handler(number, None)

    monkeypatch.setattr(signal, "signal", at_once)
    assert main(["--host", "localhost", "--no-eps-limits"]) == 0
    assert asked == [signal.SIGTERM, signal.SIGINT]
    assert json.loads(capsys.readouterr().out).keys() == {"url", "token"}


def test_nothing_of_ours_is_imported() -> None:
    """The sandbox is a second opinion: importing it loads no module of ours outside its folder, and none of anybody else's."""
    code = """
import sys
before = set(sys.modules)
import otel_amplitude
ours = set(sys.modules)
import otel_amplitude.sandbox, otel_amplitude.sandbox.__main__
loaded = set(sys.modules) - ours
print(sorted(name for name in loaded if not name.startswith("otel_amplitude.sandbox") and name.split(".")[0] not in sys.stdlib_module_names))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30).stdout == "[]\n"
