"""Fixtures that all black-box tests share."""
import sys

import pytest

sys.dont_write_bytecode = True

from server import Server  # noqa: E402


@pytest.fixture
def server(tmp_path):
    """A running server with its defaults, on a fresh data directory."""
    with Server(tmp_path / "data") as running:
        yield running


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory):
    """One running server for all tests of a module: they use different metrics."""
    with Server(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture
def redis_server(tmp_path):
    """A Redis of its own, as a role wants it."""
    from needs import need
    from redis_server import RedisServer
    need("redis")
    with RedisServer(tmp_path / "redis") as running:
        yield running


@pytest.fixture
def replica_set(tmp_path):
    """A primary, its replica and three Sentinels."""
    from needs import need
    from sentinels import ReplicaSet
    need("redis")
    with ReplicaSet(tmp_path / "redis") as running:
        yield running


@pytest.fixture
def stack(tmp_path, redis_server):
    """Starts a stack on that Redis: stack(apis=2, processors=1, MAX_SERIES=10). It is stopped with the test."""
    from contextlib import ExitStack
    from stack import Stack
    with ExitStack() as started:
        yield lambda **options: started.enter_context(Stack(tmp_path, redis_server.url, lambda: redis_server.client, **options))


@pytest.fixture(scope="module")
def shared_stack(tmp_path_factory):
    """Two API replicas and two processors for all tests of a module: they use different metrics."""
    from needs import need
    from redis_server import RedisServer
    from stack import Stack
    need("redis")
    folder = tmp_path_factory.mktemp("stack")
    with RedisServer(folder / "redis") as redis, Stack(folder, redis.url, lambda: redis.client) as running:
        yield running


def pytest_collection_modifyitems(items):
    """Scenarios come last: while they run, nothing else is to be measured."""
    items.sort(key=lambda item: "side_by_side" in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def cert(tmp_path_factory):
    """A certificate of 127.0.0.1, and its key."""
    from sinks import certificate
    return certificate(tmp_path_factory.mktemp("cert"))


@pytest.fixture(scope="session")
def side_by_side(request, tmp_path_factory, cert):
    """The scenarios (alerting.py) that were chosen, by name, all begun."""
    from alerting import started
    with started(request.session.items, tmp_path_factory.mktemp, cert) as running:
        yield running
