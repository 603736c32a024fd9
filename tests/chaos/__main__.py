"""Runs the long failure runs and writes the report.

    cd tests && python -m chaos [--only NAME …] [--quick] [--out FILE]

`--quick` runs a short version of each. What needs root, loop devices or strace is said and left out without them, or fails
when REQUIRE lists it. Nothing is left behind: servers die with this process, mounts are private to it.
"""
import argparse
import os
import platform
import signal
import sys
import tempfile
import time
from pathlib import Path

from chaos import Result, alert_kills, big_upload, disk_full, fsync_errors, kills, power_cuts, slow_clients
from loopfs import close_all
from needs import missing
from server import run as run_anomaly

# name: (what it needs, the long run, the quick one)
RUNS = {
    "power_cuts": (["root", "loop"], lambda f, say: power_cuts.run(f, cuts=25, say=say), lambda f, say: power_cuts.run(f, cuts=3, control_cuts=1, say=say)),
    "kills": ([], lambda f, say: kills.run(f, kills=60, say=say), lambda f, say: kills.run(f, kills=5, say=say)),
    "alert_kills": (["ptrace"], lambda f, say: alert_kills.run(f, batch=100, twice=150, outages=40, say=say), lambda f, say: alert_kills.run(f, 10, 2, 2, 4, say=say)),
    "fsync_errors": (["strace"], lambda f, say: fsync_errors.run(f, range(1, 201, 4), say=say), lambda f, say: fsync_errors.run(f, (1, 2, 5, 20), fsync_errors.NAMED[::2], say=say)),
    "disk_full": (["root", "loop"], lambda f, say: disk_full.run(f, say=say), lambda f, say: disk_full.run(f, say=say)),
    "slow_clients": ([], lambda f, say: slow_clients.run(f, say=say), lambda f, say: slow_clients.run(f, 50, 30, say=say)),
    "big_upload": ([], lambda f, say: big_upload.run(f, say=say), lambda f, say: big_upload.run(f, (10, 50), say=say)),
}


def one(name: str, folder: Path, quick: bool) -> list[Result]:
    needs, long, short = RUNS[name]
    for need in needs:
        if reason := missing(need):
            required = need in os.environ.get("REQUIRE", "").split(",")
            return [Result(name.replace("_", " "), f"needs {need}", f"not run: {reason}", not required)]
    try:
        return (short if quick else long)(folder, lambda text: print(text, flush=True))
    except Exception as fault:  # the other runs still tell what they find
        return [Result(name.replace("_", " "), "runs to its end", f"{type(fault).__name__}: {str(fault)[:1500]}", False)]


def report(results: dict[str, list[Result]], seconds: dict[str, float], command: str) -> str:
    """The page: what was measured, on what, and how to measure it again."""
    version = run_anomaly("--version").stdout.decode().strip()
    cell = (lambda text: " ".join(text.replace("|", "\\|").split()))
    rows = [f"| {cell(r.what)} | {cell(r.required)} | {cell(r.measured)} | {'yes' if r.passed else '**no**'} |" for rs in results.values() for r in rs]
    return "\n".join([
        "# Reliability, as measured", "",
        f"Written by `{command}` on {time.strftime('%Y-%m-%d')}: {version}, Linux {platform.release().split('-')[0]}, {os.cpu_count()} cores.", "",
        "| what was done | required | measured | held |", "|---|---|---|---|", *rows, "",
        "How each is done stands at the top of its file in `tests/chaos/`. A power cut is a kill -9 after which only that is kept which had",
        "reached the image of a loop-mounted ext4 (`commit=300`); the control without fsync shows that this would be noticed.", "",
        "Took " + ", ".join(f"{name.replace('_', ' ')} {s:.0f} s" for name, s in seconds.items()) + ".", ""])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--quick", action="store_true", help="a short version of each")
    parser.add_argument("--out", type=Path, help="where to write the report")
    parser.add_argument("--command", default="make chaos", help="what the report names as its command")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results, seconds = {}, {}
    with tempfile.TemporaryDirectory(prefix="anomaly-chaos-", ignore_cleanup_errors=True) as folder:
        try:
            for name in args.only:
                print(f"{name}:", flush=True)
                started, place = time.monotonic(), Path(folder) / name
                place.mkdir()
                results[name] = one(name, place, args.quick)
                seconds[name] = time.monotonic() - started
                print("\n".join(map(str, results[name])), flush=True)
        finally:
            close_all()
    if args.out:
        args.out.write_text(report(results, seconds, args.command))
    flat = [r for rs in results.values() for r in rs]
    failed = sum(not r.passed for r in flat)
    print(f"{len(flat) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
