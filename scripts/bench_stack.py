"""The roles on Redis and Kafka, measured beside what one would build oneself: rows for scripts/bench.py.

Run by itself it prints its table: `ANOMALY_BIN=… python scripts/bench_stack.py`. The bare consumer is
crates/eval/examples/kafka_consumer.rs, and kafka_frames.rs beside it fills a log as an API does.
"""
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from redis_server import RedisServer  # noqa: E402
from server import REPO, binary  # noqa: E402
from stack import Stack  # noqa: E402

QUICK = bool(os.environ.get("QUICK"))
SECONDS = 2 if QUICK else 8
CLIENTS, BATCH = 2, 10_000
CSV_ROWS = 100_000 if QUICK else 1_000_000
MESSAGES = 100_000 if QUICK else 1_000_000
# Events of a log, and its frames: of fewer it is the beginning that is measured.
LOGGED = 200_000 if QUICK else 8_000_000
FRAMES = 100_000 if QUICK else 4_000_000
# The machine has better moments and worse ones.
TIMES = 3
START = 1_700_000_000
PARTITIONS = 16


def rows(row, python_rows_per_s: float | None) -> list[str]:
    """All rows; `row` makes one, `python_rows_per_s` is what the Python design did with an upload in the same run."""
    with tempfile.TemporaryDirectory(prefix="anomaly-bench-") as name:
        folder = Path(name)
        redis = RedisServer(folder / "redis", maxmemory="4gb").start()
        try:
            return [*redis_rows(row, folder, redis, python_rows_per_s), *kafka_rows(row, folder, redis)]
        finally:
            redis.kill()


def redis_rows(row, folder: Path, redis, python_rows_per_s: float | None) -> list[str]:
    single = one_event_an_entry(redis)
    with Stack(folder / "stack", redis.url, lambda: redis.client, apis=1, processors=1, WINDOW_SECONDS=60, QUEUE_CAPACITY=100_000_000) as stack:
        batched = batches(stack.api)
        stack.settle(300)
        found = [row(9, f"events acknowledged through Redis, {BATCH:,} a batch", f"{batched:,.0f} events/s", f"one event an entry, 50 clients: {single:,.0f}/s", batched / single, least=10)]
        speed = upload(stack)
    if python_rows_per_s:
        found.append(row(9, "CSV upload through Redis to verdicts", f"{speed:,.0f} rows/s", f"Python design: {python_rows_per_s:,.0f} rows/s", speed / python_rows_per_s, least=40))
    return found


def one_event_an_entry(redis) -> float:
    """Events a second when each is an entry of a stream of its own, as durable as ours."""
    event = json.dumps({"timestamp": START, "metric": "cpu_usage", "value": 50.5})
    n = 20_000 if QUICK else 100_000
    done = subprocess.run(["redis-benchmark", "-p", str(redis.port), "-c", "50", "-n", str(n), "--csv", "XADD", "naive", "*", "e", event], capture_output=True, text=True, check=True)
    redis.client.delete("naive")
    # A line of CSV whose first cell is the command, commas included.
    header, line = done.stdout.splitlines()[-2:]
    return float(line.split(",")[-len(header.split(",")) + 1].strip('"'))


def batches(api) -> float:
    """Events a second that are acknowledged to a few clients."""
    def body(client: int, first: int) -> bytes:
        return "".join(f'{{"timestamp":{START + first + i},"metric":"m{client}","value":{50 + i % 7}}}\n' for i in range(BATCH)).encode()
    sent, bodies = [0] * CLIENTS, [[body(c, i * BATCH) for i in range(20)] for c in range(CLIENTS)]
    until = time.monotonic() + SECONDS

    def client(c: int) -> None:
        i = 0
        while time.monotonic() < until:
            answer = api.http.post("/events", content=bodies[c][i % 20])
            assert answer.status_code == 202, answer.text[:500]
            sent[c] += BATCH
            i += 1
    began = time.monotonic()
    threads = [threading.Thread(target=client, args=(c,)) for c in range(CLIENTS)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return sum(sent) / (time.monotonic() - began)


def upload(stack) -> float:
    """Rows a second of a CSV, from the first byte sent until all verdicts are shown."""
    text = "timestamp,metric,value\n" + "".join(f"{START + i // 10},csv{i % 10},{50 + i * 7919 % 13}\n" for i in range(CSV_ROWS))
    began = time.monotonic()
    answer = stack.api.upload("bench.csv", text.encode())
    assert answer.status_code == 200, answer.text[:500]
    id = answer.json()["id"]
    while (file := stack.api.get(f"/uploads/{id}")["files"][0])["anomalies"] is None:
        time.sleep(0.01)
    assert file["accepted"] == CSV_ROWS, file
    return CSV_ROWS / (time.monotonic() - began)


def kafka_rows(row, folder: Path, redis) -> list[str]:
    from kafka_server import Kafka
    with Kafka() as kafka:
        kafka.create_topic("events", 4)
        kafka.produce("events", ((i % 4, json.dumps({"timestamp": START + i // 40, "metric": f"k{i % 40}", "value": 50 + i % 7}).encode()) for i in range(MESSAGES)))
        examples = Path(binary()).parent / "examples"
        # The broker's first reading is a cold one, so the best of three.
        bare = max(bare_consumer(examples / "kafka_consumer", kafka.address) for _ in range(3))
        redis.client.flushall()
        with Stack(folder / "ingest", redis.url, lambda: redis.client, apis=1, processors=1, WINDOW_SECONDS=60, QUEUE_CAPACITY=100_000_000) as stack:
            ingest = stack.role("ingest", "ingest-0", KAFKA_BROKER=kafka.address)
            ingest.start()
            began, seen = None, 0
            while seen < MESSAGES:
                seen = int(redis.client.hget("{anomaly}:state", "appended") or 0)
                if seen and began is None:
                    began, first = time.monotonic(), seen
                time.sleep(0.005)
            speed = (MESSAGES - first) / (time.monotonic() - began)
        ingested = row(9, "Kafka to the log on Redis, an event a message", f"{speed:,.0f} events/s", f"bare rdkafka consumer: {bare:,.0f} messages/s", speed / bare)
        return [ingested, *(processor_row(row, folder, redis, kafka, examples, n) for n in (1, 1000, BATCH))]


def processor_row(row, folder: Path, redis, kafka, examples: Path, per_request: int) -> str:
    """One processor on a log that is there already, from its first commit to the last event, beside a consumer that reads the same frames
    and does nothing with them; the best of a few times each, in turn. The goal is for frames of about 100 bytes, each an event: how many
    events larger ones hold is nothing to who only counts frames."""
    topic, events = f"bench{per_request}", min(LOGGED, per_request * FRAMES)
    env = {"BACKEND": "kafka", "KAFKA_BROKER": kafka.address, "KAFKA_TOPIC": topic, "WINDOW_SECONDS": 60, "QUEUE_CAPACITY": 100_000_000}
    frames = fill(kafka, topic, events, per_request, 400)
    bare, speed = 0.0, 0.0
    for time_ in range(TIMES):
        bare = max(bare, events / reading(examples / "kafka_consumer", kafka.address, f"{topic}.log", frames))
        redis.client.flushall()
        with Stack(folder / f"{topic}-{time_}", redis.url, lambda: redis.client, apis=0, processors=0, **env) as stack:
            stack.role("processor", "processor-0").start()
            speed = max(speed, judging(redis, events))
    what = f"a processor's rate from Kafka, {per_request:,} event{'s' * (per_request > 1)} a request, {events / frames:,.0f} a frame"
    least = {"least": 0.7} if per_request == 1 else {}
    return row(9, what, f"{speed:,.0f} events/s", f"bare rdkafka consumer of the same frames: {bare:,.0f} events/s", speed / bare, **least)


def fill(kafka, topic: str, events: int, per_request: int, series: int) -> int:
    """A log of so many events; returns its frames."""
    kafka.create_topic(f"{topic}.log", PARTITIONS, max_message_bytes=100_000_000)
    command = [Path(binary()).parent / "examples" / "kafka_frames", kafka.address, f"{topic}.log", *map(str, (PARTITIONS, events, per_request, series))]
    return int(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def noted(redis, name: str) -> int:
    """What the owners of all partitions note under a name, together."""
    return sum(int(n or 0) for n in redis.client.hmget("{anomaly}:state", [f"{name}:{i}" for i in range(PARTITIONS)]))


def judging(redis, events: int) -> float:
    """Waits until all are judged; returns how many a second, from the first on."""
    began, first = None, 0
    while (seen := noted(redis, "events")) < events:
        if seen and began is None:
            began, first = time.monotonic(), seen
        time.sleep(0.002 if QUICK else 0.02)
    return (events - first) / (time.monotonic() - began) if began else 0.0


def bare_consumer(example: Path, broker: str) -> float:
    """Messages a second of the example, which only counts them."""
    return MESSAGES / reading(example, broker, "events", MESSAGES)


def reading(example: Path, broker: str, topic: str, messages: int) -> float:
    """Seconds that the example needs for so many messages."""
    read = subprocess.run([example, broker, topic, str(messages)], stdout=subprocess.PIPE, text=True, check=True)
    return float(read.stdout.split()[0])


if __name__ == "__main__":
    sys.path.insert(0, str(REPO / "scripts"))
    import bench
    print("\n".join([*bench.HEAD, *rows(bench.row, float(os.environ.get("PYTHON_ROWS_PER_S", 0)) or None)]))
