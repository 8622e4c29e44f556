"""A system that has no more threads."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from typing import Any

import pytest


class Threads:
    """Decides which of the next threads can be started, by the package and by the test itself."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch

    def refuse(self, *, after: int = 0, most: float = float("inf")) -> list[bool]:
        """Let `after` threads start and refuse the following `most`, as a system does that has no more; gives a list of what became of each."""
        tried: list[bool] = []

        def limited(start: Callable[..., Any], *arguments: Any) -> Any:
            tried.append(not after <= len(tried) < after + most)
            if not tried[-1]:
                raise RuntimeError("can't start new thread")
            return start(*arguments)

        for place, name in ((threading.Thread, "start"), (_thread, "start_new_thread")):
            start = getattr(place, name)
            self._patch.setattr(place, name, lambda *arguments, start=start: limited(start, *arguments))
        return tried
