"""EIO at the n-th fsync of each thread: the process stops and never tries again; what it had acknowledged is there."""
import re
import shutil
from contextlib import closing
from pathlib import Path

from chaos import Result
from chaos.workload import Check, Writer, check, work_and_kill
from server import Server

BEST_EFFORT = "points.db"  # drawing may go on without it
CHECKPOINT = "checkpoint"  # one that cannot be written is given up, and the log is kept for the next
# What the log's own appends do not reach, on a data directory that is there already; the n-th fsync of one thread.
NAMED = [("anomaly.db-wal", 1), ("anomaly.db-wal", 4), ("anomaly.db", 1), ("events.db", 1), ("events.db", 2),
         (f"checkpoints/{1:020}.tmp", 1), (f"checkpoints/{2:020}.tmp", 1), ("checkpoints", 1), ("checkpoints", 2)]


def run(folder: Path, points=range(1, 201, 4), named=tuple(NAMED), say=print) -> list[Result]:
    total, stopped, best_effort, given_up, not_reached, wrong = Check(), 0, 0, 0, 0, []
    for file, n in [*((None, n) for n in points), *named]:
        place = folder / f"{(file or 'any').replace('/', '-')}-{n}"
        trace = place.with_suffix(".strace")
        writers = [Writer("single", "single"), Writer("heavy" if file else "batch", sizes=(1000,) if file else (1, 10, 100, 1000), pad=12_000 if file else 0)]
        wrap = ["strace", "-D", "-f", "-qq", "-y", "-o", str(trace), *(["-P", str(place / file)] if file else []), "-e", "trace=fsync,fdatasync", "-e", f"inject=fsync,fdatasync:error=EIO:when={n}"]
        with closing(Server(place)) as server:
            if file:
                server.start()
                server.kill()
            server.wrap = wrap
            server.spawn()
            if server.wait_ready(10):
                work_and_kill(server, writers, 6 if file else 3, ends=lambda: "INJECTED" in trace.read_text(errors="replace"))
            else:
                server.wait_exit(10)
            code = server.process.returncode
            files = re.findall(r"\(\d+<([^>]*)>\).*INJECTED", trace.read_text(errors="replace"))
            on = ", ".join(Path(f).name for f in files) or "not reached"
            if not files:
                not_reached += 1
            elif code not in (0, -9):  # 0: as if nothing had been; -9: it went on until we killed it
                stopped += 1
            elif all(BEST_EFFORT in f for f in files):
                best_effort += 1
            elif all(CHECKPOINT in f for f in files):
                given_up += 1
            else:
                wrong.append(f"fsync {n} of {on}: {'exit code 0' if code == 0 else 'it went on'}")
            server.kill()
            server.wrap = []
            server.start()
            found = check(server, writers)
            say(f"  EIO at fsync {n} of {file or 'any file'} ({on}): exit code {code}, {found}")
            total += found
        shutil.rmtree(place, ignore_errors=True)
        trace.unlink()
    n = len(list(points)) + len(named)
    return [
        Result(f"EIO at {n} different fsyncs", "the process stops with an error each time; a checkpoint may be given up", "; ".join(wrong) or f"stopped {stopped}, gave up a checkpoint {given_up}, only the drawing's file {best_effort}, not reached {not_reached}", not wrong and stopped > 0),
        Result(f"restart after {n} failed fsyncs", "acknowledged events lost 0, partial batches 0, phantoms 0", f"lost {total.lost} of {total.acked:,}, partial {total.torn}, phantoms {total.phantoms}", total.clean),
    ]
