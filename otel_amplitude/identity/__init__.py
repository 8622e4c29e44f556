"""Who acts now."""

from otel_amplitude.identity._cookie import BrowserCookie, make_cookie, read_cookie
from otel_amplitude.identity._current import acting, scope_of, set_user
from otel_amplitude.identity._headers import read_identity_headers
from otel_amplitude.identity._open_spans import OpenSpans
from otel_amplitude.identity._propagator import AmplitudePropagator
from otel_amplitude.identity._resolver import Identity, IdentityResolver
from otel_amplitude.identity._scope import RequestScope, Scope

__all__ = [
    "AmplitudePropagator",
    "BrowserCookie",
    "Identity",
    "IdentityResolver",
    "OpenSpans",
    "RequestScope",
    "Scope",
    "acting",
    "make_cookie",
    "read_cookie",
    "read_identity_headers",
    "scope_of",
    "set_user",
]
