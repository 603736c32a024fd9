"""A slice of the failure runs of roles on Redis (tests/chaos has the long ones): what was acknowledged is there, once, judged the same."""
import time

import pytest

from chaos import Result, fail_over, processor_kills, redis_away, redis_full, replica_kills
from load import Load, verify
from needs import need
from stack import Stack


def held(results: list[Result]) -> None:
    assert all(r.passed for r in results), "\n".join(map(str, results))


@pytest.fixture(autouse=True)
def redis_is_here():
    need("redis")


def test_the_active_processor_is_killed(tmp_path):
    held(processor_kills.run(tmp_path, kills=2))


def test_a_processor_that_was_given_up_wakes_and_is_refused(tmp_path):
    held(processor_kills.zombies(tmp_path, rounds=1))


def test_redis_is_killed_and_started_again(tmp_path):
    held(redis_away.killed(tmp_path, kills=2))


def test_redis_is_stopped(tmp_path):
    held(redis_away.stopped(tmp_path, seconds=8))


def test_redis_is_full_and_heals(tmp_path):
    held(redis_full.run(tmp_path, mib=128, stay=2))


def test_a_fail_over_loses_nothing_and_the_control_does(tmp_path):
    held(fail_over.run(tmp_path, kills=1, cuts=1))


def test_an_api_replica_is_killed_in_the_middle_of_uploads(tmp_path):
    held(replica_kills.run(tmp_path, kills=4))


def test_a_rolling_restart_fails_no_request(tmp_path):
    need("haproxy")
    held(replica_kills.rolling(tmp_path, rounds=1))


def test_nothing_is_acknowledged_without_the_replica_that_was_asked_for(replica_set, tmp_path):
    """REDIS_WAIT_REPLICAS=1 and a replica that no longer hears the primary: 503, and all goes on when it does again."""
    with Stack(tmp_path, replica_set.url, lambda: replica_set.primary.client, apis=1, processors=1, REDIS_WAIT_REPLICAS=1) as running, Load([running.api.url], n=2, timeout=30) as load:
        load.wait_acked(500)
        replica_set.cut_replica()
        cut = time.monotonic()
        running.wait(lambda: sum(r.at > cut for r in load.refusals) >= 4, "it is refused", 30)
        healed = time.monotonic()
        replica_set.heal()
        load.wait_acked(500)
        load.end()
        running.settle()
        assert (verdict := verify(running.api, load)).clean, str(verdict)
        assert load.acked_between(cut + 0.1, healed) == 0
        assert {r.what for r in load.refusals} == {"503"} and all(r.told_when for r in load.refusals), load.refused()
