"""Holds the scope of a request open, from before the application until after it, and says in it who is logged in."""

from __future__ import annotations

from contextvars import Token
from typing import Any, Final, NamedTuple

from opentelemetry.context import Context, attach, detach, get_current

from otel_amplitude.errors import ConfigurationError
from otel_amplitude.identity._anchor import EnvironGetter, HeaderGetter
from otel_amplitude.identity._current import scope_of, set_user
from otel_amplitude.identity._propagator import installed
from otel_amplitude.identity._resolver import clean_id
from otel_amplitude.identity._scope import RequestScope, entered, held_by, with_scope

_ENVIRON: Final = EnvironGetter()
_HEADERS: Final = HeaderGetter()


def scope_for(carrier: Any) -> RequestScope:
    """Give the scope of the request of `carrier`, an environ or an ASGI scope."""
    getter = _ENVIRON if "wsgi.version" in carrier else _HEADERS
    scope = installed.get().scope_for(carrier, getter, Context())
    if isinstance(scope.outer, RequestScope) and scope.outer.root() is not scope:  # an application inside a request of another kind
        scope.join(scope.outer.root())
    return scope


def checked_mount(mounted_at: object) -> str:
    """Give the option `mounted_at` back when it can be one.

    Raises:
        ConfigurationError: it is no text that begins with a slash.
    """
    if not isinstance(mounted_at, str) or (mounted_at and not mounted_at.startswith("/")):
        raise ConfigurationError(f"mounted_at must be a template that begins with a slash, not {mounted_at!r}: write mounted_at='/admin'")
    return mounted_at


class Entered(NamedTuple):
    """What `enter` changed, for `leave`."""

    scope: RequestScope
    context: Token[Context]
    noted: Token[RequestScope | None]


def enter(scope: RequestScope) -> Entered | None:
    """Attach a scope for `leave`; None where the current context leads to it already."""
    current = get_current()
    if held_by(current) is scope.root():
        return None
    scope.entered = True
    return Entered(scope, attach(with_scope(scope, current)), entered.set(scope))


def leave(done: Entered | None) -> None:
    """Undo what `enter` changed; the request is over."""
    if done is not None:
        done.scope.entered, done.scope.over = False, True
        entered.reset(done.noted)
        detach(done.context)


def set_request_user(user_id: object) -> None:
    """Set the acting user of the current request; None means that the request is known to be anonymous.

    None does not replace a user that the view has set: a request without a session may carry a token.
    """
    scope = scope_of()
    if scope is None or not scope.shared:  # outside of a request a user would stay on the thread
        return
    if user_id is not None or clean_id(scope.user_id) is None:
        set_user(user_id, anonymous=user_id is None)
