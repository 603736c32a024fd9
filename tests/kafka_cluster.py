"""Apache Kafka as a cluster on loopback: brokers that are controllers too, killed and started one by one.

`python kafka_cluster.py` shows that it goes on when the leader of a partition is killed.
"""
import time
from concurrent.futures import ThreadPoolExecutor

from kafka_server import Clients, Kafka
from process import free_port, wait_for


class KafkaCluster(Clients):
    """`n` brokers, told apart by their index, which is also their node.id. `settings` are for all of them. With three or more,
    what is written with acks=all survives the death of any one. As a context manager it is started and, whatever happens, killed."""

    def __init__(self, n: int = 3, heap: str = "320m", **settings):
        copies, in_sync, voters = min(3, n), min(2, n), {i: free_port() for i in range(n)}
        settings = {
            "default.replication.factor": copies,
            "min.insync.replicas": in_sync,
            "offsets.topic.replication.factor": copies,
            "offsets.topic.num.partitions": 3,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": in_sync,
            "broker.heartbeat.interval.ms": 500,
            "broker.session.timeout.ms": 3000,
            "log.cleaner.dedupe.buffer.size": 16 << 20,
        } | settings
        self.brokers = [Kafka(i, voters, heap, **settings) for i in range(n)]
        self.address = ",".join(broker.address for broker in self.brokers)

    # --- the processes -------------------------------------------------------------------------------------------

    def start(self) -> "KafkaCluster":
        with ThreadPoolExecutor() as pool:
            list(pool.map(Kafka.format, self.brokers))
        for broker in self.brokers:
            broker.spawn()
        for broker in self.brokers:
            broker.wait_ready()
        wait_for(lambda: len(self.admin.list_topics(timeout=10).brokers) == len(self.brokers), "the brokers know each other")
        return self

    def kill(self, i: int) -> None:
        """kill -9."""
        self.brokers[i].kill()

    def start_one(self, i: int) -> None:
        """Starts it again, with its data. It follows the leaders, and leads nothing yet."""
        self.brokers[i].start()

    def close(self) -> None:
        for broker in self.brokers:
            broker.close()

    def __enter__(self) -> "KafkaCluster":
        return self.start()

    def __exit__(self, *_) -> None:
        self.close()

    # --- who has what --------------------------------------------------------------------------------------------

    def create_topic(self, name: str, partitions: int = 1, replication: int = -1, **config) -> None:
        """One that the brokers know of."""
        super().create_topic(name, partitions, replication, **config)
        self.wait_in_sync(name)

    def leader_of(self, topic: str, partition: int = 0) -> int | None:
        """The broker that leads a partition, as some broker sees it: a killed one does for some seconds more. None while there is none."""
        return next((p.leader for p in self._partitions(topic) if p.id == partition and p.leader >= 0), None)

    def wait_leader(self, topic: str, partition: int = 0, other_than: int | None = None, timeout: float = 60) -> int:
        """Waits until a partition is led, by another one than `other_than`."""
        led = (lambda: [leader] if (leader := self.leader_of(topic, partition)) not in (None, other_than) else [])
        return wait_for(led, f"a leader of {topic}/{partition}", timeout)[0]

    def wait_in_sync(self, topic: str, timeout: float = 60) -> None:
        """Waits until all replicas of each partition have what its leader has. A killed broker counts as in sync for a while, but not here."""
        def in_sync(partition) -> bool:
            return partition.leader >= 0 and len(partition.isrs) == len(partition.replicas) and all(self.brokers[i].alive for i in partition.isrs)
        wait_for(lambda: (found := self._partitions(topic)) and all(map(in_sync, found)), f"{topic} in sync", timeout)

    def _partitions(self, topic: str) -> list:
        """What some broker knows of them; nothing when it has not heard of the topic, or has just been killed.

        Not with describe_topics(): librdkafka waits there for the one broker that it takes for the controller, dead as it may be.
        """
        from confluent_kafka import KafkaException
        try:
            return list(self.admin.list_topics(timeout=5).topics[topic].partitions.values())
        except (KafkaException, KeyError):
            return []


if __name__ == "__main__":
    began = time.monotonic()
    with KafkaCluster() as kafka:
        started = time.monotonic() - began
        kafka.create_topic("check", 3)
        kafka.produce("check", [(i % 3, b"before") for i in range(300)])
        began, leader = time.monotonic(), kafka.leader_of("check")
        kafka.kill(leader)
        kafka.produce("check", [(i % 3, b"after") for i in range(300)])
        acked, new = time.monotonic() - began, kafka.wait_leader("check", other_than=leader)
        began = time.monotonic()
        kafka.start_one(leader)
        kafka.wait_in_sync("check")
        back, found = time.monotonic() - began, len(kafka.read("check", 600))
        assert found >= 600, found
        print(f"started in {started:.1f} s; broker {leader} killed, {new} leads: {acked:.1f} s until all was acknowledged; back in sync {back:.1f} s after its start; {found} messages read")
