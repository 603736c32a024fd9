"""`anomaly detect --plot`: large and real files, and the page as a reader uses it."""
import html
import json
import random
import re
import subprocess
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from needs import need
from server import SHARED, environment, run

NAB = ["realKnownCause/nyc_taxi", "realKnownCause/machine_temperature_system_failure", "realAWSCloudwatch/ec2_cpu_utilization_24ae8d",
       "artificialWithAnomaly/art_daily_jumpsup", "realTweets/Twitter_volume_AAPL"]
MOST_BYTES = 3_000_000


def detect(path: Path, plot: Path, *args, **env) -> list[dict]:
    """The anomalies of a file, drawn as well."""
    done = run("detect", path, "--format", "json", "--plot", plot, *args, timeout=300, **env)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr.decode().endswith(f"plot: {plot}\n"), done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def data_of(page: Path) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(), re.S)[1])


def series(folder: Path, n: int) -> Path:
    values, path = random.Random(1), folder / "m.csv"
    with path.open("w") as file:
        file.write("timestamp,value\n")
        file.writelines(f"{1_600_000_000 + i},{values.gauss(50, 3) + (60 if i % 99_991 == 99_990 else 0):.3f}\n" for i in range(n))
    return path


@pytest.mark.parametrize("kind", ["svg", "png", "html"])
def test_a_million_rows_take_seconds_and_little_room(tmp_path, kind):
    path, plot = series(tmp_path, 1_000_000), tmp_path / f"plot.{kind}"
    started = time.monotonic()
    # Every fifth row is an anomaly: none may be lost, and the file stays small.
    found = detect(path, plot, "--threshold", "1.3")
    assert time.monotonic() - started < 60 and len(found) > 100_000
    assert 10_000 < plot.stat().st_size < MOST_BYTES
    if kind == "html":
        panel = data_of(plot)["panels"][0]
        drawn = [(panel["from"] + t, v) for t, v in zip(panel["marks"]["t"], panel["marks"]["v"])]
        strongest = sorted(found, key=lambda a: -abs(a["z_score"]))[:10]
        assert all((a["timestamp"] * 1000, a["value"]) in drawn for a in strongest)
        # The smallest and the largest row of all are still there.
        values = [v for line in panel["lines"] for v in line["v"]]
        rows = [float(line.split(",")[1]) for line in path.read_text().splitlines()[1:]]
        assert (min(values), max(values)) == (min(rows), max(rows))


@pytest.mark.parametrize("name", NAB)
def test_real_series_are_drawn_with_each_of_their_anomalies(tmp_path, name):
    need("nab")
    path = SHARED / "nab" / "data" / f"{name}.csv"
    found = detect(path, tmp_path / "a.html", WINDOW_SECONDS=86400)
    marks = data_of(tmp_path / "a.html")["panels"][0]
    drawn = {(round(marks["from"] + t), v) for t, v in zip(marks["marks"]["t"], marks["marks"]["v"])}
    assert found and drawn == {(round(a["timestamp"] * 1000), a["value"]) for a in found}
    for kind in ("svg", "png"):
        again = detect(path, tmp_path / f"a.{kind}", WINDOW_SECONDS=86400)
        assert [a["id"] for a in again] == [a["id"] for a in found]
        assert (tmp_path / f"a.{kind}").stat().st_size < MOST_BYTES
    picture = ET.parse(tmp_path / "a.svg")
    texts = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert Path(name).name in texts and any("σ" in (text or "") for text in texts)
    critical = [len(g) for g in picture.iter("{http://www.w3.org/2000/svg}g") if g.get("class") == "mark-critical"]
    assert sum(critical) <= 1 + sum(a["severity"] == "critical" for a in found)


ACT = """<script>
const report = {}, panel = panels[0], canvas = panel.canvas, box = canvas.getBoundingClientRect()
const view = () => panel.view.map(Math.round)
const pointer = (type, x, y) => canvas.dispatchEvent(new PointerEvent(type, { bubbles: true, button: 0, pointerId: 1, clientX: box.left + x, clientY: box.top + y }))
const key = name => canvas.dispatchEvent(new KeyboardEvent('keydown', { key: name, bubbles: true }))
canvas.setPointerCapture = () => {}
report.whole = view()
pointer('pointerdown', 300, 100); pointer('pointermove', 600, 100); pointer('pointerup', 600, 100)
report.dragged = view(); report.button = !element('all').hidden
canvas.dispatchEvent(new MouseEvent('dblclick', { bubbles: true }))
report.back = view(); report.hidden = element('all').hidden
key('+'); report.closer = view()
key('ArrowRight'); report.right = view()
key('Escape'); report.escaped = view()
key('n'); report.next = element('said').textContent
pointer('pointermove', 400, 50); report.hover = tip.textContent
report.pixels = new Set(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data).size
const pre = document.createElement('pre')
pre.id = 'report'
pre.textContent = JSON.stringify(report)
document.body.append(pre)
</script>"""


def act(page: Path, script: str) -> dict:
    """What the page reports after a script that runs at its end."""
    acted = page.with_name("acted.html")
    acted.write_text(page.read_text().replace("</html>", script + "</html>"))
    chromium = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", f"--user-data-dir={page.with_name('profile')}"]
    done = subprocess.run([*chromium, "--window-size=1280,900", "--dump-dom", acted.as_uri()], capture_output=True, text=True, timeout=120, env=environment())
    said = re.search(r'<pre id="report">(.*?)</pre>', done.stdout, re.S)
    assert said, done.stderr[-2000:]
    return json.loads(html.unescape(said[1]))


LOOK = """<script>
const report = { axis: [], left: [] }
const write = CanvasRenderingContext2D.prototype.fillText
for (const panel of panels) {
  const written = []
  CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) { written.push(text); return write.call(this, text, ...rest) }
  panel.draw()
  report.axis.push(written.filter(text => !text.includes(':')))
  if (panel.marks.t.length) report[panel.name] = panel.markText(0)
}
report.hover = (panels[0].point({ offsetX: 400, offsetY: 50, clientX: 400, clientY: 50 }), tip.textContent)
const place = e => { const r = document.createRange(); r.selectNodeContents(e); return r.getBoundingClientRect() }
report.name = [...document.querySelectorAll('h2')].map(h2 => [h2.textContent, place(h2.children[0]).right <= place(h2.children[1]).left + 1])
const pre = document.createElement('pre')
pre.id = 'report'
pre.textContent = JSON.stringify(report)
document.body.append(pre)
</script>"""


def test_the_page_writes_numbers_of_any_magnitude_as_the_sentences_do(tmp_path):
    need("browser")
    values = {"far": [1e300 * (1 + i % 5 / 1000) for i in range(19)] + [3e300], "wide": [1.7e308 * (-1) ** i for i in range(20)],
              "tiny": [4e-12 * (1 + i % 3 / 10) for i in range(19)] + [-9e-11], "flat": [0] * 19 + [-0.0], "zero": [0] * 19 + [3], "\u202eturned": list(range(20))}
    path = tmp_path / "m.csv"
    rows = [f"{1_600_000_000 + i},{name},a,{value!r}\n" for name, all_of in values.items() for i, value in enumerate(all_of)]
    path.write_text("timestamp,metric,labels.host,value\n" + "".join(rows))
    detect(path, tmp_path / "plot.html")
    names = [panel["name"] for panel in data_of(tmp_path / "plot.html")["panels"]]
    report = act(tmp_path / "plot.html", LOOK)
    for name, written in zip(names, report["axis"], strict=True):
        assert len(written) >= 2 and not any("-" in text or "e+" in text or "NaN" in text for text in written), (name, written)
    assert "1e300" in report["axis"][names.index('far{host="a"}')] and "1e308" in report["axis"][names.index('wide{host="a"}')]
    assert re.search(r"\n3e300, \+[\d.,e]+ standard deviations$", report['far{host="a"}'])
    assert re.search(r"\n−9e−11, −[\d.]+ standard deviations$", report['tiny{host="a"}'])
    assert report['zero{host="a"}'].endswith("\n3, any change counts")
    assert "e+" not in report["hover"] and "-" not in report["hover"].split("\n", 1)[1]
    assert report["name"] == [[name, True] for name in names]


def test_the_page_zooms_by_mouse_and_by_keyboard_and_says_what_is_there(tmp_path):
    need("browser")
    detect(series(tmp_path, 200_000), tmp_path / "plot.html", "--threshold", "6")
    report = act(tmp_path / "plot.html", ACT)
    start, end = report["whole"]
    assert start == 0 and end == 199_999_000
    assert 0 < report["dragged"][0] < report["dragged"][1] < end and report["button"]
    assert report["back"] == report["whole"] == report["escaped"] and report["hidden"]
    assert report["closer"] == pytest.approx([end / 4, end * 3 / 4], abs=2)
    assert report["right"] == pytest.approx([end * 3 / 8, end * 7 / 8], abs=2)
    assert report["next"].startswith("◆ critical\n2020-09-1") and "standard deviations" in report["next"]
    assert "expected" in report["hover"] and report["pixels"] > 20
