"""WebSocket clients that never read: they are closed, a healthy one gets everything in time, and memory does not grow."""
import json
import socket
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from chaos import Result
from server import Server

START = 1_600_000_000
N_SERIES = 100
MORE_MIB = 64
CLOSED_WITHIN = 60


def batch(number: int) -> list[dict]:
    """700 rows, of which the last of each series is an anomaly; windows apart from the batch before."""
    return [{"timestamp": START + number * 1000 + i, "metric": f"slow{k}", "value": 500.0 + number if i == 6 else 50.0, "meta": {"note": "x" * 200}} for i in range(7) for k in range(N_SERIES)]


def stalled(port: int) -> socket.socket:
    """Opens a WebSocket and never reads from it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port))
    sock.sendall(b"GET /ws/anomalies HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n")
    return sock


def flood(folder: Path, n_stalled: int, batches: int) -> dict:
    """Anomalies for one healthy client and so many that never read."""
    with Server(folder / f"data{n_stalled}") as server, ExitStack() as stack:
        for _ in range(n_stalled):
            stack.enter_context(stalled(server.port))
        healthy = stack.enter_context(server.websocket())
        received, all_there = {}, threading.Event()

        def read():
            try:
                while len(received) < batches * N_SERIES:
                    message = json.loads(healthy.recv(timeout=30))
                    if message["type"] == "anomaly":
                        received.setdefault((message["data"]["metric"], message["data"]["timestamp"]), time.monotonic())
            finally:
                all_there.set()
        reader = threading.Thread(target=read)
        reader.start()
        posted = {}
        for number in range(batches):
            posted[number] = time.monotonic()
            assert (answer := server.post_batch(batch(number))).status_code == 202, answer.text[:300]
            time.sleep(0.1)
        all_there.wait(60)
        reader.join()
        latencies = sorted(at - posted[(int(when) - START) // 1000] for (_, when), at in received.items())
        deadline = time.monotonic() + CLOSED_WITHIN
        while (clients := server.get("/stats")["websocket_clients"]) > 1 and time.monotonic() < deadline:
            time.sleep(0.5)
        return {"received": len(received), "p99": latencies[int(len(latencies) * 0.99)] if latencies else float("inf"), "peak": server.peak_mib(), "clients": clients}


def run(folder: Path, n_stalled: int = 200, batches: int = 150, say=print) -> list[Result]:
    without, with_them = flood(folder, 0, batches), flood(folder, n_stalled, batches)
    say(f"  without: {without}; with {n_stalled}: {with_them}")
    more = with_them["peak"] - without["peak"]
    return [
        Result(f"{n_stalled} WebSocket clients that never read", f"closed within {CLOSED_WITHIN} s", f"{with_them['clients'] - 1} of them left", with_them["clients"] <= 1),
        Result("a healthy client beside them", f"all {batches * N_SERIES:,} anomalies, p99 below 1 s", f"{with_them['received']:,}, p99 {with_them['p99'] * 1000:.0f} ms", with_them["received"] == batches * N_SERIES and with_them["p99"] < 1),
        Result("memory for them", f"at most {MORE_MIB} MiB more than without them", f"{more:+.0f} MiB", more <= MORE_MIB),
    ]
