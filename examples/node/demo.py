"""A Node shop without Amplitude code → a gateway → the sandbox; and what arrived. Started by `nox -s demo -- --node`.

npm ci --ignore-scripts --prefix examples/node
python examples/node/demo.py
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

from otel_amplitude.sandbox import KEY, Sandbox

HERE = Path(__file__).parent
CUSTOMERS = 20


def started(command: list[str], env: dict[str, str], says: str) -> tuple[subprocess.Popen[str], str]:
    """Start a program; give it, and the URL behind `says` in its first lines."""
    program = subprocess.Popen(command, env={**os.environ, **env}, stdout=subprocess.PIPE, text=True)
    for line in program.stdout:
        if found := re.search(rf"{says}: (http\S+)", line):
            return program, found[1]
    raise SystemExit(f"{command[0]} ended with {program.wait()}")


def visit(shop: str, path: str, customer: str | None, *, post: bool = False) -> None:
    """One request of a customer, or of a visitor that is not known."""
    headers = {} if customer is None else {"x-user": customer}
    request = urllib.request.Request(shop + path, b"" if post else None, headers)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as answer:
        answer.read()


def trade(shop: str) -> Counter[str]:
    """Let the customers in; give the events that must arrive."""
    for number in range(CUSTOMERS):
        customer = f"customer-{number:03}"
        visit(shop, "/products/tea", customer)
        visit(shop, "/cart/tea", customer, post=True)
        visit(shop, "/orders", customer, post=True)
        visit(shop, "/products/tea", None)
    return Counter({"HTTP Request": 2 * CUSTOMERS, "Order Placed": CUSTOMERS})


def ended(program: subprocess.Popen[str], what: str) -> None:
    """Ask a program to end."""
    program.send_signal(signal.SIGTERM)
    if code := program.wait(20):
        raise SystemExit(f"{what} ended with exit code {code}")


def main() -> int:
    """Run it; 0 when everything arrived."""
    if not (HERE / "node_modules/express").exists():
        print("the shop needs its packages: npm ci --ignore-scripts --prefix examples/node", file=sys.stderr)
        return 3
    node = shutil.which("node") or sys.exit("node is not installed: https://nodejs.org")
    gateway_command = [
        str(Path(sys.executable).with_name("otel-amplitude")),
        "gateway",
        "--port",
        "0",
        "--option",
        f"rules={HERE / 'rules.toml'}",
    ]
    programs: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryDirectory() as spool, Sandbox() as sandbox:
        print(f"sandbox: {sandbox.url}   (stands in for Amplitude)")
        try:
            client = {"OTEL_EXPORTER_AMPLITUDE_API_KEY": KEY, "OTEL_EXPORTER_AMPLITUDE_SERVER_URL": f"{sandbox.url}/2/httpapi"}
            gateway, gateway_url = started([*gateway_command, "--spool-dir", f"{spool}/spool"], client, "gateway")
            programs.append(gateway)
            print(f"gateway: {gateway_url}   (OTLP in, events out)")
            exporting = {"OTEL_EXPORTER_OTLP_ENDPOINT": gateway_url, "OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "none"}
            exporting |= {"OTEL_LOGS_EXPORTER": "none", "OTEL_SERVICE_NAME": "node-shop", "PORT": "0"}
            shop, shop_url = started([node, str(HERE / "shop.js")], exporting, "shop")
            programs.append(shop)
            print(f"shop:    {shop_url}   (Express; no Amplitude code)")
            begun = time.monotonic()
            expected = trade(shop_url)
            ended(shop, "the shop")
            ended(gateway, "the gateway")
        finally:
            for program in programs:
                program.kill()
                program.wait()
                program.stdout.close()
        events = sandbox.events()
    arrived = Counter(event["event_type"] for event in events)
    print(f"\nafter {time.monotonic() - begun:.1f} s arrived:")
    for name, count in arrived.most_common():
        users = {event["user_id"] for event in events if event["event_type"] == name}
        print(f"  {name:14} {count:4} events of {len(users)} users")
    print(f"requests of unknown visitors: {CUSTOMERS}, none of them an event; missing: {sum((expected - arrived).values())}")
    return 0 if arrived == expected else 1


if __name__ == "__main__":
    sys.exit(main())
