"""Who may be trusted with a spool, and who owns a directory in it: permissions, links, `flock`. All access goes through descriptors.

::

    <spool_dir>/<8 hex of endpoint and key>/<host>-<pid>-<8 random hex>/{lock, 00000001.seg, …}
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from otel_amplitude.errors import SpoolError

try:
    import fcntl
except ImportError:  # pragma: no cover -- Windows: a spool is refused in words, everything else works
    fcntl = None  # type: ignore[assignment]

LOCK: Final = "lock"
# how an unfinished file of a purge is called
PART: Final = ".part"
SEGMENT: Final = re.compile(r"[0-9]{8}\.seg")
# Events of which the process ended while they were sent alone; no process owns this directory.
QUARANTINE: Final = "quarantine"
FINGERPRINT: Final = re.compile(r"[0-9a-f]{8}")
_PROCESS: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}-[0-9]{1,10}-[0-9a-f]{8}")
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_TRIES: Final = 3


def check_root(path: Path) -> None:
    """Refuse a spool directory that can not be trusted or made; makes nothing.

    Raises:
        SpoolError: says which rule is broken and what to do.
    """
    if fcntl is None:
        raise SpoolError("a spool needs POSIX file locks, which this platform has not: leave the spool option off")
    try:
        if os.path.lexists(path):
            os.close(open_root(path))
        else:
            _check_parent(path)
    except OSError as error:
        raise SpoolError(
            f"spool_dir {str(path)!r} can not be used ({error.strerror}): let user {os.geteuid()} read and write it"
        ) from error


def _check_parent(path: Path) -> None:
    parent = next(above for above in path.parents if os.path.lexists(above))
    is_directory = stat.S_ISDIR(os.stat(parent).st_mode)  # noqa: PTH116 -- one way to fail, whatever pathlib does of it
    if not is_directory or not os.access(parent, os.W_OK | os.X_OK):
        raise SpoolError(
            f"spool_dir {str(path)!r} does not exist and can not be made in {str(parent)!r}:"
            f" make it with mode 0700 for user {os.geteuid()}, or name another directory"
        )


def open_root(path: Path, *, make: bool = False) -> int:
    """Open the spool directory and give its descriptor; with `make`, it and its missing parents are made with mode 0700.

    Raises:
        SpoolError: it is a link, belongs to someone else, or others may write to it.
        OSError: it is missing, or the system says no.
    """
    if make:
        _make_parents(path.parent)
        return _open_made(str(path), None)
    return _open_trusted(str(path), None)


def open_inner(name: str, parent: int, *, make: bool = False) -> int:
    """Open a directory inside the spool by its name; errors as in `open_root`."""
    return (_open_made if make else _open_trusted)(name, parent)


def list_directories(parent: int, pattern: re.Pattern[str]) -> list[str]:
    """Give the names in a directory that are ours to look at, sorted."""
    return sorted(name for name in os.listdir(parent) if pattern.fullmatch(name))


def process_names(parent: int) -> list[str]:
    """Give the process directories of one fingerprint, sorted."""
    return list_directories(parent, _PROCESS)


def open_segment(name: str, parent: int, flags: int = os.O_RDWR) -> int:
    """Open an existing segment; only a regular file of this user, never through a link.

    Raises:
        OSError: also for what is not a regular file of this user (EPERM).
    """
    # O_NONBLOCK: a planted FIFO must not stop us
    fd = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
    with _closed_on_error(fd):
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "not a regular file of this user")
    return fd


def make_file(name: str, parent: int) -> int:
    """Make a new file with mode 0600, whatever the umask is, and give its descriptor."""
    fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=parent)
    with _closed_on_error(fd):
        os.fchmod(fd, 0o600)
    return fd


def used_bytes(root: int) -> int:
    """Add up the segments of every process and fingerprint; what vanishes meanwhile counts nothing."""
    total = 0
    for fingerprint in list_directories(root, FINGERPRINT):
        with suppress(OSError, SpoolError), opened(open_inner(fingerprint, root)) as parent:
            for process in process_names(parent):
                with suppress(OSError, SpoolError), opened(open_inner(process, parent)) as directory:
                    for name in list_directories(directory, SEGMENT):
                        with suppress(FileNotFoundError):
                            total += os.stat(name, dir_fd=directory, follow_symlinks=False).st_size
    return total


class ProcessDirectory:
    """One process's directory, owned through its lock until `close`, `remove` or the end of the process."""

    __slots__ = ("fd", "lock_fd", "name", "parent")

    def __init__(self, name: str, parent: int, fd: int, lock_fd: int) -> None:
        self.name = name
        self.parent = parent
        self.fd = fd
        self.lock_fd = lock_fd

    @classmethod
    def make(cls, parent: int) -> ProcessDirectory:
        """Make a directory for this process and own it.

        Raises:
            OSError: the system says no.
            SpoolError: the parent can not be trusted any more.
        """
        host = re.sub(r"[^A-Za-z0-9_.-]", "_", os.uname().nodename)[:64] or "_"
        for _ in range(_TRIES):
            name = f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
            os.mkdir(name, 0o700, dir_fd=parent)
            # a sibling that looks for the dead may take the directory between these two lines: then the next name
            with suppress(FileExistsError, FileNotFoundError):
                if made := cls._own(name, parent, os.O_EXCL):
                    return made
        raise OSError(errno.EAGAIN, "siblings took every new directory")

    @classmethod
    def claim(cls, name: str, parent: int) -> ProcessDirectory | None:
        """Take over the directory of a process that ended; None while its owner lives or another was faster.

        Raises:
            OSError: it vanished, or the system says no.
            SpoolError: it can not be trusted.
        """
        return cls._own(name, parent, 0)

    @classmethod
    def _own(cls, name: str, parent: int, exclusive: int) -> ProcessDirectory | None:
        fd = open_inner(name, parent)
        with _closed_on_error(fd):
            os.fchmod(fd, 0o700)
            lock_fd = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | exclusive, 0o600, dir_fd=fd)
            with _closed_on_error(lock_fd):
                if _locked(lock_fd) and _same_file(lock_fd, fd):
                    os.fchmod(lock_fd, 0o600)
                    return cls(name, os.dup(parent), fd, lock_fd)
        os.close(lock_fd)
        os.close(fd)
        return None

    def segments(self) -> list[str]:
        """Give the names of its segments, oldest first."""
        return list_directories(self.fd, SEGMENT)

    @property
    def in_place(self) -> bool:
        """Whether it is still where it was made; someone may have removed it under us."""
        try:
            return _same_file(self.lock_fd, self.fd) and _same(
                os.fstat(self.fd), os.stat(self.name, dir_fd=self.parent, follow_symlinks=False)
            )
        except OSError:
            return False

    def remove(self) -> None:
        """Remove it when nothing of worth is left, and end ownership; never raises."""
        with suppress(OSError):
            left = os.listdir(self.fd)  # noqa: PTH208 -- a Path has no descriptor
            parts = [name for name in left if name.endswith(PART)]
            for name in parts:
                os.unlink(name, dir_fd=self.fd)
            if set(left) == {LOCK, *parts}:
                os.unlink(LOCK, dir_fd=self.fd)
                os.rmdir(self.name, dir_fd=self.parent)
        self.close()

    def close(self) -> None:
        """End ownership: the last copy of the descriptor releases the lock. After a fork the other process keeps it."""
        held, self.fd, self.lock_fd, self.parent = (self.fd, self.lock_fd, self.parent), -1, -1, -1
        for fd in held:
            close_quietly(fd)


def remove_older(name: str, parent: int, limit: float) -> int:
    """Remove what nobody owns and nobody touched since `limit` (seconds since the epoch); give the number of segments."""
    directory = ProcessDirectory.claim(name, parent)
    if directory is None:
        return 0
    removed = 0
    with suppress(OSError):
        for segment in directory.segments():
            if os.stat(segment, dir_fd=directory.fd, follow_symlinks=False).st_mtime < limit:
                os.unlink(segment, dir_fd=directory.fd)
                removed += 1
    directory.remove()
    return removed


def is_owned(directory: int) -> bool:
    """Whether a living process owns a process directory; looks without taking ownership."""
    try:
        fd = os.open(LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    except OSError:
        return False
    with opened(fd):
        return not _locked(fd, shared=True)


def duplicates(fds: Iterable[int]) -> list[int]:
    """Copy descriptors, all or none."""
    copies: list[int] = []
    try:
        copies.extend(os.dup(fd) for fd in fds)
    except OSError:
        for fd in copies:
            os.close(fd)
        return []
    return copies


def close_quietly(fd: int) -> None:
    """Close a descriptor; a negative or closed one is passed over."""
    if fd >= 0:
        with suppress(OSError):
            os.close(fd)


@contextmanager
def opened(fd: int) -> Iterator[int]:
    """Close the descriptor in the end."""
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _closed_on_error(fd: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(fd)
        raise


def _locked(fd: int, *, shared: bool = False) -> bool:
    # flock, not lockf: lockf does not exclude two exporters of one process, and any close of the file drops it
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _same_file(lock_fd: int, directory: int) -> bool:
    try:
        return _same(os.fstat(lock_fd), os.stat(LOCK, dir_fd=directory, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def _open_made(name: str, parent: int | None) -> int:
    made = True
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        made = False
    fd = _open_trusted(name, parent)
    if made:
        with _closed_on_error(fd):
            os.fchmod(fd, 0o700)
    return fd


def _open_trusted(name: str, parent: int | None) -> int:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise SpoolError(f"spool_dir {name!r} is a symbolic link or not a directory: name the directory itself") from error
        raise
    with _closed_on_error(fd):
        info = os.fstat(fd)
        if info.st_uid != os.geteuid():
            raise SpoolError(
                f"spool_dir {name!r} belongs to user {info.st_uid}, this process is user {os.geteuid()}: chown it, or name another directory"
            )
        if info.st_mode & _OTHERS_WRITE:
            raise SpoolError(
                f"spool_dir {name!r} can be written by others (mode {stat.S_IMODE(info.st_mode):04o}): run chmod 0700, or name another directory"
            )
    return fd


def _make_parents(path: Path) -> None:
    # not parents=True: it gives the mode to the last directory only
    if not path.is_dir():
        _make_parents(path.parent)
        with suppress(FileExistsError):
            path.mkdir(0o700)
            path.chmod(0o700)
