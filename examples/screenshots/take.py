"""Takes the pictures of the README: runs the demo without Amplitude code, and photographs what its sandbox shows.

Run it in the repository with `python examples/screenshots/take.py`; it needs Chromium, and the packages of the demo and `playwright`.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

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
            browser.close()
        demo.send_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
