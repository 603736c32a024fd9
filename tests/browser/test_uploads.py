"""Files dropped on the page: progress, outcome, cancel, retry, and the way from a file to its anomalies."""
import json
import re
import time

from needs import need
from playwright.sync_api import expect
from server import SHARED, Server

from .events import until

OLD = 1_700_000_000
SLOW = 60_000  # bytes a second, at which a file of a megabyte is still on its way when a test acts


def csv(folder, name: str, rows: int = 500, broken: int = 0, spike_at: int | None = None):
    """A file of 10 s samples of one series, named after the file; its first `broken` values are no numbers."""
    lines = [f"{OLD + 10 * i},{name},{'n/a' if i < broken else 900 if i == spike_at else 50 + i % 5}" for i in range(rows)]
    file = folder / f"{name}.csv"
    file.write_text("\n".join(["timestamp,metric,value", *lines]) + "\n")
    return file


def line(shown, file):
    """What the tray shows of one file."""
    return shown.page.locator("#files > li", has=shown.page.get_by_text(file.name, exact=True))


def test_three_dropped_files_of_which_one_is_broken(shared_server, dashboard, tmp_path):
    shown = dashboard(shared_server).open()
    good, partly, broken = csv(tmp_path, "good", spike_at=400), csv(tmp_path, "partly", broken=5), tmp_path / "broken.json"
    broken.write_text('[{"metric": "m", "value": 1},')
    shown.drop(good, partly, broken)
    expect(shown.page.locator("#drop")).to_be_hidden()
    expect(line(shown, good).locator("p")).to_have_text("500 accepted · 0 rejected · 0 late · 1 anomaly")
    expect(line(shown, partly).locator("p")).to_have_text("495 accepted · 5 rejected · 0 late · 0 anomalies")
    expect(line(shown, partly).locator(".errors li").nth(0)).to_have_text('line 2 value: "n/a" is not a number')
    assert line(shown, partly).locator(".errors li").nth(3).inner_text() == "and 2 more"
    expect(line(shown, broken)).to_have_attribute("data-state", "failed")
    assert "the array is not JSON" in line(shown, broken).inner_text()
    expect(shown.page.locator("#tray-sum")).to_have_text("1 file failed")
    assert shared_server.series_counts() == {"good": 500, "partly": 495}

    expect(shown.page.locator("#main")).to_be_visible()
    shown.page.get_by_role("button", name="Show good.csv").click()
    expect(shown.page.locator("#chart-h")).to_have_text("good")
    expect(shown.page.locator("#lanes-h")).to_have_text("good.csv · 14 Nov 2023 22:13 – 14 Nov 2023 23:36")
    expect(shown.page.locator(".cell i.critical")).to_have_count(1)
    expect(shown.page.locator("#explain h3")).to_have_text("Why this is an anomaly")
    shown.page.click("#lanes-back")
    expect(shown.page.locator("#lanes-h")).to_have_text("Last 24 hours")
    shown.page.click("#tray-x")
    expect(shown.page.locator("#tray")).to_be_hidden()
    shown.forgive("422 (Unprocessable")


def test_an_error_is_where_a_reader_of_the_file_finds_it(shared_server, dashboard, tmp_path):
    """A line of a table, an element of an array, and nowhere in a file that is refused whole."""
    shown, now = dashboard(shared_server).open(), time.time()
    array, lines, cut, table, nothing = (tmp_path / name for name in ("array.json", "lines.ndjson", "cut.json", "table.csv", "nothing.csv"))
    array.write_text(json.dumps([{"metric": "array", "value": "x" if i == 1 else 1, "timestamp": now + i} for i in range(3)], indent=1))
    lines.write_text('{"metric": "lines", "value": 1}\n{"metric": 5}\n')
    cut.write_text('[{"metric": "m", "value": 1},\n{"metric"')
    table.write_text("metric,value\ntable,1\ntable,x\n")
    nothing.write_text("")
    shown.drop(array, lines, cut, table, nothing)
    for file, place in ((array, "element 2 "), (lines, "line 2 "), (table, "line 3 ")):
        expect(line(shown, file).locator("p")).to_contain_text("1 rejected")
        assert line(shown, file).locator(".errors li").first.inner_text().startswith(place)
    expect(line(shown, cut)).to_have_attribute("data-state", "failed")
    assert "line " not in line(shown, cut).inner_text()
    expect(line(shown, nothing).locator("p")).to_have_text("Not read: the file is empty")
    assert line(shown, nothing).locator(".errors li").count() == 0 and "rejected" not in line(shown, nothing).inner_text()
    shown.forgive("422 (Unprocessable")


def test_what_the_browser_cannot_read_says_so(shared_server, dashboard, tmp_path):
    shown = dashboard(shared_server).open()
    folder, good, moved = tmp_path / "folder", csv(tmp_path, "beside"), csv(tmp_path, "moved", 15_000)
    folder.mkdir()
    shown.drop(folder)
    expect(shown.page.locator("#toast")).to_have_text("Folders are not read. Drop the files in them.")
    expect(shown.page.locator("#tray")).to_be_hidden()
    shown.drop(folder, good)
    expect(line(shown, good).locator("p")).to_contain_text("500 accepted")
    assert shown.page.locator("#files > li").count() == 1

    shown.upload_speed(SLOW)
    shown.drop(moved)
    expect(line(shown, moved).locator("p")).to_have_text(re.compile(r"Uploading [1-9]\d? %"))
    shown.page.get_by_role("button", name="Cancel moved.csv").click()
    moved.rename(tmp_path / "elsewhere.csv")
    shown.upload_speed(-1)
    shown.page.get_by_role("button", name="Retry moved.csv").click()
    expect(line(shown, moved).locator("p")).to_have_text("This is a folder, or the file was changed or moved after it was dropped. Drop it again.")
    shown.forgive("ERR_FILE_NOT_FOUND", "ERR_UPLOAD_FILE_CHANGED")


def test_a_cancelled_upload_leaves_nothing_and_its_retry_counts_once(shared_server, dashboard, tmp_path):
    shown, keys = dashboard(shared_server).open(), []
    shown.page.on("request", lambda request: request.url.endswith("/upload") and keys.append(request.headers["idempotency-key"]))
    files = [csv(tmp_path, name, 15_000) for name in ("one", "two", "three")]
    shown.upload_speed(SLOW)
    shown.drop(*files)
    expect(line(shown, files[0]).locator("p")).to_have_text(re.compile(r"Uploading [1-9]\d? %"))
    expect(line(shown, files[1]).locator("p")).to_have_text(re.compile(r"Uploading \d+ %"))
    expect(line(shown, files[2]).locator("p")).to_have_text("Waiting")
    assert shown.text("#tray-sum") == "0 of 3 files done"
    shown.page.get_by_role("button", name="Cancel one.csv").click()
    expect(line(shown, files[0]).locator("p")).to_have_text("Cancelled. Nothing from this file was kept.")
    expect(line(shown, files[2]).locator("p")).to_have_text(re.compile("Uploading"))
    assert "one" not in shared_server.series_counts()
    shown.upload_speed(-1)
    shown.page.get_by_role("button", name="Retry one.csv").click()
    for file in files:
        expect(line(shown, file).locator("p")).to_have_text("15,000 accepted · 0 rejected · 0 late · 0 anomalies", timeout=60_000)
    until(shown.page, lambda: shown.text("#tray-sum") == "3 files done", "all files are done")
    assert {name: n for name, n in shared_server.series_counts().items() if name in ("one", "two", "three")} == dict.fromkeys(("one", "two", "three"), 15_000)
    assert len(keys) == 4 and len(set(keys)) == 3


def test_an_upload_that_a_restart_cut_off_is_retried_and_counts_once(server, dashboard, tmp_path):
    shown, file = dashboard(server).open(), csv(tmp_path, "cut", 15_000)
    shown.upload_speed(SLOW)
    shown.drop(file)
    expect(line(shown, file).locator("p")).to_have_text(re.compile(r"Uploading [1-9]\d? %"))
    server.kill()
    expect(line(shown, file).locator("p")).to_have_text("The server cannot be reached. Retry sends the file again; nothing counts twice.")
    server.start()
    shown.upload_speed(-1)
    shown.page.get_by_role("button", name="Retry cut.csv").click()
    expect(line(shown, file).locator("p")).to_have_text("15,000 accepted · 0 rejected · 0 late · 0 anomalies", timeout=60_000)
    shown.connection("live", 60)
    assert server.series_counts() == {"cut": 15_000}
    shown.forgive("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE", "ERR_SOCKET_NOT_CONNECTED")


def test_all_series_of_nab_dropped_at_once(dashboard, tmp_path):
    """Real data of years ago: each row ends with its counts, and `Show` leads to the time and the anomalies of that file."""
    need("nab")
    files = sorted((SHARED / "nab" / "data").glob("*/*.csv"))
    assert len(files) == 58
    with Server(tmp_path / "data", WINDOW_SECONDS=86400) as server:
        shown = dashboard(server).open()
        shown.drop(*files)
        expect(shown.page.locator("#files > li[data-state=done]")).to_have_count(58, timeout=120_000)
        assert shown.text("#tray-sum") == "58 files done"
        expect(shown.page.locator("#main")).to_be_visible()
        found = {}
        for anomaly in map(json.loads, server.anomalies()):
            found.setdefault(anomaly["metric"], []).append(anomaly)
        assert server.series_counts().keys() == {file.stem for file in files} and sum(map(len, found.values())) > 500
        for file in files:
            rows, mine = len(file.read_text().strip().splitlines()) - 1, found.get(file.stem, [])
            words = line(shown, file).locator("p").inner_text()
            accepted, rejected, late, anomalies = (int(n.replace(",", "")) for n in re.findall(r"[\d,]+", words))
            assert (accepted + rejected, rejected, anomalies) == (rows, 0, len(mine)), f"{file.name}: {words}"
            assert late <= accepted

            shown.page.get_by_role("button", name=f"Show {file.name}", exact=True).click()
            expect(shown.page.locator("#lanes-h")).to_contain_text(f"{file.name} · ")
            if mine:
                expect(shown.page.locator("#explain h3")).to_have_text("Why this is an anomaly")
                expect(shown.page.locator("#chart-h")).to_have_text(file.stem)
