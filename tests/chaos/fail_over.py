"""Sentinel promotes the replica: the primary is killed, or cut off from replica and Sentinels while clients still reach it.

With REDIS_WAIT_REPLICAS=1 what a cut-off primary takes is not acknowledged, and what it alone knows is not published. The control
acknowledges what the primary alone has (REDIS_WAIT_REPLICAS=0): it must lose some, else the rig shows nothing.
"""
import time
from pathlib import Path

from chaos import Result
from chaos.redis_away import only_503
from chaos.roles import Rig, on_replica_set, row
from load import Load

# As in production behind WAIT: the disk is the replica's and the primary's own matter.
EVERY_SECOND = {"appendfsync": "everysec"}
AWAY = 5  # seconds that a primary which was replaced stays away
RESUME = 5  # seconds, at most, from when primary and replica are in step until events are acknowledged again


def cut(rig: Rig, load: Load, stay: float = AWAY) -> tuple[float, float]:
    """Returns how long there were not primary and replica in step, and how long nothing was acknowledged."""
    old, since = rig.redis.cut_primary(), time.monotonic()
    rig.redis.wait_fail_over(old)
    time.sleep(stay)
    rig.redis.heal()
    rig.redis.wait_in_step(90)
    return time.monotonic() - since, silent(load, since)


def kill(rig: Rig, load: Load) -> tuple[float, float]:
    old, since = rig.redis.primary, time.monotonic()
    old.kill()
    rig.redis.wait_fail_over(old)
    time.sleep(AWAY)
    old.start()
    rig.redis.wait_in_step(90)
    return time.monotonic() - since, silent(load, since)


def silent(load: Load, since: float) -> float:
    """Waits until events are acknowledged again; returns the longest time between two acknowledgements."""
    load.wait_acked(500, timeout=120)
    times = [since, *sorted(at for client in load.clients for at in list(client.acked_at) if at >= since)]
    return max(b - a for a, b in zip(times, times[1:]))


def run(folder: Path, kills: int = 3, cuts: int = 3, say=print) -> list[Result]:
    results = []
    for what, fail, n in (("killed", kill, kills), ("cut off from replica and Sentinels, but not from clients", cut, cuts)):
        place = folder / fail.__name__
        with on_replica_set(place, wait_replicas=1, redis=EVERY_SECOND) as rig, rig.load(n=4, timeout=30) as load:
            gaps = []
            for i in range(n):
                load.wait_acked(2000, timeout=120)
                gaps.append(fail(rig, load))
                say(f"  primary {what}, {i + 1} of {n}: no replica in step for {gaps[-1][0]:.1f} s, nothing acknowledged for {gaps[-1][1]:.1f} s, {load.acked:,} events; refused: {load.refused()}")
            load.wait_acked(2000, timeout=120)
            load.end()
            outcome = rig.verdict(load)
        results.append(row(f"{n} times the primary {what}, with REDIS_WAIT_REPLICAS=1", outcome,
                           f"no replica in step for {max(a for a, _ in gaps):.1f} s (it stays away for {AWAY} s, Sentinel needs the rest), nothing acknowledged for at most {max(b for _, b in gaps):.1f} s; refused: {load.refused()}",
                           f"503 meanwhile and nothing else, accepted again within {RESUME} s", only_503(load) and all(b <= a + RESUME for a, b in gaps)))
    return [*results, *control(folder / "control", say)]


def control(folder: Path, say=print) -> list[Result]:
    with on_replica_set(folder, wait_replicas=0) as rig, rig.load(n=4, timeout=30) as load:
        load.wait_acked(2000)
        cut(rig, load)
        load.wait_acked(500, timeout=120)
        load.end()
        time.sleep(5)  # replicas find that Redis has lost what they have shown, and begin anew
        assert all(api.wait_ready() for api in rig.stack.apis)
        outcome = rig.verdict(load)
        say(f"  control: lost {outcome.verdict.lost:,} of {outcome.verdict.acked:,}, published but not stored {outcome.unstored:,}")
    return [Result("control: the primary cut off, with REDIS_WAIT_REPLICAS=0", "loses some, else the rig has no teeth",
                   f"lost {outcome.verdict.lost:,} of {outcome.verdict.acked:,}; published but not stored {outcome.unstored:,}", outcome.verdict.lost > 0)]
