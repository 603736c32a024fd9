"""A child process of a test: it dies with us, its log is kept, it can be stopped, gone on with, killed and waited for."""
import atexit
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections import deque
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_running: set[subprocess.Popen] = set()
_given = deque(maxlen=64)  # ports that are perhaps not yet listened at


def free_port(address: str = "127.0.0.1") -> int:
    while True:
        with socket.socket() as sock:
            sock.bind((address, 0))
            port = sock.getsockname()[1]
        if port not in _given:
            _given.append(port)
            return port


def wait_for(true, what: str, timeout: float = 30):
    """Waits until `true()` is, and returns it."""
    deadline = time.monotonic() + timeout
    while not (it := true()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout} s"
        time.sleep(0.05)
    return it


def die_with_parent() -> None:
    """Runs in the child: it is killed when the thread that started it ends, even by kill -9."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@atexit.register
def _kill_all() -> None:
    for process in list(_running):
        process.kill()
        process.wait()


class Process:
    """A command that is run, and run again. Start it from a thread that outlives it."""

    def __init__(self, log_path: Path):
        self.log_path, self.process, self.starts = Path(log_path), None, 0

    def launch(self, command: list, cwd: Path, env: dict[str, str], preexec=die_with_parent) -> None:
        assert not self.alive, "already running"
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([*map(str, command)], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=cwd, env=env, preexec_fn=preexec)
        _running.add(self.process)
        self.starts += 1

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_exit(self, timeout: float) -> int | None:
        """The exit code, or None when the process still runs after `timeout` seconds."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        _running.discard(self.process)
        return code

    def kill(self) -> None:
        """kill -9, and waits until the process is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            _running.discard(self.process)

    def terminate(self, timeout: float = 12) -> tuple[int, float]:
        """SIGTERM; returns the exit code and how many seconds it took."""
        started = time.monotonic()
        self.process.terminate()
        code = self.wait_exit(timeout)
        assert code is not None, f"still running {timeout} s after SIGTERM:\n{self.log()[-2000:]}"
        return code, time.monotonic() - started

    def pause(self) -> None:
        """SIGSTOP: the process is there and does nothing, as one that swaps or waits for a disk."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    @contextlib.contextmanager
    def paused(self):
        self.pause()
        try:
            yield
        finally:
            if self.alive:
                self.resume()

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
