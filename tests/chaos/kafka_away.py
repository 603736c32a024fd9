"""With the log on Kafka: a broker is killed and comes back, Redis does not answer for a minute, Sentinel promotes its replica,
a primary of a Redis Cluster dies.

Every batch has rows of one partition or a key under which it is retried, so none may be missing, in part, or twice. While Redis is
away only what has no key is accepted: that run has no other load.
"""
import time
from pathlib import Path

from chaos import Result, fail_over
from chaos.fail_over import silent
from chaos.on_kafka import LOG_TOPIC, PARTITIONS, STATE, Rig, on_cluster, on_kafka
from chaos.partition_owners import shared_row
from chaos.redis_away import only_503
from load import Load

ELECTED = 20  # seconds, at most, for which nothing is acknowledged when a broker is killed


def brokers(folder: Path, kills: int = 3, say=print) -> list[Result]:
    gaps = []
    with on_kafka(folder) as rig, rig.load() as load:
        for i in range(kills):
            load.wait_acked(2000, timeout=120)
            broker, since, refused = rig.kafka.leader_of(LOG_TOPIC, i), time.monotonic(), len(load.refusals)
            rig.kafka.kill(broker)
            rig.kafka.wait_leader(LOG_TOPIC, i, other_than=broker)
            elected = time.monotonic() - since
            gaps.append(silent(load, since))
            time.sleep(5)
            rig.kafka.start_one(broker)
            rig.kafka.wait_in_sync(LOG_TOPIC)
            at = [r.at - since for r in load.refusals[refused:]]
            say(f"  broker {broker}, which led partition {i} ({i + 1} of {kills}): another leads after {elected:.1f} s, nothing acknowledged for {gaps[-1]:.1f} s, "
                f"{len(at)} refused between {min(at, default=0):.1f} and {max(at, default=0):.1f} s; in sync after {time.monotonic() - since:.1f} s")
        load.wait_acked(2000, timeout=120)
        load.end()
        outcome = rig.verdict(load)
        return [shared_row(f"{kills} kill -9 of one of three brokers, the leader of a partition of the log, and its return", rig, load, outcome,
                           f"nothing acknowledged for at most {max(gaps):.1f} s", f"503 meanwhile and nothing else, accepted again within {ELECTED} s", only_503(load) and max(gaps) <= ELECTED)]


def redis_stopped(folder: Path, seconds: float = 60, say=print) -> list[Result]:
    """SIGSTOP: connections stay, answers do not come."""
    with on_kafka(folder) as rig, rig.load(n=4, keyed=0) as load:
        load.wait_acked(2000)
        with rig.redis.paused():
            since = time.monotonic()
            time.sleep(seconds / 2)
            ready, alive = [api.http.get("/readyz", timeout=10).status_code for api in rig.stack.apis], [role.http.get("/livez", timeout=10).status_code for role in rig.stack.roles]
            keyed = rig.stack.api.post_batch([{"metric": "keyed", "timestamp": 1_700_000_000, "value": 1}], idempotency_key="away").status_code
            time.sleep(max(0.0, since + seconds - time.monotonic()))
            until = time.monotonic()
        during = load.acked_between(since + 1, until)
        times = [since, *sorted(at for client in load.clients for at in list(client.acked_at) if since <= at < until), until]
        rig.stack.wait(lambda: any(heard.at > until for heard in rig.subscribers[0].heard[-1:]), "an anomaly is published again", 120)
        judged = next(heard.at for heard in rig.subscribers[0].heard if heard.at > until) - until
        load.wait_acked(2000, timeout=120)
        rig.wait_shared(120)
        load.end()
        outcome = rig.verdict(load)
        longest = max(b - a for a, b in zip(times, times[1:]))
        say(f"  acknowledged meanwhile {during} batches; refused: {load.refused()}; with a key {keyed}; /readyz {ready}, /livez {alive}; an anomaly {judged:.1f} s after it is back")
        return [shared_row(f"Redis stopped (SIGSTOP) for {seconds:.0f} s, with the log on Kafka", rig, load, outcome,
                           f"acknowledged meanwhile {during} batches without a key, the longest pause {longest:.1f} s; with a key {keyed}; /readyz {ready}; judged again after {judged:.1f} s",
                           "events without a key are accepted meanwhile, with a key 503; /readyz 200, all live; judged again within 15 s",
                           during > 0 and only_503(load) and keyed == 503 and set(ready) == {200} and set(alive) == {200} and judged <= 15)]


def sentinel(folder: Path, kills: int = 2, cuts: int = 2, say=print) -> list[Result]:
    results = []
    for what, fail, n in (("killed", fail_over.kill, kills), ("cut off from replica and Sentinels, but not from clients", fail_over.cut, cuts)):
        with on_kafka(folder / fail.__name__, wait_replicas=1) as rig, rig.load() as load:
            gaps = []
            for i in range(n):
                load.wait_acked(2000, timeout=120)
                gaps.append(fail(rig, load))
                rig.wait_shared(120)
                say(f"  primary {what}, {i + 1} of {n}: no replica in step for {gaps[-1][0]:.1f} s, nothing acknowledged for {gaps[-1][1]:.1f} s, {load.acked:,} events; refused: {load.refused()}")
            results.append(ended(f"{n} times the primary of Redis {what}", rig, load, max(b for _, b in gaps)))
    return results


def cluster(folder: Path, kills: int = 4, say=print) -> list[Result]:
    """A primary of a Redis Cluster dies, in turn the one with the journal and one with checkpoints alone, and comes back as a replica."""
    gaps = []
    with on_cluster(folder) as rig, rig.load() as load:
        for i in range(kills):
            load.wait_acked(2000, timeout=120)
            with_journal = rig.redis.primary_of(STATE)
            others = [node for p in range(PARTITIONS) if (node := rig.redis.primary_of(f"{{p{p}}}:owner")) is not with_journal]
            victim, since = with_journal if i % 2 == 0 else others[0], time.monotonic()
            rig.redis.kill(victim)
            rig.redis.wait_ok()
            time.sleep(fail_over.AWAY)
            rig.redis.start_one(victim)
            rig.redis.wait_ok()
            gaps.append(silent(load, since))
            rig.wait_shared(120)
            say(f"  {victim}, a primary with {'the journal' if i % 2 == 0 else 'checkpoints'}, killed ({i + 1} of {kills}): nothing acknowledged for {gaps[-1]:.1f} s, {load.acked:,} events; refused: {load.refused()}")
        return [ended(f"{kills} times a primary of a Redis Cluster killed", rig, load, max(gaps))]


def ended(what: str, rig: Rig, load: Load, gap: float) -> Result:
    """The line of a run in which a primary was replaced, once all is quiet."""
    load.wait_acked(2000, timeout=120)
    load.end()
    return shared_row(f"{what}, with the log on Kafka and REDIS_WAIT_REPLICAS=1", rig, load, rig.verdict(load),
                      f"nothing acknowledged for at most {gap:.1f} s", "503 meanwhile and nothing else", only_503(load))
