"""Real senders of three kinds, under kills and outages: nothing that was sent is missing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import needs
import pytest
from gateway.program import Running
from gateway.sending import until
from zero_code.running import Program, free_port

from otel_amplitude.sandbox import Sandbox

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "examples/node"
WORDS = ("--option", "auto_events_per_minute=0")
pytestmark = pytest.mark.heavy


def environment(port: int, **more: str) -> dict[str, str]:
    """Of a service that sends everything to a gateway."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        **more,
    }


def python_shop(port: int, total: int) -> subprocess.Popen[str]:
    """A Python service with OpenTelemetry's own exporter, protobuf and gzip."""
    env = environment(port, OTEL_EXPORTER_OTLP_TIMEOUT="40")  # seconds; a loaded machine takes its time to start a gateway again
    return subprocess.Popen([sys.executable, str(HERE / "sender.py"), str(total)], env=env, stdout=subprocess.PIPE, text=True)


def routes(sandbox: Sandbox) -> list[str]:
    """Of the events that arrived, duplicates aside, as Amplitude keeps them."""
    return sorted(event["event_properties"]["trace_id"] for event in sandbox.events())


def test_python_under_kills_and_an_outage(tmp_path: Path) -> None:
    """The gateway is killed in the middle, Amplitude fails and resets: every event of OpenTelemetry's exporter arrives."""
    total, port = 1_500, free_port()
    words = ("--spool-dir", str(tmp_path / "spool"), *WORDS)
    with Sandbox(eps_limits=False) as sandbox:
        url = f"{sandbox.url}/2/httpapi"
        sandbox.set_fault("status", status=500, count=4)
        with Running(url, *words, port=port) as running:
            running.until("/readyz")
            shop = python_shop(port, total)
            until(lambda: running.counters().get("answers", {}).get("200", 0) >= 3)
            running.kill()
        sandbox.set_fault("reset_after", count=4)
        with Running(url, *words, port=port) as running:
            out, _ = shop.communicate(timeout=50)
            assert out == "flushed\n"
            # What the trace memory lost with the kill is counted, not lost silently: a user and its request came in two batches.
            until(lambda: len(sandbox.events()) + running.counters()["events"]["refused"].get("no_identity", 0) >= total)
            lost = running.counters()["events"]["refused"].get("no_identity", 0)
            assert running.terminate() == 0
        assert len(set(routes(sandbox))) == len(sandbox.events()) == total - lost
        assert lost <= 1  # the batch under way at the kill


def test_an_outage_of_amplitude(tmp_path: Path) -> None:
    """Requests are answered while Amplitude is away, and events leave when it is back."""
    with Sandbox(eps_limits=False) as sandbox:
        sandbox.set_fault("status", status=503)
        with Running(f"{sandbox.url}/2/httpapi", "--spool-dir", str(tmp_path / "spool"), *WORDS) as running:
            out, _ = python_shop(running.address, 300).communicate(timeout=50)
            assert out == "flushed\n"
            assert sum(running.counters()["events"]["pending"].values()) == 300
            assert running.terminate() == 0
            assert "300 events stay in the spool" in running.output
        sandbox.clear_faults()
        with Running(f"{sandbox.url}/2/httpapi", "--spool-dir", str(tmp_path / "spool"), *WORDS) as running:
            until(lambda: len(sandbox.events()) == 300)  # no sender is there to wake it
            running.terminate()


@pytest.fixture(scope="module")
def node_packages() -> Path:
    """Node's SDK and Express, as `npm ci` in examples/node installs them."""
    return Path(needs.installed(EXAMPLE / "node_modules/express", "npm ci --ignore-scripts --prefix examples/node")).parent


@pytest.mark.node
@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json"])
def test_node(tmp_path: Path, node_packages: Path, protocol: str) -> None:
    """An Express shop whose user is set in a handler, on a child of the request's span; chunked and gzip."""
    with (
        Sandbox(eps_limits=False) as sandbox,
        Running(f"{sandbox.url}/2/httpapi", "--spool-dir", str(tmp_path / "spool"), *WORDS) as running,
    ):
        env = environment(
            running.address, OTEL_EXPORTER_OTLP_PROTOCOL=protocol, OTEL_SERVICE_NAME="node-shop", NODE_PATH=str(node_packages)
        )
        ran = subprocess.run(
            [needs.node(), str(HERE / "sender.js"), "300"], env=env, capture_output=True, text=True, timeout=50, check=False
        )
        assert (ran.returncode, ran.stdout) == (0, "done\n"), ran.stderr
        until(lambda: len(sandbox.events()) >= 300)
        assert {event["event_properties"]["route"] for event in sandbox.events()} == {"/products/{name}"}
        assert len({event["user_id"] for event in sandbox.events()}) == 100
        assert len(sandbox.events()) == 300
        running.terminate()


@pytest.mark.node
def test_the_demo_with_node(node_packages: Path) -> None:
    """A shop without Amplitude code, a gateway and the sandbox: everything arrives, and unknown visitors are no events."""
    assert node_packages.exists()
    ran = subprocess.run([sys.executable, str(EXAMPLE / "demo.py")], capture_output=True, text=True, timeout=55, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "missing: 0" in ran.stdout


def test_a_collector_that_starts_before_the_gateway(tmp_path: Path) -> None:
    """Rotel takes what a service sends, and delivers it when the gateway is there."""
    rotel = needs.module_file("rotel", "rotel-agent", "pip install --no-deps -r tests/gateway/collector.txt")
    inlet, port = free_port(), free_port()
    command: list[Any] = [
        *(rotel, "start", "--otlp-http-endpoint", f"127.0.0.1:{inlet}", "--otlp-grpc-endpoint", f"127.0.0.1:{free_port()}"),
        *("--exporter", "otlp", "--otlp-exporter-endpoint", f"http://127.0.0.1:{port}", "--otlp-exporter-protocol", "http"),
        *("--batch-timeout", "200ms", "--otlp-exporter-retry-max-backoff", "1s", "--otlp-exporter-retry-max-elapsed-time", "60s"),
    ]
    env = {**environment(inlet), "ROTEL_PID_FILE": str(tmp_path / "rotel.pid")}
    with Sandbox(eps_limits=False) as sandbox, Program(command, env) as collector:
        until(lambda: is_open(inlet))
        out, _ = python_shop(inlet, 300).communicate(timeout=50)
        assert out == "flushed\n"
        with Running(f"{sandbox.url}/2/httpapi", "--spool-dir", str(tmp_path / "spool"), *WORDS, port=port) as running:
            until(lambda: len(sandbox.events()) >= 300, 40)
            assert len(set(routes(sandbox))) == 300
            running.terminate()
        collector.process.send_signal(signal.SIGTERM)


def is_open(port: int) -> bool:
    """Whether a server listens."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
