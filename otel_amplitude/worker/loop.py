"""The loop of a worker: reads records, hands them over, commits what is settled, pauses and resumes, and answers rebalances."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Protocol

from otel_amplitude.clock import monotonic, wall
from otel_amplitude.delivery.batch_exporter import BatchExporter
from otel_amplitude.delivery.observer import Observer
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.errors import KafkaError
from otel_amplitude.kafka.settings import BROKERS, library, reason_of
from otel_amplitude.kafka.topics import creation_line
from otel_amplitude.log import Log
from otel_amplitude.worker.progress import Assignment, Commit, Progress
from otel_amplitude.worker.rate import Rate
from otel_amplitude.worker.records import DeadLetter, NotAnEventError, Position

MAX_PENDING: Final = 20_000
REVOKE_SECONDS: Final = 3.0
COMMIT_SECONDS: Final = 1.0
BOOKS_SECONDS: Final = 60.0
CLOSE_SECONDS: Final = 5.0
_DEAD_SECONDS: Final = 3.0
_POLL_SECONDS: Final = 0.1
_ASK_SECONDS: Final = 5.0
_PARTITIONS: Final = 12
# The group moved on while a commit was under way: the next owner begins where the last commit stands, and sends some events again.
_STALE: Final = ("ILLEGAL_GENERATION", "REBALANCE_IN_PROGRESS", "UNKNOWN_MEMBER_ID", "STALE_MEMBER_EPOCH")
_NO_TOPIC: Final = ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION")


class Ends(Observer):
    """Collects what became of each parcel, for the loop's thread."""

    on_worker = True

    def __init__(self) -> None:
        self.ended: deque[tuple[Position, str, str, int | None]] = deque()

    @property
    def wants_results(self) -> bool:
        """Always."""
        return True

    def finished(self, parcel: Parcel, outcome: str, reason: str, status: int | None, attempts: int) -> None:  # noqa: ARG002 -- the signature of the base class
        """Append; runs on a worker of delivery."""
        if isinstance(parcel, Position):
            self.ended.append((parcel, outcome, reason, status))


class Destination(Protocol):
    """Where the events of records go."""

    @property
    def exporter(self) -> BatchExporter:
        """Delivers them; it has the observer `Ends` of the loop, and returns at its end what it could not deliver."""
        ...

    def take(self, message: Any, value: bytes | None, assignment: Assignment, offset: int) -> str | None:
        """Take the record of a message, as parcels that carry its place; None, or why it was refused.

        Raises:
            NotAnEventError: the record holds nothing that could be delivered.
        """
        ...


@dataclass(frozen=True, slots=True)
class Options:
    """The numbers of a worker.

    Attributes:
        max_pending: above so many records taken and not settled, all partitions are paused.
        max_pending_bytes: likewise of their values.
        rate: most records a second; None: no limit.
        shutdown_timeout: seconds for what is in flight at the end.
    """

    max_pending: int = MAX_PENDING
    max_pending_bytes: int = 32 * 2**20
    rate: float | None = None
    shutdown_timeout: float = 5.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a worker has done until now, read by any thread.

    Attributes:
        taken: records read.
        settled: records after which an offset may be committed.
        dead: dead letters written, by reason.
        gone: records that retention removed before they were read.
        unwritten: dead letters that their topic refused for good.
        commits: commits that the brokers took.
        commit_failures: those that failed, by the name of the error.
        pending: records taken and not settled.
        partitions: assigned now.
        paused: of these.
        lag: records behind the offset that may be committed, by topic and partition.
    """

    taken: int = 0
    settled: int = 0
    dead: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    gone: int = 0
    unwritten: int = 0
    commits: int = 0
    commit_failures: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    pending: int = 0
    partitions: int = 0
    paused: int = 0
    lag: Mapping[tuple[str, int], int] = field(default_factory=lambda: MappingProxyType({}))


class Loop:
    """One worker. Every method but `snapshot` runs on one thread; callbacks of the consumer run there too, inside `turn`.

    Attributes:
        snapshot: replaced each second.
    """

    def __init__(
        self,
        destination: Destination,
        dead: BatchExporter,
        ends: Ends,
        options: Options,
        log: Log,
        *,
        settings: Mapping[str, str],
        clock: Callable[[], float] = monotonic,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        """Make a loop.

        Args:
            destination: where records go.
            dead: where dead letters go.
            ends: the observer of both.
            options: the numbers.
            log: where to write.
            settings: of the client, for the words of errors.
            clock: seconds that never go back.
            wait: sleeps for some seconds while the rate allows nothing.
        """
        self._destination = destination
        self._dead = dead
        self._ends = ends
        self._options = options
        self._log = log
        self._brokers = settings[BROKERS]
        self._clock = clock
        self._wait = wait or threading.Event().wait
        self._consumer: Any = None
        self._progress = Progress(options.max_pending, options.max_pending_bytes)
        self._rate = Rate(options.rate, clock())
        self._taken = self._settled = self._gone = self._unwritten = self._commits = 0
        self._dead_letters: Counter[str] = Counter()
        self._commit_failures: Counter[str] = Counter()
        self._commits_under_way = 0
        self._commit_at = self._books_at = self._busy_at = clock()
        self._has_assignment = False
        self._is_closing = False
        self._is_refused = False
        self._fatal: str | None = None
        self.snapshot = Snapshot()

    # The consumer

    def callbacks(self) -> dict[str, Callable[..., None]]:
        """Give the callbacks that belong to the settings of the consumer."""
        return {"on_commit": self._on_commit, "error_cb": self._on_error}

    def subscribe(self, consumer: Any, topics: Sequence[str]) -> None:
        """Join the group."""
        self._consumer = consumer
        consumer.subscribe(list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def run(
        self,
        should_stop: Callable[[], bool],
        *,
        until_idle: float | None = None,
        each_turn: Callable[[Snapshot], object] = lambda _: None,
    ) -> None:
        """Do turns until `should_stop`, or until there was nothing to do for `until_idle` seconds.

        Raises:
            KafkaError: the client can not go on.
        """
        while not should_stop():
            self.turn()
            each_turn(self.snapshot)
            if until_idle is not None and self.idle_seconds() >= until_idle:
                return

    def turn(self) -> None:
        """Read once, and do what is due.

        Raises:
            KafkaError: the client can not go on.
        """
        allowed = self._rate.allowed(self._clock())
        if allowed:
            messages = self._consume(allowed)
            self._rate.spend(len(messages))
            if messages:
                self._busy_at = self._clock()
            for message in messages:
                self._take(message)
        else:
            self._wait(self._rate.wait(_POLL_SECONDS))
        self._drain()
        self._rest()
        now = self._clock()
        if now >= self._commit_at:
            self._commit_at = now + COMMIT_SECONDS
            self._commit()
            self.publish()
        if now >= self._books_at + BOOKS_SECONDS:
            self._books_at = now
            self.tell_books()
        if self._fatal is not None:
            raise KafkaError(f"the Kafka client can not go on: {self._fatal}; start the worker again, no event is lost")

    def _consume(self, most: int) -> list[Any]:
        try:
            found: list[Any] = self._consumer.consume(most, _POLL_SECONDS)
        except library().KafkaException as error:  # one that is not of a partition: the client is broken
            self._fatal = reason_of(error)
            return []
        return found

    def idle_seconds(self) -> float:
        """Give for how long there was nothing to do; 0 while the group has not assigned anything."""
        if not self._has_assignment or self._progress.events or any(self.snapshot.lag.values()):
            self._busy_at = self._clock()
        return self._clock() - self._busy_at

    def _take(self, message: Any) -> None:
        error = message.error()
        if error is not None:
            self._failed(error, message.topic())
            return
        offset = message.offset()
        assignment = self._progress.assignments.get((message.topic(), message.partition()))
        if assignment is None or self._is_refused:
            return
        if offset != assignment.position:
            assignment = self._jumped(assignment, offset)
        value = message.value()
        self._progress.take(assignment, offset, len(value) if value else 0)
        self._taken += 1
        try:
            refusal = self._destination.take(message, value, assignment, offset)
        except NotAnEventError as reason:
            self._bury(assignment, offset, message.key(), value, message.headers(), "poison", str(reason))
            return
        if refusal is not None:
            # The record stays unsettled: its partition commits nothing behind it, and the next owner reads it again.
            self._is_refused = True
            self._fatal = f"delivery refuses events ({refusal})"

    def _jumped(self, assignment: Assignment, offset: int) -> Assignment:
        """A record does not follow the one before it: some are gone, or the topic was made anew."""
        if assignment.position is None:
            return assignment
        where = {"topic": assignment.topic, "partition": assignment.partition, "expected": assignment.position, "offset": offset}
        if offset < assignment.position:
            self._log.warning("worker.rewound", **where)
            renewed = self._progress.assign(assignment.topic, assignment.partition, None)
            renewed.is_paused = assignment.is_paused
            return renewed
        # Records that compaction removed, and markers of transactions, leave gaps as well: only what lies before the oldest record is gone.
        lowest = offset
        try:
            lowest, _ = self._consumer.get_watermark_offsets(self._place(assignment), timeout=_ASK_SECONDS)
        except library().KafkaException as error:
            self._log.debug("kafka.client", line=reason_of(error))
        gone = min(lowest, offset) - assignment.position
        if gone > 0:
            self._gone += gone
            self._log.error("worker.records_gone", problem=f"{assignment.topic}/{assignment.partition}", records=gone, **where)
        return assignment

    def _place(self, assignment: Assignment) -> Any:
        return library().TopicPartition(assignment.topic, assignment.partition)

    def _failed(self, error: Any, topic: str | None) -> None:
        name = error.name()
        if name in _NO_TOPIC:
            self._log.error("worker.topic_absent", reason=topic, cure=f"create it: {creation_line(str(topic), _PARTITIONS, self._brokers)}")
        else:
            self._on_error(error)

    def _on_error(self, error: Any) -> None:
        if error.fatal():
            self._fatal = reason_of(Exception(error))
        self._log.warning("kafka.failed", reason=error.name().lower().lstrip("_"), error=reason_of(Exception(error)))

    # Ends

    def _bury(
        self,
        assignment: Assignment,
        offset: int,
        key: bytes | str | None,
        value: bytes | None,
        headers: Any,
        outcome: str,
        reason: str,
        status: int | None = None,
    ) -> None:
        self._dead_letters[reason] += 1
        self._log.warning("worker.dead_letter", reason=reason, topic=assignment.topic, partition=assignment.partition, offset=offset)
        self._dead.take(
            DeadLetter(
                assignment,
                offset,
                int(wall() * 1000),
                key=key,
                value=value,
                headers=headers,
                outcome=outcome,
                reason=reason,
                status=status,
            )
        )

    def _drain(self) -> None:
        """Note what became of parcels since the last turn."""
        ended, settle = self._ends.ended, self._progress.settle
        while ended:
            parcel, outcome, reason, status = ended.popleft()
            if outcome == "acknowledged":
                self._settled += settle(parcel.assignment, parcel.offset)
            elif parcel.assignment.is_released or outcome == "returned" or reason == "shutdown":
                continue
            elif isinstance(parcel, DeadLetter):
                self._unwritten += 1
                where = {"topic": parcel.assignment.topic, "partition": parcel.assignment.partition, "offset": parcel.offset}
                self._log.error("worker.letter_refused", reason=reason, **where)
                self._settled += settle(parcel.assignment, parcel.offset)
            else:
                self._bury(parcel.assignment, parcel.offset, parcel.ids[0], parcel.body, None, outcome, reason, status)

    def _rest(self) -> None:
        pause, resume = self._progress.rests()
        for assignments, change in ((pause, self._consumer.pause), (resume, self._consumer.resume)):
            if assignments:
                change([self._place(one) for one in assignments])

    # Commits

    def _commit(self) -> None:
        """Commit without waiting; `_on_commit` has the answer."""
        self._drain()
        commits = self._progress.commits()
        if commits:
            try:
                self._consumer.commit(offsets=self._offsets(commits), asynchronous=True)
                self._commits_under_way += 1
            except library().KafkaException as error:
                self._commit_failed(error.args[0])

    def _offsets(self, commits: Sequence[Commit]) -> list[Any]:
        make = library().TopicPartition
        return [make(one.topic, one.partition, one.offset) for one in commits]

    def _on_commit(self, error: Any, places: Sequence[Any]) -> None:
        self._commits_under_way = max(0, self._commits_under_way - 1)
        self._note_commit(error, places)

    def _note_commit(self, error: Any, places: Sequence[Any]) -> None:
        failure = error or next((place.error for place in places if place.error is not None), None)
        if failure is not None:
            self._commit_failed(failure)
        else:
            self._commits += 1
        for place in places:
            if error is None and place.error is None:
                self._progress.committed(Commit(place.topic, place.partition, place.offset))

    def _commit_failed(self, error: Any) -> None:
        name = error.name()
        self._commit_failures[name.lower().lstrip("_")] += 1
        if name not in _STALE:
            self._log.warning("worker.commit_failed", reason=name.lower().lstrip("_"), error=reason_of(Exception(error)))

    # Rebalances

    def _on_assign(self, consumer: Any, places: Sequence[Any]) -> None:
        self._has_assignment = True
        self._busy_at = self._clock()
        committed: dict[tuple[str, int], int] = {}
        if places:
            try:
                known = consumer.committed(list(places), timeout=_ASK_SECONDS)
                committed = {(place.topic, place.partition): place.offset for place in known if place.error is None and place.offset >= 0}
            except library().KafkaException as error:  # only a gap before the first record will not be seen
                self._log.debug("kafka.client", line=reason_of(error))
        for place in places:
            self._progress.assign(place.topic, place.partition, committed.get((place.topic, place.partition)))
        self._log.debug("worker.assigned", partitions=_named(places))

    def _on_revoke(self, consumer: Any, places: Sequence[Any]) -> None:
        if self._is_closing:
            return
        mine = [found for place in places if (found := self._progress.assignments.get((place.topic, place.partition))) is not None]
        chosen = frozenset(mine)
        end = self._clock() + REVOKE_SECONDS
        self._destination.exporter.withdraw(lambda parcel: _is_of(parcel, chosen), REVOKE_SECONDS)
        self._drain()
        # What was rejected meanwhile is on its way to the dead letters.
        if any(one.open for one in mine):
            self._dead.flush(max(0.0, end - self._clock()))
            self._dead.withdraw(lambda parcel: _is_of(parcel, chosen), 0.0)
            self._drain()
        commits = self._progress.commits(mine)
        if commits:
            try:
                self._note_commit(None, consumer.commit(offsets=self._offsets(commits), asynchronous=False))
            except library().KafkaException as error:
                self._commit_failed(error.args[0])
        for one in mine:
            self._progress.release(one.topic, one.partition)
        self._busy_at = self._clock()
        self._log.debug("worker.revoked", partitions=_named(places))

    def _on_lost(self, _consumer: Any, places: Sequence[Any]) -> None:
        if self._is_closing:
            return
        lost = frozenset(found for place in places if (found := self._progress.release(place.topic, place.partition)) is not None)
        for exporter in (self._destination.exporter, self._dead):
            exporter.withdraw(lambda parcel: _is_of(parcel, lost), 0.0)
        self._has_assignment = False  # until the group gives what it had, or something else
        self._log.warning("worker.lost", partitions=_named(places))

    # Counters

    def publish(self) -> None:
        """Replace the snapshot."""
        self.snapshot = Snapshot(
            taken=self._taken,
            settled=self._settled,
            dead=MappingProxyType(dict(self._dead_letters)),
            gone=self._gone,
            unwritten=self._unwritten,
            commits=self._commits,
            commit_failures=MappingProxyType(dict(self._commit_failures)),
            pending=self._progress.events,
            partitions=len(self._progress.assignments),
            paused=self._progress.paused,
            lag=MappingProxyType({(one.topic, one.partition): self._lag(one) for one in self._progress}),
        )

    def _lag(self, assignment: Assignment) -> int:
        """Give the records behind what may be committed, by what the last fetch said: without asking."""
        if assignment.to_commit is None:
            return 0
        _, high = self._consumer.get_watermark_offsets(self._place(assignment), cached=True)
        return max(0, int(high) - assignment.to_commit)

    def tell_books(self) -> None:
        """Write the counters to the log."""
        self.publish()
        now, delivery = self.snapshot, self._destination.exporter.stats()
        facts: dict[str, object] = {
            "taken": now.taken,
            "settled": now.settled,
            "acknowledged": delivery.acknowledged,
            "pending": now.pending,
            "lag": sum(now.lag.values()),
            "partitions": now.partitions,
        }
        for name, counts in (
            ("rejected", delivery.rejected),
            ("dropped", delivery.dropped),
            ("dead", now.dead),
            ("commit_failures", now.commit_failures),
        ):
            if counts:
                facts[name] = ",".join(f"{reason}:{count}" for reason, count in sorted(counts.items()))
        facts |= {name: count for name, count in (("paused", now.paused), ("gone", now.gone), ("unwritten", now.unwritten)) if count}
        self._log.announce("worker.books", **facts)

    # The end

    def close(self) -> bool:
        """Send what is in flight, commit, and leave the group; whether the client could be closed in time.

        What is not settled by then is read again by the next owner of its partition. A client whose brokers do not answer can not be
        closed: then the process must end without waiting for it.
        """
        self._is_closing = True
        if self._progress.assignments:
            with contextlib.suppress(library().KafkaException):  # what is read now is not taken anyway
                self._consumer.pause([self._place(one) for one in self._progress])
        self._destination.exporter.shutdown(self._options.shutdown_timeout)
        self._drain()
        self._dead.shutdown(_DEAD_SECONDS)
        self._commit()
        end = self._clock() + REVOKE_SECONDS
        while self._commits_under_way and self._clock() < end:
            self._consume(1)
        self.tell_books()
        closing = threading.Thread(target=self._consumer.close, name="otel-amplitude-close", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)
        return not closing.is_alive()


def _is_of(parcel: Parcel, assignments: frozenset[Assignment]) -> bool:
    return isinstance(parcel, Position) and parcel.assignment in assignments


def _named(places: Sequence[Any]) -> str:
    return ",".join(f"{place.topic}/{place.partition}" for place in places)
