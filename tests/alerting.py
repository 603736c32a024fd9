"""What tests of alerting share: calm series and spikes in them, a server whose messages arrive in sinks, scenarios side by side."""
import contextlib
import functools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from server import Server
from sinks import HttpSink, SmtpSink

ACCOUNT = ("ops", "s3cret")
EMAIL = {"EMAIL_ENABLED": "true", "SMTP_HOST": "127.0.0.1", "SMTP_TLS": "starttls", "SMTP_USER": ACCOUNT[0], "SMTP_PASSWORD": ACCOUNT[1],
         "EMAIL_FROM": "Alerts <alerts@example.org>", "EMAIL_TO": "ops@example.org"}

# --- what is fed -------------------------------------------------------------------------------------------------
# 20 samples of 50 to 54: mean 52, standard deviation 1.45.
NORMAL, WARNING, CRITICAL = 52, 59, 95


def event(metric: str, at: float, value: float, **labels: str) -> dict:
    return {"metric": metric, "timestamp": round(at, 6), "value": value} | ({"labels": labels} if labels else {})


def calm(metric: str, until: float, n: int = 20, step: float = 0.25, **labels: str) -> list[dict]:
    """`n` samples in which nothing happens; the last is a step before `until`."""
    return [event(metric, until - (n - i) * step, 50 + i % 5, **labels) for i in range(n)]


def burst(metric: str, at: float, value: float = CRITICAL, **labels: str) -> list[dict]:
    """A calm series with one anomaly at its end."""
    return [*calm(metric, at, **labels), event(metric, at, value, **labels)]


def feed(server: Server, events: list[dict]) -> None:
    answer = server.post_batch(events)
    assert answer.status_code == 202 and answer.json()["accepted"] == len(events), f"{answer.status_code} {answer.text[:500]}"
    server.settle()


# --- what comes of it --------------------------------------------------------------------------------------------


def until(found: Callable, what: str, timeout: float = 30):
    """What `found` returns, as soon as that is something."""
    deadline = time.monotonic() + timeout
    while not (it := found()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout} s"
        time.sleep(0.05)
    return it


def incidents(server: Server, **filters) -> list[dict]:
    """All, newest first."""
    found, cursor = [], {}
    while True:
        page = server.get("/incidents", limit=1000, **filters, **cursor)
        found += page["incidents"]
        if page["next"] is None:
            return found
        cursor = {"cursor": page["next"]}


def incident_of(server: Server, metric: str) -> dict:
    """The only incident of a metric, as soon as there is one."""
    [one] = until(lambda: incidents(server, metric=metric), f"an incident of {metric}")
    return one


def reached(server: Server, id: str, state: str, timeout: float = 40) -> dict:
    """An incident, as soon as it is in a state."""
    found = lambda: (one := server.get(f"/incidents/{id}")["incident"])["state"] == state and one
    return until(found, f"incident {id} {state}", timeout)


def said(server: Server, id: str, act: str, expected: int = 200, **words) -> dict:
    """The answer to POST /incidents/{id}/{act}."""
    answer = server.http.post(f"/incidents/{id}/{act}", json=words)
    assert answer.status_code == expected, f"{act} {words}: {answer.status_code} {answer.text[:500]}"
    return answer.json()


def history(server: Server, id: str) -> list[str]:
    return [entry["what"] for entry in server.get(f"/incidents/{id}")["history"]]


def notifications(server: Server, **filters) -> list[dict]:
    """All, oldest first."""
    found, cursor = [], {}
    while True:
        page = server.get("/notifications", limit=1000, **filters, **cursor)
        found += page["notifications"]
        if page["next"] is None:
            return found[::-1]
        cursor = {"cursor": page["next"]}


def all_told(server: Server) -> None:
    """Waits until each incident that there is has its own message, and then until each is sent: nothing is pending, either, while new ones are gathered."""
    opened = lambda: {id for n in notifications(server) if n["kind"] == "opened" for id in n["incidents"]}
    until(lambda: {i["id"] for i in incidents(server)} == opened(), "a message of each incident", timeout=60)
    until(lambda: not notifications(server, status="pending"), "each message sent", timeout=60)


class Told:
    """What arrived at a webhook."""

    def __init__(self, sink: HttpSink):
        self.sink = sink

    @property
    def all(self) -> list[dict]:
        """Each request: its id, type, data, and when it came."""
        return [{"id": r["headers"].get("webhook-id"), **json.loads(r["body"]), "at": r["at"], "raw": r["body"]} for r in list(self.sink.received.all)]

    def of(self, metric: str, kind: str | None = None) -> list[dict]:
        """Those about a metric."""
        about = lambda one: any(incident["metric"] == metric for incident in one["data"]["incidents"])
        return [one for one in self.all if about(one) and kind in (None, one["type"].removeprefix("incident."))]

    def kinds(self, metric: str) -> list[str]:
        return [one["type"].removeprefix("incident.") for one in self.of(metric)]

    def wait(self, metric: str, kind: str, n: int = 1, timeout: float = 30) -> list[dict]:
        return until(lambda: len(found := self.of(metric, kind)) >= n and found, f"{n} × {kind} of {metric} (told: {self.kinds(metric)})", timeout)

    def digests(self) -> list[dict]:
        return [one for one in self.all if one["type"] == "digest"]


class Channels:
    """A webhook and a mailbox, and the settings that lead there."""

    def __init__(self, cert: tuple[Path, Path], *answers):
        self.hook, self.mail = HttpSink(*answers), SmtpSink(cert, account=ACCOUNT)
        self.told = Told(self.hook)
        self.webhook_env = {"WEBHOOK_URL": f"{self.hook.url}/hook", "WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
        self.email_env = EMAIL | {"SMTP_PORT": self.mail.port, "SMTP_CA_FILE": cert[0]}
        self.env = self.webhook_env | self.email_env

    @property
    def mails(self) -> list[dict]:
        return list(self.mail.received.all)

    def subjects(self) -> list[str]:
        return [received["mail"]["Subject"] for received in self.mails]

    def texts(self) -> list[str]:
        return [received["mail"].get_body(("plain",)).get_content() for received in self.mails]

    def __enter__(self) -> "Channels":
        return self

    def __exit__(self, *_) -> None:
        self.hook.__exit__()
        self.mail.__exit__()


class Gate:
    """In front of a sink: while closed it accepts connections and never answers. Opening drops what hung in it."""

    def __init__(self, port: int):
        self.behind, self.is_open, self._held, self._lock = port, False, [], threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                with self._lock:
                    if not self.is_open:
                        self._held.append(client)
                        continue
                other = socket.create_connection(("127.0.0.1", self.behind))
                for a, b in ((client, other), (other, client)):
                    threading.Thread(target=self._pipe, args=(a, b), daemon=True).start()

    @staticmethod
    def _pipe(a: socket.socket, b: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := a.recv(65536):
                b.sendall(data)
        with contextlib.suppress(OSError):
            b.shutdown(socket.SHUT_WR)

    @property
    def held(self) -> int:
        """How many hang in it, or did."""
        return len(self._held)

    def open(self) -> None:
        with self._lock:
            self.is_open = True
            for client in self._held:
                client.close()

    def __enter__(self) -> "Gate":
        return self

    def __exit__(self, *_) -> None:
        self.listener.close()


# --- side by side ------------------------------------------------------------------------------------------------


AT_ONCE = 14


def scenario(function):
    """A test of mostly waiting. All that were chosen run at the same time, each in its thread; pytest sees one after the other.

    It takes a folder of its own and a certificate.
    """
    @functools.wraps(function)
    def test(side_by_side):
        side_by_side[function.__name__].result()
    del test.__wrapped__  # else pytest asks for what `function` takes
    test.scenario = function
    return test


@contextlib.contextmanager
def started(items, folder: Callable[[str], Path], cert: tuple[Path, Path]) -> Iterator[dict]:
    """Begins the scenarios among the tests; those that do not run at once follow."""
    chosen = {item.name: item.function.scenario for item in items if hasattr(getattr(item, "function", None), "scenario")}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {name: pool.submit(function, folder(name[:40]), cert) for name, function in chosen.items()}
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def serving(folder: Path, name: str = "data", args=("all",), **env) -> Iterator[Server]:
    """A server; its log stands below the fault of a scenario that failed."""
    with Server(folder / name, args=args, **env) as server:
        try:
            yield server
        except BaseException as fault:
            fault.add_note(f"--- end of the server's log ---\n{server.log()[-3000:]}")
            raise


def quantile(values: list[float], q: float) -> float:
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]
