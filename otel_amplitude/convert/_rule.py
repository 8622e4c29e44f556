"""What one rule is: the picks, templates and samples that make an event of what it matched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from otel_amplitude.convert._assembly import is_ordinary, taken
from otel_amplitude.convert._casts import Cast, to_text
from otel_amplitude.convert._matcher import WORDS, Condition
from otel_amplitude.convert._plan import Planner
from otel_amplitude.convert._tables import OTHER_NAME
from otel_amplitude.values import clean

if TYPE_CHECKING:
    from otel_amplitude.convert._assembly import Assembly, Draft
    from otel_amplitude.convert._view import View

_BODY: Final = "body"
_FIELD_OF_BODY: Final = "body."


def _read(view: View, name: str) -> Any:
    """Give an attribute, else what a word means, else a field of a log record's body; None when it is not there."""
    value = view.attributes.get(name)
    if value is not None:
        return value
    if name in WORDS:
        return getattr(view, name)
    if name == _BODY:
        return view.body
    if name.startswith(_FIELD_OF_BODY) and isinstance(view.body, Mapping):
        return view.body.get(name[len(_FIELD_OF_BODY) :])
    return None


@dataclass(frozen=True, slots=True)
class Template:
    """A text with names of attributes in braces.

    Attributes:
        parts: (text, attribute after it or None).
    """

    parts: tuple[tuple[str, str | None], ...]

    def text(self, view: View, left_out: Counter[str]) -> str:
        """Give the text; what an absent attribute would have said is left out and counted."""
        written = []
        for literal, name in self.parts:
            value = None if name is None else to_text(_read(view, name))
            left_out["absent"] += name is not None and value is None
            written.append(literal + (value or ""))
        return " ".join("".join(written).split())

    def property(self, view: View, left_out: Counter[str]) -> str | None:
        """Give the text, or None, counted, when an attribute is absent."""
        if any(name is not None and to_text(_read(view, name)) is None for _, name in self.parts):
            left_out["absent"] += 1
            return None
        return self.text(view, left_out)


@dataclass(frozen=True, slots=True)
class Pick:
    """Where a value comes from.

    Attributes:
        source: an attribute or word; None for a constant or template.
        value: the constant, or the default of a source.
        template: a text made of several.
        cast: what the value is made into; None leaves it.
    """

    source: str | None = None
    value: Any = None
    template: Template | None = None
    cast: Cast | None = None

    def read(self, view: View, left_out: Counter[str]) -> Any:
        """Give the value; None when there is none, counted when it could not be cast."""
        if self.template is not None:
            return self.template.property(view, left_out)
        found = None if self.source is None else _read(view, self.source)
        if found is None:
            return self.value
        if self.cast is None:
            return found
        cast = self.cast(found)
        if cast is None:
            left_out["cast"] += 1
            return self.value
        return cast


Picks = tuple[tuple[str, Pick], ...]


@dataclass(frozen=True, slots=True, repr=False)
class Rule:
    """One `[[event]]`: what it matches and what it makes of it.

    Attributes:
        number: its place in the file, from 1.
        line: of its header.
        name: the event type, or the template as written; `""` for one that drops.
        drop: takes the item so that it is no event.
        conditions: all must hold.
        title: the template of its name, or None.
        planner: finds attributes picked by glob; None without any.
        fields: revenue keys of the event.
        sample: the share of users whose events are kept.
    """

    number: int
    line: int
    name: str
    drop: bool
    conditions: tuple[Condition, ...]
    title: Template | None = None
    constants: tuple[tuple[str, Any], ...] = ()
    planner: Planner | None = None
    properties: Picks = ()
    groups: Picks = ()
    user_properties: Picks = ()
    fields: Picks = ()
    sample: float = 1.0

    def keeps(self, who: str) -> bool:
        """Say whether the sample holds this user or device: the same ones in every process and for every rule."""
        if self.sample >= 1.0:
            return True
        digest = blake2b(who.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64 < self.sample

    def shape(self, draft: Draft, view: View, assembly: Assembly) -> str:
        """Add to a draft what the rule picks; give the event type."""
        if self.planner is not None:
            draft.properties.update(taken(view.attributes, self.planner.plan(tuple(view.attributes)), assembly.note))
        draft.properties.update(self.constants)
        for target, picks in (
            (draft.properties, self.properties),
            (draft.groups, self.groups),
            (draft.user_properties, self.user_properties),
            (draft.fields, self.fields),
        ):
            for name, pick in picks:
                value = pick.read(view, assembly.left_out)
                if value is not None:
                    target[name] = value if is_ordinary(value) else clean(value)
        if self.title is None:
            return self.name
        return assembly.event_types.admit(self.title.text(view, assembly.left_out) or OTHER_NAME, draft.properties)

    def __repr__(self) -> str:
        return f"<{self}>"

    def __str__(self) -> str:
        return f"rule {self.number} (line {self.line}): {'drop' if self.drop else self.name}"
