"""Forks and exits, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

_BEFORE = f"""
import atexit, multiprocessing, os, sys, threading, time, warnings
sys.path.append({str(Path(__file__).parents[1])!r})
from punctual import Stopwatch
warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns about forks of processes with threads: that is what we test
from otel_amplitude.delivery.batch_exporter import BatchExporter
from otel_amplitude.delivery.dispatcher import DeliveryOptions
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.receipt import ACKNOWLEDGED, Receipt
from otel_amplitude.delivery.disk.spool import Spool

out, folder = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT), sys.argv[2]
gate, reached = threading.Event(), threading.Event()
gate.set()

class Post(BatchExporter):
    def send_batch(self, batch, deadline):
        reached.set()
        if os.getpid() == first:
            gate.wait(30)
        for parcel in batch:
            os.write(out, parcel.body + b" " + str(os.getpid() == first).encode() + b"\\n")
        return Receipt([ACKNOWLEDGED] * len(batch), "acknowledged", status=200)

first = os.getpid()

def make(**more):
    return Post(DeliveryOptions(upload_interval=3600.0), **more)

def submit(name):
    assert post.submit(Parcel(name.encode(), (name,), int(time.time() * 1000)))

def in_child(work, fork=os.fork):
    child = fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
"""


def run(tmp_path: Path, script: str, timeout: float = 40.0) -> Counter[tuple[str, bool]]:
    """Run a script; give what was sent, and whether the first process sent it."""
    out = tmp_path / "sent"
    code = _BEFORE + textwrap.dedent(script)
    done = subprocess.run(
        [sys.executable, "-c", code, str(out), str(tmp_path / "spool")], capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    lines = out.read_text().splitlines() if out.exists() else []
    return Counter((line.split()[0], line.split()[1] == "True") for line in lines)


def test_fork_before_first_use(tmp_path: Path) -> None:
    """Parent and child made from an unused exporter each deliver their own."""
    sent = run(
        tmp_path,
        """
        post = make()
        def work():
            submit("child")
            assert post.shutdown(10)
        in_child(work)
        submit("parent")
        assert post.shutdown(10)
        """,
    )
    assert sent == {("child", False): 1, ("parent", True): 1}


def test_fork_with_pending_events(tmp_path: Path) -> None:
    """Pending events are sent by the parent only; the child starts with empty books; nested forks too."""
    sent = run(
        tmp_path,
        """
        post = make()
        submit("sent-before")
        assert post.flush(10)
        submit("pending")
        def work():
            assert post.stats().accepted == 0, post.stats()
            submit("child")
            def deeper():
                assert post.stats().accepted == 0
                submit("grandchild")
                assert post.shutdown(10)
            in_child(deeper)
            assert post.stats().accepted == 1
            assert post.shutdown(10)
        in_child(work)
        assert post.stats().pending.total == 1
        assert post.shutdown(10)
        assert post.stats().acknowledged == 2
        """,
    )
    assert sent == {("sent-before", True): 1, ("pending", True): 1, ("child", False): 1, ("grandchild", False): 1}


def test_fork_while_a_request_is_in_flight_and_the_lock_is_held(tmp_path: Path) -> None:
    """A child gets new locks, whoever held the old ones, and the parent's request goes on undisturbed."""
    sent = run(
        tmp_path,
        """
        post = make()
        gate.clear()
        submit("flying")
        post.hurry()
        assert reached.wait(10)
        held, release = threading.Event(), threading.Event()
        def hold():
            with post._worker().queue._lock:
                held.set()
                release.wait(30)
        threading.Thread(target=hold, daemon=True).start()
        assert held.wait(10)
        def work():
            submit("child")
            assert post.flush(10)
            assert post.shutdown(10)
        in_child(work)
        release.set()
        gate.set()
        assert post.shutdown(10)
        """,
    )
    assert sent == {("flying", True): 1, ("child", False): 1}


def test_fork_in_c(tmp_path: Path) -> None:
    """A fork that Python does not know of (uWSGI) is noticed by the process id."""
    sent = run(
        tmp_path,
        """
        import ctypes
        post = make()
        submit("pending")
        def work():
            submit("child")
            assert post.stats().accepted == 1
            assert post.shutdown(10)
        in_child(work, fork=ctypes.PyDLL(None).fork)
        assert post.shutdown(10)
        """,
    )
    assert sent == {("pending", True): 1, ("child", False): 1}


def test_a_closed_exporter_stays_closed_in_a_child(tmp_path: Path) -> None:
    """A fork after shutdown revives nothing."""
    sent = run(
        tmp_path,
        """
        post = make()
        assert post.shutdown(1)
        def work():
            assert not post.submit(Parcel(b"x", ("x",), 0))
            assert post.flush(1) and post.shutdown(1)
        in_child(work)
        """,
    )
    assert not sent


def test_a_spool_is_not_shared_with_a_child(tmp_path: Path) -> None:
    """Each process has its own spool directory; what lies in the parent's is the parent's."""
    sent = run(
        tmp_path,
        """
        post = Post(DeliveryOptions(upload_interval=3600.0), spool=Spool(folder, "0123abcd", min_free=0),
                    read_ids=lambda body: (body.decode(),))
        submit("parent")
        def work():
            assert post.stats().accepted == 0
            submit("child")
            assert post.shutdown(10)
        in_child(work)
        assert post.stats().pending.spooled + post.stats().pending.queued == 1
        assert post.shutdown(10)
        """,
    )
    assert sent == {("parent", True): 1, ("child", False): 1}


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_multiprocessing_child_delivers_before_it_ends(tmp_path: Path, method: str) -> None:
    """`multiprocessing` children skip `atexit`; what they accepted is sent all the same."""
    script = tmp_path / "script.py"
    work = """
        post = make()
        def work():
            submit("child")
        if __name__ == "__main__":
            process = multiprocessing.get_context(sys.argv[3]).Process(target=work)
            process.start()
            process.join(30)
            assert process.exitcode == 0
            assert post.shutdown(10)
    """
    # A child that is not forked imports this file: it has no arguments of its own.
    script.write_text(_BEFORE + textwrap.dedent(work))
    out = tmp_path / "sent"
    done = subprocess.run([sys.executable, str(script), str(out), "-", method], capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in out.read_text().splitlines()] == ["child"]


def test_exit_with_a_server_that_never_answers(tmp_path: Path) -> None:
    """A request that hangs does not keep the process from ending."""
    run(
        tmp_path,
        """
        post = make()
        gate.clear()
        for i in range(3000):
            submit(f"{i}")
        assert reached.wait(10)
        def leave():
            watch = Stopwatch()
            assert not post.shutdown(0.5)
            assert watch.seconds() < 0.75, watch.seconds()
            assert post.stats().balanced
            assert post.stats().dropped == {"shutdown": 3000}
        atexit.register(leave)
        """,
        timeout=20,
    )


def test_events_of_the_last_moment(tmp_path: Path) -> None:
    """What is submitted while the interpreter ends, when some Pythons start no thread any more, is sent by shutdown itself."""
    sent = run(
        tmp_path,
        """
        post = make()
        def leave():
            submit("last")
            assert post.shutdown(10)
        atexit.register(leave)
        """,
    )
    assert sent == {("last", True): 1}
