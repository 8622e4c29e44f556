"""A bounded memory of what was seen last."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Remembers the newest `most` keys. Any thread may call it; there is no lock that a fork could leave held in a child.

    Each step is one operation of the interpreter; two threads with the same key at the same moment may both find nothing.
    """

    __slots__ = ("_kept", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[K, V] = OrderedDict()

    def swap(self, key: K, value: V) -> V | None:
        """Remember `value` as the newest; give what was remembered under `key`, or None."""
        before = self._kept.pop(key, None)
        self._kept[key] = value
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return before

    def forget(self, key: K) -> None:
        """Remember nothing under `key`."""
        self._kept.pop(key, None)
