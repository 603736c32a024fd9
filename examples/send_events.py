#!/usr/bin/env python3
"""Sends 20 values near 50 and then 95 to a running server, and prints the anomaly that this causes.

    pip install httpx
    python examples/send_events.py [http://127.0.0.1:8000]
"""
import sys
import time
import uuid

import httpx

url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
metric = f"example_cpu_usage_{uuid.uuid4().hex[:6]}"  # a new name in each run, so that its window is empty
values = [50.0 + i % 10 for i in range(20)] + [95.0]
start = time.time() - len(values)

with httpx.Client(base_url=url, timeout=10) as client:
    for i, value in enumerate(values):
        event = {"timestamp": start + i, "metric": metric, "value": value, "meta": {"host": "server-01"}}
        client.post("/events/raw", json=event).raise_for_status()

    deadline = time.monotonic() + 10
    while not (anomalies := client.get("/anomalies", params={"metric": metric}).raise_for_status().json()["anomalies"]):
        if time.monotonic() > deadline:
            sys.exit(f"no anomaly of {metric} after 10 s")
        time.sleep(0.05)

for anomaly in anomalies:
    print(f"{anomaly['severity']}: {anomaly['metric']} = {anomaly['value']}, z = {anomaly['z_score']:.2f}")
    print(anomaly["explanation"])
