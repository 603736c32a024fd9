"""What the failure runs of roles on Redis share: a stack under load, subscribers that note what is published, and the verdict."""
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from chaos import Result
from load import Load, Verdict, verify
from redis_server import RedisServer
from sentinels import ReplicaSet
from stack import Role, Stack
from watchers import Subscriber

TAKE_OVER = 15  # seconds, at most


@dataclass
class Rig:
    """A stack, the load on it and who listens."""

    redis: RedisServer | ReplicaSet
    stack: Stack
    subscribers: list[Subscriber]
    take_overs: list[float] = field(default_factory=list)

    def load(self, **options) -> Load:
        return Load([api.url for api in self.stack.apis], **options)

    def take_over(self, fail) -> float:
        """Makes the active processor fail; returns the seconds until the next one has published an anomaly."""
        epoch, started = self.stack.epoch(), time.monotonic()
        fail()
        return self.next_owner(epoch, started)

    def next_owner(self, epoch: int, started: float, timeout: float = 90) -> float:
        """Seconds from `started` until an owner later than `epoch` has published an anomaly. Redis may be away meanwhile."""
        self.stack.wait(lambda: self.stack.epoch() > epoch, "another processor has the lease", timeout)
        taken = time.monotonic()
        self.stack.wait(lambda: any(s.since(taken) for s in self.subscribers), "it publishes an anomaly", timeout)
        seconds = min(heard.at for s in self.subscribers for heard in s.since(taken)[:1]) - started
        self.take_overs.append(seconds)
        return seconds

    def verdict(self, *loads: Load) -> "Outcome":
        """What is there when all is quiet; each replica must show the same."""
        self.stack.settle(300)
        time.sleep(1)  # what is still to be published
        verdicts = [verify(api, *loads) for api in self.stack.apis if api.alive]
        worst = next((v for v in verdicts if not v.clean), verdicts[0])
        if len({frozenset(v.ids) for v in verdicts}) > 1 and worst.clean:
            worst.differ = "two replicas show different anomalies"
        published = [Counter(s.ids) for s in self.subscribers]
        heard = set().union(*published)
        return Outcome(worst, len(heard), len(heard - worst.ids), sum(n - 1 for counter in published for n in counter.values()), self.stack.panics(),
                       [role.name for role in self.stack.roles if not role.alive])


@dataclass
class Outcome:
    verdict: Verdict
    published: int  # anomalies that any subscriber has heard of
    unstored: int  # of these, those that are not stored
    repeats: int  # messages about an anomaly that a subscriber had heard of
    panics: list[str]
    ended: list[str]  # roles that nobody has ended

    @property
    def clean(self) -> bool:
        return self.verdict.clean and not (self.unstored or self.panics or self.ended)

    def __str__(self) -> str:
        return f"{self.verdict}; published {self.published:,}, of these not stored {self.unstored}, published again {self.repeats}" + "".join(f"; {what} {names}" for what, names in (("panics in", self.panics), ("ended by themselves:", self.ended)) if names)


REQUIRED = "acknowledged events lost 0; no event, no anomaly twice, no batch in part; anomalies as `anomaly detect` over the same events finds them; published but not stored 0"


def row(what: str, outcome: Outcome, more: str = "", required: str = "", held: bool = True) -> Result:
    """The line of a run."""
    return Result(what, REQUIRED + (f"; {required}" if required else ""), f"{outcome}{f'; {more}' if more else ''}", outcome.clean and held)


def take_over_row(rig: Rig, what: str) -> Result:
    seconds = sorted(rig.take_overs)
    return Result(f"take-over {what}", f"the next owner publishes an anomaly at most {TAKE_OVER} s after it",
                  f"median {seconds[len(seconds) // 2]:.1f} s, at most {seconds[-1]:.1f} s" if seconds else "none", bool(seconds) and seconds[-1] <= TAKE_OVER)


@contextmanager
def on_redis(folder: Path, apis: int = 2, processors: int = 2, redis: dict | None = None, **env):
    """A stack on one Redis."""
    with RedisServer(folder / "redis", **redis or {}) as server, Stack(folder, server.url, lambda: server.client, apis, processors, **env) as stack, Subscriber(server.port) as subscriber:
        yield Rig(server, stack, [subscriber])


@contextmanager
def on_replica_set(folder: Path, wait_replicas: int, apis: int = 2, processors: int = 2, redis: dict | None = None, **env):
    """A stack on a primary that Sentinels watch; both Redis are listened to."""
    with ReplicaSet(folder / "redis", **redis or {}) as replicas, ExitStack() as stack:
        env |= {"REDIS_WAIT_REPLICAS": wait_replicas}
        running = stack.enter_context(Stack(folder, replicas.url, lambda: replicas.primary.client, apis, processors, **env))
        yield Rig(replicas, running, [stack.enter_context(Subscriber(node.port)) for node in replicas.nodes])


def other(processors: list[Role], one: Role) -> Role:
    return next(p for p in processors if p is not one)
