"""`otel-amplitude sandbox`: a stand-in for Amplitude on this machine, until Ctrl-C."""

from __future__ import annotations

import argparse
import json
import signal
import sqlite3
import sys
import threading
import warnings
from typing import Any, Final

from otel_amplitude.errors import ConfigurationError
from otel_amplitude.sandbox import KEY, Sandbox

HELP: Final = "Run a stand-in for Amplitude with a live page."
EXAMPLES: Final = (
    "otel-amplitude sandbox",
    "otel-amplitude sandbox --port 8010 --db trial.db --allow-origin http://localhost:3000",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the words of this command."""
    parser.add_argument("--port", type=int, default=8010, help="port to listen on; 0 is any free one (default: 8010)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--db", metavar="FILE", help="keep the history in a file (default: in memory)")
    parser.add_argument("--api-key", metavar="KEY", action="append", help="accept only this key; may be given again (default: any)")
    parser.add_argument(
        "--allow-origin", metavar="ORIGIN", action="append", default=[], help="let pages of this origin send events; may be given again"
    )
    parser.add_argument("--no-eps-limits", action="store_true", help="never throttle a device or user that sends too fast")
    parser.add_argument("--json", action="store_true", help='print {"url": …, "token": …} instead of words')


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    done = stop_signal()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        sandbox = listen(
            arguments.host,
            arguments.port,
            api_keys=arguments.api_key,
            eps_limits=not arguments.no_eps_limits,
            db=arguments.db,
            allow_origins=arguments.allow_origin,
        )
    try:
        for warning in told:
            print(f"otel-amplitude sandbox: {warning.message}", file=sys.stderr)
        print(json.dumps({"url": sandbox.url, "token": sandbox.token}) if arguments.json else _welcome(sandbox.url), flush=True)
        done.wait()
    finally:
        sandbox.stop()
    return 0


def stop_signal() -> threading.Event:
    """Give what is set when SIGTERM or SIGINT comes, from now on."""
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    return done


def listen(host: str, port: int, *, db: str | None = None, **options: Any) -> Sandbox:
    """Give a sandbox that listens there.

    Raises:
        ConfigurationError: address or file can not be used; the message says which, and the word that changes it.
    """
    try:
        return Sandbox(port, host, db=db, **options).start()
    except (OSError, OverflowError) as error:
        raise ConfigurationError(f"can not listen on {host}:{port} ({error}); choose another --port") from error
    except sqlite3.Error as error:
        raise ConfigurationError(f"can not use {db} ({error}); choose another --db") from error


def _welcome(url: str) -> str:
    port = url.rpartition(":")[2]
    words = "" if port == "8010" else f"--port {port} "
    return f"""sandbox: {url}   (open it in a browser: it shows the steps for each framework; Ctrl-C ends it)

start a service that sends its events here, in another terminal:
  otel-amplitude run --sandbox {words}-- flask --app shop run

try it without a service:
  curl {url}/2/httpapi -H 'Content-Type: application/json' \\
    -d '{{"api_key": "{KEY}", "events": [{{"event_type": "Hello", "user_id": "u-12345"}}]}}'

see what arrived:
  otel-amplitude catalog --sandbox {url}"""
