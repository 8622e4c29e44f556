"""Takes who acts out of incoming headers into the OpenTelemetry context; puts nothing into outgoing ones."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry import baggage
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import CarrierT, Getter, Setter, TextMapPropagator, default_getter, default_setter

from otel_amplitude.errors import ConfigurationError
from otel_amplitude.identity._scope import RequestScope, carried, with_scope

IDENTITY_HEADERS_VARIABLE: Final = "OTEL_EXPORTER_AMPLITUDE_IDENTITY_HEADERS"
HEADER_FIELDS: Final = ("device", "session", "user")
BAGGAGE_KEYS: Final = ("amplitude.user_id", "amplitude.device_id", "amplitude.session_id")
_MAX_RAW: Final = 16 * 1024
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,100}", re.ASCII)


def read_identity_headers(option: str | Mapping[str, str] | None) -> dict[str, str]:
    """Give field (`device`, `session`, `user`) to lower-case header name from the option `identity_headers`.

    >>> read_identity_headers("device=X-Device-Id, session=x-session-id")
    {'device': 'x-device-id', 'session': 'x-session-id'}

    Raises:
        ConfigurationError: a field or a header name that can not be; names the cure.
    """
    pairs: Any = option or {}
    if isinstance(pairs, str):
        pairs = dict(part.partition("=")[::2] for part in pairs.split(",") if part.strip())
    headers = {str(field).strip().lower(): str(name).strip().lower() for field, name in pairs.items()}
    for field, name in headers.items():
        if field not in HEADER_FIELDS or not _TOKEN.fullmatch(name):
            raise ConfigurationError(
                f"identity_headers must map device, session or user to a header name, not {field}={name}: "
                f"write {IDENTITY_HEADERS_VARIABLE}=device=x-device-id,session=x-session-id"
            )
    return headers


def _headers_from_environment() -> dict[str, str]:
    try:
        return read_identity_headers(os.environ.get(IDENTITY_HEADERS_VARIABLE))
    except ConfigurationError:  # the client says it; OpenTelemetry would give up all its propagators if it were raised here
        return {}


class AmplitudePropagator(TextMapPropagator):
    """Reads Amplitude's browser cookie, the identity headers, `Sec-GPC` and three baggage entries; injects nothing.

    Each extraction makes a new request scope, which everything of the request shares through the context; texts are kept as they
    came and read only when an event is made. Belongs after OpenTelemetry's baggage propagator. Never raises; any thread.
    """

    def __init__(self, identity_headers: str | Mapping[str, str] | None = None) -> None:
        """Make the propagator.

        Args:
            identity_headers: field to header name, see `read_identity_headers`; None reads
                `OTEL_EXPORTER_AMPLITUDE_IDENTITY_HEADERS`, where nonsense is ignored.

        Raises:
            ConfigurationError: the argument is given and can not be used.
        """
        named = _headers_from_environment() if identity_headers is None else read_identity_headers(identity_headers)
        self._names = tuple(named.values())

    def extract(self, carrier: CarrierT, context: Context | None = None, getter: Getter[CarrierT] = default_getter) -> Context:
        """Give `context` (None: an empty one) with a new request scope."""
        if context is None:
            context = Context()
        luggage = carried.get()
        if luggage is not None and luggage[0] is carrier:
            return with_scope(luggage[1], context)
        scope = RequestScope(remote=True)
        try:
            self._fill(scope, carrier, context, getter)
        except Exception:  # a carrier or getter that breaks its contract costs the identity, not the request
            return with_scope(scope, context)
        return with_scope(scope, context)

    def _fill(self, scope: RequestScope, carrier: CarrierT, context: Context, getter: Getter[CarrierT]) -> None:
        cookie = _joined(getter.get(carrier, "cookie"), "; ")
        # Other cookies are none of our business, so a header without ours is not even kept in memory.
        if cookie is not None and ("AMP_" in cookie or "amp_" in cookie):
            scope.cookie = cookie
        scope.gpc = _joined(getter.get(carrier, "sec-gpc")) == "1"
        if self._names:
            values = ((name, _joined(getter.get(carrier, name))) for name in self._names)
            scope.headers = {name: value for name, value in values if value}
        entries = baggage.get_all(context)
        if entries:
            scope.baggage = {key: value for key in BAGGAGE_KEYS if isinstance(value := entries.get(key), str)}

    def inject(self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter) -> None:
        """Do nothing: who acts is nobody else's business."""

    @property
    def fields(self) -> set[str]:
        """The header names that `inject` writes: none."""
        return set()


def _joined(values: Any, separator: str = ",") -> str | None:
    if not values:
        return None
    if not isinstance(values, str):
        values = separator.join([value for value in values if isinstance(value, str)])
    return values if len(values) <= _MAX_RAW else None
