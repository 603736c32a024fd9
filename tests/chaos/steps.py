"""Counts the system calls of all threads of a running process together, and kills it at the n-th.

    python steps.py < "PID N"

It answers `ready` when every thread is traced, and counts from there. Before the n-th call is made (0: never) the process is
killed: all before it are done, it and what would follow are not. At the end, or on SIGTERM, it writes what it has counted, as
JSON: the names of the calls in order, and whether it has killed. (strace counts each thread by itself, and which thread does what
differs from run to run.)

Calls that only concern the process's own memory, threads and waiting are let through: a kill before one of them leaves the
world as a kill before the next that counts.
"""
import ctypes
import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

SYSCALL, SEIZE, INTERRUPT, LISTEN, SYSCALL_INFO = 24, 0x4206, 0x4207, 0x4208, 0x420E
TRACE_SYSGOOD, TRACE_CLONE, EVENT_STOP = 1, 8, 128
WALL = 0x40000000
ENTRY = 1

# By number, on x86_64; elsewhere all calls count, without names.
COUNTED = {0: "read", 1: "write", 2: "open", 3: "close", 4: "stat", 5: "fstat", 6: "lstat", 8: "lseek", 16: "ioctl", 17: "pread64", 18: "pwrite64", 19: "readv", 20: "writev",
           21: "access", 41: "socket", 42: "connect", 43: "accept", 44: "sendto", 45: "recvfrom", 46: "sendmsg", 47: "recvmsg", 48: "shutdown", 49: "bind", 50: "listen",
           51: "getsockname", 52: "getpeername", 54: "setsockopt", 55: "getsockopt", 72: "fcntl", 73: "flock", 74: "fsync", 75: "fdatasync", 76: "truncate", 77: "ftruncate", 93: "fchown",
           82: "rename", 83: "mkdir", 84: "rmdir", 87: "unlink", 89: "readlink", 217: "getdents64", 257: "openat", 262: "newfstatat", 263: "unlinkat", 264: "renameat",
           277: "sync_file_range", 285: "fallocate", 288: "accept4", 292: "dup3", 295: "preadv", 296: "pwritev", 299: "recvmmsg", 307: "sendmmsg", 316: "renameat2", 332: "statx"}
OWN = {7: "poll", 9: "mmap", 10: "mprotect", 11: "munmap", 12: "brk", 13: "rt_sigaction", 14: "rt_sigprocmask", 15: "rt_sigreturn", 24: "sched_yield", 25: "mremap", 28: "madvise",
       35: "nanosleep", 39: "getpid", 56: "clone", 60: "exit", 63: "uname", 96: "gettimeofday", 107: "geteuid", 131: "sigaltstack", 157: "prctl", 186: "gettid", 202: "futex", 204: "sched_getaffinity",
       203: "sched_setaffinity", 218: "set_tid_address", 219: "restart_syscall", 228: "clock_gettime", 230: "clock_nanosleep", 231: "exit_group", 232: "epoll_wait", 233: "epoll_ctl", 234: "tgkill",
       273: "set_robust_list", 281: "epoll_pwait", 290: "eventfd2", 318: "getrandom", 334: "rseq", 435: "clone3", 441: "epoll_pwait2"}
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def ptrace(request: int, tid: int, addr: int = 0, data: int = 0) -> None:
    if _libc.ptrace(request, tid, addr, data) == -1:
        fault = ctypes.get_errno()
        raise OSError(fault, os.strerror(fault))


def name_of(number: int) -> str | None:
    """The call's name; None for one that does not count."""
    if platform.machine() != "x86_64":
        return f"call {number}"
    return None if number in OWN else COUNTED.get(number, f"call {number}")


class Tracer:
    def __init__(self, pid: int, kill_at: int):
        self.pid, self.kill_at, self.calls, self.killed = pid, kill_at, [], False
        self.buffer = ctypes.create_string_buffer(128)

    def attach(self) -> None:
        """Every thread; those that begin meanwhile are found by looking again, later ones are traced by themselves."""
        seized = set()
        while new := {int(tid) for tid in os.listdir(f"/proc/{self.pid}/task")} - seized:
            for tid in new:
                seized.add(tid)
                try:
                    ptrace(SEIZE, tid, 0, TRACE_SYSGOOD | TRACE_CLONE)
                    ptrace(INTERRUPT, tid)
                except PermissionError:
                    if f"TracerPid:\t{os.getpid()}\n" not in Path(f"/proc/{self.pid}/task/{tid}/status").read_text():
                        raise  # not one that is traced since it began
                except ProcessLookupError:
                    pass  # ended meanwhile

    def run(self) -> None:
        while True:
            try:
                tid, status = os.waitpid(-1, WALL)
            except ChildProcessError:
                return
            if not os.WIFSTOPPED(status):
                continue
            sig, event = os.WSTOPSIG(status), status >> 16
            try:
                if sig == signal.SIGTRAP | 0x80:
                    self.at_call(tid)
                    ptrace(SYSCALL, tid)
                elif event == EVENT_STOP and sig != signal.SIGTRAP:
                    ptrace(LISTEN, tid)
                else:
                    ptrace(SYSCALL, tid, 0, 0 if event else sig)
            except ProcessLookupError:
                pass  # killed

    def at_call(self, tid: int) -> None:
        ptrace(SYSCALL_INFO, tid, len(self.buffer), ctypes.addressof(self.buffer))
        if self.buffer.raw[0] != ENTRY or self.killed or (name := name_of(int.from_bytes(self.buffer.raw[24:32], "little"))) is None:
            return
        self.calls.append(name)
        if len(self.calls) == self.kill_at:
            os.kill(self.pid, signal.SIGKILL)
            self.killed = True


def main() -> None:
    """The tracer's own process: it and the process's parent must not wait for the same things."""
    def end(*_):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(json.dumps({"calls": tracer.calls, "killed": tracer.killed}), flush=True)
        os._exit(0)  # what is traced goes on by itself
    pid, kill_at = map(int, sys.stdin.readline().split())
    tracer = Tracer(pid, kill_at)
    signal.signal(signal.SIGTERM, end)
    tracer.attach()
    print("ready", flush=True)
    tracer.run()
    end()


class Steps:
    """A tracer at work. It is started beforehand, so that `attach` takes no time."""

    def __init__(self):
        self.process = subprocess.Popen([sys.executable, "-I", "-S", Path(__file__)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def attach(self, pid: int, kill_at: int) -> "Steps":
        self.process.stdin.write(f"{pid} {kill_at}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer == "ready\n", f"the tracer says {answer or self.process.communicate()[1].splitlines()[-1]!r}"
        return self

    def end(self) -> dict:
        """Leaves the process alone; returns the calls so far and whether it was killed."""
        self.process.terminate()
        return json.loads(self.process.communicate(timeout=30)[0])

    def __enter__(self) -> "Steps":
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()


if __name__ == "__main__":
    main()
