"""The active processor is killed again and again under load, or stopped for longer than its lease and then goes on as if nothing had been.

One of two processors is active, the other stands by. The killed one starts again and stands by. The stopped one wakes with events
that it had read and not yet committed: whatever it then writes must be refused, and it must stand by.
"""
import json
import time
from pathlib import Path

import zstandard

from chaos import Result
from chaos.roles import Rig, on_redis, row, take_over_row
from stack import JOURNAL


def run(folder: Path, kills: int = 20, say=print) -> list[Result]:
    with on_redis(folder) as rig, rig.load(n=4) as load:
        for i in range(kills):
            load.wait_acked(1000)
            active = rig.stack.active()
            seconds = rig.take_over(active.kill)
            active.start()
            say(f"  kill {i + 1} of {kills}: {active.name}, taken over after {seconds:.1f} s, {load.acked:,} events acknowledged")
        load.wait_acked(1000)
        load.end()
        outcome = rig.verdict(load)
        refused = load.refused()
    return [row(f"{kills} kill -9 of the active processor under load", outcome, f"refused: {refused}", "events are accepted all the time", refused == "none"),
            take_over_row(rig, f"after each of {kills} kill -9")]


def zombies(folder: Path, rounds: int = 5, seconds: float = 12, say=print) -> list[Result]:
    stands_by = 0
    with on_redis(folder) as rig, rig.load(n=4) as load:
        for i in range(rounds):
            load.wait_acked(1000)
            active, started = rig.stack.active(), time.monotonic()
            epoch = rig.stack.epoch()
            rig.take_over(active.pause)
            time.sleep(max(0.0, seconds - (time.monotonic() - started)))
            active.resume()
            load.wait_acked(2000)  # it wakes under load
            time.sleep(2)
            stands_by += rig.stack.active() is not active and active.alive and rig.stack.epoch() == epoch + 1
            say(f"  zombie {i + 1} of {rounds}: taken over after {rig.take_overs[-1]:.1f} s, lease {rig.stack.lease()}")
        load.end()
        outcome = rig.verdict(load)
        refused, (commits, again) = load.refused(), commits_of(rig)
    return [row(f"{rounds} times the active processor stopped for {seconds:.0f} s, taken over, and gone on as a zombie under load", outcome,
                f"commits {commits:,}, of these not behind the one before {again}; stood by {stands_by} of {rounds}; refused: {refused}",
                "nothing that it writes counts, and it stands by", commits > 0 and not again and stands_by == rounds),
            take_over_row(rig, f"from a processor that is stopped ({rounds} times)")]


def commits_of(rig: Rig) -> tuple[int, int]:
    """How many commits the journal holds, and how many of them judge again what one before has judged.

    An entry is a byte of version, length and checksum, and JSON that zstd has made small.
    """
    client, before, commits, again = rig.redis.connect(decode_responses=False), -1, 0, 0
    for _, fields in client.xrange(JOURNAL):
        write = json.loads(zstandard.decompress(fields[b"w"][17:], max_output_size=int.from_bytes(fields[b"w"][1:9], "little")))
        if "Commit" in write and write["Commit"]["changes"]:
            frame = write["Commit"]["upto"]["frame"]
            commits, again, before = commits + 1, again + (frame <= before), max(before, frame)
    client.close()
    return commits, again
