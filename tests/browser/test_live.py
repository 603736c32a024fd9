"""What a person sees while events arrive: rows, pauses, the chart that follows, the first event, a storm."""
import time

from playwright.sync_api import expect

from .events import calm, counts, send, spike, totals, until

HOUR_OFF = """(() => {
  const Real = Date, off = 3600e3 * SIGN;
  window.Date = class extends Real { constructor(...a) { a.length ? super(...a) : super(Real.now() + off); } static now() { return Real.now() + off; } };
})()"""
STORM_SECONDS, PER_SECOND = 60, 20


def test_the_first_event_flips_the_empty_state(server, dashboard):
    shown = dashboard(server).open()
    shown.page.wait_for_selector("#empty:not([hidden])")
    assert "Waiting for your first event…" in shown.text("#waiting") and shown.page.is_hidden("#main")
    send(server, [*calm("cpu_usage"), spike("cpu_usage")])
    expect(shown.page.locator("#waiting")).to_contain_text("21 events received. Opening the dashboard…")
    expect(shown.page.locator("#main")).to_be_visible()
    expect(shown.page.locator("#empty")).to_be_hidden()
    expect(shown.page.locator("#rows .row.critical")).to_have_count(1)
    expect(shown.page.locator("#chart-h")).to_have_text("cpu_usage")
    assert shown.text("#feed-n") == "1 in 1 incident"


def test_a_pointer_on_the_list_holds_the_first_row_while_the_title_counts(shared_server, dashboard):
    for n in range(17):
        send(shared_server, calm(f"hover_{n}"))
    send(shared_server, [spike("hover_15"), spike("hover_16")])
    shown = dashboard(shared_server).open()
    expect(shown.page.locator("#rows .row")).to_have_count(2)
    shown.page.hover("#rows .row >> nth=0")
    expect(shown.page.locator("#flow")).to_have_text("Paused")
    first, began = shown.rows()[0], time.monotonic()
    for n in range(15):
        shown.page.wait_for_timeout(max(0, 1000 * (began + n / 5 - time.monotonic())))
        shared_server.post_event(spike(f"hover_{n}"))
        assert shown.rows()[0]["key"] == first["key"]
    expect(shown.page).to_have_title("(15) anomaly")
    expect(shown.page.locator("#flow")).to_have_text("Paused · 15 new")
    assert [row["key"] for row in shown.rows()][0] == first["key"] and len(shown.rows()) == 2
    shown.page.mouse.move(5, 500)
    expect(shown.page.locator("#rows .row")).to_have_count(17)
    expect(shown.page).to_have_title("anomaly")
    expect(shown.page.locator("#flow")).to_have_text("Live")


def test_a_severity_shows_each_incident_that_holds_it(server, dashboard):
    """As the server answers: an incident of a warning and something critical is in both lists, with its worst."""
    send(server, [event for metric in ("warned", "critical", "both", "later") for event in calm(metric)])
    send(server, [spike("warned", 54.2), spike("critical"), spike("both", 54.2)])
    send(server, [spike("both")])
    shown = dashboard(server).open()
    expect(shown.page.locator("#rows .row")).to_have_count(3)
    shown.page.mouse.move(5, 500)

    def listed(level: str) -> list[tuple[str, str]]:
        incidents = server.get("/incidents", **({"severity": level} if level else {}))["incidents"]
        return [(incident["id"], incident["severity"]) for incident in incidents]

    def shows(level: str, n: int) -> None:
        expect(shown.page.locator("#rows .row")).to_have_count(n)
        until(shown.page, lambda: [(row["key"], row["severity"]) for row in shown.rows()] == listed(level), f"the list is the server's of {level or 'all'}")
        said = server.get("/incidents", severity=level)["totals"] if level else server.get("/incidents")["totals"]
        expect(shown.page.locator("#feed-n")).to_have_text(f"{said['anomalies']} in {said['incidents']} incidents")

    shown.page.get_by_role("button", name="Critical", exact=True).click()
    shows("critical", 2)
    shown.page.get_by_role("button", name="Warning", exact=True).click()
    shows("warning", 2)
    assert shown.page.locator("#rows .row.critical", has_text="both").count() == 1
    # What turns critical stays; what comes is there when it meets the filter.
    shown.page.mouse.move(5, 500)
    send(server, [spike("warned"), spike("later")])
    expect(shown.page.locator("#rows .row.critical", has_text="warned")).to_have_count(1)
    shows("warning", 2)
    send(server, [spike("critical", 700), *calm("new", start=time.time() - 19), spike("new", 54.2)])
    shows("warning", 3)
    shown.page.get_by_role("button", name="All", exact=True).click()
    shows("", 5)


# How many incidents a list made in the page knows, after so many have come while a filter was on.
MANY = """async (n) => {
  const { Feed } = await import(document.querySelector("script[src$='app.js']").src.replace("app.js", "feed.js"));
  const anomaly = (i, severity) => ({ cursor: String(i), data: { incident_id: `i${i}`, timestamp: i, severity, series: "s", metric: "s", labels: {}, value: 1, expected: 1, lower: 0, upper: 2, z_score: 4, threshold: 3, direction: "high", summary: "", explanation: "" } });
  const page = (incidents) => ({ incidents, next: null, totals: { incidents: 0, anomalies: 0 }, cursor: "0" });
  const old = Array.from({ length: 50 }, (_, i) => ({ id: `old${i}`, start: i, end: i, count: 1, severity: "warning", peak: anomaly(i, "warning").data }));
  const feed = new Feed({ incidents: async ({ severity }) => page(severity === "warning" ? old : []) }, () => {});
  await feed.load();
  await feed.filter({ level: "warning" });
  const known = [feed.byKey.size];
  for (let i = 1; i <= n; i++) feed.arrive(anomaly(i, i % 2 ? "warning" : "critical"));
  known.push(feed.all.groups.length, feed.all.has.size, feed.shown.groups.length, feed.shown.has.size, feed.byKey.size);
  for (let i = n + 1; i <= 2 * n; i++) feed.arrive(anomaly(i, "warning"));
  known.push(feed.shown.groups.length, feed.byKey.size, feed.dirty.size, feed.news.length);
  await feed.filter({ level: "" });
  known.push(feed.byKey.size);
  return known;
}"""


def test_no_list_grows_without_bound_behind_a_filter(shared_server, dashboard):
    shown = dashboard(shared_server).open()
    known = shown.page.evaluate(MANY, 12_000)
    # The filter's own list holds the warnings, the other one all: 10,000 at most, and nothing is known that neither holds.
    assert known == [50, 10_000, 10_000, 6050, 6050, 10_000 + 50 + 1000, 10_000, 10_000, 10_000, 10_000, 10_000]


def test_a_zoom_stays_while_live_and_a_double_click_follows_again(shared_server, dashboard):
    send(shared_server, [*calm("zoomed", 300), spike("zoomed")])
    shown = dashboard(shared_server).open("/#series=zoomed")
    page, live = shown.page, shown.page.locator("#follow")
    expect(page.locator("#chart-now")).to_contain_text("now")
    expect(live).to_have_text("Live")
    box = page.locator("#chart .u-over").bounding_box()
    page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 50, steps=5)
    page.mouse.up()
    expect(live).to_have_text("Go live")
    expect(page.locator("#chart-now")).to_contain_text("–")
    zoomed = shown.text("#chart-now")

    shared_server.post_event(spike("zoomed", 900))
    expect(page.locator("#rows .row", has_text="zoomed")).to_contain_text("×2")
    # Twice what a chart that follows takes to move.
    page.wait_for_timeout(4000)
    assert shown.text("#chart-now") == zoomed and live.inner_text() == "Go live"

    page.mouse.dblclick(box["x"] + 0.5 * box["width"], box["y"] + 50)
    expect(live).to_have_text("Live")
    expect(page.locator("#chart-now")).to_contain_text("900 now")
    shared_server.post_event(spike("zoomed", 51))
    expect(page.locator("#chart-now")).to_contain_text("51 now")


def test_a_clock_one_hour_off_changes_no_time(shared_server, dashboard):
    send(shared_server, [*calm("clock"), spike("clock")])
    for sign in ("1", "-1"):
        shown = dashboard(shared_server)
        shown.context.add_init_script(HOUR_OFF.replace("SIGN", sign))
        shown.open("/#series=clock")
        assert abs(shown.page.evaluate("() => Date.now()") / 1000 - time.time()) > 3000
        expect(shown.page.locator("#chart-now")).to_contain_text("500 now, expected")
        row = shown.page.locator("#rows .row", has_text="clock")
        until(shown.page, lambda: row.locator("time").inner_text() == "now" or row.locator("time").inner_text().endswith(" s ago"), "the row says when it began")
        label = shown.page.locator(".lane", has_text="clock").locator(".cell[data-key^='1/']").get_attribute("data-x")
        assert int(label) >= 46  # the last bars of 48 are now


def test_a_storm_of_a_minute_keeps_rows_and_memory_small_and_loses_nothing(server, dashboard):
    """A new incident each time, so that nothing folds."""
    names = [f"storm_{n}" for n in range(STORM_SECONDS * PER_SECOND)]
    for at in range(0, len(names), 100):
        send(server, [event for name in names[at:at + 100] for event in calm(name, 12)])
    shown = dashboard(server).open()
    expect(shown.page.locator("#main")).to_be_visible()
    shown.page.mouse.move(5, 500)
    session, began = shown.context.new_cdp_session(shown.page), time.monotonic()
    session.send("Performance.enable")

    def measured() -> dict[str, float]:
        return {metric["name"]: metric["value"] for metric in session.send("Performance.getMetrics")["metrics"]}

    before, most = measured(), 0
    for second in range(STORM_SECONDS):
        shown.page.wait_for_timeout(max(0, 1000 * (began + second - time.monotonic())))
        assert server.post_batch([spike(name) for name in names[second * PER_SECOND:][:PER_SECOND]]).status_code == 202
        most = max(most, shown.page.locator("#rows .row").count())
    server.settle()
    expect(shown.page.locator("#feed-n")).to_have_text(totals(server))
    assert totals(server) == "1,200 in 1,200 incidents"
    after = measured()
    assert most == shown.page.locator("#rows .row").count() == 60
    assert after["JSHeapUsedSize"] <= 40e6
    assert (after["LayoutCount"] - before["LayoutCount"]) / (after["Timestamp"] - before["Timestamp"]) <= 15

    for pages in range(2, 21):
        shown.page.get_by_role("button", name="Show older").click()
        expect(shown.page.locator("#rows .row")).to_have_count(60 * pages)
    expect(shown.page.get_by_role("button", name="Show older")).to_be_hidden()
    known = counts(server)
    assert {key: n for key, n in shown.counts().items() if key in known} == known and len(known) == 1000
    assert len(shown.counts()) == 1200
