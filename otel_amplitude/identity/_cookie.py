"""Reads and writes the cookies in which Amplitude's browser SDKs keep device, user and session.

Formats as written by `@amplitude/analytics-core` 2.61 (`AMP_<10 of the key>`: base64 of percent-encoded JSON) and by the
older JavaScript SDK (`amp_<6 of the key>`: parts joined by dots, numbers in base 32).
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from typing import Final, NamedTuple
from urllib.parse import quote, unquote, unquote_to_bytes

import orjson

from otel_amplitude.clock import application_time
from otel_amplitude.moments import session_ms

# The browser SDK's default session timeout; a session that was silent for longer is over.
SESSION_TIMEOUT_MS: Final = 30 * 60 * 1000
# Browsers cut a cookie at 4,096 bytes; percent-encoding once more can triple it.
_MAX_VALUE: Final = 3 * 4096
_MAX_CANDIDATES: Final = 10
# A framework and a proxy may each encode it once more.
_MAX_ENCODINGS: Final = 2
_BASE32: Final = re.compile(r"[0-9a-v]{1,10}", re.ASCII)
_ESCAPES: Final = ((b"%22", b'"'), (b"%3A", b":"), (b"%2C", b","), (b"%7B", b"{"), (b"%7D", b"}"))
# `setOptOut` of a page may have got a text or a number; 1 is equal to True.
_YES: Final = (True, "true", "1")
_URI_COMPONENT: Final = "-_.!~*'()"  # what encodeURIComponent leaves as it is


class BrowserCookie(NamedTuple):
    """What the browser knows about its visitor; anything a client may write, so types are checked and nothing else is.

    Attributes:
        device_id, user_id: text as found, None when absent or empty.
        session_id, last_event_ms: milliseconds since 1970, None when absent or impossible.
        opt_out: the visitor asked to be left alone.
    """

    device_id: str | None
    user_id: str | None
    session_id: int | None
    last_event_ms: int | None
    opt_out: bool

    def session_at(self, now_ms: float) -> int | None:
        """Give the session while it lasts: its last event is at most 30 minutes before `now_ms`."""
        if self.last_event_ms is None or now_ms - self.last_event_ms > SESSION_TIMEOUT_MS:
            return None
        return self.session_id


def _text(value: object) -> str | None:
    # A page may have given `setUserId` a number.
    return (value if isinstance(value, str) else str(value) if type(value) is int else None) or None


def _read_current(value: str) -> BrowserCookie | None:
    data = _loaded(value)
    for _ in range(_MAX_ENCODINGS):
        if isinstance(data, dict) or "%" not in value:
            break
        value = unquote(value)
        data = _loaded(value)
    if not isinstance(data, dict):
        return None
    return BrowserCookie(
        _text(data.get("deviceId")),
        _text(data.get("userId")),
        session_ms(data.get("sessionId")),
        session_ms(data.get("lastEventTime")),
        data.get("optOut") in _YES,
    )


def _loaded(value: str) -> object:
    try:
        text = b64decode(value + "=" * (-len(value) % 4), validate=True)
        # The escapes of JSON's own characters one by one: all that most cookies have, at a fifth of the price. None can make another.
        for escape, letter in _ESCAPES:
            text = text.replace(escape, letter)
        return orjson.loads(unquote_to_bytes(text) if b"%" in text else text)
    except ValueError:
        return None


def _base32(text: str) -> int | None:
    return session_ms(int(text, 32)) if _BASE32.fullmatch(text) else None


def _read_legacy(value: str) -> BrowserCookie | None:
    parts = (unquote(value) if "%" in value else value).split(".")
    if len(parts) < 5:
        return None
    device, user, opt_out, session, last = parts[:5]
    try:
        user = b64decode(user + "=" * (-len(user) % 4), validate=True).decode()
    except ValueError:
        return None
    return BrowserCookie(_text(device), _text(user), _base32(session), _base32(last), opt_out == "1")


def _pairs(header: str) -> list[tuple[str, str]]:
    """Give Amplitude's cookies of a header."""
    found = []
    # WSGI servers join several Cookie headers with a comma, which is neither in base64 nor, percent-encoded, in an older cookie.
    for part in header.replace(",", ";").split(";"):
        if (text := part.lstrip())[:4] in ("AMP_", "amp_"):
            name, _, value = text.rstrip().partition("=")
            if len(value) <= _MAX_VALUE:
                found.append((name, value.strip(' "')))
    return found


def read_cookie(header: str, api_key: str) -> BrowserCookie | None:
    """Read what the browser stored for the project of `api_key` out of a `Cookie` header; None when there is nothing readable.

    Of several cookies of one name (written on different domains) the one with the latest event counts, and an opt-out in any.
    The current format is preferred; the legacy one may carry a domain after its name. Linear in the header's length; never raises.
    """
    current, legacy = f"AMP_{api_key[:10]}", f"amp_{api_key[:6]}"
    pairs = _pairs(header)
    ours = [value for name, value in pairs if name == current][:_MAX_CANDIDATES]
    found = [cookie for value in ours if (cookie := _read_current(value))]
    if not found:
        ours = [value for name, value in pairs if name == legacy or name.startswith(f"{legacy}_")][:_MAX_CANDIDATES]
        found = [cookie for value in ours if (cookie := _read_legacy(value))]
    if len(found) < 2:
        return found[0] if found else None
    latest = max(found, key=lambda cookie: cookie.last_event_ms or 0)
    return latest._replace(opt_out=any(cookie.opt_out for cookie in found))


def other_projects(header: str, api_key: str) -> list[str]:
    """Give the names of browser cookies that belong to other projects than `api_key`'s.

    >>> other_projects("AMP_aaaaaaaaaa=eA; AMP_MKTG_aaaaaaaaaa=eA; AMP_0123456789=eA", "0123456789abcdef")
    ['AMP_aaaaaaaaaa']
    """
    ours = (f"AMP_{api_key[:10]}", f"amp_{api_key[:6]}")
    return [name for name, _ in _pairs(header) if name not in ours and re.fullmatch("AMP_[0-9A-Za-z]{10}|amp_[0-9A-Za-z]{6}", name)]


def only_amplitude(header: str) -> str:
    """Give the pairs of a `Cookie` header that are Amplitude's, for places where the others must not go."""
    return "; ".join(f"{name}={value}" for name, value in _pairs(header))


def make_cookie(
    api_key: str,
    device_id: str,
    user_id: str | None = None,
    session_id: int | None = None,
    *,
    last_event_ms: int | None = None,
    opt_out: bool = False,
) -> str:
    """Give `name=value` as the current browser SDK writes it, for trials and tests.

    Args:
        api_key: the project; its first ten characters name the cookie.
        device_id: the browser's id.
        user_id: None for a visitor who is not logged in.
        session_id: milliseconds since 1970; None starts one now.
        last_event_ms: milliseconds since 1970; None is now. More than 30 minutes ago, the session counts as over.
        opt_out: the visitor asked to be left alone.
    """
    now = int(application_time() * 1000)
    data: dict[str, object] = {"deviceId": device_id}
    if user_id is not None:
        data["userId"] = user_id
    data["sessionId"] = now if session_id is None else session_id
    data["optOut"] = opt_out
    data["lastEventTime"] = now if last_event_ms is None else last_event_ms
    text = quote(orjson.dumps(data), safe=_URI_COMPONENT)
    return f"AMP_{api_key[:10]}={b64encode(text.encode('ascii')).decode('ascii')}"
