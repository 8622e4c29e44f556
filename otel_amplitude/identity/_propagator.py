"""Takes who acts out of incoming headers into the OpenTelemetry context; puts nothing into outgoing ones."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final
from weakref import ref

from opentelemetry import baggage, propagate
from opentelemetry.context import Context, get_current
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import CarrierT, Getter, Setter, TextMapPropagator, default_getter, default_setter

from otel_amplitude.errors import ConfigurationError
from otel_amplitude.identity._anchor import CELERY, WSGI, EnvironGetter, anchor, anchored, kind_of
from otel_amplitude.identity._frameworks import carry_into_flask_body, django_signals, flask_signals
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
    is_opt_out,
    is_prefetch,
    is_websocket,
    read_identity_headers,
)
from otel_amplitude.identity._scope import LocalScope, RequestScope, held_by, process, running_task, span_id_in, with_scope

BAGGAGE_KEYS: Final = ("amplitude.user_id", "amplitude.device_id", "amplitude.session_id")
_ENVIRON: Final = EnvironGetter()
REPLACED: Final = "call configure() after set_global_textmap, or put AmplitudePropagator() into its CompositePropagator"


def _headers_from_environment() -> dict[str, IdentityHeader]:
    try:
        return read_identity_headers(os.environ.get(IDENTITY_HEADERS_VARIABLE))
    except ConfigurationError:  # the client says it; OpenTelemetry would give up all its propagators if it were raised here
        return {}


class AmplitudePropagator(TextMapPropagator):
    """Reads Amplitude's browser cookie, the identity headers, `Sec-GPC` and three baggage entries; injects nothing.

    An extraction finds the scope of its request in the request's own object (the environ, the ASGI scope, …), or makes it and leaves it
    there; texts are kept as they came and read only when an event is made. Belongs after OpenTelemetry's baggage propagator. Never
    raises; any thread.
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
        """Give `context` (None: an empty one) with the scope of the request: the one that its own object has, else a new one."""
        if context is None:
            context = Context()
        try:
            scope = self.scope_for(carrier, getter, context)
        except Exception:  # a carrier that breaks its contract costs the identity, not the request
            scope = RequestScope()
        return with_scope(scope, context)

    def scope_for(self, carrier: Any, getter: Getter[Any], context: Context, *, always: bool = False) -> RequestScope:
        """Give the scope of the request of `carrier`: found in it, or made, read from its headers and left in it.

        Args:
            carrier: a request's own object, or the headers of a message.
            getter: reads the headers of `carrier`.
            context: has the baggage that was extracted before.
            always: take the scope that is found, although its request is over: its body may still run.
        """
        kind = kind_of(carrier)
        scope = anchored(carrier, kind)
        if scope is None or (scope.is_done and not always and scope.kind == kind):
            scope = self._new_scope(carrier, kind)
        if kind:
            process.serving = True
        with suppress(Exception):  # a getter that breaks its contract costs the identity, not the request
            self._fill(scope, carrier, context, getter)
        if kind is WSGI:
            carry_into_flask_body(carrier, scope)
            connect_frameworks()
        return scope

    def _new_scope(self, carrier: Any, kind: str) -> RequestScope:
        current = get_current()
        here = held_by(current)
        request = here if isinstance(here, RequestScope) else None
        if request is not None and kind is CELERY and getattr(carrier, "is_eager", False):
            anchor(carrier, kind, request)
            return request
        if request is not None and kind and not (request.is_read or request.kind) and request.is_open:
            scope = request  # made by the request's span, which had no headers to read
        else:
            scope = RequestScope()
            scope.under = span_id_in(current)
            task = running_task()
            scope.task = None if task is None else ref(task)
            # Noted now: some instrumentations have replaced the context before the request span starts.
            if isinstance(here, LocalScope):
                scope.outer = here
            elif request is not None and request.is_open and not (kind and request.kind == kind):
                scope.outer = request
        if kind:
            scope.kind = kind
            anchor(carrier, kind, scope)
            if isinstance(scope.outer, LocalScope):
                process.overtake(scope.outer)
        return scope

    def _fill(self, scope: RequestScope, carrier: CarrierT, context: Context, getter: Getter[CarrierT]) -> None:
        """Read the headers once; baggage once there is some, since a hook or the glue may have met the request before it was extracted."""
        if not scope.is_read:
            scope.is_read = True
            self._fill_by_headers(scope, self._reader.read(carrier, getter))
            scope.version += 1
        if scope.baggage is None and (entries := baggage.get_all(context)):
            # OpenTelemetry's propagator leaves the properties of an entry (W3C Baggage, 3.3.1.3) on its value: `u-1;ttl=30`.
            found = ((key, entries.get(key)) for key in BAGGAGE_KEYS)
            scope.baggage = {key: value.partition(";")[0].strip() for key, value in found if isinstance(value, str)}
            scope.version += 1

    def _fill_by_headers(self, scope: RequestScope, headers: Mapping[str, str]) -> None:
        cookie = headers.get(COOKIE)
        # A header without a cookie of ours is not even kept in memory.
        if cookie is not None and ("AMP_" in cookie or "amp_" in cookie):
            scope.cookie = cookie
        scope.gpc = is_opt_out(headers.get(GPC))
        scope.user_agent = headers.get(USER_AGENT)
        if is_websocket(headers.get(UPGRADE, "")):
            scope.not_automatic = "websocket"
        elif any(name in headers and is_prefetch(headers[name]) for name in PURPOSES):
            scope.not_automatic = "prefetch"
        if self._plain:
            scope.headers = {name: headers[name] for name in self._plain if name in headers}
        if self._called:
            scope.header_ids = {name: HeaderId(headers[name], function) for name, function in self._called if name in headers}

    def inject(self, carrier: CarrierT, context: Context | None = None, setter: Setter[CarrierT] = default_setter) -> None:
        """Do nothing: who acts is nobody else's business."""

    @property
    def fields(self) -> set[str]:
        """The header names that `inject` writes: none."""
        return set()


class _Installed:
    """Our propagator of this process, which glue and hooks read headers with, also when it is no longer among the global ones."""

    def __init__(self) -> None:
        self._propagator: AmplitudePropagator | None = None
        self._expected = False

    def install(self, propagator: AmplitudePropagator) -> None:
        """Remember the propagator that was put among the global ones."""
        self._propagator = propagator
        self._expected = True
        connect_frameworks()

    def get(self) -> AmplitudePropagator:
        """Give it, or one of the environment's options."""
        if self._propagator is None:
            self._propagator = AmplitudePropagator()
        return self._propagator

    def is_present(self) -> bool:
        """Whether one of ours is among the global propagators, so that headers are read."""
        return any(isinstance(part, AmplitudePropagator) for part in global_propagators())

    def put_back(self) -> None:
        """Put it beside the global propagators, if it was there and the application has replaced them since, and say so."""
        if not self._expected or self.is_present():
            return
        others = global_propagators()
        propagate.set_global_textmap(CompositePropagator([*others, self.get()]))
        if process.log is not None:
            process.log.warning("propagator.replaced", by="+".join(type(part).__name__ for part in others), put_back="yes", cure=REPLACED)


installed: Final = _Installed()


def global_propagators() -> list[TextMapPropagator]:
    """Give the parts of OpenTelemetry's global propagator."""
    present = propagate.get_global_textmap()
    return list(getattr(present, "_propagators", ())) or [present]


def connect_frameworks() -> None:
    """Connect to the signals of Flask and Django, if they are loaded. They tell of requests that no instrumentation sees."""
    flask_signals.connect(_begin)
    django_signals.connect(_begin)


def _begin(environ: Any) -> RequestScope:
    return installed.get().scope_for(environ, _ENVIRON, Context())
