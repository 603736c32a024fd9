"""A real Redis on a free port of loopback, for tests: stopped, killed, restarted with its data."""
import time
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from process import Process, free_port
from server import environment

# What a role asks of a Redis that is alone, and what docs/stack.md says.
DURABLE = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction", "maxmemory": "1gb"}
START_SECONDS = 20
# A client that gives up soon and tries nothing twice; what it reads is text.
CLIENT = {"decode_responses": True, "socket_timeout": 10, "socket_connect_timeout": 5, "retry": Retry(NoBackoff(), 0)}


class RedisServer(Process):
    """`redis-server` with its data in `folder`. `settings` are those of redis.conf; `password` is what clients must say."""

    def __init__(self, folder: Path, password: str = "", **settings):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        super().__init__(self.folder / "redis.log")
        self.port, self.password = free_port(), password
        self.settings = DURABLE | {"save": ""} | {name.replace("_", "-"): value for name, value in settings.items()}
        self.client = self.connect()

    def connect(self, **options) -> redis.Redis:
        return redis.Redis(port=self.port, password=self.password or None, **CLIENT | options)

    @property
    def url(self) -> str:
        return f"redis://{f':{self.password}@' if self.password else ''}127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        settings = self.settings | ({"requirepass": self.password, "masterauth": self.password} if self.password else {})
        return ["redis-server", "--port", self.port, "--bind", "127.0.0.1", "--dir", self.folder, "--daemonize", "no",
                *(word for name, value in settings.items() for word in (f"--{name}", *(str(value).split() or [""])))]

    def start(self) -> "RedisServer":
        """Starts it, and waits until it has loaded its data; on another port when a stranger has taken this one at first."""
        for _ in range(3):
            offset = len(self.log())
            self.launch(self.command(), self.folder, environment())
            deadline = time.monotonic() + START_SECONDS
            while self.alive and time.monotonic() < deadline:
                try:
                    self.client.ping()
                    return self
                except (redis.ConnectionError, redis.BusyLoadingError):
                    time.sleep(0.02)
            self.kill()
            if "in use" not in self.log()[offset:] or self.starts > 3:
                break
            self.port = free_port()
            self.client = self.connect()
        raise AssertionError(f"Redis did not start:\n{self.log()[-2000:]}")

    def restart(self) -> "RedisServer":
        """After a kill -9, on its port and with its data."""
        self.kill()
        return self.start()

    def run(self, *words, **more):
        """What `redis-cli WORDS` would answer."""
        return self.client.execute_command(*words, **more)

    def set(self, **settings) -> None:
        """CONFIG SET."""
        for name, value in settings.items():
            self.client.config_set(name.replace("_", "-"), value)

    def __enter__(self) -> "RedisServer":
        return self if self.alive else self.start()

    def __exit__(self, *_) -> None:
        self.client.close()
        self.kill()
