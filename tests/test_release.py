"""What a release needs: a workflow that only a commit can change, metadata that says what was tried, and all files in the archives."""

from __future__ import annotations

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
WORKFLOW = (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_actions_are_pinned_to_a_commit() -> None:
    """A tag can be moved, a commit can not; the comment names the release for those who update it."""
    used = re.findall(r"^\s*- uses: (.*)$", WORKFLOW, re.MULTILINE)
    assert used
    assert [line for line in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)*", line)] == []


def test_only_the_job_without_code_may_publish() -> None:
    """It downloads and uploads; no command and no dependency runs beside the right to publish, and no secret is named."""
    build, publish = re.split(r"^  publish:$", WORKFLOW, flags=re.MULTILINE)
    assert "id-token" not in build.partition("jobs:")[2]
    assert "run:" not in publish
    assert re.findall(r"uses: ([\w./-]+)@", publish) == ["actions/download-artifact", "pypa/gh-action-pypi-publish"]
    assert "secrets." not in WORKFLOW


def test_classifiers_name_what_the_tests_run_on() -> None:
    """Each Python between the lowest and the highest one that is named; systems that were tried."""
    classifiers = PROJECT["project"]["classifiers"]
    named = sorted(int(found[1]) for name in classifiers if (found := re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", name)))
    assert named == list(range(named[0], named[-1] + 1))
    assert PROJECT["project"]["requires-python"] == f">=3.{named[0]}"
    assert [name for name in classifiers if name.startswith("Operating System")] == ["Operating System :: POSIX :: Linux"]


def test_the_source_archive_has_the_documentation() -> None:
    """And what its tests read."""
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert [name for name in included if not (ROOT / name.lstrip("/")).exists()] == []
    assert {"/docs", "/tests", "/SECURITY.md", "/CHANGELOG.md", "/.github"} <= set(included)
