"""What became of one event, for those who asked: by `on_result`, by waiting in `log_event`, and `on_retry`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from otel_amplitude.delivery.observer import Observer
from otel_amplitude.delivery.threads import Signal

if TYPE_CHECKING:
    from otel_amplitude.delivery.parcel import Parcel
    from otel_amplitude.delivery.receipt import Receipt
    from otel_amplitude.errors import InvalidEventError
    from otel_amplitude.log import Log


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one event.

    Attributes:
        insert_id: the event's deduplication key.
        outcome: `pending` (accepted, not settled yet), `acknowledged`, `rejected`, `dropped` or `refused` (never accepted).
        reason: the word of the books for rejected, dropped and refused.
        status: the HTTP status of the last answer, or None.
        attempts: requests that were charged to it, the one that settled it included.
        message: what to change, for an event that was refused as invalid.
        error: the error behind `message`, or None.
    """

    insert_id: str
    outcome: str
    reason: str = ""
    status: int | None = None
    attempts: int = 0
    message: str = ""
    error: InvalidEventError | None = field(default=None, repr=False)
    _body: bytes = field(default=b"{}", repr=False)

    @property
    def accepted(self) -> bool:
        """Whether delivery took responsibility for it."""
        return self.outcome != "refused"

    @property
    def event(self) -> dict[str, Any]:
        """The event as it was sent, decoded on demand; empty when it was refused."""
        decoded: dict[str, Any] = orjson.loads(self._body)
        return decoded


class Waiter:
    """One caller of `log_event` that waits for its event to be settled."""

    def __init__(self, forget: Callable[[Waiter], object]) -> None:
        self._settled = Signal()
        self._forget = forget
        self._result: Result | None = None

    def settle(self, result: Result) -> None:
        """Wake the caller. Runs on the worker."""
        self._result = result
        self._settled.set()

    def result(self, timeout: float) -> Result | None:
        """Wait at most `timeout` seconds, and give the result or None."""
        self._settled.wait(timeout)
        self._forget(self)
        return self._result

    def cancel(self) -> None:
        """Wait no more."""
        self._forget(self)


def _result(parcel: Parcel, outcome: str, reason: str, status: int | None, attempts: int) -> Result:
    insert_id = str(orjson.loads(parcel.body).get("insert_id", ""))
    return Result(insert_id, outcome, reason, status, attempts, _body=parcel.body)


class Waiters(Observer):
    """Wakes callers of `log_event` that wait. Runs on the worker, so that they wait for no callback."""

    on_worker = True

    def __init__(self) -> None:
        # By waiter, not by key: two callers may wait for one insert_id.
        self._waiters: dict[Waiter, str] = {}

    @property
    def wants_results(self) -> bool:
        """Whether any caller waits; where none does, delivery does no work for each event."""
        return bool(self._waiters)

    def wait_for(self, insert_id: str) -> Waiter:
        """Ask for the result of one event, before it is submitted."""
        waiter = Waiter(self._forget)
        self._waiters[waiter] = insert_id
        return waiter

    def _forget(self, waiter: Waiter) -> None:
        self._waiters.pop(waiter, None)

    def finished(self, parcel: Parcel, outcome: str, reason: str, status: int | None, attempts: int) -> None:
        """One parcel reached its end."""
        result = _result(parcel, outcome, reason, status, attempts)
        for waiter, wanted in list(self._waiters.items()):
            if wanted == result.insert_id:
                waiter.settle(result)


class Results(Observer):
    """Calls `on_result` with what became of each event, exactly once, and `on_retry` with what will be sent again.

    Runs on the callbacks thread. What a callback raises is logged once a minute.
    """

    def __init__(self, on_result: Callable[[Result], None] | None, on_retry: Callable[[Any, int, bool], None] | None, log: Log) -> None:
        self._on_result = on_result
        self._on_retry = on_retry
        self._log = log

    @property
    def wants_results(self) -> bool:
        """Whether `on_result` is given; where it is not, delivery does no work for each event."""
        return self._on_result is not None

    @property
    def wants_retries(self) -> bool:
        """Whether `on_retry` is given."""
        return self._on_retry is not None

    def finished(self, parcel: Parcel, outcome: str, reason: str, status: int | None, attempts: int) -> None:
        """One parcel reached its end."""
        if self._on_result is not None:
            self._guarded("on_result", self._on_result, _result(parcel, outcome, reason, status, attempts))

    def retried(self, receipt: Receipt, attempt: int, *, last: bool) -> None:
        """A batch will be sent again."""
        if self._on_retry is not None:
            self._guarded("on_retry", self._on_retry, receipt.response, attempt, last)

    def _guarded(self, name: str, callback: Callable[..., None], *arguments: object) -> None:
        try:
            callback(*arguments)
        except Exception as error:  # a user's callback must not stop delivery
            self._log.error("callback.failed", callback=name, error=self._log.raised(error))
