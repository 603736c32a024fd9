"""Who hears of what, how often, and what becomes of a message that nobody takes: with a webhook, and a mail server that wants STARTTLS and a password."""
import json
import re
import threading
import time

import standardwebhooks

from alerting import (ACCOUNT, CRITICAL, WARNING, Channels, Gate, all_told, burst, calm, event, feed, incident_of, incidents, notifications, quantile, said,
                      scenario, serving, until)
from sinks import HttpSink

WINDOW = 60
QUIET = 2.5  # when nothing has come for so long, nothing will: a message gathers for 1 s
STORM = 1100


def kinds_of(server, id: str) -> list[tuple[str, str, str]]:
    return [(n["channel"], n["kind"], n["status"]) for n in server.get(f"/incidents/{id}")["notifications"]]


# --- one incident --------------------------------------------------------------------------------------------------------

@scenario
def test_an_incident_is_told_once_on_each_channel_however_many_anomalies_it_has(tmp_path, cert):
    with Channels(cert) as channels, serving(tmp_path, WINDOW_SECONDS=300, EMAIL_RATE_LIMIT_SECONDS=0, **channels.env) as server:
        now = time.time()
        feed(server, [event("many", now - 200 + i * 0.01, 50 + i % 5) for i in range(15000)])
        spikes = [event("many", now - 10 + i * 0.01, CRITICAL + i % 3) for i in range(400)]
        for i in range(0, 400, 100):
            feed(server, spikes[i:i + 100])
        [opened] = channels.told.wait("many", "opened")
        channels.mail.received.wait(1)
        for i in range(10):  # and goes on
            feed(server, [event("many", now - 5 + i * 0.1, CRITICAL)])
            time.sleep(0.2)
        time.sleep(QUIET)
        one = incident_of(server, "many")
        assert one["count"] == 410 and channels.told.kinds("many") == ["opened"] and len(channels.mails) == 1
        request = channels.hook.received.all[0]
        body = standardwebhooks.Webhook(channels.webhook_env["WEBHOOK_SECRET"]).verify(request["body"], request["headers"])
        [fact] = body["data"]["incidents"]
        assert (fact["id"], fact["severity"], fact["series"]) == (one["id"], "critical", "many") and fact["peak"]["metric"] == "many"
        [mail] = channels.mails
        assert mail["tls"] and mail["login"] and mail["mail"]["Subject"].startswith("[critical] many: 9")
        assert kinds_of(server, one["id"]) == [("email", "opened", "sent"), ("webhook", "opened", "sent")]
        sent = server.get("/notifications")
        assert sent["budget"] == {"limit": None, "sent": 1, "held": 0}
        for n in sent["notifications"]:
            assert n.keys() == {"id", "channel", "kind", "incidents", "status", "attempts", "last_error", "created_at", "sent_at"}
            assert n["incidents"] == [one["id"]] and n["attempts"] == 1 and n["last_error"] is None and n["created_at"] <= n["sent_at"] <= time.time()
        assert {n["id"] for n in sent["notifications"] if n["channel"] == "webhook"} == {opened["id"]}
        assert mail["mail"]["Message-ID"] == f"<{next(n['id'] for n in sent['notifications'] if n['channel'] == 'email')}@anomaly>"


@scenario
def test_escalation_acknowledgement_and_the_end_reach_whoever_was_told(tmp_path, cert):
    """A webhook, PagerDuty and a mailbox; a warning that becomes critical, is acknowledged, is over, and comes back."""
    with Channels(cert) as channels, HttpSink((202, {}, '{"status":"success"}')) as duty:
        env = channels.env | {"PAGERDUTY_ROUTING_KEY": "k" * 32, "PAGERDUTY_URL": f"{duty.url}/v2/enqueue", "EMAIL_RATE_LIMIT_SECONDS": 0, "WINDOW_SECONDS": 8}
        with serving(tmp_path, **env) as server:
            told, duties = channels.told, lambda: [json.loads(request["body"]) for request in list(duty.received.all)]
            actions = lambda: [event["event_action"] for event in duties()]
            now = time.time()
            feed(server, burst("grows", now, WARNING))
            told.wait("grows", "opened")
            one = incident_of(server, "grows")
            assert one["severity"] == "warning" and told.of("grows")[0]["data"]["severity"] == "warning"
            feed(server, [event("grows", now + 0.3, WARNING + 2)])  # another warning says nothing new
            time.sleep(QUIET)
            assert incident_of(server, "grows")["severity"] == "warning" and told.kinds("grows") == ["opened"]
            feed(server, [event("grows", now + 0.6, 300)])
            [escalated] = told.wait("grows", "escalated")
            assert escalated["data"]["severity"] == "critical" and escalated["data"]["incidents"][0]["id"] == one["id"]
            said(server, one["id"], "acknowledge", by="ada")
            told.wait("grows", "acknowledged")
            until(lambda: actions() == ["trigger", "trigger", "acknowledge"], "PagerDuty hears of it")
            # More of it is told to nobody: somebody looks after it.
            feed(server, [event("grows", now + 0.9, 400)])
            told.wait("grows", "resolved", timeout=40)
            until(lambda: actions() == ["trigger", "trigger", "acknowledge", "resolve"], "PagerDuty hears that it is over")
            assert {event["dedup_key"] for event in duties()} == {one["id"]}
            assert told.kinds("grows") == ["opened", "escalated", "acknowledged", "resolved"]
            # What comes back is told again, though somebody once looked after it.
            feed(server, [event("grows", now + 7, 5000)])
            back = incident_of(server, "grows")
            assert back["id"] == one["id"] and back["state"] == "open", back
            told.wait("grows", "reopened")
            until(lambda: actions()[4:] == ["trigger"], "PagerDuty is called again")
            said(server, one["id"], "resolve", by="ada")
            until(lambda: told.kinds("grows")[4:] == ["reopened", "resolved"], "resolved by hand is told")
            until(lambda: actions()[5:] == ["resolve"], "PagerDuty hears that it was resolved by hand")
            time.sleep(QUIET)
            assert [re.sub(r" grows:.*", "", s) for s in channels.subjects()] == ["[warning]", "[critical] now critical:", "[critical] back again:"], channels.subjects()
            assert len({n["id"] for n in notifications(server)}) == len(notifications(server)) == 6 + 6 + 3
            assert len({r["id"] for r in told.all}) == 6


@scenario
def test_who_is_acknowledged_or_resolved_before_its_message_is_told_accordingly(tmp_path, cert):
    with Channels(cert) as channels, serving(tmp_path, WINDOW_SECONDS=WINDOW, NOTIFY_GROUP_WAIT_SECONDS=2, **channels.webhook_env) as server:
        now = time.time()
        feed(server, burst("seen", now))
        said(server, incident_of(server, "seen")["id"], "acknowledge", by="ada")
        time.sleep(2 + QUIET)
        assert channels.told.all == [] and notifications(server) == []
        feed(server, burst("over", now))
        said(server, incident_of(server, "over")["id"], "resolve", by="ada")
        channels.told.wait("over", "resolved")
        assert channels.told.kinds("over") == ["opened", "resolved"]


@scenario
def test_a_repeat_comes_only_while_it_goes_on_and_nobody_looks_after_it(tmp_path, cert):
    with Channels(cert) as channels, serving(tmp_path, WINDOW_SECONDS=120, NOTIFY_REPEAT_SECONDS=3, EMAIL_RATE_LIMIT_SECONDS=0, **channels.env) as server:
        told, now, stop = channels.told, time.time(), threading.Event()
        for metric in ("goes_on", "looked_after", "once", "by_hand"):
            feed(server, burst(metric, now))
        ids = {metric: incident_of(server, metric)["id"] for metric in ("goes_on", "looked_after", "once", "by_hand")}
        until(lambda: {i["metric"] for r in told.all for i in r["data"]["incidents"]} == ids.keys(), "all told")
        said(server, ids["looked_after"], "acknowledge", by="ada")
        said(server, ids["by_hand"], "resolve", by="ada")

        def go_on():
            for i in range(1, 200):
                if stop.wait(0.5):
                    break
                feed(server, [event(metric, now + i / 4, CRITICAL * 1.5 ** i) for metric in ("goes_on", "looked_after")])

        feeding = threading.Thread(target=go_on)
        feeding.start()
        try:
            repeats = told.wait("goes_on", "repeated", 3, timeout=25)
            assert {i["metric"] for r in repeats for i in r["data"]["incidents"]} == {"goes_on"}, repeats
            counts = [r["data"]["incidents"][0]["count"] for r in repeats]
            assert counts == sorted(set(counts)), counts
            decided = [n["created_at"] for n in notifications(server) if n["channel"] == "webhook" and ids["goes_on"] in n["incidents"] and n["kind"] in ("opened", "repeated")]
            gaps = [b - a for a, b in zip(decided, decided[1:])]
            assert all(2.5 < gap < 6 for gap in gaps), gaps
            assert incident_of(server, "looked_after")["count"] > 5 and incident_of(server, "looked_after")["state"] == "acknowledged"
            said(server, ids["goes_on"], "acknowledge")
            n = len(told.of("goes_on", "repeated"))
            time.sleep(7)
        finally:
            stop.set()
            feeding.join()
        assert len(told.of("goes_on", "repeated")) == n and len({r["id"] for r in told.all}) == len(told.all)
        assert {i["metric"] for r in told.all if r["type"] == "incident.repeated" for i in r["data"]["incidents"]} == {"goes_on"}
        assert sum("still going on" in s for s in channels.subjects()) == n


# --- several -------------------------------------------------------------------------------------------------------------

@scenario
def test_20_series_that_go_wrong_in_the_same_second_are_one_message_that_names_the_first_mover(tmp_path, cert):
    with Channels(cert) as channels, serving(tmp_path, WINDOW_SECONDS=WINDOW, **channels.env) as server:
        now = time.time()
        names = [f"series_{(i * 7) % 20:02}" for i in range(20)]
        for name in names:
            feed(server, calm(name, now))
        # The first to move is neither the first to arrive nor the first by name.
        spikes = [event(name, now + (0.001 if name == "series_13" else 0.1 + i * 0.01), CRITICAL) for i, name in enumerate(names)]
        for some in (spikes[:7], spikes[7:14], spikes[14:]):
            feed(server, some)
        opened = until(lambda: channels.told.all, "a message")
        channels.mail.received.wait(1)
        time.sleep(QUIET)
        [opened] = channels.told.all
        listed = [incident["metric"] for incident in opened["data"]["incidents"]]
        assert opened["type"] == "incident.opened" and sorted(listed) == sorted(names) and listed[0] == "series_13"
        assert "20 series" in opened["data"]["subject"] and "first series_13" in opened["data"]["subject"]
        [subject], [text] = channels.subjects(), channels.texts()
        assert "20 series" in subject and "first series_13" in subject and "series_13 moved first" in text
        by_id = {i["id"]: i["metric"] for i in incidents(server)}
        for n in notifications(server):
            assert {by_id[id] for id in n["incidents"]} == set(names)
        # Each of them tells of the message, and the first is linked.
        first = next(id for id, metric in by_id.items() if metric == "series_13")
        assert opened["data"]["url"].endswith(f"#incident={first}") and all(len(server.get(f"/incidents/{id}")["notifications"]) == 2 for id in by_id)
        # Over, or acknowledged, when all are; not before.
        ids = list(by_id)
        for id in ids[:-1]:
            said(server, id, "resolve")
        time.sleep(QUIET)
        assert len(channels.told.all) == 1
        said(server, ids[-1], "resolve")
        [resolved] = channels.told.wait("series_13", "resolved")
        assert len(resolved["data"]["incidents"]) == 20 and len(channels.told.all) == 2


@scenario
def test_routes_and_group_by_of_the_file_say_who_hears_of_what_with_whom(tmp_path, cert):
    config = tmp_path / "anomaly.toml"
    config.write_text("""
notify_group_by = "dc"
[[routes]]
metric = "test_*"
channels = []
[[routes]]
metric = "db_*"
severity = "critical"
channels = ["email", "webhook"]
[[routes]]
labels = { team = "web*" }
channels = ["email"]
[[routes]]
channels = ["webhook"]
""")
    with Channels(cert) as channels, serving(tmp_path, args=("all", "--config", str(config)), WINDOW_SECONDS=WINDOW, EMAIL_RATE_LIMIT_SECONDS=0, **channels.env) as server:
        now = time.time()
        feed(server, [e for metric, value, labels in [
            ("test_a", CRITICAL, {}), ("db_a", CRITICAL, {"dc": "eu"}), ("db_b", CRITICAL, {"dc": "us"}), ("db_c", WARNING, {"dc": "eu"}),
            ("page", CRITICAL, {"team": "web-1", "dc": "eu"}), ("cpu", CRITICAL, {"dc": "eu"}), ("cpu", CRITICAL, {"dc": "us"}), ("cpu", CRITICAL, {"dc": "us", "host": "b"}),
        ] for e in burst(metric, now, value, **labels)])
        channels.hook.received.wait(4)
        channels.mail.received.wait(3)
        time.sleep(QUIET)
        series = lambda message: sorted(i["series"] for i in message["data"]["incidents"])
        assert sorted(map(series, channels.told.all)) == [['cpu{dc="eu"}', 'db_c{dc="eu"}'], ['cpu{dc="us",host="b"}', 'cpu{dc="us"}'], ['db_a{dc="eu"}'], ['db_b{dc="us"}']]
        assert sorted(re.sub(r"\[critical\] (\w+).*", r"\1", s) for s in channels.subjects()) == ["db_a", "db_b", "page"]
        assert incident_of(server, "test_a")["state"] == "open" and kinds_of(server, incident_of(server, "test_a")["id"]) == []


# --- silences ------------------------------------------------------------------------------------------------------------

IS = lambda metric: [{"name": "metric", "op": "=~", "value": metric}]


def silence(server, metric: str, seconds: float = 600) -> str:
    answer = server.http.post("/silences", json={"matchers": IS(metric), "to": time.time() + seconds})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


@scenario
def test_nobody_hears_of_what_is_silenced_until_the_silence_ends(tmp_path, cert):
    with Channels(cert) as channels, serving(tmp_path, WINDOW_SECONDS=WINDOW, **channels.webhook_env) as server:
        told, now = channels.told, time.time()
        by_hand = silence(server, "ends_by_hand|over")
        begun = time.time()
        silence(server, "ends_by_itself", 16)
        feed(server, burst("ends_by_hand", now) + burst("ends_by_itself", now) + burst("over", now) + burst("not_silent", now))
        told.wait("not_silent", "opened")
        said(server, incident_of(server, "over")["id"], "resolve")
        time.sleep(QUIET)
        assert {i["metric"] for r in told.all for i in r["data"]["incidents"]} == {"not_silent"}
        assert {i["metric"] for i in incidents(server, state="silenced")} == {"ends_by_hand", "ends_by_itself"}
        # What begins during it, and outlives the server, is silent too.
        server.kill()
        server.start()
        feed(server, burst("ends_by_hand", now, dc="eu"))
        time.sleep(QUIET)
        assert told.kinds("ends_by_hand") == told.kinds("ends_by_itself") == told.kinds("over") == []
        assert server.http.delete(f"/silences/{by_hand}").status_code == 204
        [opened] = told.wait("ends_by_hand", "opened", timeout=5)
        assert len(opened["data"]["incidents"]) == 2
        [by_itself] = told.wait("ends_by_itself", "opened")
        assert by_itself["at"] >= begun + 16
        time.sleep(QUIET)
        assert told.kinds("over") == [] and len(told.all) == 3


@scenario
def test_one_silence_that_ends_leaves_another_that_holds(tmp_path, cert):
    with Channels(cert) as channels, serving(tmp_path, WINDOW_SECONDS=WINDOW, **channels.webhook_env) as server:
        first, second = silence(server, "twice"), silence(server, "twi.e", 500)
        feed(server, burst("twice", time.time()))
        time.sleep(QUIET)
        assert server.http.delete(f"/silences/{first}").status_code == 204
        time.sleep(QUIET)
        assert channels.told.all == [] and incident_of(server, "twice")["state"] == "silenced"
        # Whom it holds for is asked when it is sent: this one was acknowledged meanwhile.
        said(server, incident_of(server, "twice")["id"], "acknowledge", by="ada")
        assert server.http.delete(f"/silences/{second}").status_code == 204
        time.sleep(QUIET)
        assert channels.told.all == [] and incident_of(server, "twice")["state"] == "acknowledged"


@scenario
def test_what_grew_worse_while_it_was_silenced_is_told_when_the_silence_ends(tmp_path, cert):
    with Channels(cert) as channels, serving(tmp_path, WINDOW_SECONDS=WINDOW, **channels.webhook_env) as server:
        now = time.time()
        feed(server, burst("worse", now, WARNING))
        channels.told.wait("worse", "opened")
        silent = silence(server, "worse")
        feed(server, [event("worse", now + 1, 500)])
        time.sleep(QUIET)
        assert incident_of(server, "worse")["severity"] == "critical" and channels.told.kinds("worse") == ["opened"]
        assert server.http.delete(f"/silences/{silent}").status_code == 204
        [escalated] = channels.told.wait("worse", "escalated", timeout=10)
        assert escalated["data"]["severity"] == "critical"


@scenario
def test_what_was_over_in_a_silence_and_comes_back_behind_it_is_told(tmp_path, cert):
    with Channels(cert) as channels, serving(tmp_path, WINDOW_SECONDS=WINDOW, **channels.webhook_env) as server:
        now, silent = time.time(), silence(server, "back")
        feed(server, burst("back", now))
        one = incident_of(server, "back")["id"]
        time.sleep(QUIET)
        said(server, one, "resolve")
        assert server.http.delete(f"/silences/{silent}").status_code == 204
        time.sleep(QUIET)
        assert channels.told.all == []
        feed(server, [event("back", now + 1, 1000)])
        assert (incident_of(server, "back")["id"], incident_of(server, "back")["state"]) == (one, "open")
        until(lambda: channels.told.of("back"), "what has come back is told", timeout=10)


# --- what is not taken ---------------------------------------------------------------------------------------------------

@scenario
def test_what_is_refused_for_good_is_seen_and_sent_again_by_hand_as_it_was(tmp_path, cert):
    with Channels(cert, (400, {}, "no such hook"), (400, {}, "still not"), (200, {}, "ok")) as channels, serving(tmp_path, WINDOW_SECONDS=WINDOW, **channels.webhook_env) as server:
        feed(server, burst("refused", time.time()))
        [failed] = until(lambda: notifications(server, status="failed"), "a failed one")
        assert failed["attempts"] == 1 and "400" in failed["last_error"] and "no such hook" in failed["last_error"] and failed["sent_at"] is None
        time.sleep(QUIET)
        assert len(channels.told.all) == 1
        server.kill()
        server.start()
        assert notifications(server) == [failed]
        for n in (2, 3):
            answer = server.http.post(f"/notifications/{failed['id']}/resend")
            assert answer.status_code == 200 and answer.json()["id"] == failed["id"], answer.text
            channels.hook.received.wait(n)
            expected = "failed" if n == 2 else "sent"
            until(lambda: [o["status"] for o in notifications(server)] == [expected], expected)
        [sent] = notifications(server)
        assert sent["attempts"] == 3 and sent["last_error"] is None and sent["sent_at"] >= failed["created_at"]
        assert len({(r["id"], r["raw"]) for r in channels.told.all}) == 1 and channels.told.all[0]["id"] == failed["id"]
        assert notifications(server, status="failed") == [] == notifications(server, status="held") == notifications(server, status="pending")


@scenario
def test_a_receiver_that_is_busy_gets_the_same_bytes_under_the_same_id_until_it_takes_them(tmp_path, cert):
    with Channels(cert, *3 * [(503, {}, "busy")], (200, {}, "ok")) as channels, serving(tmp_path, WINDOW_SECONDS=WINDOW, **channels.webhook_env) as server:
        now = time.time()
        feed(server, burst("busy", now))
        channels.hook.received.wait(1)
        [pending] = until(lambda: [n for n in notifications(server, status="pending") if n["attempts"]], "a pending one")
        assert "503" in pending["last_error"] and "busy" in pending["last_error"]
        # It grows, is said to be looked after, and the server dies: what was decided stays as it was.
        feed(server, [event("busy", now + 0.5, 1000)])
        server.kill()
        server.start()
        requests = channels.hook.received.wait(4, timeout=40)
        until(lambda: notifications(server)[0]["status"] == "sent", "sent")
        time.sleep(QUIET)
        assert len(channels.told.all) == 4 and len({(r["id"], r["raw"]) for r in channels.told.all}) == 1
        secret = standardwebhooks.Webhook(channels.webhook_env["WEBHOOK_SECRET"])
        assert all(secret.verify(r["body"], r["headers"]) for r in requests)
        gaps = [b["at"] - a["at"] for a, b in zip(requests, requests[1:])]
        assert all(0.45 < gap < 16 for gap in gaps), gaps
        [sent] = notifications(server)
        assert sent["attempts"] == 4 and sent["last_error"] is None


@scenario
def test_retry_after_is_kept(tmp_path, cert):
    with Channels(cert, (429, {"retry-after": "6"}, ""), (200, {}, "")) as channels, serving(tmp_path, WINDOW_SECONDS=WINDOW, **channels.webhook_env) as server:
        feed(server, burst("asked", time.time()))
        first, second = channels.hook.received.wait(2, timeout=20)
        assert 5.9 < second["at"] - first["at"] < 12


@scenario
def test_a_mail_that_is_put_off_comes_later_as_it_was(tmp_path, cert):
    answers = ["451 4.7.1 greylisted", "452 4.3.1 full", None]
    with Channels(cert) as channels:
        channels.mail.refuse = lambda address: answers.pop(0) if len(answers) > 1 else answers[0]
        with serving(tmp_path, WINDOW_SECONDS=WINDOW, **channels.email_env) as server:
            feed(server, burst("put_off", time.time()))
            [pending] = until(lambda: [n for n in notifications(server, status="pending") if n["attempts"] == 1], "one attempt")
            assert "451" in pending["last_error"] and "greylisted" in pending["last_error"] and ACCOUNT[1] not in pending["last_error"]
            [received] = channels.mail.received.wait(1)
            [sent] = until(lambda: notifications(server, status="sent"), "sent")
            assert sent["id"] == pending["id"] and sent["attempts"] == 3 and received["mail"]["Message-ID"] == f"<{sent['id']}@anomaly>"
            # It was written when it was decided, not when it was sent.
            assert abs(received["mail"]["Date"].datetime.timestamp() - sent["created_at"]) < 2
            time.sleep(QUIET)
            assert len(channels.mails) == 1


@scenario
def test_a_wrong_password_is_seen_and_is_not_tried_for_ever(tmp_path, cert):
    with Channels(cert) as channels, serving(tmp_path, WINDOW_SECONDS=WINDOW, **channels.env | {"SMTP_PASSWORD": "wr0ng"}) as server:
        feed(server, burst("locked_out", time.time()))
        [failed] = until(lambda: notifications(server, status="failed"), "failed")
        assert failed["channel"] == "email" and "535" in failed["last_error"] and "wr0ng" not in failed["last_error"] + server.log()
        # The other channel is none the worse.
        channels.told.wait("locked_out", "opened")
        assert channels.mails == [] and len(channels.told.all) == 1


@scenario
def test_what_was_gathered_when_the_server_died_is_told_once_and_what_was_deleted_is_not(tmp_path, cert):
    with Channels(cert) as channels, serving(tmp_path, WINDOW_SECONDS=WINDOW, NOTIFY_GROUP_WAIT_SECONDS=4, **channels.webhook_env) as server:
        now = time.time()
        feed(server, burst("gathered", now) + burst("deleted", now))
        incident_of(server, "deleted")
        server.kill()
        server.start()
        assert server.http.delete("/series", params={"series": "deleted"}).status_code in (200, 202, 204)
        feed(server, burst("gathered", now, dc="eu"))
        [opened] = channels.told.wait("gathered", "opened")
        assert sorted(i["series"] for i in opened["data"]["incidents"]) == ["gathered", 'gathered{dc="eu"}']
        for _ in range(2):  # and after it was sent
            server.kill()
            server.start()
        time.sleep(QUIET)
        assert len(channels.told.all) == 1 and [n["status"] for n in notifications(server)] == ["sent"]


@scenario
def test_more_incidents_at_once_than_a_message_holds_are_all_told_each_once(tmp_path, cert):
    n = 1300
    with Channels(cert) as channels, serving(tmp_path, WINDOW_SECONDS=WINDOW, NOTIFY_GROUP_WAIT_SECONDS=3, EMAIL_RATE_LIMIT_SECONDS=0, **channels.env) as server:
        now = time.time()
        for i in range(0, n, 100):
            feed(server, [e for k in range(i, i + 100) for e in calm("crowd", now, n=6, host=f"h{k}")])
        feed(server, [event("crowd", now, CRITICAL, host=f"h{k}") for k in range(n)])
        found = {i["id"] for i in incidents(server)}
        assert len(found) == n
        ids = lambda: [id for r in channels.told.all for id in [i["id"] for i in r["data"]["incidents"]] + r["data"].get("more", [])]
        until(lambda: len(ids()) >= n, "all told")
        time.sleep(QUIET)
        assert sorted(ids()) == sorted(found) and len(channels.told.all) <= 3
        for n in notifications(server):
            assert n["status"] == "sent" and set(n["incidents"]) <= found
        assert all(len(m["raw"]) < 1_000_000 for m in channels.mails) and len(channels.mails) == len(channels.told.all)


# --- limits --------------------------------------------------------------------------------------------------------------

@scenario
def test_old_data_are_shown_and_counted_in_one_digest(tmp_path, cert):
    with Channels(cert) as channels, serving(tmp_path, WINDOW_SECONDS=WINDOW, **channels.env) as server:
        now = time.time()
        old = [e for name in ("old_a", "old_b", "old_c") for i in range(4) for e in burst(name, now - 20000 + i * 1000)]
        feed(server, old + burst("barely_old", now - 3700) + burst("young", now - 3400))
        channels.told.wait("young", "opened")
        time.sleep(5)
        last = time.time()
        feed(server, burst("old_a", now - 4000))
        found = incidents(server)
        assert len(found) == 4 * 3 + 3 and {i["metric"] for i in found} == {"old_a", "old_b", "old_c", "barely_old", "young"}
        time.sleep(last + 55 - time.time())
        assert [i["metric"] for r in channels.told.all for i in r["data"]["incidents"]] == ["young"] * len(channels.told.all) and not channels.told.digests()
        [digest] = until(channels.told.digests, "a digest", timeout=20)
        assert 55 < digest["at"] - last < 75
        told = digest["data"]["digest"]
        assert (told["incidents"], told["old"], told["anomalies"], told["n_series"]) == (14, 14, 14, 4), told
        assert {s["series"]: s["incidents"] for s in told["series"]} == {"old_a": 5, "old_b": 4, "old_c": 4, "barely_old": 1}
        until(lambda: len(channels.mails) == 2, "an email of young, and the digest")
        assert "14 incidents" in channels.subjects()[1] and "14 of them are of data that was old" in channels.texts()[1].replace("\n", " ")
        time.sleep(QUIET)
        assert len(channels.told.digests()) == 1 and len(channels.mails) == 2
        for i in found:
            assert bool(server.get(f"/incidents/{i['id']}")["notifications"]) == (i["metric"] == "young")


@scenario
def test_a_digest_goes_to_whom_the_routes_name(tmp_path, cert):
    config = tmp_path / "anomaly.toml"
    config.write_text('[[routes]]\nmetric = "nobody"\nchannels = []\n[[routes]]\nmetric = "mail"\nchannels = ["email"]\n[[routes]]\nchannels = ["webhook"]\n')
    with Channels(cert) as channels, serving(tmp_path, args=("all", "--config", str(config)), WINDOW_SECONDS=WINDOW, **channels.env) as server:
        now = time.time()
        feed(server, [e for metric in ("nobody", "mail", "hook") for e in burst(metric, now - 9000)])
        [digest] = until(channels.told.digests, "a digest", timeout=80)
        assert [s["series"] for s in digest["data"]["digest"]["series"]] == ["hook"] and digest["data"]["digest"]["incidents"] == 1
        channels.mail.received.wait(1)
        time.sleep(QUIET)
        [text] = channels.texts()
        assert "1 incident with 1 anomaly in 1 series" in text and "mail" in text and "hook" not in text and "nobody" not in text, text
        assert len(channels.told.all) == 1


@scenario
def test_what_was_old_and_goes_on_now_is_told(tmp_path, cert):
    with Channels(cert) as channels, serving(tmp_path, WINDOW_SECONDS=30000, **channels.webhook_env) as server:
        now = time.time()
        feed(server, burst("went_on", now - 7200))
        time.sleep(QUIET)
        assert channels.told.all == []
        feed(server, [event("went_on", now, 1000)])
        [opened] = channels.told.wait("went_on", "opened")
        assert opened["data"]["incidents"][0]["count"] == 2


@scenario
def test_what_is_beyond_the_budget_is_held_with_its_reason(tmp_path, cert):
    with Channels(cert) as channels, serving(tmp_path, WINDOW_SECONDS=WINDOW, NOTIFY_BUDGET="1/hour", EMAIL_RATE_LIMIT_SECONDS=0, **channels.env) as server:
        now = time.time()
        feed(server, burst("first", now))
        channels.told.wait("first", "opened")
        assert server.get("/notifications")["budget"] == {"limit": "1/hour", "sent": 1, "held": 0}
        feed(server, burst("second", now))
        held = until(lambda: len(found := notifications(server, status="held")) == 2 and found, "held on both channels")
        assert {n["channel"] for n in held} == {"email", "webhook"} and all("1/hour" in n["last_error"] and "NOTIFY_BUDGET" in n["last_error"] for n in held)
        assert all(n["incidents"] == [incident_of(server, "second")["id"]] and n["attempts"] == 0 and n["sent_at"] is None for n in held)
        page = server.get("/notifications")
        assert page["budget"] == {"limit": "1/hour", "sent": 1, "held": 2}, page["budget"]
        assert server.http.post(f"/notifications/{held[0]['id']}/resend").status_code in (404, 409)
        # That one is over is said beyond any budget to whoever heard of it, and to nobody else.
        said(server, incident_of(server, "first")["id"], "resolve")
        said(server, incident_of(server, "second")["id"], "resolve")
        channels.told.wait("first", "resolved")
        time.sleep(QUIET)
        assert channels.told.kinds("second") == [] and channels.told.digests() == [] and len(channels.mails) == 1
        server.kill()
        server.start()
        time.sleep(QUIET)
        assert server.get("/notifications")["budget"] == page["budget"] and len(channels.mails) == 1


def storm_is_one_mail_and_one_digest(server, channels, interval: float) -> tuple[str, str]:
    """Waits for both, and that nothing more comes; returns the texts of the first and of the digest."""
    channels.mail.received.wait(2, timeout=4 * interval + 10)
    time.sleep(2 * interval + 1)
    assert len(channels.mails) == 2, channels.subjects()
    assert channels.subjects()[0].startswith("[critical]") and channels.subjects()[1].startswith("[digest]"), channels.subjects()
    first, second = [n["created_at"] for n in notifications(server, status="sent") if n["channel"] == "email"]
    assert interval <= second - first < interval + 5, second - first
    return tuple(text.replace("\n", " ") for text in channels.texts())


@scenario
def test_a_storm_in_one_series_is_one_email_and_one_digest_that_accounts_for_all(tmp_path, cert):
    interval = 5
    with Channels(cert) as channels, serving(tmp_path, WINDOW_SECONDS=300, EMAIL_RATE_LIMIT_SECONDS=interval, **channels.env) as server:
        now = time.time()
        feed(server, [event("storm", now - 270 + i * 0.013, 50 + i % 5) for i in range(20000)])
        begun = time.time()
        for k in range(20):
            feed(server, [event("storm", begun + k * 0.15 + i * 0.002, CRITICAL + i % 3) for i in range(STORM // 20)])
            time.sleep(max(0.0, begun + (k + 1) * 0.15 - time.time()))
        assert time.time() - begun < 10
        one = incident_of(server, "storm")
        assert one["count"] == STORM, one
        _, digest = storm_is_one_mail_and_one_digest(server, channels, interval)
        assert "1 incident with 1100 anomalies in 1 series" in digest, digest
        assert channels.told.kinds("storm") == ["opened"]


@scenario
def test_a_storm_that_outlasts_the_interval_is_accounted_for_in_the_end(tmp_path, cert):
    interval = 4
    with Channels(cert) as channels, serving(tmp_path, WINDOW_SECONDS=300, EMAIL_RATE_LIMIT_SECONDS=interval, **channels.env) as server:
        now = time.time()
        feed(server, [event("long", now - 270 + i * 0.013, 50 + i % 5) for i in range(20000)])
        begun = time.time()
        for k in range(20):
            feed(server, [event("long", begun + k * 0.5 + i * 0.002, CRITICAL + i % 3) for i in range(STORM // 20)])
            time.sleep(max(0.0, begun + (k + 1) * 0.5 - time.time()))
        assert incident_of(server, "long")["count"] == STORM
        time.sleep(3 * interval)
        assert 2 <= len(channels.mails) <= 1 + (10 + 3 * interval) // interval and channels.subjects()[-1].startswith("[digest]"), channels.subjects()
        assert "1 incident with 1100 anomalies in 1 series" in channels.texts()[-1].replace("\n", " "), channels.texts()[-1]


@scenario
def test_a_storm_of_incidents_is_one_email_and_one_digest_too(tmp_path, cert):
    interval = 5
    with Channels(cert) as channels, serving(tmp_path, WINDOW_SECONDS=0.05, EMAIL_RATE_LIMIT_SECONDS=interval, **channels.env) as server:
        start = time.time() - 130
        begun = time.time()
        for k in range(20):  # 1,000 times 20 calm samples, an anomaly, and a pause that is longer than the window
            feed(server, [e for i in range(k * 50, k * 50 + 50) for e in [*calm("storm", start + i * 0.12 + 0.04, step=0.002), event("storm", start + i * 0.12 + 0.04, CRITICAL)]])
            time.sleep(max(0.0, begun + (k + 1) * 0.15 - time.time()))
        assert time.time() - begun < 20
        found = incidents(server, metric="storm")
        assert len(found) == 1000 and sum(i["count"] for i in found) == 1000, len(found)
        storm_is_one_mail_and_one_digest(server, channels, interval)
        mails = [n for n in notifications(server) if n["channel"] == "email" and n["status"] == "sent"]
        assert [n["kind"] for n in mails] == ["opened", "digest"]
        digest = channels.texts()[1].replace("\n", " ")
        rest = 1000 - len(mails[0]["incidents"])
        assert rest > 0 and f"{rest} incidents with {rest} anomalies in 1 series" in digest, (rest, digest)


@scenario
def test_a_digest_after_a_crash_is_still_one(tmp_path, cert):
    with Channels(cert) as channels, serving(tmp_path, WINDOW_SECONDS=WINDOW, EMAIL_RATE_LIMIT_SECONDS=8, **channels.email_env) as server:
        now = time.time()
        feed(server, burst("one", now))
        channels.mail.received.wait(1)
        feed(server, burst("two", now))
        until(lambda: notifications(server, status="held"), "held")
        feed(server, burst("three", now))
        until(lambda: len(notifications(server, status="held")) == 2, "both held")
        server.kill()
        server.start()
        channels.mail.received.wait(2, timeout=20)
        server.kill()
        server.start()
        time.sleep(10)
        assert len(channels.mails) <= 3 and len({m["mail"]["Message-ID"] for m in channels.mails}) == 2, channels.subjects()
        assert "2 incidents with 2 anomalies in 2 series" in channels.texts()[1].replace("\n", " ")


# --- what does not answer ------------------------------------------------------------------------------------------------

def test_a_mail_server_and_a_webhook_that_never_answer_delay_no_detection_and_get_everything_in_the_end(tmp_path, cert, side_by_side):
    for future in side_by_side.values():
        future.exception()  # they would be measured with it
    rounds, n = 3, 120
    with Channels(cert) as fine, Channels(cert) as channels, Gate(channels.mail.port) as mail, Gate(channels.hook.server.server_port) as hook:
        holes = channels.env | {"SMTP_PORT": mail.port, "WEBHOOK_URL": f"http://127.0.0.1:{hook.port}/hook"}
        env = {"WINDOW_SECONDS": WINDOW, "EMAIL_RATE_LIMIT_SECONDS": 0}
        with serving(tmp_path, "none", **env) as none, serving(tmp_path, "fine", **env, **fine.env) as well, serving(tmp_path, "holes", **env | holes) as hit:
            now, servers = time.time(), {"no channels": none, "channels that answer": well, "black holes": hit}
            for server in servers.values():
                feed(server, [e for i in range(rounds * n) for e in calm(f"hole_{i}", now)])
            took = {name: [[] for _ in range(rounds)] for name in servers}
            with none.websocket() as a, well.websocket() as b, hit.websocket() as c:
                sockets = dict(zip(servers, (a, b, c)))
                for socket in sockets.values():
                    socket.recv(timeout=10)
                for i in range(rounds * n):
                    # In turns, so that whatever else this machine does strikes all of them.
                    for name in [*servers][i % 3:] + [*servers][:i % 3]:
                        begun = time.perf_counter()
                        servers[name].post_event(event(f"hole_{i}", now + 0.1, CRITICAL))
                        assert f'hole_{i}"' in sockets[name].recv(timeout=10)
                        took[name][i // n].append((time.perf_counter() - begun) * 1000)
                    time.sleep(0.01)
            assert channels.told.all == channels.mails == [] and mail.held >= 1 and hook.held >= 1
            # Of each the quietest round, in ms.
            p = {name: {q: min(quantile(one, q) for one in took[name]) for q in (0.5, 0.99)} for name in servers}
            print("POST to WebSocket:", "; ".join(f"{name} p50 {of[0.5]:.1f} ms, p99 {of[0.99]:.1f} ms" for name, of in p.items()))
            for name in ("no channels", "channels that answer"):
                assert p["black holes"][0.99] < 1.1 * p[name][0.99] + 20, p
                assert p["black holes"][0.5] < 1.1 * p[name][0.5] + 5, p
            pending = notifications(hit)
            assert {x["status"] for x in pending} == {"pending"} and {x["channel"] for x in pending} == {"email", "webhook"}
            mail.open()
            hook.open()
            all_told(hit)
            assert {x["status"] for x in notifications(hit)} == {"sent"}
            ids = {c: sorted(x["id"] for x in notifications(hit) if x["channel"] == c) for c in ("email", "webhook")}
            assert sorted(r["id"] for r in channels.told.all) == ids["webhook"]
            assert sorted(m["mail"]["Message-ID"] for m in channels.mails) == [f"<{id}@anomaly>" for id in ids["email"]]
            told = [id for r in channels.told.all for id in [i["id"] for i in r["data"]["incidents"]] + r["data"].get("more", [])]
            assert sorted(told) == sorted(i["id"] for i in incidents(hit)) and len(told) == rounds * n
