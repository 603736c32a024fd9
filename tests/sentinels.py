"""A Redis primary, its replica and three Sentinels on loopback, with links between them that can be cut.

Each of the two is reached over a link (links.py) whose port it announces. It is told apart by its address who connects: clients
come from 127.0.0.1, the two and the Sentinels from addresses of their own. So a primary can be cut off from replica and
Sentinels while clients still reach it, which is how acknowledged writes are lost.
"""
import time
from contextlib import ExitStack
from pathlib import Path

import redis

from links import Link
from process import Process, free_port
from redis_server import CLIENT, RedisServer
from server import environment

SERVICE = "anomaly"
NODES = ("127.0.0.11", "127.0.0.12")
SENTINELS = ("127.0.0.21", "127.0.0.22", "127.0.0.23")
DOWN_AFTER_MS = 1500
FAIL_OVER_MS = 6000


class Node(RedisServer):
    """One of the two, behind its link."""

    def __init__(self, folder: Path, address: str, **settings):
        super().__init__(folder, bind_source_addr=address, repl_diskless_sync_delay=0, repl_timeout=10, **settings)
        self.address, self.link = address, Link(self.port)
        self.settings["replica-announce-port"] = self.link.port

    def is_primary(self) -> bool:
        try:
            return self.client.info("replication")["role"] == "master"
        except redis.RedisError:
            return False

    def replicas(self) -> int:
        """How many replicas are in step with it."""
        try:
            info = self.client.info("replication")
        except redis.RedisError:
            return 0
        return sum(isinstance(value, dict) and value.get("state") == "online" for key, value in info.items() if key.startswith("slave"))

    def __exit__(self, *_) -> None:
        super().__exit__()
        self.link.__exit__()


class Sentinel(Process):
    def __init__(self, folder: Path, address: str, primary_port: int):
        folder.mkdir(parents=True)
        super().__init__(folder / "sentinel.log")
        self.folder, self.address, self.port = folder, address, free_port(address)
        (folder / "sentinel.conf").write_text(
            f"port {self.port}\nbind {address}\nbind-source-addr {address}\ndir {folder}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary_port} 2\nsentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {SERVICE} {FAIL_OVER_MS}\n")
        self.client = redis.Redis(host=address, port=self.port, **CLIENT)

    def start(self) -> "Sentinel":
        self.launch(["redis-server", self.folder / "sentinel.conf", "--sentinel"], self.folder, environment())
        return self

    def state(self) -> dict:
        """What it knows of the primary; empty when it does not answer."""
        try:
            answer = self.client.execute_command("SENTINEL", "MASTER", SERVICE)
        except redis.RedisError:
            return {}
        return answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2]))


class ReplicaSet(ExitStack):
    """Two Redis and three Sentinels; `settings` are for both Redis."""

    def __init__(self, folder: Path, **settings):
        super().__init__()
        self.folder, self.settings = Path(folder), settings

    def start(self) -> "ReplicaSet":
        self.nodes = [Node(self.folder / name, address, **self.settings) for name, address in zip(("a", "b"), NODES)]
        for node in self.nodes:
            self.push(node)
        first, second = self.nodes
        first.start()
        # The replica's link is known before it starts, and so is its primary's.
        second.settings["replicaof"] = f"127.0.0.1 {first.link.port}"
        second.start()
        del second.settings["replicaof"]  # from now on Sentinel says who follows whom
        self.wait(lambda: first.replicas() == 1, "the replica follows")
        self.sentinels = [Sentinel(self.folder / address, address, first.link.port).start() for address in SENTINELS]
        for sentinel in self.sentinels:
            self.callback(sentinel.kill)
        known = (lambda state: state.get("num-other-sentinels") in (2, "2") and state.get("num-slaves") in (1, "1"))
        self.wait(lambda: all(known(sentinel.state()) for sentinel in self.sentinels), "the Sentinels know each other and the replica")
        return self

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'{s.address}:{s.port}' for s in self.sentinels)}/{SERVICE}"

    @property
    def primary(self) -> Node:
        """Who the first Sentinel that answers takes for the primary."""
        port = next(int(state["port"]) for sentinel in self.sentinels if (state := sentinel.state()))
        return next(node for node in self.nodes if node.link.port == port)

    def other(self, node: Node) -> Node:
        return self.nodes[1 - self.nodes.index(node)]

    # --- failures ------------------------------------------------------------------------------------------------

    def cut_replica(self) -> None:
        """The replica no longer hears the primary; Sentinels and clients reach both."""
        primary = self.primary
        primary.link.cut(self.other(primary).address)

    def cut_primary(self) -> Node:
        """Replica and Sentinels no longer reach the primary, clients do; returns it."""
        primary = self.primary
        primary.link.cut(self.other(primary).address, *SENTINELS)
        return primary

    def heal(self) -> None:
        for node in self.nodes:
            node.link.heal()

    def wait_fail_over(self, old: Node, timeout: float = 40) -> float:
        """Waits until the other is the primary for every Sentinel; returns the seconds that it took."""
        started, new = time.monotonic(), self.other(old)
        self.wait(lambda: new.is_primary() and all(sentinel.state().get("port") in (new.link.port, str(new.link.port)) for sentinel in self.sentinels), "a fail-over", timeout)
        return time.monotonic() - started

    def wait_in_step(self, timeout: float = 60) -> None:
        """Waits until the one that is not primary follows the one that is."""
        self.wait(lambda: self.primary.is_primary() and self.primary.replicas() == 1 and not self.other(self.primary).is_primary(), "primary and replica in step", timeout)

    @staticmethod
    def wait(true, what: str, timeout: float = 30) -> None:
        deadline = time.monotonic() + timeout
        while not true():
            assert time.monotonic() < deadline, f"{what}: not within {timeout} s"
            time.sleep(0.05)

    def __enter__(self) -> "ReplicaSet":
        return self.start()
