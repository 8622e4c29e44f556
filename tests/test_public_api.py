"""What users may import: listed, sorted, importable, documented."""

from __future__ import annotations

import inspect
import subprocess
import sys
import types
from collections.abc import Callable

import pytest

import otel_amplitude
from otel_amplitude.config import Config, options

# A change here is a change of the public interface: write it into the changelog.
PUBLIC = """
Amplitude AmplitudeExporter AmplitudeLogRecordExporter AmplitudeLogRecordProcessor AmplitudePropagator AmplitudeSpanExporter
AmplitudeSpanProcessor BatchExporter Config ConfigurationError Event ExponentialBackoff FixedWaits Identify InvalidEventError
Middleware MiddlewareError Next OtelAmplitudeError Payload Pending Request RequestsTransport Response Result RetryPolicy Revenue
RulesError SpoolError Stats Transport TransportError __version__ acting configure get_instance init set_user
""".split()


def test_the_public_names_are_these() -> None:
    """Neither more nor fewer."""
    assert otel_amplitude.__all__ == PUBLIC == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_each_public_name_is_there_and_documented(name: str) -> None:
    """Also its public methods."""
    value = getattr(otel_amplitude, name)
    if isinstance(value, (str, types.GenericAlias)):  # a version, or an alias, which Python 3.10 takes for a class
        return
    assert inspect.getdoc(value), name
    for method, found in vars(value).items() if inspect.isclass(value) else ():
        if not method.startswith("_") and inspect.isfunction(found):
            assert inspect.getdoc(found), f"{name}.{method}"


def test_an_unknown_name_is_an_attribute_error() -> None:
    """The lazy package still behaves like a module."""
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        otel_amplitude.Nothing  # noqa: B018
    assert set(PUBLIC) <= set(dir(otel_amplitude))


def test_importing_and_making_a_client_loads_neither_requests_nor_a_framework() -> None:
    """requests waits for the first send (gevent must patch before), frameworks for their users."""
    code = (
        "import sys, otel_amplitude\n"
        "for name in otel_amplitude.__all__: getattr(otel_amplitude, name)\n"
        "otel_amplitude.init('0123456789abcdef')\n"
        "print(sorted({'requests', 'urllib3', 'flask', 'django', 'starlette', 'celery', 'amplitude'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_the_pytest_plugin_costs_other_test_runs_nothing() -> None:
    """It loads in every pytest run of an environment that has the package."""
    code = (
        "import sys, otel_amplitude.testing._pytest_plugin; print(sorted(name for name in sys.modules if name.startswith('opentelemetry')))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_importing_the_package_alone_loads_nothing_of_it() -> None:
    """Names are imported when they are first used."""
    code = "import sys, otel_amplitude; print(sorted(name for name in sys.modules if name.startswith(('otel_amplitude', 'structlog', 'orjson'))))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "['otel_amplitude', 'otel_amplitude._version']"


@pytest.mark.parametrize("function", [otel_amplitude.configure, otel_amplitude.init])
def test_options_are_keywords_that_an_editor_completes(function: Callable[..., object]) -> None:
    """Those of `Config`, with its types and defaults; only the key may stand without its name."""
    taken = dict(inspect.signature(function).parameters)
    assert taken == dict(inspect.signature(Config).parameters)
    assert list(taken) == [option.name for option in options()]
    assert [name for name, parameter in taken.items() if parameter.kind is not parameter.KEYWORD_ONLY] == ["api_key"]
    assert all(parameter.annotation is not parameter.empty for parameter in taken.values())
    assert inspect.signature(function).return_annotation == "Amplitude"


def test_dir_shows_what_is_public() -> None:
    """Nothing that the module itself imports."""
    assert dir(otel_amplitude) == sorted(otel_amplitude.__all__)
