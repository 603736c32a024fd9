"""kill -9 at every system call between the arrival of an event and the mark that its alert was sent, by webhook and by email.

An uninterrupted run is traced to count the calls (`steps.py`), and is what the others are compared with. Then for each of them a
server on a copy of the same data directory is killed before it makes that call, and started again. What was not acknowledged is
sent again under its ids. In the long run some are killed once more while they start, some get a batch in which three series go
wrong at once, so that one message holds three incidents, and some are away until the event is older than what is sent. Sinks note
every message that they took; a receiver keeps of those with one id (webhook-id, Message-ID) the first.
"""
import json
import random
import shutil
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from chaos import Result
from chaos.steps import Steps
from server import Server, comparable
from sinks import HttpSink, SmtpSink

START = 1_700_000_000
SERIES = ("cpu", "disk", "memory")
BASELINE = [{"metric": name, "timestamp": START + 60 * i, "value": 50 + i % 5} for i in range(20) for name in SERIES]
SPIKES = [{"id": f"spike-{name}", "metric": name, "timestamp": START + 60 * 20 + k, "value": 95 + k} for k, name in enumerate(SERIES)]
CHANNELS = ("webhook", "email")
AT_ONCE = 4
WITHIN = 60  # seconds in which everything is sent after a start: builds may run beside us
STILL = 0.3  # seconds for which nothing more must come
MAX_AGE = 2  # seconds; in the runs with an outage

# Incidents are not to end meanwhile, and what is written in a message is to be the same in each run.
SETTINGS = {"WINDOW_SECONDS": 86_400, "NOTIFY_MAX_AGE_SECONDS": 0, "NOTIFY_GROUP_WAIT_SECONDS": 0.1, "EMAIL_RATE_LIMIT_SECONDS": 0, "PUBLIC_URL": "https://anomaly.example",
            "EMAIL_ENABLED": "true", "SMTP_HOST": "127.0.0.1", "SMTP_TLS": "none", "EMAIL_FROM": "anomaly@example.org", "EMAIL_TO": "ops@example.org"}


@dataclass
class Message:
    """What a sink has taken."""

    channel: str
    id: str
    content: bytes


class Sinks(ExitStack):
    """A webhook receiver and a mail server that count."""

    def __init__(self):
        super().__init__()
        self.hook, self.mail = self.enter_context(HttpSink()), self.enter_context(SmtpSink())

    @property
    def settings(self) -> dict:
        return SETTINGS | {"WEBHOOK_URL": f"{self.hook.url}/hook", "SMTP_PORT": self.mail.port}

    @property
    def messages(self) -> list[Message]:
        return [*(Message("webhook", one["headers"]["webhook-id"], one["body"]) for one in list(self.hook.received.all)),
                *(Message("email", one["mail"]["message-id"], one["raw"]) for one in list(self.mail.received.all))]


def told_about(messages: list[Message]) -> set[str]:
    """The incidents that webhooks are about."""
    return {incident["id"] for one in messages if one.channel == "webhook" for incident in json.loads(one.content)["data"]["incidents"]}


@dataclass
class Seen:
    """What a server says of itself in the end: without times of this run, so that two runs can be compared. An attempt counts when
    its outcome is marked, so there is one, and a message that was marked as sent and is sent again would show."""

    events: int
    anomalies: list[str]
    incidents: list[tuple]
    history: list[tuple]
    notifications: list[tuple]

    @classmethod
    def of(cls, server: Server) -> "Seen":
        incidents = server.get("/incidents", limit=1000)["incidents"]
        details = [server.get(f"/incidents/{one['id']}") for one in incidents]
        notifications = server.get("/notifications", limit=1000)["notifications"]
        return cls(events=sum(server.series_counts().values()), anomalies=[comparable(one) for one in server.anomalies()],
                   incidents=sorted((one["id"], one["series"], one["start"], one["end"], one["count"], one["severity"], one["state"]) for one in incidents),
                   history=[(one["incident"]["id"], *(entry["what"] for entry in one["history"])) for one in details],
                   notifications=sorted((one["id"], one["channel"], one["kind"], one["status"], one["attempts"], *one["incidents"]) for one in notifications))


@dataclass
class Run:
    """One event, a server that may have been killed over it, and what came of it."""

    kills: list[str] = field(default_factory=list)  # before which call, one a kill
    calls: list[str] = field(default_factory=list)  # those until the first kill, or until all was sent
    acked: bool = False  # before the first kill
    told_before: int = 0  # messages before the first kill
    messages: list[Message] = field(default_factory=list)
    seen: Seen | None = None
    faults: list[str] = field(default_factory=list)


def send(server: Server, events: list[dict]) -> bool:
    """Whether it was acknowledged."""
    try:
        answer = server.http.post("/events/raw", json=events[0]) if len(events) == 1 else server.post_batch(events)
        return answer.status_code == 202
    except httpx.TransportError:
        return False


def all_sent(server: Server, sinks: Sinks, within: float = WITHIN) -> bool:
    """Waits until each channel's message is marked as sent; false when the server dies meanwhile, or takes too long. It is asked
    only when the messages are there: its calls are to be its own."""
    deadline = time.monotonic() + within
    while server.alive and time.monotonic() < deadline:
        time.sleep(0.01)
        if not sinks.hook.received.all or not sinks.mail.received.all:
            continue
        try:
            notifications = server.get("/notifications")["notifications"]
        except httpx.TransportError:
            continue
        if {one["channel"] for one in notifications if one["status"] == "sent"} == set(CHANNELS) and all(one["status"] == "sent" for one in notifications):
            return True
    return False


def run_one(template: Path, folder: Path, events: list[dict], kill_at: int = 0, again_at: int = 0) -> Run:
    """A run that is killed before its `kill_at`-th call since the events were sent (0: never), and before the `again_at`-th of
    the start that follows."""
    run = Run()
    shutil.copytree(template, folder)
    with Sinks() as sinks, Server(folder, **sinks.settings) as server, Steps() as steps:
        with steps.attach(server.pid, kill_at):
            run.acked = send(server, events)
            all_sent(server, sinks)
            counted = steps.end()
        run.calls = counted["calls"]
        if counted["killed"]:
            run.kills.append(run.calls[-1])
            server.kill()
            time.sleep(0.05)  # what is on its way to the sinks
            run.told_before = len(sinks.messages)
            if again_at:
                kill_again(server, sinks, again_at, run)
            if not server.alive:
                server.kill()
                server.start()
            server.settle()
            existing = {one["id"] for one in server.get("/incidents")["incidents"]}
            if unknown := told_about(sinks.messages) - existing:
                run.faults.append(f"a message about incidents that are not there: {unknown}")
            if not run.acked and not send(server, events):
                run.faults.append("the event is not taken after the start")
        else:  # all is marked, so nothing is sent again
            server.kill()
            server.start()
        if not all_sent(server, sinks):
            run.faults.append(f"not all sent within {WITHIN} s: {server.get('/notifications')['notifications'] if server.alive else 'it died: ' + server.log()[-500:]}")
        time.sleep(STILL)
        server.settle()
        run.messages, run.seen = sinks.messages, Seen.of(server)
    shutil.rmtree(folder, ignore_errors=True)
    return run


def kill_again(server: Server, sinks: Sinks, again_at: int, run: Run) -> None:
    with Steps() as steps:
        server.spawn()
        steps.attach(server.pid, again_at)
        # An event in doubt is sent only after the last start, so there may be nothing to send now.
        if run.acked:
            all_sent(server, sinks)
        elif server.wait_ready():
            server.wait_exit(0.5)
        counted = steps.end()
        if counted["killed"]:
            run.kills.append(f"{counted['calls'][-1]} of the next start")


def judge(run: Run, oracle: Run) -> list[str]:
    """Everything in which a run is not as it must be."""
    faults = list(run.faults)
    for name, found in vars(run.seen).items():
        if found != (expected := getattr(oracle.seen, name)):
            faults.append(f"{name}: {found}, expected {expected}")
    expected = {(one.channel, one.id) for one in oracle.messages}
    found = Counter((one.channel, one.id) for one in run.messages)
    faults += [f"lost: {channel} {id}" for channel, id in expected - found.keys()]
    faults += [f"another message: {channel} {id}" for channel, id in found.keys() - expected]
    faults += [f"{n} times after {len(run.kills)} kills: {channel} {id}" for (channel, id), n in found.items() if n > 1 + len(run.kills)]
    faults += [f"a repeat with other bytes: {channel} {id}" for channel, id in found if len({one.content for one in run.messages if (one.channel, one.id) == (channel, id)}) > 1]
    return faults


def baseline(folder: Path) -> Path:
    """A data directory with ordinary values of three series."""
    with Server(folder, **SETTINGS | {"EMAIL_ENABLED": "false"}) as server:
        assert (answer := server.post_batch(BASELINE)).status_code == 202, answer.text
        server.settle()
        server.terminate()
    return folder


def run(folder: Path, at_most: int | None = None, batch: int = 0, twice: int = 0, outages: int = 0, seed: int = 4, say=print) -> list[Result]:
    """Kills at every call after a single event, or at `at_most` of them; at `batch` of the calls after a batch; `twice` more runs
    that are killed again while they start; and `outages` runs that are started only when the event has grown old."""
    rng, template = random.Random(seed), baseline(folder / "template")
    oracle = uninterrupted(template, folder / "single", SPIKES[:1], say)
    found = sweep(template, folder, SPIKES[:1], oracle, at_most, twice, rng, say)
    if batch:
        found += sweep(template, folder, SPIKES, uninterrupted(template, folder / "batch", SPIKES, say), batch, 0, rng, say)
    return found + (after_outages(folder, oracle, outages, say) if outages else [])


def uninterrupted(template: Path, folder: Path, events: list[dict], say) -> Run:
    """What the others are compared with."""
    oracle = run_one(template, folder, events)
    say(f"  events: {len(events)}, system calls: {len(oracle.calls)}: {', '.join(f'{name} {k}' for name, k in Counter(oracle.calls).most_common())}")
    assert not (faults := judge(oracle, oracle)) and len(oracle.messages) == len(CHANNELS), (faults, oracle.messages)
    return oracle


def first_of(call: str, oracle: Run) -> int:
    """Where it is among the calls; about the middle where they have no names."""
    return oracle.calls.index(call) if call in oracle.calls else len(oracle.calls) // 2


def sweep(template: Path, folder: Path, events: list[dict], oracle: Run, at_most: int | None, twice: int, rng: random.Random, say) -> list[Result]:
    n = len(oracle.calls)
    points = list(range(1, n + 1))
    if at_most and at_most < n:
        # A half before the first message goes out and a half from there on; in each evenly, a point anywhere in its share.
        half, first = at_most // 2, first_of("connect", oracle)
        points = [rng.choice(part[len(part) * i // k:max(len(part) * (i + 1) // k, 1)]) for part, k in ((points[:first], half), (points[first:], at_most - half)) for i in range(k)]
    plan = [(at, 0) for at in points] + [(rng.randrange(1, n + 1), rng.randrange(1, n + 1)) for _ in range(twice)]
    lock, runs, wrong = threading.Lock(), [], []

    def one(number: int) -> None:
        at, again = plan[number]
        try:
            done = run_one(template, folder / f"run{len(events)}-{number}", events, at, again)
            kills, faults = ", ".join(done.kills) or "not reached", judge(done, oracle)
        except Exception as fault:  # the others still tell what they find
            done, kills, faults = None, "not finished", [f"{type(fault).__name__}: {str(fault)[:1000]}"]
        with lock:
            runs.extend([done] if done else [])
            wrong.extend(told := [f"call {at}{f' and {again}' if again else ''} ({kills}): {fault}" for fault in faults])
            for fault in told:
                say(f"  {fault}")
            if len(runs) % 50 == 0:
                say(f"  {len(runs)} of {len(plan)} runs, {len(wrong)} faults")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, range(len(plan))))
        # A run may take some more calls than the one in which they were counted: on until none of several is reached.
        while not at_most and (reached := sum(bool(run.kills) for run in runs)) and not wrong:
            plan += [(n + i, 0) for i in range(1, 2 * AT_ONCE + 1)]
            n += 2 * AT_ONCE
            list(pool.map(one, range(len(plan) - 2 * AT_ONCE, len(plan))))
            if sum(bool(run.kills) for run in runs) == reached:
                break
    return results(runs, oracle, wrong, events, whole=not at_most)


def results(runs: list[Run], oracle: Run, wrong: list[str], events: list[dict], whole: bool) -> list[Result]:
    killed = [run for run in runs if run.kills]
    kills, repeated = sum(len(run.kills) for run in runs), [run for run in runs if len(run.kills) > 1]
    unanswered, silent = sum(not run.acked for run in killed), sum(run.acked and run.told_before == 0 for run in killed)
    ids = {(one.channel, one.id) for one in oracle.messages}
    counts = [Counter((one.channel, one.id) for one in run.messages) for run in runs]
    wanted, delivered = len(ids) * len(runs), sum(count.total() for count in counts)
    lost, others = sum(len(ids - count.keys()) for count in counts), sum(len(count.keys() - ids) for count in counts)
    repeats = delivered - sum(map(len, counts))
    most = max((n - 1 for count in counts for n in count.values()), default=0)
    afterwards = sum(max(0, len(ids) - run.told_before) for run in killed if run.acked)
    n_calls = max((len(run.calls) for run in killed), default=0) if whole else len(oracle.calls)
    what = "a single event" if len(events) == 1 else f"a batch with anomalies of {len(events)} series"
    found = [
        Result(f"{kills} kill -9 at {'each' if whole else 'some'} of the {n_calls} system calls between {what} and the mark that its alert was sent: {unanswered} before it was acknowledged, "
               f"{silent} before anybody was told, {len(killed) - unanswered - silent} later; {len(repeated)} killed again in the next start, {len(runs) - len(killed)} not reached",
               "event, anomaly, incident, notification are there once, with the ids of an uninterrupted run; nobody hears of an incident that is not there", "; ".join(wrong[:5]) or f"equal in {len(runs)} of {len(runs)} runs", not wrong),
        Result(f"webhooks and emails of these {len(runs)} runs", "none lost; exactly one a channel after the receiver's deduplication by id; a repeat has the same bytes, and is at most one a kill",
               f"lost {lost} of {wanted}, delivered {delivered}: {repeats} repeats before deduplication (at most {most} of one message), {others} after it", not (lost or others or wrong)),
    ]
    if whole:
        found.append(Result("control: a receiver that does not deduplicate, a server that forgets what it has to send", "the one would see repeats, the other lose messages, else the rig has no teeth",
                            f"{repeats} repeats, {afterwards} messages that only the next start sent", repeats > 0 and afterwards > 0))
    return found


def after_outages(folder: Path, oracle: Run, n: int, say) -> list[Result]:
    """Kills between the answer and the mark, each followed by an outage longer than NOTIFY_MAX_AGE_SECONDS. The event was fresh when
    it came, so it is told."""
    answer = first_of("writev", oracle) + 1
    points = [answer + (len(oracle.calls) - answer) * i // n + 1 for i in range(n)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda at: after_outage(folder / f"outage{at}", at), points))
    wrong = [f"call {at}: {fault}" for at, (_, fault) in zip(points, found) if fault]
    for fault in wrong:
        say(f"  outage: {fault}")
    return [Result(f"{n} kill -9 between an event's acknowledgement and the mark, then an outage longer than NOTIFY_MAX_AGE_SECONDS", "an event that came in time is told once a channel, not taken for old data",
                   "; ".join(wrong[:5]) or f"told in {sum(acked for acked, _ in found)} of {n}, the others were not acknowledged", not wrong and any(acked for acked, _ in found))]


def after_outage(folder: Path, kill_at: int) -> tuple[bool, str]:
    """Whether the event was acknowledged; what is wrong."""
    with Sinks() as sinks, Server(folder, **sinks.settings | {"NOTIFY_MAX_AGE_SECONDS": MAX_AGE}) as server, Steps() as steps:
        now = time.time()
        assert server.post_batch([event | {"timestamp": now - 3600 + event["timestamp"] - START} for event in BASELINE]).status_code == 202
        server.settle()
        with steps.attach(server.pid, kill_at):
            acked = send(server, [SPIKES[0] | {"timestamp": time.time()}])
            all_sent(server, sinks)
            killed = steps.end()["killed"]
        if killed:
            server.kill()
            time.sleep(MAX_AGE + 0.5)
            server.start()
        if not acked:
            return False, ""
        sent = all_sent(server, sinks, within=10)
        time.sleep(STILL)
        n = Counter(one.channel for one in sinks.messages)
        ids = Counter(channel for channel, _ in {(one.channel, one.id) for one in sinks.messages})
        return True, "" if sent and ids == Counter(CHANNELS) else f"messages {dict(n)}, notifications {server.get('/notifications')['notifications']}"
