"""Starts real programs, instrumented without code, against a sandbox; talks to them, stops them, and gives what they said."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from otel_amplitude.identity import make_cookie
from otel_amplitude.sandbox import Sandbox

KEY = "0123456789abcdef0123456789abcdef"
APPS = Path(__file__).parent / "apps"
BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
BOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"
START_SECONDS = 40.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.02


def tool(name: str) -> str:
    """The path of a program of this very environment."""
    return str(Path(sys.executable).with_name(name))


def environment(sandbox_url: str | None = None, **more: str | None) -> dict[str, str]:
    """The environment of a zero-code user of ours; None takes a variable out."""
    values: dict[str, str | None] = {
        **{name: os.environ.get(name) for name in ("PATH", "HOME", "LANG", "TMPDIR")},
        "PYTHONPATH": str(APPS),
        "PYTHONUNBUFFERED": "1",
        "OTEL_SERVICE_NAME": "shop",
        # Each start would import them all: a third of this folder's time.
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "aiohttp-server,celery,django,falcon,tornado",
        "OTEL_TRACES_EXPORTER": "amplitude",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_EXPORTER_AMPLITUDE_API_KEY": KEY,
        "OTEL_EXPORTER_AMPLITUDE_SERVER_URL": f"{sandbox_url}/2/httpapi" if sandbox_url else None,
        **more,
    }
    return {name: value for name, value in values.items() if value is not None}


# Two workers, whose master tells on the port of its statistics what they are doing; the application comes last.
UWSGI = (
    tool("uwsgi"),
    "--http",
    "127.0.0.1:{port}",
    "--stats",
    "127.0.0.1:{stats}",
    "--master",
    "--processes",
    "2",
    "--die-on-term",
    "--wsgi",
)


class Program:
    """A program in a process group of its own, its output in a file; ended when the `with` block is left.

    `{port}` and `{stats}` in the command become free ports.
    """

    def __init__(self, command: Sequence[str], env: dict[str, str]) -> None:
        self.port, self.stats = free_port(), free_port()
        command = [part.replace("{port}", str(self.port)).replace("{stats}", str(self.stats)) for part in command]
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 -- lives as long as the program
        self.process = subprocess.Popen(
            command, env=env, cwd=APPS, stdout=self._file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
        )

    def __enter__(self) -> Program:  # noqa: PYI034 -- Self needs Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # what is left of it
        self.process.wait()
        self._file.close()

    @property
    def output(self) -> str:
        """All that it has written so far."""
        return os.pread(self._file.fileno(), 1 << 24, 0).decode(errors="replace")

    def until(self, text: str, seconds: float = START_SECONDS) -> None:
        """Wait until it has written `text`."""
        end = time.monotonic() + seconds
        while text not in self.output:
            assert time.monotonic() < end, f"never said {text!r}, but:\n{self.output}"
            assert self.process.poll() is None or text in self.output, f"ended without {text!r}:\n{self.output}"
            time.sleep(POLL_SECONDS)

    def until_idle(self) -> None:
        """Wait until all workers of uWSGI, which tells at `{stats}`, have left their requests: told to end inside one, they skip every exit hook.

        An answer comes before that, and another worker's line in the log says nothing of it.
        """
        end = time.monotonic() + START_SECONDS
        while True:
            with (
                contextlib.suppress(ConnectionRefusedError),  # its master tells, and starts to after the workers
                socket.create_connection(("127.0.0.1", self.stats)) as connection,
                connection.makefile("rb") as file,
            ):
                if all(worker["status"] == "idle" for worker in json.loads(file.read())["workers"]):
                    return
            assert time.monotonic() < end, f"a worker of uWSGI does not leave its request:\n{self.output}"
            time.sleep(POLL_SECONDS)

    def wait(self, seconds: float = START_SECONDS) -> int:
        """Wait for its own end; give the exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end within {seconds} s:\n{self.output}") from None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Tell it to end, and wait for all of its processes."""
        self.process.send_signal(number)
        code = self.wait(STOP_SECONDS)
        end = time.monotonic() + STOP_SECONDS
        while _group_lives(self.process.pid):
            assert time.monotonic() < end, f"processes were left behind:\n{self.output}"
            time.sleep(POLL_SECONDS)
        return code

    def kill(self) -> None:
        """Kill all of its processes, and wait until none holds a file or a lock any more."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        end = time.monotonic() + STOP_SECONDS
        while _group_runs(self.process.pid):
            assert time.monotonic() < end, f"a process outlived SIGKILL:\n{self.output}"
            time.sleep(POLL_SECONDS)

    @property
    def books(self) -> Counter[str]:
        """The sums of the last line of books of each process; reasons are written as in `refused.bot`."""
        found: Counter[str] = Counter()
        for line in dict(re.findall(r"exporter\.(?:stopped|books) pid=(\d+) (.*)", self.output)).values():
            for name, value in (part.split("=", 1) for part in line.split()):
                reasons = [reason.split(":") for reason in value.split(",")]
                found.update({".".join([name, *reason[:-1]]): int(reason[-1]) for reason in reasons})
        return found


@contextlib.contextmanager
def ended(command: Sequence[str], env: dict[str, str], *, code: int = 0) -> Iterator[Program]:
    """Run a program to its end, which must come with this exit code."""
    with Program(command, env) as program:
        assert program.wait() == code, program.output
        yield program


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _group_runs(group: int) -> bool:
    """Whether a thread of the process group is left that is no zombie; who reaps orphans here may take its time."""
    for task in Path("/proc").glob("[0-9]*/task/[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            state, _, its_group, *_ = task.read_text().rpartition(")")[2].split()
            if int(its_group) == group and state not in "ZX":
                return True
    return False


# Below those that the kernel hands out: in the seconds until a server listens, a hundred other sockets of this suite get one of those.
PORTS = range(20_000, 32_000)
WORKERS = 8


def free_port() -> int:
    """A port that nobody listens on now, and that nobody else is given before it is used: each worker of xdist has its own."""
    mine = PORTS[int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS :: WORKERS]
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", secrets.choice(mine)))
            return int(probe.getsockname()[1])


class App(Program):
    """A web server under `opentelemetry-instrument`, which listens on `{port}`. Ready when it is entered."""

    def __init__(self, command: Sequence[str], env: dict[str, str]) -> None:
        super().__init__([tool("opentelemetry-instrument"), *command], env)

    def __enter__(self) -> App:  # noqa: PYI034 -- Self needs Python 3.11
        end = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self
            if self.process.poll() is not None or time.monotonic() > end:
                said = self.output
                self.__exit__()
                raise AssertionError(f"the server did not start:\n{said}")
            time.sleep(POLL_SECONDS)

    def request(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[int, bytes]:
        """Make one request with an own connection; header names with underscores for hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_SECONDS)
        try:
            named = {name.replace("_", "-"): value for name, value in {"User_Agent": BROWSER, **headers}.items()}
            connection.request(method, path, body, named)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


class Seen(NamedTuple):
    """What matters of one event."""

    event_type: str
    method: str | None
    route: str | None
    user: str | None
    device: str | None
    session: int | None


def seen(event: dict[str, Any]) -> Seen:
    """What matters of an event that arrived."""
    properties = event.get("event_properties", {})
    return Seen(
        event["event_type"],
        properties.get("method"),
        properties.get("route"),
        event.get("user_id"),
        event.get("device_id"),
        event.get("session_id"),
    )


@dataclass
class Trade:
    """What a day's visitors did to a shop, and what should become of it."""

    expected: Counter[Seen] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def visit(self, app: App, *, products: int = 40) -> None:
        """Let everybody in: browsers, customers who log in, a bot, a probe, somebody unknown, broken and missing pages."""
        now = int(time.time() * 1000)
        for number in range(products):
            session = now - 60_000 - number % 4
            self._ask(
                app,
                200,
                "GET",
                f"/products/{number}?token=s3cret",
                "/products/{pid}",
                device=f"browser-{number % 4}-device",
                session=session,
            )
        asked = {"device": "browser-9-device", "session": now - 90_000}
        self._ask(app, 200, "POST", "/login", "/login", user="customer-9", set_by_app=True, **asked)
        self._ask(app, 200, "GET", "/stream", "/stream", user="cookie-user", **asked)
        self._ask(app, 200, "POST", "/orders", "/orders", user="customer-9", set_by_app=True, **asked)
        self.expected[Seen("Order Paid", None, None, "customer-9", asked["device"], asked["session"])] += 1
        cookie = make_cookie(KEY, "browser-9-device")
        assert app.request("GET", "/products/1", Cookie=cookie, User_Agent=BOT)[0] == 200
        assert app.request("GET", "/products/1")[0] == 200
        assert app.request("GET", "/healthz", Cookie=cookie)[0] == 200
        assert app.request("GET", "/no/such/page", Cookie=cookie)[0] == 404
        with contextlib.suppress(http.client.HTTPException, OSError):  # a server may just hang up
            assert app.request("GET", "/boom", Cookie=cookie)[0] == 500
        assert app.request("GET", "/static/app.js", Cookie=cookie)[0] in (200, 404)
        self.refused += Counter({"bot": 1, "no_identity": 1, "excluded": 1})

    def _ask(
        self,
        app: App,
        status: int,
        method: str,
        path: str,
        route: str,
        *,
        device: str,
        session: int,
        user: str | None = None,
        set_by_app: bool = False,
    ) -> None:
        cookie = make_cookie(KEY, device, None if set_by_app else user, session)
        headers = {"Cookie": cookie, **({"X_Customer": user} if user and set_by_app else {})}
        assert app.request(method, path, None, **headers)[0] == status
        self.expected[Seen("HTTP Request", method, route, user, device, session)] += 1


def check(sandbox: Sandbox, app: App, trade: Trade) -> list[dict[str, Any]]:
    """Every event is there exactly once, what was left out is counted, and nothing private came along; give the events."""
    events = sandbox.events()
    assert Counter(map(seen, events)) == trade.expected, app.output
    assert sandbox.duplicates == 0
    assert len({event["insert_id"] for event in events}) == len(events)
    assert "s3cret" not in str(events)
    books = app.books
    assert books["accepted"] == books["acknowledged"] == len(events), app.output
    assert all(books[f"refused.{reason}"] >= count for reason, count in trade.refused.items()), app.output
    return events


@contextlib.contextmanager
def sandboxed() -> Iterator[Sandbox]:
    """A sandbox that knows our key only."""
    with Sandbox(api_keys=[KEY]) as sandbox:
        yield sandbox
