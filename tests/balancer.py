"""haproxy in front of API replicas, with what an operator does for a rolling restart: drain, restart, let in."""
import shutil
import socket
import tempfile
import time
from pathlib import Path

from process import Process, free_port
from server import environment

CONFIG = """\
global
  stats socket {folder}/admin.sock level admin
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 60s
  timeout tunnel 1h
  option redispatch
frontend front
  bind 127.0.0.1:{port}
  default_backend api
backend api
  balance roundrobin
  option httpchk
  http-check send meth GET uri /readyz hdr Host localhost
  http-check expect status 200
  default-server check inter 200ms fall 2 rise 1
{servers}
"""


class Balancer(Process):
    """Listens on `port` and sends each request to one of the servers that are ready."""

    def __init__(self, servers):
        self.folder = Path(tempfile.mkdtemp(prefix="haproxy-"))  # short: the path of a socket may have 107 bytes
        super().__init__(self.folder / "haproxy.log")
        self.servers, self.port = list(servers), free_port()

    def start(self) -> "Balancer":
        lines = "\n".join(f"  server {s.name} 127.0.0.1:{s.port}" for s in self.servers)
        (self.folder / "haproxy.cfg").write_text(CONFIG.format(folder=self.folder, port=self.port, servers=lines))
        self.launch([shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin:/usr/bin"), "-db", "-f", self.folder / "haproxy.cfg"], self.folder, environment())
        for server in self.servers:
            self.wait(server, "UP")
        return self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def say(self, command: str) -> str:
        """What haproxy's runtime API answers."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self.folder / "admin.sock"))
            sock.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: sock.recv(65536), b"")).decode()

    def state(self, server) -> dict[str, str]:
        head, *rows = (line.split(",") for line in self.say("show stat").lstrip("# ").splitlines() if line)
        return next(row for row in (dict(zip(head, fields)) for fields in rows) if row["pxname"] == "api" and row["svname"] == server.name)

    def drain(self, server, quiet: float = 0.5) -> None:
        """It gets no new requests; waits until those that it has are answered. WebSockets stay: what is left is only they."""
        self.say(f"set server api/{server.name} state drain")
        before, since = None, time.monotonic()
        while time.monotonic() - since < quiet:
            if (now := self.state(server)["scur"]) != before:
                before, since = now, time.monotonic()
            time.sleep(0.05)

    def let_in(self, server) -> None:
        self.say(f"set server api/{server.name} state ready")
        self.wait(server, "UP")

    def wait(self, server, status: str, timeout: float = 20) -> None:
        deadline = time.monotonic() + timeout
        while True:
            try:
                if self.state(server)["status"] == status:
                    return
            except OSError:  # it is only starting
                assert self.alive, self.log()
            assert time.monotonic() < deadline, f"{server.name} is not {status}: {self.log()[-1000:]}"
            time.sleep(0.05)

    def __enter__(self) -> "Balancer":
        return self.start()

    def __exit__(self, *_) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
