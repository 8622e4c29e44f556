"""`python -m otel_amplitude.sandbox`: run a sandbox until SIGTERM or SIGINT, or until it is not used any more."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from typing import TYPE_CHECKING

from otel_amplitude.sandbox._server import Sandbox

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sandbox; the first line on stdout is `{"url": …, "token": …}` once it answers.

    Gives 0 after a signal and 1 when it cannot listen.
    """
    parser = argparse.ArgumentParser(prog="python -m otel_amplitude.sandbox", description="A stand-in for Amplitude on loopback.")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 is any free one (default)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1)")
    parser.add_argument("--db", help="file that keeps the history; default is memory")
    parser.add_argument("--api-key", action="append", help="accept only this key; may be given again; default is any")
    parser.add_argument("--allow-origin", action="append", default=[], help="let pages of this origin send events; may be given again")
    parser.add_argument("--no-eps-limits", action="store_true", help="never throttle a device or user that sends too fast")
    parser.add_argument(
        "--end-when-idle", metavar="SECONDS", type=float, help="end after so long without a connection, also that of an open page"
    )
    options = parser.parse_args(arguments)
    done = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: done.set())
    sandbox = Sandbox(
        options.port,
        options.host,
        api_keys=options.api_key,
        eps_limits=not options.no_eps_limits,
        db=options.db,
        allow_origins=options.allow_origin,
    )
    try:
        sandbox.start()
    except OSError as error:
        print(f"cannot listen on {options.host}:{options.port}: {error}; choose another --port", file=sys.stderr)
        return 1
    try:
        print(json.dumps({"url": sandbox.url, "token": sandbox.token}), flush=True)
        while not done.wait(None if options.end_when_idle is None else max(0.01, options.end_when_idle - sandbox.idle_seconds)):
            if sandbox.idle_seconds >= options.end_when_idle:
                break
    finally:
        sandbox.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
