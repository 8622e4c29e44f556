"""One call that makes a client and joins it to OpenTelemetry: propagator, span processor, log record processor."""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import propagate, trace
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.environment_variables import OTEL_TRACES_SAMPLER
from opentelemetry.sdk.trace import TracerProvider

from otel_amplitude._exit import flush_on_sigterm
from otel_amplitude.client import Amplitude
from otel_amplitude.config import Config
from otel_amplitude.identity._headers import read_identity_headers
from otel_amplitude.identity._propagator import AmplitudePropagator, global_propagators, installed
from otel_amplitude.identity._scope import process
from otel_amplitude.instances import init, takes_options
from otel_amplitude.otel._logs_api import LoggerProvider, get_logger_provider, set_logger_provider
from otel_amplitude.otel._processors import AmplitudeLogRecordProcessor, AmplitudeSpanProcessor
from otel_amplitude.otel._reload import follow_rules
from otel_amplitude.otel._sampler import can_drop, names_ours, sampler_of

if TYPE_CHECKING:
    from collections.abc import Mapping

# Set in the environment by the process that wrote the start line, for the workers it starts.
_ANNOUNCED: Final = "_OTEL_AMPLITUDE_STARTED"
_SET_VARIABLE: Final = (
    "OTEL_TRACES_SAMPLER=amplitude_parentbased_always_on, or amplitude_parentbased_traceidratio with your ratio, records every request"
)
# The variable is right already, but a provider that the application made in code reads no names but the SDK's.
_LET_US_MAKE_IT: Final = (
    "let configure() make the TracerProvider, which then has the sampler of OTEL_TRACES_SAMPLER, or give yours sampler=ALWAYS_ON"
)


@takes_options(Config)
def configure(api_key: str = "", **options: Any) -> Amplitude:
    """Make a client and attach it to the global tracer and logger providers; make SDK providers where none are set.

    Args:
        api_key: the key of the project; without it, the environment's.
        **options: any option of `Config`.

    Returns:
        The client, which `get_instance` gives as well.

    Raises:
        ConfigurationError: for an option that does not exist, or a value that breaks its rule.
    """
    client = init(api_key, **options)
    attach(client)
    if client.config.flush_on_sigterm:
        flush_on_sigterm(client, wrap=True)
    return client


def attach(client: Amplitude) -> None:
    """Join a client to the global propagator and both global providers; make SDK providers where none are set."""
    attach_propagator(client.config.identity_headers)
    attach_spans(AmplitudeSpanProcessor(client))
    attach_logs(client)
    follow_rules(client)
    tell_started(client)


def attach_spans(processor: AmplitudeSpanProcessor) -> None:
    """Join our processor to the global tracer provider; one made here records every request, unless the environment names a sampler."""
    provider: Any = trace.get_tracer_provider()
    if not hasattr(provider, "add_span_processor"):
        provider = TracerProvider(sampler=sampler_of(os.environ))
        trace.set_tracer_provider(provider)
        _watch(trace.__name__)
    provider.add_span_processor(processor)


def attach_logs(client: Amplitude) -> None:
    """Feed a client from the global logger provider."""
    provider: Any = get_logger_provider()
    if not hasattr(provider, "add_log_record_processor"):
        provider = LoggerProvider()
        set_logger_provider(provider)
        _watch(set_logger_provider.__module__)
    provider.add_log_record_processor(AmplitudeLogRecordProcessor(client))


class _Overriding(logging.Filter):
    """Hears OpenTelemetry refuse a provider of the application, because `configure()` has made one; its line does not say so."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let each record pass."""
        found = re.fullmatch(r"Overriding of current (\w+) is not allowed", record.getMessage())
        if found is not None and process.log is not None:
            setter = "set_tracer_provider" if found[1] == "TracerProvider" else "set_logger_provider"
            process.log.warning(
                "provider.refused",
                reason=found[1],
                cure=f"call configure() after {setter}: it joins the provider that is there, and the application's exporters see its spans",
            )
        return True


_overriding: Final = _Overriding()


def _watch(logger: str) -> None:
    logging.getLogger(logger).addFilter(_overriding)  # adding it again changes nothing


def tell_started(client: Amplitude) -> None:
    """Write what is on: under zero code for every reader, once for a service, whose workers inherit the environment; else at VERBOSE."""
    facts = start_facts(client)
    mark = "|".join(map(str, facts.values()))
    announced, _, by = os.environ.get(_ANNOUNCED, "").rpartition("|")
    is_worker = announced == mark and by != str(os.getpid())
    tell = client.log.announce if client.log.zero_code and not is_worker else client.log.debug
    tell("exporter.started", **facts)
    if client.log.zero_code and not is_worker:
        os.environ[_ANNOUNCED] = f"{mark}|{os.getpid()}"
    sampler = getattr(trace.get_tracer_provider(), "sampler", None)
    if sampler is not None and can_drop(sampler):
        client.log.warning(
            "sampler.drops",
            sampler=sampler.get_description(),
            cure=_LET_US_MAKE_IT if names_ours(os.environ) else _SET_VARIABLE,
        )


def start_facts(client: Amplitude) -> dict[str, object]:
    """Give the endpoint, the sampler and what differs from the defaults, without any secret: one line of a screen."""
    config = client.config
    headers = read_identity_headers(config.identity_headers)
    facts: dict[str, object] = {
        "endpoint": config.endpoint,
        "sampler": _sampler_name(),
        "select": "" if config.select == "default" else config.select if isinstance(config.select, str) else "callable",
        "rules": config.rules,
        "identity": ",".join(f"{field}:{header.name}" for field, header in headers.items()),
        "spool": config.spool_dir,
        "dry_run": config.dry_run,
    }
    return {name: value for name, value in facts.items() if value}


def _sampler_name() -> str:
    if names_ours(os.environ):
        return os.environ[OTEL_TRACES_SAMPLER].strip()
    sampler = getattr(trace.get_tracer_provider(), "sampler", None)
    return "none" if sampler is None else sampler.get_description().partition("{")[0]


def attach_propagator(identity_headers: Mapping[str, object] | None) -> None:
    """Put our propagator beside the global ones, whatever `OTEL_PROPAGATORS` says; it only reads."""
    parts = global_propagators()
    ours = [part for part in parts if isinstance(part, AmplitudePropagator)]
    if not ours or identity_headers:  # one that the environment made knows only the environment's headers
        others = [part for part in parts if part not in ours]
        ours = [AmplitudePropagator(identity_headers)]
        propagate.set_global_textmap(CompositePropagator([*others, *ours]))
    installed.install(ours[0])
