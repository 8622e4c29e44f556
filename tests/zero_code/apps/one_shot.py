"""Asks the Flask shop for products in one process, and ends.

    one_shot.py HOW-MANY HOW-TO-END [TRACEPARENT]

`leave` ends as programs end, `die` flushes our client and ends without any exit hook.
"""

from __future__ import annotations

import os
import sys

from flask_shop import app

import otel_amplitude
from otel_amplitude.identity import make_cookie


def main(many: str, end: str, traceparent: str | None = None) -> None:
    headers = {"traceparent": traceparent} if traceparent else {}
    for number in range(int(many)):
        client = app.test_client(use_cookies=False)
        cookie = make_cookie("0123456789abcdef", f"browser-{number // 50}-device", session_id=1_700_000_000_000)
        assert client.get(f"/products/{number}", headers={"Cookie": cookie, **headers}).status_code == 200
    print("all asked")
    if end == "die":
        flushed = otel_amplitude.get_instance().flush(10)
        print(f"flushed {flushed}\n", end="", flush=True)  # in one piece: other threads write to the same file
        os._exit(0)


main(*sys.argv[1:])
