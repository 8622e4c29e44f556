"""`otel-amplitude run`: what it sets, what it refuses, what it says, and what it executes."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cli.trial import KEY

from otel_amplitude.cli import doctor
from otel_amplitude.cli import run as command
from otel_amplitude.sandbox import KEY as SANDBOX_KEY
from otel_amplitude.sandbox import Sandbox
from otel_amplitude.sandbox.__main__ import main as sandbox_main

FLASK = ("flask", "opentelemetry-instrumentation-flask", "opentelemetry-distro")


class Executed(NamedTuple):
    """What took the place of the process."""

    words: list[str]
    environ: dict[str, str]


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Executed]:
    """Nothing is executed, but noted; the working directory is an empty one named `bookshop`, and Flask is installed with what it needs."""
    found: list[Executed] = []

    def note(_: str, words: list[str], environ: dict[str, str]) -> None:
        found.append(Executed(words, dict(environ)))
        raise SystemExit(0)

    monkeypatch.setattr(os, "execvpe", note)
    install(monkeypatch, *FLASK)
    (tmp_path / "bookshop").mkdir()
    monkeypatch.chdir(tmp_path / "bookshop")
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    return found


def install(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    monkeypatch.setattr(doctor, "_packages", lambda: dict.fromkeys(packages, "0.66b1"))


def start(run: Any, *words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        run("run", *words)
    assert ended.value.code == 0


def telemetry(executed: list[Executed]) -> dict[str, str]:
    """What the command gets to know about telemetry."""
    (only,) = executed
    return {name: value for name, value in only.environ.items() if name.startswith(("OTEL_", "DJANGO_"))}


def test_nothing_but_the_key_is_needed(
    run: Any, executed: list[Executed], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything unset is set, the service is named after the directory, one short line without the key says so, the command is instrumented."""
    monkeypatch.setenv("OTEL_EXPORTER_AMPLITUDE_API_KEY", KEY)
    start(run, "--", "python", "-m", "shop", "--port", "1")
    assert telemetry(executed) == {
        "OTEL_EXPORTER_AMPLITUDE_API_KEY": KEY,
        "OTEL_SERVICE_NAME": "bookshop",
        "OTEL_TRACES_EXPORTER": "amplitude",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION": "false",
        "OTEL_TRACES_SAMPLER": "amplitude_parentbased_always_on",
    }
    assert Path(executed[0].words[0]).name == "opentelemetry-instrument"
    assert executed[0].words[1:] == ["python", "-m", "shop", "--port", "1"]
    assert executed[0].environ["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "otel-amplitude run: service bookshop, metrics not exported, logs not exported, every request recorded\n"


def test_what_is_set_stays(run: Any, executed: list[Executed], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also a service name among the resource attributes, and the older variable of the key."""
    given = {
        "AMPLITUDE_API_KEY": KEY,
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=till",
        "OTEL_TRACES_EXPORTER": "amplitude,console",
        "OTEL_METRICS_EXPORTER": "console",
        "OTEL_LOGS_EXPORTER": "amplitude",
        "OTEL_TRACES_SAMPLER": "always_on",
        "DJANGO_SETTINGS_MODULE": "till.settings",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    start(run, "python", "shop.py")
    assert telemetry(executed).items() | {("AMPLITUDE_API_KEY", KEY)} == given.items()


@pytest.mark.parametrize(
    "words", [("python", "manage.py", "runserver"), ("python", "site/manage.py", "runserver"), ("python", "-m", "asgi")]
)
def test_django_settings_are_those_of_manage_py(
    words: tuple[str, ...], run: Any, executed: list[Executed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this directory, or where the command says; OpenTelemetry would start Django with empty settings."""
    monkeypatch.setenv("AMPLITUDE_API_KEY", KEY)
    place = Path("site" if "site/manage.py" in words else ".")
    place.mkdir(exist_ok=True)
    (place / "manage.py").write_text("os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'bookshop.settings')", encoding="utf-8")
    start(run, *words)
    assert telemetry(executed)["DJANGO_SETTINGS_MODULE"] == "bookshop.settings"


@pytest.mark.parametrize(
    ("words", "code", "cure"),
    [
        (("--", "python", "shop.py"), 2, "otel-amplitude run --sandbox -- python shop.py"),
        ((), 2, "otel-amplitude run -- flask --app shop run"),
        (("--sandbox", "--"), 2, "otel-amplitude run -- flask --app shop run"),
        (("--", "no-such-server", "shop:app"), 3, "no-such-server: there is no such program here"),
    ],
    ids=str,
)
def test_what_can_not_be_started(words: tuple[str, ...], code: int, cure: str, run: Any, executed: list[Executed]) -> None:
    """A missing key, a missing command and a command that does not exist are one line each, which says what to type."""
    ended = run("run", *words)
    assert (ended.code, ended.out, executed) == (code, "", [])
    assert len(ended.err.splitlines()) == 1
    assert cure in ended.err


def test_a_framework_without_its_instrumentation(run: Any, executed: list[Executed], monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra that is missing is named before the command starts; without the distro nothing starts."""
    monkeypatch.setenv("AMPLITUDE_API_KEY", KEY)
    install(monkeypatch, "fastapi", "opentelemetry-distro")
    with pytest.raises(SystemExit):
        run("run", "python", "shop.py")
    assert len(executed) == 1
    which = command.shutil.which
    monkeypatch.setattr(
        command.shutil, "which", lambda name, path=None: None if name.startswith("opentelemetry") else which(name, path=path)
    )
    ended = run("run", "python", "shop.py")
    assert (ended.code, len(executed)) == (3, 1)
    assert "pip install 'otel-amplitude[fastapi]'" in ended.err


def test_faults_are_said_and_the_command_starts(
    run: Any, executed: list[Executed], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What doctor calls a fault is one line with its cure; analytics never keep an application from starting."""
    monkeypatch.setenv("AMPLITUDE_API_KEY", KEY)
    monkeypatch.setenv("OTEL_EXPORTER_AMPLITUDE_SERVER_ZONE", "Mars")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    start(run, "python", "shop.py")
    assert len(executed) == 1
    zone, exporter, last = capsys.readouterr().err.splitlines()
    assert "server_zone must be one of US, EU" in zone
    assert "→ set OTEL_TRACES_EXPORTER=amplitude" in exporter
    assert last.startswith("otel-amplitude run: service bookshop")


def test_a_program_without_framework_needs_no_instrumentation(run: Any, executed: list[Executed], monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that calls configure() gets the variables, and is executed as it is."""
    monkeypatch.setenv("AMPLITUDE_API_KEY", KEY)
    install(monkeypatch)
    which = command.shutil.which
    monkeypatch.setattr(
        command.shutil, "which", lambda name, path=None: None if name.startswith("opentelemetry") else which(name, path=path)
    )
    start(run, "python", "report.py")
    assert executed[0].words == ["python", "report.py"]


def test_a_declarative_file_is_left_to_decide(run: Any, executed: list[Executed], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Variables that OpenTelemetry does not read beside it are not set, and a sandbox can not be put over it."""
    file = tmp_path / "otel.yaml"
    file.write_text('file_format: "1.1"\n', encoding="utf-8")
    monkeypatch.setenv("OTEL_CONFIG_FILE", str(file))
    start(run, "python", "shop.py")
    assert telemetry(executed) == {"OTEL_CONFIG_FILE": str(file), "OTEL_SERVICE_NAME": "bookshop"}
    ended = run("run", "--sandbox", "python", "shop.py")
    assert (ended.code, "set server_url in that file" in ended.err) == (3, True)


# --- with a sandbox -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a browser was asked to open, on a desktop."""
    found: list[str] = []
    monkeypatch.setattr(command.webbrowser, "open", found.append)
    monkeypatch.setattr(command, "_has_screen", lambda _: True)
    return found


@pytest.mark.parametrize("variable", ["AMPLITUDE_API_KEY", "OTEL_EXPORTER_AMPLITUDE_API_KEY"])
@pytest.mark.parametrize("key", ["", SANDBOX_KEY, "f" * 32])
def test_a_sandbox_that_runs_is_found(
    key: str,
    variable: str,
    run: Any,
    executed: list[Executed],
    opened: list[str],
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its page is opened; its own key is used, never one of the environment, and that is said; no proxy stands between."""
    monkeypatch.setenv(variable, key)
    monkeypatch.setenv("NO_PROXY", "internal.example")
    start(run, "--sandbox", "--port", sandbox.url.rpartition(":")[2], "--", "python", "shop.py")
    found = telemetry(executed)
    assert found["OTEL_EXPORTER_AMPLITUDE_SERVER_URL"] == f"{sandbox.url}/2/httpapi"
    assert found["OTEL_EXPORTER_AMPLITUDE_API_KEY"] == SANDBOX_KEY
    assert "f" * 32 not in executed[0].environ.values()
    assert executed[0].environ["no_proxy"] == "internal.example,127.0.0.1"
    assert opened == [sandbox.url]
    said = capsys.readouterr().err
    assert f"sandbox {sandbox.url} (found)" in said
    assert ("with its key in place of yours" in said) == (key not in ("", SANDBOX_KEY))


def test_a_text_terminal_opens_no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that runs in the terminal would take it from the command."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(command.sys.stderr, "isatty", lambda: True, raising=False)
    assert [command._has_screen(environ) for environ in ({}, {"DISPLAY": ":0"}, {"WAYLAND_DISPLAY": "w"})] == [False, True, True]


@pytest.fixture
def taken() -> Iterator[int]:
    """A port where something listens that is no sandbox."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))  # bound, not listening: a connection is refused at once
        yield other.getsockname()[1]


@pytest.mark.heavy
def test_a_port_of_another_program(taken: int, run: Any, executed: list[Executed]) -> None:
    """It is one line with the word that changes it."""
    ended = run("run", "--sandbox", "--port", taken, "--", "python", "shop.py")
    assert (ended.code, executed) == (3, [])
    assert ended.err == f"otel-amplitude run: port {taken} is used by another program; choose another --port\n"


@pytest.mark.heavy
def test_a_sandbox_nobody_uses_ends(capsys: pytest.CaptureFixture[str]) -> None:
    """One that was started for a command does not stay for ever."""
    assert sandbox_main(["--end-when-idle", "0.05"]) == 0
    assert "url" in capsys.readouterr().out


def test_a_sandbox_that_is_used_stays(sandbox: Sandbox) -> None:
    """An open connection, such as that of its page, is use."""
    host, _, port = sandbox.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as page:
        page.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert page.recv(1)
        assert sandbox.idle_seconds == 0
