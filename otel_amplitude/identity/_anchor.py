"""Where the scope of a request lies: in the request's own object, under one key. Only objects of these kinds are ever written to."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any, Final

from opentelemetry.propagators.textmap import Getter

from otel_amplitude.identity._scope import RequestScope

KEY: Final = "otel_amplitude.request"
_ATTRIBUTE: Final = "otel_amplitude_request"

WSGI: Final = "wsgi"
ASGI: Final = "asgi"
AIOHTTP: Final = "aiohttp"
CELERY: Final = "celery"


class EnvironGetter(Getter[Any]):
    """Reads request headers out of a WSGI environ, which Django calls META."""

    def get(self, carrier: Any, key: str) -> list[str] | None:
        """Give the header's value in a list, or None."""
        value = carrier.get("HTTP_" + key.upper().replace("-", "_"))
        return None if value is None else [value]

    def keys(self, carrier: Any) -> list[str]:
        """Give the names of the variables."""
        return list(carrier)


class HeaderGetter(Getter[Any]):
    """Reads request headers out of an ASGI scope."""

    def get(self, carrier: Any, key: str) -> list[str] | None:
        """Give the header's values, or None."""
        name = key.encode("latin-1")
        return [value.decode("latin-1") for found, value in carrier["headers"] if found.lower() == name] or None

    def keys(self, carrier: Any) -> list[str]:
        """Give the names of the headers."""
        return [name.decode("latin-1") for name, _ in carrier["headers"]]


def kind_of(carrier: object) -> str:
    """Give the kind of a request's own object; empty for anything else, such as the headers of a message, which a client may fill."""
    if isinstance(carrier, dict):
        if isinstance(carrier.get("wsgi.version"), tuple):
            return WSGI
        return ASGI if carrier.get("type") in ("http", "websocket") and isinstance(carrier.get("headers"), (list, tuple)) else ""
    module = type(carrier).__module__
    if module.startswith("aiohttp."):
        web: Any = sys.modules.get("aiohttp.web_request")
        return AIOHTTP if web is not None and isinstance(carrier, web.BaseRequest) else ""
    return CELERY if module == "celery.app.task" and type(carrier).__name__ == "Context" else ""


def anchored(carrier: Any, kind: str) -> RequestScope | None:
    """Give the scope of a request; only an object of our class counts, which no client can send."""
    if not kind:
        return None
    found = getattr(carrier, _ATTRIBUTE, None) if kind is CELERY else carrier.get(_aiohttp_key() if kind is AIOHTTP else KEY)
    return found if isinstance(found, RequestScope) else None


def anchor(carrier: Any, kind: str, scope: RequestScope) -> None:
    """Let the request's own object lead to its scope."""
    if kind is CELERY:
        setattr(carrier, _ATTRIBUTE, scope)
    else:
        carrier[_aiohttp_key() if kind is AIOHTTP else KEY] = scope
    if kind is ASGI:
        scope.asgi, scope.app = carrier, carrier.get("app")  # mounted applications replace it by themselves
        scope.at_root = carrier.get("path") == f"{carrier.get('root_path') or ''}/"
    elif kind is WSGI:
        scope.at_root = carrier.get("PATH_INFO") == "/"


@lru_cache(maxsize=1)
def _aiohttp_key() -> Any:
    """Give a key of aiohttp's own class, where it has one (3.14): it warns of text."""
    web: Any = sys.modules.get("aiohttp.web")
    key_class = getattr(web, "RequestKey", None)
    return KEY if key_class is None else key_class(KEY, RequestScope)
