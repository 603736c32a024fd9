"""kill -9 again and again on one data directory, between and inside requests and, with strace, at exact system calls."""
import random
import shutil
from pathlib import Path

from chaos import Result
from chaos.workload import Check, anomalies_differ, check, finish, mixed_writers, starts_from_checkpoints, work_and_kill
from server import Server

# The system calls by which a process changes what is on disk.
WRITES = "pwrite64,write,fsync,fdatasync,ftruncate,unlink,unlinkat,rename,renameat2"


def at_a_write(n: int) -> list[str]:
    """Puts a process under strace so that it is killed at the n-th such call of one of its threads."""
    return ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={WRITES}", "-e", f"inject={WRITES}:signal=SIGKILL:when={n}"]


def run(folder: Path, kills: int = 60, seed: int = 2, say=print) -> list[Result]:
    rng, writers, total = random.Random(seed), mixed_writers(seed, heavy=1), Check()
    exact = 0
    with Server(folder / "data") as server:
        for i in range(kills):
            if server.wrap:
                work_and_kill(server, writers, 10, ends=lambda: False)
            else:
                work_and_kill(server, writers, rng.uniform(0.02, 0.8))
            server.wrap = []
            server.start()
            found = check(server, writers)
            say(f"  kill {i + 1} of {kills}: {found}")
            total += found
            if not found.clean:
                break
            if i % 2 == 0 and i < kills - 1 and shutil.which("strace"):
                server.kill()
                server.wrap = at_a_write(rng.randrange(1, 400))
                server.spawn()  # it may be killed before it serves
                server.wait_ready(10)
                exact += 1
        finish(server, writers)
        last = check(server, writers)
        differ, from_checkpoints = anomalies_differ(server, writers), starts_from_checkpoints(server)
    clean = total.clean and last.clean and last.acked == sum(w.total(len(w.sent)) for w in writers)
    return [
        Result(f"{kills} kill -9 under load, {exact} of them at an exact system call; {from_checkpoints} starts from a checkpoint", "acknowledged events lost 0, no row twice, partial batches 0", f"lost {total.lost + last.lost} of {last.acked:,}, twice {total.phantoms + last.phantoms}, partial {total.torn + last.torn}", clean),
        Result(f"anomalies after {kills} kill -9", "each once; ids, order and every member as in an uninterrupted run", differ or "equal", not differ),
    ]
