"""Who may be trusted with a spool: links, owners, modes, squatters; each refusal says what to do."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from pathlib import Path

import pytest
import spool_tools as tools
from spool_tools import NOW_MS, body, drain, fill, make

from otel_amplitude.delivery.disk import directory as disk
from otel_amplitude.errors import SpoolError


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o277])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    """Directories are 0700 and files 0600, parents that had to be made included."""
    before = os.umask(umask)
    try:
        spool = make(tmp_path / "made" / "spool")
        fill(spool, [1])
    finally:
        os.umask(before)
    for path in (tmp_path / "made").rglob("*"):
        assert mode(path) == (0o700 if path.is_dir() else 0o600), path
    assert mode(tmp_path / "made") & 0o077 == 0


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    """Where it points may change after the check."""
    (tmp_path / "real").mkdir(0o700)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(SpoolError, match=r"link.*is a symbolic link or not a directory: name the directory itself"):
        make(tmp_path / "link")
    with pytest.raises(SpoolError, match="symbolic link"):
        make(Path(f"{tmp_path}/link/"))


def test_a_dangling_link_is_refused(tmp_path: Path) -> None:
    """It is not a directory that is missing."""
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(SpoolError, match="symbolic link"):
        make(tmp_path / "link")


@pytest.mark.parametrize("wrong", [0o770, 0o702, 0o777, 0o1777])
def test_a_directory_that_others_may_write_to_is_refused(tmp_path: Path, wrong: int) -> None:
    """The message names the mode and the command."""
    root = tmp_path / "spool"
    root.mkdir()
    root.chmod(wrong)
    with pytest.raises(SpoolError, match=rf"can be written by others \(mode {wrong:04o}\): run chmod 0700"):
        make(root)
    assert mode(root) == wrong & 0o7777


def test_a_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names both users and the command."""
    monkeypatch.setattr(os, "geteuid", lambda: 4_242)
    with pytest.raises(SpoolError, match=r"belongs to user \d+, this process is user 4242: chown it"):
        make(tmp_path)


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    """A file, and a path through a file, are no directories."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="not a directory"):
        make(tmp_path / "file")
    with pytest.raises(SpoolError, match="spool_dir"):
        make(tmp_path / "file" / "spool")


def test_a_directory_that_can_not_be_made_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is said at the start, not at the first outage."""
    monkeypatch.setattr(os, "access", lambda *_args: False)
    with pytest.raises(SpoolError, match=r"does not exist and can not be made in .* make it with mode 0700"):
        make(tmp_path / "a" / "b")


def test_a_platform_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows is told in words."""
    monkeypatch.setattr(disk, "fcntl", None)
    with pytest.raises(SpoolError, match="POSIX file locks"):
        make(tmp_path)


def test_an_inner_link_is_not_followed(tmp_path: Path) -> None:
    """Neither the fingerprint nor a process directory nor a lock may lead elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(0o700)
    root = tmp_path / "spool"
    root.mkdir(0o700)
    (root / tools.FINGERPRINT).symlink_to(elsewhere)
    spool = make(root)
    assert spool.append(body(1), NOW_MS) == "spool_io"
    (root / tools.FINGERPRINT).unlink()
    inner = root / tools.FINGERPRINT
    inner.mkdir(0o700)
    (inner / "host-1-00000000").symlink_to(elsewhere)
    (inner / "host-1-11111111").mkdir(0o700)
    (inner / "host-1-11111111" / "lock").symlink_to(elsewhere / "lock")
    other = make(root)
    other.maintain()
    fill(other, [1])
    assert drain(other) == [body(1)]
    assert list(elsewhere.iterdir()) == []


def test_planted_files_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links, pipes, sockets and another user's writable directory are counted or passed over, never opened for long."""
    first = make(tmp_path)
    fill(first, range(3))
    tools.abandon(first)
    (path,) = tools.segments(tmp_path)
    directory = path.parent
    (tmp_path / "secret").write_text("secret")
    (directory / "00000002.seg").symlink_to(tmp_path / "secret")
    os.mkfifo(directory / "00000003.seg", 0o600)
    listener = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(directory)  # the name of a socket must be short
    listener.bind("00000004.seg")
    (directory / "00000005.seg").mkdir()
    (directory / "notes.txt").write_text("not ours")
    second = make(tmp_path)
    second.maintain()
    assert drain(second) == [body(number) for number in range(3)]
    assert second.counts().foreign == 4
    listener.close()
    assert {entry.name for entry in directory.iterdir()} >= {f"0000000{number}.seg" for number in (2, 3, 4, 5)} | {"notes.txt"}
    assert (tmp_path / "secret").read_text() == "secret"


def test_a_process_directory_others_may_write_to_is_not_adopted(tmp_path: Path) -> None:
    """What lies there may be anybody's."""
    first = make(tmp_path)
    fill(first, range(3))
    tools.abandon(first)
    tools.segments(tmp_path)[0].parent.chmod(0o777)
    second = make(tmp_path)
    second.maintain()
    assert not second.behind


def test_names_come_from_host_pid_and_chance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile host name can not lead out of the directory."""
    real = os.uname()
    hostile = os.uname_result((real.sysname, "../../etc/" + "x" * 100 + "\n", real.release, real.version, real.machine))
    monkeypatch.setattr(os, "uname", lambda: hostile)
    fill(make(tmp_path), [1])
    (directory,) = tmp_path.glob("*/*")
    assert directory.name.startswith(".._.._etc_x")
    assert directory.name.split("-")[-2] == str(os.getpid())
    assert len(directory.name) < 100
    second = make(tmp_path)
    second.maintain()
    assert not second.behind


def test_a_directory_taken_while_it_was_made_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sibling that looks for the dead may be faster than the lock: then another name is used."""
    parent = os.open(tmp_path, os.O_RDONLY)
    real = os.mkdir
    taken: list[disk.ProcessDirectory] = []

    def mkdir(name: str, permissions: int, *, dir_fd: int) -> None:
        real(name, permissions, dir_fd=dir_fd)
        if not taken:
            claimed = disk.ProcessDirectory.claim(name, parent)
            assert claimed is not None
            taken.append(claimed)

    monkeypatch.setattr(os, "mkdir", mkdir)
    made = disk.ProcessDirectory.make(parent)
    assert made.name != taken[0].name
    assert made.in_place
    for directory in (made, *taken):
        directory.remove()
    assert list(tmp_path.iterdir()) == []
    os.close(parent)


def test_a_system_where_siblings_take_everything_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of tries is bounded."""
    parent = os.open(tmp_path, os.O_RDONLY)
    monkeypatch.setattr(fcntl, "flock", _busy)
    with pytest.raises(OSError, match="siblings"):
        disk.ProcessDirectory.make(parent)
    os.close(parent)


def _busy(_fd: int, _operation: int) -> None:
    raise BlockingIOError


def test_a_lock_of_a_removed_directory_owns_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the lock is taken, the file is compared with the path: the former adopter may have removed both."""
    parent = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / "host-1-00000000").mkdir(0o700)
    real = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        (tmp_path / "host-1-00000000" / "lock").unlink()
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    assert disk.ProcessDirectory.claim("host-1-00000000", parent) is None
    os.close(parent)
