"""Gives a request its scope where no instrumentation and no propagator of OpenTelemetry did."""

from __future__ import annotations

from contextvars import Token
from typing import Any

from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.propagators.textmap import Getter, default_getter
from opentelemetry.trace import get_current_span

from otel_amplitude.identity import AmplitudePropagator, scope_of, set_user
from otel_amplitude.identity._resolver import clean_id


class EnvironGetter(Getter[Any]):
    """Reads request headers out of a WSGI environ, which Django calls META."""

    def get(self, carrier: Any, key: str) -> list[str] | None:
        """Give the header's value in a list, or None."""
        value = carrier.get("HTTP_" + key.upper().replace("-", "_"))
        return None if value is None else [value]

    def keys(self, carrier: Any) -> list[str]:
        """Give the names of the variables."""
        return list(carrier)


def enter(carrier: Any, getter: Getter[Any] = default_getter) -> Token[Context] | None:
    """Attach a scope read from the headers in `carrier`, for `leave`; None when the request has one, or a span to bind one to."""
    if _in_request():
        return None
    return attach(AmplitudePropagator().extract(carrier, get_current(), getter))


def leave(token: Token[Context] | None) -> None:
    """Forget what `enter` attached."""
    if token is not None:
        detach(token)


def tell(user_id: object) -> None:
    """Say that `user_id` acts, or, when it is None, that it is known that nobody is logged in.

    That nobody is logged in by session takes nothing back: the view may know its user by a token, and have said so.
    """
    if not _in_request():  # `enter` was never reached: what is said now would stay on the thread
        return
    if user_id is None and (scope := scope_of()) is not None and clean_id(scope.user_id) is not None:
        return
    set_user(user_id, anonymous=user_id is None)


def _in_request() -> bool:
    found = scope_of()
    return (found is not None and found.remote) or get_current_span().is_recording()
