"""Files of 10 MiB to 1 GiB through POST /upload: memory does not grow with the file."""
import shutil
import threading
import time
from pathlib import Path

from chaos import Result
from server import Server

N_SERIES = 100
START = 1_600_000_000
MOST_MIB = 512  # at any time: the queues are bounded, and the state is small
MORE_MIB = 64  # how much more the second half of the largest may take than its first


def form(mib: float):
    """The chunks of a multipart form with a CSV of about so many MiB, one second of 100 series at a time; then its rows."""
    blocks = ["".join(f"m{k},{50 + (i * 37 + k * 11) % 100 / 50:.2f},@\n" for k in range(N_SERIES)) for i in range(7)]
    yield b'--XX\r\nContent-Disposition: form-data; name="file"; filename="big.csv"\r\n\r\nmetric,value,timestamp\n'
    written, second, chunk = 0, 0, []
    while written < mib * (1 << 20):
        block = blocks[second % 7].replace("@", str(START + second)).encode()
        chunk.append(block)
        written += len(block)
        second += 1
        if second % 64 == 0:
            yield b"".join(chunk)
            chunk.clear()
    yield b"".join(chunk) + b"\r\n--XX--\r\n"
    form.rows = second * N_SERIES


def upload(folder: Path, mib: int, say) -> tuple[float, float, float, bool]:
    """One upload into a fresh server: peak memory in MiB, by how much the second half's is above the first half's, seconds
    until all is judged, and whether every row was taken."""
    with Server(folder / f"data{mib}") as server:
        samples, stop, started = [], threading.Event(), time.monotonic()

        def sample():
            while not stop.wait(0.5):
                samples.append(server.rss_mib())
        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            response = server.http.post("/upload", content=form(mib), headers={"content-type": "multipart/form-data; boundary=XX"}, timeout=1800)
            assert response.status_code == 200, response.text[:500]
            server.settle(1800)
        finally:
            stop.set()
            sampler.join()
        report, seconds, peak = response.json()["files"][0], time.monotonic() - started, server.peak_mib()
        whole = report["accepted"] == form.rows == sum(server.series_counts().values()) and report["rejected"] == 0
        tenths = samples[::max(1, len(samples) // 10)]
        say(f"  {mib} MiB: {form.rows:,} rows in {seconds:.1f} s, peak {peak:.0f} MiB, during it {[round(s) for s in tenths]}")
    shutil.rmtree(folder / f"data{mib}", ignore_errors=True)
    half = len(samples) // 2
    return peak, max(samples[half:], default=0) - max(samples[:half], default=0), seconds, whole


def run(folder: Path, sizes=(10, 100, 1024), say=print) -> list[Result]:
    told = {mib: upload(folder, mib, say) for mib in sizes}
    flat = all(peak <= MOST_MIB for peak, *_ in told.values()) and told[sizes[-1]][1] <= MORE_MIB
    return [Result(f"CSV uploads of {', '.join(map(str, sizes))} MiB", f"every row taken once; at most {MOST_MIB} MiB of memory, in the second half of the last at most {MORE_MIB} MiB more than in its first",
                   "; ".join(f"{mib} MiB: peak {peak:.0f} MiB, second half {more:+.0f} MiB, {seconds:.0f} s" for mib, (peak, more, seconds, _) in told.items()), flat and all(whole for *_, whole in told.values()))]
