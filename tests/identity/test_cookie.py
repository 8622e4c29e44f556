"""The browser's cookies: read as Amplitude's SDKs write them, and never an exception whatever a client sends."""

from __future__ import annotations

import time
from base64 import b64encode
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_amplitude.identity._cookie import BrowserCookie, make_cookie, only_amplitude, read_cookie
from otel_amplitude.moments import session_ms

KEY = "0123456789abcdef0123456789abcdef"
SESSION, LAST = 1_795_305_600_000, 1_795_305_661_234
CURRENT = (
    "JTdCJTIyZGV2aWNlSWQlMjIlM0ElMjJiN2YwYzFkZS00YTUyLTRlMGItOWMzZC0yZjFhN2U1ZDZjODAlMjIlMkMlMjJ1c2VySWQlMjIlM0ElMjJ6byVDMyVBQiU0MGV4YW1w"
    "bGUuY29tJTIyJTJDJTIyc2Vzc2lvbklkJTIyJTNBMTc5NTMwNTYwMDAwMCUyQyUyMm9wdE91dCUyMiUzQWZhbHNlJTJDJTIybGFzdEV2ZW50VGltZSUyMiUzQTE3OTUzMDU2"
    "NjEyMzQlMkMlMjJsYXN0RXZlbnRJZCUyMiUzQTE3JTJDJTIycGFnZUNvdW50ZXIlMjIlM0EzJTJDJTIyY29va2llRG9tYWluJTIyJTNBJTIyLmV4YW1wbGUuY29tJTIyJTdE"
)
LEGACY = "L6ZWyAHn9A68xQzONi5rpn.em/Dq0BleGFtcGxlLmNvbQ==..1k808qt00.1k808sopi.h.2.j"
ZOE = BrowserCookie("b7f0c1de-4a52-4e0b-9c3d-2f1a7e5d6c80", "zoë@example.com", SESSION, LAST, opt_out=False)
OLD_ZOE = ZOE._replace(device_id="L6ZWyAHn9A68xQzONi5rpn")


def raw(json: str) -> str:
    """A current cookie that holds any text."""
    return "AMP_0123456789=" + b64encode(quote(json, safe="").encode()).decode()


@pytest.mark.parametrize(
    "value",
    [
        CURRENT,
        CURRENT.rstrip("="),
        quote(CURRENT, safe=""),
        quote(CURRENT + "=" * (-len(CURRENT) % 4), safe=""),
        f'"{CURRENT}"',
    ],
)
def test_reads_the_current_format(value: str) -> None:
    """The documented example is read, also without padding, encoded twice, or in quotes."""
    assert read_cookie(f"theme=dark; AMP_0123456789={value}; csrftoken=x", KEY) == ZOE


@pytest.mark.parametrize("name", ["amp_012345", "amp_012345_example.com"])
@pytest.mark.parametrize("value", [LEGACY, quote(LEGACY, safe=""), LEGACY.replace("=", "")])
def test_reads_the_legacy_format(name: str, value: str) -> None:
    """The documented example is read in base 32, whatever follows its name, encoded twice, or without padding."""
    assert read_cookie(f"{name}={value}", KEY) == OLD_ZOE


def test_the_legacy_opt_out_and_unset_numbers() -> None:
    """A 1 in third place is an opt-out, and 0 is no time."""
    assert read_cookie("amp_012345=dev-12..1.0.0.0.0.0", KEY) == BrowserCookie("dev-12", None, None, None, opt_out=True)


def test_prefers_the_current_format() -> None:
    """A site that upgraded has both, and the legacy one is stale."""
    assert read_cookie(f"amp_012345={LEGACY}; AMP_0123456789={CURRENT}", KEY) == ZOE


def test_falls_back_when_the_current_one_is_damaged() -> None:
    """A current cookie that can not be read hides nothing."""
    assert read_cookie(f"AMP_0123456789=!!; amp_012345={LEGACY}", KEY) == OLD_ZOE


def test_of_one_name_the_latest_counts_and_any_opt_out() -> None:
    """Two domains wrote one name: the last event decides who it is, an opt-out in either is an opt-out."""
    old = make_cookie(KEY, "old-device", "old-user", SESSION, last_event_ms=LAST - 1, opt_out=True)
    new = make_cookie(KEY, "new-device", "new-user", SESSION, last_event_ms=LAST)
    assert (
        read_cookie(f"{old}; {new}", KEY)
        == read_cookie(f"{new}; {old}", KEY)
        == BrowserCookie("new-device", "new-user", SESSION, LAST, opt_out=True)
    )


def test_another_project_and_campaign_cookies_are_not_read() -> None:
    """Only the cookie of this key counts."""
    assert read_cookie(f"AMP_MKTG_0123456789={CURRENT}; AMP_999={CURRENT}; amp_9={LEGACY}", KEY) is None


@pytest.mark.parametrize(
    ("json", "expected"),
    [
        (
            '{"deviceId":5.5,"userId":["a"],"sessionId":"x","lastEventTime":true,"optOut":"false"}',
            BrowserCookie(None, None, None, None, opt_out=False),
        ),
        ('{"userId":12345678,"optOut":"true"}', BrowserCookie(None, "12345678", None, None, opt_out=True)),
        ('{"deviceId":"","sessionId":1e400}', None),
        ('{"sessionId":1795305600000.0,"lastEventTime":1.5,"optOut":true}', BrowserCookie(None, None, SESSION, None, opt_out=True)),
        ('{"sessionId":-1,"lastEventTime":99999999999999999999}', BrowserCookie(None, None, None, None, opt_out=False)),
        ("[1]", None),
        ("null", None),
        ("[" * 3000, None),
        ("{", None),
    ],
)
def test_checks_every_type(json: str, expected: BrowserCookie | None) -> None:
    """What is not of its type is not there, and what is no object is no cookie."""
    assert read_cookie(raw(json), KEY) == expected


@pytest.mark.parametrize("value", ["", "=", "%", "%zz", "ä", "\ud800", "JTdC", "a" * 13_000, "a.b.c", "a.%.c.d.e", "a..\u0661.0.0"])
@pytest.mark.parametrize("name", ["AMP_0123456789", "amp_012345"])
def test_damage_is_no_cookie(name: str, value: str) -> None:
    """A value that nobody's SDK wrote gives no identity and no exception."""
    cookie = read_cookie(f"{name}={value}", KEY)
    assert cookie is None or (cookie.user_id, cookie.session_id) == (None, None)


@given(st.text(max_size=300), st.text(max_size=40))
def test_never_raises(header: str, key: str) -> None:
    """Any header and any key give a cookie or None."""
    for text in (header, f"AMP_{key[:10]}={header}", f"amp_{key[:6]}={header}", raw(header)):
        read_cookie(text, key)
        read_cookie(text, KEY)


ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)
moments = st.integers(946_684_800_000, 4_102_444_800_000)


@given(ids, st.none() | ids, moments, moments, st.booleans())
def test_round_trip(device: str, user: str | None, session: int, last: int, opt_out: bool) -> None:
    """What make_cookie writes is read back, whatever the ids are, and is safe inside a header."""
    cookie = make_cookie(KEY, device, user, session, last_event_ms=last, opt_out=opt_out)
    assert read_cookie(f"a=b; {cookie}", KEY) == BrowserCookie(device, user, session, last, opt_out=opt_out)
    assert cookie.isascii()
    assert not set(cookie) & set(' ;,"\\')


def test_make_cookie_starts_a_session_now() -> None:
    """Without times the cookie is one of a visitor who is here."""
    now = time.time() * 1000
    cookie = read_cookie(make_cookie(KEY, "device-1"), KEY)
    assert cookie is not None
    assert cookie.user_id is None
    assert cookie.session_at(now) == cookie.session_id
    assert abs((cookie.session_id or 0) - now) < 10_000


@pytest.mark.parametrize(("minutes", "session"), [(0, SESSION), (30, SESSION), (30.1, None), (-5, SESSION)])
def test_a_session_ends_after_thirty_minutes(minutes: float, session: int | None) -> None:
    """The SDK's timeout decides, and a browser's clock that is ahead does no harm."""
    assert ZOE.session_at(LAST + minutes * 60_000) == session


def test_without_a_last_event_there_is_no_session() -> None:
    """A session of unknown age may be over."""
    assert ZOE._replace(last_event_ms=None).session_at(LAST) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (SESSION, SESSION),
        (str(SESSION), SESSION),
        (f" {SESSION} ", SESSION),
        (float(SESSION), SESSION),
        (SESSION * 1000, SESSION),
        (SESSION // 1000, SESSION),
    ]
    + [
        (odd, None)
        for odd in (
            0,
            -1,
            True,
            None,
            "",
            "abc",
            "\u0661" * 13,
            1.5,
            float("nan"),
            float("inf"),
            [SESSION],
            "4405822135632",
        )
    ],
)
def test_plausible_moments(value: object, expected: int | None) -> None:
    """Only a moment between 2000 and 2100 is one, whatever its unit; a legacy cookie read in base 36 would not be."""
    assert session_ms(value) == expected


def test_only_amplitude_keeps_no_other_cookie() -> None:
    """Session ids and tokens of the site do not travel."""
    assert only_amplitude(f"sessionid=secret; AMP_0123456789={CURRENT}; csrftoken=x; amp_012345={LEGACY}") == (
        f"AMP_0123456789={CURRENT}; amp_012345={LEGACY}"
    )


def test_reading_is_linear() -> None:
    """A header a hundred times as long costs about a hundred times as much, not ten thousand times."""

    def cost(size: int) -> float:
        headers = [f"AMP_0123456789={'%' * size}", "AMP_0123456789=;" * (size // 16), f"amp_012345={'.' * size}", ";" * size]
        return min(_timed(headers) for _ in range(5))

    assert cost(12_000) < 1_000 * max(cost(120), 2e-6)


def _timed(headers: list[str]) -> float:
    start = time.perf_counter()
    for header in headers:
        read_cookie(header, KEY)
    return time.perf_counter() - start


@pytest.mark.parametrize("pair", [f"AMP_0123456789={CURRENT}", f"amp_012345={LEGACY}", f"amp_012345_x={quote(LEGACY, safe='')}"])
@pytest.mark.parametrize("header", ["a=b,{}", "{},a=b", "a=b, {}, c=d; e=f", "a=b; {},c=d", "{};a=b"])
def test_several_headers_joined_by_a_server(header: str, pair: str) -> None:
    """WSGI servers write a comma between two Cookie headers, where a browser writes a semicolon."""
    expected = ZOE if pair.startswith("AMP_") else OLD_ZOE
    assert read_cookie(header.format(pair), KEY) == expected
    assert only_amplitude(header.format(pair)) == pair
