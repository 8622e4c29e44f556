"""One measurement of one contender, in a process of its own: `python -m tests.bench._child MEASURE CONTENDER URL SIZE`, answers JSON."""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import orjson

Figures = dict[str, float]


def _cpu_of_thread(name: str, url: str, size: int) -> Figures:
    """CPU of the calling thread for a chosen and for a not chosen span, µs."""
    from tests.bench import _work
    from tests.bench._contenders import CONTENDERS
    from tests.bench._feed import feed, finish

    count = 100 * size
    contexts = _work.contexts(count)
    figures: Figures = {}
    for kind, pairs in (("not_chosen", _work.not_chosen(count)), ("chosen", _work.chosen(count))):
        processor = CONTENDERS[name](url)
        feed(processor, pairs[:20], contexts)
        gc.collect()
        gc.freeze()
        began = time.thread_time()
        feed(processor, pairs[20:], contexts, 20)
        figures[kind] = (time.thread_time() - began) / (count - 20) * 1e6
        finish(processor)
    return figures


def _end_to_end(name: str, url: str, size: int) -> Figures:
    """CPU of the whole process for an event until it is acknowledged, µs; and what travelled for it."""
    from tests.bench import _sink, _work
    from tests.bench._contenders import CONTENDERS
    from tests.bench._feed import feed, finish, paced

    count = 1_000 * size
    pairs, contexts = _work.chosen(count), _work.contexts(count)
    processor = CONTENDERS[name](url)
    feed(processor, pairs[:20], contexts)
    processor.force_flush()  # the first request imports what sends
    gc.collect()
    gc.freeze()
    _sink.reset(url)
    began = time.process_time()
    for first, some in paced(pairs, 3_000):
        feed(processor, some, contexts, first)
    finish(processor)
    spent = time.process_time() - began
    arrived = _sink.counts(url)
    return {"cpu": spent / count * 1e6, "bytes": arrived["bytes"] / count, "requests": arrived["requests"], "events": arrived["events"]}


def _requests(name: str, url: str, size: int) -> Figures:
    """How long a busy request takes, and the end of a chosen span in it; with ten chosen spans and with one. Seconds."""
    from opentelemetry.context import attach, detach
    from opentelemetry.trace import SpanKind

    from tests.bench import _work
    from tests.bench._contenders import CONTENDERS
    from tests.bench._feed import feed, finish, paced

    provider = _work.provider()
    processor = CONTENDERS[name](url)
    if name != "none":
        provider.add_span_processor(processor)
    tracer = provider.get_tracer("bench")
    feed(processor, _work.chosen(20), _work.contexts(20))
    processor.force_flush()
    document = {"rows": [{"id": number, "name": f"row {number}", "price": number * 1.1} for number in range(40)]}
    figures: Figures = {}
    for kind, attributes in (("ten", _work.CHOSEN), ("one", _work.NOT_CHOSEN)):
        contexts = _work.contexts(200 * size)
        whole, ends = [], []
        for _, some in paced(contexts, 100, 1):
            began = time.perf_counter()
            context = some[0]
            token = attach(context)
            server: Any = tracer.start_span("POST /orders", context=context, kind=SpanKind.SERVER, attributes=_work.CHOSEN)  # type: ignore[arg-type]
            for _ in range(9):
                child = tracer.start_span("SELECT orders", kind=SpanKind.INTERNAL, attributes=attributes)  # type: ignore[arg-type]
                json.loads(json.dumps(document))
                child.end()
            before = time.perf_counter()
            server.end()
            ended = time.perf_counter()
            detach(token)
            ends.append(ended - before)
            whole.append(ended - began)
        for part, times in (("request", whole), ("end", ends)):
            times.sort()
            figures |= {f"{part}_{kind}_p50": median(times), f"{part}_{kind}_p99": times[int(len(times) * 0.99)]}
    finish(processor)
    return figures


def _throughput(name: str, url: str, size: int) -> Figures:
    """Events a second that one process delivers when the server takes its time (`name` is the delay), encoded beforehand."""
    from otel_amplitude import Amplitude, Config
    from otel_amplitude.delivery.parcel import Parcel
    from tests.bench import _sink
    from tests.bench._contenders import KEY

    delay = float(name)
    users, count = 20_000, 10_000 * size
    _sink.reset(url, delay=delay, check=True)
    client = Amplitude(Config(KEY, server_url=url + "/2/httpapi", compression="gzip"))
    padding = "the rest of a kilobyte, more or less, of properties of an event " * 12
    made = [
        Parcel(
            b'{"event_type":"x","insert_id":"%032d","user_id":"user-%06d","event_properties":{"cart.number":%d,"padding":"%b"}}'
            % (number, number % users, number // users, padding.encode()),
            (f"user-{number % users:06}",),
            int(time.time() * 1000),
        )
        for number in range(count)
    ]
    exporter = client._exporter
    began = time.perf_counter()
    for first in range(0, count, 500):
        while client.stats().pending.total > 14_000:
            time.sleep(0.002)
        for parcel in made[first : first + 500]:
            assert exporter.submit(parcel)
    assert client.flush(60)
    seconds = time.perf_counter() - began
    arrived = _sink.counts(url)
    client.shutdown(5)
    assert arrived["events"] == count, arrived
    return {"a_second": count / seconds, "disorder": arrived["disorder"], "connections": arrived["connections"]}


def _rss() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def _dead_server(_name: str, _url: str, size: int) -> Figures:
    """Memory, MiB over the start, at the cap and at the end, with 6,000 events a second for a server that is not there."""
    from tests.bench import _work
    from tests.bench._contenders import ours
    from tests.bench._feed import feed, paced

    pairs, contexts = _work.chosen(2_000), _work.contexts(500)
    processor: Any = ours("http://127.0.0.1:9", log_level="NONE")
    feed(processor, pairs[:20], contexts)
    gc.collect()
    start, seen = _rss(), []
    for first, some in paced(range(6_000 * size), 6_000, 60):
        feed(processor, [pairs[number % 2_000] for number in some], contexts, first)
        if first % 3_000 == 0:
            seen.append(_rss() - start)
    books = processor._client.stats()
    half = max(seen[: len(seen) // 2])
    processor._client.shutdown(0.5)
    return {"half": half, "end": max(seen[len(seen) // 2 :]), "pending": books.pending.total, "refused": sum(books.refused.values())}


def _idle(_name: str, url: str, size: int) -> Figures:
    """Wake-ups a second, and threads, of a process that has sent everything."""
    from tests.bench import _work
    from tests.bench._contenders import ours
    from tests.bench._feed import feed, finish

    processor: Any = ours(url)
    feed(processor, _work.chosen(100), _work.contexts(100))
    assert processor.force_flush(10_000)
    time.sleep(6)  # a sender that finds nothing to do ends after five seconds

    def switches() -> int:
        lines = [
            line
            for task in Path("/proc/self/task").iterdir()
            if task.name != str(os.getpid())
            for line in (task / "status").read_text().splitlines()
            if line.startswith("voluntary")
        ]
        return sum(int(line.split()[1]) for line in lines)

    before = switches()
    seconds = 5.0 * size
    time.sleep(seconds)
    after = switches()
    threads = threading.active_count() - 1
    finish(processor)
    return {"wakeups": (after - before) / seconds, "threads": threads}


def _import(_name: str, _url: str, _size: int) -> Figures:
    """CPU of importing the package over the SDK, ms; whether requests came along."""
    import opentelemetry.sdk._logs
    import opentelemetry.sdk.metrics
    import opentelemetry.sdk.trace  # noqa: F401

    began = time.process_time()
    import otel_amplitude

    imported = time.process_time() - began
    client = otel_amplitude.Amplitude(otel_amplitude.Config("0" * 32))
    otel_amplitude.AmplitudeSpanProcessor(client)
    spent = time.process_time() - began
    return {"cpu": imported * 1e3, "with_client": spent * 1e3, "requests": float("requests" in sys.modules)}


def _rules(_name: str, _url: str, size: int) -> Figures:
    """What choosing costs, µs: a span of no rule and a request of the last rule, without a file and with 200 rules."""
    from tests.bench import _work
    from tests.bench._contenders import ours

    text = "".join(f'[[event]]\nname = "Event {n}"\nmatch = {{route = "/api/v1/things/{n}", method = "POST"}}\n\n' for n in range(199))
    text += '[[event]]\nname = "Order"\nmatch = {route = "/api/v1/shops/*/orders", method = "POST", status = "2xx"}\n'
    figures: Figures = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rules.toml"
        file.write_text(text)
        attributes = {name: value for name, value in _work.CHOSEN.items() if not name.startswith("amplitude.")}
        server = _work.chosen(1, attributes=attributes)[0][1]
        other = _work.not_chosen(1)[0][1]
        for count, options in ((0, {}), (200, {"rules": str(file)})):
            processor: Any = ours("http://127.0.0.1:9", **options)
            choose = processor._reader._selector.span
            for kind, span in (("request", server), ("other", other)):
                copied = dict(span.attributes)
                choose(span, copied)
                loops = 2_000 * size
                began = time.thread_time()
                for _ in range(loops):
                    choose(span, copied)
                figures[f"{kind}_{count}"] = (time.thread_time() - began) / loops * 1e6
    return figures


def _sampler(_name: str, url: str, size: int) -> Figures:
    """CPU of a request of eleven spans, µs: sampled at 1 %, so with our sampler, and with everything recorded."""
    from opentelemetry.context import Context, attach, detach
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler, TraceIdRatioBased
    from opentelemetry.trace import SpanKind, set_span_in_context

    from otel_amplitude.otel._sampler import parentbased_traceidratio
    from tests.bench import _work
    from tests.bench._contenders import ours

    samplers: dict[str, Sampler] = {
        "one_percent": ParentBased(TraceIdRatioBased(0.01)),
        "ours": parentbased_traceidratio("0.01"),
        "all": ParentBased(ALWAYS_ON),
    }
    attributes: Any = {name: value for name, value in _work.CHOSEN.items() if not name.startswith("amplitude.")}
    figures: Figures = {}
    for name, sampler in samplers.items():
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(ours(url, auto_events_per_minute=0))
        tracer = provider.get_tracer("bench")
        context = _work.request_context("user-00001")

        def request(tracer: Any = tracer, context: Context = context) -> None:
            token = attach(context)
            server = tracer.start_span("POST /orders", context=context, kind=SpanKind.SERVER, attributes=attributes)
            inner = attach(set_span_in_context(server))
            for _ in range(10):
                tracer.start_span("SELECT", kind=SpanKind.CLIENT, attributes=_work.NOT_CHOSEN).end()
            detach(inner)
            server.end()
            detach(token)

        for _ in range(20):
            request()
        began = time.thread_time()
        for _ in range(200 * size):
            request()
        figures[name] = (time.thread_time() - began) / (200 * size) * 1e6
    return figures


class _Nowhere:
    """A transport that takes everything at once."""

    def send(self, _request: object) -> Any:
        from otel_amplitude.transport import Response

        return Response(200, {}, b'{"code":200}')

    def close(self) -> None:
        """Nothing is open."""


def _process_cpu(work: Callable[[], None], finish: Callable[[], Any], count: int) -> float:
    gc.collect()
    began = time.process_time()
    work()
    finish()
    return (time.process_time() - began) / count * 1e6


def _local(transport: Any = None, **options: Any) -> Any:
    from tests.bench._contenders import ours

    return ours("http://127.0.0.1:9", transport=transport or _Nowhere(), compression="none", log_level="NONE", **options)


def _feed_with_room(processor: Any, pairs: Sequence[Any], contexts: Sequence[Any], first: int, count: int) -> None:
    """Feed `count` spans of a ring, and wait while memory is nearly full."""
    from tests.bench._feed import feed

    for at in range(first, first + count, 500):
        while processor._client.stats().pending.total > 12_000:
            time.sleep(0.005)
        start = at % len(pairs)
        feed(processor, pairs[start : start + 500], contexts, at)


def _growth_events(_name: str, _url: str, size: int) -> Figures:
    """CPU of an event, µs: the first 20,000, and the last of as many as there was time for."""
    from tests.bench import _work

    pairs, contexts, processor = _work.chosen(2_000), _work.contexts(500), _local()
    part = 20_000
    costs = [
        _process_cpu(lambda n=n: _feed_with_room(processor, pairs, contexts, n * part, part), lambda: processor._client.flush(30), part)  # type: ignore[misc]
        for n in range(5 * size)
    ]
    processor._client.shutdown(5)
    return {"first": median(costs[:3]), "last": median(costs[-3:]), "events": part * 5 * size, "rss": _rss()}


def _growth_threads(_name: str, _url: str, size: int) -> Figures:
    """CPU of an event, µs, from 1 and from 64 threads."""
    from tests.bench import _work

    pairs, contexts = _work.chosen(2_000), _work.contexts(500)
    figures: Figures = {}
    for threads in (1, 8, 64):
        processor = _local()
        share = 6_400 * size // threads

        def work(processor: Any = processor, share: int = share, threads: int = threads) -> None:
            workers = [
                threading.Thread(target=_feed_with_room, args=(processor, pairs[:500], contexts, 0, share // 100 * 100))
                for _ in range(threads)
            ]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()

        work(threads=1, share=500)
        done = processor._client.stats().accepted
        gc.collect()
        began = time.process_time()
        work()
        processor._client.flush(30)
        figures[str(threads)] = (time.process_time() - began) / (processor._client.stats().accepted - done) * 1e6
        processor._client.shutdown(5)
    return figures


def _growth_attributes(_name: str, _url: str, size: int) -> Figures:
    """CPU of an attribute, µs: the events of 5 and of 128 attributes, each divided by their number."""
    from tests.bench import _work

    figures: Figures = {}
    for count in (5, 15, 128):
        attributes: dict[str, object] = {"amplitude.event_type": "x", **{f"shop.attribute_{n}": f"value {n}" for n in range(count - 1)}}
        pairs, contexts, processor = _work.chosen(1_000, attributes=attributes), _work.contexts(1_000), _local()
        _feed_with_room(processor, pairs, contexts, 0, 1_000)
        costs = [
            _process_cpu(lambda p=processor, q=pairs, c=contexts: _feed_with_room(p, q, c, 0, 1_000), lambda: None, 1_000)  # type: ignore[misc]
            for _ in range(3 * size)
        ]
        figures[str(count)] = median(costs) / count
        processor._client.shutdown(5)
    return figures


def _growth_users(_name: str, _url: str, size: int) -> Figures:
    """CPU of an event, µs, and memory, MiB: of 500 users, and of as many users as events."""
    from tests.bench import _work

    figures: Figures = {}
    pairs = _work.chosen(1_000)
    for kind in ("few", "many"):
        processor = _local()
        count = 10_000 * size
        costs = []
        before = _rss()
        for first in range(0, count, 1_000):
            base = first if kind == "many" else 0
            contexts = [_work.request_context(f"user-{base + number:08d}") for number in range(1_000)]
            costs.append(_process_cpu(lambda: _feed_with_room(processor, pairs, contexts, 0, 1_000), lambda: None, 1_000))  # noqa: B023
        figures |= {kind: median(costs[len(costs) // 2 :]), f"{kind}_rss": _rss() - before, "users": count}
        processor._client.shutdown(5)
    return figures


class _Throttling:
    """A transport that throttles the users of whom it is told to."""

    def __init__(self) -> None:
        self.throttled: frozenset[str] = frozenset()

    def send(self, request: Any) -> Any:
        from otel_amplitude.transport import Response

        found = {event["user_id"] for event in orjson.loads(request.body)["events"]} & self.throttled
        if not found:
            return Response(200, {}, b'{"code":200}')
        return Response(429, {}, orjson.dumps({"code": 429, "throttled_users": dict.fromkeys(found, 31), "throttled_events": []}))

    def close(self) -> None:
        """Nothing is open."""


def _growth_held(_name: str, _url: str, size: int) -> Figures:
    """CPU of a neighbour's event, µs: while nobody is held, and while 4,900 users and their devices are."""
    from tests.bench import _work

    held = 4_900
    transport = _Throttling()
    processor, count = _local(transport), 5_000 * size
    pairs, contexts = _work.chosen(2_000), _work.contexts(500)
    _feed_with_room(processor, pairs, contexts, 0, 2_000)
    processor._client.flush(30)

    def neighbours() -> float:
        before = processor._client.stats().acknowledged

        def settle() -> None:
            while processor._client.stats().acknowledged < before + count:
                time.sleep(0.01)

        return _process_cpu(lambda: _feed_with_room(processor, pairs, contexts, 0, count), settle, count)

    figures = {"none": neighbours()}
    names = [f"held-{number:08d}" for number in range(held)]
    transport.throttled = frozenset(names)
    _feed_with_room(processor, pairs, [_work.request_context(name, f"device-of-{name}") for name in names], 0, held)
    while processor._client.stats().pending.held < held:
        time.sleep(0.05)
    figures |= {"held": neighbours(), "ids": processor._client.stats().pending.held}
    processor._client.shutdown(0.5)
    return figures


def _spool(name: str, url: str, size: int) -> Figures:
    """The calling thread's time for a chosen span with `spool_dir` over none, µs at p50 and p99; `full`: 62 MiB lie there already."""
    from tests.bench import _work
    from tests.bench._contenders import ours
    from tests.bench._feed import feed

    count = 500 * size
    pairs, contexts = _work.chosen(2_000), _work.contexts(500)
    figures: Figures = {}
    with tempfile.TemporaryDirectory(prefix="bench-spool-") as folder:
        for kind, options in (("memory", {}), ("disk", {"spool_dir": folder})):
            dead = name == "full"
            processor: Any = ours("http://127.0.0.1:9" if dead else url, log_level="NONE", **options)
            if dead and options:
                for first in range(0, 60_000, 500):
                    feed(processor, pairs[first % 2_000 : first % 2_000 + 500], contexts)
            times = []
            for at in range(count):
                pair = pairs[at % 2_000 : at % 2_000 + 1]
                began = time.perf_counter()
                feed(processor, pair, contexts, at)
                times.append(time.perf_counter() - began)
                if at % 20 == 0:
                    time.sleep(0.005)
            times.sort()
            figures |= {f"{kind}_p50": median(times) * 1e6, f"{kind}_p99": times[int(count * 0.99)] * 1e6}
            if options:
                figures["spooled"] = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()) / 2**20
            processor._client.shutdown(1)
    return figures


def _otlp_lines(count: int, each: int, one_in: int = 10) -> bytes:
    """Spans of traces of ten, of which one in `one_in` is the request of a known user, in lines of `each` spans."""
    from otel_amplitude.convert._tables import METHOD, ROUTE, STATUS

    def pairs(attributes: dict[str, Any]) -> list[Any]:
        return [
            {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
            for key, value in attributes.items()
        ]

    request = {METHOD[0]: "POST", ROUTE: "/orders/{id}", STATUS[0]: 201, "url.path": "/orders/7", "url.scheme": "https", "server.port": 443}
    request |= {"server.address": "shop.example", "client.address": "10.0.0.1", "network.protocol.version": "1.1"}
    query = {"db.system.name": "postgresql", "db.namespace": "shop", "db.query.text": "SELECT * FROM orders WHERE id = $1"}
    query |= {"db.operation.name": "SELECT", "server.address": "db.example", "server.port": 5432, "thread.id": 7}

    def made(number: int) -> dict[str, Any]:
        trace, is_request = number // 10 + 1, number % one_in == one_in - 1
        attributes = {**request, "user.id": f"user-{trace % 1_000:05}"} if is_request else query
        span = {"traceId": f"{trace:032x}", "spanId": f"{number + 1:016x}", "name": "POST /orders/{id}", "kind": 2 if is_request else 3}
        start = 1_795_305_600_000_000_000 + number * 1_000_000
        span |= {
            "startTimeUnixNano": str(start),
            "endTimeUnixNano": str(start + 25_000_000),
            "attributes": pairs(attributes),
            "flags": 0x101,
        }
        return span if is_request else {**span, "parentSpanId": f"{trace * 10:016x}"}

    resource = {"attributes": pairs({"service.name": "shop", "service.version": "1.2", "host.name": "host-1"})}

    def line(first: int) -> bytes:
        spans = [made(number) for number in range(first, min(count, first + each))]
        return orjson.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "shop"}, "spans": spans}]}]})

    return b"\n".join(line(first) for first in range(0, count, each))


def _convert(name: str, _url: str, size: int) -> Figures:
    """CPU of the process for a span that `convert` reads from a file, one in ten chosen, µs; and that of `orjson.loads` of the same lines."""
    import contextlib
    import io

    from otel_amplitude.cli import main

    count = 8_192 * size
    with tempfile.TemporaryDirectory(prefix="bench-convert-") as folder:
        given = Path(folder, "traces.jsonl")
        given.write_bytes(_otlp_lines(count, int(name)))

        def parse() -> None:
            for line in given.read_bytes().splitlines():
                orjson.loads(line)

        gc.disable()  # convert looks for cycles rarely, too
        parsed = _process_cpu(parse, lambda: None, count)
        gc.enable()
        words = ["convert", str(given), "--output", str(Path(folder, "events.jsonl"))]

        def run() -> None:
            with contextlib.redirect_stderr(io.StringIO()):
                assert main(words) == 0

        return {"span": _process_cpu(run, lambda: None, count), "parsed": parsed}


class _Message:
    """A record, as the client of Kafka gives it."""

    def __init__(self, offset: int, value: bytes) -> None:
        self._offset, self._value = offset, value

    def error(self) -> None:
        return None

    def topic(self) -> str:
        return "amplitude_events"

    def partition(self) -> int:
        return self._offset % 6

    def offset(self) -> int:
        return self._offset // 6

    def value(self) -> bytes:
        return self._value


class _Consumer:
    """Gives records as fast as they are asked for: what librdkafka costs is left out."""

    def __init__(self, messages: list[_Message]) -> None:
        self.messages = messages
        self.given = 0
        self._paused = False

    def subscribe(self, _topics: Sequence[str], *, on_assign: Callable[..., None], **_callbacks: object) -> None:
        from confluent_kafka import TopicPartition

        on_assign(self, [TopicPartition("amplitude_events", partition) for partition in range(6)])

    def committed(self, places: Sequence[Any], **_more: object) -> Sequence[Any]:
        return places

    def consume(self, most: int, timeout: float) -> list[_Message]:
        if self._paused or self.given == len(self.messages):
            time.sleep(min(timeout, 0.001))
            return []
        found = self.messages[self.given : self.given + most]
        self.given += len(found)
        return found

    def pause(self, _places: Sequence[Any]) -> None:
        self._paused = True

    def resume(self, _places: Sequence[Any]) -> None:
        self._paused = False

    def commit(self, **_more: object) -> None:
        pass

    def get_watermark_offsets(self, _place: object, **_more: object) -> tuple[int, int]:
        return 0, 0

    def close(self) -> None:
        pass


def _worker(_: str, url: str, size: int) -> Figures:
    """CPU of the worker for an event from a topic to a request, and of `orjson.loads` of the same bytes, µs."""
    from otel_amplitude.config import Config
    from otel_amplitude.log import Log
    from otel_amplitude.worker.events import DEFAULTS, ToAmplitude
    from otel_amplitude.worker.loop import Ends, Loop, Options
    from tests.bench import _work

    count = 10_000 * size
    values = [
        orjson.dumps(
            {"event_type": "Order Placed", "user_id": _work.USER.format(i % 500), "insert_id": str(i), "event_properties": _work.CHOSEN}
        )
        for i in range(count)
    ]
    parsed = _process_cpu(lambda: [None for value in values if not orjson.loads(value)], lambda: None, count)
    ends = Ends()
    destination = ToAmplitude(Config("0" * 32, server_url=url, transport=_Nowhere(), **DEFAULTS), (ends,))
    loop = Loop(destination, destination.exporter, ends, Options(max_pending=100_000), Log("NONE"), settings={"bootstrap.servers": "-"})
    consumer = _Consumer([_Message(offset, value) for offset, value in enumerate(values)])
    loop.subscribe(consumer, ["amplitude_events"])
    gc.collect()
    gc.freeze()

    def run() -> None:
        while loop.snapshot.settled < count:
            loop.turn()
            loop.publish()

    return {"event": _process_cpu(run, lambda: None, count), "parsed": parsed}


def _gateway(name: str, _url: str, size: int) -> Figures:
    """CPU of the process for a span in requests of 512 to a gateway that answers when the disk has it, µs; and that of the bare decoding."""
    from base64 import b64encode

    from google.protobuf import json_format
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    from otel_amplitude import Amplitude, Config
    from otel_amplitude.gateway.answers import JSON, PROTOBUF
    from otel_amplitude.gateway.exporter import GatewayExporter
    from otel_amplitude.gateway.intake import Intake

    def to_protobuf(line: bytes) -> bytes:
        document = orjson.loads(line)
        for span in document["resourceSpans"][0]["scopeSpans"][0]["spans"]:
            for key in {"traceId", "spanId", "parentSpanId"} & span.keys():
                span[key] = b64encode(bytes.fromhex(span[key])).decode()
        return bytes(json_format.ParseDict(document, ExportTraceServiceRequest()).SerializeToString())

    count = 512 * 8 * size
    lines = _otlp_lines(count, 512, {"chosen": 1, "mix": 10, "not": count + 1}[name]).splitlines()
    bodies = {JSON: lines, PROTOBUF: [to_protobuf(line) for line in lines]}
    bare = {JSON: orjson.loads, PROTOBUF: ExportTraceServiceRequest.FromString}
    figures: Figures = {}
    for word, content_type in (("protobuf", PROTOBUF), ("json", JSON)):
        with tempfile.TemporaryDirectory(prefix="bench-gateway-") as folder:
            config = Config("0" * 32, transport=_Nowhere(), spool_dir=folder, auto_events_per_minute=0, compression="none")
            exporter = GatewayExporter(config)
            client = Amplitude(config, exporter=exporter)
            intake = Intake(client, exporter)

            def run(intake: Intake = intake, client: Any = client, content_type: str = content_type) -> None:
                for body in bodies[content_type]:
                    assert intake.take("traces", content_type, body, lambda _: None).status == 200
                client.flush(30)

            def parse(content_type: str = content_type) -> None:
                for body in bodies[content_type]:
                    bare[content_type](body)

            figures[word] = _process_cpu(run, lambda: None, count)
            figures[f"{word}_bare"] = _process_cpu(parse, lambda: None, count)
            client.shutdown(5)
    return figures


MEASURES: dict[str, Callable[[str, str, int], Figures]] = {
    function.__name__.strip("_"): function
    for function in (
        *(
            _cpu_of_thread,
            _end_to_end,
            _requests,
            _throughput,
            _dead_server,
            _idle,
            _import,
            _rules,
            _sampler,
            _spool,
            _convert,
            _gateway,
            _worker,
        ),
        *(_growth_events, _growth_threads, _growth_attributes, _growth_users, _growth_held),
    )
}

if __name__ == "__main__":
    measure, contender, sink, how_much = sys.argv[1:]
    if contender in ("ours", "ours spool_dir"):
        sys.modules["isal"] = None  # type: ignore[assignment]  # as where the extra `fast` is not installed
    found = MEASURES[measure](contender, sink, int(how_much))
    print(json.dumps(found), flush=True)
    os._exit(0)
