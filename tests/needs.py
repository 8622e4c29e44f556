"""Tools of the system that some tests need: skip with a hint at home, fail in CI."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest


def _need(tool: str, hint: str) -> str:
    return shutil.which(tool) or _absent(tool, hint)


def _absent(tool: str, hint: str) -> str:
    message = f"{tool} is not installed: {hint}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def installed(path: Path, hint: str) -> str:
    """A path that an installation makes."""
    return str(path) if path.exists() else _absent(path.name, hint)


def module_file(module: str, name: str, hint: str) -> str:
    """A program that lies inside of an installed package."""
    found = importlib.util.find_spec(module)
    folders = found.submodule_search_locations if found is not None else None
    return installed(Path(folders[0]) / name, hint) if folders else _absent(module, hint)


def node() -> str:
    """The path of node."""
    return _need("node", "apt-get install -y nodejs npm")


def npm() -> str:
    """The path of npm."""
    return _need("npm", "apt-get install -y nodejs npm")


def chromium() -> str:
    """The path of Chromium."""
    return _need("chromium", "apt-get install -y chromium chromium-driver")
