"""The steps that the sandbox's page shows for each framework, followed literally: they end in an event, or in the reason why there is none."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from zero_code.running import Program, free_port, tool

from otel_amplitude.identity import make_cookie
from otel_amplitude.sandbox import Sandbox
from otel_amplitude.sandbox._guide import FRAMEWORKS, KEY, guide

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(150)]

_URLS = (
    "from django.http import HttpResponse\nfrom django.urls import path\nurlpatterns = [path('tea', lambda request: HttpResponse('tea'))]\n"
)


class Trial(NamedTuple):
    """The smallest application of a framework, and the words that give its command a port."""

    files: dict[str, str]
    port: str


TRIALS = {
    "Flask": Trial({"shop.py": "from flask import Flask\napp = Flask(__name__)\napp.get('/tea')(lambda: 'tea')\n"}, "--port {port}"),
    "FastAPI": Trial(
        {"shop.py": "from fastapi import FastAPI\napp = FastAPI()\n@app.get('/tea')\ndef tea(): return 'tea'\n"}, "--port {port}"
    ),
    "Starlette": Trial(
        {
            "shop.py": "from starlette.applications import Starlette\nfrom starlette.responses import PlainTextResponse\n"
            "from starlette.routing import Route\ndef tea(request): return PlainTextResponse('tea')\n"
            "app = Starlette(routes=[Route('/tea', tea)])\n"
        },
        "--port {port}",
    ),
    "Django": Trial(
        {
            "manage.py": "import os, sys\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings')\nfrom django.core.management import execute_from_command_line\nexecute_from_command_line(sys.argv)\n",
            "shop/__init__.py": "",
            "shop/urls.py": _URLS,
            "shop/settings.py": "SECRET_KEY = 'x'\nROOT_URLCONF = 'shop.urls'\nDEBUG = True\n",
        },
        "{port}",
    ),
    "aiohttp": Trial(
        {
            "shop.py": "import sys\nfrom aiohttp import web\nasync def tea(request): return web.Response(text='tea')\napp = web.Application()\n"
            "app.add_routes([web.get('/tea', tea)])\nweb.run_app(app, host='127.0.0.1', port=int(sys.argv[1]))\n"
        },
        "{port}",
    ),
}
# A task and a script name their events themselves.
CELERY = """
import otel_amplitude
from celery import Celery

app = Celery("shop", broker="filesystem://")
app.conf.broker_transport_options = {"data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "queue"}

@app.task
def invoice(user_id):
    {user}
"""
SCRIPT = "import otel_amplitude\notel_amplitude.configure()\n{user}\n"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A running sandbox."""
    with Sandbox() as running:
        yield running


def follow(title: str, sandbox: Sandbox, folder: Path, more: str = "") -> Program:
    """Run the commands of the page in a shell that knows nothing else."""
    steps = next(each for each in guide(sandbox.url)["frameworks"] if each["title"] == title)
    assert steps["install"].startswith("pip install ")
    script = "\n".join((f"cd {shlex.quote(str(folder))}", *steps["environment"], f"exec {steps['start']} {more}"))
    path = os.pathsep.join((str(Path(tool("python")).parent), os.environ["PATH"]))
    return Program(["bash", "-e", "-c", script], {"PATH": path, "HOME": str(folder), "PYTHONUNBUFFERED": "1"})


def ask(url: str, **headers: str) -> None:
    """Ask for a page, as soon as the service listens."""
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
                assert b"tea" in answer.read()
                return
        except urllib.error.URLError:
            assert time.monotonic() < end
            time.sleep(0.1)


def test_every_framework_of_the_page_is_tried() -> None:
    """A new one needs a trial here."""
    assert {framework.title for framework in FRAMEWORKS} == {*TRIALS, "Celery", "Script"}


@pytest.mark.parametrize("title", TRIALS)
def test_a_service_started_as_the_page_says(title: str, sandbox: Sandbox, tmp_path: Path) -> None:
    """A request of nobody is counted on the page within seconds, though there is no event; one with Amplitude's cookie is an event."""
    for name, text in TRIALS[title].files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    port = free_port()
    with follow(title, sandbox, tmp_path, TRIALS[title].port.format(port=port)) as service:
        ask(f"http://127.0.0.1:{port}/tea")
        assert sandbox.wait_for(lambda _: sandbox._running.counters()["refused"] == [{"reason": "no_identity", "count": 1}], 20), (
            service.output
        )
        assert sandbox.requests == []
        ask(
            f"http://127.0.0.1:{port}/tea",
            Cookie=make_cookie(KEY, "a-browser-device", "u-12345", int(time.time() * 1000)).removeprefix("Cookie: "),
        )
        assert sandbox.wait_for(lambda _: sandbox.accepted == 1, 20), service.output
    (event,) = sandbox.events()
    assert (event["event_type"], event["event_properties"]["service"]) == ("HTTP Request", tmp_path.name)
    assert sandbox._running.counters()["processes"][0]["service"] == tmp_path.name


def test_a_worker_started_as_the_page_says(sandbox: Sandbox, tmp_path: Path) -> None:
    """A Celery task that names its event gives it."""
    (user,) = (framework.user for framework in FRAMEWORKS if framework.title == "Celery")
    (tmp_path / "shop.py").write_text(CELERY.replace("{user}", user), encoding="utf-8")
    (tmp_path / "queue").mkdir()
    call = [sys.executable, "-c", "import shop; shop.invoice.delay('u-12345')"]
    subprocess.run(call, check=True, cwd=tmp_path, env={"PATH": os.environ["PATH"]}, timeout=60)
    with follow("Celery", sandbox, tmp_path, "--pool solo") as worker:
        assert sandbox.wait_for(lambda _: sandbox.accepted == 1, 60), worker.output
    assert sandbox.events()[0]["event_type"] == "Invoice Sent"


def test_a_script_started_as_the_page_says(sandbox: Sandbox, tmp_path: Path) -> None:
    """It ends, and its event has arrived."""
    (user,) = (framework.user for framework in FRAMEWORKS if framework.title == "Script")
    (tmp_path / "shop.py").write_text(SCRIPT.replace("{user}", user), encoding="utf-8")
    with follow("Script", sandbox, tmp_path) as script:
        assert script.wait() == 0, script.output
    assert sandbox.events()[0]["event_type"] == "Report Built"
