"""Power cuts: kill -9, then only what had reached the disk image is kept, and the server starts on that."""
import random
from pathlib import Path

from chaos import Result
from chaos.workload import Check, anomalies_differ, check, finish, mixed_writers, starts_from_checkpoints, work_and_kill
from loopfs import LoopFs
from server import Server

CHAIN = 5  # cuts one after the other on what the cut before has left


def cuts_of(folder: Path, cuts: int, rng: random.Random, say, heavy: int = 1, **env) -> tuple[Check, str, int]:
    """A chain of cuts under load, each checked; then the rest is sent and the anomalies are compared.

    Also tells how many starts found a checkpoint: with a heavy writer the log grows so fast that it is truncated meanwhile.
    """
    writers, total = mixed_writers(rng.randrange(1 << 30), heavy), Check()
    disk = LoopFs(folder / "0", mib=1024)
    try:
        server = Server(disk.path / "data", **env)
        try:
            server.start()
            for i in range(cuts):
                work_and_kill(server, writers, rng.uniform(0.3, 2.5))
                after = disk.power_cut(folder / str(i + 1))
                disk.close()
                disk = after
                server.data_dir = disk.path / "data"
                server.start()
                found = check(server, writers)
                say(f"  cut {i + 1} of {cuts}: {found}, from checkpoints {starts_from_checkpoints(server)}")
                total += found
                total.acked = found.acked
                if not found.clean:
                    return total, "not compared", starts_from_checkpoints(server)
            finish(server, writers)
            last = check(server, writers)
            total.lost, total.torn, total.phantoms = total.lost + last.lost, total.torn + last.torn, total.phantoms + last.phantoms
            return total, anomalies_differ(server, writers), starts_from_checkpoints(server)
        finally:
            server.close()
    finally:
        disk.close()


def run(folder: Path, cuts: int = 25, control_cuts: int = 3, seed: int = 1, say=print) -> list[Result]:
    rng, total, differ, done, from_checkpoints = random.Random(seed), Check(), [], 0, 0
    while done < cuts:
        n = min(CHAIN, cuts - done)
        found, told, n_checkpoints = cuts_of(folder / f"chain{done}", n, rng, say)
        total += found
        done += n
        from_checkpoints += n_checkpoints
        differ += [told] if told else []
    control = Check()
    for i in range(control_cuts):
        found, _, _ = cuts_of(folder / f"control{i}", 1, rng, say, heavy=0, DURABILITY="os")
        control += found
    return [
        Result(f"{cuts} power cuts under load", "acknowledged events lost 0, partial batches 0, phantoms 0", f"lost {total.lost} of {total.acked:,}, partial {total.torn}, phantoms {total.phantoms}", total.clean),
        Result(f"checkpoints and truncation between {cuts} power cuts", "some starts go on from a checkpoint, else that path is not met", f"{from_checkpoints} starts", from_checkpoints > 0 or cuts < CHAIN),
        Result(f"anomalies after {cuts} power cuts", "ids, order and every member as in an uninterrupted run", "; ".join(differ) or "equal", not differ),
        Result(f"control: {control_cuts} power cuts with DURABILITY=os (no fsync of the append)", "loses some, else the rig has no teeth", f"lost {control.lost:,} of {control.acked:,}", control.lost > 0),
    ]

