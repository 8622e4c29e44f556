"""`otel-amplitude doctor`: looks at a set-up from every side, and says what to do about what it finds."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import shutil
import textwrap
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from otel_amplitude.cli._declarative import VARIABLE, Declared, read_declared
from otel_amplitude.cli._examine import EXAMINATIONS, SIGNALS, WEB_SUFFIXES, Finding, Setup, sources_of
from otel_amplitude.cli._inputs import SourceError
from otel_amplitude.cli._options import add_options, given_options
from otel_amplitude.cli._table import print_table
from otel_amplitude.client import Amplitude
from otel_amplitude.config import Config
from otel_amplitude.errors import OtelAmplitudeError, TransportError
from otel_amplitude.log import hint, safe
from otel_amplitude.transport import Request, RequestsTransport, Response, Transport

HELP: Final = "Examine the set-up: options, key, region, reachability, OpenTelemetry, frameworks, spool, rules."
EXAMPLES: Final = (
    "otel-amplitude doctor",
    "otel-amplitude doctor --source src/shop --offline",
    "otel-amplitude doctor --send --option server_zone=EU",
    "otel-amplitude doctor --cookie 'AMP_0123456789=…'   # as the browser's developer tools show it",
)
_GROUPS: Final = tuple(f"opentelemetry_{kind}" for kind in (*(f"{signal}_exporter" for signal in SIGNALS), "propagator", "traces_sampler"))
_SECONDS: Final = 5.0
_WRONG_PATH: Final = (404, 405, 410)
_MAX_FILES: Final = 5_000
_MAX_BYTES: Final = 1_000_000
_SUFFIXES: Final = (*WEB_SUFFIXES, ".py", ".toml", ".yaml", ".yml", ".cfg", ".ini", ".env")
_SKIPPED: Final = frozenset({"node_modules", "site-packages", "__pycache__", "venv"})
_MARKS: Final = {"ok": "✓", "note": "·", "doubt": "!", "fault": "✗"}
_SECRET: Final = ("api_key", "headers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the words of this command."""
    parser.add_argument("--source", metavar="DIR", help="the application's code: look for misspelt amplitude.* attributes and own wiring")
    parser.add_argument(
        "--cookie", metavar="TEXT", default="", help="what a browser sends as Cookie: is it of this project, and who is it?"
    )
    parser.add_argument("--offline", action="store_true", help="do not ask whether Amplitude can be reached")
    parser.add_argument("--send", action="store_true", help="send one test event (`Doctor Test` of the device otel-amplitude-doctor)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Examine; 1 when there is a fault."""
    given = given_options(arguments)
    setup, groups = examined(os.environ, given, arguments.source, arguments.cookie)
    config, declared = setup.config, setup.declared
    if config is not None:
        groups["Amplitude"] += _asked(config, offline=arguments.offline, send=arguments.send)
    rows = [] if config is None else list(_rows(config, given, declared))
    if arguments.json:
        print(
            json.dumps({"findings": {name: [asdict(each) for each in found] for name, found in groups.items()}, "options": rows}, indent=2)
        )
    else:
        _print(groups, rows)
    return 1 if any(finding.level == "fault" for found in groups.values() for finding in found) else 0


def examined(
    environ: Mapping[str, str], given: Mapping[str, Any] | None = None, source: str | None = None, cookie: str = ""
) -> tuple[Setup, dict[str, list[Finding]]]:
    """Examine a set-up without asking the network; give what was read, and the findings by the name of their group.

    Args:
        environ: the environment of the application.
        given: options that win over it.
        source: a folder or file of the application's code.
        cookie: what a browser sends as `Cookie`.

    Raises:
        SourceError: there is no such folder or file.
    """
    path = environ.get(VARIABLE, "").strip()
    declared = read_declared(path) if path else None
    # Where the file can not be read, that is the finding: options that it might give are not missing.
    config, wrong = (
        (None, [])
        if declared is not None and declared.problem
        else _config({**((declared and declared.options) or {}), **(given or {})}, environ)
    )
    where = None if source is None else Path(source)
    if where is not None and not where.exists():
        raise SourceError(f"--source {source}: there is no such file or directory")
    setup = Setup(
        environ,
        config,
        {group: frozenset(point.name for point in importlib.metadata.entry_points(group=group)) for group in _GROUPS},
        _packages(),
        where,
        tuple(_texts(where)) if where is not None else (),
        declared,
        cookie,
    )
    groups = {name: [finding for examine in each for finding in examine(setup)] for name, each in EXAMINATIONS}
    groups["Amplitude"][:0] = wrong
    return setup, groups


def _config(given: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[Config | None, list[Finding]]:
    try:
        return Config.load(given, environ), []
    except OtelAmplitudeError as error:
        return None, [Finding("fault", str(error), "until then the exporter is disabled; run doctor again afterwards")]


def _packages() -> dict[str, str]:
    names = ((str(item.metadata["Name"] or ""), item.version) for item in importlib.metadata.distributions())
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in names}


def _texts(source: Path) -> Iterator[tuple[str, str]]:
    """Give names and texts of the files that may name attributes or options; what can not be read is passed over."""
    paths = [source] if source.is_file() else _walked(source)
    for count, path in enumerate(paths):
        if count >= _MAX_FILES:
            return
        try:
            if path.stat().st_size <= _MAX_BYTES:
                yield str(path), path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue


def _walked(source: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED and not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(names) if name.endswith(_SUFFIXES))


# Asking Amplitude


def _asked(config: Config, *, offline: bool, send: bool) -> Iterator[Finding]:
    """Ask the server as far as it may be asked, and say what was not tried."""
    reached = None if offline else _reached(config)
    if reached is not None:
        yield reached
    if send:
        yield _sent(config)
    elif reached is None:
        yield Finding("note", "address, path and key were not tried (--offline)", "otel-amplitude doctor tries address and path")
    elif reached.level == "ok":
        yield Finding(
            "note", "the key was not tried, because only an event can try it", "otel-amplitude doctor --send sends one test event"
        )


def _reached(config: Config) -> Finding:
    """Send no event, and see who answers: a request without events is refused by name, and changes nothing."""
    transport = RequestsTransport(ca_file=config.ca_file)
    body = json.dumps({"api_key": config.api_key, "events": []}).encode()
    headers = {**(config.headers or {}), "Content-Type": "application/json"}
    begun = time.monotonic()
    try:
        answer = transport.send(Request(config.endpoint, headers, body, min(_SECONDS, config.request_timeout)))
    except TransportError as error:
        return Finding(
            "fault", f"{config.endpoint} can not be reached: {error}", "check network, proxy (HTTPS_PROXY), ca_file and server_url"
        )
    finally:
        transport.close()
    if answer.status in _WRONG_PATH:
        return Finding(
            "fault",
            f"{config.endpoint} answers {answer.status}: there is nothing at this path that takes events",
            "correct server_url: its path is /2/httpapi or /batch, unless a proxy changes it",
        )
    said = answer.json()
    if not isinstance(said, dict) or "code" not in said:
        return Finding(
            "fault",
            f"{config.endpoint} answers {answer.status}, but not as Amplitude does",
            "correct server_url, or the proxy in HTTPS_PROXY",
        )
    if "api key" in str(said.get("error", "")).lower():
        return Finding("fault", f"{config.endpoint} does not know the api key", "check key and region: a project is in the US or in the EU")
    return Finding("ok", f"the server answers as Amplitude does, within {time.monotonic() - begun:.1f} s")


class _Overheard:
    """A transport that remembers the last answer: one that pauses everything settles no event, so no `Result` has it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.said = ""

    def send(self, request: Request) -> Response:
        """Send as the other one does."""
        try:
            answer = self._transport.send(request)
        except TransportError as error:
            self.said = str(error)
            raise
        words = (answer.json() or {}).get("error")
        self.said = f"the server answers {answer.status}" + (f": {words}" if isinstance(words, str) else "")
        return answer

    def close(self) -> None:
        """Close the other one."""
        self._transport.close()


def _sent(config: Config) -> Finding:
    heard = _Overheard(config.transport or RequestsTransport(ca_file=config.ca_file))
    quiet: dict[str, Any] = {"spool_dir": None, "rules": None, "log_level": "NONE", "debug": False, "opt_out": False, "dry_run": False}
    client = Amplitude(replace(config, **quiet, transport=heard, upload_interval=0.0))
    event = {"event_type": "Doctor Test", "device_id": "otel-amplitude-doctor"}
    result = client.log_event(event, timeout=_SECONDS)
    client.shutdown(0.0)
    if result.outcome == "acknowledged":
        return Finding("ok", "the test event was acknowledged; it is in the project within a minute (User Look-Up: otel-amplitude-doctor)")
    secrets = (config.api_key, *(config.headers or {}).values())
    why = result.message or safe(heard.said, secrets) or result.reason or f"no answer within {_SECONDS:.0f} s"
    return Finding(
        "fault",
        f"the test event was not acknowledged: {result.outcome}, {why}",
        "check key and region; OTEL_EXPORTER_AMPLITUDE_LOG_LEVEL=VERBOSE in the application shows each answer",
    )


# What is shown


def _rows(config: Config, given: Mapping[str, str], declared: Declared | None) -> Iterator[tuple[str, str, str]]:
    for name, source in sources_of(given, (declared and declared.options) or {}, os.environ):
        value = getattr(config, name)
        if source != "default":
            yield name, _shown(name, value), source


def _shown(name: str, value: Any) -> str:
    if name in _SECRET:
        return hint(value) if isinstance(value, str) else f"{len(value)} headers"
    return str(value)


def _print(groups: Mapping[str, list[Finding]], rows: list[tuple[str, str, str]]) -> None:
    if rows:
        print_table("Options (all others are at their defaults)", ("option", "value", "from"), rows)
    for name, findings in groups.items():
        print(f"\n{name}")
        for finding in findings:
            print(_wrapped(f"  {_MARKS[finding.level]} ", finding.what))
            if finding.cure:
                print(_wrapped("    → ", finding.cure))
    counts = {level: sum(finding.level == level for found in groups.values() for finding in found) for level in _MARKS}
    print("\n" + ", ".join(f"{counts[level]} {level}{'' if counts[level] == 1 else 's'}" for level in ("fault", "doubt", "note")))


def _wrapped(mark: str, words: str) -> str:
    width = min(shutil.get_terminal_size().columns, 120)
    indent = " " * len(mark)
    return textwrap.fill(words, width, initial_indent=mark, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
