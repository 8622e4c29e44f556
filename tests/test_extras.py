"""What the extras install: releases that exist together, found by a resolver from nothing, for the lowest and the highest Python."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
NEWEST_TRIED = "0.66b1"  # of the instrumentations, in the group `frameworks` of pyproject.toml


def resolved(extra: str, *more: str) -> dict[str, str]:
    """What would be installed with an extra in an empty environment: versions by name."""
    uv = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "compile",
        "--quiet",
        "--no-header",
        "--no-annotate",
        "--extra",
        extra,
        "pyproject.toml",
        *more,
    ]
    ran = subprocess.run(uv, capture_output=True, text=True, check=False, cwd=ROOT, timeout=55)
    assert ran.returncode == 0, ran.stderr
    return dict(re.findall(r"^([\w.-]+)==(\S+)", ran.stdout, re.MULTILINE))


def check(extra: str, found: dict[str, str]) -> None:
    """Distro, instrumentations and SDK are of one release of OpenTelemetry."""
    releases = {
        version for name, version in found.items() if name.startswith("opentelemetry-instrumentation") or name == "opentelemetry-distro"
    }
    assert len(releases) == 1, found
    assert found["opentelemetry-api"].rpartition(".")[0] == found["opentelemetry-sdk"].rpartition(".")[0]
    (release,) = releases
    # 0.60b0 belongs to 1.39, 0.66b1 to 1.45: the second numbers differ by 21.
    assert int(found["opentelemetry-api"].split(".")[1]) == int(release.split(".")[1].partition("b")[0]) - 21
    print(f"{extra}: instrumentations {release}, SDK {found['opentelemetry-sdk']}")  # the newest working set: pytest -rP shows it


@pytest.mark.heavy
def test_all_frameworks_resolve_together() -> None:
    """The newest set that works is the one that the tests run with, or a newer one."""
    found = resolved("all")
    check("all", found)
    assert {
        requirement.partition(">")[0] for name in EXTRAS for requirement in EXTRAS[name] if "instrumentation" in requirement
    } <= found.keys()
    tried = [int(part) for part in re.findall(r"\d+", NEWEST_TRIED)]
    assert [int(part) for part in re.findall(r"\d+", found["opentelemetry-distro"])] >= tried


@pytest.mark.soak
@pytest.mark.parametrize("python", ["3.10", "3.13"])
@pytest.mark.parametrize("extra", [name for name, needs in EXTRAS.items() if "distro" in str(needs)])
def test_an_extra_resolves(extra: str, python: str) -> None:
    """With the newest releases, and with the lowest that its ranges allow."""
    check(extra, resolved(extra, "--python-version", python))
    check(extra, resolved(extra, "--python-version", python, "--resolution", "lowest-direct"))
