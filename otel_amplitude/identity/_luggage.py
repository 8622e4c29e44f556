"""Packs what a request knows for a task that runs elsewhere, as text of a private header, and unpacks it there."""

from __future__ import annotations

from typing import Any, Final

import orjson

from otel_amplitude.identity._cookie import only_amplitude
from otel_amplitude.identity._headers import HeaderId
from otel_amplitude.identity._scope import RequestScope, Scope
from otel_amplitude.values import id_text

HEADER: Final = "otel_amplitude_identity"
_HEADER_IDS: Final = "header_ids"
_MAX_TEXT: Final = 32 * 1024
_KINDS: Final[dict[str, type | tuple[type, ...]]] = {
    "user_id": (str, int),
    "device_id": (str, int),
    "session_id": int,
    "groups": dict,
    "opted_out": bool,
    "anonymous": bool,
    "cookie": str,
    "headers": dict,
    "gpc": bool,
    "baggage": dict,
}


def pack(scope: Scope) -> str | None:
    """Give what `scope` knows as JSON, other cookies than Amplitude's left out; None when it knows nothing or too much."""
    facts = {name: value for name in _KINDS if (value := getattr(scope, name))}
    if "cookie" in facts:
        facts["cookie"] = only_amplitude(facts["cookie"])
    # The ids alone: the header of such an id is often a token, which must not lie in a queue.
    if made := {name: value for name, header in (scope.header_ids or {}).items() if (value := id_text(header.read())) is not None}:
        facts[_HEADER_IDS] = made
    try:
        text = orjson.dumps(facts, default=str, option=orjson.OPT_NON_STR_KEYS).decode() if facts else ""
    except (TypeError, ValueError):  # an id or group that JSON can not carry
        return None
    return text if 0 < len(text) <= _MAX_TEXT else None


def unpack(text: object) -> RequestScope:
    """Give the scope of a task from its header; an empty one when the text is not of `pack`. Never raises."""
    scope = RequestScope()
    try:
        facts: Any = orjson.loads(text) if isinstance(text, str) else {}
    except ValueError:
        return scope
    if isinstance(facts, dict):
        for name, kind in _KINDS.items():
            if isinstance(facts.get(name), kind):
                setattr(scope, name, facts[name])
        if isinstance(made := facts.get(_HEADER_IDS), dict):
            scope.header_ids = {name: HeaderId.known(value) for name, value in made.items()}
    return scope
