"""What every test gets: nothing leaves loopback, and hypothesis is repeatable in CI."""

from __future__ import annotations

import _thread
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from refused_threads import Threads

from otel_amplitude.identity._scope import process

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("default"), derandomize=True)
settings.register_profile("quick", parent=settings.get_profile("ci"), max_examples=20)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "default"))

# Whoever runs the tests in the background of a shell, or under nohup, has these ignored, and so would the programs that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

_LOOPBACK = ("127.", "localhost", "::1")
_connect = socket.socket.connect


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `nox -s soak -- --soak-minutes 5` be shorter than an hour."""
    parser.addoption("--soak-minutes", type=float, default=60.0, help="how long the trial with faults and restarts takes; default: 60")


def pytest_collection_finish() -> None:
    """Let the collector of garbage pass over all that pytest found: to look at it stops every thread for a quarter of a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def start_lines_of_other_tests_are_forgotten() -> Iterator[None]:
    """What a client writes into the environment for its workers would silence the start lines of later tests, and of their programs."""
    yield
    os.environ.pop("_OTEL_AMPLITUDE_STARTED", None)


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to anywhere but this machine is a failed test."""

    def connect(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and not str(address[0]).startswith(_LOOPBACK):
            pytest.fail(f"a test tried to leave loopback: {address}")
        _connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.fixture(autouse=True)
def new_process() -> None:
    """No request has begun in this process, as far as `set_user` knows."""
    process.forget()


@pytest.fixture(autouse=True)
def same_logger() -> Iterator[None]:
    """A client at VERBOSE opens the package's logger for the process, frameworks close others: each test finds it new."""
    logger = logging.getLogger("otel_amplitude")
    level, handlers = logger.level, list(logger.handlers)
    logger.disabled = False
    logging.root.setLevel(logging.WARNING)  # Celery makes it ERROR for good
    logging.disable(logging.NOTSET)
    yield
    logger.setLevel(level)
    logger.handlers[:] = handlers


@pytest.fixture
def started_here(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What runs in the threads that the test itself starts, by whatever it calls; those of earlier tests may come and go meanwhile."""
    started: list[object] = []
    here, start, start_raw = threading.get_ident(), threading.Thread.start, _thread.start_new_thread

    def noted(thread: threading.Thread) -> None:
        if threading.get_ident() == here:
            started.append(thread)
        start(thread)

    def noted_raw(function: Any, arguments: Any) -> int:
        if threading.get_ident() == here:
            started.append(function)
        return start_raw(function, arguments)

    monkeypatch.setattr(threading.Thread, "start", noted)
    monkeypatch.setattr(_thread, "start_new_thread", noted_raw)  # what `threading` calls by a name of its own
    return started


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Threads:
    """Threads that can be refused."""
    return Threads(monkeypatch)


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Let threads take turns as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)
