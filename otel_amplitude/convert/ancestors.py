"""Which spans are above a span or log record within its process, where telemetry comes in any order: a child before or after its parent.

In a process the open spans are at hand, and an item without ids takes those of its local parents. In a file the parent may be on another
line or in another file: batches cut traces anywhere, and children end first. `Ancestors` remembers of each span where it hangs and the
attributes that identity reads; `Waiting` keeps items until the span that is missing above them is read.

A link is kept as one integer, the key of the next span above, or as a `Knows` where the span itself has such attributes. Chains of spans
without them are shortened while they are walked, so that a chain of any length costs each item about one step. Both structures are pure:
one thread at a time, no clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, Final, Generic, NamedTuple, TypeVar

from otel_amplitude.convert.recorded import Ids

T = TypeVar("T")
_MAX_SPANS: Final = 1_000_000
# Who acts is decided by the nearest spans; what is above so many that all carry ids adds nothing.
_MAX_LAYERS: Final = 32


class Knows:
    """A span that carries attributes which identity reads.

    Attributes:
        above: the key of its local parent, 0 without one.
        attributes: those attributes.
    """

    __slots__ = ("above", "attributes")

    def __init__(self, above: int, attributes: dict[str, Any]) -> None:
        self.above = above
        self.attributes = attributes


class Line(NamedTuple):
    """What is above an item.

    Attributes:
        parents: the spans that carry ids, nearest first.
        missing: the key of the span that must be read to know more; 0 when there is nothing above.
    """

    parents: list[Knows]
    missing: int


def key_of(ids: Ids) -> int:
    """Give the key of a span."""
    return ids.trace_id << 64 | ids.span_id


def above(ids: Ids, *, is_span: bool) -> int:
    """Give the key of the span right above: a span's local parent, a log record's span; 0 without one."""
    if not is_span:
        return key_of(ids) if ids.trace_id and ids.span_id else 0
    return 0 if ids.is_remote or not ids.parent_id else ids.trace_id << 64 | ids.parent_id


class Ancestors:
    """Remembers the newest spans, between half of `most` and `most` of them: about 150 bytes each."""

    def __init__(self, most: int = _MAX_SPANS) -> None:
        self._most = max(1, most // 2)
        self._young: dict[int, int | Knows] = {}
        self._old: dict[int, int | Knows] = {}

    def note(self, ids: Ids, attributes: Mapping[str, Any] | None) -> int:
        """Remember a span, with the attributes that identity reads, if it has some; give its key."""
        key, parent = key_of(ids), above(ids, is_span=True)
        self._keep(key, Knows(parent, dict(attributes)) if attributes else parent)
        return key

    def _keep(self, key: int, link: int | Knows) -> None:
        self._young[key] = link
        if len(self._young) >= self._most:
            self._old, self._young = self._young, {}

    def _link(self, key: int) -> int | Knows | None:
        link = self._young.get(key)
        return self._old.get(key) if link is None else link

    def of(self, key: int) -> Line:
        """Give what is known from the span `key` upwards, itself included."""
        found: list[Knows] = []
        passed: list[int] = []
        seen: set[int] = set()
        while key and len(found) < _MAX_LAYERS:
            link = self._link(key)
            if link is None:
                break
            if key in seen:  # a circle: nothing is above it
                return Line(found, 0)
            seen.add(key)
            if isinstance(link, Knows):
                self._shorten(passed, key)
                found.append(link)
                key = link.above
            else:
                passed.append(key)
                key = link
        else:
            key = 0
        self._shorten(passed, key)
        return Line(found, key)

    def _shorten(self, passed: list[int], end: int) -> None:
        for key in passed[:-1]:
            self._keep(key, end)
        passed.clear()


class Held(Generic[T]):
    """One item that waits."""

    __slots__ = ("item", "number", "size")

    def __init__(self, item: T, number: int, size: int) -> None:
        self.item = item
        self.number = number
        self.size = size


class Waiting(Generic[T]):
    """Items that wait for a span to be read, bounded by number and bytes."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._next = 0
        self._held: OrderedDict[int, Held[T]] = OrderedDict()
        self._by_key: dict[int, list[Held[T]]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[T]:
        """Give all items, the oldest first."""
        return (held.item for held in self._held.values())

    def add(self, item: T, key: int, size: int) -> None:
        """Let an item wait for the span `key`."""
        held = Held(item, self._next, size)
        self._next += 1
        self._bytes += size
        self._held[held.number] = held
        self.again(held, key)

    def again(self, held: Held[T], key: int) -> None:
        """Let an item that waits already wait for another span; it keeps its age."""
        self._by_key.setdefault(key, []).append(held)

    def arrived(self, key: int) -> list[Held[T]]:
        """Give those that wait for the span `key`; each must then be taken out or wait again."""
        held = self._by_key.pop(key, None)
        return [each for each in held if each.number in self._held] if held else []

    def take(self, held: Held[T]) -> T:
        """Take an item out."""
        del self._held[held.number]
        self._bytes -= held.size
        return held.item

    def too_many(self) -> Iterator[T]:
        """Take out the oldest ones that are above the bounds."""
        while len(self._held) > self._most or self._bytes > self._most_bytes:
            yield self.take(next(iter(self._held.values())))
        if len(self._by_key) > 2 * self._most:  # keys of items that were taken out
            self._by_key = {key: left for key, all_of in self._by_key.items() if (left := [h for h in all_of if h.number in self._held])}

    def rest(self) -> Iterator[T]:
        """Take out everything, the oldest first."""
        while self._held:
            yield self.take(next(iter(self._held.values())))
        self._by_key.clear()
