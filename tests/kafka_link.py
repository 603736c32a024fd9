"""A TCP link to a Kafka broker that can make it forget: whoever asks which brokers there are is told none, as a broker does that is about to
end and has already been taken off the list. It then names many topics, too: librdkafka is lost by such an answer if it still reads it when it
has already let go of its brokers, which is rare where there are few."""
import socket
import struct
import threading
from contextlib import contextmanager

from kafka_server import Kafka
from server import free_port

METADATA = 3
VERSIONS = (12, 13)  # of its answers: what is read here is the same in both
TOPICS = 20_000


@contextmanager
def forgetful_kafka():
    """A broker that is reached through a link alone, and the link."""
    port = free_port()
    kafka = Kafka(advertised_listeners=f"PLAINTEXT://127.0.0.1:{port}")
    with KafkaLink(port, kafka.port) as link, kafka:
        kafka.address = f"127.0.0.1:{port}"
        yield kafka, link


class KafkaLink:
    """Forwards `port` to the broker's `behind`, which has to advertise `port`. As a context manager it ends all connections."""

    def __init__(self, port: int, behind: int):
        self.behind, self.forgets, self.forgotten, self._open = behind, False, 0, []
        self._server = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection(("127.0.0.1", self.behind))
            except OSError:
                client.close()
                continue
            self._open += [client, broker]
            asked: dict[int, int] = {}
            for carry in (lambda c=client, b=broker, a=asked: self._requests(c, b, a), lambda c=client, b=broker, a=asked: self._responses(b, c, a)):
                threading.Thread(target=carry, daemon=True).start()

    def _requests(self, client: socket.socket, broker: socket.socket, asked: dict[int, int]) -> None:
        for message in _messages(client, broker):
            key, version, correlation = struct.unpack_from(">hhi", message)
            if key == METADATA:
                asked[correlation] = version
            _send(broker, message)

    def _responses(self, broker: socket.socket, client: socket.socket, asked: dict[int, int]) -> None:
        for message in _messages(broker, client):
            version = asked.pop(struct.unpack_from(">i", message)[0], None)
            if version is not None and self.forgets:
                assert version in VERSIONS, version
                message = _without_brokers(message)
                self.forgotten += 1
            _send(client, message)

    def __enter__(self) -> "KafkaLink":
        return self

    def __exit__(self, *_) -> None:
        self._server.close()
        for connection in self._open:
            connection.close()


def _messages(source: socket.socket, other: socket.socket):
    """What comes, message by message, until either side ends; then both do."""
    try:
        file = source.makefile("rb")
        while len(size := file.read(4)) == 4:
            yield file.read(struct.unpack(">i", size)[0])
    except OSError:
        pass
    for end in (source, other):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def _send(to: socket.socket, message: bytes) -> None:
    try:
        to.sendall(struct.pack(">i", len(message)) + message)
    except OSError:
        pass


def _without_brokers(message: bytes) -> bytes:
    """An answer about metadata whose list of brokers is empty."""
    brokers = at = 4 + 1 + 4  # correlation, no tags, throttle
    n, at = _uvarint(message, at)
    for _ in range(n - 1):
        at += 4  # node
        host, at = _uvarint(message, at)
        at += host - 1 + 4  # and port
        rack, at = _uvarint(message, at)
        at += max(rack - 1, 0)
        tags, at = _uvarint(message, at)
        assert tags == 0
    cluster = at
    length, at = _uvarint(message, at)
    topics = at + max(length - 1, 0) + 4  # and controller
    n, rest = _uvarint(message, topics)
    more = b"".join(b"\0\0" + bytes([9]) + b"t%07d" % i + i.to_bytes(16) + b"\0" + b"\x01" + b"\x80\0\0\0" + b"\0" for i in range(1, TOPICS + 1))
    return message[:brokers] + b"\x01" + message[cluster:topics] + _as_uvarint(n + TOPICS) + more + message[rest:]


def _as_uvarint(value: int) -> bytes:
    low = value & 0x7F
    return bytes([low]) if value < 0x80 else bytes([low | 0x80]) + _as_uvarint(value >> 7)


def _uvarint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value, at, shift = value | (byte & 0x7F) << shift, at + 1, shift + 7
        if byte < 0x80:
            return value, at
