"""The instrumentor through which a declarative file loads our processors, and the entry points of the package."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points

import pytest
from opentelemetry.sdk.trace import TracerProvider
from otel.fresh import KEY, fresh_process, spans

from otel_amplitude import instances as clients
from otel_amplitude.otel import _components
from otel_amplitude.otel._components import AmplitudeSpanExporter
from otel_amplitude.otel._instrumentor import AmplitudeInstrumentor
from otel_amplitude.testing import FakeTransport


@pytest.fixture
def transport() -> FakeTransport:
    """Where the events of a test arrive."""
    return FakeTransport()


@pytest.fixture(autouse=True)
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[TracerProvider]:
    """The tracer provider of a process that has just started."""
    with fresh_process(monkeypatch) as tracers:
        yield tracers


def test_entry_points_lead_to_what_is_here() -> None:
    """Every entry point of the package can be loaded."""
    ours = [
        point
        for group in entry_points().groups
        if group.startswith("opentelemetry")
        for point in entry_points(group=group)
        if point.value.startswith("otel_amplitude.")
    ]
    assert {point.group for point in ours} >= {
        "opentelemetry_traces_exporter",
        "opentelemetry_logs_exporter",
        "opentelemetry_pre_instrument",
        "opentelemetry_instrumentor",
        "opentelemetry_propagator",
        "opentelemetry_traces_sampler",
        "opentelemetry_environment_variables",
    }
    assert all(point.load() is not None for point in ours)


@pytest.fixture
def instrumentor() -> Iterator[AmplitudeInstrumentor]:
    """The one instrumentor, as new."""
    made = AmplitudeInstrumentor()
    yield made
    made._is_instrumented_by_opentelemetry = False


def test_the_instrumentor_feeds_a_client(instrumentor: AmplitudeInstrumentor, transport: FakeTransport, provider: TracerProvider) -> None:
    """Options of a declarative file attach our processors; those of the loader are not taken for ours."""
    instrumentor.instrument(api_key=KEY, transport=transport, skip_dep_check=True, raise_exception_on_conflict=True)
    spans(provider)
    assert clients.get_instance().flush(5)
    assert len(transport.events) == 1
    assert list(instrumentor.instrumentation_dependencies()) == []
    instrumentor.uninstrument()


def test_the_instrumentor_without_options_does_nothing(instrumentor: AmplitudeInstrumentor, provider: TracerProvider) -> None:
    """Plain auto-instrumentation calls it too."""
    instrumentor.instrument(skip_dep_check=True)
    assert _components._clients == []


def test_the_instrumentor_and_an_exporter_of_the_same_options_feed_once(
    instrumentor: AmplitudeInstrumentor, transport: FakeTransport, provider: TracerProvider
) -> None:
    """A file that asks for both doubles nothing, whether the hook ran or not."""
    exporter = AmplitudeSpanExporter(KEY, transport=transport)
    instrumentor.instrument(api_key=KEY, transport=transport)
    assert exporter.idle
    spans(provider)
    assert exporter.client.flush(5)
    assert len(transport.events) == 1


def test_the_instrumentor_never_raises(instrumentor: AmplitudeInstrumentor, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong option is told; the application starts."""
    instrumentor.instrument(api_key=17)
    assert "quote it" in caplog.text
