"""Clients by name: `init` makes one, `get_instance` finds it again, as in Amplitude's SDKs."""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from otel_amplitude._exit import open_clients
from otel_amplitude.client import Amplitude
from otel_amplitude.config import Config, misspelt
from otel_amplitude.errors import ConfigurationError

_instances: dict[str, Amplitude] = {}
_instances_lock = threading.Lock()
_told_misspelt: set[str] = set()

P = ParamSpec("P")
R = TypeVar("R")


def takes_options(config: Callable[P, Config]) -> Callable[[Callable[..., R]], Callable[P, R]]:
    """Give a function that takes options the parameters of `Config`: for type checkers and editors, and for `help` and consoles."""

    def typed(function: Callable[..., R]) -> Callable[P, R]:
        returns = inspect.signature(function).return_annotation
        function.__signature__ = inspect.signature(config).replace(return_annotation=returns)  # type: ignore[attr-defined]
        return function

    return typed


@takes_options(Config)
def init(api_key: str = "", **options: Any) -> Amplitude:
    """Make a client and remember it under its `name`, in place of the one that had the name before (which is shut down).

    Args:
        api_key: the key of the project; without it, `OTEL_EXPORTER_AMPLITUDE_API_KEY` or `AMPLITUDE_API_KEY`.
        **options: any option of `Config`; those not given are read from the environment.

    Raises:
        ConfigurationError: for an option that does not exist, or a value that breaks its rule.
        SpoolError: when the spool directory can not be trusted.
    """
    return register(Amplitude(Config.load({"api_key": api_key or None, **options})))


def register(client: Amplitude) -> Amplitude:
    """Let `get_instance` find a client under its name; the one that had the name before is shut down.

    Variables that belong to no option are logged once in a process: a misspelt region sends data to the wrong country.
    """
    with _instances_lock:
        before = _instances.get(client.config.name)
        _instances[client.config.name] = client
    if before is not None:
        before.shutdown()
    for name, nearest in misspelt(os.environ).items():
        if name not in _told_misspelt:
            _told_misspelt.add(name)
            client.log.warning("config.ignored", reason=name, nearest=nearest or "none")
    return client


def get_instance(name: str = "default") -> Amplitude:
    """Give the client that `init` made under this name.

    Raises:
        ConfigurationError: when there is none.
    """
    try:
        return _instances[name]
    except KeyError:
        raise ConfigurationError(
            f"there is no instance {name!r}: call otel_amplitude.init(api_key, name={name!r}) or otel_amplitude.configure() first"
        ) from None


def all_clients() -> list[Amplitude]:
    """Every client of this process that is not shut down."""
    return [client for client in open_clients() if isinstance(client, Amplitude)]


def forget_instances() -> None:
    """Shut every instance down and forget its name, so that a next test starts with none."""
    with _instances_lock:
        clients = list(_instances.values())
        _instances.clear()
    for client in clients:
        client.shutdown()
