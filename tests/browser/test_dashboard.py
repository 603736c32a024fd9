"""The dashboard in a real browser, against a real server."""
import time

CALM = [{"metric": "cpu_usage", "labels": {"host": "web-1"}, "value": 50 + i % 5} for i in range(30)]


def test_an_anomaly_appears_in_red_within_two_seconds(server, dashboard):
    server.post_batch(CALM)
    server.settle()
    shown = dashboard(server).open()
    assert shown.page.title() == "anomaly"
    shown.page.wait_for_selector("#chart canvas")
    assert shown.rows() == [] and "No anomalies yet" in shown.text("#none")

    sent = time.monotonic()
    server.post_event(CALM[0] | {"value": 95})
    row = shown.page.wait_for_selector("#rows .row.critical", timeout=2000)
    assert time.monotonic() - sent < 2
    assert shown.page.evaluate("(row) => getComputedStyle(row.querySelector('svg')).color", row) == "rgb(192, 42, 55)"
    assert "cpu_usage" in row.inner_text() and "95" in row.inner_text()

    row.click()
    assert shown.text("#explain h3") == "Why this is an anomaly"
    anomaly = server.get("/anomalies")["anomalies"][0]
    assert shown.text("#explain .sentence") == anomaly["explanation"] + "."
    assert f"anomaly={anomaly['id']}" in shown.page.url
    assert shown.page.locator("#explain .checks li").count() == len(anomaly["checks"])


def test_the_page_is_whole_and_loads_nothing_from_elsewhere(shared_server, dashboard):
    shown, asked, size = dashboard(shared_server), [], []
    shown.page.on("request", lambda request: asked.append(request.url))
    shown.page.on("response", lambda response: "/assets/" in response.url and size.append(len(response.body())))
    shown.open()
    shown.page.wait_for_selector("#empty:not([hidden])")
    assert f"curl -s {shared_server.url}/events/raw" in shown.text("#curl")
    assert asked and all(url.startswith(shared_server.url) for url in asked)
    assert sum(size) <= 150_000
    policy = shared_server.http.get("/").headers["content-security-policy"]
    assert policy.startswith("default-src 'self'") and "unsafe" not in policy
    assert shown.page.evaluate("() => typeof uPlot") == "function"
