"""The active processor is killed again and again under load, or stopped for longer than its lease and then goes on as if nothing had been.

One of two processors is active, the other stands by. The killed one starts again and stands by. The stopped one wakes with events
that it had read and not yet committed: whatever it then writes must be refused, and it must stand by.
"""
import time
from pathlib import Path

import redis

from chaos import Result
from chaos.roles import Rig, on_redis, row, take_over_row
from stack import JOURNAL, LOG


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
    stands_by, late_writes = 0, 0
    with on_redis(folder) as rig, rig.load(n=4) as load:
        for i in range(rounds):
            load.wait_acked(1000)
            active, started = rig.stack.active(), time.monotonic()
            epoch = rig.stack.epoch()
            rig.take_over(active.pause)
            journal, log = rig.stack.journal_end(), last(rig, LOG)
            time.sleep(max(0.0, seconds - (time.monotonic() - started)))
            active.resume()
            load.wait_acked(2000)  # it wakes under load
            time.sleep(2)
            wrote = written_by(rig, epoch, {JOURNAL: journal, LOG: log})
            late_writes += wrote
            stands_by += rig.stack.active() is not active and active.alive and rig.stack.epoch() == epoch + 1
            say(f"  zombie {i + 1} of {rounds}: taken over after {rig.take_overs[-1]:.1f} s, it wrote {wrote} entries after that; lease {rig.stack.lease()}")
        load.end()
        outcome = rig.verdict(load)
        refused = load.refused()
    return [row(f"{rounds} times the active processor stopped for {seconds:.0f} s, taken over, and gone on as a zombie under load", outcome,
                f"entries of journal and log that bear its epoch after it was taken over {late_writes}; stood by {stands_by} of {rounds}; refused: {refused}",
                "nothing that it writes counts, and it stands by", not late_writes and stands_by == rounds),
            take_over_row(rig, f"from a processor that is stopped ({rounds} times)")]


def last(rig: Rig, stream: str) -> str:
    try:
        return rig.stack.redis.xinfo_stream(stream)["last-generated-id"]
    except redis.ResponseError:
        return "0-0"


def written_by(rig: Rig, epoch: int, since: dict[str, str]) -> int:
    """How many entries behind those of `since` name this epoch. Entries are bytes of ours but for their field names."""
    client, found = rig.redis.connect(decode_responses=False), 0
    for stream, id in since.items():
        for _, fields in client.xrange(stream, min=f"({id}"):
            found += any(name in (b"epoch", b"e") and value.split(b":")[0] == str(epoch).encode() for name, value in fields.items())
    client.close()
    return found
