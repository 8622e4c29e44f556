"""Which time it is: the machine's clocks for delivery, the application's for what stands in events.

A test may replace the clocks of Python: freezegun puts fakes in the place of `time.time` and `time.monotonic`, for some threads and not for
others, and only where a module looks them up by name. An age measured by one clock at the caller and by another one on the worker expires
events, and a deadline on a real clock is never reached, or long past, on a frozen one. So there is one source for each purpose:

* `wall` and `monotonic` read the machine's clocks through `clock_gettime`, which freezegun leaves alone: ages, deadlines, backoff.
* `application_time` is `time.time()` as the application sees it, frozen or not: the `time` of an event, and whether a session still lasts.

No other file of the package reads a clock for these purposes; `tests/test_layers.py` checks it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

wall: Final[Callable[[], float]] = partial(time.clock_gettime, time.CLOCK_REALTIME)
"""Seconds since 1970 by the machine's clock, which an administrator may set. Any thread."""
monotonic: Final[Callable[[], float]] = partial(time.clock_gettime, time.CLOCK_MONOTONIC)
"""Seconds that never go back, from an arbitrary start. Any thread."""


def application_time() -> float:
    """Give seconds since 1970 by the clock that the application sees. Any thread."""
    return time.time()
