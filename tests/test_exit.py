"""How a process ends: the hooks one by one with a fake client, then real processes that end in every way there is."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from zero_code.running import KEY, Program, environment, sandboxed

from otel_amplitude import _exit
from otel_amplitude._exit import Exit, flush_on_sigterm
from otel_amplitude.sandbox import Sandbox


class FakeClient:
    """Remembers what it was asked for."""

    def __init__(self, timeout: float = 5.0) -> None:
        self.calls: list[str] = []
        self.leaving = Exit(self, timeout)
        self.settles = True
        self.given: list[float | None] = []

    def flush(self, timeout: float | None = None) -> bool:
        self.calls.append("flush")
        self.given.append(timeout)
        return self.settles

    def shutdown(self, timeout: float | None = None) -> bool:
        self.calls.append("shutdown")
        self.leaving.done()
        return True

    def stats(self) -> object:
        return None

    def say_books(self) -> None:
        self.calls.append("say_books")


@pytest.fixture
def client() -> Iterator[FakeClient]:
    """A client that is gone after the test."""
    made = FakeClient()
    yield made
    made.leaving.done()


@pytest.fixture
def sigterm() -> Iterator[Callable[[object], None]]:
    """Set the handler of SIGTERM; it is put back in the end."""
    before = signal.getsignal(signal.SIGTERM)
    yield lambda handler: signal.signal(signal.SIGTERM, handler)  # type: ignore[arg-type]
    signal.signal(signal.SIGTERM, before)


def test_a_client_that_nobody_feeds_is_shut_down_at_exit(client: FakeClient) -> None:
    """Without processors, the exit hook closes the client."""
    client.leaving.leave()
    assert client.calls == ["shutdown"]


def test_the_last_processor_to_shut_down_closes_a_client_that_leaves(client: FakeClient) -> None:
    """Where the exit hook runs before the providers', it flushes, and the last processor closes."""
    client.leaving.attach()
    client.leaving.attach()
    client.leaving.leave()
    client.leaving.detach()
    assert client.calls == ["flush", "flush"]
    client.leaving.detach()
    assert client.calls == ["flush", "flush", "shutdown"]


def test_what_could_not_be_sent_at_exit_is_not_left_to_a_provider_that_may_never_shut_down(client: FakeClient) -> None:
    """The client is closed, so that the rest is spooled or counted."""
    client.leaving.attach()
    client.settles = False
    client.leaving.leave()
    assert client.calls == ["flush", "shutdown"]


def test_an_application_that_still_serves_is_held_up_for_a_second_in_all(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """By events that do not leave; with those that do, it goes on as soon as they are settled."""
    now = 1000.0
    monkeypatch.setattr(_exit, "monotonic", lambda: now)

    def flush(timeout: float | None = None) -> bool:
        nonlocal now
        client.given.append(timeout)
        now += 0.2 if client.settles else timeout or 0.0
        return client.settles

    client.flush = flush  # type: ignore[method-assign]
    client.leaving.told_to_end()
    client.leaving.soon()
    client.settles = False
    for _ in range(3):
        client.leaving.soon()
    assert client.given == [1.0, 1.0, 1.0, 0.0, 0.0]


def test_a_sigterm_that_was_not_the_end_is_forgotten(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events are settled one by one for as long as an exit may take, no longer."""
    now = 1000.0
    monkeypatch.setattr(_exit, "monotonic", lambda: now)
    client.leaving.told_to_end()
    now += 6
    client.leaving.soon()
    assert not client.leaving.hurried
    assert client.calls == ["flush", "say_books"]


def test_a_processor_that_shuts_down_before_the_end_leaves_the_client_open(client: FakeClient) -> None:
    """A provider's shutdown in the middle of a program flushes only."""
    client.leaving.attach()
    client.leaving.detach()
    assert client.calls == ["flush"]


def test_one_limit_is_shared_from_the_first_call_on(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time runs down over all shutdowns of one exit; long after, another shutdown gets its own."""
    now = 1000.0
    monkeypatch.setattr(_exit, "monotonic", lambda: now)
    assert client.leaving.remaining() == 5.0
    now += 3
    assert client.leaving.remaining() == 2.0
    now += 4
    assert client.leaving.remaining() == 0.0
    now += 60
    assert client.leaving.remaining() == 5.0


def test_a_process_ends_once(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long other clients take to end before it, one that leaves gets no more time than that of the one exit."""
    now = 1000.0
    monkeypatch.setattr(_exit, "monotonic", lambda: now)
    client.leaving.attach()
    client.leaving.hurry()
    now += 60
    client.leaving.leave()
    assert client.given == [0.0, 0.0]


def test_only_an_open_client_leaves(client: FakeClient) -> None:
    """A client that was shut down is no longer asked, and its end is news once."""
    assert client in _exit.open_clients()
    assert client.leaving.done()
    assert not client.leaving.done()
    assert client not in _exit.open_clients()


def test_no_handler_is_installed_off_the_main_thread(client: FakeClient) -> None:
    """Python allows none there, so nothing is tried."""
    found: list[bool] = []
    thread = threading.Thread(target=lambda: found.append(flush_on_sigterm(client, wrap=True)))
    thread.start()
    thread.join()
    assert found == [False]


def test_somebody_elses_handler_is_left_alone(client: FakeClient, sigterm: Callable[[object], None]) -> None:
    """Unless told to wrap it, an application's handler stays as it is; and SIGTERM stays ignored where it is ignored."""
    for theirs, wrap in ((lambda *_: None, False), (signal.SIG_IGN, False), (signal.SIG_IGN, True)):
        sigterm(theirs)
        assert not flush_on_sigterm(client, wrap=wrap)
        assert signal.getsignal(signal.SIGTERM) is theirs


@pytest.fixture
def reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a handler wait for its thread as long as the machine takes to start it, not for a quarter second."""
    monkeypatch.setattr(_exit, "_REACH_SECONDS", 30.0)


@pytest.mark.usefixtures("reachable")
def test_a_wrapped_handler_works_first_and_then_we_flush(client: FakeClient, sigterm: Callable[[object], None]) -> None:
    """Told to wrap, the application's handler runs, then what is waiting is settled, and what comes later at once."""
    sigterm(lambda *_: client.calls.append("theirs"))
    assert flush_on_sigterm(client, wrap=True)
    assert flush_on_sigterm(client, wrap=True), "a second time changes nothing"
    os.kill(os.getpid(), signal.SIGTERM)
    assert client.calls == ["theirs", "flush", "flush", "say_books"]
    assert client.leaving.hurried


@pytest.mark.usefixtures("reachable")
def test_every_client_that_asked_is_flushed(client: FakeClient, sigterm: Callable[[object], None]) -> None:
    """A second client joins the handler that is there already, once; each starts at once, then each is settled."""
    second = FakeClient()
    sigterm(lambda *_: None)
    assert all(flush_on_sigterm(each, wrap=True) for each in (client, second, second))
    os.kill(os.getpid(), signal.SIGTERM)
    second.leaving.done()
    assert client.calls == second.calls == ["flush", "flush", "say_books"]


def test_the_exit_waits_for_a_flush_that_outlived_its_handler(
    client: FakeClient, sigterm: Callable[[object], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the books could not be reached in time, the handler returns; the flush still ends, and says them, before the process does."""
    reachable = threading.Event()
    flush = client.flush

    def flush_and_release(timeout: float | None = None) -> bool:
        settled = flush(timeout)
        reachable.set()
        return settled

    client.flush = flush_and_release  # type: ignore[method-assign]
    client.stats = reachable.wait  # type: ignore[method-assign] -- as while somebody holds delivery's lock
    monkeypatch.setattr(_exit, "_open", {id(client.leaving): client.leaving})  # nobody else of this process leaves
    sigterm(lambda *_: None)
    assert flush_on_sigterm(client, wrap=True)
    os.kill(os.getpid(), signal.SIGTERM)
    assert client.calls == []
    _exit._leave_all()
    assert client.calls == ["flush", "flush", "flush", "say_books", "shutdown"]


# Real processes

heavy = pytest.mark.heavy
_HEAD = f"""
import atexit, os, signal, sys, threading, time
sys.path.append({str(Path(__file__).parent)!r})
from punctual import Stopwatch
ended = []
atexit.register(lambda: ended and print(f"took {{ended[0].seconds():.3f}}", [(c.stats().accepted, c.stats().acknowledged,
    dict(c.stats().dropped), c.stats().pending.total) for c in clients], flush=True))
import otel_amplitude
def make(variable="URL", **options):
    return otel_amplitude.init("{KEY}", server_url=os.environ[variable] + "/2/httpapi", upload_interval=60, name=variable, **options)
def log(client, count=20, who="u-12345"):
    for _ in range(count):
        client.log_event({{"event_type": "Seen", "user_id": who}})
def leave():
    print("leaving", flush=True)
    ended.append(Stopwatch())
clients = []
"""


def took(program: Program) -> float:
    """How long the end took, as the program says."""
    (seconds,) = re.findall(r"took ([\d.]+)", program.output) or [program.output]
    return float(seconds)


@contextlib.contextmanager
def script(text: str, sandbox: Sandbox | None = None, **variables: str) -> Iterator[Program]:
    """Run a script of a few lines."""
    env = environment(**({"URL": sandbox.url} if sandbox else {}), **variables)
    with Program([sys.executable, "-X", "dev", "-c", _HEAD + text], env) as program:
        yield program


ENDINGS: dict[str, tuple[str, int]] = {
    "the last line": ("", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "an exception": ("raise KeyError('theirs')", 1),
    "sys.exit on a thread": ("t = threading.Thread(target=lambda: (log(c), sys.exit(5))); t.start()", 0),
    "a thread that works on": ("threading.Thread(target=lambda: (time.sleep(0.3), log(c))).start()", 0),
    "an exit hook that logs": ("atexit.register(log, c)", 0),
    "the first event in an exit hook": ("atexit.register(log, make('URL2'))", 0),
    "Ctrl-C": ("try: os.kill(os.getpid(), signal.SIGINT); time.sleep(30)\nexcept KeyboardInterrupt: sys.exit(130)", 130),
}


@heavy
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_program_that_ends_without_a_flush_delivers_everything(ending: str) -> None:
    """However a program ends, what was accepted arrives, once, without noise on stderr."""
    lines, code = ENDINGS[ending]
    expected = 40 if "log" in lines else 20
    with sandboxed() as sandbox, script(f"c = make(); log(c)\n{lines}", sandbox, URL2=sandbox.url) as program:
        assert program.wait() == code, program.output
        assert len(sandbox.events()) == expected, program.output
        assert sandbox.duplicates == 0
        assert "shutdown" not in program.output


@heavy
def test_sigterm_delivers_when_asked_to() -> None:
    """With `flush_on_sigterm`, everything arrives before SIGTERM does its work; the exit code says SIGTERM."""
    text = "c = otel_amplitude.configure(server_url=os.environ['URL'] + '/2/httpapi', upload_interval=60, flush_on_sigterm=True)\n"
    with sandboxed() as sandbox, script(text + "log(c); print('logged', flush=True); time.sleep(60)", sandbox) as program:
        program.until("logged")
        assert program.stop() == -signal.SIGTERM
        assert len(sandbox.events()) == 20


@heavy
def test_sigterm_ends_a_process_that_can_start_no_thread() -> None:
    """Nobody can flush then, but nobody swallows the signal either."""
    text = (
        "c = otel_amplitude.configure(server_url=os.environ['URL'] + '/2/httpapi', flush_on_sigterm=True)\n"
        'def refuse(*_): raise RuntimeError("can\'t start new thread")\n'
        "import _thread; threading.Thread.start = _thread.start_new_thread = refuse\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    with sandboxed() as sandbox, script(text, sandbox) as program:
        program.until("ready")
        assert program.stop() == -signal.SIGTERM


@heavy
def test_a_client_whose_server_hangs_does_not_keep_another_from_sending() -> None:
    """At exit both begin at once, and share the time."""
    text = """
clients = [make("DEAD", shutdown_timeout=4.0), make(shutdown_timeout=4.0)]
for c in clients: log(c)
leave()
"""
    with dead_server(listening=True) as dead, sandboxed() as sandbox, script(text, sandbox, DEAD=dead) as program:
        assert program.wait() == 0
        assert len(sandbox.events()) == 20, program.output


@heavy
def test_sigterm_is_nobodys_business_when_not_asked() -> None:
    """In code, without the option, no handler is installed: SIGTERM ends the program as ever."""
    text = "c = otel_amplitude.configure(server_url=os.environ['URL'] + '/2/httpapi')\n"
    with sandboxed() as sandbox, script(text + "print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)", sandbox) as program:
        assert program.wait() == 0
        assert "True" in program.output


@contextlib.contextmanager
def dead_server(*, listening: bool) -> Iterator[str]:
    """An address where nobody answers: connections are refused, or taken and never served."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        if not listening:
            listener.close()
        yield f"http://127.0.0.1:{port}"


@heavy
@pytest.mark.parametrize("listening", [True, False], ids=["never answers", "refuses"])
@pytest.mark.parametrize("clients", [1, 3])
def test_a_dead_server_does_not_delay_the_end_beyond_its_limit(listening: bool, clients: int) -> None:
    """One second of `shutdown_timeout` is at most 1.25 s at exit, for one client and for three; what is lost is counted."""
    text = f"""
clients = [make(name, shutdown_timeout=1.0) for name in ("URL", "URL2", "URL3")[:{clients}]]
for c in clients: log(c)
leave()
"""
    with dead_server(listening=listening) as url, script(text, URL=url, URL2=url, URL3=url) as program:
        assert program.wait() == 0
        assert took(program) < 1.25, program.output
        assert program.output.count("(20, 0, {'shutdown': 20}, 0)") == clients, program.output


@heavy
@pytest.mark.parametrize("clients", [1, 3])
def test_a_callback_that_never_returns_does_not_keep_a_process(clients: int) -> None:
    """What is dropped in the end is told to `on_result`; that of each client is left after a second, if it blocks."""
    text = f"""
clients = [make(name, shutdown_timeout=1.0, on_result=lambda result: time.sleep(60)) for name in ("URL", "URL2", "URL3")[:{clients}]]
for c in clients: log(c)
leave()
"""
    with dead_server(listening=False) as url, script(text, URL=url, URL2=url, URL3=url) as program:
        assert program.wait() == 0
        assert took(program) < 1.0 + clients * (1.0 + 0.25), program.output
        assert program.output.count("(20, 0, {'shutdown': 20}, 0)") == clients, program.output


@heavy
def test_a_provider_shares_the_limit_with_its_client() -> None:
    """Tracer provider, logger provider and client together take one `shutdown_timeout`, whichever was made first."""
    text = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
c = otel_amplitude.configure(server_url=os.environ["URL"] + "/2/httpapi", shutdown_timeout=1.0)
clients = [c]
log(c)
leave()
"""
    with dead_server(listening=True) as url, script(text, URL=url) as program:
        assert program.wait() == 0
        assert took(program) < 1.25, program.output
        assert "(20, 0, {'shutdown': 20}, 0)" in program.output


_SPANS = """
def spans(count=20):
    for _ in range(count):
        with trace.get_tracer("shop").start_as_current_span("pay", attributes={"amplitude.event_type": "Paid", "amplitude.user_id": "u-12345"}):
            pass
"""
_ORDERS: dict[str, str] = {
    "provider before our import": """
import atexit, os
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
import otel_amplitude
c = otel_amplitude.configure(server_url=os.environ["URL"] + "/2/httpapi", upload_interval=60)
""",
    "provider after our import": """
import atexit, os
import otel_amplitude
otel_amplitude.configure
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
c = otel_amplitude.configure(server_url=os.environ["URL"] + "/2/httpapi", upload_interval=60)
""",
    "our provider": """
import atexit, os
import otel_amplitude
from opentelemetry import trace
c = otel_amplitude.configure(server_url=os.environ["URL"] + "/2/httpapi", upload_interval=60)
""",
}


@heavy
@pytest.mark.parametrize("order", _ORDERS)
def test_spans_arrive_whoever_was_made_first(order: str) -> None:
    """Twenty spans of the program and twenty of its exit hook arrive, whether the provider is older than our exit hook or not."""
    text = _ORDERS[order] + _SPANS + "atexit.register(spans); spans()"
    with sandboxed() as sandbox, Program([sys.executable, "-X", "dev", "-c", text], environment(URL=sandbox.url)) as program:
        assert program.wait() == 0, program.output
        assert len(sandbox.events()) == 40, program.output


CHILDREN: dict[str, str] = {
    "os.fork before first use": "c = make()\nif os.fork() == 0: log(c, 5, 'child-1'); sys.exit()\nlog(c); os.wait()",
    "os.fork after first use": "c = make(); log(c)\nif os.fork() == 0: log(c, 5, 'child-1'); sys.exit()\nos.wait()",
    "os.fork after a flush": "c = make(); log(c); c.flush()\nif os.fork() == 0: log(c, 5, 'child-1'); sys.exit()\nos.wait()",
    "multiprocessing, fork": "import multiprocessing as m\nc = make(); log(c)\n"
    "p = m.get_context('fork').Process(target=log, args=(c, 5, 'child-1')); p.start(); p.join()",
    "multiprocessing, fork, the client made in the child": "import multiprocessing as m\nc = make(); log(c)\n"
    "p = m.get_context('fork').Process(target=lambda: log(make('URL2'), 5, 'child-1')); p.start(); p.join()",
}


@heavy
@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_delivers_its_own_and_the_parent_its_own(child: str) -> None:
    """Twenty events of the parent and five of its child, each once, without a flush on either side."""
    with sandboxed() as sandbox, script(CHILDREN[child], sandbox, URL2=sandbox.url, PYTHONWARNINGS="ignore") as program:
        assert program.wait() == 0, program.output
        who = [event["user_id"] for event in sandbox.events()]
        assert (who.count("u-12345"), who.count("child-1")) == (20, 5), program.output
        assert sandbox.duplicates == 0


@heavy
def test_a_spawned_child_delivers_its_own(tmp_path: object) -> None:
    """A child of `multiprocessing` that starts afresh makes its own client, and leaves without `atexit`."""
    text = """
import os
from multiprocessing import get_context
import otel_amplitude
def work():
    client = otel_amplitude.init(server_url=os.environ["URL"] + "/2/httpapi", upload_interval=60)
    client.log_event({"event_type": "Seen", "user_id": "child-1"})
if __name__ == "__main__":
    process = get_context("spawn").Process(target=work)
    process.start()
    process.join()
"""
    file = tmp_path / "spawning.py"  # type: ignore[operator]
    file.write_text(text)
    with sandboxed() as sandbox, Program([sys.executable, str(file)], environment(URL=sandbox.url)) as program:
        assert program.wait() == 0, program.output
        assert [event["user_id"] for event in sandbox.events()] == ["child-1"], program.output


@heavy
def test_a_signal_inside_delivery_does_not_lock_up() -> None:
    """SIGTERM again and again while events are logged: the program ends by it, soon, with its books closed."""
    text = """
c = otel_amplitude.configure(server_url=os.environ["URL"] + "/2/httpapi", flush_on_sigterm=True, shutdown_timeout=1.0)
print("ready", flush=True)
while True: log(c, 1)
"""
    for _ in range(3):
        with sandboxed() as sandbox, script(text, sandbox) as program:
            program.until("ready")
            assert sandbox.wait_for(lambda box: box.accepted > 50, 20)
            begun = time.monotonic()
            assert program.stop() == -signal.SIGTERM
            assert time.monotonic() - begun < 5  # one second and a quarter, on a machine that has other things to do
