#!/usr/bin/env python3
"""Measures the goals and writes docs/benchmarks.md; prints the table as it comes.

Goals 2, 3, 5, 6 and 8 are measured in Rust (crates/eval/benches). Goals 1 and 4 need a running server: here, by wrk and by
crates/eval/examples/latency.rs, and beside the Python design by measure.py of the shared folder, where that is present. The page
is measured in Chromium (bench_page.py). Two things that are compared are measured in one run on one machine, so what counts is
the ratio.
"""
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import bench_page  # noqa: E402
import bench_stack  # noqa: E402
from process import die_with_parent  # noqa: E402
from server import REPO, SHARED, Server, run  # noqa: E402

BASELINE = SHARED / "baseline"
QUICK = bool(os.environ.get("QUICK"))
LOAD_SECONDS, OUTLIERS, IDLE_SECONDS, STORM_SECONDS = (2, 100, 3, 3) if QUICK else (6, 1000, 10, 15)
HEAD = ["| goal | what | measured | beside | ratio | goal asks | |", "|---|---|---|---|---|---|---|"]
BENCHES = ["batches", "series", "memory", "log"]
# (measurement, member, unit, whether less is better)
SHOWN = [("single_post", "cpu_us_per_event", "µs of CPU an event", True), ("single_post", "events_per_s", "events/s", False), ("single_post", "p99_us", "µs p99", True),
         ("ws_latency", "p50_us", "µs p50 POST to WebSocket", True), ("ws_latency", "p99_us", "µs p99 POST to WebSocket", True),
         ("csv_upload", "rows_per_s_processed", "CSV rows/s", False), ("csv_upload", "cpu_us_per_row", "µs of CPU a row", True), ("idle", "cpu_percent", "% CPU idle", True), ("idle", "rss_mib", "MiB resident", True)]


# measure.py looks for the counts of an upload where the Python design has them, and the contract has them with each file; and it
# names a host that our guard against rebound names refuses.
MEASURE = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import measure
upload = measure.Server.upload
def of_the_file(self, data):
    report = upload(self, data)
    return report["files"][0] if "files" in report else report
measure.Server.upload = of_the_file
raw_post = measure.raw_post
measure.raw_post = lambda path, event: raw_post(path, event).replace(b"Host: x", b"Host: 127.0.0.1", 1)
measure.main()
"""


# --- the table ----------------------------------------------------------------------------------------------------


def row(goal: int, what: str, measured: str, beside: str, ratio: float, least: float | None = None, most: float | None = None) -> str:
    """A row as crates/eval/src/report.rs prints it."""
    asks = f"≥ {short(least)}" if least is not None else f"≤ {short(most)}" if most is not None else ""
    met = "" if not asks else "met" if (least is None or ratio >= least) and (most is None or ratio <= most) else "**not met**"
    return f"| {goal} | {what} | {measured} | {beside} | {short(ratio)} | {asks} | {met} |"


def short(number: float) -> str:
    return f"{number:.{2 if abs(number) < 10 else 1 if abs(number) < 100 else 0}f}"


def goal_of(line: str) -> int:
    return int(line.split("|")[1])


# --- a server under load ------------------------------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    """Processor time of all threads, to the nanosecond."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def hello_cpu() -> float:
    """Microseconds of CPU that `GET /` costs a server on axum that does nothing else, under the load of measure.py."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target"))
    process = subprocess.Popen([target / "release" / "examples" / "hello"], stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
    try:
        url = process.stdout.readline().strip()

        def load(seconds: int) -> int:
            out = subprocess.run(["wrk", "-t1", "-c32", f"-d{seconds}s", url], capture_output=True, text=True, check=True).stdout
            return int(re.search(r"(\d+) requests in", out)[1])

        load(1)
        before = cpu_seconds(process.pid)
        requests = load(LOAD_SECONDS)
        return (cpu_seconds(process.pid) - before) / requests * 1e6
    finally:
        process.kill()
        process.wait()


def latency(url: str) -> dict[str, float]:
    target = Path(os.environ.get("CARGO_TARGET_DIR", REPO / "target"))
    return json.loads(subprocess.run([target / "release" / "examples" / "latency", url, str(OUTLIERS)], capture_output=True, text=True, check=True).stdout)


def idle_percent(pid: int) -> float:
    before = cpu_seconds(pid)
    time.sleep(IDLE_SECONDS)
    return (cpu_seconds(pid) - before) / IDLE_SECONDS * 100


def sync_p50(folder: Path) -> float:
    """Microseconds of an append of 40 bytes with its fdatasync."""
    times = []
    with open(folder / "plain", "wb", buffering=0) as file:
        for _ in range(300):
            started = time.perf_counter()
            file.write(bytes(40))
            os.fdatasync(file.fileno())
            times.append((time.perf_counter() - started) * 1e6)
    return sorted(times)[len(times) // 2]


def measure(name: str, *target: str) -> dict[str, dict]:
    """The measurements of one server by measure.py, by name."""
    sizes = ["--seconds", str(LOAD_SECONDS)] + (["--outliers", "50", "--rows", "20000"] if QUICK else [])
    done = subprocess.run([sys.executable, "-B", "-c", MEASURE, str(BASELINE), "--name", name, *target, *sizes], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    return {line["measurement"]: line for line in map(json.loads, done.stdout.splitlines())}


def ours(folder: Path, durability: str) -> dict[str, dict]:
    """Our server: idle, then how fast an anomaly is told, then what measure.py measures."""
    with Server(folder / durability, DURABILITY=durability) as server:
        time.sleep(1)
        columns = {"rest": {"idle_percent": idle_percent(server.pid)}, "latency": latency(server.url)}
        return columns | (measure(durability, "--base-url", server.url, "--pids", str(server.pid)) if BASELINE.exists() else {})


@contextmanager
def python_design(folder: Path):
    """Runs the Python design; gives the file that tells its address and processes."""
    environment = folder / "python"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    subprocess.run([environment / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "-r", BASELINE / "requirements.txt"], check=True)
    info = folder / "run.info"
    process = subprocess.Popen([BASELINE / "run.sh"], env=os.environ | {"PYTHON": str(environment / "bin" / "python"), "RUN_FILE": str(info), "PYTHONDONTWRITEBYTECODE": "1"},
                               stdout=subprocess.DEVNULL, preexec_fn=die_with_parent)
    try:
        deadline = time.monotonic() + 60
        while not info.exists() or not info.read_text().strip():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the Python design does not start")
            time.sleep(0.1)
        yield info
    finally:
        process.terminate()
        process.wait(20)


def server_rows(memory: dict, durable: dict, python: dict, sync: float) -> list[str]:
    rows = []
    if "single_post" in memory:
        cpu, hello = memory["single_post"]["cpu_us_per_event"], hello_cpu()
        rows.append(row(1, "single POST, durability off, CPU of the server", f"{cpu:.2f} µs an event", f"axum hello GET: {hello:.2f} µs", cpu / hello, most=1.5))
        if python:
            theirs = python["single_post"]["cpu_us_per_event"]
            rows.append(row(1, "single POST, durability off, CPU of the server", f"{cpu:.2f} µs an event", f"Python design: {theirs:.0f} µs", theirs / cpu, least=50))
    for name, columns, syncs in [("durability off", memory, 0), ("durable", durable, 2)]:
        told = columns["latency"]
        for p, times in [("p50", 3), ("p99", 5)]:
            mine, echo = told[f"{p}_us"], told[f"echo_{p}_us"]
            beside = f"loopback ping-pong: {echo:.1f} µs" + (f", and two fdatasyncs of {sync:.0f} µs" if syncs else "")
            rows.append(row(4, f"POST to WebSocket, {name}, {p}", f"{mine:.0f} µs", beside, (mine - syncs * sync) / echo, most=times))
    p99 = durable["latency"]["p99_us"] / 1000
    rows.append(row(4, "POST to WebSocket, durable, p99", f"{p99:.2f} ms", "50 ms", p99 / 50, most=1))
    # Two clocks that differ by a microsecond can make it less than nothing.
    idle = max(0, durable["rest"]["idle_percent"])
    rows.append(row(4, f"CPU when idle, over {IDLE_SECONDS} s", f"{idle:.3f} % of a core", "0.5 %", idle / 0.5, most=1))
    return rows


def beside_python(columns: dict[str, dict[str, dict]]) -> list[str]:
    """One line a measurement, one column a server, and how many times better the durable one is than the Python design."""
    names = list(columns)
    rows = [f"| | {' | '.join(names)} | Python / Rust durable |", "|---" * (len(names) + 2) + "|"]
    for measurement, member, unit, less in SHOWN:
        values = [columns[n].get(measurement, {}).get(member) for n in names]
        cells = [f"{v:,.6g}" if v is not None else "–" for v in values]
        peer, mine = columns.get("Python design", {}).get(measurement, {}).get(member), values[0]
        ratio = f"{(peer / mine if less else mine / peer):.3g}×" if peer and mine else "–"
        rows.append(f"| {unit} | {' | '.join(cells)} | {ratio} |")
    return rows


# --- all of it ----------------------------------------------------------------------------------------------------


def rust_rows() -> list[str]:
    """What the benchmarks in Rust print, each by itself so that none shares its caches or memory with another."""
    rows = []
    for bench in BENCHES:
        done = subprocess.run(["cargo", "bench", "--quiet", "--locked", "-p", "anomaly-eval", "--bench", bench], cwd=REPO, stdout=subprocess.PIPE, text=True, check=True)
        rows += [line for line in done.stdout.splitlines() if line.startswith("|")]
        print(done.stdout, end="", flush=True)
    return rows


def machine() -> str:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) / 2**20
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True).stdout.split()[1]
    return f"{os.cpu_count()} cores ({cpu[1] if cpu else platform.machine()}), {memory:.0f} GiB, Linux {platform.release().split('-')[0]}, rustc {rustc}"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="anomaly-bench-") as name:
        folder, python = Path(name), {}
        rows = rust_rows()
        memory, durable = ours(folder, "memory"), ours(folder, "fsync")
        if BASELINE.exists():
            with python_design(folder) as info:
                python = measure("python", "--run-info", str(info))
        else:
            print("bench: no baseline in the shared folder (ANOMALY_SHARED): nothing is compared with the Python design")
        page = bench_page.rows(folder, STORM_SECONDS)
        print("\n".join(page) or "bench: no Chromium: the page is not measured")
        of_server = server_rows(memory, durable, python, sync_p50(folder))
        of_server += bench_stack.rows(row, python.get("csv_upload", {}).get("rows_per_s_processed"))
        print("\n".join(of_server))
    lines = ["# Benchmarks, as measured", "",
             f"Written by `make bench` on {time.strftime('%Y-%m-%d')}: {run('--version').stdout.decode().strip()}; {machine()}.", "",
             "Clients, servers and whatever else the machine does share its cores, so read the ratios, not the rates: what a row compares ran in turns, and the least of "
             "several runs counts (for disks and latencies the median). Times of the core are processor time of one thread. What each shape means is at the top of the "
             "files in `crates/eval/benches/`.", "", *HEAD, *sorted(rows + of_server, key=goal_of), ""]
    if python:
        lines += ["## Beside the Python design", "", *beside_python({"Rust, durable": durable, "Rust, in memory": memory, "Python design": python}), ""]
    if page:
        lines += ["## The page", "", *bench_page.HEAD, *page, ""]
    if not QUICK:
        (REPO / "docs" / "benchmarks.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
