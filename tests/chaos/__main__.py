"""Runs the long failure runs and writes the report.

    cd tests && python -m chaos [--only NAME …] [--section NAME …] [--quick] [--out FILE] [--keep FOLDER]

`--quick` runs a short version of each. What needs root, loop devices or strace is said and left out without them, or fails
when REQUIRE lists it. `--out` writes anew those sections of the report of which every run was made, and leaves the others.
Nothing is left behind: servers die with this process, mounts are private to it; `--keep` leaves folders with data and logs.
"""
import argparse
import contextlib
import os
import platform
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

from chaos import Result, alert_kills, big_upload, disk_full, fail_over, fsync_errors, ingest_kills, kafka_away, kills, partition_owners, power_cuts, processor_kills, redis_away, redis_full, replica_kills, slow_clients, told_on_kafka
from chaos.on_kafka import on_kafka
from loopfs import close_all
from needs import missing
from server import run as run_anomaly

# section of the report: {name: (what it needs, the long run, the quick one)}
SECTIONS = {
    "One process": {
        "power_cuts": (["root", "loop"], lambda f, say: power_cuts.run(f, cuts=25, say=say), lambda f, say: power_cuts.run(f, cuts=3, control_cuts=1, say=say)),
        "kills": ([], lambda f, say: kills.run(f, kills=60, say=say), lambda f, say: kills.run(f, kills=5, say=say)),
        "fsync_errors": (["strace"], lambda f, say: fsync_errors.run(f, range(1, 201, 4), say=say), lambda f, say: fsync_errors.run(f, (1, 2, 5, 20), fsync_errors.NAMED[::2], say=say)),
        "disk_full": (["root", "loop"], lambda f, say: disk_full.run(f, say=say), lambda f, say: disk_full.run(f, say=say)),
        "slow_clients": ([], lambda f, say: slow_clients.run(f, say=say), lambda f, say: slow_clients.run(f, 50, 30, say=say)),
        "big_upload": ([], lambda f, say: big_upload.run(f, say=say), lambda f, say: big_upload.run(f, (10, 50), say=say)),
    },
    "Alerts": {
        "alert_kills": (["ptrace"], lambda f, say: alert_kills.run(f, batch=100, twice=150, outages=40, say=say), lambda f, say: alert_kills.run(f, 10, 2, 2, 4, say=say)),
    },
    "Redis": {
        "processor_kills": (["redis"], lambda f, say: processor_kills.run(f, say=say), lambda f, say: processor_kills.run(f, 2, say=say)),
        "zombies": (["redis"], lambda f, say: processor_kills.zombies(f, say=say), lambda f, say: processor_kills.zombies(f, 1, say=say)),
        "redis_stopped": (["redis"], lambda f, say: redis_away.stopped(f, say=say), lambda f, say: redis_away.stopped(f, 12, say=say)),
        "redis_killed": (["redis"], lambda f, say: redis_away.killed(f, say=say), lambda f, say: redis_away.killed(f, 2, say=say)),
        "redis_full": (["redis"], lambda f, say: redis_full.run(f, say=say), lambda f, say: redis_full.run(f, 128, 3, say=say)),
        "fail_over": (["redis"], lambda f, say: fail_over.run(f, say=say), lambda f, say: fail_over.run(f, 1, 1, say=say)),
        "replica_kills": (["redis"], lambda f, say: replica_kills.run(f, say=say), lambda f, say: replica_kills.run(f, 3, say=say)),
        "ingest_kills": (["redis", "kafka"], lambda f, say: ingest_kills.run(f, say=say), lambda f, say: ingest_kills.run(f, 3, say=say)),
        "rolling_restart": (["redis", "haproxy"], lambda f, say: replica_kills.rolling(f, say=say), lambda f, say: replica_kills.rolling(f, 1, say=say)),
    },
    "Kafka": {
        "owner_kills": (["redis", "kafka"], lambda f, say: partition_owners.run(f, say=say), lambda f, say: partition_owners.run(f, 3, say=say)),
        "owner_zombies": (["redis", "kafka"], lambda f, say: partition_owners.zombies(f, say=say), lambda f, say: partition_owners.zombies(f, 2, say=say)),
        "rebalances": (["redis", "kafka"], lambda f, say: partition_owners.rebalances(f, say=say), lambda f, say: partition_owners.rebalances(f, 4, say=say)),
        "broker_kills": (["redis", "kafka"], lambda f, say: kafka_away.brokers(f, say=say), lambda f, say: kafka_away.brokers(f, 1, say=say)),
        "redis_stopped_on_kafka": (["redis", "kafka"], lambda f, say: kafka_away.redis_stopped(f, say=say), lambda f, say: kafka_away.redis_stopped(f, 20, say=say)),
        "rolling_restart_on_kafka": (["redis", "kafka", "haproxy"], lambda f, say: replica_kills.rolling(f, 5, say, on_kafka, 3), lambda f, say: replica_kills.rolling(f, 1, say, on_kafka, 3)),
        "told_on_kafka": (["redis", "kafka"], lambda f, say: told_on_kafka.run(f, say=say), lambda f, say: told_on_kafka.run(f, 2, say=say)),
        "cluster_on_kafka": (["redis", "kafka"], lambda f, say: kafka_away.cluster(f, say=say), lambda f, say: kafka_away.cluster(f, 2, say=say)),
        "fail_over_on_kafka": (["redis", "kafka"], lambda f, say: kafka_away.sentinel(f, say=say), lambda f, say: kafka_away.sentinel(f, 1, 1, say=say)),
    },
}
RUNS = {name: run for runs in SECTIONS.values() for name, run in runs.items()}


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


HEAD = """\
# Reliability, as measured

How each is done stands at the top of its file in `tests/chaos/`. A power cut is a kill -9 after which only that is kept which had
reached the image of a loop-mounted ext4 (`commit=300`); the control without fsync shows that this would be noticed. On Redis the
control is a fail-over with `REDIS_WAIT_REPLICAS=0`.
"""


def section(name: str, results: dict[str, list[Result]], seconds: dict[str, float], command: str) -> str:
    """What was measured, on what, and how to measure it again."""
    version = run_anomaly("--version").stdout.decode().strip()
    cell = (lambda text: " ".join(text.replace("|", "\\|").split()))
    rows = [f"| {cell(r.what)} | {cell(r.required)} | {cell(r.measured)} | {'yes' if r.passed else '**no**'} |" for rs in results.values() for r in rs]
    took = ", ".join(f"{name.replace('_', ' ')} {s:.0f} s" for name, s in seconds.items())
    return "\n".join([f"## {name}", "", f"Measured on {time.strftime('%Y-%m-%d')} by `{command}`: {version}, Linux {platform.release().split('-')[0]}, {os.cpu_count()} cores. Took {took}.", "",
                      "| what was done | required | measured | held |", "|---|---|---|---|", *rows, ""])


def report(before: str, results: dict[str, list[Result]], seconds: dict[str, float], command: str) -> str:
    """The page: sections of which all was run are written anew, the others stay as they are."""
    kept = {text.split("\n", 1)[0].strip("# "): text.rstrip() + "\n" for text in re.findall(r"^## .*?(?=^## |\Z)", before, re.M | re.S)}
    for name, runs in SECTIONS.items():
        if runs.keys() <= results.keys():
            kept[name] = section(name, {run: results[run] for run in runs}, {run: seconds[run] for run in runs}, command)
    return "\n".join([HEAD, *(kept[name] for name in [*SECTIONS, *(kept.keys() - SECTIONS.keys())] if name in kept)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=RUNS, default=[])
    parser.add_argument("--section", nargs="+", choices=SECTIONS, default=[], help="all runs of a section")
    parser.add_argument("--quick", action="store_true", help="a short version of each")
    parser.add_argument("--out", type=Path, help="where the report is")
    parser.add_argument("--keep", type=Path, help="where folders are made that are not removed")
    parser.add_argument("--command", default="make chaos", help="what the report names as its command")
    args = parser.parse_args()
    chosen = [name for name in RUNS if name in args.only or any(name in SECTIONS[one] for one in args.section)] or list(RUNS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results, seconds = {}, {}
    kept = args.keep and contextlib.nullcontext(args.keep)
    with kept or tempfile.TemporaryDirectory(prefix="anomaly-chaos-", ignore_cleanup_errors=True) as folder:
        try:
            for name in chosen:
                print(f"{name}:", flush=True)
                started, place = time.monotonic(), Path(folder) / name
                place.mkdir(parents=True)
                results[name] = one(name, place, args.quick)
                seconds[name] = time.monotonic() - started
                print("\n".join(map(str, results[name])), flush=True)
        finally:
            close_all()
    if args.out:
        args.out.write_text(report(args.out.read_text() if args.out.exists() else "", results, seconds, args.command))
    flat = [r for rs in results.values() for r in rs]
    failed = sum(not r.passed for r in flat)
    print(f"{len(flat) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
