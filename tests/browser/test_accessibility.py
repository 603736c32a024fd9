"""axe-core finds nothing in any state of the page, in either theme, on a desk and on a phone."""
import pytest
from playwright.sync_api import expect

from .conftest import DESKTOP, PHONE
from .events import calm, send, spike

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
VIEWS = pytest.mark.parametrize("view", [pytest.param({"viewport": DESKTOP}, id="desktop"), pytest.param({"viewport": PHONE, "has_touch": True, "is_mobile": True}, id="phone")])
THEMES = pytest.mark.parametrize("theme", ["light", "dark"])


def findings(page) -> list[str]:
    """What axe-core says is wrong now. Motion has ended first: a half transparent toast has no contrast."""
    from axe_playwright_python.sync_playwright import Axe
    page.evaluate("() => Promise.allSettled(document.getAnimations().filter((a) => a.effect.getTiming().iterations !== Infinity).map((a) => a.finished))")
    found = Axe().run(page, options={"runOnly": RULES, "resultTypes": ["violations"]}).response["violations"]
    return [f"{one['id']} {node['target']}: {node['failureSummary']}" for one in found for node in one["nodes"]]


@pytest.fixture
def eventful(server):
    """A server with critical and warning anomalies on series with and without labels."""
    for n in range(4):
        send(server, [*calm("latency_ms", host=f"web-{n}"), spike("latency_ms", host=f"web-{n}")])
    send(server, [*calm("queue"), spike("queue", 54.2)])
    assert {a["severity"] for a in server.get("/anomalies")["anomalies"]} == {"critical", "warning"}
    return server


@VIEWS
@THEMES
def test_the_empty_state_has_no_findings(shared_server, dashboard, theme, view):
    shown = dashboard(shared_server, color_scheme=theme, bypass_csp=True, **view).open()
    shown.page.wait_for_selector("#empty:not([hidden])")
    assert findings(shown.page) == []


@VIEWS
@THEMES
def test_no_state_has_findings(eventful, dashboard, tmp_path, theme, view):
    shown, found = dashboard(eventful, color_scheme=theme, bypass_csp=True, **view).open(), {}
    page, phone = shown.page, view["viewport"] is PHONE
    expect(page.locator("#rows .row")).to_have_count(5)
    expect(page.locator(".cell i.critical").first).to_be_visible()
    found["live"] = findings(page)

    page.locator("#rows .row.warning").click()
    expect(page.locator("#explain h3")).to_have_text("Why this is an anomaly")
    page.wait_for_selector("#chart canvas")
    found["selected"] = findings(page)

    page.locator("#chart").focus()
    expect(page.locator("#chart-now")).not_to_be_empty()
    page.keyboard.press("Home")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#say")).to_contain_text("expected 5")
    page.keyboard.press("Enter")
    expect(page.locator("#explain h3")).to_have_text("Why this is not an anomaly")
    found["why not"] = findings(page)

    if phone:
        page.click("#back")
    page.focus("#q")
    page.keyboard.type("web")
    expect(page.locator("#hits [role=option]")).to_have_count(4)
    found["searching"] = findings(page)
    page.keyboard.press("Escape")
    if not phone:  # which has no keys to explain
        page.click("#keys")
        found["help"] = findings(page)
        page.keyboard.press("Escape")

    shown.upload_speed(20_000)
    (tmp_path / "slow.csv").write_text("timestamp,metric,value\n" + "".join(f"{1_700_000_000 + i},slow,{i % 5}\n" for i in range(40_000)))
    shown.drop(tmp_path / "slow.csv")
    page.wait_for_selector("#files li[data-state=sending]")
    found["uploading"] = findings(page)

    eventful.kill()
    try:
        shown.connection("offline", 30)
        page.wait_for_selector("#files li[data-state=failed]")
        expect(page.locator("#banner")).to_contain_text("Trying again in")
        found["offline"] = findings(page)
    finally:
        eventful.start()
    shown.upload_speed(-1)
    shown.connection("live", 60)
    shown.forgive("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE", "ERR_SOCKET_NOT_CONNECTED")
    assert found == dict.fromkeys(found, [])
