"""Every option, declared once: type, default, rule and help; read from arguments, the environment or a YAML mapping.

The fields of `Config` are the declaration. The table of docs/reference/options.md, `otel-amplitude doctor`, the reader of environment variables
and the reader of declarative files are all made from them. Durations are seconds, sizes are bytes.
"""

from __future__ import annotations

import importlib
import inspect
import ipaddress
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, MISSING, Field, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlsplit

from otel_amplitude import limits
from otel_amplitude.errors import ConfigurationError
from otel_amplitude.log import ENVIRONMENT_PREFIX as ENVIRONMENT_PREFIX
from otel_amplitude.log import LEVELS, hint

if TYPE_CHECKING:
    from otel_amplitude.delivery.retry import RetryPolicy
    from otel_amplitude.transport import Transport

API_KEY_FALLBACK: Final = "AMPLITUDE_API_KEY"
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")

# What can travel (RFC 9110, 5.1 and 5.5): anything else would be found out by the first request, and by each one after it.
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

Check = Callable[[Any], Any]


class _WrongError(Exception):
    """A value breaks the rule given as the message; becomes a ConfigurationError that also names option and cure."""


class _UnusableError(_WrongError):
    """A name leads nowhere; the message, which names it, is the whole story."""


# Checks. Each takes what a person, the environment or YAML gives, and gives the value to use or raises _WrongError(rule).


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _WrongError("must be a text that is not empty")
    return value.strip()


def _api_key(value: object) -> str:
    if not isinstance(value, str):
        raise _WrongError('must be text; in YAML, quote it ("${AMPLITUDE_API_KEY}"), else a key of digits arrives as a number')
    if not value.strip() or any(letter.isspace() or not letter.isprintable() for letter in value.strip()):
        raise _WrongError("must be the key of an Amplitude project (Settings, Projects), without spaces")
    return value.strip()


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in ("true", "false"):
        return word == "true"
    raise _WrongError("must be true or false")


def _flag_or_file(value: object) -> bool | str:
    try:
        return _flag(value)
    except _WrongError:
        if isinstance(value, str) and value.strip():
            return value.strip()
        raise _WrongError("must be true, false or the path of a file") from None


def _number(least: float, most: float, *, whole: bool = False) -> Check:
    kind = "a whole number" if whole else "a number"

    def check(value: object) -> float:
        rule = f"must be {kind} from {least:,} to {most:,}"
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise _WrongError(rule)
        try:
            number = int(value) if whole else float(value)
            is_exact = number == float(value)
        except (ValueError, OverflowError):
            raise _WrongError(rule) from None
        if (whole and not is_exact) or not least <= number <= most:
            raise _WrongError(rule)
        return number

    return check


def _choice(*choices: str) -> Check:
    by_word = {choice.lower(): choice for choice in choices}

    def check(value: object) -> str:
        found = by_word.get(str(value).strip().lower())
        if found is None:
            raise _WrongError(f"must be one of {', '.join(choices)}")
        return found

    return check


def _names(value: object) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, Sequence) or not all(isinstance(part, str) for part in parts):
        raise _WrongError("must be a list of texts, or one text with commas")
    return tuple(part.strip() for part in parts if part.strip())


def _pairs(value: object) -> dict[str, str]:
    if isinstance(value, str):
        split = [part.partition("=") for part in value.split(",") if part.strip()]
        if not all(name.strip() and equals for name, equals, _ in split):
            raise _WrongError("must look like name=value,name=value")
        return {name.strip(): text.strip() for name, _, text in split}
    if not isinstance(value, Mapping) or not all(isinstance(part, str) for pair in value.items() for part in pair):
        raise _WrongError("must be a mapping of texts to texts, or a text like name=value,name=value")
    return dict(value)


def _headers(value: object) -> dict[str, str]:
    pairs = {name: text.strip() for name, text in _pairs(value).items()}
    if not all(map(_HEADER_NAME.fullmatch, pairs)):
        raise _WrongError("must have names of letters, digits and dashes, as HTTP headers have")
    if not all(map(_HEADER_VALUE.fullmatch, pairs.values())):
        raise _WrongError("must have values in latin-1 without line breaks: write others as their sender expects, such as percent-encoded")
    return pairs


def _identity_headers(value: object) -> dict[str, str | tuple[str, Callable[..., Any]]]:
    from otel_amplitude.identity import read_identity_headers  # noqa: PLC0415 -- not every reader of options needs OpenTelemetry

    return {
        field: name if function is None else (name, _callable(function)) for field, (name, function) in read_identity_headers(value).items()
    }


def _user_id_format(value: object) -> str:
    text = _text(value)
    if text.count("{id}") != 1 or not text.isprintable():
        raise _WrongError("must be one line of text that contains {id} once, such as user-{id}")
    return text


def _ca_file(value: object) -> str:
    place = _text(os.fspath(value) if isinstance(value, os.PathLike) else value)
    if not os.access(place, os.R_OK):
        raise _WrongError("must be a readable file or directory of PEM certificates")
    return place


def _waits(value: object) -> tuple[float, ...]:
    parts = [part for part in value.split(",") if part.strip()] if isinstance(value, str) else value
    seconds = _number(0, 86_400)
    if not isinstance(parts, Sequence):
        raise _WrongError("must be a list of seconds")
    try:
        return tuple(seconds(part) for part in parts)
    except _WrongError:
        raise _WrongError("must be a list of seconds, each from 0 to 86,400") from None


def _url(value: object) -> str:
    text = _text(value)
    try:
        fine = _is_endpoint(text)
    except ValueError:  # brackets that do not match, a port that is no number, a host name with an empty part
        fine = False
    if not fine:
        raise _WrongError("must be a full http or https URL without user name, password, query and fragment")
    return text


def _is_endpoint(text: str) -> bool:
    parts = urlsplit(text)
    host = parts.hostname or ""
    if "[" in parts.netloc:
        ipaddress.IPv6Address(host)
    is_host = bool(host) and bool(host.rstrip(".").encode("idna"))
    is_place = parts.scheme in ("http", "https") and is_host and (parts.port is None or parts.port > 0)
    return is_place and not (parts.fragment or parts.query or "@" in parts.netloc or " " in text) and text.isprintable()


def load(name: str) -> Any:
    """Give the object that an import string such as `shop.analytics:redact` names.

    Raises:
        ConfigurationError: when there is no such module or name.
    """
    module, colon, path = name.strip().partition(":")
    if not colon or not module or not path:
        raise ConfigurationError(f"{name!r} must look like package.module:name")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise ConfigurationError(f"{name!r} can not be imported: {type(error).__name__}: {error}") from error
    return found


def _imported(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return load(value)
    except ConfigurationError as error:
        raise _UnusableError(str(error)) from error


def _made(value: object) -> object:
    """Where a class was named, its instance without arguments is meant."""
    if not isinstance(value, type):
        return value
    try:
        return value()
    except Exception as error:
        raise _WrongError(f"must be a class that can be made without arguments ({type(error).__name__}: {error})") from error


def _callable(value: object) -> Callable[..., Any]:
    value = _made(_imported(value))
    if not callable(value):
        raise _WrongError("must be a callable, or an import string such as shop.analytics:redact")
    # Not so an object whose class is async somewhere else: its __call__ is what would run.
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__):
        raise _WrongError("must be a plain function: an async one would never run, since its caller can not wait")
    return value


def _callables(value: object) -> tuple[Callable[..., Any], ...]:
    if isinstance(value, str):
        value = _names(value)
    if not isinstance(value, Sequence):
        raise _WrongError("must be a list of callables or import strings")
    return tuple(_callable(part) for part in value)


def _either(check: Check, otherwise: Check) -> Check:
    """A fixed word, or a callable."""

    def checked(value: object) -> Any:
        if isinstance(value, str) and ":" not in value:
            return check(value)
        return otherwise(value)

    return checked


def _like(*methods: str) -> Check:
    def check(value: object) -> object:
        value = _made(_imported(value))
        if not all(callable(getattr(value, method, None)) for method in methods):
            raise _WrongError(f"must be an object with the methods {', '.join(methods)}")
        return value

    return check


def _option(check: Check, default: Any, help: str, *, node: str = "", cure: str = "", environment: bool = True) -> Any:
    return field(default=default, metadata={"check": check, "help": help, "node": node, "cure": cure, "environment": environment})


_DAY: Final = 86_400.0
_KIB: Final = 1024


@dataclass(frozen=True, repr=False)
class Config:
    """The options of one client; immutable, checked when made, and safe to print.

    Raises:
        ConfigurationError: when a value breaks its rule; the message names option, value, rule and cure.
    """

    api_key: str = _option(_api_key, "", "The key of the Amplitude project.", node="apiKey")
    _: KW_ONLY
    name: str = _option(_text, "default", "The name under which `get_instance` finds the client.", environment=False)

    # where to
    server_zone: Literal["US", "EU"] = _option(_choice("US", "EU"), "US", "The region of the project: US or EU.", node="serverZone")
    use_batch: bool = _option(_flag, False, "Send to the batch endpoint: larger requests, later visible.", node="useBatch")
    server_url: str | None = _option(_url, None, "A full URL to send to instead, for a proxy or the sandbox.", node="serverUrl")
    headers: Mapping[str, str] | None = _option(_headers, None, "Extra headers for every request, as name=value,name=value.")
    compression: Literal["auto", "gzip", "none"] = _option(
        _choice("auto", "gzip", "none"), "auto", "gzip for Amplitude's own hosts above 2 KB (auto), always, or never."
    )
    ca_file: str | None = _option(_ca_file, None, "A file of certificates to trust instead of the usual ones.")
    allow_insecure_http: bool = _option(_flag, False, "Allow plain http to a host that is not loopback.")

    # how
    upload_interval: float = _option(_number(0, 3600), 1.0, "How long an event may wait for company.", node="uploadIntervalInSec")
    max_batch_events: int = _option(
        _number(1, limits.MAX_REQUEST_EVENTS, whole=True),
        1_000,
        "Events in one request.",
        node="eventUploadThreshold",
        cure="Amplitude refuses more than 2,000",
    )
    max_batch_bytes: int = _option(
        _number(_KIB, limits.MAX_BATCH_REQUEST_BYTES, whole=True),
        900_000,
        "Bytes in one request before compression.",
        cure="Amplitude takes 1 MB, on its batch endpoint 20 MB",
    )
    max_cached_events: int = _option(
        _number(1, 10_000_000, whole=True), 16_000, "Events held in memory; when full the newest is refused.", node="maxCachedEvents"
    )
    max_cached_bytes: int = _option(_number(64 * _KIB, 16 * _KIB**3, whole=True), 16 * _KIB**2, "Bytes of events held in memory.")
    retry_timeouts: Sequence[float] | None = _option(
        _waits,
        None,
        "Exact waits between attempts, then the event is dropped; empty: no retry. None: exponential, 0.5 s to 60 s.",
        node="retryTimeouts",
    )
    max_event_age: float = _option(
        _number(1, limits.MAX_EVENT_AGE),
        2 * _DAY,
        "Older events are dropped.",
        cure="Amplitude forgets an insert_id after 7 days, so older resends would be counted twice",
    )
    request_timeout: float = _option(_number(0.01, 600), 10.0, "The total time of one attempt.", node="requestTimeoutMillis")
    shutdown_timeout: float = _option(_number(0, 600), 5.0, "The bound for everything at exit.")
    max_in_flight: int = _option(_number(1, 64, whole=True), 4, "Requests at once while a backlog exists; one user's stay in order.")
    min_id_length: int | None = _option(
        _number(1, 1024, whole=True), None, "The shortest id to accept, here and at Amplitude; its own rule is 5.", node="minIdLength"
    )
    plan: Mapping[str, str] | None = _option(_pairs, None, "Tracking plan of each event: branch, source, version.", node="plan")
    ingestion_metadata: Mapping[str, str] | None = _option(
        _pairs, None, "Who sends: source_name, source_version.", node="ingestionMetadata"
    )
    opt_out: bool = _option(
        _flag, False, "Accept nothing new (what was accepted before is still sent); can be switched at run time.", node="optOut"
    )
    retry: RetryPolicy | None = _option(_like("wait"), None, "An own retry policy.", node="retryClass")
    transport: Transport | None = _option(_like("send", "close"), None, "An own transport.", node="transportClass")
    on_retry: Callable[[Any, int, bool], None] | None = _option(
        _callable, None, "Called with (response, attempt_number, is_last_retry) when a batch will be sent again.", node="onRetry"
    )
    on_result: Callable[[Any], None] | None = _option(_callable, None, "Called once for each event that is settled.")
    middleware: Sequence[Callable[..., Any]] = _option(
        _callables, (), "Callables (payload, next), or import strings, run in this order.", node="addEventMiddleware"
    )

    # on disk
    spool_dir: str | None = _option(
        _text, None, "A private folder: every event is on disk before it counts as accepted. Without it, events are in memory only."
    )
    max_spool_bytes: int = _option(
        _number(8 * _KIB**2, _KIB**4, whole=True), 64 * _KIB**2, "Bytes on disk of all processes and projects that share `spool_dir`."
    )

    # which events
    select: Literal["default", "annotated"] | Callable[..., Any] = _option(
        _either(_choice("default", "annotated"), _callable), "default", "Which spans become events: default, annotated, or a callable."
    )
    rules: str | None = _option(_text, None, "A rules file (TOML) that names, shapes and drops events.")
    methods: Sequence[str] | None = _option(_names, None, "HTTP methods that may become automatic events; None: all but HEAD and OPTIONS.")
    exclude: Sequence[str] | None = _option(
        _names, None, "Routes (globs) that never become automatic events; None: probes and static files."
    )
    event_name: Literal["route"] | Callable[..., Any] | None = _option(
        _either(_choice("route"), _callable), None, "Names of automatic events: None is `HTTP Request`, `route` is `POST /orders`."
    )
    max_event_types: int = _option(_number(1, 2_000, whole=True), 500, "Generated names in one process; further ones are `(other)`.")
    auto_events_per_minute: int = _option(_number(0, 1_000_000, whole=True), 60, "Automatic events of one id a minute; 0: no cap.")
    exposures: bool = _option(_flag, False, "Turn feature flag evaluations into `$exposure` events.")
    environments: Sequence[str] | None = _option(_names, None, "Only these values of deployment.environment.name send; None: all.")
    dry_run: bool | str = _option(
        _flag_or_file, False, "Do everything but send: true, or a file to which the events are written (JSON lines) for the catalog."
    )

    # what is in them
    properties: Sequence[str] | None = _option(_names, None, "More span attributes (globs) to take as event properties.")
    resource_properties: Sequence[str] | None = _option(_names, None, "Resource attributes (globs) to take as event properties.")
    span_events: bool = _option(_flag, False, "Look for annotated span events on every span, not only on chosen ones.")
    client_ip: int | None = _option(
        _number(0, 100, whole=True), None, "Send the client's address, behind so many trusted proxies; None: never."
    )

    # who it was
    identity_headers: Mapping[str, str | tuple[str, str | Callable[[str], str | None]]] | None = _option(
        _identity_headers,
        None,
        "Headers that carry ids: device=x-device-id,session=x-session-id; user=… trusts the sender; user=authorization:shop.auth:user_of "
        "has a function make the id of the value.",
    )
    user_id_format: str | None = _option(_user_id_format, None, "How a server id becomes a user_id, such as user-{id}.")
    consent: Literal["gpc"] | Callable[..., Any] | None = _option(
        _either(_choice("gpc"), _callable), None, "gpc honours Sec-GPC; a callable decides for each request."
    )
    anonymous: Literal["drop"] | Callable[..., Any] = _option(
        _either(_choice("drop"), _callable), "drop", "What to do without an identity: drop, or a callable that supplies ids."
    )

    # what is said
    debug: bool = _option(_flag, False, "Means log_level VERBOSE, to stderr when the application has no log handler.", node="debug")
    log_level: Literal["NONE", "ERROR", "WARN", "VERBOSE"] = _option(
        _choice(*LEVELS), "WARN", "NONE, ERROR, WARN or VERBOSE.", node="logLevel"
    )
    flush_on_sigterm: bool | None = _option(
        _flag, None, "Flush on SIGTERM, before the default action or beside the handler of the application; None: only under zero code."
    )
    strict: bool = _option(_flag, False, "Raise on bad events instead of counting them; for tests.")

    def __post_init__(self) -> None:
        for option in options():
            value = getattr(self, option.name)
            if value is not None and value is not option.default:
                object.__setattr__(self, option.name, checked(option.name, value))
        self._check_together()

    def _check_together(self) -> None:
        if not self.api_key:
            raise ConfigurationError(
                "api_key is missing: Amplitude needs the key of your project (Settings, Projects); "
                f"set {ENVIRONMENT_PREFIX}API_KEY or pass api_key"
            )
        if self.debug:
            object.__setattr__(self, "log_level", "VERBOSE")
        host, scheme = urlsplit(self.endpoint).hostname, urlsplit(self.endpoint).scheme
        if scheme == "http" and host not in _LOOPBACK and not self.allow_insecure_http:
            raise ConfigurationError(
                f"server_url must be https, not {self.endpoint!r}: the key and the events would travel in plain text; "
                f"use https, or set {ENVIRONMENT_PREFIX}ALLOW_INSECURE_HTTP=true"
            )
        if not self.batch_endpoint and self.server_url is None and self.max_batch_bytes > limits.MAX_REQUEST_BYTES:
            raise ConfigurationError(
                f"max_batch_bytes must be at most {limits.MAX_REQUEST_BYTES:,} on this endpoint, not {self.max_batch_bytes:,}; set use_batch"
            )

    @property
    def endpoint(self) -> str:
        """The URL that events are sent to."""
        return self.server_url or limits.ENDPOINTS[self.server_zone, self.use_batch]

    @property
    def batch_endpoint(self) -> bool:
        """Whether the rules of the batch endpoint hold: its size and its pause."""
        return self.use_batch or urlsplit(self.endpoint).path.endswith("/batch")

    def __repr__(self) -> str:
        changed = (option.name for option in options() if getattr(self, option.name) != option.default and option.name not in _SECRET)
        shown = [f"api_key={hint(self.api_key)!r}", *(f"{name}={getattr(self, name)!r}" for name in changed)]
        return f"Config({', '.join(shown)})"

    @classmethod
    def load(cls, given: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Config:
        """Make the options from what was given, and from the environment for what was not.

        Args:
            given: option names and values; None counts as not given.
            environ: the environment; default `os.environ`. An empty variable counts as not set
                (OpenTelemetry, configuration/sdk-environment-variables.md).

        Raises:
            ConfigurationError: for an unknown option or a value that breaks its rule.
        """
        known = {option.name for option in options()}
        for name in given:
            if name not in known:
                raise ConfigurationError(
                    f"{name!r} is no option of otel_amplitude{_nearest(name, known)}; options: {', '.join(sorted(known))}"
                )
        values: dict[str, Any] = {**environment_values(os.environ if environ is None else environ)}
        values.update({name: value for name, value in given.items() if value is not None})
        return cls(**values)


# Extra headers may carry credentials of a proxy.
_SECRET: Final = ("api_key", "headers")


def options() -> tuple[Field[Any], ...]:
    """Every option as a dataclass field; its `metadata` has `check`, `help`, `node`, `cure`, `environment`."""
    return fields(Config)


def environment_variable(option: Field[Any]) -> str:
    """The environment variable of an option, such as `OTEL_EXPORTER_AMPLITUDE_SERVER_ZONE`; empty when it has none."""
    return ENVIRONMENT_PREFIX + option.name.upper() if option.metadata["environment"] else ""


def environment_values(environ: Mapping[str, str]) -> dict[str, str]:
    """The options that the environment sets, as text; the key may also stand in `AMPLITUDE_API_KEY`."""
    found = {option.name: environ.get(environment_variable(option), "").strip() for option in options() if option.metadata["environment"]}
    found["api_key"] = found["api_key"] or environ.get(API_KEY_FALLBACK, "").strip()
    return {name: value for name, value in found.items() if value}


def misspelt(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables with our prefix that no option has, each with the nearest that one has; empty where none is near."""
    known = {environment_variable(option) for option in options()}
    return {name: _near(name, known) for name in sorted(environ) if name.startswith(ENVIRONMENT_PREFIX) and name not in known}


def checked(name: str, value: object) -> Any:
    """Give `value` as the option `name` takes it. The one place where an option is checked.

    Raises:
        ConfigurationError: when it breaks the option's rule.
    """
    option = Config.__dataclass_fields__[name]
    try:
        return option.metadata["check"](value)
    except _WrongError as rule:
        shown = hint(str(value)) if option.name in _SECRET else repr(value)
        but = "" if isinstance(rule, _UnusableError) else f", not {shown[:200]}"
        raise ConfigurationError(f"{option.name} {rule}{but}{_cure(option)}") from rule.__cause__


def _cure(option: Field[Any]) -> str:
    because = f": {option.metadata['cure']}" if option.metadata["cure"] else ""
    variable = environment_variable(option)
    return f"{because}; set {variable} or pass {option.name}" if variable else because


def _nearest(name: str, known: set[str]) -> str:
    near = _near(name, known)
    return f" (did you mean {near}?)" if near else ""


def _near(name: str, known: set[str]) -> str:
    import difflib  # noqa: PLC0415 -- only on the way to an error

    return next(iter(difflib.get_close_matches(name, sorted(known), n=1)), "")


def rows() -> Iterator[tuple[str, str, str, str, str]]:
    """The table of options: name, default, environment variable, name in `@amplitude/node`, help."""
    for option in options():
        default = "" if option.default in (MISSING, None, "", ()) else str(option.default)
        yield option.name, default, environment_variable(option), option.metadata["node"], option.metadata["help"]
