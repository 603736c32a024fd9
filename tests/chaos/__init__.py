"""Long failure runs: power cuts, kill -9 (of alerts too), full disks, failing disks, slow clients, huge files; roles whose Redis fails.

`python -m chaos` runs all of them and writes docs/reliability.md (that is `make chaos`); test_durability.py and test_redis_failures.py
run a slice.
"""
from dataclasses import dataclass


@dataclass
class Result:
    """One line of the report: what was done, what is required, what was seen."""

    what: str
    required: str
    measured: str
    passed: bool

    def __str__(self) -> str:
        return f"{'ok  ' if self.passed else 'FAIL'} {self.what}: {self.measured} (required: {self.required})"
