"""The page in a real Chromium."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import needs
import pytest
from punctual import Stopwatch
from zero_code.running import free_port

from otel_amplitude.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Client
    from playwright.sync_api import Browser, Page


pytestmark = [pytest.mark.browser, pytest.mark.heavy]

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests here."""
    path = needs.chromium()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        message = "playwright is not installed: pip install playwright"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser, sandbox: Sandbox) -> Iterator[Page]:
    """The page, open and live; afterwards nothing was asked of anybody else and nothing was complained about."""
    context = browser.new_context(viewport={"width": 1_280, "height": 800})
    context.set_default_timeout(30_000)
    one = context.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    one.on("request", lambda request: asked.append(request.url))
    # Chromium tells of every 400, also of those the page explains itself.
    one.on(
        "console",
        lambda message: (
            complaints.append(message.text) if message.type in ("error", "warning") and "status of 400" not in message.text else None
        ),
    )
    one.on("pageerror", lambda error: complaints.append(str(error)))
    one.goto(sandbox.url)
    one.wait_for_selector("#live.on")
    yield one
    assert [url for url in asked if not url.startswith(f"{sandbox.url}/")] == []
    assert complaints == []
    context.close()


def port_of(page: Page) -> str:
    """The port of the page's address."""
    return page.url.removeprefix("http://").partition("/")[0].rpartition(":")[2]


def names(page: Page) -> list[str]:
    """The event types on the page, from the top."""
    return page.locator("#events .name").all_inner_texts()


def until(page: Page, wanted: list[str]) -> None:
    """Wait until the page shows exactly these event types, from the top."""
    page.wait_for_function(
        "(wanted) => JSON.stringify([...document.querySelectorAll('#events .name')].map((n) => n.textContent)) === wanted",
        arg=str(wanted).replace("'", '"').replace(", ", ","),
    )


def until_said(page: Page, words: str) -> None:
    """Wait until the page has said this last, as it does when something is in the clipboard."""
    page.wait_for_function("(words) => document.getElementById('said').textContent === words", arg=words)


def test_an_event_that_overtakes_an_older_answer_stays_once(page: Page, client: Client, make_event: Callable[..., Any]) -> None:
    """The page asks for all events, and one more arrives by the stream before it has read the answer."""
    client.upload(make_event(event_type="One"))
    until(page, ["One"])
    held: list[Any] = []
    page.route("**/api/events?*", lambda route: held.append((route, route.fetch())))
    page.evaluate("document.getElementById('filters').requestSubmit()")
    while not held:
        page.wait_for_timeout(5)
    client.upload(make_event(event_type="Two"))
    until(page, ["Two", "One"])
    route, answer = held[0]
    with page.expect_response("**/api/events?*"):
        route.fulfill(response=answer)
    page.evaluate("() => new Promise((done) => setTimeout(() => requestAnimationFrame(done)))")
    assert names(page) == ["Two", "One"]
    page.unroute_all(behavior="ignoreErrors")


def test_a_newcomer_is_told_what_to_do(page: Page, sandbox: Sandbox) -> None:
    """An empty page names the upload URL and the settings, and its button sends a first event."""
    assert f"{sandbox.url}/2/httpapi" in page.locator("#empty").inner_text()
    page.click("#send-test")
    until(page, ["Hello"])
    assert page.locator("#empty").is_hidden()
    assert sandbox.events()[0]["event_type"] == "Hello"


def test_events_appear(page: Page, client: Client, make_event: Callable[..., Any]) -> None:
    """Events appear newest first without a reload, and the totals follow."""
    client.upload(make_event(event_type="First"), make_event(event_type="Second"))
    until(page, ["Second", "First"])
    client.upload(make_event(event_type="Third"))
    until(page, ["Third", "Second", "First"])
    page.wait_for_function("() => document.getElementById('total-accepted').textContent === '3'")
    assert "Events per second" in str(page.locator("#chart").get_attribute("aria-label"))


def test_filters(page: Page, client: Client, make_event: Callable[..., Any]) -> None:
    """Type, user, device, text and verdict narrow what is there and what arrives; clearing shows all again."""
    client.upload(
        make_event(event_type="Paid", user_id="ada-lovelace"),
        make_event(event_type="Seen", device_id="tablet-77", event_properties={"word": "needle"}),
    )
    until(page, ["Seen", "Paid"])
    for field, value, wanted in (
        ("type", "Paid", "Paid"),
        ("user", "ADA", "Paid"),
        ("device", "tablet", "Seen"),
        ("text", "needle", "Seen"),
    ):
        page.fill(f"#filters [name={field}]", value)
        until(page, [wanted])
        page.click("#filters [type=reset]")
        until(page, ["Seen", "Paid"])
    page.fill("#filters [name=type]", "Paid")
    until(page, ["Paid"])
    client.upload(make_event(event_type="Paid"), make_event(event_type="Seen"))
    until(page, ["Paid", "Paid"])
    page.fill("#filters [name=type]", "nobody sends this")
    page.wait_for_selector("text=No event matches these filters.")
    page.click("#filters [type=reset]")
    until(page, ["Seen", "Paid", "Seen", "Paid"])
    client.upload(make_event(event_type="Bad", user_id="none"))
    until(page, ["Bad", "Seen", "Paid", "Seen", "Paid"])
    page.select_option("#filters [name=verdict]", "rejected")
    until(page, ["Bad"])


def counters(client: Client, **refused: int) -> None:
    """Post the counters of a process, as an exporter does."""
    pending = {"queued": 2, "held": 0}
    numbers = {"accepted": 5, "adopted": 0, "acknowledged": 3, "rejected": {}, "dropped": {}, "refused": refused, "pending": pending}
    assert client.tell("/api/counters", {"service": "shop", "pid": 1, "counters": numbers})[0] == 200


def test_why_there_is_no_event(page: Page, client: Client, make_event: Callable[..., Any]) -> None:
    """Refusals stand above the list as they come, with the cure for each; while there is no event at all, they are open."""
    counters(client, no_identity=1)
    page.wait_for_selector("#refused >> text=1 request became no event: no identity 1")
    page.wait_for_selector("#refused dd >> text=otel_amplitude.set_user")
    counters(client, no_identity=10, excluded=5, bot=3)
    page.wait_for_selector("#refused >> text=18 requests became no event: no identity 10, excluded 5, bot 3")
    page.click("#tab-counters")
    card = page.locator("#view-counters article")
    card.locator("text=They balance: 5 = 5").wait_for()
    assert "refused here" in card.inner_text()
    assert "rejected by the server" in card.inner_text()
    counters(client, middleware=1)
    page.click("#tab-events")
    page.wait_for_selector("#refused >> text=1 requests, logs and calls became no event: middleware 1")


def test_the_steps_are_those_of_the_framework(page: Page, sandbox: Sandbox) -> None:
    """Each framework has its own packages, command and log-in; the key of all of them is one."""
    empty = page.locator("#empty")
    assert "otel-amplitude[flask]" in empty.inner_text()
    page.click("#empty >> text=Django")
    empty.locator("text=python manage.py runserver").wait_for()
    assert "otel-amplitude[django]" in empty.inner_text()
    assert f"{sandbox.url}/2/httpapi" in empty.inner_text()
    assert set(re.findall(r"[0-9a-f]{32}", empty.inner_text())) == {KEY}


def test_rows_tell_requests_apart(page: Page, client: Client, make_event: Callable[..., Any]) -> None:
    """A row has method, route and status, the time to the millisecond, in the order of the events; only exceptions have a badge."""
    base = 1_795_305_661_234
    for offset, route, status in ((2, "/cart", 200), (1, "/products/{name}", 404)):
        properties = {"method": "GET", "route": route, "status_code": status}
        client.upload(make_event(event_type="HTTP Request", time=base + offset, event_properties=properties))
    client.upload(make_event(event_type="Page Viewed", time=base, library="amplitude-ts/2.48.1", insert_id="once"))
    client.upload(make_event(event_type="Page Viewed", time=base - 1, library="otel-amplitude/1", insert_id="once"))
    until(page, ["HTTP Request", "HTTP Request", "Page Viewed", "Page Viewed"])
    assert page.locator("#events .gist").all_inner_texts() == ["GET /cart 200", "GET /products/{name} 404", "", ""]
    assert [text[-4:] for text in page.locator("#events time").all_inner_texts()] == [".236", ".235", ".234", ".233"]
    assert page.locator("#events .badges").all_inner_texts() == ["", "", "browser", "duplicate"]
    page.select_option("#filters [name=order]", "arrival")
    until(page, ["Page Viewed", "Page Viewed", "HTTP Request", "HTTP Request"])


def test_the_address_holds_the_view(page: Page, client: Client, make_event: Callable[..., Any]) -> None:
    """Filters and the open event survive a reload and can be shared; so does the user of the timeline."""
    client.upload(make_event(event_type="Paid"), make_event(event_type="Seen"))
    until(page, ["Seen", "Paid"])
    page.fill("#filters [name=type]", "Paid")
    until(page, ["Paid"])
    page.click("#events button")
    assert page.url.endswith("#events?type=Paid&event=1")
    page.reload()
    page.wait_for_selector("#detail h2 >> text=Paid")
    assert names(page) == ["Paid"]
    page.fill("#filters [name=type]", "Seen")
    until(page, ["Seen"])
    page.wait_for_selector("#detail", state="hidden")
    page.fill("#filters [name=type]", "Nothing")
    page.click("#empty >> text=Clear filters")
    until(page, ["Seen", "Paid"])
    assert page.url.endswith("#events")
    page.click("#tab-timeline")
    page.fill("#who [name=user]", "customer-42")
    page.keyboard.press("Enter")
    page.wait_for_function("() => location.hash === '#timeline/customer-42'")
    page.reload()
    page.wait_for_selector(".session")


def test_filters_fold_on_a_phone(page: Page) -> None:
    """They take no room before they are asked for."""
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.locator("#filters").is_hidden()
    page.click("#fold")
    assert page.locator("#filters").is_visible()


def test_pause(page: Page, client: Client, make_event: Callable[..., Any]) -> None:
    """Paused, the list stands still and counts who waits; going on shows them."""
    client.upload(make_event(event_type="Before"))
    until(page, ["Before"])
    page.click("#pause")
    client.upload(make_event(event_type="Meanwhile"), make_event(event_type="Meanwhile"))
    page.wait_for_selector("text=Paused: 2 new events waiting.")
    assert names(page) == ["Before"]
    page.keyboard.press("Tab")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("p")
    until(page, ["Meanwhile", "Meanwhile", "Before"])
    assert page.locator("#waiting").is_hidden()


def test_the_detail(page: Page, client: Client, make_event: Callable[..., Any]) -> None:
    """A chosen event shows its JSON, its trace id, what Amplitude would change and why; both can be copied."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    client.upload(make_event(event_properties={"trace_id": TRACE, "note": "x" * 2_000}, os_name="iOS"))
    page.click("#events button")
    detail = page.locator("#detail")
    assert TRACE in detail.locator("#delivery").inner_text()
    words = detail.locator(".notes").inner_text()
    assert "event_properties.note has 2,000 characters: cut to 1,024." in words
    assert "os_name is sent, so Amplitude sets the others of its group to null" in words
    assert '"event_type": "Order Placed"' in detail.locator("#json").inner_text()
    detail.locator("#delivery button").click()
    until_said(page, "Trace id copied")
    assert page.evaluate("navigator.clipboard.readText()") == TRACE
    detail.locator("text=Copy JSON").click()
    until_said(page, "JSON copied")
    assert '"os_name": "iOS"' in page.evaluate("navigator.clipboard.readText()")
    page.keyboard.press("Escape")
    assert detail.is_hidden()


def test_refused_and_duplicate_events_say_why(page: Page, client: Client, make_event: Callable[..., Any]) -> None:
    """The page tells what was refused or ignored, in words, on the event and on the list of problems."""
    event = make_event()
    client.upload(event)
    client.upload(event)
    client.upload(make_event(event_type="Bad", user_id="none"))
    until(page, ["Bad", "Order Placed", "Order Placed"])
    page.locator("#events button").nth(0).click()
    assert "placeholder ids" in page.locator("#detail .notes").inner_text()
    page.locator("#events button").nth(1).click()
    assert "counted once" in page.locator("#detail .notes").inner_text()
    page.click("#tab-problems")
    page.wait_for_selector("#view-problems >> text=Invalid field values on some events")
    page.wait_for_function("() => document.getElementById('problem-count').textContent === '1'")


def test_types_with_their_properties(page: Page, client: Client, make_event: Callable[..., Any]) -> None:
    """The table of types has counts and users, and opens to the properties with their types."""
    client.upload(make_event(event_properties={"total": 12.5}), make_event(user_id="somebody"), make_event(event_type="Seen"))
    until(page, ["Seen", "Order Placed", "Order Placed"])  # the table is drawn anew for what arrives, and a click on the old one is lost
    page.click("#tab-catalog")
    page.wait_for_selector("#types")
    assert re.split(r"\s+", page.locator("#types tbody > tr").nth(0).inner_text().strip())[:4] == ["Order", "Placed", "2", "2"]
    assert "at this rate" not in page.locator("#types thead").first.inner_text()
    page.locator("#types button").first.click()
    row = page.locator("#types .inner").first.locator("tbody tr").inner_text()
    assert re.split(r"\s+", row.strip()) == ["total", "number", "50%", "12.5"]


def test_a_timeline_joins_browser_and_server(page: Page, client: Client, make_event: Callable[..., Any]) -> None:
    """One session of one user holds what the browser and the server told, in order, with the user's properties beside."""
    start = 1_795_305_600_000
    for at, name, library in (
        (0, "Page Viewed", "amplitude-ts/2.48.1"),
        (900, "Order Placed", "otel-amplitude/1"),
        (500, "Button Clicked", "amplitude-ts/2.48.1"),
    ):
        client.upload(make_event(event_type=name, library=library, session_id=start, time=start + at))
    client.upload(make_event(event_type="Nightly Mail"))
    client.upload(make_event(event_type="$identify", user_properties={"$set": {"plan": "pro"}}))
    until(page, ["$identify", "Nightly Mail", "Order Placed", "Button Clicked", "Page Viewed"])  # later ones would draw the story anew
    page.click("#tab-timeline")
    page.fill("#who [name=user]", "customer-42")
    page.wait_for_selector(".session")
    session = page.locator(".session", has_text="Session from")
    assert session.locator(".step .name").all_inner_texts() == ["Page Viewed", "Button Clicked", "Order Placed"]
    assert session.locator(".step .badge").all_inner_texts() == ["browser", "browser", "server"]
    assert page.locator(".session", has_text="Outside any session").locator(".step").count() == 2
    assert "plan" in page.locator(".story > .card").inner_text()
    session.locator(".step").first.click()
    page.wait_for_selector("#detail h2 >> text=Page Viewed")


def test_a_fault_is_switched_on_and_seen(page: Page, sandbox: Sandbox, client: Client, make_event: Callable[..., Any]) -> None:
    """The panel switches a fault on, the next uploads meet it, and its hits are counted."""
    page.click("#tab-faults")
    card = page.locator('[data-fault="status"]')
    card.locator("[name=count]").fill("2")
    card.locator("button", has_text="Switch on").click()
    page.wait_for_selector('[data-fault="status"].on >> text=hit 0 requests, 2 to go')
    assert client.upload(make_event())[0] == 503
    page.wait_for_selector('[data-fault="status"].on >> text=hit 1 request, 1 to go')
    page.wait_for_function("() => document.getElementById('fault-count').textContent === '1'")
    card.locator("button", has_text="Clear").click()
    page.wait_for_selector('[data-fault="status"]:not(.on)')
    assert client.upload(make_event())[0] == 200
    sandbox.set_fault("hang")
    page.click("#clear-faults")
    page.wait_for_function("() => document.querySelectorAll('.kind.on').length === 0")


def test_a_wrong_fault_is_explained(page: Page) -> None:
    """A fault with a value out of range says so in place, until it is right."""
    page.click("#tab-faults")
    card = page.locator('[data-fault="latency"]')
    card.locator("[name=seconds]").fill("1e12")
    card.locator("button", has_text="Switch on").click()
    page.wait_for_selector("#fault-error >> text=seconds of fault latency must be a number from 0 to 100000000")
    card.locator("[name=seconds]").fill("1")
    card.locator("button", has_text="Switch on").click()
    page.wait_for_selector('[data-fault="latency"].on')
    page.wait_for_selector("#fault-error", state="hidden")  # the stream may tell of the fault before the answer to the click


def test_markup_stays_text(page: Page, client: Client, make_event: Callable[..., Any]) -> None:
    """`<script>` and friends in any field are shown, never run, on every view."""
    nasty = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    client.upload(
        make_event(
            event_type=nasty,
            user_id=nasty,
            device_id=nasty,
            library=nasty,
            event_properties={nasty: nasty, "trace_id": nasty},
            user_properties={nasty: nasty},
        )
    )
    client.upload(make_event(event_type=nasty, time=nasty))
    client.tell("/api/counters", {"service": nasty, "pid": 1, "counters": {nasty: 1, "refused": {nasty: 1}}})
    until_shown = "(nasty) => [...document.querySelectorAll('#events .name')].some((n) => n.textContent === nasty)"
    page.wait_for_function(until_shown, arg=nasty)
    page.locator("#events button").last.click()
    assert nasty.replace('"', '\\"') in page.locator("#json").inner_text()
    for view, sign in (
        ("catalog", "#types"),
        ("problems", "#view-problems table"),
        ("counters", "#view-counters article"),
        ("timeline", "#story .card"),
    ):
        page.click(f"#tab-{view}")
        page.wait_for_selector(sign)
    page.fill("#who [name=user]", nasty)
    page.wait_for_selector(".session")
    assert page.title() == "Amplitude sandbox"
    assert page.locator("main img, main script").count() == 0


def test_thousands_stay_smooth(page: Page, client: Client, make_event: Callable[..., Any]) -> None:
    """After thousands of events the list holds its 300 newest rows, and the page still answers at once."""
    for batch in range(10):
        client.upload(*[make_event(event_properties={"n": batch * 500 + number}) for number in range(500)], path="/batch")
    page.wait_for_function("() => document.getElementById('total-accepted').textContent === '5,000'")
    page.wait_for_function("() => document.querySelectorAll('#events li').length === 300")
    page.wait_for_function("() => document.querySelector('#events button').dataset.seq === '5000'")
    stopwatch = Stopwatch()
    page.click("#tab-catalog")
    page.wait_for_selector("#types >> text=5,000")
    page.click("#tab-events")
    assert stopwatch.seconds() < 5
    assert page.locator("#events li").count() == 300


def test_the_keyboard_is_enough(page: Page, client: Client, make_event: Callable[..., Any]) -> None:
    """Tabs by arrows, rows by arrows, detail by Enter, search by slash."""
    client.upload(make_event(event_type="First"), make_event(event_type="Second"))
    until(page, ["Second", "First"])
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "text"
    page.locator("#events button").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail h2 >> text=First")
    page.keyboard.press("k")
    page.wait_for_selector("#detail h2 >> text=Second")
    page.keyboard.press("j")
    page.wait_for_selector("#detail h2 >> text=First")
    page.keyboard.press("?")
    page.wait_for_selector("#keys >> text=open the next or previous event")
    page.keyboard.press("Escape")
    page.wait_for_selector("#keys", state="hidden")
    assert page.locator("#detail").is_visible()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.textContent").find("First") >= 0
    page.locator("#tab-events").focus()
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.id") == "tab-faults"
    page.wait_for_selector("#view-faults:not([hidden])")


def test_forgetting(page: Page, client: Client, make_event: Callable[..., Any]) -> None:
    """Forget everything asks first, and then the page starts anew."""
    client.upload(make_event(event_type="Old"))
    until(page, ["Old"])
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("#reset")
    page.wait_for_selector("#empty >> text=Waiting for the first event")
    client.upload(make_event(event_type="New"))
    until(page, ["New"])


def test_another_run_is_noticed(browser: Browser, make_client: Callable[..., Client], make_event: Callable[..., Any]) -> None:
    """A page left open says when the sandbox is gone, and starts anew, with the new token, when one is back on the same port."""
    first = Sandbox(port=free_port()).start()  # one that no other socket is given while nobody listens
    context = browser.new_context()
    page = context.new_page()
    page.goto(first.url)
    page.wait_for_selector("#live.on")
    make_client(first).upload(make_event(event_type="Old"))
    until(page, ["Old"])
    first.stop()
    page.wait_for_selector("#live.off")
    with Sandbox(port=int(port_of(page))):
        page.wait_for_selector("#empty >> text=Waiting for the first event")
        page.wait_for_selector("#live.on")
        page.click("#tab-faults")
        page.locator('[data-fault="empty"] button', has_text="Switch on").click()
        page.wait_for_selector('[data-fault="empty"].on')
    context.close()


@pytest.mark.parametrize(("width", "scheme"), [(1_280, "light"), (1_280, "dark"), (390, "light"), (390, "dark")])
def test_light_dark_and_phone(page: Page, client: Client, make_event: Callable[..., Any], tmp_path: Path, width: int, scheme: Any) -> None:
    """Every view fits its window without scrolling sideways, keeps its contrast, and can be photographed."""
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme=scheme)
    client.upload(make_event(user_id="somebody-with-a-very-long-name@" + "example." * 12 + "com", event_properties={"long": "x" * 400}))
    client.upload(make_event(time="now"))
    page.wait_for_selector("#events button")
    for view in ("events", "counters", "catalog", "timeline", "problems", "faults"):
        page.click(f"#tab-{view}")
        page.wait_for_selector(f"#view-{view}:not([hidden])")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.screenshot(path=tmp_path / f"{view}.png")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(245, 246, 248)"
    assert light == (scheme == "light")
