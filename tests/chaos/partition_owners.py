"""Processors that share the partitions of a log on Kafka are killed, stopped for longer than their session, and come and go, under load.

Three processors work, one of them leads too. The load has series in most partitions, in batches of many of them under keys, which are
retried, and in batches of one series, which are not. All the time the journal is read: an owner that was deposed must not have
written to it, so that no commit is behind an earlier one of its partition, and no anomaly is in two.
"""
import time
from collections.abc import Callable
from pathlib import Path

from chaos import Result
from chaos.on_kafka import Rig, on_kafka
from chaos.roles import Outcome, row, take_over_row
from load import Load
from stack import Role

JOURNAL_CLEAN = "no anomaly committed twice, no commit behind another, P never falls; each anomaly published"


def shared_row(what: str, rig: Rig, load: Load, outcome: Outcome, more: str = "", required: str = "", held: bool = True) -> Result:
    """The line of a run: as `row`, with what the journal shows, and what nobody was told of."""
    untold = len(outcome.verdict.ids) - outcome.published
    return row(what, outcome, f"not published {untold}; {rig.journal}; refused: {load.refused()}{f'; {more}' if more else ''}",
               f"{JOURNAL_CLEAN}{f'; {required}' if required else ''}", rig.journal.clean and untold == 0 and held)


def take_over(rig: Rig, victim: Role, fail: Callable[[], None]) -> float:
    """Makes a processor fail; returns the seconds until all its partitions are others' and an anomaly of one of them is published."""
    mine, started = rig.owned(victim), time.monotonic()
    assert mine, f"{victim} owns nothing"
    fail()
    rig.wait_taken(mine)
    taken = time.monotonic()
    rig.stack.wait(lambda: any(rig.journal.partition_of.get(heard.series) in mine for heard in rig.subscribers[0].since(taken)), "an anomaly of theirs", 90)
    seconds = min(heard.at for heard in rig.subscribers[0].since(taken) if rig.journal.partition_of.get(heard.series) in mine) - started
    rig.take_overs.append(seconds)
    return seconds


def run(folder: Path, kills: int = 20, say=print) -> list[Result]:
    with on_kafka(folder) as rig, rig.load() as load:
        for i in range(kills):
            load.wait_acked(1000)
            victim, leader = rig.stack.processors[i % 3], rig.leader()
            seconds = take_over(rig, victim, victim.kill)
            victim.start()
            rig.wait_shared()
            say(f"  kill {i + 1} of {kills}: {victim}{', which led,' if victim is leader else ''} taken over after {seconds:.1f} s, {load.acked:,} events acknowledged")
        load.wait_acked(1000)
        load.end()
        outcome, refused = rig.verdict(load), load.refused()
        shared = shared_row(f"{kills} kill -9 of one of three processors that share the log on Kafka", rig, load, outcome, "", "events are accepted all the time", refused == "none")
    return [shared, take_over_row(rig, f"of the partitions of a killed processor ({kills} times)")]


def zombies(folder: Path, rounds: int = 5, seconds: float = 16, say=print) -> list[Result]:
    """SIGSTOP for longer than session.timeout.ms; others take over; SIGCONT, with events that were read and not committed."""
    deposed = 0
    with on_kafka(folder) as rig, rig.load() as load:
        for i in range(rounds):
            load.wait_acked(1000)
            zombie, started = rig.leader() if i % 2 == 0 else other(rig), time.monotonic()
            before = len(zombie.log())
            taken = take_over(rig, zombie, zombie.pause)
            time.sleep(max(0.0, seconds - (time.monotonic() - started)))
            zombie.resume()
            load.wait_acked(2000)
            rig.wait_shared()
            deposed += "no partition is worked on here" in zombie.log()[before:]
            say(f"  zombie {i + 1} of {rounds}: {zombie}, taken over after {taken:.1f} s; it told: {told(zombie, before)}")
        load.end()
        outcome, refused = rig.verdict(load), load.refused()
        shared = shared_row(f"{rounds} times one of three processors stopped for {seconds:.0f} s, taken over, and gone on as a zombie", rig, load, outcome,
                            f"found out that it was deposed by what it wrote {deposed} times", "events are accepted all the time", refused == "none")
    return [shared, take_over_row(rig, f"of the partitions of a stopped processor ({rounds} times)")]


def rebalances(folder: Path, n: int = 20, say=print) -> list[Result]:
    """A processor leaves (SIGTERM), and comes again: each time partitions change hands."""
    took = []
    with on_kafka(folder) as rig, rig.load() as load:
        for i in range(n):
            load.wait_acked(500)
            processor, started = rig.stack.processors[i // 2 % 3], time.monotonic()
            if i % 2 == 0:
                mine = rig.owned(processor)
                code, ended = processor.terminate()
                assert code == 0, f"{processor} ended with {code}: {processor.log()[-1000:]}"
                rig.wait_taken(mine)
            else:
                processor.start()
            rig.wait_shared()
            took.append(time.monotonic() - started)
            say(f"  {'leaves' if i % 2 == 0 else 'joins'} ({i + 1} of {n}): {processor}, shared anew after {took[-1]:.1f} s{f', ended after {ended:.1f} s' if i % 2 == 0 else ''}")
        load.end()
        outcome, refused, seconds = rig.verdict(load), load.refused(), sorted(took)
        return [shared_row(f"{n} rebalances: one of three processors leaves (SIGTERM) or joins under load", rig, load, outcome,
                           f"shared anew after a median of {seconds[len(seconds) // 2]:.1f} s, at most {seconds[-1]:.1f} s", "events are accepted all the time, shared anew within 15 s",
                           refused == "none" and seconds[-1] <= 15)]


def other(rig: Rig) -> Role:
    """A processor that does not lead."""
    leader = rig.leader()
    return next(p for p in rig.stack.processors if p is not leader)


def told(processor: Role, since: int) -> str:
    """What a processor has warned of."""
    return " | ".join(line.split(" WARN ", 1)[1][:160] for line in processor.log()[since:].splitlines() if " WARN " in line) or "nothing"
