"""A real `anomaly` process on a free port and its own data directory: started, killed, restarted, always cleaned up."""
import json
import os
import re
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import httpx
from websockets.sync.client import connect

from process import Process, die_with_parent, free_port  # noqa: F401 (taken from here by those who start other programs)

REPO = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("ANOMALY_SHARED", REPO.parent / "shared"))
START_SECONDS = 30


def binary() -> str:
    """The program under test: ANOMALY_BIN, else the release build."""
    path = Path(os.environ.get("ANOMALY_BIN", REPO / "target" / "release" / "anomaly"))
    if not path.exists():
        raise FileNotFoundError("no release build of anomaly: run `cargo build --release`, or set ANOMALY_BIN")
    return str(path.resolve())


def next_binary() -> str | None:
    """The same program as a build of the next version, whose checkpoints this one does not read (ANOMALY_NEXT_BIN); None without one."""
    path = Path(os.environ.get("ANOMALY_NEXT_BIN", REPO / "target" / "anomaly-next"))
    return str(path.resolve()) if path.exists() else None


def environment(**more) -> dict[str, str]:
    """What a child sees: nothing of the caller's configuration leaks into a test."""
    kept = {k: os.environ[k] for k in ("PATH", "HOME", "LANG", "TMPDIR") if k in os.environ}
    return kept | {"RUST_BACKTRACE": "1"} | {k: str(v) for k, v in more.items()}


def run(*args, input=None, timeout=120, cwd=None, **env) -> subprocess.CompletedProcess:
    """Runs `anomaly ARGS` to its end, away from the repository so that no `.env` or `data` of it is met."""
    with tempfile.TemporaryDirectory(prefix="anomaly-run-") as folder:
        return subprocess.run([binary(), *map(str, args)], input=input, capture_output=True, timeout=timeout, cwd=cwd or folder, env=environment(**env))


class Server(Process):
    """`anomaly all` on loopback. As a context manager it is started and, whatever happens, killed.

    `wrap` is put in front of the command (strace -D …), so that the process started is the server itself.
    """

    def __init__(self, data_dir: Path, wrap=(), args=("all",), **env):
        self.cwd = tempfile.mkdtemp(prefix="anomaly-cwd-")
        super().__init__(Path(self.cwd) / "server.log")
        self.data_dir, self.wrap, self.args, self.env, self.port = Path(data_dir), list(wrap), list(args), env, free_port()
        self._http = threading.local()
        self.program = binary()
        self.before_close = []  # calls: clients that would complain of a server that is gone

    # --- the process -------------------------------------------------------------------------------------------

    def given(self) -> dict:
        """Its settings."""
        return {"DATA_DIR": self.data_dir, "PORT": self.port} | self.env

    def spawn(self) -> "Server":
        """Starts the process without waiting for it to serve."""
        self.launch([*self.wrap, self.program, *self.args], self.cwd, environment(**self.given()))
        return self

    def start(self, timeout: float = START_SECONDS) -> "Server":
        """Starts the process and waits until /readyz says yes; on another port when a stranger has taken this one."""
        for attempt in range(3):
            offset = len(self.log())
            self.spawn()
            if self.wait_ready(timeout):
                return self
            said = self.log()[offset:]
            self.kill()
            if not re.search("address (already )?in use", said, re.I):
                break
            self.port = free_port()
        raise AssertionError(f"the server did not start (exit code {self.process.returncode}):\n{said[-3000:]}")

    def wait_ready(self, timeout: float = START_SECONDS) -> bool:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self.alive:
            try:
                if self.http.get("/readyz", timeout=5).status_code == 200:
                    return True
            except httpx.TransportError:
                pass
            time.sleep(0.02)
        return False

    def __enter__(self) -> "Server":
        return self if self.alive else self.start()

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Kills the process and removes its folder; pytest shows the end of its log when the test has failed."""
        for leave in self.before_close:
            leave()
        self.kill()
        if "PYTEST_CURRENT_TEST" in os.environ:
            print(f"--- end of the server's log ({self.starts} starts) ---\n{self.log()[-3000:]}")
        self.log_path.unlink(missing_ok=True)
        for left in sorted(Path(self.cwd).rglob("*"), reverse=True):
            left.rmdir() if left.is_dir() else left.unlink()
        os.rmdir(self.cwd)

    # --- talking to it -----------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def http(self) -> httpx.Client:
        """This thread's client."""
        if getattr(self._http, "url", None) != self.url:
            self._http.client, self._http.url = httpx.Client(base_url=self.url, timeout=60), self.url
        return self._http.client

    def get(self, path: str, **params) -> dict:
        response = self.http.get(path, params={k.rstrip("_"): v for k, v in params.items()})
        assert response.status_code == 200, f"GET {path} {params}: {response.status_code} {response.text[:500]}"
        return response.json()

    def post_event(self, event: dict) -> httpx.Response:
        response = self.http.post("/events/raw", json=event)
        assert response.status_code == 202, f"{event}: {response.status_code} {response.text[:500]}"
        return response

    def post_batch(self, events: list[dict], **headers) -> httpx.Response:
        body = "".join(json.dumps(e) + "\n" for e in events)
        return self.http.post("/events", content=body, headers={"content-type": "application/x-ndjson"} | {k.replace("_", "-"): v for k, v in headers.items()})

    def upload(self, name: str, data, key: str | None = None, timeout: float = 300) -> httpx.Response:
        headers = {"Idempotency-Key": key} if key else {}
        return self.http.post("/upload", files={"file": (name, data, "application/octet-stream")}, headers=headers, timeout=timeout)

    def settle(self, timeout: float = 120) -> None:
        """Waits until everything accepted so far has been judged and committed."""
        deadline = time.monotonic() + timeout
        while (size := self.get("/health")["queue_size"]) > 0:
            assert time.monotonic() < deadline, f"the queue does not drain: {size} after {timeout} s"
            time.sleep(0.02)

    def anomalies(self, **filters) -> list[str]:
        """Each anomaly as the JSON text that the server wrote, in the order of detection (oldest first)."""
        found, cursor = [], {}
        while True:
            response = self.http.get("/anomalies", params={"limit": 1000} | filters | cursor)
            assert response.status_code == 200, f"{response.status_code} {response.text[:500]}"
            found += elements(response.text, "anomalies")
            if (after := response.json()["next"]) is None:
                return found[::-1]
            cursor = {"cursor": after}

    def series_counts(self, query: str = "") -> dict[str, int]:
        """`count` of each series: the events ever accepted."""
        counts, cursor = {}, {}
        while True:
            page = self.get("/series", query=query, limit=1000, **cursor)
            counts |= {s["series"]: s["count"] for s in page["series"]}
            if page["next"] is None:
                return counts
            cursor = {"cursor": page["next"]}

    def websocket(self, query: str = ""):
        return connect(f"ws{self.url[4:]}/ws/anomalies{query}", open_timeout=10, max_size=None)

    # --- measuring it ------------------------------------------------------------------------------------------

    def rss_mib(self) -> float:
        """Resident memory now."""
        return self._status("VmRSS")

    def peak_mib(self) -> float:
        """The most resident memory since the start."""
        return self._status("VmHWM")

    def _status(self, key: str) -> float:
        return int(re.search(rf"{key}:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text())[1]) / 1024

    def cpu_percent(self, seconds: float) -> float:
        """CPU use over the next `seconds`, in percent of one core (10 ms ticks)."""
        def ticks() -> int:
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            return int(fields[11]) + int(fields[12])
        before, started = ticks(), time.monotonic()
        time.sleep(seconds)
        return (ticks() - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - started) * 100


def elements(text: str, member: str) -> list[str]:
    """The raw text of each element of the array `member` of a JSON object, so that nothing is written anew."""
    decoder, at, found = json.JSONDecoder(), text.index(f'"{member}"') + len(member) + 2, []
    at = text.index("[", at) + 1
    while True:
        while text[at] in ", \n\r\t":
            at += 1
        if text[at] == "]":
            return found
        _, end = decoder.raw_decode(text, at)
        found.append(text[at:end])
        at = end


def comparable(anomaly: str) -> str:
    """The text of an anomaly without `detected_at` and `source`, which may differ offline; the rest stays as written."""
    return re.sub(r',?"(?:detected_at":[^,}]*|source":(?:null|"(?:[^"\\]|\\.)*"))(?=[,}])', "", anomaly)
