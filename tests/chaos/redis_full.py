"""Redis fills up while no processor runs: accepting is refused before it is full, and when processors start it drains by itself."""
import time
from pathlib import Path

from chaos import Result
from chaos.redis_away import only_503
from chaos.roles import on_redis, row

PAD = 8000  # bytes a calm row, which do not compress: 160 KB a batch


def run(folder: Path, mib: int = 256, stay: float = 10, say=print) -> list[Result]:
    with on_redis(folder, processors=0, redis={"maxmemory": f"{mib}mb"}) as rig:
        def used() -> float:
            return rig.redis.client.info("memory")["used_memory"] / (mib << 20) * 100
        with rig.load(n=4, pad=PAD) as load:
            while any(len(client.refusals) < 3 for client in load.clients):
                time.sleep(0.1)
                assert load.acked * PAD < 4 * (mib << 20), f"{load.acked:,} events of {PAD} bytes were accepted with {mib} MiB; refused: {load.refused()}"
            first, level = load.acked, used()
            time.sleep(stay)  # it stays refused, and does not fill up further
            most, health = used(), rig.stack.api.get("/health")
            say(f"  {first:,} events, {level:.0f} % of {mib} MiB, then {most:.0f} %; refused: {load.refused()}; health {health['status']}")
            started = time.monotonic()
            for i in range(2):
                rig.stack.processors.append(rig.stack.role("processor", f"processor-{i}").start())
            load.wait_acked(1, timeout=120)
            healed = time.monotonic() - started
            load.wait_acked(5000, timeout=300)
            load.end()
        outcome = rig.verdict(load)
        say(f"  accepted again after {healed:.1f} s; {load.acked:,} events in the end, {used():.0f} % used")
        drained = used()
    return [row(f"Redis filled up ({mib} MiB, no processor, load), then two processors", outcome,
                f"first refused at {level:.0f} %, at most {most:.0f} % used; health {health['status']}; refused: {load.refused()}; accepted again {healed:.0f} s after they started, {drained:.0f} % used in the end",
                "503 with Retry-After from 75 % of maxmemory and nothing else; when processors start it drains by itself",
                only_503(load) and first > 0 and 65 <= level <= 90 and most < 95 and health["status"] == "degraded")]
