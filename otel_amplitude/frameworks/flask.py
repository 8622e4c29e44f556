"""Sets the logged-in user of a Flask application as the acting user: one call.

from otel_amplitude.frameworks.flask import instrument

instrument(app)                                  # Flask-Login's user, if the view loaded it
instrument(app, user=lambda: g.get("user_id"))   # or any callable; None: no user is logged in
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from otel_amplitude.frameworks._request import checked_mount, set_request_user
from otel_amplitude.identity._current import scope_of
from otel_amplitude.identity._frameworks import wrap_flask_response
from otel_amplitude.identity._propagator import connect_frameworks
from otel_amplitude.identity._scope import RequestScope

if TYPE_CHECKING:
    from flask import Flask, Response

_UNKNOWN: Final = object()


def _flask_login() -> object:
    from flask import g  # noqa: PLC0415 -- only applications that use Flask have it

    # Flask-Login keeps the user it loaded here; asking its current_user would load one, and with it the session.
    user: Any = g.get("_login_user")
    if user is None:
        return _UNKNOWN
    return user.get_id() if user.is_authenticated else None


def instrument(app: Flask, user: Callable[[], object] | None = None, *, mounted_at: str = "") -> None:
    """Call `set_user` after each view of `app` with the id of the logged-in user.

    `set_user` itself needs no glue in Flask: it finds Flask's current request, from the first hook to the last byte of the body.

    Args:
        app: the application; before or after OpenTelemetry's instrumentation, which need not be there.
        user: gives the user's id in the request's context, or None when no user is logged in, after the view; it decides
            what it reads of the session. After an exception the user is unknown. None means Flask-Login, only where the view has loaded
            the user: no query and no `Vary: Cookie` is added.
        mounted_at: where the application is mounted in another one, as a template (`/admin`): Werkzeug's `DispatcherMiddleware` does
            not pass it on, so the routes of the application's events would lack it.

    Raises:
        ConfigurationError: `mounted_at` is no template that begins with a slash.
    """
    prefix = checked_mount(mounted_at)
    connect_frameworks()
    ask = _flask_login if user is None else user

    @app.after_request
    def learn(response: Response) -> Response:
        scope = scope_of()
        if isinstance(scope, RequestScope):  # again, since nothing may have asked for the scope before the response was made
            wrap_flask_response(scope, response)
            scope.mounted_at = prefix
        try:
            found = ask()
        except Exception:  # an unknown user must not fail the response
            return response
        if found is not _UNKNOWN:
            set_request_user(found)
        return response
