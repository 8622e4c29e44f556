"""The cookie code of Amplitude's browser SDK itself writes what we read and reads what we write."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import needs
import pytest

from otel_amplitude.identity import BrowserCookie, make_cookie, read_cookie

pytestmark = [pytest.mark.heavy, pytest.mark.node]
SCRIPT = Path(__file__).parent / "browser_cookie.js"
PACKAGE = "@amplitude/analytics-core@2.61.0"
KEY = "0123456789abcdef0123456789abcdef"
SESSION, LAST = 1_795_305_600_000, 1_795_305_661_234


@pytest.fixture(scope="module")
def node_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the SDK's core."""
    folder = tmp_path_factory.mktemp("browser")
    command = [needs.npm(), "install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent", "--prefix", str(folder), PACKAGE]
    subprocess.run(command, check=True, timeout=50)
    return str(folder / "node_modules")


def sdk(node_path: str, *arguments: str) -> str:
    """What the SDK answers."""
    done = subprocess.run(
        [needs.node(), str(SCRIPT), *arguments],
        check=True,
        timeout=30,
        capture_output=True,
        text=True,
        env={**os.environ, "NODE_PATH": node_path},
    )
    return done.stdout.strip()


@pytest.mark.parametrize("user", ["zoë@example.com", "👩‍🚀", "a%2Fb+c/d=", None])
@pytest.mark.parametrize("opt_out", [True, False])
def test_reads_what_the_sdk_writes(node_path: str, user: str | None, opt_out: bool) -> None:
    """Every kind of user id, and visitors without one."""
    session = {"deviceId": "d-12345", "sessionId": SESSION, "lastEventTime": LAST, "optOut": opt_out, "lastEventId": 17}
    written = sdk(node_path, "write", KEY, json.dumps(session if user is None else {**session, "userId": user}))
    assert read_cookie(f"a=b; {written}", KEY) == BrowserCookie("d-12345", user, SESSION, LAST, opt_out)


def test_the_sdk_reads_what_we_write(node_path: str) -> None:
    """A cookie for trials is one a browser would believe."""
    cookie = make_cookie(KEY, "d-12345", "zoë@example.com", SESSION, last_event_ms=LAST)
    assert json.loads(sdk(node_path, "read", KEY, cookie)) == {
        "deviceId": "d-12345",
        "userId": "zoë@example.com",
        "sessionId": SESSION,
        "optOut": False,
        "lastEventTime": LAST,
    }
