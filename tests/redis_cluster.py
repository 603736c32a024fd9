"""Redis Cluster on loopback: primaries that share the slots, replicas that take over; killed and started one by one.

`python redis_cluster.py` shows that it goes on when a primary is killed.
"""
import atexit
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from process import free_port, wait_for
from redis_server import CLIENT, RedisServer
from server import environment

NODE_TIMEOUT_MS = 2000
SLOTS = 16384


def free_pair() -> int:
    """A port that is free, as is the one that Redis Cluster takes for its own bus."""
    while True:
        port = free_port()
        try:
            with socket.socket() as bus:
                bus.bind(("127.0.0.1", port + 10_000))
            return port
        except (OSError, OverflowError):
            pass


class Node(RedisServer):
    def __init__(self, folder: Path, **settings):
        super().__init__(folder, cluster_enabled="yes", cluster_node_timeout=NODE_TIMEOUT_MS, repl_diskless_sync_delay=0, **settings)
        self.port = free_pair()
        self.client = self.connect()

    def slots(self) -> dict[range, int]:
        """Who serves what in this node's eyes: the port of the primary of each range of slots. Empty when it does not answer, or serves nothing."""
        try:
            if self.client.cluster("INFO")["cluster_state"] != "ok":
                return {}
            return {range(first, last + 1): primary[1] for first, last, primary, *_ in self.client.execute_command("CLUSTER SLOTS")}
        except redis.RedisError:
            return {}

    def in_step(self) -> set[int]:
        """The ports of the replicas that this primary's writes reach now.

        State "online" does not say so: the stream begins with a replica's next acknowledgement, up to a second later, and what is
        written until then is lost with the primary. So each is asked, in the stream, how far it is; the second answer counts the first question.
        """
        try:
            before = self.client.info("replication")["master_repl_offset"]
            for _ in range(2):
                self.client.wait(99, 10)
            info = self.client.info("replication")
        except redis.RedisError:
            return set()
        return {about["port"] for name, about in info.items() if name[:5] == "slave" and isinstance(about, dict) and about["offset"] > before}

    def __repr__(self) -> str:
        return f"node {self.folder.name}"


class RedisCluster:
    """Nodes of which the first `primaries` are primaries at first; `settings` are for all of them. As a context manager it is
    started and, whatever happens, killed."""

    def __init__(self, primaries: int = 3, replicas: int = 3, **settings):
        self.dir = Path(tempfile.mkdtemp(prefix="anomaly-redis-"))
        self.replicas_each = replicas // primaries
        self.nodes = [Node(self.dir / str(i), **settings) for i in range(primaries * (1 + self.replicas_each))]
        atexit.register(self.close)

    def start(self) -> "RedisCluster":
        for node in self.nodes:
            node.start()
        made = subprocess.run(["redis-cli", "--cluster", "create", *(f"127.0.0.1:{node.port}" for node in self.nodes), "--cluster-replicas", str(self.replicas_each), "--cluster-yes"],
                              capture_output=True, text=True, timeout=60, env=environment())
        assert made.returncode == 0, made.stdout + made.stderr
        self.wait_ok()
        self.client = self.connect()
        return self

    def connect(self, **options) -> redis.RedisCluster:
        """A client of the whole. It tries again at once, which finds who has taken over, and waits for nobody."""
        nodes = [redis.cluster.ClusterNode("127.0.0.1", node.port) for node in self.nodes]
        return redis.RedisCluster(startup_nodes=nodes, **CLIENT | {"retry": Retry(NoBackoff(), 3)} | options)

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self.nodes]

    @property
    def url(self) -> str:
        """Of one that is alive."""
        return next(node.url for node in self.nodes if node.alive)

    # --- failures ------------------------------------------------------------------------------------------------

    def kill(self, node: Node) -> None:
        """kill -9."""
        node.kill()

    def start_one(self, node: Node) -> None:
        """Starts it again, with its data; where another has taken over, it becomes a replica of that one."""
        node.start()

    def primary_of(self, key: str) -> Node:
        """The node that serves a key in the eyes of one that is alive: for some seconds it may be a dead one."""
        alive = next(node for node in self.nodes if node.alive)
        slot = alive.run("CLUSTER KEYSLOT", key)
        port = next(primary[1] for first, last, primary, *_ in alive.run("CLUSTER SLOTS") if first <= slot <= last)
        return next(node for node in self.nodes if node.port == port)

    def wait_ok(self, timeout: float = 60) -> float:
        """Waits until those that are alive agree on who serves what, all slots are served by the living, and the others of the
        living are replicas in step with one of these; returns the seconds that it took."""
        began = time.monotonic()
        wait_for(self._ok, "the cluster is ok", timeout)
        return time.monotonic() - began

    def _ok(self) -> bool:
        alive = {node.port: node for node in self.nodes if node.alive}
        slots = next(iter(alive.values())).slots()
        primaries = set(slots.values())
        return (sum(map(len, slots)) == SLOTS and primaries <= alive.keys() and all(node.slots() == slots for node in alive.values())
                and alive.keys() - primaries <= set().union(*(alive[port].in_step() for port in primaries)))

    def close(self) -> None:
        for node in self.nodes:
            node.__exit__()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self) -> "RedisCluster":
        return self.start()

    def __exit__(self, *_) -> None:
        self.close()


def written(client: redis.RedisCluster, key: str, value: str) -> bool:
    try:
        return client.set(key, value)
    except (redis.RedisError, redis.exceptions.RedisClusterException):
        return False


if __name__ == "__main__":
    began = time.monotonic()
    with RedisCluster() as cluster:
        started = time.monotonic() - began
        for i in range(300):
            cluster.client.set(f"before{i}", i)
        wait_for(lambda: sum(node.client.dbsize() for node in cluster.nodes) == 600, "all is replicated")
        old, began = cluster.primary_of("key"), time.monotonic()
        cluster.kill(old)
        wait_for(lambda: written(cluster.client, "key", "after"), "a write to the new primary")
        served, ok = time.monotonic() - began, cluster.wait_ok()
        new, began = cluster.primary_of("key"), time.monotonic()
        cluster.start_one(old)
        cluster.wait_ok()
        back = time.monotonic() - began
        found = sum(cluster.client.get(f"before{i}") == str(i) for i in range(300)), cluster.client.get("key")
        assert found == (300, "after") and new is not old and old.port in new.in_step(), found
        print(f"started in {started:.1f} s; {old} killed, {new} has its slots: {served:.1f} s until its key was written, {ok:.1f} s more until all agreed; a replica in step {back:.1f} s after its start")
