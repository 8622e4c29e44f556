"""Each page of docs/start, followed literally in an environment made for it: install, run, visit; then the event is in the sandbox."""

from __future__ import annotations

import http.cookiejar
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from test_docs import DOCS, ROOT, of_language
from zero_code.running import Program, free_port

from otel_amplitude.cli._ask import ask
from otel_amplitude.sandbox import Sandbox

pytestmark = pytest.mark.timeout(240)


class Expected(NamedTuple):
    """What a page promises, and the words that give its command another port where it names none."""

    events: list[tuple[str, str]]
    port: str = ""


_REQUEST = [("HTTP Request", "u-12345")]
_SHOP = [("HTTP Request", "u-12345"), ("Order Paid", "u-12345"), ("HTTP Request", "u-12345")]
PAGES = {
    "flask": Expected(_SHOP, "--port {port}"),
    "fastapi": Expected(_SHOP, "--port {port}"),
    "django": Expected([("HTTP Request", "user-1")], "127.0.0.1:{port}"),
    "starlette": Expected(_REQUEST, "--port {port}"),
    "aiohttp": Expected(_REQUEST, "--port {port}"),
    "tornado": Expected(_REQUEST),
    "falcon": Expected(_REQUEST),
    "celery": Expected([("Invoice Sent", "u-12345")]),
    "script-or-notebook": Expected([("Report Built", "u-12345")]),
}
# One for each kind of server; the others are for `nox -s soak`.
QUICK = ("flask", "fastapi", "script-or-notebook")


class Reader:
    """Follows a page in a folder and an environment of its own."""

    def __init__(self, page: str, folder: Path) -> None:
        self.page = DOCS / f"start/{page}.md"
        self.folder = folder
        self.environment = folder / ".venv"
        self.text = self.page.read_text(encoding="utf-8")
        self.port = free_port()
        self.written_port = (re.search(r"curl .*127\.0\.0\.1:(\d+)", self.text) or ["", ""])[1]

    def block(self, mark: str) -> str:
        """The commands under a mark, with this machine's port for the page's."""
        (found,) = of_language("sh", mark, self.page)
        return self.here(found.code)

    def here(self, text: str) -> str:
        return text.replace(self.written_port, str(self.port)) if self.written_port else text

    def install(self) -> None:
        """The page's command, with this clone for the release, and uv for pip, which does the same faster."""
        command = next(block.code for block in of_language("sh", page=self.page) if block.code.startswith("pip install"))
        words = [re.sub(r"^otel-amplitude", str(ROOT), word) for word in shlex.split(command)[2:]]
        uv = [sys.executable, "-m", "uv"]
        subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(self.environment)], check=True, timeout=60)
        to = ["--python", str(self.environment / "bin/python")]
        subprocess.run([*uv, "pip", "install", "--quiet", "--no-progress", *to, *words], check=True, timeout=200)

    def write(self) -> None:
        """The page's files."""
        for mark, mode in (("file: ", "w"), ("append: ", "a")):
            for block in of_language("python", mark, self.page):
                path = self.folder / block.mark.removeprefix(mark)
                path.parent.mkdir(exist_ok=True)
                with path.open(mode, encoding="utf-8") as file:
                    file.write(self.here(block.code))

    def shell(self, script: str) -> tuple[list[str], dict[str, str]]:
        path = f"{self.environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
        words = ["bash", "-e", "-c", f"cd {shlex.quote(str(self.folder))}\n{script}"]
        return words, {"PATH": path, "HOME": str(self.folder), "PYTHONUNBUFFERED": "1", "LANG": "C.UTF-8"}

    def do(self, script: str, **more: str) -> str:
        """Run commands to their end; what they say on both outputs."""
        words, env = self.shell(script)
        ran = subprocess.run(
            words, env={**env, **more}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=100
        )
        assert ran.returncode == 0, ran.stdout
        return ran.stdout

    def serve(self, sandbox: Sandbox, port_words: str) -> Program:
        """The page's server, in the sandbox that runs."""
        script = self.block("run: server").rstrip("\n")
        if str(self.port) not in script:
            script += f" {port_words.format(port=self.port)}"
        return Program(self.shell(with_sandbox(script, sandbox.url))[0], self.shell("")[1])

    def wait(self, server: Program) -> None:
        """Until it listens."""
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert server.process.poll() is None, server.output
                assert time.monotonic() < end, server.output
                time.sleep(0.05)
            else:
                return


def with_sandbox(script: str, url: str) -> str:
    return script.replace("run --sandbox", f"run --sandbox --port {url.rpartition(':')[2]}")


def log_in_to_the_admin(reader: Reader) -> None:
    """As a browser does: the form's token and the cookies come back."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()), urllib.request.ProxyHandler({}))
    url = f"http://127.0.0.1:{reader.port}/admin/login/?next=/admin/"
    with browser.open(url, timeout=30) as answer:
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', answer.read().decode())
    assert token
    form = {"csrfmiddlewaretoken": token[1], "username": "alice", "password": "wonderland-1"}
    request = urllib.request.Request(url, urllib.parse.urlencode(form).encode(), {"Referer": url})
    with browser.open(request, timeout=30) as answer:
        assert b"Log out" in answer.read()


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A sandbox that `run` finds."""
    with Sandbox() as running:
        yield running


def test_every_page_is_followed() -> None:
    """A new framework needs a line here."""
    assert {path.stem for path in DOCS.glob("start/*.md")} - {"index", "going-live"} == set(PAGES)


@pytest.mark.parametrize(
    "page",
    [pytest.param(name, marks=pytest.mark.heavy if name in QUICK else pytest.mark.soak) for name in PAGES if name != "script-or-notebook"],
)
def test_a_page_ends_in_its_events(page: str, sandbox: Sandbox, tmp_path: Path) -> None:
    """In at most three commands, and 120 seconds on a machine with nothing else to do (measured, not asserted: `pytest -rP` shows it)."""
    folder = tmp_path / page
    folder.mkdir()
    reader, expected = Reader(page, folder), PAGES[page]
    begun = time.monotonic()
    reader.install()
    installed = time.monotonic()
    if page == "django":  # which the reader has; the page names the commands
        reader.do("django-admin startproject mysite .\npython manage.py migrate --verbosity 0")
        account = {
            "DJANGO_SUPERUSER_USERNAME": "alice",
            "DJANGO_SUPERUSER_PASSWORD": "wonderland-1",
            "DJANGO_SUPERUSER_EMAIL": "a@b.example",
        }
        reader.do("python manage.py createsuperuser --noinput", **account)
    reader.write()
    with reader.serve(sandbox, expected.port) as server:
        if reader.written_port:
            reader.wait(server)
        reader.do(reader.block("run: visit"))
        if page == "django":
            log_in_to_the_admin(reader)
        assert sandbox.wait_for(lambda _: sandbox.accepted >= len(expected.events), 60), server.output
        ended = time.monotonic()
    events = [(event["event_type"], event.get("user_id", "")) for event in sandbox.events()]
    if page == "django":  # the log-in leads to the page that is promised by way of others
        assert expected.events[0] in events
        assert {event["event_properties"]["route"] for event in sandbox.events()} >= {"/admin"}
    else:
        assert sorted(events) == sorted(expected.events)
    assert {event["event_properties"].get("service") for event in sandbox.events() if event["event_type"] == "HTTP Request"} <= {page}
    print(f"{page}: {ended - begun:.1f} s, of which installing {installed - begun:.1f} s")


@pytest.mark.heavy
def test_a_script_ends_in_its_event(tmp_path: Path) -> None:
    """And in a sandbox of its own, which outlives the script, is found by the next one, and ends as `run` has said."""
    reader = Reader("script-or-notebook", tmp_path)
    begun = time.monotonic()
    reader.install()
    reader.write()
    url = f"http://127.0.0.1:{reader.port}"
    said = reader.do(with_sandbox(reader.block("run: visit"), url))
    started = re.search(rf"sandbox {url} \(started, kill (\d+) ends it\)", said)
    assert started, said
    try:
        (event,) = ask(url, "/api/events")["events"]
        print(f"script: {time.monotonic() - begun:.1f} s")
        assert (event["type"], event["user"]) == ("Report Built", "u-12345")
        assert f"sandbox {url} (found)" in reader.do(with_sandbox(reader.block("run: visit"), url))
    finally:
        os.kill(int(started[1]), signal.SIGTERM)
    end = time.monotonic() + 20
    while shutil.which("curl") and subprocess.run(["curl", "-s", url], capture_output=True, check=False, timeout=10).returncode == 0:
        assert time.monotonic() < end
