"""Processes that fork at the worst moment, or are patched by gevent late."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import servers
from hostile.programs import arrived, run
from servers import Server

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(120)]


@pytest.mark.parametrize("module", ["requests.adapters", "structlog.stdlib"])
def test_a_fork_while_the_sender_imports(tmp_path: Path, module: str) -> None:
    """The first request imports requests, the first line structlog; a child forked then would wait for the module for ever: it delivers."""
    text = """
        import importlib.abc
        importing, forking = threading.Event(), threading.Event()
        os.register_at_fork(before=forking.set)  # the last one that is registered runs first
        class Slow(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path, target=None):
                if name == sys.argv[4] and not importing.is_set():
                    importing.set()
                    forking.wait(10)
                    time.sleep(0.5)
        sys.meta_path.insert(0, Slow())
        client = Amplitude(Config(KEY, **options()))
        client.log_event(event(1))
        assert importing.wait(10)
        assert sys.argv[4] not in sys.modules
        child = os.fork()
        if child == 0:
            client.log_event(event(2))
            assert client.flush(10), client.stats()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert client.flush(10)
    """
    with Server(servers.answer(503), servers.answer(503), servers.accept()) as server:
        run(text, server.url, tmp_path / "spool", module)
        assert arrived(server) == {"1", "2"}


@pytest.mark.parametrize("spooled", [False, True])
def test_forks_of_forks_while_a_request_is_in_flight(tmp_path: Path, spooled: bool) -> None:
    """Three generations, each forked while its parent waits for an answer that is late: everybody's events arrive once."""
    text = """
        client = Amplitude(Config(KEY, **options(**json.loads(sys.argv[4]))))
        def live(depth):
            assert books(client).accepted == 0
            for number in range(20):
                assert client.log_event(event(depth * 100 + number)).accepted
            until = time.monotonic() + 10
            while not books(client).pending.in_flight and not books(client).acknowledged:
                assert time.monotonic() < until
                time.sleep(0.001)
            child = os.fork() if depth < 3 else None
            if child == 0:
                live(depth + 1)
                os._exit(0)
            assert client.flush(20), client.stats()
            assert client.shutdown(5)
            assert books(client).acknowledged == 20
            if child:
                assert os.waitpid(child, 0)[1] == 0
        live(0)
    """
    slow = [] if spooled else [servers.trickle_headers(0.01)]
    options = {"spool_dir": str(tmp_path / "spool")} if spooled else {"request_timeout": 0.3}
    with Server(*slow, servers.accept(), servers.answer(503), servers.hang_up(), servers.accept()) as server:
        run(text, server.url, tmp_path / "spool", json.dumps(options))
        assert arrived(server) == {str(depth * 100 + number) for depth in range(4) for number in range(20)}
    assert not list((tmp_path / "spool").glob("*/*"))


GEVENT = """
    import logging
    import opentelemetry.sdk.trace
    make = lambda: Amplitude(Config(KEY, **json.loads(sys.argv[4]), **options(middleware=[wait])))
    def wait(payload, next):
        import gevent
        gevent.sleep(0.01)
        next(payload)
    early = sys.argv[5] == "made before"
    client = make() if early else None
    import warnings
    warnings.simplefilter("ignore")
    from gevent import monkey
    monkey.patch_all()
    import gevent
    client = client or make()
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry._logs import LogRecord
    from otel_amplitude import AmplitudeLogRecordProcessor
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(AmplitudeLogRecordProcessor(client))
    logger = provider.get_logger("shop")
    def work(number):
        gevent.sleep(number % 7 / 1000)
        assert client.log_event(event(number)).accepted
        logger.emit(LogRecord(event_name="order.paid", attributes={"amplitude.user_id": f"user-{number}", "number": number}))
    jobs = [gevent.spawn(work, number) for number in range(100)]
    gevent.joinall(jobs, raise_error=True)
    beats = []
    def beat():
        while True:
            beats.append(1)
            gevent.sleep(0.005)
    gevent.spawn(beat)
    assert client.flush(20), client.stats()
    until = time.monotonic() + 10
    while len(beats) <= 10:
        assert time.monotonic() < until, "the hub stood still"
        gevent.sleep(0.01)
    found = books(client)
    assert not found.refused, found
    assert found.acknowledged == 200, found
    assert client.shutdown(5)
"""


@pytest.mark.parametrize("made", ["made before", "made after"])
@pytest.mark.parametrize("spooled", [False, True])
def test_gevent_may_patch_after_the_import(tmp_path: Path, made: str, spooled: bool) -> None:
    """As under `opentelemetry-instrument`: nobody stands still, middleware may switch, and no greenlet is taken for our sender."""
    options = {"spool_dir": str(tmp_path / "spool")} if spooled else {}
    with Server(servers.answer(503), servers.accept()) as server:
        run(GEVENT, server.url, tmp_path / "spool", json.dumps(options), made)
        assert len(arrived(server)) == 200
