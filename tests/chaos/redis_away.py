"""Redis does not answer for a minute, or is killed again and again and comes back with its file."""
import time
from pathlib import Path

from chaos import Result
from chaos.roles import on_redis, row


def only_503(load) -> bool:
    """Whether every refusal was a 503 that said when to come again."""
    return all(r.what == "503" and r.told_when for r in load.refusals)


def stopped(folder: Path, seconds: float = 60, say=print) -> list[Result]:
    """SIGSTOP: connections stay, answers do not come."""
    with on_redis(folder) as rig, rig.load(n=4, timeout=30) as load:
        load.wait_acked(2000)
        with rig.redis.paused():
            since = time.monotonic()
            time.sleep(seconds)
            unready = [api.http.get("/readyz", timeout=10).status_code for api in rig.stack.apis]
            alive = [role.http.get("/livez", timeout=10).status_code for role in rig.stack.roles]
            until = time.monotonic()
        load.wait_acked(5000, timeout=120)
        back = min(at for client in load.clients for at in client.acked_at if at > until) - until
        load.end()
        outcome, during = rig.verdict(load), load.acked_between(since + 0.1, until)
        say(f"  acknowledged meanwhile {during} batches, again after {back:.1f} s; refused: {load.refused()}; /readyz {unready}, /livez {alive}")
    return [row(f"Redis stopped (SIGSTOP) for {seconds:.0f} s under load", outcome, f"refused: {load.refused()}; /readyz {unready}; accepted again after {back:.1f} s",
                "503 with Retry-After meanwhile and nothing else, /readyz 503, all live, accepted again within 15 s",
                only_503(load) and during == 0 and set(unready) == {503} and set(alive) == {200} and back <= 15)]


def killed(folder: Path, kills: int = 10, say=print) -> list[Result]:
    """kill -9 and a restart with what is on its disk."""
    slowest = 0.0
    with on_redis(folder) as rig, rig.load(n=4, timeout=30) as load:
        for i in range(kills):
            load.wait_acked(2000, timeout=120)
            rig.redis.kill()
            time.sleep(0.2 * (i % 4))
            rig.redis.start()
            started = time.monotonic()
            load.wait_acked(1, timeout=120)
            slowest = max(slowest, time.monotonic() - started)
            say(f"  kill {i + 1} of {kills}: accepted again after {time.monotonic() - started:.1f} s, {load.acked:,} events acknowledged")
        load.wait_acked(2000, timeout=120)
        load.end()
        outcome = rig.verdict(load)
    return [row(f"{kills} kill -9 of Redis under load, started again with its file", outcome, f"refused: {load.refused()}; accepted again after at most {slowest:.1f} s",
                "503 with Retry-After meanwhile and nothing else, accepted again within 15 s", only_503(load) and slowest <= 15)]
