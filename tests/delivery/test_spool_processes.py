"""Real processes: kills at random instants, shared directories, forks with and without the hook, sleeping owners."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import spool_tools as tools
from spool_tools import body, drain, fill, make

KILLS = 60

START = f"""
import os, sys, time
sys.path.append({str(Path(__file__).parents[1])!r})
from pathlib import Path
import spool_tools as tools
from otel_amplitude import clock
class Now(tools.Clock):
    now = property(lambda self: clock.monotonic())
    def __init__(self): pass
    def wall(self): return clock.wall()
spool = tools.make(Path(sys.argv[1]), Now())
def body(number):
    return b'{{"insert_id":"%d"}}' % number
def append(*numbers):
    for number in numbers:
        assert spool.append(body(number), int(time.time() * 1000)) is None
def say(text):
    os.write(1, text.encode() + b"\\n")
def wait():
    return sys.stdin.readline()
"""

# Says "a" after an append has returned and "r" before an event is resolved; takes over what the killed ones left.
WRITER = """
number = int(sys.argv[2])
for _ in range(1_000_000):
    append(number)
    say(f"a{number}")
    number += 1
    if number % 7 == 0:
        spool.maintain()
        records = spool.read(3, 10**6)
        for record in records:
            say("r" + record.body.decode()[14:-2])
        spool.resolve([record.place for record in records])
"""


@contextmanager
def process(script: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(
        [sys.executable, "-c", START + script, *map(str, arguments)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()


def line(child: subprocess.Popen[bytes]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().decode().strip()


def tell(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    child.stdin.write(b"\n")


def adopt(root: Path) -> set[bytes]:
    """What a new process finds now; nothing of it is resolved."""
    heir = make(root, max_age=10**9)
    heir.maintain()
    found = set(tools.bodies(tools.read_all(heir)))
    tools.abandon(heir)
    return found


def numbered(*numbers: int) -> set[bytes]:
    return {body(number) for number in numbers}


@pytest.mark.heavy
@pytest.mark.timeout(300)
def test_nothing_accepted_is_lost_when_writers_are_killed(tmp_path: Path) -> None:
    """SIGKILL at random instants: each append that returned is found again, or was resolved before."""
    accepted: set[int] = set()
    resolved: set[int] = set()
    chance = random.Random(7)
    for kill in range(KILLS):
        with process(WRITER, tmp_path, kill * 1_000_000) as child:
            assert line(child) == f"a{kill * 1_000_000}"
            accepted.add(kill * 1_000_000)
            time.sleep(chance.random() * 0.03)  # the random instant
            child.kill()
            child.wait()
            assert child.stdout is not None
            for word in child.stdout.read().decode().split():
                (accepted if word[0] == "a" else resolved).add(int(word[1:]))
    heir = make(tmp_path, max_age=10**9, max_bytes=2**40)
    found: set[int] = set()
    damaged = 0
    for _ in range(KILLS):
        heir.maintain()
        found.update(int(text[14:-2]) for text in drain(heir))
        heir.disk._look_at = 0.0
    damaged = heir.counts().corrupt
    heir.close()
    assert len(accepted) > KILLS * 10
    assert accepted - found - resolved == set()
    assert damaged == 0
    assert not list(tmp_path.glob("*/*"))


def test_two_processes_share_a_directory(tmp_path: Path) -> None:
    """Each has its own while it lives; the survivor takes over what the killed one left."""
    ours = make(tmp_path, max_age=10**9)
    fill(ours, [1])
    with process("append(2, 3); say('ready'); wait()", tmp_path) as other:
        assert line(other) == "ready"
        ours.maintain()
        assert drain(ours) == [body(1)]
        other.kill()
        other.wait()
        ours.disk._look_at = 0.0
        ours.maintain()
        assert drain(ours) == [body(2), body(3)]
    assert len(list(tmp_path.glob("*/*"))) == 1


def test_a_sleeping_owner_keeps_its_events(tmp_path: Path) -> None:
    """SIGSTOP makes events late, never doubled."""
    with process("append(2); say('ready'); wait(); append(3); say('done'); wait()", tmp_path) as owner:
        assert line(owner) == "ready"
        owner.send_signal(signal.SIGSTOP)
        assert adopt(tmp_path) == set()
        owner.send_signal(signal.SIGCONT)
        tell(owner)
        assert line(owner) == "done"
    assert adopt(tmp_path) == numbered(2, 3)


FORK = """
append(1)
child = os.fork()
if child == 0:
    spool.abandon_after_fork()
    append(2)
    assert spool.counts().appended == 1
    say("child")
    time.sleep(60)
append(3)
wait()
os.kill(child, 9)
os.waitpid(child, 0)
"""


def test_a_forked_child_has_its_own_directory_and_leaves_the_parent_alone(tmp_path: Path) -> None:
    """The child's descriptors are closed, never unlocked: the parent still owns its events, and only they are the parent's."""
    with process(FORK, tmp_path) as parent:
        assert line(parent) == "child"
        assert len(list(tmp_path.glob("*/*"))) == 2
        assert adopt(tmp_path) == set()
        tell(parent)
        parent.wait()
    assert adopt(tmp_path) == numbered(1, 2, 3)


FORK_AND_DIE = """
append(1)
child = os.fork()
if child == 0:
    {hook}
    say("child " + str(os.getpid()))
    wait()
    os._exit(0)
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(("hook", "found"), [("spool.abandon_after_fork()", {body(1)}), ("pass", set())])
def test_a_killed_parent_is_adopted_as_soon_as_no_child_holds_its_lock(tmp_path: Path, hook: str, found: set[bytes]) -> None:
    """With the hook at once; after a fork that no hook saw, when the child has ended."""
    with process(FORK_AND_DIE.format(hook=hook), tmp_path) as parent:
        child = int(line(parent).split()[1])
        parent.wait()
        assert adopt(tmp_path) == found
        os.kill(child, signal.SIGKILL)
        for _ in range(1_000):
            if adopt(tmp_path) == {body(1)}:
                break
            time.sleep(0.01)  # the kernel takes its time with the other process
        assert adopt(tmp_path) == {body(1)}


def test_a_subprocess_does_not_inherit_the_lock(tmp_path: Path) -> None:
    """A program started by the owner outlives it without keeping its events."""
    script = "append(1)\nimport subprocess\nchild = subprocess.Popen(['sleep', '30'])\nsay(str(child.pid)); os.kill(os.getpid(), 9)"
    with process(script, tmp_path) as owner:
        child = int(line(owner))
        owner.wait()
        assert adopt(tmp_path) == {body(1)}
        os.kill(child, signal.SIGKILL)
