"""Keys, links, search and themes: how a person gets to an anomaly, and finds it again."""
import pytest
from playwright.sync_api import expect
from server import Server

from .events import calm, send, spike

BACKGROUND = {"light": "rgb(246, 247, 249)", "dark": "rgb(13, 15, 19)"}
# Notes the background of each frame that could be painted.
WATCH = "window.seen = new Set(); (function look() { if (document.body) seen.add(getComputedStyle(document.body).backgroundColor); requestAnimationFrame(look); })();"


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A server with three incidents, on `first`, `second` and `third` as the list shows them."""
    with Server(tmp_path_factory.mktemp("three") / "data") as server:
        for metric in ("third", "second", "first"):
            send(server, [*calm(metric, host="a"), spike(metric, host="a")])
        yield server


def test_j_j_enter_opens_the_second_row(three, dashboard):
    shown = dashboard(three).open()
    expect(shown.page.locator("#rows .row")).to_have_count(3)
    expect(shown.page.locator("#chart-h")).to_have_text("first{host=\"a\"}")
    shown.page.keyboard.press("j")
    shown.page.keyboard.press("j")
    shown.page.keyboard.press("Enter")
    expect(shown.page.locator("#chart-h")).to_have_text("second{host=\"a\"}")
    assert shown.page.get_attribute("#rows .row[aria-current]", "data-key") == shown.rows()[1]["key"]
    shown.page.keyboard.press("k")
    shown.page.keyboard.press("Enter")
    expect(shown.page.locator("#chart-h")).to_have_text("first{host=\"a\"}")


def test_a_copied_link_opens_the_same_anomaly(three, dashboard):
    shown = dashboard(three, permissions=["clipboard-read", "clipboard-write"]).open()
    shown.page.locator("#rows .row", has_text="third").click()
    expect(shown.page.locator("#chart-h")).to_have_text("third{host=\"a\"}")
    shown.page.get_by_role("button", name="Copy link").click()
    expect(shown.page.locator("#toast")).to_have_text("Link copied")
    link, sentence = shown.page.evaluate("() => navigator.clipboard.readText()"), shown.text("#explain .sentence")

    other = dashboard(three).open(link.removeprefix(three.url))
    expect(other.page.locator("#chart-h")).to_have_text("third{host=\"a\"}")
    assert other.text("#explain .sentence") == sentence
    assert other.page.get_attribute("#rows .row[aria-current]", "data-key") == shown.rows()[2]["key"]
    assert other.page.url == link


def test_a_link_to_an_anomaly_that_is_gone_says_so_and_opens_its_series(three, dashboard):
    shown = dashboard(three).open("/#series=second%7Bhost%3D%22a%22%7D&anomaly=00000000")
    expect(shown.page.locator("#toast")).to_have_text("This anomaly is no longer kept.")
    expect(shown.page.locator("#chart-h")).to_have_text("second{host=\"a\"}")
    shown.forgive("404 (Not Found)")


def test_search_finds_a_series_and_opens_it_by_keys(three, dashboard):
    shown = dashboard(three).open()
    expect(shown.page.locator("#rows .row")).to_have_count(3)
    shown.page.keyboard.press("/")
    shown.page.keyboard.type("thi")
    expect(shown.page.locator("#hits [role=option]")).to_have_count(1)
    assert "1 anomaly" in shown.text("#hits")
    shown.page.keyboard.press("Enter")
    expect(shown.page.locator("#chart-h")).to_have_text("third{host=\"a\"}")
    shown.page.keyboard.press("/")
    shown.page.keyboard.type("nothing")
    expect(shown.page.locator("#hits")).to_have_text("No series matches “nothing”")


def test_a_bar_of_the_overview_filters_the_list_and_escape_shows_all(three, dashboard):
    shown = dashboard(three).open()
    expect(shown.page.locator("#rows .row")).to_have_count(3)
    bar = shown.page.locator(".cell[data-key^='1/']").first
    name = bar.get_attribute("aria-label").split("{")[0]
    bar.click()
    expect(shown.page.locator("#rows .row")).to_have_count(1)
    assert name in shown.text("#chip") and name in shown.text("#rows .row") and shown.text("#chart-h").startswith(name)
    shown.page.keyboard.press("Escape")
    expect(shown.page.locator("#rows .row")).to_have_count(3)
    expect(shown.page.locator("#chip")).to_be_hidden()


@pytest.mark.parametrize("system, chosen", [("light", "dark"), ("dark", "light")])
def test_a_theme_survives_a_reload_without_a_flash_of_the_other(three, dashboard, system, chosen):
    shown = dashboard(three, color_scheme=system).open()
    body = shown.page.locator("body")
    expect(body).to_have_css("background-color", BACKGROUND[system])
    while shown.page.get_attribute("#theme", "aria-label") != f"Theme: {chosen}":
        shown.page.keyboard.press("t")
    expect(body).to_have_css("background-color", BACKGROUND[chosen])
    shown.context.add_init_script(WATCH)
    shown.page.reload()
    shown.connection("live")
    expect(shown.page.locator("#theme")).to_have_attribute("aria-label", f"Theme: {chosen}")
    assert shown.page.evaluate("() => [...seen]") == [BACKGROUND[chosen]]
