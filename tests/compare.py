"""Comparing the anomalies that two ways of running gave, as text."""
import re
from collections import defaultdict

from server import comparable


def grouped(anomalies: list[str], key=lambda series: series) -> dict[str, list[str]]:
    """The anomalies by series (or what `key` makes of its name), in order, without what may differ offline."""
    found = defaultdict(list)
    for anomaly in anomalies:
        text = comparable(anomaly)
        found[key(re.search(r'"series":"((?:[^"\\]|\\.)*)"', text)[1])].append(text)
    return dict(found)


def difference(found: dict[str, list[str]], expected: dict[str, list[str]]) -> str:
    """The first place where two sets of anomalies differ, in words; empty when they are equal."""
    for name in sorted(found.keys() | expected.keys()):
        a, b = found.get(name, []), expected.get(name, [])
        if a != b:
            at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
            return f"{name}: {len(a)} anomalies, {len(b)} expected; the first difference is number {at}:\n  found    {a[at:at + 1]}\n  expected {b[at:at + 1]}"
    return ""
