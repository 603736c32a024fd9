"""How BACKEND=kafka grows, for docs/scaling.md: `ANOMALY_BIN=… python scripts/bench_growth.py` prints its tables.

Throughput of 1, 2 and 4 processors that share a log which is there already; what a series costs in memory, in its checkpoint and at a
take-over; what a commit costs on Redis. Broker, Redis and processors share the machine.
"""
import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from alerting import burst  # noqa: E402
from bench_stack import fill, judging, noted  # noqa: E402
from kafka_server import Kafka  # noqa: E402
from redis_server import RedisServer  # noqa: E402
from stack import JOURNAL, Stack  # noqa: E402

EVENTS, SERIES, SAMPLES, INCIDENTS = 16_000_000, (10_000, 100_000, 300_000), 30, 20_000
KNOWN = "{anomaly}:known"


def resident(role) -> int:
    return int(next(line for line in Path(f"/proc/{role.process.pid}/status").read_text().splitlines() if line.startswith("VmRSS")).split()[1]) // 1024


def throughput(folder: Path, redis, kafka, stack_of) -> None:
    print(f"\n{EVENTS:,} events of 400 series, 1,000 a request, 16 partitions\n\n| processors | events/s | resident, each |\n|---|---|---|")
    fill(kafka, "growth", EVENTS, 1000, 400)
    for n in (1, 2, 4):
        redis.client.flushall()
        with stack_of(f"growth{n}", "growth", WINDOW_SECONDS=60) as stack:
            processors = [stack.role("processor", f"processor-{i}") for i in range(n)]
            for processor in processors:
                processor.spawn()
            print(f"| {n} | {judging(redis, EVENTS):,.0f} | {max(map(resident, processors))} MiB |", flush=True)


def state(folder: Path, redis, kafka, stack_of) -> None:
    print(f"\n{SAMPLES} samples each, windows of 5 min\n\n| series | state, as the engines count | resident | checkpoints on Redis | list of series on Redis | written at a clean end | taken over after kill -9 |\n|---|---|---|---|---|---|---|")
    for series in SERIES:
        topic = f"state{series}"
        redis.client.flushall()
        fill(kafka, topic, series * SAMPLES, 10_000, series)
        with stack_of(topic, topic, MAX_SERIES=1_000_000) as stack:
            processor = stack.role("processor", "processor-0")
            processor.start()
            judging(redis, series * SAMPLES)
            time.sleep(1)
            stack.wait(lambda: redis.client.scard(KNOWN) == series, "all are shown", 120)
            listed = sum(redis.client.memory_usage(key, samples=0) for key in (KNOWN, "{anomaly}:names", "{anomaly}:series"))
            memory, rss, began = noted(redis, "memory"), resident(processor), time.monotonic()
            processor.terminate()
            wrote = time.monotonic() - began
            manifests = [json.loads(redis.client.get(f"{{p{i}}}:checkpoint")) for i in range(16)]
            kept = sum(redis.client.strlen(chunk["key"]) for manifest in manifests for chunk in manifest["chunks"])
            processor.start()
            stack.wait(lambda: processor.log().count("partition taken over") >= 32, "taken over", 120)
            processor.kill()
            began = time.monotonic()
            processor.spawn()
            stack.wait(lambda: processor.log().count("partition taken over") >= 48, "taken over", 120)
            taken = time.monotonic() - began
            print(f"| {series:,} | {memory / series:,.0f} B a series | {rss} MiB | {kept / series:,.0f} B a series | {listed / series:,.0f} B a series | {wrote:.1f} s | {taken:.1f} s |", flush=True)


def commits(folder: Path, redis, kafka, stack_of) -> None:
    redis.client.flushall()
    with stack_of("commits", "commits", apis=1) as stack:
        stack.role("processor", "processor-0").start()
        now = time.time()
        for i in range(0, INCIDENTS, 400):
            stack.api.post_batch([row for n in range(i, i + 400) for row in burst(f"c{n}", now)])
        stack.settle()
        entries, used = redis.client.xlen(JOURNAL), redis.client.memory_usage(JOURNAL, samples=0)
        print(f"\n{INCIDENTS:,} anomalies in {entries:,} commits: {used / INCIDENTS:,.0f} B an anomaly in the journal, {used / entries:,.0f} B a commit")


if __name__ == "__main__":
    chosen = sys.argv[1:] or ["throughput", "state", "commits"]
    with tempfile.TemporaryDirectory(prefix="anomaly-growth-") as name, Kafka() as kafka:
        folder = Path(name)
        redis = RedisServer(folder / "redis", maxmemory="8gb").start()

        def stack_of(place: str, topic: str, apis: int = 0, **env) -> Stack:
            env |= {"BACKEND": "kafka", "KAFKA_BROKER": kafka.address, "KAFKA_TOPIC": topic, "QUEUE_CAPACITY": 1_000_000_000}
            return Stack(folder / place, redis.url, lambda: redis.client, apis=apis, processors=0, **env)
        try:
            print(f"{os.cpu_count()} cores")
            for what in chosen:
                {"throughput": throughput, "state": state, "commits": commits}[what](folder, redis, kafka, stack_of)
        finally:
            redis.kill()
