"""The cookie that Amplitude's own browser SDK writes, on its way through a real server into one session with the browser's events."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import needs
import pytest
from zero_code.running import KEY, App, environment, sandboxed, tool

pytestmark = [pytest.mark.heavy, pytest.mark.node, pytest.mark.timeout(120)]

HERE = Path(__file__).parent
PACKAGE = "@amplitude/analytics-core@2.61.0"


@pytest.fixture(scope="module")
def node_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the heart of Amplitude's browser SDK."""
    folder = tmp_path_factory.mktemp("browser")
    command = [needs.npm(), "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent", "--prefix", str(folder), PACKAGE]
    subprocess.run(command, check=True, timeout=100)
    return str(folder / "node_modules")


@pytest.mark.parametrize("user", ["customer-1", "käufer+1@shop.example; a=b"])
def test_browser_and_server_share_a_session(node_path: str, user: str) -> None:
    """The page view that the browser sent and the request that it made stand side by side: same user, device and session."""
    with sandboxed() as sandbox:
        command = [needs.node(), str(HERE / "browser.js"), f"{sandbox.url}/2/httpapi", KEY, user]
        said = subprocess.run(command, check=True, timeout=50, capture_output=True, env={"NODE_PATH": node_path}).stdout
        browser = json.loads(said)
        assert browser["status"] == 200
        flask = [tool("flask"), "--app", "flask_shop", "run", "--port", "{port}"]
        with App(flask, environment(sandbox.url)) as app:
            assert app.request("GET", "/products/7", Cookie=f"csrf=1; {browser['cookie']}; theme=dark")[0] == 200
            app.stop()
            page, request = sandbox.events()
        assert (page["event_type"], request["event_type"]) == ("[Amplitude] Page Viewed", "HTTP Request")
        for event in (page, request):
            assert (event["user_id"], event["device_id"], event["session_id"]) == (user, "browser-of-node", browser["session"])
        assert not {"platform", "language", "ip", "os_name", "device_model"} & set(request), "the browser's own report must stand"
