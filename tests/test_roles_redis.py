"""The roles and their Redis: which they take and which they refuse, what they do while it is away, and the familiar names in it."""
import json
import re
import time

import pytest
import redis

import pages
from alerting import burst, calm, event, feed, incidents, until
from links import Link
from load import Load, verify
from needs import need
from process import Process, free_port
from redis_server import RedisServer
from server import REPO, Server, binary, environment, run
from stack import Stack, says_active
from watchers import Subscriber

SECRET = "correct-horse-battery"
OURS = re.compile(r"\{anomaly\}:|\{notify\}:|raw_events$|\{raw_events\}:|event:")


def refused(role: str, timeout: float = 20, **env) -> str:
    """What a role says that does not start but exits 2."""
    if role == "api":
        env = {"PORT": free_port()} | env
    done = run(role, timeout=timeout, **env)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 2, f"exit code {done.returncode}: {said}"
    return said


class Started:
    """A role that may or may not come to serve, and what it says."""

    def __init__(self, role: str, folder, **env):
        folder.mkdir(parents=True, exist_ok=True)
        self.role, self.process, self.env = role, Process(folder / f"{role}.log"), env
        self.folder = folder

    def __enter__(self) -> Process:
        more = {"PORT": free_port(), "DATA_DIR": self.folder / "data"} if self.role == "api" else {}
        self.process.launch([binary(), self.role], self.folder, environment(**more, **self.env))
        return self.process

    def __exit__(self, *_) -> None:
        self.process.kill()


class Unwaited(Server):
    """A server that is not waited for."""

    def __enter__(self) -> Server:
        return self.spawn()


# --- which Redis ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("role", ["api", "processor", "ingest"])
def test_a_role_without_redis_says_what_to_set(role):
    assert "REDIS_URL" in refused(role, KAFKA_BROKER="127.0.0.1:9092")


def test_ingest_without_kafka_says_what_to_set(redis_server):
    assert "KAFKA_BROKER" in refused("ingest", REDIS_URL=redis_server.url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:6379", "127.0.0.1:6379", f"redis://:{SECRET}@127.0.0.1:many/0", f"redis://:{SECRET}@127.0.0.1:6379/zero", f"redis+sentinel://:{SECRET}@127.0.0.1:26379"])
def test_an_address_that_is_none_is_refused(url):
    said = refused("api", REDIS_URL=url)
    assert "REDIS_URL" in said and SECRET not in said


@pytest.mark.parametrize("role", ["api", "processor"])
@pytest.mark.parametrize("settings, told", [({"appendonly": "no"}, "appendonly"), ({"appendfsync": "everysec"}, "appendfsync"), ({"appendfsync": "no"}, "appendfsync")], ids=["no file", "every second", "no fsync"])
def test_a_redis_that_may_forget_what_it_has_acknowledged_is_refused(tmp_path, role, settings, told):
    need("redis")
    with RedisServer(tmp_path / "redis", **settings) as redis:
        said = refused(role, REDIS_URL=redis.url, DATA_DIR=tmp_path / "data")
        assert told in said and "always" in said or told == "appendonly" and "yes" in said, said


@pytest.mark.parametrize("settings, told", [({"maxmemory-policy": "allkeys-lru"}, "allkeys-lru"), ({"maxmemory-policy": "volatile-ttl"}, "volatile-ttl"), ({"maxmemory": "0"}, "maxmemory"), ({"rename-command": "CONFIG hidden"}, "CONFIG")],
                         ids=["evicts", "evicts what has a time to live", "no limit", "hides its settings"])
def test_a_redis_that_is_not_as_it_should_be_is_told_as_degraded(tmp_path, settings, told):
    need("redis")
    with RedisServer(tmp_path / "redis", **settings) as redis, Stack(tmp_path, redis.url, lambda: redis.client, apis=1, processors=1) as running:
        health = until(lambda: (answer := running.api.http.get("/health")).json()["status"] == "degraded" and answer, "it is told")
        assert health.status_code == 200 and told in health.text, health.text
        assert running.api.http.get("/readyz").status_code == 200
        feed(running.api, burst("degraded", time.time()))
        assert len(running.api.anomalies()) == 1


def test_the_password_is_needed_and_never_told(tmp_path):
    need("redis")
    with RedisServer(tmp_path / "redis", password=SECRET) as redis:
        with Stack(tmp_path, redis.url, lambda: redis.client, apis=1, processors=1) as running:
            feed(running.api, burst("locked", time.time()))
            assert len(running.api.anomalies()) == 1
            pages = "".join(role.http.get(page).text for role in running.roles for page in ("/health", "/metrics"))
            assert SECRET not in pages + "".join(role.log() for role in running.roles)
        for url, secret in ((f"redis://:wrong-{SECRET}@127.0.0.1:{redis.port}/0", f"wrong-{SECRET}"), (f"redis://127.0.0.1:{redis.port}/0", SECRET), (f"redis://nobody:{SECRET}@127.0.0.1:{redis.port}/0", SECRET)):
            for role in ("api", "processor"):
                with Started(role, tmp_path / "locked-out", REDIS_URL=url) as process:
                    said = until(lambda: re.search(r"password|authenti|NOAUTH|WRONGPASS", process.log(), re.I) and process.log(), "what is wrong", timeout=20)
                    assert secret not in said, said
    checked = run("config", "check", REDIS_URL=f"redis://:{SECRET}@127.0.0.1:6379/0")
    assert SECRET.encode() not in checked.stdout + checked.stderr


def test_the_password_may_come_from_a_file(tmp_path):
    need("redis")
    with RedisServer(tmp_path / "redis", password=SECRET) as redis:
        (tmp_path / "url").write_text(f"{redis.url}\n")
        with Started("processor", tmp_path / "p", REDIS_URL_FILE=tmp_path / "url"), Server(tmp_path / "data", args=("api",), REDIS_URL_FILE=tmp_path / "url") as api:
            feed(api, burst("filed", time.time()))
            assert len(api.anomalies()) == 1


# --- away ----------------------------------------------------------------------------------------------------------------

def test_roles_that_start_before_their_redis_wait_for_it(tmp_path):
    need("redis")
    redis = RedisServer(tmp_path / "redis")
    with Started("processor", tmp_path / "p", REDIS_URL=redis.url) as processor, Unwaited(tmp_path / "data", args=("api",), REDIS_URL=redis.url) as api:
        time.sleep(1.5)
        assert processor.alive and api.alive, processor.log() + api.log()
        assert not api.wait_ready(0.5) and re.search(r"redis", api.log(), re.I)
        with redis:
            assert api.wait_ready(20), api.log()[-2000:]
            feed(api, burst("waited", time.time()))
            assert len(api.anomalies()) == 1


def test_events_from_before_the_first_processor_are_judged_again_by_the_settings_they_were_judged_by(redis_server, tmp_path):
    """The first processor may be killed before a checkpoint is due, and no configuration lies before these events in the log."""
    with Stack(tmp_path, redis_server.url, lambda: redis_server.client, apis=1, processors=0) as stack:
        assert stack.api.post_batch(burst("early", time.time())).status_code == 202
        for name, env, n_frames in [("first", {}, 1), ("again", {}, 1), ("other", {"ANOMALY_THRESHOLD": 4}, 2)]:
            processor = stack.role("processor", name, **env)
            processor.start()
            until(lambda: says_active(processor), "it is active")
            assert redis_server.client.xlen("{anomaly}:log") == n_frames, f"{name}: the recorded configuration and this one are taken for the same, or not"
            until(lambda: incidents(stack.api), "an incident")
            processor.kill()


def test_an_api_that_begins_anew_waits_for_a_redis_that_can_be_used_and_stops_when_it_is_told(redis_server, tmp_path):
    with Stack(tmp_path, redis_server.url, lambda: redis_server.client, apis=1, processors=1) as stack:
        feed(stack.api, burst("before", time.time()))
        # What it has followed is gone, and what is there instead may forget events.
        redis_server.set(appendfsync="everysec")
        redis_server.client.flushall()
        until(lambda: "not served, it is tried again: redis" in stack.api.log() or not stack.api.alive, "it has begun anew in vain")
        assert stack.api.alive, stack.api.log()
        redis_server.set(appendfsync="always")
        assert stack.api.wait_ready(), stack.api.log()
        feed(stack.api, burst("behind", time.time()))
        until(lambda: [one["metric"] for one in incidents(stack.api)] == ["behind"], "what is new is shown, and nothing else")
        redis_server.set(appendfsync="everysec")
        redis_server.client.flushall()
        until(lambda: stack.api.log().count("not served, it is tried again") > 1, "it has begun anew in vain again")
        code, seconds = stack.api.terminate()
        assert code == 0 and seconds < 3, f"{code} after {seconds} s\n{stack.api.log()}"


def test_a_processor_that_loses_redis_as_it_begins_to_alert_takes_over_again(redis_server, tmp_path):
    with Link(redis_server.port) as link:
        link.trip("Notifying")  # the first that the notifier has written
        with Started("processor", tmp_path, REDIS_URL=f"redis://127.0.0.1:{link.port}/0") as processor:
            until(lambda: "active: this processor detects" in processor.log() or not processor.alive, "it is active")
            assert processor.alive and "the work could not be taken up, it is tried again" in processor.log(), processor.log()


def test_while_redis_is_away_it_is_told_and_then_all_goes_on(stack, redis_server):
    running = stack()
    a, b = running.apis
    with Load([a.url, b.url], n=3, timeout=30) as load:
        load.wait_acked(1000)
        with redis_server.paused():
            until(lambda: all(api.http.get("/readyz", timeout=10).status_code == 503 for api in running.apis), "/readyz says so", timeout=20)
            started = time.monotonic()
            answer = a.http.post("/events", json=calm("away", time.time()), timeout=30)
            assert answer.status_code == 503 and int(answer.headers["retry-after"]) >= 1 and time.monotonic() - started < 15, answer.text
            assert answer.headers["content-type"] == "application/problem+json" and answer.json()["code"]
            single = b.http.post("/events/raw", json=event("away", time.time(), 1.0), timeout=30)
            assert single.status_code == 503 and single.headers["retry-after"]
            assert a.http.get("/livez").status_code == 200
            health = a.http.get("/health", timeout=10)
            assert health.status_code == 200 and health.json()["status"] == "degraded" and re.search("redis", health.text, re.I)
        until(lambda: all(api.http.get("/readyz", timeout=10).status_code == 200 for api in running.apis), "ready again", timeout=30)
        load.wait_acked(3000)
        load.end()
    running.settle()
    away = sum(running.api.series_counts("away").values())
    verdicts = [verify(api, load, others=away) for api in running.apis]
    assert all(v.clean for v in verdicts), list(map(str, verdicts))
    assert {r.what for r in load.refusals} <= {"503"} and all(r.told_when for r in load.refusals), load.refused()
    assert all(role.alive for role in running.roles) and not running.panics()


# --- familiar names ---------------------------------------------------------------------------------------------------------

def test_raw_events_grows_while_no_processor_runs_and_drains(stack, redis_server):
    running, redis = stack(apis=1, processors=0), redis_server.client
    rows = [one for i in range(100) for one in burst(f"queued{i}", time.time())]
    redis.rpush("raw_events", *map(json.dumps, rows[:1000]))
    assert redis.llen("raw_events") == 1000
    redis.rpush("raw_events", *map(json.dumps, rows[1000:]), "no JSON", json.dumps({"metric": "queued", "value": "text"}))
    time.sleep(1)
    assert redis.llen("raw_events") == 2102
    until(lambda: running.api.get("/health")["queue_size"] == 2102, "queue_size counts the list")
    # What comes over HTTP waits too.
    assert running.api.post_batch(burst("posted", time.time())).status_code == 202
    until(lambda: running.api.get("/health")["queue_size"] == 2123, "queue_size counts both")
    running.processors.append(running.role("processor", "processor-0").start())
    until(lambda: redis.llen("raw_events") == 0, "the list drains")
    running.settle()
    counts = running.api.series_counts()
    assert counts == {f"queued{i}": 21 for i in range(100)} | {"posted": 21}
    assert len(running.api.anomalies(metric="queued*")) == 100
    stats = running.api.get("/stats")
    assert (stats["events_total"], stats["rejected_total"]) == (2121, 2)
    assert not [key for key in redis.scan_iter("{raw_events}:taken:*")], "nothing is left aside"


def test_what_raw_events_brings_and_cannot_be_taken_is_kept_with_the_reason(stack, redis_server):
    running = stack(apis=1, processors=1, MAX_SERIES=1)
    redis_server.client.rpush("raw_events", *(json.dumps(event(name, time.time(), 1.0)) for name in ("taken", "second", "third")))
    dead = running.wait(lambda: len(found := redis_server.client.lrange("{raw_events}:dead", 0, -1)) == 2 and found, "two are refused")
    assert [(json.loads(d)["code"], json.loads(json.loads(d)["event"])["metric"]) for d in dead] == [("series_limit", "second"), ("series_limit", "third")]
    running.wait(lambda: running.api.series_counts() == {"taken": 1}, "one is taken")


def test_raw_events_are_counted_once_however_often_the_processor_dies(stack, redis_server):
    running, redis = stack(apis=1, processors=1), redis_server.client
    processor, sent = running.processors[0], 0
    for attempt in range(6):
        for _ in range(20):
            rows = calm(f"dying{sent % 7}", time.time(), n=100)
            redis.rpush("raw_events", *map(json.dumps, rows))
            sent += 100
        time.sleep(0.03 * attempt)
        processor.kill()
        processor.start()
    until(lambda: redis.llen("raw_events") == 0, "the list drains", timeout=60)
    running.settle()
    assert sum(running.api.series_counts("dying").values()) == running.api.get("/stats")["events_total"] == sent


def test_each_anomaly_is_published_as_one_message(stack, redis_server):
    running = stack(apis=1, processors=1)
    with Subscriber(redis_server.port) as anomalies, Subscriber(redis_server.port, "anomalies:incidents") as about:
        feed(running.api, burst("published", time.time()) + burst("published_too", time.time()))
        heard = anomalies.wait(2)
        about.wait(1)
        time.sleep(1.5)
    listed = {json.loads(a)["id"]: json.loads(a) for a in running.api.anomalies()}
    assert [json.loads(h.text) for h in heard] == [listed[h.id] for h in heard] and len(anomalies.heard) == len(listed) == 2
    # One message may tell of several incidents.
    told = [json.loads(h.text) for h in about.heard]
    assert {message["type"] for message in told} == {"incident.opened"} and len({message["id"] for message in told}) == len(told)
    assert sorted(i["id"] for message in told for i in message["data"]["incidents"]) == sorted(a["incident_id"] for a in listed.values())


def test_the_channel_can_be_named(stack, redis_server):
    running = stack(apis=1, processors=1, ALERTS_CHANNEL="odd")
    with Subscriber(redis_server.port, "odd") as named, Subscriber(redis_server.port) as other:
        feed(running.api, burst("named", time.time()))
        named.wait(1)
        time.sleep(0.3)
    assert not other.heard


def test_the_result_of_an_event_is_a_hash_under_the_id_that_was_answered(stack, redis_server):
    running, redis, now = stack(apis=1, processors=1), redis_server.client, time.time()
    feed(running.api, calm("hashed", now - 1))
    normal = running.api.post_event(event("hashed", now - 0.5, 52)).json()["id"]
    odd = running.api.post_event(event("hashed", now, 95)).json()["id"]
    named = running.api.post_event(event("hashed", now + 0.1, 99) | {"id": "my own"}).json()["id"]
    assert named == "my own"
    result = until(lambda: redis.hgetall(f"event:{odd}"), "the result")
    assert (result["metric"], float(result["value"]), float(result["timestamp"])) == ("hashed", 95, round(now, 6)) and result["anomaly"] in ("1", "true")
    assert 86400 - 60 < redis.ttl(f"event:{odd}") <= 86400
    assert until(lambda: redis.hgetall("event:my own"), "the result")["metric"] == "hashed"
    running.settle()
    listed = [json.loads(a) for a in running.api.anomalies()]
    assert [a["event_id"] for a in listed] == [odd, "my own"]
    assert redis.hgetall(f"event:{normal}") == {}, "only anomalies, unless REDIS_RESULTS=all"


def test_all_results_are_kept_where_that_is_asked_for(stack, redis_server):
    running, redis, now = stack(apis=1, processors=1, REDIS_RESULTS="all", REDIS_RESULT_TTL_SECONDS=2), redis_server.client, time.time()
    feed(running.api, calm("kept", now))
    normal = running.api.post_event(event("kept", now, 52)).json()["id"]
    result = until(lambda: redis.hgetall(f"event:{normal}"), "the result")
    assert result["anomaly"] in ("0", "false") and 0 < redis.ttl(f"event:{normal}") <= 2
    until(lambda: not redis.exists(f"event:{normal}"), "it is forgotten", timeout=10)


def test_every_key_is_ours_or_a_familiar_one(stack, redis_server):
    running = stack(REDIS_RESULTS="all")
    redis_server.client.rpush("raw_events", *map(json.dumps, calm("keys", time.time())))
    feed(running.api, burst("keys_too", time.time()))
    running.apis[1].upload("k.csv", b"timestamp,metric,value\n1700000000,keyed,1\n", key="k")
    running.settle()
    keys = list(redis_server.client.scan_iter("*"))
    assert {"{anomaly}:log", "{anomaly}:lease"} <= set(keys)
    assert not [key for key in keys if not OURS.match(key)]
    epoch, nonce = redis_server.client.get("{anomaly}:lease").split(":", 1)
    assert int(epoch) >= 1 and nonce


def test_the_log_does_not_grow_for_ever(stack, redis_server):
    """What a checkpoint covers is trimmed, and a processor that starts then has everything."""
    running = stack(apis=1, processors=1)
    with Load([running.api.url], n=4, pad=4000, pause=0.0) as load:
        longest = 0
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            length = redis_server.client.xlen("{anomaly}:log")
            if length < longest / 2:
                break
            longest = max(longest, length)
            time.sleep(0.2)
        else:
            raise AssertionError(f"{longest} entries and never fewer")
        load.end()
    running.settle()
    running.processors[0].kill()
    running.processors[0].start()
    running.settle()
    assert (verdict := verify(running.api, load)).clean, str(verdict)


def test_what_a_dying_process_left_of_series_is_found_by_the_next(stack, redis_server):
    """A name that was let in for an append that never was, one that is listed and unknown, one that is known and has lost its place."""
    running = stack(processors=1, MAX_SERIES=4)
    feed(running.api, [row for name in ("there", "placeless", "ghost", "shade") for row in calm(name, time.time())])
    running.settle()
    known, series, names = "{anomaly}:known", "{anomaly}:series", "{anomaly}:names"
    raw = redis.Redis(port=redis_server.port)
    about = {json.loads(text)["name"]: (key, text) for key, text in raw.hgetall(series).items()}
    assert raw.smembers(known) == {key for key, _ in about.values()} and len(about) == 4
    for ghost in ("ghost", "shade"):
        assert running.api.http.delete("/series", params={"series": ghost}).status_code == 204
    running.settle()
    raw.srem(known, about["placeless"][0])
    raw.sadd(known, about["ghost"][0], about["shade"][0])
    for ghost in ("ghost", "shade"):
        raw.hset(series, *about[ghost])
        raw.zadd(names, {ghost: 0})
    # Who sees one in the list can delete it.
    assert set(running.apis[1].series_counts()) == set(about)
    assert running.apis[1].http.delete("/series", params={"series": "ghost"}).status_code == 204
    assert running.apis[1].http.delete("/series", params={"series": "never"}).status_code == 404
    expected = {"there", "placeless"}
    running.wait(lambda: raw.smembers(known) == {about[name][0] for name in expected} and set(running.apis[1].series_counts()) == expected, "series are in line", 90)
    assert set(map(bytes.decode, raw.zrange(names, 0, -1))) == expected
    # Their places are free.
    feed(running.api, calm("first", time.time()) + calm("second", time.time()))


def test_the_commands_of_the_page_give_what_it_says(stack, redis_server, tmp_path):
    running = stack(apis=1, processors=1)
    (tmp_path / "page").mkdir()
    pages.follow(REPO / "docs" / "stack.md", tmp_path / "page", [(r"127\.0\.0\.1:8000", f"127.0.0.1:{running.api.port}"), (r"docker compose exec redis redis-cli", f"redis-cli -p {redis_server.port}")])
