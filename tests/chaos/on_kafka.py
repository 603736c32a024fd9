"""What the failure runs with the log on Kafka share: three brokers, a stack whose processors share the partitions, and who looks at
owners and at the journal all the time."""
import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis
import zstandard

from chaos import roles
from chaos.roles import on_redis, on_replica_set
from kafka_cluster import KafkaCluster
from load import Load
from redis_cluster import RedisCluster
from stack import JOURNAL, Role, Stack
from watchers import Subscriber

PARTITIONS, FRAMES = 16, 1 << 40  # partitions of the log, frame numbers of each
LOG_TOPIC, STATE = "events.log", "{anomaly}:state"


class Journal(threading.Thread):
    """Reads what is safe of the journal, and how far each partition is said to be. `client` gives the primary's, for bytes.

    An entry is a byte of version, length and checksum, and JSON that zstd has made small.
    """

    def __init__(self, client: Callable[[], redis.Redis]):
        super().__init__(daemon=True)
        self.client, self.ended, self.fault, self.read = client, threading.Event(), None, 0
        self.partition_of: dict[str, int] = {}  # of each series that had an anomaly
        self.ids: Counter[str] = Counter()  # how often each anomaly was committed
        self.upto: dict[int, int] = {}  # the last commit of each partition
        self.again = self.back = self.missed = 0  # commits not behind the one before; P that fell; entries that were not seen
        self._seen: tuple = (None, {})

    def run(self) -> None:
        while not self.ended.wait(0.05):
            try:
                self.look(self.client())
            except (redis.RedisError, redis.exceptions.RedisClusterException, OSError, StopIteration):  # it is away
                pass
            except BaseException as fault:
                self.fault = fault
                return

    def look(self, client: redis.Redis) -> None:
        state = client.hgetall(STATE)
        committed = {name: int(value) for name, value in state.items() if name.startswith(b"committed:")}
        before = self._seen[1] if self._seen[0] is client else {}  # another primary may lack what was not safe yet
        self.back += sum(committed.get(name, 0) < at for name, at in before.items())
        self._seen = client, committed
        for number, fields in client.xrange(JOURNAL, f"{self.read + 1}-0", f"{int(state.get(b'safe', 0))}-0", 2000):
            number = int(number.split(b"-")[0])
            self.missed, self.read = self.missed + number - self.read - 1, number
            write = json.loads(zstandard.decompress(fields[b"w"][17:], max_output_size=int.from_bytes(fields[b"w"][1:9], "little")))
            if "Commit" in write and write["Commit"]["changes"]:
                self.commit(write["Commit"])

    def commit(self, commit: dict) -> None:
        partition, frame = divmod(commit["upto"]["frame"], FRAMES)
        found = any("OnlyOpen" not in change for change in commit["changes"])  # else it says what is open at a take-over, and is where it was
        before = self.upto.get(partition, 0)
        self.again, self.upto[partition] = self.again + (found and frame <= before), max(frame, before)
        for anomaly in (change["Anomaly"] for change in commit["changes"] if "Anomaly" in change):
            self.partition_of[anomaly["name"]] = partition
            self.ids[anomaly["id"]] += 1

    def twice(self) -> int:
        assert not self.fault and not self.missed, (self.fault, self.missed)
        return sum(n > 1 for n in self.ids.values())

    def __str__(self) -> str:
        return f"{len(self.ids):,} anomalies in the journal, committed twice {self.twice()}; commits not behind the one before {self.again}; P fell {self.back} times"

    @property
    def clean(self) -> bool:
        return not (self.twice() or self.again or self.back)

    def __enter__(self) -> "Journal":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.ended.set()
        self.join()


@dataclass
class Rig(roles.Rig):
    """A stack whose processors share the partitions."""

    kafka: KafkaCluster | None = None
    journal: Journal | None = None

    def load(self, **options) -> Load:
        return super().load(**{"n": 2, "keyed": 2, "pause": 0.1, "timeout": 30} | options)

    def owners(self) -> list[str]:
        """The token of each partition's owner; empty where nobody has had it yet."""
        return [token or "" for token in self.stack.redis.mget([f"{{anomaly}}:owner:{p}" for p in range(PARTITIONS)])]

    def owned(self, processor: Role) -> dict[int, str]:
        """The partitions that are a processor's, with their tokens: those whose epoch it has told of."""
        told = set(re.findall(r"partition taken over.* partition=(\d+) epoch=(\d+)", processor.log()))
        return {p: token for p, token in enumerate(self.owners()) if (str(p), token.split(":")[0]) in told}

    def leader(self) -> Role:
        """The processor that has the lease."""
        leads = (lambda p: p.alive and str(self.stack.epoch()) in re.findall(r"leading: .* epoch=(\d+)", p.log()))
        return self.stack.wait(lambda: [p for p in self.stack.processors if leads(p)], "a processor leads")[0]

    def wait_shared(self, timeout: float = 60) -> None:
        """Waits until the processors that are alive have all partitions, and each about as many."""
        def shared() -> bool:
            counts = [len(self.owned(p)) for p in self.stack.processors if p.alive]
            return sum(counts) == PARTITIONS and max(counts) - min(counts) <= 1
        self.stack.wait(shared, "the processors share the partitions", timeout)

    def wait_taken(self, mine: dict[int, str], timeout: float = 90) -> None:
        """Waits until each of these partitions is somebody else's."""
        def taken() -> bool:
            try:
                owners = self.owners()
            except (redis.RedisError, redis.exceptions.RedisClusterException):
                return False
            return all(owners[p] != token for p, token in mine.items())
        self.stack.wait(taken, "others take the partitions over", timeout)


@contextmanager
def on_cluster(folder: Path, processors: int = 3, **env):
    """As `on_kafka`, on a Redis Cluster of three primaries with a replica each; what is published is heard at every node."""
    with KafkaCluster(3) as kafka, RedisCluster(appendfsync="everysec") as cluster, ExitStack() as stack:
        url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)
        env |= {"BACKEND": "kafka", "KAFKA_BROKER": kafka.address, "KAFKA_TOPIC": "events", "KAFKA_GROUP_ID": "chaos", "REDIS_WAIT_REPLICAS": 1}
        running = stack.enter_context(Stack(folder, url, lambda: cluster.client, 2, processors, **env))
        subscribers = [stack.enter_context(Subscriber(node.port)) for node in cluster.nodes]
        clients = {node: cluster.connect(decode_responses=False) for node in cluster.nodes}
        journal = stack.enter_context(Journal(lambda: clients[cluster.primary_of(STATE)]))
        rig = Rig(cluster, running, subscribers, kafka=kafka, journal=journal)
        rig.wait_shared()
        yield rig


@contextmanager
def on_kafka(folder: Path, processors: int = 3, wait_replicas: int = 0, **env):
    """Three brokers, two API replicas, processors that share; one Redis, or with `wait_replicas` two and Sentinels."""
    with KafkaCluster(3) as kafka:
        env |= {"BACKEND": "kafka", "KAFKA_BROKER": kafka.address, "KAFKA_TOPIC": "events", "KAFKA_GROUP_ID": "chaos"}
        started = on_replica_set(folder, wait_replicas, 2, processors, {"appendfsync": "everysec"}, **env) if wait_replicas else on_redis(folder, 2, processors, **env)
        with started as rig:
            nodes = rig.redis.nodes if wait_replicas else [rig.redis]
            clients = {node: node.connect(decode_responses=False) for node in nodes}
            with Journal(lambda: clients[rig.redis.primary if wait_replicas else rig.redis]) as journal:
                rig = Rig(rig.redis, rig.stack, rig.subscribers, kafka=kafka, journal=journal)
                rig.wait_shared()
                yield rig
