"""`otel-amplitude cookie`: the cookie in which Amplitude's browser SDK would keep a visitor, for trials with curl."""

from __future__ import annotations

import argparse
import json
import os
import uuid
from typing import Final

from otel_amplitude.clock import application_time
from otel_amplitude.config import API_KEY_FALLBACK, ENVIRONMENT_PREFIX
from otel_amplitude.errors import ConfigurationError
from otel_amplitude.identity._cookie import make_cookie
from otel_amplitude.moments import session_ms

HELP: Final = "Print a browser cookie for trials."
_KEY_CHARACTERS: Final = 10
EXAMPLES: Final = (
    'curl -H "$(otel-amplitude cookie --user-id u-12345)" http://127.0.0.1:8000/products',
    'curl --cookie "$(otel-amplitude cookie --device-id my-laptop --value)" http://127.0.0.1:8000/products',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the words of this command."""
    parser.add_argument("--api-key", metavar="KEY", help="the project; only its first ten characters are used (default: the environment's)")
    parser.add_argument("--device-id", metavar="ID", help="the browser's id (default: a new one)")
    parser.add_argument("--user-id", metavar="ID", help="the logged-in user (default: none)")
    parser.add_argument("--session-id", metavar="MS", help="milliseconds since 1970 (default: a session that starts now)")
    parser.add_argument("--opt-out", action="store_true", help="the visitor asked to be left alone")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--value", action="store_true", help="print name=value without `Cookie: `")
    form.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the cookie."""
    key = arguments.api_key or os.environ.get(f"{ENVIRONMENT_PREFIX}API_KEY") or os.environ.get(API_KEY_FALLBACK)
    if not key:
        raise ConfigurationError(f"the cookie is named after the project: give --api-key, or set {ENVIRONMENT_PREFIX}API_KEY")
    if len(key) < _KEY_CHARACTERS:
        raise ConfigurationError(
            f"the key must have at least ten characters, because the cookie is named after them, not {len(key)}: "
            "give the key of the exporter with --api-key"
        )
    session = int(application_time() * 1000) if arguments.session_id is None else session_ms(arguments.session_id)
    if session is None:
        raise ConfigurationError(f"--session-id must be milliseconds since 1970 (13 digits), not {arguments.session_id!r}")
    device = arguments.device_id or str(uuid.uuid4())
    cookie = make_cookie(key, device, arguments.user_id, session, opt_out=arguments.opt_out)
    if arguments.json:
        name, _, value = cookie.partition("=")
        print(json.dumps({"name": name, "value": value, "device_id": device, "user_id": arguments.user_id, "session_id": session}))
    else:
        print(cookie if arguments.value else f"Cookie: {cookie}")
    return 0
