"""Takes the pictures of the documents: of the demo without Amplitude code, and of a sandbox without events, before and after refusals.

Run it in the repository with `python examples/screenshots/take.py`; it needs Chromium, and the packages of the demo and `playwright`.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from otel_amplitude import Amplitude, Config
from otel_amplitude.sandbox import KEY, Sandbox

HERE = Path(__file__).parent
PICTURES: dict[str, dict[str, Any]] = {
    "events-light": {"viewport": {"width": 1360, "height": 680}, "color_scheme": "light"},
    "events-dark": {"viewport": {"width": 1360, "height": 680}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
}


def show_an_order(page: Page, address: str) -> None:
    page.goto(address)
    page.locator("#events button", has_text="Order Placed").first.click()


def show_a_timeline(page: Page, address: str) -> None:
    order = page.request.get(f"{address}/api/events?type=Order Placed").json()["events"][0]
    page.goto(f"{address}/#timeline/{order['user'] or order['device']}")
    page.wait_for_selector("text=Session from")


def show_a_service_without_events(browser: Browser) -> None:
    """An empty page with its steps; and the same once requests were refused."""
    with Sandbox(8010) as sandbox:  # where `run` looks, so that the steps name no port
        page = browser.new_context(viewport={"width": 1360, "height": 900}).new_page()
        page.goto(sandbox.url)
        page.wait_for_selector("#empty >> text=Waiting for the first event")
        page.screenshot(path=HERE / "empty.png")
        client = Amplitude(Config(KEY, server_url=f"{sandbox.url}/2/httpapi", log_level="NONE"))
        for reason, count in (("no_identity", 10), ("excluded", 5), ("bot", 3)):
            for _ in range(count):
                client.refuse(reason)
        client.shutdown()
        page.wait_for_selector("#refused >> text=18 requests became no event")
        page.screenshot(path=HERE / "refused.png")


def main() -> None:
    with subprocess.Popen(["otel-amplitude", "demo", "--rules", "--keep"], stdout=subprocess.PIPE, text=True) as demo:
        said = ""
        for line in demo.stdout or ():
            said += line
            if "stays open" in line:
                break
        address = re.findall(r"http://[\d.:]+", said)[0]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"])
            for name, look in PICTURES.items():
                page = browser.new_context(**look).new_page()
                (show_a_timeline if name == "phone" else show_an_order)(page, address)
                page.wait_for_timeout(500)
                page.screenshot(path=HERE / f"{name}.png")
            show_a_service_without_events(browser)
            browser.close()
        demo.send_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
