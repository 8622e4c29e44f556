"""Amplitude's own clients against the sandbox, unchanged: the proof that it speaks as the real one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import needs
import pytest

if TYPE_CHECKING:
    from otel_amplitude.sandbox import Sandbox

HERE = Path(__file__).parent
PACKAGES = ["@amplitude/node@1.10.2", "@amplitude/identify@1.10.2", "@amplitude/analytics-node@1.5.73"]

pytestmark = pytest.mark.heavy


@pytest.fixture(scope="module")
def node_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with Amplitude's Node clients."""
    folder = tmp_path_factory.mktemp("official")
    command = [needs.npm(), "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent", "--prefix", str(folder), *PACKAGES]
    subprocess.run(command, check=True, timeout=50)
    return str(folder / "node_modules")


def run(*command: str, **environment: str) -> None:
    """Run a client to its end."""
    subprocess.run(command, check=True, timeout=50, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize("fault", [None, {"name": "status", "status": 503, "count": 1}], ids=["calm", "503 first"])
@pytest.mark.parametrize("path", ["/2/httpapi", "/batch"])
def test_python(sandbox: Sandbox, path: str, fault: dict[str, object] | None) -> None:
    """amplitude-analytics delivers events, identify and group identify, after a 503 too."""
    if fault:
        sandbox.set_fault(**fault)  # type: ignore[arg-type]
    run(sys.executable, str(HERE / "official_client.py"), sandbox.url + path)
    assert sorted(event["event_type"] for event in sandbox.events()) == ["$groupidentify", "$identify", "Python"]
    assert sandbox.user_properties("customer-py") == {"plan": "pro", "orders": 2}
    assert sandbox.group_properties("org", "python") == {"size": 5}
    assert [request.status for request in sandbox.requests if request.status != 200] == ([503] if fault else [])


@pytest.mark.node
@pytest.mark.parametrize("status", [None, 503], ids=["calm", "503 first"])
def test_node(sandbox: Sandbox, node_path: str, status: int | None) -> None:
    """Both Node clients deliver events, identify and group identify, after a 503 too."""
    if status:
        sandbox.set_fault("status", status=status, count=1)
    run(needs.node(), str(HERE / "official_clients.js"), sandbox.url + "/2/httpapi", NODE_PATH=node_path)
    types = sorted(event["event_type"] for event in sandbox.events())
    assert types == ["$groupidentify", "$identify", "$identify", "New Node", "Old Node"]
    assert sandbox.user_properties("customer-old") == {"plan": "pro", "orders": 2}
    assert sandbox.user_properties("customer-new") == {"plan": "free", "seen": ["node"]}
    assert sandbox.group_properties("org", "node") == {"size": 3}
