"""What any thread may call: accept parcels, flush, shut down, ask for the counters. A subclass says how one request is sent."""

from __future__ import annotations

import os
import sys
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from os import getpid
from random import random as any_random
from types import TracebackType
from typing import TYPE_CHECKING

from otel_amplitude.clock import monotonic
from otel_amplitude.clock import wall as machine_wall
from otel_amplitude.delivery.dispatcher import Batch, DeliveryOptions
from otel_amplitude.delivery.observer import Observer
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.delivery.receipt import Receipt
from otel_amplitude.delivery.retry import ExponentialBackoff, RetryPolicy
from otel_amplitude.delivery.worker import Worker

if TYPE_CHECKING:
    from otel_amplitude.delivery.books import Stats
    from otel_amplitude.delivery.disk.spool import Spool

_exporters: weakref.WeakSet[BatchExporter] = weakref.WeakSet()


def _renew_after_fork() -> None:
    for exporter in list(_exporters):
        exporter._renew()  # noqa: SLF001 -- our own class


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_renew_after_fork)


def _finish(reference: weakref.ref[BatchExporter], timeout: float) -> None:
    """End an exporter in a `multiprocessing` child, where `atexit` does not run."""
    exporter = reference()
    if exporter is not None:
        exporter.shutdown(timeout)


def _no_ids(_body: bytes) -> tuple[str, ...]:
    return ("",)


class BatchExporter(ABC):
    """Takes parcels from any thread and brings each to exactly one end.

    A daemon thread, started by the first parcel, owns all state; senders, one or under a backlog a few, wait for answers. Nothing is
    shared with a forked child but the options: it starts empty. Callers never touch the network; they wait for one another only for the
    time of one append.
    """

    def __init__(
        self,
        options: DeliveryOptions,
        *,
        observers: Sequence[Observer] = (),
        retry: RetryPolicy | None = None,
        spool: Spool | None = None,
        read_ids: Callable[[bytes], tuple[str, ...]] = _no_ids,
        clock: Callable[[], float] = monotonic,
        wall: Callable[[], float] = machine_wall,
        random: Callable[[], float] = any_random,
    ) -> None:
        """Make an exporter; no thread, file or connection exists before the first parcel.

        Args:
            options: the numbers, checked by the caller.
            observers: receive what happens; what they raise is swallowed.
            retry: how long to wait after a fault; by default 0.5 s to 60 s, full jitter, without end.
            spool: the directory on disk, owned by the exporter from now on; None: memory only.
            read_ids: gives the ids of a body read back from the spool. It must raise ValueError for what is not the whole body of one
                event: that is dropped as `spool_corrupt`.
            clock: seconds that never go back.
            wall: seconds since the epoch, for the age of what ended processes left.
            random: chance from 0 to 1, for jitter.
        """
        self._options = options
        self._observers = tuple(observers)
        self._retry = retry if retry is not None else ExponentialBackoff()
        self._spool = spool
        self._read_ids = read_ids
        self._clock = clock
        self._wall = wall
        self._random = random
        self._closed = False
        # All state of one process hangs on one object. Of several that are made at once (two threads, after a fork that no hook saw) the
        # one that `setdefault` keeps is the one.
        self._workers: dict[int, Worker] = {}
        _exporters.add(self)

    @abstractmethod
    def send_batch(self, batch: Batch, deadline: float) -> Receipt:
        """Send one request and say what became of each parcel; called by sender threads, several at once under a backlog.

        Args:
            batch: the parcels in order, with `halved` for the reader of the answer.
            deadline: the moment on the clock (`otel_amplitude.clock.monotonic` by default) by which this attempt must have ended.

        Returns:
            One outcome for each parcel.
        """

    def observe(self, *observers: Observer) -> None:
        """Report to more observers; before the first parcel."""
        self._observers += observers

    # The state of one process.

    def _worker(self) -> Worker:
        worker = self._workers.get(getpid())
        return worker if worker is not None else self._renew()

    def _renew(self) -> Worker:
        """Begin anew in this process: what a parent holds is the parent's."""
        pid = getpid()
        inherited = [other for other in self._workers if other != pid]
        worker = self._workers.setdefault(pid, self._make_worker())
        for other in inherited:
            parent = self._workers.pop(other, None)
            if parent is not None and self._spool is not None:
                self._spool.abandon_after_fork([segment.file for segment in parent.queue.segments if segment.file is not None])
        return worker

    def _make_worker(self) -> Worker:
        worker = Worker(
            self._options,
            self.send_batch,
            observers=self._observers,
            retry=self._retry,
            spool=self._spool,
            read_ids=self._read_ids,
            clock=self._clock,
            wall=self._wall,
            random=self._random,
            begin=self._finish_with_multiprocessing,
        )
        if self._closed:
            worker.queue.close()
            worker.ended.set()
            worker.over.set()
        return worker

    def _finish_with_multiprocessing(self) -> None:
        """Ask `multiprocessing`, if this process is a child of it, to shut us down: it leaves by `os._exit`, without `atexit`.

        Runs under the append lock, so it imports nothing: a child of `multiprocessing` has these modules.
        """
        process, util = map(sys.modules.get, ("multiprocessing.process", "multiprocessing.util"))
        if process is not None and util is not None and process.parent_process() is not None:
            util.Finalize(self, _finish, args=(weakref.ref(self), self._options.shutdown_timeout), exitpriority=10)

    # Any thread.

    def submit(self, parcel: Parcel) -> bool:
        """Take responsibility for one parcel; False: refused and counted; see `take`."""
        return self.take(parcel) is None

    def take(self, parcel: Parcel) -> str | None:
        """Take responsibility for one parcel; None, or why it was refused and counted (`closed`, `queue_full`, `id_backlog`, `too_large`).

        Any thread. Never raises; waits only for the append of another thread: it may be called from finalizers, signal and log handlers.
        With a spool the parcel is on disk when this returns, as long as the disk works.
        """
        return self._worker().queue.accept(parcel)

    def refuse(self, reason: str, count: int = 1) -> None:
        """Count events that never became a parcel; any thread."""
        self._worker().queue.refuse(reason, count)

    def reserve(self, events: int, size: int, *, durable: bool = False) -> Ticket | None:
        """Keep room for parcels to come, so that none of them is refused but when the exporter is closed; any thread.

        Args:
            events: how many parcels.
            size: bytes of their bodies together.
            durable: every parcel must be on disk before it counts as accepted. One whose append fails is refused (`spool_io`).

        Returns:
            A ticket, to be used in a `with` statement, which gives back what was not used; None when there is not enough room, which for
            `durable` is room on disk, and for `durable` when there is no spool or its disk fails.
        """
        queue = self._worker().queue
        return Ticket(self, events, size, durable=durable) if queue.reserve(events, size, durable=durable) else None

    def withdraw(self, predicate: Callable[[Parcel], bool], timeout: float) -> bool:
        """Give events back to the source that keeps them: they end as `returned`, in the counters and for observers.

        What is in flight is returned if its answer says that it must be sent again. Events that lie in a spool stay: the spool keeps them.

        Args:
            predicate: whether a parcel is to be returned; runs on the worker. One that raises matches nothing.
            timeout: seconds to wait for what is in flight.

        Returns:
            Whether all that match are settled or returned.
        """
        return self._worker().withdraw(predicate, timeout)

    def flush(self, timeout: float) -> bool:
        """Send without waiting for company; True when everything accepted before the call came to its end within `timeout` seconds.

        Any thread. Skips no hold and no backoff. What lies on disk has not come to its end. The first flush with a spool waits for what
        ended processes left as well; it is False when something of that could not be taken over.
        """
        return self._worker().flush(timeout)

    def hurry(self) -> None:
        """Send what was accepted until now without waiting for company, and do not wait for the answer; any thread."""
        self._worker().hurry()

    @property
    def closed(self) -> bool:
        """Whether nothing is accepted any more."""
        return self._closed

    def shutdown(self, timeout: float) -> bool:
        """Accept nothing more and send what can be sent within `timeout` seconds; the rest stays on disk, is dropped or returned.

        Any thread, any number of times: all callers wait for the same end, each within its own time.

        Returns:
            Whether nothing was left.
        """
        worker = self._worker()
        self._closed = True
        return worker.shut_down(timeout)

    def stats(self) -> Stats:
        """Give the counters of this process; any thread, also a signal handler: without a lock."""
        return self._worker().stats()


class Ticket:
    """Room that was kept by `BatchExporter.reserve`. A context manager: what was not used is given back at its end."""

    def __init__(self, exporter: BatchExporter, events: int, size: int, *, durable: bool) -> None:
        self._exporter = exporter
        self._pid = getpid()
        self._events = events
        self._size = size
        self._durable = durable

    def take(self, parcel: Parcel) -> str | None:
        """Take responsibility for one of the parcels; None, or why it was refused: `closed`, or `spool_io` for a durable one.

        What exceeds the reserved room is taken as by `BatchExporter.take`.
        """
        size = len(parcel.body)
        is_reserved = self._events > 0 and size <= self._size
        queue = self._exporter._worker().queue  # noqa: SLF001 -- its own class
        refusal = queue.accept(parcel, durable=self._durable, reserved=is_reserved)
        if is_reserved and refusal is None:
            self._give_back(1, size)
        return refusal

    def _give_back(self, events: int, size: int) -> None:
        self._events -= events
        self._size -= size
        if self._pid == getpid():
            self._exporter._worker().queue.release(events, size)  # noqa: SLF001 -- its own class

    def __enter__(self) -> Ticket:  # noqa: PYI034 -- Self needs Python 3.11
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._give_back(self._events, self._size)
