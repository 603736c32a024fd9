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
        self.behind, self.forgets, self._faults, self._open = behind, False, [], []
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
            for carry in (self._requests, self._responses):
                threading.Thread(target=self._carry, args=(carry, client, broker, asked), daemon=True).start()

    def _carry(self, carry, *ends) -> None:
        try:
            carry(*ends)
        except OSError:
            pass
        except BaseException as fault:
            self._faults.append(fault)
        for end in ends[:2]:
            _shut(end)

    def _requests(self, client: socket.socket, broker: socket.socket, asked: dict[int, int]) -> None:
        for message in _messages(client):
            key, version, correlation = struct.unpack_from(">hhi", message)
            if key == METADATA:
                asked[correlation] = version
            _send(broker, message)

    def _responses(self, client: socket.socket, broker: socket.socket, asked: dict[int, int]) -> None:
        for message in _messages(broker):
            version = asked.pop(struct.unpack_from(">i", message)[0], None)
            if version is not None and self.forgets:
                assert version in VERSIONS, version
                message = _without_brokers(message)
            _send(client, message)

    def cut(self) -> None:
        """Ends all connections; whoever had one makes another, and asks which brokers there are."""
        for connection in self._open:
            _shut(connection)
        self._open.clear()

    def __enter__(self) -> "KafkaLink":
        return self

    def __exit__(self, *_) -> None:
        _shut(self._server)
        self.cut()
        assert not self._faults, self._faults


def _messages(source: socket.socket):
    """What comes, message by message."""
    with source.makefile("rb") as file:
        while len(size := file.read(4)) == 4:
            yield file.read(struct.unpack(">i", size)[0])


def _send(to: socket.socket, message: bytes) -> None:
    to.sendall(struct.pack(">i", len(message)) + message)


def _shut(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it has ended
    end.close()


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
