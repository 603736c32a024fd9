"""kill -9 of an API replica under load, in the middle of uploads too, while another goes on; and a rolling restart of all roles."""
import random
import time
from pathlib import Path

from balancer import Balancer
from chaos import Result
from chaos.roles import on_redis, row
from chaos.workload import Check, anomalies_differ, check, finish, mixed_writers, work_and_kill
from load import Load
from watchers import Follower


def run(folder: Path, kills: int = 20, seed: int = 4, say=print) -> list[Result]:
    """One replica is killed and started again; what it has left in doubt is sent again with its key."""
    rng, writers, total = random.Random(seed), mixed_writers(seed), Check()
    with on_redis(folder) as rig, Load([rig.stack.apis[1].url], n=2, name="beside") as beside:
        a, b = rig.stack.apis
        for i in range(kills):
            work_and_kill(a, writers, rng.uniform(0.05, 1.5))
            a.start()
            found = check(a, writers)
            say(f"  kill {i + 1} of {kills}: {found}")
            total += found
            if not found.clean:
                break
        beside.end()
        finish(a, writers)
        rig.stack.settle()
        last = [check(api, writers) for api in (a, b)]
        differ = anomalies_differ_in(a, b, writers)
        uploads = sum(w.acked for w in writers if w.way == "upload")
    clean = total.clean and all(one.clean for one in last) and last[0].acked == sum(w.total(len(w.sent)) for w in writers)
    return [Result(f"{kills} kill -9 of an API replica under load, {uploads} uploads among it", "acknowledged events lost 0, no row twice, partial batches 0; what is in doubt is completed by its key; the other replica refuses nothing",
                   f"lost {total.lost + last[0].lost} of {last[0].acked:,}, twice {total.phantoms + last[0].phantoms}, partial {total.torn + last[0].torn}; the other refused: {beside.refused()}", clean and not beside.refusals),
            Result(f"anomalies on both replicas after {kills} kill -9", "each once; ids, order and every member as in an uninterrupted run", differ or "equal", not differ)]


def anomalies_differ_in(a, b, writers) -> str:
    """Of the writers' series; what came beside is left out."""
    class Only:
        """A replica as if nobody else had written."""

        def __init__(self, api):
            self.api = api

        def series_counts(self):
            return {k: n for k, n in self.api.series_counts().items() if not k.startswith("beside")}

        def anomalies(self):
            return [one for one in self.api.anomalies() if '"metric":"beside' not in one]
    return anomalies_differ(Only(a), writers) or anomalies_differ(Only(b), writers)


def rolling(folder: Path, rounds: int = 5, say=print, on=on_redis, processors: int = 2) -> list[Result]:
    """Each role is ended by SIGTERM and started again, an API replica when haproxy sends it nothing more."""
    longest = 0.0
    with on(folder, processors=processors) as rig, Balancer(rig.stack.apis) as balancer, Follower(balancer.url) as follower, Load([balancer.url], n=4) as load:
        for i in range(rounds):
            for role in (*rig.stack.processors, *rig.stack.apis):
                load.wait_acked(500)
                if role in rig.stack.apis:
                    balancer.drain(role)
                code, seconds = role.terminate()
                longest = max(longest, seconds)
                assert code == 0, f"{role}: exit code {code}"
                role.start()
                if role in rig.stack.apis:
                    balancer.let_in(role)
            say(f"  round {i + 1} of {rounds}: {load.acked:,} events acknowledged, slowest request {max(c.slowest for c in load.clients):.2f} s, refused: {load.refused()}")
        load.wait_acked(500)
        load.end()
        outcome = rig.verdict(load)
        deadline = time.monotonic() + 30
        while len(set(follower.ids)) < len(outcome.verdict.ids) and time.monotonic() < deadline:
            time.sleep(0.1)
        seen = len(follower.ids), len(set(follower.ids)), len(outcome.verdict.ids)
    return [row(f"{rounds} rolling restarts of {processors} processors and 2 API replicas behind haproxy, under load{', with the log on Kafka' if on is not on_redis else ''}", outcome,
                f"failed requests {len(load.refusals)}, slowest {max(c.slowest for c in load.clients):.2f} s, slowest end {longest:.1f} s; a WebSocket client got {seen[0]:,} of {seen[2]:,}, {seen[0] - seen[1]} twice, over {follower.connections} connections",
                "failed requests 0; each role ends within 10 s; a WebSocket client that resumes by its cursor gets each anomaly once",
                not load.refusals and longest <= 10 and seen[0] == seen[1] == seen[2] and not follower.gaps)]
