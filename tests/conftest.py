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
