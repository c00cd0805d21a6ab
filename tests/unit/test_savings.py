"""The savings report adds up what the ledger knows of each image."""

from __future__ import annotations

import statistics
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from imgsvc.reports.savings import Savings


def done(before: int, after: int, kind: str = "jpeg", **ms: int) -> dict[str, Any]:
    return {
        "url": "https://a.example/1.jpg",
        "status": "COMPLETED",
        "format": kind,
        "bytesIn": before,
        "bytesOut": after,
        "ms": ms,
    }


def failed(code: str, url: str, **ms: int) -> dict[str, Any]:
    return {"url": url, "status": "FAILED", "error": {"code": code}, "ms": ms}


def told(*images: dict[str, Any]) -> dict[str, Any]:
    savings = Savings()
    savings.add(images)
    return savings.summary()


def test_bytes_are_told_in_total_and_by_format() -> None:
    report = told(done(100, 50), done(300, 100), done(1000, 990, "png"))
    assert (report["bytesIn"], report["bytesOut"], report["savedShare"]) == (1400, 1140, 0.1857)
    assert report["formats"] == [
        {"format": "png", "images": 1, "bytesIn": 1000, "bytesOut": 990, "savedShare": 0.01},
        {"format": "jpeg", "images": 2, "bytesIn": 400, "bytesOut": 150, "savedShare": 0.625},
    ]


def test_images_are_counted_by_status_and_errors_by_code() -> None:
    report = told(
        done(2, 1),
        {"url": "https://a.example/2.jpg", "status": "PENDING", "ms": {"fetch": 7}},
        {"url": "https://a.example/3.jpg", "status": "CANCELLED"},
        failed("FETCH_STATUS", "https://b.example/1.jpg"),
        failed("NOT_AN_IMAGE", "https://b.example/2.jpg"),
        failed("FETCH_STATUS", "https://b.example/3.jpg"),
    )
    assert report["images"] == {
        "total": 6,
        "pending": 1,
        "completed": 1,
        "failed": 3,
        "cancelled": 1,
    }
    assert report["errors"] == [
        {"code": "FETCH_STATUS", "images": 2},
        {"code": "NOT_AN_IMAGE", "images": 1},
    ]
    assert report["stagesMs"]["fetch"] is None  # of an image that is tried again it is too early


def test_percentiles_are_values_that_were_there() -> None:
    report = told(*(done(1000, 1000 - i, fetch=i) for i in range(1, 101)))
    assert report["perImage"]["savedShare"] == {"p50": 0.05, "p90": 0.09, "p99": 0.099}
    assert report["perImage"]["bytesOut"] == {"p50": 949, "p90": 989, "p99": 998}
    assert report["stagesMs"] == {"fetch": {"p50": 50, "p95": 95}, "compress": None, "upload": None}


def test_the_slowest_origins_come_first_with_what_failed_there() -> None:
    slow = "https://Slow.example:8443/a"
    report = told(
        done(2, 1, fetch=10),
        done(2, 1, fetch=30),
        done(2, 1),  # shared, or from before times were kept
        failed("FETCH_TIMEOUT", slow, fetch=30_000),
        failed("FETCH_STATUS", slow, fetch=90),
        failed("FETCH_STATUS", slow, fetch=100),
        *(failed("FETCH_STATUS", f"http://{i}.example/", fetch=1) for i in range(20)),
    )
    assert len(report["slowestOrigins"]) == 10
    assert report["slowestOrigins"][:2] == [
        {
            "origin": "slow.example:8443",
            "images": 3,
            "failed": 3,
            "medianMs": 100,
            "maxMs": 30_000,
        },
        {"origin": "a.example", "images": 2, "failed": 0, "medianMs": 10, "maxMs": 30},
    ]


def test_of_nothing_nothing_is_told() -> None:
    report = told()
    assert (report["bytesIn"], report["savedShare"], report["formats"]) == (0, None, [])
    assert report["perImage"] == {"bytesIn": None, "bytesOut": None, "savedShare": None}


@given(st.lists(st.integers(1, 10**12), min_size=1), st.integers(1, 9))
def test_in_parts_or_at_once_is_the_same(sizes: list[int], size: int) -> None:
    images = [done(before, before // 2, fetch=before) for before in sizes]
    parts = Savings()
    for start in range(0, len(images), size):
        parts.add(images[start : start + size])
    assert parts.summary() == told(*images)
    assert parts.summary()["perImage"]["bytesIn"]["p50"] == statistics.median_low(sizes)
