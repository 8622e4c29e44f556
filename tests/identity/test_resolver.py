"""Who acts: which source wins, which ids are refused, who is left alone, and what is said about it once."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider

from otel_amplitude.identity import AmplitudePropagator, Identity, IdentityResolver, RequestScope, make_cookie, scope_of
from otel_amplitude.identity._propagator import installed
from otel_amplitude.identity._resolver import clean_id
from otel_amplitude.log import Log

KEY = "0123456789abcdef0123456789abcdef"
NOW = 1_795_305_661_234
SESSION = 1_795_305_600_000
ROUTE = {"http.route": "/orders"}


class Notes:
    """Takes the place of the log: what was said, with its facts."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, object]]] = []

    def warning(self, event: str, **facts: object) -> None:
        self.said.append((event, facts))

    def option(self, name: str) -> str:
        return Log().option(name)

    def names(self) -> list[str]:
        return [event for event, _ in self.said]


class Parent:
    """A local parent: only its attributes are asked for."""

    def __init__(self, **attributes: object) -> None:
        self.attributes = {name.replace("__", "."): value for name, value in attributes.items()}


def resolver(**options: Any) -> IdentityResolver:
    """A resolver whose clock stands at NOW."""
    return IdentityResolver(KEY, wall=lambda: NOW / 1000, **options)


def request(user: object = None, **known: Any) -> RequestScope:
    """The scope of a request with a browser cookie."""
    cookie = make_cookie(
        KEY, "d-cookie", known.pop("cookie_user", "u-cookie"), SESSION, last_event_ms=NOW, opt_out=known.pop("cookie_out", False)
    )
    headers = {
        "cookie": cookie,
        "x-device-id": "d-header",
        "x-user-id": "u-header",
        "x-session-id": str(SESSION + 3),
        **known.pop("headers", {}),
    }
    propagator = AmplitudePropagator({"device": "x-device-id", "user": "x-user-id", "session": "x-session-id"})
    scope = scope_of(propagator.extract(headers))
    assert scope is not None
    scope.baggage = {"amplitude.user_id": "u-baggage", "amplitude.device_id": "d-baggage", "amplitude.session_id": str(SESSION + 4)}
    scope.learn(user_id=user, **known)
    return scope


HEADERS = {"device": "x-device-id", "user": "x-user-id", "session": "x-session-id"}
SOURCES = [
    ("attribute", {"amplitude.user_id": "u-own", "amplitude.device_id": "d-own", "amplitude.session_id": SESSION + 1}),
    ("set_user", None),
    ("convention", {"user.id": "u-convention", "device.id": "d-convention", "session.id": str(SESSION + 2)}),
    ("cookie", None),
    ("header", None),
    ("baggage", None),
]
SHORT = {"attribute": "own", "set_user": "set", "convention": "convention"}


@pytest.mark.parametrize("first", range(len(SOURCES)))
def test_the_order_of_sources(first: int) -> None:
    """Each source wins over all that come after it, for the user, the device and the session."""
    names = [name for name, _ in SOURCES[first:]]
    attributes: dict[str, Any] = {}
    for _, given_attributes in SOURCES[first:]:
        attributes |= given_attributes or {}
    scope = request("u-set" if "set_user" in names else None, device_id="d-set" if "set_user" in names else None)
    if "set_user" in names:
        scope.learn(session_id=SESSION + 9)
    if "cookie" not in names:
        scope.cookie = None
    if "header" not in names:
        scope.headers = None
    identity = resolver(identity_headers=HEADERS).resolve(attributes, scope)
    word = SHORT.get(names[0], names[0])
    sessions = {"own": 1, "set": 9, "convention": 2, "cookie": 0, "header": 3, "baggage": 4}
    assert identity == Identity(f"u-{word}", f"d-{word}", SESSION + sessions[word], None, None, names[0] != "baggage", names[0], names[0])


def test_each_field_has_its_own_source() -> None:
    """A user the server knows goes with the browser's device and session."""
    identity = resolver().resolve({}, request("u-12345", groups={"org": "acme"}, cookie_user=None))
    assert identity == Identity("u-12345", "d-cookie", SESSION, {"org": "acme"}, None, True, "set_user", "cookie")


@pytest.mark.parametrize(
    ("attributes", "user", "device"),
    [
        ({"user.id": "u-user", "enduser.id": "u-enduser"}, "u-user", None),
        ({"enduser.id": "u-enduser"}, "u-enduser", None),
        ({"app.installation.id": "d-app", "device.id": "d-device"}, None, "d-app"),
        ({"user.id": "[REDACTED]", "enduser.id": 17_000}, "17000", None),
        ({"process.user.id": "u-root", "host.id": "h-12345", "service.instance.id": "s-12345"}, None, None),
    ],
)
def test_conventions(attributes: dict[str, Any], user: str | None, device: str | None) -> None:
    """The conventions that name a person or their device are read; those that name a server are not."""
    identity = resolver().resolve(attributes)
    assert (identity.user_id, identity.device_id) == (user, device)


def test_local_parents_know_the_user() -> None:
    """An annotated child belongs to whom its server span names; the nearest parent wins, the item itself before it."""
    parents = [Parent(user__id="u-near"), Parent(user__id="u-far", device__id="d-far", session__id=SESSION)]
    identity = resolver().resolve({}, None, iter(parents))
    assert identity[:3] == ("u-near", "d-far", SESSION)
    assert resolver().resolve({"user.id": "u-own"}, None, parents).user_id == "u-own"
    assert resolver().resolve({}, request(), parents).user_id == "u-near"
    assert resolver().resolve({}, request("u-set"), [Parent(amplitude__user_id="u-near")]).user_id == "u-set"
    assert resolver().resolve({}, request(), [Parent(amplitude__user_id="u-near", amplitude__device_id="d-near")])[:2] == (
        "u-near",
        "d-near",
    )


def test_real_spans_are_parents() -> None:
    """What the SDK gives as a span's attributes can be read."""
    span = TracerProvider(shutdown_on_exit=False).get_tracer("t").start_span("server", attributes={"user.id": "u-12345"})
    assert resolver().resolve({}, None, [span]).user_id == "u-12345"


def test_captured_headers() -> None:
    """Where OpenTelemetry captured a header anyway it is read, on the item or on its server span."""
    cookie = make_cookie(KEY, "d-cookie", "u-cookie", SESSION, last_event_ms=NOW)
    captured: dict[str, Any] = {"http.request.header.cookie": ("a=b", cookie), "http.request.header.x_device_id": ("d-header",)}
    assert resolver().resolve(captured)[:3] == ("u-cookie", "d-cookie", SESSION)
    del captured["http.request.header.cookie"]
    parent = Parent()
    parent.attributes = captured
    assert resolver(identity_headers={"device": "x-device-id"}).resolve({}, RequestScope(), [parent]).device_id == "d-header"
    redacted = {"http.request.header.x_device_id": ("[REDACTED]",), "http.request.header.cookie": ("[REDACTED]",)}
    assert resolver(identity_headers={"device": "x-device-id"}).resolve(redacted).refusal == "no_identity"


def test_baggage_alone_is_not_this_request() -> None:
    """A click would otherwise be counted once per service."""
    scope = RequestScope()
    scope.baggage = {"amplitude.user_id": "u-baggage"}
    assert resolver().resolve({}, scope)[:6] == ("u-baggage", None, None, None, None, False)
    assert resolver().resolve({"device.id": "d-12345"}, scope).from_request
    assert not resolver().resolve({"user.id": "42"}, scope).from_request


@pytest.mark.parametrize("session", ["c0ffee", 0, True])
def test_a_session_that_is_no_moment(session: object) -> None:
    """A convention's session id is any text; only milliseconds are a session of Amplitude's."""
    assert resolver().resolve({"session.id": session, "user.id": "u-12345"}).session_id is None


@pytest.mark.parametrize("session", [-1, "-1"])
def test_outside_any_session(session: object) -> None:
    """An explicit -1 keeps an event out of the browser's session."""
    assert resolver().resolve({"amplitude.session_id": session}, request()).session_id == -1
    assert resolver().resolve({}, request(session_id=-1)).session_id == -1


def test_the_session_ends_while_the_scope_lives() -> None:
    """A long request does not keep a session open."""
    now = [NOW / 1000]
    ours, scope = IdentityResolver(KEY, wall=lambda: now[0]), request()
    scope.baggage = None
    assert ours.resolve({}, scope).session_id == SESSION
    now[0] += 30 * 60 + 1
    assert ours.resolve({}, scope).session_id is None


def test_what_is_learned_later_is_believed() -> None:
    """A decision holds until set_user says something new."""
    ours, scope = resolver(), request(cookie_user=None)
    scope.baggage = None
    assert ours.resolve({}, scope).user_id is None
    scope.learn(user_id="u-12345")
    assert ours.resolve({}, scope).user_id == "u-12345"
    scope.learn(opt_out=True)
    assert ours.resolve({}, scope).refusal == "opted_out"


def test_two_projects_read_their_own_cookies() -> None:
    """One request serves clients with different keys."""
    scope = request()
    other = IdentityResolver("fedcba9876543210", wall=lambda: NOW / 1000)
    assert resolver().resolve({}, scope).device_id == "d-cookie"
    assert other.resolve({}, scope).device_id == "d-baggage"


def test_logged_out_ignores_whom_the_client_names() -> None:
    """The server knows that nobody is logged in; the device stays."""
    identity = resolver(identity_headers=HEADERS).resolve({}, request(anonymous=True))
    assert (identity.user_id, identity.device_id, identity.session_id) == (None, "d-cookie", SESSION)


def test_user_id_format_is_for_ids_of_the_server() -> None:
    """The browser already writes them so; an explicit attribute is taken at its word."""
    ours = resolver(user_id_format="user-{id}")
    assert ours.resolve({}, request(42)).user_id == "user-42"
    assert ours.resolve({"user.id": 42}).user_id == "user-42"
    assert ours.resolve({"amplitude.user_id": "u-12345"}).user_id == "u-12345"
    assert ours.resolve({}, request()).user_id == "u-cookie"
    assert ours.resolve({}, request("None")).user_id == "u-cookie"


@pytest.mark.parametrize(("scope", "refused"), [(request(cookie_out=True), True), (request(opt_out=True), True), (request(), False)])
def test_opt_out_beats_every_source(scope: RequestScope, refused: bool) -> None:
    """Neither an attribute nor a user the server knows counts after an opt-out."""
    identity = resolver().resolve({"amplitude.user_id": "u-12345"}, scope)
    assert identity.refusal == ("opted_out" if refused else None)
    assert bool(identity.user_id) is not refused


def test_the_browsers_opt_out_can_not_be_taken_back() -> None:
    """set_user(opt_out=False) takes back what set_user said."""
    scope = request(opt_out=True)
    scope.learn(opt_out=False)
    assert resolver().resolve({}, scope).refusal is None
    assert resolver().resolve({}, request(cookie_out=True, opt_out=False)).refusal == "opted_out"


def test_sec_gpc_by_option() -> None:
    """The browser's privacy signal counts where the operator says so."""
    scope = request(headers={"sec-gpc": "1"})
    assert resolver().resolve({}, scope).refusal is None
    assert resolver(consent="gpc").resolve({}, scope).refusal == "opted_out"
    assert resolver(consent="gpc").resolve({}, request()).refusal is None
    assert resolver(consent="gpc").resolve({"user.id": "u-12345", "http.request.header.sec_gpc": ("1",)}).refusal == "opted_out"


def test_consent_is_asked_each_time() -> None:
    """The callable sees the scope; no and an exception both mean no."""
    answers = iter([True, False])
    ours = resolver(consent=lambda scope: scope.user_id == "u-12345" and next(answers))
    scope = request("u-12345")
    notes = Notes()
    assert [ours.resolve({}, scope).refusal for _ in range(2)] == [None, "opted_out"]
    broken = resolver(consent=lambda scope: 1 / 0, log=notes)  # type: ignore[arg-type,return-value]
    assert [broken.resolve({"user.id": "u-12345"}).refusal for _ in range(3)] == ["opted_out"] * 3
    assert notes.names() == ["identity.consent_failed"]


def test_nobody_is_dropped_with_one_hint_that_names_a_route(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint names a real route and the line that helps, once; without a route there is nothing to say."""
    monkeypatch.setattr(type(installed), "is_present", lambda _: True)  # as in a process whose headers are read
    notes = Notes()
    ours = resolver(log=notes)
    assert [ours.resolve(attributes, RequestScope()).refusal for attributes in ({}, ROUTE, {"http.route": "/other"})] == ["no_identity"] * 3
    [(event, facts)] = notes.said
    assert (event, facts["route"]) == ("identity.missing", "/orders")
    assert "otel_amplitude.set_user(" in str(facts["cure"])
    assert "OTEL_EXPORTER_AMPLITUDE_IDENTITY_HEADERS" in str(facts["cure"])


def test_the_hint_names_the_cookie_of_another_project() -> None:
    """The most likely mistake with two projects: the page's SDK has the key of one, the service that of the other."""
    notes = Notes()
    scope = RequestScope()
    scope.cookie = "AMP_MKTG_aaaaaaaaaa=eA; AMP_aaaaaaaaaa=eA"
    assert resolver(log=notes).resolve(ROUTE, scope).refusal == "no_identity"
    [(event, facts)] = notes.said
    assert (event, facts["cookie"]) == ("identity.missing", "AMP_aaaaaaaaaa")
    assert "the same API key" in str(facts["cure"])
    assert KEY not in str(facts)


def test_the_hint_writes_the_route_as_events_do() -> None:
    """What it names can be copied into the option `exclude`; a route that is no text stays what it is."""
    for route, said in (("/products/<name>", "/PRODUCTS/<NAME>"), (("/a", "/b"), ("/a", "/b"))):
        notes = Notes()
        resolver(log=notes, as_route=str.upper).resolve({"http.route": route})
        assert [facts["route"] for _, facts in notes.said] == [said]


class Odd:
    """A value that can not be compared, as a column of SQLAlchemy or an array."""

    def __eq__(self, _other: object) -> bool:
        raise TypeError

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("attributes", [{}, {"amplitude.user_id": "u-67890"}, {"user.id": "u-67890"}])
@pytest.mark.parametrize("cookie", [False, True])
def test_what_set_user_was_given_may_be_anything(cookie: bool, attributes: dict[str, str]) -> None:
    """A value that refuses to be compared names nobody and no session, and raises nothing."""
    scope = request(Odd()) if cookie else RequestScope()
    scope.learn(user_id=Odd(), device_id=Odd(), session_id=Odd())
    scope.learn(groups={"org": Odd()})
    identity = resolver().resolve(attributes, scope)
    assert identity.user_id == ("u-67890" if attributes else "u-cookie" if cookie else None)
    assert (identity.device_id, identity.session_id) == (("d-cookie", SESSION) if cookie else (None, None))


def test_a_callable_may_supply_ids() -> None:
    """Machine activity can have one fixed id; it is no request of a person."""
    ours = resolver(anonymous=lambda attributes, scope: {"device_id": f"worker-{attributes['queue']}"})
    assert ours.resolve({"queue": "mail"}) == Identity(None, "worker-mail", None, None, None, False, "", "anonymous")
    assert ours.resolve({"queue": "mail"}, request("u-12345")).device_source == "cookie"
    scope = RequestScope()
    scope.learn(groups={"org": "acme"})
    assert ours.resolve({"queue": "mail"}, scope).groups == {"org": "acme"}
    assert resolver(anonymous=lambda attributes, scope: None).resolve({}).refusal == "no_identity"
    assert resolver(anonymous=lambda attributes, scope: {"device_id": "unknown"}).resolve({}).refusal == "no_identity"


def test_a_callable_that_fails_supplies_nothing() -> None:
    """The item is dropped and the failure told once."""
    notes = Notes()
    ours = resolver(anonymous=lambda attributes, scope: attributes["none"], log=notes)
    assert [ours.resolve({}).refusal for _ in range(2)] == ["no_identity"] * 2
    assert notes.names() == ["identity.anonymous_failed"]


def test_a_conflict_is_counted_and_told_once_with_hashes() -> None:
    """Two ids for one person are noticed; neither is written into the log."""
    notes = Notes()
    ours = resolver(log=notes)
    assert ours.resolve({}, request("u-server")).user_id == "u-server"
    ours.resolve({"user.id": "u-other"}, request())
    ours.resolve({}, request("u-cookie"))
    assert ours.conflicts == 2
    [(event, facts)] = notes.said
    assert event == "identity.conflict"
    assert facts["server"] != facts["browser"]
    assert "u-server" not in str(facts)
    assert "u-cookie" not in str(facts)


def test_hashes_are_keyed_by_process() -> None:
    """Nobody with a list of ids can look one up from a log."""
    first, second = resolver(), resolver()
    assert first._hashed("u-12345") == first._hashed("u-12345") != second._hashed("u-12345")


def test_short_ids_are_counted_and_the_cure_named() -> None:
    """A Django key of two digits would be refused; a weaker source that may name somebody else does not stand in."""
    notes = Notes()
    ours = resolver(log=notes)
    identity = ours.resolve({}, request(42))
    assert identity == Identity(None, "d-cookie", SESSION, None, None, True, "", "cookie")
    assert ours.short_ids == 1
    [(event, facts)] = notes.said
    assert event == "identity.short"
    assert "min_id_length" in str(facts["cure"])
    assert "minIdLength" in str(facts["cure"])
    assert resolver(min_id_length=2).resolve({}, request(42)).user_id == "42"


def test_a_long_id_is_hashed() -> None:
    """Amplitude cuts at 1,024 characters, and two people with one beginning would become one."""
    one, two = clean_id("x" * 1025 + "a"), clean_id("x" * 1025 + "b")
    assert one != two
    assert len(one or "") == 64
    assert clean_id(" " + "x" * 1024 + " ") == "x" * 1024


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "None",
        "NULL",
        "undefined",
        " anonymous ",
        "0",
        "-1",
        0,
        -1,
        True,
        1.5,
        None,
        [],
        {},
        b"u-12345",
        "[REDACTED]",
        "u\n12345",
        "u\x00",
        "00000000-0000-0000-0000-000000000000",
        "0000000000",
        "0-0",
        "u\u2028x",
        chr(0xD800) + "abcde",
        2**128,
        ["[REDACTED]"],
        object(),
    ],
)
def test_what_is_no_id(value: object) -> None:
    """Values that languages print for nothing, placeholders, control characters and other types name nobody."""
    assert clean_id(value) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [("u-12345", "u-12345"), (" zoë@example.com ", "zoë@example.com"), (42, "42"), (["d-1", "d-2"], "d-1"), ("0012", "0012")],
)
def test_what_is_an_id(value: object, expected: str) -> None:
    """Text is trimmed and kept as it is; whole numbers become text; of a captured header's values the first counts."""
    assert clean_id(value) == expected


def test_an_id_with_an_odd_but_honest_space() -> None:
    """A no-break space is not printable for Python, and no control character."""
    assert clean_id("Zoë\u00a0Example") == "Zoë\u00a0Example"


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=30),
    st.binary(max_size=5),
    st.lists(st.text(max_size=9), max_size=2),
)
names = st.sampled_from(
    [
        "amplitude.user_id",
        "amplitude.device_id",
        "amplitude.session_id",
        "user.id",
        "enduser.id",
        "device.id",
        "session.id",
        "http.route",
        "http.request.header.cookie",
        "http.request.header.x_device_id",
        "http.request.header.sec_gpc",
    ]
)
items = st.dictionaries(names, values, max_size=6)


@given(items, items, st.tuples(values, values, values), st.text(max_size=50), st.none() | st.just("gpc"))
def test_any_input_gives_ids_amplitude_takes_or_a_reason(
    item: dict[str, Any], parent: dict[str, Any], known: tuple[Any, Any, Any], cookie: str, consent: str | None
) -> None:
    """Whatever is recorded, set or sent, ids are text of the right length, or there is a refusal."""
    scope, above = RequestScope(), Parent()
    above.attributes = parent
    scope.learn(user_id=known[0], device_id=known[1], session_id=known[2])
    scope.cookie = cookie
    identity = resolver(identity_headers={"device": "x-device-id"}, consent=consent).resolve(item, scope, [above])
    for text in (identity.user_id, identity.device_id):
        assert text is None or (5 <= len(text) <= 1024 and text == text.strip())
    assert (identity.user_id or identity.device_id) if identity.refusal is None else identity[:2] == (None, None)
    assert identity.session_id is None or identity.session_id == -1 or identity.session_id > 9e11


explicit = st.sampled_from(["amplitude.user_id", "amplitude.device_id", "amplitude.session_id"])
ids = values | st.sampled_from(["u-12345", "user-0000000001", "u-1", " u-1234567890", "00000000-0000-0000-0000-000000000000", SESSION, -1])


@given(st.dictionaries(explicit, ids), st.tuples(ids, ids, ids), st.booleans(), st.none() | st.just("user-{id}"))
def test_the_short_way_and_the_long_way_agree(item: dict[str, Any], known: tuple[Any, Any, Any], anonymous: bool, form: str | None) -> None:
    """Where only attributes of ours and set_user name anybody, the quick decision is the one that all sources would give."""
    ours, scope = resolver(user_id_format=form), RequestScope()
    scope.learn(user_id=known[0], device_id=known[1], session_id=known[2], anonymous=anonymous)
    short = ours.resolve(item, scope)
    told = ours.short_ids
    assert short == ours._decide([item], scope, NOW)[0]
    assert ours.short_ids == 2 * told


told = st.none() | ids
texts = st.sampled_from(["user-0000000001", "d-1234567890", "u-1", " u-1234567890", "undefined", "", "0-0-0-0-0-0-0-0"])
moments = st.sampled_from([SESSION, NOW, NOW - 29 * 60_000, NOW - 31 * 60_000, 7])


@given(
    st.tuples(told, told, told),
    st.booleans(),
    texts,
    st.none() | texts,
    st.none() | moments,
    moments,
    st.sampled_from([False, False, True]),
)
def test_the_short_way_beside_a_cookie_agrees(
    known: tuple[Any, Any, Any], anonymous: bool, device: str, user: str | None, session: int | None, last: int, out: bool
) -> None:
    """Where set_user and the browser's cookie name somebody, the quick decision is the one that all sources would give."""
    ours, scope = resolver(), RequestScope()
    scope.learn(user_id=known[0], device_id=known[1], session_id=known[2], anonymous=anonymous)
    scope.cookie = make_cookie(KEY, device, user, session, last_event_ms=last, opt_out=out)
    assert ours.resolve({}, scope) == ours._decide((), scope, NOW)[0]
    assert scope.decided is not None
    assert scope.decided[2] == ours._decide((), scope, NOW)[1]


def test_an_id_of_a_class_of_its_own_becomes_text() -> None:
    """Members of a text enumeration are written as plain text."""

    class Plan(str):
        __slots__ = ()

    assert type(clean_id(Plan("plan-0000001"))) is str


def test_remembered_and_fresh_decisions_agree() -> None:
    """A decision from memory is the one a new resolver would make."""
    chance = random.Random(7)
    ours = resolver()
    scope = request(cookie_user=None)
    for step in range(50):
        change = chance.choice(["user_id", "device_id", "session_id"])
        scope.learn(**{change: SESSION + step if change == "session_id" else f"id-{chance.randrange(3)}-{step}"})
        assert ours.resolve({}, scope) == ours.resolve({"k": 1}, scope) == resolver().resolve({}, scope)
