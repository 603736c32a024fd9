"""A full disk: accepting is refused with 507 or 503, reading works, and it heals when there is room again."""
import errno
import time
from pathlib import Path

from chaos import Result
from chaos.workload import anomalies_differ, check, finish, mixed_writers, work
from loopfs import LoopFs
from server import Server

READS = ("/anomalies", "/incidents", "/series", "/stats", "/health", "/metrics", "/livez")


def fill(disk: LoopFs) -> Path:
    """Takes all that is free, as another program would."""
    filler = disk.path / "filler"
    with open(filler, "wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as fault:
                assert fault.errno == errno.ENOSPC, fault
    return filler


def reads(server: Server) -> list[str]:
    """The reading routes that do not answer 200."""
    return [f"{path} {status}" for path in READS if (status := server.http.get(path).status_code) != 200]


def until_refused(writers, timeout: float = 60):
    """Waits until every writer has been refused several times."""
    def until():
        deadline = time.monotonic() + timeout
        while any(w.refused < 5 for w in writers) and time.monotonic() < deadline:
            time.sleep(0.1)
    return until


def run(folder: Path, mib: int = 32, say=print) -> list[Result]:
    writers = [w for w in mixed_writers() if w.way != "upload"]
    with LoopFs(folder, mib=mib) as disk, Server(disk.path / "data") as server:
        work(server, writers, lambda: time.sleep(1))
        filler = fill(disk)
        work(server, writers, until_refused(writers))
        refused, failing, degraded = [w.refused for w in writers], reads(server), server.get("/health")["status"]
        say(f"  full: refused {refused}, failing reads {failing}, health {degraded}")
        server.kill()
        server.spawn()
        started = server.wait_ready(20) or server.alive
        failing_again = reads(server) if started else ["it does not start: " + server.log()[-300:]]
        say(f"  restarted on the full disk: failing reads {failing_again}")
        while_full = check(server, writers) if not failing_again else None
        if not server.alive:
            server.kill()
        filler.unlink()
        healing = time.monotonic()
        if not server.alive:
            server.start()
        finish(server, writers, timeout=60)
        healed = time.monotonic() - healing
        work(server, writers, lambda: time.sleep(1))
        last, differ = check(server, writers), anomalies_differ(server, writers)
    return [
        Result(f"full disk of {mib} MiB", "each writer is refused with 507 or 503, nothing else", f"{sum(refused)} refusals, at least {min(refused)} a writer, health {degraded}", min(refused) > 0),
        Result("reading while the disk is full", "works", ", ".join(failing) or "works", not failing),
        Result("kill -9 and restart while the disk is full", "starts, reading works, acknowledged events lost 0", ", ".join(failing_again) or f"works, lost {while_full.lost}", not failing_again and while_full.clean),
        Result("room again", "heals by itself, acknowledged events lost 0, anomalies equal", f"after {healed:.1f} s, lost {last.lost} of {last.acked:,}, anomalies {differ or 'equal'}", last.clean and not differ),
    ]
