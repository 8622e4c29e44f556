"""Programs that are killed, forked, patched or starved by the tests beside this file, against a server of this process."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from servers import Server

KEY = "0123456789abcdef0123456789abcdef"

HEAD = f"""
import json, os, resource, signal, sys, threading, time
sys.path.append({str(Path(__file__).parents[1])!r})
from punctual import Stopwatch
from otel_amplitude import Amplitude, AmplitudeSpanProcessor, Config, init
KEY, URL, FOLDER = sys.argv[1:4]
def options(**more):
    return {{"server_url": URL, "upload_interval": 0.01, "request_timeout": 2.0, "retry_timeouts": [0.01] * 1000, **more}}
def spooling(**more):
    return options(spool_dir=FOLDER, **more)
def event(number, user=None):
    return {{"event_type": "Order Paid", "user_id": user or f"user-{{number % 5}}", "insert_id": str(number), "event_properties": {{"number": number}}}}
def become_nobody():
    import encodings.idna, requests, structlog, urllib.request
    from otel_amplitude import _adapter
    if os.geteuid() == 0:
        os.setegid(65534)
        os.seteuid(65534)
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
def books(client):
    books = client.stats()
    assert books.balanced, books
    return books
"""


@contextlib.contextmanager
def program(text: str, url: str, folder: Path, *arguments: object, python: str = sys.executable) -> Iterator[subprocess.Popen[str]]:
    """Start a program; the test writes its standard input and reads its standard output and error."""
    command = [python, "-W", "ignore", "-c", HEAD + textwrap.dedent(text), KEY, url, str(folder), *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def run(text: str, url: str, folder: Path, *arguments: object, seconds: float = 50.0) -> str:
    """Run a program to its end, which must be a good one that shows no key; give what it said."""
    with program(text, url, folder, *arguments) as process:
        said, complained = process.communicate(timeout=seconds)
    assert process.returncode == 0, complained
    assert KEY not in said + complained
    assert "Traceback" not in complained, complained
    return said


def arrived(server: Server) -> set[str]:
    """The insert_ids that arrived; every transmission of one was the same, which is what lets the server drop the others."""
    found: dict[str, str] = {}
    for event in server.events:
        text = json.dumps(event)
        assert found.setdefault(event["insert_id"], text) == text
    return set(found)


def replay(server: Server, folder: Path, looks: int = 40, seconds: float = 50.0) -> None:
    """Let later processes adopt and deliver what earlier ones left, until only the quarantine is on disk, and nothing of the key was."""
    assert not [path for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    text = """
        client = Amplitude(Config(KEY, **spooling()))
        client.flush(30)
        client.shutdown(5)
        say(books(client).adopted)
    """
    for _ in range(looks):
        if all(path.parent.name == "quarantine" for path in folder.glob("*/*/*.seg")):
            return
        run(text, server.url, folder, seconds=seconds)
    raise AssertionError(f"something stays on disk: {list(folder.rglob('*'))}")
