"""A headless Chromium that opens the dashboard of a real server."""
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from needs import need
from server import Server

ARGS = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update --disable-sync".split()
DESKTOP, TABLET, PHONE = {"width": 1440, "height": 900}, {"width": 820, "height": 1180}, {"width": 390, "height": 844}


class Dashboard:
    """A page of a server, with what its console said."""

    def __init__(self, context, server: Server):
        self.context, self.server, self.faults = context, server, []
        server.before_close.append(context.close)
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

    def forgive(self, *texts: str) -> None:
        """Takes out of `faults` what Chromium itself logs about answers and connections that the test has provoked."""
        self.faults[:] = [fault for fault in self.faults if not any(text in fault for text in texts)]

    def drop(self, *files: Path) -> None:
        """Drags files from the disk onto the page, as a file manager does."""
        session, data = self.context.new_cdp_session(self.page), {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for step in ("dragEnter", "dragOver", "drop"):
            session.send("Input.dispatchDragEvent", {"type": step, "x": 300, "y": 300, "data": data})

    def upload_speed(self, bytes_per_second: int) -> None:
        """-1 is as fast as it goes."""
        session = self.context.new_cdp_session(self.page)
        session.send("Network.enable")
        session.send("Network.emulateNetworkConditions", {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes_per_second})

    def counts(self) -> dict[str, int]:
        """How many anomalies each row says that its incident holds."""
        return self.page.evaluate("() => Object.fromEntries([...document.querySelectorAll('#rows .row')].map((r) => [r.dataset.key, Number(r.querySelector('em')?.textContent.slice(1).replaceAll(',', '') ?? 1)]))")

    def rows(self) -> list[dict]:
        """Each row of the list, the newest first: the incident, its severity and its text in one line."""
        return self.page.evaluate("() => [...document.querySelectorAll('#rows .row')].map((r) => ({key: r.dataset.key, severity: r.className.replace('row ', ''), text: r.innerText.replaceAll('\\n', ' ')}))")


@pytest.fixture(scope="session")
def chromium() -> Iterator:
    need("browser")
    from playwright.sync_api import expect, sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGS)
        expect.set_options(timeout=15_000)
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
