"""Events as the tests of the dashboard send them, and a wait for what only Python can see."""
import time
from collections.abc import Callable


def calm(metric: str, n: int = 20, start: float | None = None, step: float = 1, **labels: str) -> list[dict]:
    """`n` ordinary values, 50 to 52, that end now or begin at `start`."""
    start = time.time() - n * step if start is None else start
    return [{"metric": metric, "labels": labels, "timestamp": start + i * step, "value": 50 + i % 3} for i in range(n)]


def spike(metric: str, value: float = 500, at: float | None = None, **labels: str) -> dict:
    """One value far outside what `calm` sends."""
    return {"metric": metric, "labels": labels, "timestamp": time.time() if at is None else at, "value": value}


def send(server, events: list[dict]) -> None:
    """Sends in one request and waits until all is judged."""
    response = server.post_batch(events)
    assert response.status_code == 202, response.text
    server.settle()


def until(page, says: Callable[[], bool], what: str, timeout: float = 30) -> None:
    """Waits until `says` is true; the page goes on meanwhile."""
    deadline = time.monotonic() + timeout
    while not says():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        page.wait_for_timeout(50)


def totals(server) -> str:
    """What the heading of the list must say."""
    said = server.get("/incidents", limit=1)["totals"]
    anomalies, incidents = said["anomalies"], said["incidents"]
    return f"{anomalies:,} in {incidents:,} incident{'' if incidents == 1 else 's'}"


def counts(server) -> dict[str, int]:
    """How many anomalies each of the newest incidents holds."""
    return {incident["id"]: incident["count"] for incident in server.get("/incidents", limit=1000)["incidents"]}
