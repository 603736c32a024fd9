"""BACKEND=kafka: the log is a topic whose partitions several processors share, the store is on Redis."""
import json
import re
import time
from collections import Counter

import pytest

import nab
from alerting import burst, calm, feed, history, incidents
from nab import WINDOW, rows
from needs import need
from stack import Stack, says_active
from test_roles_nab import files, offline, same  # noqa: F401 (fixtures)
from test_roles_redis import refused


@pytest.fixture(scope="module")
def kafka():
    need("kafka")
    from kafka_server import Kafka
    with Kafka() as kafka:
        yield kafka


@pytest.fixture
def topic(request) -> str:
    """The topic of events of a test; its log is beside it."""
    return re.sub("[^a-z0-9]+", "-", request.node.name)[-100:]


@pytest.fixture
def scaled(stack, kafka, topic):
    """Starts a stack on a log of its own: scaled(apis=2, processors=3)."""
    return lambda **options: stack(**{"BACKEND": "kafka", "KAFKA_BROKER": kafka.address, "KAFKA_TOPIC": topic, "KAFKA_GROUP_ID": topic} | options)


def owners(stack) -> dict[str, str]:
    """Whose each partition is, by its epoch and nonce."""
    return {key: stack.redis.get(key) for key in stack.redis.scan_iter("{anomaly}:owner:*")}


def component(role, name: str) -> dict:
    return role.get("/health")["components"].get(name, {"status": "ok"})


def test_what_is_posted_is_judged_and_shown_everywhere(scaled, kafka):
    running = scaled(processors=2)
    a, b = running.apis
    feed(a, burst("posted", time.time()) + burst("posted_too", time.time()))
    running.settle()
    for api in (a, b):
        assert {json.loads(x)["metric"] for x in api.anomalies()} == {"posted", "posted_too"}
        assert api.series_counts() == {"posted": 21, "posted_too": 21}
    assert a.http.delete("/series", params={"series": "posted"}).status_code == 204
    running.settle()
    assert b.series_counts() == {"posted_too": 21} and len(b.anomalies()) == 1
    assert not running.panics()


def test_three_processors_find_what_detect_finds_although_one_is_killed_and_another_joins(scaled, files, offline):
    running, at_kill = scaled(processors=3, **WINDOW), 0
    running.wait(lambda: len(owners(running)) == 16 and all(says_active(p) for p in running.processors), "each has partitions")
    for i, file in enumerate(files):
        answer = running.apis[i % 2].upload(file.name, file.read_bytes())
        assert answer.status_code == 200 and answer.json()["files"][0]["accepted"] == rows(file), f"{file.name}: {answer.text[:500]}"
        if i == len(files) // 3:
            running.wait(lambda: (running.api.get("/stats")["events_total"]) > 0, "they are at work")
            running.processors[0].kill()
            at_kill, before = len(running.api.anomalies()), owners(running)
        if i == len(files) // 2:
            joins = running.role("processor", "processor-3")
            running.processors.append(joins)
            joins.start()
            running.wait(lambda: says_active(joins), "it has partitions too")
    running.settle(180)
    same(running, offline, files)
    assert 0 < at_kill < len(offline) and sum(before[key] != owner for key, owner in owners(running).items()) >= 4, "it was killed at work, and replaced"
    assert not running.panics()


def test_a_batch_that_comes_again_under_its_key_counts_once(scaled):
    running = scaled(processors=2)
    batch = [row for i in range(40) for row in calm(f"keyed{i}", time.time(), n=3)]
    answers = [api.http.post("/events", json=batch, headers={"Idempotency-Key": "one"}) for api in (*running.apis, *running.apis)]
    assert {a.status_code for a in answers} == {202} and len({a.text for a in answers}) == 1
    # Whoever had taken it died before it could keep the answer.
    running.redis.delete("{anomaly}:answer:one")
    assert running.apis[1].http.post("/events", json=batch, headers={"Idempotency-Key": "one"}).status_code == 202
    running.settle()
    assert running.api.series_counts() == {f"keyed{i}": 3 for i in range(40)}
    assert running.api.get("/stats")["redelivered_total"] == len(batch)


def test_raw_events_and_kafka_feed_the_log_and_count_once(scaled, kafka, topic):
    kafka.create_topic(topic, 4)
    running = scaled(apis=1, processors=2, ingests=1)
    events = [row for i in range(50) for row in calm(f"both{i}", time.time())]
    running.redis.rpush("raw_events", *map(json.dumps, events[::2]))
    kafka.produce(topic, [(-1, event["metric"].encode(), json.dumps(event).encode()) for event in events[1::2]])
    running.wait(lambda: running.redis.llen("raw_events") == 0, "the list is empty")
    leading = next(p for p in running.processors if "leading" in p.log())
    leading.kill()
    running.redis.rpush("raw_events", *map(json.dumps, calm("later", time.time())))
    expected = {f"both{i}": 20 for i in range(50)} | {"later": 20}
    running.wait(lambda: running.api.series_counts() == expected, "all is judged", 60)


def test_who_was_told_of_no_broker_finds_kafka_again(stack, topic):
    """As by a broker that is about to end: librdkafka then knows none any more, and finds none by itself."""
    need("kafka")
    from kafka_link import forgetful_kafka
    with forgetful_kafka() as (kafka, link):
        running = stack(BACKEND="kafka", KAFKA_BROKER=kafka.address, KAFKA_TOPIC=topic, KAFKA_GROUP_ID=topic, processors=2, apis=1)
        feed(running.api, burst("before", time.time()))
        running.settle()
        one = calm("meanwhile", time.time(), n=1)

        def post(key: int) -> bool:
            status = running.api.http.post("/events", json=one, headers={"Idempotency-Key": str(key)}, timeout=30).status_code
            assert status in (202, 503)
            return status == 202

        link.forgets, sent = True, 1
        link.cut()
        while post(sent):
            sent += 1
            assert sent < 60, "it was never told of no broker"
            time.sleep(1)
        running.wait(lambda: all("answered that there are none" in p.log() for p in running.processors), "the processors begin anew", 30)
        link.forgets = False
        running.wait(lambda: post(sent), "the API writes again", 30)
        assert "another producer writes the log" in running.api.log() and "another client looks at the ends" in running.api.log()
        feed(running.api, burst("behind", time.time()))
        running.settle(60)
        assert running.api.series_counts() == {"before": 21, "behind": 21, "meanwhile": sent}
        assert [json.loads(x)["metric"] for x in running.api.anomalies()] == ["before", "behind"]
        assert not running.panics()


def test_all_is_well_again_when_kafka_is_back(stack, topic):
    need("kafka")
    from kafka_server import Kafka
    with Kafka() as kafka:
        running = stack(BACKEND="kafka", KAFKA_BROKER=kafka.address, KAFKA_TOPIC=topic, KAFKA_GROUP_ID=topic, processors=2, apis=1)
        feed(running.api, burst("before", time.time()))
        running.settle()
        everyone = (*running.processors, running.api)
        time.sleep(6)  # an incident is open, so its owner appends the time 10 s behind it: that fails, and the owner is none any more
        kafka.stop()
        assert running.api.http.post("/events", json=calm("meanwhile", time.time(), n=1), timeout=30).status_code == 503
        time.sleep(10)
        kafka.start()
        running.wait(lambda: all(r.get("/health")["status"] == "ok" and r.http.get("/readyz").status_code == 200 for r in everyone), "all is well", 40)
        feed(running.api, burst("behind", time.time()))
        running.settle(30)
        assert [json.loads(x)["metric"] for x in running.api.anomalies()] == ["before", "behind"]
        assert not running.panics()


def test_a_partition_that_has_lost_its_end_is_told(scaled, kafka, topic):
    running, log = scaled(apis=1, processors=1), f"{topic}.log"
    api, processor = running.api, running.processors[0]
    feed(api, calm("lost", time.time(), n=5))
    running.settle()
    assert processor.terminate()[0] == 0 and api.terminate()[0] == 0
    kafka.admin.delete_topics([log])[log].result(20)
    running.wait(lambda: log not in kafka.admin.list_topics(timeout=10).topics, "the topic is gone")
    kafka.create_topic(log, 16, max_message_bytes=100_000_000)
    processor.start()
    said = lambda: component(processor, "engine").get("reason", "")
    running.wait(lambda: "ends at offset 0, but what lies before offset" in said() and "a new KAFKA_LOG_TOPIC" in said(), "it is told", 20)


def test_events_are_accepted_while_redis_is_away(scaled, redis_server):
    running = scaled(apis=1, processors=1)
    feed(running.api, calm("away", time.time()))
    running.settle()
    redis_server.pause()
    try:
        accepted = [running.api.http.post("/events", json=[row]).status_code for row in calm("away", time.time() + 5, n=5)]
        keyed = running.api.http.post("/events", json=calm("keyed", time.time()), headers={"Idempotency-Key": "k"}).status_code
    finally:
        redis_server.resume()
    assert accepted == [202] * 5 and keyed == 503
    running.wait(lambda: running.api.series_counts("away") == {"away": 25}, "they are judged", 60)


def test_a_processor_that_cannot_go_on_reads_no_further_and_then_the_rest(scaled, kafka, topic, redis_server):
    """While Redis is away nothing is committed, so more comes than is held."""
    kafka.create_topic(f"{topic}.log", 2, max_message_bytes=100_000_000)
    running = scaled(apis=1, processors=1, QUEUE_CAPACITY=1_000_000, LOG_LEVEL="info,librdkafka=trace")
    processor, now, meta = running.processors[0], time.time(), {"said": "x" * 8000}
    feed(running.api, calm("held0", now - 200))
    running.settle()
    redis_server.pause()
    try:
        for i in range(32):
            rows = [{"metric": f"held{n}", "timestamp": now + i, "value": n, "meta": meta} for n in range(400)]
            assert running.api.http.post("/events", json=rows, timeout=60).status_code == 202
        running.wait(lambda: sum(map(int, re.findall(r"Application pausing (\d+) partition", processor.log()))) >= 2, "it reads no further of either")
    finally:
        redis_server.resume()
    running.wait(lambda: sum(running.api.series_counts("held").values()) == 32 * 400 + 20, "all is judged", 60)
    assert processor.log().count("partition taken over") == 2, "nothing was taken over anew"


def test_anomalies_are_written_to_a_topic_each_under_its_id(scaled, kafka, topic):
    found = f"{topic}.found"
    kafka.create_topic(found, 1)
    running = scaled(apis=1, processors=2, KAFKA_ANOMALY_TOPIC=found)
    for i in range(3):
        feed(running.api, burst(f"told{i}", time.time()))
    running.settle()
    anomalies = running.api.anomalies()
    written = kafka.read(found, 3)
    assert {m.key().decode(): json.loads(m.value()) for m in written} == {json.loads(a)["id"]: json.loads(a) for a in anomalies}
    leading = next(p for p in running.processors if "leading" in p.log())
    leading.kill()
    feed(running.api, burst("told3", time.time()))
    assert len({m.key() for m in kafka.read(found, 4, 60)}) == 4


def test_a_partition_that_cannot_be_taken_over_holds_up_no_other(scaled, redis_server):
    redis_server.client.set("{p3}:checkpoint", "no manifest")
    running = scaled(apis=1, processors=1)
    names = {f"some{i}": 5 for i in range(60)}
    assert running.api.post_batch([row for name in names for row in calm(name, time.time(), n=5)]).json()["accepted"] == 300
    running.wait(lambda: len(running.api.series_counts("some")) > 50, "the others are judged")
    assert 0 < len(missing := names.keys() - running.api.series_counts("some").keys()) < 10
    health = running.processors[0].get("/health")
    assert health["status"] == "degraded" and "partition 3 cannot be taken over" in health["components"]["engine"]["reason"]
    redis_server.client.delete("{p3}:checkpoint")
    running.wait(lambda: running.api.series_counts("some") == names, f"{missing} are judged too")
    running.wait(lambda: running.processors[0].get("/health")["status"] == "ok", "all is well")


def test_a_take_over_under_load_resolves_nothing_that_is_open(scaled):
    """The owner dies right behind what it has found, with much to be replayed; what opens while another replays stays open too."""
    running = scaled(apis=1, processors=1)
    now = time.time()
    for part in range(10):
        rows = [row for i in range(500) for row in calm(f"many{i}", now - 10 * (9 - part), n=40)]
        assert running.api.post_batch(rows).json()["accepted"] == len(rows)
    feed(running.api, [row for i in range(100) for row in burst(f"before{i}", time.time())])
    running.processors[0].kill()
    running.processors[0].spawn()
    sent, deadline = 0, time.monotonic() + 25
    while time.monotonic() < deadline and (sent < 100 or not says_active(running.processors[0])):
        assert running.api.post_batch([row for i in range(20) for row in burst(f"meanwhile{sent + i}", time.time())]).status_code == 202
        sent += 20
        time.sleep(0.02)
    running.settle()
    found = [i for i in incidents(running.api) if not i["series"].startswith("many")]
    assert len(found) == 100 + sent and {i["state"] for i in found} == {"open"}
    assert {tuple(history(running.api, i["id"])) for i in found[:: len(found) // 50]} == {("opened",)}


def test_what_the_log_has_lost_leaves_no_incident_open(scaled, kafka, topic, redis_server):
    """Whoever takes over knows of no incident that began in what is gone: nobody else would ever resolve it."""
    running = scaled(apis=1, processors=1)
    feed(running.api, [row for i in range(40) for row in burst(f"lost{i}", time.time())])
    running.settle()
    assert [i["state"] for i in incidents(running.api)] == ["open"] * 40
    running.processors[0].kill()
    redis_server.client.delete(*(f"{{p{i}}}:checkpoint" for i in range(16)))
    kafka.delete_records(f"{topic}.log", 16)
    running.processors[0].start()
    running.wait(lambda: {i["state"] for i in incidents(running.api)} == {"resolved"}, "they are resolved")
    assert "windows begin anew" in running.processors[0].get("/health")["components"]["log"]["reason"]
    feed(running.api, burst("lost0", time.time()))
    running.settle()
    assert Counter(i["state"] for i in incidents(running.api)) == {"resolved": 40, "open": 1}


def test_on_a_redis_cluster_nothing_is_lost_when_a_primary_dies(kafka, topic, tmp_path):
    from redis_cluster import RedisCluster
    need("redis")
    env = {"BACKEND": "kafka", "KAFKA_BROKER": kafka.address, "KAFKA_TOPIC": topic, "KAFKA_GROUP_ID": topic, "REDIS_WAIT_REPLICAS": 1, "REDIS_RESULTS": "all"}
    with RedisCluster() as cluster:
        url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)
        with Stack(tmp_path, url, lambda: cluster.client, apis=2, processors=2, **env) as running:
            id = running.api.http.post("/events/raw", json=calm("first", time.time())[0]).json()["id"]
            feed(running.api, burst("first", time.time()))
            cluster.client.rpush("raw_events", *map(json.dumps, burst("listed", time.time())))
            running.wait(lambda: cluster.client.llen("raw_events") == 0, "the list is moved")
            running.settle()
            assert {json.loads(a)["metric"] for a in running.apis[1].anomalies()} == {"first", "listed"}
            running.wait(lambda: cluster.client.hget(f"event:{id}", "metric") == "first", "its result")
            for metric, key in (("state", "{anomaly}:state"), ("checkpoint", "{p3}:owner")):
                cluster.kill(died := cluster.primary_of(key))
                accepted = [running.apis[0].http.post("/events", json=[row]).status_code for row in calm(metric, time.time())]
                assert accepted == [202] * 20
                cluster.wait_ok()
                # Whoever took over has no replica that could have what is written, until this one is back.
                cluster.start_one(died)
                running.wait(lambda: running.apis[1].series_counts(metric) == {metric: 20}, f"all is judged though {key} was gone", 60)
                cluster.wait_ok()
            assert not running.panics()


@pytest.mark.parametrize("other", ["KAFKA_LOG_TOPIC", "cleanup.policy", "max.message.bytes"])
def test_a_topic_that_cannot_be_the_log_is_refused(redis_server, kafka, topic, other):
    settings = {"REDIS_URL": redis_server.url, "BACKEND": "kafka", "KAFKA_BROKER": kafka.address, "KAFKA_TOPIC": topic}
    if "." in other:
        kafka.create_topic(f"{topic}.log", 2, **{"max_message_bytes": 100_000_000, "cleanup_policy": "compact"} if other == "cleanup.policy" else {})
        assert f"has {other}=" in refused("processor", **settings)
        return
    redis_server.client.hset("{anomaly}:state", "log_topic", "before.log/16")
    said = refused("api", **settings)
    assert f"{topic}.log/16" in said and "before.log/16" in said


def test_without_kafka_it_says_what_to_set(redis_server):
    assert "KAFKA_BROKER" in refused("processor", REDIS_URL=redis_server.url, BACKEND="kafka")
