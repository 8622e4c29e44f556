"""Takes personal data out of events, or puts a keyed hash in its place."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable
from typing import Any, Final

import orjson

from otel_amplitude.errors import ConfigurationError
from otel_amplitude.limits import MAX_STRING
from otel_amplitude.middleware._chain import Next, Payload
from otel_amplitude.values import MAX_RAW, clean_properties

REDACTED: Final = "[redacted]"
_MAPS: Final = ("event_properties", "user_properties", "groups", "group_properties")


class Redact:
    r"""Hide values by the key they stand under, and parts of texts by pattern.

    A value under one of `keys` is removed, or becomes its keyed hash: an event's own keys (`ip`, `user_id`) as well as properties at
    any depth, inside `$set` and lists too. What a pattern finds in a text or a name of the property maps becomes `[redacted]`, or its keyed hash.
    A `user_id` removed leaves only the `device_id`; an event without both is refused as `no_identity`.

    Args:
        keys: names, compared without case.
        patterns: regular expressions, searched in the first 2,048 characters of each text. Of a text that is longer only what comes from
            the first 1,024 is sent, so a match of up to 1,024 characters never passes in part.
        hash_with: a secret; with it values become HMAC-SHA-256 (64 hex digits), so that equal values stay equal and
            cannot be recovered without the secret. Never logged.

    Raises:
        ConfigurationError: neither keys nor patterns, a pattern that can not be compiled, an empty secret.

    >>> hide = Redact(keys=["email"], patterns=[r"[^@\s]+@[^@\s]+"], hash_with="from the vault")
    """

    def __init__(
        self, *, keys: Iterable[str] = (), patterns: Iterable[str | re.Pattern[str]] = (), hash_with: str | bytes | None = None
    ) -> None:
        if hash_with is not None and not hash_with:
            raise ConfigurationError("hash_with must not be empty: give a secret, or leave it out to remove values")
        self._keys = frozenset(_each("keys", keys, str.lower))
        self._patterns = tuple(_each("patterns", patterns, re.compile))
        if not self._keys and not self._patterns:
            raise ConfigurationError("Redact needs keys or patterns: it would hide nothing")
        self._secret = hash_with.encode() if isinstance(hash_with, str) else hash_with

    def __call__(self, payload: Payload, next: Next) -> None:
        """Hide, pass the event on."""
        event = payload.event
        for name in [name for name in event if str(name).lower() in self._keys]:
            self._hide(event, name, event[name])
        for name in _MAPS:
            if event.get(name):
                # Cleaned first, so that nothing hides behind a strange __str__ and no search is longer than 2,048 characters.
                held = clean_properties(event[name], raw=True, note=payload._note)  # noqa: SLF001 -- the chain's and ours
                event[name] = self._map(held)
        next(payload)

    def _hide(self, held: dict[str, Any], name: str, value: Any) -> None:
        if self._secret is None or value is None:
            del held[name]
        else:
            held[name] = self._hash(value if isinstance(value, str) else orjson.dumps(value, default=str).decode())

    def _hash(self, text: str) -> str:
        # S30: a bare hash of an e-mail address is found by trying addresses.
        return hmac.digest(self._secret or b"", text.encode("utf-8", "replace"), "sha256").hex()

    def _map(self, held: dict[str, Any]) -> dict[str, Any]:
        for name, value in list(held.items()):
            if name.lower() in self._keys:
                self._hide(held, name, value)
                continue
            shown = self._text(name) if self._patterns else name
            if shown != name:
                del held[name]
            held[shown] = self._value(value)
        return held

    def _value(self, value: Any) -> Any:
        if isinstance(value, dict):
            return self._map(value)
        if isinstance(value, list):
            return [self._value(inner) for inner in value]
        return self._text(value) if isinstance(value, str) else value

    def _text(self, text: str) -> str:
        # A text that was cut may end in half a match, which nothing finds; its first half can not.
        end = MAX_STRING if len(text) >= MAX_RAW else len(text)
        for pattern in self._patterns:
            text, end = self._search(pattern, text, end)
        return text[:end]

    def _search(self, pattern: re.Pattern[str], text: str, end: int) -> tuple[str, int]:
        """Hide what `pattern` finds; give the text, and where `end` is in it now: behind a match that lay across it."""
        grown = 0

        def hide(found: re.Match[str]) -> str:
            nonlocal grown
            hidden = REDACTED if self._secret is None else self._hash(found[0])
            if found.start() < end:
                grown += len(hidden) - (min(found.end(), end) - found.start())
            return hidden

        return pattern.sub(hide, text), end + grown


def _each(option: str, given: Iterable[Any], convert: Any) -> list[Any]:
    if isinstance(given, (str, bytes)):
        raise ConfigurationError(f"{option} must be a list, not one text: write [{given!r}]")
    try:
        return [convert(value) for value in given]
    except (TypeError, re.error) as error:
        raise ConfigurationError(f"{option} can not be used: {error}") from error
