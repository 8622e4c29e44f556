"""What can be wrong with a set-up, as rows: each examination reads a `Setup` and gives findings; nothing here asks the network."""

from __future__ import annotations

import difflib
import errno
import os
import re
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from opentelemetry import environment_variables
from opentelemetry.sdk import environment_variables as sdk_environment_variables

from otel_amplitude.cli._declarative import VARIABLE as CONFIG_FILE
from otel_amplitude.cli._declarative import Declared
from otel_amplitude.cli._table import counted
from otel_amplitude.config import API_KEY_FALLBACK, ENVIRONMENT_PREFIX, Config, environment_variable, options
from otel_amplitude.config import misspelt as misspelt_variables
from otel_amplitude.convert._rules import load_rules
from otel_amplitude.convert._tables import EMITTED, EVENT_TYPE, FIELDS, IDENTITY_FIELDS, MAPS, SKIP
from otel_amplitude.delivery.disk.directory import check_root
from otel_amplitude.delivery.disk.inspect import inspect
from otel_amplitude.delivery.disk.spool import fingerprint
from otel_amplitude.errors import OtelAmplitudeError
from otel_amplitude.identity._cookie import read_cookie
from otel_amplitude.limits import ENDPOINTS, MIN_ID_LENGTH

Level = Literal["ok", "note", "doubt", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: `ok`; `note`: good to know; `doubt`: may be meant, may lose events; `fault`: events do not arrive, or more does than should.
        what: what is so.
        cure: what to do about it; empty when nothing is to be done.
    """

    level: Level
    what: str
    cure: str = ""


@dataclass(frozen=True)
class Setup:
    """Everything an examination reads.

    Attributes:
        environ: the environment of the application.
        config: the options; None when they are wrong.
        entry_points: names by group, such as `opentelemetry_traces_exporter`.
        packages: versions of the installed distributions, by name in lower case with dashes.
        source: the folder of the application, or None.
        sources: its files and texts.
        declared: what the file of `OTEL_CONFIG_FILE` says, or None. The SDK reads it in place of most variables.
        cookie: what a browser sends as `Cookie`, or empty.
    """

    environ: Mapping[str, str]
    config: Config | None
    entry_points: Mapping[str, frozenset[str]]
    packages: Mapping[str, str]
    source: Path | None = None
    sources: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    declared: Declared | None = None
    cookie: str = field(default="", repr=False)

    def words(self, variable: str) -> list[str]:
        """Give a list variable of the environment."""
        return [word.strip() for word in self.environ.get(variable, "").split(",") if word.strip()]

    def is_set(self, variable: str) -> bool:
        """Tell whether a flag of the environment is true."""
        return self.environ.get(variable, "").strip().lower() == "true"

    @property
    def program(self) -> tuple[tuple[str, str], ...]:
        """The sources that run or configure the server: all but pages and scripts for a browser."""
        return tuple((name, text) for name, text in self.sources if not name.endswith(WEB_SUFFIXES))

    def pip(self, package: str) -> str:
        """Give the command that installs an instrumentation, in the release that fits the installed ones."""
        version = self.packages.get("opentelemetry-distro")
        return f"pip install {package}{f'=={version}' if version else ''}"

    def install(self, framework: str) -> str:
        """Give the command that installs what a framework needs: distro, instrumentation, and that of logging, in releases that fit."""
        return f"pip install 'otel-amplitude[{framework}]'" if framework in EXTRAS else self.pip(FRAMEWORKS[framework])


WEB_SUFFIXES: Final = (".html", ".js", ".jsx", ".ts", ".tsx", ".mjs", ".vue", ".svelte", ".jinja", ".j2")
SIGNALS: Final = ("traces", "metrics", "logs")
Examination = Callable[[Setup], Iterator[Finding]]

# Web frameworks and workers of which OpenTelemetry has instrumentations; the first package means the framework.
FRAMEWORKS: Final = {
    **{
        name: f"opentelemetry-instrumentation-{name}"
        for name in ("flask", "django", "fastapi", "starlette", "tornado", "falcon", "pyramid")
    },
    "celery": "opentelemetry-instrumentation-celery",
    "aiohttp": "opentelemetry-instrumentation-aiohttp-server",
}
# The extras of this package that bring what a framework needs.
EXTRAS: Final = frozenset(FRAMEWORKS) - {"pyramid"}
# Frameworks that bring another one along.
_BROUGHT_BY: Final = {"starlette": "fastapi"}
_CAPTURE: Final = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST"
_SANITIZE: Final = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS"
_BUILT_IN_SAMPLERS: Final = (
    "always_on",
    "always_off",
    "parentbased_always_on",
    "parentbased_always_off",
    "traceidratio",
    "parentbased_traceidratio",
)
_AMPLITUDE_NAME: Final = re.compile(r"[\"'`](amplitude\.[A-Za-z_$][\w.$-]*)[\"'`]")
_OWN_WIRING: Final = re.compile(r"\botel_amplitude\b[\s\S]*\b(?:AmplitudeSpanProcessor|AmplitudeSpanExporter|configure)\b")


def key(setup: Setup) -> Iterator[Finding]:
    """The key looks like one, and the unknown options of the environment are told."""
    if setup.config is not None:
        shown = setup.config.api_key
        if re.fullmatch(r"[0-9a-f]{32}", shown):
            yield Finding("ok", f"api key …{shown[-4:]}")
        else:
            yield Finding(
                "doubt",
                f"the api key …{shown[-4:]} does not look like one of Amplitude's (32 hexadecimal digits)",
                "copy it from Amplitude, Settings, Projects (the API key, not the secret key); any key will do for a sandbox",
            )
        yield Finding("ok", f"events go to {setup.config.endpoint}")
        yield from _zone(setup.config)
        if urlsplit(setup.config.endpoint).hostname == "localhost":
            yield Finding(
                "note",
                "server_url names localhost: counters, and so why a request became no event, are posted to a literal address only",
                "write 127.0.0.1 in server_url to see them on the sandbox's page",
            )
        if setup.config.dry_run or setup.config.opt_out:
            yield Finding(
                "doubt", f"{'dry_run' if setup.config.dry_run else 'opt_out'} is set: nothing is sent", "take the option out to send"
            )


def _zone(config: Config) -> Iterator[Finding]:
    """A zone beside a full URL has no effect: the URL decides."""
    if config.server_url and config.server_zone != "US" and config.server_url not in ENDPOINTS.values():
        yield Finding(
            "doubt",
            f"server_zone={config.server_zone} has no effect, because server_url={config.server_url} decides where events go",
            "take one of the two out",
        )


def unknown_variables(setup: Setup) -> Iterator[Finding]:
    """A variable with our prefix that is no option is a typing mistake."""
    for name, near in misspelt_variables(setup.environ).items():
        yield Finding(
            "fault",
            f"{name} is no option",
            f"rename it to {near}" if near else "unset it; docs/reference/options.md has the table of options",
        )
    for name, right in _misspelt_standard(setup).items():
        yield Finding("fault", f"{name} is no variable of OpenTelemetry, so nothing reads it", f"rename it to {right}")


# Variables of OpenTelemetry without which no event is made, or fewer.
_STANDARD: Final = (
    *(f"OTEL_{signal.upper()}_EXPORTER" for signal in SIGNALS),
    *("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG", "OTEL_SERVICE_NAME", "OTEL_PROPAGATORS", CONFIG_FILE),
)


def _misspelt_standard(setup: Setup) -> dict[str, str]:
    """Give the variables that nothing reads and that are nearly one of OpenTelemetry's, with the right name."""
    known = {value for value in vars(environment_variables).values() if isinstance(value, str)}
    known |= {value for value in vars(sdk_environment_variables).values() if isinstance(value, str)}
    found = {}
    for name in setup.environ:
        if name.startswith("OTEL_") and name not in known and not name.startswith("OTEL_EXPORTER_"):
            near = difflib.get_close_matches(name, _STANDARD, n=1, cutoff=0.9)
            if near and near[0] not in setup.environ:
                found[name] = near[0]
    return found


def wiring(setup: Setup) -> Iterator[Finding]:
    """OpenTelemetry is told to use us, and finds every exporter that it is told to use."""
    if setup.is_set("OTEL_SDK_DISABLED"):
        yield Finding("fault", "OTEL_SDK_DISABLED=true: OpenTelemetry is off, so there are no spans", "unset OTEL_SDK_DISABLED")
    if "amplitude" in setup.words("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"):
        yield Finding("note", "the instrumentor amplitude is disabled; only declarative files need it")
    if setup.declared is not None:
        yield from _declared(setup, setup.declared)
        return
    # One cure for one variable: whoever follows a second one undoes the first.
    cured = {"OTEL_TRACES_EXPORTER"}
    if "amplitude" in setup.words("OTEL_TRACES_EXPORTER"):
        cured = set()
        yield Finding("ok", "OTEL_TRACES_EXPORTER names amplitude")
    elif any(_OWN_WIRING.search(text) for _, text in setup.program):
        cured = set() if setup.words("OTEL_TRACES_EXPORTER") else cured
        yield Finding("ok", f"the code in {setup.source} attaches otel_amplitude itself")
    elif "OTEL_TRACES_EXPORTER" not in _misspelt_standard(setup).values():
        now = setup.environ.get("OTEL_TRACES_EXPORTER") or "not set"
        yield Finding(
            "fault",
            f"nothing tells OpenTelemetry about Amplitude: OTEL_TRACES_EXPORTER is {now}",
            "set OTEL_TRACES_EXPORTER=amplitude (or amplitude,otlp), or call otel_amplitude.configure() in the application "
            "and show it to doctor with --source DIR",
        )
    yield from _exporters(setup, cured | set(_misspelt_standard(setup).values()))


def _declared(setup: Setup, declared: Declared) -> Iterator[Finding]:
    """A declarative file stands in place of the variables: it can be read, and names us."""
    if declared.problem:
        yield Finding(
            "fault",
            f"{CONFIG_FILE}={declared.path} can not be used: {declared.problem}",
            setup.pip("opentelemetry-configuration")
            if "is not installed" in declared.problem
            else f"correct the file, or unset {CONFIG_FILE}",
        )
    elif declared.options is None:
        yield Finding(
            "fault",
            f"{CONFIG_FILE}={declared.path} does not name Amplitude",
            "add the exporter amplitude to a processor of tracer_provider in the file; docs/guide/code.md shows one",
        )
    else:
        yield Finding("ok", f"{CONFIG_FILE}={declared.path} names amplitude")
    ignored = [name for name in _STANDARD if setup.environ.get(name) and name not in (CONFIG_FILE, "OTEL_SERVICE_NAME")]
    if ignored:
        yield Finding("note", f"{', '.join(ignored)}: not read beside {CONFIG_FILE}", "say it in the file")


def _exporters(setup: Setup, cured: Collection[str]) -> Iterator[Finding]:
    zero_code = "opentelemetry-distro" in setup.packages
    if "amplitude" in setup.words("OTEL_TRACES_EXPORTER") and not zero_code:
        yield Finding(
            "fault",
            "OTEL_TRACES_EXPORTER is read by opentelemetry-instrument, which is not installed",
            f"{_distro(setup)}, and start the application with otel-amplitude run; or call otel_amplitude.configure()",
        )
    for signal in SIGNALS if zero_code else ():
        variable = f"OTEL_{signal.upper()}_EXPORTER"
        given = setup.words(variable)
        for name in () if variable in cured else given or ["otlp"]:
            if name != "none" and name not in setup.entry_points.get(f"opentelemetry_{signal}_exporter", frozenset()):
                because = "" if given else " (the default of opentelemetry-distro)"
                instead = ",".join(each for each in given if each != name) or "none"
                yield Finding(
                    "fault",
                    f"{variable} means {name}{because}, which is not installed: initialisation aborts and nothing at all is traced",
                    f"set {variable}={instead}{', or amplitude for events from log records' if signal == 'logs' else ''}; "
                    "or install that exporter",
                )
                break


def _distro(setup: Setup) -> str:
    installed = next((name for name in FRAMEWORKS if name in setup.packages), None)
    return setup.install(installed) if installed else "pip install opentelemetry-distro"


def propagators(setup: Setup) -> Iterator[Finding]:
    """Every propagator exists; ours needs no mention."""
    known = setup.entry_points.get("opentelemetry_propagator", frozenset()) | {"none"}
    given = () if setup.declared is not None else setup.words("OTEL_PROPAGATORS")
    missing = [name for name in given if name not in known]
    if missing:
        yield Finding(
            "fault",
            f"OTEL_PROPAGATORS names {', '.join(missing)}, which is not installed: the application does not start",
            "install its package, or take it out",
        )
    else:
        yield Finding("ok", "the propagator that reads browser cookies attaches itself")


_CONFIGURED: Final = re.compile(r"^[^#\n]*\b(?:otel_amplitude\.|(?<![.\w]))configure\(", re.MULTILINE)
_SET_LATER: Final = re.compile(r"^[^#\n]*\b(set_global_textmap|set_tracer_provider|set_logger_provider)\(", re.MULTILINE)


def order(setup: Setup) -> Iterator[Finding]:
    """What the application sets itself, it sets before `configure()`."""
    for name, text in setup.program:
        if not name.endswith(".py"):
            continue
        configured = _CONFIGURED.search(text) if "otel_amplitude" in text else None
        for found in _SET_LATER.finditer(text):
            is_ours = found[1] == "set_global_textmap" and "AmplitudePropagator" in text
            if is_ours or (configured is None and "amplitude" not in setup.words(environment_variables.OTEL_TRACES_EXPORTER)):
                continue
            where = f"{_at(name, text, found)}: {found[1]}()"
            if found[1] == "set_global_textmap" and (configured is None or found.start() > configured.start()):
                yield Finding(
                    "doubt",
                    f"{where} replaces our propagator, which reads cookies and headers; it is put back at the first request, which may be lost",
                    "call configure() after it, or put AmplitudePropagator() into its CompositePropagator",
                )
            elif configured is not None and found.start() > configured.start():
                yield Finding(
                    "fault",
                    f"{where} comes after configure(), which has made a provider: OpenTelemetry refuses the application's",
                    f"call configure() after {found[1]}(): it joins the provider that is there",
                )


def sampler(setup: Setup) -> Iterator[Finding]:
    """A sampler that drops requests drops events: a dropped span never reaches us."""
    if setup.declared is not None:
        yield from _declared_sampler(setup.declared)
        return
    name = setup.environ.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    argument = setup.environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip()
    cure = "set OTEL_TRACES_SAMPLER=amplitude_parentbased_traceidratio: traces stay sampled, and every request is recorded"
    if name and name not in _BUILT_IN_SAMPLERS and name not in setup.entry_points.get("opentelemetry_traces_sampler", frozenset()):
        yield Finding("fault", f"OTEL_TRACES_SAMPLER is {name}, which is not installed: the SDK takes its default", f"correct it; {cure}")
    elif name.endswith("always_off"):
        yield Finding("fault", f"OTEL_TRACES_SAMPLER is {name}: requests are dropped before they become events", cure)
    elif name in ("traceidratio", "parentbased_traceidratio") and argument not in ("", "1", "1.0"):
        yield Finding("fault", f"OTEL_TRACES_SAMPLER is {name} at {argument}: the other requests never become events", cure)
    elif name.startswith("amplitude_") or name == "always_on":
        yield Finding("ok", f"the sampler {name} records every request")
    else:
        yield Finding("note", "requests whose caller does not sample are dropped (parent-based sampler)", f"where that matters, {cure}")


def _declared_sampler(declared: Declared) -> Iterator[Finding]:
    cure = "name amplitude_parentbased_always_on or amplitude_parentbased_traceidratio as sampler of tracer_provider in the file"
    if declared.sampler.startswith("amplitude_") or declared.sampler == "always_on":
        yield Finding("ok", f"the sampler {declared.sampler} records every request")
    elif declared.sampler in ("always_off", "trace_id_ratio_based"):
        yield Finding("fault", f"the sampler {declared.sampler} of {declared.path} drops requests before they become events", cure)
    elif not declared.problem:
        yield Finding("note", "requests whose caller does not sample are dropped (parent-based sampler)", f"where that matters, {cure}")


def cookies(setup: Setup) -> Iterator[Finding]:
    """Cookies belong on no span: our propagator reads the header itself."""
    headers = setup.words(_CAPTURE)
    if not any(_takes_cookie(pattern) for pattern in headers):
        return
    if any(_takes_cookie(pattern) for pattern in setup.words(_SANITIZE)):
        yield Finding(
            "note", f"{_CAPTURE} captures cookies, and {_SANITIZE} hides them again", "take cookie out of both; neither is needed"
        )
    else:
        yield Finding(
            "fault",
            f"{_CAPTURE}={','.join(headers)} puts the cookie header on every span: session ids and CSRF tokens reach every exporter",
            "take cookie out; the propagator of otel_amplitude reads Amplitude's cookie without it",
        )


def _takes_cookie(pattern: str) -> bool:
    """Tell whether a name or regular expression of OpenTelemetry's lists takes the header `cookie`."""
    try:
        return re.fullmatch(pattern, "cookie", re.IGNORECASE) is not None
    except re.error:
        return False


def attribute_names(setup: Setup) -> Iterator[Finding]:
    """An `amplitude.…` attribute nobody reads is a typing mistake; `amplitude.event.type` is the usual one."""
    for name, text in setup.program:
        for found in _AMPLITUDE_NAME.finditer(text):
            if _is_read(found[1]) or found[1].endswith(".com"):
                continue
            where = f"{_at(name, text, found)}: {found[1]}"
            right = misspelt(found[1])
            if right:
                yield Finding("fault", f"{where} is an attribute nobody reads", f"write {right}")
            else:
                property_name = f"amplitude.event_properties.{found[1].rpartition('.')[2]}"
                yield Finding("doubt", f"{where} is no attribute that is read", f"for a property of the event write {property_name}")


_READ: Final = frozenset({EVENT_TYPE, SKIP, EMITTED, *FIELDS, *IDENTITY_FIELDS, *(f"amplitude.{group}" for group in MAPS)})
_PREFIX: Final = "amplitude."


def _is_read(name: str) -> bool:
    parts = name.split(".")
    return name in _READ or (len(parts) > 2 and parts[1] in MAPS)


def misspelt(name: str) -> str:
    """Give the attribute that one which nobody reads was surely meant to be; empty when that can not be told.

    >>> misspelt("amplitude.event.type"), misspelt("amplitude.event.properties.total"), misspelt("amplitude.zebra")
    ('amplitude.event_type', 'amplitude.event_properties.total', '')
    """
    words = _flat(name)
    for right in sorted(_READ):
        if _flat(right) == words:
            return right
    for group in MAPS:
        if words.startswith(_flat(_PREFIX + group)) and name.count(".") > 1:
            return f"{_PREFIX}{group}.{name.rpartition('.')[2]}"
    near = difflib.get_close_matches(name.removeprefix(_PREFIX), [right.removeprefix(_PREFIX) for right in _READ], n=1, cutoff=0.75)
    return _PREFIX + near[0] if near else ""


def _flat(name: str) -> str:
    return re.sub(r"[._-]", "", name).lower()


def frameworks(setup: Setup) -> Iterator[Finding]:
    """Each framework that is installed has its instrumentation."""
    disabled = setup.words("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS")
    traced = [name for name, package in FRAMEWORKS.items() if name in setup.packages and package in setup.packages]
    for framework, instrumentation in FRAMEWORKS.items():
        if framework not in setup.packages or _BROUGHT_BY.get(framework) in setup.packages:
            continue
        if framework in traced and ({framework, instrumentation.removeprefix("opentelemetry-instrumentation-"), "*"} & set(disabled)):
            yield Finding(
                "fault", f"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS turns off {framework}, so it makes no spans", f"take {framework} out"
            )
        elif framework in traced:
            yield Finding("ok", f"{framework} and its instrumentation")
        else:
            # Also libraries for clients: beside a framework that is traced, they may serve no requests.
            is_sure = not traced or framework not in ("aiohttp", "celery")
            yield Finding(
                "fault" if is_sure else "doubt",
                f"{framework} is installed, but not its instrumentation: its requests make no spans, so no events",
                setup.install(framework) + ("" if is_sure else f", if {framework} serves requests or runs tasks"),
            )
    if not any(framework in setup.packages for framework in FRAMEWORKS):
        yield Finding("note", "no web framework is installed here", "run doctor in the application's environment")


def django(setup: Setup) -> Iterator[Finding]:
    """OpenTelemetry reads Django's settings before `manage.py` names them: the variable must name them."""
    if (
        "django" not in setup.packages
        or FRAMEWORKS["django"] not in setup.packages
        or setup.environ.get("DJANGO_SETTINGS_MODULE")
        or "django" in setup.words("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS")
    ):
        return
    named = [found[1] for name, text in setup.program if name.endswith("manage.py") and (found := DJANGO_SETTINGS.search(text))]
    others = [name for name in FRAMEWORKS if name != "django" and name in setup.packages]
    yield Finding(
        "fault" if named or not others else "doubt",
        "DJANGO_SETTINGS_MODULE is not set: under opentelemetry-instrument, Django then starts with empty settings",
        f"export DJANGO_SETTINGS_MODULE={named[0] if named else 'mysite.settings, the module that manage.py names'}",
    )


DJANGO_SETTINGS: Final = re.compile(r"""DJANGO_SETTINGS_MODULE["']\s*,\s*["']([\w.]+)["']""")


def excluded_urls(setup: Setup) -> Iterator[Finding]:
    """URLs that OpenTelemetry leaves out make no spans, so no events."""
    names = ("OTEL_PYTHON_EXCLUDED_URLS", *(f"OTEL_PYTHON_{name.upper()}_EXCLUDED_URLS" for name in FRAMEWORKS))
    for name in names:
        patterns = setup.words(name)
        if not patterns:
            continue
        try:
            takes_all = all(re.search("|".join(patterns), url) for url in _ANY_URLS)
        except re.error as error:
            yield Finding("fault", f"{name} is no list of regular expressions: {error}", "correct it")
            continue
        if takes_all:
            yield Finding("fault", f"{name}={','.join(patterns)} leaves out every request, so there are no spans", "narrow it, or unset it")
        else:
            yield Finding("note", f"{name}: requests that match {', '.join(patterns)} make no spans, so no events")


_ANY_URLS: Final = ("http://127.0.0.1:8000/", "https://shop.example/a-path/7", "http://10.0.0.7/another?page=2")


def logs(setup: Setup) -> Iterator[Finding]:
    """Records of `logging` reach OpenTelemetry only through a handler, and only those that the root logger lets pass."""
    if "amplitude" not in setup.words("OTEL_LOGS_EXPORTER") or setup.declared is not None:
        return
    variable = "OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION"
    if "opentelemetry-instrumentation-logging" not in setup.packages and not setup.is_set(
        "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED"
    ):
        yield Finding(
            "fault",
            "OTEL_LOGS_EXPORTER names amplitude, but nothing hands the records of logging to OpenTelemetry",
            setup.pip("opentelemetry-instrumentation-logging"),
        )
    elif "logging" in setup.words("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS") or setup.environ.get(variable, "").strip().lower() == "false":
        yield Finding(
            "fault",
            "the instrumentation of logging is turned off, so no log record becomes an event",
            f"set {variable}=true, and enable it",
        )
    elif setup.is_set("OTEL_PYTHON_LOG_CORRELATION"):
        yield Finding("ok", f"log records from {setup.environ.get('OTEL_PYTHON_LOG_LEVEL') or 'INFO'} on may become events")
    elif any(_LOG_LEVEL.search(text) for _, text in setup.program):
        yield Finding("ok", f"the code in {setup.source} sets a level for logging")
    else:
        seen = f"nothing in {setup.source} changes that" if setup.sources else "whether the application changes that, only its code shows"
        yield Finding(
            "doubt",
            f"Python's root logger lets only WARNING and above pass: logger.info() makes no event; {seen}",
            "logging.basicConfig(level=logging.INFO) in the application" + ("" if setup.sources else "; doctor --source DIR looks for it"),
        )


_LOG_LEVEL: Final = re.compile(r"""(?:setLevel\(|\blevel\b["']?\s*[=:]\s*)\s*(?:logging\.)?["']?(?:NOTSET|DEBUG|INFO|10|20)\b""")


def ids(setup: Setup) -> Iterator[Finding]:
    """Amplitude takes no id with fewer than five characters, so events with one are refused."""
    config = setup.config
    if config is None or config.user_id_format or (config.min_id_length is not None and config.min_id_length < MIN_ID_LENGTH):
        return
    cure = (
        f"set {ENVIRONMENT_PREFIX}USER_ID_FORMAT=user-{{id}}, or {ENVIRONMENT_PREFIX}MIN_ID_LENGTH=1 if the whole project takes short ids"
    )
    for name, text in setup.program:
        for found in _SHORT_ID.finditer(text):
            yield Finding(
                "doubt", f"{_at(name, text, found)}: the id {found[1] or found[2]} has fewer than {MIN_ID_LENGTH} characters", cure
            )
            return
    if any(_PRIMARY_KEY.search(text) for _, text in setup.program):
        yield Finding("doubt", f"primary keys below 10,000 have fewer than {MIN_ID_LENGTH} characters, so these users are refused", cure)


_SHORT_ID: Final = re.compile(r"""\bset_user\(\s*(?:["']([^"']{1,4})["']|([0-9]{1,4})\b)""")
_PRIMARY_KEY: Final = re.compile(r"\bAmplitudeMiddleware\b|\bset_user\(\s*(?:str\()?[\w.]*\buser\.(?:id|pk)\b")


def browser(setup: Setup) -> Iterator[Finding]:
    """Amplitude's browser SDK names its cookie after the project's key: the page and the server must have the same."""
    if setup.config is None:
        return
    ours = setup.config.api_key
    for name, text in setup.sources:
        for found in _BROWSER_KEY.finditer(text):
            if not ours.startswith((found[1] or found[2])[:10]):
                yield Finding(
                    "fault",
                    f"{_at(name, text, found)}: the page uses the project {(found[1] or found[2])[:10]}…, the server another, "
                    "so it does not know the page's visitors",
                    "give both the same key",
                )
                return
    if setup.cookie:
        yield from _cookie(setup.cookie, ours)


_BROWSER_KEY: Final = re.compile(r"""\b(?:init|initAll|initialize)\(\s*["'`]([0-9a-f]{32})["'`]|\bAMP_([0-9a-f]{10})\b""")


def _cookie(header: str, key: str) -> Iterator[Finding]:
    """Tell what the cookie of a browser says to a server with this key."""
    found = read_cookie(header, key)
    if found is not None:
        user = f"the user {found.user_id}" if found.user_id else "no user"
        yield Finding("ok", f"the cookie is of this project: the device {found.device_id}, {user}{', opted out' if found.opt_out else ''}")
        return
    others = [name for name in _COOKIE_NAMES.findall(header) if name != f"AMP_{key[:10]}"]
    if others:
        yield Finding(
            "fault", f"the cookie {others[0]} is of another project; this one reads AMP_{key[:10]}", "give page and server the same key"
        )
    else:
        yield Finding(
            "fault",
            f"there is no readable cookie AMP_{key[:10]} in what the browser sends",
            "log in on a page that runs Amplitude's browser SDK",
        )


_COOKIE_NAMES: Final = re.compile(r"\bAMP_(?!MKTG)[0-9A-Za-z]+(?==)")


def _at(name: str, text: str, found: re.Match[str]) -> str:
    return f"{name}:{text.count(chr(10), 0, found.start()) + 1}"


def resource(setup: Setup) -> Iterator[Finding]:
    """Events of a service without a name can not be told from another's."""
    if setup.declared is not None and setup.declared.has_service:
        return
    if not setup.environ.get("OTEL_SERVICE_NAME") and "service.name=" not in setup.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        yield Finding("note", "the service has no name, so events have no property service", "set OTEL_SERVICE_NAME")


def spool(setup: Setup) -> Iterator[Finding]:
    """The spool directory can be trusted and used, and holds nothing that nobody will send."""
    config = setup.config
    if config is None or not config.spool_dir:
        return
    path = Path(config.spool_dir).absolute()
    try:
        check_root(path)
        segments = inspect(path)
        _try_to_write(path)
    except (OtelAmplitudeError, OSError) as error:
        yield Finding(
            "fault",
            f"the spool can not be used: {error}",
            "" if isinstance(error, OtelAmplitudeError) else "check owner, mode and file system, or name another directory in spool_dir",
        )
        return
    name = fingerprint(config.endpoint, config.api_key)
    ours = [segment for segment in segments if segment.fingerprint == name]
    left = sum(segment.records for segment in ours if not segment.alive)
    stranded = sum(segment.records for segment in segments if segment.fingerprint != name and not segment.alive)
    damaged = sum(segment.damaged for segment in segments)
    yield Finding("ok", f"spool {path}: {counted(sum(segment.records for segment in ours), 'event')} of this key and endpoint")
    if left:
        yield Finding(
            "note", f"{left:,} of them were left by ended processes; the next one sends them", "otel-amplitude spool replay sends now"
        )
    if stranded:
        yield Finding("doubt", f"{stranded:,} more were accepted under another key or endpoint, and nobody sends them", way_out(path))
    if damaged:
        yield Finding(
            "doubt", f"about {counted(damaged, 'event')} lost to damage", "otel-amplitude spool verify says where; check the disk"
        )


def way_out(directory: str | Path) -> str:
    """Give what is to be done about events in a spool that were accepted under another key or endpoint."""
    return (
        f"where key or endpoint was wrong then, `otel-amplitude convert --spool {directory} --send` sends them with the present ones; "
        "what another project accepted, only its own key may send"
    )


def _try_to_write(path: Path) -> None:
    """Make a directory there, or where the first missing one would be made, and remove it: only that tells what a file system allows.

    Raises:
        OSError: it is not allowed.
    """
    at = next(above for above in (path, *path.parents) if above.is_dir())
    if not os.access(at, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "this user may not write there", str(at))
    try:
        Path(tempfile.mkdtemp(prefix=".doctor-", dir=at)).rmdir()
    except OSError as error:
        raise OSError(error.errno, f"nothing can be made there ({error.strerror})", str(at)) from error


def rules(setup: Setup) -> Iterator[Finding]:
    """The rules file can be read."""
    if setup.config is None or not setup.config.rules:
        return
    try:
        loaded = load_rules(setup.config.rules)
    except OtelAmplitudeError as error:
        yield Finding("fault", str(error), "until then the exporter is disabled")
        return
    yield Finding("ok", f"{setup.config.rules}: {counted(len(loaded.rules), 'rule')}")
    for warning in loaded.warnings:
        yield Finding("doubt", warning)


EXAMINATIONS: Final[tuple[tuple[str, tuple[Examination, ...]], ...]] = (
    ("Amplitude", (key, unknown_variables, rules, spool)),
    ("OpenTelemetry", (wiring, propagators, order, sampler, resource)),
    ("Application", (frameworks, django, excluded_urls, logs, ids, browser, cookies, attribute_names)),
)


def sources_of(values: Mapping[str, Any], declared: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Give each option that is not at its default, and where its value came from.

    Args:
        values: what the command line gave.
        declared: what the declarative file gave.
        environ: the environment.
    """
    for option in options():
        variable = environment_variable(option)
        if option.name in values:
            yield option.name, "argument"
        elif option.name in declared:
            yield option.name, CONFIG_FILE
        elif variable and environ.get(variable, "").strip():
            yield option.name, variable
        elif option.name == "api_key" and environ.get(API_KEY_FALLBACK, "").strip():
            yield option.name, API_KEY_FALLBACK
        else:
            yield option.name, "default"
