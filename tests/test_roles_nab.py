"""Real series through API replicas, Redis and processors that are killed: what is found is byte for byte what `anomaly detect` finds."""
import json
import threading
import time
from collections import Counter
from itertools import zip_longest

import httpx
import pytest

import nab
from alerting import incidents
from compare import difference, grouped
from nab import WINDOW, rows
from needs import need


@pytest.fixture(scope="module")
def files():
    return nab.files()


@pytest.fixture(scope="module")
def offline(files) -> list[str]:
    return nab.detect()


def judged(stack) -> int:
    """How many events are behind the active processor."""
    stats = stack.api.get("/stats")
    return stats["events_total"] - stats["queue_depth"]


def same(stack, offline: list[str], files) -> None:
    """Every replica shows each anomaly and each incident of `anomaly detect`, once."""
    expected = grouped(offline)
    counts = Counter(json.loads(a)["incident_id"] for a in offline)
    for api in stack.apis:
        found = api.anomalies()
        ids = Counter(json.loads(a)["id"] for a in found)
        assert not (twice := [id for id, n in ids.items() if n > 1]), f"{api}: {len(twice)} anomalies are listed twice"
        assert not (told := difference(grouped(found), expected)), f"{api}: {told}"
        assert {i["id"]: i["count"] for i in incidents(api)} == counts, api
        assert api.series_counts() == {file.stem: rows(file) for file in files}, api
        assert api.get("/stats")["events_total"] == sum(map(rows, files))


def test_roles_find_what_detect_finds_although_processors_are_killed(stack, files, offline):
    """A file to each replica in turn; the active processor is killed while it is at work, twice, and comes back to stand by."""
    running, killed_at = stack(**WINDOW), []

    def kill() -> None:
        active = running.active()
        active.kill()
        killed_at.append(len(running.api.anomalies()))
        active.start()
    for i, file in enumerate(files):
        answer = running.apis[i % 2].upload(file.name, file.read_bytes())
        assert answer.status_code == 200, f"{file.name}: {answer.text[:500]}"
        assert answer.json()["files"][0]["accepted"] == rows(file), f"{file.name}: {answer.text[:500]}"
        if i in (len(files) // 3, 2 * len(files) // 3):
            kill()
    running.settle()
    assert len(killed_at) == 2 and 0 < killed_at[0] < len(offline) and killed_at[1] < len(offline), f"{killed_at} of {len(offline)}"
    same(running, offline, files)
    assert not running.panics()


def test_one_large_upload_survives_the_kill_of_every_role(stack, files, offline):
    """All files in one request with a key: the processor, then the replica that takes it, are killed in the middle of its rows."""
    running = stack(**WINDOW)
    a, b = running.apis
    parts, answers = [("files", (file.name, file.read_bytes())) for file in files], []

    def send() -> None:
        try:
            answers.append(a.http.post("/upload/bulk", files=parts, headers={"Idempotency-Key": "all"}, timeout=300))
        except httpx.TransportError as fault:
            answers.append(fault)
    sender = threading.Thread(target=send)
    sender.start()
    active = running.active()
    total = sum(map(rows, files))
    running.wait(lambda: judged(running) > 0 or answers, "the first rows are taken", 60)
    active.kill()
    running.wait(lambda: b.get("/stats")["events_total"] > total // 4 or answers, "a quarter is taken", 60)
    a.kill()
    sender.join()
    a.start()
    active.start()
    deadline = time.monotonic() + 120
    while (answer := a.http.post("/upload/bulk", files=parts, headers={"Idempotency-Key": "all"}, timeout=300)).status_code in (409, 503):
        assert time.monotonic() < deadline, answer.text[:500]
        time.sleep(0.2)
    assert answer.status_code == 200, answer.text[:500]
    assert [f["accepted"] for f in answer.json()["files"]] == [rows(file) for file in files]
    running.settle()
    same(running, offline, files)


def messages(file, n: int) -> list[bytes]:
    """The rows of a series as arrays of `n` events."""
    events = []
    for line in file.read_text().splitlines()[1:]:
        timestamp, value = line.split(",")
        events.append({"metric": file.stem, "timestamp": timestamp, "value": float(value)})
    return [json.dumps(events[i:i + n]).encode() for i in range(0, len(events), n)]


def test_kafka_to_replicas_finds_what_detect_finds_although_the_processor_is_killed(stack, files, offline):
    """Console producer's means: no key, eight partitions. A round holds one message a series, and the next waits for it, since without a
    key nothing else keeps the order of a series; the active processor and the ingest are killed in between."""
    need("kafka")
    from kafka_server import Kafka
    with Kafka() as kafka:
        kafka.create_topic("events", 8)
        running = stack(ingests=1, KAFKA_BROKER=kafka.address, **WINDOW)
        producer = kafka.producer(partitioner="random", sticky_partitioning_linger_ms=0)
        rounds = list(zip_longest(*(messages(file, 500) for file in files)))
        sent, deaths = 0, {len(rounds) // 4: "processor", len(rounds) // 2: "ingest", 3 * len(rounds) // 4: "processor"}
        for i, some in enumerate(rounds):
            some = [message for message in some if message is not None]
            kafka.produce("events", [(-1, message) for message in some], producer)
            sent += sum(len(json.loads(message)) for message in some)
            if (dies := deaths.get(i)) is not None:
                role = running.active() if dies == "processor" else running.ingests[0]
                role.kill()
                role.start()
            running.wait(lambda: running.api.get("/stats")["events_total"] >= sent, f"round {i} is in the log", 60)
        used = [offset for offset in kafka.committed("anomaly-ingest-group", "events", 8) if offset]
        assert len(used) == 8, "every partition was written to"
        running.settle()
        same(running, offline, files)
        running.wait(lambda: kafka.committed("anomaly-ingest-group", "events", 8) == kafka.ends("events", 8), "no lag is left")
        assert not running.panics()
