"""Real series: what a running server finds is byte for byte what `anomaly detect` finds, also after kill -9 in the middle."""
import random
import threading
import time

import httpx
import pytest

import nab
from compare import difference, grouped
from nab import FEWEST, WINDOW, rows
from server import Server, run

KILLS = 12


@pytest.fixture(scope="module")
def nab_files():
    return nab.files()


@pytest.fixture(scope="module")
def offline(nab_files) -> dict[str, list[str]]:
    return grouped(nab.detect())


def test_each_file_is_one_series_named_after_it(offline, nab_files):
    assert offline.keys() <= {file.stem for file in nab_files}


def test_files_apart_give_what_they_give_together(offline, nab_files):
    for file in nab_files[:5]:
        alone = grouped(run("detect", file, "--format", "json", **WINDOW).stdout.decode().splitlines())
        assert not (told := difference(alone, {k: v for k, v in offline.items() if k == file.stem})), told


def test_live_is_offline(offline, nab_files, tmp_path):
    with Server(tmp_path / "data", **WINDOW) as server:
        for file in nab_files:
            answer = server.upload(file.name, file.read_bytes())
            assert answer.status_code == 200, f"{file.name}: {answer.text[:500]}"
            assert answer.json()["files"][0]["accepted"] == rows(file), f"{file.name}: {answer.text[:500]}"
        server.settle()
        live = server.anomalies()
        assert len(live) >= FEWEST, f"{len(live)} anomalies, at least {FEWEST} are expected"
        assert not (told := difference(grouped(live), offline)), told
        assert server.series_counts() == {file.stem: rows(file) for file in nab_files}


def test_recovered_is_offline(offline, nab_files, tmp_path):
    """kill -9 while files are uploaded, a restart, and the same file again with its key: nothing is missing, nothing twice."""
    rng, kills, in_request = random.Random(1), 0, 0
    with Server(tmp_path / "data", **WINDOW) as server:
        seconds = 0.05  # how long an upload takes, to aim the kills into it
        for i, file in enumerate(nab_files):
            aimed = i % (len(nab_files) // KILLS) == 2
            while True:
                if aimed:
                    threading.Timer(rng.uniform(0, 1.2 * seconds), server.process.kill).start()
                started = time.monotonic()
                try:
                    answer = server.upload(file.name, file.read_bytes(), key=f"nab-{file.stem}")
                except httpx.TransportError:
                    answer, in_request = None, in_request + 1
                if aimed:
                    server.wait_exit(10)
                    server.start()
                    kills, aimed = kills + 1, False
                    continue  # also when the answer had come: a retry must not count twice
                if answer.status_code in (409, 503):  # the first try is still being taken up again
                    time.sleep(0.1)
                    continue
                break
            seconds = time.monotonic() - started
            assert answer.status_code == 200, f"{file.name}: {answer.status_code} {answer.text[:500]}"
            assert answer.json()["files"][0]["accepted"] == rows(file), f"{file.name}: {answer.text[:500]}"
        server.settle()
        server.kill()
        server.start()
        server.settle()
        assert kills >= KILLS and in_request > 0, f"{kills} kills, {in_request} in the middle of a request"
        assert server.series_counts() == {file.stem: rows(file) for file in nab_files}
        assert not (told := difference(grouped(server.anomalies()), offline)), told


def test_killed_inside_one_large_upload(offline, nab_files, tmp_path):
    """All files in one request, killed again and again while its rows are being taken."""
    files = [("files", (file.name, file.read_bytes())) for file in nab_files]
    with Server(tmp_path / "data", **WINDOW) as server:
        for i in range(5):
            threading.Timer(0.1 + 0.15 * i, server.process.kill).start()
            try:
                server.http.post("/upload/bulk", files=files, headers={"Idempotency-Key": "all"}, timeout=300)
            except httpx.TransportError:
                pass
            server.wait_exit(10)
            server.start()
        while (answer := server.http.post("/upload/bulk", files=files, headers={"Idempotency-Key": "all"}, timeout=300)).status_code in (409, 503):
            time.sleep(0.1)
        assert answer.status_code == 200, answer.text[:500]
        assert [f["accepted"] for f in answer.json()["files"]] == [rows(file) for file in nab_files]
        server.settle()
        assert server.series_counts() == {file.stem: rows(file) for file in nab_files}
        assert not (told := difference(grouped(server.anomalies()), offline)), told
