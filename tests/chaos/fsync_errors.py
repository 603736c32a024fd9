"""EIO at the n-th fsync of each thread: the process stops and never tries again; what it had acknowledged is there."""
import re
import shutil
from contextlib import closing
from pathlib import Path

from chaos import Result
from chaos.workload import Check, Writer, check, work_and_kill
from server import Server

BEST_EFFORT = "points.db"  # drawing may go on without it


def run(folder: Path, points=range(1, 201, 4), say=print) -> list[Result]:
    total, stopped, best_effort, not_reached, wrong = Check(), 0, 0, 0, []
    for n in points:
        trace = folder / f"{n}.strace"
        writers = [Writer("single", "single"), Writer("batch")]
        wrap = ["strace", "-D", "-f", "-qq", "-y", "-o", str(trace), "-e", "trace=fsync,fdatasync", "-e", f"inject=fsync,fdatasync:error=EIO:when={n}"]
        with closing(Server(folder / str(n), wrap=wrap)) as server:
            server.spawn()
            code = None
            if server.wait_ready(10):
                work_and_kill(server, writers, 3, until_exit=True)
            else:
                server.wait_exit(10)
            code = server.process.returncode
            files = re.findall(r"\(\d+<([^>]*)>\).*INJECTED", trace.read_text(errors="replace"))
            if not files:
                not_reached += 1
            elif all(BEST_EFFORT in f for f in files):
                best_effort += 1
            elif code in (0, -9):  # 0: as if nothing had been; -9: it went on until we killed it
                wrong.append(f"fsync {n} of {Path(files[0]).name}: {'exit code 0' if code == 0 else 'it went on'}")
            else:
                stopped += 1
            server.kill()
            server.wrap = []
            server.start()
            found = check(server, writers)
            say(f"  EIO at fsync {n} ({', '.join(Path(f).name for f in files) or 'not reached'}): exit code {code}, {found}")
            total += found
        shutil.rmtree(folder / str(n), ignore_errors=True)
        trace.unlink()
    n = len(list(points))
    return [
        Result(f"EIO at {n} different fsyncs", "the process stops with an error each time", "; ".join(wrong) or f"stopped {stopped}, only the drawing's file {best_effort}, not reached {not_reached}", not wrong and stopped > 0),
        Result(f"restart after {n} failed fsyncs", "acknowledged events lost 0, partial batches 0, phantoms 0", f"lost {total.lost} of {total.acked:,}, partial {total.torn}, phantoms {total.phantoms}", total.clean),
    ]
