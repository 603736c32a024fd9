"""The page fits its window, and shows names and numbers of any kind as text."""
import re

import pytest
from playwright.sync_api import expect
from server import Server

from .events import calm, send, spike, until

# The widths at which the layout changes, and windows that are low.
SIZES = [(380, 700), (390, 844), (720, 900), (1119, 800), (1120, 720), (1440, 600), (2560, 1440)]
MARKUP = "<img src=x onerror=\"window.hacked=1\">"
LONG = MARKUP + "y" * (255 - len(MARKUP))
RTL = "\u0645\u062a\u0631 \u202eabc"
LABELS = {"\"><script>hacked=1</script>": "</b><u>", "\u0645": "\u05d0\u05d1"}
NUMBERS = {
    "huge": ([1] * 10 + [1.7e308], "1.7e308"),
    "both_ways": ([1.6e308, -1.6e308] * 5 + [1.7e308], None),
    "tiny": ([4e-12 * (1 + i % 3 / 10) for i in range(10)] + [9e-11], "9e−11"),
    "constant": ([7] * 10 + [8], "8"),
    "from_zero": ([0] * 10 + [3], "3"),
    "far": ([1e300 * (1 + i % 5 / 1000) for i in range(10)] + [3e300], "3e300"),
    "minus_zero": ([5, 6, 7] * 3 + [5, -0.0], "0"),
}
# How many pixels of the chart have the colour of the line of values, #2b59c3.
DRAWN = """() => {
  const c = document.querySelector("#chart canvas"), p = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
  let n = 0;
  for (let i = 0; i < p.length; i += 4) n += Math.abs(p[i] - 43) < 12 && Math.abs(p[i + 1] - 89) < 12 && Math.abs(p[i + 2] - 195) < 12 && p[i + 3] > 60;
  return n;
}"""

# Notes what is written on the canvas from now on.
WRITTEN = """() => {
  const write = CanvasRenderingContext2D.prototype.fillText;
  window.written = [];
  CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) { written.push(text); return write.call(this, text, ...rest); };
}"""


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A server whose series have hostile names and extreme values."""
    with Server(tmp_path_factory.mktemp("odd") / "data") as server:
        for metric in (LONG, RTL):
            # Two anomalies each, so that the overview has them first.
            send(server, [*calm(metric, **LABELS), spike(metric, **LABELS) | {"meta": {"<i>": "<u>" + "z" * 100}}, spike(metric, **LABELS)])
        for metric, (values, _) in NUMBERS.items():
            send(server, [event | {"value": value} for event, value in zip(calm(metric, 11, step=20), values, strict=True)])
        yield server


def overflow(page) -> int:
    """How many pixels the page is wider than its window."""
    return page.evaluate("() => document.scrollingElement.scrollWidth - document.documentElement.clientWidth")


def test_nothing_overflows_at_any_width(odd, dashboard, tmp_path):
    shown, wide = dashboard(odd).open(), {}
    page = shown.page
    expect(page.locator("#rows .row").first).to_be_visible()
    page.locator("#rows .row", has_text="onerror").click()
    expect(page.locator("#chart-h")).to_contain_text("onerror")
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        buckets = 24 if width < 720 else 48 if width < 1500 else 96
        expect(page.locator(".lane").first.locator(".cell")).to_have_count(buckets)
        wide[width, height] = overflow(page)
        if width < 720:
            page.locator("#rows .row", has_text="onerror").click()
            expect(page.locator("#back")).to_be_visible()
            wide[width, height, "sheet"] = overflow(page)
            page.click("#back")
            expect(page.locator("#back")).to_be_hidden()
        if width >= 1120:  # only the list and the detail scroll
            assert page.evaluate("() => document.scrollingElement.scrollHeight") <= max(height, 720)
    assert wide == dict.fromkeys(wide, 0)


def test_a_row_that_is_chosen_while_the_page_starts_is_not_opened_again(odd, dashboard):
    shown, held = dashboard(odd), []
    page = shown.page
    page.set_viewport_size({"width": 390, "height": 844})
    page.route("**/anomalies/heat*", lambda route: held.append(route))
    shown.open()
    page.locator("#rows .row", has_text="onerror").click()
    page.click("#back")
    with page.expect_response("**/anomalies/heat*"):
        held[0].continue_()
    page.wait_for_timeout(500)
    expect(page.locator("#back")).to_be_hidden()
    expect(page.locator("#chart-h")).to_contain_text("onerror")


def test_the_empty_state_overflows_at_no_width(shared_server, dashboard):
    shown, wide = dashboard(shared_server).open(), {}
    shown.page.wait_for_selector("#empty:not([hidden])")
    for width, height in SIZES:
        shown.page.set_viewport_size({"width": width, "height": height})
        wide[width] = overflow(shown.page)
    assert wide == dict.fromkeys(wide, 0)


@pytest.mark.parametrize("metric", [LONG, RTL], ids=["markup of 255 bytes", "right to left"])
def test_a_hostile_name_stays_text(odd, dashboard, tmp_path, metric):
    assert len(LONG.encode()) == 255
    shown = dashboard(odd).open()
    page = shown.page
    page.locator("#rows .row", has_text=metric).click()
    expect(page.locator("#chart-h b")).to_have_text(metric)
    assert page.locator("#rows .name b", has_text=metric).text_content() == metric
    assert page.locator("#grid .name b", has_text=metric).text_content() == metric
    assert "<u>" in page.locator("#explain .meta").text_content()
    page.fill("#q", metric[:20])
    expect(page.locator("#hits b")).to_have_text([metric])
    page.fill("#q", MARKUP + "?")
    expect(page.locator("#hits")).to_have_text(f"No series matches “{MARKUP}?”")
    file = tmp_path / "<img src=x onerror=hacked=1>.csv"
    file.write_text("timestamp,metric,value\n1,<img src=x onerror=hacked=1>,<u>\n")
    shown.drop(file)
    expect(page.locator("#files .errors")).to_contain_text("<u>")
    assert file.name in shown.text("#files")
    assert page.locator("img, u, #rows script, #explain i, #files script").count() == 0
    assert page.evaluate("() => window.hacked") is None
    shown.forgive("422 (Unprocessable")


@pytest.mark.parametrize("metric", NUMBERS)
def test_a_value_of_any_magnitude_is_drawn(odd, dashboard, metric):
    shown, (_, words) = dashboard(odd).open(), NUMBERS[metric]
    found = odd.get("/anomalies", metric=metric)["anomalies"]
    if words is None:  # so wide that nothing stands out: the chart shows it all the same
        assert found == []
        shown.page.fill("#q", metric)
        expect(shown.page.locator("#hits b")).to_have_text([metric])
        shown.page.press("#q", "Enter")
    else:
        row = shown.page.locator("#rows .row", has=shown.page.get_by_text(metric, exact=True))
        expect(row.locator(".vals b")).to_have_text(words)
        assert "−0 " not in row.inner_text()
        row.click()
        expect(shown.page.locator("#explain .sentence")).to_contain_text(words)
        assert metric != "constant" or found[0]["stddev"] == 0
        expect(shown.page.locator(".ruler")).to_be_visible()
    expect(shown.page.locator("#chart-h")).to_have_text(metric)
    expect(shown.page.locator("#chart-now")).to_contain_text(" ")
    said = shown.page.evaluate("() => document.getElementById('main').outerHTML")
    assert not any(wrong in said for wrong in ("NaN", "Infinity", "undefined", "null"))
    until(shown.page, lambda: shown.page.evaluate(DRAWN) > 100, "the line of the values is on the canvas")
    assert len(said_by_axis(shown.page)) >= 2


def said_by_axis(page) -> set[str]:
    """The numbers beside the chart, as the next drawing writes them."""
    page.evaluate(WRITTEN)
    until(page, lambda: page.evaluate("() => written.length > 0"), "the chart was drawn again")
    return {text for text in page.evaluate("() => written") if ":" not in text}


def test_a_change_from_a_constant_zero_has_no_measure(odd, dashboard):
    """There is nothing to divide by, so its z-score is a stand-in: no number of it is shown."""
    shown = dashboard(odd).open("/#series=from_zero")
    row = shown.page.locator("#rows .row", has=shown.page.get_by_text("from_zero", exact=True))
    expect(row.locator(".z")).to_have_text("any change")
    bar, full = (row.locator(part).bounding_box()["width"] for part in (".zbar i", ".zbar"))
    assert bar == full
    shown.page.locator("#chart").focus()
    expect(shown.page.locator("#chart-now")).to_contain_text("3 now")
    shown.page.keyboard.press("End")
    expect(shown.page.locator("#say")).to_contain_text("value 3, expected 0 ± 0, any change")
    assert "1e300" not in row.inner_text()


def test_a_large_measure_is_short_in_the_overview_too(server, dashboard):
    send(server, [*calm("steep"), spike("steep", 5e9), *[event | {"value": 0} for event in calm("flat")], spike("flat", 3)])
    shown = dashboard(server).open()
    label = shown.page.locator("#grid .cell[aria-label^='steep'][data-key^='1/']")
    expect(label).to_have_count(1)
    z = abs(server.get("/anomalies", metric="steep")["anomalies"][0]["z_score"])
    assert z > 1e9 and re.search(r"1 anomaly, largest z [\d.]+e9, critical", label.get_attribute("aria-label"))
    assert "1 anomaly, any change, critical" in shown.page.locator("#grid .cell[aria-label^='flat'][data-key^='1/']").get_attribute("aria-label")


def test_a_name_turns_the_direction_of_nothing_behind_it(odd, dashboard):
    shown = dashboard(odd).open()
    page = shown.page
    page.locator("#rows .row", has_text=RTL).click()
    expect(page.locator("#chart-h b")).to_have_text(RTL)
    page.locator("#grid .name", has_text=RTL).click()
    expect(page.locator("#chip bdi")).to_contain_text(RTL)
    page.locator(".lane", has_text=RTL).locator(".cell:has(i.critical)").click()
    expect(page.locator("#chip")).to_contain_text("–")
    page.fill("#q", RTL + "?")
    expect(page.locator("#hits")).to_contain_text("No series matches")
    for before, after in (("#rows .name b", "#rows .name .labels"), ("#chart-h b", "#chart-h .labels")):
        assert left(page, after) >= right(page, before) - 1, before
    for before in ("#chip bdi", "#hits bdi"):
        assert right(page, before, whole=True) >= right(page, before) + 2, before
    assert page.evaluate("() => ['#rows .name b', '#grid .name b', '#chart-h b'].map((s) => getComputedStyle(document.querySelector(s)).unicodeBidi)") == ["isolate"] * 3


@pytest.mark.parametrize("size", [(390, 844), (768, 1024), (1440, 900)])
def test_the_tooltip_stays_within_the_window(server, dashboard, size):
    send(server, [*calm("hovered", 299), spike("hovered")])
    shown = dashboard(server, viewport=dict(zip(("width", "height"), size, strict=True))).open()
    page = shown.page
    page.locator("#rows .row").click()
    expect(page.locator("#chart-h")).to_have_text("hovered")
    page.get_by_role("button", name="15 min").click()
    plot = page.locator(".u-over").bounding_box()
    seen = 0
    for part in range(5, 100, 5):
        page.mouse.move(plot["x"] + plot["width"] * part / 100, plot["y"] + plot["height"] / 2)
        if page.locator("#tip").is_visible():
            box = page.locator("#tip").bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= size[0], (part, box)
            seen += 1
    assert seen >= 5


def left(page, selector: str) -> float:
    return page.locator(selector).first.evaluate("(e) => { const r = document.createRange(); r.selectNodeContents(e); return r.getBoundingClientRect().left; }")


def right(page, selector: str, whole: bool = False) -> float:
    """Where the text of an element ends, or with `whole` that of its parent."""
    return page.locator(selector).first.evaluate("(e, whole) => { const r = document.createRange(); r.selectNodeContents(whole ? e.parentNode : e); return r.getBoundingClientRect().right; }", whole)


@pytest.mark.parametrize("width", [390, 720, 768, 959])
def test_each_check_of_an_explanation_is_read_in_full(server, dashboard, width):
    send(server, [*calm("long", 299), spike("long")])
    shown = dashboard(server, viewport={"width": width, "height": 1024}).open()
    shown.page.locator("#rows .row").click()
    expect(shown.page.locator("#explain .checks li")).to_have_count(4)
    assert "samples in the 5 min before" in shown.text("#explain .checks")
    assert shown.page.evaluate("() => [...document.querySelectorAll('#explain .checks span')].filter((e) => e.scrollWidth > e.clientWidth + 1).map((e) => e.textContent)") == []
