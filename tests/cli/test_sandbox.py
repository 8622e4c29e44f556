"""The sandbox as a command: it says where it is, and ends when asked."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from otel_amplitude.cli._ask import ask
from otel_amplitude.sandbox import KEY, Sandbox


@pytest.mark.heavy
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=str)
def test_a_process(number: signal.Signals, tmp_path: Path) -> None:
    """It answers at the address it printed, keeps its options, and ends with exit code 0."""
    script = "from otel_amplitude.cli import main; import sys; sys.exit(main())"
    words = ["sandbox", "--port", "0", "--db", str(tmp_path / "a.db"), "--api-key", "known", "--json"]
    with subprocess.Popen([sys.executable, "-c", script, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        url = json.loads(process.stdout.readline())["url"]
        assert ask(url, "/api/summary")["accepted"] == 0
        process.send_signal(number)
        assert process.communicate(timeout=10) == ("", "")
    assert process.returncode == 0
    assert (tmp_path / "a.db").exists()


@pytest.fixture
def ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both signals come as soon as they are asked for."""

    def at_once(number: int, handler: Callable[[int, None], object]) -> None:
        handler(number, None)

    monkeypatch.setattr(signal, "signal", at_once)


@pytest.mark.usefixtures("ends_at_once")
def test_what_it_says(run: Any) -> None:
    """The page, how to point an application at it, and a line to try."""
    ended = run("sandbox", "--port", 0)
    assert ended.code == 0
    assert "sandbox: http://127.0.0.1:" in ended.out
    port = re.search(r"127\.0\.0\.1:(\d+)", ended.out)
    assert port
    assert f"otel-amplitude run --sandbox --port {port[1]} -- " in ended.out
    assert "curl" in ended.out


@pytest.mark.usefixtures("ends_at_once")
def test_one_key_works_everywhere(run: Any) -> None:
    """The key that command and page show is the README's, suits a cookie, and looks like a real one."""
    assert KEY in run("sandbox", "--port", 0).out
    assert KEY in Path(__file__).parents[2].joinpath("README.md").read_text(encoding="utf-8")
    assert run("cookie", "--api-key", KEY).code == 0
    assert re.fullmatch("[0-9a-f]{32}", KEY)


@pytest.mark.usefixtures("ends_at_once")
def test_a_host_that_others_can_reach(run: Any) -> None:
    """It is allowed, for containers, with a warning."""
    assert "others on the network can reach it" in run("sandbox", "--port", 0, "--host", "0.0.0.0").err


@pytest.mark.usefixtures("ends_at_once")
@pytest.mark.parametrize(
    ("words", "cure"), [(("--port", "99999"), "another --port"), (("--port", "0", "--db", "/missing/a.db"), "another --db")]
)
def test_what_can_not_be_used(words: tuple[str, ...], cure: str, run: Any) -> None:
    """The message names the option to change."""
    ended = run("sandbox", *words)
    assert ended.code == 3
    assert cure in ended.err


@pytest.mark.usefixtures("ends_at_once")
def test_a_taken_port(run: Any, sandbox: Sandbox) -> None:
    """Another one is to be chosen."""
    ended = run("sandbox", "--port", sandbox.url.rpartition(":")[2])
    assert (ended.code, "another --port" in ended.err) == (3, True)
