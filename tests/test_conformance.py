"""The contract's own black-box suite (shared/conformance) against real servers, embedded and as roles on Redis: one test here for each of
its checks and each of them."""
import re
import subprocess
import sys
from contextlib import contextmanager

import pytest

from needs import missing, need
from redis_server import RedisServer
from server import SHARED, Server
from stack import Stack

SUITE = SHARED / "conformance" / "suite.py"

# What belongs to a later issue: name of the check -> that issue.
LATER: dict[str, str] = {}


def names() -> list[str]:
    if missing("conformance"):
        return []
    listed = subprocess.run([sys.executable, "-B", SUITE, "--profile", "full", "--list"], capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    return re.findall(r"^(\w+):", listed.stdout, re.M)


class Suite:
    """The running suite; its lines are read as the tests ask for them."""

    def __init__(self, server: Server, chosen: list[str]):
        self.server, self.lines = server, {}
        self.process = subprocess.Popen([sys.executable, "-B", "-u", SUITE, "--profile", "full", "--base-url", server.url, "--only", *chosen],
                                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def verdict(self, name: str) -> tuple[str, str]:
        while name not in self.lines:
            line = self.process.stdout.readline()
            if not line:
                return "FAIL", f"the suite ended without this check (exit code {self.process.wait()}, server {'runs' if self.server.alive else 'is gone'})"
            if match := re.match(r"(ok|FAIL|skip) (\w+): (.*)", line):
                self.lines[match[2]] = match[1], match[3]
        return self.lines[name]


@contextmanager
def embedded(folder):
    with Server(folder / "data") as server:
        yield server, [server]


@contextmanager
def roles(folder):
    """An API replica and a processor."""
    need("redis")
    with RedisServer(folder / "redis") as redis, Stack(folder, redis.url, lambda: redis.client, apis=1, processors=1) as stack:
        yield stack.api, stack.roles


@pytest.fixture(scope="module", params=[embedded, roles], ids=lambda backend: backend.__name__)
def suite(tmp_path_factory, request):
    need("conformance")
    items = [item.callspec.params for item in request.session.items if item.module is request.module and getattr(item, "callspec", None)]
    chosen = [params["name"] for params in items if params.get("suite") is request.param]
    with request.param(tmp_path_factory.mktemp("conformance")) as (server, processes):
        running = Suite(server, [name for name in chosen if name not in LATER])
        yield running
        running.process.kill()
        running.process.wait()
        assert all(one.alive for one in processes), "a process died under the suite"
        assert not any("panicked" in one.log() for one in processes), "a process panicked under the suite"


@pytest.mark.parametrize("name", names() or [pytest.param("", id="suite")])
def test_check(suite, name):
    if name in LATER:
        pytest.skip(f"later: {LATER[name]}")
    verdict, detail = suite.verdict(name)
    if verdict == "skip":
        pytest.skip(detail)
    assert verdict == "ok", detail
