"""What can be wrong with a set-up, as rows: each examination reads a `Setup` and gives findings; nothing here asks the network."""

from __future__ import annotations

import difflib
import errno
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from otel_amplitude.config import API_KEY_FALLBACK, Config, environment_variable, options
from otel_amplitude.config import misspelt as misspelt_variables
from otel_amplitude.convert._rules import load_rules
from otel_amplitude.convert._tables import EMITTED, EVENT_TYPE, FIELDS, IDENTITY_FIELDS, MAPS, SKIP
from otel_amplitude.delivery.disk.directory import check_root
from otel_amplitude.delivery.disk.inspect import inspect
from otel_amplitude.delivery.disk.spool import fingerprint
from otel_amplitude.errors import OtelAmplitudeError

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
        packages: installed distributions, in lower case with dashes.
        source: the folder of the application, or None.
        sources: its files and texts.
    """

    environ: Mapping[str, str]
    config: Config | None
    entry_points: Mapping[str, frozenset[str]]
    packages: frozenset[str]
    source: Path | None = None
    sources: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def words(self, variable: str) -> list[str]:
        """Give a list variable of the environment."""
        return [word.strip() for word in self.environ.get(variable, "").split(",") if word.strip()]


SIGNALS: Final = ("traces", "metrics", "logs")
Examination = Callable[[Setup], Iterator[Finding]]

# Web frameworks and workers of which OpenTelemetry has instrumentations; the first package means the framework.
_FRAMEWORKS: Final = {
    **{
        name: f"opentelemetry-instrumentation-{name}"
        for name in ("flask", "django", "fastapi", "starlette", "tornado", "falcon", "pyramid")
    },
    "celery": "opentelemetry-instrumentation-celery",
    "aiohttp": "opentelemetry-instrumentation-aiohttp-server",
}
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
        if setup.config.dry_run or setup.config.opt_out:
            yield Finding(
                "doubt", f"{'dry_run' if setup.config.dry_run else 'opt_out'} is set: nothing is sent", "take the option out to send"
            )


def unknown_variables(setup: Setup) -> Iterator[Finding]:
    """A variable with our prefix that is no option is a typing mistake."""
    for name, near in misspelt_variables(setup.environ).items():
        yield Finding("fault", f"{name} is no option", f"rename it to {near}" if near else "unset it; the README has the table of options")


def wiring(setup: Setup) -> Iterator[Finding]:
    """OpenTelemetry is told to use us, and finds every exporter that it is told to use."""
    if setup.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        yield Finding("fault", "OTEL_SDK_DISABLED=true: OpenTelemetry is off, so there are no spans", "unset OTEL_SDK_DISABLED")
    if "amplitude" in setup.words("OTEL_TRACES_EXPORTER"):
        yield Finding("ok", "OTEL_TRACES_EXPORTER names amplitude")
    elif any(_OWN_WIRING.search(text) for _, text in setup.sources):
        yield Finding("ok", f"the code in {setup.source} attaches otel_amplitude itself")
    else:
        now = setup.environ.get("OTEL_TRACES_EXPORTER") or "not set"
        yield Finding(
            "fault",
            f"nothing tells OpenTelemetry about Amplitude: OTEL_TRACES_EXPORTER is {now}",
            "set OTEL_TRACES_EXPORTER=amplitude (or amplitude,otlp), or call otel_amplitude.configure() in the application "
            "and show it to doctor with --source DIR",
        )
    if "amplitude" in setup.words("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"):
        yield Finding("note", "the instrumentor amplitude is disabled; only declarative files need it")
    yield from _exporters(setup)


def _exporters(setup: Setup) -> Iterator[Finding]:
    zero_code = "opentelemetry-distro" in setup.packages
    if "amplitude" in setup.words("OTEL_TRACES_EXPORTER") and not zero_code:
        yield Finding(
            "fault",
            "OTEL_TRACES_EXPORTER is read by opentelemetry-instrument, which is not installed",
            "pip install opentelemetry-distro, and start the application with opentelemetry-instrument; or call otel_amplitude.configure()",
        )
    for signal in SIGNALS if zero_code else ():
        variable = f"OTEL_{signal.upper()}_EXPORTER"
        given = setup.words(variable)
        for name in given or ["otlp"]:
            if name != "none" and name not in setup.entry_points.get(f"opentelemetry_{signal}_exporter", frozenset()):
                because = "" if given else " (the default of opentelemetry-distro)"
                yield Finding(
                    "fault",
                    f"{variable} means {name}{because}, which is not installed: initialisation aborts and nothing at all is traced",
                    f"set {variable}=none{', or amplitude for events from log records' if signal == 'logs' else ''}; or install that exporter",
                )


def propagators(setup: Setup) -> Iterator[Finding]:
    """Every propagator exists; ours needs no mention."""
    known = setup.entry_points.get("opentelemetry_propagator", frozenset()) | {"none"}
    missing = [name for name in setup.words("OTEL_PROPAGATORS") if name not in known]
    if missing:
        yield Finding(
            "fault",
            f"OTEL_PROPAGATORS names {', '.join(missing)}, which is not installed: the application does not start",
            "install its package, or take it out",
        )
    else:
        yield Finding("ok", "the propagator that reads browser cookies attaches itself")


def sampler(setup: Setup) -> Iterator[Finding]:
    """A sampler that drops requests drops events: a dropped span never reaches us."""
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
    for name, text in setup.sources:
        for found in _AMPLITUDE_NAME.finditer(text):
            if _is_read(found[1]) or found[1].endswith(".com"):
                continue
            where = f"{name}:{text.count(chr(10), 0, found.start()) + 1}: {found[1]}"
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
    for framework, instrumentation in _FRAMEWORKS.items():
        if framework not in setup.packages or _BROUGHT_BY.get(framework) in setup.packages:
            continue
        if framework in disabled or "*" in disabled:
            yield Finding(
                "fault", f"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS turns off {framework}, so it makes no spans", f"take {framework} out"
            )
        elif instrumentation in setup.packages:
            yield Finding("ok", f"{framework} and its instrumentation")
        else:
            yield Finding(
                "doubt", f"{framework} is installed, but not its instrumentation", f"pip install {instrumentation}, if it serves requests"
            )
    if not any(framework in setup.packages for framework in _FRAMEWORKS):
        yield Finding("note", "no web framework is installed here", "run doctor in the application's environment")


def resource(setup: Setup) -> Iterator[Finding]:
    """Events of a service without a name can not be told from another's."""
    if not setup.environ.get("OTEL_SERVICE_NAME") and "service.name=" not in setup.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        yield Finding("note", "the service has no name, so events have no property service", "set OTEL_SERVICE_NAME")


def spool(setup: Setup) -> Iterator[Finding]:
    """The spool directory can be trusted and used, and holds nothing that nobody will send."""
    config = setup.config
    if config is None or not config.spool or not config.spool_dir:
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
    yield Finding("ok", f"spool {path}: {sum(segment.records for segment in ours):,} events of this key and endpoint")
    if left:
        yield Finding(
            "note", f"{left:,} of them were left by ended processes; the next one sends them", "otel-amplitude spool replay sends now"
        )
    if stranded:
        yield Finding("doubt", f"{stranded:,} more were accepted under another key or endpoint, and nobody sends them", way_out(path))
    if damaged:
        yield Finding("doubt", f"about {damaged:,} events are lost to damage", "otel-amplitude spool verify says where; check the disk")


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
    yield Finding("ok", f"{setup.config.rules}: {len(loaded.rules)} rules")
    for warning in loaded.warnings:
        yield Finding("doubt", warning)


EXAMINATIONS: Final[tuple[tuple[str, tuple[Examination, ...]], ...]] = (
    ("Amplitude", (key, unknown_variables, rules, spool)),
    ("OpenTelemetry", (wiring, propagators, sampler, resource)),
    ("Application", (frameworks, cookies, attribute_names)),
)


def sources_of(values: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Give each option that is not at its default, and where its value came from.

    Args:
        values: what the command line gave.
        environ: the environment.
    """
    for option in options():
        variable = environment_variable(option)
        if option.name in values:
            yield option.name, "argument"
        elif variable and environ.get(variable, "").strip():
            yield option.name, variable
        elif option.name == "api_key" and environ.get(API_KEY_FALLBACK, "").strip():
            yield option.name, API_KEY_FALLBACK
        else:
            yield option.name, "default"
