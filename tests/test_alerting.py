"""The life of an incident as people see and change it over HTTP."""
import math
import time

import pytest

from alerting import (CRITICAL, NORMAL, WARNING, burst, event, feed, history, incident_of, incidents, reached, said, scenario, serving, until)
from server import Server

WINDOW = 8
INCIDENT = {"id", "series", "metric", "labels", "start", "end", "count", "severity", "peak", "state", "resolved_at", "by", "comment", "feedback"}
# An incident is found to be over by a tick, and they come every 10 s.
OVER = WINDOW + 25


@pytest.fixture(scope="module")
def server(tmp_path_factory, side_by_side):
    """Without channels, one for all tests that do not wait; they use different metrics."""
    with Server(tmp_path_factory.mktemp("alerting") / "data") as running:
        yield running


def refused(server, method: str, path: str, status: int, words: str, **request) -> None:
    answer = server.http.request(method, path, **request)
    assert answer.status_code == status, f"{method} {path} {request}: {answer.status_code} {answer.text[:300]}"
    assert answer.headers["content-type"] == "application/problem+json" and words in answer.json()["detail"], f"{request}: {answer.text[:500]}"


# --- what takes time -----------------------------------------------------------------------------------------------------

@scenario
def test_a_silent_source_and_a_normal_one_resolve_and_an_anomaly_within_the_window_opens_the_same_again(tmp_path, cert):
    with serving(tmp_path, WINDOW_SECONDS=WINDOW) as server:
        now = time.time()
        feed(server, burst("silent", now) + burst("normal", now) + burst("again", now) + burst("other", now))
        ids = {metric: incident_of(server, metric)["id"] for metric in ("silent", "normal", "again", "other")}
        silent = server.get(f"/incidents/{ids['silent']}")
        assert silent["incident"].keys() == INCIDENT and silent["incident"]["state"] == "open" and silent["incident"]["resolved_at"] is None
        assert [a["id"] for a in silent["anomalies"]] == [silent["incident"]["peak"]["id"]] and silent["notifications"] == []
        assert {i["metric"] for i in silent["together"]} == {"normal", "again", "other"}
        said(server, ids["again"], "acknowledge", by="ada")
        # One goes on without anomalies, the others say nothing any more.
        for i in range(1, OVER):
            feed(server, [event("normal", now + i, NORMAL + i % 3)])
            if all(server.get(f"/incidents/{id}")["incident"]["state"] == "resolved" for id in ids.values()):
                break
            time.sleep(max(0.0, now + i + 1 - time.time()))
        for id in ids.values():
            one = reached(server, id, "resolved", timeout=5)
            assert now + WINDOW < one["resolved_at"] < now + OVER, (one, now)
        assert history(server, ids["normal"]) == ["opened", "resolved"]
        assert incidents(server, state="open") == [] and len(incidents(server, state="resolved")) == 4
        # Nothing but a tick has told that time has passed: in event time this is within the window of the last anomaly.
        feed(server, [event("again", now + WINDOW - 2, 1000)])
        again = incident_of(server, "again")
        assert (again["id"], again["count"], again["state"], again["resolved_at"]) == (ids["again"], 2, "open", None), again
        assert history(server, ids["again"]) == ["opened", "acknowledged", "resolved", "reopened"]
        # Beyond the window it is another.
        later = now + WINDOW + 30
        feed(server, burst("other", later))
        newest, oldest = incidents(server, metric="other")
        assert oldest["id"] == ids["other"] != newest["id"] and (newest["state"], oldest["state"]) == ("open", "resolved")
        # And is over after its own time, while the re-opened one is over again.
        assert reached(server, ids["again"], "resolved", timeout=OVER)
        assert history(server, ids["again"])[-1] == "resolved"


@scenario
def test_an_anomaly_beyond_the_window_ends_the_incident_before_it_at_once(tmp_path, cert):
    with serving(tmp_path, WINDOW_SECONDS=WINDOW) as server:
        now = time.time()
        feed(server, [e for i in range(5) for e in burst("m", now - 50 + i * 10)])
        found = incidents(server, metric="m")
        assert [i["state"] for i in found] == ["open"] + 4 * ["resolved"], found
        assert all(history(server, i["id"]) == ["opened", "resolved"] for i in found[1:])


@scenario
def test_kill_9_keeps_what_people_said_and_an_incident_is_still_resolved_after_it(tmp_path, cert):
    with serving(tmp_path, WINDOW_SECONDS=WINDOW) as server:
        now = time.time()
        names = ("a", "b", "c", "d")
        feed(server, [e for name in names for e in burst(name, now)])
        ids = {name: incident_of(server, name)["id"] for name in names}
        said(server, ids["a"], "acknowledge", by="ada", comment="looking")
        said(server, ids["b"], "resolve", by="bob", comment="restarted")
        said(server, ids["c"], "feedback", verdict="false_alarm", by="ada")
        silence = server.http.post("/silences", json={"matchers": [{"name": "metric", "op": "=", "value": "d"}], "to": now + 600, "by": "eve", "comment": "works"}).json()

        def all_of_it():
            wholes = [server.get(f"/incidents/{id}") for id in ids.values()]
            return [(w["incident"], w["history"], w["anomalies"]) for w in wholes], server.get("/silences"), server.get("/feedback")

        before = all_of_it()
        assert [w[0]["state"] for w in before[0]] == ["acknowledged", "resolved", "open", "silenced"]
        assert before[1]["silences"] == [silence] and before[0][3][0]["by"] == "eve" and before[0][3][0]["comment"] == "works"
        server.kill()
        server.start()
        assert all_of_it() == before
        for id in ids.values():
            assert reached(server, id, "resolved", timeout=OVER)
        assert server.get("/feedback") == before[2]
        # Who looked after what ended by itself is in its history; who ended it by hand is its last word.
        assert server.get(f"/incidents/{ids['a']}")["history"][1]["by"] == "ada" and server.get(f"/incidents/{ids['b']}")["incident"]["comment"] == "restarted"
        # Killed while over: it stays over, and nothing is told twice.
        histories = {id: history(server, id) for id in ids.values()}
        assert histories[ids["a"]] == ["opened", "acknowledged", "resolved"] and histories[ids["c"]] == ["opened", "feedback", "resolved"]
        server.kill()
        server.start()
        time.sleep(1)
        assert {id: history(server, id) for id in ids.values()} == histories


# --- what is at once -----------------------------------------------------------------------------------------------------

def test_acknowledge_resolve_and_open_again(server):
    now = time.time()
    feed(server, burst("acts", now))
    one = incident_of(server, "acts")
    acknowledged = said(server, one["id"], "acknowledge", by="ada", comment="on it")
    assert acknowledged == one | {"state": "acknowledged", "by": "ada", "comment": "on it"}
    # An acknowledged one may be acknowledged by somebody else, and goes on gathering.
    assert said(server, one["id"], "acknowledge", by="bob")["by"] == "bob"
    feed(server, [event("acts", now + 0.5, 5)])
    assert (it := incident_of(server, "acts"))["count"] == 2 and it["state"] == "acknowledged" and it["by"] == "bob"
    resolved = said(server, one["id"], "resolve", by="cyd", comment="restarted")
    assert (resolved["state"], resolved["by"], resolved["comment"]) == ("resolved", "cyd", "restarted")
    assert math.isclose(resolved["resolved_at"], time.time(), abs_tol=10)
    refused(server, "POST", f"/incidents/{one['id']}/acknowledge", 409, "resolved already", json={"by": "ada"})
    refused(server, "POST", f"/incidents/{one['id']}/resolve", 409, "resolved already", json={})
    # Feedback is also for what is over.
    assert said(server, one["id"], "feedback", verdict="useful")["feedback"] == "useful"
    feed(server, [event("acts", now + 1, CRITICAL + 100)])
    again = incident_of(server, "acts")
    assert (again["id"], again["count"], again["state"], again["resolved_at"]) == (one["id"], 3, "open", None), again
    assert (again["by"], again["comment"], again["feedback"]) == (None, None, "useful"), again
    entries = server.get(f"/incidents/{one['id']}")["history"]
    assert [e["what"] for e in entries] == ["opened", "acknowledged", "acknowledged", "resolved_by_hand", "feedback", "reopened"], entries
    assert all(e.keys() == {"at", "what", "by", "comment", "verdict"} for e in entries)
    assert entries[1] | {"at": 0} == {"at": 0, "what": "acknowledged", "by": "ada", "comment": "on it", "verdict": None}
    assert entries[4]["verdict"] == "useful" and [e["at"] for e in entries] == sorted(e["at"] for e in entries)


def test_an_empty_body_is_nobody_and_no_comment(server):
    feed(server, burst("nobody", time.time()))
    one = incident_of(server, "nobody")
    for body in (b"", b"{}", b"  "):
        answer = server.http.post(f"/incidents/{one['id']}/acknowledge", content=body)
        assert answer.status_code == 200 and answer.json() | {"state": "open"} == one, f"{body}: {answer.text[:300]}"
    # Space around is none of it, and an empty word is none.
    answer = said(server, one["id"], "acknowledge", by="  ada  ", comment="\n ")
    assert (answer["by"], answer["comment"]) == ("ada", None)
    words = {"by": "é" * 100, "comment": "two\nlines " + "x" * 990}
    answer = said(server, one["id"], "acknowledge", **words)
    assert {k: answer[k] for k in words} == words


@pytest.mark.parametrize("act", ["acknowledge", "resolve", "feedback"])
def test_what_is_said_badly_is_refused_and_changes_nothing(server, act):
    feed(server, burst(f"bad_{act}", time.time()))
    one = incident_of(server, f"bad_{act}")
    path, fine = f"/incidents/{one['id']}/{act}", {"verdict": "useful"} if act == "feedback" else {}
    for status, words, request in [
        (422, "by: at most 100 characters", {"json": fine | {"by": "x" * 101}}),
        (422, "comment: at most 1000 characters", {"json": fine | {"comment": "x" * 1001}}),
        (422, "by: control characters", {"json": fine | {"by": "a\nb"}}),
        (422, "comment: control characters", {"json": fine | {"comment": "a\x00b"}}),
        (422, "invalid type", {"json": fine | {"by": 5}}),
        (422, "unknown field", {"json": fine | {"who": "ada"}}),
        (400, "", {"content": b"{"}), (400, "", {"content": b"by=ada"}), (400, "", {"content": b"\xff"}),
    ]:
        refused(server, "POST", path, status, words, **request)
    for verdict in ("good", None, 1, ["useful"]) if act == "feedback" else ():
        refused(server, "POST", path, 422, "", json={"verdict": verdict})
    if act == "feedback":
        refused(server, "POST", path, 422, "verdict", json={})
    else:
        refused(server, "POST", path, 422, "unknown field", json={"verdict": "useful"})
    assert server.http.post(path, content=b'{"comment":"' + b"x" * (1 << 20) + b'"}').status_code == 413
    assert incident_of(server, f"bad_{act}") == one and history(server, one["id"]) == ["opened"]
    for unknown in ("0123456789abcdef", "x", "%2e%2e", "a'b", "é"):
        refused(server, "POST", f"/incidents/{unknown}/{act}", 404, "no incident has the id", json=fine)
    refused(server, "GET", "/incidents/0123456789abcdef", 404, "no incident has the id")
    assert server.http.get(path).status_code == 405


def test_a_page_of_another_site_changes_nothing(server):
    feed(server, burst("origin", time.time()))
    one = incident_of(server, "origin")
    for path, body in [(f"/incidents/{one['id']}/{act}", {"verdict": "useful"} if act == "feedback" else {}) for act in ("acknowledge", "resolve", "feedback")] + [
            ("/silences", {"matchers": [{"name": "metric", "op": "=", "value": "origin"}], "to": time.time() + 60}), ("/notifications/x/resend", {})]:
        answer = server.http.post(path, json=body, headers={"origin": "https://evil.example"})
        assert answer.status_code == 403, f"{path}: {answer.status_code}"
    assert server.http.delete("/silences/x", headers={"origin": "https://evil.example"}).status_code == 403
    assert incident_of(server, "origin") == one


def test_states_are_a_filter_with_pages_and_totals_of_their_own(server):
    now = time.time()
    names = [f"state_{i}" for i in range(12)]
    feed(server, [e for name in names for e in burst(name, now)])
    of = lambda **filters: {i["metric"] for i in incidents(server, metric="state_*", **filters)}
    until(lambda: of() == set(names), "12 incidents")
    ids = {name: incident_of(server, name)["id"] for name in names}
    for name in names[:3]:
        said(server, ids[name], "acknowledge")
    for name in names[3:5]:
        said(server, ids[name], "resolve")
    silence = server.http.post("/silences", json={"matchers": [{"name": "metric", "op": "=~", "value": "state_(5|0|3)"}], "to": now + 600}).json()
    expected = {"acknowledged": set(names[:3]), "resolved": set(names[3:5]), "silenced": {"state_5"}, "open": set(names[6:])}
    for states in ("open", "acknowledged", "silenced", "resolved", "open,acknowledged", "silenced,resolved", "open, silenced", "resolved,acknowledged,silenced,open"):
        want = set().union(*(expected[state.strip()] for state in states.split(",")))
        assert of(state=states) == want, states
        page = server.get("/incidents", metric="state_*", state=states, limit=1)
        assert page["totals"] == {"incidents": len(want), "anomalies": len(want)}, (states, page["totals"])
        seen, cursor = [], {}
        while True:  # in pages of two, each once
            page = server.get("/incidents", metric="state_*", state=states, limit=2, **cursor)
            seen += [i["metric"] for i in page["incidents"]]
            if page["next"] is None:
                break
            cursor = {"cursor": page["next"]}
        assert sorted(seen) == sorted(want), states
    for bad in ("closed", "open,", ",", "OPEN", "open;resolved"):
        refused(server, "GET", "/incidents", 422, "open, acknowledged, silenced or resolved", params={"state": bad})
    assert server.http.delete(f"/silences/{silence['id']}").status_code == 204
    assert of(state="silenced") == set() and of(state="open") == {"state_5", *names[6:]}


def test_feedback_is_counted_by_rule_and_the_last_word_counts(tmp_path):
    config = tmp_path / "anomaly.toml"
    config.write_text('[[rules]]\nmetric = "ruled*"\nthreshold = 2.5\n')
    with Server(tmp_path / "data", args=("all", "--config", str(config))) as server:
        assert server.get("/feedback") == {"rules": []}
        now = time.time()
        names = ["ruled1", "ruled2", "plain1", "plain2", "plain3", "plain4"]
        feed(server, [e for name in names for e in burst(name, now)])
        ids = {name: incident_of(server, name)["id"] for name in names}
        said(server, ids["ruled1"], "feedback", verdict="false_alarm")
        assert server.get("/feedback") == {"rules": [{"rule": "rules[0]", "useful": 0, "false_alarm": 1, "precision": 0.0}]}
        for name, verdict in zip(names, ["useful", "useful", "useful", "useful", "useful", "false_alarm"]):
            assert said(server, ids[name], "feedback", verdict=verdict)["feedback"] == verdict
        expected = {"rules": [{"rule": "default", "useful": 3, "false_alarm": 1, "precision": 0.75}, {"rule": "rules[0]", "useful": 2, "false_alarm": 0, "precision": 1.0}]}
        assert server.get("/feedback") == expected
        assert history(server, ids["ruled1"]) == ["opened", "feedback", "feedback"]
        # It is kept apart from what the incident goes through.
        said(server, ids["plain1"], "resolve")
        server.kill()
        server.start()
        assert server.get("/feedback") == expected and server.get(f"/incidents/{ids['plain1']}")["incident"]["feedback"] == "useful"
        assert server.http.delete("/series", params={"series": "plain4"}).status_code in (200, 202, 204)
        until(lambda: server.get("/feedback")["rules"][0] == {"rule": "default", "useful": 3, "false_alarm": 0, "precision": 1.0}, "feedback without the deleted series")


# --- silences ------------------------------------------------------------------------------------------------------------

IS = lambda name, op, value: {"name": name, "op": op, "value": value}


@pytest.mark.parametrize(("matchers", "silenced"), [
    ([IS("metric", "=", "s_cpu")], {"eu", "us", "none"}),
    ([IS("metric", "=~", "s_c.u"), IS("dc", "=", "eu")], {"eu"}),
    ([IS("metric", "=~", "s_cpu"), IS("dc", "!=", "eu")], {"us", "none", }),
    ([IS("metric", "=", "s_cpu"), IS("dc", "=~", "e.|u.")], {"eu", "us"}),
    ([IS("metric", "=", "s_cpu"), IS("dc", "!~", "e.|u.")], {"none"}),
    # A label that is missing is the empty text, and the whole value must match.
    ([IS("metric", "=", "s_cpu"), IS("dc", "=", "")], {"none"}),
    ([IS("metric", "=~", "s_cp"), IS("dc", "=", "eu")], set()),
    ([IS("metric", "=~", "cpu")], set()),
    ([IS("metric", "=~", ".*cpu"), IS("dc", "=~", "e|u|eu")], {"eu"}),
    ([IS("metric", "=", "s_cpu"), IS("severity", "=", "warning")], {"us"}),
    ([IS("metric", "=", "s_cpu"), IS("severity", "!=", "warning")], {"eu", "none"}),
    ([IS("metric", "=", "s_cpu"), IS("DC", "=", "eu")], set()),
])
def test_matchers_silence_exactly_whom_they_mean(server, matchers, silenced):
    if not incidents(server, metric="s_cpu"):
        now = time.time()
        feed(server, burst("s_cpu", now, dc="eu") + burst("s_cpu", now, value=WARNING, dc="us") + burst("s_cpu", now))
        until(lambda: len(incidents(server, metric="s_cpu")) == 3, "three incidents")
    answer = server.http.post("/silences", json={"matchers": matchers, "to": time.time() + 60, "by": "ada", "comment": "works"})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["matchers"] == matchers and made["state"] == "active" and made in server.get("/silences")["silences"]
    found = incidents(server, metric="s_cpu", state="silenced")
    assert {i["labels"].get("dc", "none") for i in found} == silenced and all((i["by"], i["comment"]) == ("ada", "works") for i in found)
    assert len(incidents(server, metric="s_cpu", state="open")) == 3 - len(silenced)
    assert server.http.delete(f"/silences/{made['id']}").status_code == 204
    assert incidents(server, metric="s_cpu", state="silenced") == []
    [ended] = [s for s in server.get("/silences")["silences"] if s["id"] == made["id"]]
    assert ended["state"] == "expired" and ended["to"] <= time.time() and ended | {"state": "active", "to": made["to"]} == made
    refused(server, "DELETE", f"/silences/{made['id']}", 404, made["id"])


def test_a_silence_begins_and_ends_at_its_times(server):
    now = time.time()
    feed(server, burst("timed", now))
    one = incident_of(server, "timed")
    made = server.http.post("/silences", json={"matchers": [IS("metric", "=", "timed")], "from": now + 1.5, "to": now + 3, "by": "ada"}).json()
    assert made["state"] == "pending" and math.isclose(made["from"], now + 1.5, abs_tol=1e-5) and incident_of(server, "timed")["state"] == "open"
    reached(server, one["id"], "silenced", timeout=10)
    assert time.time() >= now + 1.5
    reached(server, one["id"], "open", timeout=10)
    assert time.time() >= now + 3 and [s["state"] for s in server.get("/silences")["silences"] if s["id"] == made["id"]] == ["expired"]
    # Times may be written as people do.
    answer = server.http.post("/silences", json={"matchers": [IS("metric", "=", "timed")], "from": "2030-01-01T00:00:00Z", "to": "2030-01-01T02:00:00+01:00"})
    assert (answer.status_code, answer.json()["from"], answer.json()["to"]) == (201, 1893456000, 1893459600), answer.text


def test_a_bad_silence_is_refused_and_says_why(server):
    fine = {"matchers": [IS("metric", "=", "x")], "to": time.time() + 60}
    matcher = lambda **parts: fine | {"matchers": [IS("metric", "=", "x") | parts]}
    without = lambda name: {k: v for k, v in fine.items() if k != name}
    before = server.get("/silences")
    for status, words, body in [
        (422, "matchers: at least one is needed", fine | {"matchers": []}),
        (422, "missing field `matchers`", without("matchers")), (422, "missing field `to`", without("to")),
        (422, "unknown field `until`", fine | {"until": 1}),
        (422, "matchers: at most 32", fine | {"matchers": [IS("a", "=", "x")] * 33}),
        (422, "matchers[0].name", matcher(name="")), (422, "unknown variant `==`", matcher(op="==")), (422, "unknown variant", matcher(op="")),
        (422, "matchers[0].value: at most 1024 bytes", matcher(value="x" * 1025)), (422, "invalid type", matcher(value=5)),
        (422, 'matchers[0].value: "(" is no regular expression', matcher(op="=~", value="(")),
        (422, "is no regular expression", matcher(op="=~", value="a)(b")), (422, "is no regular expression", matcher(op="!~", value="[")),
        (422, "is no regular expression", matcher(op="=~", value="((a{1,99}){1,99}){1,99}")),
        # What matches a series of which nobody has heard yet would silence what was not meant.
        *((422, "nobody has heard of", fine | {"matchers": matchers}) for matchers in [
            [IS("metric", "=~", ".*")], [IS("no_such", "=", "")], [IS("metric", "=~", ".*"), IS("severity", "=~", "warning|critical")], [IS("metric", "!=", "")],
            [IS("metric", "!~", "")], [IS("metric", "!=", "cpu")], [IS("dc", "!~", "eu|us")], [IS("metric", "=~", ".*"), IS("dc", "!=", "eu")]]),
        (422, "to: must be later", fine | {"to": time.time() - 1}), (422, "to: must be later", fine | {"from": time.time() + 99}),
        (422, "to: must be later", fine | {"from": fine["to"]}),
        (422, "to: ", fine | {"to": "tomorrow"}), (422, "from: ", fine | {"from": {}}), (422, "to: ", fine | {"to": None}), (422, "to: ", fine | {"to": True}),
        (422, "to: ", fine | {"to": 1e300}), (422, "by: at most 100", fine | {"by": "x" * 101}), (422, "comment: at most 1000", fine | {"comment": "x" * 1001}),
        (422, "by: control characters", fine | {"by": "a\x07b"}), (422, "by: control characters", fine | {"by": "a\nb"}),
        (422, "", []), (422, "", "x"),
    ]:
        refused(server, "POST", "/silences", status, words, json=body)
    refused(server, "POST", "/silences", 400, "", content=b"{")
    refused(server, "POST", "/silences", 422, "missing field", content=b"")
    refused(server, "DELETE", "/silences/0123456789abcdef", 404, "no silence with the id 0123456789abcdef")
    assert server.get("/silences") == before


# --- forgetting ----------------------------------------------------------------------------------------------------------

def test_a_deleted_series_takes_its_incident_with_it(server):
    now = time.time()
    feed(server, burst("kept", now) + burst("gone", now, dc="eu"))
    gone, kept = incident_of(server, "gone"), incident_of(server, "kept")
    said(server, gone["id"], "acknowledge", by="ada")
    assert gone["id"] in [i["id"] for i in server.get(f"/incidents/{kept['id']}")["together"]]
    assert server.http.delete("/series", params={"series": 'gone{dc="eu"}'}).status_code in (200, 202, 204)
    until(lambda: not incidents(server, metric="gone"), "no incident of a deleted series")
    refused(server, "GET", f"/incidents/{gone['id']}", 404, gone["id"])
    for act in ("acknowledge", "resolve", "feedback"):
        refused(server, "POST", f"/incidents/{gone['id']}/{act}", 404, gone["id"], json={"verdict": "useful"} if act == "feedback" else {})
    assert gone["id"] not in [i["id"] for i in server.get(f"/incidents/{kept['id']}")["together"]]
    # Whoever comes back under that name begins anew, without anything of what was said.
    feed(server, burst("gone", now + 1, dc="eu"))
    again = incident_of(server, "gone")
    assert again["id"] != gone["id"] and again["state"] == "open" and again["count"] == 1 and history(server, again["id"]) == ["opened"]
    assert incident_of(server, "kept") == kept


def test_notifications_without_channels_are_none(server):
    feed(server, burst("untold", time.time()))
    incident_of(server, "untold")
    time.sleep(1.5)
    assert server.get("/notifications") == {"notifications": [], "next": None, "budget": {"limit": None, "sent": 0, "held": 0}}
    refused(server, "GET", "/notifications", 422, "must be pending, sent, held or failed", params={"status": "lost"})
    refused(server, "GET", "/notifications", 422, "limit", params={"limit": 0})
    refused(server, "GET", "/notifications", 400, "", params={"cursor": "x"})
    refused(server, "POST", "/notifications/nope/resend", 404, "nope")
