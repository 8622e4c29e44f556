"""Tools of the system that some tests need: skip with a hint at home, fail in CI."""

import os
import shutil

import pytest


def _need(tool: str, hint: str) -> str:
    path = shutil.which(tool)
    if path:
        return path
    message = f"{tool} is not installed: {hint}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def node() -> str:
    """The path of node."""
    return _need("node", "apt-get install -y nodejs npm")


def npm() -> str:
    """The path of npm."""
    return _need("npm", "apt-get install -y nodejs npm")


def chromium() -> str:
    """The path of Chromium."""
    return _need("chromium", "apt-get install -y chromium chromium-driver")
