"""What people do about incidents from the page: acknowledge, silence, say what it was worth; and hear what others did."""
import json
import re
import time
from urllib.parse import quote

import pytest
from playwright.sync_api import expect
from server import Server, run

from .conftest import PHONE
from .events import calm, send, spike, until
from .test_accessibility import THEMES, VIEWS, findings
from .test_layout import MARKUP, RTL, overflow

# As long as the page may take to show what was done elsewhere.
SOON = 15_000
# Stands in for the browser's own: what it would have shown, and what a click does.
NOTIFICATION = """
  window.notes = [];
  window.Notification = class {
    static permission = "default";
    static async requestPermission() { window.wasAsked = (window.wasAsked ?? 0) + 1; return (Notification.permission = "granted"); }
    constructor(title, options) { this.said = [title, options.body]; notes.push(this); }
    close() {}
  };
  window.away = false;
  Object.defineProperty(document, "hidden", { get: () => away });
"""


@pytest.fixture(scope="module")
def busy(tmp_path_factory):
    """A server for all tests of this module: each uses metrics of its own."""
    with Server(tmp_path_factory.mktemp("busy") / "data") as server:
        yield server


def begin(server, metric: str, **labels: str) -> dict:
    """A new incident."""
    send(server, [*calm(metric, **labels), spike(metric, **labels)])
    return incident(server, metric)


def incident(server, metric: str) -> dict:
    """The newest incident of a metric, as the server tells it."""
    return server.get("/incidents", metric=metric)["incidents"][0]


def says(server, of: dict, what: str, **more) -> dict:
    """What somebody elsewhere does."""
    response = server.http.post(f"/incidents/{of['id']}/{what}", json=more)
    assert response.status_code == 200, response.text
    return response.json()


def row(shown, metric: str):
    return shown.page.locator("#rows .row", has=shown.page.get_by_text(metric, exact=True))


def opened(shown, metric: str):
    """Opens an incident by its row, which is one click, and waits until its story is there."""
    row(shown, metric).click()
    expect(shown.page.locator("#chart-h b")).to_have_text(metric)
    expect(shown.page.locator(".case .state")).to_be_visible()
    expect(shown.page.locator(".story")).to_contain_text("Opened")
    return shown.page


def act(page, name: str):
    """A button of the bar."""
    return page.locator(".case").get_by_role("button", name=name, exact=True)


def test_an_incident_is_acknowledged_with_two_clicks(busy, dashboard):
    begin(busy, "acked", host="a")
    shown = dashboard(busy).open()
    page = opened(shown, "acked")
    act(page, "Acknowledge").click()
    expect(page.locator(".case .state")).to_have_text("Acknowledged")
    expect(row(shown, "acked")).to_contain_text("Acknowledged · ")
    expect(page.locator(".story ol").first).to_contain_text("Acknowledged")
    found = incident(busy, "acked")
    assert (found["state"], found["by"], found["comment"]) == ("acknowledged", None, None)
    # It can be resolved, not acknowledged twice.
    expect(act(page, "Acknowledge")).to_be_hidden()
    expect(act(page, "Resolve")).to_be_visible()

    page.reload()
    expect(row(shown, "acked")).to_contain_text("Acknowledged · ")
    opened(shown, "acked")
    expect(page.locator(".case .state")).to_have_text("Acknowledged")


def test_a_name_is_asked_once_and_a_comment_belongs_to_one_action(busy, dashboard):
    begin(busy, "named")
    shown = dashboard(busy).open()
    page = opened(shown, "named")
    name, comment = page.get_by_label("Your name"), page.get_by_label("Comment")
    comment.fill("on it")
    name.press_sequentially("Ann")  # the field is left by the click itself
    act(page, "Acknowledge").click()
    expect(page.locator(".case .state")).to_have_text("Acknowledged by Ann: on it")
    expect(row(shown, "named")).to_contain_text("Acknowledged by Ann")
    expect(page.locator(".story ol").first).to_contain_text("Acknowledged by Ann: on it")
    expect(name).to_be_hidden()
    expect(comment).to_have_value("")
    page.reload()
    opened(shown, "named")
    expect(name).to_be_hidden()
    act(page, "Resolve").click()
    expect(page.locator(".case .state")).to_have_text("Resolved · Ann")
    expect(row(shown, "named")).to_contain_text("Resolved · ")
    expect(page.locator(".story ol").first).to_contain_text("Resolved by Ann")
    assert [(one["what"], one["by"], one["comment"]) for one in busy.get(f"/incidents/{incident(busy, 'named')['id']}")["history"]][1:] == [
        ("acknowledged", "Ann", "on it"), ("resolved_by_hand", "Ann", None)]
    # It can be changed.
    act(page, "as Ann").click()
    name.fill("Bo")
    name.press("Enter")
    expect(act(page, "as Bo")).to_be_focused()


def test_a_series_is_silenced_with_two_clicks_and_spoken_for_again(busy, dashboard):
    begin(busy, "silenced", host="a", zone="b=\"c\"")
    shown = dashboard(busy).open()
    page = opened(shown, "silenced")
    act(page, "Silence 4 h").click()
    expect(page.locator(".case .state")).to_have_text("Silenced")
    expect(row(shown, "silenced")).to_contain_text("Silenced · ")
    silence = next(s for s in busy.get("/silences")["silences"] if s["state"] == "active")
    assert [(m["name"], m["op"], m["value"]) for m in silence["matchers"]] == [("series", "=", r'silenced{host="a",zone="b=\"c\""}')]
    assert silence["to"] == pytest.approx(time.time() + 4 * 3600, abs=60) and silence["by"] is None

    page.reload()
    expect(row(shown, "silenced")).to_contain_text("Silenced · ")
    page.get_by_role("button", name="1 silence").click()
    dialog = page.get_by_role("dialog", name="Silences")
    expect(dialog).to_contain_text('silenced{host="a"')
    dialog.get_by_role("button", name="End now").click()
    expect(dialog).to_contain_text("No silence is active.")
    expect(dialog.get_by_role("button", name="Close")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="1 silence")).to_be_hidden()
    expect(row(shown, "silenced")).not_to_contain_text("Silenced", timeout=SOON)
    assert incident(busy, "silenced")["state"] == "open"
    assert all(s["state"] == "expired" for s in busy.get("/silences")["silences"])


def test_feedback_takes_two_clicks_and_can_be_changed(busy, dashboard):
    begin(busy, "rated")
    shown = dashboard(busy).open()
    page = opened(shown, "rated")
    useful, false_alarm = (act(page, name) for name in ("Useful", "False alarm"))
    useful.click()
    expect(useful).to_have_attribute("aria-pressed", "true")
    assert incident(busy, "rated")["feedback"] == "useful"
    false_alarm.click()
    expect(false_alarm).to_have_attribute("aria-pressed", "true")
    expect(useful).to_have_attribute("aria-pressed", "false")
    expect(page.locator(".story ol").first).to_contain_text("False alarm")
    page.reload()
    opened(shown, "rated")
    expect(false_alarm).to_have_attribute("aria-pressed", "true")
    assert incident(busy, "rated")["feedback"] == "false_alarm"


def test_a_link_opens_an_incident_that_is_not_loaded(server, dashboard):
    events = [event for n in range(130) for event in (*calm(f"m{n}", 8), spike(f"m{n}"))]
    send(server, events)
    oldest = server.get("/incidents", limit=1000)["incidents"][-1]
    shown = dashboard(server).open(f"/#incident={quote(oldest['id'])}")
    page = shown.page
    expect(page.locator("#chart-h b")).to_have_text(oldest["metric"])
    expect(page.locator("#explain .sentence")).to_have_text(oldest["peak"]["explanation"] + ".")
    assert page.locator(f"#rows .row[data-key='{oldest['id']}']").count() == 0
    act(page, "Acknowledge").click()
    expect(page.locator(".case .state")).to_have_text("Acknowledged")
    # What is done to it elsewhere shows too.
    says(server, oldest, "acknowledge", by="Bo")
    expect(page.locator(".case .state")).to_have_text("Acknowledged by Bo", timeout=2 * SOON)


def test_a_link_to_an_incident_that_is_gone_says_so(busy, dashboard):
    begin(busy, "kept")
    shown = dashboard(busy).open("/#incident=00000000")
    expect(shown.page.locator("#toast")).to_have_text("This incident is no longer kept.")
    shown.forgive("404 (Not Found)")


def test_the_link_to_an_incident_can_be_copied(busy, dashboard):
    found = begin(busy, "copied")
    shown = dashboard(busy, permissions=["clipboard-read", "clipboard-write"]).open()
    page = opened(shown, "copied")
    page.get_by_role("button", name="Copy incident link").click()
    expect(page.locator("#toast")).to_have_text("Link copied")
    link = page.evaluate("() => navigator.clipboard.readText()")
    assert link == f"{busy.url}/#incident={found['id']}"
    other = dashboard(busy).open(link.removeprefix(busy.url))
    expect(other.page.locator("#chart-h b")).to_have_text("copied")
    expect(other.page.locator("#rows .row[aria-current]")).to_have_attribute("data-key", found["id"])


def test_a_capsule_exported_here_replays_to_the_same_verdict_elsewhere(busy, dashboard, tmp_path):
    found = begin(busy, "packed")
    shown = dashboard(busy, accept_downloads=True).open()
    page = opened(shown, "packed")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download capsule").click()
    assert download.value.suggested_filename == f"incident-{found['id']}.json"
    capsule = tmp_path / download.value.suggested_filename
    download.value.save_as(capsule)
    replayed = run("replay", capsule, DATA_DIR=tmp_path / "fresh")
    assert replayed.returncode == 0, replayed
    assert b"packed" in replayed.stdout


def test_what_is_done_elsewhere_shows_in_place_even_while_the_list_is_read(busy, dashboard):
    found = begin(busy, "elsewhere")
    begin(busy, "above")
    shown = dashboard(busy).open()
    page = opened(shown, "elsewhere")
    expect(page.locator("#flow")).to_contain_text("Paused")  # the pointer is on the row
    before = [one["key"] for one in shown.rows()]
    page.get_by_role("button", name="Copy incident link").focus()
    says(busy, found, "acknowledge", by="Bo", comment="mine")
    expect(row(shown, "elsewhere")).to_contain_text("Acknowledged by Bo", timeout=SOON)
    expect(page.locator(".case .state")).to_have_text("Acknowledged by Bo: mine")
    expect(page.locator(".story ol").first).to_contain_text("Acknowledged by Bo: mine")
    expect(page.get_by_role("button", name="Copy incident link")).to_be_focused()
    assert [one["key"] for one in shown.rows()] == before
    # What had the focus goes: the state has it then.
    act(page, "Resolve").focus()
    says(busy, found, "resolve", by="Bo")
    expect(page.locator(".case .state")).to_have_text("Resolved · Bo", timeout=SOON)
    expect(page.locator(".case .state")).to_be_focused()


def test_what_is_quiet_for_a_window_is_resolved_by_itself(tmp_path, dashboard):
    with Server(tmp_path / "data", WINDOW_SECONDS=5) as server:
        send(server, [*calm("brief", step=0.2), spike("brief")])
        shown = dashboard(server).open()
        page = opened(shown, "brief")
        expect(page.locator(".case .state")).to_have_text("Open")
        expect(row(shown, "brief")).to_have_attribute("data-state", "resolved", timeout=60_000)
        expect(row(shown, "brief")).to_contain_text("Resolved · ")
        expect(page.locator(".case .state")).to_have_text("Resolved")
        expect(page.locator(".story ol").first).to_contain_text("Resolved, the series was quiet")
        expect(act(page, "Acknowledge")).to_be_hidden()
        # Quieter, and not by colour alone: the shape of the icon, the word and the weight say it too.
        assert row(shown, "brief").locator(".name b").evaluate("(e) => getComputedStyle(e).fontWeight") == "400"
        assert row(shown, "brief").locator("svg use").first.get_attribute("href") == "#i-critical"


def test_the_state_is_part_of_what_a_row_is_called(busy, dashboard):
    begin(busy, "called")
    shown = dashboard(busy).open()
    expect(shown.page.get_by_role("button", name=re.compile("critical, open called"))).to_have_count(1)
    says(busy, incident(busy, "called"), "acknowledge", by="Bo")
    expect(shown.page.get_by_role("button", name=re.compile("critical called .*Acknowledged by Bo"))).to_have_count(1, timeout=SOON)


def test_the_list_can_be_filtered_by_state_and_hides_nothing_before(server, dashboard):
    for metric in ("first", "second", "third"):
        begin(server, metric)
    says(server, incident(server, "second"), "acknowledge")
    shown = dashboard(server).open()
    page, states = shown.page, shown.page.get_by_label("State", exact=True)
    expect(page.locator("#rows .row")).to_have_count(3)
    states.select_option("acknowledged")
    expect(page.locator("#rows .row .name b")).to_have_text(["second"])
    expect(page.locator("#feed-n")).to_have_text("1 in 1 incident")
    # A letter in the list of states acts on nothing.
    states.focus()
    page.keyboard.press("a")
    states.select_option("acknowledged")
    says(server, incident(server, "first"), "acknowledge")
    expect(page.locator("#rows .row .name b")).to_have_text(["second", "first"], timeout=SOON)
    assert incident(server, "third")["state"] == "open"
    states.select_option("silenced")
    expect(page.locator("#none")).to_have_text("Nothing matches this filter.")
    page.locator("#chart").focus()
    page.keyboard.press("Escape")
    expect(states).to_have_value("")
    expect(page.locator("#rows .row")).to_have_count(3)


def test_keys_act_on_the_row_that_has_the_focus_or_on_what_is_open(busy, dashboard):
    for metric in ("key_off", "key_open", "key_row"):
        begin(busy, metric, host="a")
    shown = dashboard(busy).open()
    page = opened(shown, "key_open")
    page.locator("#chart").focus()
    page.keyboard.press("a")
    expect(page.locator(".case .state")).to_have_text("Acknowledged")
    row(shown, "key_row").focus()
    page.keyboard.press("s")
    expect(row(shown, "key_row")).to_contain_text("Silenced")
    expect(row(shown, "key_row")).to_be_focused()
    expect(page.locator("#say")).to_have_text("key_row: silenced")
    assert (incident(busy, "key_open")["state"], incident(busy, "key_row")["state"]) == ("acknowledged", "silenced")
    silence = next(s for s in busy.get("/silences")["silences"] if s["state"] == "active")
    assert silence["to"] == pytest.approx(time.time() + 3600, abs=60)
    assert busy.http.delete(f"/silences/{silence['id']}").status_code == 204
    page.keyboard.press("?")
    for key, text in (("a", "Acknowledge"), ("s", "Silence for an hour")):
        expect(page.locator("#help dt", has=page.get_by_text(key, exact=True)).locator("+ dd")).to_have_text(text)
    # Where single keys are off, they do nothing.
    page.uncheck("#keys-on")
    page.keyboard.press("Escape")
    says(busy, incident(busy, "key_open"), "resolve")
    opened(shown, "key_off")
    page.keyboard.press("a")
    page.keyboard.press("s")
    page.wait_for_timeout(1000)
    assert incident(busy, "key_off")["state"] == "open"


def test_what_the_server_refuses_is_said_where_it_was_asked(busy, dashboard):
    found = begin(busy, "refused")
    shown = dashboard(busy).open()
    page = opened(shown, "refused")
    page.route("**/incidents?*", lambda route: route.abort())  # it learns nothing by itself
    says(busy, found, "resolve")
    with page.expect_response(lambda response: response.request.method == "POST") as answer:
        act(page, "Acknowledge").click()
    if answer.value.status == 409:  # else its own look was quicker, and the button is gone
        expect(page.locator(".case .fault")).to_have_text(answer.value.json()["detail"])
    page.route("**/feedback", lambda route: route.fulfill(status=503, content_type="application/problem+json", body=json.dumps({"detail": f"the disk is full {MARKUP}"})))
    act(page, "Useful").click()
    expect(page.locator(".case .fault")).to_have_text(f"the disk is full {MARKUP}")
    page.unroute("**/feedback")
    act(page, "Useful").click()
    expect(page.locator(".case .fault")).to_be_empty()
    expect(act(page, "Useful")).to_have_attribute("aria-pressed", "true")
    shown.forgive("409 (Conflict)", "503 (Service", "ERR_FAILED")


def test_a_notification_that_failed_can_be_sent_again(busy, dashboard):
    begin(busy, "told")
    sent = {"status": "failed", "attempts": 5, "last_error": f"550 no such user {MARKUP}", "sent_at": None}
    shown = dashboard(busy)

    def add(route) -> None:
        answer = route.fetch()
        told = {"id": "n1", "channel": "email", "kind": "opened", "incidents": [], "created_at": time.time()} | sent
        route.fulfill(response=answer, json=answer.json() | {"notifications": [told]})

    def again(route) -> None:
        sent.update(status="pending")
        route.fulfill(json=sent)

    shown.page.route(re.compile(r"/incidents/[^/?]+\?limit=1$"), add)
    shown.page.route("**/notifications/n1/resend", again)
    page = opened(shown.open(), "told")
    expect(page.locator(".story")).to_contain_text(f"email failed after 5 attempts: 550 no such user {MARKUP}")
    page.get_by_role("button", name="Send again by email").click()
    expect(page.locator(".story")).to_contain_text("email waiting")
    expect(page.locator(".story h3").first).to_be_focused()
    # What is on its way is looked after.
    sent.update(status="sent", last_error=None, sent_at=time.time())
    expect(page.locator(".story")).to_contain_text("email sent", timeout=SOON)
    assert page.locator("img").count() == 0


def test_what_began_together_is_drawn_on_one_axis_with_the_first_mover_named(server, dashboard):
    now = time.time()
    for metric, at in (("cause", now - 30), ("effect", now - 20), ("later", now - 1)):
        send(server, [*calm(metric, 20, at - 20), spike(metric, at=at)])
    # The second of two, so that the first is another's.
    shown = dashboard(server).open()
    page = opened(shown, "effect")
    together = page.locator(".together")
    expect(together.locator("p").first).to_contain_text("cause was first")
    expect(together.locator("li .name b")).to_have_text(["cause", "effect", "later"])
    expect(together.locator("li > .hint")).to_have_text(["first", "+10 s", "+29 s"])
    expect(together.locator("svg .line")).to_have_count(3)
    # One axis of time: the later it began, the further right its mark.
    starts = [float(re.match(r"M([\d.]+)", d)[1]) for d in together.locator("svg .start").evaluate_all("(all) => all.map((e) => e.getAttribute('d'))")]
    assert starts == sorted(starts) and (starts[2] - starts[0]) / (starts[1] - starts[0]) == pytest.approx(2.9, rel=0.02)
    together.get_by_role("button", name="cause").click()
    expect(page.locator("#chart-h b")).to_have_text("cause")
    expect(page.locator(".case .state")).to_be_focused()


def test_what_people_write_stays_text_and_fits_at_every_width(server, dashboard):
    found = begin(server, "hostile", **{"<b>": "</b><script>hacked=1</script>"})
    begin(server, "another")
    by, comment = (MARKUP + RTL + "y" * 100)[:100], (MARKUP + RTL) * 10 + "z" * 500
    says(server, found, "acknowledge", by=by, comment=comment)
    response = server.http.post("/silences", json={"matchers": [{"name": "metric", "op": "=~", "value": MARKUP + "x" * 200}], "to": time.time() + 3600, "by": by, "comment": comment})
    assert response.status_code == 201, response.text
    shown, wide = dashboard(server).open(), {}
    page = opened(shown, "hostile")
    expect(page.locator(".case .state bdi")).to_have_text([by, comment])
    expect(page.locator(".story ol bdi")).to_have_text([by, comment])
    expect(row(shown, "hostile").locator(".why bdi")).to_have_text(by)
    for width, height in ((380, 800), (720, 900), (1120, 720)):
        page.set_viewport_size({"width": width, "height": height})
        wide[width] = overflow(page)
        if width < 720:
            row(shown, "hostile").click()
            expect(page.locator("#back")).to_be_visible()
            wide[width, "sheet"] = overflow(page)
            assert page.locator("#detail").evaluate("(e) => e.scrollWidth - e.clientWidth") == 0
            page.click("#back")
        page.get_by_role("button", name="1 silence").click()
        expect(page.locator("#silences bdi").first).to_contain_text("<img src=x onerror=")
        wide[width, "silences"] = overflow(page) + page.locator("#silences").evaluate("(e) => e.scrollWidth - e.clientWidth")
        page.keyboard.press("Escape")
    assert wide == dict.fromkeys(wide, 0)
    assert page.locator("img, #rows script, .case script, .story script").count() == 0
    assert page.evaluate("() => window.hacked") is None


def test_the_browser_tells_of_new_incidents_while_the_tab_is_hidden(server, dashboard):
    send(server, [event for n in range(6) for event in calm(f"n{n}")])
    begin(server, "known")
    shown = dashboard(server)
    shown.context.add_init_script(NOTIFICATION)
    page = shown.open().page
    expect(page.locator(".case")).to_be_visible()
    page.click("#keys")
    assert page.evaluate("() => window.wasAsked") is None  # never by itself
    page.check("#notify")
    assert page.evaluate("() => window.wasAsked") == 1
    page.keyboard.press("Escape")
    said = lambda: page.evaluate("() => notes.map((n) => n.said)")  # noqa: E731
    send(server, [spike("n0")])
    page.wait_for_timeout(2000)
    assert said() == []  # somebody is looking
    page.evaluate("() => { away = true; }")
    send(server, [spike("n1"), spike("n1", 700)])
    until(page, lambda: len(said()) == 1, "the first is told")
    assert said()[0][0] == "n1: critical"
    began = time.monotonic()
    for n in (2, 3, 4):
        send(server, [spike(f"n{n}")])
    until(page, lambda: len(said()) == 2, "the others are told together")
    assert time.monotonic() - began > 2 and said()[1][0] == "3 incidents, first n2"
    # What is silenced is not told.
    assert server.http.post("/silences", json={"matchers": [{"name": "metric", "op": "=", "value": "n5"}], "to": time.time() + 3600}).status_code == 201
    send(server, [spike("n5")])
    page.wait_for_timeout(7000)
    assert len(said()) == 2
    page.evaluate("() => { away = false; notes[1].onclick(); }")
    expect(page.locator("#chart-h b")).to_have_text("n2")
    # It is remembered.
    shown.context.add_init_script("Notification.permission = 'granted'")
    page.reload()
    shown.connection("live")
    expect(page.locator("#notify")).to_be_checked()


def test_without_states_there_are_no_actions(busy, dashboard):
    """As an older server answers."""
    begin(busy, "plain")
    shown, asked = dashboard(busy), []

    def strip(route) -> None:
        page = route.fetch()
        body = page.json()
        for one in body["incidents"]:
            for name in ("state", "resolved_at", "by", "comment", "feedback"):
                one.pop(name, None)
        route.fulfill(response=page, json=body)

    shown.page.route("**/incidents?*", strip)
    shown.page.on("request", lambda request: asked.append(request.url))
    shown.open()
    row(shown, "plain").click()
    expect(shown.page.locator("#explain h3")).to_have_text("Why this is an anomaly")
    shown.page.keyboard.press("a")
    shown.page.wait_for_timeout(1000)
    assert shown.page.locator(".case, .story, .states, #silences").count() == 0
    assert not any("incident.js" in url or "/silences" in url for url in asked)
    assert incident(busy, "plain")["state"] == "open"


def test_what_incidents_need_is_loaded_with_the_first_of_them(server, dashboard):
    shown, size = dashboard(server), {}
    shown.page.on("response", lambda response: "/assets/" in response.url and size.update({response.url.rsplit("/", 1)[1]: len(response.body())}))
    shown.open()
    shown.page.wait_for_selector("#empty:not([hidden])")
    assert "incident.js" not in size and sum(size.values()) <= 150_000
    begin(server, "heavy")
    opened(shown, "heavy")
    assert {"incident.js", "incident.css"} <= size.keys() and sum(size.values()) <= 175_000


@VIEWS
@THEMES
def test_no_state_of_an_incident_has_findings(server, dashboard, theme, view):
    for metric in ("first", "second", "third", "fourth"):
        begin(server, metric, host="a")
    shown, found = dashboard(server, color_scheme=theme, bypass_csp=True, **view).open(), {}
    page, phone = shown.page, view["viewport"] is PHONE

    def look(metric: str, name: str, says: str) -> None:
        opened(shown, metric)
        found[f"{metric} is open"] = findings(page)
        act(page, name).click()
        expect(page.locator(".case .state b")).to_have_text(says)
        expect(row(shown, metric)).to_contain_text(says)
        found[says] = findings(page)
        if phone:
            page.click("#back")

    look("first", "Acknowledge", "Acknowledged")
    look("second", "Resolve", "Resolved")
    look("third", "Silence 24 h", "Silenced")
    found["the list"] = findings(page)
    page.get_by_role("button", name="1 silence").click()
    found["silences"] = findings(page)
    page.keyboard.press("Escape")
    if not phone:
        page.click("#keys")
        found["help"] = findings(page)
    assert found == dict.fromkeys(found, [])
