"""Load whose anomalies are known: clients that send batches through API replicas, note which were acknowledged, and retry nothing
without a key.

Each client writes series of its own in the order of time. A batch is calm rows and a spike at its end, 1,000 seconds after the
batch before, so that each batch is exactly one anomaly, whichever others are there. What is not acknowledged is in doubt: it may
be there or not, and a client that has one in doubt begins a new series, so that it is the last of its series. `verify` compares
with `anomaly detect` over what is there: the ids hold the ordinal of each event, so one event too many or too few would show.
"""
import hashlib
import json
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx

from compare import difference, grouped
from server import Server, run

START = 1_700_000_000
APART = 1000  # seconds between two batches, more than a window
BACK_OFF = 0.2  # seconds, after a refusal


@dataclass
class Series:
    name: str
    sent: int = 0  # batches, of which the last may be in doubt
    acked: int = 0


@dataclass
class Refusal:
    at: float  # time.monotonic()
    what: str  # the status, or the kind of fault
    told_when: bool  # whether it said when to come again


class Client(threading.Thread):
    """Posts to each of `urls` in turn until `stop`. `pad` is how many bytes of incompressible text a calm row carries."""

    def __init__(self, name: str, urls, stop: threading.Event, calm: int = 20, pad: int = 0, pause: float = 0.02, timeout: float = 20):
        super().__init__(name=name, daemon=True)
        self.urls, self.stop, self.calm, self.pad, self.pause, self.timeout = list(urls), stop, calm, pad, pause, timeout
        self.series, self.refusals, self.slowest, self.fault, self.turn = [Series(f"{name}.0")], [], 0.0, None, 0
        self.acked_at: list[float] = []  # time.monotonic() of each acknowledgement

    @property
    def per_batch(self) -> int:
        return self.calm + 1

    def rows(self, series: Series, batch: int) -> list[dict]:
        start, metric = START + APART * batch, series.name
        rows = [{"id": f"{metric}-{batch}-{i}", "timestamp": start + i, "metric": metric, "value": 50 + (batch + i) * 7919 % 101 / 50} for i in range(self.calm)]
        if self.pad:
            for row in rows:
                row["meta"] = {"pad": hashlib.shake_128(row["id"].encode()).hexdigest(self.pad // 2)}
        return [*rows, {"id": f"{metric}-{batch}-spike", "timestamp": start + self.calm, "metric": metric, "value": 500 + batch}]

    def run(self) -> None:
        try:
            with httpx.Client(timeout=self.timeout) as http:
                while not self.stop.is_set():
                    self.send(http)
                    self.stop.wait(self.pause)
        except BaseException as fault:
            self.fault = fault

    def send(self, http: httpx.Client) -> None:
        """The next batch of the last series."""
        if not self.post(http, self.series[-1:]):
            self.series.append(Series(f"{self.name}.{len(self.series)}"))
            self.stop.wait(BACK_OFF)

    def post(self, http: httpx.Client, series: list[Series], **headers) -> bool:
        """The next batch of each of these series, in one request; whether it was acknowledged."""
        body = "".join(json.dumps(row) + "\n" for one in series for row in self.rows(one, one.acked))
        for one in series:
            one.sent = one.acked + 1
        started, self.turn = time.monotonic(), self.turn + 1
        try:
            answer = http.post(f"{self.urls[self.turn % len(self.urls)]}/events", content=body, headers={"content-type": "application/x-ndjson"} | headers)
        except httpx.TransportError as fault:
            self.refusals.append(Refusal(started, type(fault).__name__, False))
            return False
        self.slowest = max(self.slowest, time.monotonic() - started)
        if answer.status_code == 202 and answer.json()["accepted"] == self.per_batch * len(series):
            for one in series:
                one.acked += 1
            self.acked_at.append(time.monotonic())
            return True
        self.refusals.append(Refusal(started, str(answer.status_code), "retry-after" in answer.headers))
        return False


class Keyed(Client):
    """A batch is one of each of `wide` series, so that it has rows in many partitions of a log on Kafka. It is sent again under its
    Idempotency-Key until it is acknowledged, by another replica each time: then none of it may be missing or there twice."""

    def __init__(self, name: str, *args, wide: int = 12, **options):
        super().__init__(name, *args, **options)
        self.series = [Series(f"{name}.{k}") for k in range(wide)]

    def send(self, http: httpx.Client) -> None:
        key = f"{self.name}-{self.series[0].acked}"
        while not self.post(http, self.series, **{"idempotency-key": key}) and not self.stop.wait(BACK_OFF):
            pass


class Load:
    """Clients at work from `start` (or `with`) to `end`, `keyed` more of which retry under a key."""

    def __init__(self, urls, n: int = 4, keyed: int = 0, name: str = "load", **options):
        self.stop = threading.Event()
        self.clients = [Client(f"{name}{k}", urls, self.stop, **options) for k in range(n)] + [Keyed(f"{name}-keyed{k}", urls, self.stop, **options) for k in range(keyed)]

    def start(self) -> "Load":
        for client in self.clients:
            client.start()
        return self

    def end(self) -> "Load":
        self.stop.set()
        for client in self.clients:
            client.join()
        assert not (faults := [c.fault for c in self.clients if c.fault]), faults
        return self

    def __enter__(self) -> "Load":
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop.set()
        for client in self.clients:
            client.join()

    @property
    def acked(self) -> int:
        """Acknowledged events."""
        return sum(series.acked * client.per_batch for client in self.clients for series in client.series)

    @property
    def refusals(self) -> list[Refusal]:
        return [refusal for client in self.clients for refusal in client.refusals]

    def refused(self) -> str:
        """How often, by what was answered."""
        counts = Counter(refusal.what for refusal in self.refusals)
        return ", ".join(f"{what} {n}" for what, n in sorted(counts.items())) or "none"

    def acked_between(self, since: float, until: float) -> int:
        """Batches that were acknowledged meanwhile, in time.monotonic()."""
        return sum(since <= at < until for client in self.clients for at in client.acked_at)

    def wait_acked(self, n: int, timeout: float = 60) -> None:
        """Waits until so many more events were acknowledged."""
        wanted, deadline = self.acked + n, time.monotonic() + timeout
        while self.acked < wanted:
            assert time.monotonic() < deadline, f"{wanted - self.acked} of {n} events were not acknowledged within {timeout} s; refused: {self.refused()}"
            time.sleep(0.05)


@dataclass
class Verdict:
    """What of a load is there."""

    acked: int = 0  # acknowledged events
    present: int = 0  # events that are there
    lost: int = 0  # acknowledged events that are not
    torn: int = 0  # series in which a part of a batch is there
    phantoms: int = 0  # events that nobody has sent, or that are there twice
    duplicates: int = 0  # events that arrived twice and were told apart by their id
    doubled: list[str] = field(default_factory=list)  # ids of anomalies that are listed twice
    differ: str = ""  # where anomalies differ from those of `anomaly detect`
    ids: set[str] = field(default_factory=set)  # of the anomalies that are stored
    totals: str = ""  # where /stats differs from the series

    @property
    def clean(self) -> bool:
        return not (self.lost or self.torn or self.phantoms or self.duplicates or self.doubled or self.differ or self.totals)

    def __str__(self) -> str:
        return f"lost {self.lost} of {self.acked:,}, events twice {self.phantoms + self.duplicates}, partial batches {self.torn}, anomalies twice {len(self.doubled)}, " \
               f"anomalies {self.differ or 'as offline'}{', ' + self.totals if self.totals else ''}"


def counted(server: Server, timeout: float = 3) -> tuple[dict[str, int], dict]:
    """The counts of a quiet server's series and its totals. A replica is shown series a moment after their events: so long they may differ."""
    deadline = time.monotonic() + timeout
    while sum((counts := server.series_counts()).values()) != (stats := server.get("/stats"))["events_total"] and time.monotonic() < deadline:
        time.sleep(0.05)
    return counts, stats


def verify(server: Server, *loads: Load, others: int = 0) -> Verdict:
    """Compares what a quiet server holds with what was sent. `others` is how many events came from elsewhere."""
    clients = [client for load in loads for client in load.clients]
    (counts, stats), verdict, rows = counted(server), Verdict(), []
    for client in clients:
        for series in client.series:
            n, acked = counts.get(series.name, 0), series.acked * client.per_batch
            verdict.acked += acked
            verdict.present += n
            verdict.lost += max(0, acked - n)
            verdict.phantoms += max(0, n - series.sent * client.per_batch)
            verdict.torn += n % client.per_batch != 0
            rows += [(client, series, batch) for batch in range(min(series.sent, -(-n // client.per_batch)))]
    if stats["events_total"] != verdict.present + others:
        verdict.totals = f"events_total {stats['events_total']:,}, but the series hold {verdict.present + others:,}"
    verdict.duplicates = stats["duplicates_total"]
    names = {series.name for client in clients for series in client.series}
    found = [a for a in server.anomalies() if json.loads(a)["series"] in names]
    ids = Counter(json.loads(a)["id"] for a in found)
    verdict.ids, verdict.doubled = set(ids), [id for id, n in ids.items() if n > 1]
    verdict.differ = difference(grouped(found), grouped(offline(rows)))
    # A batch that is missing in the middle is hidden by one in doubt behind it, but not its spike.
    spikes = {(a["series"], a["value"]) for a in map(json.loads, found)}
    missing = sum((series.name, 500.0 + batch) not in spikes for client in clients for series in client.series for batch in range(series.acked))
    verdict.lost = max(verdict.lost, missing * (clients[0].per_batch if clients else 0))
    return verdict


def offline(batches) -> list[str]:
    """What `anomaly detect` finds in these batches."""
    with tempfile.NamedTemporaryFile("w", suffix=".ndjson") as file:
        for client, series, batch in batches:
            file.writelines(json.dumps(row) + "\n" for row in client.rows(series, batch))
        file.flush()
        if not file.tell():
            return []
        done = run("detect", file.name, "--format", "json", timeout=600)
    assert done.returncode == 0, done.stderr.decode()[-1000:]
    return done.stdout.decode().splitlines()
