"""What river's rolling mean and variance cost an event, with the z-score of each value by those before it."""
import random
import time

from river import stats, utils

EVENTS = 100_000

mean, variance = utils.Rolling(stats.Mean, window_size=300), utils.Rolling(stats.Var, window_size=300)
rng = random.Random(1)
values = [50 + rng.random() for _ in range(EVENTS)]
started, fired = time.process_time(), 0
for value in values:
    spread = variance.get() ** 0.5
    fired += spread > 0 and abs(value - mean.get()) / spread >= 3
    mean.update(value)
    variance.update(value)
print(f"{(time.process_time() - started) / EVENTS * 1e9:.0f}")
