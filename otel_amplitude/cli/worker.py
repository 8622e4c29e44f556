"""`otel-amplitude worker`: the events of a Kafka topic to Amplitude; offsets are committed behind what Amplitude acknowledged."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Final

from otel_amplitude.cli._kafka import add_kafka, kafka_settings
from otel_amplitude.cli._options import add_key, add_options, options_with_key
from otel_amplitude.cli._table import Progress, counted
from otel_amplitude.config import ENVIRONMENT_PREFIX, Config, environment_values
from otel_amplitude.errors import ConfigurationError, KafkaError
from otel_amplitude.kafka.settings import consumer_settings, library, make_client, secrets_of
from otel_amplitude.kafka.topics import DEAD, EVENTS, check_topics
from otel_amplitude.log import Log
from otel_amplitude.telemetry._logs import LogObserver
from otel_amplitude.telemetry._metrics import metrics_observers
from otel_amplitude.worker.dead_letters import DeadLetters
from otel_amplitude.worker.events import DEFAULTS, ToAmplitude
from otel_amplitude.worker.loop import MAX_PENDING, Ends, Loop, Options, Snapshot
from otel_amplitude.worker.metrics import WorkerMetrics

HELP: Final = "Send the events of a Kafka topic to Amplitude, by as many workers as the topic has partitions."
EXAMPLES: Final = (
    "otel-amplitude worker --brokers broker1:9092,broker2:9092",
    "otel-amplitude worker --brokers broker1:9093 --kafka-config kafka.properties --api-key-file /run/secrets/amplitude",
    "otel-amplitude worker --brokers broker1:9092 --rate 900 --option server_zone=EU",
    "otel-amplitude worker --brokers broker1:9092 --topic amplitude_dead --dead-topic amplitude_dead_again --until-idle 30",
)
_GROUP: Final = "otel-amplitude"
_MOST_PENDING: Final = 1_000_000
_PARTITIONS: Final = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the words of this command."""
    parser.add_argument("--brokers", metavar="HOST:PORT,…", help="where Kafka is (or bootstrap.servers in the file of --kafka-config)")
    parser.add_argument("--topic", default=EVENTS, help=f"read events from here (default: {EVENTS}); it must exist")
    parser.add_argument(
        "--dead-topic",
        metavar="TOPIC",
        default=DEAD,
        help=f"write here, with the reason, what can not be delivered (default: {DEAD}); it must exist",
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


def run(arguments: argparse.Namespace) -> int:
    """Work until SIGTERM, Ctrl-C or --until-idle; 1 when something could not be delivered."""
    settings = kafka_settings(arguments, arguments.brokers)
    config = _config(arguments)
    if arguments.topic == arguments.dead_topic:
        raise ConfigurationError(
            f"--topic and --dead-topic are both {arguments.topic}: what is refused again would be read again without end; "
            f"give another one, such as --dead-topic {arguments.topic}_again"
        )
    kafka = library()
    log = Log(config.log_level, (config.api_key, *(config.headers or {}).values(), *secrets_of(settings)), debug=config.debug)
    group = arguments.group or (_GROUP if arguments.topic == EVENTS else f"{_GROUP}-{arguments.topic}")
    ends = Ends()
    destination = ToAmplitude(config, (ends, LogObserver(log)))
    destination.exporter.observe(*metrics_observers(destination.exporter.stats, endpoint=config.endpoint, capacity=arguments.max_pending))
    dead = DeadLetters(settings, arguments.dead_topic, log=log, observers=(ends, LogObserver(log)), request_timeout=config.request_timeout)
    options = Options(max_pending=arguments.max_pending, rate=arguments.rate, shutdown_timeout=config.shutdown_timeout)
    loop = Loop(destination, dead, ends, options, log, settings=settings)
    consumer = make_client(kafka.Consumer, {**consumer_settings(settings, group), **loop.callbacks()}, log)
    check_topics(consumer, {arguments.topic: _PARTITIONS, arguments.dead_topic: 1}, settings)
    metrics = WorkerMetrics(lambda: loop.snapshot, group)
    log.announce("worker.started", topic=arguments.topic, group=group, endpoint=config.endpoint, dead_topic=arguments.dead_topic)
    failure: KafkaError | None = None
    try:
        with _until_told() as should_stop, Progress("delivering", None) as progress:
            loop.subscribe(consumer, [arguments.topic])
            loop.run(should_stop, until_idle=arguments.until_idle, each_turn=lambda now: progress.update(now.settled, _said(now)))
    except KafkaError as error:
        failure = error
    except KeyboardInterrupt:  # the second one: end without waiting
        _leave(130)
    is_closed = loop.close()
    log.tell_sums()
    del metrics
    code = 3 if failure is not None else _report(arguments, loop.snapshot, destination)
    if not is_closed:
        if failure is not None:
            print(f"otel-amplitude worker: {failure}", file=sys.stderr)
        _leave(code)
    if failure is not None:
        raise failure
    return code


def _config(arguments: argparse.Namespace) -> Config:
    given, known = options_with_key(arguments), environment_values(os.environ)
    if not given.get("api_key", known.get("api_key")):
        raise ConfigurationError(
            f"the API key is missing: set {ENVIRONMENT_PREFIX}API_KEY to the key of your project (Settings, Projects), "
            "or write it into a file and give --api-key-file FILE"
        )
    config = Config.load({**{name: value for name, value in DEFAULTS.items() if name not in known}, **given})
    if config.spool_dir:
        raise ConfigurationError(
            f"spool_dir can not be used by a worker, not {config.spool_dir!r}: the topic keeps the events; unset {ENVIRONMENT_PREFIX}SPOOL_DIR"
        )
    return config


@contextlib.contextmanager
def _until_told() -> Iterator[Callable[[], bool]]:
    """Give whether SIGTERM or Ctrl-C came; a second one ends the process as it would without us."""
    told: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        told.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    for each in before:
        signal.signal(each, stop)
    try:
        yield lambda: bool(told)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _said(now: Snapshot) -> str:
    dead = sum(now.dead.values())
    return f"{now.settled:,} settled, {now.pending:,} pending, lag {sum(now.lag.values()):,}" + (f", {dead:,} dead" if dead else "")


def _report(arguments: argparse.Namespace, now: Snapshot, destination: ToAmplitude) -> int:
    books = destination.exporter.stats()
    dead = sum(now.dead.values())
    if arguments.json:
        facts = {
            name: getattr(now, name) for name in ("taken", "settled", "gone", "unwritten", "commits", "pending", "partitions", "paused")
        }
        facts |= {name: dict(getattr(now, name)) for name in ("dead", "commit_failures")}
        facts |= {"lag": {f"{topic}/{partition}": lag for (topic, partition), lag in now.lag.items()}}
        facts |= {"acknowledged": books.acknowledged, "returned": books.returned}
        facts |= {"rejected": dict(books.rejected), "dropped": dict(books.dropped)}
        print(json.dumps(facts))
    else:
        print(
            f"otel-amplitude worker: {counted(books.acknowledged, 'event')} delivered, {now.pending:,} left for the next worker",
            file=sys.stderr,
        )
        if dead:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(now.dead.items()))
            print(
                f"otel-amplitude worker: {counted(dead, 'record')} written to {arguments.dead_topic} ({reasons}); "
                f"send them again by: otel-amplitude worker --topic {arguments.dead_topic} --dead-topic {arguments.dead_topic}_again --until-idle 30",
                file=sys.stderr,
            )
        if now.gone:
            print(
                f"otel-amplitude worker: {counted(now.gone, 'record')} removed by the topic's retention before being read", file=sys.stderr
            )
    return 1 if dead or now.gone or now.unwritten else 0


def _leave(code: int) -> None:
    """End at once: a client that can not be closed would be waited for at the end of the interpreter, without end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
