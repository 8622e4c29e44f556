"""One call joins a client to OpenTelemetry: what it makes where nothing is set, and what it says about what is."""

from __future__ import annotations

import logging
import os

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from otel_amplitude import Amplitude, AmplitudeSpanProcessor, Config, setup
from otel_amplitude.testing import FakeTransport

KEY = "0123456789abcdef0123456789abcdef"
OURS = [
    ("amplitude_parentbased_always_on", "AlwaysOnSampler"),
    ("amplitude_parentbased_traceidratio", "TraceIdRatioBased{0.01}"),
    (" Amplitude_ParentBased_Always_On ", "AlwaysOnSampler"),
]


@pytest.fixture
def client() -> Amplitude:
    return Amplitude(Config(KEY, transport=FakeTransport()))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[TracerProvider]:
    """The global provider of a process where nobody has set one; the first one that is set stays."""
    found: list[TracerProvider] = []
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: found[0] if found else trace.ProxyTracerProvider())
    monkeypatch.setattr(trace, "set_tracer_provider", found.append)
    return found


@pytest.mark.parametrize(("name", "root"), [*OURS, ("", "AlwaysOnSampler")])
def test_our_samplers_are_known_by_name_where_configure_makes_the_provider(
    name: str, root: str, client: Amplitude, made: list[TracerProvider], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The SDK's own constructor does not know them, and would drop requests without a word of ours being wrong."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.01")
    setup.attach_spans(AmplitudeSpanProcessor(client))
    setup.tell_started(client)
    description = made[0].sampler.get_description()
    assert description.startswith("RecordServerSpans")
    assert root in description
    assert caplog.records == []
    made[0].shutdown()


def test_the_sdks_own_names_are_left_to_it(client: Amplitude, made: list[TracerProvider], monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is said that it can drop requests, with the setting that would not."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.25")
    setup.attach_spans(AmplitudeSpanProcessor(client))
    assert made[0].sampler.get_description() == "TraceIdRatioBased{0.25}"
    made[0].shutdown()


@pytest.mark.parametrize(
    ("name", "cure"), [("", "OTEL_TRACES_SAMPLER=amplitude_"), ("amplitude_parentbased_always_on", "let configure() make")]
)
def test_the_cure_is_never_the_setting_that_was_made(
    name: str,
    cure: str,
    client: Amplitude,
    made: list[TracerProvider],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An application's own provider knows only the SDK's names, so for ours the provider is to be changed and not the variable."""
    caplog.set_level(logging.WARNING, "otel_amplitude")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    made.append(TracerProvider(shutdown_on_exit=False))
    setup.tell_started(client)
    (line,) = (record.getMessage() for record in caplog.records if record.getMessage().startswith("sampler.drops"))
    assert cure in line


def test_the_start_line_is_short_and_written_once_for_a_service(
    client: Amplitude, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One width of a screen; a worker that inherits the environment of the process that wrote it does not write it again."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "amplitude_parentbased_always_on")
    monkeypatch.setenv(setup._ANNOUNCED, "")
    client.log.zero_code = True
    setup.tell_started(client)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "exporter.started" in line]
    assert line.endswith(f"exporter.started endpoint={client.config.endpoint} sampler=amplitude_parentbased_always_on")
    assert len(line) < 160
    setup.tell_started(client)
    assert "exporter.started" in capsys.readouterr().err
    monkeypatch.setenv(setup._ANNOUNCED, os.environ[setup._ANNOUNCED].rpartition("|")[0] + "|1")  # what a worker inherits
    setup.tell_started(client)
    assert "exporter.started" not in capsys.readouterr().err
    monkeypatch.setenv(setup._ANNOUNCED, "https://elsewhere.example/|1")
    setup.tell_started(client)
    assert "exporter.started" in capsys.readouterr().err
