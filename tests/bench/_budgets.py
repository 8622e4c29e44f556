"""Every row of the table: what it is called, what it may be, and how it follows from the figures of the measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

Samples = Mapping[tuple[str, str], list[dict[str, float]]]
"""By measurement and contender: the figures of each round."""


class Book:
    """The figures of a run; what was not measured raises KeyError."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __call__(self, measure: str, contender: str, figure: str) -> float:
        return median(self.all(measure, contender, figure))

    def all(self, measure: str, contender: str, figure: str) -> list[float]:
        return [sample[figure] for sample in self._samples[measure, contender]]

    def over_none(self, measure: str, contender: str, figure: str) -> float:
        """What the contender adds to the same work without any."""
        return self(measure, contender, figure) - self(measure, "none", figure)

    def end_to_end(self, contender: str) -> float:
        return self.over_none("end_to_end", contender, "cpu")

    def ratio(self, contender: str, figure: str) -> float:
        return self("requests", contender, figure) / self("requests", "none", figure)


@dataclass(frozen=True, slots=True)
class Row:
    """One line: `figure` is compared with `budget`, in `unit`; without a budget it is for information."""

    name: str
    figure: Callable[[Book], float]
    unit: str
    budget: float | None = None
    at_least: bool = False

    def is_met(self, figure: float) -> bool | None:
        if self.budget is None:
            return None
        return figure >= self.budget if self.at_least else figure <= self.budget


TIMES = "×"  # noqa: RUF001 -- the sign, not the letter
FAST = "ours+fast"
_PEERS = (
    "floor",
    "ours+fast",
    "ours",
    "ours+fast spool_dir",
    "ours+fast 0 middlewares",
    "ours+fast 10 middlewares",
    "otlp",
    "amplitude",
)


def _instructions(book: Book, phase: str) -> float:
    return book("instructions", "all", phase) - book("instructions", "all", "none")


def _wire(name: str) -> Row:
    return Row(f"wire bytes per event: {name}", lambda b: b("end_to_end", name, "bytes"), "bytes", 150 if name in (FAST, "ours") else None)


ROWS: tuple[Row, ...] = (
    Row("span not chosen, on_start + on_end", lambda b: _instructions(b, "not chosen"), "instructions", 6_000),
    Row("span not chosen ÷ BSP's on_end, instructions", lambda b: _instructions(b, "not chosen") / _instructions(b, "bsp"), TIMES, 1.5),
    Row(
        "span not chosen ÷ BSP's on_end, CPU",
        lambda b: b.over_none("cpu_of_thread", FAST, "not_chosen") / b.over_none("cpu_of_thread", "bsp", "not_chosen"),
        TIMES,
        1.5,
    ),
    Row("span not chosen, CPU of the thread", lambda b: b.over_none("cpu_of_thread", FAST, "not_chosen"), "µs"),
    Row("chosen span, on_start + on_end whole", lambda b: _instructions(b, "chosen"), "instructions", 60_000),
    Row("chosen span: floor", lambda b: _instructions(b, "floor"), "instructions"),
    Row("chosen span, no middleware", lambda b: _instructions(b, "0 middlewares"), "instructions"),
    Row("chosen span, ten middlewares", lambda b: _instructions(b, "10 middlewares"), "instructions"),
    Row("chosen span ÷ floor, instructions", lambda b: _instructions(b, "chosen") / _instructions(b, "floor"), TIMES, 1.5),
    Row(
        "chosen span ÷ floor, CPU",
        lambda b: b.over_none("cpu_of_thread", FAST, "chosen") / b.over_none("cpu_of_thread", "floor", "chosen"),
        TIMES,
        1.5,
    ),
    *(Row(f"chosen span, CPU of the thread: {n}", lambda b, n=n: b.over_none("cpu_of_thread", n, "chosen"), "µs") for n in _PEERS),  # type: ignore[misc]
    Row("end to end ÷ floor, with `fast`", lambda b: b.end_to_end(FAST) / b.end_to_end("floor"), TIMES, 1.5),
    Row("end to end ÷ floor, without extras", lambda b: b.end_to_end("ours") / b.end_to_end("floor"), TIMES, 3),
    Row("cheaper than Amplitude's Python SDK", lambda b: b.end_to_end("amplitude") / b.end_to_end(FAST), TIMES, 10, at_least=True),
    Row("cheaper than BSP + OTLP/HTTP", lambda b: b.end_to_end("otlp") / b.end_to_end(FAST), TIMES, 6, at_least=True),
    *(Row(f"end to end CPU per event: {n}", lambda b, n=n: b.end_to_end(n), "µs") for n in _PEERS),  # type: ignore[misc]
    Row("busy request, ten chosen: p99 ÷ none", lambda b: b.ratio(FAST, "request_ten_p99"), TIMES, 1.5),
    Row("busy request, ten chosen: p50 ÷ none", lambda b: b.ratio(FAST, "request_ten_p50"), TIMES, 1.15),
    Row("busy request, one chosen: p50 ÷ none", lambda b: b.ratio(FAST, "request_one_p50"), TIMES, 1.03),
    *(
        Row(f"busy request, ten chosen: p99 ÷ none: {n}", lambda b, n=n: b.ratio(n, "request_ten_p99"), TIMES)  # type: ignore[misc]
        for n in ("floor", "bsp", "otlp", "amplitude")
    ),
    *(
        Row(f"span.end() of a chosen span, p99: {n}", lambda b, n=n: b("requests", n, "end_ten_p99") * 1e6, "µs")  # type: ignore[misc]
        for n in ("none", "floor", "bsp", FAST, "otlp", "amplitude")
    ),
    *(_wire(name) for name in ("floor", FAST, "ours", "otlp", "amplitude")),
    Row("events a second, encoded beforehand, server answers at once", lambda b: b("throughput", "0", "a_second"), "1/s"),
    Row("events a second, encoded beforehand, answers after 50 ms", lambda b: b("throughput", "0.05", "a_second"), "1/s"),
    Row(
        "events a second, encoded beforehand, answers after 200 ms",
        lambda b: b("throughput", "0.2", "a_second"),
        "1/s",
        15_000,
        at_least=True,
    ),
    Row("events out of the order of their id", lambda b: b("throughput", "0.2", "disorder"), "", 0),
    Row(
        "dead server, 6,000 events/s: growth after the cap",
        lambda b: b("dead_server", "-", "end") - b("dead_server", "-", "half"),
        "MiB",
        1.0,
    ),
    Row("dead server: memory over the start", lambda b: b("dead_server", "-", "end"), "MiB"),
    Row("spool_dir: more per event, p50", lambda b: b("spool", "new", "disk_p50") - b("spool", "new", "memory_p50"), "µs", 10),
    Row("spool_dir: more per event, p99", lambda b: b("spool", "new", "disk_p99") - b("spool", "new", "memory_p99"), "µs", 60),
    Row("spool_dir: more CPU per event, end to end", lambda b: b.end_to_end("ours+fast spool_dir") - b.end_to_end(FAST), "µs", 25),
    Row("idle: wake-ups", lambda b: b("idle", "-", "wakeups"), "1/s", 0.2),
    Row("idle: threads", lambda b: b("idle", "-", "threads"), "", 3),
    Row("import over the SDK, names loaded on demand", lambda b: b("import", "-", "cpu"), "ms", 40),
    Row("import over the SDK, with a client and its processor made", lambda b: b("import", "-", "with_client"), "ms", 40),
    Row("requests imported before the first send", lambda b: b("import", "-", "requests"), "", 0),
    Row("200 rules: a span of none of them", lambda b: b("rules", "-", "other_200") - b("rules", "-", "other_0"), "µs more"),
    Row("200 rules: the request of the last one", lambda b: b("rules", "-", "request_200") - b("rules", "-", "request_0"), "µs more"),
    Row(
        "sampler at 1 %: a request of 11 spans ÷ plain ratio", lambda b: b("sampler", "-", "ours") / b("sampler", "-", "one_percent"), TIMES
    ),
    Row("everything recorded ÷ plain ratio at 1 %", lambda b: b("sampler", "-", "all") / b("sampler", "-", "one_percent"), TIMES),
    Row(
        "convert: spans a second, one in ten chosen, 512 a line", lambda b: 1e6 / b("convert", "512", "span"), "1/s", 20_000, at_least=True
    ),
    Row(
        "convert ÷ orjson.loads of the same bytes, 512 a line",
        lambda b: b("convert", "512", "span") / b("convert", "512", "parsed"),
        TIMES,
        12,
    ),
    Row("convert: a span of a line of 8,192 ÷ 512", lambda b: b("convert", "8192", "span") / b("convert", "512", "span"), TIMES, 1.25),
    Row("convert: a span of a line of its own ÷ 512", lambda b: b("convert", "1", "span") / b("convert", "512", "span"), TIMES, 2),
    Row("worker: CPU of an event, without librdkafka and HTTP", lambda b: b("worker", "-", "event"), "µs"),
    Row("worker ÷ orjson.loads of the same bytes", lambda b: b("worker", "-", "event") / b("worker", "-", "parsed"), TIMES, 25),
    *(
        Row(
            f"gateway: a span, {words}, {encoding}: ÷ bare decoding of the same bytes",
            lambda b, name=name, word=word: b("gateway", name, word) / b("gateway", name, f"{word}_bare"),
            TIMES,
        )
        for name, words in (("chosen", "chosen"), ("mix", "one in ten chosen"), ("not", "not chosen"))
        for encoding, word in (("protobuf", "protobuf"), ("JSON", "json"))
    ),
    Row(
        "gateway: spans a second, one in ten chosen, protobuf",
        lambda b: 1e6 / b("gateway", "mix", "protobuf"),
        "1/s",
        20_000,
        at_least=True,
    ),
    Row("growth: last events ÷ first", lambda b: b("growth_events", "-", "last") / b("growth_events", "-", "first"), TIMES, 1.25),
    Row("growth: how many events", lambda b: b("growth_events", "-", "events"), "events"),
    Row("growth: how many distinct users", lambda b: b("growth_users", "-", "users"), "users"),
    Row("growth: 64 threads ÷ 1", lambda b: b("growth_threads", "-", "64") / b("growth_threads", "-", "1"), TIMES, 1.25),
    Row("growth: 128 attributes ÷ 15, each", lambda b: b("growth_attributes", "-", "128") / b("growth_attributes", "-", "15"), TIMES, 1.25),
    Row("growth: many distinct users ÷ 1,000", lambda b: b("growth_users", "-", "many") / b("growth_users", "-", "few"), TIMES, 1.25),
    Row("growth: 9,800 ids held ÷ none held", lambda b: b("growth_held", "-", "held") / b("growth_held", "-", "none"), TIMES, 1.25),
    Row("growth: spool of 62 MiB ÷ new, p50", lambda b: b("spool", "full", "disk_p50") / b("spool", "new", "disk_p50"), TIMES, 1.25),
)
