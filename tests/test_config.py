"""Options: declared once, read from arguments and environment, checked with messages that cure."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from otel_amplitude.client import Amplitude
from otel_amplitude.config import Config, environment_values, environment_variable, options, rows
from otel_amplitude.errors import ConfigurationError

KEY = "0123456789abcdef0123456789abcdef"
BY_NAME = {option.name: option for option in options()}


def load(**given: object) -> Config:
    return Config.load({"api_key": KEY, **given}, {})


async def asynchronous(*_: object) -> None:
    """Never run."""


class Asynchronous:
    async def __call__(self, *_: object) -> None:
        """Never run."""


WRONG = [
    ("server_zone", "Asia", "must be one of US, EU"),
    ("upload_interval", -1, "must be a number from 0 to 3,600"),
    ("upload_interval", "soon", "must be a number"),
    ("upload_interval", float("nan"), "must be a number"),
    ("upload_interval", True, "must be a number"),
    ("max_batch_events", 2001, "from 1 to 2,000"),
    ("max_batch_events", 1.5, "must be a whole number"),
    ("max_event_age", 7 * 86_400, "forgets an insert_id after 7 days"),
    ("debug", "yes", "must be true or false"),
    ("headers", "no equals sign", "must look like name=value"),
    ("headers", {"X-A": "a\r\nX-B: b"}, "without line breaks"),
    ("headers", {"X-Team": "Zürich → Bern"}, "values in latin-1"),
    ("headers", "X-Team=Zürich → Bern", "percent-encoded"),
    ("headers", {"x team": "a"}, "names of letters, digits and dashes"),
    ("headers", {"": "a"}, "names of letters"),
    ("identity_headers", "cookie=x", "must map device, session or user to a header name, not cookie=x"),
    (
        "identity_headers",
        {"user": "bad header!"},
        "not user=bad header!: write OTEL_EXPORTER_AMPLITUDE_IDENTITY_HEADERS=device=x-device-id",
    ),
    ("retry_timeouts", "1,soon", "must be a list of seconds"),
    ("retry_timeouts", 5, "must be a list of seconds"),
    ("server_url", "api2.amplitude.com", "must be a full http or https URL"),
    ("server_url", "https://user:secret@example.com/", "without user name"),
    ("server_url", "https://example.com/#part", "fragment"),
    ("server_url", "https://example.com:port/", "must be a full"),
    ("server_url", "https://[::1", "must be a full http or https URL"),
    ("server_url", "https://[zz]/x", "must be a full http or https URL"),
    ("server_url", "https://proxy..example/x", "must be a full http or https URL"),
    ("server_url", "http://example.com/2/httpapi", "must be https"),
    ("ca_file", "absent.pem", "must be a readable file or directory of PEM certificates, not 'absent.pem'"),
    ("middleware", "nowhere.at:all", "can not be imported"),
    ("middleware", 5, "must be a list of callables"),
    ("middleware", [5], "must be a callable"),
    ("transport", object(), "must be an object with the methods send, close"),
    ("retry", object(), "must be an object with the methods wait"),
    ("select", "everything", "must be one of default, annotated"),
    ("consent", "always", "must be one of gpc"),
    ("user_id_format", "user", "must be one line of text that contains {id} once, such as user-{id}, not 'user'"),
    ("user_id_format", "{id}-{id}", "contains {id} once"),
    ("user_id_format", "a\n{id}", "one line of text"),
    ("max_batch_events", 10**400, "must be a whole number from 1 to 2,000"),
    ("middleware", [Asynchronous()], "an async one would never run"),
    ("consent", asynchronous, "an async one would never run"),
    ("plan", ["a"], "must be a mapping of texts"),
    ("log_level", "LOUD", "must be one of NONE, ERROR, WARN, VERBOSE"),
    ("api_key", 15, "quote it"),
    ("api_key", "has space", "without spaces"),
    ("max_batch_bytes", 2_000_000, "set use_batch"),
]


@pytest.mark.parametrize(("name", "value", "rule"), WRONG)
def test_a_wrong_value_is_refused_with_option_rule_and_value(name: str, value: object, rule: str) -> None:
    """The message names the option and the rule."""
    with pytest.raises(ConfigurationError, match=re.escape(rule)) as raised:
        load(**{name: value})
    assert str(raised.value).startswith(name)
    assert f"OTEL_EXPORTER_AMPLITUDE_{name.upper()}" in str(raised.value) or name in ("server_url", "max_batch_bytes")


def test_a_refusal_names_the_environment_variable_as_cure() -> None:
    """Zero-code users set variables, not arguments."""
    with pytest.raises(ConfigurationError, match="set OTEL_EXPORTER_AMPLITUDE_MAX_BATCH_EVENTS or pass max_batch_events"):
        load(max_batch_events=0)


def test_a_name_that_leads_nowhere_is_told_in_one_sentence() -> None:
    """What was named, what came of it, where it is set."""
    with pytest.raises(ConfigurationError) as raised:
        load(middleware="tests.nowhere_at:all")
    assert re.fullmatch(
        r"middleware 'tests\.nowhere_at:all' can not be imported: ModuleNotFoundError: No module named '[\w.]+'; "
        "set OTEL_EXPORTER_AMPLITUDE_MIDDLEWARE or pass middleware",
        str(raised.value),
    )


def test_headers_that_can_travel_are_taken() -> None:
    """Any value that HTTP can carry, without the space around it, which it can not."""
    assert load(headers={"X-Team": " Zürich & Bern ", "x_1": ""}).headers == {"X-Team": "Zürich & Bern", "x_1": ""}


def test_an_unknown_option_is_refused_with_the_nearest_name() -> None:
    """A typing error must not be silent."""
    with pytest.raises(ConfigurationError, match=re.escape("did you mean upload_interval?")):
        load(upload_intervall=3)


def test_without_a_key_the_message_says_where_to_find_one() -> None:
    """The commonest first error."""
    with pytest.raises(ConfigurationError, match="api_key is missing.*OTEL_EXPORTER_AMPLITUDE_API_KEY"):
        Config.load({}, {})


def test_the_environment_fills_what_is_not_given() -> None:
    """Arguments win over variables, variables over defaults; an empty variable counts as not set."""
    environ = {
        "OTEL_EXPORTER_AMPLITUDE_API_KEY": KEY,
        "OTEL_EXPORTER_AMPLITUDE_SERVER_ZONE": "eu",
        "OTEL_EXPORTER_AMPLITUDE_UPLOAD_INTERVAL": "2.5",
        "OTEL_EXPORTER_AMPLITUDE_USE_BATCH": "true",
        "OTEL_EXPORTER_AMPLITUDE_RETRY_TIMEOUTS": "0.1, 0.2",
        "OTEL_EXPORTER_AMPLITUDE_IDENTITY_HEADERS": "device=X-Device-Id",
        "OTEL_EXPORTER_AMPLITUDE_MIN_ID_LENGTH": "",
    }
    config = Config.load({"upload_interval": 0, "api_key": None}, environ)
    assert (config.api_key, config.server_zone, config.upload_interval) == (KEY, "EU", 0)
    assert config.endpoint == "https://api.eu.amplitude.com/batch"
    assert config.retry_timeouts == (0.1, 0.2)
    assert config.identity_headers == {"device": "x-device-id"}
    assert config.min_id_length is None


def test_the_key_may_stand_in_amplitudes_own_variable() -> None:
    """AMPLITUDE_API_KEY is what other tools read."""
    assert Config.load({}, {"AMPLITUDE_API_KEY": KEY}).api_key == KEY
    both = {"AMPLITUDE_API_KEY": "another-key", "OTEL_EXPORTER_AMPLITUDE_API_KEY": KEY}
    assert Config.load({}, both).api_key == KEY


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ({}, "https://api2.amplitude.com/2/httpapi"),
        ({"use_batch": True}, "https://api2.amplitude.com/batch"),
        ({"server_zone": "EU"}, "https://api.eu.amplitude.com/2/httpapi"),
        ({"server_zone": "EU", "server_url": "http://127.0.0.1:8000/x"}, "http://127.0.0.1:8000/x"),
    ],
)
def test_region_and_endpoint(given: dict[str, object], endpoint: str) -> None:
    """One setting for each; a full URL overrides both."""
    assert load(**given).endpoint == endpoint


def test_the_batch_endpoint_is_also_known_by_its_path() -> None:
    """A proxy in front of /batch has its pause and its size."""
    assert load(server_url="https://proxy.example/amplitude/batch").batch_endpoint
    assert not load().batch_endpoint


def test_debug_means_verbose() -> None:
    """As in the Node SDK."""
    assert load(debug=True, log_level="ERROR").log_level == "VERBOSE"


def test_callables_may_be_named() -> None:
    """Zero-code users have middleware too."""
    assert load(middleware="builtins:print,pprint:pprint").middleware[0] is print
    assert load(middleware=[print]).middleware == (print,)


def test_the_secret_is_never_shown() -> None:
    """Neither by repr nor by an error about it."""
    config = load(headers={"Proxy-Authorization": "Basic c2VjcmV0"})
    assert KEY not in repr(config)
    assert "c2VjcmV0" not in repr(config)
    assert "…cdef" in repr(config)
    with pytest.raises(ConfigurationError) as raised:
        load(api_key=KEY + " x")
    assert KEY not in str(raised.value)


def test_a_config_is_a_value() -> None:
    """Equal options are equal configs, which lets components share a client."""
    assert load(upload_interval=2) == load(upload_interval="2")
    assert load() != load(upload_interval=2)


def test_every_option_has_help_and_a_distinct_variable() -> None:
    """The table is made from the declaration."""
    table = list(rows())
    assert all(help.endswith(".") for *_, help in table)
    variables = [variable for _, _, variable, _, _ in table if variable]
    assert len(set(variables)) == len(variables) == len(table) - 1
    assert environment_variable(BY_NAME["name"]) == ""


# What people write into options: near misses of what each takes.
TEXTS = st.one_of(
    st.text(),
    st.from_regex(r"https?://[\[\]:.a-z0-9é@%-]{0,12}(:[0-9]{0,6})?(/[a-z?#]{0,5})?", fullmatch=True),
    st.from_regex(r"((user|device|mail)=[a-zA-Z! -]{0,6},?){0,2}", fullmatch=True),
    st.from_regex(r"[a-z-]{0,3}(\{id\}){0,3}\n?", fullmatch=True),
    st.sampled_from(
        ["default", "gpc", "drop", "route", "none", "VERBOSE", "true", "1", "1e3", "-0", "NaN", "builtins:print", "builtins:int"]
    ),
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    TEXTS,
    st.lists(TEXTS),
    st.dictionaries(st.one_of(TEXTS, st.sampled_from(["user", "device", "session"])), TEXTS),
)


@given(st.sampled_from(sorted(BY_NAME)), VALUES)
def test_an_option_that_config_takes_makes_a_client(name: str, value: object) -> None:
    """Each option is checked once, by `Config`: what it accepts is not refused later (files are opened by the client)."""
    assume(name not in ("rules", "spool_dir"))
    try:
        config = load(**{name: value})
    except ConfigurationError:
        return
    Amplitude(config).shutdown(0)


@given(
    st.sampled_from(sorted(BY_NAME)),
    st.one_of(
        TEXTS, st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.text()), st.dictionaries(st.text(), st.text())
    ),
)
def test_any_value_is_taken_or_refused_by_name(name: str, value: object) -> None:
    """No other exception than ours, whatever is given."""
    try:
        load(**{name: value})
    except ConfigurationError as error:
        assert str(error)


@given(st.dictionaries(st.sampled_from([environment_variable(option) for option in options() if environment_variable(option)]), st.text()))
def test_any_environment_is_taken_or_refused_by_name(environ: dict[str, str]) -> None:
    """The same for text alone."""
    assert set(environment_values(environ)) <= set(BY_NAME)
    try:
        Config.load({"api_key": KEY}, environ)
    except ConfigurationError as error:
        assert str(error)
