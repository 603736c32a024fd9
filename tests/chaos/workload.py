"""Writers whose rows are known in advance, so that after a crash it can be told what is lost, torn, doubled or invented."""
import itertools
import json
import random
import re
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass

import httpx

from compare import difference, grouped
from server import Server, run

START = 1_700_000_000
SPIKE_EVERY = 97


class Writer:
    """Sends batches of known sizes, one after the other, and remembers which were acknowledged.

    Row `i` goes to series `NAME.(i mod n_series)`, so one batch spans series, and its value is a function of `i`.
    `way` is batch (POST /events), single (POST /events/raw) or upload (POST /upload). Batches and uploads carry a key,
    so that the one which a crash has left in doubt can be sent again; of a single event `settle_doubt` finds out.
    `pad` is how many bytes of `meta` a row carries: the log grows by them, and so checkpoints and truncation come sooner.
    """

    def __init__(self, name: str, way: str = "batch", n_series: int = 5, sizes=(1, 10, 100, 1000), seed: int = 0, pad: int = 0):
        self.name, self.way, self.n_series, self.sizes = name, way, n_series, sizes
        self.more = {"meta": {"pad": "x" * pad}} if pad else {}
        self.run_id = uuid.uuid4().hex[:8]
        self.rng = random.Random(f"{name}-{seed}")
        self.sent: list[int] = []  # sizes of the batches, the last may be in doubt
        self.acked = 0  # how many of them were acknowledged
        self.refused = 0  # answers 503 and 507: the batch is sent again
        self.fault = ""

    # --- rows ----------------------------------------------------------------------------------------------------

    def rows(self, first: int, n: int) -> list[dict]:
        return [{"timestamp": START + i // self.n_series, "metric": f"{self.name}.{i % self.n_series}", "value": 500.0 if i % SPIKE_EVERY == SPIKE_EVERY - 1 else 50 + i * 7919 % 101 / 50} | self.more
                for i in range(first, first + n)]

    def total(self, n_batches: int) -> int:
        return sum(self.sent[:n_batches])

    def allowed(self) -> set[int]:
        """How many rows may be there: all acknowledged batches, and with or without the one in doubt."""
        return {self.total(self.acked), self.total(len(self.sent))}

    # --- sending -------------------------------------------------------------------------------------------------

    def write(self, server: Server, stop: threading.Event) -> None:
        """Sends until told to stop or until the server is gone; begins with the batch in doubt, if there is one."""
        while not stop.is_set() and not self.fault:
            if self.acked == len(self.sent):
                self.sent.append(1 if self.way == "single" else self.rng.choice(self.sizes))
            try:
                response = self.send(server, self.acked)
            except httpx.TransportError:
                return
            if response.status_code in (200, 202):
                self.acked += 1
            elif response.status_code in (409, 503, 507):
                self.refused += 1
                time.sleep(0.05)
            else:
                self.fault = f"{self.name}: {response.status_code} {response.text[:300]}"

    def send(self, server: Server, batch: int) -> httpx.Response:
        rows = self.rows(self.total(batch), self.sent[batch])
        key = f"{self.run_id}-{self.name}-{batch}"
        if self.way == "single":
            return server.http.post("/events/raw", json=rows[0])
        if self.way == "upload":
            data = "timestamp,metric,value\n" + "".join(f"{r['timestamp']},{r['metric']},{r['value']}\n" for r in rows)
            return server.upload(f"{self.name}-{batch}.csv", data.encode(), key=key)
        return server.post_batch(rows, idempotency_key=key)

    # --- checking ------------------------------------------------------------------------------------------------

    def settle_doubt(self, counts: dict[str, int]) -> None:
        """A single event in doubt that is there counts as acknowledged, and is not sent again."""
        if self.way == "single" and self.present(counts) == self.total(len(self.sent)):
            self.acked = len(self.sent)

    def present(self, counts: dict[str, int]) -> int:
        return sum(n for series, n in counts.items() if series.startswith(f"{self.name}."))

    def evenly(self, counts: dict[str, int]) -> bool:
        """Whether each series has its share of the rows that are present: a batch must not be half there."""
        n = self.present(counts)
        return all(counts.get(f"{self.name}.{k}", 0) == len(range(k, n, self.n_series)) for k in range(self.n_series))


@dataclass
class Check:
    """What was found after one crash."""

    acked: int = 0  # acknowledged rows
    lost: int = 0  # acknowledged rows that are not there
    torn: int = 0  # batches of which a part is there
    phantoms: int = 0  # rows that nobody has sent, or that are there twice

    def __iadd__(self, other: "Check") -> "Check":
        self.acked += other.acked
        self.lost += other.lost
        self.torn += other.torn
        self.phantoms += other.phantoms
        return self

    @property
    def clean(self) -> bool:
        return not (self.lost or self.torn or self.phantoms)


def work(server: Server, writers: list[Writer], until) -> None:
    """All writers at work while `until` runs in this thread."""
    stop = threading.Event()
    threads = [threading.Thread(target=w.write, args=(server, stop)) for w in writers]
    [t.start() for t in threads]
    try:
        until()
    finally:
        stop.set()
        [t.join() for t in threads]
    assert not (faults := [w.fault for w in writers if w.fault]), faults


def work_and_kill(server: Server, writers: list[Writer], seconds: float, ends=None) -> None:
    """All writers at work for some seconds, then kill -9; where the server may end by itself, `ends` says whether it has reason
    to by then, and it gets some more."""
    def until():
        if ends is None:
            time.sleep(seconds)
        elif server.wait_exit(seconds) is None and ends():
            server.wait_exit(5)
        server.kill()
    work(server, writers, until)


def finish(server: Server, writers: list[Writer], timeout: float = 120) -> None:
    """Every batch in doubt is sent again until it is acknowledged."""
    deadline = time.monotonic() + timeout
    for w in writers:
        while w.acked < len(w.sent):
            response = w.send(server, w.acked)
            if response.status_code in (200, 202):
                w.acked += 1
            else:
                assert response.status_code in (409, 503, 507) and time.monotonic() < deadline, f"{w.name}: {response.status_code} {response.text[:300]}"
                time.sleep(0.05)


def check(server: Server, writers: list[Writer], timeout: float = 20) -> Check:
    """Looks for what the writers have sent; an upload that is being taken up again has some time to end."""
    deadline = time.monotonic() + timeout
    while True:
        server.settle()
        counts = server.series_counts()
        if all(w.present(counts) in w.allowed() for w in writers) or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    found = Check(acked=sum(w.total(w.acked) for w in writers))
    for w in writers:
        n, most = w.present(counts), w.total(len(w.sent))
        found.lost += max(0, w.total(w.acked) - n)
        found.phantoms += max(0, n - most)
        found.torn += n not in set(itertools.accumulate(w.sent, initial=0)) or not w.evenly(counts)
        w.settle_doubt(counts)
    return found


def anomalies_differ(server: Server, writers: list[Writer], **env) -> str:
    """Compares each writer's anomalies, ids and order included, with those of an uninterrupted run over the same rows."""
    writer_of = (lambda series: series.rsplit(".", 1)[0])
    counts, expected = server.series_counts(), {}
    for w in writers:
        with tempfile.NamedTemporaryFile("w", suffix=".ndjson") as file:
            file.writelines(json.dumps(r) + "\n" for r in w.rows(0, w.present(counts)))
            file.flush()
            done = run("detect", file.name, "--format", "json", **env)
        assert done.returncode == 0, done.stderr.decode()[-1000:]
        expected |= grouped(done.stdout.decode().splitlines(), writer_of)
    found = server.anomalies()
    ids = [json.loads(a)["id"] for a in found]
    if len(ids) != len(set(ids)):
        return f"{len(ids) - len(set(ids))} anomalies are there twice"
    without_event_id = {k: [strip_event_id(a) for a in v] for k, v in grouped(found, writer_of).items()}
    return difference(without_event_id, {k: [strip_event_id(a) for a in v] for k, v in expected.items()})


def strip_event_id(anomaly: str) -> str:
    """Live, an event without an id is given one when it came by POST /events/raw."""
    return re.sub(r',?"event_id":(?:null|"(?:[^"\\]|\\.)*")(?=[,}])', "", anomaly)


def starts_from_checkpoints(server: Server) -> int:
    """How many starts so far have gone on from a checkpoint and not from the first frame of the log."""
    return sum(first != "1" for first in re.findall(r"replaying frames (\d+) to", server.log()))


def mixed_writers(seed: int = 0, heavy: int = 0) -> list[Writer]:
    """Four of batches, two of single events, one of uploads, and `heavy` ones whose rows are large."""
    return [*(Writer(f"heavy{k}", sizes=(300, 1000), seed=seed, pad=12_000) for k in range(heavy)),
            *(Writer(f"batch{k}", seed=seed) for k in range(4)), *(Writer(f"single{k}", "single", seed=seed) for k in range(2)),
            Writer("upload", "upload", sizes=(500, 5000, 20_000), seed=seed)]
