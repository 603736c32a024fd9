"""The roles on one Redis: two API replicas are one API whichever is asked, and processors may come and go."""
import json
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from alerting import Told, burst, calm, event, feed, history, incident_of, incidents, said, until
from load import Load, verify
from process import Process
from server import REPO, Server, binary, comparable, environment, run
from sinks import HttpSink
from watchers import Follower

TAKE_OVER = 15  # seconds, at most
HAND_OVER = 5  # seconds, at most, from a clean end


def agree(stack, path: str, **params) -> dict:
    """The answer of each replica, which is the same."""
    stack.settle()
    answers = [api.get(path, **params) for api in stack.apis]
    assert all(answer == answers[0] for answer in answers), f"{path} {params}: {answers}"
    return answers[0]


def stats(stack) -> dict:
    """/stats of each replica: the same but for what a replica measures by itself, each second."""
    stack.settle()
    answers = [{k: v for k, v in api.get("/stats").items() if not re.search("_per_second|_last_minute|^history$|^websocket", k)} for api in stack.apis]
    assert all(answer == answers[0] for answer in answers), answers
    return answers[0]


def totals(api) -> dict:
    return {k: v for k, v in api.get("/stats").items() if k.endswith("_total")}


def gained(before: dict, after: dict) -> dict:
    return {k.removesuffix("_total"): after[k] - before[k] for k in before if after[k] != before[k]}


# --- beginning -----------------------------------------------------------------------------------------------------

def test_two_commands_and_one_setting_are_enough(redis_server, tmp_path):
    (tmp_path / "processor").mkdir()
    processor = Process(tmp_path / "processor.log")
    processor.launch([binary(), "processor"], tmp_path / "processor", environment(REDIS_URL=redis_server.url))
    try:
        with Server(tmp_path / "data", args=("api",), REDIS_URL=redis_server.url) as api, api.websocket() as socket:
            assert json.loads(socket.recv(timeout=10))["type"] == "hello"
            start = time.time() - 20
            for i, value in enumerate([50.0] * 10 + [200.0]):
                assert api.post_event(event("cpu", start + i, value)).json()["status"] == "queued"
            pushed = json.loads(socket.recv(timeout=20))
            api.settle()
            listed = [json.loads(a) for a in api.anomalies()]
            assert [a["value"] for a in listed] == [200.0] and pushed["data"] == listed[0]
            assert (api.get("/health")["status"], api.get("/readyz")["status"]) == ("ok", "ok")
            assert api.terminate()[0] == 0
        code, _ = processor.terminate()
        assert code == 0, processor.log()[-2000:]
        assert [str(path.relative_to(tmp_path / "processor")) for path in (tmp_path / "processor").glob("*/*")] == ["data/processor-1"]
    finally:
        processor.kill()


@pytest.mark.parametrize("page", ["/livez", "/readyz", "/health", "/metrics"])
def test_a_processor_tells_how_it_is_at_its_status_port(shared_stack, page):
    for processor in (shared_stack.active(), shared_stack.standby()):
        answer = processor.http.get(page)
        assert answer.status_code == 200 and answer.text, f"{processor}: {answer.status_code} {answer.text[:300]}"


# --- reading from either -------------------------------------------------------------------------------------------

def test_an_anomaly_is_the_same_on_both_replicas(shared_stack):
    a, b = shared_stack.apis
    feed(a, burst("both", time.time(), host="one"))
    shared_stack.settle()
    [on_a], [on_b] = a.anomalies(metric="both"), b.anomalies(metric="both")
    assert on_a == on_b
    found = json.loads(on_a)
    assert agree(shared_stack, f"/anomalies/{found['id']}")["anomaly"] == found
    assert agree(shared_stack, f"/incidents/{found['incident_id']}")["incident"]["count"] == 1
    assert agree(shared_stack, "/incidents", metric="both")["incidents"][0]["id"] == found["incident_id"]


def test_what_two_replicas_take_in_turn_is_judged_as_offline(shared_stack, tmp_path):
    """One series, an event to each in turn; the ids say that each was counted once, in the order of its answers."""
    rows = [event("turns", time.time() - 100 + i, 50 + i % 10) for i in range(40)] + [event("turns", time.time() - 50, 95)]
    for i, row in enumerate(rows):
        shared_stack.apis[i % 2].post_event(row)
    shared_stack.settle()
    (tmp_path / "turns.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    offline = [json.loads(line) for line in run("detect", tmp_path / "turns.ndjson", "--format", "json").stdout.splitlines()]
    for api in shared_stack.apis:
        found = [json.loads(comparable(a)) for a in api.anomalies(metric="turns")]
        assert found[0].pop("event_id")
        assert found == [{k: v for k, v in a.items() if k not in ("event_id", "detected_at", "source")} for a in offline] and len(found) == 1


def test_each_websocket_shows_every_anomaly_once(shared_stack):
    a, b = shared_stack.apis
    with Follower(a.url, query="metric=once*") as on_a, Follower(b.url, query="metric=once*") as on_b:
        for i in range(20):
            answer = shared_stack.apis[i % 2].post_batch(burst(f"once{i}", time.time()))
            assert answer.status_code == 202
        on_a.wait(20), on_b.wait(20)
        shared_stack.settle()
        time.sleep(0.5)
    listed = [json.loads(one)["id"] for one in a.anomalies(metric="once*")]
    assert len(listed) == 20 and on_a.ids == on_b.ids == listed


def test_a_cursor_of_one_replica_goes_on_at_the_other(shared_stack):
    a, b = shared_stack.apis
    with Follower(a.url, query="metric=resume*") as first:
        feed(a, burst("resume0", time.time()))
        first.wait(1)
    for i in range(1, 6):
        feed(b, burst(f"resume{i}", time.time()))
    with Follower(b.url, query="metric=resume*", after=first.cursor) as second:
        second.wait(5)
        time.sleep(0.3)
    listed = [json.loads(one)["id"] for one in b.anomalies(metric="resume*")]
    assert first.ids + second.ids == listed and len(listed) == 6 and second.gaps == 0


@pytest.mark.parametrize("path, member", [("/anomalies", "anomalies"), ("/incidents", "incidents"), ("/series", "series")])
def test_pages_may_be_read_from_either(shared_stack, path, member):
    stack = shared_stack
    feed(stack.api, [one for i in range(7) for one in burst(f"pages{i}", time.time())])
    stack.settle()
    filters = {"query": "pages"} if path == "/series" else {"metric": "pages*"}
    found, cursor, turn = [], {}, 0
    while True:
        page = stack.apis[turn % 2].get(path, limit=2, **filters, **cursor)
        found += page[member]
        turn += 1
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}
    whole = agree(stack, path, limit=100, **filters)[member]
    assert turn >= 4 and found == whole and len({json.dumps(one, sort_keys=True) for one in found}) >= 7


def test_every_reading_route_gives_the_same_on_each(shared_stack):
    stack, now = shared_stack, time.time()
    before = stats(stack)
    feed(stack.apis[0], burst("read", now, dc="eu"))
    assert stack.apis[1].http.post("/events", json=[{"metric": "read"}]).status_code == 422
    series = 'read{dc="eu"}'
    [entry] = agree(stack, "/series", query="read eu")["series"]
    assert (entry["series"], entry["count"], entry["last"]["value"], entry["anomalies_24h"]) == (series, 21, 95, 1)
    # Points are written beside the work: they may come a moment later.
    for api in stack.apis:
        points = until(lambda: len(found := api.get("/series/points", series=series)["points"]) == 21 and found, f"the points at {api}")
        assert (points[-1]["value"], points[-1]["severity"]) == (95, "critical") and points[-1]["expected"] == 52
    spike, last_calm = agree(stack, "/series/explain", series=series, at=round(now, 6)), agree(stack, "/series/explain", series=series, at=points[-2]["timestamp"])
    assert (spike["verdict"], last_calm["verdict"]) == ("anomaly", "normal") and spike["checks"]
    [lane] = [lane for lane in agree(stack, "/anomalies/heat", **{"from": now - 3600, "to": now + 60, "buckets": 24, "top": 100})["lanes"] if lane["series"] == series]
    assert sum(bucket["count"] for bucket in lane["buckets"] if bucket) == 1
    after = [totals(api) for api in stack.apis]
    assert after[0] == after[1] and gained({k: before[k] for k in after[0]}, after[0]) == {"events": 21, "rejected": 1}
    assert all(api.get("/stats")["series"] == stack.api.get("/stats")["series"] >= 1 for api in stack.apis)
    lines = [api.http.get("/anomalies.csv", params={"metric": "read"}).text for api in stack.apis]
    assert lines[0] == lines[1] and len(lines[0].splitlines()) == 2


# --- writing to either -------------------------------------------------------------------------------------------------

def test_an_upload_to_one_is_followed_on_the_other(shared_stack):
    a, b = shared_stack.apis
    rows = burst("uploaded", time.time())
    text = "timestamp,metric,value\n" + "".join(f"{r['timestamp']},{r['metric']},{r['value']}\n" for r in rows) + "1,uploaded,no number\n"
    answer = a.upload("file.csv", text.encode())
    assert answer.status_code == 200, answer.text
    path = f"/uploads/{answer.json()['id']}"
    judged = until(lambda: (one := b.get(path)["files"][0])["anomalies"] is not None and one, "the final numbers on the other replica")
    assert (judged["accepted"], judged["rejected"], judged["late"], judged["anomalies"]) == (21, 1, 0, 1) and judged["errors"][0]["line"] == 23
    assert a.get(path) == b.get(path)
    assert b.http.get("/uploads/0000").status_code == 404


def test_what_is_said_of_an_incident_on_one_is_seen_on_the_other_at_once(shared_stack):
    a, b = shared_stack.apis
    feed(a, burst("said", time.time()))
    one = incident_of(b, "said")
    said(a, one["id"], "acknowledge", by="eva", comment="on it")
    seen = b.get(f"/incidents/{one['id']}")["incident"]
    assert (seen["state"], seen["by"], seen["comment"]) == ("acknowledged", "eva", "on it")
    said(b, one["id"], "feedback", by="eva", verdict="false_alarm")
    assert a.get(f"/incidents/{one['id']}")["incident"]["feedback"] is not None
    said(b, one["id"], "resolve", by="eva")
    assert a.get(f"/incidents/{one['id']}")["incident"]["state"] == "resolved"
    assert history(a, one["id"]) == history(b, one["id"])
    assert [i["id"] for i in incidents(a, metric="said", state="resolved")] == [one["id"]]


def test_a_silence_made_on_one_holds_on_the_other_at_once(shared_stack):
    a, b = shared_stack.apis
    feed(b, burst("hushed", time.time()))
    one = incident_of(a, "hushed")
    now = time.time()
    made = a.http.post("/silences", json={"matchers": [{"name": "metric", "op": "=", "value": "hushed"}], "from": now - 1, "to": now + 600, "by": "eva"})
    assert made.status_code in (200, 201), made.text
    assert made.json()["id"] in [s["id"] for s in b.get("/silences")["silences"]]
    assert b.get(f"/incidents/{one['id']}")["incident"]["state"] == "silenced"
    assert b.http.delete(f"/silences/{made.json()['id']}").status_code == 204
    assert a.get("/silences") == b.get("/silences") and next(s for s in a.get("/silences")["silences"] if s["id"] == made.json()["id"])["state"] == "expired"
    assert a.get(f"/incidents/{one['id']}")["incident"]["state"] == "open"


def test_people_can_work_while_no_processor_runs(stack):
    running = stack(processors=1)
    a, b = running.apis
    feed(a, burst("alone", time.time()))
    running.settle()
    one = incident_of(b, "alone")
    running.processors[0].kill()
    said(a, one["id"], "acknowledge", by="eva")
    assert b.get(f"/incidents/{one['id']}")["incident"]["state"] == "acknowledged"
    silence = b.http.post("/silences", json={"matchers": [{"name": "metric", "op": "=", "value": "alone"}], "from": time.time() - 1, "to": time.time() + 600, "by": "eva"}).json()
    assert silence["id"] in [s["id"] for s in a.get("/silences")["silences"]]
    assert a.anomalies(metric="alone") == b.anomalies(metric="alone") and a.get("/series", query="alone")["series"]
    # What is sent meanwhile is acknowledged, waits, is counted as waiting on both, and is judged later.
    assert a.post_batch(burst("meanwhile", time.time())).status_code == 202
    assert [until(lambda: api.get("/health")["queue_size"] == 21, "21 wait") for api in running.apis] and not b.anomalies(metric="meanwhile")
    running.processors[0].start()
    running.settle()
    assert len(b.anomalies(metric="meanwhile")) == 1
    assert b.get(f"/incidents/{one['id']}")["incident"]["state"] in ("acknowledged", "silenced")


def test_a_key_that_the_other_replica_knows_gives_its_answer_and_counts_nothing(shared_stack):
    a, b = shared_stack.apis
    before = totals(a)
    rows = burst("keyed", time.time()) + [{"metric": "keyed", "value": "no number"}]
    first, again = a.post_batch(rows, idempotency_key="shared-key"), b.post_batch(rows, idempotency_key="shared-key")
    assert (first.status_code, first.json()) == (again.status_code, again.json()) and first.json()["accepted"] == 21
    data = "timestamp,metric,value\n" + "".join(f"{r['timestamp']},keyed_file,{r['value']}\n" for r in rows[:-1])
    first, again = a.upload("k.csv", data.encode(), key="shared-file"), until(lambda: (r := b.upload("k.csv", data.encode(), key="shared-file")).status_code == 200 and r, "the same answer")
    assert again.json()["id"] == first.json()["id"] and again.json()["files"][0]["accepted"] == first.json()["files"][0]["accepted"] == 21
    shared_stack.settle()
    assert gained(before, totals(b)) == {"events": 42, "rejected": 1}
    assert b.series_counts("keyed") == {"keyed": 21, "keyed_file": 21} and len(a.anomalies(metric="keyed*")) == 2


def test_the_same_key_on_both_at_the_same_time_is_taken_once(shared_stack):
    for attempt in range(10):
        rows = calm(f"raced{attempt}", time.time())
        with ThreadPoolExecutor() as pool:
            answers = list(pool.map(lambda api: api.post_batch(rows, idempotency_key=f"raced-{attempt}"), shared_stack.apis))
        assert {r.status_code for r in answers} <= {202, 409, 503} and any(r.status_code == 202 for r in answers), [r.text for r in answers]
    shared_stack.settle()
    assert shared_stack.api.series_counts("raced") == {f"raced{i}": 20 for i in range(10)}


def test_a_series_deleted_on_one_is_gone_from_the_other(shared_stack):
    a, b = shared_stack.apis
    feed(a, burst("deleted", time.time()))
    shared_stack.settle()
    assert len(b.anomalies(metric="deleted")) == 1
    assert a.http.delete("/series", params={"series": "deleted"}).status_code == 204
    shared_stack.settle()
    for api in (b, a):
        assert api.anomalies(metric="deleted") == [] and api.series_counts("deleted") == {} and incidents(api, metric="deleted") == []
        assert api.http.get("/series/explain", params={"series": "deleted", "at": time.time()}).status_code == 404
    assert b.http.delete("/series", params={"series": "deleted"}).status_code == 404
    feed(b, burst("deleted", time.time()))
    shared_stack.settle()
    assert a.series_counts("deleted") == {"deleted": 21} and len(a.anomalies(metric="deleted")) == 1


def test_the_quota_of_series_holds_over_both(stack):
    running = stack(processors=1, MAX_SERIES=10)
    rows = [[event(f"quota{k}_{i}", time.time(), 1.0) for i in range(10)] for k in range(2)]
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda pair: pair[0].post_batch(pair[1]), zip(running.apis, rows)))
    assert sum(r.json()["accepted"] for r in answers) == 10, [r.text for r in answers]
    refused = [error for r in answers for error in r.json()["errors"]]
    assert len(refused) == 10 and len({error["code"] for error in refused}) == 1
    running.settle()
    counts = running.apis[1].series_counts()
    assert len(counts) == 10
    # Those that are known go on, on either, also after a restart of all.
    for role in running.roles:
        role.terminate()
    for role in running.processors + running.apis:
        role.start()
    for api in running.apis:
        assert api.post_batch([event(series, time.time(), 1.0) for series in counts] + [event("quota_new", time.time(), 1.0)]).json()["accepted"] == 10


def test_what_waits_is_bounded_over_both(stack):
    running = stack(processors=1, QUEUE_CAPACITY=2000)
    running.processors[0].kill()
    accepted, refused = 0, None
    for i in range(60):
        answer = running.apis[i % 2].post_batch(calm(f"wait{i}", time.time(), n=100))
        if answer.status_code != 202:
            refused = answer
            break
        accepted += 100
    # A batch is taken whole while the queue is below its capacity, by either.
    assert refused is not None and refused.status_code == 503 and refused.headers.get("retry-after"), (accepted, refused)
    assert 2000 <= accepted <= 2300
    running.processors[0].start()
    running.settle()
    assert sum(running.api.series_counts().values()) == accepted
    assert until(lambda: running.apis[1].post_batch(calm("again", time.time())).status_code == 202, "accepted again")


# --- roles that come and go ----------------------------------------------------------------------------------------------

def test_another_processor_takes_over_after_kill_9_and_nothing_is_lost(stack):
    running = stack()
    with Load([api.url for api in running.apis], n=3) as load, Follower(*[api.url for api in running.apis]) as follower:
        load.wait_acked(3000)
        active = running.active()
        epoch, killed = running.epoch(), time.monotonic()
        active.kill()
        running.wait(lambda: running.epoch() > epoch, "another has the lease", TAKE_OVER)
        taken = time.monotonic()
        running.wait(lambda: follower.since(taken), "an anomaly of the next", TAKE_OVER)
        assert follower.since(taken)[0].at - killed <= TAKE_OVER
        load.wait_acked(3000)
        active.start()
        load.end()
        running.settle()
        follower.wait(len(verify(running.api, load).ids))
    verdicts = [verify(api, load) for api in running.apis]
    assert all(v.clean for v in verdicts), list(map(str, verdicts))
    assert not load.refusals, load.refused()
    assert sorted(follower.ids) == sorted(verdicts[0].ids)
    assert not running.panics()


def test_a_processor_that_ends_cleanly_hands_over_at_once(stack):
    running = stack()
    with Load([api.url for api in running.apis], n=2) as load:
        load.wait_acked(1000)
        for _ in range(3):
            active, epoch = running.active(), running.epoch()
            code, seconds = active.terminate()
            ended = time.monotonic()
            assert code == 0 and seconds <= 10
            running.wait(lambda: running.epoch() > epoch, "the other has the lease", HAND_OVER)
            running.wait(lambda: running.active() is not active, "the other works", HAND_OVER)
            assert time.monotonic() - ended < HAND_OVER + 1
            load.wait_acked(500)
            active.start()
        load.end()
    running.settle()
    assert (verdict := verify(running.api, load)).clean and not load.refusals, f"{verdict}; refused: {load.refused()}"


def test_a_replica_whose_folder_is_lost_shows_the_same(stack):
    running = stack(processors=1)
    a, b = running.apis
    feed(a, [one for i in range(5) for one in burst(f"view{i}", time.time())])
    running.settle()
    before = (b.anomalies(), incidents(b), b.series_counts(), totals(b))
    b.terminate()
    shutil.rmtree(b.data_dir)
    b.start()
    b.settle()
    assert (b.anomalies(), incidents(b), b.series_counts(), totals(b)) == before
    assert b.anomalies() == a.anomalies()


def test_all_roles_start_again_and_have_everything(stack):
    running = stack()
    feed(running.apis[1], [one for i in range(5) for one in burst(f"again{i}", time.time())])
    running.settle()
    before = (running.api.anomalies(), incidents(running.api), running.api.series_counts(), totals(running.api))
    for role in running.roles:
        assert role.terminate()[0] == 0, role.log()[-1000:]
    for role in running.processors + running.apis:
        role.start()
    running.settle()
    for api in running.apis:
        assert (api.anomalies(), incidents(api), api.series_counts(), totals(api)) == before
    # A series goes on where it was: its window is still full.
    feed(running.api, [event("again0", time.time() + 1, 95)])
    assert len(running.api.anomalies(metric="again0")) == 2


def test_one_incident_is_told_once_however_many_processors_there_are(stack):
    with HttpSink() as sink:
        running, told = stack(apis=1, WEBHOOK_URL=f"{sink.url}/hook", NOTIFY_GROUP_WAIT_SECONDS=0.2), Told(sink)
        feed(running.api, burst("told", time.time()))
        told.wait("told", "opened")
        running.active().kill()
        feed(running.api, burst("told_later", time.time()))
        told.wait("told_later", "opened", timeout=30 + TAKE_OVER)
        time.sleep(2)
        assert (told.kinds("told"), told.kinds("told_later")) == (["opened"], ["opened"])
        assert all(n["status"] == "sent" for n in running.api.get("/notifications")["notifications"])


def test_the_example_client_takes_either(shared_stack):
    for api in shared_stack.apis:
        done = subprocess.run([sys.executable, REPO / "examples" / "send_events.py", api.url], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and "= 95.0, z = 13.74" in done.stdout, done.stdout + done.stderr
