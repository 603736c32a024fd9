"""The page under 20 anomalies a second, each a new incident, against the budget of the dashboard's specification (section 6)."""
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from browser.conftest import ARGS, DESKTOP  # noqa: E402
from browser.events import calm, send, spike  # noqa: E402
from server import Server  # noqa: E402

PER_SECOND, REST_SECONDS = 20, 5
HEAD = ["| the page, 20 anomalies a second | measured | at rest | budget | |", "|---|---|---|---|---|"]

# Frames are told apart by their own clock; what blocks the page shows as a long one, and as a long task.
WATCH = """() => {
  window.seen = {frames: [], tasks: 0};
  let last = performance.now();
  const frame = (now) => { window.seen.frames.push(now - last); last = now; requestAnimationFrame(frame); };
  requestAnimationFrame(frame);
  new PerformanceObserver((list) => { window.seen.tasks += list.getEntries().length; }).observe({type: 'longtask'});
}"""
TAKE = "() => { const seen = window.seen; window.seen = {frames: [], tasks: 0}; return seen; }"


def rows(folder: Path, seconds: int) -> list[str]:
    """The table's rows; none where there is no browser."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return []
    if not (chromium := shutil.which("chromium")):
        return []
    with Server(folder / "page") as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGS)
        try:
            page = browser.new_context(viewport=DESKTOP).new_page()
            return _rows(server, page, seconds)
        finally:
            browser.close()


def _rows(server: Server, page, seconds: int) -> list[str]:
    names = [f"storm_{n}" for n in range(seconds * PER_SECOND)]
    for at in range(0, len(names), 100):
        send(server, [event for name in names[at:at + 100] for event in calm(name, 12)])
    page.goto(server.url)
    page.wait_for_selector("#conn[data-state=live]")
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def cost() -> dict[str, float]:
        return {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}

    page.wait_for_timeout(1000)
    page.evaluate(WATCH)
    page.wait_for_timeout(1000 * REST_SECONDS)
    rest, before, began = page.evaluate(TAKE), cost(), time.monotonic()
    for n, name in enumerate(names):
        page.wait_for_timeout(max(0, 1000 * (began + n / PER_SECOND - time.monotonic())))
        server.post_batch([spike(name)])
    storm, after = page.evaluate(TAKE), cost()

    def share(name: str) -> float:
        return (after[name] - before[name]) / (after["Timestamp"] - before["Timestamp"])

    def p99(frames: list[float]) -> float:
        return sorted(frames)[len(frames) * 99 // 100]

    def row(what: str, measured: float, at_rest: str, most: float, unit: str, digits: int = 1) -> str:
        return f"| {what} | {measured:.{digits}f}{unit} | {at_rest} | ≤ {most:g}{unit} | {'met' if measured <= most else '**not met**'} |"

    return [row("frame, p99", p99(storm["frames"]), f"{p99(rest['frames']):.1f} ms", 17, " ms"),
            row("long tasks", storm["tasks"], str(rest["tasks"]), 0, "", 0),
            row("script", 100 * share("ScriptDuration"), "", 5, " %")]
