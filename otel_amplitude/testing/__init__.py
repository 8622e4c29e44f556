"""Fakes for the tests of applications that use this package, and for our own.

The pytest fixture `amplitude_events` comes with the package: it gives the events that the code under test produced.
Names are imported when they are first used: pytest loads the plugin beside this file in every run, and must not pay for an SDK.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from otel_amplitude.testing._captured import AmplitudeEvents, captured
    from otel_amplitude.testing._transport import FakeTransport, Recorded, answer

__all__ = ["AmplitudeEvents", "FakeTransport", "Recorded", "answer", "captured"]

_HOME_OF = {"AmplitudeEvents": "_captured", "captured": "_captured"} | dict.fromkeys(("FakeTransport", "Recorded", "answer"), "_transport")


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
