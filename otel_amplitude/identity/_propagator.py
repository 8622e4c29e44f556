"""Takes who acts out of incoming headers into the OpenTelemetry context; puts nothing into outgoing ones."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from opentelemetry import baggage
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import CarrierT, Getter, Setter, TextMapPropagator, default_getter, default_setter

from otel_amplitude.errors import ConfigurationError
from otel_amplitude.identity._headers import (
    COOKIE,
    GPC,
    IDENTITY_HEADERS_VARIABLE,
    PURPOSES,
    UPGRADE,
    USER_AGENT,
    HeaderId,
    HeaderReader,
    IdentityHeader,
    is_prefetch,
    is_websocket,
    read_identity_headers,
)
from otel_amplitude.identity._scope import RequestScope, carried, with_scope

BAGGAGE_KEYS: Final = ("amplitude.user_id", "amplitude.device_id", "amplitude.session_id")


def _headers_from_environment() -> dict[str, IdentityHeader]:
    try:
        return read_identity_headers(os.environ.get(IDENTITY_HEADERS_VARIABLE))
    except ConfigurationError:  # the client says it; OpenTelemetry would give up all its propagators if it were raised here
        return {}


class AmplitudePropagator(TextMapPropagator):
    """Reads Amplitude's browser cookie, the identity headers, `Sec-GPC` and three baggage entries; injects nothing.

    Each extraction makes a new request scope, which everything of the request shares through the context; texts are kept as they
    came and read only when an event is made. Belongs after OpenTelemetry's baggage propagator. Never raises; any thread.
    """

    def __init__(self, identity_headers: str | Mapping[str, object] | None = None) -> None:
        """Make the propagator.

        Args:
            identity_headers: field to header name, see `read_identity_headers`; None reads
                `OTEL_EXPORTER_AMPLITUDE_IDENTITY_HEADERS`, where nonsense is ignored.

        Raises:
            ConfigurationError: the argument is given and can not be used.
        """
        named = _headers_from_environment() if identity_headers is None else read_identity_headers(identity_headers)
        self._plain = tuple(header.name for header in named.values() if header.function is None)
        # A function that `Config` has not loaded can not be called, so its header is not read.
        self._called = tuple((header.name, header.function) for header in named.values() if callable(header.function))
        self._reader = HeaderReader((COOKIE, GPC, USER_AGENT, UPGRADE, *PURPOSES, *self._plain, *(name for name, _ in self._called)))

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
        headers = self._reader.read(carrier, getter)
        cookie = headers.get(COOKIE)
        # A header without a cookie of ours is not even kept in memory.
        if cookie is not None and ("AMP_" in cookie or "amp_" in cookie):
            scope.cookie = cookie
        scope.gpc = headers.get(GPC) == "1"
        scope.user_agent = headers.get(USER_AGENT)
        if is_websocket(headers.get(UPGRADE, "")):
            scope.not_automatic = "websocket"
        elif any(name in headers and is_prefetch(headers[name]) for name in PURPOSES):
            scope.not_automatic = "prefetch"
        if self._plain:
            scope.headers = {name: headers[name] for name in self._plain if name in headers}
        if self._called:
            scope.header_ids = {name: HeaderId(headers[name], function) for name, function in self._called if name in headers}
        entries = baggage.get_all(context)
        if entries:
            # OpenTelemetry's propagator leaves the properties of an entry (W3C Baggage, 3.3.1.3) on its value: `u-1;ttl=30`.
            found = ((key, entries.get(key)) for key in BAGGAGE_KEYS)
            scope.baggage = {key: value.partition(";")[0].strip() for key, value in found if isinstance(value, str)}

    def inject(self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter) -> None:
        """Do nothing: who acts is nobody else's business."""

    @property
    def fields(self) -> set[str]:
        """The header names that `inject` writes: none."""
        return set()
