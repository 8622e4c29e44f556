"""Where `atexit` never runs: uvicorn on SIGTERM, and Celery's prefork children, deliver all the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery, signals
from opentelemetry import propagate
from opentelemetry.context import attach, detach, get_current

from otel_amplitude.frameworks.celery import instrument
from otel_amplitude.identity import set_user

pytestmark = pytest.mark.heavy

# Stands for a client: what it was given and was not delivered when the process ended is lost.
CLIENT = """
import json, os, pathlib
from otel_amplitude.identity import scope_of
class Client:
    def __init__(self): self.pending = []
    def log(self, name):
        scope = scope_of()
        self.pending.append([name, scope.user_id if scope else None])
    def shutdown(self):
        pathlib.Path(os.environ["DELIVERED"]).with_suffix(f".{os.getpid()}").write_text(json.dumps(self.pending))
client = Client()
"""

WEB = """
from fastapi import FastAPI
from otel_amplitude.frameworks.asgi import FlushOnShutdown
from otel_amplitude.frameworks.starlette import AmplitudeMiddleware
from otel_amplitude.identity import set_user
from fake_client import client
async def plain(scope, receive, send):
    assert scope["type"] == "http", "no lifespan here"
    set_user("u-12345")
    client.log("request")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})
fast = FastAPI()
fast.add_middleware(AmplitudeMiddleware)
fast.add_middleware(FlushOnShutdown, client=client)
@fast.get("/")
def home():
    set_user("u-12345")
    client.log("request")
bare = FlushOnShutdown(AmplitudeMiddleware(plain), lambda: client)
"""

TASKS = """
import os
from celery import Celery
from otel_amplitude.frameworks.celery import instrument
from fake_client import client
app = Celery("shop", broker="filesystem://", set_as_current=False)
folder = os.environ["BROKER"]
app.conf.update(broker_connection_retry_on_startup=True, broker_transport_options={
    "data_folder_in": folder, "data_folder_out": folder, "control_folder": folder + "-control", "polling_interval": 0.05})
instrument(client)
@app.task(name="mail")
def mail():
    client.log("task")
    open(os.environ["DONE"], "a").write("x")
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `python -m …` beside the modules above, and ends what is left."""
    (tmp_path / "fake_client.py").write_text(textwrap.dedent(CLIENT))
    (tmp_path / "web.py").write_text(textwrap.dedent(WEB))
    (tmp_path / "tasks.py").write_text(textwrap.dedent(TASKS))
    for folder in ("broker", "broker-control"):
        (tmp_path / folder).mkdir()
    started: list[subprocess.Popen[str]] = []
    environment = {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "DELIVERED": str(tmp_path / "delivered.json"),
        "DONE": str(tmp_path / "done"),
        "BROKER": str(tmp_path / "broker"),
    }

    def run(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", *arguments]
        started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def delivered(folder: Path) -> list[list[str]]:
    """What the processes delivered before they ended, those that had nothing left out."""
    return [pending for path in folder.glob("delivered.*") for pending in json.loads(path.read_text())]


@pytest.mark.parametrize("app", ["fast", "bare"])
def test_uvicorn_delivers_on_sigterm(start: Callable[..., subprocess.Popen[str]], tmp_path: Path, app: str) -> None:
    """Forty of forty, for an application with a lifespan and for one without."""
    server = start("uvicorn", f"web:{app}", "--port", "0", "--no-access-log")
    assert server.stderr is not None
    line = next(line for line in server.stderr if "running on" in line)
    url = line.split("running on ")[1].split()[0]
    for _ in range(40):
        with urllib.request.urlopen(url) as response:
            assert response.status == 200
    server.send_signal(signal.SIGTERM)
    server.wait(20)
    assert delivered(tmp_path) == [["request", "u-12345"]] * 40


def test_prefork_children_deliver(start: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """A task in a prefork child acts for who caused it, and the child delivers when the worker is stopped."""
    app = Celery("shop", broker="filesystem://", set_as_current=False)
    folder = str(tmp_path / "broker")
    app.conf.broker_transport_options = {"data_folder_in": folder, "data_folder_out": folder, "control_folder": f"{folder}-control"}
    instrument()
    token = attach(propagate.extract({}, get_current()))
    set_user("u-12345")
    try:
        for _ in range(3):
            app.send_task("mail")
    finally:
        detach(token)
        for connected in (signals.before_task_publish, signals.task_prerun, signals.task_postrun):
            connected.disconnect(dispatch_uid="otel_amplitude")
    worker = start(
        "celery", "-A", "tasks", "worker", "-P", "prefork", "-c", "1", "--without-gossip", "--without-mingle", "--without-heartbeat"
    )
    done, deadline = tmp_path / "done", time.monotonic() + 30
    while not (done.exists() and len(done.read_text()) == 3):
        assert time.monotonic() < deadline
        time.sleep(0.05)  # another process works: there is nothing to wait on but its file
    worker.send_signal(signal.SIGTERM)
    worker.wait(20)
    assert delivered(tmp_path) == [["task", "u-12345"]] * 3
