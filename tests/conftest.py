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
