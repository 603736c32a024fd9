"""A headless Chromium that opens the dashboard of a real server."""
import shutil
from collections.abc import Iterator

import pytest
from needs import need
from server import Server

ARGS = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update --disable-sync".split()
DESKTOP, TABLET, PHONE = {"width": 1440, "height": 900}, {"width": 820, "height": 1180}, {"width": 390, "height": 844}


class Dashboard:
    """A page of a server, with what its console said."""

    def __init__(self, context, server: Server):
        self.context, self.server, self.faults = context, server, []
        self.page = context.new_page()
        self.page.on("pageerror", lambda fault: self.faults.append(f"page error: {fault}"))
        self.page.on("console", lambda message: message.type == "error" and self.faults.append(f"console: {message.text} {message.location}"))

    def open(self, address: str = "/", state: str | None = "live") -> "Dashboard":
        """Loads the page and waits until its connection says `state`; None waits for nothing."""
        self.page.goto(self.server.url + address)
        if state:
            self.connection(state)
        return self

    def connection(self, state: str, timeout: float = 10) -> None:
        self.page.wait_for_selector(f"#conn[data-state={state}]", timeout=1000 * timeout)

    def text(self, selector: str) -> str:
        return self.page.locator(selector).first.inner_text()

    def rows(self) -> list[dict]:
        """Each row of the list, the newest first: the incident, its severity and its text in one line."""
        return self.page.evaluate("() => [...document.querySelectorAll('#rows .row')].map((r) => ({key: r.dataset.key, severity: r.className.replace('row ', ''), text: r.innerText.replaceAll('\\n', ' ')}))")


@pytest.fixture(scope="session")
def chromium() -> Iterator:
    need("browser")
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGS)
        yield browser
        browser.close()


@pytest.fixture
def dashboard(chromium):
    """`dashboard(server, …)` makes a page in a context of its own; the options are Playwright's. At the end no page may have
    met an error, but for those that the test has taken out of `faults`."""
    made = []

    def make(server: Server, **options) -> Dashboard:
        context = chromium.new_context(**{"viewport": DESKTOP, "timezone_id": "UTC"} | options)
        made.append(Dashboard(context, server))
        return made[-1]

    yield make
    for one in made:
        one.context.close()
    assert [fault for one in made for fault in one.faults] == []
