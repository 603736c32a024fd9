"""Rolling upgrades: processors of two versions, of which the older does not read the checkpoints that the newer writes by itself."""
import json
import time

import pytest

from alerting import burst, calm, feed, history, incidents
from nab import WINDOW, rows
from needs import need
from server import binary, next_binary
from stack import says_active
from test_roles_nab import files, offline, same  # noqa: F401 (fixtures)
from test_scale_out import kafka, owners, scaled, topic  # noqa: F401 (fixtures)


FORMATS = "{anomaly}:formats"


@pytest.fixture(autouse=True)
def next_build():
    need("next")


def formats(stack) -> set[int]:
    """Which formats the checkpoints of partitions have."""
    return {json.loads(text)["format"] for i in range(16) if (text := stack.redis.get(f"{{p{i}}}:checkpoint"))}


def alone(stack, n: int) -> None:
    """Waits until nobody counts any more but the `n` processors there are, all of the next version, and they write as that does."""
    stack.wait(lambda: stack.redis.hlen(FORMATS) == n, "those that were killed are forgotten", 40)
    for processor in stack.processors:
        stack.wait(lambda: processor.log().count("format=4") > processor.log().count("format=3"), f"{processor} knows")


def roll(stack, i: int, program: str, kill: bool = False) -> None:
    """Replaces a processor by the same of another version, and waits until it has its share of the work."""
    processor = stack.processors[i]
    processor.kill() if kill else processor.terminate()
    processor.program = program
    processor.start()
    stack.wait(lambda: says_active(processor), f"{processor} has partitions", 60)


def test_up_and_down_again_finds_what_detect_finds(scaled, files, offline):
    """Three processors, one after the other, to the next version and back while files come; one each way is killed and not stopped."""
    older, newer = binary(), next_binary()
    running = scaled(processors=3, **WINDOW)
    steps, seen = [(i, program, i == 1) for program in (newer, older) for i in range(3)], []
    for n, file in enumerate(files):
        answer = running.apis[n % 2].upload(file.name, file.read_bytes())
        assert answer.status_code == 200 and answer.json()["files"][0]["accepted"] == rows(file), f"{file.name}: {answer.text[:500]}"
        if n % 8 == 7 and steps:
            if len(steps) == 3:
                alone(running, 3)
            roll(running, *steps.pop(0))
            seen.append(formats(running))
    assert not steps
    running.settle(180)
    same(running, offline, files)
    # While both are there what both read is written; what is newer is there only when all are.
    assert seen[0] <= {3} and seen[1] <= {3} and seen[3] == seen[4] == seen[5] == {3}, seen
    assert not running.panics()


def test_incidents_of_before_resolve_behind_an_upgrade_and_back(scaled):
    running, window = scaled(apis=1, processors=2, WINDOW_SECONDS=60), 60
    feed(running.api, [row for i in range(20) for row in burst(f"before{i}", time.time())])
    running.settle()
    for i in (0, 1):
        roll(running, i, next_binary())
    feed(running.api, [row for i in range(20) for row in burst(f"meanwhile{i}", time.time())])
    running.settle()
    for i in (0, 1):
        roll(running, i, binary())
    found = incidents(running.api)
    assert len(found) == 40 and {incident["state"] for incident in found} == {"open"}
    running.wait(lambda: {incident["state"] for incident in incidents(running.api)} == {"resolved"}, "all are resolved", 120)
    for incident in incidents(running.api):
        assert incident["count"] == 1 and incident["resolved_at"] - incident["end"] > window and history(running.api, incident["id"]) == ["opened", "resolved"]


def test_an_older_version_waits_until_it_can_read_what_there_is(scaled):
    """All run the next version, and have written its format; an older one comes."""
    running = scaled(apis=1, processors=2)
    for i in (0, 1):
        roll(running, i, next_binary())
    names = {f"some{i}": 5 for i in range(60)}
    running.api.post_batch([row for name in names for row in calm(name, time.time(), n=5)])
    running.settle()
    a, b = running.processors
    alone(running, 2)
    b.terminate()
    a.terminate()
    assert 4 in formats(running)
    a.program = binary()
    a.spawn()
    told = running.wait(lambda: a.reason("engine"), "it says why it does nothing")
    running.wait(lambda: "cannot be taken over" in a.reason("engine"), "nobody newer is there any more")
    assert "format 4" in told and "reads up to 3" in told and "start one again" in told
    more = {f"more{i}": 5 for i in range(60)}
    running.api.post_batch([row for name in more for row in calm(name, time.time(), n=5)])
    time.sleep(3)
    assert not says_active(a) and not running.api.series_counts("more")
    b.start()
    running.wait(lambda: says_active(a) and says_active(b), "both have partitions", 60)
    assert formats(running) == {3} and len(owners(running)) == 16
    running.wait(lambda: running.api.series_counts() == names | more, "all is judged", 60)


def written(stack) -> int:
    """Which format the checkpoint on Redis has."""
    return json.loads(stack.redis.get("{anomaly}:checkpoint") or '{"format": 0}')["format"]


def test_on_redis_a_standby_of_an_older_version_takes_over(stack):
    running = stack(apis=1, processors=2)
    older, newer = binary(), next_binary()
    a, b = running.processors
    for processor in (a, b):
        processor.terminate()
        processor.program = newer
        processor.start()
    feed(running.api, burst("cpu", time.time()))
    running.settle()
    alone(running, 2)
    running.active().terminate()
    for processor in (a, b):
        if not processor.alive:
            processor.start()
    running.wait(lambda: written(running) == 4, "what is newest is written")
    active, standby = running.active(), running.standby()
    standby.terminate()
    standby.program = older
    standby.start()
    running.wait(lambda: written(running) == 3, "what both read is written")
    active.kill()
    assert running.active() is standby
    feed(running.api, calm("cpu", time.time() + 1, n=5))
    running.settle()
    assert running.api.series_counts() == {"cpu": 26} and len(running.api.anomalies()) == 1
