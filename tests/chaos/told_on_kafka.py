"""With the log on Kafka the processor that leads, and so tells people, is killed again and again while incidents begin.

Each is a series of its own, in a batch under a key that is sent until it is accepted. A webhook counts what arrives: a message may come
twice under the same `webhook-id`, by which the receiver drops it; behind that every incident must have been told exactly once.
"""
import threading
import time
from collections import Counter
from pathlib import Path

import httpx

from alerting import Told, burst, incidents
from chaos import Result
from chaos.on_kafka import Rig, on_kafka
from sinks import HttpSink

TOLD_WITHIN = 60  # seconds


class Bursts(threading.Thread):
    """A new series with one anomaly at its end, ten times a second, to the API replicas in turn."""

    def __init__(self, rig: Rig):
        super().__init__(daemon=True)
        self.apis, self.stopping, self.series = rig.stack.apis, threading.Event(), []

    def run(self) -> None:
        while not self.stopping.wait(0.1):
            name = f"told{len(self.series)}"
            events = burst(name, time.time())
            while not self.accepted(name, events) and not self.stopping.wait(0.1):
                pass

    def accepted(self, name: str, events: list[dict]) -> bool:
        try:
            accepted = self.apis[len(self.series) % 2].post_batch(events, idempotency_key=name).status_code == 202
        except httpx.TransportError:
            return False
        self.series += [name] * accepted
        return accepted


def run(folder: Path, kills: int = 10, say=print) -> list[Result]:
    with HttpSink() as sink, on_kafka(folder, WEBHOOK_URL=f"{sink.url}/hook", NOTIFY_GROUP_WAIT_SECONDS=0.5, NOTIFY_REPEAT_SECONDS=0) as rig:
        bursts, told = Bursts(rig), Told(sink)
        bursts.start()
        for i in range(kills):
            time.sleep(4)
            leader = rig.leader()
            leader.kill()
            rig.leader()
            leader.start()
            rig.wait_shared()
            say(f"  kill {i + 1} of {kills}: {leader}, which told people; {len(bursts.series)} incidents began, {len(sink.received.all)} messages arrived")
        bursts.stopping.set()
        bursts.join()
        rig.stack.settle(120)
        began, deadline = {incident["id"] for incident in incidents(rig.stack.api)}, time.monotonic() + TOLD_WITHIN
        assert len(began) == len(bursts.series)
        while time.monotonic() < deadline and not began <= opened(told).keys():
            time.sleep(0.5)
        time.sleep(5)
        counts, messages = opened(told), [one["id"] for one in told.all]
        missed, twice = began - counts.keys(), sum(n > 1 for n in counts.values())
        say(f"  {len(began)} incidents; not told {len(missed)}, told twice {twice}; {len(messages)} messages, {len(messages) - len(set(messages))} of them again")
    return [Result(f"{kills} kill -9 of the processor that leads, and tells people, with the log on Kafka", "each incident told, and by the receiver's deduplication exactly once",
                   f"{len(began)} incidents, not told {len(missed)}, told twice {twice}; {len(messages)} messages, of these again under the same id {len(messages) - len(set(messages))}",
                   bool(began) and not missed and not twice)]


def opened(told: Told) -> Counter[str]:
    """In how many messages of different ids the beginning of each incident was told; a long message has the ids of the rest."""
    by_id = {one["id"]: one["data"] for one in told.all if one["type"] == "incident.opened"}
    return Counter(id for data in by_id.values() for id in [*(incident["id"] for incident in data["incidents"]), *data.get("more", [])])
