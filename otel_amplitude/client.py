"""The client of Amplitude's SDKs: events in, through middleware, checked, encoded once, handed to delivery."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from otel_amplitude._exit import Exit
from otel_amplitude._version import __version__
from otel_amplitude.clock import application_time, monotonic, wall
from otel_amplitude.config import Config, checked
from otel_amplitude.delivery.parcel import Parcel
from otel_amplitude.errors import InvalidEventError, MiddlewareError, interrupts
from otel_amplitude.events import Event, Identify, Revenue, check_event, encode_event
from otel_amplitude.exporter import AmplitudeExporter, ids_of
from otel_amplitude.fixes import Fixes, Note
from otel_amplitude.identity._current import scope_of
from otel_amplitude.identity._resolver import IdentityResolver
from otel_amplitude.identity._scope import Scope, process
from otel_amplitude.insert_ids import given_or_new
from otel_amplitude.limits import MAX_KEYS, MIN_ID_LENGTH
from otel_amplitude.log import Log
from otel_amplitude.middleware._chain import Chain, Middleware, Payload
from otel_amplitude.moments import MAX_EARLY_MS, MAX_LATE_MS
from otel_amplitude.results import Result, Results, Waiters
from otel_amplitude.telemetry._logs import LogObserver
from otel_amplitude.telemetry._metrics import metrics_observers
from otel_amplitude.telemetry._sandbox import counters_for

if TYPE_CHECKING:
    from otel_amplitude.convert._rules import Rules
    from otel_amplitude.delivery.batch_exporter import BatchExporter
    from otel_amplitude.delivery.books import Stats

LIBRARY: Final = f"otel-amplitude/{__version__}"
_MOST_NESTED: Final = 2  # an event, and the events its middleware logs; theirs log none
# What a result says when delivery took no responsibility for the event.
_NOT_TAKEN: Final = {
    "closed": "the client was shut down: make a new one with init() or configure()",
    "queue_full": "memory is full of events that wait: see max_cached_events, max_cached_bytes, or set spool_dir",
    "id_backlog": "Amplitude throttles this user or device, and a tenth of the memory waits for it",
    "too_large": "the event has more than 64 KB",
}
_MAPS: Final = ("event_properties", "user_properties", "groups", "group_properties")


def _nowhere() -> Any:
    """Give what one thread, or greenlet, is doing: how many events deep it is (see `accept`)."""

    class Here(threading.local):
        depth = 0

    return Here()


class Amplitude:
    """One Amplitude project that events are delivered to, from this process.

    Every method may be called from any thread; none waits for the network but `flush`, `shutdown` and
    `log_event` with a timeout; none raises after start-up, except `log_event` and its kin where `strict` is set.
    Nothing is opened or started before the first event, so a client may be made before a fork.

    >>> from otel_amplitude.testing import FakeTransport
    >>> amplitude = Amplitude(Config("0123456789abcdef", transport=FakeTransport()))
    >>> amplitude.log_event({"event_type": "Order Paid", "user_id": "u-12345"}, timeout=5).outcome
    'acknowledged'
    >>> amplitude.shutdown()
    True
    """

    def __init__(self, config: Config, *, exporter: BatchExporter | None = None) -> None:
        """Make a client of its options.

        Args:
            config: the options.
            exporter: delivers the events instead of an `AmplitudeExporter`: a `BatchExporter` of your own, for another destination. It
                comes with its own numbers; the options about delivery are not used.

        Raises:
            SpoolError: when the spool directory can not be trusted.
            RulesError: when the rules file can not be used.
        """
        self.config = config
        self.log = process.log = Log(config.log_level, (config.api_key, *(config.headers or {}).values()), debug=config.debug)
        self.fixes = Fixes(self.log)
        self._note: Note = self.fixes.note
        self.rules = self.read_rules()
        self.opt_out = config.opt_out
        self._said: dict[str, object] = {}
        self._min_id_length = config.min_id_length or MIN_ID_LENGTH
        self._common: dict[str, Any] = {
            key: dict(value) for key, value in (("plan", config.plan), ("ingestion_metadata", config.ingestion_metadata)) if value
        }
        self._results = Results(config.on_result, config.on_retry, self.log)
        # None but for a sandbox on this machine.
        self._sandbox = None if config.transport or config.dry_run else counters_for(config.endpoint, self.stats)
        self._waiters = Waiters()
        self._exporter: BatchExporter = AmplitudeExporter(config) if exporter is None else exporter
        self._exporter.observe(
            LogObserver(self.log, config.spool_dir),
            self._waiters,
            self._results,
            *([self._sandbox] if self._sandbox is not None else ()),
            *metrics_observers(self.stats, endpoint=config.endpoint, capacity=config.max_cached_events),
        )
        self._count_refused = self._exporter.refuse if self._sandbox is None else self._sandbox.counted(self._exporter.refuse)
        self._middleware: tuple[Middleware, ...] = tuple(config.middleware)
        self._link()
        self._made: dict[str, Any] = {}
        self._here: Any = None  # made by the first event: until then gevent may replace `threading.local`
        self.resolver = IdentityResolver(
            config.api_key,
            identity_headers=config.identity_headers,
            user_id_format=config.user_id_format,
            consent=config.consent,
            anonymous=config.anonymous,
            min_id_length=config.min_id_length,
            log=self.log,
            as_route=_as_route,
            note=self._note,
        )
        self.reader: object = None  # what reads spans and log records for this client; made by the floor above when it is needed
        self.leaving: Exit = Exit(self, config.shutdown_timeout)

    def __repr__(self) -> str:
        return f"Amplitude({self.config!r})"

    # Middleware

    def add_event_middleware(self, middleware: Middleware) -> Amplitude:
        """Add one callable `(payload, next)` to the end of the chain, and give the client, so that calls can be joined.

        It runs on the thread that logged the event, ended the span or emitted the record, inside its context.

        Raises:
            ConfigurationError: it is not callable, or async.
        """
        self._middleware = (*self._middleware, *checked("middleware", [middleware]))
        self._link()
        return self

    def _link(self) -> None:
        self._chain = Chain(self._middleware, self._finish, self._refused_by_middleware)

    # Events

    def log_event(
        self, event: Event | Mapping[str, Any], extra: Mapping[str, Any] | None = None, *, timeout: float | None = None
    ) -> Result:
        """Log one event, as in Amplitude's Node SDK.

        Args:
            event: an `Event`, or a mapping with the keys of Amplitude's HTTP V2 API. Without `user_id` and `device_id`
                those of `set_user` are taken. `insert_id` and `time` are filled in when absent.
            extra: data for middleware only, never sent.
            timeout: seconds to wait until the event is settled; None does not wait. The wait is in vain where a middleware
                changes the event's `insert_id`.

        Returns:
            What became of it: its `outcome` is `pending` when it was accepted and not waited for or not settled in
            time, `refused` with a reason when it was not accepted, else how it was settled.

        Raises:
            InvalidEventError: only where `strict` is set, for an event that Amplitude would refuse.
        """
        try:
            item = Event(event if type(event) is dict or type(event) is Event else _entries(event))
            more = {} if extra is None else dict(_entries(extra))
            item["insert_id"] = given_or_new(item.get("insert_id"))
            if self._middleware:  # it may change what it sees, and properties may be shared by many events
                item.update({name: item[name].copy() for name in _MAPS if type(item.get(name)) is dict})
            scope = scope_of(None)
            agreed = self._identify(item, scope) if scope is not None else self.resolver.agreed()
        except BaseException as error:  # whatever is given, the application must not notice
            if interrupts(error):
                raise
            return self._bad(f"an event must be an Event or a mapping of its keys, extra another, not {_kind(event)} and {_kind(extra)}")
        if not agreed:
            return self.refuse("opted_out", insert_id=item["insert_id"])
        if timeout is None:
            taken = self.accept(item, more, None)
            return Result(taken, "pending") if isinstance(taken, str) else taken
        waiter = self._waiters.wait_for(item["insert_id"])
        try:
            taken = self.accept(item, more, None)
            if not isinstance(taken, str):
                return taken
            self._exporter.hurry()
            return waiter.result(min(timeout, threading.TIMEOUT_MAX)) or Result(taken, "pending")
        finally:  # also when `strict` raises: as long as one waits, delivery looks into every event
            waiter.cancel()

    def identify(
        self,
        user_id: str | None,
        device_id: str | None,
        identify: Identify,
        *,
        event: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Result:
        """Change properties of a user; an `$identify` event (Amplitude: Identify API).

        Args:
            user_id: whose; None takes the id of `set_user`, or leaves it to the device.
            device_id: on which device, or None.
            identify: the operations.
            event: more keys of the event, such as `groups`.
            extra: as for `log_event`.
            timeout: as for `log_event`.
        """

        def make() -> Event:
            _expect("event", event, Mapping, type(None))
            fields = {**(event or {}), "event_type": "$identify", "user_properties": self._changes("user_properties", identify)}
            return _with_ids(fields, user_id, device_id)

        return self._log_made(make, extra, timeout)

    def group_identify(
        self,
        group_type: str,
        group_name: str,
        identify: Identify,
        *,
        user_id: str | None = None,
        device_id: str | None = None,
        extra: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Result:
        """Change properties of a group; a `$groupidentify` event (Amplitude: Group Identify API).

        The server may want an id even here (unverified), so without one, the group's own name stands as device id.
        """

        def make() -> Event:
            fields = {"event_type": "$groupidentify", "groups": {group_type: group_name}}
            item = _with_ids({**fields, "group_properties": self._changes("group_properties", identify)}, user_id, device_id)
            if "user_id" not in item and "device_id" not in item and scope_of(None) is None:
                item["device_id"] = f"group-{group_type}-{group_name}"
            return item

        return self._log_made(make, extra, timeout)

    def set_group(
        self,
        user_id: str | None,
        device_id: str | None,
        group_type: str,
        group_name: str | list[str],
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Result:
        """Make a user a member of a group from now on (Amplitude: user-level groups)."""

        def make() -> Event:
            changes = self._changes("user_properties", Identify().set(group_type, group_name))
            fields = {"event_type": "$identify", "groups": {group_type: group_name}, "user_properties": changes}
            return _with_ids(fields, user_id, device_id)

        return self._log_made(make, extra, timeout)

    def revenue(
        self,
        user_id: str | None,
        device_id: str | None,
        revenue: Revenue,
        *,
        extra: Mapping[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Result:
        """Log revenue, as the `revenue_amount` event of Amplitude's SDKs."""

        def make() -> Event:
            _expect("revenue", revenue, Revenue)
            return _with_ids(revenue.to_event(), user_id, device_id)

        return self._log_made(make, extra, timeout)

    def _log_made(self, make: Callable[[], Event], extra: Mapping[str, Any] | None, timeout: float | None) -> Result:
        """Log the event that `make` gives; what it raises is an answer, since the application must not notice."""
        try:
            item = make()
        except InvalidEventError as error:
            return self._bad(str(error))
        except BaseException as error:
            if interrupts(error):
                raise
            return self._bad(f"event can not be made of what was given: {type(error).__name__}")
        return self.log_event(item, extra, timeout=timeout)

    def _changes(self, field: str, identify: Identify) -> dict[str, Any]:
        """Give the operations; what was left out is told, and an error where nothing is left or the client is strict."""
        _expect(field, identify, Identify)
        changes = identify.to_dict()
        if identify.problems:
            problem = f"{field}: {'; '.join(identify.problems)}"
            if self.config.strict or not changes:
                raise InvalidEventError(problem)
            self.log.warning("event.fixed", problem=problem)
        return changes

    def accept(
        self,
        event: dict[str, Any],
        extra: dict[str, Any],
        source: object,
        is_sound: bool = False,
    ) -> Result | str:
        """Take one event through middleware, check and encode it, and hand it to delivery: the one way in.

        Runs on the caller's thread. Never raises, except under `strict`. `event` becomes ours.

        Args:
            event: the event, with `insert_id`, and `time` if it happened before now.
            extra: for middleware only.
            source: the span or log record it was made from, or None.
            is_sound: its maker knows that `check_event` has nothing to say about it, nor `encode_event` anything to look for in its
                properties; so it is as long as no middleware changes them.

        Returns:
            The `insert_id` of what was accepted: most callers want no more, and a `Result` costs as much as the encoding. Else what
            was refused, and why.
        """
        if self.opt_out:  # before the chain, since a middleware may send elsewhere
            return self.refuse("opted_out", insert_id=event.get("insert_id", ""))
        if not self._middleware:
            taken = self._submit(event, is_sound, is_sound)
        else:
            here = self._here or self._begin()
            depth = here.depth
            if depth >= _MOST_NESTED:
                return self.refuse(
                    "middleware", insert_id=event.get("insert_id", ""), message="middleware of a middleware's event logged an event"
                )
            here.depth = depth + 1
            try:
                taken = self._chain(Payload(Event(event), extra, source, event if is_sound else None, self._note))
            finally:
                here.depth = depth
        if self.config.strict and isinstance(taken, Result) and taken.error is not None:
            raise taken.error
        return taken

    def _begin(self) -> Any:
        # No lock: a finalizer could want it on the same thread. Of several first events one decides.
        self._here = self._made.setdefault("here", _nowhere())
        return self._here

    def _finish(self, payload: Payload) -> Result | str:
        """The end of the chain."""
        event, made = payload.event, payload._made  # noqa: SLF001 -- the chain's and ours
        try:
            # The only numbers of a sound event may be equal to what Amplitude refuses: a float is sent as 1795305661001.0.
            is_sound = made is not None and made == event and type(event["time"]) is type(event.get("session_id", 0)) is int
        except Exception:  # a middleware's own value, which may answer anything
            is_sound = False
        return self._submit(event, is_sound, False)

    def _submit(self, event: dict[str, Any], is_sound: bool, is_plain: bool) -> Result | str:
        """Complete, check, encode, hand over; all that is left to do with a sound event is to encode it."""
        accepted_ms = int(wall() * 1000)
        insert_id: Any = ""
        removed: list[str] = []
        try:
            insert_id = event.get("insert_id")
            event["library"] = LIBRARY
            if self._common:
                event.update({key: _merged(value, event.get(key)) for key, value in self._common.items()})
            # A sound event is checked for nothing but when it was: the one thing that its maker can not know.
            if not is_sound or not -MAX_LATE_MS <= event["time"] - accepted_ms <= MAX_EARLY_MS:
                if type(insert_id) is not str or not insert_id:
                    insert_id = event["insert_id"] = given_or_new(insert_id)
                if event.get("time") is None:
                    event["time"] = int(application_time() * 1000)
                removed = check_event(event, self._min_id_length, now_ms=accepted_ms, note=self._note)
            body = encode_event(event, is_plain=is_plain, note=self._note)
        except InvalidEventError as error:
            return self._invalid(insert_id, event, error)
        except BaseException as error:  # whatever a value does, or a middleware put in the event's place, the application must not notice
            if interrupts(error):
                raise
            problem = f"event can not be read: {type(error).__name__} from a value of it, or it is none but a {_kind(event)}"
            known = event if isinstance(event, dict) else {}
            return self._invalid(insert_id, known, InvalidEventError(problem, "unserializable"))
        if removed:
            self.log.warning("event.fixed", removed=",".join(removed), event_type=event.get("event_type"))
        refusal = self._exporter.take(Parcel(body, ids_of(event), accepted_ms))
        return insert_id if refusal is None else Result(insert_id, "refused", refusal, message=_NOT_TAKEN.get(refusal, ""))

    # Refusals

    def refuse(self, reason: str, *, insert_id: str = "", message: str = "") -> Result:
        """Count an event that was not accepted, and give the result that says so."""
        self._count_refused(reason)
        return Result(insert_id, "refused", reason, message=message)

    def _refused_by_middleware(self, reason: str, name: str, error: BaseException | None) -> Result | str:
        self._count_refused(reason)
        if error is not None:
            told = str(error) if isinstance(error, MiddlewareError) else self.log.raised(error)  # the chain's own words quote nothing
            self.log.error("middleware.failed", middleware=name, error=told)
        else:
            self.log.debug("middleware.dropped", middleware=name)
        return Result("", "refused", reason, message=name)

    def _invalid(self, insert_id: str, event: Mapping[str, Any], error: InvalidEventError) -> Result:
        self._count_refused(error.reason)
        kind = event.get("event_type")  # only text is shown: the text of anything else may have no end
        self.log.warning("event.invalid", reason=error.reason, event_type=kind if type(kind) is str else _kind(kind), problem=str(error))
        return Result(insert_id, "refused", error.reason, message=str(error), error=error)

    def _bad(self, problem: str) -> Result:
        """Refuse what can not even be made an event of."""
        error = InvalidEventError(problem)
        result = self._invalid("", {}, error)
        if self.config.strict:
            raise error
        return result

    def _identify(self, event: Event, scope: Scope) -> bool:
        """Give an event without ids those of the request or of `set_user`; False when whoever acts has opted out."""
        explicit = {f"amplitude.{key}": event[key] for key in ("user_id", "device_id") if event.get(key) is not None}
        who = self.resolver.resolve(explicit, scope)
        if who.refusal == "opted_out":
            return False
        if not explicit:
            known = {"user_id": who.user_id, "device_id": who.device_id, "session_id": who.session_id, "groups": who.groups}
            event.update({key: value for key, value in known.items() if value is not None and event.get(key) is None})
        return True

    # Delivery

    def flush(self, timeout: float | None = None) -> bool:
        """Send what is waiting, and wait.

        Args:
            timeout: seconds; None means `shutdown_timeout`.

        Returns:
            True when everything accepted before the call is settled. An event on disk only is not settled.
            A hold or a backoff that a server asked for is not skipped.
        """
        return self._exporter.flush(self.config.shutdown_timeout if timeout is None else timeout)

    def shutdown(self, timeout: float | None = None) -> bool:
        """Flush, then close for good; what is left is spooled, or dropped and counted. May be called again.

        Args:
            timeout: seconds; None means what is left of `shutdown_timeout`, which all exit hooks of this client share.

        Returns:
            True when everything accepted is settled.
        """
        seconds = self.leaving.remaining() if timeout is None else timeout
        begun = monotonic()
        settled = self._exporter.shutdown(seconds)
        if self._sandbox is not None:
            self._sandbox.last(begun + seconds - monotonic())
        if self.leaving.done():
            self.say_books("exporter.stopped")
        return settled

    def say_books(self, event: str = "exporter.books") -> None:
        """Under zero code, write the books when the process was told to end, and as it ends, unless they are what was written last."""
        self.log.tell_sums()
        if not self.log.zero_code:
            return
        books = self.stats()
        facts: dict[str, object] = {"pid": os.getpid(), "accepted": books.accepted, "acknowledged": books.acknowledged}
        for name, counts in (("rejected", books.rejected), ("dropped", books.dropped), ("refused", books.refused)):
            if counts:
                facts[name] = ",".join(f"{reason}:{count}" for reason, count in sorted(counts.items()))
        further = (("adopted", books.adopted), ("pending", books.pending.total), ("set_user_outside", books.set_user_outside))
        facts |= {name: count for name, count in further if count}
        if (said := {"event": event, **facts}) != self._said and (books.accepted or books.adopted or books.refused):
            self.log.announce(event, **facts)
            self._said = said

    def read_rules(self) -> Rules | None:
        """Read the rules file; None where there is none.

        Raises:
            RulesError: when it can not be used.
        """
        if not self.config.rules:
            return None
        from otel_amplitude.convert._rules import load_rules  # noqa: PLC0415 -- only those who have rules pay for reading them

        rules = load_rules(self.config.rules)
        for warning in rules.warnings:
            self.log.warning("rules.doubtful", problem=warning)
        return rules

    def reload_rules(self) -> bool:
        """Read the rules file again; False when it has errors, which are logged, and the last good rules stay."""
        reload = getattr(self.reader, "reload_rules", None)
        return bool(reload()) if callable(reload) else True

    def stats(self) -> Stats:
        """Give the books: where every event that was ever accepted is now."""
        return replace(self._exporter.stats(), set_user_outside=process.set_user_outside, fixed=self.fixes.counts())


def _expect(name: str, value: object, kind: type, *more: type) -> None:
    if not isinstance(value, (kind, *more)):
        raise InvalidEventError(f"{name} must be given as {kind.__name__}, not {_kind(value)}")


def _as_route(template: str) -> str:
    from otel_amplitude.convert._routes import normalise  # noqa: PLC0415 -- whoever asks has read a span, so it is there

    return normalise(template)


def _merged(common: dict[str, Any], own: object) -> dict[str, Any]:
    return {**common, **own} if isinstance(own, Mapping) else common.copy()


def _entries(given: object) -> Iterable[tuple[Any, Any]]:
    """Give the entries of a mapping; of one that is not a dict, and may have no end, those that an event has room for."""
    if isinstance(given, dict):
        return dict.items(given)
    if not isinstance(given, Mapping):
        raise TypeError
    return ((key, given[key]) for key in islice(given, MAX_KEYS))


def _kind(value: object) -> str:
    return type(value).__name__


def _with_ids(fields: Mapping[str, Any], user_id: str | None, device_id: str | None) -> Event:
    ids = {key: value for key, value in (("user_id", user_id), ("device_id", device_id)) if value is not None}
    return Event({**fields, **ids})
