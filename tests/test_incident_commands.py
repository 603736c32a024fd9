"""`anomaly incidents`, `anomaly silence` and `anomaly replay` against a running server; capsules that give the same verdict anywhere."""
import json
import time

import pytest
from alerting import until
from server import Server, run


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("commands") / "data", WINDOW_SECONDS=60) as server:
        yield server


def anomaly(server: Server, metric: str, labels=None, spikes=1, shuffle=False) -> dict:
    """Sends ordinary values and then spikes; returns the incident."""
    labels = labels or {}
    start = time.time() - 50
    events = [{"metric": metric, "labels": labels, "timestamp": start + i, "value": 50 + i % 5} for i in range(40)]
    if shuffle:
        for i in range(1, 40, 7):
            events[i], events[i - 1] = events[i - 1], events[i]
    events += [{"metric": metric, "labels": labels, "timestamp": start + 41 + i, "value": 95 + 60 * i} for i in range(spikes)]
    server.http.post("/events", json=events).raise_for_status()
    found = lambda: [i for i in server.http.get("/incidents", params={"metric": metric}).json()["incidents"] if i["count"] == spikes]
    return until(found, "the incident")[0]


def cli(server: Server, *args, code=0, **env) -> str:
    done = run(*args, "--server", server.url, USER="ada", **env)
    assert done.returncode == code, done.stderr.decode() or done.stdout.decode()
    return (done.stdout if code == 0 else done.stderr).decode()


def test_incidents_are_listed_and_handled(server):
    incident = anomaly(server, "cli.cpu", {"dc": "e\u001b[31mu"})
    short = incident["id"][:8]
    listed = cli(server, "incidents")
    line = next(line for line in listed.splitlines() if line.startswith(short))
    assert "critical" in line and "cli.cpu" in line and "open" in line and "\x1b" not in listed, line
    assert cli(server, "incidents", "ack", short, "--comment", "on it").endswith(": acknowledged\n")
    assert "ada: on it" in cli(server, "incidents", "--state", "acknowledged")
    assert short not in cli(server, "incidents", "--state", "open")
    assert cli(server, "incidents", "feedback", short, "false-alarm").endswith(": false alarm\n")
    assert cli(server, "incidents", "resolve", short, "--by", "bob").endswith(": resolved\n")
    assert short not in cli(server, "incidents")
    assert "is resolved already" in cli(server, "incidents", "ack", short, code=2)
    found = [json.loads(line) for line in cli(server, "incidents", "--state", "resolved", "--json").splitlines()]
    assert [(i["by"], i["feedback"]) for i in found if i["id"] == incident["id"]] == [("bob", "false_alarm")]


def test_an_id_that_is_none_or_not_known_is_told(server):
    assert "is no id of an incident" in cli(server, "incidents", "ack", "../x", code=2)
    assert "begins with ffffffff" in cli(server, "incidents", "ack", "ffffffff", code=2)
    assert "no incident has the id" in cli(server, "incidents", "ack", "f" * 32, code=2)
    done = run("incidents", "--server", "http://127.0.0.1:9")
    assert done.returncode == 2 and b"no server answers at http://127.0.0.1:9" in done.stderr, done.stderr


def test_silences_are_made_listed_and_ended(server):
    incident = anomaly(server, "cli.silent", {"host": "a"})
    made = cli(server, "silence", "add", "metric=~cli[.]silent", "host=a", "--for", "2h", "--comment", "maintenance")
    silence = made.split(":")[0]
    assert made == f'{silence}: metric=~"cli[.]silent" host="a", for 2 h\n'
    assert incident["id"][:8] in cli(server, "incidents", "--state", "silenced")
    listed = next(line for line in cli(server, "silence", "list").splitlines() if line.startswith(silence))
    assert "active" in listed and "left" in listed and "ada" in listed, listed
    assert "over" in cli(server, "silence", "end", silence)
    assert incident["id"][:8] in cli(server, "incidents", "--state", "open")
    assert "no silence" in cli(server, "silence", "end", silence, code=2)
    assert "name what is to be silent" in cli(server, "silence", "add", "metric=~.*", "--for", "1h", code=2)
    assert "is no matcher" in cli(server, "silence", "add", "cpu", "--for", "1h", code=2)


@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "out of order"])
def test_a_capsule_replays_to_the_same_verdict_anywhere(server, shuffle, tmp_path):
    incident = anomaly(server, f"capsule.{shuffle}", {"dc": 'e"u'}, spikes=3, shuffle=shuffle)
    capsule = cli(server, "incidents", "capsule", incident["id"][:12])
    response = server.http.get(f"/incidents/{incident['id']}/capsule")
    assert response.headers["content-disposition"] == f'attachment; filename="incident-{incident["id"]}.json"'
    written, answered = json.loads(capsule), response.json()
    assert {k: v for k, v in written.items() if k != "exported_at"} == {k: v for k, v in answered.items() if k != "exported_at"}
    assert len(written["anomalies"]) == 3 and len(written["samples"]) == 43
    file = tmp_path / "incident.json"
    file.write_text(capsule)
    # Elsewhere: no server, other settings.
    same = run("replay", file, WINDOW_SECONDS=5, ANOMALY_THRESHOLD=100)
    assert same.returncode == 0 and b"all 3 verdicts are the same" in same.stdout, same.stdout + same.stderr
    assert run("replay", "-", input=capsule.encode()).returncode == 0
    written["samples"][42][1] = 50.5
    differs = run("replay", "-", input=json.dumps(written).encode())
    assert differs.returncode == 1 and b"verdict: recorded anomaly, now no anomaly" in differs.stdout, differs.stdout


def test_a_capsule_is_the_same_after_a_restart(tmp_path):
    with Server(tmp_path / "data", WINDOW_SECONDS=60) as server:
        incident = anomaly(server, "capsule.restart")
        before = server.http.get(f"/incidents/{incident['id']}/capsule").json()
        server.terminate()
        server.start()
        after = server.http.get(f"/incidents/{incident['id']}/capsule").json()
        assert {k: v for k, v in before.items() if k != "exported_at"} == {k: v for k, v in after.items() if k != "exported_at"}
        assert run("replay", "-", input=json.dumps(after).encode()).returncode == 0
        assert server.http.get(f"/incidents/{'0' * 32}/capsule").status_code == 404


def test_what_is_no_capsule_is_told():
    for text, said in [("{}", "is no capsule"), ("x", "is no capsule"), ('{"format": "anomaly-capsule/9"}', "use a newer anomaly")]:
        done = run("replay", "-", input=text.encode())
        assert done.returncode == 2 and said in done.stderr.decode(), done.stderr
    assert run("replay", "/none.json").returncode == 2
