"""`otel-amplitude run`: starts a command under `opentelemetry-instrument` with the variables that it needs.

Sets only what is unset, examines the result as `doctor` does, says in one line what it did, and replaces itself by the command.
With `--sandbox` the events go to a sandbox on this machine, which is started where none runs. That sandbox is a process of its own, so
that its page outlives the command; it ends after an hour in which neither a page is open nor an event arrives.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import webbrowser
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from otel_amplitude.cli._ask import ask
from otel_amplitude.cli._declarative import VARIABLE as CONFIG_FILE
from otel_amplitude.cli._examine import DJANGO_SETTINGS, FRAMEWORKS, Finding, Setup
from otel_amplitude.cli.doctor import examined
from otel_amplitude.config import API_KEY_FALLBACK, ENVIRONMENT_PREFIX
from otel_amplitude.errors import ConfigurationError, TransportError
from otel_amplitude.sandbox import KEY

HELP: Final = "Start a command with opentelemetry-instrument and everything set that it needs."
EXAMPLES: Final = (
    "otel-amplitude run --sandbox -- flask --app shop run          # try it: events appear on a page of this machine",
    "otel-amplitude run -- gunicorn --workers 2 shop:app           # for real: the key in OTEL_EXPORTER_AMPLITUDE_API_KEY",
    "otel-amplitude run -- python manage.py runserver              # DJANGO_SETTINGS_MODULE is taken from manage.py",
    "python -m otel_amplitude run --sandbox -- uvicorn shop:app    # where otel-amplitude is not on the PATH",
)
_INSTRUMENT: Final = "opentelemetry-instrument"
_KEY_VARIABLE: Final = f"{ENVIRONMENT_PREFIX}API_KEY"
_URL_VARIABLE: Final = f"{ENVIRONMENT_PREFIX}SERVER_URL"
_IDLE_SECONDS: Final = 3_600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the words of this command."""
    parser.add_argument("--sandbox", action="store_true", help="send to a sandbox on this machine, which is started where none runs")
    parser.add_argument("--port", type=int, default=8010, help="port of the sandbox (default: 8010)")
    parser.add_argument("words", metavar="COMMAND", nargs=argparse.REMAINDER, help="what starts your application, with its arguments")


def run(arguments: argparse.Namespace) -> int:
    """Set, examine, say, execute; gives an exit code only when nothing was executed."""
    words = arguments.words[1:] if arguments.words[:1] == ["--"] else arguments.words
    if not words:
        return _refused("name the command that starts your application, such as: otel-amplitude run -- flask --app shop run", 2)
    environ = dict(os.environ)
    # The programs of this very environment, whether it was activated or not.
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ.get('PATH', os.defpath)}"
    if shutil.which(words[0], path=environ["PATH"]) is None:
        return _refused(f"{words[0]}: there is no such program here; install it, or give the command as you start it without us", 3)
    said = _set(environ, words)
    if arguments.sandbox:
        said.append(_use_sandbox(environ, arguments.port))
    setup, groups = examined(environ)
    if not _has_key(setup):
        again = f"otel-amplitude run --sandbox -- {shlex.join(words)}"
        return _refused(f"there is no API key: export {_KEY_VARIABLE}=… (Amplitude: Settings, Projects), or try it without: {again}", 2)
    instrument = shutil.which(_INSTRUMENT, path=environ["PATH"])
    if instrument is None and (framework := next((name for name in FRAMEWORKS if name in setup.packages), None)):
        return _refused(f"{_INSTRUMENT} is not installed, so {framework} makes no events: {setup.install(framework)}", 3)
    for finding in (each for found in groups.values() for each in found if each.level == "fault"):
        _say(_one_line(finding))
    _say(", ".join(said))
    # A program without a framework that calls configure() needs no instrumentation, only the variables.
    return _execute([*([instrument] if instrument else []), *words], environ)


def _refused(why: str, code: int) -> int:
    _say(why)
    return code


def _say(words: str) -> None:
    # On stderr, since stdout is the command's; flushed, since the process is replaced.
    print(f"otel-amplitude run: {words}", file=sys.stderr, flush=True)


def _one_line(finding: Finding) -> str:
    return f"{finding.what} → {finding.cure}" if finding.cure else finding.what


def _set(environ: dict[str, str], words: Sequence[str]) -> list[str]:
    """Set what is unset (an empty variable is unset, as OpenTelemetry has it); give what to say about it."""
    said = []
    if not environ.get("OTEL_SERVICE_NAME") and "service.name=" not in environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        environ["OTEL_SERVICE_NAME"] = Path.cwd().name or "service"
    said.append(f"service {environ.get('OTEL_SERVICE_NAME') or 'as in OTEL_RESOURCE_ATTRIBUTES'}")
    if not environ.get("DJANGO_SETTINGS_MODULE") and (settings := _django_settings(words)):
        environ["DJANGO_SETTINGS_MODULE"] = settings
        said.append(f"Django settings {settings}")
    if environ.get(CONFIG_FILE):  # OpenTelemetry reads the file in place of the variables below
        return [*said, f"the rest as in {environ[CONFIG_FILE]}"]
    for variable, value, meaning in (
        ("OTEL_TRACES_EXPORTER", "amplitude", ""),
        ("OTEL_METRICS_EXPORTER", "none", "metrics not exported"),
        ("OTEL_LOGS_EXPORTER", "none", "logs not exported"),
        ("OTEL_TRACES_SAMPLER", "amplitude_parentbased_always_on", "every request recorded"),
    ):
        if not environ.get(variable):
            environ[variable] = value
            said += [meaning] if meaning else []
    if environ["OTEL_LOGS_EXPORTER"] == "none":
        # A handler of OpenTelemetry at the root logger exports nothing then, and Werkzeug, which sees it, would no longer print its lines.
        environ.setdefault("OTEL_PYTHON_LOG_AUTO_INSTRUMENTATION", "false")
    return said


def _django_settings(words: Sequence[str]) -> str:
    """Give the settings that `manage.py` names, in this directory or in the command; empty where there are none."""
    for path in (*(Path(word) for word in words if word.endswith("manage.py")), Path("manage.py")):
        try:
            found = DJANGO_SETTINGS.search(path.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
        if found:
            return found[1]
    return ""


def _has_key(setup: Setup) -> bool:
    given = bool((setup.environ.get(_KEY_VARIABLE) or setup.environ.get(API_KEY_FALLBACK) or "").strip())
    # A file that can not be read, or names no key, is a finding of its own.
    return given or setup.declared is not None


# The sandbox


def _use_sandbox(environ: dict[str, str], port: int) -> str:
    """Point the command at a sandbox, which is started where none answers; give what to say about it.

    Raises:
        ConfigurationError: it can not be started, or a declarative file decides where events go.
    """
    if environ.get(CONFIG_FILE):
        raise ConfigurationError(f"{CONFIG_FILE} decides where events go: set server_url in that file, or unset {CONFIG_FILE}")
    url = f"http://127.0.0.1:{port}"
    environ[_URL_VARIABLE] = f"{url}/2/httpapi"
    # Never the key of a project: a program on a local port must not get it.
    had_key = (environ.get(_KEY_VARIABLE) or environ.pop(API_KEY_FALLBACK, None) or KEY) != KEY
    environ[_KEY_VARIABLE] = KEY
    # A proxy of this machine can not reach loopback addresses of it.
    environ["NO_PROXY"] = environ["no_proxy"] = ",".join(filter(None, (environ.get("NO_PROXY") or environ.get("no_proxy"), "127.0.0.1")))
    try:
        ask(url, "/api/summary")
        said = "found"
    except TransportError:
        said = f"started, kill {_start_sandbox(port)} ends it"
    if _has_screen(environ):
        webbrowser.open(url)
    return f"sandbox {url} ({said}){' with its key in place of yours' if had_key else ''}"


def _start_sandbox(port: int) -> int:
    """Start a sandbox that outlives this process; give its process id when it listens."""
    process = subprocess.Popen(  # noqa: S603 -- our own program
        [sys.executable, "-m", "otel_amplitude.sandbox", "--port", str(port), "--end-when-idle", str(_IDLE_SECONDS)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # Ctrl-C in this terminal is for the command
    )
    assert process.stdout is not None  # noqa: S101 -- a pipe was asked for
    with process.stdout:
        line = process.stdout.readline()  # written when it listens
    try:
        json.loads(line)
    except ValueError:
        process.wait()  # it has said all that it will say
        raise ConfigurationError(f"port {port} is used by another program; choose another --port") from None
    return process.pid


def _has_screen(environ: Mapping[str, str]) -> bool:
    """Tell whether a browser would open a window of its own, not take this terminal."""
    desktop = sys.platform in ("darwin", "win32") or bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))
    return desktop and sys.stderr.isatty()


def _execute(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Replace this process by the command: signals and exit code are then the command's own."""
    if os.name != "nt":  # there, exec gives the terminal back before the command has ended
        os.execvpe(command[0], list(command), environ)  # noqa: S606 -- the user's own command
    return subprocess.run(command, env=dict(environ), check=False).returncode  # noqa: S603 -- the user's own command
