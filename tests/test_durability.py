"""A slice of the failure runs (tests/chaos has the long ones): what was acknowledged is there, once, and judged the same."""
import pytest

from chaos import Result, disk_full, fsync_errors, kills, power_cuts
from loopfs import close_all
from needs import need


def held(results: list[Result]) -> None:
    assert all(r.passed for r in results), "\n".join(map(str, results))


def test_power_cuts_lose_nothing_and_the_control_without_fsync_does(tmp_path):
    need("root", "loop")
    held(power_cuts.run(tmp_path, cuts=4, control_cuts=1))


def test_kill_9_under_load_counts_everything_once(tmp_path):
    held(kills.run(tmp_path, kills=6))


def test_an_fsync_error_stops_the_process_and_loses_nothing(tmp_path):
    need("strace")
    held(fsync_errors.run(tmp_path, points=(1, 3, 10, 30), named=[("anomaly.db-wal", 1)]))


def test_a_full_disk_is_refused_and_heals(tmp_path):
    need("root", "loop")
    held(disk_full.run(tmp_path))


@pytest.fixture(autouse=True)
def no_mount_is_left():
    yield
    close_all()
