"""Rolling upgrades: processors of two versions, of which the older does not read the checkpoints that the newer writes by itself."""
import json
import time

import pytest

from alerting import burst, calm, feed, incidents
from nab import WINDOW, rows
from needs import need
from server import binary, next_binary
from stack import says_active
from test_roles_nab import files, offline, same  # noqa: F401 (fixtures)
from test_scale_out import kafka, owners, scaled, topic  # noqa: F401 (fixtures)


@pytest.fixture(autouse=True)
def next_build():
    need("next")


def formats(stack) -> set[int]:
    """Which formats the checkpoints of partitions have."""
    return {json.loads(text)["format"] for i in range(16) if (text := stack.redis.get(f"{{p{i}}}:checkpoint"))}


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
            roll(running, *steps.pop(0))
            seen.append(formats(running))
    assert not steps
    running.settle(180)
    same(running, offline, files)
    # While both are there what both read is written.
    assert seen[0] <= {3} and seen[1] <= {3} and seen[4] == seen[5] == {3}, seen
    assert not running.panics()


def test_incidents_of_before_resolve_behind_an_upgrade_and_back(scaled):
    running = scaled(apis=1, processors=2, WINDOW_SECONDS=20)
    feed(running.api, [row for i in range(20) for row in burst(f"before{i}", time.time())])
    running.settle()
    for i in (0, 1):
        roll(running, i, next_binary())
    feed(running.api, [row for i in range(20) for row in burst(f"meanwhile{i}", time.time())])
    running.settle()
    for i in (0, 1):
        roll(running, i, binary())
    assert len(incidents(running.api)) == 40
    running.wait(lambda: {incident["state"] for incident in incidents(running.api)} == {"resolved"}, "all are resolved", 60)
    assert {incident["count"] for incident in incidents(running.api)} == {1}


def test_an_older_version_waits_until_it_can_read_what_there_is(scaled):
    """All run the next version, and have written its format; an older one comes."""
    running = scaled(apis=1, processors=2)
    for i in (0, 1):
        roll(running, i, next_binary())
    names = {f"some{i}": 5 for i in range(60)}
    running.api.post_batch([row for name in names for row in calm(name, time.time(), n=5)])
    running.settle()
    a, b = running.processors
    running.wait(lambda: not running.redis.hlen("{anomaly}:formats") > 2, "nobody older is there any more", 30)
    b.terminate()
    a.terminate()
    assert 4 in formats(running)
    a.program = binary()
    a.start()
    told = running.wait(lambda: a.get("/health")["components"].get("engine", {}).get("reason"), "it says why it does nothing")
    assert "format 4" in told and "reads up to 3" in told and "start one again" in told
    more = {f"more{i}": 5 for i in range(60)}
    running.api.post_batch([row for name in more for row in calm(name, time.time(), n=5)])
    time.sleep(3)
    assert not says_active(a) and not running.api.series_counts("more")
    b.start()
    running.wait(lambda: says_active(a) and says_active(b), "both have partitions", 60)
    assert formats(running) == {3} and len(owners(running)) == 16
    running.wait(lambda: running.api.series_counts() == names | more, "all is judged", 60)


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
    written = lambda: json.loads(running.redis.get("{anomaly}:checkpoint") or '{"format": 0}')["format"]
    active = running.active()
    standby = running.standby()
    standby.terminate()
    standby.program = older
    standby.start()
    running.wait(lambda: written() == 3, "what both read is written")
    active.kill()
    assert running.active() is standby
    feed(running.api, calm("cpu", time.time() + 1, n=5))
    running.settle()
    assert running.api.series_counts() == {"cpu": 26} and len(running.api.anomalies()) == 1
