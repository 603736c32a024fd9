"""Events from Kafka, read from Apache Kafka itself: each counted once, whatever dies or is away meanwhile."""
import ctypes
import json
import os
import signal
import threading
import time
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from needs import need
from server import Server, free_port, run

_topics = count()
START = time.time() - 50_000


@pytest.fixture(scope="module")
def kafka():
    need("kafka")
    from kafka_server import Kafka
    with Kafka() as running:
        yield running


@pytest.fixture
def topic(kafka):
    """A topic of four partitions, of this test alone."""
    name = f"events-{next(_topics)}"
    kafka.create_topic(name, 4)
    return name


def ingesting(tmp_path, kafka, topic: str, name: str = "data", **env) -> Server:
    return Server(tmp_path / name, KAFKA_BROKER=kafka.address, KAFKA_TOPIC=topic, KAFKA_GROUP_ID=f"group-{topic}", **env)


def event(metric: str, value: float = 1.0, **more) -> bytes:
    return json.dumps({"metric": metric, "value": value} | more).encode()


def numbered(first: int, n: int, partitions: int = 4):
    """Messages of one event each, round the partitions; 40 series, ten in each partition."""
    return [(i % partitions, event(f"m{i % partitions}-{i // partitions % 10}", 50 + i % 7, timestamp=START + i * 0.01)) for i in range(first, first + n)]


def until(what, timeout: float = 60, pause: float = 0.1):
    """Waits until `what()` is true, and returns it."""
    deadline = time.monotonic() + timeout
    while not (found := what()):
        assert time.monotonic() < deadline, f"not within {timeout} s"
        time.sleep(pause)
    return found


def total(server, name: str = "events") -> int:
    return server.get("/stats")[f"{name}_total"]


def component(server) -> dict:
    return server.get("/health")["components"]["kafka"]


def caught_up(kafka, topic: str, partitions: int = 4) -> bool:
    return [offset or 0 for offset in kafka.committed(f"group-{topic}", topic, partitions)] == kafka.ends(topic, partitions)


def metric(server, name: str) -> float:
    return next(float(line.split()[-1]) for line in server.http.get("/metrics").text.splitlines() if line.startswith(f"{name} "))


# --- each event once -------------------------------------------------------------------------------------------------------

def test_every_event_arrives_once_and_the_group_is_told(tmp_path, kafka, topic):
    kafka.produce(topic, numbered(0, 20_000))
    with ingesting(tmp_path, kafka, topic) as server:
        until(lambda: total(server) >= 20_000)
        server.settle()
        until(lambda: caught_up(kafka, topic))
        assert total(server) == 20_000 and total(server, "redelivered") == 0
        assert set(server.series_counts().values()) == {500}
        kafka.produce(topic, [(1, event("m1-0", 1e6, timestamp=START + 201))])
        spike = until(server.anomalies, 10)
        assert len(spike) == 1 and json.loads(spike[0])["source"] == f"kafka:{topic}/1"
        assert component(server) == {"status": "ok"}
        assert metric(server, "anomaly_kafka_messages_total") == 20_001
        until(lambda: all(f'anomaly_kafka_lag{{partition="{p}"}} 0' in server.http.get("/metrics").text for p in range(4)), 10)
        code, _ = server.terminate()
        assert code == 0 and caught_up(kafka, topic)
        server.start()
        assert total(server) == 20_001


def test_kill_9_in_the_middle_counts_nothing_twice_and_loses_nothing(tmp_path, kafka, topic):
    n, producer = 40_000, threading.Thread(target=lambda: [(kafka.produce(topic, numbered(first, 500)), time.sleep(0.05)) for first in range(0, 40_000, 500)])
    producer.start()
    with ingesting(tmp_path, kafka, topic) as server:
        redelivered = 0
        for kills in range(1, 6):
            until(lambda: total(server) >= kills * 5_000, pause=0.005)
            server.kill()
            server.start()
        producer.join()
        until(lambda: total(server) >= n)
        server.settle()
        until(lambda: caught_up(kafka, topic))
        redelivered = total(server, "redelivered")
        assert total(server) == n and set(server.series_counts().values()) == {n // 40}
        server.terminate()
        server.start()
        assert (total(server), total(server, "redelivered")) == (n, redelivered)
        print(f"{redelivered} events were delivered again")


def test_sigterm_under_load_leaves_nothing_to_deliver_again(tmp_path, kafka, topic):
    kafka.produce(topic, numbered(0, 60_000))
    with ingesting(tmp_path, kafka, topic) as server:
        until(lambda: total(server) > 0, pause=0.005)
        code, seconds = server.terminate()
        assert code == 0 and seconds < 10
        server.start()
        until(lambda: total(server) >= 60_000)
        server.settle()
        assert total(server) == 60_000 and total(server, "redelivered") == 0


def test_members_of_a_group_share_the_partitions_and_each_event_is_in_one_of_them(tmp_path, kafka, topic):
    """Each event is a series of its own, so that the lists of series tell who has it."""
    group, sent = f"group-{topic}", iter(range(10**9))

    def send(n: int) -> None:
        kafka.produce(topic, [(i % 4, event(f"s{i}")) for i in (next(sent) for _ in range(n))])
    stop = threading.Event()
    writer = threading.Thread(target=lambda: [send(100) for _ in iter(stop.is_set, True)])
    first, second = ingesting(tmp_path, kafka, topic), ingesting(tmp_path, kafka, topic, "other")
    with first:
        send(1000)
        until(lambda: total(first) >= 1000)
        writer.start()
        with second:
            until(lambda: sorted(kafka.members(group).values()) == [2, 2], 30)
            until(lambda: total(second) > 500)
            second.terminate()
            until(lambda: sorted(kafka.members(group).values()) == [4], 30)
            second.start()
            until(lambda: sorted(kafka.members(group).values()) == [2, 2], 30)
            stop.set()
            writer.join()
            until(lambda: caught_up(kafka, topic))
            n = next(sent)
            [server.settle() for server in (first, second)]
            of_first, of_second = first.series_counts(), second.series_counts()
            assert len(of_second) > 500 and not of_first.keys() & of_second.keys()
            assert of_first | of_second == {f"s{i}": 1 for i in range(n)}
            assert total(first) + total(second) == n and total(first, "redelivered") + total(second, "redelivered") == 0


def test_what_was_aborted_is_not_taken_and_the_gaps_of_transactions_lose_nothing(tmp_path, kafka, topic):
    """The mark that ends a transaction takes an offset of its own."""
    producer = kafka.producer(transactional_id=f"t-{topic}")
    producer.init_transactions(20)
    for i in range(60):
        producer.begin_transaction()
        for partition, value in numbered(i * 40, 40):
            producer.produce(topic, value=value, partition=partition)
        producer.abort_transaction(20) if i % 3 == 2 else producer.commit_transaction(20)
    with ingesting(tmp_path, kafka, topic) as server:
        until(lambda: total(server) >= 1600)
        server.kill()
        server.start()
        kafka.produce(topic, [(p, event("last")) for p in range(4)])
        until(lambda: server.series_counts().get("last") == 4)
        until(lambda: caught_up(kafka, topic))
        assert total(server) == 1604 and total(server, "rejected") == 0


def test_a_process_that_stood_still_and_was_given_up_goes_on(tmp_path, kafka, topic):
    """Longer than the session: its partitions are nobody's, or another's, before it knows."""
    with ingesting(tmp_path, kafka, topic) as server:
        kafka.produce(topic, numbered(0, 1000))
        until(lambda: total(server) >= 1000)
        kafka.produce(topic, numbered(1000, 20_000))
        until(lambda: total(server) > 1000, pause=0.002)
        server.process.send_signal(signal.SIGSTOP)
        until(lambda: not kafka.members(f"group-{topic}"), 30, 0.5)
        server.process.send_signal(signal.SIGCONT)
        kafka.produce(topic, numbered(21_000, 1000))
        until(lambda: total(server) >= 22_000)
        server.settle()
        until(lambda: caught_up(kafka, topic), 20)
        assert total(server) == 22_000 and set(server.series_counts().values()) == {550}


# --- what is bad -----------------------------------------------------------------------------------------------------------

def test_bad_messages_go_to_the_dead_letters_and_their_neighbours_are_taken(tmp_path, kafka, topic):
    bad = {"nonsense": "invalid_json", '{"metric":"a"}': "missing_field", '{"metric":"a","value":"1"}': "invalid_type", '{"metric":"a","value":NaN}': "invalid_json", None: "invalid_json",
           json.dumps({"metric": "a", "value": 1, "timestamp": time.time() + 1e6}): "future_timestamp", json.dumps({"metric": "a", "value": 1, "meta": {"x": "y" * 70_000}}): "too_large"}
    messages = [(3, "key", event("a"))]
    for value in bad:
        messages += [(3, "key", value), (3, "key", event("a"))]
    kafka.produce(topic, messages)
    with ingesting(tmp_path, kafka, topic) as server:
        letters = kafka.read(f"{topic}.dead", len(bad))
        assert len(letters) == len(bad)
        for i, (letter, (value, code)) in enumerate(zip(letters, bad.items())):
            headers = {name: value.decode() for name, value in letter.headers()}
            assert letter.key() == b"key" and letter.value() == (value.encode() if value is not None else None)
            assert (headers["anomaly.error.code"], headers["anomaly.source"]) == (code, f"{topic}/3@{1 + 2 * i}") and headers["anomaly.error.message"], headers
        assert {name: value.decode() for name, value in letters[2].headers()}["anomaly.error.field"] == "value"
        until(lambda: caught_up(kafka, topic))
        assert total(server) == len(bad) + 1 and total(server, "rejected") == len(bad)
        assert metric(server, "anomaly_kafka_dead_letters_total") == len(bad)
        assert 'anomaly_rejected_by_code_total{code="too_large"} 1' in server.http.get("/metrics").text


def test_an_array_is_taken_whole_but_for_its_bad_events(tmp_path, kafka, topic):
    good = [json.loads(event("a", i)) for i in range(10)]
    kafka.produce(topic, [(0, event("b")), (0, json.dumps(good)), (0, json.dumps([good[0], {"metric": "a"}, good[1], 7])), (0, "[]"), (0, event("b"))])
    with ingesting(tmp_path, kafka, topic) as server:
        letter, = kafka.read(f"{topic}.dead", 1)
        headers = {name: value.decode() for name, value in letter.headers()}
        assert headers["anomaly.error.code"] == "missing_field" and headers["anomaly.source"] == f"{topic}/0@2", headers
        assert headers["anomaly.error.message"].startswith("2 of 4 events were rejected: event 2: ") and "event 4: " in headers["anomaly.error.message"], headers
        until(lambda: caught_up(kafka, topic))
        server.settle()
        assert server.series_counts() == {"a": 12, "b": 2} and total(server, "rejected") == 2


def test_series_beyond_the_limit_are_dead_letters(tmp_path, kafka, topic):
    kafka.produce(topic, [(0, event(f"s{i % 4}")) for i in range(20)])
    with ingesting(tmp_path, kafka, topic, MAX_SERIES=2) as server:
        letters = kafka.read(f"{topic}.dead", 10)
        assert {dict(letter.headers())["anomaly.error.code"] for letter in letters} == {b"series_limit"}
        until(lambda: caught_up(kafka, topic))
        server.settle()
        assert server.series_counts() == {"s0": 5, "s1": 5}


def test_what_cannot_be_written_to_the_dead_letters_is_waited_for(tmp_path, kafka, topic):
    """The topic of dead letters takes nothing of this size at first."""
    dead = f"{topic}.dead"
    kafka.create_topic(dead, 1, max_message_bytes=10)
    kafka.produce(topic, [(0, event("a")), (0, "nonsense"), (0, event("a")), (1, event("b"))])
    with ingesting(tmp_path, kafka, topic) as server:
        until(lambda: dead in component(server).get("reason", ""), 20)
        assert "partition 0 waits" in component(server)["reason"] and kafka.committed(f"group-{topic}", topic, 4)[0] is None
        kafka.produce(topic, [(1, event("b"))])
        until(lambda: server.series_counts().get("b") == 2, 10)
        from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource
        larger = ConfigEntry("max.message.bytes", "1000000", incremental_operation=AlterConfigOpType.SET)
        kafka.admin.incremental_alter_configs([ConfigResource(ConfigResource.Type.TOPIC, dead, incremental_configs=[larger])])
        until(lambda: caught_up(kafka, topic), 20)
        assert len(kafka.read(dead, 1)) == 1 and component(server) == {"status": "ok"} and total(server) == 4


# --- what is away ----------------------------------------------------------------------------------------------------------

def test_a_broker_that_stops_is_told_and_waited_for(tmp_path, kafka, topic):
    kafka.produce(topic, numbered(0, 1000))
    with ingesting(tmp_path, kafka, topic) as server:
        until(lambda: total(server) >= 1000)
        kafka.stop()
        until(lambda: component(server)["status"] == "degraded", 20)
        assert kafka.address in component(server)["reason"] and server.http.get("/readyz").status_code == 200
        assert server.post_event({"metric": "by_http", "value": 1})
        time.sleep(15)
        assert server.log().count("cannot be reached") == 1, server.log()
        kafka.start()
        kafka.produce(topic, numbered(1000, 1000))
        until(lambda: total(server) >= 2001, 60)
        until(lambda: component(server) == {"status": "ok"}, 20)
        until(lambda: caught_up(kafka, topic), 20)
        assert total(server) == 2001


def test_a_broker_that_names_no_broker_is_read_on(tmp_path):
    """As one does that is about to end: librdkafka then knows none any more, and finds none by itself."""
    need("kafka")
    from kafka_link import forgetful_kafka
    with forgetful_kafka() as (kafka, link):
        kafka.create_topic("events", 4)
        kafka.produce("events", numbered(0, 1000))
        with ingesting(tmp_path, kafka, "events") as server:
            until(lambda: total(server) >= 1000)
            link.forgets = True
            until(lambda: "the consumer is made anew" in server.log(), 30)
            link.forgets = False
            kafka.produce("events", numbered(1000, 1000))
            until(lambda: total(server) >= 2000, 30)
            until(lambda: component(server) == {"status": "ok"}, 10)
            until(lambda: caught_up(kafka, "events"), 20)
            assert total(server) == 2000


def test_without_a_broker_it_starts_and_stops_in_time(tmp_path):
    broker = f"127.0.0.1:{free_port()}"
    with Server(tmp_path / "data", KAFKA_BROKER=broker) as server:
        until(lambda: "cannot be reached" in component(server).get("reason", ""), 20)
        assert broker in component(server)["reason"]
        assert server.post_event({"metric": "by_http", "value": 1})
        code, seconds = server.terminate()
        assert code == 0 and seconds < 10


def test_a_topic_is_read_when_it_appears(tmp_path, kafka):
    topic = f"later-{next(_topics)}"
    with ingesting(tmp_path, kafka, topic) as server:
        until(lambda: "does not exist" in component(server).get("reason", ""), 20)
        assert topic in component(server)["reason"] and topic not in kafka.admin.list_topics(timeout=10).topics
        kafka.create_topic(topic, 2)
        kafka.produce(topic, numbered(0, 100, 2))
        until(lambda: total(server) >= 100, 30)
        until(lambda: component(server) == {"status": "ok"}, 10)


@contextmanager
def stopped_thread(pid: int, name: str):
    """One thread of a process stands still."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    attach, detach, all_threads = 16, 17, 0x40000000
    tid = next(int(task.name) for task in Path(f"/proc/{pid}/task").iterdir() if (task / "comm").read_text().strip() == name)
    assert libc.ptrace(attach, tid, None, None) == 0, os.strerror(ctypes.get_errno())
    os.waitpid(tid, all_threads)
    try:
        yield
    finally:
        libc.ptrace(detach, tid, None, None)


def test_a_full_queue_pauses_and_goes_on(tmp_path, kafka, topic):
    need("ptrace")
    with ingesting(tmp_path, kafka, topic, QUEUE_CAPACITY=2000) as server:
        kafka.produce(topic, numbered(0, 1000))
        until(lambda: total(server) >= 1000)
        server.settle()
        before = server.rss_mib()
        with stopped_thread(server.pid, "engine"):
            kafka.produce(topic, numbered(1000, 200_000))
            until(lambda: "the queue is full" in component(server).get("reason", ""), 30)
            queued = server.get("/health")["queue_size"]
            time.sleep(12)  # longer than the session: it must not be taken for dead
            assert server.get("/health")["queue_size"] == queued < 50_000
            assert list(kafka.members(f"group-{topic}").values()) == [4]
            assert server.rss_mib() - before < 150
            assert server.http.post("/events/raw", json={"metric": "a", "value": 1}).status_code == 503
        until(lambda: total(server) >= 201_000)
        server.settle()
        until(lambda: component(server) == {"status": "ok"}, 10)
        until(lambda: caught_up(kafka, topic))
        assert total(server) == 201_000 and total(server, "redelivered") == 0
        assert set(server.series_counts().values()) == {201_000 // 40}


# --- settings --------------------------------------------------------------------------------------------------------------

def test_a_name_and_a_password_are_given_where_the_broker_wants_them(tmp_path, kafka, topic):
    (tmp_path / "password").write_text("hunter2\n")
    kafka.produce(topic, [(0, event("a")), (0, "nonsense")])
    env = {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SASL_USERNAME": "me", "KAFKA_BROKER": kafka.sasl_address, "KAFKA_TOPIC": topic}
    with Server(tmp_path / "data", KAFKA_SASL_PASSWORD_FILE=tmp_path / "password", **env) as server:
        until(lambda: total(server) == 1, 20)
        assert len(kafka.read(f"{topic}.dead", 1)) == 1
    with Server(tmp_path / "other", KAFKA_SASL_PASSWORD="hunter1", **env) as server:
        until(lambda: "uthentication" in component(server).get("reason", ""), 20)
        assert "hunter" not in server.log() + json.dumps(component(server))


def test_what_this_build_cannot_do_is_told_at_start(tmp_path):
    done = run("all", timeout=20, PORT=free_port(), DATA_DIR=tmp_path / "data", KAFKA_BROKER="127.0.0.1:9", KAFKA_SECURITY_PROTOCOL="SASL_SSL", KAFKA_SASL_MECHANISM="SCRAM-SHA-512", KAFKA_SASL_USERNAME="me", KAFKA_SASL_PASSWORD="hunter2")
    said = (done.stdout + done.stderr).decode()
    if done.returncode == 0 or "kafka-tls" not in said:
        pytest.skip("this build has TLS")
    assert "cargo build --release --features kafka-tls" in said and "libssl-dev" in said and "hunter2" not in said, said
