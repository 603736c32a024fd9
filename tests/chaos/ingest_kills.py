"""kill -9 of ingests of one group under load, while another goes on: what Kafka delivers again counts nothing twice.

Each series is written in order to one partition, and every 200th event of it is a spike. When it is quiet each series has just the
events that were produced, and the replicas show what `anomaly detect` finds in them.
"""
import json
import random
import threading
import time
from collections import Counter
from pathlib import Path

from chaos import Result
from chaos.roles import on_redis
from compare import difference, grouped
from server import run as run_anomaly

PARTITIONS, SERIES = 4, 20
EVENTS_A_SECOND = 4000
START = 1_700_000_000


def event(n: int) -> dict:
    """The n-th event of all; its series goes round, and with it the partition."""
    i = n // SERIES
    value = 500 if i % 200 == 199 else 50 + i * 7 % 5
    return {"metric": f"ingest-{n % SERIES}", "timestamp": START + i, "value": value}


def run(folder: Path, kills: int = 20, seed: int = 5, say=print) -> list[Result]:
    from kafka_server import Kafka
    rng, produced, ends = random.Random(seed), [0], threading.Event()
    with Kafka() as kafka, on_redis(folder) as rig:
        kafka.create_topic("events", PARTITIONS)
        ingests = [rig.stack.role("ingest", f"ingest-{i}", KAFKA_BROKER=kafka.address) for i in range(2)]
        for ingest in ingests:
            ingest.start()

        def produce() -> None:
            producer, step = kafka.producer(), EVENTS_A_SECOND // 20
            while not ends.is_set():
                first = produced[0]
                kafka.produce("events", [(n % SERIES % PARTITIONS, json.dumps(event(n)).encode()) for n in range(first, first + step)], producer)
                produced[0] += step
                time.sleep(0.05)
        load = threading.Thread(target=produce)
        load.start()
        try:
            for i in range(kills):
                time.sleep(rng.uniform(1, 3))
                victim = ingests[i % 2]
                victim.kill()
                victim.start()
                say(f"  kill {i + 1} of {kills}: {produced[0]:,} events produced")
        finally:
            ends.set()
            load.join()
        total = produced[0]
        api = rig.stack.api
        rig.stack.wait(lambda: api.get("/stats")["events_total"] >= total, "all is in the log", 120)
        rig.stack.settle(120)
        stats = api.get("/stats")
        lag = rig.stack.wait(lambda: kafka.committed("anomaly-ingest-group", "events", PARTITIONS) == kafka.ends("events", PARTITIONS), "no lag is left", 60)
        expected = Counter(f"ingest-{n % SERIES}" for n in range(total))
        counts = [one.series_counts() for one in rig.stack.apis]
        wrong = sum(abs(found.get(series, 0) - n) for found in counts for series, n in expected.items())
        differ = [difference(grouped(one.anomalies()), grouped(offline(total))) for one in rig.stack.apis]
        panics = rig.stack.panics()
    measured = (f"{total:,} produced, {stats['events_total']:,} counted, series that are off by {wrong}, delivered again and skipped {stats['redelivered_total']:,}; "
                f"anomalies {next((d for d in differ if d), 'equal')}; panics {len(panics)}")
    return [Result(f"{kills} kill -9 of one of two ingests under load from Kafka", "each event counted once, anomalies as `anomaly detect` over the same events finds them, no lag at the end",
                   measured, stats["events_total"] == total and not wrong and not any(differ) and not panics and bool(lag))]


def offline(total: int) -> list[str]:
    """What `anomaly detect` finds in the events that were produced."""
    text = "\n".join(json.dumps(event(n)) for n in range(total))
    done = run_anomaly("detect", "-", "--format", "json", input=text.encode(), timeout=300)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stdout.decode().splitlines()
