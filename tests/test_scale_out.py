"""BACKEND=kafka: the log is a topic whose partitions several processors share, the store is on Redis."""
import json
import time

import pytest

import nab
from alerting import burst, calm, feed
from nab import WINDOW, rows
from needs import need
from stack import Stack
from test_roles_nab import files, messages, offline, same  # noqa: F401 (fixtures)
from watchers import Subscriber


@pytest.fixture(scope="module")
def kafka():
    need("kafka")
    from kafka_server import Kafka
    with Kafka() as kafka:
        yield kafka


@pytest.fixture
def scaled(stack, kafka, request):
    """Starts a stack on a log of its own: scaled(apis=2, processors=3)."""
    topic = request.node.name.replace("[", ".").replace("]", "")[-100:]
    return lambda **options: stack(BACKEND="kafka", KAFKA_BROKER=kafka.address, KAFKA_TOPIC=topic, KAFKA_GROUP_ID=topic, **options)


def owned(kafka, topic: str) -> dict[int, str]:
    """Which member of the processors' group has each partition of the log."""
    return kafka.assigned(f"{topic}-processor", f"{topic}.log")


def test_what_is_posted_is_judged_and_shown_everywhere(scaled, kafka):
    running = scaled(processors=2)
    a, b = running.apis
    feed(a, burst("posted", time.time()) + burst("posted_too", time.time()))
    running.settle()
    for api in (a, b):
        assert {json.loads(x)["metric"] for x in api.anomalies()} == {"posted", "posted_too"}
        assert api.series_counts() == {"posted": 21, "posted_too": 21}
    assert a.http.delete("/series", params={"series": "posted"}).status_code == 204
    running.settle()
    assert b.series_counts() == {"posted_too": 21} and len(b.anomalies()) == 1
    assert not running.panics()


def test_three_processors_find_what_detect_finds_although_one_is_killed_and_another_joins(scaled, files, offline):
    running = scaled(processors=3, **WINDOW)
    for i, file in enumerate(files):
        answer = running.apis[i % 2].upload(file.name, file.read_bytes())
        assert answer.status_code == 200 and answer.json()["files"][0]["accepted"] == rows(file), f"{file.name}: {answer.text[:500]}"
        if i == len(files) // 3:
            running.processors[0].kill()
        if i == len(files) // 2:
            joins = running.role("processor", "processor-3")
            running.processors.append(joins)
            joins.start()
    running.settle(180)
    same(running, offline, files)
    assert not running.panics()
