"""Takes the pictures of screenshots.sh: starts a server, sends a day of metrics with trouble in them, goes on sending."""
import math
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from browser.conftest import ARGS, DESKTOP, PHONE, TABLET
from server import Server

DAY, FINE = 86_400, 2_400
# metric, labels, base, swing over the day, noise, how much trouble
SERIES = [
    ("api_latency_ms", {"dc": "eu", "route": "/checkout"}, 142, 18, 9, 9), ("http_5xx_rate", {"dc": "eu"}, 0.42, 0.06, 0.05, 7),
    ("cpu_usage", {"host": "web-03"}, 54.5, 6, 2.9, 5), ("kafka_consumer_lag", {"group": "billing"}, 1840, 300, 140, 5),
    ("orders_per_minute", {}, 318, 90, 14, 4), ("disk_io_wait", {"host": "db-01"}, 7.2, 1.1, 0.8, 3),
    ("memory_rss_mb", {"host": "web-03"}, 2310, 60, 22, 2), ("dns_resolve_ms", {"dc": "us"}, 3.1, 0.2, 0.3, 2),
    ("cache_hit_ratio", {"pool": "sessions"}, 0.94, 0.02, 0.006, 1), ("tls_handshakes", {"lb": "edge-1"}, 860, 210, 40, 1),
]
# Which series, how many seconds before the first picture, how many standard deviations: what is seen first.
RECENT = [(0, 1320, 11), (1, 1260, 9), (3, 1200, 13), (4, 1140, -7), (0, 420, 5), (2, 240, 9), (9, 190, 7.5), (0, 70, 4.6)]


class Metrics:
    """The same values for the same second, so that what is sent live goes on where the past ended."""

    def __init__(self, now: float):
        self.now, random_ = int(now), random.Random(7)
        self.noise = [random_.uniform(-1, 1) for _ in range(4096)]
        self.spikes = {}
        for i, (*_, trouble) in enumerate(SERIES):
            for _ in range(trouble):
                self.spike(i, random_.randrange(3600, DAY), random_.choice((1, 1, -1)) * (2.5 + 10 * random_.random() ** 2), random_.randrange(1, 4))
        for i, ago, z in RECENT:
            self.spike(i, ago, z, 3)

    def spike(self, i: int, ago: int, z: float, length: int) -> None:
        step = 10 if ago > FINE else 2
        at = (self.now - ago) // step * step
        for j in range(length):
            self.spikes[i, at + step * j] = z * (1 - 0.2 * j)

    def event(self, i: int, at: int) -> dict:
        metric, labels, base, swing, sd, _ = SERIES[i]
        z = self.spikes.get((i, at)) or self.noise[(at * 31 + i * 977) % 4096] + 0.3 * math.sin(at / 700 + i)
        value = base + swing * math.sin(at * 2 * math.pi / 21_600 + i) + sd * z
        meta = {"version": "2026.11.3"} if "host" in labels else {}
        return {"metric": metric, "labels": labels, "timestamp": at, "value": float(f"{value:.5g}"), "meta": meta}

    def past(self) -> list[dict]:
        fine = (self.now - FINE) // 10 * 10
        times = [*range(fine + FINE - DAY, fine, 10), *range(fine, self.now, 2)]
        return [self.event(i, at) for at in times for i in range(len(SERIES))]


def send_live(server: Server, metrics: Metrics, stop: threading.Event) -> None:
    """The series go on, beside sixty quiet ones that come ten times a second."""
    sent, tick = metrics.now // 2 * 2 + 2, 0
    while not stop.wait(0.1):
        tick += 1
        rows = [{"metric": "host_cpu", "labels": {"host": f"web-{i:02}"}, "value": 40 + (i * 7 + tick) % 5} for i in range(60)]
        for at in range(sent, int(time.time()), 2):
            rows += [metrics.event(i, at) for i in range(len(SERIES))]
            sent = at + 2
        try:
            server.post_batch(rows)
        except Exception:  # the server is killed for the pictures without one
            stop.wait(0.5)


def critical(page: Page) -> None:
    page.locator("#rows .row.critical").nth(0).click()
    page.wait_for_selector("#explain .sentence")
    page.wait_for_timeout(700)
    page.mouse.move(700, 5)


def why_not(page: Page) -> None:
    box = page.locator(".u-over").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.3, box["y"] + box["height"] / 2)
    page.wait_for_selector("text=Why this is not an anomaly")


def hover(page: Page) -> None:
    critical(page)
    box = page.locator(".u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 60)
    page.wait_for_timeout(200)


def upload(page: Page) -> None:
    def file(name: str, rows: str) -> dict:
        return {"name": name, "mimeType": "text/csv", "buffer": rows.encode()}
    def csv(name: str, n: int, at: int) -> str:
        return "timestamp,metric,value\n" + "".join(f"{at + 10 * i},{name},{95 if i == n - 40 else 50 + i * 7 % 5}\n" for i in range(n))
    devtools = page.context.new_cdp_session(page)
    devtools.send("Network.enable")
    devtools.send("Network.emulateNetworkConditions", {"offline": False, "latency": 20, "downloadThroughput": -1, "uploadThroughput": 300_000})
    messy = csv("export_rows", 400, 1_795_000_000).replace("50\n", "n/a\n", 3) + "1732270000000,export_rows,50\n"
    page.set_input_files("#file", [file("web-03-cpu.csv", csv("batch_seconds", 3000, 1_790_000_000)), file("messy-export.csv", messy), file("broken.json", "[{"), file("orders-2026-11.csv", csv("orders", 120_000, 1_700_000_000))])
    page.wait_for_timeout(4000)


def filtered(page: Page) -> None:
    page.locator(".cell:has(i.critical)").nth(2).click()
    page.wait_for_timeout(700)


def found(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("web")
    page.wait_for_selector("#hits li")
    page.wait_for_timeout(300)


def tap(page: Page) -> None:
    page.locator("#rows .row.critical").first.tap()
    page.wait_for_timeout(900)


def tapped_why_not(page: Page) -> None:
    tap(page)
    why_not(page)
    page.wait_for_timeout(300)


SIZES = {"desktop": DESKTOP, "tablet": TABLET, "phone": PHONE}
TAPPED = {"selected": tap, "whynot": tapped_why_not}
STATES = {"live": None, "selected": critical, "hover": hover, "whynot": why_not, "upload": upload, "filter": filtered, "search": found}


class Camera:
    def __init__(self, browser, server: Server, folder: Path, only: list[str]):
        self.browser, self.server, self.folder, self.only, self.faults = browser, server, folder, only, []

    def shoot(self, name: str, size: dict, scheme: str, act=None, ready: str = "#rows .row, #empty:not([hidden])", then=None) -> None:
        if self.only and not any(part in name for part in self.only):
            return
        small = size is PHONE
        context = self.browser.new_context(viewport=size, color_scheme=scheme, has_touch=small, is_mobile=small, device_scale_factor=2 if small else 1)
        page = context.new_page()
        page.on("console", lambda message: message.type == "error" and self.faults.append(f"{name}: {message.text}"))
        page.on("pageerror", lambda fault: self.faults.append(f"{name}: {fault}"))
        page.goto(self.server.url)
        page.wait_for_selector(ready)
        page.wait_for_timeout(1500)
        if act:
            act(page)
        page.screenshot(path=self.folder / f"{name}.png")
        if (over := page.evaluate("() => document.documentElement.scrollWidth - innerWidth")) > 0:
            self.faults.append(f"{name}: overflows by {over} px")
        if then:
            then(page)
        context.close()
        print(name, flush=True)


def main(folder: Path, only: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="anomaly-shots-") as data, sync_playwright() as playwright, Server(Path(data) / "data") as server:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=ARGS)
        camera = Camera(browser, server, folder, only)
        for scheme in ("light", "dark"):
            for kind, size in SIZES.items():
                camera.shoot(f"{kind}-{scheme}-empty", size, scheme)
        metrics, stop = Metrics(time.time()), threading.Event()
        rows = metrics.past()
        for i in range(0, len(rows), 20_000):
            assert server.post_batch(rows[i:i + 20_000]).json()["rejected"] == 0
        server.settle()
        live = threading.Thread(target=send_live, args=(server, metrics, stop), daemon=True)
        live.start()
        time.sleep(6)
        for scheme in ("light", "dark"):
            for state, act in STATES.items():
                camera.shoot(f"desktop-{scheme}-{state}", DESKTOP, scheme, act)
            for state in ("live", "selected", "whynot", "upload"):
                camera.shoot(f"tablet-{scheme}-{state}", TABLET, scheme, STATES[state])
                camera.shoot(f"phone-{scheme}-{state}", PHONE, scheme, TAPPED.get(state, STATES[state]))
        expected = list(camera.faults)
        for kind, scheme in ((kind, scheme) for kind in SIZES for scheme in ("light", "dark")):
            def cut(page: Page) -> None:
                server.kill()
                page.wait_for_selector("#banner:not([hidden])")
                page.wait_for_timeout(3500)
            def back(page: Page) -> None:
                server.start()
                page.wait_for_selector("#conn[data-state=live]", timeout=40_000)
                page.wait_for_timeout(500)
                page.screenshot(path=folder / f"{kind}-{scheme}-back.png")
            camera.shoot(f"{kind}-{scheme}-offline", SIZES[kind], scheme, cut, then=back)
        stop.set()
        live.join()
        browser.close()
        print("\n".join(expected) or "no errors in any console, no overflow")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "target/screenshots"), sys.argv[2:])
