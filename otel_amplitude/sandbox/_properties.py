"""What $identify and $groupidentify make of the properties of a user or a group. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_amplitude.sandbox._contract import GROUP_OPERATIONS, GROUPIDENTIFY_TYPE, IDENTIFY_TYPE, USER_OPERATIONS, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Properties = dict[str, Any]


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def _present(value: Any) -> list[Any]:
    return [] if value is None else _listed(value)


def _new(old: list[Any], values: list[Any]) -> list[Any]:
    fresh: list[Any] = []
    for value in values:
        if value not in old and value not in fresh:
            fresh.append(value)
    return fresh


def _add(old: Any, value: Any) -> Any:
    numbers = [part for part in (old, value) if isinstance(part, int | float) and not isinstance(part, bool)]
    return sum(numbers) if len(numbers) == 2 or old is None else old


OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "$set": lambda _, value: value,
    "$setOnce": lambda old, value: value if old is None else old,
    "$add": _add,
    "$append": lambda old, value: _present(old) + _listed(value),
    "$prepend": lambda old, value: _listed(value) + _present(old),
    "$postInsert": lambda old, value: _present(old) + _new(_present(old), _listed(value)),
    "$preInsert": lambda old, value: _new(_present(old), _listed(value)) + _present(old),
    "$remove": lambda old, value: [item for item in _present(old) if item not in _listed(value)] if old is not None else None,
    "$unset": lambda _old, _value: None,
}


def apply(old: Properties, change: Properties, known: Iterable[str]) -> Properties:
    """Give the properties after one `user_properties` or `group_properties` of an identify event.

    Plain properties are set; beside operations they are ignored. The order of operations is the order of the tables here,
    since Amplitude documents none; a property in one operation only is never affected by it.
    """
    operations = [name for name in change if name.startswith("$")]
    if not operations:
        return {**old, **change}
    if "$clearAll" in operations:
        return {}
    new = dict(old)
    for operation in (name for name in known if name in OPERATIONS):
        changes = change.get(operation)
        for name, value in changes.items() if isinstance(changes, dict) else ():
            new[name] = OPERATIONS[operation](new.get(name), value)
    return {name: value for name, value in new.items() if value is not None}


MAX_HOLDERS = 10_000


class People:
    """The properties of users, devices without a user, and groups: at most 10,000, the oldest forgotten first."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], Properties] = {}

    def learn(self, event: Event) -> None:
        """Apply what one accepted event says about its user or groups."""
        if event.get("event_type") == GROUPIDENTIFY_TYPE:
            self._learn_groups(event)
            return
        change = event.get("user_properties")
        if not isinstance(change, dict) or event.get("$skip_user_properties_sync") is True:
            return
        if event.get("event_type") != IDENTIFY_TYPE:
            change = {name: value for name, value in change.items() if not name.startswith("$")}
        self._change(("user", str(event.get("user_id") or event.get("device_id"))), change, USER_OPERATIONS)

    def of_user(self, identity: str) -> Properties:
        """Give the properties of a user id, or of a device that has none."""
        return dict(self._held.get(("user", identity), {}))

    def of_group(self, kind: str, name: str) -> Properties:
        """Give the properties of a group."""
        return dict(self._held.get((f"group {kind}", name), {}))

    def forget(self) -> None:
        """Forget everybody."""
        self._held.clear()

    def _learn_groups(self, event: Event) -> None:
        groups, change = event.get("groups"), event.get("group_properties")
        if isinstance(groups, dict) and isinstance(change, dict):
            for kind, names in groups.items():
                for name in _listed(names):
                    self._change((f"group {kind}", str(name)), change, GROUP_OPERATIONS)

    def _change(self, key: tuple[str, str], change: Properties, known: Iterable[str]) -> None:
        self._held[key] = apply(self._held.get(key, {}), change, known)
        while len(self._held) > MAX_HOLDERS:
            del self._held[next(iter(self._held))]
