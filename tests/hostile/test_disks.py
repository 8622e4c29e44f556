"""What disks do to a client that is running: through real file systems, with the spool always on."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import servers
from hostile.programs import KEY, arrived, program, run
from servers import Peer, Server
from zero_code.running import free_port

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(120)]

NOBODY = 65534

# Root may do anything, so the program becomes somebody who may not.
LIFE = """
    import shutil
    become_nobody()
    client = Amplitude(Config(KEY, **spooling(max_batch_events=10)))
    queue, reader = client._exporter._worker().queue, client._exporter._worker().reader
    for number in range(100):
        assert client.log_event(event(number)).accepted
    while not reader.has_looked:  # for what ended processes left: a flush says whether that could be read
        time.sleep(0.001)
    assert queue.appended() == (0, 100)
    {harm}
    for number in range(100, 200):
        assert client.log_event(event(number)).accepted
        books(client)
    until = time.monotonic() + 20
    while not (queue.disk_refusal or os.path.islink(FOLDER)):
        assert time.monotonic() < until, "the fault did not fire"
        time.sleep(0.01)
    for number in range(200, 250):
        assert client.log_event(event(number)).accepted
    {mend}
    assert client.flush(30), client.stats()
    found = books(client)
    assert (found.accepted, found.acknowledged, found.pending.total) == (250, 250, 0), found
    watch = Stopwatch()
    client.shutdown(1)
    assert watch.seconds() < 1.25
"""

HARMS = {
    "a limit for the size of files": ("resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, -1))", "pass"),
    "the directory is removed": ("shutil.rmtree(FOLDER)", "pass"),
    "the directory is replaced by a link": ("os.rename(FOLDER, FOLDER + '-old'); os.symlink('/etc', FOLDER)", "pass"),
    "one segment is removed": (
        "[os.unlink(os.path.join(at, name)) for at, _, names in os.walk(FOLDER) for name in names if '.seg' in name]",
        "pass",
    ),
    "no permission any more": (
        "[os.chmod(at, 0) for at, _, _ in os.walk(FOLDER, topdown=False)]; queue._seal()",
        "os.chmod(FOLDER, 0o700)",
    ),
    "read only": (
        "[os.chmod(at, 0o500) for at, _, _ in os.walk(FOLDER, topdown=False)]; queue._seal()",
        "[os.chmod(at, 0o700) for at, _, _ in os.walk(FOLDER)]",
    ),
    "no descriptors any more": (
        "client.flush(30); queue._seal(); resource.setrlimit(resource.RLIMIT_NOFILE, (3, 4096))",
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096))",
    ),
}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A place that belongs to the user the program runs as, and not below a directory of ours."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        if os.geteuid() == 0:
            os.chown(place, NOBODY, NOBODY)
        yield Path(place) / "spool"


@pytest.mark.parametrize("harm", HARMS)
def test_a_disk_that_fails_loses_nothing(folder: Path, harm: str) -> None:
    """What was on disk and what could not get there all arrive, through an outage of the server at the same time."""
    done, undone = HARMS[harm]
    with Server(*[servers.answer(503)] * 20, servers.accept()) as server:
        run(LIFE.format(harm=done, mend=undone), server.url, folder)
        assert arrived(server) == {str(number) for number in range(250)}
        assert server.met > 20


def test_a_full_disk_is_left_to_others(folder: Path) -> None:
    """At the cap new events go to memory, then are refused as `queue_full`; everything that was accepted arrives."""
    text = """
        become_nobody()
        client = Amplitude(Config(KEY, **spooling(max_spool_bytes=8 * 2**20, max_cached_events=1000)))
        big = "x" * 1000
        accepted = 0
        for number in range(30_000):
            accepted += client.log_event({**event(number), "event_properties": {f"p{key}": big for key in range(9)}}).accepted
            if accepted < number - 100:
                break
        found = books(client)
        assert set(found.refused) == {"queue_full"}, found
        used = sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(FOLDER) for name in names)
        assert 4 * 2**20 < used <= 12 * 2**20 + 100, used
        say("down")
        assert client.flush(60), client.stats()
        found = books(client)
        assert found.acknowledged == found.accepted == accepted, (found, accepted)
        client.shutdown(5)
    """
    over = threading.Event()

    def outage(peer: Peer) -> bool:
        """Down until the disk is full, however long the program takes for that."""
        return (servers.accept() if over.is_set() else servers.answer(503))(peer)

    with Server(outage) as server, program(text, server.url, folder) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "down\n", process.communicate(timeout=100)
        over.set()
        said, complained = process.communicate(timeout=100)
        assert process.returncode == 0, complained
        assert KEY not in said + complained
        assert "Traceback" not in complained, complained
        assert len(arrived(server)) > 500


@pytest.mark.parametrize("plant", ["newer.seg", "foreign header", "a link", "a pipe", "rubbish"])
def test_planted_and_foreign_things_neither_stop_nor_are_sent(folder: Path, plant: str) -> None:
    """Beside a dead process's events lies what is not ours: theirs arrive, the strange thing stays as it is, nothing of it is sent."""
    text = """
        client = Amplitude(Config(KEY, **spooling()))
        if sys.argv[4:] == ["die"]:
            for number in range(20):
                assert client.log_event(event(number)).accepted
            os.kill(os.getpid(), signal.SIGKILL)
        assert client.flush(20), client.stats()
        client.shutdown(5)
    """
    os.chown(folder.parent, os.geteuid(), os.getegid())
    port = free_port()
    url = f"http://127.0.0.1:{port}/2/httpapi"
    with pytest.raises(AssertionError):
        run(text, url, folder, "die")
    (own,) = folder.glob("*/*")
    strange = own / "00000009.seg"
    if plant == "newer.seg":
        strange.write_bytes(b"OTAMPSG1\x02\x00" + b"\x00" * 54 + b'{"insert_id":"planted"}')
    elif plant == "foreign header":
        strange.write_bytes(b"SOMEBODY" + b"\x00" * 56 + b'{"insert_id":"planted"}')
    elif plant == "a link":
        secret = folder.parent / "secret"
        secret.write_text("secret")
        strange.symlink_to(secret)
    elif plant == "a pipe":
        os.mkfifo(strange)
    else:
        strange = own.parent / "what is this"
        strange.write_bytes(os.urandom(100))
    before = strange.lstat().st_size
    with Server(port=port) as server:
        run(text, url, folder)
        assert arrived(server) == {str(number) for number in range(20)}
    assert strange.lstat().st_size == before


def test_nothing_on_disk_shows_the_key(folder: Path) -> None:
    """Neither names nor bytes of the spool hold the key or the address."""
    text = """
        client = Amplitude(Config(KEY, **spooling()))
        assert client.log_event(event(1)).accepted
        for at, folders, names in os.walk(FOLDER):
            assert KEY not in str((at, folders, names))
            for name in names:
                data = open(os.path.join(at, name), "rb").read()
                assert KEY.encode() not in data and b"http" not in data and b"127.0.0.1" not in data
                say("looked")
        client.shutdown(0)
    """
    with Server(servers.answer(503)) as server:
        os.chown(folder.parent, os.geteuid(), os.getegid())
        assert run(text, server.url, folder).count("looked") == 2
