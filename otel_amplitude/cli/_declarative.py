"""What a declarative file (`OTEL_CONFIG_FILE`) says about us, read by OpenTelemetry's own reader of such files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

VARIABLE: Final = "OTEL_CONFIG_FILE"
_OURS: Final = "amplitude"


@dataclass(frozen=True)
class Declared:
    """What one file says.

    Attributes:
        path: the file.
        problem: why it can not be read; empty when it can.
        options: the options of our exporter or instrumentor; None when the file names neither.
        sampler: the name of the sampler; empty when the file leaves it to the default.
        has_service: whether the resource has a `service.name`.
    """

    path: str
    problem: str = ""
    options: dict[str, Any] | None = field(default=None, repr=False)
    sampler: str = ""
    has_service: bool = False


def read_declared(path: str) -> Declared:
    """Read a declarative file with its variables replaced, as the SDK does at start."""
    try:
        from opentelemetry.configuration.file import load_config_file  # noqa: PLC0415 -- an optional package
    except ImportError:
        return Declared(path, "opentelemetry-configuration, which reads it, is not installed")
    logging.disable()  # it logs a traceback of what it raises
    try:
        loaded = load_config_file(path)
    except Exception as error:  # whatever is wrong with it, the SDK meets the same
        return Declared(path, f"{type(error).__name__}: {error}"[:500])
    finally:
        logging.disable(logging.NOTSET)
    return Declared(
        path,
        options=next(_options(loaded), None),
        sampler=next(iter(_names(getattr(getattr(loaded, "tracer_provider", None), "sampler", None))), ""),
        has_service=_has_service(getattr(loaded, "resource", None)),
    )


def _options(loaded: Any) -> Iterator[dict[str, Any]]:
    """Give the options of each exporter of ours, of spans or log records, and of our instrumentor."""
    for signal in ("tracer_provider", "logger_provider"):
        for processor in getattr(getattr(loaded, signal, None), "processors", None) or ():
            for kind in ("batch", "simple"):
                found = _names(getattr(getattr(processor, kind, None), "exporter", None))
                if _OURS in found:
                    yield dict(found[_OURS] or {})
    python = _names(getattr(loaded, "instrumentation_development", None)).get("python")
    ours = _names(python).get(_OURS)
    if ours:
        yield dict(ours)


def _names(node: Any) -> dict[str, Any]:
    """Give what a node of the file sets: the fields of the schema that are not empty, and names that only entry points know."""
    fields = node if isinstance(node, dict) else vars(node) if hasattr(node, "__dict__") else {}
    extra = fields.get("additional_properties")
    return {**{name: value for name, value in fields.items() if value is not None and name != "additional_properties"}, **(extra or {})}


def _has_service(resource: Any) -> bool:
    listed = str(getattr(resource, "attributes_list", None) or "")
    return "service.name=" in listed or any(
        getattr(attribute, "name", None) == "service.name" for attribute in getattr(resource, "attributes", None) or ()
    )
