"""`anomaly demo`: alive within seconds, says what it does, finds it, and leaves nothing behind."""
import json
import re
import signal
import subprocess
import threading
import time

import httpx
import pytest

from process import die_with_parent, free_port
from server import binary, environment, run

KINDS = "spike|level shift|drop|outage|drift|stuck sensor"


class Demo:
    """A running demo; what it says is read as it says it."""

    def __init__(self, tmp_path, *args, **env):
        self.temporary = tmp_path / "tmp"
        self.temporary.mkdir()
        self.process = subprocess.Popen([binary(), "demo", *args], cwd=tmp_path, env=environment(TMPDIR=self.temporary, **env), stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
        self.lines, self.errors = [], []
        self.readers = [threading.Thread(target=lambda stream=stream, to=to: to.extend(stream), daemon=True)
                        for stream, to in ((self.process.stdout, self.lines), (self.process.stderr, self.errors))]
        [reader.start() for reader in self.readers]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        [reader.join() for reader in self.readers]
        self.process.stdout.close()
        self.process.stderr.close()

    def until(self, pattern: str, seconds: float) -> re.Match:
        """The first match in what was said, waited for."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if match := re.search(pattern, "".join(self.lines), re.M):
                return match
            assert self.process.poll() is None, f"it has ended: {''.join(self.lines + self.errors)}"
            time.sleep(0.05)
        raise AssertionError(f"{pattern!r} was not said within {seconds} s:\n{''.join(self.lines + self.errors)}")

    def end(self, sign: signal.Signals) -> int:
        self.process.send_signal(sign)
        code = self.process.wait(12)
        [reader.join() for reader in self.readers]
        return code


def test_within_30_seconds_a_stranger_sees_what_went_wrong_and_that_it_was_found(tmp_path):
    started = time.time()
    with Demo(tmp_path, "--port", "0") as demo:
        url = demo.until(r"page +(http://127\.0\.0\.1:\d+)$", 20)[1]
        # The page is full at once: an hour of history, with what went wrong in it.
        listed = httpx.get(f"{url}/anomalies", params={"limit": 1000}).json()["anomalies"]
        assert len({a["series"] for a in listed}) == 20 and min(a["timestamp"] for a in listed) < started - 2400
        found, faults = map(int, demo.until(r"so far (\d+) of (\d+) were found", 5).groups())
        assert found == faults == 20
        demo.until(r"^live$", 5)
        kind, series = demo.until(rf"^live\n\d\d:\d\d:\d\d +({KINDS}) +(\S+)", 25).groups()
        demo.until(r"^ +found \d+\.\d s later: (◆ critical|△ warning), .+", 15)
        assert time.time() - started < 30
        live = [a for a in httpx.get(f"{url}/anomalies", params={"limit": 100}).json()["anomalies"] if a["timestamp"] >= started]
        assert (series.rstrip(","), kind) in {(a["series"], a["meta"]["injected"]) for a in live if a["meta"]}, live
        points = httpx.get(f"{url}/series/points", params={"series": series.rstrip(",")}).json()["points"]
        assert len(points) > 100 and points[0]["timestamp"] < started - 3500 and points[-1]["timestamp"] > started

        # Few false alarms: nearly all anomalies are on values that were made to be.
        everything = httpx.get(f"{url}/anomalies", params={"limit": 1000}).json()["anomalies"]
        injected = [a for a in everything if a["meta"] and re.fullmatch(KINDS, a["meta"]["injected"])]
        assert len(everything) >= 40 and len(injected) >= 0.95 * len(everything), f"{len(injected)} of {len(everything)}"
        severities = {a["severity"] for a in everything}
        assert severities == {"critical", "warning"}
        assert httpx.get(f"{url}/stats").json()["rejected_total"] == 0

        assert list(demo.temporary.iterdir()), "where is its data?"
        assert demo.end(signal.SIGTERM) == 0
        assert list(demo.temporary.iterdir()) == []
        assert re.search(r"found\. Its data are removed\.$", "".join(demo.lines)) and not demo.errors, demo.errors


@pytest.mark.parametrize("sign, after", [(signal.SIGINT, r"^live$"), (signal.SIGTERM, None)])
def test_a_signal_at_any_moment_leaves_nothing_behind(tmp_path, sign, after):
    with Demo(tmp_path, "--port", "0") as demo:
        if after:
            demo.until(after, 20)
        else:
            # While it starts: as soon as its directory is there.
            while not list(demo.temporary.iterdir()) and demo.process.poll() is None:
                time.sleep(0.001)
        assert demo.end(sign) == 0
        assert list(demo.temporary.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tmp"], "nothing in the working directory"


def test_a_port_that_is_taken_is_told_with_what_to_do(tmp_path):
    with Demo(tmp_path, "--port", "0") as demo:
        port = demo.until(r"page +http://127\.0\.0\.1:(\d+)$", 20)[1]
        done = run("demo", "--port", port, timeout=20, TMPDIR=tmp_path)
        assert done.returncode == 2 and f"127.0.0.1:{port}".encode() in done.stderr and b"--port 0" in done.stderr, done
        assert not list(tmp_path.glob("anomaly-demo-*"))


def test_what_decides_results_is_the_demos_own_and_where_it_is_served_is_configured(tmp_path):
    port = free_port()
    (tmp_path / "anomaly.toml").write_text("anomaly_threshold = 1.0\nbase_path = \"/try\"\n")
    with Demo(tmp_path, PORT=port, WINDOW_SECONDS="10", DATA_DIR=tmp_path / "mine") as demo:
        assert demo.until(r"page +(\S+)$", 20)[1] == f"http://127.0.0.1:{port}/try"
        anomaly = httpx.get(f"http://127.0.0.1:{port}/try/anomalies").json()["anomalies"][0]
        assert (anomaly["threshold"], anomaly["window_seconds"]) == (5, 300), json.dumps(anomaly)
        assert not (tmp_path / "mine").exists()
