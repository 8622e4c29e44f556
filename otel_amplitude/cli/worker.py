"""`otel-amplitude worker`: the events of a Kafka topic to Amplitude, or OTLP topics of a Collector to the topic of events."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final, NamedTuple

from otel_amplitude.cli._kafka import KEY_OF_NOTHING, add_kafka, kafka_settings
from otel_amplitude.cli._options import add_key, add_options, options_with_key
from otel_amplitude.cli._otlp import add_identity, rules_of
from otel_amplitude.cli._table import Progress, counted
from otel_amplitude.config import ENVIRONMENT_PREFIX, Config, environment_values
from otel_amplitude.delivery.books import Stats
from otel_amplitude.errors import ConfigurationError, KafkaError
from otel_amplitude.kafka.exporter import PARTITIONS
from otel_amplitude.kafka.settings import consumer_settings, library, make_client, secrets_of
from otel_amplitude.kafka.topics import DEAD, EVENTS, check_topics
from otel_amplitude.log import Log
from otel_amplitude.telemetry._logs import LogObserver
from otel_amplitude.telemetry._metrics import metrics_observers
from otel_amplitude.worker.dead_letters import DeadLetters
from otel_amplitude.worker.events import DEFAULTS, ToAmplitude
from otel_amplitude.worker.loop import MAX_PENDING, Ends, Loop, Options, Snapshot
from otel_amplitude.worker.metrics import WorkerMetrics
from otel_amplitude.worker.otlp import DEAD as DEAD_OTLP
from otel_amplitude.worker.otlp import DEFAULTS as OTLP_DEFAULTS
from otel_amplitude.worker.otlp import LOGS, SPANS, ToTopic

HELP: Final = (
    "Send the events of a Kafka topic to Amplitude, or make events of a Collector's topics; as many workers as there are partitions."
)
EXAMPLES: Final = (
    "otel-amplitude worker --brokers broker1:9092,broker2:9092",
    "otel-amplitude worker --brokers broker1:9093 --kafka-config kafka.properties --api-key-file /run/secrets/amplitude",
    "otel-amplitude worker --brokers broker1:9092 --rate 900 --option server_zone=EU",
    "otel-amplitude worker --brokers broker1:9092 --from otlp --not-services 'shop-python'",
    "otel-amplitude worker --brokers broker1:9092 --topic amplitude_dead --dead-topic amplitude_dead_again --until-idle 30",
)
_GROUP: Final = "otel-amplitude"
_MOST_PENDING: Final = 1_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the words of this command."""
    parser.add_argument("--brokers", metavar="HOST:PORT,…", help="where Kafka is (or bootstrap.servers in the file of --kafka-config)")
    parser.add_argument(
        "--from",
        dest="source",
        choices=("events", "otlp"),
        default="events",
        help="events: from a topic of events to Amplitude (default); otlp: from a Collector's topics to the topic of events",
    )
    parser.add_argument(
        "--topic",
        metavar="TOPIC,…",
        help=f"read from here (default: {EVENTS}; with --from otlp {SPANS},{LOGS}, where a name with log holds log records); must exist",
    )
    parser.add_argument(
        "--to-topic", metavar="TOPIC", default=EVENTS, help=f"with --from otlp: write events here (default: {EVENTS}); must exist"
    )
    parser.add_argument(
        "--dead-topic",
        metavar="TOPIC",
        help=f"write here, with the reason, what can not be delivered (default: {DEAD}; with --from otlp {DEAD_OTLP}); must exist",
    )
    parser.add_argument("--group", help=f"the group that shares the partitions (default: {_GROUP}, with -TOPIC behind it for other topics)")
    parser.add_argument(
        "--max-pending",
        type=_number(int, 100, _MOST_PENDING),
        metavar="EVENTS",
        default=MAX_PENDING,
        help=f"pause reading above so many unsettled events, or 32 MiB (default: {MAX_PENDING:,})",
    )
    parser.add_argument(
        "--rate",
        type=_number(float, 0.1, 1e6),
        metavar="EVENTS",
        help="most events a second of this worker, to stay under a project's limit",
    )
    parser.add_argument(
        "--until-idle", type=_number(float, 0, 86_400), metavar="SECONDS", help="end when there was nothing to do for so long"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON, to standard output")
    add_kafka(parser)
    add_identity(parser)
    add_key(parser)
    add_options(parser)


def _number(kind: Callable[[str], Any], least: float, most: float) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            number = kind(text)
        except ValueError:
            number = None
        if number is None or not least <= number <= most:
            raise argparse.ArgumentTypeError(f"must be a number from {least:,g} to {most:,g}, not {text!r}")
        return number

    return read


class _Job(NamedTuple):
    """What a worker does.

    Attributes:
        topics: what is read.
        dead_topic: where goes what can not be delivered.
        group: shares the partitions.
        needs: the topics that must exist, with the partitions to propose.
    """

    topics: list[str]
    dead_topic: str
    group: str
    needs: dict[str, int]


def _job(arguments: argparse.Namespace) -> _Job:
    is_otlp = arguments.source == "otlp"
    usual = f"{SPANS},{LOGS}" if is_otlp else EVENTS
    topics = [word.strip() for word in (arguments.topic or usual).split(",") if word.strip()]
    dead = arguments.dead_topic or (DEAD_OTLP if is_otlp else DEAD)
    if dead in topics:
        raise ConfigurationError(
            f"--topic and --dead-topic are both {dead}: what is refused again would be read again without end; "
            f"give another one, such as --dead-topic {dead}_again"
        )
    if is_otlp and arguments.to_topic in topics:
        raise ConfigurationError(f"--to-topic {arguments.to_topic} is read as well, without end; give another one")
    own = f"{_GROUP}-otlp" if is_otlp else _GROUP
    group = arguments.group or (own if arguments.topic is None or topics == [EVENTS] else f"{own}-{'-'.join(topics)}")
    needs = dict.fromkeys([*topics, *([arguments.to_topic] if is_otlp else [])], PARTITIONS)
    return _Job(topics, dead, group, {**needs, dead: 1})


def run(arguments: argparse.Namespace) -> int:
    """Work until SIGTERM, Ctrl-C or --until-idle; 1 when something could not be delivered."""
    settings = kafka_settings(arguments, arguments.brokers)
    job = _job(arguments)
    config = _config(arguments)
    kafka = library()
    log = Log(config.log_level, (config.api_key, *(config.headers or {}).values(), *secrets_of(settings)), debug=config.debug)
    ends = Ends()
    destination: ToAmplitude | ToTopic
    if arguments.source == "otlp":
        destination = ToTopic(config, settings, arguments.to_topic, ends, rules_of(arguments, "memory"))
    else:
        destination = ToAmplitude(config, (ends, LogObserver(log)))
        stats = destination.exporter.stats
        destination.exporter.observe(*metrics_observers(stats, endpoint=config.endpoint, capacity=arguments.max_pending))
    dead = DeadLetters(settings, job.dead_topic, log=log, observers=(ends, LogObserver(log)), request_timeout=config.request_timeout)
    options = Options(max_pending=arguments.max_pending, rate=arguments.rate, shutdown_timeout=config.shutdown_timeout)
    loop = Loop(destination, dead, ends, options, log, settings=settings)
    consumer = make_client(kafka.Consumer, {**consumer_settings(settings, job.group), **loop.callbacks()}, log)
    check_topics(consumer, job.needs, settings)
    metrics = WorkerMetrics(lambda: loop.snapshot, job.group)
    to = arguments.to_topic if arguments.source == "otlp" else config.endpoint
    log.announce("worker.started", topic=",".join(job.topics), group=job.group, to=to, dead_topic=job.dead_topic)
    failure: KafkaError | None = None
    try:
        with _until_signal() as should_stop, Progress("delivering", None) as progress:
            loop.subscribe(consumer, job.topics)
            loop.run(should_stop, until_idle=arguments.until_idle, each_turn=lambda now: progress.update(now.settled, _said(now)))
    except KafkaError as error:
        failure = error
    except KeyboardInterrupt:  # the second one: end without waiting
        _leave(130)
    is_closed = loop.close()
    log.tell_sums()
    del metrics
    code = 3 if failure is not None else _report(arguments, job, loop.snapshot, destination.exporter.stats())
    if not is_closed:
        if failure is not None:
            print(f"otel-amplitude worker: {failure}", file=sys.stderr)
        _leave(code)
    if failure is not None:
        raise failure
    return code


def _config(arguments: argparse.Namespace) -> Config:
    given, known = options_with_key(arguments), environment_values(os.environ)
    defaults: dict[str, Any] = DEFAULTS
    if arguments.source == "otlp":
        # Nothing is sent to Amplitude, so no key is needed.
        defaults = {**OTLP_DEFAULTS, "api_key": KEY_OF_NOTHING}
        if importlib.util.find_spec("opentelemetry.proto") is None:
            raise ConfigurationError('--from otlp reads protobuf, which needs the extra: pip install "otel-amplitude[kafka,otlp]"')
    elif not given.get("api_key", known.get("api_key")):
        raise ConfigurationError(
            f"the API key is missing: set {ENVIRONMENT_PREFIX}API_KEY to the key of your project (Settings, Projects), "
            "or write it into a file and give --api-key-file FILE"
        )
    config = Config.load({**{name: value for name, value in defaults.items() if name not in known}, **given})
    if config.spool_dir:
        raise ConfigurationError(
            f"spool_dir can not be used by a worker, not {config.spool_dir!r}: the topic keeps the events; unset {ENVIRONMENT_PREFIX}SPOOL_DIR"
        )
    return config


@contextlib.contextmanager
def _until_signal() -> Iterator[Callable[[], bool]]:
    """Give whether SIGTERM or Ctrl-C came; a second one ends the process as it would without us."""
    signals: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        signals.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    for each in before:
        signal.signal(each, stop)
    try:
        yield lambda: bool(signals)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _said(now: Snapshot) -> str:
    dead = sum(now.dead.values())
    return f"{now.settled:,} settled, {now.pending:,} pending, lag {sum(now.lag.values()):,}" + (f", {dead:,} dead" if dead else "")


def _report(arguments: argparse.Namespace, job: _Job, now: Snapshot, books: Stats) -> int:
    dead = sum(now.dead.values())
    if arguments.json:
        facts = {
            name: getattr(now, name) for name in ("taken", "settled", "gone", "unwritten", "commits", "pending", "partitions", "paused")
        }
        facts |= {name: dict(getattr(now, name)) for name in ("dead", "commit_failures")}
        facts |= {"lag": {f"{topic}/{partition}": lag for (topic, partition), lag in now.lag.items()}}
        facts |= {"acknowledged": books.acknowledged, "returned": books.returned}
        facts |= {
            name: {reason: count for reason, count in getattr(books, name).items() if count} for name in ("rejected", "dropped", "refused")
        }
        print(json.dumps(facts))
    else:
        said = [f"{counted(books.acknowledged, 'event')} delivered, {counted(now.pending, 'record')} left for the next worker"]
        if dead:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(now.dead.items()))
            source = "--from otlp " if arguments.source == "otlp" else ""
            said.append(
                f"{counted(dead, 'record')} written to {job.dead_topic} ({reasons}); send them again by: otel-amplitude worker "
                f"{source}--topic {job.dead_topic} --dead-topic {job.dead_topic}_again --until-idle 30"
            )
        if now.gone:
            said.append(f"{counted(now.gone, 'record')} removed by the topic's retention before being read")
        for line in said:
            print(f"otel-amplitude worker: {line}", file=sys.stderr)
    return 1 if dead or now.gone or now.unwritten else 0


def _leave(code: int) -> None:
    """End at once: a client that can not be closed would be waited for at the end of the interpreter, without end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
