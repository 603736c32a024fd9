"""Networks of their own for processes, as containers have: an address, a localhost and a host name each, names that lead to each other.

Needs root. Nothing is left: the namespaces live as long as the processes that hold them, which die with us.
"""
import ctypes
import os
import shutil
import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from process import die_with_parent

PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def _run(*command) -> None:
    subprocess.run([*map(str, command)], check=True, capture_output=True, text=True, env=os.environ | {"PATH": PATH})


class Network(ExitStack):
    """A bridge, and on it a network for each of `names`, at PREFIX.2, PREFIX.3 and so on, or where `fixed` says. The bridge itself is PREFIX.1."""

    def __init__(self, prefix: str, names: list[str], fixed: dict[str, str] | None = None):
        super().__init__()
        fixed = fixed or {}
        free = (address for i in range(2, 255) if (address := f"{prefix}.{i}") not in fixed.values())
        self.address = {name: fixed.get(name) or next(free) for name in names}
        self.prefix, self.holders = prefix, {}

    def __enter__(self) -> "Network":
        try:
            folder = Path(self.enter_context(tempfile.TemporaryDirectory(prefix="anomaly-net-")))
            hosts = folder / "hosts"
            hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in self.address.items()))
            self._hold("")
            self._inside("", "ip", "link", "add", "bridge0", "type", "bridge")
            self._inside("", "ip", "address", "add", f"{self.prefix}.1/24", "dev", "bridge0")
            self._inside("", "ip", "link", "set", "bridge0", "up")
            for i, (name, address) in enumerate(self.address.items()):
                self._hold(name)
                self._inside("", "ip", "link", "add", f"port{i}", "type", "veth", "peer", "name", "eth0", "netns", self.holders[name])
                self._inside("", "ip", "link", "set", f"port{i}", "master", "bridge0", "up")
                self._inside(name, "ip", "address", "add", f"{address}/24", "dev", "eth0")
                self._inside(name, "ip", "link", "set", "eth0", "up")
                self._inside(name, "mount", "--bind", hosts, "/etc/hosts")
                self._inside(name, "sh", "-c", f"echo {name} > /proc/sys/kernel/hostname")
        except BaseException:
            self.close()
            raise
        return self

    def _hold(self, name: str) -> None:
        """Starts the process that keeps a network and its mounts; waits until it has them."""
        holder = subprocess.Popen([shutil.which("unshare", path=PATH), "--net", "--mount", "--uts", "sleep", "infinity"], preexec_fn=die_with_parent)
        self.callback(lambda: (holder.kill(), holder.wait()))
        ours, deadline = os.readlink("/proc/self/ns/net"), time.monotonic() + 10
        while os.readlink(f"/proc/{holder.pid}/ns/net") == ours or Path(f"/proc/{holder.pid}/comm").read_text() != "sleep\n":
            if holder.poll() is not None or time.monotonic() > deadline:
                raise OSError("unshare does not make a network")
            time.sleep(0.01)
        self.holders[name] = holder.pid
        self._inside(name, "ip", "link", "set", "lo", "up")

    def _inside(self, name: str, *command) -> None:
        _run(*self.wrap(name), *command)

    def wrap(self, name: str, folder: Path | None = None) -> list[str]:
        """What is put in front of a command that runs in the network of `name`, in `folder`."""
        return [shutil.which("nsenter", path=PATH), f"--target={self.holders[name]}", "--net", "--mount", "--uts", *([f"--wd={folder}"] if folder else []), "--"]

    def call(self, function):
        """Calls `function` as a program would that runs where the containers' ports are published: on the bridge."""
        libc, outcome = ctypes.CDLL(None, use_errno=True), {}

        def there():
            try:
                with open(f"/proc/{self.holders['']}/ns/net") as namespace:
                    if libc.setns(namespace.fileno(), 0) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                outcome["value"] = function()
            except BaseException as fault:
                outcome["fault"] = fault
        thread = threading.Thread(target=there)
        thread.start()
        thread.join()
        if "fault" in outcome:
            raise outcome["fault"]
        return outcome["value"]
