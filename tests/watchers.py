"""Who listens while things break: a subscriber of Redis' channels, and a WebSocket client that goes on where it was."""
import json
import threading
import time
from dataclasses import dataclass

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.sync.client import connect

CHANNEL = "anomalies"


@dataclass
class Heard:
    at: float  # time.monotonic()
    id: str
    text: str

    @property
    def series(self) -> str:
        return json.loads(self.text)["series"]


class Watcher(threading.Thread):
    """Listens until it is closed, and comes again when what it listens to has gone."""

    def __init__(self):
        super().__init__(daemon=True)
        self.heard: list[Heard] = []
        self.ready, self.closed = threading.Event(), threading.Event()

    @property
    def ids(self) -> list[str]:
        return [heard.id for heard in self.heard]

    def since(self, at: float) -> list[Heard]:
        return [heard for heard in list(self.heard) if heard.at >= at]

    def wait(self, n: int, timeout: float = 30) -> list[Heard]:
        """The first `n`, as soon as they are there."""
        deadline = time.monotonic() + timeout
        while len(self.heard) < n:
            assert time.monotonic() < deadline, f"{len(self.heard)} of {n} heard within {timeout} s"
            time.sleep(0.02)
        return self.heard[:n]

    def run(self) -> None:
        while not self.closed.is_set():
            self.listen()
            self.closed.wait(0.1)

    def __enter__(self):
        self.start()
        assert self.ready.wait(15), "it cannot listen"
        return self

    def __exit__(self, *_) -> None:
        self.closed.set()
        self.join()


class Subscriber(Watcher):
    """SUBSCRIBE on one Redis."""

    def __init__(self, port: int, channel: str = CHANNEL, password: str | None = None):
        super().__init__()
        self.options, self.channel = {"port": port, "password": password, "decode_responses": True, "socket_connect_timeout": 5, "retry": Retry(NoBackoff(), 0)}, channel

    def listen(self) -> None:
        try:
            with redis.Redis(**self.options) as client, client.pubsub() as pubsub:
                pubsub.subscribe(self.channel)
                while not self.closed.is_set():
                    # Long, since one that ends in the middle of a message ends the connection.
                    message = pubsub.get_message(timeout=1)
                    if message and message["type"] == "subscribe":
                        self.ready.set()
                    elif message and message["type"] == "message":
                        self.heard.append(Heard(time.monotonic(), json.loads(message["data"])["id"], message["data"]))
        except (redis.RedisError, OSError):
            pass


class Follower(Watcher):
    """A WebSocket client of `urls`, one after the other: it resumes at the next one with the cursor of what it saw last."""

    def __init__(self, *urls: str, query: str = "", after: str | None = None):
        super().__init__()
        self.urls, self.query, self.cursor, self.connections, self.gaps = list(urls), query, after, 0, 0

    def listen(self) -> None:
        url = self.urls[self.connections % len(self.urls)]
        self.connections += 1
        after = f"&after={self.cursor}" if self.cursor else ""
        try:
            with connect(f"ws{url[4:]}/ws/anomalies?{self.query}{after}", open_timeout=5, max_size=None) as socket:
                while not self.closed.is_set():
                    try:
                        message = json.loads(socket.recv(timeout=0.1))
                    except TimeoutError:
                        continue
                    if message["type"] == "hello":
                        self.cursor = self.cursor or message["cursor"]
                        self.ready.set()
                    elif message["type"] == "gap":
                        self.gaps += 1
                    elif message["type"] == "anomaly":
                        self.cursor = message["cursor"]
                        self.heard.append(Heard(time.monotonic(), message["data"]["id"], json.dumps(message["data"])))
        except (OSError, WebSocketException, InvalidStatus):
            pass
