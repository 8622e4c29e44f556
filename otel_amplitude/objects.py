"""Objects as values: the fields of a dataclass, a model or a row, the items of an array, the text of a path; without their libraries.

An application attaches what it has at hand: dataclasses, pydantic, attrs and msgspec models, named tuples, rows, numpy scalars and arrays.
Each library marks its classes (`__dataclass_fields__`, `__pydantic_fields__`, `__attrs_attrs__`, …), so none of them is imported here.

Rules:

* A field is public if its class declares it, its name begins with no underscore, and its class does not hide it (`repr=False`, and
  pydantic's `exclude=True`, which mark secrets).
* A field is read from where the object keeps it: its `__dict__` or a slot. No property runs, since a property may ask a database.
* The type of an object decides, never its `__class__`: a lazy object answers that with a query.
* Text stays what has always been one: paths, IP addresses, lazy translations, and what `as_text` names.
* What is none of these has no honest form: `NOTHING`, and the caller removes it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping
from types import MemberDescriptorType, SimpleNamespace
from typing import Any, Final, TypeVar

from otel_amplitude.errors import ConfigurationError
from otel_amplitude.limits import MAX_LIST

C = TypeVar("C", bound=type)
NOTHING: Final = object()
"""Stands for a value that has no form in JSON."""
# Text that is made when it is shown, a text in a wrapper, and IP addresses, whose module most programs never import.
_TEXTS: Final = frozenset(
    {
        "collections.UserString",
        "ipaddress._IPAddressBase",
        "django.utils.functional.Promise",
        "babel.support.LazyProxy",
        "flask_babel.speaklater.LazyString",
        "speaklater._LazyString",
    }
)
_registered: tuple[type, ...] = ()


def as_text(kind: C) -> C:
    """Register a class: its objects, and those of its subclasses, are sent as `str(value)`. For the whole process; also a decorator.

    Args:
        kind: such as the type of a key or of an amount, which has fields of its own, or none.

    Returns:
        `kind`.

    Raises:
        ConfigurationError: it is no class.

    >>> @as_text
    ... class OrderId:
    ...     def __str__(self) -> str:
    ...         return "o-7"
    """
    global _registered  # noqa: PLW0603 -- one registry for the process, replaced whole, so that readers need no lock
    if not isinstance(kind, type):
        raise ConfigurationError(f"as_text takes a class, not {kind!r}: write as_text({type(kind).__name__})")
    _registered = (*_registered, kind)
    return kind


def text_of(value: object) -> str | None:
    """Give the text of an object that is one; None for any other. May raise what its `__str__` raises."""
    kind = type(value)
    if issubclass(kind, _registered):
        return str.__str__(str(value))
    if issubclass(kind, os.PathLike):
        path = os.fspath(value)  # type: ignore[call-overload]
        return path if isinstance(path, str) else os.fsdecode(path)
    if not _TEXTS.isdisjoint(f"{base.__module__}.{base.__qualname__}" for base in kind.__mro__):
        return str.__str__(str(value))
    return None


def fields_of(value: object) -> Iterator[tuple[str, Any]] | None:
    """Give the public fields of an object with their values; None for one that has none by any protocol. May raise what hostile ones raise."""
    kind = type(value)
    names = _names(kind)
    if names is None:
        return _row(value, kind)
    if issubclass(kind, tuple):
        return _public(zip(names, tuple.__iter__(value), strict=False))  # type: ignore[arg-type]
    return _public(_held(value, kind, names))


def unwrapped(value: object) -> object:
    """Give what a pydantic `RootModel` stands around; any other object as it is."""
    kind = type(value)
    if _declared(kind, "__pydantic_root_model__") is True:
        return next((held for name, held in _held(value, kind, ["root"])), NOTHING)
    return value


def items_of(value: Any) -> Any:
    """Give a numpy scalar or array as Python's own values; NOTHING for what is none, and for an array of more than 1,000 items.

    Times become datetimes, records maps by their names.
    """
    kind = type(value)
    if not (hasattr(kind, "tolist") and hasattr(kind, "item") and hasattr(kind, "dtype") and hasattr(kind, "shape")):
        return NOTHING
    count = 1
    for length in value.shape:
        count *= length
    if count > MAX_LIST:
        return NOTHING
    names = value.dtype.names
    if names is not None:
        return dict(zip(names, value.item(), strict=True)) if value.shape == () else list(value)
    if value.dtype.kind in "mM":  # nanoseconds would come as bare numbers
        value = value.astype(f"{'datetime64' if value.dtype.kind == 'M' else 'timedelta64'}[us]")
    return value.item() if value.shape == () else value.tolist()


def name_of(value: object) -> str:
    """Give the name of an object's type, with its module."""
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def _declared(kind: type, marker: str) -> Any:
    """Give what a class, or the nearest base, holds under a name; descriptors as they are."""
    return next((vars(base)[marker] for base in kind.__mro__ if marker in vars(base)), None)


def _names(kind: type) -> Iterable[str] | None:
    """Give the names of the fields that a class declares and shows; None where it declares none."""
    for marker in ("__pydantic_fields__", "model_fields", "__fields__"):
        found = _declared(kind, marker)
        if isinstance(found, dict):
            # Version 1 keeps in `field_info` what version 2 keeps in the field itself; both keep undeclared entries beside the others.
            hidden = {name for name, field in found.items() if _is_hidden(getattr(field, "field_info", field))}
            return _Shown(found, hidden)
    if isinstance(_declared(kind, "__dataclass_fields__"), dict):
        return [field.name for field in dataclasses.fields(kind) if field.repr]
    attributes = _declared(kind, "__attrs_attrs__")
    if isinstance(attributes, tuple):
        return [attribute.name for attribute in attributes if attribute.repr]
    # msgspec keeps the names on the class of the class.
    names = getattr(kind, "__struct_fields__", None) or (_declared(kind, "_fields") if issubclass(kind, tuple) else None)
    if isinstance(names, tuple) and all(isinstance(name, str) for name in names):
        return names
    return _Shown({}, set()) if issubclass(kind, SimpleNamespace) else None


def _is_hidden(field: Any) -> bool:
    return getattr(field, "exclude", None) is True or getattr(field, "repr", True) is False


class _Shown(list[str]):
    """The declared names that are shown; whatever else the object holds is shown as well, unless it is `hidden`."""

    def __init__(self, declared: Mapping[str, object], hidden: set[str]) -> None:
        super().__init__(name for name in declared if name not in hidden)
        self.hidden = hidden


def _held(value: object, kind: type, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Give what an object keeps under each name, in its `__dict__` or a slot; what it computes, or has not set, is left out."""
    own = _own_dict(value)
    for name in names:
        if name in own:
            yield name, own[name]
            continue
        declared = _declared(kind, name)
        if declared is not None and not hasattr(type(declared), "__get__"):  # a default of the class
            yield name, declared
        # C-made types, such as msgspec's, have member descriptors as well.
        elif isinstance(declared, MemberDescriptorType):
            try:
                yield name, declared.__get__(value, kind)
            except AttributeError:  # a slot that was never set
                continue
    if isinstance(names, _Shown):
        extra = _declared(kind, "__pydantic_extra__")
        more = extra.__get__(value, kind) if isinstance(extra, MemberDescriptorType) else own
        known = {*names, *names.hidden}
        yield from ((name, held) for name, held in (more or {}).items() if name not in known)


def _own_dict(value: object) -> dict[str, Any]:
    try:
        own = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return own.copy() if type(own) is dict else {}


def _row(value: Any, kind: type) -> Iterator[tuple[str, Any]] | None:
    """Give the columns of a row of a database: SQLAlchemy's are asked as named tuples are, SQLite's by their keys."""
    if kind.__module__ == "sqlite3" and kind.__qualname__ == "Row":
        return _public((name, value[name]) for name in value.keys())  # noqa: SIM118 -- iterating a row gives values
    if callable(_declared(kind, "_asdict")):
        named = value._asdict()
        return _public(list(named.items())) if isinstance(named, dict) else None
    return None


def _public(fields: Iterable[tuple[Any, Any]]) -> Iterator[tuple[str, Any]]:
    return ((name, held) for name, held in fields if isinstance(name, str) and not name.startswith("_"))
