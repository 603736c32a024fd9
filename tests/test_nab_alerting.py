"""Real series: incidents are the same live and offline with ticks in between, a year's files wake nobody, and how much people hear of them."""
import json
import time
from concurrent.futures import ThreadPoolExecutor

import nab
from alerting import Channels, all_told, burst, feed, incidents, notifications, scenario, serving, until
from nab import FEWEST, WINDOW


def offline() -> list[dict]:
    return [json.loads(line) for line in nab.detect()]


def upload(server, pause: float = 0.0, between=lambda i: None) -> tuple[float, float, float]:
    """Sends all files; returns event time in days, summed over the series, and the first and last moment."""
    days, times = 0.0, []
    for i, file in enumerate(nab.files()):
        answer = server.upload(file.name, file.read_bytes())
        assert answer.status_code == 200, f"{file.name}: {answer.text[:500]}"
        [entry] = answer.json()["files"]
        days += (entry["to"] - entry["from"]) / 86400
        times += [entry["from"], entry["to"]]
        time.sleep(pause)
        between(i)
    server.settle()
    return days, min(times), max(times)


def at_their_own_pace(anomalies: list[dict], wait: float = 1, repeat: float = 14400) -> dict[str, int]:
    """How many messages there would be, had each anomaly come at its time and nobody acknowledged anything: an upload takes seconds, so that most of it is one message."""
    by_incident = {}
    for a in anomalies:
        by_incident.setdefault(a["incident_id"], []).append(a)
    starts = sorted(min(a["timestamp"] for a in members) for members in by_incident.values())
    opened, until_ = 0, float("-inf")
    for start in starts:
        if start > until_:
            opened, until_ = opened + 1, start + wait
    escalated = repeated = 0
    for members in by_incident.values():
        times = sorted(a["timestamp"] for a in members)
        critical = [a["timestamp"] for a in members if a["severity"] == "critical"]
        escalated += bool(critical) and min(critical) > times[0] + wait
        told = times[0] + wait  # and again where more have come since
        while any(told < time for time in times):
            repeated += any(told < time <= told + repeat for time in times)
            told += repeat
    return {"opened": opened, "escalated": escalated, "repeated": repeated}


@scenario
def test_incidents_are_those_of_detect_with_ticks_in_between_and_a_digest_is_all_that_is_told(tmp_path, cert):
    # Short windows in series of our own show that ticks came: nothing else ends an incident of a source that is silent.
    nab.files()
    config = tmp_path / "anomaly.toml"
    config.write_text('[[rules]]\nmetric = "clock_*"\nwindow_seconds = 6\n[[routes]]\nmetric = "clock_*"\nchannels = []\n')
    with ThreadPoolExecutor() as pool, Channels(cert) as channels, serving(tmp_path, args=("all", "--config", str(config)), **WINDOW, **channels.env) as server:
        expected = pool.submit(offline)
        feed(server, burst("clock_0", time.time()))
        assert [i["state"] for i in incidents(server)] == ["open"]
        upload(server, 0.4, lambda i: i % 15 == 14 and feed(server, burst(f"clock_{i}", time.time())))
        last = time.time()
        clocks = {i["metric"]: i["state"] for i in incidents(server, metric="clock_*")}
        assert len(clocks) == 4 and clocks["clock_0"] == clocks["clock_14"] == "resolved", clocks
        found = [i for i in incidents(server) if not i["metric"].startswith("clock_")]
        anomalies = expected.result()
        assert len(anomalies) >= FEWEST
        assert sorted(i["id"] for i in found) == sorted({a["incident_id"] for a in anomalies})
        counts = {}
        for a in anomalies:
            counts[a["incident_id"]] = counts.get(a["incident_id"], 0) + 1
        assert {i["id"]: i["count"] for i in found} == counts
        # An upload leaves one open incident a series at most.
        still_open = [i["series"] for i in found if i["state"] == "open"]
        assert len(still_open) == len(set(still_open)) > 20
        [digest] = until(channels.told.digests, "a digest", timeout=last + 90 - time.time())
        channels.mail.received.wait(1)
        # Ticks go on, and end what is open; nobody is told of the end of what nobody was told of.
        time.sleep(15)
        assert len(channels.told.all) == 1 and len(channels.mails) == 1, (channels.told.all, channels.subjects())
        told = digest["data"]["digest"]
        assert (told["incidents"], told["old"], told["anomalies"]) == (len(found), len(found), len(anomalies)), told
        assert told["n_series"] == len({i["series"] for i in found}) and len(told["series"]) == 10
        assert f"[digest] {len(found):,} incidents of {told['n_series']} series" in channels.subjects()[0]
        assert [(n["channel"], n["kind"], n["status"]) for n in notifications(server)] == [("email", "digest", "sent"), ("webhook", "digest", "sent")]


@scenario
def test_messages_are_a_tenth_of_the_anomalies_at_most(tmp_path, cert):
    """With NOTIFY_MAX_AGE_SECONDS=0, as if it all happened now, and without limits; the figures are in docs/alerting.md."""
    nab.files()
    with Channels(cert) as channels, serving(tmp_path, NOTIFY_MAX_AGE_SECONDS=0, EMAIL_RATE_LIMIT_SECONDS=0, **WINDOW, **channels.env) as server:
        days, first, last = upload(server)
        all_told(server)
        time.sleep(2.5)
        found, sent = incidents(server), notifications(server)
        n_anomalies = len(server.anomalies())
        kinds = {channel: {} for channel in ("email", "webhook")}
        for n in sent:
            assert n["status"] == "sent", n
            kinds[n["channel"]][n["kind"]] = kinds[n["channel"]].get(n["kind"], 0) + 1
        n_mails, n_hooks = (sum(kinds[channel].values()) for channel in ("email", "webhook"))
        assert (len(channels.mails), len(channels.told.all)) == (n_mails, n_hooks)
        pace = at_their_own_pace([json.loads(a) for a in server.anomalies()])
        critical = sum(i["severity"] == "critical" for i in found)
        print(f"58 series, {days:.0f} days of event time summed over them, {(last - first) / 86400:.0f} from the first to the last: {n_anomalies} anomalies, "
              f"{len(found)} incidents ({critical} critical), {n_mails} emails {kinds['email']}, {n_hooks} webhooks {kinds['webhook']}; at their own pace {pace}")
        for what, n in {"anomalies": n_anomalies, "incidents": len(found), "emails": n_mails, "webhooks": n_hooks, **pace}.items():
            print(f"{what}: {n}, {n / days:.3f} a day and series, {n / days * 58:.1f} a day if all 58 ran at the same time")
        assert n_anomalies >= FEWEST and max(n_mails, n_hooks, pace["opened"] + pace["escalated"]) <= n_anomalies / 10, (n_anomalies, n_mails, n_hooks, pace)
        # All incidents were told, each by one message a channel.
        for channel in kinds:
            told = [id for n in sent if n["channel"] == channel and n["kind"] == "opened" for id in n["incidents"]]
            assert sorted(told) == sorted(i["id"] for i in found), channel
