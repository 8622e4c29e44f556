"""The doctor finds what is wrong, says what to do, and shows no secret."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
from cli.trial import KEY

from otel_amplitude.cli import doctor
from otel_amplitude.identity._cookie import make_cookie
from otel_amplitude.sandbox import Sandbox

REAL_PACKAGES = doctor._packages
GOOD = {
    "OTEL_TRACES_EXPORTER": "amplitude",
    "OTEL_METRICS_EXPORTER": "none",
    "OTEL_LOGS_EXPORTER": "none",
    "OTEL_SERVICE_NAME": "shop",
    "OTEL_EXPORTER_AMPLITUDE_API_KEY": KEY,
}
FLASK = ("opentelemetry-distro", "flask", "opentelemetry-instrumentation-flask")
DJANGO = ("opentelemetry-distro", "django", "opentelemetry-instrumentation-django")
LOGS = (*FLASK, "opentelemetry-instrumentation-logging")


@pytest.fixture(autouse=True)
def a_flask_application(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment is that of an instrumented Flask application, whatever is installed for the tests."""
    install(monkeypatch, *FLASK)


def install(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Let the environment have these packages, all of one release."""
    monkeypatch.setattr(doctor, "_packages", lambda: dict.fromkeys(packages, "0.66b1"))


def test_installed_packages() -> None:
    """Their names are written one way, with their versions."""
    assert REAL_PACKAGES()["opentelemetry-sdk"][0].isdigit()


def set_up(monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> None:
    for name, value in {**GOOD, **changes}.items():
        if value is not None:
            monkeypatch.setenv(name, value)


def found(ended: Any, *levels: str) -> list[str]:
    """The findings of these levels, each with its cure."""
    groups = json.loads(ended.out)["findings"]
    return [f"{each['what']} → {each['cure']}" for group in groups.values() for each in group if each["level"] in levels]


def faults(ended: Any) -> list[str]:
    return found(ended, "fault")


class Broken(NamedTuple):
    """A set-up with one mistake, and the one finding it deserves."""

    what: str
    cure: str
    changes: Mapping[str, str | None] = MappingProxyType({})
    source: Mapping[str, str] = MappingProxyType({})
    packages: tuple[str, ...] = FLASK
    words: tuple[str, ...] = ()
    level: str = "fault"


BROKEN = {
    "no key": Broken("api_key is missing", "OTEL_EXPORTER_AMPLITUDE_API_KEY", {"OTEL_EXPORTER_AMPLITUDE_API_KEY": None}),
    "no exporter of metrics": Broken("OTEL_METRICS_EXPORTER means otlp", "OTEL_METRICS_EXPORTER=none", {"OTEL_METRICS_EXPORTER": None}),
    "two exporters of logs, one not installed": Broken(
        "OTEL_LOGS_EXPORTER means otlp", "set OTEL_LOGS_EXPORTER=console", {"OTEL_LOGS_EXPORTER": "console,otlp"}
    ),
    "another exporter": Broken(
        "nothing tells OpenTelemetry about Amplitude", "OTEL_TRACES_EXPORTER=amplitude", {"OTEL_TRACES_EXPORTER": "console"}
    ),
    "a variable of OpenTelemetry misspelt": Broken(
        "OTEL_TRACE_EXPORTER is no variable of OpenTelemetry",
        "rename it to OTEL_TRACES_EXPORTER",
        {"OTEL_TRACES_EXPORTER": None, "OTEL_TRACE_EXPORTER": "amplitude"},
    ),
    "OpenTelemetry is off": Broken("OTEL_SDK_DISABLED=true", "unset OTEL_SDK_DISABLED", {"OTEL_SDK_DISABLED": "true"}),
    "a sampler that drops": Broken(
        "traceidratio at 0.1", "amplitude_parentbased", {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}
    ),
    "cookies on spans": Broken(
        "puts the cookie header on every span",
        "take cookie out",
        {"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST": "cookie"},
    ),
    "an attribute misspelt": Broken(
        "app.py:1: amplitude.event.type",
        "write amplitude.event_type",
        source={"app.py": 'span.set_attribute("amplitude.event.type", "Paid")'},
    ),
    "an option misspelt": Broken("is no option", "OTEL_EXPORTER_AMPLITUDE_SERVER_ZONE", {"OTEL_EXPORTER_AMPLITUDE_SERVERZONE": "EU"}),
    "a value out of range": Broken(
        "server_zone must be one of US, EU", "OTEL_EXPORTER_AMPLITUDE_SERVER_ZONE", {"OTEL_EXPORTER_AMPLITUDE_SERVER_ZONE": "Mars"}
    ),
    "no such rules": Broken("no such rules file", "", {"OTEL_EXPORTER_AMPLITUDE_RULES": "missing.toml"}),
    "a zone that has no effect": Broken(
        "server_zone=EU has no effect",
        "take one of the two out",
        {"OTEL_EXPORTER_AMPLITUDE_SERVER_ZONE": "EU", "OTEL_EXPORTER_AMPLITUDE_SERVER_URL": "http://127.0.0.1:8010/2/httpapi"},
        level="doubt",
    ),
    "Django without its settings": Broken("DJANGO_SETTINGS_MODULE is not set", "export DJANGO_SETTINGS_MODULE=", packages=DJANGO),
    "Django without its settings, with its manage.py": Broken(
        "DJANGO_SETTINGS_MODULE is not set",
        "export DJANGO_SETTINGS_MODULE=bookshop.settings",
        source={"manage.py": 'os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bookshop.settings")'},
        packages=(*DJANGO, *FLASK),
    ),
    "all URLs left out": Broken("leaves out every request", "OTEL_PYTHON_EXCLUDED_URLS", {"OTEL_PYTHON_EXCLUDED_URLS": "healthz,.*"}),
    "URLs that are no patterns": Broken("no list of regular expressions", "", {"OTEL_PYTHON_FLASK_EXCLUDED_URLS": "(healthz"}),
    "logs without a handler": Broken(
        "nothing hands the records of logging",
        "pip install opentelemetry-instrumentation-logging==0.66b1",
        {"OTEL_LOGS_EXPORTER": "amplitude"},
    ),
    "logs that are turned off": Broken(
        "the instrumentation of logging is turned off",
        "OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION=true",
        {"OTEL_LOGS_EXPORTER": "amplitude", "OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION": "false"},
        packages=LOGS,
    ),
    "a root logger above INFO": Broken(
        "root logger lets only WARNING and above pass",
        "logging.basicConfig(level=logging.INFO)",
        {"OTEL_LOGS_EXPORTER": "amplitude"},
        source={"app.py": 'logger.info("paid")'},
        packages=LOGS,
        level="doubt",
    ),
    "an id that is too short": Broken(
        "app.py:2: the id 42 has fewer than 5 characters",
        "USER_ID_FORMAT=user-{id}",
        source={"app.py": "\nset_user(42)"},
        level="doubt",
    ),
    "primary keys as ids": Broken(
        "primary keys below 10,000",
        "USER_ID_FORMAT=user-{id}",
        {"DJANGO_SETTINGS_MODULE": "bookshop.settings"},
        source={"settings.py": 'MIDDLEWARE += ["otel_amplitude.frameworks.django.AmplitudeMiddleware"]'},
        packages=DJANGO,
        level="doubt",
    ),
    "a page of another project": Broken(
        "base.html:1: the page uses the project ffffffffff",
        "give both the same key",
        source={"base.html": f"<script>amplitude.init('{'f' * 32}')</script>"},
    ),
    "a cookie of another project": Broken(
        "the cookie AMP_ffffffffff is of another project",
        "give page and server the same key",
        words=("--cookie", "AMP_ffffffffff=abc; a=b"),
    ),
    "no cookie of Amplitude": Broken(f"there is no readable cookie AMP_{KEY[:10]}", "log in on a page", words=("--cookie", "session=7")),
    "a framework without instrumentation": Broken(
        "flask is installed, but not its instrumentation",
        "pip install 'otel-amplitude[flask]'",
        packages=("opentelemetry-distro", "flask"),
    ),
    "a framework that is turned off": Broken("turns off flask", "take flask out", {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "flask"}),
    "a declarative file that is not there": Broken(
        "otel.yaml can not be used", "correct the file", {"OTEL_CONFIG_FILE": "/nowhere/otel.yaml"}
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_set_ups(name: str, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has exactly one finding that is a fault or a doubt, with its cure; a fault gives exit code 1."""
    broken = BROKEN[name]
    set_up(monkeypatch, **broken.changes)
    install(monkeypatch, *broken.packages)
    for file, text in broken.source.items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    ended = run("doctor", "--offline", "--json", *broken.words, *(("--source", str(tmp_path)) if broken.source else ()))
    assert ended.code == (broken.level == "fault"), ended.err
    (finding,) = found(ended, "fault", "doubt")
    assert [finding] == found(ended, broken.level)
    assert broken.what in finding
    assert broken.cure in finding


@pytest.mark.parametrize("changes", [dict.fromkeys(GOOD), {"OTEL_TRACES_EXPORTER": None}, {"OTEL_TRACES_EXPORTER": "console,otlp"}])
def test_one_cure_for_one_variable(changes: dict[str, str | None], run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever follows all cures does not undo one with the next."""
    set_up(monkeypatch, **changes)
    cures = [cure for each in found(run("doctor", "--offline", "--json"), "fault", "doubt") for cure in re.findall(r"set (\w+)=", each)]
    assert len(cures) == len(set(cures))


DECLARED = """
file_format: "1.1"
resource:
  attributes:
    - name: service.name
      value: shop
tracer_provider:
  sampler:
    amplitude_parentbased_always_on: {}
  processors:
    - batch:
        exporter:
          amplitude:
            api_key: "${THE_KEY}"
            server_url: ${THE_URL:-http://127.0.0.1:8010/2/httpapi}
"""


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("", "", ""),
        ("amplitude:\n            api_key", "console: null\n            api_key", "can not be used"),
        ("            server_url", "            server_ulr", "'server_ulr' is no option"),
        ("amplitude_parentbased_always_on: {}", "always_off: null", "the sampler always_off"),
    ],
)
def test_a_declarative_file(old: str, new: str, what: str, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read in place of the variables: no fault about those that it does without, and its own mistakes are found."""
    file = tmp_path / "otel.yaml"
    file.write_text(DECLARED.replace(old, new, 1) if old else DECLARED, encoding="utf-8")
    set_up(monkeypatch, **dict.fromkeys(GOOD), OTEL_CONFIG_FILE=str(file), THE_KEY=KEY)
    ended = run("doctor", "--offline", "--json")
    wrong = found(ended, "fault", "doubt")
    assert [what in each for each in wrong] == ([True] if what else []), wrong
    if not what:
        assert "events go to http://127.0.0.1:8010/2/httpapi" in ended.out
        assert "OTEL_CONFIG_FILE" in {source for _, _, source in json.loads(ended.out)["options"]}


def test_a_declarative_file_without_us(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told that the file does not name Amplitude; that variables beside it are not read is a note."""
    file = tmp_path / "otel.yaml"
    file.write_text('file_format: "1.1"\ntracer_provider:\n  processors:\n    - simple:\n        exporter:\n          console: null\n')
    set_up(monkeypatch, OTEL_CONFIG_FILE=str(file))
    ended = run("doctor", "--offline", "--json")
    assert ["does not name Amplitude" in each for each in faults(ended)] == [True]
    assert any("OTEL_TRACES_EXPORTER" in each and "not read beside OTEL_CONFIG_FILE" in each for each in found(ended, "note"))


def test_what_was_not_tried(run: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --send the key was not tried, offline nothing was; both are said, with the command that tries it."""
    set_up(monkeypatch, OTEL_EXPORTER_AMPLITUDE_SERVER_URL=f"{sandbox.url}/2/httpapi")
    assert any("the key was not tried" in each and "doctor --send" in each for each in found(run("doctor", "--json"), "note"))
    assert any("were not tried (--offline)" in each for each in found(run("doctor", "--json", "--offline"), "note"))
    assert not any("not tried" in each for each in found(run("doctor", "--json", "--send"), "note"))


def test_a_wrong_path(run: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is found by its 404, without an event."""
    set_up(monkeypatch, OTEL_EXPORTER_AMPLITUDE_SERVER_URL=f"{sandbox.url}/2/httpap")
    (fault,) = faults(run("doctor", "--json"))
    assert "answers 404: there is nothing at this path" in fault
    assert "/2/httpapi" in fault


def test_a_cookie_of_this_project(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read as the server would read it."""
    set_up(monkeypatch)
    cookie = make_cookie(KEY, "laptop-1", "u-12345", 1_790_000_000_000)
    assert any(
        "device laptop-1, the user u-12345" in each for each in found(run("doctor", "--offline", "--json", "--cookie", cookie), "ok")
    )


def test_counts_are_spelt_right(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is a fault, two are faults."""
    set_up(monkeypatch, OTEL_SDK_DISABLED="true")
    assert run("doctor", "--offline").out.splitlines()[-1].startswith("1 fault, 0 doubts, ")


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


def test_folders_that_are_not_the_applications_own(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environments, packages of Node and documents are passed over."""
    set_up(monkeypatch)
    for name in ("shop/.venv/other.py", "shop/node_modules/other.py", "shop/notes.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('"amplitude.event.type"', encoding="utf-8")
    assert run("doctor", "--offline", "--source", tmp_path / "shop").code == 0


def test_no_such_source(run: Any) -> None:
    """It is told."""
    ended = run("doctor", "--source", "missing")
    assert (ended.code, "no such file" in ended.err) == (3, True)
