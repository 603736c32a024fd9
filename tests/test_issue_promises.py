"""What the README and the contract promise to a person: the familiar demonstrations, the commands, starting and stopping."""
import csv
import gzip
import io
import json
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
import zstandard

import pages
from needs import need
from server import REPO, Server, comparable, free_port, run

EXAMPLES = REPO / "examples"
ALL_POINTS = "timestamp,series,value,score,expected,lower,upper,z_score,anomaly,verdict,detector,explanation"
TWENTY = [50.0 + i % 10 for i in range(20)]


def events(metric: str, values, start: float, step: float = 1.0) -> list[dict]:
    return [{"timestamp": start + i * step, "metric": metric, "value": v} for i, v in enumerate(values)]


def csv_text(rows: list[dict]) -> str:
    return "timestamp,metric,value\n" + "".join(f"{r['timestamp']},{r['metric']},{r['value']}\n" for r in rows)


# --- demonstrations ------------------------------------------------------------------------------------------------------

def test_ten_fifties_and_then_200_is_one_anomaly_on_both_ways_out(server):
    start = time.time() - 100
    with server.websocket() as socket:
        assert json.loads(socket.recv(timeout=10))["type"] == "hello"
        for event in events("cpu", [50.0] * 10 + [200.0], start):
            server.post_event(event)
        server.settle()
        listed = [json.loads(a) for a in server.anomalies()]
        pushed = [json.loads(socket.recv(timeout=10))]
        with pytest.raises(TimeoutError):
            pushed.append(socket.recv(timeout=0.5))
    assert [a["value"] for a in listed] == [200.0]
    assert [m["type"] for m in pushed] == ["anomaly"] and pushed[0]["data"] == listed[0]


def test_95_after_twenty_near_50_is_13_74_standard_deviations(server):
    for event in events("cpu", TWENTY + [95.0], time.time() - 100):
        server.post_event(event)
    server.settle()
    found = [json.loads(a) for a in server.anomalies()]
    assert [(a["value"], round(a["z_score"], 2), a["count"], a["severity"]) for a in found] == [(95.0, 13.74, 20, "critical")]
    assert round(found[0]["score"], 3) == 0.958 and found[0]["expected"] == 54.5 and "13.7 standard deviations" in found[0]["explanation"]


def test_live_is_offline_byte_for_byte(server, tmp_path):
    rows = events("cpu", TWENTY + [95.0] + TWENTY + [5.0], time.time() - 100)
    (tmp_path / "a.csv").write_text(csv_text(rows))
    for event in rows:
        server.post_event(event)
    server.settle()
    offline = run("detect", tmp_path / "a.csv", "--format", "json").stdout.decode().splitlines()
    made = re.compile(r'"event_id":(?:"[^"]*"|null),')  # of POST /events/raw, from the position

    def same(anomalies):
        return [made.sub("", comparable(a)) for a in anomalies]
    assert len(offline) == 2 and same(server.anomalies()) == same(offline)


# --- examples and README -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, accepted, value", [("sample_data.csv", 15, 95.0), ("sample_data.json", 10, 48.7), ("sample_data.txt", 11, 90.0)])
def test_each_sample_has_its_events_and_one_anomaly(shared_server, name, accepted, value):
    report = shared_server.upload(name, (EXAMPLES / name).read_bytes()).json()["files"][0]
    assert (report["accepted"], report["rejected"], report["format"]) == (accepted, 0, name.rsplit(".")[-1]), report
    offline = run("detect", EXAMPLES / name, "--format", "json").stdout.decode().splitlines()
    assert [json.loads(a)["value"] for a in offline] == [value]
    shared_server.settle()
    metric = json.loads(offline[0])["metric"]
    assert [comparable(a) for a in shared_server.anomalies(metric=metric)] == [comparable(a) for a in offline]


def test_the_example_client_prints_its_anomaly(shared_server):
    done = subprocess.run([sys.executable, EXAMPLES / "send_events.py", shared_server.url], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "= 95.0, z = 13.74" in done.stdout and "standard deviations above" in done.stdout, done.stdout


def test_the_commands_of_the_readme_give_what_it_says(server, tmp_path):
    need("readme")
    pages.follow(REPO / "README.md", tmp_path, [(r"(localhost|127\.0\.0\.1):8000", f"127.0.0.1:{server.port}")])


def test_env_example_is_a_valid_configuration(tmp_path):
    """Also as it reads with every commented-out name that has a value."""
    text = (REPO / ".env.example").read_text()
    names = re.findall(r"^#?\s?([A-Z][A-Z0-9_]+)=", text, re.M)
    assert len(names) == len(set(names)) and {"PORT", "DURABILITY", "QUEUE_CAPACITY", "REDIS_URL", "KAFKA_BROKER"} <= set(names), names
    (tmp_path / ".env").write_text(text)
    done = run("config", "check", cwd=tmp_path)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


# --- commands --------------------------------------------------------------------------------------------------------------

def test_config_print_is_what_config_check_takes(tmp_path):
    printed = run("config", "print")
    assert printed.returncode == 0 and printed.stdout
    (tmp_path / "anomaly.toml").write_bytes(printed.stdout)
    checked = run("config", "check", "--config", tmp_path / "anomaly.toml")
    assert checked.returncode == 0, (checked.stdout + checked.stderr).decode()


def test_config_check_tells_every_fault_at_once(tmp_path):
    (tmp_path / "anomaly.toml").write_text("no_such_key = 1\n")
    done = run("config", "check", "--config", tmp_path / "anomaly.toml", WINDOW_SECONDS="-5", PORT="many")
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 2, f"{done.returncode}: {said}"
    for fault in ("no_such_key", "WINDOW_SECONDS", "PORT"):
        assert re.search(fault, said, re.I), f"{fault} is not told: {said}"


def test_max_future_above_lateness_is_a_configuration_error():
    done = run("config", "check", MAX_FUTURE_SECONDS=120, ALLOWED_LATENESS_SECONDS=60)
    assert done.returncode == 2 and b"MAX_FUTURE_SECONDS" in done.stdout + done.stderr, done


def test_openapi_prints_what_the_server_serves(shared_server):
    printed = run("openapi")
    assert printed.returncode == 0, printed.stderr
    document = json.loads(printed.stdout)
    assert document["openapi"].startswith("3.1.")
    served = shared_server.get("/openapi.json")
    assert served["paths"].keys() == document["paths"].keys()


@pytest.mark.parametrize("name, arguments, code", [("calm", [], 0), ("spike", [], 0), ("calm", ["--exit-code"], 0), ("spike", ["--exit-code"], 1), ("absent", [], 2), ("bad", [], 2), ("spike", ["--no-such-option"], 2)])
def test_exit_codes_of_detect(tmp_path, name, arguments, code):
    rows = {"calm": TWENTY, "spike": TWENTY + [95.0]}
    if name in rows:
        (tmp_path / f"{name}.csv").write_text(csv_text(events("m", rows[name], 1_700_000_000)))
    elif name == "bad":
        (tmp_path / "bad.csv").write_bytes(bytes(range(256)) * 20)
    done = run("detect", tmp_path / f"{name}.csv", *arguments)
    assert done.returncode == code, (done.stdout + done.stderr).decode()
    assert code != 2 or done.stderr, "an error without a word on stderr"


def test_all_points_has_each_row_in_the_order_of_the_file(tmp_path):
    rows = events("b", TWENTY + [95.0], 1_700_000_000) + events("a", [1.0, 2.0], 1_700_000_000) + events("b", [50.0, 50.0], 1_700_001_000) + events("b", [50.0], 1_700_000_100)
    (tmp_path / "a.csv").write_text(csv_text(rows))
    done = run("detect", tmp_path / "a.csv", "--all-points", "--format", "csv")
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    assert text.splitlines()[0] == ALL_POINTS
    points = list(csv.DictReader(io.StringIO(text)))
    assert [(p["series"], float(p["value"])) for p in points] == [(r["metric"], r["value"]) for r in rows]
    assert [p["anomaly"] for p in points] == ["true" if float(p["value"]) == 95 else "false" for p in points]
    assert [p["verdict"] for p in points] == ["too_few"] * 5 + ["normal"] * 15 + ["anomaly"] + ["too_few"] * 4 + ["late"]
    assert all(0 <= float(p["score"]) <= 1 for p in points)
    assert all((float(p["score"]), p["lower"], p["upper"]) == (0, "", "") for p in points if p["verdict"] in ("too_few", "late"))
    assert all(float(p["lower"]) <= float(p["expected"]) <= float(p["upper"]) and float(p["score"]) > 0 for p in points[5:21])
    assert round(float(points[20]["z_score"]), 2) == 13.74 and points[20]["detector"] == "zscore" and points[20]["explanation"]


def test_detect_reads_standard_input_and_writes_three_formats():
    data = csv_text(events("m", TWENTY + [95.0], 1_700_000_000)).encode()
    outputs = {f: run("detect", "-", "--format", f, input=data) for f in ("table", "json", "csv")}
    assert all(done.returncode == 0 for done in outputs.values()), outputs
    assert [json.loads(line)["value"] for line in outputs["json"].stdout.splitlines()] == [95.0]
    rows = list(csv.DictReader(io.StringIO(outputs["csv"].stdout.decode())))
    assert len(rows) == 1 and float(rows[0]["value"]) == 95.0 and rows[0]["series"] == "m", rows
    assert b"95" in outputs["table"].stdout and b"m" in outputs["table"].stdout
    assert not any(b"\x1b" in done.stdout for done in outputs.values()), "colours without a terminal"


def test_detect_reads_what_the_server_reads(tmp_path):
    """The same rows as CSV, JSON, NDJSON and TXT, and packed, give the same anomalies."""
    rows = events("m", TWENTY + [95.0], 1_700_000_000)
    files = {"a.csv": csv_text(rows).encode(), "a.json": json.dumps(rows).encode(), "a.ndjson": "".join(json.dumps(r) + "\n" for r in rows).encode(),
             "a.txt": "".join(f"m,{r['value']},{r['timestamp']}\n" for r in rows).encode()}
    files |= {"a.csv.gz": gzip.compress(files["a.csv"]), "a.csv.zst": zstandard.compress(files["a.csv"])}
    outputs = {}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        done = run("detect", tmp_path / name, "--format", "json")
        assert done.returncode == 0, f"{name}: {done.stderr}"
        outputs[name] = [comparable(line) for line in done.stdout.decode().splitlines()]
    assert all(lines == outputs["a.csv"] and len(lines) == 1 for lines in outputs.values()), outputs


def test_rows_without_a_time_need_an_interval_offline():
    data = b"metric,value\n" + b"".join(b"m,%d\n" % v for v in [*map(int, TWENTY), 95])
    without, with_it = run("detect", "-", "--format", "json", input=data), run("detect", "-", "--format", "json", "--interval", "1s", input=data)
    assert without.stdout == b"" and b"--interval" in without.stderr, without
    assert [json.loads(line)["value"] for line in with_it.stdout.splitlines()] == [95.0], with_it


# --- starting and stopping -------------------------------------------------------------------------------------------------

def test_an_address_that_others_can_reach_is_refused(tmp_path):
    done = run("all", timeout=20, HOST="0.0.0.0", PORT=free_port(), DATA_DIR=tmp_path / "data")
    assert done.returncode not in (0, None) and b"ALLOW_UNAUTHENTICATED" in done.stdout + done.stderr, done


def test_a_second_process_is_told_who_holds_the_data(server):
    done = run("all", timeout=20, PORT=free_port(), DATA_DIR=server.data_dir)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode != 0 and str(server.pid) in said and str(server.data_dir) in said, f"{done.returncode}: {said}"
    assert server.get("/health")["status"] == "ok"


def test_a_name_that_changes_nothing_here_is_told(tmp_path):
    with Server(tmp_path / "data", KAFKA_LOG_TOPIC="log", KAFKA_ANOMALY_TOPIC="found") as server:
        assert all(name in server.log() for name in ("KAFKA_LOG_TOPIC", "KAFKA_ANOMALY_TOPIC")), server.log()


def test_memory_durability_leaves_nothing_on_disk(tmp_path):
    with Server(tmp_path / "data", DURABILITY="memory") as server:
        for event in events("m", TWENTY + [95.0], time.time() - 100):
            server.post_event(event)
        server.settle()
        assert len(server.anomalies()) == 1 and re.search("memory", server.log(), re.I)
        files = [f for f in (tmp_path / "data").rglob("*") if f.is_file() and f.suffix in (".db", ".ckpt")]
        assert not files, files
        server.terminate()
        server.start()
        assert server.anomalies() == [] and server.series_counts() == {}


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_under_load_and_a_restart_has_everything(tmp_path, sign):
    acked, stop = {}, threading.Event()

    def write(server: Server, name: str) -> None:
        acked[name], start = 0, time.time() - 50_000
        while not stop.is_set():
            try:
                rows = [{"timestamp": start + acked[name] + i, "metric": name, "value": 50.0 + i % 10} for i in range(100)]
                if server.post_batch(rows).status_code == 202:
                    acked[name] += 100
            except Exception:  # refused or cut off: not acknowledged
                return
    with Server(tmp_path / "data") as server:
        threads = [threading.Thread(target=write, args=(server, f"writer{k}")) for k in range(4)]
        [t.start() for t in threads]
        time.sleep(1)
        server.process.send_signal(sign)
        started = time.monotonic()
        code = server.wait_exit(12)
        stop.set()
        [t.join() for t in threads]
        assert code == 0, f"exit code {code} after {time.monotonic() - started:.1f} s:\n{server.log()[-2000:]}"
        assert time.monotonic() - started < 10.5
        server.start()
        server.settle()
        counts = server.series_counts()
        # A batch may be durable whose answer was cut off; it is whole then.
        assert sum(acked.values()) > 0
        assert all(counts[k] - n in (0, 100) for k, n in acked.items()), (acked, counts)


def test_counters_and_anomalies_outlive_a_clean_restart(tmp_path):
    with Server(tmp_path / "data") as server:
        server.post_batch(events("m", TWENTY + [95.0] + TWENTY + [500.0], time.time() - 1000) + [{"metric": "m"}])
        server.settle()
        before, total = server.anomalies(), {k: v for k, v in server.get("/stats").items() if k.endswith("_total")}
        code, seconds = server.terminate()
        assert code == 0 and seconds < 10
        server.start()
        server.settle()
        assert server.anomalies() == before and {k: v for k, v in server.get("/stats").items() if k.endswith("_total")} == total
        assert (total["events_total"], total["rejected_total"]) == (42, 1)


def test_a_browser_gets_a_page_and_it_leads_on(shared_server):
    response = shared_server.http.get("/", follow_redirects=True)
    assert response.status_code == 200 and "text/html" in response.headers["content-type"]
