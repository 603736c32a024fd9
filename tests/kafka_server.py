"""Apache Kafka itself, one broker on loopback: started, stopped, killed; and a producer and an observer of its groups.

`python kafka_server.py` starts one and prints its address, to try things by hand.
"""
import atexit
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import cached_property
from pathlib import Path

from process import Process, free_port
from server import REPO, environment

START_SECONDS = 60
CLUSTER = "MkU3OEVBNTcwNTJENDM2Qk"


def folder() -> Path:
    """Where Kafka's jars are; brought from Maven Central the first time."""
    return Path(subprocess.run([REPO / "scripts" / "kafka.sh"], check=True, capture_output=True, text=True, timeout=600).stdout.strip())


class Clients:
    """Topics, a producer and an observer of groups, by way of the brokers at `address`."""
    address: str

    @cached_property
    def admin(self):
        from confluent_kafka.admin import AdminClient
        return AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    def create_topic(self, name: str, partitions: int = 1, replication: int = -1, **config) -> None:
        """A topic of as many replicas as the brokers have by default, or of `replication`."""
        from confluent_kafka.admin import NewTopic
        topic = NewTopic(name, partitions, replication, config={key.replace("_", "."): str(value) for key, value in config.items()})
        self.admin.create_topics([topic])[name].result(20)

    def producer(self, **config):
        from confluent_kafka import Producer
        return Producer({"bootstrap.servers": self.address, "linger.ms": 5, "log_level": 0} | {key.replace("_", "."): value for key, value in config.items()})

    def produce(self, topic: str, messages, producer=None) -> None:
        """Writes (partition, value) or (partition, key, value) and waits until all are durable."""
        producer, failed = producer or self.producer(), []
        for message in messages:
            partition, key, value = message if len(message) == 3 else (message[0], None, message[1])
            while True:
                try:
                    producer.produce(topic, value=value, key=key, partition=partition, on_delivery=lambda fault, _: fault and failed.append(fault))
                    break
                except BufferError:
                    producer.poll(0.1)
        assert producer.flush(60) == 0 and not failed, failed[:3]

    def read(self, topic: str, n: int, timeout: float = 30) -> list:
        """The first `n` messages of a topic, in whatever order of partitions."""
        from confluent_kafka import Consumer
        reader = Consumer({"bootstrap.servers": self.address, "group.id": f"observer-{time.time_ns()}", "auto.offset.reset": "earliest", "log_level": 0})
        reader.subscribe([topic])
        found, deadline = [], time.monotonic() + timeout
        while len(found) < n and time.monotonic() < deadline:
            message = reader.poll(0.2)
            if message is not None and not message.error():
                found.append(message)
        reader.close()
        return found

    def committed(self, group: str, topic: str, partitions: int) -> list[int | None]:
        """The group's offset in each partition, as kafka-consumer-groups tells it."""
        from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
        asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, p) for p in range(partitions)])
        found = self.admin.list_consumer_group_offsets([asked])[group].result(20).topic_partitions
        return [found.offset if found.offset >= 0 else None for found in sorted(found, key=lambda found: found.partition)]

    def ends(self, topic: str, partitions: int) -> list[int]:
        """The offset behind the last message of each partition."""
        from confluent_kafka import Consumer, TopicPartition
        reader = Consumer({"bootstrap.servers": self.address, "group.id": "observer", "log_level": 0})
        ends = [reader.get_watermark_offsets(TopicPartition(topic, p), timeout=20)[1] for p in range(partitions)]
        reader.close()
        return ends

    def delete_records(self, topic: str, partitions: int) -> None:
        """Deletes all there is, as retention does."""
        from confluent_kafka import TopicPartition
        done = self.admin.delete_records([TopicPartition(topic, p, -1) for p in range(partitions)])
        for partition in done.values():
            partition.result(20)

    def members(self, group: str) -> Counter:
        """How many partitions each member of the group has."""
        described = self.admin.describe_consumer_groups([group])[group].result(20)
        return Counter({member.member_id: len(member.assignment.topic_partitions) for member in described.members})


class Kafka(Process, Clients):
    """A broker that is a controller too, alone or one of `voters`: id -> the port of its controller. As a context manager it is
    started and, whatever happens, killed. `settings` are those of server.properties."""

    def __init__(self, number: int = 1, voters: dict[int, int] | None = None, heap: str = "512m", **settings):
        self.dir = Path(tempfile.mkdtemp(prefix="anomaly-kafka-"))
        super().__init__(self.dir / "kafka.log")
        self.number, self.port, voters = number, free_port(), voters or {number: free_port()}
        self.address, self.sasl_address = f"127.0.0.1:{self.port}", f"127.0.0.1:{free_port()}"
        self.java = [shutil.which("java"), f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{folder()}/*"]
        self.properties = self.dir / "server.properties"
        self.properties.write_text("\n".join(f"{key}={value}" for key, value in ({
            "process.roles": "broker,controller",
            "node.id": number,
            "controller.quorum.voters": ",".join(f"{voter}@127.0.0.1:{port}" for voter, port in voters.items()),
            "listeners": f"PLAINTEXT://{self.address},SASL://{self.sasl_address},CONTROLLER://127.0.0.1:{voters[number]}",
            "advertised.listeners": f"PLAINTEXT://{self.address},SASL://{self.sasl_address}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl.plain.sasl.jaas.config": 'org.apache.kafka.common.security.plain.PlainLoginModule required user_me="hunter2";',
            "controller.listener.names": "CONTROLLER",
            "log.dirs": self.dir / "data",
            "offsets.topic.num.partitions": 1,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.num.partitions": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
        } | {key.replace("_", "."): value for key, value in settings.items()}).items()))
        atexit.register(self.close)

    def format(self) -> None:
        """Makes the folder of its data, if there is none."""
        if not (self.dir / "data").exists():
            subprocess.run([*self.java, "kafka.tools.StorageTool", "format", "-t", CLUSTER, "-c", self.properties], check=True, capture_output=True, timeout=60)

    def spawn(self) -> None:
        """Starts the process without waiting for it to serve."""
        self.format()
        self.launch([*self.java, "kafka.Kafka", self.properties], self.dir, environment())

    def start(self) -> "Kafka":
        self.spawn()
        return self.wait_ready()

    def wait_ready(self) -> "Kafka":
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self.alive and time.monotonic() < deadline, f"Kafka does not start:\n{self.log()[-3000:]}"
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                self.admin.list_topics(timeout=10)
                return self
            except Exception:
                time.sleep(0.1)

    def stop(self) -> None:
        """As an upgrade would; Kafka takes its time."""
        self.process.terminate()
        if self.wait_exit(20) is None:
            self.kill()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self) -> "Kafka":
        return self.start()

    def __exit__(self, *_) -> None:
        self.close()


if __name__ == "__main__":
    with Kafka() as kafka:
        print(f"KAFKA_BROKER={kafka.address}", flush=True)
        try:
            sys.stdin.read()
        except KeyboardInterrupt:
            pass
