"""The roles of one stack on loopback: API replicas, processors, ingests that meet on a Redis."""
import re
import time
from contextlib import ExitStack
from pathlib import Path

import httpx
import redis

from server import Server

SHOWN_AFTER = 0.3  # seconds until the processor has shown other processes which series there are, and their points
LEASE, LOG, JOURNAL = "{anomaly}:lease", "{anomaly}:log", "{anomaly}:journal"


class Role(Server):
    """`anomaly ROLE`: an API replica is talked to as to any server, the others at STATUS_PORT."""

    def __init__(self, role: str, folder: Path, **env):
        super().__init__(folder / "data", args=(role,), **env)
        self.role, self.name = role, folder.name
        folder.mkdir(parents=True, exist_ok=True)
        self.log_path = folder / "log"  # kept with what the test leaves

    def given(self) -> dict:
        own = {"DATA_DIR": self.data_dir, "PORT": self.port} if self.role == "api" else {"STATUS_PORT": self.port}
        return own | self.env

    def reason(self, component: str) -> str:
        """Why a component is not well; empty where it is, or nobody answers."""
        try:
            return self.get("/health")["components"].get(component, {}).get("reason", "")
        except httpx.TransportError:
            return ""

    def close(self) -> None:
        log = self.log()
        super().close()
        self.log_path.write_text(log)

    def __repr__(self) -> str:
        return self.name


class Stack(ExitStack):
    """Roles with the settings `env`, by default two API replicas and two processors, of which the first is active at first.

    `url` is the REDIS_URL; `client` gives a client of whatever Redis is the primary now.
    """

    def __init__(self, folder: Path, url: str, client, apis: int = 2, processors: int = 2, ingests: int = 0, **env):
        super().__init__()
        self.folder, self._client, self.env = Path(folder), client, {"REDIS_URL": url} | env
        self.apis, self.processors, self.ingests = ([self.role(role, f"{role}-{i}") for i in range(n)] for role, n in (("api", apis), ("processor", processors), ("ingest", ingests)))

    def role(self, role: str, name: str, **env) -> Role:
        """One more, not yet started."""
        made = Role(role, self.folder / name, **self.env | env)
        self.callback(made.close)
        return made

    def start(self) -> "Stack":
        for processor in self.processors:
            processor.start()
            self.wait(lambda: self.lease(), "a processor takes the lease")
        for role in (*self.apis, *self.ingests):
            role.spawn()
        for role in (*self.apis, *self.ingests):
            if not role.wait_ready():
                role.kill()
                role.start()  # a port was taken meanwhile, or it fails again and tells why
        return self

    @property
    def roles(self) -> list[Role]:
        return [*self.apis, *self.processors, *self.ingests]

    @property
    def api(self) -> Role:
        return self.apis[0]

    # --- Redis ---------------------------------------------------------------------------------------------------

    @property
    def redis(self) -> redis.Redis:
        return self._client()

    def lease(self) -> str | None:
        """`epoch:nonce` of the active processor; None when nobody is, or Redis does not answer."""
        try:
            return self.redis.get(LEASE)
        except (redis.RedisError, redis.exceptions.RedisClusterException):
            return None

    def epoch(self) -> int:
        return int((self.lease() or "0").split(":")[0])

    # --- which is active -----------------------------------------------------------------------------------------

    def active(self, timeout: float = 30) -> Role:
        """The processor at work: as /health of each says."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            working = [p for p in self.processors if p.alive and says_active(p)]
            if len(working) == 1:
                return working[0]
            time.sleep(0.05)
        raise AssertionError(f"{len(working)} active processors")

    def standby(self) -> Role:
        active = self.active()
        return next(p for p in self.processors if p.alive and p is not active)

    # --- waiting -------------------------------------------------------------------------------------------------

    def settle(self, timeout: float = 120) -> None:
        """Waits until each API replica shows all that was accepted by any of them; counts of series and points come a moment later."""
        for api in self.apis:
            if api.alive:
                api.settle(timeout)
        time.sleep(SHOWN_AFTER)

    @staticmethod
    def wait(true, what: str, timeout: float = 30):
        deadline = time.monotonic() + timeout
        while not (it := true()):
            assert time.monotonic() < deadline, f"{what}: not within {timeout} s"
            time.sleep(0.05)
        return it

    def panics(self) -> list[str]:
        """Which roles have panicked."""
        return [role.name for role in self.roles if "panicked" in role.log()]

    def __enter__(self) -> "Stack":
        return self.start()


def says_active(processor: Role) -> bool:
    """Whether a processor's /health says that it holds the lease."""
    try:
        text = processor.http.get("/health", timeout=2).text
    except Exception:  # it is gone, or stopped
        return False
    return re.search(r'"(active|owner)"', text) is not None and '"standby"' not in text
