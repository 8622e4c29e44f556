"""Which rule takes an item: conditions, and the first match among many found at the price of one look-up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from otel_amplitude.convert._globs import compile_globs

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_amplitude.convert._view import View

# What a `View` calls by a word of its own. Their values are few in any program, so what they decide is remembered.
WORDS: Final = ("kind", "route", "method", "status", "name", "event_name", "scope", "service")
_MAX_REMEMBERED: Final = 1_024
_UNNAMED: Final = "\0"

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Condition:
    """What one fact must be. Either `present` alone decides, or the fact is one of the values, matches a glob, or lies in a range.

    A fact that is a list fits when one of its members does.

    Attributes:
        fact: one of `WORDS`, or the name of an attribute.
        is_word: which of the two.
        values: texts and numbers.
        flags: booleans, which are no numbers here.
        globs: patterns for texts.
        ranges: least and most, both included.
        present: True asks that the fact is there, False that it is not.
    """

    fact: str
    is_word: bool
    values: frozenset[str | float] = frozenset()
    flags: frozenset[bool] = frozenset()
    globs: tuple[str, ...] = ()
    ranges: tuple[Range, ...] = ()
    present: bool | None = None
    _matches_glob: Callable[[str], bool] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_matches_glob", compile_globs(self.globs))

    @property
    def is_exact(self) -> bool:
        """Whether only a few texts and numbers fit."""
        return bool(self.values) and not (self.flags or self.globs or self.ranges)

    def read(self, view: View) -> Any:
        """Give the fact this condition is about; None when it is not there."""
        return getattr(view, self.fact) if self.is_word else view.attributes.get(self.fact)

    def accepts(self, value: Any) -> bool:
        """Say whether a fact fits."""
        if self.present is not None:
            return (value is not None) is self.present
        if value is None:
            return False
        if isinstance(value, bool):
            return value in self.flags
        if isinstance(value, str):
            return value in self.values or self._matches_glob(value)
        if isinstance(value, (int, float)):
            return value in self.values or any(least <= value <= most for least, most in self.ranges)
        return isinstance(value, (tuple, list)) and any(self.accepts(member) for member in value)

    def covers(self, other: Condition) -> bool:
        """Say whether whatever fits `other`, about the same fact, surely fits this; False when it can not be told."""
        if self.present is not None:
            return other.present is self.present or (self.present and other.present is None)
        if other.present is not None:
            return False
        return (
            all(self.accepts(value) for value in other.values)
            and other.flags <= self.flags
            and ("*" in self.globs or set(other.globs) <= set(self.globs))
            and all(any(least <= low and high <= most for least, most in self.ranges) for low, high in other.ranges)
        )

    def __str__(self) -> str:
        if self.present is not None:
            return "present" if self.present else "absent"
        parts = [repr(value) for value in sorted(self.values, key=str)] + [str(flag).lower() for flag in sorted(self.flags)]
        parts += [f"like {glob!r}" for glob in self.globs] + [f"{least:g} to {most:g}" for least, most in self.ranges]
        return " or ".join(parts)


class Ruled(Protocol):
    """What a matcher chooses from."""

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All of them must hold."""
        ...


T = TypeVar("T", bound=Ruled)


class _Candidates(Generic[T]):
    """The rules that fit as far as words go, in order, with what attributes still have to say."""

    __slots__ = ("_always", "_by_value", "_rules")

    def __init__(self, rules: list[tuple[T, tuple[Condition, ...]]]) -> None:
        self._rules = rules
        self._always: list[int] = []
        # attribute → value → rules: many rules about one attribute cost one look-up
        self._by_value: dict[str, dict[object, list[int]]] = {}
        for at, (_, conditions) in enumerate(rules):
            exact = next((condition for condition in conditions if condition.is_exact), None)
            if exact is None:
                self._always.append(at)
            else:
                for value in exact.values:
                    self._by_value.setdefault(exact.fact, {}).setdefault(value, []).append(at)

    def first(self, attributes: Mapping[str, Any]) -> T | None:
        """Give the first rule whose conditions on attributes hold."""
        places = self._always
        for name, by_value in self._by_value.items():
            value = attributes.get(name)
            if value is not None:
                places = places + [at for member in _members(value) for at in by_value.get(member, ())]
        for at in places if places is self._always else sorted(places):
            rule, conditions = self._rules[at]
            for condition in conditions:
                if not condition.accepts(attributes.get(condition.fact)):
                    break
            else:
                return rule
        return None


class Matcher(Generic[T]):
    """Finds the first rule all of whose conditions hold; immutable but for a bounded memory, any thread may ask.

    What the words decide (route, method, status, name …) is remembered for each combination seen, so that only conditions on
    attributes of the few rules left are looked at.
    """

    def __init__(self, rules: Sequence[T]) -> None:
        self._rules = tuple(rules)
        conditions = [condition for rule in rules for condition in rule.conditions if condition.is_word]
        self._kinds = _kinds(rules)
        # A word compared only with exact texts needs no memory for other ones: a made-up span name must not fill it.
        self._words = tuple(
            (word, _exact([condition for condition in conditions if condition.fact == word]))
            for word in WORDS
            if any(condition.fact == word for condition in conditions)
        )
        self._remembered: dict[tuple[object, ...], _Candidates[T]] = {}

    def first(self, view: View) -> T | None:
        """Give the first rule that takes the item."""
        if self._kinds is not None and view.kind not in self._kinds:
            return None
        known: list[object] = []
        for word, exact in self._words:
            value: str | int | None = getattr(view, word)
            known.append(value if exact is None or value in exact or not isinstance(value, str) else _UNNAMED)
        key = tuple(known)
        candidates = self._remembered.get(key)
        if candidates is None:
            candidates = self._narrow(view)
            if len(self._remembered) >= _MAX_REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = candidates
        return candidates.first(view.attributes)

    def _narrow(self, view: View) -> _Candidates[T]:
        return _Candidates(
            [
                (rule, tuple(condition for condition in rule.conditions if not condition.is_word))
                for rule in self._rules
                if all(condition.accepts(condition.read(view)) for condition in rule.conditions if condition.is_word)
            ]
        )

    def unreachable(self) -> list[tuple[T, T]]:
        """Give each rule that can never be reached, with the earlier one that takes all it would."""
        found = []
        for at, rule in enumerate(self._rules):
            earlier = next((other for other in self._rules[:at] if _takes_all(other, rule)), None)
            if earlier is not None:
                found.append((rule, earlier))
        return found


def _members(value: object) -> Iterable[str | float]:
    """Give what an index may be asked for: a text or number, or those in a list."""
    return [member for member in (value if isinstance(value, (tuple, list)) else (value,)) if isinstance(member, (str, int, float))]


def why_not(rule: Ruled, view: View) -> str | None:
    """Say which condition a rule refuses an item for; None when it takes it."""
    for condition in rule.conditions:
        value = condition.read(view)
        if not condition.accepts(value):
            return f"{condition.fact} is {'absent' if value is None else repr(value)}, not {condition}"
    return None


def _takes_all(earlier: Ruled, later: Ruled) -> bool:
    return all(
        any(wide.fact == narrow.fact and wide.is_word == narrow.is_word and wide.covers(narrow) for narrow in later.conditions)
        for wide in earlier.conditions
    )


def _kinds(rules: Sequence[Ruled]) -> frozenset[Any] | None:
    """Give the only kinds of item that any rule asks for; None when one takes every kind."""
    kinds: set[Any] = set()
    for rule in rules:
        condition = next((condition for condition in rule.conditions if condition.is_word and condition.fact == "kind"), None)
        if condition is None or condition.globs or condition.present is not None:
            return None
        kinds |= condition.values
    return frozenset(kinds)


def _exact(conditions: Sequence[Condition]) -> frozenset[Any] | None:
    """Give the texts that matter to `conditions`; None when any text may."""
    if any(condition.globs or condition.present is not None for condition in conditions):
        return None
    return frozenset(value for condition in conditions for value in condition.values)
