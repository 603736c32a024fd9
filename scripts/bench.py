#!/usr/bin/env python3
"""Measures the server beside the Python design, and what the benchmarks in Rust measure; prints it and writes docs/benchmarks.md.

Two servers of the same contract are measured by the same program (measure.py of the shared folder), one after the other on
the same machine, so what counts is the ratio. Without the shared folder only the Rust benchmarks are run.
"""
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from server import REPO, SHARED, Server, die_with_parent, run  # noqa: E402

BASELINE = SHARED / "baseline"
QUICK = bool(os.environ.get("QUICK"))
# (measurement, member, unit, whether less is better)
SHOWN = [("single_post", "cpu_us_per_event", "µs of CPU an event", True), ("single_post", "events_per_s", "events/s", False), ("single_post", "p99_us", "µs p99", True),
         ("ws_latency", "p50_us", "µs p50 POST to WebSocket", True), ("ws_latency", "p99_us", "µs p99 POST to WebSocket", True),
         ("csv_upload", "rows_per_s_processed", "CSV rows/s", False), ("csv_upload", "cpu_us_per_row", "µs of CPU a row", True), ("idle", "cpu_percent", "% CPU idle", True), ("idle", "rss_mib", "MiB resident", True)]


def measure(name: str, *target: str) -> dict[str, dict]:
    """The measurements of one server, by name."""
    short = ["--seconds", "2", "--outliers", "50", "--rows", "20000"] if QUICK else []
    done = subprocess.run([sys.executable, "-B", BASELINE / "measure.py", "--name", name, *target, *short], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    return {line["measurement"]: line for line in map(json.loads, done.stdout.splitlines())}


def rust(folder: Path, durability: str) -> dict[str, dict]:
    with Server(folder / durability, DURABILITY=durability) as server:
        time.sleep(1)
        return measure(durability, "--base-url", server.url, "--pids", str(server.pid))


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


def table(columns: dict[str, dict[str, dict]]) -> list[str]:
    """One line a measurement, one column a server, and how many times better the durable one is than the Python design."""
    names = list(columns)
    rows = [f"| | {' | '.join(names)} | Python / Rust durable |", "|---" * (len(names) + 2) + "|"]
    for measurement, member, unit, less in SHOWN:
        values = [columns[n].get(measurement, {}).get(member) for n in names]
        cells = [f"{v:,.6g}" if v is not None else "–" for v in values]
        peer, ours = columns.get("Python design", {}).get(measurement, {}).get(member), values[0]
        ratio = f"{(peer / ours if less else ours / peer):.3g}×" if peer and ours else "–"
        rows.append(f"| {unit} | {' | '.join(cells)} | {ratio} |")
    return rows


def rust_benchmarks() -> str:
    """What `cargo bench` of the crate eval prints; empty when it has none."""
    if not (REPO / "crates" / "eval" / "benches").exists():
        return ""
    done = subprocess.run(["cargo", "bench", "--locked", "-p", "anomaly-eval"], cwd=REPO, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr[-3000:])
    return done.stdout


def main() -> None:
    lines = ["# Benchmarks, as measured", "", f"Written by `make bench` on {time.strftime('%Y-%m-%d')}: {run('--version').stdout.decode().strip()}, {os.cpu_count()} cores, Linux {platform.release().split('-')[0]}.",
             "Client and server share the cores: read the ratios, not the rates.", ""]
    with tempfile.TemporaryDirectory(prefix="anomaly-bench-") as name:
        folder, columns = Path(name), {}
        if (BASELINE / "measure.py").exists():
            columns["Rust, durable"], columns["Rust, in memory"] = rust(folder, "fsync"), rust(folder, "memory")
            with python_design(folder) as info:
                columns["Python design"] = measure("python", "--run-info", str(info))
            lines += ["## The server", "", *table(columns), ""]
        else:
            print("bench: no baseline in the shared folder (ANOMALY_SHARED): the server is not measured")
    if text := rust_benchmarks():
        lines += ["## The core", "", "```text", text.strip(), "```", ""]
    print("\n".join(lines))
    if not QUICK:
        (REPO / "docs").mkdir(exist_ok=True)
        (REPO / "docs" / "benchmarks.md").write_text("\n".join(lines))


if __name__ == "__main__":
    main()
