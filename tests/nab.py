"""The 58 series of the Numenta Anomaly Benchmark with a window of a day, since most are five-minute metrics."""
from pathlib import Path

from needs import need
from server import SHARED, run

WINDOW = {"WINDOW_SECONDS": 86400}
FEWEST = 5000  # anomalies


def files() -> list[Path]:
    """The series; skips the running test where they are missing."""
    need("nab")
    found = sorted((SHARED / "nab" / "data").glob("*/*.csv"))
    assert len(found) == 58, f"{len(found)} files"
    return found


def rows(file: Path) -> int:
    return len(file.read_text().splitlines()) - 1


def detect() -> list[str]:
    """What `anomaly detect FILE… --format json` prints, a line an anomaly."""
    done = run("detect", *files(), "--format", "json", **WINDOW, timeout=300)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    lines = done.stdout.decode().splitlines()
    assert len(lines) >= FEWEST, f"{len(lines)} anomalies, at least {FEWEST} are expected"
    return lines
