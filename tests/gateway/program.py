"""The command as a process: started, asked, killed."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.sending import KEY
from zero_code.running import Program, environment, tool


class Running(Program):
    """`otel-amplitude gateway` on a port of its own."""

    def __init__(self, server_url: str, *words: str, port: int = 0, **env: str) -> None:
        given = {"OTEL_EXPORTER_AMPLITUDE_API_KEY": KEY, "OTEL_EXPORTER_AMPLITUDE_UPLOAD_INTERVAL": "0.2", **env}
        values = environment(OTEL_EXPORTER_AMPLITUDE_SERVER_URL=server_url, OTEL_SERVICE_NAME=None, **given)
        super().__init__([tool("otel-amplitude"), "gateway", "--port", str(port), *words], values)

    @property
    def address(self) -> int:
        """The port that it listens on."""
        self.until("/readyz")
        found = re.search(r"gateway: https?://127\.0\.0\.1:(\d+)", self.output)
        assert found
        return int(found[1])

    def post(self, body: bytes, headers: Mapping[str, str], path: str = "/v1/traces", timeout: float = 60) -> int:
        """Send one request on a connection of its own; its status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.address, timeout=timeout)
        try:
            connection.request("POST", path, body, dict(headers))
            return connection.getresponse().status
        finally:
            connection.close()

    def counters(self) -> dict[str, Any]:
        """What it counts."""
        connection = http.client.HTTPConnection("127.0.0.1", self.address, timeout=20)
        try:
            connection.request("GET", "/stats")
            found: dict[str, Any] = json.loads(connection.getresponse().read())
            return found
        finally:
            connection.close()

    def memory(self) -> int:
        """The most memory that it ever had, in MiB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        return int(re.search(r"VmHWM:\s+(\d+) kB", text)[1]) // 1024  # type: ignore[index]

    def kill(self) -> None:
        """SIGKILL."""
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(20)

    def terminate(self, seconds: float = 20) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)
