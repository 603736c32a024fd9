"""A slice of chaos/alert_kills.py: killed on the way from an event to its alert, each message is there once; and what the rig notices."""
from dataclasses import replace

import pytest

from chaos import alert_kills
from chaos.alert_kills import Message, Run, Seen, judge
from needs import need

SEEN = Seen(events=61, anomalies=["a"], incidents=[("i",)], history=[("i", "opened")], notifications=[("w", "webhook", "opened", "sent", "i"), ("m", "email", "opened", "sent", "i")])
WEBHOOK, EMAIL = Message("webhook", "w", b"{}"), Message("email", "m", b"Subject: a")
ORACLE = Run(messages=[WEBHOOK, EMAIL], seen=SEEN)


def test_a_kill_anywhere_between_an_event_and_its_alert_loses_and_doubles_nothing(tmp_path):
    need("ptrace")
    results = alert_kills.run(tmp_path, 12, batch=4, twice=3, outages=4)
    assert all(r.passed for r in results), "\n".join(map(str, results))


@pytest.mark.parametrize("messages, fault", [
    ([WEBHOOK], "lost: email m"),
    ([WEBHOOK, EMAIL, Message("webhook", "w2", b"{}")], "another message: webhook w2"),
    ([WEBHOOK, WEBHOOK, WEBHOOK, EMAIL], "3 times after 1 kills: webhook w"),
    ([WEBHOOK, EMAIL, replace(EMAIL, content=b"Subject: b")], "a repeat with other bytes: email m"),
])
def test_messages_that_are_wrong_are_noticed(messages, fault):
    assert judge(Run(kills=["write"], messages=messages, seen=SEEN), ORACLE) == [fault]


def test_a_repeat_after_a_kill_is_allowed():
    assert judge(Run(kills=["write"], messages=[WEBHOOK, EMAIL, WEBHOOK], seen=SEEN), ORACLE) == []


@pytest.mark.parametrize("wrong", [
    {"events": 62}, {"anomalies": ["a", "a"]}, {"incidents": [("i",), ("j",)]}, {"history": [("i", "opened", "opened")]}, {"notifications": SEEN.notifications[:1]},
])
def test_a_store_that_is_wrong_is_noticed(wrong):
    [fault] = judge(Run(kills=["write"], messages=ORACLE.messages, seen=replace(SEEN, **wrong)), ORACLE)
    assert fault.startswith(next(iter(wrong)))
