"""The judge of a chaos run says so when a replica needs too much, or answers too slowly."""

from __future__ import annotations

import pytest

from tests.chaos.killer import Outcome, judge
from tests.chaos.watch import Worst


def test_what_is_within_bounds_is_no_violation() -> None:
    outcome = Outcome()
    judge(Worst(200 << 20, 80, 1 << 20, [0.002] * 10 + [0.4]), outcome)
    assert outcome.violations == []


@pytest.mark.parametrize(
    ("worst", "what"),
    [
        (Worst(rss_bytes=500 << 20), "memory of a replica: 500 MB"),
        (Worst(files=201), "open files: 201"),
        (Worst(spool_bytes=9 << 20), "spool: 9216 kB"),
        (Worst(health_s=[0.3] * 3), "/healthz: 300 ms in the median"),
        (Worst(health_s=[0.002] * 10 + [5.0]), "/healthz: 2 ms in the median, 5000 ms at most"),
    ],
)
def test_what_is_beyond_a_bound_is_one(worst: Worst, what: str) -> None:
    outcome = Outcome()
    judge(worst, outcome)
    [violation] = outcome.violations
    assert violation.startswith(f"I6 {what}")
