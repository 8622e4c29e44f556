"""Each examination finds what it is for, and is content with what is right."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from cli.trial import KEY, event, spool
from hypothesis import given
from hypothesis import strategies as st

from otel_amplitude.cli import _examine as examine
from otel_amplitude.cli._examine import Finding, Setup, sources_of
from otel_amplitude.config import Config
from otel_amplitude.convert._tables import FIELDS, IDENTITY_FIELDS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

POINTS = {
    "opentelemetry_traces_exporter": frozenset({"amplitude", "console"}),
    "opentelemetry_metrics_exporter": frozenset({"console"}),
    "opentelemetry_logs_exporter": frozenset({"amplitude", "console"}),
    "opentelemetry_propagator": frozenset({"tracecontext", "baggage", "amplitude"}),
    "opentelemetry_traces_sampler": frozenset({"amplitude_parentbased_traceidratio"}),
}
ZERO_CODE = {"OTEL_TRACES_EXPORTER": "amplitude", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}


def setup(
    environ: dict[str, str] | None = None, *, packages: str = "opentelemetry-distro", source: str | None = None, **options: Any
) -> Setup:
    sources = (("shop.py", source),) if source is not None else ()
    return Setup(
        environ or {}, Config(KEY, **options), POINTS, dict.fromkeys(packages.split(), "0.66b1"), Path("src") if sources else None, sources
    )


def levels(findings: Any) -> list[str]:
    return [finding.level for finding in findings]


def only(findings: Any, level: str) -> Finding:
    (found,) = [finding for finding in findings if finding.level == level]
    return found


def test_wiring_that_is_right() -> None:
    """Zero code as the documentation says, and an application that attaches us itself, have no fault."""
    assert levels(examine.wiring(setup(ZERO_CODE))) == ["ok"]
    own = setup(packages="flask", source="import otel_amplitude\n\notel_amplitude.configure('…')\n")
    assert levels(examine.wiring(own)) == ["ok"]


@pytest.mark.parametrize(
    ("change", "words", "cure"),
    [
        ({"OTEL_TRACES_EXPORTER": "console"}, "OTEL_TRACES_EXPORTER is console", "OTEL_TRACES_EXPORTER=amplitude"),
        ({"OTEL_METRICS_EXPORTER": ""}, "the default of opentelemetry-distro", "OTEL_METRICS_EXPORTER=none"),
        (
            {"OTEL_LOGS_EXPORTER": "otlp"},
            "OTEL_LOGS_EXPORTER means otlp, which is not installed",
            "or amplitude for events from log records",
        ),
        ({"OTEL_TRACES_EXPORTER": "amplitude,zipkin"}, "means zipkin", "or install that exporter"),
        ({"OTEL_SDK_DISABLED": "True"}, "OpenTelemetry is off", "unset OTEL_SDK_DISABLED"),
    ],
)
def test_wiring_that_is_wrong(change: dict[str, str], words: str, cure: str) -> None:
    """Each gap has its finding with the one line that closes it."""
    found = only(examine.wiring(setup({**ZERO_CODE, **change})), "fault")
    assert words in found.what
    assert cure in found.cure


def test_zero_code_without_its_package() -> None:
    """The variable alone does nothing."""
    assert "'otel-amplitude[flask]'" in only(examine.wiring(setup(ZERO_CODE, packages="flask")), "fault").cure
    assert "opentelemetry-distro" in only(examine.wiring(setup(ZERO_CODE, packages="requests")), "fault").cure
    disabled = {**ZERO_CODE, "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "amplitude"}
    assert sorted(levels(examine.wiring(setup(disabled)))) == ["note", "ok"]


@pytest.mark.parametrize(
    ("name", "argument", "level"),
    [
        ("", "", "note"),
        ("parentbased_always_on", "", "note"),
        ("always_on", "", "ok"),
        ("amplitude_parentbased_traceidratio", "0.1", "ok"),
        ("traceidratio", "0.1", "fault"),
        ("parentbased_traceidratio", "0.5", "fault"),
        ("parentbased_traceidratio", "1.0", "note"),
        ("always_off", "", "fault"),
        ("my_sampler", "", "fault"),
    ],
)
def test_samplers(name: str, argument: str, level: str) -> None:
    """Those that drop requests are faults, with the sampler that does not."""
    (found,) = examine.sampler(setup({"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": argument}))
    assert found.level == level
    assert level == "ok" or "amplitude_parentbased_traceidratio" in found.cure


@pytest.mark.parametrize(
    ("capture", "sanitize", "expected"),
    [
        ("", "", []),
        ("x-tenant", "", []),
        ("Cookie", "", ["fault"]),
        (".*", "", ["fault"]),
        ("x-a,cookie", "set-cookie,cookie", ["note"]),
        ("(", "", []),
    ],
)
def test_captured_cookies(capture: str, sanitize: str, expected: list[str]) -> None:
    """By name or by pattern; hidden again, they are only superfluous."""
    variables = {
        "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST": capture,
        "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS": sanitize,
    }
    assert levels(examine.cookies(setup(variables))) == expected


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("amplitude.event.type", "write amplitude.event_type"),
        ("amplitude.eventType", "write amplitude.event_type"),
        ("amplitude.user.id", "write amplitude.user_id"),
        ("amplitude.event.properties.total", "write amplitude.event_properties.total"),
        ("amplitude.revenu", "write amplitude.revenue"),
        ("amplitude.zebra", "for a property of the event write amplitude.event_properties.zebra"),
    ],
)
def test_misspelt_attributes(name: str, cure: str) -> None:
    """File and line, and how it is written."""
    (found,) = examine.attribute_names(
        setup(source=f"span.set_attribute(\n    '{name}', 1)\nspan.set_attribute('amplitude.event_type', 'x')")
    )
    assert found.what.startswith("shop.py:2: " + name)
    assert found.cure.startswith(cure)


@given(
    st.sampled_from([*FIELDS, *IDENTITY_FIELDS])
    | st.from_regex(r"amplitude\.(event_properties|user_properties|groups|extra)\.[a-z.]{1,9}", fullmatch=True)
)
def test_attributes_that_are_read(name: str) -> None:
    """Nothing that is read is called misspelt."""
    assert list(examine.attribute_names(setup(source=f"'{name}' 'https://amplitude.com' 'amplitude.com'"))) == []


def test_frameworks() -> None:
    """Each needs its instrumentation; FastAPI's covers Starlette; a library that may only be a client's is doubtful beside a traced framework."""
    client = "flask opentelemetry-instrumentation-flask aiohttp"
    assert levels(examine.frameworks(setup(packages=client))) == ["ok", "doubt"]
    assert levels(examine.frameworks(setup(packages="aiohttp"))) == ["fault"]
    packages = "fastapi starlette opentelemetry-instrumentation-fastapi flask"
    assert levels(examine.frameworks(setup(packages=packages))) == ["fault", "ok"]
    off = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "flask"}
    assert levels(examine.frameworks(setup(off, packages=packages))) == ["fault", "ok"]
    assert levels(examine.frameworks(setup(packages=""))) == ["note"]


def test_a_sandbox_by_name() -> None:
    """Its page would not show the counters: a note says what to write."""
    by_name, by_address = (setup(server_url=f"http://{host}:8010/2/httpapi") for host in ("localhost", "127.0.0.1"))
    assert "127.0.0.1" in only(examine.key(by_name), "note").cure
    assert "note" not in levels(examine.key(by_address))


def test_the_key() -> None:
    """One that does not look like Amplitude's is a doubt; a client that sends nothing too. No key is shown."""
    assert levels(examine.key(setup())) == ["ok", "ok"]
    doubtful = list(examine.key(Setup({}, Config("secret-key-of-ours", dry_run=True), {}, {})))
    assert levels(doubtful) == ["doubt", "ok", "doubt"]
    assert "secret-key" not in str(doubtful)
    assert levels(examine.key(setup(opt_out=True))) == ["ok", "ok", "doubt"]


def test_variables_that_are_no_options() -> None:
    """The nearest option is told."""
    (found, other) = examine.unknown_variables(
        setup({"OTEL_EXPORTER_AMPLITUDE_SERVERZONE": "EU", "OTEL_EXPORTER_AMPLITUDE_QQQ": "", "OTEL_X": ""})
    )
    assert (other.cure, found.cure) in [
        ("rename it to OTEL_EXPORTER_AMPLITUDE_SERVER_ZONE", found.cure),
        (other.cure, "unset it; docs/reference/options.md has the table of options"),
        ("rename it to OTEL_EXPORTER_AMPLITUDE_SERVER_ZONE", "unset it; docs/reference/options.md has the table of options"),
    ]


def test_propagators_and_the_service() -> None:
    """A propagator that is not installed keeps an application from starting; a service wants a name."""
    assert levels(examine.propagators(setup({"OTEL_PROPAGATORS": "tracecontext,baggage"}))) == ["ok"]
    assert "b3" in only(examine.propagators(setup({"OTEL_PROPAGATORS": "tracecontext, b3"})), "fault").what
    assert levels(examine.resource(setup())) == ["note"]
    assert levels(examine.resource(setup({"OTEL_RESOURCE_ATTRIBUTES": "service.name=shop"}))) == []


def test_the_spool(tmp_path: Path) -> None:
    """One that can not be trusted is a fault; what ended processes left, and damage, are told."""
    assert levels(examine.spool(setup())) == []
    path = spool(tmp_path / "spool", event(1), event(2))
    assert levels(examine.spool(setup(spool_dir=str(path)))) == ["ok", "note"]
    (segment,) = path.glob("*/*/*.seg")
    data = bytearray(segment.read_bytes())
    data[200] ^= 0xFF
    segment.write_bytes(data)
    assert "doubt" in levels(examine.spool(setup(spool_dir=str(path))))
    path.chmod(0o777)
    assert levels(examine.spool(setup(spool_dir=str(path)))) == ["fault"]


def test_events_of_another_key_or_endpoint(tmp_path: Path) -> None:
    """They are no part of what the next process sends, and it is said how they get away."""
    path = spool(tmp_path / "spool", event(1), event(2))
    spool(path, event(3), url="https://api.eu.amplitude.com/2/httpapi")
    ours, left, stranded = examine.spool(setup(spool_dir=str(path)))
    assert "2 events of this key and endpoint" in ours.what
    assert "2 of them were left" in left.what
    assert (stranded.level, stranded.what.partition(" ")[0]) == ("doubt", "1")
    assert f"otel-amplitude convert --spool {path} --send" in stranded.cure


@pytest.mark.parametrize("missing", [False, True])
def test_a_spool_that_may_not_be_written(missing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mode 0500, a file system that is read-only, one such as /proc: only an attempt tells; and it leaves nothing behind."""
    path = tmp_path / "spool"
    if not missing:
        spool(path, event(1))
    options = {"spool_dir": str(path)}
    before = sorted(tmp_path.rglob("*"))
    assert levels(examine.spool(setup(**options)))[0] == "ok"
    assert sorted(tmp_path.rglob("*")) == before
    with monkeypatch.context() as patched:
        patched.setattr(examine.os, "access", lambda at, _: Path(at) not in (path, tmp_path))
        patched.setattr(examine, "check_root", lambda _: None)
        (found,) = examine.spool(setup(**options))
    assert (found.level, "may not write there" in found.what, "spool_dir" in found.cure) == ("fault", True, True)
    (found,) = examine.spool(setup(spool_dir="/proc/nope"))
    assert (found.level, "nothing can be made there" in found.what, found.what.endswith("'/proc'")) == ("fault", True, True)


def test_the_rules(tmp_path: Path) -> None:
    """Errors are faults, warnings doubts."""
    path = tmp_path / "rules.toml"
    rule = '[[event]]\nname = "A"\nmatch = {route = "/a"}\n'
    assert levels(examine.rules(setup())) == []
    path.write_text(rule + rule)
    assert levels(examine.rules(setup(rules=str(path)))) == ["ok", "doubt"]
    path.write_text("[[event]]")
    assert levels(examine.rules(setup(rules=str(path)))) == ["fault"]


def test_nothing_to_look_at() -> None:
    """Without options there is nothing to say about them."""
    nothing = Setup({}, None, {}, {})
    assert [*examine.key(nothing), *examine.spool(nothing), *examine.rules(nothing)] == []


def test_where_options_come_from() -> None:
    """An argument wins over a declarative file, that over the environment, and the key has a fallback."""
    environ = {"OTEL_EXPORTER_AMPLITUDE_SERVER_ZONE": "EU", "AMPLITUDE_API_KEY": KEY, "OTEL_EXPORTER_AMPLITUDE_USE_BATCH": "true"}
    found = dict(sources_of({"use_batch": "false"}, {"use_batch": True, "opt_out": True}, environ))
    assert found["opt_out"] == "OTEL_CONFIG_FILE"
    assert found["api_key"] == "AMPLITUDE_API_KEY"
    assert found["server_zone"] == "OTEL_EXPORTER_AMPLITUDE_SERVER_ZONE"
    assert (found["use_batch"], found["name"]) == ("argument", "default")


@pytest.mark.parametrize(
    ("source", "level"),
    [
        ("import otel_amplitude\notel_amplitude.configure()\nset_tracer_provider(TracerProvider())\n", ["fault"]),
        ("from otel_amplitude import configure\nconfigure()\ntrace.set_tracer_provider(provider)\n", ["fault"]),
        ("import otel_amplitude\ntrace.set_tracer_provider(provider)\notel_amplitude.configure()\n", []),
        ("import otel_amplitude\notel_amplitude.configure()\npropagate.set_global_textmap(Xray())\n", ["doubt"]),
        ("import otel_amplitude\notel_amplitude.configure()\nset_global_textmap(C([X(), otel_amplitude.AmplitudePropagator()]))\n", []),
        ("import otel_amplitude\notel_amplitude.configure()\n# set_global_textmap(Xray())\n", []),
    ],
)
def test_what_is_set_after_configure(source: str, level: list[str]) -> None:
    """The order is named where one file shows it."""
    assert levels(examine.order(setup(source=source))) == level


def test_a_propagator_of_the_application_under_zero_code() -> None:
    """There it always comes later."""
    source = "set_global_textmap(Xray())\nset_tracer_provider(provider)\n"
    assert levels(examine.order(setup(ZERO_CODE, source=source))) == ["doubt"]
    assert levels(examine.order(setup({}, source=source))) == []


def test_the_cures_name_extras_that_exist() -> None:
    """Each framework with an extra has one in pyproject.toml that brings distro, its instrumentation and that of logging."""
    extras = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for framework in examine.EXTRAS:
        names = {requirement.partition(">")[0] for requirement in extras[framework]}
        assert names == {"opentelemetry-distro", examine.FRAMEWORKS[framework], "opentelemetry-instrumentation-logging"}
    assert extras["all"] == [f"otel-amplitude[{','.join(name for name in extras if name in examine.EXTRAS)}]"]
