"""The pytest fixture `amplitude_events`; imports no SDK before it is used, since it loads in every pytest run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from otel_amplitude.testing._captured import AmplitudeEvents


@pytest.fixture
def amplitude_events(monkeypatch: pytest.MonkeyPatch) -> Iterator[AmplitudeEvents]:
    """Give the events that the code under test produced; nothing leaves the process.

    Clients made during the test (`init`, `configure`, an exporter) deliver into the fixture, unless they are given a
    transport of their own. Each test is like a new process for `set_user`. Code that makes no client, and only ends spans
    of the global providers, emits log records or calls `get_instance()`, finds a client that the fixture has made. The
    events of one client arrive in the order in which they were made.
    """
    from otel_amplitude.identity._scope import process  # noqa: PLC0415 -- see the module
    from otel_amplitude.instances import forget_instances  # noqa: PLC0415 -- see the module
    from otel_amplitude.setup import configure  # noqa: PLC0415 -- see the module
    from otel_amplitude.testing._captured import KEY, AmplitudeEvents, captured  # noqa: PLC0415 -- see the module

    captured.requests.clear()
    process.forget()
    monkeypatch.setenv("OTEL_EXPORTER_AMPLITUDE_API_KEY", KEY)
    monkeypatch.setenv("OTEL_EXPORTER_AMPLITUDE_TRANSPORT", "otel_amplitude.testing:captured")
    monkeypatch.setenv("OTEL_EXPORTER_AMPLITUDE_UPLOAD_INTERVAL", "0")
    monkeypatch.setenv("OTEL_EXPORTER_AMPLITUDE_MAX_IN_FLIGHT", "1")  # the order of arrival is the order in which the code made them
    configure()
    yield AmplitudeEvents(captured)
    forget_instances()
