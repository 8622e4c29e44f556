"""Reads request headers, from the request itself and from the attributes that instrumentations capture them in.

Names are in lower case with dashes, as on the wire of HTTP/2. Nothing here raises for what a client sends; a carrier or getter that
breaks its contract may raise, and `AmplitudePropagator.extract` guards against it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson
from opentelemetry.propagators.textmap import Getter

from otel_amplitude.errors import ConfigurationError

IDENTITY_HEADERS_VARIABLE: Final = "OTEL_EXPORTER_AMPLITUDE_IDENTITY_HEADERS"
HEADER_FIELDS: Final = ("device", "session", "user")
COOKIE: Final = "cookie"
GPC: Final = "sec-gpc"
USER_AGENT: Final = "user-agent"
UPGRADE: Final = "upgrade"
# Browsers that fetch a page before anybody asked for it say so: Sec-Purpose (Fetch standard; Chrome, Firefox), Purpose (older Chrome),
# X-Purpose (Safari), X-Moz (older Firefox), X-Sec-Purpose (Turbo, whose script may not set a Sec- header). Next.js says only 1, in headers
# of its own, which its rewrites pass on.
PURPOSES: Final = ("sec-purpose", "purpose", "x-purpose", "x-moz", "x-sec-purpose", "next-router-prefetch", "x-middleware-prefetch")
_NOT_ASKED_FOR: Final = frozenset({"prefetch", "prerender", "preview", "1"})

_MAX_VALUE: Final = 16 * 1024
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,100}", re.ASCII)
_PARTS: Final = re.compile(r"[\s,;]+")
_CAPTURED: Final = "http.request.header."


class IdentityHeader(NamedTuple):
    """One entry of the option `identity_headers`.

    Attributes:
        name: the header, in lower case.
        function: makes an id of the header's value, or None for no id; its import string before `Config` has loaded it; None: the value
            is the id.
    """

    name: str
    function: Callable[[str], object] | str | None = None


def read_identity_headers(option: object) -> dict[str, IdentityHeader]:
    """Give field (`device`, `session`, `user`) to header from the option `identity_headers`: a mapping, or text of it.

    >>> read_identity_headers("device=X-Device-Id, user=authorization:shop.auth:user_of")["user"]
    IdentityHeader(name='authorization', function='shop.auth:user_of')

    Args:
        option: values are a header name, a pair of it and a function or its import string, or text of the pair, joined by a colon.

    Raises:
        ConfigurationError: a field or a header name that can not be; names the cure.
    """
    if isinstance(option, str):
        option = dict(part.partition("=")[::2] for part in option.split(",") if part.strip())
    if option is not None and not isinstance(option, Mapping):
        raise _wrong(repr(option))
    return {str(field).strip().lower(): _header(field, value) for field, value in (option or {}).items()}


class HeaderId:
    """An id that a function of `identity_headers` makes of a header's value: made when it is first asked for, at most once a request.

    The value, often a token, is never shown, logged or packed for a task; only what the function made of it is.

    Attributes:
        failed: the type of the exception that the function raised; empty when it did not, or was not called yet.
    """

    __slots__ = ("_function", "_made", "_value", "failed")

    def __init__(self, value: str, function: Callable[[str], object]) -> None:
        """Keep the value until the id is asked for."""
        self._value: str | None = value
        self._function: Callable[[str], object] | None = function
        self._made: object = None
        self.failed = ""

    @classmethod
    def known(cls, made: object) -> HeaderId:
        """Give one whose function ran elsewhere, and made this."""
        found = cls("", str)
        found._made, found._function = made, None
        return found

    def read(self) -> object:
        """Give what the function made, unchecked; None when it knew no id or raised. Never raises."""
        function, value = self._function, self._value
        if function is not None and value is not None:
            try:
                self._made = function(value)
            except Exception as error:  # the function's own affair: no id
                self.failed = type(error).__name__
            self._function = self._value = None
        return self._made


def _header(field: object, value: object) -> IdentityHeader:
    name, function = value, None
    if isinstance(value, (tuple, list)) and len(value) == 2:
        name, function = value
    elif isinstance(value, str) and ":" in value:
        name, _, function = (part.strip() for part in value.partition(":"))
    name = name.strip().lower() if isinstance(name, str) else ""
    is_function = callable(function) or (isinstance(function, str) and bool(function.partition(":")[2]))
    if str(field).strip().lower() not in HEADER_FIELDS or not _TOKEN.fullmatch(name) or not (function is None or is_function):
        raise _wrong(f"{field}={value}")
    return IdentityHeader(name, function)


def _wrong(what: str) -> ConfigurationError:
    return ConfigurationError(
        f"identity_headers must map device, session or user to a header name, not {what}: write {IDENTITY_HEADERS_VARIABLE}="
        "device=x-device-id, or user=authorization:shop.auth:user_of for a function that makes the id of the header's value"
    )


class HeaderReader:
    """Reads some headers of a request: one pass over an ASGI scope, direct look-ups in a WSGI environ, else by the carrier's getter.

    The getters of OpenTelemetry's ASGI instrumentation decode every header of the request for each name that is asked for.
    """

    def __init__(self, names: Iterable[str]) -> None:
        """Make a reader of these names, in lower case."""
        self._names = tuple(dict.fromkeys(names))
        self._encoded = {name.encode("latin-1"): name for name in self._names}
        self._variables = tuple((f"HTTP_{name.upper().replace('-', '_')}", name) for name in self._names)

    def read(self, carrier: Any, getter: Getter[Any]) -> dict[str, str]:
        """Give the headers that are there, several of one name joined; a value over 16 KB is left out."""
        if type(carrier) is dict:
            if "wsgi.version" in carrier:
                found = [(name, carrier[variable]) for variable, name in self._variables if variable in carrier]
                return {name: value for name, value in found if isinstance(value, str) and 0 < len(value) <= _MAX_VALUE}
            if "type" in carrier and isinstance(carrier.get("headers"), (list, tuple)):
                return self._read_asgi(carrier["headers"])
        read = ((name, joined(getter.get(carrier, name), name)) for name in self._names)
        return {name: value for name, value in read if value is not None}

    def _read_asgi(self, headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
        encoded = self._encoded
        found: dict[str, list[str]] = {}
        for raw_name, raw_value in headers:
            name = encoded.get(raw_name) or encoded.get(raw_name.lower())
            if name is not None:
                found.setdefault(name, []).append(raw_value.decode("latin-1"))
        return {name: value for name, values in found.items() if (value := joined(values, name)) is not None}


def joined(values: Any, name: str) -> str | None:
    """Give the values of the header `name` as one text; None when there is none, or more than 16 KB of it."""
    if not values:
        return None
    if not isinstance(values, str):
        separator = "; " if name == COOKIE else ","
        values = separator.join([value for value in values if isinstance(value, str)])
    return values if 0 < len(values) <= _MAX_VALUE else None


@lru_cache(maxsize=256)
def attributes_of(name: str) -> tuple[str, ...]:
    """Give the attributes that instrumentations capture a header in.

    The conventions keep the dashes, and so do all languages but Python, whose instrumentations write underscores.

    >>> attributes_of("sec-gpc"), attributes_of("cookie")
    (('http.request.header.sec-gpc', 'http.request.header.sec_gpc'), ('http.request.header.cookie',))
    """
    return tuple(dict.fromkeys((_CAPTURED + name, _CAPTURED + name.replace("-", "_"))))


def captured(attributes: Mapping[str, Any], name: str) -> str | None:
    """Give a header that an instrumentation captured: from a list, a text, or the text of a list in JSON; None when it was redacted."""
    for attribute in attributes_of(name):
        value = attributes.get(attribute)
        if value is None:
            continue
        if isinstance(value, str) and value[:1] == "[" and value != "[REDACTED]":
            value = _from_json(value)
        text = joined(value, name) if isinstance(value, (str, list, tuple)) else None
        if text is not None and "[REDACTED]" not in text:
            return text
    return None


def _from_json(text: str) -> object:
    try:
        value = orjson.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, list) else text


def is_prefetch(purpose: str) -> bool:
    """Say whether the value of one of `PURPOSES` means that the page was fetched before a person asked for it.

    >>> is_prefetch("prefetch;prerender"), is_prefetch("prefetch;anonymous-client-ip"), is_prefetch("navigate")
    (True, True, False)
    """
    return not _NOT_ASKED_FOR.isdisjoint(_PARTS.split(purpose.strip().lower()))


def is_opt_out(gpc: str | None) -> bool:
    """Say whether the value of `Sec-GPC`, of which a proxy may have joined several, asks not to be tracked."""
    return gpc == "1" or (gpc is not None and "1" in _PARTS.split(gpc))


def is_websocket(upgrade: str) -> bool:
    """Say whether the value of `Upgrade` asks for a WebSocket."""
    return "websocket" in _PARTS.split(upgrade.strip().lower())
