"""Decides who acts on one item: which source gives which id, and whether anything may be sent at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_amplitude.clock import application_time
from otel_amplitude.fixes import Note, ignore
from otel_amplitude.identity._cookie import SESSION_TIMEOUT_MS, BrowserCookie, other_projects, read_cookie
from otel_amplitude.identity._headers import (
    COOKIE,
    GPC,
    HeaderId,
    attributes_of,
    captured,
    is_opt_out,
    read_identity_headers,
)
from otel_amplitude.identity._propagator import REPLACED, installed
from otel_amplitude.identity._scope import Scope
from otel_amplitude.limits import MAX_STRING, MIN_ID_LENGTH
from otel_amplitude.log import hint
from otel_amplitude.moments import read_session, session_ms
from otel_amplitude.sdk_access import attributes_copied
from otel_amplitude.values import has_control, id_text, is_placeholder, is_sound_id

if TYPE_CHECKING:
    from otel_amplitude.log import Log

Consent = Callable[[Scope], bool]
"""Whether the person of a request agreed; gets the request's scope (an empty one outside a request)."""
Anonymous = Callable[[Mapping[str, Any], Scope | None], Mapping[str, Any] | None]
"""Ids for an item that nobody is known for: gets its attributes and scope, gives `user_id` and/or `device_id`, or None."""

USER_ATTRIBUTES: Final = ("user.id", "enduser.id")
OPT_OUT: Final = "amplitude.opt_out"
"""An attribute by which an item, or a span above it, says that nothing may be sent: for telemetry that no request scope comes with."""
DEVICE_ATTRIBUTES: Final = ("app.installation.id", "device.id")
_NO_COOKIE: Final = BrowserCookie(None, None, None, None, opt_out=False)
_EMPTY: Final[Mapping[str, str]] = {}
_EXPLICIT: Final = frozenset({"amplitude.user_id", "amplitude.device_id", "amplitude.session_id"})
_FALSE: Final = frozenset(("false", "0", ""))
_NO_IDS: Final[Mapping[str, HeaderId]] = {}


class Identity(NamedTuple):
    """Who acts on one item.

    Attributes:
        user_id, device_id: checked text, or None.
        session_id: milliseconds since 1970 (-1: explicitly outside any session), or None.
        groups: group type to name or names as given to `set_user`, or None.
        refusal: why the item must not be sent (`opted_out`, `no_identity`), or None.
        from_request: an id is known from this very request: the item's own attributes or its local parents', `set_user`, cookie
            or header. Not so when all that is known came over baggage from another service, or from the `anonymous` callable.
        user_source, device_source: where the id came from, as one word: `attribute`, `set_user`, `convention`, `cookie`, `header`,
            `baggage`, `anonymous`; empty without an id.
    """

    user_id: str | None = None
    device_id: str | None = None
    session_id: int | None = None
    groups: Mapping[str, Any] | None = None
    refusal: str | None = None
    from_request: bool = False
    user_source: str = ""
    device_source: str = ""


_Layers = Sequence[Mapping[str, Any]]
"""The item's attributes, then those of its local parents, nearest first; none where only the scope is asked."""
_Candidates = Iterable[tuple[str, object]]
"""Where an id may come from, with its source, the best first."""


class _Sources(NamedTuple):
    item: Mapping[str, Any]
    layers: _Layers
    known: Scope
    cookie: BrowserCookie
    headers: Mapping[str, object]
    baggage: Mapping[str, str]


_OPTED_OUT: Final = Identity(refusal="opted_out")
_NOBODY: Final = Identity(refusal="no_identity")


def clean_id(value: object) -> str | None:
    """Give `value` as an id Amplitude takes, whatever its length below the maximum, or None when it names nobody.

    Text is trimmed; whole numbers, UUIDs and members of enums become text; a list gives its first (captured headers are lists). Refused are the ids on Amplitude's
    list, `[REDACTED]`, only zeros, and control characters. Longer than 1,024 characters: its hash, since a cut would merge people.

    >>> clean_id(" u-12345 "), clean_id(42), clean_id("None"), clean_id(("d-1",))
    ('u-12345', '42', None, 'd-1')
    """
    if type(value) is not str:
        value = _written(value)
        if value is None:
            return None
    text = value.strip()
    if len(text) > MAX_STRING:
        return blake2b(text.encode("utf-8", "backslashreplace"), digest_size=32).hexdigest()
    return None if has_control(text) or is_placeholder(text) else text


def _written(value: object) -> str | None:
    if isinstance(value, (list, tuple)) and value:
        value = value[0]
    try:
        return id_text(value)
    except Exception:  # a hostile value of the application's
        return None


class IdentityResolver:
    """Gives the identity of one item from its attributes, its request's scope and its local parents.

    For each field the first source wins: `amplitude.*` attribute on the item, `set_user`, semantic conventions on the item or a local
    parent, browser cookie, identity headers, baggage. An opt-out beats them all. Reads nothing but its arguments and the clock; never
    raises after construction; any thread.

    Attributes:
        attributes: the names of all attributes that are read, of items and of their parents.
        conflicts: how often the server's user id and the cookie's differed (`identity_conflict`); approximate under threads.
        short_ids: how many ids were below the minimum length, each of which is left out; approximate under threads.
        failed_functions: how often a function of `identity_headers` raised, so that its header gave no id; approximate under threads.
    """

    def __init__(
        self,
        api_key: str,
        *,
        identity_headers: Mapping[str, object] | None = None,
        user_id_format: str | None = None,
        consent: str | Consent | None = None,
        anonymous: str | Anonymous = "drop",
        min_id_length: int | None = None,
        log: Log | None = None,
        as_route: Callable[[str], str] = str,
        wall: Callable[[], float] = application_time,
        note: Note = ignore,
    ) -> None:
        """Make the resolver of one client from options as `Config` checked them.

        Args:
            api_key: the project, whose cookie is read.
            identity_headers: field to header, see `read_identity_headers`; functions are loaded.
            user_id_format: such as `user-{id}`: how ids that the server knows (`set_user`, conventions) are written, so that they equal
                those the browser sends; ids from cookie, header, baggage and `amplitude.user_id` stay as they are.
            consent: None; `gpc` honours `Sec-GPC: 1`; or a callable, where False or an exception means no.
            anonymous: `drop`, or a callable that may supply ids where nobody is known.
            min_id_length: None means Amplitude's 5.
            log: where the three hints go, each once; None says nothing.
            as_route: gives the template of a route as events write it, for the hint.
            wall: seconds since 1970 as the application sees them, for the session's 30 minutes.
            note: told of a session id in another unit than milliseconds.
        """
        self.conflicts = 0
        self.short_ids = 0
        self.failed_functions = 0
        self._api_key = api_key
        headers = read_identity_headers(identity_headers)
        self._headers = headers
        captured_in = (
            attribute for name in (COOKIE, GPC, *(header.name for header in headers.values())) for attribute in attributes_of(name)
        )
        self.attributes = frozenset((*_EXPLICIT, OPT_OUT, *USER_ATTRIBUTES, *DEVICE_ATTRIBUTES, "session.id", *captured_in))
        self._without_ids = self.attributes.isdisjoint
        self._explicit_only = self.attributes.difference(_EXPLICIT).isdisjoint
        self._format = user_id_format
        self._gpc = consent == "gpc"
        self._consent = consent if callable(consent) else None
        self._anonymous = anonymous if callable(anonymous) else None
        self._min_length = MIN_ID_LENGTH if min_id_length is None else min_id_length
        self._log = log
        self._as_route = as_route
        self._wall = wall
        self._note = note
        self._told: set[str] = set()
        # Hashes in the log can be compared with each other but, without this process's key, with nothing else.
        self._hash_key = os.urandom(16)
        self._cure = ""

    def advise(self, cure: str) -> None:
        """Give this as the cure where no user is known, instead of what an application can call: in a process that has no requests of its own."""
        self._cure = cure

    def resolve(
        self,
        attributes: Mapping[str, Any],
        scope: Scope | None = None,
        parents: Iterable[Any] = (),
        time_ns: int | None = None,
        *,
        final: bool = True,
    ) -> Identity:
        """Give the identity of an item; check `refusal` first.

        Args:
            attributes: the item's own.
            scope: of its request, or None.
            parents: its open local parents, nearest first, as `OpenSpans.parents` gives them; only their `attributes` are read.
            time_ns: when the item began, in nanoseconds since 1970, by which the cookie's session is judged: so the same item gives
                the same identity whenever it is asked for. None is now.
            final: whether there will be no more parents. If not, `anonymous` is not asked, and that nobody is known is no reason for a hint.
        """
        if self._consent is not None and not self.agreed(scope):
            return _OPTED_OUT
        layers: list[Mapping[str, Any]] = [attributes_copied(parent) for parent in parents] if parents else []
        if scope is not None and self._without_ids(attributes) and all(map(self._without_ids, layers)):  # as for most items
            decided = scope.decided
            if (
                decided is None
                or decided[0] is not self
                or decided[1] != scope.version
                or (decided[2] and not self._holds(decided[2], time_ns))
            ):
                decided = self._remember(scope, time_ns)
            identity: Identity = decided[3]
        elif not layers and self._explicit_only(attributes) and (scope is None or _only_told(scope)):
            identity = self._by_attributes(attributes, scope or _NOTHING)
        else:
            identity = self._decide([attributes, *layers], scope, self._moment(time_ns))[0]
        return self._nobody(attributes, scope) if identity is _NOBODY and final else identity

    def _moment(self, time_ns: int | None) -> float:
        return time_ns // 1_000_000 if time_ns else self._wall() * 1000

    def _holds(self, limit_ms: float, time_ns: int | None) -> bool:
        """Say whether what was decided on one side of a limit holds for an item of this time; see `_limit`."""
        moment = self._moment(time_ns)
        return moment <= limit_ms if limit_ms > 0 else moment > -limit_ms

    def _remember(self, scope: Scope, time_ns: int | None) -> tuple[object, int, float | None, Identity]:
        """Decide by the scope alone, once for all items of a request."""
        version = scope.version
        moment = self._moment(time_ns)
        identity, limit = self._by_scope(scope, moment) or self._decide((), scope, moment)
        scope.decided = decided = (self, version, limit, identity)
        return decided

    def _by_scope(self, scope: Scope, moment: float) -> tuple[Identity, float | None] | None:
        """Give what `_decide((), scope, moment)` would, in one straight line; None: something is unusual, so that it must be asked."""
        if (
            self._format is not None
            or scope.headers is not None
            or scope.header_ids is not None
            or scope.baggage is not None
            or scope.opted_out
            or scope.gpc
        ):
            return None
        user, device, session, limit = scope.user_id, scope.device_id, scope.session_id, None
        user_source, device_source = "set_user" if user is not None else "", "set_user" if device is not None else ""
        if session is not None:
            session = read_session(session, self._note)
        if scope.cookie is not None:
            cookie = self._cookie((), scope)
            # What is no text is refused below, and may be anything, also something that can not be compared.
            if cookie.opt_out or (type(user) is str and cookie.user_id is not None and user != cookie.user_id):
                return None
            if user is None and cookie.user_id is not None and not scope.anonymous:
                user, user_source = cookie.user_id, "cookie"
            if device is None and cookie.device_id is not None:
                device, device_source = cookie.device_id, "cookie"
            if session is None and cookie.session_id is not None:
                session = cookie.session_at(moment)
            limit = _limit(cookie, moment)
        shortest = self._min_length
        if not ((user is None or is_sound_id(user, shortest)) and (device is None or is_sound_id(device, shortest))):
            return None
        if user is None and device is None:
            return _NOBODY, None
        # Not by calling the class, which runs Python once more and costs twice as much.
        return tuple.__new__(Identity, (user, device, session, scope.groups, None, True, user_source, device_source)), limit

    def _by_attributes(self, item: Mapping[str, Any], scope: Scope) -> Identity:
        """Give the same where explicit attributes of the item say something as well."""
        known = scope.user_id if self._format is None else self._formatted(scope.user_id)
        if _differ(item.get("amplitude.user_id"), known):
            known, scope = None, _NOTHING
        user, user_source = self._told_id("user_id", item.get("amplitude.user_id"), known)
        device, device_source = self._told_id("device_id", item.get("amplitude.device_id"), scope.device_id)
        if user is None and device is None:
            return _NOBODY
        session = self._told_session(item.get("amplitude.session_id"), scope.session_id)
        return Identity(user, device, session, scope.groups, None, True, user_source, device_source)

    def _told_id(self, field: str, explicit: object, known: object) -> tuple[str | None, str]:
        value, source = (known, "set_user") if explicit is None else (explicit, "attribute")
        if value is None or is_sound_id(value, self._min_length):
            return (None, "") if value is None else (value, source)  # type: ignore[return-value]
        text, source = self._first(field, (("attribute", explicit), ("set_user", known)))
        return text, source if text is not None else ""

    def _decide(self, layers: _Layers, scope: Scope | None, moment: float) -> tuple[Identity, float | None]:
        """Give the identity at `moment` (milliseconds since 1970), and the limit of that in time; see `_limit`."""
        cookie = self._cookie(layers, scope)
        if (
            any(map(has_opted_out, layers))
            or cookie.opt_out
            or (scope is not None and scope.opted_out)
            or (self._gpc and self._asked_for_privacy(layers, scope))
        ):
            return _OPTED_OUT, None
        known = scope if scope is not None else _NOTHING
        headers = self._header_values(layers, known) if self._headers else _EMPTY
        sources = _Sources(layers[0] if layers else _EMPTY, layers, known, cookie, headers, known.baggage or _EMPTY)
        if layers and self._names_another(sources):
            known, cookie = _NOTHING, _NO_COOKIE
            sources = _Sources(layers[0], layers[:1], known, cookie, _EMPTY, _EMPTY)
        user, user_source = self._user(sources)
        device, device_source = self._device(sources)
        if user is None and device is None:
            return _NOBODY, None
        here = (user is not None and user_source != "baggage") or (device is not None and device_source != "baggage")
        sources_named = (user_source if user else "", device_source if device else "")
        session = self._session(sources, moment)
        return Identity(user, device, session, known.groups, None, here, *sources_named), _limit(cookie, moment)

    def _names_another(self, sources: _Sources) -> bool:
        """Whether the item itself names another user than the one of its request, to whom device, session and groups of the request belong."""
        explicit = sources.item.get("amplitude.user_id")
        if explicit is None:
            return False
        above = sources.layers[1:]
        others = (
            self._formatted(sources.known.user_id),
            _nearest(above, "amplitude.user_id"),
            self._formatted(_conventional(above, USER_ATTRIBUTES)),
        )
        return _differ(explicit, next((other for other in others if other is not None), None))

    def _cookie(self, layers: _Layers, scope: Scope | None) -> BrowserCookie:
        if scope is not None and scope.cookie is not None:
            if scope.cookies is None:
                scope.cookies = {}
            if self._api_key not in scope.cookies:
                scope.cookies[self._api_key] = read_cookie(scope.cookie, self._api_key)
            return scope.cookies[self._api_key] or _NO_COOKIE
        header = _captured(layers, COOKIE) if layers else None
        return (read_cookie(header, self._api_key) if header else None) or _NO_COOKIE

    def _asked_for_privacy(self, layers: _Layers, scope: Scope | None) -> bool:
        return (scope is not None and scope.gpc) or is_opt_out(_captured(layers, GPC))

    def agreed(self, scope: Scope | None = None) -> bool:
        """Ask the `consent` callable, if there is one; `scope` None: outside a request."""
        try:
            return bool(self._consent is None or self._consent(scope if scope is not None else Scope()))
        except Exception:  # a question that could not be answered is no consent
            self._tell("identity.consent_failed", cure="the consent callable raised; its events are not sent")
            return False

    def _header_values(self, layers: _Layers, known: Scope) -> dict[str, object]:
        kept = known.headers or _EMPTY
        return {
            field: kept.get(name) or _captured(layers, name) if function is None else self._made_id(field, name, function, layers, known)
            for field, (name, function) in self._headers.items()
        }

    def _made_id(self, field: str, name: str, function: Any, layers: _Layers, known: Scope) -> object:
        """Give what a function of `identity_headers` makes of its header."""
        header = (known.header_ids or _NO_IDS).get(name)
        if header is None and (value := _captured(layers, name)) is not None and callable(function):
            header = HeaderId(value, function)
        made = None if header is None else header.read()
        if header is not None and header.failed:
            self.failed_functions += 1
            self._tell(
                "identity.header_failed",
                field=field,
                header=name,
                error=header.failed,
                cure="the function of identity_headers raised, so the header gave no id; it should return None for a value without one",
            )
            header.failed = ""
        return made

    def _user(self, sources: _Sources) -> tuple[str | None, str]:
        known, cookie = sources.known, sources.cookie
        # Mostly only the scope is asked: then there is one candidate.
        candidates = self._server_users(sources) if sources.layers else [("set_user", self._formatted(known.user_id))]
        server = self._first("user_id", candidates)
        if known.anonymous:  # whoever the client says it is, the server knows better
            return server
        if server[0] is not None and cookie.user_id is not None:
            self._compare(server[0], cookie.user_id)
        if server[1]:
            return server
        headers, baggage = sources.headers, sources.baggage
        return self._first(
            "user_id", (("cookie", cookie.user_id), ("header", headers.get("user")), ("baggage", baggage.get("amplitude.user_id")))
        )

    # Candidates come one by one, since the first that names somebody is mostly among the first.

    def _server_users(self, sources: _Sources) -> _Candidates:
        yield "attribute", sources.item.get("amplitude.user_id")
        yield "set_user", self._formatted(sources.known.user_id)
        yield "attribute", _nearest(sources.layers, "amplitude.user_id")
        yield "convention", self._formatted(_conventional(sources.layers, USER_ATTRIBUTES))

    def _device(self, sources: _Sources) -> tuple[str | None, str]:
        return self._first("device_id", self._devices(sources))

    def _devices(self, sources: _Sources) -> _Candidates:
        yield "attribute", sources.item.get("amplitude.device_id")
        yield "set_user", sources.known.device_id
        if sources.layers:
            yield "attribute", _nearest(sources.layers, "amplitude.device_id")
            yield "convention", _conventional(sources.layers, DEVICE_ATTRIBUTES)
        yield "cookie", sources.cookie.device_id
        yield "header", sources.headers.get("device")
        yield "baggage", sources.baggage.get("amplitude.device_id")

    def _session(self, sources: _Sources, moment: float) -> int | None:
        item, known, layers = sources.item, sources.known, sources.layers
        told = self._told_session(item.get("amplitude.session_id"), known.session_id, _nearest(layers, "amplitude.session_id"))
        return (
            told
            or self._told_session(_nearest(sources.layers, "session.id"))
            or sources.cookie.session_at(moment)
            or session_ms(sources.headers.get("session"))
            or session_ms(sources.baggage.get("amplitude.session_id"))
        )

    def _told_session(self, *values: object) -> int | None:
        return next((session for value in values if value is not None and (session := read_session(value, self._note)) is not None), None)

    def _formatted(self, value: object) -> object:
        if self._format is None or value is None:
            return value
        text = clean_id(value)
        return self._format.replace("{id}", text) if text is not None else None

    def _first(self, field: str, candidates: _Candidates) -> tuple[str | None, str]:
        """Give the first candidate that names somebody, with its source.

        A short one ends the search without an id: a weaker source may name somebody else.
        """
        for source, value in candidates:
            if value is None or (text := clean_id(value)) is None:
                continue
            if len(text) >= self._min_length:
                return text, source
            self.short_ids += 1
            self._tell(
                "identity.short",
                field=field,
                length=len(text),
                cure=f"Amplitude refuses ids under {self._min_length} characters: set {self._option('min_id_length')} here and minIdLength in the browser SDK",
            )
            return None, source
        return None, ""

    def _compare(self, server: str, browser: str) -> None:
        if server == clean_id(browser):
            return
        self.conflicts += 1
        if "identity.conflict" not in self._told:
            cure = "two ids make two people for ever: give both sides the same, see " + self._option("user_id_format")
            self._tell("identity.conflict", server=self._hashed(server), browser=self._hashed(browser), cure=cure)

    def _hashed(self, value: str) -> str:
        return blake2b(value.encode("utf-8", "backslashreplace"), digest_size=6, key=self._hash_key).hexdigest()

    def _nobody(self, attributes: Mapping[str, Any], scope: Scope | None) -> Identity:
        if self._anonymous is not None:
            try:
                ids = self._anonymous(attributes, scope) or _EMPTY
                user, user_source = self._first("user_id", [("anonymous", ids.get("user_id"))])
                device, device_source = self._first("device_id", [("anonymous", ids.get("device_id"))])
            except Exception:  # somebody else's callable: no ids from it
                self._tell("identity.anonymous_failed", cure="the anonymous callable raised; its items are counted as no_identity")
                return _NOBODY
            if user is not None or device is not None:
                groups = scope.groups if scope is not None else None
                return Identity(user, device, None, groups, None, False, user_source if user else "", device_source if device else "")
        route = attributes.get("http.route")
        if route:
            shown = self._as_route(route) if isinstance(route, str) else route
            others = other_projects(scope.cookie, self._api_key) if scope is not None and scope.cookie is not None else []
            if others:
                cure = f"the browser has the cookie of another project: give page and service the same API key (here {hint(self._api_key)})"
                self._tell("identity.missing", route=shown, cookie=others[0], cure=cure)
            elif self._cure:
                self._tell("identity.missing", route=shown, cure=self._cure)
            else:
                headers = f"set {self._option('identity_headers')} to device=x-device-id" if installed.is_present() else REPLACED
                self._tell("identity.missing", route=shown, cure=f"in its handler call otel_amplitude.set_user(user_id), or {headers}")
        return _NOBODY

    def _option(self, name: str) -> str:
        return name if self._log is None else self._log.option(name)

    def _tell(self, event: str, **facts: object) -> None:
        if self._log is not None and event not in self._told:
            self._told.add(event)
            self._log.warning(event, **facts)


_NOTHING: Final = Scope()


def _only_told(scope: Scope) -> bool:
    """Whether `set_user` is all a scope has to go by, and nothing asks for privacy."""
    found = (scope.cookie, scope.headers, scope.header_ids, scope.baggage)
    return found.count(None) == len(found) and not (scope.opted_out or scope.gpc)


def has_opted_out(attributes: Mapping[str, Any]) -> bool:
    """Say whether attributes hold an opt-out. What can not be read as false is one: an answer that can not be read is no consent.

    >>> has_opted_out({OPT_OUT: "true"}), has_opted_out({OPT_OUT: "False"}), has_opted_out({})
    (True, False, False)
    """
    value = attributes.get(OPT_OUT)
    return value is not None and value is not False and value != 0 and str(value).strip().lower() not in _FALSE


def _limit(cookie: BrowserCookie, moment: float) -> float | None:
    """Give the last moment of the cookie's session; negative when `moment` is after it; None when the cookie has no session."""
    if cookie.session_id is None or cookie.last_event_ms is None:
        return None
    limit = cookie.last_event_ms + SESSION_TIMEOUT_MS
    return limit if moment <= limit else -limit


def _differ(one: object, other: object) -> bool:
    """Whether these are ids of two people."""
    if one is None or other is None:
        return False
    named, known = clean_id(one), clean_id(other)
    return named is not None and known is not None and named != known


def _nearest(layers: _Layers, name: str) -> object:
    for attributes in layers:
        if (value := attributes.get(name)) is not None:
            return value
    return None


def _conventional(layers: _Layers, names: tuple[str, ...]) -> object:
    """Give the first attribute that names somebody: of the item, then of its parents."""
    for attributes in layers:
        for name in names:
            if (value := attributes.get(name)) is not None and clean_id(value) is not None:
                return value
    return None


def _captured(layers: _Layers, name: str) -> str | None:
    """Give a header that OpenTelemetry captured on the item or a local parent."""
    for attributes in layers:
        if (value := captured(attributes, name)) is not None:
            return value
    return None
