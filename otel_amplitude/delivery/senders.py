"""The threads that wait for answers: each sends one batch at a time and posts what became of it to the worker."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from otel_amplitude.delivery.dispatcher import Answer, Batch, attempts_to_ask
from otel_amplitude.delivery.receipt import Outcome, Receipt, Split, Verdict
from otel_amplitude.delivery.retry import ExponentialBackoff, RetryPolicy
from otel_amplitude.delivery.threads import start_thread
from otel_amplitude.errors import without_frames

# A user's policy must not stop delivery for ever.
MOST_WAIT: Final = 86_400.0
# Senders without work end after this time, but for one: at the end of the interpreter no thread can be started.
_IDLE_SECONDS: Final = 5.0


class Senders:
    """Sender threads, from none up to as many as requests are in flight.

    The worker owns the counts and calls every method but `send`. A batch never waits behind a request while a thread can be had.
    """

    def __init__(
        self,
        send: Callable[[Batch], Receipt],
        policy: RetryPolicy,
        random: Callable[[], float],
        clock: Callable[[], float],
        answered: Callable[[Batch, Answer], None],
        *,
        asks_ahead: Callable[[], bool] = lambda: False,
    ) -> None:
        self._send_batch = send
        self._policy = policy
        self._random = random
        self._clock = clock
        self._answered = answered
        # Whether the policy is asked for the attempt after the next one as well: an observer wants to know which one is the last.
        self._asks_ahead = asks_ahead
        # The user's policy is called by one sender at a time; nothing else is done under this lock.
        self._policy_lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._alive = 0
        self._busy = 0
        self._idle_since = 0.0

    def hand_over(self, batch: Batch) -> bool:
        """Give a batch to a sender; False where there is none and no thread can be started: then the caller has to `send` it."""
        if self._busy >= self._alive:
            if start_thread(self._run):
                self._alive += 1
            elif not self._alive:
                return False
        self._busy += 1
        self._jobs.put(batch)
        return True

    def returned(self, now: float) -> None:
        """A sender has posted its answer."""
        self._busy = max(0, self._busy - 1)
        self._idle_since = now

    def release_idle(self, now: float) -> float | None:
        """End senders that had nothing to do for a while; give when to look again, or None."""
        spare = self._alive - max(1, self._busy)
        if spare <= 0:
            return None
        if now < self._idle_since + _IDLE_SECONDS:
            return self._idle_since + _IDLE_SECONDS
        self._end(spare)
        return None

    def stop(self) -> None:
        """End all senders, each as soon as its request is over."""
        self._end(self._alive)

    def _end(self, count: int) -> None:
        self._alive -= count
        for _ in range(count):
            self._jobs.put(None)

    def _run(self) -> None:
        while (batch := self._jobs.get()) is not None:
            with suppress(BaseException):  # such as a user's clock: the batch was answered as interrupted
                self.send(batch)

    def send(self, batch: Batch) -> None:
        """Send one batch and post the answer. Whatever happens, an answer is posted."""
        answer = Answer(_interrupted(batch), {}, 0.0)
        try:
            begun = self._clock()
            receipt = self._attempt(batch)
            answer = Answer(receipt, self._ask(attempts_to_ask(batch, receipt)), self._clock() - begun)
        finally:
            self._answered(batch, answer)

    def _attempt(self, batch: Batch) -> Receipt:
        try:
            receipt = self._send_batch(batch)
            if len(receipt.outcomes) == len(batch):
                return receipt
            error: BaseException = ValueError(f"send_batch gave {len(receipt.outcomes)} outcomes for {len(batch)} parcels")
        except BaseException as raised:  # not even SystemExit may end a sender with parcels in its hands
            error = without_frames(raised)
        outcomes = [Outcome(Verdict.RETRY, "internal")] * len(batch)
        split = Split.BISECT if len(batch) > 1 else Split.NO
        return Receipt(outcomes, "internal", split, server_fault=True, response=error)

    def _ask(self, attempts: list[int]) -> Mapping[int, float | None]:
        """Ask the retry policy once for each attempt number."""
        if not attempts:
            return {}
        if self._asks_ahead() and attempts[-1] + 1 not in attempts:
            attempts = [*attempts, attempts[-1] + 1]
        with self._policy_lock:
            return {attempt: self._wait_after(attempt) for attempt in attempts}

    def _wait_after(self, attempt: int) -> float | None:
        try:
            seconds = self._policy.wait(attempt, self._random)
            if seconds is None or float(seconds) >= 0.0:  # not so for what is not a number, in either sense
                return None if seconds is None else min(float(seconds), MOST_WAIT)
        except BaseException:  # a user's policy that fails must not lose events
            return ExponentialBackoff().wait(attempt, self._random)
        return ExponentialBackoff().wait(attempt, self._random)


def _interrupted(batch: Batch) -> Receipt:
    """What is posted for a sending that was interrupted: send again, charged to no event."""
    return Receipt([Outcome(Verdict.RETRY, "interrupted", charged=False)] * len(batch), "interrupted")
