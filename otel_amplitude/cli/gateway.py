"""`otel-amplitude gateway`: OTLP of any language in, Amplitude events out, until SIGTERM."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import os
import signal
import sys
import threading
from typing import Any, Final

from otel_amplitude.cli._kafka import KEY_OF_NOTHING, add_kafka, kafka_settings
from otel_amplitude.cli._options import add_key, add_options, options_with_key
from otel_amplitude.cli._otlp import add_identity, rules_of
from otel_amplitude.cli.sandbox import stop_signal
from otel_amplitude.client import Amplitude
from otel_amplitude.config import API_KEY_FALLBACK, ENVIRONMENT_PREFIX, Config, environment_values
from otel_amplitude.errors import ConfigurationError
from otel_amplitude.gateway.access import Tls, Tokens
from otel_amplitude.gateway.exporter import GatewayExporter, GatewayToKafka
from otel_amplitude.gateway.intake import Intake
from otel_amplitude.gateway.limits import Limits
from otel_amplitude.gateway.server import Server
from otel_amplitude.kafka.settings import BROKERS
from otel_amplitude.kafka.topics import EVENTS

HELP: Final = "Take OTLP from SDKs of any language and Collectors, and send events to Amplitude, or to a Kafka topic."
EXAMPLES: Final = (
    f"{ENVIRONMENT_PREFIX}API_KEY=… otel-amplitude gateway --spool-dir /var/spool/amplitude",
    "otel-amplitude gateway --spool-dir /var/spool/amplitude --api-key-file /run/secrets/amplitude --requests-of 'shop,checkout'",
    "otel-amplitude gateway --spool-dir /var/spool/amplitude --to-kafka broker1:9092,broker2:9092",
    "otel-amplitude gateway --spool-dir /var/spool/amplitude --host 0.0.0.0 --token-file tokens --tls-cert tls.crt --tls-key tls.key",
)
_WORKS: Final = f"{ENVIRONMENT_PREFIX}API_KEY=YOUR_KEY otel-amplitude gateway --spool-dir /var/spool/amplitude"
_MIB: Final = 2**20
_SIGNAL_SECONDS: Final = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the words of this command."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=4318, help="port to listen on; 0 is any free one (default: 4318, that of OTLP/HTTP)")
    add_key(parser)
    parser.add_argument("--spool-dir", metavar="DIR", help="a directory of its own, where events wait until Amplitude has them")
    parser.add_argument(
        "--answer",
        choices=("disk", "memory", "delivered"),
        default="disk",
        help="answer 200 when all events of a request are on disk (default), in memory, or acknowledged by Amplitude",
    )
    parser.add_argument("--token-file", metavar="FILE", help="bearer tokens of the senders, one a line; read again on SIGHUP")
    parser.add_argument("--tls-cert", metavar="FILE", help="certificate chain in PEM; read again on SIGHUP")
    parser.add_argument("--tls-key", metavar="FILE", help="its key (default: in the file of --tls-cert)")
    parser.add_argument("--tls-client-ca", metavar="FILE", help="senders must show a certificate of this authority")
    parser.add_argument("--allow-insecure", action="store_true", help="listen beyond loopback without tokens and TLS, as behind a mesh")
    add_identity(parser)
    parser.add_argument("--to-kafka", metavar="HOST:PORT,…", help="write events to a Kafka topic instead, for `otel-amplitude worker`")
    parser.add_argument("--topic", default=EVENTS, help=f"with --to-kafka: that topic (default: {EVENTS}); it must exist")
    add_kafka(parser)
    parser.add_argument("--max-body", type=int, metavar="MIB", default=20, help="MiB of one request, after decompression (default: 20)")
    parser.add_argument("--max-in-flight", type=int, metavar="MIB", default=64, help="MiB of all requests at once (default: 64)")
    add_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes; then drain."""
    done = stop_signal()
    config = _config(arguments)
    tokens, tls = _access(arguments)
    os.environ.setdefault("OTEL_SERVICE_NAME", "otel-amplitude gateway")  # by which the page of a sandbox names this process
    exporter = _exporter(arguments, config)
    client = Amplitude(config, exporter=exporter)
    client.log.zero_code = True  # options come from outside, so lines name variables, and the counters are written at the end
    intake = Intake(client, exporter, rules_of(arguments, arguments.answer))
    try:
        limits = Limits(max_body=arguments.max_body * _MIB, max_in_flight=arguments.max_in_flight * _MIB)
        server = Server(intake, arguments.host, arguments.port, tokens=tokens, tls=tls, limits=limits).start()
    except (OSError, OverflowError) as error:
        client.shutdown(0.0)
        raise ConfigurationError(
            f"can not listen on {arguments.host}:{arguments.port} ({error}); choose another --host or --port"
        ) from error
    _reload_on_sighup(client, tokens, tls)
    exporter.hurry()  # what the last run left in the spool is sent at once, not with the first event of this one
    print(_welcome(server, config, arguments), flush=True)
    wait_for(done)
    drained = server.stop(config.shutdown_timeout)
    settled = client.shutdown(config.shutdown_timeout)
    print(_farewell(client, drained=drained, settled=settled), file=sys.stderr, flush=True)
    return 0


def _exporter(arguments: argparse.Namespace, config: Config) -> GatewayExporter | GatewayToKafka:
    if not arguments.to_kafka:
        return GatewayExporter(config)
    settings = kafka_settings(arguments, arguments.to_kafka)
    exporter = GatewayToKafka.made_for(config, settings, arguments.topic)
    if not exporter.check_topic():
        where = "in the spool" if config.spool_dir else "in memory"
        print(f"gateway: no broker answers at {settings[BROKERS]} yet; events wait {where} until one does", file=sys.stderr, flush=True)
    return exporter


def wait_for(done: threading.Event) -> None:
    """Wait in steps: a signal may be delivered to another thread, and its handler runs when this one wakes up."""
    while not done.wait(_SIGNAL_SECONDS):
        pass


def _config(arguments: argparse.Namespace) -> Config:
    given: dict[str, Any] = dict(options_with_key(arguments))
    if arguments.spool_dir:
        given["spool_dir"] = arguments.spool_dir
    known = {**environment_values(os.environ), **given}
    if arguments.to_kafka:
        given["api_key"] = KEY_OF_NOTHING  # of no use before the worker
    elif not known.get("api_key") and not os.environ.get(API_KEY_FALLBACK):
        raise ConfigurationError(f"there is no API key (Amplitude: Settings, Projects). This line works:\n  {_WORKS}")
    if arguments.answer == "disk" and not known.get("spool_dir"):
        raise ConfigurationError(
            "there is no --spool-dir, in which events wait until Amplitude, or Kafka, has them. This line works (or give --answer memory, which loses "
            f"what it holds when the process is killed):\n  {_WORKS}"
        )
    if arguments.answer != "disk" and known.get("spool_dir"):
        raise ConfigurationError(f"--answer {arguments.answer} keeps nothing on disk: leave out --spool-dir, or give --answer disk")
    return Config.load(given)


def _access(arguments: argparse.Namespace) -> tuple[Tokens | None, Tls | None]:
    if (arguments.tls_key or arguments.tls_client_ca) and not arguments.tls_cert:
        raise ConfigurationError("--tls-key and --tls-client-ca need --tls-cert")
    is_safe = bool(arguments.tls_cert and (arguments.token_file or arguments.tls_client_ca))
    if not is_safe and not arguments.allow_insecure and not _is_loopback(arguments.host):
        raise ConfigurationError(
            f"--host {arguments.host} can be reached by others: give --tls-cert with --token-file or --tls-client-ca, or --allow-insecure behind a "
            "proxy or mesh that checks who sends"
        )
    tokens = Tokens(arguments.token_file) if arguments.token_file else None
    return tokens, Tls(arguments.tls_cert, arguments.tls_key, arguments.tls_client_ca) if arguments.tls_cert else None


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _reload_on_sighup(client: Amplitude, *parts: Tokens | Tls | None) -> None:
    def reload(*_: object) -> None:
        for part in parts:
            try:
                if part is not None:
                    part.reload()
            except ConfigurationError as error:  # what was read before stays
                client.log.error("gateway.reload_failed", problem=str(error))

    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, reload)


def _welcome(server: Server, config: Config, arguments: argparse.Namespace) -> str:
    kept = f"events wait in {config.spool_dir}" if config.spool_dir else f"nothing is kept on disk (--answer {arguments.answer})"
    to = f"topic {arguments.topic} of {arguments.to_kafka}" if arguments.to_kafka else config.endpoint
    return f"""gateway: {server.url} → {to}; {kept}

point any OpenTelemetry SDK at it:
  export OTEL_EXPORTER_OTLP_ENDPOINT={server.url} OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf OTEL_TRACES_SAMPLER=always_on
see what it does: {server.url}/stats, /healthz, /readyz"""


def _farewell(client: Amplitude, *, drained: bool, settled: bool) -> str:
    books = client.stats()
    left = (
        ""
        if settled
        else f"; {books.pending.spooled:,} events stay in the spool, and the next start sends them"
        if books.pending.spooled
        else ""
    )
    cut = "" if drained else "; a request was cut off, and its sender sends it again"
    return f"gateway: stopped; {books.accepted:,} events accepted, {books.acknowledged:,} acknowledged{left}{cut}"
