"""One request in, one answer out: decoded bytes become events of a client. Knows nothing of sockets. Any thread."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from otel_amplitude.convert import otlp_json
from otel_amplitude.convert._globs import compile_globs
from otel_amplitude.convert.ancestors import Ancestors, Knows, above
from otel_amplitude.convert.documents import parse
from otel_amplitude.convert.mounts import InnerRoutes
from otel_amplitude.convert.recorded import CAUSES, Ids, KnownResources, Recorded, WrongError, problem_of
from otel_amplitude.gateway.answers import JSON, PROTOBUF, Answer, Signal, accepted
from otel_amplitude.gateway.limits import RefusedError
from otel_amplitude.gateway.traces import NAMES, OPTED_OUT, TraceMemory
from otel_amplitude.identity._resolver import OPT_OUT, has_opted_out
from otel_amplitude.otel._reader import Outcome, reader_of

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

    from otel_amplitude.client import Amplitude
    from otel_amplitude.gateway.exporter import PerRequest, Reading

REASONS: Final = ("inner_request", "unreadable")
"""Why a gateway refuses items, besides the reasons of every client."""
AnswerWhen = Literal["disk", "memory", "delivered"]
# Refusals of events that are the sender's fault: they are rejected (OTLP, "Partial success"). Others are decisions: no known user, opted out.
_REJECTIONS: Final = ("invalid", "invalid_time", "unserializable", "too_large", "internal")
_NO_ROOM: Final = ("queue_full", "id_backlog", "spool_io", "closed")
_MAX_RESOURCES: Final = 4_096
_MAX_SERVICES: Final = 1_000
_MAX_PROBLEMS: Final = 20
# A service is named when so many of its requests had a remote parent, and none had no parent.
_MANY_INNER: Final = 20
_SERVICE: Final = "service.name"
_WANTED: Final = NAMES | {OPT_OUT}
# About what the properties of the resource and the keys of an event add to the bytes of its item.
_SIZE_OF_EVENT: Final = 1_024
_MAX_ITEMS: Final = 100_000  # of one request; the Collector's default is 8,192
# Python's objects take about twelve times the text of real OTLP; of nothing but empty objects, which are 3 bytes each, 24 times.
_JSON_WEIGHT: Final = 12
_BYTES_OF_CONTAINER: Final = 16
_SOME_CONTAINERS: Final = 2**17
_CURE: Final = (
    "set user.id or enduser.id on a span of the request in that service, or capture a header that names the device (identity_headers)"
)
_INSTALL: Final = "protobuf needs the extra: pip install otel-amplitude[otlp]; or send JSON (OTEL_EXPORTER_OTLP_PROTOCOL=http/json)"


class Rules(NamedTuple):
    """What an operator decides about identity and answers.

    Attributes:
        answer: when 200 is sent: the events are on `disk`, in `memory`, or `delivered`.
        requests_of: globs over service names whose requests may be automatic events although they have a remote parent.
        services: globs over service names that are read.
        not_services: globs over service names that are not, since they export to Amplitude in process.
        remembers: whether ids found on other spans of a trace count.
        delivery_seconds: how long a request waits for `delivered`.
    """

    answer: AnswerWhen = "disk"
    requests_of: Collection[str] = ()
    services: Collection[str] = ()
    not_services: Collection[str] = ()
    remembers: bool = True
    delivery_seconds: float = 8.0


class Counters:
    """Counts by name. Any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, Counter[str]] = {}

    def add(self, group: str, name: str, count: int = 1) -> None:
        """Count."""
        if count:
            with self._lock:
                self._counts.setdefault(group, Counter())[name] += count

    def read(self) -> dict[str, dict[str, int]]:
        """Give all counts, by group and name."""
        with self._lock:
            return {group: dict(counts) for group, counts in self._counts.items()}


class _Resources(KnownResources):
    """Resources known by their content, for all threads."""

    def __init__(self) -> None:
        super().__init__(_MAX_RESOURCES)
        self._lock = threading.Lock()

    def get(self, content: Any, make: Callable[[], Any]) -> Any:
        with self._lock:
            return super().get(content, make)


class _Candidate(NamedTuple):
    """An item that may be an event, read whole."""

    whole: ReadableSpan | ReadableLogRecord
    ids: Ids
    resource: Resource
    size: int


class _Problems(list[str]):
    """What was wrong in one request, in words; only the first ones are kept."""

    total = 0

    def append(self, problem: str) -> None:
        self.total += 1
        if self.total <= _MAX_PROBLEMS:
            super().append(problem)


class Intake:
    """Reads requests into one client.

    Attributes:
        counters: of items, by what became of them.
        traces: the trace memory.
    """

    def __init__(self, client: Amplitude, exporter: PerRequest, rules: Rules | None = None) -> None:
        """Begin.

        Args:
            client: makes the events.
            exporter: that of the client.
            rules: what the operator decided.
        """
        self.counters = Counters()
        self.traces = TraceMemory()
        self.rules = rules = rules or Rules()
        exporter.count_per_request(waits=rules.answer == "delivered")
        self._client = client
        self._exporter = exporter
        self._reader = reader_of(client)
        client.resolver.advise(_CURE)
        self._resources = _Resources()
        self._is_edge_service = compile_globs(rules.requests_of)
        self._is_read = compile_globs(rules.services or ("*",))
        self._is_not_read = compile_globs(rules.not_services)
        self._is_for_all = not rules.services and not rules.not_services
        self._identity = self._reader.identity_attributes
        self._inner: dict[str, int] = {}

    @property
    def is_durable(self) -> bool:
        """Whether 200 means that events are on disk."""
        return self.rules.answer == "disk"

    def has_room(self) -> bool:
        """Say whether a request would be taken now."""
        ticket = self._exporter.reserve(1, _SIZE_OF_EVENT, durable=self.is_durable)
        if ticket is None:
            return False
        with ticket:
            return True

    def take(self, signal: Signal, content_type: str, body: bytes, hold: Callable[[int], None]) -> Answer:
        """Take one request.

        Args:
            signal: which.
            content_type: `JSON` or `PROTOBUF`.
            body: decoded.
            hold: takes more bytes from the budget.

        Raises:
            RefusedError: it is not taken; the message says why.
        """
        self.counters.add("requests", signal)
        if signal == "metrics":  # not ours; refused, SDKs would log errors for ever
            return accepted(signal, content_type)
        problems = _Problems()
        if content_type == JSON:
            hold(_JSON_WEIGHT * len(body))
        items = self._found(signal, content_type, body, problems)
        if problems and not items:
            raise RefusedError(400, "unreadable", problems[0])
        candidates = self._candidates(items, problems)
        lost = self._lost(problems.total)
        if candidates:
            lost += self._events(candidates, items, problems)
        return accepted(
            signal, content_type, lost, "; ".join(problems[:3]) or "events that Amplitude would refuse; the gateway's log says why"
        )

    # reading

    def _found(self, signal: Signal, content_type: str, body: bytes, problems: list[str]) -> list[Recorded]:
        try:
            if content_type == PROTOBUF:
                found = _protobuf(signal, body, problems, self._resources) if body else iter(())
            else:
                found = _json(body, problems, self._resources)
            items = list(islice(found, _MAX_ITEMS + 1))
        except CAUSES as error:
            raise RefusedError(400, "unreadable", f"the body can not be read: {error}") from None
        if len(items) > _MAX_ITEMS:
            raise RefusedError(413, "too_many", f"the request has more than {_MAX_ITEMS:,} items: send smaller batches")
        return items

    def _candidates(self, items: Iterable[Recorded], problems: _Problems) -> list[_Candidate]:
        """Note what the trace memory needs of each item, and read those whole that may be events."""
        reader, found = self._reader, []
        not_chosen = others = 0
        for item in items:
            try:
                names = item.names()
                is_marked = not _WANTED.isdisjoint(names)
                if not is_marked and not reader.may_be_event(names, is_told=item.is_told()):
                    not_chosen += 1
                    continue
                resource = item.resource()
                is_ours = self._is_for_all or self._reads(resource)
                if is_marked:
                    self._note(item, resource, is_ours=is_ours)
                if not is_ours:
                    others += 1
                elif reader.may_be_event(names, is_told=item.is_told()):
                    found.append(_Candidate(item.read(), item.ids(), resource, item.size))
                else:
                    not_chosen += 1
            except CAUSES as error:
                problems.append(problem_of(item.where, error))
        self.counters.add("items", "not_chosen", not_chosen)
        self.counters.add("items", "other_services", others)
        self.counters.add("items", "read", len(found))
        return found

    def _reads(self, resource: Resource) -> bool:
        name = _service(resource)
        return self._is_read(name) and not self._is_not_read(name)

    def _note(self, item: Recorded, resource: Resource, *, is_ours: bool) -> None:
        attributes = item.some(_WANTED)
        trace_id = item.ids().trace_id
        if not trace_id:
            return
        if has_opted_out(attributes):
            self.traces.opt_out(trace_id)
        if item.is_span and is_ours and self.rules.remembers:
            self.traces.note(trace_id, resource, attributes)

    def _lost(self, count: int) -> int:
        if count:
            self.counters.add("items", "unreadable", count)
            self._exporter.refuse("unreadable", count)
        return count

    # events

    def _events(self, candidates: list[_Candidate], items: Iterable[Recorded], problems: _Problems) -> int:
        """Make the events of a request; give how many items were rejected."""
        config = self._client.config
        events = sum(1 + len(one.whole.events if isinstance(one.whole, ReadableSpan) else ()) for one in candidates)
        size = sum(one.size + _SIZE_OF_EVENT for one in candidates)
        if self.is_durable:
            # The estimate is above what events take: it must not make a request wait for room that never comes.
            size = min(size, config.max_spool_bytes // 2)
        else:
            if events > config.max_cached_events:
                raise RefusedError(413, "too_many", f"the request has more than {config.max_cached_events:,} events: send smaller batches")
            size = min(size, config.max_cached_bytes // 2)
        with self._exporter.reading(events, size, durable=self.is_durable) as reading:
            if reading is None:
                raise self._no_room()
            above_of, inner = self._context(candidates, items)
            for one in candidates:
                self._offer(one, above_of(one), inner)
        return self._settled(reading, problems)

    def _settled(self, reading: Reading, problems: _Problems) -> int:
        if any(reason in reading.refused for reason in _NO_ROOM):
            raise self._no_room()
        if reading.waits:
            self._exporter.hurry()
            if not reading.wait(self.rules.delivery_seconds):
                self._exporter.withdraw(lambda parcel: getattr(parcel, "reading", None) is reading, 0.5)
                raise RefusedError(503, "not_delivered", "Amplitude has not acknowledged all events yet: try again", retry_after=2)
            if reading.rejected:
                problems.append("Amplitude rejected events; the gateway's log says why")
        return reading.rejected + sum(reading.refused[reason] for reason in _REJECTIONS)

    def _no_room(self) -> RefusedError:
        if self._exporter.closed:
            return RefusedError(503, "closing", "the gateway is closing: try again", retry_after=1)
        if self.is_durable:
            return RefusedError(503, "spool", "the spool is full, or its disk fails: try again", retry_after=5)
        return RefusedError(503, "memory", "no room for all events of the request: try again", retry_after=2)

    def _context(
        self, candidates: list[_Candidate], items: Iterable[Recorded]
    ) -> tuple[Callable[[_Candidate], list[Knows]], InnerRoutes | None]:
        """Give what is above each candidate in this request; an index is built only where one has a local parent."""
        spans = [one for one in candidates if isinstance(one.whole, ReadableSpan)]
        if not any(one.ids.parent_id and not one.ids.is_remote for one in spans):
            return lambda _: [], None
        ancestors, links = Ancestors(), []
        for item in items:
            try:
                ids = item.ids()
                if item.is_span:
                    ancestors.note(ids, None if self._identity.isdisjoint(item.names()) else item.some(self._identity))
                    if ids.parent_id and not ids.is_remote:
                        links.append((ids.trace_id, ids.span_id, ids.parent_id))
            except CAUSES:  # it is counted already, if it could be an event
                continue
        inner = InnerRoutes((one.whole for one in spans if isinstance(one.whole, ReadableSpan)), links)
        return lambda one: ancestors.of(above(one.ids, is_span=isinstance(one.whole, ReadableSpan))).parents, inner

    def _offer(self, one: _Candidate, parents: list[Knows], inner: InnerRoutes | None) -> None:
        whole, trace_id = one.whole, one.ids.trace_id
        if trace_id and self.traces.has_opted_out(trace_id):
            parents = [*parents, OPTED_OUT]
        try:
            if isinstance(whole, ReadableSpan):
                known = self.traces.of(trace_id, one.resource) if self.rules.remembers else None
                if known is not None and not _holds(whole, known):  # most requests say it themselves
                    parents = [*parents, known]
                is_edge = self._is_edge(whole, one)
                outcome = self._reader.exported_span(whole, parents, () if inner is None else inner.of(whole), is_edge=is_edge)
            else:
                outcome = self._reader.exported_log(whole, parents)
        except Exception as error:  # a fault of ours costs one item
            self._reader.failed(error)
            return
        self.counters.add("items", "not_chosen", outcome is Outcome.NOT_CHOSEN)

    def _is_edge(self, span: ReadableSpan, one: _Candidate) -> bool:
        """Say whether the span of a request may be that of a user; name a service whose requests all come from other services."""
        if span.kind is not SpanKind.SERVER:
            return True
        name = _service(one.resource)
        if not one.ids.parent_id:
            self._inner[name] = -1
            return True
        if not one.ids.is_remote or self._is_edge_service(name):
            return True
        seen = self._inner.get(name, 0)
        if 0 <= seen <= _MANY_INNER and (name in self._inner or len(self._inner) < _MAX_SERVICES):
            self._inner[name] = seen + 1  # a race miscounts by one, which a hint can bear
            if seen == _MANY_INNER:
                self._client.log.warning(
                    "gateway.inner_requests",
                    service=name,
                    cure=f"all its requests have a remote parent, so none is an automatic event; if users call it, add --requests-of {name}",
                )
        return False

    # counters

    def say_refused(self, refusal: RefusedError) -> None:
        """Log a request that was refused, each kind of it once a minute. Quotes nothing that the sender wrote."""
        self._client.log.warning("gateway.refused", status=refusal.status, reason=refusal.reason)

    def say_failed(self, error: BaseException) -> None:
        """Log a fault of ours."""
        self._client.log.error("gateway.failed", error=self._client.log.raised(error))

    def stats(self) -> Mapping[str, Any]:
        """Give the counters of items and of the client."""
        books = self._client.stats()
        events: dict[str, Any] = {name: getattr(books, name) for name in ("accepted", "adopted", "acknowledged", "returned")}
        events |= {name: dict(getattr(books, name)) for name in ("rejected", "dropped", "refused")}
        return {**self.counters.read(), "traces_remembered": len(self.traces), "events": {**events, "pending": asdict(books.pending)}}


def _holds(span: ReadableSpan, known: Knows) -> bool:
    attributes = span.attributes or {}
    return all(attributes.get(name) == value for name, value in known.attributes.items())


def _service(resource: Resource) -> str:
    return str(resource.attributes.get(_SERVICE) or "unknown_service")


def _json(body: bytes, problems: list[str], resources: KnownResources) -> Iterator[Recorded]:
    if body.count(b"{") + body.count(b"[") > _SOME_CONTAINERS + len(body) // _BYTES_OF_CONTAINER:
        raise RefusedError(413, "too_many", f"the JSON has more than one object for {_BYTES_OF_CONTAINER} bytes, as no telemetry does")
    found = otlp_json.find(parse(body) if body else {}, problems, resources, len(body))
    if found is None:
        raise RefusedError(400, "unreadable", "is not OTLP: there is no resourceSpans or resourceLogs in it")
    return found


def _protobuf(signal: Signal, body: bytes, problems: list[str], resources: KnownResources) -> Iterator[Recorded]:
    try:
        from otel_amplitude.convert import otlp_protobuf  # noqa: PLC0415 -- an extra
    except ImportError:
        raise RefusedError(415, "extra", _INSTALL) from None
    try:
        yield from otlp_protobuf.walk(body, problems, resources, "spans" if signal == "traces" else "records", _MAX_ITEMS)
    except otlp_protobuf.TooManyError as error:
        raise RefusedError(413, "too_many", str(error)) from None
    except WrongError as error:
        raise RefusedError(400, "unreadable", str(error)) from None
