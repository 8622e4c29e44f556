"""`otel-amplitude demo`: a real shop under gunicorn, instrumented without code, against the sandbox; and what arrived."""

from __future__ import annotations

import argparse
import http.client
import http.cookiejar
import importlib.util
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from otel_amplitude.cli._table import print_table
from otel_amplitude.cli.sandbox import listen, stop_signal
from otel_amplitude.errors import OtelAmplitudeError
from otel_amplitude.identity._cookie import make_cookie
from otel_amplitude.sandbox import Sandbox

HELP: Final = "Run a small shop against the sandbox for a few seconds, and show the events that arrived."
EXAMPLES: Final = (
    "otel-amplitude demo",
    "otel-amplitude demo --rules   # a shop without a line of Amplitude code; a rules file names its events",
    "otel-amplitude demo --keep    # leave the sandbox's page open until Ctrl-C",
)

_KEY: Final = "demo0123456789demo0123456789demo"
_NEEDED: Final = {"flask": "flask", "gunicorn": "gunicorn", "opentelemetry.distro": "opentelemetry-distro"} | {
    "opentelemetry.instrumentation.flask": "opentelemetry-instrumentation-flask"
}
_PRODUCTS: Final = ("tea", "pot", "cup")
_PRICE: Final = 12.5
_BOT: Final = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
_RULES: Final = Path(__file__).with_name("_shop_rules.toml")
# Together less than a minute.
_STARTUP_SECONDS: Final = 20.0
_TRADE_SECONDS: Final = 20.0
_STOP_SECONDS: Final = 12.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the words of this command."""
    parser.add_argument("--rules", action="store_true", help="a shop without Amplitude code, whose events a rules file names")
    parser.add_argument("--keep", action="store_true", help="keep the sandbox and its page open afterwards, until Ctrl-C")
    parser.add_argument("--port", type=int, default=0, help="port of the sandbox (default: any free one)")


class _DemoError(OtelAmplitudeError):
    """The shop did not do its part; the message says which."""


@dataclass(frozen=True)
class _Scene:
    """One variant of the demo.

    Attributes:
        app: the shop, as gunicorn names it.
        words: what is special about it.
        visit: lets the customers in, and gives the events that should arrive by type.
        revenue: what they spend.
        environment: more variables.
    """

    app: str
    words: str
    visit: Callable[[str], Counter[str]]
    revenue: float
    environment: dict[str, str] = field(default_factory=dict)


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; 0 when everything that was expected arrived."""
    missing = [package for module, package in _NEEDED.items() if not _importable(module)]
    if missing:
        print(f"otel-amplitude demo: the shop needs more packages: pip install {' '.join(missing)}", file=sys.stderr)
        return 3
    scene = _WITH_RULES if arguments.rules else _ANNOTATED
    sandbox = listen("127.0.0.1", arguments.port)
    try:
        while_it_lives = "its page shows events as they arrive" if arguments.keep else "until the demo ends"
        print(f"sandbox: {sandbox.url}   (stands in for Amplitude; {while_it_lives})")
        problems = _play(sandbox, scene)
        for problem in problems:
            print(f"FAILED: {problem}")
        if arguments.rules:
            print(f"\nthe rules: {_RULES}")
        if arguments.keep:
            done = stop_signal()
            print(f"\nnext, in another terminal:\n  {_program()} catalog --sandbox {sandbox.url}")
            print(f"\n{sandbox.url} stays open; Ctrl-C ends it.", flush=True)
            done.wait()
        else:
            print(f"\nnext, to look at the events in a browser:\n  {_again(rules=arguments.rules)}")
    finally:
        sandbox.stop()
    return 1 if problems else 0


def _again(*, rules: bool) -> str:
    """Give the command that runs this demo and keeps its page, as it works where this one was typed."""
    words = "--keep --rules" if rules else "--keep"
    # Under nox the program is in an environment of nox's own, not on the PATH of the shell.
    return f"nox -s demo -- {words}" if os.environ.get("NOX_CURRENT_SESSION") else f"{_program()} demo {words}"


def _program() -> str:
    """Give how a shell in this folder finds our program: by its name where the PATH has this very one, else by its path."""
    mine = Path(sys.executable).with_name("otel-amplitude")
    path = os.environ.get("PATH", "")
    if os.environ.get("NOX_CURRENT_SESSION"):  # nox put its own environment in front
        path = os.pathsep.join(part for part in path.split(os.pathsep) if Path(part) != mine.parent)
    found = shutil.which("otel-amplitude", path=path)
    if found is not None and Path(found).resolve() == mine.resolve():
        return "otel-amplitude"
    return shlex.quote(str(mine.relative_to(Path.cwd()) if mine.is_relative_to(Path.cwd()) else mine))


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _play(sandbox: Sandbox, scene: _Scene) -> list[str]:
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        try:
            expected = _trade(sandbox, scene, output.fileno())
        except _DemoError as error:
            output.seek(0)
            return [f"{error}; it said:\n{output.read()[-4_000:] or '(nothing)'}"]
        output.seek(0)
        return _report(sandbox, scene, expected, output.read())


# The shop


def _trade(sandbox: Sandbox, scene: _Scene, output: int) -> Counter[str]:
    """Start the shop, let customers in, stop it; give what should have arrived.

    Raises:
        _DemoError: it did not start, answer or stop as a shop should.
    """
    environment = _environment(sandbox, scene)
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))  # and the shop listens: no other process can take the port meanwhile
        address = f"http://127.0.0.1:{place.getsockname()[1]}"
        shop = subprocess.Popen(  # noqa: S603 -- our own shop
            [
                *(shutil.which("opentelemetry-instrument", path=environment["PATH"]) or "opentelemetry-instrument", "gunicorn"),
                # A worker that gets SIGTERM while it boots ignores it and has served no request: gunicorn kills it after the grace period.
                *("--workers", "2", "--graceful-timeout", "6", "--bind", f"fd://{place.fileno()}", "--log-level", "warning", scene.app),
            ],
            env=environment,
            stderr=output,
            pass_fds=(place.fileno(),),
        )
    try:
        _wait_for(address, shop)
        print(f"shop:    {address}   ({scene.words})")
        expected = scene.visit(address)
        shop.send_signal(signal.SIGTERM)
        if code := shop.wait(_STOP_SECONDS):
            raise _DemoError(f"the shop ended with exit code {code}")
        return expected
    except subprocess.TimeoutExpired:
        raise _DemoError(f"the shop did not stop within {_STOP_SECONDS:.0f} s") from None
    finally:
        shop.kill()
        shop.wait()


def _environment(sandbox: Sandbox, scene: _Scene) -> dict[str, str]:
    """Give the shop's environment, without what the caller's says about telemetry or proxies."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_") and not name.lower().endswith("_proxy")}
    return {
        **mine,
        # The programs of this very environment, whether it was activated or not.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{mine.get('PATH', os.defpath)}",
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_TRACES_EXPORTER": "amplitude",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_EXPORTER_AMPLITUDE_API_KEY": _KEY,
        "OTEL_EXPORTER_AMPLITUDE_SERVER_URL": f"{sandbox.url}/2/httpapi",
        **scene.environment,
    }


def _wait_for(address: str, shop: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _STARTUP_SECONDS
    while time.monotonic() < end and shop.poll() is None:
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{address}/healthz", timeout=1):
                return
        except OSError:
            time.sleep(0.1)
    raise _DemoError(
        "the shop ended before it answered" if shop.poll() is not None else f"the shop did not answer within {_STARTUP_SECONDS:.0f} s"
    )


# The customers


@dataclass
class _Visitor:
    """A visitor with a browser: keeps the shop's cookies, and may bring one of Amplitude's."""

    address: str
    closing: float
    amplitude_cookie: str = ""
    agent: str = "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"
    opener: urllib.request.OpenerDirector = field(init=False)

    def __post_init__(self) -> None:
        self.jar = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def go(self, path: str, form: dict[str, str] | None = None) -> None:
        if time.monotonic() > self.closing:
            raise _DemoError(f"the shop was too slow: its customers were not served within {_TRADE_SECONDS:.0f} s")
        data = None if form is None else urllib.parse.urlencode(form).encode()
        request = urllib.request.Request(self.address + path, data, {"User-Agent": self.agent})  # noqa: S310 -- loopback
        own = "; ".join(f"{cookie.name}={cookie.value}" for cookie in self.jar)
        request.add_unredirected_header("Cookie", "; ".join(filter(None, (self.amplitude_cookie, own))))
        try:
            with self.opener.open(request, timeout=5) as answer:
                self.jar.extract_cookies(answer, request)
                answer.read()
        except urllib.error.HTTPError as error:
            error.close()
        except (OSError, http.client.HTTPException) as error:
            raise _DemoError(f"the shop did not answer {path}: {error}") from error


def _browser_cookie(number: int, user_id: str | None = None) -> str:
    """Give what Amplitude's browser SDK would have stored: device and session, and the user where the page set one."""
    return make_cookie(_KEY, f"browser-{number}-device", user_id, session_id=int(time.time() * 1000) - 60_000)


def _visit_annotated(address: str) -> Counter[str]:
    """Browsers that Amplitude knows, customers known by their log-in alone, and some who become no event."""
    closing = time.monotonic() + _TRADE_SECONDS
    expected: Counter[str] = Counter()
    for number in range(6):
        expected += _shopping(_Visitor(address, closing, _browser_cookie(number)), log_in=f"customer-{number}" if number % 2 else None)
    for number in range(3):
        expected += _shopping(_Visitor(address, closing), log_in=f"returning-{number}")
    unknown, bot = _Visitor(address, closing), _Visitor(address, closing, make_cookie(_KEY, "bot-device-id"), agent=_BOT)
    for visitor in (unknown, bot):  # neither is a known user, so neither becomes an event
        visitor.go("/products")
    unknown.go("/no/such/page")
    unknown.go("/healthz")
    return expected


def _shopping(visitor: _Visitor, log_in: str | None) -> Counter[str]:
    requests = 0
    if log_in:
        visitor.go("/login", {"customer": log_in})
        requests += 1
    visitor.go("/products?token=secret-that-must-not-travel")
    for name in _PRODUCTS:
        visitor.go(f"/products/{name}")
        visitor.go(f"/cart/{name}", {})
    visitor.go("/checkout", {})
    return Counter({"HTTP Request": requests + 2 + 2 * len(_PRODUCTS), "Order Paid": 1})


def _visit_plain(address: str) -> Counter[str]:
    """Browsers that Amplitude knows, half of them logged in; and one that it does not know."""
    closing = time.monotonic() + _TRADE_SECONDS
    browsers = [_Visitor(address, closing, _browser_cookie(number, f"customer-{number}" if number % 2 else None)) for number in range(6)]
    for visitor in (*browsers, _Visitor(address, closing)):
        visitor.go("/products?token=secret-that-must-not-travel")
        for name in _PRODUCTS:
            visitor.go(f"/cart/{name}", {})
            visitor.go("/poll")
        visitor.go("/cart")
        visitor.go("/orders", {})
    each = Counter({"HTTP Request": 1 + len(_PRODUCTS), "Cart Viewed": 1, "Order Placed": 1})
    return Counter({kind: count * len(browsers) for kind, count in each.items()})


_ANNOTATED: Final = _Scene(
    "otel_amplitude.cli._shop:app",
    "Flask, gunicorn, opentelemetry-instrument; two lines of Amplitude code",
    _visit_annotated,
    revenue=9 * _PRICE * len(_PRODUCTS),
)
_WITH_RULES: Final = _Scene(
    "otel_amplitude.cli._plain_shop:app",
    "Flask, gunicorn, opentelemetry-instrument; no Amplitude code, but a rules file",
    _visit_plain,
    revenue=6 * _PRICE * len(_PRODUCTS),
    environment={"OTEL_EXPORTER_AMPLITUDE_RULES": str(_RULES)},
)


# The report


def _report(sandbox: Sandbox, scene: _Scene, expected: Counter[str], output: str) -> list[str]:
    """Print what arrived, and give what is wrong."""
    events = sandbox.events()
    by_type = Counter(str(event["event_type"]) for event in events)
    print_table("What arrived", ("event type", "events", "users", "revenue"), [_row(kind, events) for kind in sorted(by_type)])
    lines = map(_read_books, re.findall(r"exporter\.stopped (.*)", output))
    books = list({each["pid"]: each for each in lines}.values())  # a process may say them twice: its last word counts
    print_table(
        "The counters of each process, as it said them when it stopped",
        ("process", "accepted", "acknowledged", "refused"),
        [(each["pid"], each["accepted"], each["acknowledged"], _words(each.get("refused"))) for each in books],
    )
    return _problems(scene, expected, events, books)


def _problems(scene: _Scene, expected: Counter[str], events: list[dict[str, Any]], books: list[dict[str, Any]]) -> list[str]:
    by_type = Counter(str(event["event_type"]) for event in events)
    accepted, revenue = sum(each["accepted"] for each in books), _revenue(events)
    problems = []
    if by_type != expected:
        problems.append(f"expected {dict(expected)}, but {dict(by_type)} arrived")
    if accepted != len(events):
        problems.append(f"the processes accepted {accepted} events, but {len(events)} arrived")
    if revenue != scene.revenue:
        problems.append(f"the customers spent {scene.revenue:,.2f}, but {revenue:,.2f} of revenue arrived")
    if any("secret-that-must-not-travel" in str(event) for event in events):
        problems.append("a query string reached an event")
    return problems


def _row(kind: str, events: list[dict[str, Any]]) -> tuple[str, int, int, str]:
    these = [event for event in events if event["event_type"] == kind]
    users = {event.get("user_id") or event.get("device_id") for event in these}
    revenue = _revenue(these)
    return kind, len(these), len(users), f"{revenue:,.2f}" if revenue else "-"


def _revenue(events: list[dict[str, Any]]) -> float:
    return sum(event.get("revenue") or 0.0 for event in events)


def _read_books(line: str) -> dict[str, Any]:
    """Read `pid=7 accepted=3 refused=bot:1,no_identity:2`.

    >>> _read_books("pid=7 accepted=3 refused=bot:1,no_identity:2")
    {'pid': 7, 'accepted': 3, 'refused': {'bot': 1, 'no_identity': 2}}
    """
    books: dict[str, Any] = {}
    for name, value in re.findall(r"(\w+)=(\S+)", line):
        pairs = re.findall(r"([\w.]+):(\d+)", value)
        books[name] = {reason: int(count) for reason, count in pairs} if pairs else int(value)
    return books


def _words(counts: dict[str, int] | None) -> str:
    return ", ".join(f"{reason} {count}" for reason, count in (counts or {}).items())
