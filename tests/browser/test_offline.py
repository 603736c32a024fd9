"""The connection goes and comes back: what the page says meanwhile, and that nothing is lost or counted twice."""
import re
import shutil

from playwright.sync_api import expect

from .events import calm, counts, send, spike, totals, until

REFUSED = ("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE", "ERR_SOCKET_NOT_CONNECTED")
NO_SOCKETS = "window.WebSocket = class { constructor() { setTimeout(() => this.onclose?.(), 50); } close() {} };"


def same(shown, server) -> None:
    """The list holds what the server holds: each incident once, with its count."""
    expect(shown.page.locator("#feed-n")).to_have_text(totals(server))
    until(shown.page, lambda: shown.counts() == counts(server), "the rows are the incidents of the server")
    keys = [row["key"] for row in shown.rows()]
    assert len(keys) == len(set(keys)) == len(counts(server))


def test_a_killed_server_is_missed_and_caught_up_with(server, dashboard):
    for n in range(4):
        send(server, [*calm(f"m{n}"), spike(f"m{n}")])
    shown = dashboard(server).open()
    expect(shown.page.locator("#rows .row")).to_have_count(4)
    expect(shown.page.locator("#chart-now")).to_contain_text("500")  # else it is killed before the chart has its points
    server.kill()
    shown.connection("offline")
    banner = shown.page.locator("#banner span")
    expect(banner).to_have_text(re.compile(r"^Connection lost at \d\d:\d\d:\d\d\. Trying again in \d+ s\.$"))
    assert shown.text("#conn") == "Offline" and shown.text("#flow") == "Offline" and len(shown.rows()) == 4
    expect(shown.page.locator("#chart-now")).to_have_text(re.compile(r"^500 at \d\d:\d\d:\d\d$"))

    # The waits grow, and each is counted down second by second.
    expect(banner).to_contain_text("in 8 s")
    for left in (7, 6, 5):
        expect(banner).to_contain_text(f"in {left} s")
    server.start()
    for n in range(2):
        send(server, [spike(f"m{n}", 900)])
    for n in range(3):
        send(server, [*calm(f"new{n}"), spike(f"new{n}")])
    shown.page.get_by_role("button", name="Reconnect now").click()
    shown.connection("live", 30)
    expect(shown.page.locator("#toast")).to_have_text("Missed 5 anomalies while away, loaded")
    expect(shown.page.locator("#banner")).to_be_hidden()
    expect(shown.page.locator("#rows .divider")).to_have_text("5 anomalies while you were away")
    order = shown.page.evaluate("() => [...document.querySelectorAll('#rows > li')].map((li) => li.className)")
    assert order.index("divider") == len(order) - 5  # the four rows that were there are below it
    same(shown, server)
    send(server, [spike("m0", 1200), *calm("after"), spike("after")])
    expect(shown.page.locator("#rows .row", has_text="after")).to_have_count(1)
    same(shown, server)
    shown.forgive(*REFUSED)


def test_a_server_that_comes_back_by_itself_is_found_and_nothing_was_missed(server, dashboard):
    send(server, [*calm("only"), spike("only")])
    shown = dashboard(server).open()
    expect(shown.page.locator("#rows .row")).to_have_count(1)
    server.kill()
    shown.connection("offline")
    server.start()
    shown.connection("live", 60)
    expect(shown.page.locator("#toast")).to_have_text("Connected again. Nothing was missed.")
    expect(shown.page.locator("#rows .divider")).to_have_count(0)
    same(shown, server)
    shown.forgive(*REFUSED)


def empty(server, shown, wait: str) -> None:
    """Starts it again on an empty data directory, when the page says that it tries again in so many seconds."""
    server.terminate()
    shown.connection("offline")
    expect(shown.page.locator("#banner span")).to_contain_text(wait)
    shutil.rmtree(server.data_dir)
    server.start()


def test_an_emptied_data_directory_leaves_nothing_of_the_old_one(server, dashboard):
    """The new store has given the same numbers, and more, to other anomalies."""
    for n in range(2):
        send(server, [*calm(f"gone{n}"), spike(f"gone{n}")])
    shown = dashboard(server)
    shown.context.add_init_script("addEventListener('DOMContentLoaded', () => { window.said = []; new MutationObserver(() => said.push(document.getElementById('toast').textContent)).observe(document.getElementById('toast'), { childList: true }); });")
    shown.open()
    page = shown.page
    page.locator("#rows .row", has_text="gone0").click()
    expect(page.locator("#chart-h")).to_have_text("gone0")
    empty(server, shown, "in 8 s")
    for n in range(12):
        send(server, [*calm(f"new{n}"), spike(f"new{n}")])
    page.mouse.move(5, 500)
    page.get_by_role("button", name="Reconnect now").click()
    shown.connection("live", 30)
    expect(page.locator("#rows .row")).to_have_count(12)
    same(shown, server)
    assert [row["key"] for row in shown.rows()] == [incident["id"] for incident in server.get("/incidents")["incidents"]]
    expect(page.locator("#toast")).to_have_text("The server has other data than before. The list was loaded anew.")
    assert not any("Missed" in text for text in page.evaluate("() => said")) and page.locator("#rows .divider").count() == 0
    # What was open is gone, so the newest is.
    expect(page.locator("#chart-h")).to_have_text("new11")
    expect(page.locator("#explain h3")).to_have_text("Why this is an anomaly")
    expect(page.locator("#chart-now")).to_contain_text("500")
    assert "gone" not in page.url and "gone" not in shown.text("#main")
    send(server, [*calm("after"), spike("after")])
    expect(page.locator("#rows .row")).to_have_count(13)
    same(shown, server)
    shown.forgive(*REFUSED, "404 (Not Found)")


def test_a_data_directory_emptied_of_all_events_shows_the_empty_state_again(server, dashboard):
    send(server, [*calm("old"), spike("old")])
    shown = dashboard(server).open()
    expect(shown.page.locator("#chart-h")).to_have_text("old")
    empty(server, shown, "in 2 s")
    shown.connection("live", 60)
    expect(shown.page.locator("#empty")).to_be_visible()
    expect(shown.page.locator("#waiting")).to_have_text("Waiting for your first event…")
    expect(shown.page.locator("#main")).to_be_hidden()
    send(server, [*calm("young"), spike("young")])
    expect(shown.page.locator("#waiting")).to_contain_text("21 events received.")
    expect(shown.page.locator("#main")).to_be_visible()
    expect(shown.page.locator("#chart-h")).to_have_text("young")
    expect(shown.page.locator("#chart canvas")).to_be_visible()
    same(shown, server)
    shown.forgive(*REFUSED, "404 (Not Found)")


def test_a_socket_that_is_cut_again_and_again_loses_nothing(shared_server, dashboard):
    send(shared_server, [event for n in range(30) for event in calm(f"cut_{n}")] + [spike("cut_0")])
    shown, sockets = dashboard(shared_server), []

    def through(route) -> None:
        route.connect_to_server()
        sockets.append(route)

    shown.page.route_web_socket(re.compile("/ws/anomalies"), through)
    shown.open()
    expect(shown.page.locator("#rows .row")).to_have_count(1)
    for n in range(1, 30):
        shared_server.post_event(spike(f"cut_{n}"))
        if n % 10 == 5:
            sockets[-1].close()
            shown.connection("offline")
            shared_server.post_event(spike(f"cut_{n}", 900))
            shown.connection("live", 30)
    shared_server.settle()
    assert len(sockets) == 4 and len(counts(shared_server)) == 30
    same(shown, shared_server)


def test_a_page_without_websockets_asks_instead(shared_server, dashboard):
    shown = dashboard(shared_server)
    shown.context.add_init_script(NO_SOCKETS)
    shown.open(state="polling")
    assert shown.text("#conn") == "Polling"
    send(shared_server, [*calm("polled"), spike("polled")])
    expect(shown.page.locator("#rows .row", has_text="polled")).to_have_count(1)
    same(shown, shared_server)
