"""Locks are given back and nobody waits for himself, whatever a signal handler or finalizer does between two lines."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from otel_amplitude.delivery.lock import acquired, owns


def taken_elsewhere(lock: threading.RLock) -> bool:
    """Whether another thread finds it held."""
    found: list[bool] = []

    def look() -> None:
        found.append(not lock.acquire(blocking=False))
        if not found[0]:
            lock.release()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return found[0]


def test_it_is_held_inside_and_free_behind() -> None:
    """Whatever is raised inside."""
    lock = threading.RLock()

    def fail() -> None:
        with acquired(lock) as held:
            assert held
            assert owns(lock)
            assert taken_elsewhere(lock)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not owns(lock)
    assert not taken_elsewhere(lock)


def test_a_thread_that_interrupted_itself_is_turned_away() -> None:
    """It can not wait for itself, and does not give back what the interrupted code holds."""
    lock = threading.RLock()
    with acquired(lock):
        with acquired(lock) as held:
            assert not held
        assert owns(lock)
        assert taken_elsewhere(lock)


@pytest.mark.parametrize("timeout", [0.0, -5.0, 0.01])
def test_time_may_run_out(timeout: float) -> None:
    """A moment that has passed is no reason to wait for ever."""
    lock = threading.RLock()
    inside, done = threading.Event(), threading.Event()

    def hold() -> None:
        with acquired(lock):
            inside.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(30)
    with acquired(lock, timeout) as held:
        assert not held
    assert taken_elsewhere(lock)
    done.set()
    thread.join()


def test_what_a_signal_raises_right_behind_the_acquisition_leaves_nothing_locked() -> None:
    """Ctrl-C may come before anybody knows that the lock is held."""
    lock = threading.RLock()

    class Interrupted:
        _is_owned = lock._is_owned
        release = lock.release

        def acquire(self, **how: Any) -> bool:
            assert lock.acquire(**how)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), acquired(Interrupted()):
        pass
    assert not owns(lock)
    assert not taken_elsewhere(lock)
