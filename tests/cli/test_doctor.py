"""The doctor finds what is wrong, says what to do, and shows no secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli.trial import KEY

from otel_amplitude.cli import doctor
from otel_amplitude.sandbox import Sandbox

REAL_PACKAGES = doctor._packages
GOOD = {
    "OTEL_TRACES_EXPORTER": "amplitude",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
    "OTEL_SERVICE_NAME": "shop",
    "OTEL_EXPORTER_AMPLITUDE_API_KEY": KEY,
}


@pytest.fixture(autouse=True)
def a_flask_application(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is that of an instrumented Flask application, whatever is installed for the tests."""
    packages = {"opentelemetry-distro", "flask", "opentelemetry-instrumentation-flask"}
    monkeypatch.setattr(doctor, "_packages", lambda: frozenset(packages))


def test_installed_packages() -> None:
    """Their names are written one way."""
    assert "opentelemetry-sdk" in REAL_PACKAGES()


def set_up(monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> None:
    for name, value in {**GOOD, **changes}.items():
        if value is not None:
            monkeypatch.setenv(name, value)


def faults(ended: Any) -> list[str]:
    found = json.loads(ended.out)["findings"]
    return [finding["what"] + " → " + finding["cure"] for group in found.values() for finding in group if finding["level"] == "fault"]


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """An application's folder with one mistake in it, and folders that are not its own."""
    for name in ("shop/app.py", "shop/.venv/other.py", "shop/node_modules/other.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('span.set_attribute("amplitude.event.type", "Order Placed")\n')
    (tmp_path / "shop" / "notes.md").write_text('"amplitude.event.type"')
    return tmp_path / "shop"


@pytest.mark.parametrize(
    ("changes", "words", "what", "cure"),
    [
        ({"OTEL_EXPORTER_AMPLITUDE_API_KEY": None}, (), "api_key is missing", "OTEL_EXPORTER_AMPLITUDE_API_KEY"),
        ({"OTEL_METRICS_EXPORTER": None}, (), "OTEL_METRICS_EXPORTER means otlp", "OTEL_METRICS_EXPORTER=none"),
        ({"OTEL_TRACES_EXPORTER": "console"}, (), "nothing tells OpenTelemetry about Amplitude", "OTEL_TRACES_EXPORTER=amplitude"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}, (), "traceidratio at 0.1", "amplitude_parentbased"),
        (
            {"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST": "cookie"},
            (),
            "puts the cookie header on every span",
            "take cookie out",
        ),
        ({}, ("--source", "SHOP"), "app.py:1: amplitude.event.type", "write amplitude.event_type"),
        ({"OTEL_EXPORTER_AMPLITUDE_SERVERZONE": "EU"}, (), "is no option", "OTEL_EXPORTER_AMPLITUDE_SERVER_ZONE"),
        ({"OTEL_EXPORTER_AMPLITUDE_SERVER_ZONE": "Mars"}, (), "server_zone must be one of US, EU", "OTEL_EXPORTER_AMPLITUDE_SERVER_ZONE"),
        ({"OTEL_EXPORTER_AMPLITUDE_RULES": "missing.toml"}, (), "no such rules file", ""),
    ],
)
def test_broken_set_ups(
    changes: dict[str, str | None], words: tuple[str, ...], what: str, cure: str, run: Any, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one fault of each set-up is found, and the cure is beside it."""
    set_up(monkeypatch, **changes)
    ended = run("doctor", "--offline", "--json", *(str(shop) if word == "SHOP" else word for word in words))
    assert ended.code == 1
    (fault,) = faults(ended)
    assert what in fault
    assert cure in fault


def test_a_set_up_that_is_right(run: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is answered, a test event arrives, options are listed with their sources, and no secret is shown."""
    set_up(monkeypatch, OTEL_EXPORTER_AMPLITUDE_HEADERS="x-proxy=very-secret")
    ended = run("doctor", "--send", "--option", f"server_url={sandbox.url}/2/httpapi")
    assert ended.code == 0, ended.out
    assert "0 faults" in ended.out
    assert "the test event was acknowledged" in ended.out
    assert [(item["event_type"], item["device_id"]) for item in sandbox.events()] == [("Doctor Test", "otel-amplitude-doctor")]
    assert "argument" in ended.out
    assert "1 headers" in ended.out
    assert KEY not in ended.out
    assert "very-secret" not in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80


def test_asking_sends_no_event(run: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --send nothing arrives."""
    set_up(monkeypatch, OTEL_EXPORTER_AMPLITUDE_SERVER_URL=f"{sandbox.url}/2/httpapi")
    ended = run("doctor", "--json")
    assert (ended.code, sandbox.accepted, len(sandbox.requests)) == (0, 0, 1)


@pytest.mark.parametrize(
    ("fault", "words", "said"),
    [
        ({"name": "invalid_key"}, "does not know the api key", "the server answers 400: Invalid API key"),
        ({"name": "status", "status": 418}, "", "the server answers 418"),
    ],
)
def test_what_amplitude_answers(
    fault: dict[str, Any], words: str, said: str, run: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key it does not know is told; so is a test event that it does not take, with what the server said to it."""
    set_up(monkeypatch, OTEL_EXPORTER_AMPLITUDE_SERVER_URL=f"{sandbox.url}/2/httpapi")
    sandbox.set_fault(**fault)
    found = faults(run("doctor", "--send", "--json"))
    assert any(words in each for each in found)
    (sent,) = (each for each in found if "was not acknowledged" in each)
    assert said in sent
    assert "no answer" not in sent
    assert KEY not in sent


def test_nobody_answers(run: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is not there, and one that is not Amplitude, are told apart."""
    set_up(monkeypatch, OTEL_EXPORTER_AMPLITUDE_SERVER_URL="http://127.0.0.1:9/2/httpapi")
    reached, sent = faults(run("doctor", "--json", "--send"))
    assert "can not be reached" in reached
    assert "connection refused" in sent
    monkeypatch.setenv("OTEL_EXPORTER_AMPLITUDE_SERVER_URL", f"{sandbox.url}/2/httpapi")
    sandbox.set_fault("html")
    assert "not as Amplitude does" in faults(run("doctor", "--json"))[0]


def test_own_wiring(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that attaches us needs no variable; one file may be named instead of a folder."""
    set_up(monkeypatch, OTEL_TRACES_EXPORTER="none")
    path = tmp_path / "app.py"
    path.write_text("from otel_amplitude import configure\n\nconfigure()\n")
    assert run("doctor", "--offline", "--source", path).code == 0
    (tmp_path / "dangling.py").symlink_to(tmp_path / "gone.py")
    assert run("doctor", "--offline", "--source", tmp_path).code == 0


def test_no_such_source(run: Any) -> None:
    """It is told."""
    ended = run("doctor", "--source", "missing")
    assert (ended.code, "no such file" in ended.err) == (3, True)
