"""SIGKILL at random instants through the whole pipeline: what a span's end left on disk arrives, by whichever process."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
import servers
from hostile.programs import arrived, program, replay, run
from servers import Server
from zero_code.running import free_port

from otel_amplitude.delivery.disk.inspect import iter_records

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(240)]

KILLS = 55

# One process that has imported everything makes one child after the other; each says what was accepted, until it is killed.
SPANS = """
from opentelemetry.sdk.trace import TracerProvider
import requests, structlog
from otel_amplitude import _adapter
def work(life):
    client = Amplitude(Config(KEY, **spooling(max_batch_events=20, log_level="NONE")))
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(AmplitudeSpanProcessor(client))
    tracer = provider.get_tracer("shop")
    number = 0
    while True:
        span = tracer.start_span("work", attributes={"amplitude.event_type": "Order Paid", "amplitude.user_id": f"user-{number % 5}", "life": life})
        span.end()
        context = span.get_span_context()
        assert not client.stats().refused
        say("accepted", life, f"{context.trace_id:032x}", f"{context.span_id:016x}")
        number += 1
        time.sleep(0.0005)
for life in range(int(sys.argv[4])):
    child = os.fork()
    if child == 0:
        try:
            work(life)
        finally:
            os._exit(3)
    say("child", child)
    code = os.waitpid(child, 0)[1]
    say("ended", code)
"""


def test_nothing_a_span_left_is_lost_by_kills(tmp_path: Path) -> None:
    """Over fifty kills, with a server that fails all the time: each accepted event arrives, exactly once after deduplication.

    An event that was sent alone when three processes in a row were killed is in the quarantine, as it would be had it killed them.
    """
    script = [servers.accept(), servers.answer(503), servers.reset(), servers.accept(), servers.hang_up(), servers.half_an_answer()] * 400
    chance = random.Random(5)
    accepted: list[str] = []
    folder = tmp_path / "spool"
    with Server(*script, servers.accept()) as server, program(SPANS, server.url, folder, KILLS) as process:
        assert process.stdout is not None
        child, killed = 0, 0
        kill_at = 0.0
        for line in process.stdout:
            word, *rest = line.split()
            if word == "child":
                child, kill_at = int(rest[0]), 0.0
            elif word == "ended":
                assert int(rest[0]) == signal.SIGKILL
                killed, child = killed + 1, 0
            else:
                accepted.append("".join(rest[1:]))
                kill_at = kill_at or time.monotonic() + chance.random() * 0.2
                if child and time.monotonic() >= kill_at:
                    os.kill(child, signal.SIGKILL)
                    child = 0
        assert killed == KILLS
        assert len(accepted) > KILLS * 5
        replay(server, folder)
        found = arrived(server) | {json.loads(record.body)["insert_id"] for record in iter_records(folder)}
        known = {each[:48] for each in found}  # trace and span id; the start time follows
        missing = [key for key in accepted if key not in known]
        assert not missing, (len(missing), missing[:2], sorted(found)[:2])
        # What was on its way into the spool when the kill came may have arrived unsaid: at most one of each child.
        assert len(found) <= len(accepted) + KILLS


def test_events_go_to_the_endpoint_they_were_accepted_for_and_nowhere_else(tmp_path: Path) -> None:
    """A process with another endpoint finds the dead one's directory and leaves it; one with the same delivers it on a mere flush."""
    folder = tmp_path / "spool"
    text = """
        client = Amplitude(Config(KEY, **spooling()))
        for number in range(50):
            assert client.log_event(event(number)).accepted
        os.kill(os.getpid(), signal.SIGKILL)
    """
    look = """
        client = Amplitude(Config(KEY, **spooling()))
        assert client.flush(30)
        say(books(client).adopted)
        client.shutdown(5)
    """
    port = free_port()
    with program(text, f"http://127.0.0.1:{port}/2/httpapi", folder) as process:
        process.communicate(timeout=40)
    assert process.returncode == -signal.SIGKILL
    with Server() as elsewhere:
        assert run(look, elsewhere.url, folder) == "0\n"
        assert elsewhere.requests == []
    with Server(port=port) as server:
        assert run(look, server.url, folder) == "50\n"
        assert arrived(server) == {str(number) for number in range(50)}
    assert not list(folder.glob("*/*"))
